"""Average pools folded into the convolution below them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.deconvnet import cost
from fastdeconv.deconvnet.folding import folded

CONV = {"type": "conv2d", "padding": "same", "out": 20, "kernel": (3, 3)}
RELU = {"type": "relu"}
AVERAGE = {"type": "avg_pool2d", "kernel_size": 2}
RULES = ("deconvnet", "guided", "gradient")


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape)


def agree(found, wanted):
    scale = max(1e-30, np.abs(wanted).max())
    np.testing.assert_allclose(found / scale, wanted / scale, atol=3e-6)


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60)
@given(data=st.data())
def test_any_chain_with_average_pools_goes_back_as_the_reference(build, data):
    records = []
    for _ in range(data.draw(st.integers(1, 3))):
        records.append({
            **CONV, "out": 4, "kernel": data.draw(pairs), "stride": data.draw(pairs),
            "dilation": data.draw(pairs), "groups": data.draw(st.sampled_from([1, 2])),
            "padding": data.draw(st.sampled_from(["same", 2, ((1, 3), (2, 0))])),
        })
        between = [RELU, {"type": "batch_norm2d"}, {"type": "dropout"}, {"type": "elu"}]
        records += data.draw(st.lists(st.sampled_from(between), max_size=2))
        records.append({
            **AVERAGE, "kernel_size": data.draw(pairs),
            "ceil_mode": data.draw(st.integers(0, 3)) == 0,
            "stride": data.draw(st.sampled_from([None, None, None, 1])),
        })
    shape = (2, 40, 37)
    try:
        net = build(records, shape, seed=data.draw(st.integers(0, 99)))
        trace = net.forward(noise(*shape))
    except fd.ParameterError:
        return  # nothing is left of the map
    layer = data.draw(st.sampled_from(net.layers)).name
    start = data.draw(st.sampled_from(["map", "max", "one"]))
    for rule in RULES:
        wanted = fd.deconvolve(trace, layer, rule=rule, start=start, backend="reference")
        agree(fd.deconvolve(trace, layer, rule=rule, start=start), wanted)


def test_what_is_folded_has_one_layer_less_a_pool(build):
    net = build([CONV, RELU, AVERAGE, CONV, {"type": "batch_norm2d"}, RELU, AVERAGE], (1, 24, 28))
    trace = net.forward(noise(1, 24, 28))
    seen, place = folded(trace, 6, "deconvnet")
    assert [layer.type for layer in seen.network.layers] == [
        "conv2d", "relu", "conv2d", "batch_norm2d", "relu",
    ]
    assert place == 4 and seen.network.layers[0].stride == (2, 2)
    # A layer below the pool that is asked for stands where it stood.
    assert folded(trace, 1, "deconvnet") == (trace, 1)
    # Under the others a ReLU between convolution and pool lets some of a window through.
    assert folded(trace, 6, "guided") == folded(trace, 6, "gradient") == (trace, 6)


@pytest.mark.parametrize("between", [[{"type": "elu"}], [{"type": "max_pool2d", "kernel_size": 2}]])
def test_nothing_is_folded_that_does_not_commute(build, between):
    trace = build([CONV, *between, AVERAGE], (1, 24, 28)).forward(noise(1, 24, 28))
    last = len(trace.network.layers) - 1
    assert all(folded(trace, last, rule) == (trace, last) for rule in RULES)


@pytest.mark.parametrize("rule", RULES)
def test_what_has_no_rectifier_between_is_folded_under_every_rule(build, rule):
    trace = build([CONV, {"type": "batch_norm2d"}, AVERAGE, RELU], (1, 24, 28)).forward(
        noise(1, 24, 28)
    )
    seen, _ = folded(trace, 3, rule)
    assert [layer.type for layer in seen.network.layers] == ["conv2d", "batch_norm2d", "relu"]


def test_bits_depend_neither_on_threads_nor_features_nor_pieces(on, build, monkeypatch):
    net = build([CONV, RELU, AVERAGE, CONV, RELU, AVERAGE, CONV, RELU], (1, 20, 700))
    x = noise(1, 20, 700)
    whole = fd.deconvolve(net.forward(x), net.layers[-1].name, num_threads=1)
    some = [3, 0, 17]
    trace = net.forward(x)
    found = fd.deconvolve(trace, net.layers[-1].name, some, num_threads=3)
    assert found.tobytes() == whole[some].tobytes()
    again = fd.deconvolve(trace, net.layers[-1].name, num_threads=3)
    assert again.tobytes() == whole.tobytes()
    monkeypatch.setattr(cost, "LANE_BYTES", 1 << 20)
    pieces = fd.deconvolve(net.forward(x), net.layers[-1].name)
    assert pieces.tobytes() == whole.tobytes()
