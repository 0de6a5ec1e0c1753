"""Folders and figures of top clips, invariance and correspondence."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import fastdeconv as fd
from fastdeconv.report import protocols as report

SR = 8000
BOX = (4, 12), (5, 9)


@pytest.fixture(scope="module")
def net() -> fd.Network:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 1, 3, 3))
    weight[3] = 0
    return fd.Network(
        [
            {"type": "conv2d", "name": "conv1", "padding": 1}, {"type": "relu", "name": "relu1"},
            {"type": "max_pool2d", "name": "pool1", "kernel_size": 2},
            {"type": "global_avg_pool2d", "name": "mean"}, {"type": "flatten", "name": "flat"},
            {"type": "linear", "name": "fc"},
        ],
        {
            "conv1.weight": weight, "conv1.bias": np.zeros(4),
            "fc.weight": rng.standard_normal((2, 4)), "fc.bias": np.zeros(2),
        },
        (1, 33, 100), frontend=fd.Frontend(sr=SR, n_fft=64, hop_length=128, frames=100),
        classes=["calm", "loud"], name="ti$ny",
    )


@pytest.fixture(scope="module")
def clips(net: fd.Network) -> list[fd.Clip]:
    found = []
    for seed in range(3):
        samples = 0.1 * np.random.default_rng(seed).standard_normal(100 * 128)
        samples[3000 * (1 + seed) :: 97] += 0.5
        found.append(fd.Clip(samples.astype(np.float32), SR, net.frontend))
    return found


@pytest.fixture(scope="module")
def top(clips: list[fd.Clip], net: fd.Network) -> fd.TopClips:
    return fd.top_clips(clips, net, "pool1")


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


# --- top clips -----------------------------------------------------------------------------


def test_an_excerpt_is_the_unit_and_a_second_of_sound_around_it(top, clips, net):
    excerpts = top.excerpts("pool1", 0)
    assert [one.row["rank"] for one in excerpts] == [1, 2, 3]
    for one in excerpts:
        clip, row = clips[one.row["clip"]], one.row
        box = np.s_[row["top"] : row["bottom"], row["left"] : row["right"]]
        np.testing.assert_array_equal(one.input, clip.x[0][box])
        maps = fd.deconvolve(net.forward(clip.x), "pool1", [0], start="max")
        np.testing.assert_array_equal(one.projection, maps[0, 0][box])
        assert one.place.rows == (row["top"], row["bottom"])
        assert one.original.size == one.heard.size
        assert 1 <= one.original.size / SR < 1.01
        begin, end = one.place.seconds
        assert one.begin <= begin + 1e-6
        assert end <= one.begin + one.original.size / SR + 1e-6
        at = round(one.begin * SR)
        inside = slice(100, -100)  # behind the fades
        np.testing.assert_array_equal(
            one.original[inside], clip.samples[at : at + one.original.size][inside]
        )
        sound = fd.auralise(clip, maps)[0]
        np.testing.assert_array_equal(
            one.heard[inside], sound[at : at + one.heard.size][inside]
        )
        assert abs(one.heard[0]) < 1e-6 and abs(one.original[-1]) < 1e-3
    assert top.excerpts("pool1", 3) == []  # fires nowhere


def test_top_clips_are_saved_to_see_and_to_hear(top, tmp_path):
    folder = top.save(tmp_path, features=[0, 2])
    rows = table_of(folder / "top_clips.csv")
    assert {(row["layer"], row["feature"]) for row in rows} == {("pool1", "0"), ("pool1", "2")}
    for row in rows:
        stem = folder / "pool1" / f"{row['feature']}_{row['rank']}"
        for suffix in ("heard.ogg", "original.ogg"):
            assert soundfile.info(f"{stem}_{suffix}").duration >= 1
        assert Path(f"{stem}_input.png").stat().st_size and Path(f"{stem}_projection.png").exists()
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 2 * len(rows) and "<summary>pool1/2</summary>" in page
    assert manifest_of(folder)["format"] == "fastdeconv-top-clips"
    with pytest.raises(fd.ParameterError, match="already there"):
        top.save(tmp_path)
    top.save(tmp_path, features=np.int64(0), overwrite=True)
    assert {row["feature"] for row in table_of(folder / "top_clips.csv")} == {"0"}


def test_the_same_top_clips_give_the_same_bytes(top, tmp_path):
    found = []
    for name in ("one", "two"):
        folder = top.save(tmp_path, name)
        found.append({
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()
        })
    assert found[0] == found[1]


@pytest.mark.parametrize("how, words", [
    ({"layers": "conv1"}, "layer 'conv1' has no top clips"),
    ({"features": [3]}, "feature 3 has no top clips"),
    ({"mode": "loud"}, "mode"), ({"audio_format": "mp3"}, "audio_format"),
])
def test_what_is_not_there_cannot_be_saved(top, tmp_path, how, words):
    with pytest.raises(fd.ParameterError, match=words):
        top.save(tmp_path, **how)
    assert not list(tmp_path.iterdir())


def test_a_feature_that_does_not_exist_has_no_excerpts(top):
    with pytest.raises(fd.ParameterError, match=r"features 0\.\.3, found 4"):
        top.excerpts("pool1", 4)
    with pytest.raises(fd.ParameterError, match="mode"):
        top.excerpts("pool1", 0, "loud")


# --- invariance and correspondence ---------------------------------------------------------


def test_an_untrained_network_stands_beside(clips, net):
    control = fd.randomised(net, 3)
    changes = {"shift": [0.1], "gain": [10]}
    both = fd.invariance(clips[0], net, "pool1", changes, control=control)
    alone = fd.invariance(clips[0], control, "pool1", changes)
    assert [row["control_distance"] for row in both] == [row["distance"] for row in alone]
    assert all(np.isnan(row["control_distance"]) for row in alone)
    assert (both.control, alone.control) == ("ti$ny, untrained", None)
    assert both.table == list(both)


def test_an_invariance_is_saved(clips, net, tmp_path):
    found = fd.invariance(clips[0], net, changes={"shift": [0.1, 0.2]}, control=fd.randomised(net))
    folder = found.save(tmp_path)
    assert len(table_of(folder / "invariance.csv")) == len(found)
    assert manifest_of(folder)["control"] == "ti$ny, untrained"
    assert (folder / "invariance.svg").exists() == report.has_figures()


def test_a_correspondence_is_saved_with_its_boxes(clips, net, tmp_path):
    found = fd.correspondence(clips, [BOX] * 3, net, draws=4)
    assert found.boxes == [BOX] * 3 and len(found.random_boxes) == 4
    for row in found:
        assert row["random_moved"] == pytest.approx(found.draws[row["layer"]].mean())
    folder = found.save(tmp_path)
    with np.load(folder / "correspondence.npz") as arrays:
        assert arrays["boxes"].tolist() == [[list(span) for span in BOX]] * 3
        assert arrays["random_boxes"].shape == (4, 3, 2, 2)
        assert arrays["random_moved"].shape == (len(found), 4)
    assert table_of(folder / "correspondence.csv")[0]["layer"] == found[0]["layer"]
    none = fd.correspondence(clips, [BOX] * 3, net, draws=0)
    assert none.save(tmp_path, "no draws").is_dir()


def test_nothing_cannot_be_saved(clips, net, tmp_path):
    with pytest.raises(fd.ParameterError, match="no rows"):
        fd.invariance(clips[0], net, changes={}).save(tmp_path)


# --- figures -------------------------------------------------------------------------------


def test_everything_can_be_drawn(top, clips, net):
    pytest.importorskip("matplotlib")
    assert len(top.plot("pool1", 0).axes) == 2 * 3
    assert top.plot("pool1", 3).texts[-1].get_text() == "it fires in none of the clips"
    found = fd.invariance(clips[0], net, control=fd.randomised(net))
    axes = found.plot().axes
    assert len(axes) == 2 * 4
    assert len(axes[0].lines) == 2 * len({row["layer"] for row in found})
    shift = [row for row in found if row["change"] == "shift"]
    np.testing.assert_allclose(
        axes[1].lines[0].get_ydata(), [row["distance"] for row in shift if row["layer"] == "pool1"]
    )
    figure = fd.correspondence(clips, [BOX] * 3, net, draws=2).plot()
    assert [len(ax.patches) for ax in figure.axes[:3]] == [3, 3, 3]
    assert fd.invariance(clips[0], net, changes={}).plot().texts
    for one in (figure, found.plot()):
        assert one._repr_png_().startswith(b"\x89PNG")


def test_without_matplotlib_a_plot_says_what_to_install(top, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(fd.ParameterError, match=r"pip install 'fastdeconv\[figures\]'"):
        top.plot("pool1", 0)


def test_only_layers_that_were_looked_at_have_top_clips(top, tmp_path):
    for of in (top.maps, top.excerpts, top.plot):
        with pytest.raises(fd.ParameterError, match="'conv1' was not searched; there are pool1"):
            of("conv1", 0)
        with pytest.raises(fd.ParameterError, match="features"):
            of("pool1", 4)
