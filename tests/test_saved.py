"""Results that were saved, read back."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import fastdeconv as fd
from fastdeconv import cli
from fastdeconv import explanation as explanation_module

SR = 8000


def make_network(frames=20):
    rng = np.random.default_rng(0)
    layers, arrays, inputs = [], {}, 1
    for i, outputs in enumerate((4, 6), start=1):
        layers += [
            {"type": "conv2d", "name": f"conv{i}", "padding": "same", "bias": False},
            {"type": "relu", "name": f"relu{i}"},
            {"type": "max_pool2d", "name": f"pool{i}", "kernel_size": 2},
        ]
        arrays[f"conv{i}.weight"] = rng.standard_normal((outputs, inputs, 3, 3))
        inputs = outputs
    layers += [
        {"type": "global_avg_pool2d", "name": "mean"}, {"type": "flatten", "name": "flat"},
        {"type": "linear", "name": "fc", "bias": False},
    ]
    arrays["fc.weight"] = rng.standard_normal((2, 6))
    frontend = {
        "kind": "stft", "sr": SR, "n_fft": 64, "hop_length": 32, "frames": frames, "scale": "db",
    }
    return fd.Network(
        layers, arrays, (1, 33, None), frontend=frontend, name="tiny", classes=["=rock", "jazz"]
    )


def samples(seconds=0.5):
    return (0.2 * np.random.default_rng(1).standard_normal(round(seconds * SR))).astype(np.float32)


@pytest.fixture(scope="module")
def explanation():
    return fd.explain((samples(), SR), make_network(), layers=["pool1", "pool2"])


@pytest.fixture(scope="module")
def folder(explanation, tmp_path_factory):
    return explanation.save(tmp_path_factory.mktemp("saved"), "song", maps=True)


def test_what_was_saved_comes_back(explanation, folder):
    saved = fd.Explanation.load(folder)
    assert repr(saved) == "<SavedExplanation of 'song': pool1: 4, pool2: 6>"
    assert saved.features == explanation.features
    assert saved.table == explanation.table
    assert saved.ranked("pool2") == explanation.ranked("pool2")
    assert saved.outputs == explanation.outputs
    assert saved.covered == explanation.covered
    assert (saved.sr, saved.mode) == (SR, "mask")
    for layer, features in explanation.features.items():
        np.testing.assert_array_equal(saved.maps(layer), explanation.maps[layer])
        for k in features:
            sound = explanation.sound(layer, k)
            step = 1 / 32768 / next(
                row["gain"] for row in saved.table if (row["layer"], row["feature"]) == (layer, k)
            )
            np.testing.assert_allclose(saved.sound(layer, k), sound, atol=0.6 * step)
    np.testing.assert_allclose(saved.samples, explanation.clip.samples, atol=0.6 / 32768)


def test_a_feature_is_shown_from_its_files(explanation, folder):
    view = fd.Explanation.load(folder).show("pool2", 3)
    assert repr(view) == repr(explanation.show("pool2", 3)).replace("'clip'", "'song'")
    html = view._repr_html_()
    assert html.count("data:image/png;base64,") == 3
    assert html.count("data:audio/") == 2


def test_a_song_comes_back_with_its_time_lines(tmp_path):
    song = fd.explain((samples(), SR), make_network(), duration="all")
    saved = fd.Explanation.load(song.save(tmp_path, "song"))
    assert saved.features == song.features
    assert saved.table == song.table
    np.testing.assert_array_equal(saved.timeline("pool2"), song.timeline["pool2"])
    with pytest.raises(fd.ParameterError, match="maps=True"):
        saved.maps("pool2")


def test_what_is_not_there_is_named(folder):
    saved = fd.Explanation.load(folder)
    with pytest.raises(fd.ParameterError, match=r"pool9.*pool1, pool2"):
        saved.sound("pool9", 0)
    with pytest.raises(fd.ParameterError, match=r"feature 6 .* there are 0-5"):
        saved.sound("pool2", 6)
    with pytest.raises(fd.ParameterError, match="duration"):
        saved.timeline("pool2")


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_what_is_no_result_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(fd.ParameterError, match=r"manifest\.json"):
        fd.Explanation.load(tmp_path)
    with pytest.raises(fd.ParameterError):
        fd.Explanation.load(tmp_path / "nowhere")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def change(folder, edit):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m["layers"][0].update(folder="../elsewhere"),
        lambda m: m["layers"][0].update(folder="/etc"),
        lambda m: m["layers"][0].update(folder=3),
        lambda m: m["audio"].update(samples=-1),
        lambda m: m["audio"].update(samples=1 << 60),
        lambda m: m["audio"].update(original_gain=0),
        lambda m: m["audio"].update(start="soon"),
        lambda m: m["audio"].update(padding="much"),
        lambda m: m["audio"].update(format="../../x"),
        lambda m: m["parameters"].update(mode="loud"),
        lambda m: m["frontend"].update(n_fft=1 << 40),
        lambda m: m.pop("audio"),
        lambda m: m.update(layers=7),
        lambda m: m["network"].update(outputs=[["rock"]]),
    ],
)
def test_a_manifest_is_not_trusted(copy, edit):
    change(copy, edit)
    with pytest.raises(fd.ParameterError, match="copy"):
        fd.Explanation.load(copy)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [("pool2,0", "pool9,0"), ("pool2,0", "pool2,-1"), ("pool2,0", "pool2,x"), ("layer", "lawyer")],
)
def test_a_table_is_not_trusted(copy, found, wanted):
    path = copy / "features.csv"
    path.write_text(path.read_text().replace(found, wanted, 1))
    with pytest.raises(fd.ParameterError, match="copy"):
        fd.Explanation.load(copy)


def test_a_sound_of_another_length_is_refused(copy):
    path = copy / "pool2" / "feature_0.wav"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(fd.AudioError, match="feature_0"):
        fd.Explanation.load(copy).sound("pool2", 0)


def npy(**changes):
    header = {"descr": "<f4", "fortran_order": False, "shape": (2, 1, 3, 4)} | changes
    text = repr(header).encode().ljust(118)
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(96)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x93NUMPY", npy(shape=(1 << 60,)), npy(shape=(-2, -12)), npy(descr="|O"),
        npy(descr="<f8"), npy(fortran_order=True), npy(shape=24), npy()[:-1],
        npy().replace(b"False", b"f(1) "), b"PK\x03\x04" + bytes(100),
    ],
)
def test_an_array_is_not_trusted(copy, content):
    (copy / "pool2" / "maps.npy").write_bytes(content)
    with pytest.raises(fd.ParameterError, match="copy"):
        fd.Explanation.load(copy).maps("pool2")


def test_an_array_that_is_one_is_read(copy):
    (copy / "pool2" / "maps.npy").write_bytes(npy())
    assert fd.Explanation.load(copy).maps("pool2").shape == (2, 1, 3, 4)


def test_a_layer_that_is_a_link_is_refused(copy, tmp_path):
    (copy / "pool2").rename(tmp_path / "elsewhere")
    (copy / "pool2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(fd.ParameterError, match="link"):
        fd.Explanation.load(copy)


# One more layer


def read_tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*") if path.is_file()
    }


def explain_command(folder):
    """The command on a song in this folder, called with the name of OUT there and options."""
    make_network().save(folder / "net.npz")
    soundfile.write(folder / "song.wav", samples(), SR)

    def arguments(out, *options):
        return [
            "explain", str(folder / "song.wav"), "-o", str(folder / out), "--network",
            str(folder / "net.npz"), "--threads", "1", *options,
        ]

    def run(out, *options):
        return CliRunner().invoke(cli.main, arguments(out, *options))

    run.arguments = arguments
    return run


@pytest.fixture
def command(tmp_path):
    return explain_command(tmp_path)


CLIP, SONG = [], ["--duration", "all"]
of_clips_and_songs = pytest.mark.parametrize("kind", [CLIP, SONG], ids=["clip", "song"])


@of_clips_and_songs
def test_running_again_with_one_more_layer_computes_only_that(
    command, tmp_path, monkeypatch, kind
):
    assert command("at-once", "--layers", "pool1,conv2,pool2", *kind).exit_code == 0
    assert command("step", "--layers", "conv2", *kind).exit_code == 0
    projected = set()
    real = fd.deconvolve

    def watched(trace, layer, **how):
        projected.add(layer)
        return real(trace, layer, **how)

    monkeypatch.setattr("fastdeconv.belief.feature_maps.deconvolve", watched)
    monkeypatch.setattr("fastdeconv.deconvnet.together.deconvolve", watched)
    result = command("step", "--layers", "pool1,conv2,pool2", *kind)
    assert result.exit_code == 0, result.output
    assert projected == {"pool1", "pool2"}
    assert "song: 10 features of 2 layers" in result.stdout
    assert "Computed: pool1, pool2. Taken over from before: conv2." in result.stdout
    assert read_tree(tmp_path / "step" / "song") == read_tree(tmp_path / "at-once" / "song")
    assert "already there, with the same settings" in command(
        "step", "--layers", "pool1,conv2,pool2", *kind
    ).stdout


@of_clips_and_songs
def test_the_order_in_which_layers_are_named_does_not_matter(command, tmp_path, kind):
    assert command("out", "--layers", "pool1,pool2", *kind).exit_code == 0
    before = read_tree(tmp_path / "out")
    result = command("out", "--layers", "pool2,pool1", *kind)
    assert "already there, with the same settings" in result.stdout
    assert read_tree(tmp_path / "out") == before


@of_clips_and_songs
def test_a_result_that_another_run_has_changed_meanwhile_is_not_replaced(
    command, tmp_path, monkeypatch, kind
):
    assert command("out", "--layers", "pool1", *kind).exit_code == 0
    compute = explanation_module.compute

    def after_another_run(*arguments):
        monkeypatch.undo()
        assert command("out", "--layers", "pool1,conv2", *kind).exit_code == 0
        return compute(*arguments)

    monkeypatch.setattr(explanation_module, "compute", after_another_run)
    result = command("out", "--layers", "pool1,pool2", *kind)
    assert result.exit_code == 1 and "has changed meanwhile: run the command" in result.stderr
    assert {*fd.Explanation.load(tmp_path / "out" / "song").features} == {"pool1", "conv2"}


@of_clips_and_songs
@pytest.mark.parametrize(
    "options, said",
    [
        (["--layers", "pool2"], "layers and features"),
        (["--layers", "pool1,pool2", "--rule", "guided"], "layers and features, rule"),
        (["--layers", "pool1,pool2", "--features", "0-2"], "layers and features"),
        (["--layers", "pool1,pool2", "--offset", "0.1"], "song, layers and features"),
    ],
)
def test_what_differs_otherwise_is_refused_and_made_anew_only_if_told(
    command, tmp_path, kind, options, said
):
    assert command("out", "--layers", "pool1", *kind).exit_code == 0
    before = read_tree(tmp_path / "out")
    result = command("out", *options, *kind)
    assert result.exit_code == 1
    assert f"already there and differs in {said}: --overwrite" in result.stderr
    assert read_tree(tmp_path / "out") == before
    result = command("out", *options, *kind, "--overwrite")
    assert result.exit_code == 0 and "Taken over" not in result.stdout
    assert command("fresh", *options, *kind).exit_code == 0
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "fresh")


@of_clips_and_songs
@pytest.mark.parametrize("name, change", [
    ("feature_1.wav", "gone"), ("feature_2.png", "elsewhere"), ("map_0.png", "cut"),
    ("feature_1.wav", "bit"),
])
def test_a_layer_that_is_not_as_it_was_written_is_computed_again(
    command, tmp_path, kind, name, change
):
    assert command("at-once", "--layers", "pool1,conv2,pool2", *kind).exit_code == 0
    assert command("out", "--layers", "pool1,conv2", *kind).exit_code == 0
    path = tmp_path / "out" / "song" / "pool1" / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if change == "elsewhere":
        path.symlink_to(tmp_path / "song.wav")
    elif change == "cut":
        path.write_bytes(content[:-1])
    elif change == "bit":
        content[-1] ^= 1
        path.write_bytes(content)
    result = command("out", "--layers", "pool1,conv2,pool2", *kind)
    assert result.exit_code == 0, result.output
    assert (
        "Computed: pool1, pool2. Taken over from before: conv2. Not taken over, because its "
        "files are not as they were written: pool1."
    ) in result.stdout
    assert read_tree(tmp_path / "out" / "song") == read_tree(tmp_path / "at-once" / "song")


@pytest.mark.parametrize("name, kind", [
    ("activation_mean.png", CLIP), ("activation_0.png", CLIP), ("timeline.npy", SONG),
    ("timeline.png", SONG),
])
def test_pictures_and_numbers_of_a_layer_are_of_it(command, tmp_path, name, kind):
    assert command("out", "--layers", "pool1", *kind).exit_code == 0
    (tmp_path / "out" / "song" / "pool1" / name).unlink()
    result = command("out", "--layers", "pool1,pool2", *kind)
    assert "Computed: pool1, pool2. Not taken over" in result.stdout


@of_clips_and_songs
def test_numbers_that_were_changed_are_not_kept(command, tmp_path, kind):
    assert command("at-once", "--layers", "pool1,pool2", *kind).exit_code == 0
    assert command("out", "--layers", "pool1", *kind).exit_code == 0
    table = tmp_path / "out" / "song" / "features.csv"
    row = table.read_text().splitlines()[1]
    table.write_text(table.read_text().replace(row, row.replace(".", ".1", 1)))
    result = command("out", "--layers", "pool1,pool2", *kind)
    assert "Computed: pool1, pool2. Not taken over" in result.stdout
    assert read_tree(tmp_path / "out" / "song") == read_tree(tmp_path / "at-once" / "song")


_KILLED = """
import os, signal, sys
from fastdeconv.cli import main
from fastdeconv.report.song_stream import LayerStream

def die(self, rows):
    os.kill(os.getpid(), signal.SIGKILL)
    yield

LayerStream.write = die
main(sys.argv[1:])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_run_that_is_killed_leaves_the_song_as_it_was(command, tmp_path):
    more = ["--layers", "pool1,pool2", *SONG]
    assert command("at-once", *more).exit_code == 0
    assert command("out", "--layers", "pool1", *SONG).exit_code == 0
    before = read_tree(tmp_path / "out" / "song")
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED, *command.arguments("out", *more)], timeout=600,
    )
    assert ended.returncode == -signal.SIGKILL
    assert read_tree(tmp_path / "out" / "song") == before
    assert "Taken over from before: pool1." in command("out", *more).stdout
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "at-once")


@of_clips_and_songs
@pytest.mark.parametrize("name", ["features.csv", "index.html"])
def test_a_result_that_cannot_be_read_is_not_added_to(command, tmp_path, kind, name):
    assert command("out", "--layers", "pool1", *kind).exit_code == 0
    (tmp_path / "out" / "song" / name).write_text("layer\npool9\n")
    before = read_tree(tmp_path / "out")
    result = command("out", "--layers", "pool1,pool2", *kind)
    assert result.exit_code == 1
    assert "--overwrite makes the result anew" in result.stderr
    assert str(tmp_path / "out" / "song") in result.stderr
    assert read_tree(tmp_path / "out") == before


def test_a_result_of_any_mode_is_read_back(tmp_path):
    net = fd.pretrained("choi5-genre")
    clip = fd.Clip(np.sin(np.arange(8000) / 5), 11025, net.frontend)
    explanation = fd.explain(clip, net, "pool5", [1, 2], mode="wiener")
    saved = fd.Explanation.load(explanation.save(tmp_path))
    assert saved.mode == "wiener"
    assert saved.ranked("pool5") == explanation.ranked("pool5")
