"""Going forward in blocks: any network, layer by layer in float64 and in the kernels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.kernels.activations import ACTIVATIONS

ISAS = fd.available_isas()
EXPLICIT: dict[str, list[dict[str, Any]]] = {
    "leaky_relu": [{"negative_slope": 0.3}], "elu": [{}, {"alpha": 2.5}],
    "clip": [{"min": 0.0, "max": 6.0}, {"min": -1.0}, {"max": 0.5}],
    "gelu": [{}, {"approximate": "tanh"}], "power": [{"exponent": 2.0}],
}
UNBOUNDED = ("exp", "log", "sqrt", "power", "square")
"""Of these a chain soon leaves float32, or the real numbers."""


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n not in ("log", "sqrt", "power")])
def test_an_activation_by_itself_is_what_its_row_says(name, isa):
    rng = np.random.default_rng(0)
    x = np.concatenate([
        np.linspace(-40, 40, 4000), rng.normal(0, 1, 4000), rng.normal(0, 1e-6, 500),
        [0.0, -0.0, 1e4, -1e4, 3.0, -3.0, -87.0, -100.0],
    ]).astype(np.float32)
    if name in UNBOUNDED:
        x = np.clip(x, -50, 50)
    x = x[: len(x) // 17 * 17].reshape(17, 1, -1)
    weight = {f"{name}1.weight": rng.normal(size=17)} if ACTIVATIONS[name].has_weight else {}
    for parameters in EXPLICIT.get(name, [{}]):
        net = fd.Network([{"type": name, "name": f"{name}1", **parameters}], weight, x.shape)
        given = net.layers[0].parameters
        if weight:
            given["weight"] = net.arrays[f"{name}1.weight"].astype(np.float64)[:, None, None]
        wanted = ACTIVATIONS[name].forward(x.astype(np.float64), **given)
        with fd.config(backend="native", isa=isa):
            found = net.forward(x)[f"{name}1"]
        # What is left of GELU far below 0 is the difference of two numbers near 1.
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6 if name == "gelu" else 1e-7)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("join", ["add", "multiply", "concat"])
@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n not in ("log", "sqrt", "power")])
def test_an_activation_of_two_joined_inputs_is_that_of_their_join(name, join, isa):
    x = np.random.default_rng(1).normal(0, 2, (17, 3, 5)).astype(np.float32)
    joined = {"add": x + x, "multiply": x * x, "concat": np.concatenate([x, x])}[join]
    weight = {"a.weight": np.random.default_rng(2).normal(size=len(joined))}
    join_layer = {"type": join, "name": "j", "inputs": ["input", "input"]}
    weight = weight if ACTIVATIONS[name].has_weight else {}
    net = fd.Network([join_layer, {"type": name, "name": "a"}], weight, x.shape)
    given = net.layers[1].parameters
    if ACTIVATIONS[name].has_weight:
        given["weight"] = weight["a.weight"][:, None, None]
    wanted = ACTIVATIONS[name].forward(joined.astype(np.float64), **given)
    with fd.config(backend="native", isa=isa):
        found = net.forward(x)["a"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def layers_of_one_shape(draw: Any, channels: int) -> list[dict[str, Any]]:
    """What keeps (C, H, W) as it is: one to three layers on top of one another."""
    kinds = [
        {"type": "conv2d", "kernel": (3, 3)}, {"type": "conv2d", "kernel": (1, 5)},
        {"type": "conv2d", "kernel": (3, 3), "groups": channels},
        {"type": "conv2d", "kernel": (1, 1)},
        {"type": "affine"}, {"type": "dropout"}, {"type": "softplus"},
        {"type": "local_response_norm", "size": 3},
        {"type": "max_pool2d", "kernel_size": 3, "stride": 1, "padding": 1},
        {"type": "avg_pool2d", "kernel_size": (3, 5), "stride": 1, "padding": (1, 2)},
        {"type": "avg_pool2d", "kernel_size": 3, "stride": 1, "padding": 1,
         "count_include_pad": False},
        *({"type": kind} for kind in sorted(set(ACTIVATIONS) - set(UNBOUNDED))),
    ]
    return draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))


@st.composite
def graphs(draw: Any) -> tuple[fd.Network, np.ndarray]:
    """Forks, joins and gates; one row or several; channels that fill vectors and do not."""
    channels = draw(st.sampled_from([1, 3, 16, 20]))
    height, width = draw(st.sampled_from([(1, 130), (1, 49), (6, 9), (9, 5)]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    records: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    names = ["input"]

    def add(record: dict[str, Any], *inputs: str) -> str:
        name = f"n{len(records)}"
        record = {**record, "name": name, "inputs": list(inputs)}
        kernel, out = record.pop("kernel", None), record.pop("out", channels)
        taken = record.pop("taken", channels)
        if kernel:
            record["padding"] = "same"
            shape = out, taken // record.get("groups", 1), *kernel
            arrays[f"{name}.weight"] = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
            arrays[f"{name}.bias"] = rng.normal(size=out)
        elif record["type"] in ("affine", "prelu"):
            arrays[f"{name}.weight"] = rng.normal(size=channels)
            if record["type"] == "affine":
                arrays[f"{name}.bias"] = rng.normal(size=channels)
        records.append(record)
        return name

    for _ in range(draw(st.integers(1, 5))):
        x = draw(st.sampled_from(names))
        kind = draw(st.sampled_from(["chain", "chain", "add", "multiply", "concat", "gate"]))
        if kind == "chain":
            for record in layers_of_one_shape(draw, channels):
                x = add(record, x)
        elif kind == "gate":
            axes = draw(st.sampled_from(["HW", "H", "W"]))
            gate = add({"type": "reduce_mean", "axes": axes}, x)
            x = add({"type": "multiply"}, add({"type": "sigmoid"}, gate), x)
        else:
            others = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2))
            x = add({"type": kind}, x, *others)
            if kind == "concat":
                conv = {"type": "conv2d", "kernel": (1, 1), "taken": channels * (1 + len(others))}
                x = add(conv, x)
        names.append(x)
    net = fd.Network(records, arrays, (channels, None, None))
    return net, rng.normal(size=(channels, height, width)).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(drawn=graphs(), isa=st.sampled_from(ISAS), threads=st.integers(2, 4))
def test_any_network_gives_what_its_layers_give_one_by_one(drawn, isa, threads):
    net, x = drawn
    with fd.config(backend="reference"):
        wanted = net.forward(x)
    with fd.config(backend="native", isa=isa, num_threads=threads):
        trace = net.forward(x)
        found = {layer.name: trace[layer.name] for layer in net.layers}
    with fd.config(backend="native", isa=isa, num_threads=1):
        alone = net.forward(x)
        again = {layer.name: alone[layer.name] for layer in net.layers}
    largest = max(1.0, *(float(np.abs(wanted[layer.name]).max()) for layer in net.layers))
    for layer in net.layers:
        np.testing.assert_allclose(
            found[layer.name], wanted[layer.name], atol=2e-6 * largest, err_msg=layer.label
        )
        assert found[layer.name].tobytes() == again[layer.name].tobytes()


@settings(
    max_examples=100, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(drawn=graphs())
def test_blocks_wait_for_all_that_they_read(drawn, at_the_last_moment):
    """Also where bands of several blocks run at the same time."""
    net, x = drawn
    with fd.config(backend="reference"):
        wanted = net.forward(x)
    with fd.config(backend="native"):
        trace = net.forward(x)
    last = net.layers[-1].name
    largest = max(1.0, float(np.abs(wanted[last]).max()))
    assert np.isfinite(trace[last]).all()
    np.testing.assert_allclose(trace[last], wanted[last], atol=1e-5 * largest)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ["auto", "winograd", "direct"])
def test_an_average_pool_behind_a_convolution_rectifies_what_its_layers_do(build, isa, algorithm):
    records = [
        {"type": "conv2d", "out": 20, "kernel": (3, 3), "padding": "same"}, {"type": "relu"},
        {"type": "avg_pool2d", "kernel_size": 2},
    ]
    net = build([*records, *records], (1, 22, 30))
    x = np.random.default_rng(0).normal(size=(1, 22, 30))
    x[:, 5:12, 4:20] = 0
    with fd.config(backend="reference"):
        wanted = net.forward(x)
    with fd.config(backend="native", isa=isa):
        trace = net.forward(x, algorithm=algorithm)
    last = net.layers[-1].name
    np.testing.assert_allclose(trace[last], wanted[last], atol=1e-5)
    if algorithm == "auto":
        direct = fd.Network(net.layers, net.arrays, net.input_shape)
        with fd.config(backend="native", isa=isa):
            direct_trace = direct.forward(x, algorithm="direct")
        assert np.array_equal(trace[last] > 0, direct_trace[last] > 0)


def test_what_one_instruction_set_kept_another_goes_on_with(build):
    records = [
        {"type": "conv2d", "out": 3, "kernel": (3, 3), "padding": "same", "name": "below"},
        {"type": "dropout"}, {"type": "max_pool2d", "kernel_size": 2, "name": "pool"},
        {"type": "tanh", "name": "middle"}, {"type": "square"},
    ]
    net = build(records, (1, 9, 11))
    x = np.random.default_rng(0).normal(size=(1, 9, 11))
    with fd.config(backend="reference"):
        wanted = net.forward(x)["middle"]
    for made, asked in itertools.product(ISAS, ISAS):
        with fd.config(backend="native", isa=made):
            trace = net.forward(x)
        with fd.config(backend="native", isa=asked):
            np.testing.assert_allclose(trace["middle"], wanted, atol=1e-6)


def test_deep_networks_whose_bounds_leave_float32_are_not_refused():
    """Bounds from weights alone grow with every layer; the values do not."""
    rng = np.random.default_rng(0)
    records, arrays = [], {}
    for i in range(40):
        records += [{"type": "conv2d", "name": f"c{i}", "padding": "same"}, {"type": "relu"}]
        arrays[f"c{i}.weight"] = rng.normal(size=(16, 16, 3, 3)) / 8.5
        arrays[f"c{i}.bias"] = np.zeros(16)
    net = fd.Network(records, arrays, (16, None, None))
    trace = net.forward(rng.normal(size=(16, 6, 7)))
    bounds = [trace.bound(i) for i in range(len(net.layers))]
    assert max(bounds) < 1e30
    for i, bound in enumerate(bounds):
        assert np.abs(trace.activation(i)).max() <= bound * (1 + 1e-5)
