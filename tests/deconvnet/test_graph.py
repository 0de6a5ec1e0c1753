"""Networks with branches: against PyTorch, and against going back layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.deconvnet import cost
from fastdeconv.deconvnet.joins import backward_join
from fastdeconv.deconvnet.layerwise import Arithmetic, backward_layer
from fastdeconv.deconvnet.plan import forward_plan
from fastdeconv.deconvnet.route import Abilities, route_of
from fastdeconv.kernels.dispatch import get_backend

from .conftest import IMPLEMENTATIONS

RULES = ("deconvnet", "guided", "gradient")


def conv(name: str, *inputs: str, **more: Any) -> dict[str, Any]:
    record = {"type": "conv2d", "name": name, "padding": "same", **more}
    return {**record, "inputs": list(inputs)} if inputs else record


def layer(kind: str, name: str, *inputs: str, **more: Any) -> dict[str, Any]:
    record = {"type": kind, "name": name, **more}
    return {**record, "inputs": list(inputs)} if inputs else record


def weights(rng: np.random.Generator, **shapes: tuple[int, ...]) -> dict[str, Any]:
    arrays = {}
    for name, shape in shapes.items():
        arrays[f"{name}.weight"] = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        arrays[f"{name}.bias"] = rng.normal(size=shape[0]) / 4
    return arrays


def residual() -> fd.Network:
    """Two blocks of which the second halves the size on both ways."""
    rng = np.random.default_rng(0)
    return fd.Network(
        [
            conv("stem"), layer("relu", "r0"),
            conv("a1"), layer("relu", "ar"), conv("a2"),
            layer("add", "add1", "a2", "r0"), layer("relu", "r1"),
            conv("b1", stride=2), layer("relu", "br"), conv("b2"),
            conv("skip", "r1", stride=2),
            layer("add", "add2", "b2", "skip"), layer("relu", "r2"),
            layer("max_pool2d", "pool", kernel_size=2),
        ],
        weights(rng, stem=(6, 1, 3, 3), a1=(6, 6, 3, 3), a2=(6, 6, 3, 3), b1=(8, 6, 3, 3),
                b2=(8, 8, 3, 3), skip=(8, 6, 1, 1)),
        (1, None, None),
    )


def gated() -> fd.Network:
    """A squeeze-and-excite gate: channels multiplied by what their means say."""
    rng = np.random.default_rng(1)
    return fd.Network(
        [
            conv("c1"), layer("hardswish", "h1"),
            layer("global_avg_pool2d", "mean"), conv("down"), layer("relu", "dr"),
            conv("up"), layer("hardsigmoid", "gate"),
            layer("multiply", "scaled", "h1", "gate"),
            conv("c2"), layer("max_pool2d", "pool", kernel_size=2),
        ],
        weights(rng, c1=(6, 1, 3, 3), down=(2, 6, 1, 1), up=(6, 2, 1, 1), c2=(5, 6, 3, 3)),
        (1, None, None),
    )


def u_shaped() -> fd.Network:
    """Down and up again, with what was there before beside it."""
    rng = np.random.default_rng(2)
    arrays = weights(rng, c1=(4, 1, 3, 3), c2=(6, 4, 3, 3), c3=(3, 10, 3, 3))
    arrays |= {"wide.weight": rng.normal(size=(6, 6, 2, 2)) / 3, "wide.bias": rng.normal(size=6)}
    return fd.Network(
        [
            conv("c1"), layer("relu", "r1"), layer("max_pool2d", "p1", kernel_size=2),
            conv("c2"), layer("relu", "r2"),
            layer("conv_transpose2d", "wide", stride=2),
            layer("concat", "both", "wide", "r1"),
            conv("c3"), layer("relu", "r3"),
        ],
        arrays, (1, None, None),
    )


def towers() -> fd.Network:
    """Two ways from the input, and one that goes nowhere."""
    rng = np.random.default_rng(3)
    return fd.Network(
        [
            conv("rows", "input"), layer("relu", "rr"), layer("reduce_max", "top", axes="H"),
            conv("columns", "input"), layer("relu", "cr"),
            layer("max_pool2d", "aside", "cr", kernel_size=2),
            layer("add", "sum", "top", "cr", "input"),
            conv("last"),
        ],
        weights(rng, rows=(4, 1, 1, 5), columns=(4, 1, 5, 1), last=(3, 4, 3, 3)),
        (1, None, None),
    )


def mobile() -> fd.Network:
    """An inverted bottleneck: depthwise with a stride, a gate, and a sum; wider than a vector."""
    rng = np.random.default_rng(4)
    norms = {
        f"{name}.{key}": rng.uniform(0.5, 1.5, size)
        for name, size in {"n1": 20, "n2": 20, "n3": 18}.items()
        for key in ("weight", "bias", "running_mean", "running_var")
    }
    norms["n2.weight"] *= rng.choice([-1, 1], 20)
    return fd.Network(
        [
            conv("stem"), layer("hardswish", "h0"),
            conv("wide"), layer("batch_norm2d", "n1"), layer("hardswish", "h1"),
            conv("deep", groups=20, stride=2), layer("batch_norm2d", "n2"),
            layer("hardswish", "h2"), layer("reduce_mean", "mean", axes="HW"),
            conv("down"), layer("relu", "dr"), conv("up"), layer("hardsigmoid", "gate"),
            layer("multiply", "gated", "h2", "gate"),
            conv("narrow"), layer("batch_norm2d", "n3"),
            conv("deep2", groups=18), layer("add", "sum", "deep2", "n3"), layer("relu", "r"),
        ],
        norms | weights(rng, stem=(5, 1, 3, 3), wide=(20, 5, 1, 1), deep=(20, 1, 5, 3),
                        down=(4, 20, 1, 1), up=(20, 4, 1, 1), narrow=(18, 20, 1, 1),
                        deep2=(18, 1, 3, 3)),
        (1, None, None),
    )


def averaged() -> fd.Network:
    """Average pools, on a way of their own and behind a sum."""
    rng = np.random.default_rng(5)
    return fd.Network(
        [
            conv("c1"), layer("relu", "r1"), layer("avg_pool2d", "p1", kernel_size=2),
            conv("c2"), layer("avg_pool2d", "p2", kernel_size=2),
            conv("skip", "p1", stride=2), layer("add", "sum", "p2", "skip"), layer("relu", "r2"),
            layer("avg_pool2d", "p3", kernel_size=2), conv("c3"), layer("elu", "e3"),
        ],
        weights(rng, c1=(4, 1, 3, 3), c2=(6, 4, 3, 3), skip=(6, 4, 1, 1), c3=(3, 6, 3, 3)),
        (1, None, None),
    )


NETWORKS = {
    "residual": residual, "gated": gated, "u": u_shaped, "towers": towers, "mobile": mobile,
    "averaged": averaged,
}


@pytest.fixture(params=NETWORKS, scope="module")
def net(request: pytest.FixtureRequest) -> fd.Network:
    return NETWORKS[request.param]()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def going_back_layer_by_layer(
    net: fd.Network, trace: fd.Trace, index: int, start: np.ndarray, rule: str
) -> np.ndarray:
    """Every layer by itself, from the last to the first; what comes back to a fork is added."""
    arithmetic = Arithmetic(get_backend("reference"), 1)
    back = {index: start}
    for i in range(index, -1, -1):
        if i not in back:
            continue
        R = back.pop(i)
        inputs = [trace.activation(k) for k in net.sources[i]]
        if len(inputs) > 1:
            sent = backward_join(net.layers[i], inputs, R)
        else:
            sent = [backward_layer(trace, i, R, rule, arithmetic)]
        for k, values in zip(net.sources[i], sent):
            back[k] = back[k] + values if k in back else values
    return back.get(-1, np.zeros((len(start), *trace.x.shape)))


@pytest.mark.parametrize("rule", RULES)
def test_every_node_goes_back_as_layer_by_layer(on, net, rule):
    x = noise(1, 16, 20)
    with fd.config(backend="reference"):
        exact = net.forward(x)
    trace = net.forward(x)
    for index, own in enumerate(net.layers):
        planes = exact.activation(index)
        np.testing.assert_allclose(trace[own.name], planes, rtol=1e-4, atol=1e-5)
        start = np.zeros((len(planes), *planes.shape))
        for k in range(len(planes)):
            start[k, k] = planes[k]
        wanted = going_back_layer_by_layer(net, exact, index, start, rule)
        found = fd.deconvolve(trace, own.name, rule=rule)
        scale = max(1e-30, np.abs(wanted).max())
        np.testing.assert_allclose(found / scale, wanted / scale, atol=3e-6)


@pytest.mark.parametrize("start", ["max", "one"])
def test_starts_other_than_the_map(on, net, start):
    trace = net.forward(noise(1, 16, 20))
    name = net.layers[-1].name
    planes = trace[name]
    values = np.ones_like(planes)
    if start == "max":
        values = np.where(planes == planes.max(axis=(1, 2), keepdims=True), planes, 0)
    wanted = fd.deconvolve(trace, name, rule="gradient", start=values)
    found = fd.deconvolve(trace, name, rule="gradient", start=start)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_bits_depend_neither_on_threads_nor_on_the_features_in_a_call(on, net):
    trace = net.forward(noise(1, 16, 20))
    for own in net.layers:
        maps = fd.deconvolve(trace, own.name, num_threads=1)
        some = list(range(0, len(maps), 2))
        found = fd.deconvolve(trace, own.name, some, num_threads=3)
        assert found.tobytes() == maps[some].tobytes(), own.name


@pytest.mark.parametrize("rule", RULES)
def test_pieces_give_the_bits_of_the_whole(on, net, monkeypatch, rule):
    trace = net.forward(noise(1, 16, 96))
    name = net.layers[-1].name
    whole = fd.deconvolve(trace, name, rule=rule)
    monkeypatch.setattr(cost, "LEAST_COLUMNS", 16)
    monkeypatch.setattr(cost, "LANE_BYTES", 0)
    monkeypatch.setattr(cost, "BRANCHED_BYTES", 0)
    pieces = fd.deconvolve(trace, name, rule=rule, num_threads=3)
    assert pieces.tobytes() == whole.tobytes()


def test_bfloat16_takes_branches_too(bf16, net):
    trace = net.forward(noise(1, 16, 20))
    name = net.layers[-1].name
    exact = fd.deconvolve(trace, name)
    maps = fd.deconvolve(trace, name, precision="bf16")
    assert np.abs(maps - exact).max() <= 3e-2 * np.abs(exact).max()
    some = list(range(0, len(maps), 2))
    found = fd.deconvolve(trace, name, some, precision="bf16", num_threads=3)
    assert found.tobytes() == maps[some].tobytes()


@pytest.mark.parametrize("channels", [2, 18])
def test_a_signal_may_fork_to_any_number_of_layers(on, channels):
    rng = np.random.default_rng(6)
    ways = [f"w{i}" for i in range(300)]
    net = fd.Network(
        [
            conv("c1"), *(layer("affine", way, "c1") for way in ways),
            layer("add", "one", *ways[:150]), layer("add", "other", *ways[150:]),
            layer("add", "both", "one", "other"), conv("c2"),
        ],
        weights(rng, c1=(channels, 1, 3, 3), c2=(channels, channels, 3, 3))
        | weights(rng, **dict.fromkeys(ways, (channels,))),
        (1, None, None),
    )
    trace = net.forward(noise(1, 5, 6))
    wanted = fd.deconvolve(trace, "c2", backend="reference")
    found = fd.deconvolve(trace, "c2")
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_the_gradient_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    for net, forward in ((residual(), residual_in_torch), (gated(), gated_in_torch),
                         (u_shaped(), u_in_torch)):
        x = noise(1, 16, 20)
        given = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        arrays = {key: torch.tensor(value.astype(float)) for key, value in net.arrays.items()}
        out = forward(functional, arrays, given[None])[0]
        trace = net.forward(x)
        name = net.layers[-1].name
        np.testing.assert_allclose(trace[name], out.detach(), rtol=1e-4, atol=1e-5)
        maps = fd.deconvolve(trace, name, rule="gradient", start="one")
        for k in range(len(out)):
            (wanted,) = torch.autograd.grad(out[k].sum(), given, retain_graph=True)
            scale = float(wanted.abs().max())
            np.testing.assert_allclose(maps[k] / scale, wanted / scale, atol=1e-5)


def residual_in_torch(f, a, x):
    def conv(name, x, stride=1):
        weight = a[f"{name}.weight"]
        size = weight.shape[-1]
        # TensorFlow's "same": with a stride of 2 on even sizes the extra row is at the end.
        if stride == 2 and size == 3:
            x = f.pad(x, (0, 1, 0, 1))
            return f.conv2d(x, weight, a[f"{name}.bias"], stride=2)
        return f.conv2d(x, weight, a[f"{name}.bias"], stride=stride, padding=size // 2)

    x = f.relu(conv("stem", x))
    x = f.relu(conv("a2", f.relu(conv("a1", x))) + x)
    x = f.relu(conv("b2", f.relu(conv("b1", x, 2))) + conv("skip", x, 2))
    return f.max_pool2d(x, 2)


def gated_in_torch(f, a, x):
    def conv(name, x):
        weight = a[f"{name}.weight"]
        return f.conv2d(x, weight, a[f"{name}.bias"], padding=weight.shape[-1] // 2)

    x = f.hardswish(conv("c1", x))
    x = x * f.hardsigmoid(conv("up", f.relu(conv("down", x.mean((2, 3), keepdim=True)))))
    return f.max_pool2d(conv("c2", x), 2)


def u_in_torch(f, a, x):
    import torch

    def conv(name, x):
        return f.relu(f.conv2d(x, a[f"{name}.weight"], a[f"{name}.bias"], padding=1))

    one = conv("c1", x)
    two = conv("c2", f.max_pool2d(one, 2))
    wide = f.conv_transpose2d(two, a["wide.weight"], a["wide.bias"], stride=2)
    return conv("c3", torch.cat([wide, one], 1))


# The cut into chains


def test_blocks_are_as_long_as_they_can_be():
    net = residual()

    def rows(fuses_all: bool) -> list[list[str]]:
        blocks = forward_plan(net, fuses_all)
        return [[net.layers[i].name for i in block.layers] for block in blocks]

    assert rows(fuses_all=True) == [
        ["stem", "r0"], ["a1", "ar"], ["a2"], ["add1", "r1"], ["b1", "br"], ["b2"], ["skip"],
        ["add2", "r2"], ["pool"],
    ]
    assert rows(fuses_all=False) == [
        ["stem", "r0"], ["a1", "ar"], ["a2"], ["add1"], ["r1"], ["b1", "br"], ["b2"], ["skip"],
        ["add2"], ["r2"], ["pool"],
    ]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Small graphs of layers that keep the shape (C, H, W)."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    channels = draw(st.sampled_from([2, 18]))
    records: list[dict[str, Any]] = [conv("l0", "input")]
    arrays = weights(rng, l0=(channels, channels, 3, 3))
    for i in range(1, draw(st.integers(2, 9))):
        names = ["input", *(r["name"] for r in records if r["type"] != "reduce_mean")]
        taken = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
        name = f"l{i}"
        if len(taken) > 1:
            records.append(layer(draw(st.sampled_from(["add", "multiply"])), name, *taken))
            continue
        kind = draw(st.sampled_from(["conv", "deep", "norm", "gate", "relu", "tanh", "dropout"]))
        if kind == "conv":
            records.append(conv(name, *taken))
            arrays |= weights(rng, **{name: (channels, channels, 3, 3)})
        elif kind == "deep":
            records.append(conv(name, *taken, groups=channels))
            arrays |= weights(rng, **{name: (channels, 1, 3, 3)})
        elif kind == "norm":
            records.append(layer("affine", name, *taken))
            arrays |= weights(rng, **{name: (channels,)})
        elif kind == "gate":
            records.append(layer("reduce_mean", f"mean{i}", *taken, axes="HW"))
            records.append(layer("multiply", name, *taken, f"mean{i}"))
        else:
            records.append(layer(kind, name, *taken))
    return records, arrays


@settings(max_examples=60, deadline=None)
@given(graph=graphs(), rule=st.sampled_from(RULES))
def test_any_graph_goes_back_as_layer_by_layer(graph, rule):
    records, arrays = graph
    channels = len(arrays["l0.bias"])
    net = fd.Network(records, arrays, (channels, None, None))
    x = noise(channels, 7, 8)
    with fd.config(backend="reference"):
        exact = net.forward(x)
        index = len(net.layers) - 1
        planes = exact.activation(index)
        start = np.zeros((channels, *planes.shape))
        for k in range(channels):
            start[k, k] = planes[k]
        wanted = going_back_layer_by_layer(net, exact, index, start, rule)
    scale = max(1e-30, np.abs(wanted).max())
    for implementation in IMPLEMENTATIONS:
        with fd.config(**implementation):
            found = fd.deconvolve(exact, net.layers[-1].name, rule=rule)
            few = fd.deconvolve(exact, net.layers[-1].name, [1], rule=rule, num_threads=3)
        np.testing.assert_allclose(found / scale, wanted / scale, atol=3e-6)
        assert few[0].tobytes() == found[1].tobytes(), implementation


def test_below_a_mean_the_way_from_planes_goes_in_lanes():
    rng = np.random.default_rng(0)
    net = fd.Network(
        [
            conv("c1"), layer("relu", "r1"), conv("c2"), layer("relu", "r2"),
            layer("max_pool2d", "pool", kernel_size=2), layer("global_avg_pool2d", "mean"),
            layer("flatten", "flat"), layer("linear", "fc"),
        ],
        weights(rng, c1=(6, 1, 3, 3), c2=(6, 6, 3, 3), fc=(3, 6)),
        (1, None, None),
    )
    top, able = len(net.layers) - 1, Abilities(True, True, True, True)
    shapes = net.shapes((1, 12, 10))
    route = route_of(net, {top: False}, "gradient", set(), able, shapes)
    by_themselves = {net.layers[i].name for i, segment in route.items() if segment is None}
    assert by_themselves == {"flat", "fc"}
    without = route_of(net, {top: False}, "gradient", set(), able._replace(joins=False), shapes)
    assert without[net.layer_index("mean")] is None
