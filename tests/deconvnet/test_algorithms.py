"""The algorithms of the forward pass: what each may change, and what none may."""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fastdeconv as fd

from .conftest import IMPLEMENTATIONS

ALGORITHMS = ("auto", "direct", "winograd")
RELU = {"type": "relu"}
POOL = {"type": "max_pool2d", "kernel_size": 2}
NATIVE = [i for i in IMPLEMENTATIONS if i["backend"] == "native"]

native = pytest.mark.skipif(not NATIVE, reason="no native back end")


def conv(out: int, **more: Any) -> dict[str, Any]:
    return {"type": "conv2d", "out": out, "kernel": (3, 3), "padding": "same", **more}


def five_layers(build: Any, channels: int = 32, seed: int = 0) -> fd.Network:
    return build([conv(channels), RELU, POOL] * 5, (1, 64, 64), seed)


def noise(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def clip() -> np.ndarray:
    net = fd.pretrained(fd.list_pretrained()[0])
    with (resources.files("fastdeconv") / "data" / "demo.flac").open("rb") as file:
        return fd.load_clip(file, net.frontend).x


def passages(x: np.ndarray, floor: float) -> np.ndarray:
    """`x` with two silent passages, sharp at their edges."""
    x = x.copy()
    x[..., 20:51] = x[..., 101:122] = floor
    return x


def decibels(x: np.ndarray, span: float = 40) -> np.ndarray:
    level = 20 * np.log10(np.maximum(np.abs(x), 1e-10))
    return np.maximum(level, level.max() - span).astype(np.float32)


def tones(rows: int = 70, columns: int = 93) -> np.ndarray:
    """Steady, then steady elsewhere: columns are equal but for two onsets."""
    x = np.zeros((1, rows, columns), np.float32)
    x[:, :, 30:60] = noise((1, rows, 1))
    x[:, :, 60:] = noise((1, rows, 1), 2)
    return x


INPUTS = {
    "noise": lambda: noise((1, 67, 71)),
    "clip": clip,
    "silence": lambda: np.zeros((1, 66, 83), np.float32),
    "constant": lambda: np.full((1, 66, 83), -9.2, np.float32),
    "passages": lambda: passages(np.abs(clip()), 0),
    "decibels": lambda: decibels(clip()),
    "decibels with passages": lambda: passages(decibels(clip()), decibels(clip()).min()),
    "tones": tones,
    "nearly flat": lambda: 1 + 1e-6 * noise((1, 66, 83)),
    "period 2": lambda: np.tile(noise((1, 1, 2)), (1, 64, 40)),
    "period 3": lambda: np.tile(noise((1, 3, 3)), (1, 22, 30)),
    "checks": lambda: np.tile(noise((1, 4, 4)), (1, 16, 16)),
}


def check_blocks(trace: fd.Trace) -> None:
    """Every block of `trace` against direct sums of the input that it had."""
    names = [layer.name for layer in trace.network.layers]
    for pool in trace.network.pooling_layers:
        # Computed directly, and not yet rounded where that was in float64.
        below = trace.activation(names.index(pool) - 1)
        c, h, w = trace[pool].shape
        windows = below[:, : 2 * h, : 2 * w].reshape(c, h, 2, w, 2).swapaxes(2, 3)
        windows = windows.reshape(c, h, w, 4)
        values = windows.max(axis=3)
        np.testing.assert_array_equal(trace.switches(pool), windows.argmax(axis=3), err_msg=pool)
        largest = np.abs(below[np.isfinite(below)]).max(initial=0)
        np.testing.assert_allclose(trace[pool], values, rtol=1e-4, atol=1e-4 * largest)
        # Which gates are open must not depend on where they are read.
        np.testing.assert_array_equal(trace[pool] > 0, values > 0)


def ties(trace: fd.Trace, pool: str) -> np.ndarray:
    """Where a window's maximum is not alone."""
    names = [layer.name for layer in trace.network.layers]
    below = trace[names[names.index(pool) - 1]]
    c, h, w = trace[pool].shape
    windows = below[:, : 2 * h, : 2 * w].reshape(c, h, 2, w, 2)
    return (windows == windows.max(axis=(2, 4), keepdims=True)).sum(axis=(2, 4)) > 1


# What "auto" promises


@pytest.mark.parametrize("name", INPUTS)
def test_every_switch_is_that_of_the_direct_sums_of_the_same_input(on, build, name):
    check_blocks(five_layers(build).forward(INPUTS[name]()))


@pytest.mark.parametrize(
    "name", [n for n in INPUTS if n not in ("noise", "clip", "nearly flat", "period 3")]
)
def test_exact_ties_of_the_whole_network_stay_where_they_are(on, build, name):
    net, x = five_layers(build), INPUTS[name]()
    auto, direct = net.forward(x), net.forward(x, algorithm="direct")
    for pool in net.pooling_layers:
        tied = ties(direct, pool)
        assert tied.any() or name in ("period 2", "checks")
        np.testing.assert_array_equal(auto.switches(pool)[tied], direct.switches(pool)[tied])


@pytest.mark.parametrize("rotate", [False, True], ids=["in time", "in frequency"])
def test_steady_input_keeps_its_ties_up_to_its_edge_wherever_that_lies(on, build, rotate):
    net = five_layers(build)
    for edge in range(33, 49):
        x = np.broadcast_to(noise((1, 64, 1)), (1, 64, 64)).copy()
        x[:, :, edge:] = noise((1, 64, 64 - edge), 2)
        if rotate:
            x = np.ascontiguousarray(x.transpose(0, 2, 1))
        auto, direct = net.forward(x), net.forward(x, algorithm="direct")
        for pool in net.pooling_layers:
            tied = ties(direct, pool)
            np.testing.assert_array_equal(auto.switches(pool)[tied], direct.switches(pool)[tied])
            axis = 1 if rotate else 2
            equal = np.diff(direct[pool], axis=axis) == 0
            assert not np.diff(auto[pool], axis=axis)[equal].any()


@pytest.mark.parametrize("name", ["noise", "clip", "tones", "nearly flat", "checks"])
@pytest.mark.parametrize("pool", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("on", NATIVE, indirect=True, ids=lambda i: i["isa"])
def test_sums_of_many_channels_keep_every_switch_and_gate(on, build, name, pool):
    records = [conv(200), RELU, conv(70), RELU, {"type": pool, "kernel_size": 2}]
    net, x = build(records, (1, 64, 64)), INPUTS[name]()[:, :44, :64]
    auto, direct = net.forward(x), net.forward(x, algorithm="direct")
    if pool == "max_pool2d":
        check_blocks(auto)
    np.testing.assert_array_equal(auto["l4"] > 0, direct["l4"] > 0)
    np.testing.assert_allclose(auto["l4"], direct["l4"], rtol=1e-5,
                               atol=1e-5 * np.abs(direct["l4"]).max())


@pytest.mark.parametrize("slope", [1e-5, 0.01, 0.3, 3.0])
@pytest.mark.parametrize("name", INPUTS)
def test_a_leaky_relu_that_rises_keeps_every_switch(on, build, name, slope):
    leaky = {"type": "leaky_relu", "negative_slope": slope}
    check_blocks(build([conv(32), leaky, POOL] * 3, (1, 64, 64)).forward(INPUTS[name]()))


def test_sums_that_differ_by_a_rounding_are_not_told_apart_by_a_leaky_relu(on, build):
    # Sums near -1 lie 2^-24 apart; times 0.3 many of them are the same number.
    net = build([conv(16), {"type": "leaky_relu", "negative_slope": 0.3}, POOL], (16, 32, 32))
    weight = np.zeros((16, 16, 3, 3), np.float32)
    weight[:, np.arange(16), 1, 1] = 1 / 16
    net = fd.Network(net.layers, {**net.arrays, "l0.weight": weight}, net.input_shape)
    steps = np.random.default_rng(0).integers(0, 4, (16, 32, 32))
    check_blocks(net.forward((-1 + steps * 2.0**-22).astype(np.float32)))


def test_the_bundled_network_on_its_clip(on):
    net = fd.pretrained(fd.list_pretrained()[0])
    check_blocks(net.forward(clip()))


@native
@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.data())
def test_any_shape_and_block(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    inner = data.draw(st.one_of(st.integers(1, 70), st.sampled_from([128, 129, 300])))
    out = data.draw(st.integers(1, 70))
    size = data.draw(st.tuples(st.integers(4, 33), st.integers(4, 33)))
    padding = data.draw(st.sampled_from(["same", 0, 1, ((2, 0), (0, 3))]))
    fill = data.draw(st.sampled_from(["normal", "integers", "flat", "sparse"]))
    layers: list[dict[str, Any]] = [
        {"type": "conv2d", "name": "conv1", "padding": 0, "bias": False},
        {"type": "conv2d", "name": "conv2", "padding": padding},
    ]
    arrays = {
        "conv1.weight": np.eye(inner, dtype=np.float32)[:, :, None, None],
        "conv2.weight": values(rng, (out, inner, 3, 3), fill),
        "conv2.bias": values(rng, (out,), fill),
    }
    if data.draw(st.booleans()):
        layers.append({"type": "affine", "name": "scale"})
        arrays |= {"scale.weight": values(rng, (out,), fill),
                   "scale.bias": values(rng, (out,), fill)}
    activation = data.draw(st.sampled_from([None, "relu", "leaky_relu", "prelu"]))
    if activation is not None:
        layers.append({"type": activation, "name": "activation"})
    if activation == "leaky_relu":
        layers[-1]["negative_slope"] = data.draw(st.sampled_from([0.3, 0.01, 1e-7, 2.0, -0.5, 0.0]))
    if activation == "prelu":
        slopes = st.sampled_from([(0.3, 0.5), (1e-3, 2.0), (-1.0, 1.0)])
        arrays["activation.weight"] = rng.uniform(*data.draw(slopes), out).astype(np.float32)
    layers.append({**POOL, "name": "pool", "ceil_mode": data.draw(st.booleans())})
    net = fd.Network(layers, arrays, (inner, None, None))
    x = values(rng, (inner, *size), fill)
    with fd.config(**data.draw(st.sampled_from(NATIVE))):
        trace, direct = net.forward(x), net.forward(x, algorithm="direct")
        np.testing.assert_array_equal(trace.switches("pool"), direct.switches("pool"))
        np.testing.assert_array_equal(trace["pool"] > 0, direct["pool"] > 0)
        largest = np.abs(direct[layers[-2]["name"]]).max()
        np.testing.assert_allclose(trace["pool"], direct["pool"], rtol=1e-5,
                                   atol=1e-5 * largest)
        if fill == "integers":
            np.testing.assert_array_equal(trace["pool"], direct["pool"])


def values(rng: np.random.Generator, shape: tuple[int, ...], fill: str) -> np.ndarray:
    if fill == "integers":
        return rng.integers(-3, 4, shape).astype(np.float32)
    x = rng.standard_normal(shape).astype(np.float32)
    if fill == "flat" and len(shape) == 3:
        x[:] = x[:, :1, :1]
    elif fill == "sparse":
        x *= rng.random(shape) < 0.3
    return x


def test_windows_with_equal_input_have_equal_bits(on, build):
    net = build([conv(16), RELU, POOL, conv(16), RELU, POOL], (1, 64, 64))
    # Four columns, two of the first pool's windows, one of the second's.
    x = np.tile(noise((1, 64, 4)), (1, 1, 20))
    values = net.forward(x)["l5"][:, :, 1:-1]
    np.testing.assert_array_equal(values, np.broadcast_to(values[:, :, :1], values.shape))


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1e15, 1e19, 1e25, 1e37])
def test_values_at_the_ends_of_float32_are_summed_directly(on, build, scale):
    net = build([conv(16), RELU, POOL, conv(16), RELU, POOL], (1, 32, 32))
    x = (noise((1, 32, 32)) * np.float64(scale)).astype(np.float32)
    auto, direct = net.forward(x), net.forward(x, algorithm="direct")
    for pool in net.pooling_layers:
        np.testing.assert_array_equal(auto.switches(pool), direct.switches(pool))
        np.testing.assert_allclose(auto[pool], direct[pool], rtol=1e-4, atol=1e-6 * scale)


@pytest.mark.parametrize("on", NATIVE, indirect=True, ids=lambda i: i["isa"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_sums_that_overflow_are_refused_by_every_algorithm(on, build, algorithm):
    net = build([conv(16), RELU, POOL, conv(16), RELU, POOL], (1, 32, 32))
    arrays = {**net.arrays, "l0.weight": net.arrays["l0.weight"] * np.float32(1e30)}
    net = fd.Network(net.layers, arrays, net.input_shape)
    with pytest.raises(fd.ParameterError, match=r"the output of layer 'l0'.*overflows"):
        net.forward(noise((1, 32, 32)) * np.float32(1e8), algorithm=algorithm)


def test_filters_without_weights_keep_their_bias(on, build):
    net = build([conv(16), RELU, POOL, conv(16), RELU, POOL], (1, 32, 32))
    weight, bias = net.arrays["l3.weight"].copy(), net.arrays["l3.bias"].copy()
    weight[3:7] = 0
    bias[3:7] = 0.25, -0.25, 0, 5
    net = fd.Network(net.layers, {**net.arrays, "l3.weight": weight, "l3.bias": bias},
                     net.input_shape)
    trace = net.forward(noise((1, 32, 32)))
    for channel, value in zip(range(3, 7), (0.25, 0, 0, 5)):
        assert (trace["l5"][channel] == value).all()
        assert not trace.switches("l5")[channel].any()


# What holds for all of them


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [(64, 64), (35, 53)])
def test_close_to_the_float64_reference(on, build, algorithm, size):
    net, x = five_layers(build, 40), noise((1, *size))
    trace = net.forward(x, algorithm=algorithm)
    with fd.config(backend="reference"):
        wanted = net.forward(x)
    for pool in net.pooling_layers:
        np.testing.assert_allclose(trace[pool], wanted[pool], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["clip", "passages"])
def test_the_number_of_threads_changes_no_bit(build, algorithm, name):
    net, x = five_layers(build), INPUTS[name]()

    def run(threads: int) -> list[bytes]:
        with fd.config(num_threads=threads):
            trace = net.forward(x, algorithm=algorithm)
            return [part.tobytes() for pool in net.pooling_layers
                    for part in (trace[pool], trace.switches(pool))]

    one = run(1)
    for threads in (2, 3, 7):
        assert run(threads) == one


@pytest.mark.parametrize(
    "records",
    [
        [conv(16, stride=2), RELU, POOL],
        [conv(16, dilation=2), RELU, POOL],
        [conv(16, groups=2), RELU, POOL],
        [{**conv(16), "kernel": (5, 5)}, RELU, POOL],
        [conv(16), RELU, {**POOL, "stride": 1}],
        [conv(16), RELU, {**POOL, "padding": 1}],
        [conv(16), RELU, {**POOL, "kernel_size": 3}],
        [conv(16), RELU, {"type": "affine"}, POOL],
        [conv(16), RELU],
    ],
    ids=str,
)
def test_other_blocks_are_direct(on, build, records):
    net, x = build(records, (16, 21, 24)), noise((16, 21, 24))
    last = net.layers[-1].name
    one, *others = (net.forward(x, algorithm=a)[last].tobytes() for a in ALGORITHMS)
    assert all(other == one for other in others)


def test_guided_maps_read_the_same_gates_on_every_back_end(on, build):
    net, x = five_layers(build, 16), noise((1, 64, 64))
    trace = net.forward(x)
    maps = fd.deconvolve(trace, net.pooling_layers[3], rule="guided")
    wanted = fd.deconvolve(trace, net.pooling_layers[3], rule="guided", backend="reference")
    np.testing.assert_allclose(maps, wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("value", ["fast", "", None, 2, ["auto"], "AUTO"])
def test_an_unknown_algorithm_is_refused_with_those_that_there_are(build, value):
    net = build([conv(3)], (1, 8, 8))
    with pytest.raises(fd.ParameterError, match=r"auto, direct, winograd"):
        net.forward(np.zeros((1, 8, 8)), algorithm=value)


# Blocks that run at the same time


POOLS = [
    {"kernel_size": 2}, {"kernel_size": (3, 2), "stride": (2, 1)},
    {"kernel_size": (2, 3), "stride": (3, 2), "dilation": (2, 1)},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
]


@st.composite
def blocks(draw: Any) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(2, 4))):
        if draw(st.booleans()):
            records += [conv(32), RELU, POOL]  # as Winograd's algorithm has it
            continue
        kernel = draw(st.sampled_from([(3, 3), (5, 1), (2, 4), (1, 1)]))
        record = {"type": "conv2d", "out": draw(st.sampled_from([5, 32])), "kernel": kernel}
        if draw(st.booleans()):
            record["padding"] = "same"
        else:
            record["padding"] = draw(st.sampled_from([0, 1, (3, 2)]))
            record["stride"] = draw(st.sampled_from([1, 2, (1, 2)]))
            record["dilation"] = draw(st.sampled_from([1, 2]))
        records += [record, RELU]
        if draw(st.booleans()):
            records.append({"type": "max_pool2d", **draw(st.sampled_from(POOLS))})
    return records


@native
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=blocks(), threads=st.integers(1, 9), algorithm=st.sampled_from(ALGORITHMS))
def test_no_band_needs_more_of_the_block_before_than_it_waits_for(
    build, at_the_last_moment, records, threads, algorithm
):
    try:
        net = build(records, (1, 103, 87), 3)
    except fd.ParameterError:
        assume(False)  # nothing is left for a layer above
    with fd.config(backend="native", num_threads=threads):
        trace = net.forward(noise((1, 103, 87)), algorithm=algorithm)
    for layer in net.layers:
        assert np.isfinite(trace[layer.name]).all()
