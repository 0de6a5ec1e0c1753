"""Values beyond float32 are refused by the name of the layer; a bound says where none can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.deconvnet.overflow import bounds_back, bounds_forward, largest_safe
from fastdeconv.kernels.activations import ACTIVATIONS
from fastdeconv.network.layers import LAYER_TYPES

CONV = {"type": "conv2d", "padding": "same", "out": 4, "kernel": (3, 3)}
SAME = {"type": "max_pool2d", "kernel_size": 3, "stride": 1, "padding": 1}
LAYERS = [
    *({"type": kind} for kind in ACTIVATIONS if kind not in ("leaky_relu", "elu", "clip")),
    {"type": "leaky_relu", "negative_slope": 5.0}, {"type": "elu", "alpha": 7.0},
    {"type": "clip", "min": -2.0, "max": 0.5}, {"type": "softmax"}, {"type": "log_softmax"},
    {"type": "batch_norm2d"}, {"type": "affine"}, {"type": "dropout"},
    {"type": "local_response_norm", "size": 3, "k": 0.01},
    {"type": "layer_norm", "axes": "CW", "affine": False}, {"type": "group_norm", "groups": 2},
    {"type": "instance_norm"},
    SAME, {"type": "max_pool2d", "kernel_size": 2},
    {"type": "avg_pool2d", "kernel_size": 3, "stride": 1, "padding": 1},
    {"type": "slice", "axis": "W", "start": 1}, {"type": "permute", "axes": "CWH"},
    {"type": "pad", "padding": ((1, 0), (2, 1)), "value": 9.0},
    {"type": "pad", "padding": ((3, 1), (0, 2)), "mode": "replicate"},
    {"type": "upsample", "scale": 2, "mode": "bilinear"}, {"type": "upsample", "size": (5, 30)},
    {"type": "adaptive_avg_pool2d", "output_size": (5, 30)},
    {"type": "adaptive_max_pool2d", "output_size": 5},
    {"type": "upsample", "scale": 2}, {"type": "reduce_mean", "axes": "H"},
    {"type": "conv_transpose2d", "out": 4, "kernel": (3, 3), "stride": 2},
    {**CONV, "groups": 2}, CONV,
]
TAIL = [{"type": "global_avg_pool2d"}, {"type": "global_max_pool2d"}, {"type": "flatten"},
        {"type": "linear", "out": 2}, {"type": "reshape", "shape": (1, 1, -1)},
        {"type": "reduce_max", "axes": "HW"}]
JOINS = {"add", "multiply", "maximum", "minimum", "concat"}


def test_every_type_of_layer_is_among_those_tried():
    tried = {record["type"] for record in [*LAYERS, *TAIL]}
    assert tried | JOINS == set(LAYER_TYPES)


@given(data=st.data())
def test_nothing_is_larger_than_the_bounds_say(build, data):
    middle = data.draw(st.lists(st.sampled_from(LAYERS), max_size=4))
    tail = data.draw(st.sampled_from([[], TAIL[:1], TAIL[1:2], TAIL[2:4], TAIL[4:5], TAIL[5:]]))
    net = build([CONV, *middle, *tail], (1, 16, 18), seed=data.draw(st.integers(0, 99)))
    x = np.random.default_rng(0).normal(size=(1, 16, 18))
    try:
        trace = net.forward(x)
    except fd.ParameterError as error:  # exp of exp, the logarithm of something negative
        assert "overflows" in str(error)
        return
    bounds = bounds_forward(net, float(np.abs(x).max()))
    for layer, bound in zip(net.layers, bounds):
        assert np.abs(trace[layer.name]).max() <= bound * (1 + 1e-5)
    last = net.layers[-1].name
    for rule in ("deconvnet", "guided", "gradient"):
        try:
            maps = fd.deconvolve(trace, last, rule=rule)
        except fd.ParameterError as error:  # exp of exp is steeper than it is large
            assert "overflows" in str(error)
            continue
        largest = float(np.abs(trace[last]).max())
        limit = bounds_back(net, len(net.layers) - 1, largest, trace.bound)
        assert np.abs(maps).max() <= limit * (1 + 1e-5)


def test_bounds_of_joins_hold():
    rng = np.random.default_rng(0)
    arrays = {"a.weight": rng.normal(size=(3, 1, 3, 3)), "a.bias": rng.normal(size=3)}
    conv = {"type": "conv2d", "name": "a", "padding": "same"}
    for record in (
        {"type": "add", "inputs": ["a", "a", "b"]}, {"type": "multiply", "inputs": ["a", "b"]},
        {"type": "concat", "axis": "H", "inputs": ["b", "a"]},
        {"type": "maximum", "inputs": ["a", "b"]}, {"type": "minimum", "inputs": ["a", "b"]},
    ):
        net = fd.Network(
            [conv, {"type": "tanh", "name": "b"}, {**record, "name": "join"}], arrays, (1, 6, 6)
        )
        x = 3 * rng.normal(size=(1, 6, 6))
        trace = net.forward(x)
        bounds = bounds_forward(net, float(np.abs(x).max()))
        assert np.abs(trace["join"]).max() <= bounds[2] * (1 + 1e-5)
        maps = fd.deconvolve(trace, "join", rule="gradient")
        largest = float(np.abs(trace["join"]).max())
        assert np.abs(maps).max() <= bounds_back(net, 2, largest, trace.bound) * (1 + 1e-5)


def test_activations_that_overflow_are_refused_by_layer(on, build):
    net = build([CONV, {"type": "relu"}, {**CONV, "name": "huge"}, {"type": "sigmoid"}], (1, 6, 6))
    arrays = {**net.arrays, "huge.weight": net.arrays["huge.weight"] * np.float32(3e37)}
    huge = fd.Network(net.layers, arrays, net.input_shape)
    x = np.full((1, 6, 6), 1e3)
    with pytest.raises(fd.ParameterError, match=r"the output of layer 'huge'.*overflows float32"):
        huge.forward(x)
    huge.forward(x * 1e-9)


def test_maps_that_overflow_are_refused_by_layer(on, build):
    net = build([CONV, {"type": "relu"}, {"type": "sigmoid", "name": "top"}], (1, 6, 6))
    arrays = {**net.arrays, "l0.weight": net.arrays["l0.weight"] * np.float32(1e30)}
    trace = fd.Network(net.layers, arrays, net.input_shape).forward(np.full((1, 6, 6), 1e-30))
    for start in ("map", np.full((4, 6, 6), 1.0)):
        assert np.isfinite(fd.deconvolve(trace, "top", start=start)).all()
    with pytest.raises(fd.ParameterError, match=r"a map of layer 'top'.*overflows float32"):
        fd.deconvolve(trace, "top", start=np.full((4, 6, 6), 1e20))


def test_bounds_found_by_a_look_at_values_hold_for_every_clip(build):
    # The weights alone do not rule out an overflow, so that values are looked at.
    net = build([{**CONV, "name": f"conv{i}"} for i in range(40)], (1, 6, 6))
    assert largest_safe(net) < 0
    rng = np.random.default_rng(0)
    for size in (1e-3, 1.0, 1.1, 30.0, 1e-3):
        x = size * rng.normal(size=(1, 6, 6))
        trace = net.forward(x)
        bounds = [trace.bound(index) for index in range(len(net.layers))]
        for layer, bound in zip(net.layers, bounds):
            assert np.abs(trace[layer.name]).max() <= bound * (1 + 1e-5)
