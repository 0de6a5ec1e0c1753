"""`deconvolve` against the published account: explicit loops, numbers by hand, SciPy.

The loops below are written from the description of the method, for networks of
[convolution "same", ReLU, 2x2 max pool] blocks, and use nothing of the package.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d

import fastdeconv as fd

CONV = {"type": "conv2d", "padding": "same", "bias": False}
RELU = {"type": "relu"}
POOL = {"type": "max_pool2d", "kernel_size": 2}


def noise(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def whole(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Small whole numbers, so that every sum is exact in float32."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


def blocks(*weights: np.ndarray, biases: Any = None, **arguments: Any) -> fd.Network:
    """[convolution, ReLU, pool] for every weight."""
    records = [{**CONV, "bias": biases is not None}, RELU, POOL] * len(weights)
    arrays = {f"conv{i + 1}.weight": w for i, w in enumerate(weights)}
    for i, bias in enumerate(biases or ()):
        arrays[f"conv{i + 1}.bias"] = bias
    return fd.Network(records, arrays, (weights[0].shape[1], None, None), **arguments)


# The method in explicit loops


def loop_conv(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    outs, ins, kh, kw = weight.shape
    _, h, w = x.shape
    out = np.zeros((outs, h, w))
    for o in range(outs):
        for y in range(h):
            for z in range(w):
                for c in range(ins):
                    for i in range(kh):
                        for j in range(kw):
                            r, s = y + i - kh // 2, z + j - kw // 2
                            if 0 <= r < h and 0 <= s < w:
                                out[o, y, z] += weight[o, c, i, j] * x[c, r, s]
    return out


def loop_transposed_conv(R: np.ndarray, weight: np.ndarray) -> np.ndarray:  # noqa: N803
    outs, ins, kh, kw = weight.shape
    _, h, w = R.shape
    out = np.zeros((ins, h, w))
    for o in range(outs):
        for y in range(h):
            for z in range(w):
                for c in range(ins):
                    for i in range(kh):
                        for j in range(kw):
                            r, s = y + i - kh // 2, z + j - kw // 2
                            if 0 <= r < h and 0 <= s < w:
                                out[c, r, s] += weight[o, c, i, j] * R[o, y, z]
    return out


def loop_pool(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    c, h, w = x.shape
    values = np.zeros((c, h // 2, w // 2))
    switches = np.zeros(values.shape, int)
    for k in range(c):
        for y in range(h // 2):
            for z in range(w // 2):
                window = [x[k, 2 * y + i, 2 * z + j] for i in (0, 1) for j in (0, 1)]
                switches[k, y, z] = window.index(max(window))
                values[k, y, z] = max(window)
    return values, switches


def loop_unpool(R: np.ndarray, switches: np.ndarray, size: Any) -> np.ndarray:  # noqa: N803
    out = np.zeros((len(R), *size))
    for k in range(len(R)):
        for y in range(R.shape[1]):
            for z in range(R.shape[2]):
                i, j = divmod(int(switches[k, y, z]), 2)
                out[k, 2 * y + i, 2 * z + j] = R[k, y, z]
    return out


def loop_forward(x: np.ndarray, weights: Any) -> list[tuple[np.ndarray, ...]]:
    """(rectified, pooled, switches) of every block."""
    found = []
    for weight in weights:
        rectified = np.maximum(loop_conv(x, weight), 0)
        x, switches = loop_pool(rectified)
        found.append((rectified, x, switches))
    return found


def loop_deconv(passed: Any, weights: Any, feature: int, rule: str) -> np.ndarray:
    R = np.zeros_like(passed[-1][1])
    R[feature] = passed[-1][1][feature]
    for (rectified, _, switches), weight in zip(reversed(passed), reversed(weights)):
        R = loop_unpool(R, switches, rectified.shape[1:])
        if rule != "gradient":
            R = np.maximum(R, 0)
        if rule != "deconvnet":
            R = np.where(rectified > 0, R, 0)
        R = loop_transposed_conv(R, weight)
    return R


@settings(derandomize=True, max_examples=8, deadline=None)
@given(
    size=st.tuples(st.integers(4, 6), st.integers(4, 6)),
    channels=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)),
    kernels=st.tuples(*[st.sampled_from([1, 3])] * 4),
    seed=st.integers(0, 99),
)
def test_two_blocks_equal_explicit_loops_exactly(implementations, size, channels, kernels, seed):
    one = whole((channels[1], channels[0], *kernels[:2]), seed)
    two = whole((channels[2], channels[1], *kernels[2:]), seed + 1)
    x = whole((channels[0], *size), seed + 2)
    net, passed = blocks(one, two), loop_forward(x, [one, two])
    for implementation in implementations:
        with fd.config(**implementation):
            trace = net.forward(x)
            for i, (rectified, pooled, switches) in enumerate(passed):
                assert np.array_equal(trace[f"relu{i + 1}"], rectified)
                assert np.array_equal(trace[f"pool{i + 1}"], pooled)
                assert np.array_equal(trace.switches(f"pool{i + 1}"), switches)
            for rule in ("deconvnet", "guided", "gradient"):
                wanted = [loop_deconv(passed, [one, two], k, rule) for k in range(channels[2])]
                assert np.array_equal(fd.deconvolve(trace, "pool2", rule=rule), wanted)
                wanted = [loop_deconv(passed[:1], [one], k, rule) for k in range(channels[1])]
                assert np.array_equal(fd.deconvolve(trace, "pool1", rule=rule), wanted)


def test_three_blocks_equal_explicit_loops_on_a_real_number_of_channels(on):
    weights = [noise(s, i) / 3 for i, s in enumerate([(9, 1, 3, 3), (7, 9, 3, 3), (18, 7, 3, 3)])]
    x = noise((1, 9, 11))
    trace = blocks(*weights).forward(x)
    passed = loop_forward(x.astype(float), [w.astype(float) for w in weights])
    wanted = [loop_deconv(passed, weights, k, "deconvnet") for k in range(18)]
    maps = fd.deconvolve(trace, "pool3")
    np.testing.assert_allclose(maps, wanted, atol=2e-6 * np.abs(wanted).max())
    assert np.abs(wanted).max() > 0.1


def test_a_map_worked_out_by_hand(on):
    """One filter [2 1], one window: 13 at (1, 3) goes back as 26 and 13."""
    net = fd.Network(
        [{"type": "conv2d", "padding": "same"}, RELU, POOL],
        {"conv1.weight": [[[[0, 0, 0], [0, 2, 1], [0, 0, 0]]]], "conv1.bias": [-4]},
        (1, None, None),
    )
    trace = net.forward([[[1, 2, 3, 0, 9], [2, 0, 0, 4, 9], [7, 7, 7, 7, 7]]])
    maps = fd.deconvolve(trace, "pool1")
    # pool1 is [[3, 13]] with switches [[1, 3]], the bias -4 is not sent back.
    assert maps.tolist() == [[[[0, 6, 3, 0, 0], [0, 0, 0, 26, 13], [0, 0, 0, 0, 0]]]]
    strongest = fd.deconvolve(trace, "pool1", start="max")
    assert strongest.tolist() == [[[[0] * 5, [0, 0, 0, 26, 13], [0] * 5]]]


def test_the_lowest_map_keeps_its_signs(on):
    trace = blocks(np.float32([[[[0, -1, 0], [0, 3, 0], [0, 0, 0]]]])).forward(np.eye(4)[None])
    assert fd.deconvolve(trace, "pool1").min() < 0


def test_switches_of_silent_windows_carry_signal_under_deconvnet_only(on):
    """A second block can reward silence through a negative weight and a bias."""
    net = blocks(
        np.ones((1, 1, 1, 1)), np.full((1, 1, 1, 1), 1.0), biases=([0.0], [2.0])
    )
    trace = net.forward(-np.ones((1, 4, 4)))
    assert not trace["pool1"].any() and trace["pool2"].item() == 2
    maps = fd.deconvolve(trace, "pool2")
    # The first place wins in windows of equal zeros, in both pools.
    wanted = np.zeros((1, 1, 4, 4))
    wanted[0, 0, 0, 0] = 2
    assert np.array_equal(maps, wanted)
    for rule in ("guided", "gradient"):
        assert not fd.deconvolve(trace, "pool2", rule=rule).any()


@pytest.mark.parametrize("kernel", [(3, 3), (5, 3), (1, 7)])
def test_one_block_equals_the_step_of_the_2015_script(on, kernel):
    """Unpool, rectify, convolve "same" with the filter as stored by cross-correlation."""
    weight, x = noise((3, 1, *kernel), 3), noise((1, 11, 10))
    trace = blocks(weight).forward(x)
    for k in range(3):
        theano = weight[k, 0, ::-1, ::-1]
        rectified = np.maximum(convolve2d(x[0], theano, mode="same"), 0)
        pooled, switches = loop_pool(rectified[None])
        np.testing.assert_allclose(trace["pool1"][k], pooled[0], atol=1e-5)
        unpooled = np.maximum(loop_unpool(pooled, switches, (11, 10)), 0)
        wanted = convolve2d(unpooled[0], theano[::-1, ::-1], mode="same")
        found = fd.deconvolve(trace, "pool1", [k])[0, 0]
        np.testing.assert_allclose(found, wanted, atol=1e-5)


# Starts


@pytest.fixture
def net(build):
    records = [
        {**CONV, "out": 6, "kernel": (3, 3), "name": "conv1"}, {**RELU, "name": "relu1"},
        {**POOL, "name": "pool1"},
        {**CONV, "out": 10, "kernel": (3, 3), "name": "conv2"}, {**RELU, "name": "relu2"},
        {**POOL, "name": "pool2"},
    ]
    return build(records, (2, 12, 15), name="two blocks")


@pytest.fixture
def trace(net):
    return net.forward(noise((2, 12, 15)))


def assert_same(maps: np.ndarray, given: np.ndarray, on: dict[str, str]) -> None:
    """The same bits; the reference goes on from float64, an array it is given is float32."""
    tolerance = 1e-6 * np.abs(maps).max() if on["backend"] == "reference" else 0
    np.testing.assert_allclose(maps, given, rtol=0, atol=tolerance)


def test_the_start_map_is_the_activation_itself(on, net):
    trace = net.forward(noise((2, 12, 15)))
    maps = fd.deconvolve(trace, "pool2")
    assert_same(maps, fd.deconvolve(trace, "pool2", start=trace["pool2"]), on)


def test_the_start_max_is_the_first_strongest_unit_alone(on, net):
    trace = net.forward(np.ones((2, 12, 15)))
    start = np.zeros_like(trace["pool2"])
    for k, plane in enumerate(trace["pool2"]):
        start[k].flat[np.argmax(plane)] = plane.max()
    assert (trace["pool2"] == trace["pool2"].max(axis=(1, 2), keepdims=True)).sum() > 10
    found = fd.deconvolve(trace, "pool2", start="max")
    assert_same(found, fd.deconvolve(trace, "pool2", start=start), on)


def test_a_strongest_unit_that_saw_nothing_but_padding_gives_zeros(on):
    frame = {"type": "conv2d", "padding": 1, "bias": True}
    arrays = {
        "conv1.weight": noise((16, 1, 3, 3)), "conv1.bias": np.ones(16),
        "conv2.weight": noise((16, 16, 3, 3)), "conv2.bias": np.ones(16),
        # Strongest where it reads nothing.
        "conv3.weight": np.full((16, 16, 1, 1), -1.0), "conv3.bias": np.ones(16),
    }
    net = fd.Network([frame, RELU, frame, RELU, frame], arrays, (1, None, None))
    trace = net.forward(np.ones((1, 100, 100)))
    assert not trace["conv3"].reshape(16, -1).argmax(axis=1).any()
    assert not fd.deconvolve(trace, "conv3", start="max").any()


def test_an_array_start_goes_with_the_features_in_their_order(on, net):
    trace = net.forward(noise((2, 12, 15)))
    start = noise((3, 3, 3), 9)
    maps = fd.deconvolve(trace, "pool2", [7, 2, 7], start=start)
    for feature, values, found in zip([7, 2, 7], start, maps):
        alone = fd.deconvolve(trace, "pool2", [feature], start=values[None])
        assert found.tobytes() == alone[0].tobytes()


def test_deconvnet_is_positively_homogeneous_in_the_start(on, net):
    trace = net.forward(noise((2, 12, 15)))
    start = noise((10, 3, 3), 9)
    maps = fd.deconvolve(trace, "pool2", start=start)
    assert np.array_equal(fd.deconvolve(trace, "pool2", start=4 * start), 4 * maps)


def test_a_convolution_starts_signed_and_a_relu_rectifies_its_start(on):
    weight = np.float32([[[[1]]], [[[-1]]]])
    net = fd.Network([CONV, RELU], {"conv1.weight": weight}, (1, None, None))
    trace = net.forward([[[2, -3]]])
    assert trace["conv1"].tolist() == [[[2, -3]], [[-2, 3]]]
    assert fd.deconvolve(trace, "conv1").tolist() == [[[[2, -3]]], [[[2, -3]]]]
    assert fd.deconvolve(trace, "relu1").tolist() == [[[[2, 0]]], [[[0, -3]]]]
    given = fd.deconvolve(trace, "relu1", start=[[[5, -5]], [[-5, 5]]])
    assert given.tolist() == [[[[5, 0]]], [[[0, -5]]]]


def test_negative_values_of_a_start_live_until_the_first_relu(on):
    """A pool after a batch norm is signed; without a ReLU below, so is its map."""
    def norm(relu: list[dict[str, Any]]) -> fd.Network:
        arrays = {"conv1.weight": [[[[1]]]], "bn1.weight": [1], "bn1.bias": [-10],
                  "bn1.running_mean": [0], "bn1.running_var": [1]}
        layers = [CONV, *relu, {"type": "batch_norm2d", "eps": 0.0}, POOL]
        return fd.Network(layers, arrays, (1, None, None))

    x = [[[1, 12, 2, 3], [0, 0, 4, 0]]]
    trace = norm([]).forward(x)
    assert trace["pool1"].tolist() == [[[2, -6]]]
    assert fd.deconvolve(trace, "pool1").tolist() == [[[[0, 2, 0, 0], [0, 0, -6, 0]]]]
    trace = norm([RELU]).forward(x)
    assert fd.deconvolve(trace, "pool1").tolist() == [[[[0, 2, 0, 0], [0, 0, 0, 0]]]]
    gradient = fd.deconvolve(trace, "pool1", rule="gradient")
    assert gradient.tolist() == [[[[0, 2, 0, 0], [0, 0, -6, 0]]]]


@pytest.mark.parametrize(
    "start",
    ["Map", "", None, np.zeros((10, 3)), np.zeros((9, 3, 3)), np.zeros((10, 3, 3), complex),
     [[[1, 2], [3]]], np.full((10, 3, 3), np.nan), np.full((10, 3, 3), np.inf),
     np.full((10, 3, 3), 1e300), np.full((10, 3, 3), None)],
    ids=lambda s: f"{np.shape(s)}{s.flat[0]}" if isinstance(s, np.ndarray) else str(s),
)
def test_a_start_that_does_not_fit_is_refused(trace, start):
    with pytest.raises(fd.ParameterError, match="start"):
        fd.deconvolve(trace, "pool2", start=start)


# Features, layers, classes


def test_features_come_in_any_order_with_repeats(on, net):
    trace = net.forward(noise((2, 12, 15)))
    every = fd.deconvolve(trace, "pool2")
    for features in ([9, 0, 3], [4, 4, 4], range(3, 7), np.uint8([5, 1]), (0,), [np.int64(2), 8]):
        found = fd.deconvolve(trace, "pool2", features)
        assert found.tobytes() == every[np.array(features)].tobytes()


@pytest.mark.parametrize("empty", [[], (), range(0), np.array([])])
@pytest.mark.parametrize("start", ["map", "max", np.zeros((0, 3, 3))], ids=["map", "max", "array"])
def test_no_features_give_no_maps(on, net, empty, start):
    trace = net.forward(noise((2, 12, 15)))
    maps = fd.deconvolve(trace, "pool2", empty, start=start)
    assert maps.shape == (0, 2, 12, 15) and maps.dtype == np.float32


@pytest.mark.parametrize(
    "features",
    [[-1], [10], [0, 10], [True], [True, 1], [np.False_, 1], [1.0], ["1"], "12", 5, {1, 2},
     {1: 2}, [None], [[0]], [[1], [2, 3]], [2**70], np.array([True, False]), np.array(3)],
    ids=str,
)
@pytest.mark.parametrize("layer", ["pool2", "conv2"])
def test_features_that_are_not_there_are_refused(trace, features, layer):
    with pytest.raises(fd.ParameterError, match="features"):
        fd.deconvolve(trace, layer, features)


@pytest.mark.parametrize("layer", ["pool3", "", 2, None, ["pool2"]])
def test_a_layer_that_does_not_exist_is_refused_with_those_that_do(trace, layer):
    with pytest.raises(fd.ParameterError, match="conv1, relu1, pool1, conv2, relu2, pool2"):
        fd.deconvolve(trace, layer)


@pytest.mark.parametrize("rule", ["Guided", "", None, 1, ["guided"]])
def test_an_unknown_rule_is_refused_with_those_there_are(trace, rule):
    with pytest.raises(fd.ParameterError, match="deconvnet, guided, gradient"):
        fd.deconvolve(trace, "pool2", rule=rule)


@pytest.fixture
def classifier(build):
    records = [
        {**CONV, "out": 4, "kernel": (3, 3)}, RELU, POOL, {"type": "flatten"},
        {"type": "linear", "out": 3, "name": "score"},
    ]

    def make(closing: str | None, classes: Any = ("rock", "metal", "0")) -> fd.Network:
        closed = [*records, {"type": closing}] if closing else records
        return build(closed, (1, 6, 6), classes=classes)

    return make


@pytest.mark.parametrize("closing", [None, "softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("name", "feature"), [("rock", 0), ("metal", 1), ("0", 2), ("1", 1), ("2", 2)]
)
def test_a_class_is_its_score_before_the_closing_activation(classifier, closing, name, feature):
    trace = classifier(closing).forward(noise((1, 6, 6)))
    for rule in ("deconvnet", "guided", "gradient"):
        found = fd.deconvolve(trace, f"class:{name}", rule=rule)
        wanted = fd.deconvolve(trace, "score", [feature], rule=rule, start="one")
        assert found.shape == (1, 1, 6, 6) and found.any()
        assert found.tobytes() == wanted.tobytes()


def test_a_network_of_a_closing_activation_alone_starts_there(on, build):
    net = build([{"type": "sigmoid"}], (2, 1, 1))
    x = noise((2, 1, 1))
    maps = fd.deconvolve(net.forward(x), "class:1", start=[[[1.0]]])
    p = 1 / (1 + np.exp(-x[1].item()))
    np.testing.assert_allclose(maps.ravel(), [0, p * (1 - p)], rtol=1e-6)


@pytest.mark.parametrize("name", ["jazz", "", "3", "-1", "²", "9" * 5000, "1.0", " 1"])
def test_a_class_that_does_not_exist_is_refused(classifier, name):
    trace = classifier("softmax").forward(noise((1, 6, 6)))
    with pytest.raises(fd.ParameterError, match="class"):
        fd.deconvolve(trace, f"class:{name}")


def test_a_class_takes_no_features(classifier):
    trace = classifier("softmax").forward(noise((1, 6, 6)))
    with pytest.raises(fd.ParameterError, match="leave features out"):
        fd.deconvolve(trace, "class:rock", [0])


# Silence


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
@pytest.mark.parametrize("start", ["map", "max"])
def test_silent_features_give_exact_zeros_beside_loud_ones(on, net, rule, start):
    arrays = dict(net.arrays)
    arrays["conv2.weight"] = arrays["conv2.weight"].copy()
    arrays["conv2.weight"][[0, 4]] = 0
    trace = fd.Network(net.layers, arrays, (2, None, None)).forward(noise((2, 12, 15)))
    maps = fd.deconvolve(trace, "pool2", rule=rule, start=start)
    silent = ~trace["pool2"].any(axis=(1, 2))
    assert silent[[0, 4]].all() and not silent.all()
    assert not maps[silent].any()
    assert maps[~silent].any(axis=(1, 2, 3)).all()


def test_silence_in_gives_exact_zeros_out(on, net):
    trace = net.forward(np.zeros((2, 12, 15)))
    for layer in net.layers:
        assert not fd.deconvolve(trace, layer.name).any()


# Shapes of networks


@pytest.mark.parametrize("size", [(1, 1), (1, 13), (13, 1), (4, 6)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 4), (7, 7)])
def test_one_convolution_is_projected_by_its_adjoint(on, build, size, kernel):
    net = build([{**CONV, "out": 4, "kernel": kernel, "name": "conv"}], (3, *size))
    x, start = noise((3, *size)), noise((4, *size), 5)
    maps = fd.deconvolve(net.forward(x), "conv", start=start)
    left = (net.forward(x)["conv"].astype(float) * start).sum()
    right = (maps.astype(float) * x).sum()
    assert left == pytest.approx(right, rel=1e-4, abs=1e-4)


def test_one_linear_layer_is_projected_by_its_rows(on, build):
    net = build([{"type": "linear", "out": 4, "name": "fc"}], (5, 1, 1))
    trace = net.forward(noise((5, 1, 1)))
    maps = fd.deconvolve(trace, "fc")
    wanted = trace["fc"][:, 0] * net.arrays["fc.weight"]
    np.testing.assert_allclose(maps[:, :, 0, 0], wanted, rtol=1e-6)


def test_two_pools_in_a_row_and_a_pool_first(on, build):
    net = build([{**POOL, "name": "pool1"}, {**POOL, "name": "pool2"}], (2, 8, 8))
    x = np.abs(noise((2, 8, 8)))
    maps = fd.deconvolve(net.forward(x), "pool2")
    for k in range(2):
        tops = x[k].reshape(2, 4, 2, 4).max(axis=(1, 3), keepdims=True)
        kept = np.where(x[k].reshape(2, 4, 2, 4) == tops, x[k].reshape(2, 4, 2, 4), 0)
        assert np.array_equal(maps[k, k], kept.reshape(8, 8))
        assert not maps[k, 1 - k].any()


# Memory


@pytest.mark.parametrize("backend", [i for i in fd.available_backends() if i == "native"])
def test_memory_grows_with_features_only_by_their_maps(build, backend):
    records = [{**CONV, "out": 16, "kernel": (3, 3)}, RELU, POOL] * 2
    records[3] = {**records[3], "out": 192}
    records[5] = {**POOL, "name": "pool2"}
    net = build(records, (1, 64, 64))
    with fd.config(backend=backend):
        trace = net.forward(noise((1, 64, 64)))
        fd.deconvolve(trace, "pool2", [0])
        beyond = []
        for count in (64, 192):
            tracemalloc.start()
            maps = fd.deconvolve(trace, "pool2", range(count))
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            beyond.append(peak - maps.nbytes)
    # The starts of all features are held at once, as they are and unpooled.
    starts = 128 * (16 * 16 + 32 * 32) * 4
    assert beyond[1] < beyond[0] + 1.2 * starts
