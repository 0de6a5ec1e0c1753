from __future__ import annotations

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.deconvnet.region import Region, seen_by

SIZE = (20, 31)


def make_net(*layers, channels=2):
    """Convolutions get weights of 1, so that nothing which is seen cancels out."""
    arrays, taken = {}, 1
    for layer in layers:
        if layer["type"] in ("conv2d", "conv_transpose2d"):
            kernel = layer.pop("kernel", (3, 3))
            shape = (channels, taken) if layer["type"] == "conv2d" else (taken, channels)
            arrays[f"{layer['name']}.weight"] = np.ones((*shape, *kernel), np.float32)
            arrays[f"{layer['name']}.bias"] = np.zeros(channels, np.float32)
            taken = channels
    return fd.Network(list(layers), arrays, (1, *SIZE))


def sizes_of(net):
    return [SIZE, *(shape[1:] for shape in net.shapes((1, *SIZE)))]


def gradient_of(net, layer, place):
    trace = net.forward(np.ones((1, *SIZE), np.float32))
    start = np.zeros((1, *trace[layer].shape[1:]), np.float32)
    start[0, place[0], place[1]] = 1
    return fd.deconvolve(trace, layer, [0], rule="gradient", start=start)[0, 0]


def rectangle(values):
    rows, cols = (np.flatnonzero(values.any(axis=axis)) for axis in (1, 0))
    return Region((rows[0], rows[-1] + 1), (cols[0], cols[-1] + 1))


NETS = {
    "convolutions": make_net(
        {"type": "conv2d", "name": "a", "padding": 1}, {"type": "relu", "name": "r"},
        {"type": "conv2d", "name": "b", "kernel": (1, 5), "stride": (1, 2), "dilation": (1, 2)},
    ),
    "average pool": make_net(
        {"type": "conv2d", "name": "a"}, {"type": "avg_pool2d", "name": "b", "kernel_size": 3},
    ),
    "transposed": make_net(
        {"type": "conv2d", "name": "a", "stride": 2},
        {"type": "conv_transpose2d", "name": "b", "stride": 2, "padding": 1},
    ),
    "turned": make_net(
        {"type": "conv2d", "name": "a", "kernel": (2, 4)},
        {"type": "permute", "name": "b", "axes": "CWH"},
    ),
    "branches": make_net(
        {"type": "conv2d", "name": "a", "padding": 1},
        {"type": "conv2d", "name": "c", "padding": 3, "kernel": (7, 7)},
        {"type": "add", "name": "b", "inputs": ["a", "c"]},
    ),
    "mean over rows": make_net(
        {"type": "conv2d", "name": "a"}, {"type": "reduce_mean", "name": "b", "axes": "H"},
    ),
}


@pytest.mark.parametrize("place", [(0, 0), (0, 3), (-1, -1)], ids=str)
@pytest.mark.parametrize("name", NETS)
def test_what_a_unit_sees_is_where_its_derivative_is_not_zero(name, place):
    net = NETS[name]
    sizes = sizes_of(net)
    h, w = sizes[-1]
    unit = place[0] % h, place[1] % w
    seen = seen_by(net, len(net.layers) - 1, unit, sizes)
    found = rectangle(gradient_of(net, "b", unit))
    if name == "transposed":  # up to a place more, as where its windows begin is rounded down
        assert seen.around(found) == seen
        assert max(a - b for a, b in zip(seen.size, found.size)) <= 2
    else:
        assert seen == found


def test_a_max_pool_sees_all_of_its_window():
    net = make_net({"type": "max_pool2d", "name": "b", "kernel_size": (2, 3), "stride": 4})
    assert seen_by(net, 0, (1, 2), sizes_of(net)) == Region((4, 6), (8, 11))


def test_behind_what_mixes_places_in_another_way_all_is_seen():
    net = make_net({"type": "conv2d", "name": "a"}, {"type": "flatten", "name": "b"})
    assert seen_by(net, 1, (0, 0), sizes_of(net)) == Region.of(SIZE)
