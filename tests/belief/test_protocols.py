"""Zeiler and Fergus's protocols against their definitions, in loops and float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.errors import ParameterError


@pytest.fixture(scope="module")
def clips(clip: fd.Clip) -> list[fd.Clip]:
    rng = np.random.default_rng(3)
    noisy = [
        fd.Clip(clip.samples + rng.normal(size=760).astype(np.float32) / 4, 8000, clip.frontend)
        for _ in range(3)
    ]
    return [clip, *noisy, clip]


@pytest.mark.parametrize("k", [1, 3, 9])
def test_top_clips_are_sorted_by_their_strongest_unit(
    clips: list[fd.Clip], net: fd.Network, k: int
) -> None:
    found = fd.top_clips(clips, net, ["pool1", "pool2"], k)
    for layer in ("pool1", "pool2"):
        maps = [net.forward(clip.x)[layer] for clip in clips]
        for feature in range(len(maps[0])):
            wanted = []
            for number, own in enumerate(maps):
                row, column = divmod(int(own[feature].argmax()), own.shape[2])
                if own[feature].max() > 0:
                    wanted.append((-own[feature].max(), number, row, column))
            rows = [r for r in found.table if (r["layer"], r["feature"]) == (layer, feature)]
            assert [(-r["value"], r["clip"], r["row"], r["column"]) for r in rows] == sorted(
                wanted
            )[:k]
            assert [r["rank"] for r in rows] == list(range(1, len(rows) + 1))


def test_boxes_and_maps_are_of_the_unit(clips: list[fd.Clip], net: fd.Network) -> None:
    found = fd.top_clips(clips, net, "pool2", 2)
    row = found.table[0]
    # pool 2 <- conv 3 <- pool 2 <- conv 3, half-open and cut at the edges.
    lo, hi = row["row"], row["row"] + 1
    for size in (16, 33):
        lo, hi = max(0, 2 * lo - 1), min(size, 2 * hi + 1)
    assert (row["top"], row["bottom"]) == (lo, hi)
    maps = found.maps("pool2", row["feature"])
    trace = net.forward(clips[row["clip"]].x)
    np.testing.assert_array_equal(
        maps[0], fd.deconvolve(trace, "pool2", [row["feature"]], start="max")[0]
    )
    outside = maps[0].copy()
    outside[:, row["top"] : row["bottom"], row["left"] : row["right"]] = 0
    assert not outside.any()


def test_dead_features_have_no_clips(clips: list[fd.Clip], net: fd.Network) -> None:
    arrays = {**net.arrays, "conv1.bias": np.full(6, -1e6)}
    dead = fd.Network(net.layers, arrays, net.input_shape, frontend=net.frontend)
    assert fd.top_clips(clips, dead, "pool1").table == []


def test_where_a_unit_is_in_seconds_and_hertz(clip: fd.Clip, net: fd.Network) -> None:
    place = net.forward(clip.x).place("pool1", 3, 5)
    assert place.rows == (5, 9) and place.columns == (9, 13)
    assert place.seconds == pytest.approx((9 * 32 / 8000, 13 * 32 / 8000))
    assert place.hertz == pytest.approx((5 * 125, 8 * 125))
    with pytest.raises(ParameterError, match="row must be an int from 0 to 15, found 16"):
        net.forward(clip.x).place("pool1", 16, 0)


def test_distances_are_relative_lengths(clip: fd.Clip, net: fd.Network) -> None:
    rows = fd.invariance(clip, net, ["pool1", "pool2"], {"shift": [0.004], "gain": [-10]})
    moved = np.zeros_like(clip.samples)
    moved[32:] = clip.samples[:-32]
    before, after = net.forward(clip.x), net.forward(fd.Clip(moved, 8000, clip.frontend).x)
    assert [row["layer"] for row in rows] == ["pool1", "pool2"] * 2
    for row in rows[:2]:
        a, b = (trace[row["layer"]].astype(np.float64) for trace in (before, after))
        assert row["distance"] == pytest.approx(
            math.sqrt(((a - b) ** 2).sum() / (a**2).sum()), rel=1e-5
        )
        assert row["note"] == ""
    z = after["fc"][:, 0, 0].astype(np.float64)
    chosen = int(before["fc"].argmax())
    assert rows[0]["class"] == f"c{chosen}"
    assert rows[0]["probability"] == pytest.approx(np.exp(z)[chosen] / np.exp(z).sum(), rel=1e-5)
    # A front end that measures below the clip's maximum does not hear a gain, and that is said.
    for row in rows[2:]:
        assert row["distance"] < 1e-5
        assert row["note"] == "the front end gives the network the same input"


def test_every_change_is_there_by_default(song: fd.Clip, bundled: fd.Network) -> None:
    rows = fd.invariance(song, bundled, "pool5")
    assert {row["change"] for row in rows} == {"gain", "shift", "pitch", "tempo"}
    assert all(row["distance"] > 0 for row in rows if row["change"] != "gain")


def differing(net: fd.Network, clips: Any, boxes: Any, layer: str) -> tuple[float, float]:
    signs = []
    for clip, ((a, b), (s, t)) in zip(clips, boxes):
        x = clip.x.copy()
        x[:, a:b, s:t] = clip.x.mean(axis=2, keepdims=True)[:, a:b]
        change = net.forward(clip.x)[layer].astype(np.float64) - net.forward(x)[layer]
        change[np.abs(change) <= 1e-9 * np.abs(change).max()] = 0
        signs.append(np.sign(change).ravel())
    everything, moved = [], []
    for i in range(len(signs)):
        for j in range(i + 1, len(signs)):
            differ = signs[i] != signs[j]
            everything.append(differ.mean())
            either = (signs[i] != 0) | (signs[j] != 0)
            moved.append(differ[either].mean())
    return float(np.mean(everything)), float(np.mean(moved))


def test_correspondence_counts_signs_that_differ(
    clips: list[fd.Clip], net: fd.Network
) -> None:
    boxes = [((4, 12), (5, 9)), ((4, 12), (6, 10)), ((5, 13), (5, 9))]
    rows = fd.correspondence(clips[:3], boxes, net, ["pool1", "pool2"], draws=4)
    for row in rows:
        everything, moved = differing(net, clips, boxes, row["layer"])
        assert row["all"] == pytest.approx(everything, abs=1e-3)
        assert row["moved"] == pytest.approx(moved, abs=1e-3)
        assert 0 <= row["random_moved"] <= 1 and row["random_all"] < row["random_moved"]
    again = fd.correspondence(clips[:3], boxes, net, ["pool1", "pool2"], draws=4)
    assert again == rows


def test_the_same_part_of_the_same_clip_corresponds(clip: fd.Clip, net: fd.Network) -> None:
    box = (4, 12), (5, 9)
    (row,) = fd.correspondence([clip, clip], [box, box], net, "pool2", draws=0)
    assert row["moved"] == row["all"] == 0 and math.isnan(row["random_moved"])


def test_a_part_in_which_nothing_changes_is_not_compared_with_others(
    clip: fd.Clip, net: fd.Network
) -> None:
    # Filled with what is there already, so that no value moves.
    level = float(clip.x[0, 4, 5])
    boxes = [((4, 5), (5, 6))] * 2
    (row,) = fd.correspondence([clip, clip], boxes, net, "pool2", fill=level, draws=3)
    assert math.isnan(row["moved"]) and math.isnan(row["random_lower"])
    assert not math.isnan(row["random_moved"])


@pytest.mark.parametrize("arguments, words", [
    ({"boxes": [((0, 4), (0, 4))]}, "two or more clips, and a box for each; found 2 and 1"),
    ({"boxes": [((0, 4), (0, 4)), ((4, 4), (0, 4))]}, r"boxes must be \(\(begin, end\)"),
    ({"boxes": [((0, 4), (0, 4)), ((0, 34), (0, 4))]}, "a box must be an int from 0 to 33"),
    ({"boxes": [((0, 4), (0, 4)), 3]}, "boxes must be a list"),
    ({"boxes": [((0, 4), (0, 4))] * 2, "draws": -1}, "draws must be an int from 0"),
])
def test_bad_boxes_are_refused(
    clip: fd.Clip, net: fd.Network, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ParameterError, match=words):
        fd.correspondence([clip, clip], net=net, layers="pool1", **arguments)


def test_bad_clips_and_changes_are_refused(clip: fd.Clip, net: fd.Network) -> None:
    with pytest.raises(ParameterError, match="at least one, of one size; found none"):
        fd.top_clips([], net)
    with pytest.raises(ParameterError, match="k must be an int from 1"):
        fd.top_clips([clip], net, k=0)
    with pytest.raises(ParameterError, match="there is no change 'reverb'; changes: gain, shift"):
        fd.invariance(clip, net, changes={"reverb": [1]})
    for change, amount, words in (
        ("tempo", 0, r"tempo must be from 0\.0625 to 16, found 0"),
        ("tempo", 1e9, "tempo must be from"),
        ("pitch", 1e6, "pitch must be from -60 to 60, found 1e"),
        ("gain", 1e6, "gain must be from -200 to 200"),
        ("shift", 1e12, "shift must be from -3600 to 3600"),
        ("gain", "loud", "gain must be a finite number, found 'loud'"),
    ):
        with pytest.raises(ParameterError, match=words):
            fd.invariance(clip, net, changes={change: [amount]})
