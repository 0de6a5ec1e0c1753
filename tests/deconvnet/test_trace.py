"""The forward pass: what a trace holds, what it refuses, and that ties stay ties."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdeconv as fd

CONV = {"type": "conv2d", "out": 5, "kernel": (3, 3), "padding": "same"}
RELU = {"type": "relu"}
POOL = {"type": "max_pool2d", "kernel_size": 2}
NORM = {"type": "batch_norm2d"}
AFFINE = {"type": "affine"}
DROPOUT = {"type": "dropout"}


@pytest.fixture
def net(build):
    names = ("conv1", "relu1", "pool1", "conv2", "relu2", "pool2")
    records = [{**r, "name": n} for n, r in zip(names, [CONV, RELU, POOL] * 2)]
    return build(records, (1, 13, 17))


def noise(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# What a trace holds


def test_activations_and_switches_of_a_network_worked_out_by_hand(on):
    net = fd.Network(
        [{"type": "conv2d", "padding": "same"}, RELU, POOL],
        {"conv1.weight": [[[[0, 0, 0], [0, 2, 1], [0, 0, 0]]]], "conv1.bias": [-4]},
        (1, None, None),
    )
    trace = net.forward([[[1, 2, 3, 0, 9], [2, 0, 0, 4, 9], [7, 7, 7, 7, 7]]])
    conv = [[0, 3, 2, 5, 14], [0, -4, 0, 13, 14], [17, 17, 17, 17, 10]]
    assert trace["conv1"].tolist() == [conv]
    assert trace["relu1"].tolist() == [np.maximum(conv, 0).tolist()]
    # The odd last row and column are in no window.
    assert trace["pool1"].tolist() == [[[3, 13]]]
    assert trace.switches("pool1").tolist() == [[[1, 3]]]


def test_a_window_without_anything_positive_switches_to_its_first_place(on):
    net = fd.Network(
        [{"type": "conv2d", "bias": False}, RELU, POOL],
        {"conv1.weight": [[[[1]]]]}, (1, None, None),
    )
    trace = net.forward([[[-1, -2, -3, 5], [-4, -5, 5, 5]]])
    assert trace["pool1"].tolist() == [[[0, 5]]]
    assert trace.switches("pool1").tolist() == [[[0, 1]]]


@pytest.mark.parametrize(
    "between",
    [
        [], [RELU], [NORM], [AFFINE], [NORM, RELU], [RELU, NORM], [NORM, RELU, AFFINE],
        [RELU, AFFINE, NORM, RELU], [DROPOUT, NORM, DROPOUT, RELU, DROPOUT],
        [{"type": "leaky_relu"}, RELU], [{"type": "local_response_norm", "size": 3}],
    ],
    ids=lambda layers: "-".join(layer["type"] for layer in layers) or "nothing",
)
@pytest.mark.parametrize("pool", [POOL, {**POOL, "kernel_size": 3, "stride": 2, "padding": 1}])
def test_layers_inside_a_fused_block_have_the_bits_the_block_worked_with(on, build, between, pool):
    records = [CONV, *between, pool, {**CONV, "out": 3}, RELU]
    net = build(records, (2, 11, 14))
    x = noise((2, 11, 14))
    trace = net.forward(x)
    values = {layer.name: trace[layer.name] for layer in net.layers}
    conv = net.layers[0].name
    bits(
        values[conv],
        fd.ops.conv2d(x[None], net.arrays[f"{conv}.weight"], net.arrays[f"{conv}.bias"],
                      padding="same")[0],
    )
    for below, layer in itertools.pairwise(net.layers):
        if layer.type == "relu":
            bits(values[layer.name], np.maximum(values[below.name], 0))
        elif layer.type == "dropout":
            bits(values[layer.name], values[below.name])
        elif layer.type == "max_pool2d":
            pooled, switches = fd.ops.max_pool2d(
                values[below.name][None], layer.kernel_size, stride=layer.stride,
                padding=layer.padding,
            )
            bits(values[layer.name], pooled[0])
            assert np.array_equal(trace.switches(layer.name), switches[0])


@pytest.mark.parametrize("pool", [POOL, {**POOL, "kernel_size": 3}])
def test_layers_inside_a_block_of_many_channels_have_its_sums(on, build, pool):
    net = build([{**CONV, "out": 70}, CONV, RELU, pool], (2, 11, 14))
    trace = net.forward(noise((2, 11, 14)), algorithm="direct")
    below, top = (layer.name for layer in net.layers[-2:])
    pooled, switches = fd.ops.max_pool2d(
        trace[below][None], pool["kernel_size"], stride=net.layers[-1].stride
    )
    bits(trace[top], pooled[0])
    assert np.array_equal(trace.switches(top), switches[0])


def bits(a: np.ndarray, b: np.ndarray) -> None:
    """Equal values; the sign of a zero is free."""
    assert a.dtype == b.dtype == np.float32
    np.testing.assert_array_equal(a, b)


def test_the_order_in_which_layers_are_asked_for_changes_nothing(on, net):
    x = noise((1, 13, 17))
    names = [layer.name for layer in net.layers]
    one, other = net.forward(x), net.forward(x)
    up = [one[name].tobytes() for name in names]
    down = [other[name].tobytes() for name in reversed(names)][::-1]
    assert up == down
    assert up == [one[name].tobytes() for name in names]


def test_arrays_are_float32_of_the_declared_shape_and_read_only(on, net):
    trace = net.forward(noise((1, 13, 17)))
    for layer, shape in zip(net.layers, net.shapes((1, 13, 17))):
        array = trace[layer.name]
        assert array.dtype == np.float32 and array.shape == shape
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0, 0] = 1
    assert trace.x.dtype == np.float32 and not trace.x.flags.writeable
    assert not trace.switches("pool1").flags.writeable


@pytest.mark.parametrize(
    ("kernel", "dtype"), [(2, np.uint8), (16, np.uint8), ((1, 257), np.uint16)]
)
def test_switches_have_the_smallest_type_that_counts_the_window(on, build, kernel, dtype):
    net = build([CONV, {**POOL, "kernel_size": kernel, "name": "pool"}], (1, 17, 300))
    switches = net.forward(noise((1, 17, 300))).switches("pool")
    assert switches.dtype == dtype
    assert switches.shape == net.shapes((1, 17, 300))[-1]


def test_the_caller_may_change_x_afterwards(on, net):
    x = noise((1, 13, 17))
    trace = net.forward(x)
    before = x.copy()
    conv = net.forward(x)["conv1"]
    x[:] = 7
    assert np.array_equal(trace.x, before)
    assert np.array_equal(trace["conv1"], conv)


def test_a_pass_like_the_one_before_gives_the_same_and_refuses_the_same(on, net):
    x, y = noise((1, 13, 17)), noise((1, 13, 17), 2)
    first = net.forward(x)
    with pytest.raises(fd.ParameterError, match="NaN or infinite"):
        net.forward(np.full((1, 13, 17), np.nan, np.float32))
    net.forward(y)
    again = net.forward(x)
    for layer in net.layers:
        assert first[layer.name].tobytes() == again[layer.name].tobytes()
    assert again.x.tobytes() == x.tobytes()
    assert first.bound(5) == again.bound(5) >= again["pool2"].max()


def test_a_trace_does_not_keep_the_array_of_the_caller_alive(on, net):
    for _ in range(2):
        x = noise((1, 13, 17))
        trace, left = net.forward(x), weakref.ref(x)
        del x
        assert left() is None
    assert trace.x.shape == trace.input_shape == (1, 13, 17)


def test_dropout_anywhere_changes_no_bit(on, build):
    plain = build([CONV, NORM, RELU, POOL, CONV, RELU, POOL], (1, 12, 12))
    layers = [{"type": "dropout", "name": "first"}]
    for layer in plain.layers:
        layers += [layer, {"type": "dropout", "name": f"after_{layer.name}"}]
    dropped = fd.Network(layers, plain.arrays, (1, 12, 12))
    x = noise((1, 12, 12))
    one, other = plain.forward(x), dropped.forward(x)
    for layer in plain.layers:
        bits(one[layer.name], other[layer.name])
        bits(one[layer.name], other[f"after_{layer.name}"])
    assert np.array_equal(other["first"], x)


CHAINS = [
    [{"type": "linear", "out": 3}],
    [POOL],
    [POOL, POOL, CONV],
    [RELU],
    [CONV, CONV, CONV],
    [CONV, POOL, POOL, RELU],
    [CONV, RELU, POOL, CONV, RELU, CONV],
    [{"type": "flatten"}, {"type": "linear", "out": 2}],
    [{**CONV, "kernel": (9, 9)}, RELU],
    [{"type": "global_max_pool2d"}, {"type": "softmax"}],
]


def takes(records: list[dict[str, Any]], size: tuple[int, int]) -> bool:
    smallest = 2 ** records.count(POOL)
    return min(size) >= smallest and (records[0]["type"] != "linear" or size == (1, 1))


@pytest.mark.parametrize(
    ("records", "size"),
    [(r, s) for r in CHAINS for s in ((1, 1), (1, 9), (9, 1), (6, 5)) if takes(r, s)],
    ids=lambda value: "-".join(str(v if isinstance(v, int) else v["type"]) for v in value),
)
def test_unusual_chains_and_sizes_agree_with_the_reference(on, build, records, size):
    shape = (3, *size)
    net = build(records, shape)
    x = noise(shape)
    trace = net.forward(x)
    with fd.config(backend="reference"):
        wanted = net.forward(x)
    for layer in net.layers:
        np.testing.assert_allclose(
            trace[layer.name], wanted[layer.name], rtol=1e-5, atol=1e-6
        )


# Switches


@st.composite
def pooled_chains(draw):
    """Layers with a max pool as the last one."""
    above = st.sampled_from([
        {**CONV, "out": 1}, {**CONV, "out": 18, "kernel": (2, 1)}, RELU, NORM, AFFINE,
        {"type": "tanh"}, {"type": "sigmoid"}, {"type": "elu"},
    ])
    pool = {
        **POOL, "kernel_size": draw(st.integers(2, 3)), "padding": draw(st.integers(0, 1)),
        "stride": draw(st.integers(1, 3)),
    }
    return [*draw(st.lists(above, max_size=4)), pool]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(pooled_chains(), st.integers(0, 2**32), st.booleans())
def test_switches_are_the_first_maxima_of_what_the_back_end_computed(
    implementations, build, records, seed, coarse
):
    net = build(records, (2, 9, 11), seed)
    x = noise((2, 9, 11), seed)
    if coarse:  # equal values, before and after rounding
        x = np.round(4 * x)
    for implementation in implementations:
        with fd.config(**implementation):
            trace = net.forward(x)
        below = trace.activation(len(records) - 2)
        exact = implementation["backend"] == "reference"
        assert below.dtype == (np.float64 if exact else np.float32)
        pool = net.layers[-1]
        windows = patches(below, pool, net.arrays, trace[pool.name].shape[1:], fill=-np.inf)
        first = windows.reshape(*windows.shape[:2], len(below), -1).argmax(axis=3)
        np.testing.assert_array_equal(trace.switches(pool.name), first.transpose(2, 0, 1))


def test_the_reference_back_end_compares_what_float32_cannot_tell_apart():
    net = fd.Network(
        [{"type": "affine", "name": "sum"}, {**POOL, "name": "pool"}],
        {"sum.weight": [1], "sum.bias": [1]}, (1, 2, 2),
    )
    with fd.config(backend="reference"):
        trace = net.forward([[[0, 2**-30], [0, 0]]])
    assert trace.switches("pool").tolist() == [[[1]]]
    assert (trace["sum"] == 1).all()


# What is refused


def test_a_layer_that_does_not_exist_is_refused_with_those_that_do(net):
    trace = net.forward(noise((1, 13, 17)))
    for ask in (trace.__getitem__, trace.switches):
        with pytest.raises(fd.ParameterError, match=r"pool3.*conv1, relu1, pool1, conv2"):
            ask("pool3")


def test_only_max_pools_have_switches(net):
    trace = net.forward(noise((1, 13, 17)))
    with pytest.raises(fd.ParameterError, match=r"'relu1' has no switches.*pool1, pool2"):
        trace.switches("relu1")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_x_must_be_finite_in_float32(net, value):
    x = np.zeros((1, 8, 8))
    x[0, 7, 7] = value
    with pytest.raises(fd.ParameterError, match="NaN or infinite"):
        net.forward(x)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((8, 8)), np.zeros((1, 1, 8, 8)), np.zeros(8), 3.0, None, "abc", [[[1, 2], [3]]],
        np.zeros((1, 8, 8), complex), np.zeros((1, 8, 8), object), np.zeros((1, 8, 8), "M8[s]"),
        np.zeros((1, 0, 8)), np.zeros((0, 8, 8)), np.zeros((2, 8, 8)),
    ],
    ids=lambda x: f"{np.shape(x)}{x.dtype}" if isinstance(x, np.ndarray) else str(x),
)
def test_x_must_be_real_numbers_of_the_right_shape(net, x):
    with pytest.raises(fd.ParameterError):
        net.forward(x)


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f2", ">f4", "i1", "u2", "i8", "?", "longdouble"])
def test_any_real_x_is_taken(net, dtype):
    x = (noise((1, 13, 17)) > 0).astype(dtype)
    trace = net.forward(np.asfortranarray(x))
    assert np.array_equal(trace.x, x.astype(np.float32))
    bits(trace["pool2"], net.forward(x.astype(np.float32))["pool2"])


@pytest.mark.parametrize(("size", "layer"), [((1, 8), "pool1"), ((8, 3), "pool2")])
def test_a_size_the_network_cannot_take_names_the_layer(net, size, layer):
    with pytest.raises(fd.ParameterError, match=f"'{layer}'.*cannot take"):
        net.forward(np.zeros((1, *size)))


def test_a_kernel_larger_than_the_map_is_refused_unless_padding_makes_room(build):
    net = build([{**CONV, "kernel": (5, 5), "padding": 0}], (1, 9, 9))
    with pytest.raises(fd.ParameterError, match="cannot take"):
        net.forward(np.zeros((1, 4, 9)))
    padded = build([{**CONV, "kernel": (5, 5), "padding": 2}], (1, 9, 9))
    assert padded.forward(np.zeros((1, 1, 1)))["l0"].shape == (5, 1, 1)


# Equal input patches give equal bits, wherever they lie


def patches(
    below: np.ndarray, layer: Any, arrays: Any, size: tuple[int, int], fill: float = 1e9
) -> np.ndarray:
    """(H', W', ...): what each output of a layer sees; borders of pools as `fill`."""
    if not hasattr(layer, "window"):
        return below.transpose(1, 2, 0)
    window = layer.window(below.shape[1:], arrays)
    if layer.type == "conv2d":
        fill = 0.0
    (top, _), (left, _) = window.padding
    shape = [(n - 1) * s + e for n, s, e in zip(size, window.stride, window.extent)]
    room = [max(n, m + p) for n, m, p in zip(shape, below.shape[1:], (top, left))]
    padded = np.full((len(below), *room), fill, below.dtype)
    padded[:, top : top + below.shape[1], left : left + below.shape[2]] = below
    views = np.lib.stride_tricks.sliding_window_view(padded, window.extent, axis=(1, 2))
    views = views[:, :: window.stride[0], :: window.stride[1]][:, : size[0], : size[1]]
    return views.transpose(1, 2, 0, 3, 4).reshape(*size, -1)


def equal_patches(below: np.ndarray, layer: Any, arrays: Any, above: np.ndarray) -> np.ndarray:
    """Pairs (n, 2) of flat output places whose patches are equal."""
    rows = patches(below, layer, arrays, above.shape[1:])
    rows = rows.reshape(-1, rows.shape[-1])
    _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return np.stack([np.arange(len(rows)), first[group.ravel()]], axis=1)


@pytest.mark.parametrize(
    "layer",
    [
        RELU, NORM, AFFINE, {"type": "leaky_relu"}, {"type": "elu"}, {"type": "tanh"},
        {"type": "sigmoid"}, {"type": "softmax"},
        {"type": "local_response_norm", "size": 3, "alpha": 0.5},
        {"type": "avg_pool2d", "kernel_size": 3, "stride": 2},
        {"type": "avg_pool2d", "kernel_size": 3, "padding": 1, "ceil_mode": True},
    ],
    ids=lambda layer: layer["type"],
)
@pytest.mark.parametrize("size", [(17, 45), (41, 18)])
def test_ties_of_flat_regions_stay_ties_through_every_layer(on, build, layer, size):
    shape = (2, *size)
    net = build([CONV, layer, POOL, CONV, RELU, layer, {**CONV, "out": 3}], (2, 64, 64))
    x = np.full(shape, 0.3, np.float32)
    x[:, :, [2, 7, 8, size[1] - 3]] = noise((2, 4))[:, None]
    trace, equal = net.forward(x), 0
    below = trace.x
    for part in net.layers:
        above = trace[part.name]
        pairs = equal_patches(below, part, net.arrays, above)
        outputs = above.reshape(len(above), -1)
        assert np.array_equal(outputs[:, pairs[:, 0]], outputs[:, pairs[:, 1]]), part
        equal += (pairs[:, 0] != pairs[:, 1]).sum()
        below = above
    assert equal > 200


def test_equal_windows_switch_to_equal_places(on, build):
    net = build([CONV, RELU, {**POOL, "name": "pool1"}, CONV, RELU, {**POOL, "name": "pool2"}],
                (1, 40, 40))
    x = np.full((1, 40, 41), -9.2, np.float32)
    x[:, :, 11:13] = 0.4
    trace = net.forward(x)
    for pool, below, edge in (("pool1", "l1", 1), ("pool2", "l4", 2)):
        flat = trace.switches(pool)[:, edge:-edge]
        # Every row of the input is the same, so away from the border all switches are
        # of the window's first row and equal down the columns.
        assert flat.max() < 2
        assert np.array_equal(flat, np.broadcast_to(flat[:, :1], flat.shape))
        assert trace[below].any()


@pytest.mark.parametrize("gated", [False, True])
def test_a_trace_is_gone_with_its_last_name(build, gated):
    records = [{**CONV, "name": "conv"}, {"type": "sigmoid", "name": "gate"}]
    if gated:
        records.append({"type": "multiply", "inputs": ["conv", "gate"]})
    trace = build(records, (1, 9, 9)).forward(np.ones((1, 9, 9)))
    left = weakref.ref(trace)
    gc.disable()
    try:
        del trace
        assert left() is None
    finally:
        gc.enable()
