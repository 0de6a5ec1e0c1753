"""Every type of layer by itself, with all its parameters, against PyTorch in float64.

A layer is looked at alone, where few channels are projected at a time, and below a
convolution, where all of them are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.deconvnet.joins import backward_join, forward_join
from fastdeconv.deconvnet.layerwise import Arithmetic, backward_layer, mixes
from fastdeconv.kernels.activations import ACTIVATIONS
from fastdeconv.kernels.dispatch import get_backend
from fastdeconv.network import layers as nn

RULES = ("deconvnet", "guided", "gradient")
PROPERTY = settings(max_examples=12)

# What may be drawn for each parameter; arrays are `build`'s.
small = st.integers(1, 3)
flags = st.booleans()
letters = st.sampled_from("CHW")
some_axes = st.sampled_from(["C", "H", "W", "CH", "WC", "HW", "WHC"])
numbers = st.floats(-2, 2).map(lambda x: round(x, 3))


def pairs(numbers: Any) -> Any:
    return st.one_of(numbers, st.tuples(numbers, numbers))


PADDING = st.one_of(
    st.sampled_from(["same", "valid"]), pairs(st.integers(0, 2)),
    st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
)
EVEN_PADDING = pairs(st.integers(0, 1))
EPS = st.sampled_from([1e-5, 1e-3, 0.5])
KERNEL = st.tuples(small, small)
OUTPUT_SIZE = st.integers(1, 7) | st.tuples(*[st.none() | st.integers(1, 7)] * 2)

DRAWN: dict[str, dict[str, Any]] = {
    "conv2d": {
        "out": st.sampled_from([6, 12]), "kernel": KERNEL, "stride": pairs(small),
        "padding": PADDING, "dilation": pairs(small), "groups": small, "bias": flags,
    },
    "conv_transpose2d": {
        "out": st.sampled_from([6, 12]), "kernel": KERNEL, "stride": pairs(small),
        "padding": PADDING.filter(lambda p: p != "same"), "dilation": pairs(small),
        "output_padding": pairs(st.integers(0, 2)), "groups": small, "bias": flags,
    },
    "linear": {"out": small, "bias": flags},
    "softmax": {},
    "log_softmax": {},
    "batch_norm2d": {"eps": EPS, "axis": letters},
    "affine": {"axis": some_axes},
    "local_response_norm": {
        "size": st.integers(1, 5), "alpha": st.floats(0, 2), "beta": numbers,
        "k": st.floats(0.5, 2),
    },
    "layer_norm": {"axes": some_axes, "eps": EPS, "affine": flags},
    "group_norm": {"groups": small, "eps": EPS, "affine": flags},
    "instance_norm": {"eps": EPS, "affine": flags},
    "max_pool2d": {
        "kernel_size": pairs(small), "stride": st.one_of(st.none(), pairs(small)),
        "padding": PADDING, "dilation": pairs(small), "ceil_mode": flags,
    },
    "avg_pool2d": {
        "kernel_size": pairs(st.integers(2, 3)), "stride": st.one_of(st.none(), pairs(small)),
        "padding": EVEN_PADDING, "ceil_mode": flags, "count_include_pad": flags,
    },
    "adaptive_avg_pool2d": {"output_size": OUTPUT_SIZE},
    "adaptive_max_pool2d": {"output_size": OUTPUT_SIZE},
    "global_avg_pool2d": {},
    "global_max_pool2d": {},
    "reduce_mean": {"axes": some_axes},
    "reduce_max": {"axes": some_axes},
    "dropout": {},
    "flatten": {},
    "slice": {
        "axis": letters, "start": st.integers(-9, 4), "stop": st.none() | st.integers(-4, 9),
        "step": small,
    },
    "pad": {
        "padding": st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
        "value": numbers,
        "mode": st.sampled_from(["constant", "reflect", "replicate", "circular"]),
    },
    "permute": {"axes": st.permutations("CHW").map("".join)},
    "reshape": {},  # drawn from the shape of the input
    "upsample": {
        "mode": st.sampled_from(["nearest", "bilinear"]), "align_corners": flags,
        "scale": pairs(small), "size": st.none() | pairs(st.integers(1, 9)),
    },
    "leaky_relu": {"negative_slope": numbers},
    "prelu": {"out": st.sampled_from([1, 6])},
    "elu": {"alpha": numbers},
    "clip": {"min": st.sampled_from([None, 0.0, -0.5]), "max": st.sampled_from([None, 0.25, 1.0])},
    "gelu": {"approximate": st.sampled_from(["none", "tanh"])},
    "softplus": {"beta": st.floats(0.25, 4), "threshold": st.sampled_from([20.0, 1.0])},
    "power": {"exponent": numbers},
}
# Activations without parameters have nothing to draw.
DRAWN |= {name: {} for name, row in ACTIVATIONS.items() if not (row.parameters or row.has_weight)}
JOINS = {"add", "multiply", "maximum", "minimum", "concat"}


def test_every_type_of_layer_is_drawn_with_every_parameter():
    assert {*DRAWN, *JOINS} == set(nn.LAYER_TYPES)
    for kind, drawn in DRAWN.items():
        assert set(nn.LAYER_TYPES[kind]._checks) - set(drawn) <= {"shape"}, kind


@st.composite
def cases(draw: st.DrawFn, kind: str) -> tuple[dict[str, Any], tuple[int, int, int], int]:
    """(record, input shape, seed)"""
    size = st.sampled_from([1, 2, 3, 5, 8])
    shape = 6, draw(size), draw(size)
    record = {"type": kind} | {key: draw(values) for key, values in DRAWN[kind].items()}
    if kind == "linear":
        shape = 6, 1, 1
    if kind == "upsample":
        del record["scale" if record["size"] is not None else "size"]
    if kind == "reshape":
        known = [draw(st.sampled_from([2, 3])), *shape[1:]]
        lost = draw(st.integers(0, 2))
        record["shape"] = tuple(-1 if i == lost else known[i] for i in range(3))
    return record, shape, draw(st.integers(0, 99))


def input_of(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind in ("log", "sqrt", "power"):
        return rng.uniform(0.1, 3, shape).astype(np.float32)
    return rng.normal(size=shape).astype(np.float32)


def close(found: np.ndarray, wanted: Any, on: dict[str, str]) -> None:
    wanted = wanted.detach().numpy()
    tolerance = 3e-7 if on["backend"] == "reference" else 2e-5
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max() + 1e-12)


@pytest.mark.parametrize("kind", DRAWN)
def test_a_layer_is_that_of_pytorch_forward_and_back(torch, in_torch, build, implementations, kind):
    @PROPERTY
    @given(case=cases(kind))
    def check(case):
        record, shape, seed = case
        mixing = {"type": "conv2d", "out": 4, "kernel": (1, 1), "bias": False}
        try:
            net = build([record, mixing], shape, seed)
        except fd.ParameterError:
            assume(False)  # a window that is larger than its input, a slice of nothing
        x = input_of(kind, shape, seed)
        rng = np.random.default_rng(seed + 1)
        values = {rule: in_torch(net, x, rule) for rule in RULES}
        features = [rng.integers(value.shape[1], size=3) for value in values["gradient"][1:]]
        starts = [
            rng.normal(size=(3, *value.shape[2:])).astype(np.float32)
            for value in values["gradient"][1:]
        ]
        wanted = {
            rule: [
                sent_back(torch, values[rule][0], value, *start)
                for value, *start in zip(values[rule][1:], features, starts)
            ]
            for rule in RULES
        }
        for on in implementations:
            with fd.config(**on):
                trace = net.forward(x)
                for i, layer in enumerate(net.layers):
                    close(trace[layer.name], values["gradient"][i + 1][0], on)
                    for rule in RULES:
                        maps = fd.deconvolve(trace, layer.name, features[i], rule, starts[i])
                        close(maps, wanted[rule][i], on)

    check()


def sent_back(torch: Any, x: Any, value: Any, features: Any, start: np.ndarray) -> Any:
    """What PyTorch sends from each of some features, starting from its map, to the input."""
    sent = []
    for feature, of_it in zip(features, start):
        seed = torch.zeros_like(value)
        seed[0, feature] = torch.from_numpy(of_it)
        (grad,) = torch.autograd.grad(value, x, seed, retain_graph=True)
        sent.append(grad[0])
    return torch.stack(sent)


@pytest.mark.parametrize("kind", DRAWN)
def test_what_does_not_mix_gives_each_channel_what_all_together_get(build, kind):
    @PROPERTY
    @given(case=cases(kind), rule=st.sampled_from(RULES))
    def check(case, rule):
        record, shape, seed = case
        try:
            net = build([record], shape, seed)
        except fd.ParameterError:
            assume(False)
        if mixes(net.layers[0], rule):
            return
        trace = net.forward(input_of(kind, shape, seed))
        arithmetic = Arithmetic(get_backend(), 1)
        R = np.random.default_rng(seed).normal(size=(2, *trace.activation(0).shape))
        R = R.astype(np.float32)
        together = backward_layer(trace, 0, R, rule, arithmetic)
        channels = np.array([4, 0, 4])
        some = backward_layer(trace, 0, R[:, channels], rule, arithmetic, channels)
        assert np.array_equal(some, together[:, channels])

    check()


@pytest.mark.parametrize("kind", DRAWN)
def test_bits_depend_neither_on_threads_nor_on_the_features_in_a_call(on, build, kind):
    records: list[Any] = [
        {"type": kind} | {
            "conv2d": {"out": 6, "kernel": (3, 3)},
            "conv_transpose2d": {"out": 6, "kernel": (3, 3), "stride": 2},
            "linear": {"out": 3}, "local_response_norm": {"size": 3},
            "layer_norm": {"axes": "CW"}, "group_norm": {"groups": 2},
            "max_pool2d": {"kernel_size": 2}, "avg_pool2d": {"kernel_size": 2},
            "reduce_mean": {"axes": "CW"}, "reduce_max": {"axes": "CW"},
            "slice": {"axis": "C", "start": 1}, "pad": {"padding": ((1, 1), (1, 1))},
            "permute": {"axes": "WHC"}, "reshape": {"shape": (12, -1, 7)},
            "upsample": {"scale": (2, 3), "mode": "bilinear"},
            "adaptive_avg_pool2d": {"output_size": (3, None)},
            "adaptive_max_pool2d": {"output_size": (3, 8)},
        }.get(kind, {}),
        {"type": "conv2d", "out": 19, "kernel": (1, 1)},
    ]
    shape = (6, 1, 1) if kind == "linear" else (6, 10, 21)
    net = build(records, shape)
    trace = net.forward(input_of(kind, shape, 0))
    for layer, rule in zip(net.layers[::-1], RULES):
        maps = fd.deconvolve(trace, layer.name, rule=rule, num_threads=1)
        some = list(range(0, len(maps), 5))
        found = fd.deconvolve(trace, layer.name, some, rule=rule, num_threads=3)
        assert found.tobytes() == maps[some].tobytes()


@pytest.mark.parametrize("record", [
    {"type": "reduce_mean", "axes": "W"}, {"type": "layer_norm", "axes": "W", "affine": False},
    {"type": "global_avg_pool2d"}, {"type": "instance_norm"},
])
def test_equal_rows_give_equal_bits_wherever_they_lie(on, build, record):
    row = np.random.default_rng(0).normal(size=5001)  # more than one block of NumPy's
    over_rows = record["type"] in ("global_avg_pool2d", "instance_norm")
    shape = (7, 1, 5001) if over_rows else (1, 7, 5001)
    net = build([record], shape)
    planes = net.forward(np.broadcast_to(row, shape))["l0"]
    first = planes[:1] if over_rows else planes[:, :1]
    assert planes.tobytes() == np.broadcast_to(first, planes.shape).tobytes()


# Maxima that are equal, slopes that are infinite


@pytest.mark.parametrize(("axes", "winners"), [
    ("W", [[1, 0, 1, 0], [0, 0, 1, 0]]),
    ("H", [[1, 0, 1, 1], [0, 1, 0, 0]]),
    ("HW", [[0, 0, 1, 0], [0, 0, 0, 0]]),
    ("WCH", [[0, 0, 1, 0], [0, 0, 0, 0]]),
])
def test_the_first_of_equal_maxima_gets_everything(on, build, axes, winners):
    x = np.array([[[3.0, 1, 7, 7], [3, 2, 7, 0]]])
    if axes == "W":
        winners = [[0, 0, 1, 0], [0, 0, 1, 0]]
    net = build([{"type": "reduce_max", "axes": axes}], (1, 2, 4))
    trace = net.forward(x)
    maps = fd.deconvolve(trace, "l0", start=np.full(trace["l0"].shape, 5.0))
    assert np.array_equal(maps[0, 0], 5 * np.array(winners))


@pytest.mark.parametrize("kind", ["reduce_max", "global_max_pool2d"])
def test_of_zeros_of_both_signs_the_first_one_is_the_maximum(on, build, kind):
    record = {"type": kind} | ({"axes": "HW"} if kind == "reduce_max" else {})
    net = build([record], (40, 1, 40))
    x = np.zeros((40, 1, 40), np.float32)
    x[::2, 0, ::2] = x[1::2, 0, 1::2] = -0.0
    trace = net.forward(x)
    assert np.signbit(trace["l0"][:, 0, 0]).tolist() == [True, False] * 20
    maps = fd.deconvolve(trace, "l0", start=np.ones((40, 1, 1)))
    assert maps[np.arange(40), np.arange(40), 0, 0].all() and maps.sum() == 40


@pytest.mark.parametrize("kind", ["sqrt", "power"])
def test_an_infinite_slope_matters_only_where_something_comes(on, build, kind):
    record = {"type": kind} | ({"exponent": 0.5} if kind == "power" else {})
    trace = build([record], (1, 1, 3)).forward([[[0.0, 4.0, 0.0]]])
    found = fd.deconvolve(trace, "l0", start=[[[0, 8, 0]]])
    assert found[0, 0, 0].tolist() == [0, 2, 0]
    with pytest.raises(fd.ParameterError, match=r"a map of layer 'l0'.*overflows"):
        fd.deconvolve(trace, "l0", start=[[[1, 8, 0]]])


def test_a_logarithm_of_zero_is_refused_by_the_name_of_its_layer(on, build):
    net = build([{"type": "log", "name": "db"}], (1, 1, 3))
    with pytest.raises(fd.ParameterError, match=r"the output of layer 'db'.*overflows"):
        net.forward([[[0.0, 4.0, 1.0]]])


@pytest.mark.parametrize("kind", ["exp", "softplus", "gelu", "sigmoid", "softmax", "log_softmax"])
def test_large_values_raise_no_warning(on, build, kind):
    large = 80.0 if kind == "exp" else 1e30
    trace = build([{"type": kind}], (2, 1, 2)).forward([[[large, -large]], [[-large, 0.0]]])
    for rule in RULES:
        assert np.isfinite(fd.deconvolve(trace, "l0", rule=rule, start=np.ones((2, 1, 2)))).all()


# Layers of several inputs


@st.composite
def joined(draw: st.DrawFn) -> tuple[nn.Layer, list[np.ndarray]]:
    kind = draw(st.sampled_from(sorted(JOINS)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shape = [draw(st.integers(1, 4)) for _ in range(3)]
    shapes = []
    for _ in range(draw(st.integers(2, 4))):
        if kind == "concat":
            shapes.append(list(shape))
        else:
            shapes.append([n if draw(flags) else 1 for n in shape])
    record = {"type": kind, "name": "join"}
    if kind == "concat":
        record["axis"] = draw(letters)
        for own in shapes:
            own["CHW".index(record["axis"])] = draw(st.integers(1, 4))
    return nn.layer_from_record(record), [rng.normal(size=own) for own in shapes]


@settings(max_examples=60)
@given(case=joined(), dtype=st.sampled_from([np.float64, np.float32]))
def test_joins_are_those_of_pytorch_forward_and_back(torch, case, dtype):
    layer, inputs = case
    inputs = [x.astype(dtype) for x in inputs]
    given_ = [torch.tensor(x.astype(np.float64), requires_grad=True) for x in inputs]
    if isinstance(layer, nn.Concat):
        value = torch.cat(given_, "CHW".index(layer.axis))
    else:
        value = given_[0]
        for x in given_[1:]:
            value = {
                "add": torch.add, "multiply": torch.mul, "maximum": torch.maximum,
                "minimum": torch.minimum,
            }[layer.type](value, x)
    found = forward_join(layer, inputs)
    assert found.dtype == dtype
    tolerance = 1e-14 if dtype == np.float64 else 1e-6
    close_to = {"rtol": tolerance, "atol": 10 * tolerance}
    np.testing.assert_allclose(found, value.detach(), **close_to)
    assert layer.joined_shape([x.shape for x in inputs], {}) == found.shape
    R = np.random.default_rng(0).normal(size=(3, *found.shape)).astype(dtype)
    sent = backward_join(layer, inputs, R)
    assert [r.shape for r in sent] == [(3, *x.shape) for x in inputs]
    for k in range(3):
        alone = backward_join(layer, inputs, R[k : k + 1])
        wanted = torch.autograd.grad(
            value, given_, torch.tensor(R[k].astype(np.float64)), retain_graph=True
        )
        for all_of_it, own, exact in zip(sent, alone, wanted):
            assert all_of_it.dtype == dtype
            assert all_of_it[k].tobytes() == own[0].tobytes()
            np.testing.assert_allclose(all_of_it[k], exact, **close_to)


def test_a_product_with_zeros_goes_back_without_dividing():
    inputs = [np.array([[[0.0, 2.0]]]), np.array([[[0.0, 0.0]]]), np.array([[[5.0, 7.0]]])]
    sent = backward_join(nn.Multiply("m"), inputs, np.ones((1, 1, 1, 2)))
    assert [r[0, 0, 0].tolist() for r in sent] == [[0, 0], [0, 14], [0, 0]]


@pytest.mark.parametrize(
    ("kind", "winners"), [("maximum", [0, 1, 0, 2]), ("minimum", [2, 2, 0, 0])]
)
def test_the_first_of_equal_inputs_gets_everything(kind, winners):
    inputs = [np.array([[row]]) for row in ([5.0, 1, 0, 2], [5.0, 7, 0, 2], [4.0, 0, 0, 3])]
    layer = nn.LAYER_TYPES[kind]("m")
    sent = backward_join(layer, inputs, np.full((1, 1, 1, 4), 9.0))
    for number, R in enumerate(sent):
        assert R[0, 0, 0].tolist() == [9.0 * (winner == number) for winner in winners]
    inputs[1][..., 1] = inputs[2][..., 1] = np.nan
    assert np.isnan(forward_join(layer, inputs)[0, 0, 1])
    assert backward_join(layer, inputs, np.ones((1, 1, 1, 4)))[1][0, 0, 0, 1] == 1


def test_the_first_maximum_of_an_adaptive_window_gets_everything(on, build):
    net = build([{"type": "adaptive_max_pool2d", "output_size": (1, 2)}], (1, 3, 3))
    trace = net.forward([[[0.0, 1, 7], [7, 7, 0], [7, 0, 7]]])
    maps = fd.deconvolve(trace, "l0", start=np.array([[[2.0, 3]]]))
    assert maps[0, 0].tolist() == [[0, 0, 3], [2, 0, 0], [0, 0, 0]]


def test_layers_of_several_inputs_mix():
    assert all(mixes(nn.LAYER_TYPES[kind]("j"), rule) for kind in JOINS for rule in RULES)
