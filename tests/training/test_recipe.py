"""The training recipe, without its data and without PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.card import table
from training.data import RandomClips, grid_clips, split_tracks, tilted
from training.evaluate import Scores
from training.fetch import fetch, sha256
from training.manifest import find_tracks, load_sources, parse_sources
from training.prepare import Prepared, open_samples, prepare
from training.settings import Split, load_settings

SOURCE = """
[[package]]
name = "songs"
version = "1-1"
sha256 = "{sha}"
[[package.group]]
artist = "A"
label = "metal"
licence = "MIT"
credit = "A"
files = ["{files}"]
{more}
"""


def source(sha="0" * 64, files="music/*.ogg", more=""):
    return SOURCE.format(sha=sha, files=files, more=more)


def track(name, artist, label, n_samples=1000):
    return Prepared(name, "songs", artist, label, "MIT", artist, n_samples, name + ".npy")


@pytest.fixture
def tracks():
    owners = {"a": "metal", "b": "metal", "c": "electronic", "d": "electronic"}
    return [track(f"{o}{k}", o, label) for o, label in owners.items() for k in range(7)]


def test_sources_are_pinned_and_freely_licensed():
    packages = load_sources()
    licences = {group.licence for package in packages for group in package.groups}
    assert len({package.sha256 for package in packages}) == len(packages)
    assert all(licence.startswith(("CC-BY-", "BSD-", "MIT")) for licence in licences)
    assert not any("NC" in licence or "ND" in licence for licence in licences)


def test_settings_name_test_artists_and_classes_of_the_sources():
    settings, packages = load_settings(), load_sources()
    groups = [group for package in packages for group in package.groups]
    assert set(settings.split.test_artists) < {group.artist for group in groups}
    assert set(settings.classes) == {group.label for group in groups}


def test_every_class_has_an_artist_to_train_on_and_one_to_test():
    settings = load_settings()
    groups = [group for package in load_sources() for group in package.groups]
    for label in settings.classes:
        own = {group.artist for group in groups if group.label == label}
        assert own & set(settings.split.test_artists)
        assert own - set(settings.split.test_artists)


def test_the_demo_song_is_left_out_of_the_tracks(tmp_path):
    (package,) = [p for p in load_sources() if p.name == "fretsonfire-songs-sectoid"]
    songs = tmp_path / "usr/share/games/fretsonfire/data/songs/sectoid"
    for song in ("Feelings", "War of freedom"):
        (songs / song).mkdir(parents=True)
    (found,) = find_tracks(package, tmp_path)
    assert found.id.endswith("War of freedom")
    assert [path.name for path in found.paths] == ["song.ogg", "guitar.ogg"]


def test_tracks_come_in_a_fixed_order_without_the_excluded(tmp_path):
    (tmp_path / "music").mkdir()
    for name in ("c.ogg", "a.ogg", "b.ogg", "a.txt"):
        (tmp_path / "music" / name).touch()
    (package,) = parse_sources(source(more='exclude = ["music/b*"]'))
    found = [track.id for track in find_tracks(package, tmp_path)]
    assert found == ["songs/music/a", "songs/music/c"]


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path):
    (package,) = parse_sources(source())
    with pytest.raises(ValueError, match="nothing matches 'music"):
        find_tracks(package, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (source(sha="12"), "not 64 hex digits"),
        (source(files="../x.ogg"), "leaves the package"),
        (source(files="/x.ogg"), "leaves the package"),
        (source(more="colour = 1"), "unknown keys.*colour"),
        (source().replace('licence = "MIT"', ""), "missing keys.*licence"),
        (source() + source(), "listed twice"),
    ],
)
def test_a_bad_manifest_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_sources(text)


def test_a_package_with_another_checksum_is_not_unpacked(tmp_path):
    (package,) = parse_sources(source())
    (tmp_path / "debs").mkdir()
    deb = tmp_path / "debs" / "songs_1-1_all.deb"
    deb.write_bytes(b"something else")
    with pytest.raises(ValueError, match=sha256(deb)):
        fetch(package, tmp_path)
    assert not (tmp_path / "tree").exists()


def test_every_version_of_a_package_has_its_own_folder(tmp_path, monkeypatch):
    def unpack(command, folder):
        deb, target = command[-2:]
        (Path(target) / "song.txt").write_text(Path(deb).read_text())

    monkeypatch.setattr("training.fetch._run", unpack)
    (tmp_path / "debs").mkdir()
    for version in ("old", "new", "old"):  # and back again
        deb = tmp_path / "debs" / f"songs_{version}_all.deb"
        deb.write_text(version)
        text = source(sha=sha256(deb)).replace('"1-1"', f'"{version}"')
        (package,) = parse_sources(text)
        assert (fetch(package, tmp_path) / "song.txt").read_text() == version


def test_a_track_is_decoded_again_when_its_package_changes(tmp_path):
    for content, checksum in (([0.5] * 50, "1" * 64), ([0.25] * 40, "2" * 64)):
        folder = tmp_path / checksum
        (folder / "music").mkdir(parents=True)
        soundfile.write(folder / "music/a.wav", content, 8000)
        packages = parse_sources(source(sha=checksum, files="music/*.wav"))
        (found,) = prepare(packages, {"songs": folder}, tmp_path, 8000)
        samples = open_samples(tmp_path, found, 8000)
        np.testing.assert_allclose(samples, content, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_split_never_shares_a_test_artist_or_a_track(tracks, seed):
    parts = split_tracks(tracks, Split(("b", "d"), 0.3, seed))
    ids = {part: {track.id for track in own} for part, own in parts.items()}
    assert {track.artist for track in parts["test"]} == {"b", "d"}
    assert {track.artist for track in parts["train"] + parts["validation"]} == {"a", "c"}
    assert not ids["train"] & ids["validation"]
    assert set.union(*ids.values()) == {track.id for track in tracks}


def test_the_split_does_not_depend_on_the_order_or_on_other_artists(tracks):
    split = Split(("b", "d"), 0.3, 1)
    wanted = {t.id for t in split_tracks(tracks, split)["validation"]}
    more = [*reversed(tracks), *(track(f"e{k}", "e", "metal") for k in range(9))]
    found = {t.id for t in split_tracks(more, split)["validation"] if t.artist != "e"}
    assert found == wanted


def test_a_split_without_a_class_is_refused(tracks):
    with pytest.raises(ValueError, match=r"no test track of \['electronic'\]"):
        split_tracks(tracks, Split(("b",), 0.3, 1))
    with pytest.raises(ValueError, match=r"without tracks: \['z'\]"):
        split_tracks(tracks, Split(("z",), 0.3, 1))


def test_grid_clips_leave_out_silence_and_the_rest_at_the_end():
    samples = np.concatenate([np.ones(10), np.zeros(10), np.full(10, 0.5), np.ones(9)])
    clips = list(grid_clips(samples.astype(np.float32), 10, 0.01))
    assert [clip[0] for clip in clips] == [1.0, 0.5]
    assert not list(grid_clips(np.zeros(30, np.float32), 10, 0.01))


def test_tilted_is_the_first_order_filter():
    clip = np.array([1, 2, 4], np.float32)
    np.testing.assert_array_equal(tilted(clip, 0.5), [1, 2.5, 5])
    np.testing.assert_array_equal(clip, [1, 2, 4])


def random_clips(tracks, seed=0):
    samples = {t.id: np.full(t.n_samples, k + 1, np.float32) for k, t in enumerate(tracks)}
    return RandomClips(
        tracks, lambda t: samples[t.id], ["electronic", "metal"], 10, 1e-3, 0.0,
        np.random.default_rng(seed),
    )


def test_random_clips_balance_classes_and_then_artists():
    # One class has ten times the music, one artist nine times that of the other.
    own = [track("a", "a", "metal", 9000), track("b", "b", "metal", 1000)]
    clips = random_clips([*own, track("c", "c", "electronic", 1000)])
    drawn = [clips.draw() for _ in range(2000)]
    counts = np.bincount([int(clip[0]) for clip, _ in drawn])[1:] / 2000
    np.testing.assert_allclose(counts, [0.25, 0.25, 0.5], atol=0.04)
    assert all((label == 0) == (clip[0] == 3) and len(clip) == 10 for clip, label in drawn)


def test_random_clips_repeat_with_their_seed(tracks):
    first, second = random_clips(tracks, 3), random_clips(tracks, 3)
    for _ in range(20):
        (a, label_a), (b, label_b) = first.draw(), second.draw()
        assert label_a == label_b
        np.testing.assert_array_equal(a, b)


def test_balanced_accuracy_weighs_classes_not_clips():
    scores = Scores(["x", "y"])
    scores.add("p", "p1", "x", np.array([[0.9, 0.1]] * 8))
    scores.add("q", "q1", "y", np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert scores.balanced_accuracy() == 0.75
    assert scores.confusion().tolist() == [[8, 0], [1, 1]]
    assert scores.confusion(per_track=True).tolist() == [[1, 0], [1, 0]]
    assert scores.by_artist()["q"] == {"class": "y", "clips": 2, "accuracy": 0.5}


def test_a_markdown_table_has_a_ruler():
    assert table(("a", "b"), [(1, 2)]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
