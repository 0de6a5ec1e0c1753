"""Activations that go back by their derivative, in the lanes of the native back end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.deconvnet import cost

RULES = ("deconvnet", "guided", "gradient")
CONV = {"type": "conv2d", "padding": "same", "out": 20, "kernel": (3, 3)}
POOL = {"type": "max_pool2d", "kernel_size": 2}
OVERLAPPING = {"type": "max_pool2d", "kernel_size": 3, "stride": 2, "padding": 1}
ACTIVATIONS = [
    {"type": "leaky_relu", "negative_slope": 0.2}, {"type": "elu"}, {"type": "silu"},
    {"type": "gelu"}, {"type": "tanh"}, {"type": "hardswish"}, {"type": "prelu"},
    {"type": "clip", "min": 0.0, "max": 0.7}, {"type": "clip", "min": -0.5, "max": 0.5},
]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def agree(found, wanted, tolerance=3e-6):
    scale = max(1e-30, np.abs(wanted).max())
    np.testing.assert_allclose(found / scale, wanted / scale, atol=tolerance)


@settings(max_examples=40)
@given(data=st.data())
def test_any_chain_of_activations_and_pools_is_the_reference_s(build, data):
    records = [CONV]
    for _ in range(data.draw(st.integers(1, 3))):
        between = [
            data.draw(st.sampled_from(ACTIVATIONS)),
            data.draw(st.sampled_from([POOL, OVERLAPPING, {"type": "dropout"}])),
        ]
        if data.draw(st.booleans()):
            between.append({"type": data.draw(st.sampled_from(["batch_norm2d", "relu"]))})
        order = data.draw(st.permutations(between))
        records += [*order, CONV]
    net = build([*records, {"type": "relu"}], (1, 24, 28), seed=data.draw(st.integers(0, 99)))
    rule = data.draw(st.sampled_from(RULES))
    x = noise(1, 24, 28)
    # The forward pass is another matter: maps of the same one are compared.
    trace = net.forward(x)
    last = data.draw(st.sampled_from(net.layers)).name
    some = data.draw(st.sampled_from([None, [3], [1, 7, 19]]))
    wanted = fd.deconvolve(trace, last, some, rule=rule, backend="reference")
    agree(fd.deconvolve(trace, last, some, rule=rule), wanted)
    start = data.draw(st.sampled_from(["max", "one"]))
    wanted = fd.deconvolve(trace, last, some, rule=rule, start=start, backend="reference")
    agree(fd.deconvolve(trace, last, some, rule=rule, start=start), wanted)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a["type"])
@pytest.mark.parametrize("rule", RULES)
def test_pieces_of_a_long_clip_fit_together(on_lanes, build, monkeypatch, activation, rule):
    records = [CONV, activation, POOL, CONV, activation, POOL, CONV, activation]
    net = build(records, (1, 20, 700))
    trace = net.forward(noise(1, 20, 700))
    whole = fd.deconvolve(trace, net.layers[-1].name, rule=rule)
    monkeypatch.setattr(cost, "LANE_BYTES", 1 << 20)
    trace = net.forward(noise(1, 20, 700))
    pieces = fd.deconvolve(trace, net.layers[-1].name, rule=rule, num_threads=3)
    assert pieces.tobytes() == whole.tobytes()


@pytest.mark.parametrize("rule", RULES)
def test_bfloat16_keeps_the_derivatives(bf16, build, rule):
    net = build([CONV, {"type": "elu"}, POOL, {**CONV, "out": 70}, {"type": "silu"}], (1, 24, 28))
    trace = net.forward(noise(1, 24, 28))
    exact = fd.deconvolve(trace, net.layers[-1].name, rule=rule)
    rounded = fd.deconvolve(trace, net.layers[-1].name, rule=rule, precision="bf16")
    agree(rounded, exact, 0.02)


def test_a_silent_feature_stays_silent(on, build):
    net = build([CONV, {"type": "elu"}, POOL, CONV, {"type": "relu"}], (1, 24, 28))
    arrays = {**net.arrays, "l3.bias": np.where(np.arange(20) == 5, -1e6, 0)}
    trace = fd.Network(net.layers, arrays, net.input_shape).forward(noise(1, 24, 28))
    maps = fd.deconvolve(trace, net.layers[-1].name)
    assert not maps[5].any() and maps[4].any()
