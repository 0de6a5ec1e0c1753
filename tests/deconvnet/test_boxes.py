"""The forward pass on boxes equals a whole pass for each changed input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import fastdeconv
from fastdeconv.deconvnet import boxes
from fastdeconv.deconvnet.boxes import forward_changed
from fastdeconv.deconvnet.region import Region
from fastdeconv.network.layers import AvgPool2d, MaxPool2d

Build = Callable[..., fastdeconv.Network]

CONV = {"type": "conv2d", "kernel": (3, 3), "padding": 1}
RELU = {"type": "relu"}
POOL = {"type": "max_pool2d", "kernel_size": 2}

NETWORKS: dict[str, list[dict[str, Any]]] = {
    "chain": [
        {**CONV, "out": 5}, RELU, POOL, {**CONV, "out": 16}, {"type": "batch_norm2d"}, RELU, POOL,
        {**CONV, "out": 4}, {"type": "leaky_relu"}, {"type": "global_avg_pool2d"},
        {"type": "flatten"}, {"type": "linear", "out": 3},
    ],
    "windows of all kinds": [
        {"type": "conv2d", "out": 4, "kernel": (5, 3), "stride": (2, 1),
         "padding": ((1, 2), (0, 2))},
        {"type": "elu"},
        {"type": "max_pool2d", "kernel_size": 3, "stride": 2, "padding": 1},
        {"type": "conv2d", "out": 6, "kernel": (3, 2), "dilation": (2, 1), "padding": "same",
         "groups": 2},
        {"type": "max_pool2d", "kernel_size": (2, 3), "stride": (3, 2), "ceil_mode": True},
        {"type": "prelu"},
    ],
    "averages": [
        {**CONV, "out": 4}, RELU,
        {"type": "avg_pool2d", "kernel_size": 3, "stride": 2, "padding": 1},
        {**CONV, "out": 3}, {"type": "avg_pool2d", "kernel_size": 2, "padding": "same"},
        {**CONV, "out": 3}, RELU, {"type": "avg_pool2d", "kernel_size": 2, "ceil_mode": True},
    ],
    "branches": [
        {"type": "affine", "axis": "H"},
        {**CONV, "out": 4}, {"type": "relu", "name": "a"},
        {**CONV, "out": 4, "name": "b"}, {"type": "sigmoid", "name": "c"},
        {"type": "add", "name": "d", "inputs": ["a", "c"]},
        {"type": "reduce_mean", "axes": "HW", "name": "e"},
        {"type": "multiply", "name": "f", "inputs": ["d", "e"]},
        {"type": "concat", "axis": "C", "inputs": ["f", "a"]}, POOL,
        {"type": "group_norm", "groups": 2},
    ],
    "what is not local": [
        {**CONV, "out": 4}, {"type": "instance_norm"}, RELU, POOL,
        {"type": "permute", "axes": "CWH"}, {**CONV, "out": 2}, {"type": "upsample", "scale": 2},
        {"type": "local_response_norm", "size": 3}, {"type": "softmax"},
    ],
}


def whole(net: fastdeconv.Network, x: np.ndarray, region: Region, values: np.ndarray) -> Any:
    changed = x.copy()
    changed[(slice(None), *region.slices)] = values[(slice(None), *region.slices)]
    return net.forward(changed)


def assert_equal_to_whole_passes(
    net: fastdeconv.Network, x: np.ndarray, regions: Sequence[Region], wanted: Sequence[int]
) -> None:
    values = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    trace, seen = net.forward(x), []
    for part, found in forward_changed(trace, regions, values, wanted):
        for p, region in enumerate(regions[part]):
            other = whole(net, x, region, values)
            for index in wanted:
                filled = trace.activation(index).copy()
                row, column = found[index].begin[p]
                h, w = found[index].size
                filled[:, row : row + h, column : column + w] = found[index].values[:, p]
                np.testing.assert_allclose(
                    filled, other.activation(index), rtol=1e-5, atol=1e-5,
                    err_msg=f"{net.layers[index].label}, {region}",
                )
        seen += range(part.start, part.stop)
    assert seen == list(range(len(regions)))


REGIONS = [
    Region((0, 4), (0, 5)), Region((7, 9), (3, 8)), Region((12, 23), (18, 19)),
    Region((0, 23), (6, 7)), Region((20, 23), (15, 19)), Region((5, 6), (9, 10)),
]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_equals_a_whole_pass(build: Build, on: Any, name: str) -> None:
    net = build(NETWORKS[name], (2, 23, 19))
    x = np.random.default_rng(0).normal(size=(2, 23, 19)).astype(np.float32)
    assert_equal_to_whole_passes(net, x, REGIONS, range(len(net.layers)))


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_nobody_asks_for_may_be_fused(build: Build, name: str) -> None:
    net = build(NETWORKS[name], (2, 23, 19))
    x = np.random.default_rng(0).normal(size=(2, 23, 19)).astype(np.float32)
    pools = [i for i, l in enumerate(net.layers) if isinstance(l, (MaxPool2d, AvgPool2d))]
    assert_equal_to_whole_passes(net, x, REGIONS, [*pools, len(net.layers) - 1])


def test_the_parts_do_not_change_the_bits(build: Build, monkeypatch: Any) -> None:
    net = build(NETWORKS["chain"], (2, 23, 19))
    x = np.random.default_rng(0).normal(size=(2, 23, 19)).astype(np.float32)
    trace = net.forward(x)

    def places(limit: int) -> list[np.ndarray]:
        monkeypatch.setattr(boxes, "_VALUES", limit)
        sums = []
        for _, found in forward_changed(trace, REGIONS, np.zeros_like(x), [2, 6, 11]):
            for p in range(len(found[2].begin)):
                sums.append(np.concatenate([
                    (b.of(trace.activation(i))[:, p] - b.values[:, p]).sum((1, 2), np.float64)
                    for i, b in sorted(found.items())
                ]))
        return sums

    together, alone = places(1 << 21), places(1)
    assert len(together) == len(alone) == len(REGIONS)
    for a, b in zip(together, alone):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=0)


def test_what_is_out_of_reach_stays_the_same_to_the_bit(build: Build) -> None:
    net = build([{**CONV, "out": 4}, RELU, POOL], (1, 9, 9))  # the pool leaves the last row out
    x = np.random.default_rng(0).normal(size=(1, 9, 9)).astype(np.float32)
    trace = net.forward(x)
    values = np.full_like(x, x[0, 4, 4])
    ((_, found),) = forward_changed(trace, [Region((4, 5), (4, 5))], values, [2])
    np.testing.assert_array_equal(found[2].values, found[2].of(trace.activation(2)))


# Before a 2 x 2 pool, 64 channels are summed in parts, and 20 are no whole vectors.
@pytest.mark.parametrize("channels", [64, 20])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_values_that_do_not_change_have_the_bits_of_the_trace(
    build: Build, ceil_mode: bool, channels: int
) -> None:
    conv = {"type": "conv2d", "kernel": (3, 3), "padding": "same"}
    pool = {"type": "max_pool2d", "kernel_size": (2, 2), "stride": (2, 2), "ceil_mode": ceil_mode}
    net = build(
        [{**conv, "out": channels}, {"type": "relu"}, {**conv, "out": 20}, {"type": "relu"}, pool],
        (1, 25, 41),
    )
    x = np.random.default_rng(0).normal(size=(1, 25, 41)).astype(np.float32)
    trace = net.forward(x)
    for index in range(2, 5):
        for _, found in forward_changed(trace, [Region((4, 12), (6, 20))], x, [index]):
            boxes = found[index]
            assert np.array_equal(boxes.of(trace.activation(index)), boxes.values)
