"""The three rules for every layer type, against finite differences and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.deconvnet import joins, layerwise
from fastdeconv.kernels.activations import ACTIVATIONS
from fastdeconv.network import layers as nn

RULES = ("deconvnet", "guided", "gradient")

RELU = {"type": "relu"}
NORM = {"type": "batch_norm2d"}


def conv(out: int, kernel: Any = (3, 3), **parameters: Any) -> dict[str, Any]:
    return {"type": "conv2d", "out": out, "kernel": kernel, **parameters}


def max_pool(kernel: Any = 2, **parameters: Any) -> dict[str, Any]:
    return {"type": "max_pool2d", "kernel_size": kernel, **parameters}


def avg_pool(kernel: Any = 2, **parameters: Any) -> dict[str, Any]:
    return {"type": "avg_pool2d", "kernel_size": kernel, **parameters}


LRN = {"type": "local_response_norm", "size": 3, "alpha": 0.6, "beta": 0.8, "k": 1.5}
FLATTEN = {"type": "flatten"}

# Between them these have every layer type of the archive, but for some activations (see below).
NETWORKS: dict[str, tuple[list[dict[str, Any]], tuple[int, int, int]]] = {
    "published": (
        [conv(6, padding="same"), RELU, max_pool(), conv(8, padding="same"), RELU, max_pool()],
        (1, 13, 11),
    ),
    "strided and grouped": (
        [
            conv(6, (3, 4), stride=(2, 1), padding=((1, 2), (0, 3)), groups=2), NORM, RELU,
            max_pool(3, stride=2, padding=1),
            conv(9, (3, 2), dilation=(2, 1), padding="same", groups=3), RELU,
            conv(4, stride=2, padding="same", bias=False), RELU,
        ],
        (4, 19, 16),
    ),
    "norms on both sides": (
        [
            conv(6, padding=1), NORM, RELU, {"type": "affine"}, max_pool((2, 3)),
            conv(5, padding=1), RELU, NORM, max_pool(), {"type": "dropout"}, conv(4, (2, 2)), NORM,
        ],
        (2, 14, 19),
    ),
    "pools of all kinds": (
        [
            conv(5, padding=2), RELU, max_pool(3, stride=2, ceil_mode=True), RELU,
            max_pool(2, stride=1, dilation=2, padding=1),
            avg_pool(3, stride=2, padding=1, ceil_mode=True), conv(4, padding=1), RELU,
            avg_pool(3, stride=2, padding=1, count_include_pad=False, ceil_mode=True),
            max_pool(2, padding=((0, 1), (1, 0))),
        ],
        (1, 23, 20),
    ),
    "average pools": (
        [
            avg_pool((2, 3), stride=1), conv(4, padding=1), RELU,
            avg_pool(2, padding=1, count_include_pad=True), RELU,
            avg_pool((3, 2), stride=(2, 1), padding=(1, 0), count_include_pad=False),
        ],
        (2, 12, 13),
    ),
    "other activations": (
        [
            conv(5, padding=1), {"type": "leaky_relu", "negative_slope": 0.2}, max_pool(),
            conv(6, padding=1), {"type": "elu", "alpha": 0.7}, {"type": "tanh"},
            conv(4, padding=1), {"type": "sigmoid"}, conv(5, (1, 1)), {"type": "softmax"},
        ],
        (1, 10, 12),
    ),
    "response norm": (
        [conv(7, padding=1), RELU, LRN, max_pool(3, stride=2), conv(6, padding=1), RELU,
         {**LRN, "size": 4}],
        (1, 13, 12),
    ),
    "classifier": (
        [
            conv(5, padding=1), RELU, max_pool(), {"type": "dropout"}, FLATTEN,
            {"type": "linear", "out": 7}, RELU, {"type": "dropout"},
            {"type": "linear", "out": 4, "bias": False}, {"type": "softmax"},
        ],
        (2, 8, 6),
    ),
    "global average": (
        [conv(5), RELU, conv(6), RELU, {"type": "global_avg_pool2d"}, {"type": "linear", "out": 3},
         {"type": "sigmoid"}],
        (1, 9, 8),
    ),
    "global maximum": (
        [conv(5), NORM, RELU, conv(6), {"type": "global_max_pool2d"}, RELU,
         {"type": "linear", "out": 3}],
        (1, 9, 8),
    ),
    "smooth activations": (
        [
            conv(5, padding=1), {"type": "silu"}, conv(4, (2, 2)), {"type": "gelu"},
            conv(5, (1, 3)), {"type": "gelu", "approximate": "tanh"}, max_pool(),
            conv(4, padding=1), {"type": "mish"}, {"type": "softsign"}, conv(4, (1, 1)),
            {"type": "sin"}, {"type": "softplus", "beta": 2.0}, {"type": "sqrt"}, conv(5, (2, 2)),
            {"type": "selu"},
            {"type": "square"}, conv(4, (1, 1)), {"type": "sigmoid"}, {"type": "log"},
            {"type": "exp"}, {"type": "power", "exponent": 1.7}, conv(3, (1, 1)),
            {"type": "log_softmax"},
        ],
        (1, 13, 12),
    ),
    "activations with kinks": (
        [
            conv(5, padding=1), {"type": "hardswish"}, conv(6, padding=1),
            {"type": "clip", "min": 0.0, "max": 1.0}, max_pool(), conv(5, padding=1),
            {"type": "prelu"}, {"type": "prelu", "out": 1}, {"type": "abs"}, conv(4, (1, 1)),
            {"type": "clip", "min": -0.5, "max": 0.75}, conv(4, (2, 2)), {"type": "hardsigmoid"},
            {"type": "clip", "min": 0.25},
        ],
        (2, 11, 12),
    ),
    "norms of the input": (
        [
            conv(6, padding=1), {"type": "layer_norm", "axes": "W"}, RELU,
            {"type": "group_norm", "groups": 3}, conv(6, (2, 2)),
            {"type": "instance_norm", "affine": True}, RELU, max_pool(),
            {"type": "layer_norm", "axes": "CH"}, conv(4, padding=1),
            {"type": "group_norm", "groups": 2, "affine": False}, RELU, {"type": "instance_norm"},
        ],
        (1, 9, 11),
    ),
    "shapes of all kinds": (
        [
            {"type": "permute", "axes": "HCW"}, conv(6, padding=1), RELU,
            {"type": "pad", "padding": ((1, 0), (2, 1)), "value": 0.5},
            {"type": "conv_transpose2d", "out": 4, "kernel": (3, 2), "stride": (2, 1)}, RELU,
            max_pool(), {"type": "affine", "axis": "H"}, {"type": "upsample", "scale": (1, 2)},
            {"type": "slice", "axis": "W", "start": 1, "step": 2}, conv(6, (2, 2)), RELU,
            {"type": "batch_norm2d", "axis": "W"}, {"type": "slice", "axis": "C", "stop": -2},
            {"type": "permute", "axes": "CWH"}, {"type": "reshape", "shape": (5, -1, 3)},
            conv(5, (2, 2)), RELU, {"type": "reduce_mean", "axes": "H"},
            {"type": "reduce_max", "axes": "CW"},
        ],
        (3, 5, 8),
    ),
    "other sizes": (
        [
            {"type": "pad", "padding": ((1, 2), (0, 3)), "mode": "reflect"}, conv(6, padding=1),
            RELU, {"type": "affine", "axis": "CH"}, {"type": "adaptive_max_pool2d",
                                                     "output_size": (7, None)},
            {"type": "pad", "padding": ((0, 1), (2, 0)), "mode": "replicate"}, conv(5, (2, 2)),
            RELU, {"type": "upsample", "size": (9, 17), "mode": "bilinear"}, conv(4, (1, 1)),
            {"type": "pad", "padding": ((1, 0), (1, 1)), "mode": "circular"}, RELU,
            {"type": "adaptive_avg_pool2d", "output_size": (4, 5)},
            {"type": "upsample", "scale": (2, 1), "mode": "bilinear", "align_corners": True},
            conv(6, (2, 2)), {"type": "upsample", "size": 5},
        ],
        (1, 9, 11),
    ),
    "the strongest branch": (
        [
            conv(6, padding=1, name="a"), {**RELU, "name": "b"},
            conv(6, padding=1, name="c", inputs=["a"]),
            {"type": "maximum", "inputs": ["b", "c"], "name": "most"}, conv(6, padding=1),
            {"type": "reduce_mean", "axes": "HW", "name": "mean"},
            {"type": "minimum", "inputs": ["mean", "most", "c"]}, max_pool(), conv(5, (2, 2)), RELU,
        ],
        (1, 10, 8),
    ),
    "branches": (
        [
            conv(6, padding=1, name="stem"), {**RELU, "name": "wide"},
            conv(6, padding=1, inputs=["wide"]), RELU, conv(6, padding=1, name="deep"),
            {"type": "add", "inputs": ["deep", "wide"]}, {**RELU, "name": "sum"},
            {"type": "reduce_mean", "axes": "HW"}, conv(3, (1, 1)), RELU, conv(6, (1, 1)),
            {"type": "hardsigmoid", "name": "gate"},
            {"type": "multiply", "inputs": ["sum", "gate"], "name": "gated"}, max_pool(),
            conv(4, padding=1), RELU, {"type": "upsample", "scale": 2, "name": "up"},
            {"type": "concat", "inputs": ["up", "gated"]}, conv(5, (2, 2)), RELU,
        ],
        (1, 10, 8),
    ),
    "one row": (
        [conv(6, (1, 5), padding="same"), RELU, max_pool((1, 4)), conv(5, (1, 4), padding="same"),
         RELU, max_pool((1, 3), stride=(1, 2))],
        (3, 1, 41),
    ),
}
# Inputs are multiples of it, so that one step away is exact in float32.
STEP = 2.0**-12


def types_in_networks() -> set[str]:
    return {record["type"] for records, _ in NETWORKS.values() for record in records}


# A row of the table of activations that is in none of the networks above gets one of its own.
NETWORKS |= {
    name: ([conv(5, padding=1), {"type": name}, conv(4, padding=1), RELU], (1, 10, 12))
    for name in sorted(set(ACTIVATIONS) - types_in_networks())
}
EACH = pytest.mark.parametrize("key", NETWORKS)


def test_the_networks_have_every_layer_type():
    assert types_in_networks() == set(nn.LAYER_TYPES)


@pytest.fixture
def case(key, build):
    """(network, input), both random."""
    records, shape = NETWORKS[key]
    x = np.random.default_rng(5).standard_normal(shape)
    x = (np.round(x / STEP) * STEP).astype(np.float32)
    return build(records, shape, seed=3), x


# Without another library


@EACH
def test_the_gradient_is_the_slope_of_the_activations(case):
    """Central differences in float64 of sum(start * activation) along random directions."""
    net, x = case
    rng = np.random.default_rng(0)
    with fd.config(backend="reference"):
        trace, last = net.forward(x), net.layers[-1].name
        start = rng.standard_normal(trace[last].shape)
        maps = fd.deconvolve(trace, last, rule="gradient", start=start)
        compared, index = 0, len(net.layers) - 1
        for _ in range(12):
            # A few pixels, so that few kinks are near.
            move = np.zeros(x.shape)
            move.flat[rng.choice(x.size, 3, replace=False)] = STEP
            ends = [net.forward(x + move), net.forward(x - move)]
            if not all(same_pieces(trace, end) for end in ends):
                continue
            compared += 1
            rise = ends[0].activation(index) - ends[1].activation(index)
            slopes = (start * rise).sum(axis=(1, 2))
            wanted = 2 * (maps * move).sum(axis=(1, 2, 3))
            np.testing.assert_allclose(slopes, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    assert compared >= 3


KINKS = {
    "relu": [0], "leaky_relu": [0], "prelu": [0], "elu": [0], "selu": [0], "abs": [0],
    "hardswish": [-3, 3], "hardsigmoid": [-3, 3],
}


def same_pieces(one: fd.Trace, other: fd.Trace) -> bool:
    """Whether no kink lies between two inputs: on one side of it each, equal places of maxima."""
    for i, layer in enumerate(one.network.layers):
        if layer.type == "max_pool2d" and (one.switch_planes(i) != other.switch_planes(i)).any():
            return False
        if layer.type in ("global_max_pool2d", "reduce_max"):
            axes = tuple("CHW".index(letter) for letter in getattr(layer, "axes", "HW"))
            a, b = (t.activation(one.network.sources[i][0]) for t in (one, other))
            if ((a == a.max(axes, keepdims=True)) != (b == b.max(axes, keepdims=True))).any():
                return False
        bounds = [layer.min, layer.max] if layer.type == "clip" else KINKS.get(layer.type, [])
        for kink in bounds:
            a, b = (t.activation(one.network.sources[i][0]) for t in (one, other))
            if kink is not None and ((a > kink) != (b > kink)).any():
                return False
    return True


@EACH
def test_gradient_is_linear_in_the_start(case):
    net, x = case
    trace, last = net.forward(x), net.layers[-1].name
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, *trace[last].shape))
    maps = [
        fd.deconvolve(trace, last, rule="gradient", start=s) for s in (one, other, one + 2 * other)
    ]
    np.testing.assert_allclose(
        maps[0] + 2 * maps[1], maps[2], atol=1e-5 * max(np.abs(m).max() for m in maps)
    )


def test_without_a_relu_all_rules_are_the_gradient(build):
    records = [
        conv(5, padding=1), {"type": "elu"}, NORM, max_pool(3, stride=2), conv(4), avg_pool(),
    ]
    net = build(records, (1, 14, 14))
    trace = net.forward(np.random.default_rng(0).standard_normal((1, 14, 14)))
    maps = [fd.deconvolve(trace, "l5", rule=rule) for rule in RULES]
    assert maps[0].any()
    assert maps[0].tobytes() == maps[1].tobytes() == maps[2].tobytes()


def test_the_rules_differ_at_a_relu_as_published(build):
    """R of both signs at units that were and were not active."""
    net = fd.Network(
        [{"type": "conv2d", "bias": False}, RELU], {"conv1.weight": [[[[1.0]]]]}, (1, None, None)
    )
    trace = net.forward([[[5, 5, -5, -5]]])
    start = [[[2, -2, 2, -2]]]
    maps = {r: fd.deconvolve(trace, "relu1", rule=r, start=start)[0, 0, 0].tolist() for r in RULES}
    assert maps == {"deconvnet": [2, 0, 2, 0], "guided": [2, 0, 0, 0], "gradient": [2, -2, 0, 0]}


def test_a_unit_at_exactly_zero_was_not_active(build):
    net = fd.Network([RELU], {}, (1, None, None))
    trace = net.forward([[[0.0, -0.0, 1e-30]]])
    for rule, wanted in (("deconvnet", [3, 3, 3]), ("guided", [0, 0, 3]), ("gradient", [0, 0, 3])):
        found = fd.deconvolve(trace, "relu1", rule=rule, start=[[[3, 3, 3]]])
        assert found[0, 0, 0].tolist() == wanted


def test_batch_norm_keeps_its_sign_and_drops_its_shift(build):
    arrays = {"bn1.weight": [-3, 2], "bn1.bias": [9, 9], "bn1.running_mean": [5, 5],
              "bn1.running_var": [0.25, 16]}
    net = fd.Network([{"type": "batch_norm2d", "eps": 0.0}], arrays, (2, None, None))
    trace = net.forward(np.ones((2, 1, 1)))
    for rule in RULES:
        maps = fd.deconvolve(trace, "bn1", rule=rule, start=[[[1]], [[1]]])
        assert maps[:, :, 0, 0].tolist() == [[-6, 0], [0, 0.5]]


def test_local_response_norm_passes_the_signal_except_under_gradient(build):
    net = build([LRN], (4, 3, 3))
    trace = net.forward(np.random.default_rng(0).standard_normal((4, 3, 3)))
    start = np.random.default_rng(1).standard_normal((4, 3, 3)).astype(np.float32)
    for rule in ("deconvnet", "guided"):
        maps = fd.deconvolve(trace, "l0", rule=rule, start=start)
        for k in range(4):
            assert np.array_equal(maps[k, k], start[k])
            assert not np.delete(maps[k], k, axis=0).any()
    mixed = fd.deconvolve(trace, "l0", rule="gradient", start=start)
    assert mixed[1, 0].any() and mixed[1, 2].any() and not mixed[1, 3].any()


@pytest.mark.parametrize("kind", ["tanh", "sigmoid", "softmax"])
def test_derivatives_of_saturated_units_keep_their_digits(kind):
    """In float32 tanh(9) is 1, and 1 - 1 * 1 would be no slope at all."""
    net = fd.Network([{"type": kind, "name": "last"}], {}, (2, None, None))
    x = np.array([[[9.0, -9.0, 20.0, 0.5]], [[0.0] * 4]])
    trace = net.forward(x)
    maps = fd.deconvolve(trace, "last", [0], rule="gradient", start=np.ones((1, 1, 4)))
    # The softmax of two channels is the sigmoid of their difference.
    logistic = 1 / ((1 + np.exp(x[0])) * (1 + np.exp(-x[0])))
    wanted = 1 / np.cosh(x[0]) ** 2 if kind == "tanh" else logistic
    np.testing.assert_allclose(maps[0, 0], wanted, rtol=1e-6)


def test_overlapping_windows_add():
    net = fd.Network([max_pool(3, stride=1)], {}, (1, None, None))
    trace = net.forward([[[0, 0, 0, 0], [0, 0, 9, 0], [0, 0, 0, 0], [0, 0, 0, 0]]])
    for rule in RULES:
        maps = fd.deconvolve(trace, "pool1", rule=rule, start=[[[1, 2], [4, 8]]])
        wanted = np.zeros((4, 4))
        wanted[1, 2] = 15
        assert np.array_equal(maps[0, 0], wanted)


# Against PyTorch


BACKENDS = pytest.mark.parametrize("backend", ["reference", fd.available_backends()[0]])


def close(found: np.ndarray, wanted: np.ndarray, backend: str) -> None:
    tolerance = 3e-7 if backend == "reference" else 2e-5
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@EACH
@BACKENDS
def test_every_layer_computes_what_pytorch_computes(in_torch, case, backend):
    net, x = case
    with fd.config(backend=backend):
        trace = net.forward(x)
    for layer, value in zip(net.layers, in_torch(net, x, "gradient")[1:]):
        close(trace[layer.name], value[0].detach().numpy(), backend)


@EACH
@BACKENDS
@pytest.mark.parametrize("rule", RULES)
def test_every_layer_projects_as_pytorch_differentiates(torch, in_torch, case, backend, rule):
    net, x = case
    values = in_torch(net, x, rule)
    rng = np.random.default_rng(2)
    with fd.config(backend=backend):
        trace = net.forward(x)
        for layer, value in zip(net.layers, values[1:]):
            features = rng.permutation(value.shape[1])[:3]
            start = rng.standard_normal((len(features), *value.shape[2:]))
            maps = fd.deconvolve(trace, layer.name, features, rule, start)
            for feature, of_it, found in zip(features, start, maps):
                seed = torch.zeros_like(value)
                seed[0, feature] = torch.from_numpy(of_it)
                (wanted,) = torch.autograd.grad(value, values[0], seed, retain_graph=True)
                close(found, wanted[0].numpy(), backend)


def test_ties_of_a_max_pool_go_where_pytorch_sends_them(torch, in_torch, build):
    net = build([conv(4, padding=1), RELU, max_pool(3, stride=2, padding=1)], (1, 12, 12))
    x = np.full((1, 12, 12), 0.25, np.float32)
    trace = net.forward(x)
    values = in_torch(net, x, "deconvnet")
    (wanted,) = torch.autograd.grad(values[-1][0, 2].sum(), values[0])
    found = fd.deconvolve(trace, "l2", [2], start=np.ones((1, 6, 6)))
    close(found[0], wanted[0].numpy(), "native")


def test_a_layer_that_the_table_does_not_know_is_refused(build, monkeypatch):
    net = build([{"type": "softplus", "name": "act"}], (2, 4, 4))
    x = np.random.default_rng(0).normal(size=(2, 4, 4))
    trace = net.forward(x)
    monkeypatch.delitem(layerwise._PASSES, type(net.layers[0]))
    with pytest.raises(fd.ParameterError, match=r"'act' \(softplus\)"):
        fd.deconvolve(trace, "act", rule="gradient")
    with pytest.raises(fd.ParameterError, match=r"'act' \(softplus\)"):
        net.forward(x)


def test_every_type_of_layer_has_its_way_forward_and_back():
    assert {*layerwise._PASSES, *joins._JOINS} == set(nn.LAYER_TYPES.values())
