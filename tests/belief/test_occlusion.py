"""Occlusion against its definition, in loops and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.errors import ParameterError

from .reference import log_odds, spans


def by_definition(
    clip: fd.Clip, net: fd.Network, layers: list[str], patch: tuple[int, int],
    stride: tuple[int, int], fill: Any, kind: str = "softmax",
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Drops of features (K, bins, frames) and of classes, a whole pass for every patch."""
    order = [clip.frontend.layout.index(letter) for letter in "FT"]
    n_bins, n_frames = (clip.x.shape[axis] for axis in order)
    x64 = clip.x.astype(np.float64)
    if fill == "band_mean":
        filled = np.broadcast_to(x64.mean(axis=order[1], keepdims=True), x64.shape)
    else:
        filled = np.full(x64.shape, x64.min() if fill == "min" else fill)

    def scores(x: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        with fd.config(backend="reference"):
            trace = net.forward(x)
            sums = {name: trace[name].sum(axis=(1, 2), dtype=np.float64) for name in layers}
            last = trace[net.layers[-1].name].astype(np.float64)
        z = last.reshape(len(last), -1)
        return sums, np.array([log_odds(kind, z, c) for c in range(len(z))])

    rows, cols = spans(n_bins, patch[0], stride[0]), spans(n_frames, patch[1], stride[1])
    sums, o = scores(clip.x)
    drops = {name: np.zeros((len(a), len(rows), len(cols))) for name, a in sums.items()}
    of_classes = np.zeros((len(o), len(rows), len(cols)))
    for i, (lo, hi) in enumerate(rows):
        for j, (a, b) in enumerate(cols):
            place: list[Any] = [slice(None)] * 3
            place[order[0]], place[order[1]] = slice(lo, hi), slice(a, b)
            x = x64.copy()
            x[tuple(place)] = filled[tuple(place)]
            now, now_o = scores(x)
            for name in layers:
                drops[name][:, i, j] = sums[name] - now[name]
            of_classes[:, i, j] = o - now_o
    return drops, of_classes


@pytest.mark.parametrize("fill", ["band_mean", "min", 0.25])
@pytest.mark.parametrize("patch, stride", [((8, 6), (8, 6)), ((7, 9), (4, 5)), ((64, 3), (64, 3))])
def test_drops_are_differences_of_whole_passes(
    clip: fd.Clip, net: fd.Network, patch: Any, stride: Any, fill: Any
) -> None:
    wanted, of_classes = by_definition(clip, net, ["pool1", "relu2", "pool2"], patch, stride, fill)
    found = fd.occlude(
        clip, net, ["pool1", "relu2", "pool2"], patch=patch, stride=stride, fill=fill
    )
    assert found.bins == spans(33, patch[0], stride[0])
    assert found.frames == spans(24, patch[1], stride[1])
    for name, drops in wanted.items():
        np.testing.assert_allclose(found.drops[name], drops, atol=1e-4)
    assert [*found.class_drops] == ["c0", "c1", "c2"]
    np.testing.assert_allclose([*found.class_drops.values()], of_classes, atol=1e-5)


@pytest.mark.parametrize("layout", ["CTF", "FCT"])
def test_patches_are_of_bins_and_frames_in_every_layout(
    make_clip: Any, make_net: Any, layout: str
) -> None:
    clip = make_clip(layout)
    if layout == "FCT":
        arrays = {"scores.weight": np.random.default_rng(0).normal(size=(3, 33, 1, 3))}
        net = fd.Network(
            [{"type": "conv2d", "name": "scores", "bias": False, "padding": ((0, 0), (1, 1))},
             {"type": "relu", "name": "relu2"}],
            arrays, clip.x.shape, frontend=clip.frontend, classes=["a", "b", "c"],
        )
    else:
        net = make_net(clip.frontend, clip.x.shape)
    wanted, of_classes = by_definition(clip, net, ["relu2"], (8, 6), (8, 6), "band_mean")
    found = fd.occlude(clip, net, "relu2", patch=(8, 6))
    np.testing.assert_allclose(found.drops["relu2"], wanted["relu2"], atol=1e-4)
    np.testing.assert_allclose([*found.class_drops.values()], of_classes, atol=1e-5)


@pytest.mark.parametrize("output, classes", [("sigmoid", 3), ("softmax", 2), (None, 1)])
def test_log_odds_of_every_kind_of_output(
    clip: fd.Clip, make_net: Any, output: Any, classes: int
) -> None:
    net = make_net(clip.frontend, clip.x.shape, classes=classes, ends="frames", output=output)
    _, wanted = by_definition(clip, net, [], (8, 6), (8, 6), "min", output or "softmax")
    found = fd.occlude(clip, net, [], patch=(8, 6), fill="min")
    np.testing.assert_allclose([*found.class_drops.values()], wanted, atol=1e-5)


def test_a_map_is_the_mean_of_the_drops_that_cover_a_bin(clip: fd.Clip, net: fd.Network) -> None:
    found = fd.occlude(clip, net, ["pool1"], ["c1"], patch=(8, 6), stride=(4, 3))
    total, count = np.zeros((33, 24)), np.zeros((33, 24))
    for i, (lo, hi) in enumerate(found.bins):
        for j, (a, b) in enumerate(found.frames):
            total[lo:hi, a:b] += found.class_drops["c1"][i, j]
            count[lo:hi, a:b] += 1
    np.testing.assert_allclose(found.class_map("c1"), total / count, rtol=1e-12)
    assert found.map("pool1", 2).shape == (33, 24)


def test_captum_finds_the_same_of_a_class(clip: fd.Clip, net: fd.Network) -> None:
    torch = pytest.importorskip("torch")
    attr = pytest.importorskip("captum.attr")
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 3),
    )
    for layer, name in ((0, "conv1"), (3, "conv2"), (8, "fc")):
        module[layer].weight.data = torch.from_numpy(net.arrays[f"{name}.weight"].copy())
        module[layer].bias.data = torch.from_numpy(net.arrays[f"{name}.bias"].copy())

    def log_odds(x: Any) -> Any:
        z = module(x)
        return z[:, 1] - torch.logsumexp(z[:, [0, 2]], dim=1)

    x = torch.from_numpy(clip.x.copy())[None]
    means = x.mean(dim=3, keepdim=True).expand_as(x).contiguous()
    with torch.no_grad():
        wanted = attr.Occlusion(log_odds).attribute(
            x, sliding_window_shapes=(1, 11, 6), strides=(1, 11, 6), baselines=means
        )
    found = fd.occlude(clip, net, [], ["c1"], patch=(11, 6))
    np.testing.assert_allclose(found.class_map("c1"), wanted[0, 0].numpy(), atol=1e-5)


def test_the_bundled_network_equals_whole_passes(bundled: fd.Network, song: fd.Clip) -> None:
    found = fd.occlude(song, bundled)
    assert found.drops["pool5"].shape == (64, 16, 11)
    means = np.broadcast_to(song.x.mean(axis=2, keepdims=True), song.x.shape)
    before = bundled.forward(song.x)
    for i, j in ((0, 0), (15, 10), (7, 4), (3, 10)):
        (lo, hi), (a, b) = found.bins[i], found.frames[j]
        x = song.x.copy()
        x[:, lo:hi, a:b] = means[:, lo:hi, a:b]
        after = bundled.forward(x)
        for layer, sums in found.activations.items():
            wanted = sums - after[layer].sum(axis=(1, 2), dtype=np.float64)
            np.testing.assert_allclose(
                found.drops[layer][:, i, j], wanted, atol=1e-5 * max(1, sums.max())
            )
    np.testing.assert_allclose(
        found.activations["pool3"], before["pool3"].sum(axis=(1, 2), dtype=np.float64)
    )


@pytest.mark.parametrize("arguments, words", [
    ({"patch": 0}, "patch must be an int from 1"),
    ({"patch": (3, 3, 3)}, r"patch must be \(bins, frames\)"),
    ({"patch": (4, 4), "stride": (5, 4)}, "bins between patches would be left out"),
    ({"fill": "mean"}, "fill must be 'band_mean', 'min' or a finite number"),
    ({"fill": float("nan")}, "fill must be"),
    ({"classes": ["rock"]}, "there is no class 'rock'; classes: 'c0', 'c1', 'c2'"),
    ({"classes": [1]}, "classes must be names, found 1"),
    ({"layers": ["pool9"]}, "no layer 'pool9'"),
])
def test_bad_input_is_refused(
    clip: fd.Clip, net: fd.Network, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ParameterError, match=words):
        fd.occlude(clip, net, **arguments)


def test_what_is_not_there_is_said(clip: fd.Clip, net: fd.Network) -> None:
    found = fd.occlude(clip, net, ["pool1"], ["c1"], patch=64)
    assert found.bins == [(0, 33)] and found.frames == [(0, 24)]
    with pytest.raises(ParameterError, match="layer 'pool2' was not occluded; there are pool1"):
        found.map("pool2", 0)
    with pytest.raises(ParameterError, match=r"has features 0\.\.5, found 6"):
        found.map("pool1", 6)
    with pytest.raises(ParameterError, match="class 'c0' was not occluded; there are 'c1'"):
        found.class_map("c0")
