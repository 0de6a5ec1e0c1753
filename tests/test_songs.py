"""Whole songs: exact in pieces, or joined from windows."""

from __future__ import annotations

import csv
import json
import os
import weakref

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fastdeconv as fd
from fastdeconv.audio.song import load_song
from fastdeconv.audio.windows import Joiner, pieces, windows
from fastdeconv.cli import main
from fastdeconv.network.locality import head_after, of_any_length, rows_apart

SR = 8000
BANDS = 16
CLASSES = ["rock", "jazz", "talk"]
MEL = {"kind": "mel", "sr": SR, "n_fft": 256, "hop_length": 64, "n_mels": BANDS}
LOG = {"type": "log", "gain": 100.0, "offset": 1.0}


def noise(seconds, seed=0):
    """Noise whose loudness changes, with a silence in it."""
    rng = np.random.default_rng(seed)
    samples = 0.1 * rng.standard_normal(round(seconds * SR))
    samples *= 1 + np.sin(np.arange(samples.size) / 3000)
    samples[samples.size // 3 : samples.size // 2] = 0
    return samples.astype(np.float32)


def make_network(frames=None, scale=LOG, head="mean", **frontend):
    """Three blocks of convolution, ReLU and pool; then classes."""
    rng = np.random.default_rng(7)
    layers, arrays, inputs = [], {}, 1
    for i, outputs in enumerate((5, 12, 10), start=1):
        layers += [
            {"type": "conv2d", "name": f"conv{i}", "padding": "same"},
            {"type": "relu", "name": f"relu{i}"},
            {"type": "max_pool2d", "name": f"pool{i}", "kernel_size": 2},
        ]
        arrays[f"conv{i}.weight"] = 0.3 * rng.standard_normal((outputs, inputs, 3, 3))
        arrays[f"conv{i}.bias"] = np.zeros(outputs)
        inputs = outputs
    if head == "mean":
        layers += [{"type": "global_avg_pool2d", "name": "mean"}]
    layers += [{"type": "flatten", "name": "flat"}, {"type": "linear", "name": "fc"}]
    width = inputs if head == "mean" else inputs * (BANDS // 8) * (frames // 8)
    arrays["fc.weight"] = rng.standard_normal((len(CLASSES), width))
    arrays["fc.bias"] = np.zeros(len(CLASSES))
    fe = fd.Frontend(**MEL, scale=scale, frames=frames, **frontend)
    return fd.Network(
        layers, arrays, (1, BANDS, frames), frontend=fe, classes=CLASSES, output="softmax",
        name="small",
    )


def assert_alike(found, wanted, rtol=1e-5):
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=rtol * np.abs(wanted).max())


# Exact explanations


@pytest.fixture
def short_pieces(monkeypatch):
    """Pieces so short that a song of seconds has several."""
    monkeypatch.setattr("fastdeconv.audio.windows._PIECE_SECONDS", 0.3)


@pytest.mark.parametrize("start", ["map", "max", "one"])
@pytest.mark.parametrize("rule", ["deconvnet", "gradient"])
def test_in_pieces_is_as_in_one_pass(short_pieces, start, rule):
    net, samples = make_network(), noise(9.1)
    whole = fd.explain((samples, SR), net, rule=rule, start=start)
    song = fd.explain((samples, SR), net, rule=rule, start=start, duration="all", features="all")
    assert song.windows > 3
    for layer in ("pool1", "pool3"):
        for k in range(song.timeline[layer].shape[0])[::4]:
            assert_alike(song.sound(layer, k), whole.sound(layer, k))
    np.testing.assert_allclose(
        [score for _, score in song.outputs], [score for _, score in whole.outputs], rtol=1e-5
    )
    assert [name for name, _ in song.probabilities] == CLASSES
    assert len(song.scores) == 1


def test_a_part_that_takes_any_length_is_exact_though_the_network_takes_a_fixed_one(short_pieces):
    fixed, samples = make_network(frames=40, head="flat"), noise(7.0)
    song = fd.explain((samples, SR), fixed, layers=["pool2"], duration="all")
    part, _ = of_any_length(fixed, "pool2", "W")
    clip = fd.Clip(samples, SR, fd.Frontend(**MEL, scale=LOG))
    whole = fd.explain(clip, part, layers=["pool2"])
    assert_alike(song.sound("pool2", 3), whole.sound("pool2", 3))
    # What it says of its classes still takes windows of its own length.
    assert len(song.scores) > 10
    assert sum(row["share"] for row in song.scores) == pytest.approx(1)


def strided(rng):
    """Strides, TensorFlow's padding, which depends on the size, dilation, and a ceil mode."""
    return [
        {"type": "conv2d", "name": "a", "stride": [1, 2], "padding": "same"},
        {"type": "relu", "name": "b"},
        {"type": "conv2d", "name": "c", "dilation": [1, 3], "padding": [1, 3]},
        {"type": "elu", "name": "d"},
        {"type": "max_pool2d", "name": "top", "kernel_size": 3, "stride": [2, 3],
         "ceil_mode": True},
    ], {"a": (4, 1, 3, 4), "c": (5, 4, 3, 3)}


def branched(rng):
    """A U: down, up again, and what was there beside it."""
    return [
        {"type": "conv2d", "name": "a", "padding": "same"},
        {"type": "relu", "name": "b"},
        {"type": "conv2d", "name": "c", "stride": [1, 2], "padding": [1, 1]},
        {"type": "relu", "name": "d"},
        {"type": "upsample", "name": "e", "scale": [1, 2]},
        {"type": "slice", "name": "f", "axis": "H", "stop": 8},
        {"type": "pad", "name": "g", "padding": [[0, 8], [1, 1]]},
        {"type": "conv2d", "name": "h", "padding": [1, 0]},
        {"type": "add", "name": "i", "inputs": ["h", "b"]},
        {"type": "max_pool2d", "name": "top", "kernel_size": 2},
    ], {"a": (4, 1, 3, 3), "c": (4, 4, 3, 3), "h": (4, 4, 3, 3)}


def mirrored(rng):
    """Padding by the input's own values, lines between neighbours, the larger of two branches."""
    return [
        {"type": "pad", "name": "p", "padding": [[1, 1], [2, 2]], "mode": "reflect"},
        {"type": "conv2d", "name": "a", "padding": [0, 0], "stride": [1, 2]},
        {"type": "upsample", "name": "u", "scale": [1, 2], "mode": "bilinear"},
        {"type": "relu", "name": "b"},
        {"type": "conv2d", "name": "c", "padding": "same"},
        {"type": "maximum", "name": "m", "inputs": ["b", "c"]},
        {"type": "max_pool2d", "name": "top", "kernel_size": 2},
    ], {"a": (4, 1, 3, 5), "c": (4, 4, 3, 3)}


@pytest.mark.parametrize("build", [strided, branched, mirrored])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("extra", [0, 64, 3 * 64 + 5])
def test_any_local_layers_are_exact_in_pieces(short_pieces, build, center, extra):
    rng = np.random.default_rng(5)
    layers, shapes = build(rng)
    arrays = {f"{name}.weight": 0.3 * rng.standard_normal(shape) for name, shape in shapes.items()}
    layers = [{**layer, "bias": False} if layer["name"] in shapes else layer for layer in layers]
    # An even number of columns, as the branch needs.
    fe = fd.Frontend(**MEL, scale=LOG, center=center, pad_mode="reflect" if center else "constant")
    count = fe.framing.shortest(300) + (extra if build is strided else extra % 64)
    net = fd.Network(layers, arrays, (1, BANDS, None), frontend=fe)
    samples = noise(count / SR)
    whole = fd.explain((samples, SR), net, layers=["top"], features=[1])
    song = fd.explain((samples, SR), net, layers=["top"], features=[1], duration="all")
    assert song.windows > 3
    assert_alike(song.sound("top", 1), whole.sound("top", 1))


@pytest.mark.parametrize("record", [
    {"type": "affine", "axis": "CW"},
    {"type": "pad", "padding": [[0, 0], [1, 1]], "mode": "circular"},
    {"type": "upsample", "scale": 2, "mode": "bilinear", "align_corners": True},
    {"type": "upsample", "size": 80},
    {"type": "adaptive_avg_pool2d", "output_size": 10},
])
def test_what_depends_on_the_length_is_not_computed_in_pieces(record):
    arrays = {"a.weight": np.ones((1, 40)), "a.bias": np.ones((1, 40))}
    layers = [{**record, "name": "a"}, {"type": "relu", "name": "b"}]
    own = arrays if record["type"] == "affine" else {}
    net = fd.Network(layers, own, (1, 40, 40))
    assert of_any_length(net, "b", "W") is None


def test_channels_that_differ_are_exact_in_pieces(short_pieces):
    channels = [{"scale": LOG}, {"n_fft": 512, "scale": LOG, "delta": 1}]
    fe = fd.Frontend(**MEL, channels=channels)
    rng = np.random.default_rng(3)
    layers = [
        {"type": "conv2d", "name": "a", "padding": "same", "bias": False},
        {"type": "relu", "name": "b"}, {"type": "max_pool2d", "name": "top", "kernel_size": 2},
    ]
    net = fd.Network(
        layers, {"a.weight": rng.standard_normal((3, 2, 3, 3))}, (2, BANDS, None), frontend=fe
    )
    samples = noise(4.3)
    whole = fd.explain((samples, SR), net, features=[1])
    song = fd.explain((samples, SR), net, features=[1], duration="all")
    assert song.windows > 3
    assert_alike(song.sound("top", 1), whole.sound("top", 1))


def test_time_may_be_the_rows(short_pieces):
    turned = make_network(layout="CTF")
    net = fd.Network(
        turned.layers, turned.arrays, (1, None, BANDS), frontend=turned.frontend, classes=CLASSES
    )
    samples = noise(4.3)
    whole = fd.explain((samples, SR), net, start="max")
    song = fd.explain((samples, SR), net, start="max", duration="all")
    assert song.windows > 3
    assert_alike(song.sound("pool3", 3), whole.sound("pool3", 3))
    assert dict(song.outputs) == pytest.approx(dict(whole.outputs), rel=1e-5)


def test_nothing_asked_for_is_no_error(tmp_path):
    net = make_network(frames=40, scale="db")
    song = fd.explain((noise(0.6), SR), net, features={"pool2": []}, duration="all")
    assert song.table == []
    folder = song.save(tmp_path)
    assert np.load(folder / "pool2" / "timeline.npy").shape == (12, 12)
    for layer in ("fc", "conv1"):
        song = fd.explain((noise(0.6), SR), net, layers=layer, features=[0], duration="all")
        assert song.sound(layer, 0).any()
        song.save(tmp_path, layer)


def test_a_waveform_is_exact_in_pieces(short_pieces):
    rng = np.random.default_rng(3)
    net = fd.Network(
        [
            {"type": "conv2d", "name": "conv", "stride": [1, 8], "padding": [0, 16]},
            {"type": "relu", "name": "relu"},
            {"type": "max_pool2d", "name": "pool", "kernel_size": [1, 2]},
        ],
        {"conv.weight": rng.standard_normal((4, 1, 1, 32)), "conv.bias": np.zeros(4)},
        (1, 1, None),
        frontend=fd.Frontend(kind="waveform", sr=SR, n_fft=256, hop_length=64),
    )
    samples = noise(2.0)
    whole = fd.explain((samples, SR), net, layers=["pool"])
    song = fd.explain((samples, SR), net, layers=["pool"], duration="all")
    assert song.windows > 3
    assert_alike(song.sound("pool", 2), whole.sound("pool", 2))


def test_layers_that_see_everything_end_what_is_local():
    net = make_network()
    assert of_any_length(net, "mean", "W") is None
    name, head = head_after(net, "W")
    assert name == "pool3"
    assert [layer.name for layer in head.layers] == ["mean", "flat", "fc"]
    _, reach = of_any_length(net, "pool3", "W")
    assert reach.step == 8
    assert reach.margin >= 22  # the receptive field


# Windows


@given(
    st.integers(40, 9000), st.integers(2, 30), st.booleans(), st.sampled_from([64, 100, 128]),
)
@settings(max_examples=60, deadline=None)
def test_weights_of_windows_add_up_to_one(count, frames, center, hop):
    fe = fd.Frontend(sr=SR, n_fft=256, hop_length=hop, frames=frames, center=center)
    cut = windows(load_song((noise(count / SR), SR), fe))
    total = np.zeros(count)
    for window in cut.rows:
        assert window.begin <= window.rise <= window.fall <= window.end
        total[window.begin : window.end] += window.weights()
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert cut.shares().sum() == pytest.approx(1)
    # What is heard of a window lies in its clip.
    for i, window in enumerate(cut.rows):
        assert window.start <= window.begin
        assert window.end <= window.start + cut.clip(i).samples.size


@given(st.integers(40, 40_000), st.integers(1, 50), st.sampled_from([1, 4, 12]))
@settings(max_examples=40, deadline=None)
def test_pieces_follow_each_other_without_a_gap(count, margin, step):
    fe = fd.Frontend(sr=SR, n_fft=256, hop_length=64)
    cut = pieces(load_song((noise(count / SR), SR), fe), margin, step)
    assert [row.begin for row in cut.rows] == [0, *(row.end for row in cut.rows)][:-1]
    assert cut.rows[-1].end == count
    assert all(row.start % (step * 64) == 0 for row in cut.rows)


@pytest.mark.parametrize("frames", [20, 21])
@pytest.mark.parametrize("center", [True, False])
def test_a_map_of_ones_gives_the_song_back(frames, center):
    fe = fd.Frontend(sr=SR, n_fft=256, hop_length=64, frames=frames, center=center)
    samples = noise(1.7)
    cut, joiner, parts = windows(load_song((samples, SR), fe)), Joiner(), []
    for i, window in enumerate(cut.rows):
        clip = cut.clip(i)
        parts.append(joiner.add(window, fd.auralise(clip, np.ones((1, *clip.x.shape[1:]))))[0])
    joined = np.concatenate(parts)
    assert joined.size == samples.size
    # Where no frame reaches, before the first and behind the last, nothing can be given back.
    edge = 0 if center else 256
    inner = slice(edge, samples.size - edge)
    assert np.abs(joined[inner] - samples[inner]).max() < 1e-6


def test_what_is_heard_of_a_window_is_its_sound_times_its_weight():
    net, samples = make_network(frames=40, scale="db", normalize={"type": "range"}), noise(2.0)
    song = fd.explain((samples, SR), net, layers=["pool2"], features=[3, 5], duration="all")
    cut = windows(load_song((samples, SR), net.frontend))
    assert song.windows == len(cut) > 5
    joined = np.zeros(samples.size)
    for i, window in enumerate(cut.rows):
        lone = fd.explain(cut.clip(i), net, layers=["pool2"], features=[5])
        heard = lone.sound("pool2", 5)[window.begin - window.start : window.end - window.start]
        joined[window.begin : window.end] += heard * window.weights().astype(float)
    assert_alike(song.sound("pool2", 5), joined, rtol=1e-6)


def test_scores_are_means_over_windows_without_the_padding():
    net, samples = make_network(frames=40, scale="db", head="flat"), noise(2.0)
    song = fd.explain((samples, SR), net, layers=["pool2"], features=[0], duration="all")
    shares = np.array([row["share"] for row in song.scores])
    assert shares.sum() == pytest.approx(1)
    assert song.scores[-1]["end"] == pytest.approx(2.0)
    for name, score in song.outputs:
        assert score == pytest.approx(shares @ [row[name] for row in song.scores])
    assert sum(value for _, value in song.probabilities) == pytest.approx(1)


def test_a_song_shorter_than_a_window_is_the_clip():
    net, samples = make_network(frames=40, scale="db", head="flat"), noise(0.2)
    song = fd.explain((samples, SR), net, duration="all", features="all")
    clip = fd.explain((samples, SR), net)
    assert song.windows == 1
    assert dict(song.outputs) == pytest.approx(dict(clip.outputs))
    sound = song.sound("pool2", 1)
    assert sound.size == samples.size
    np.testing.assert_array_equal(sound, clip.sound("pool2", 1)[: samples.size])
    for own, other in zip(song.table, clip.table):
        assert own["rank"] == other["rank"]
        assert own["level"] == pytest.approx(other["level"])


def test_a_short_song_is_padded_to_a_window_though_longer_ones_need_none():
    net, samples = make_network(frames=40, head="flat"), noise(0.1)
    song = fd.explain((samples, SR), net, layers=["pool2"], duration="all")
    clip = fd.explain((samples, SR), net, layers=["pool2"])
    np.testing.assert_array_equal(
        song.sound("pool2", 1), clip.sound("pool2", 1)[: samples.size]
    )


def test_the_time_line_shows_when_a_feature_fires():
    samples = np.zeros(4 * SR, np.float32)
    samples[2 * SR : 2 * SR + SR // 2] = noise(0.5, seed=2) + 0.05
    for frames in (None, 40):
        song = fd.explain((samples, SR), make_network(frames=frames), duration="all")
        line = song.timeline["pool1"].sum(axis=0)
        assert line.size == 80
        at = np.flatnonzero(line > 0.01 * line.max())
        # Within a place of the layer, which is two frames, and what the kernel reaches.
        assert abs(at[0] - 40) <= 1
        assert abs(at[-1] - 49) <= 2


def test_silence_is_silent():
    song = fd.explain((np.zeros(SR, np.float32), SR), make_network(frames=20), duration="all")
    assert not song.sound("pool1", 0).any()
    assert all(row["level"] is None and row["label"] == "silent" for row in song.table)


# What is rendered


def test_those_to_hear_first_are_rendered_by_default(tmp_path):
    song = fd.explain((noise(1.5), SR), make_network(frames=40), duration="all")
    assert {layer: len(ks) for layer, ks in song.features.items()} == {
        "pool1": 5, "pool2": 8, "pool3": 8,
    }
    assert song.left_out == (
        "21 of 27 features have sounds and pictures: those to hear first"
    )
    assert song.timeline["pool2"].shape[0] == 12
    folder = song.save(tmp_path, "song")
    assert json.loads((folder / "manifest.json").read_text())["left_out"] == song.left_out


def read_tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    song = fd.explain(
        (noise(2.5), SR), make_network(frames=40, scale="db"), features={"pool2": [3, 11]},
        duration=2.0,
    )
    return song, song.save(tmp_path_factory.mktemp("songs"), "song")


def test_every_file_is_there_and_nothing_of_the_work(saved):
    _, folder = saved
    inside = {
        "feature_3.png", "feature_3.wav", "feature_11.png", "feature_11.wav", "map_3.png",
        "map_11.png", "timeline.npy", "timeline.png",
    }
    assert set(read_tree(folder)) == {
        "original.wav", "original.png", "features.csv", "scores.csv", "index.html",
        "manifest.json", *(f"pool2/{name}" for name in inside),
    }


def test_the_same_call_writes_the_same_bytes(saved, tmp_path):
    _, folder = saved
    again = fd.explain(
        (noise(2.5), SR), make_network(frames=40, scale="db"), features={"pool2": [3, 11]},
        duration=2.0, num_threads=1,
    ).save(tmp_path, "song")
    first, second = read_tree(folder), read_tree(again)
    for tree in (first, second):
        record = json.loads(tree.pop("manifest.json"))
        del record["computation"]["threads"]
        tree["manifest"] = record
    assert first == second


def test_a_written_sound_is_the_sound_times_its_gain(saved):
    song, folder = saved
    for row in song.table:
        written, rate = soundfile.read(folder / "pool2" / f"feature_{row['feature']}.wav")
        assert rate == SR
        sound = song.sound("pool2", row["feature"])
        np.testing.assert_allclose(written, sound * row["gain"], atol=0.6 / 32768)
        assert row["energy"] == pytest.approx(float(np.square(sound, dtype=float).sum()), rel=1e-5)
        assert row["peak"] == pytest.approx(float(np.abs(sound).max()))


def test_tables_and_time_lines_can_be_read(saved):
    song, folder = saved
    np.testing.assert_array_equal(
        np.load(folder / "pool2" / "timeline.npy", allow_pickle=False), song.timeline["pool2"]
    )
    with Image.open(folder / "pool2" / "timeline.png") as image:
        assert image.size == song.timeline["pool2"].shape[::-1]
    with open(folder / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rock"]) for row in rows] == [row["rock"] for row in song.scores]


def test_the_manifest_says_how_the_song_was_taken(saved):
    _, folder = saved
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["windows"] == {
        "count": 12, "exact": False, "seconds": 39 * 64 / SR, "hop_seconds": 20 * 64 / SR,
    }
    assert manifest["parameters"]["duration"] == "2 s"
    assert manifest["audio"]["is_cut"] is True


def test_pictures_of_a_long_song_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("fastdeconv.report.song_stream.MOST_COLUMNS", 50)
    song = fd.explain((noise(3.0), SR), make_network(frames=40), layers="pool3", duration="all")
    folder = song.save(tmp_path)
    names = ["original.png", *(f"pool3/feature_{k}.png" for k in song.features["pool3"])]
    for name in names:
        with Image.open(folder / name) as image:
            assert image.size[0] == 50
            assert np.asarray(image).any()


# More layers of a song that was saved


@pytest.mark.parametrize("kind", [{"frames": 40, "head": "flat"}, {}])
def test_the_other_layers_asked_for_change_nothing(short_pieces, kind):
    net, source = make_network(**kind), (noise(4.1), SR)
    some = fd.explain(source, net, layers=["conv1", "pool1"], duration="all")
    more = fd.explain(source, net, layers=["pool1", "pool3", "conv1"], duration="all")
    assert some.windows == more.windows > 3
    assert sorted(some.table, key=str) == sorted(
        (row for row in more.table if row["layer"] != "pool3"), key=str
    )
    np.testing.assert_array_equal(some.timeline["pool1"], more.timeline["pool1"])
    np.testing.assert_array_equal(some.sound("conv1", 2), more.sound("conv1", 2))


def test_layers_that_see_further_than_a_piece_make_no_pieces_longer(monkeypatch):
    net, source = make_network(frames=40, head="flat"), (noise(4.1), SR)
    monkeypatch.setattr("fastdeconv.audio.windows._PIECE_SECONDS", 0.01)
    far = fd.explain(source, net, layers=["pool1"], duration="all", features=[1])
    monkeypatch.setattr("fastdeconv.explaining.song_planning._FAR_SECONDS", 0.0)
    near = fd.explain(source, net, layers=["pool1"], duration="all", features=[1])
    assert near.windows > far.windows > 3
    assert_alike(near.sound("pool1", 1), far.sound("pool1", 1))


def add_layers(folder, layers):
    return CliRunner().invoke(main, [
        "explain", str(folder / "song.wav"), "-o", str(folder / "step"), "--network",
        str(folder / "net.npz"), "--duration", "all", "--layers", layers,
    ])


@pytest.mark.parametrize("kind", [{"frames": 40, "head": "flat"}, {}])
def test_layers_are_added_to_a_song_that_was_saved(short_pieces, tmp_path, kind):
    make_network(**kind).save(tmp_path / "net.npz")
    soundfile.write(tmp_path / "song.wav", noise(3.1), SR)
    files = str(tmp_path / "song.wav"), str(tmp_path / "net.npz")
    fd.explain(*files, layers=["pool2"], duration="all").save(tmp_path / "step")
    result = add_layers(tmp_path, "pool1,pool2,pool3")
    assert "Computed: pool1, pool3. Taken over from before: pool2. 21 of 27" in result.stdout
    at_once = fd.explain(*files, layers=["pool1", "pool2", "pool3"], duration="all")
    assert read_tree(tmp_path / "step/song") == read_tree(at_once.save(tmp_path / "at-once"))


def test_a_layer_that_changes_how_the_song_is_taken_is_not_added(tmp_path):
    make_network(frames=40, head="flat").save(tmp_path / "net.npz")
    soundfile.write(tmp_path / "song.wav", noise(1.1), SR)
    files = str(tmp_path / "song.wav"), str(tmp_path / "net.npz")
    fd.explain(*files, layers=["pool2"], duration="all").save(tmp_path / "step")
    result = add_layers(tmp_path, "pool2,fc")
    assert result.exit_code == 1
    assert "differs in layers and features, windows of the song: --overwrite" in result.stderr


# What is refused


@pytest.mark.parametrize("duration", [0, -1, np.nan, np.inf, "most", True, [1]])
def test_an_impossible_duration_is_refused(duration):
    with pytest.raises(fd.ParameterError, match="duration"):
        fd.explain((noise(0.5), SR), make_network(), duration=duration)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": np.ones((1, 2, 2))}, "start.*clip"),
        ({"start": "middle"}, "middle"),
        ({"rule": "magic"}, "magic"),
        ({"mode": "loud"}, "loud"),
        ({"features": [99]}, "99"),
        ({"features": "most"}, "most"),
        ({"layers": ["pool9"]}, "pool9"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(fd.ParameterError, match=message):
        fd.explain((noise(0.5), SR), make_network(), duration="all", **arguments)


def test_a_clip_has_no_duration():
    clip = fd.Clip(noise(0.5), SR, fd.Frontend(**MEL))
    with pytest.raises(fd.ParameterError, match="duration"):
        fd.explain(clip, make_network(), duration="all")


def test_a_duration_beyond_the_end_is_the_whole_song():
    song = fd.explain((noise(0.7), SR), make_network(), duration=60, offset=0.1, features=[0])
    assert song.duration == pytest.approx(0.6)
    assert song.covered == "The song was explained from 0.10 s to its end at 0.70 s."


def test_a_song_of_less_than_a_frame_is_an_error():
    net = make_network(center=False)
    with pytest.raises(fd.AudioError, match="less than one frame"):
        fd.explain((noise(0.02), SR), net, duration="all")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    song = fd.explain((noise(1.0), SR), make_network(frames=40), duration="all")
    monkeypatch.setattr(
        "fastdeconv.report.blocks.Blocks.append",
        lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(OSError, match="No space"):
        song.save(tmp_path / "out")
    assert not os.path.exists(tmp_path / "out")


def test_the_back_end_is_that_of_the_explanation(tmp_path):
    song = fd.explain(
        (noise(0.5), SR), make_network(frames=40), layers="pool2", features=[1], duration="all",
        backend="reference", num_threads=1,
    )
    manifest = json.loads((song.save(tmp_path) / "manifest.json").read_text())
    assert manifest["computation"] == {
        "backend": "reference", "instruction_set": None, "threads": 1,
    }


def test_an_interrupted_save_leaves_nothing(tmp_path):
    song = fd.explain((noise(1.0), SR), make_network(frames=40), duration="all")

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        song.save(tmp_path / "out", progress=interrupt)
    assert not os.path.exists(tmp_path / "out")


def test_shares_of_the_largest_value_are_for_clips():
    with pytest.raises(fd.ParameterError, match="mode 'wiener' is for a clip"):
        fd.explain((noise(0.6), SR), make_network(), mode="wiener", duration="all")


# Windows that run several at a time


def test_frames_that_run_together_give_the_same_files_as_each_alone(
    tmp_path, monkeypatch, pitch_tracker, forward_shapes,
):
    net, song = pitch_tracker, (noise(0.7, seed=2), SR)
    runs_of = {}
    for name, together in (("together", 1 << 11), ("alone", 1)):
        with monkeypatch.context() as patch:
            patch.setattr("fastdeconv.deconvnet.together._SAMPLES", together)
            forward_shapes.clear()
            explained = fd.explain(song, net, layers=["relu1", "pool2"], duration="all")
            explained.save(tmp_path / name, "it")
            np.save(tmp_path / name / "sound.npy", explained.sound("pool2", 3))
            runs_of[name] = set(forward_shapes)
    count = explained.windows
    assert count > 20 and count % 8  # the last rows are fewer
    assert (1, 8, 256) in runs_of["together"] and (1, 1, 256) not in runs_of["together"]
    assert runs_of["alone"] == {(1, 1, 256)}
    files = sorted(path for path in (tmp_path / "alone").rglob("*") if path.is_file())
    assert len(files) > 50
    for path in files:
        other = tmp_path / "together" / path.relative_to(tmp_path / "alone")
        assert other.read_bytes() == path.read_bytes(), path


def test_only_one_layer_has_its_maps_in_memory(tmp_path, monkeypatch, pitch_tracker):
    explained = fd.explain(
        (noise(0.7), SR), pitch_tracker, layers=["relu1", "pool1", "pool2"], duration="all"
    )
    maps, alive = [], []

    def deconvolve(*args, **how):
        alive.append(sum(one() is not None for one in maps))
        found = fd.deconvolve(*args, **how)
        maps.append(weakref.ref(found))
        return found

    monkeypatch.setattr("fastdeconv.deconvnet.together.deconvolve", deconvolve)
    explained.save(tmp_path)
    assert len(alive) == 3  # once a layer, for all windows
    assert not any(alive)


@pytest.mark.parametrize("start", ["max", "one"])
def test_a_start_of_one_window_is_not_taken_of_several(start, pitch_tracker):
    net, song = pitch_tracker, (noise(0.2), SR)
    found = fd.explain(song, net, layers="pool1", duration="all", start=start)
    first = fd.explain((song[0][:256], SR), net, layers="pool1", start=start)
    begin = found._plan.windows.rows[0]
    feature = found.features["pool1"][0]
    np.testing.assert_array_equal(
        found.sound("pool1", feature)[: begin.fall], first.sound("pool1", feature)[: begin.fall]
    )


def test_rows_are_apart_only_where_no_layer_joins_them(pitch_tracker):
    part, last, head = rows_apart(pitch_tracker)
    assert last == "pool2" and part.input_shape == (1, None, 256)
    assert [layer.name for layer in head.layers] == ["flat", "fc"]
    assert rows_apart(make_network(frames=16)) is None
    joined = [
        {"type": "conv2d", "name": "tall", "padding": [1, 0]},
        {"type": "relu", "name": "relu"}, {"type": "flatten", "name": "flat"},
        {"type": "linear", "name": "fc"},
    ]
    arrays = {
        "tall.weight": np.ones((2, 1, 3, 1)), "tall.bias": np.zeros(2),
        "fc.weight": np.ones((3, 16)), "fc.bias": np.zeros(3),
    }
    assert rows_apart(fd.Network(joined, arrays, (1, 1, 8))) is None
    # A kernel of one row that adds rows of padding moves them.
    joined[0]["padding"] = [[1, 1], [0, 0]]
    arrays |= {"tall.weight": np.ones((2, 1, 1, 1)), "fc.weight": np.ones((3, 48))}
    assert rows_apart(fd.Network(joined, arrays, (1, 1, 8))) is None


def test_sounds_of_a_shallow_layer_need_no_deeper_ones(tmp_path, monkeypatch):
    net, song = make_network(frames=24, head="flat"), (noise(1), SR)
    explained = fd.explain(song, net, layers="pool1", duration="all")
    ends, real = set(), fd.Network.forward

    def forward(net, x):
        ends.add(net.layers[-1].name)
        return real(net, x)

    monkeypatch.setattr(fd.Network, "forward", forward)
    explained.save(tmp_path)
    explained.sound("pool1", 0)
    assert ends == {"pool1"}


def test_sounds_below_a_branch_are_the_same_with_and_without_what_is_above(tmp_path):
    """A layer that several take is computed apart from those above it, which changes roundings."""
    rng = np.random.default_rng(7)
    layers, arrays = [], {}

    def conv(name, out, channels, size=3, **how):
        layers.append({"type": "conv2d", "name": name, "padding": "same", **how})
        arrays[f"{name}.weight"] = 0.2 * rng.standard_normal((out, channels, size, size))
        arrays[f"{name}.bias"] = np.zeros(out)

    conv("conv1", 16, 1)
    conv("conv2", 32, 16)
    layers.append({"type": "relu", "name": "relu"})
    layers.append({"type": "max_pool2d", "name": "pool", "kernel_size": 2})
    conv("conv3", 8, 32)
    conv("skip", 8, 32, 2, inputs=["relu"], stride=2, padding=0)
    layers.append({"type": "add", "name": "sum", "inputs": ["conv3", "skip"]})
    net = fd.Network(
        layers, arrays, (1, BANDS, None), frontend=fd.Frontend(**MEL, scale=LOG), name="branched",
    )
    song, how = (noise(1), SR), {"duration": "all", "features": [0, 3]}
    fd.explain(song, net, layers="pool", **how).save(tmp_path, "alone")
    fd.explain(song, net, layers=["pool", "sum"], **how).save(tmp_path, "with")
    for name in ("feature_0.wav", "feature_3.wav"):
        alone, beside = ((tmp_path / of / "pool" / name).read_bytes() for of in ("alone", "with"))
        assert alone == beside


@pytest.mark.parametrize(("frames", "seconds", "said", "not_said"), [
    (40, 1.0, "windows, each by itself", "single window"),
    (40, 0.2, "it is a single window", "windows, each by itself"),
    (None, 0.2, "Each row is a feature", "one pass of the network"),
])
def test_the_page_says_how_many_windows_there_are(tmp_path, frames, seconds, said, not_said):
    net = make_network(frames=frames, scale="db" if frames else LOG)
    song = fd.explain((noise(seconds), SR), net, layers="pool1", features=[0], duration="all")
    page = (song.save(tmp_path) / "index.html").read_text(encoding="utf-8")
    assert said in page and not_said not in page
