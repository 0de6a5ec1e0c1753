from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import fastdeconv as fd
from fastdeconv.cli import main
from fastdeconv.report import atlas_excerpts, atlas_songs
from fastdeconv.report.atlas import write_atlas

from .conftest import atlas_of

SILENT = 2


@pytest.fixture(scope="module")
def surveyed(make_survey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    make_survey(folder)
    write_atlas(folder / "out", audio_format="wav")
    return folder


@pytest.fixture
def copied(surveyed, tmp_path):
    """A copy whose files may be changed, with the atlas that was written."""
    shutil.copytree(surveyed, tmp_path / "copy")
    return tmp_path / "copy"


def write(folder, **how):
    return write_atlas(folder / "out", root=folder / "music", audio_format="wav", **how)


def files_of(folder):
    place = folder / "out" / "atlas"
    return {path.name: path.read_bytes() for path in place.rglob("*") if path.is_file()}


def excerpt_sound(folder, excerpt, which):
    path = folder / "out" / f"{excerpt['file']}_{which}.wav"
    return soundfile.read(path, dtype="float32")[0]


# --- what is there -------------------------------------------------------------------------


def test_every_feature_has_its_strongest_excerpts_of_different_songs(surveyed):
    exemplars = fd.Survey.load(surveyed / "out").exemplars.to_pylist()
    data = atlas_of(surveyed)
    for feature in data["features"]:
        wanted = [row for row in exemplars if row["feature"] == feature["k"]]
        found = [(data["tracks"][one["track"]], one["score"]) for one in feature["excerpts"]]
        assert [track for track, _ in found] == [row["track"] for row in wanted]
        assert [score for _, score in found] == pytest.approx(
            [row["score"] for row in wanted], rel=1e-4
        )
        for one in feature["excerpts"]:
            for suffix in ("heard.wav", "heard.png", "original.wav", "original.png"):
                assert (surveyed / "out" / f"{one['file']}_{suffix}").stat().st_size > 0


def test_a_feature_that_never_fires_is_marked_and_has_no_excerpts(surveyed):
    silent = [feature["k"] for feature in atlas_of(surveyed)["features"] if feature["silent"]]
    assert silent == [SILENT]
    assert atlas_of(surveyed)["features"][SILENT]["excerpts"] == []


def test_features_that_fire_as_one_are_twins_of_the_first(surveyed):
    twins = [feature["twin"] for feature in atlas_of(surveyed)["features"]]
    assert twins[:3] == [None, 0, None]


def test_an_excerpt_holds_the_maximum_inside_of_what_its_unit_sees(surveyed):
    for feature in atlas_of(surveyed)["features"]:
        for one in feature["excerpts"]:
            left, right, bottom, top = (share / 100 for share in one["field"])
            assert 0 <= left < right <= 1 and 0 <= bottom < top <= 1
            assert one["begin"] + left * one["seconds"] - 0.02 <= one["at"]
            assert one["at"] <= one["begin"] + right * one["seconds"] + 0.02
            assert 0.9 < one["seconds"] < 1.2


def test_what_is_heard_is_what_explain_makes_of_the_same_window(surveyed, make_survey):
    data = atlas_of(surveyed)
    network = fd.Network.load(surveyed / "out" / "network.npz")
    rows = fd.Survey.load(surveyed / "out").exemplars.to_pylist()
    one = data["features"][4]["excerpts"][0]
    row = next(row for row in rows if row["feature"] == 4 and row["rank"] == 0)
    explained = fd.explain(
        surveyed / "music" / row["track"], network, "pool1", [4], offset=row["start"]
    )
    for which, sound in [("heard", explained.sound("pool1", 4)),
                         ("original", explained.clip.samples)]:
        found = excerpt_sound(surveyed, one, which)
        begin = round((one["begin"] - row["start"]) * 8000)
        candidates = [sound[i : i + found.size] for i in range(max(0, begin - 50), begin + 50)]
        inside = slice(200, -200)
        likeness = max(np.corrcoef(c[inside], found[inside])[0, 1] for c in candidates
                       if c.size == found.size)
        assert likeness > 0.9999


def test_no_cut_is_a_click(surveyed):
    for feature in atlas_of(surveyed)["features"]:
        for one in feature["excerpts"]:
            for which in ("heard", "original"):
                sound = excerpt_sound(surveyed, one, which)
                assert np.abs(sound[[0, -1]]).max() < 1e-3 < np.abs(sound).max()


def test_a_song_shorter_than_a_window_gives_excerpts_without_the_silence_behind_it(
    tmp_path, make_survey
):
    (tmp_path / "music").mkdir()
    samples = 0.3 * np.random.default_rng(1).standard_normal(6400)
    soundfile.write(tmp_path / "music" / "short.wav", samples, 8000)
    make_survey(tmp_path, names=())
    write(tmp_path)
    excerpts = [one for feature in atlas_of(tmp_path)["features"] for one in feature["excerpts"]]
    assert excerpts
    for one in excerpts:
        assert one["begin"] + one["seconds"] <= 0.8
        assert np.abs(excerpt_sound(tmp_path, one, "original")[-400:-100]).max() > 0.05


# --- again ---------------------------------------------------------------------------------


def test_nothing_is_made_again(copied, monkeypatch):
    before = files_of(copied)
    write(copied)  # the copies of the songs may have other times
    monkeypatch.setattr(atlas_excerpts, "load_song", None)
    found = write(copied)
    assert found.excerpts == 5 * 7 and found.missing == {}
    assert {name.split("_")[0] for name in files_of(copied)} == {
        name.split("_")[0] for name in before
    }


def test_what_a_killed_run_left_is_completed(copied):
    write(copied)
    whole = files_of(copied)
    for i, path in enumerate(sorted((copied / "out" / "atlas").rglob("*"))):
        if path.is_file() and i % 3 == 0:
            path.unlink()
        elif path.suffix == ".json" and i % 3 == 1:
            path.write_text(path.read_text()[:20])
    write(copied)
    assert files_of(copied) == whole


def test_the_same_survey_gives_the_same_bytes(surveyed, tmp_path):
    found = []
    for name in ("one", "two"):
        out = tmp_path / name
        shutil.copytree(surveyed / "out", out, ignore=shutil.ignore_patterns("atlas"))
        write_atlas(out, audio_format="ogg")
        found.append({
            path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()
        })
    assert found[0] == found[1]


def test_files_that_no_excerpt_needs_any_more_go_and_others_stay(copied):
    write(copied)
    place = copied / "out" / "atlas" / "pool1"
    (place / "notes.txt").write_text("mine")
    (place / f"4_{'0' * 20}_heard.wav").write_bytes(b"old")
    write(copied, shown=2)
    names = {path.name for path in place.iterdir()}
    assert len(names) == 5 * 2 * 5 + 1 and "notes.txt" in names


def test_a_full_disk_stops_it_and_the_page_stays_as_it_was(copied, monkeypatch):
    page = (copied / "out" / "index.html").read_bytes()
    shutil.rmtree(copied / "out" / "atlas")
    write_bytes = Path.write_bytes

    def write_until_full(path, data):
        if path.name.endswith("_heard.wav"):
            write_bytes(path, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, data)

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", write_until_full)
        with pytest.raises(OSError, match="No space left"):
            write(copied)
    assert (copied / "out" / "index.html").read_bytes() == page
    assert write(copied).excerpts == 5 * 7
    sound = excerpt_sound(copied, atlas_of(copied)["features"][4]["excerpts"][0], "heard")
    assert sound.size > 7000


# --- tracks that are gone or changed -------------------------------------------------------


def test_a_spare_takes_the_place_of_a_track_that_is_gone(copied):
    before = atlas_of(copied)
    gone = before["tracks"][before["features"][4]["excerpts"][0]["track"]]
    (copied / "music" / gone).unlink()
    found = write(copied, shown=3)
    data = atlas_of(copied)
    tracks = [data["tracks"][one["track"]] for one in data["features"][4]["excerpts"]]
    wanted = [before["tracks"][one["track"]] for one in before["features"][4]["excerpts"]]
    assert tracks == wanted[1:4]
    assert found.missing == {gone: "No such file or directory"}
    page = (copied / "out" / "index.html").read_text(encoding="utf-8")
    assert f"{gone}: No such file or directory" in page


@pytest.mark.parametrize("change", ["other sound", "shorter", "no sound"])
def test_a_spare_takes_the_place_of_a_track_that_changed(copied, change):
    path = copied / "music" / "song 3.wav"
    samples, sr = soundfile.read(path)
    if change == "other sound":
        soundfile.write(path, 0.5 * samples[::-1], sr)
    elif change == "shorter":
        soundfile.write(path, samples[:4000], sr)
    else:
        path.write_bytes(b"nothing")
    found = write(copied)
    assert found.excerpts == 5 * 6 and list(found.missing) == ["song 3.wav"]
    assert "song 3.wav" not in atlas_of(copied)["tracks"]


# --- songs, tags, control ------------------------------------------------------------------


def test_a_song_and_the_atlas_link_to_each_other(copied):
    write(copied)
    song = fd.explain(copied / "music" / "song 3.wav", copied / "out" / "network.npz", "pool1")
    folder = song.save(copied / "out" / "songs")
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert 'href="../../index.html#search=song%203.wav"' in page
    write(copied)
    pages = {one["name"]: one["page"] for one in atlas_of(copied)["songs"]}
    assert pages.pop("song 3.wav") == "songs/song%203/index.html"
    assert set(pages.values()) == {None}


def test_a_song_of_another_network_does_not_link_to_the_atlas(copied):
    song = fd.explain(copied / "music" / "song 3.wav", features=[0], layers="pool1")
    page = song.save(copied / "out" / "songs") / "index.html"
    assert "../../index.html" not in page.read_text(encoding="utf-8")


def test_every_song_is_listed_with_the_features_that_stand_out_in_it(surveyed):
    data = atlas_of(surveyed)
    assert [one["name"] for one in data["songs"]] == [f"song {i}.wav" for i in range(7)]
    assert any(one["features"] for one in data["songs"])
    assert all(0 <= i < 6 for one in data["songs"] for i in one["features"])


def test_songs_that_are_not_searched_are_counted(copied, monkeypatch):
    monkeypatch.setattr(atlas_songs, "MOST_SONGS", 3)
    write(copied)
    assert len(atlas_of(copied)["songs"]) == 3
    page = (copied / "out" / "index.html").read_text(encoding="utf-8")
    assert "4 tracks: the search knows 3 tracks" in page


def tagged(make_survey, folder, network=None):
    table = folder / "tags.csv"
    if not table.exists():
        rows = [f"song {i}.wav,{100 + 7 * i},{'loud' if i % 2 else 'soft'}" for i in range(7)]
        table.write_text("\n".join(["track,tempo,mood", *rows]) + "\n")
    return make_survey(folder, tags=table, network=network)


def test_tags_come_with_q_values_and_without_a_control_the_page_says_so(make_survey, tmp_path):
    tagged(make_survey, tmp_path)
    write(tmp_path)
    data = atlas_of(tmp_path)
    tags = data["features"][4]["tags"]
    assert {data["attributes"][tag["attribute"]]["name"] for tag in tags} == {"tempo", "mood"}
    effects = [tag["effect"] for tag in tags]
    assert effects == sorted(effects, reverse=True)
    assert all(tag["control"] is None and 0 <= tag["q"] <= 1 for tag in tags)
    mood = next(tag for tag in tags if data["attributes"][tag["attribute"]]["name"] == "mood")
    assert mood["excerpts"] == "soft 4 of 7 (of all 57 %)"
    assert "No control was run" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_what_the_untrained_control_has_too_is_marked(make_survey, tmp_path):
    tagged(make_survey, tmp_path)
    # The same survey for a control: every feature has its equal there.
    shutil.copytree(tmp_path / "out", tmp_path / "control")
    shutil.move(tmp_path / "control", tmp_path / "out" / "control")
    write(tmp_path)
    data = atlas_of(tmp_path)
    assert all(tag["control"] for one in data["features"] for tag in one["tags"])
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "No control was run" not in page.split('id="data"')[0]


# --- networks of other kinds ---------------------------------------------------------------


def network_of(frontend, shape, kernel, pool):
    rng = np.random.default_rng(0)
    return fd.Network(
        [
            {"type": "conv2d", "name": "conv1"}, {"type": "relu", "name": "relu1"},
            {"type": "max_pool2d", "name": "pool1", "kernel_size": pool},
        ],
        {"conv1.weight": rng.uniform(0, 1, (3, 1, *kernel)), "conv1.bias": np.zeros(3)},
        shape, frontend=frontend,
    )


def test_sounds_that_cannot_be_ogg_are_wav(make_survey, tmp_path):
    frontend = fd.Frontend(sr=250_000, n_fft=8192, hop_length=4096)
    network = network_of(frontend, (1, 4097, None), (3, 3), 2)
    make_survey(tmp_path, names=("one.wav",), network=network)
    write_atlas(tmp_path / "out", audio_format="ogg")
    assert atlas_of(tmp_path)["suffix"] == "wav"
    assert {path.suffix for path in (tmp_path / "out" / "atlas" / "pool1").iterdir()} == {
        ".json", ".png", ".wav"
    }


@pytest.mark.parametrize("network", [
    network_of(fd.Frontend(sr=8000, n_fft=256, hop_length=128), (1, 129, None), (3, 3), 2),
    network_of(
        fd.Frontend(kind="mel", sr=8000, n_fft=256, hop_length=128, n_mels=20, layout="CTF",
                    frames=100),
        (1, 100, 20), (3, 5), (2, 1),
    ),
    network_of(fd.Frontend(kind="waveform", sr=8000, frames=12000), (1, 1, 12000), (1, 9), (1, 4)),
], ids=["any length", "mel, time first", "waveform"])
def test_every_kind_of_network_has_an_atlas(make_survey, tmp_path, network):
    make_survey(tmp_path, names=("one.wav", "two.wav"), network=network, seconds=1.5)
    assert write(tmp_path).excerpts == 3 * 2
    for feature in atlas_of(tmp_path)["features"]:
        for one in feature["excerpts"]:
            left, right = (share / 100 * one["seconds"] for share in one["field"][:2])
            frame = 0.065  # of the coarsest pictures among these
            assert left - frame <= one["at"] - one["begin"] <= right + frame
            assert np.abs(excerpt_sound(tmp_path, one, "heard")).max() > 0.5


def test_the_command_survey_writes_the_atlas_unless_it_is_told_not_to(copied):
    arguments = ["survey", str(copied / "music"), "-o", str(copied / "out"), "--network",
                 str(copied / "out" / "network.npz"), "--layers", "pool1"]
    page = copied / "out" / "index.html"
    page.unlink()
    result = CliRunner().invoke(main, [*arguments, "--no-atlas"])
    assert result.exit_code == 0 and not page.exists()
    result = CliRunner().invoke(main, arguments)
    assert f"Open {page} (35 excerpts)" in result.output
    assert page.exists()


# --- refused -------------------------------------------------------------------------------


def test_another_network_is_refused(copied):
    with pytest.raises(fd.ParameterError, match="not the one that the survey was made with"):
        write(copied, net=fd.pretrained("choi5-genre"))


def test_a_folder_without_a_survey_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(fd.ParameterError, match="no survey"):
        write_atlas(tmp_path)


def test_a_page_that_is_not_ours_is_not_replaced(copied):
    (copied / "out" / "index.html").write_text("<p>mine</p>")
    with pytest.raises(fd.ParameterError, match="not a page of fastdeconv"):
        write(copied)
    assert (copied / "out" / "index.html").read_text() == "<p>mine</p>"


@pytest.mark.parametrize("how", [
    {"rule": "none"}, {"start": "all"}, {"mode": "loud"}, {"audio_format": "mp3"}, {"shown": 0},
])
def test_impossible_settings_are_refused(surveyed, how):
    with pytest.raises(fd.ParameterError, match=next(iter(how))):
        write_atlas(surveyed / "out", **how)


def test_the_survey_itself_is_left_as_it_was(surveyed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(surveyed / "out", out)
    before = {path: path.read_bytes() for path in out.rglob("*.parquet")}
    write_atlas(out, audio_format="wav")
    assert before == {path: path.read_bytes() for path in Path(out).rglob("*.parquet")}
