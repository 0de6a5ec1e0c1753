"""`fd.survey` and `fd.Survey`: what the tables say, and that they always say the same."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import fastdeconv as fd
from fastdeconv.audio.song import load_song
from fastdeconv.survey import measuring, schema
from fastdeconv.survey.store import locked

from .conftest import FRAMES, RATE, network, tables, write_sounds


def rows_of(found):
    return [row for table in found.rows() for row in table.to_pylist()]


def test_the_room_can_be_called_like_the_function(sounds, tmp_path):
    import fastdeconv.survey as room

    with ThreadPoolExecutor(1) as executor:
        assert room(sounds, network(), tmp_path / "out", executor=executor).is_complete
    assert callable(fd.survey)


def test_a_row_is_what_the_network_puts_out_in_that_window(sounds, run):
    found = run(sounds, layers=["pool1", "conv1"])
    rows = rows_of(found)
    assert {row["track"] for row in rows} == set(os.listdir(sounds))
    net = network()
    for row in rows[:6]:
        clip = fd.load_clip(sounds / row["track"], net.frontend, offset=row["start"])
        trace = net.forward(clip.x)
        assert row["scores"] == trace["conv2"].mean((1, 2), dtype=np.float64).astype("f4").tolist()
        for layer in ("conv1", "pool1"):
            flat = trace[layer].reshape(4, -1)
            assert row[f"{layer}.max"] == flat.max(axis=1).tolist()
            assert row[f"{layer}.mean"] == flat.mean(1, dtype=np.float64).astype("f4").tolist()
            assert row[f"{layer}.active"] == (flat > 0).mean(axis=1).astype("f4").tolist()
            width = trace[layer].shape[2]
            assert row[f"{layer}.size"] == width
            assert row[f"{layer}.at"] == (flat.argmax(axis=1) % width).tolist()


def test_short_frames_that_run_together_give_the_same_tables_as_each_alone(
    tmp_path, run, monkeypatch, pitch_tracker, forward_shapes,
):
    (tmp_path / "music").mkdir()
    for number, frames in enumerate((20.4, 1.0, 0.5)):
        samples = 0.1 * np.random.default_rng(number).standard_normal(round(256 * frames))
        soundfile.write(tmp_path / "music" / f"{number}.wav", samples, RATE)
    found, shapes = {}, {}
    for name, samples in (("together", 1 << 11), ("alone", 1)):
        with monkeypatch.context() as patch:
            patch.setattr("fastdeconv.deconvnet.together._SAMPLES", samples)
            forward_shapes.clear()
            # One layer before and one after the layers that keep rows apart.
            run(tmp_path / "music", name, pitch_tracker, layers=["relu1", "pool2", "fc"])
            found[name], shapes[name] = tables(tmp_path / name), set(forward_shapes)
    assert (1, 8, 256) in shapes["together"]
    assert {shape[1] for shape in shapes["alone"]} == {1}
    assert found["together"] == found["alone"]


def test_windows_lie_side_by_side_and_the_last_ends_with_the_track(sounds, run):
    hop, length = FRAMES * 32 / RATE, (FRAMES - 1) * 32 / RATE
    for track in ("sound00.wav", "sound05.wav"):
        rows = [row for row in rows_of(run(sounds)) if row["track"] == track]
        starts = [row["start"] for row in rows]
        assert starts[:-1] == pytest.approx([i * hop for i in range(len(starts) - 1)])
        assert [row["duration"] for row in rows] == pytest.approx([length] * len(rows))
        end = soundfile.info(sounds / track).duration
        assert starts[-1] + length == pytest.approx(end)


def test_padding_of_a_short_track_does_not_count(tmp_path, run):
    folder = tmp_path / "short"
    write_sounds(folder, 1, windows=0.5)
    found = run(folder, layers="conv1")
    (row,) = rows_of(found)
    net = network()
    clip = fd.load_clip(folder / "sound00.wav", net.frontend)
    size = soundfile.info(folder / "sound00.wav").frames
    columns = int(np.ceil(FRAMES * size / clip.samples.size))
    heard = net.forward(clip.x)["conv1"][:, :, :columns].reshape(4, -1)
    assert row["duration"] == size / RATE
    assert row["conv1.mean"] == heard.mean(axis=1, dtype=np.float64).astype("f4").tolist()
    assert row["conv1.size"] == FRAMES
    assert max(found.exemplars["at"].to_pylist()) <= size / RATE


def test_networks_of_any_length_take_windows_of_some_seconds(sounds, run):
    found = run(sounds, net=network(frames=None), seconds=0.1)
    rows = rows_of(found)
    assert {row["duration"] for row in rows} == {0.1}
    first = [row["start"] for row in rows if row["track"] == "sound00.wav"]
    assert first[:2] == [0.0, 0.1]
    assert json.loads((found.folder / "survey.json").read_text())["settings"]["window"] == 0.1


def test_tables_hold_what_the_rows_say(sounds, run):
    found = run(sounds)
    rows = rows_of(found)
    assert found.layers == {"pool1": 4}
    assert found.counts == {
        "tracks": 12, "errors": 0, "windows": len(rows),
        "seconds": pytest.approx(sum(soundfile.info(p).duration for p in sounds.iterdir())),
    }
    for feature, row in enumerate(found.features.to_pylist()):
        means = np.array([one["pool1.mean"][feature] for one in rows])
        maxima = np.array([one["pool1.max"][feature] for one in rows])
        assert row["n"] == len(rows) == sum(row["histogram"])
        assert row["mean"] == pytest.approx(means.mean())
        assert row["std"] == pytest.approx(means.std())
        assert row["max"] == maxima.max()
        assert row["active"] == pytest.approx(np.mean([r["pool1.active"][feature] for r in rows]))
        assert not row["silent"]
        for share in (50, 90, 99):
            wanted = np.percentile(maxima, share, method="inverted_cdf")
            assert row[f"p{share}"] == pytest.approx(wanted, rel=0.1)
        best = [one for one in found.exemplars.to_pylist() if one["feature"] == feature]
        by_track = {}
        for one in rows:
            largest = (-one["pool1.max"][feature], one["track"], one["start"])
            by_track[one["track"]] = min(by_track.get(one["track"], largest), largest)
        wanted = sorted(by_track.values())[: schema.KEPT]
        assert [(-e["score"], e["track"], e["start"]) for e in best] == wanted
        assert [e["rank"] for e in best] == list(range(len(wanted)))
        assert all(e["start"] <= e["at"] <= e["end"] for e in best)
        assert {e["label"] for e in best} <= {"calm", "loud"}


def test_a_feature_that_never_fires_is_silent_and_has_no_exemplars(sounds, run):
    net = network()
    arrays = {key: np.array(value) for key, value in net.arrays.items()}
    arrays["conv1.weight"][2] = 0
    dead = fd.Network(net.layers, arrays, net.input_shape, frontend=net.frontend)
    found = run(sounds, net=dead)
    assert found.features["silent"].to_pylist() == [False, False, True, False]
    assert found.features["p99"].to_pylist()[2] == 0
    assert 2 not in found.exemplars["feature"].to_pylist()
    assert 2 not in found.together["feature"].to_pylist()
    assert found.exemplars["label"].null_count == len(found.exemplars)  # it names no classes


def test_the_same_bits_whatever_the_executor_workers_and_order(sounds, run, tmp_path):
    whole = run(sounds, "whole", layers=["pool1", "conv2"])
    assert len(os.listdir(tmp_path / "whole/shards")) > 2
    run(sounds, "one", layers=["pool1", "conv2"], workers=1)
    for part in (3, 1, 2):
        found = run(sounds, "parts", layers=["pool1", "conv2"], part=(part, 3))
        assert found.is_complete == (part == 2)
    fd.survey(sounds, network(), tmp_path / "processes", ["pool1", "conv2"], workers=2)
    for other in ("one", "parts", "processes"):
        assert tables(tmp_path / other) == tables(whole.folder)


def test_without_rows_features_and_exemplars_are_the_same(tmp_path, run):
    folder = tmp_path / "sounds"
    write_sounds(folder, 5)
    full, short = run(folder, "full"), run(folder, "short", rows=False)
    if len(os.listdir(full.folder / "shards")) == 1:
        assert full.features.equals(short.features)
    assert full.exemplars.equals(short.exemplars)
    assert full.features["histogram"].equals(short.features["histogram"])
    np.testing.assert_allclose(full.features["std"], short.features["std"])
    with pytest.raises(fd.ParameterError, match=r"together.*without rows"):
        _ = short.together
    with pytest.raises(fd.ParameterError, match="without rows"):
        next(short.rows())


def test_what_is_done_is_not_done_again(sounds, run, monkeypatch):
    first = run(sounds)
    stamps = {path: path.stat().st_mtime_ns for path in (first.folder / "shards").iterdir()}
    before = tables(first.folder)
    gone = sorted(stamps)[0]
    gone.unlink()
    told = []
    again = run(sounds, progress=lambda *args: told.append(args))
    assert tables(again.folder) == before
    assert told[0][0] > 0 and told[-1] == (12, 12)
    for path in set(stamps) - {gone}:
        assert path.stat().st_mtime_ns == stamps[path]


def test_a_new_track_changes_its_own_shard_alone(sounds, run):
    first = run(sounds)
    before = set(os.listdir(first.folder / "shards"))
    shutil.copy(sounds / "sound03.wav", sounds / "sound03b.wav")
    again = run(sounds)
    assert again.counts["tracks"] == 13
    assert len(before - set(again.tracks["shard"].to_pylist())) == len(before)  # other names
    assert len(set(os.listdir(first.folder / "shards")) - before) == 1


def test_one_more_layer_is_computed_alone(sounds, run, tmp_path):
    run(sounds, layers="pool1")
    before = tables(tmp_path / "out")
    found = run(sounds, layers=["pool1", "conv2"])
    both = run(sounds, "both", layers=["pool1", "conv2"])
    shards = [name for name in before if (tmp_path / "out/shards" / name).exists()]
    assert all((tmp_path / "out/shards" / n).read_bytes() == before[n] for n in shards)
    assert found.layers == both.layers == {"pool1": 4, "conv2": 2}
    for name in ("features", "exemplars", "together"):
        assert getattr(found, name).equals(getattr(both, name))
    # A later run for the first layer alone keeps the others.
    assert run(sounds, layers="pool1").layers == {"pool1": 4, "conv2": 2}


def test_another_network_or_setting_is_refused_and_named(sounds, run):
    run(sounds)
    with pytest.raises(fd.ParameterError, match=r"out holds a survey that differs in network \("):
        run(sounds, net=network(seed=1))
    with pytest.raises(fd.ParameterError, match=r"differs in rows \(there True, now False\)"):
        run(sounds, rows=False)
    run(sounds, "open", net=network(frames=None), seconds=0.2)
    with pytest.raises(fd.ParameterError, match=r"differs in window .*, hop "):
        run(sounds, "open", net=network(frames=None), seconds=0.3)


def test_a_folder_with_tables_of_something_else_is_left_alone(sounds, run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/features.parquet").write_bytes(b"mine")
    with pytest.raises(fd.ParameterError, match=r"has features\.parquet, but no survey\.json"):
        run(sounds)
    assert (tmp_path / "out/features.parquet").read_bytes() == b"mine"


def test_two_surveys_at_once_are_kept_apart_and_parts_are_not(sounds, run, tmp_path):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out", alone=False):
        with pytest.raises(fd.ParameterError, match="another survey is writing there"):
            run(sounds)
        assert run(sounds, part=(1, 1)).is_complete


def test_files_that_cannot_be_used_cost_only_themselves(sounds, run):
    good = run(sounds, "good")
    (sounds / "empty.wav").touch()
    (sounds / "text.mp3").write_text("no sound at all")
    (sounds / "two  spaces\n.wav").write_text("nor here")
    whole = (sounds / "sound01.wav").read_bytes()
    (sounds / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (sounds / "gone.wav").symlink_to("nowhere")
    (sounds / "pipe.wav").unlink(missing_ok=True)
    os.mkfifo(sounds / "pipe.wav")
    found = run(sounds, "bad")
    errors = {row["track"]: row["error"] for row in found.errors}
    assert set(errors) == {
        "empty.wav", "text.mp3", "cut.wav", "gone.wav", "pipe.wav", "two  spaces\n.wav",
    }
    assert errors["empty.wav"] == "the file is empty"
    assert "a pipe, not a regular file" in errors["pipe.wav"]
    assert "No such file" in errors["gone.wav"]
    assert all(str(sounds) not in text for text in errors.values())
    written = (found.folder / "errors.csv").read_text().splitlines()
    assert written[0] == "track,error" and len(written) == 8  # a name has two lines
    assert found.exemplars.equals(good.exemplars)


def test_nothing_but_broken_files(tmp_path, run):
    (tmp_path / "bad").mkdir()
    for number in range(3):
        (tmp_path / "bad" / f"{number}.wav").write_text("x")
    found = run(tmp_path / "bad")
    assert found.counts == {"tracks": 3, "errors": 3, "windows": 0, "seconds": 0}
    assert found.features["n"].to_pylist() == [0] * 4
    assert found.features["mean"].null_count == 4
    assert len(found.exemplars) == len(found.together) == 0


def test_a_file_that_changes_while_it_is_read_is_an_error_until_the_next_run(
    sounds, run, monkeypatch
):
    from fastdeconv.survey import measuring

    real = measuring.load_song

    def growing(path, frontend):
        song = real(path, frontend)
        if path.endswith("sound04.wav"):
            shutil.copy(sounds / "sound05.wav", path)
        if path.endswith("sound06.wav"):
            os.unlink(path)
        return song

    monkeypatch.setattr(measuring, "load_song", growing)
    found = run(sounds)
    errors = {row["track"]: row["error"] for row in found.errors}
    assert set(errors) == {"sound04.wav", "sound06.wav"}
    assert "changed since the survey began" in errors["sound04.wav"]
    monkeypatch.undo()
    assert run(sounds).counts["errors"] == 0


@pytest.mark.parametrize("rows", [True, False])
def test_tracks_that_failed_may_be_tried_again(sounds, run, monkeypatch, rows):
    from fastdeconv.survey import measuring

    def refusing(path, frontend):
        if path.endswith("sound04.wav"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, frontend)

    real = measuring.load_song
    monkeypatch.setattr(measuring, "load_song", refusing)
    assert run(sounds, rows=rows).errors == [{"track": "sound04.wav", "error": "Permission denied"}]
    monkeypatch.undo()
    assert run(sounds, rows=rows).counts["errors"] == 1
    told = []
    again = run(sounds, rows=rows, retry=True, progress=lambda *args: told.append(args))
    assert again.counts["errors"] == 0
    assert told[0][0] > 0 or not rows
    assert again.features.equals(run(sounds, "undisturbed", rows=rows).features)


def test_names_that_are_not_utf8_come_back(sounds, run):
    name = os.fsdecode(b"na\xefve \\udc41.wav")
    os.rename(sounds / "sound00.wav", sounds / name)
    found = run(sounds)
    from fastdeconv.survey.collection import path_of

    tracks = found.tracks["track"].to_pylist()
    assert r"na\udcefve \udc5cudc41.wav" in tracks
    assert all(os.path.exists(path_of(track, found.root)) for track in tracks)
    assert not found.errors


def test_a_full_disk_stops_cleanly_and_what_is_done_stays(sounds, run, tmp_path, monkeypatch):
    from fastdeconv.survey import store

    real = store.os.fsync

    def filling(handle):
        if list((tmp_path / "out/shards").glob("*.parquet")):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(store.os, "fsync", filling)
    with pytest.raises(OSError, match=r"No space left on device.*parquet"):
        run(sounds)
    monkeypatch.undo()
    assert not fd.Survey.load(tmp_path / "out").is_complete
    left = list((tmp_path / "out").rglob("*"))
    assert not [path for path in left if path.name.endswith(".tmp")]
    assert not (tmp_path / "out/features.parquet").exists()
    undisturbed = run(sounds, "undisturbed")
    assert tables(run(sounds).folder) == tables(undisturbed.folder)


def test_load_reads_what_was_written(sounds, run):
    found = run(sounds)
    read = fd.Survey.load(str(found.folder))
    assert read.features.equals(found.features) and read.layers == found.layers
    assert read.root == str(sounds)
    assert "12 tracks" in repr(read)
    assert next(read.rows("pool1")).equals(next(read.rows()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "other"}, "format: found 'other', wanted 'fastdeconv-survey'"),
        ({"version": 99}, "version: found 99"),
        ({"features": {"pool1": -1}}, "features: found"),
        ({"features": {"pool9": 4}}, "different layers"),
        ({"counts": 3}, "counts: found 3"),
        ({"edges": [1.0]}, "edges: found"),
        ({"layer_sets": "pool1"}, "layer_sets: found"),
        ({"settings": None}, "settings: found None"),
    ],
)
def test_a_record_that_is_wrong_is_refused(sounds, run, change, reason):
    found = run(sounds)
    record = json.loads((found.folder / "survey.json").read_text())
    (found.folder / "survey.json").write_text(json.dumps(record | change))
    with pytest.raises(fd.ParameterError, match=reason):
        fd.Survey.load(found.folder)


def test_tables_that_are_wrong_are_refused(sounds, run):
    found = run(sounds)

    def refused(match):
        with pytest.raises(fd.ParameterError, match=match):
            _ = fd.Survey.load(found.folder).features

    path, table = found.folder / "features.parquet", found.features
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    refused(r"features\.parquet: damaged")
    shutil.copy(found.folder / "together.parquet", path)
    refused("not this table of a survey")
    wrong = table.set_column(1, schema.FEATURES.field("feature"), pa.array([0, 1, 2, 7], "int32"))
    pq.write_table(wrong, path)
    refused("has 4 features, found number 7")
    path.unlink()
    refused("there is no such table")


def test_a_shard_that_is_damaged_is_named(sounds, run):
    found = run(sounds)
    shard = sorted((found.folder / "shards").iterdir())[0]
    shard.write_bytes(b"PAR1")
    with pytest.raises(fd.ParameterError, match=rf"{shard.name}: damaged.*Remove it"):
        run(sounds)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"part": (5, 4)}, "part must be"),
        ({"part": 3}, r"part must be \(i, n\)"),
        ({"seconds": 0}, "seconds must be"),
        ({"tags": "tags.csv", "rows": False}, "tags need the rows"),
        ({"workers": 0}, "workers must be"),
        ({"layers": "pool9"}, "no layer 'pool9'"),
        ({"layers": []}, "layers must not be empty"),
        ({"rows": "no"}, "rows must be true or false, found 'no'"),
        ({"retry": 1}, "retry must be true or false, found 1"),
        ({"executor": 3}, r"executor must be a concurrent\.futures\.Executor, found 3"),
    ],
)
def test_arguments_are_checked(sounds, run, tmp_path, how, reason):
    with pytest.raises(fd.ParameterError, match=reason):
        run(sounds, **how)
    assert not (tmp_path / "out").exists()


def test_a_network_needs_a_front_end(sounds, run):
    net = network()
    bare = fd.Network(net.layers, net.arrays, net.input_shape)
    with pytest.raises(fd.ParameterError, match="does not say how sound becomes its input"):
        run(sounds, net=bare)


def test_without_pyarrow_it_says_what_to_install(sounds, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (
        lambda: fd.survey(sounds, network(), tmp_path / "out"),
        lambda: fd.Survey.load(tmp_path / "out"),
    ):
        with pytest.raises(fd.ParameterError, match=r"pip install 'fastdeconv\[survey\]'"):
            call()


def test_exemplars_are_the_top_clips_of_the_same_windows(tmp_path, run):
    (tmp_path / "music").mkdir()
    names = [f"sound{number:02}.wav" for number in range(14)]
    for number, name in enumerate(names):  # a window each
        samples = 0.1 * np.random.default_rng(number % 9).standard_normal((FRAMES - 1) * 32)
        soundfile.write(tmp_path / "music" / name, samples, RATE)
    found = run(tmp_path / "music", layers=["conv1", "pool1"])
    net = network()
    clips = [fd.load_clip(tmp_path / "music" / name, net.frontend) for name in names]
    top = fd.top_clips(clips, net, ["conv1", "pool1"], schema.KEPT)
    assert [
        (row["layer"], row["feature"], row["rank"] - 1, names[row["clip"]], row["value"])
        for row in top.table
    ] == [
        (row["layer"], row["feature"], row["rank"], row["track"], row["score"])
        for row in found.exemplars.to_pylist()
    ]


def test_a_track_that_is_never_read_to_its_end_costs_only_itself(sounds, run, monkeypatch):
    ended = threading.Event()

    def load_or_hang(path, frontend):
        if path.endswith("sound03.wav"):
            ended.wait()
        return load_song(path, frontend)

    monkeypatch.setattr(measuring, "load_song", load_or_hang)
    monkeypatch.setattr(
        measuring, "patience", lambda track: 0.01 if track.name == "sound03.wav" else None
    )
    try:
        found = run(sounds)
    finally:
        ended.set()
    assert found.errors == [
        {"track": "sound03.wav", "error": "reading it took longer than 0 s, and was given up"}
    ]
    assert found.counts["tracks"] == 12
