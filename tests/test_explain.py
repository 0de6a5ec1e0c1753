from __future__ import annotations

import csv
import io
import json
import os
import shutil

import numpy as np
import pytest
import soundfile
from PIL import Image

import fastdeconv as fd
from fastdeconv.report import song as song_report
from fastdeconv.report.sounds import PEAK

SR = 8000
FRONTEND = {"kind": "stft", "sr": SR, "n_fft": 64, "hop_length": 32, "frames": 20}


def make_network(names=("pool1", "pool2"), pooling=True, frontend=FRONTEND, bias=0.0):
    rng = np.random.default_rng(0)
    layers, arrays, channels = [], {}, 1
    for i, out in enumerate((4, 6), start=1):
        layers.append({"type": "conv2d", "name": f"conv{i}", "padding": "same"})
        layers.append({"type": "relu", "name": f"relu{i}"})
        if pooling:
            layers.append({"type": "max_pool2d", "name": names[i - 1], "kernel_size": 2})
        arrays[f"conv{i}.weight"] = rng.standard_normal((out, channels, 3, 3))
        arrays[f"conv{i}.bias"] = np.full(out, bias)
        channels = out
    return fd.Network(layers, arrays, (1, None, None), frontend=frontend, name="tiny")


def make_samples(seconds=0.08):
    rng = np.random.default_rng(1)
    return (0.2 * rng.standard_normal(round(seconds * SR))).astype(np.float32)


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, make_samples(), SR)
    return path


@pytest.fixture(scope="module")
def explanation():
    return fd.explain((make_samples(), SR), make_network())


def read_tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# What explain computes


def test_every_feature_of_every_pooling_layer_is_explained_by_default(explanation):
    assert explanation.features == {"pool1": [0, 1, 2, 3], "pool2": [0, 1, 2, 3, 4, 5]}
    shapes = {layer: maps.shape for layer, maps in explanation.maps.items()}
    assert shapes == {"pool1": (4, *explanation.clip.x.shape), "pool2": (6, 1, 33, 20)}
    assert all(maps.dtype == np.float32 for maps in explanation.maps.values())


def test_maps_and_sounds_are_those_of_deconvolve_and_auralise():
    net = make_network()
    explanation = fd.explain(
        (make_samples(), SR), net, features=[5, 2], layers=["pool2"], rule="guided", start="max",
        mode="phase",
    )
    clip = fd.load_clip((make_samples(), SR), net.frontend)
    maps = fd.deconvolve(
        net.forward(clip.x), "pool2", features=[5, 2], rule="guided", start="max"
    )
    np.testing.assert_array_equal(explanation.maps["pool2"], maps)
    sounds = fd.auralise(clip, maps, mode="phase")
    np.testing.assert_array_equal(explanation.sounds("pool2"), sounds)
    np.testing.assert_array_equal(explanation.sound("pool2", 2), sounds[1])


def test_sound_takes_the_number_of_the_feature_and_is_as_long_as_the_clip():
    some = fd.explain((make_samples(), SR), make_network(), layers="pool2", features=[4, 1])
    every = fd.explain((make_samples(), SR), make_network())
    assert some.sound("pool2", 4).shape == some.clip.samples.shape
    assert some.sound("pool2", 4).dtype == np.float32
    np.testing.assert_array_equal(some.sound("pool2", 4), every.sound("pool2", 4))


def test_features_can_be_chosen_for_each_layer():
    net = make_network()
    by_layer = {"pool2": [1], "pool1": []}
    assert fd.explain((make_samples(), SR), net, features=by_layer).features == by_layer
    mixed = fd.explain(
        (make_samples(), SR), net, layers=["pool1", "pool2"], features={"pool2": np.array([3])}
    )
    assert mixed.features == {"pool1": [0, 1, 2, 3], "pool2": [3]}


def test_without_pooling_the_blocks_of_the_convolutions_are_explained():
    explanation = fd.explain((make_samples(), SR), make_network(pooling=False))
    assert list(explanation.maps) == ["relu1", "relu2"]


def test_a_clip_is_used_as_it_is_even_without_a_front_end_of_the_network():
    clip = fd.Clip(make_samples(), SR, fd.Frontend.from_record(FRONTEND))
    explanation = fd.explain(clip, make_network(frontend=None))
    assert explanation.clip is clip
    with pytest.raises(fd.ParameterError, match="offset"):
        fd.explain(clip, make_network(), offset=1.0)


def test_a_network_may_be_given_by_its_path(tmp_path, song):
    make_network().save(tmp_path / "net.npz")
    by_path = fd.explain(song, tmp_path / "net.npz", layers=["pool1"])
    by_value = fd.explain(song, make_network(), layers=["pool1"])
    np.testing.assert_array_equal(by_path.maps["pool1"], by_value.maps["pool1"])


def test_progress_is_told_after_each_layer():
    calls = []
    explanation = fd.explain(
        (make_samples(), SR), make_network(), progress=lambda *call: calls.append(call)
    )
    assert calls == [("pool1", 4, 10), ("pool2", 10, 10)]
    assert repr(explanation) == "<Explanation of 'clip': pool1: 4, pool2: 6>"


def test_the_number_of_threads_changes_no_bit():
    one, three = (
        fd.explain((make_samples(), SR), make_network(), num_threads=n) for n in (1, 3)
    )
    for layer in one.maps:
        np.testing.assert_array_equal(one.maps[layer], three.maps[layer])
        np.testing.assert_array_equal(one.sounds(layer), three.sounds(layer))
    assert one.table == three.table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": ["pool9"]}, "pool1.*pool2"),
        ({"layers": 3}, "layers"),
        ({"features": [6]}, "6"),
        ({"features": [-1]}, "-1"),
        ({"features": 3}, "features"),
        ({"features": {"pool9": [0]}}, "pool9"),
        ({"layers": ["pool1"], "features": {"pool2": [0]}}, "pool2"),
        ({"rule": "magic"}, "magic"),
        ({"start": "middle"}, "middle"),
        ({"mode": "loud"}, "loud"),
        ({"net": "no-such-network"}, "no-such-network.*choi5-genre"),
        ({"net": 5}, "net must be"),
        ({"net": make_network(frontend=None)}, "front end.*Frontend"),
        ({"num_threads": 0}, "num_threads"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(fd.ParameterError, match=message):
        fd.explain((make_samples(), SR), **{"net": make_network(), **arguments})


def test_an_unknown_back_end_is_a_back_end_error():
    with pytest.raises(fd.BackendError, match="abacus"):
        fd.explain((make_samples(), SR), make_network(), backend="abacus")


@pytest.mark.parametrize("net", ["no/such.npz", "no-such.npz"])
def test_an_archive_that_is_not_there_is_file_not_found(song, net):
    with pytest.raises(FileNotFoundError):
        fd.explain(song, net)


def test_a_song_that_is_not_there_is_file_not_found():
    with pytest.raises(FileNotFoundError):
        fd.explain("no-such-song.wav", make_network())


def test_running_out_of_memory_says_what_to_do(monkeypatch):
    def exhausted(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("fastdeconv.belief.feature_maps.deconvolve", exhausted)
    with pytest.raises(fd.ParameterError, match="not enough memory"):
        fd.explain((make_samples(), SR), make_network())


def test_asking_for_what_was_not_explained_says_what_there_is(explanation):
    with pytest.raises(fd.ParameterError, match=r"pool9.*pool1, pool2"):
        explanation.sound("pool9", 0)
    with pytest.raises(fd.ParameterError, match=r"feature 6.*there are 0-5"):
        explanation.sound("pool2", 6)


# The table


def test_the_table_measures_the_sound_before_normalisation(explanation):
    rows = explanation.table
    assert [(row["layer"], row["feature"]) for row in rows] == [
        (layer, k) for layer, ks in explanation.features.items() for k in ks
    ]
    for row in rows:
        sound = explanation.sound(row["layer"], row["feature"]).astype(np.float64)
        feature_map = explanation.maps[row["layer"]][row["feature"]]
        assert row["energy"] == pytest.approx((sound**2).sum(), rel=1e-12)
        assert row["peak"] == np.abs(sound).max()
        assert row["gain"] * row["peak"] == pytest.approx(PEAK) or row["gain"] == 1.0
        assert row["nonzero"] == (feature_map != 0).mean()


def test_changing_a_row_does_not_change_the_table(explanation):
    explanation.table[0]["gain"] = "mine"
    assert explanation.table[0]["gain"] != "mine"


def test_a_sound_that_overflows_is_an_error_not_a_broken_file(tmp_path):
    explanation = fd.explain((make_samples(), SR), make_network(), layers=["pool1"])
    explanation.maps["pool1"] *= np.float32(1e37) / np.abs(explanation.maps["pool1"]).max()
    explanation.clip = fd.Clip(explanation.clip.samples * 1e4, SR, explanation.clip.frontend)
    with pytest.raises(fd.FastdeconvError, match="not finite"):
        explanation.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# What save writes


def test_save_writes_every_file_and_says_where(tmp_path, song):
    folder = fd.explain(song, make_network()).save(tmp_path / "out")
    assert folder == tmp_path / "out" / "song"
    assert os.listdir(tmp_path / "out") == ["song"]
    features = {
        f"pool{i}/{kind.format(k)}"
        for i, n in ((1, 4), (2, 6))
        for k in (*range(n), "mean")
        for kind in ("feature_{}.wav", "feature_{}.png", "map_{}.png", "activation_{}.png")
        if k != "mean" or kind == "activation_{}.png"
    }
    rest = {
        "original.wav", "original.png", "input.png", "features.csv", "manifest.json", "index.html"
    }
    assert set(read_tree(folder)) == features | rest


def test_sounds_are_written_at_the_rate_and_length_of_the_clip(tmp_path, explanation):
    folder = explanation.save(tmp_path)
    for name in ("original.wav", "pool2/feature_3.wav"):
        about = soundfile.info(folder / name)
        assert (about.samplerate, about.frames) == (SR, explanation.clip.samples.size)
    original, _ = soundfile.read(folder / "original.wav", dtype="float32")
    np.testing.assert_allclose(original, explanation.clip.samples, atol=0.6 / 32768)


def test_a_written_sound_is_the_sound_times_its_gain(tmp_path, explanation):
    folder = explanation.save(tmp_path)
    for row in explanation.table:
        where = folder / row["layer"] / f"feature_{row['feature']}.wav"
        written, _ = soundfile.read(where, dtype="float64")
        sound = explanation.sound(row["layer"], row["feature"])
        np.testing.assert_allclose(written, sound * row["gain"], atol=0.6 / 32768)


def test_pictures_have_a_pixel_per_frame_and_quarter_tone(tmp_path, explanation):
    folder = explanation.save(tmp_path)
    for name in ("original", "input", "pool1/feature_0", "pool2/map_3", "pool2/activation_mean"):
        with Image.open(folder / f"{name}.png") as image:
            assert image.size == (20, 24 * 5)  # five octaves, 125 to 4000 Hz


def test_an_activation_fills_the_frame_whatever_its_size(tmp_path, explanation):
    folder = explanation.save(tmp_path)
    mean = explanation.activations["pool2"].mean(axis=0)
    assert mean.shape == (8, 5)
    with Image.open(folder / "pool2" / "activation_mean.png") as image:
        seen = np.asarray(image).astype(int)[::-1]
    # A unit is four of the twenty frames; the top row is bin 32 of 33, of the last of 8 rows.
    np.testing.assert_array_equal(seen[-1, ::4], np.rint(63 * mean[-1] / mean.max()))
    assert (seen.reshape(120, 5, 4) == seen[:, ::4, None]).all()


@pytest.mark.parametrize("audio_format", ["flac", "ogg"])
def test_sounds_come_in_other_formats_too(tmp_path, explanation, audio_format):
    folder = explanation.save(tmp_path, audio_format=audio_format)
    for name in ("original", "pool2/feature_3"):
        about = soundfile.info(folder / f"{name}.{audio_format}")
        assert about.format == audio_format.upper()
        assert (about.samplerate, about.frames) == (SR, explanation.clip.samples.size)
    assert not list(folder.rglob("*.wav"))


def test_an_unknown_sound_format_is_refused_before_anything_is_written(tmp_path, explanation):
    with pytest.raises(fd.ParameterError, match="wav, flac, ogg"):
        explanation.save(tmp_path / "out", audio_format="mp3")
    assert not (tmp_path / "out").exists()


def test_pictures_of_a_layer_share_one_scale(tmp_path, explanation):
    folder = explanation.save(tmp_path)
    stft = np.abs(explanation.clip.stft)
    heard = np.abs(explanation.maps["pool2"][:, 0] * stft)
    for k, magnitude in enumerate(heard):
        with Image.open(folder / "pool2" / f"feature_{k}.png") as image:
            brightest = int(np.asarray(image).max())
        # Bin 0 has no place on the axis.
        db = 20 * np.log10(max(magnitude[1:].max() / heard.max(), 1e-4))
        assert brightest == pytest.approx(63 * (1 + db / 80), abs=0.6)


def test_a_network_whose_rows_are_time_gets_upright_pictures(tmp_path):
    fe = fd.Frontend.from_record({**FRONTEND, "layout": "CTF"})
    explanation = fd.explain((make_samples(), SR), make_network(frontend=fe), layers=["pool1"])
    assert explanation.maps["pool1"].shape[2:] == (20, 33)
    folder = explanation.save(tmp_path)
    with Image.open(folder / "pool1" / "feature_1.png") as image:
        assert image.size == (20, 120)


@pytest.mark.parametrize("mode", ["mask", "phase"])
def test_the_picture_shows_the_spectrogram_that_is_heard(mode):
    fe = fd.Frontend.from_record(FRONTEND)
    clip = fd.Clip(make_samples(), SR, fe)
    stft = np.abs(clip.stft)
    feature_map = np.random.default_rng(2).standard_normal((1, *stft.shape)).astype(np.float32)
    expected = stft * np.abs(feature_map[0]) if mode == "mask" else np.maximum(feature_map[0], 0)
    heard = song_report.heard(clip, stft, feature_map, mode)
    np.testing.assert_array_equal(heard, expected)


def test_the_csv_is_the_table(tmp_path, explanation):
    folder = explanation.save(tmp_path)
    with open(folder / "features.csv", newline="", encoding="utf-8") as file:
        read = [
            {key: value if key in ("layer", "label") else float(value) if value else None
             for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
    assert read == explanation.table


def test_the_manifest_says_how_it_was_made(tmp_path, song):
    explanation = fd.explain(
        song, make_network(), layers=["pool2"], rule="guided", start="max", mode="phase",
        num_threads=2, backend="reference",
    )
    folder = explanation.save(tmp_path / "out")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["fastdeconv"] == fd.__version__
    assert (manifest["song"], manifest["source"]) == ("song", "song.wav")
    assert manifest["network"]["name"] == "tiny"
    assert manifest["parameters"] == {
        "rule": "guided", "start": "max", "mode": "phase", "offset": 0.0, "precision": "float32",
    }
    assert manifest["computation"] == {
        "backend": "reference", "instruction_set": None, "threads": 2,
    }
    assert fd.Frontend.from_record(manifest["frontend"]) == explanation.clip.frontend
    (layer,) = manifest["layers"]
    assert (layer["name"], layer["folder"], layer["map_shape"]) == ("pool2", "pool2", [1, 33, 20])
    assert layer["gains"] == {str(row["feature"]): row["gain"] for row in explanation.table}
    assert "1607.02444" in manifest["citation"][0] and "1311.2901" in manifest["citation"][1]


def test_the_same_call_writes_the_same_bytes(tmp_path, song):
    trees = []
    for _ in range(2):
        folder = fd.explain(song, make_network()).save(tmp_path / "out")
        trees.append(read_tree(folder))
        shutil.rmtree(folder)
    assert trees[0] == trees[1]


def test_saving_keeps_no_sounds_and_changes_no_result(tmp_path):
    explanation = fd.explain((make_samples(), SR), make_network())
    fresh = fd.explain((make_samples(), SR), make_network())
    explanation.save(tmp_path)
    assert explanation.table == fresh.table
    np.testing.assert_array_equal(explanation.sounds("pool1"), fresh.sounds("pool1"))


def test_saving_tells_its_progress(tmp_path, explanation):
    calls = []
    explanation.save(tmp_path, progress=lambda *call: calls.append(call))
    assert calls == [("pool1", 4, 10), ("pool2", 10, 10)]


def test_a_feature_asked_for_twice_is_written_once(tmp_path):
    explanation = fd.explain((make_samples(), SR), make_network(), layers="pool1", features=[3, 3])
    assert explanation.maps["pool1"].shape[0] == 2
    folder = explanation.save(tmp_path)
    assert [path.name for path in sorted(folder.glob("pool1/feature_*"))] == [
        "feature_3.png", "feature_3.wav"
    ]
    assert [row["feature"] for row in explanation.table] == [3]


def test_one_layer_is_ranked_without_the_others_and_saving_keeps_no_sounds(tmp_path, monkeypatch):
    explanation = fd.explain((make_samples(), SR), make_network())
    auralise, layers = fd.Explanation._auralise, []

    def noted(self, layer):
        layers.append(layer)
        return auralise(self, layer)

    monkeypatch.setattr(fd.Explanation, "_auralise", noted)
    assert [row["layer"] for row in explanation.ranked("pool2")] == ["pool2"] * 6
    assert layers == ["pool2"]
    explanation = fd.explain((make_samples(), SR), make_network())
    explanation.save(tmp_path)
    explanation.sound("pool1", 0)
    assert layers == ["pool2", "pool1", "pool2", "pool1"]


def test_no_features_give_a_valid_empty_result(tmp_path):
    explanation = fd.explain((make_samples(), SR), make_network(), features=[])
    folder = explanation.save(tmp_path)
    assert explanation.table == []
    assert os.listdir(folder / "pool1") == []


def test_silence_gives_exact_zeros_and_silent_files(tmp_path, recwarn):
    explanation = fd.explain((np.zeros(600, np.float32), SR), make_network())
    folder = explanation.save(tmp_path)
    for row in explanation.table:
        assert (row["energy"], row["peak"], row["nonzero"], row["gain"]) == (0, 0, 0, 1)
        written, _ = soundfile.read(folder / row["layer"] / f"feature_{row['feature']}.wav")
        assert written.size == explanation.clip.samples.size and not written.any()
    assert not any(maps.any() for maps in explanation.maps.values())
    assert not recwarn.list


def test_a_clip_beyond_full_scale_is_turned_down_and_says_so(tmp_path):
    explanation = fd.explain((make_samples() * 20, SR), make_network(), layers=["pool1"])
    folder = explanation.save(tmp_path)
    written, _ = soundfile.read(folder / "original.wav")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    peak = np.abs(explanation.clip.samples).max()
    assert peak > 1
    assert manifest["audio"]["original_gain"] == pytest.approx(PEAK / peak)
    assert np.abs(written).max() == pytest.approx(PEAK, abs=1e-4)


# Names and folders


def test_layer_names_never_leave_the_folder_of_the_song(tmp_path):
    names = ("...", "manifest.json")
    folder = fd.explain((make_samples(), SR), make_network(names)).save(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["out"]
    assert {entry.name for entry in folder.iterdir() if entry.is_dir()} == {
        "layer", "manifest.json-2",
    }
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert [layer["name"] for layer in manifest["layers"]] == list(names)


def test_layers_whose_names_become_alike_get_folders_of_their_own(tmp_path):
    folder = fd.explain((make_samples(), SR), make_network(("a:b", "A?B"))).save(tmp_path)
    assert len(list(folder.glob("a_b/*.wav"))) == 4
    assert len(list(folder.glob("A_B-2/*.wav"))) == 6


@pytest.mark.parametrize("name", ["../up", "/absolute", "a\nb", ".hidden", "-o", "x" * 300])
def test_a_name_given_to_save_stays_inside_out(tmp_path, explanation, name):
    folder = explanation.save(tmp_path / "out", name)
    assert folder.parent == tmp_path / "out"
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [folder.name]
    assert os.listdir(tmp_path) == ["out"]


def test_a_source_without_a_file_name_is_called_clip(song):
    assert fd.explain((make_samples(), SR), make_network(), layers=[]).name == "clip"
    with open(song, "rb") as file:
        assert fd.explain(file, make_network(), layers=[]).name == "song"
    buffer = io.BytesIO(song.read_bytes())
    assert fd.explain(buffer, make_network(), layers=[]).name == "clip"


def test_an_earlier_result_is_kept_unless_overwriting_is_asked_for(tmp_path, explanation):
    folder = explanation.save(tmp_path)
    before = read_tree(folder)
    with pytest.raises(fd.ParameterError, match="already there"):
        explanation.save(tmp_path)
    assert read_tree(folder) == before
    explanation.save(tmp_path, overwrite=True)
    assert read_tree(folder) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("threads", [1, 3])
def test_an_interrupted_save_leaves_nothing(tmp_path, monkeypatch, error, threads):
    explanation = fd.explain((make_samples(), SR), make_network(), num_threads=threads)
    write_png, calls = song_report.write_png, []

    def interrupted(path, indices, **how):
        calls.append(path)
        if len(calls) == 6:
            raise error
        write_png(path, indices, **how)

    monkeypatch.setattr(song_report, "write_png", interrupted)
    with pytest.raises(error):
        explanation.save(tmp_path)
    assert os.listdir(tmp_path) == []


def test_an_output_folder_that_cannot_be_written_is_a_clear_error(tmp_path, explanation):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(fd.ParameterError, match="cannot write in the output folder"):
        explanation.save(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file"
