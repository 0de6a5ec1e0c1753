"""Convolutions without a pool, gone back through by Winograd's algorithm (csrc/winograd_step.h)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastdeconv as fd

pytest.importorskip("fastdeconv.kernels.native")

from fastdeconv.deconvnet import cost
from fastdeconv.kernels import native_cpu

PROPERTY = settings(derandomize=True, deadline=None)
ISAS = fd.available_isas()


@pytest.fixture(params=ISAS)
def on(request: pytest.FixtureRequest) -> Any:
    """Every instruction set in turn."""
    with fd.config(backend="native", isa=request.param):
        yield request.param


def conv(out: int, **more: Any) -> dict[str, Any]:
    return {"type": "conv2d", "out": out, "kernel": (3, 3), "padding": "same"} | more


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[dict[str, Any]], tuple[int, int, int]]:
    """Convolutions without pools between them, behind rectifiers or not; maybe a pool above."""
    shape = draw(st.integers(1, 2)), draw(st.integers(5, 17)), draw(st.integers(5, 31))
    records: list[dict[str, Any]] = []
    depth = draw(st.integers(3, 4))
    for i in range(depth):
        pads = st.tuples(st.integers(0, 3), st.integers(0, 3))
        padding = st.one_of(st.just("same"), st.just("same"), st.tuples(pads, pads))
        records.append(conv(draw(st.sampled_from([16, 17, 23, 34])), padding=draw(padding)))
        if i + 1 == depth:
            break
        activation: dict[str, Any] = draw(st.sampled_from([
            {}, {"type": "relu"}, {"type": "elu"}, {"type": "batch_norm2d"}
        ]))
        records += [activation] if activation else []
        if i + 2 == depth and draw(st.booleans()):
            records.append({"type": "max_pool2d", "kernel_size": (2, 2)})
    return records, shape


def traced(build: Any, network: Any, seed: int) -> fd.Trace:
    """Noise through a network, if the network has room for it."""
    try:
        net = build(*network, seed)
        return net.forward(np.random.default_rng(seed).standard_normal(network[1]))
    except fd.ParameterError:
        assume(False)
        raise


def maps(trace: fd.Trace, features: Any, rule: str = "deconvnet", **options: Any) -> np.ndarray:
    """Maps of the last layer."""
    return fd.deconvolve(trace, trace.network.layers[-1].name, features, rule, **options)


RULES = st.sampled_from(["deconvnet", "guided", "gradient"])


@settings(PROPERTY, max_examples=40)
@given(network=networks(), seed=st.integers(0, 2**16), rule=RULES, isa=st.sampled_from(ISAS),
       count=st.sampled_from([1, 5, 16, 20, 37]))
def test_maps_are_those_of_the_reference(build, network, seed, rule, isa, count):
    trace = traced(build, network, seed)
    features = np.arange(count) % network[0][-1]["out"]
    with fd.config(backend="reference"):
        want = maps(trace, features, rule)
    with fd.config(backend="native", isa=isa):
        found = maps(trace, features, rule)
    assert np.abs(found - want).max() <= 2e-6 * np.abs(want).max()


@settings(PROPERTY, max_examples=40)
@given(network=networks(), seed=st.integers(0, 2**16), rule=RULES, isa=st.sampled_from(ISAS),
       threads=st.integers(2, 5), columns=st.integers(3, 13), few=st.integers(1, 8))
def test_neither_threads_nor_pieces_nor_the_number_of_features_change_a_bit(
    build, network, seed, rule, isa, threads, columns, few
):
    features = np.arange(40) % network[0][-1]["out"]
    with fd.config(backend="native", isa=isa, num_threads=1):
        trace = traced(build, network, seed)
        whole = maps(trace, features, rule)
        assert np.array_equal(maps(trace, features[3 : 3 + few], rule), whole[3 : 3 + few])
        assert np.array_equal(maps(trace, features[:16], rule), whole[:16])
        assert np.array_equal(maps(trace, features, rule, num_threads=threads), whole)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cost, "LEAST_COLUMNS", columns)
            patch.setattr(cost, "LANE_BYTES", 0)
            trace = traced(build, network, seed)
            assert np.array_equal(maps(trace, features, rule), whole)


@settings(PROPERTY, max_examples=40)
@given(network=networks(), seed=st.integers(0, 2**16), isa=st.sampled_from(ISAS),
       count=st.sampled_from([1, 3, 20]))
def test_a_lone_unit_has_the_same_bits_on_its_part_and_reaches_nothing_else(
    build, network, seed, isa, count
):
    trace = traced(build, network, seed)
    rng = np.random.default_rng(seed)
    channels, *size = trace.activation(len(trace.network.layers) - 1).shape
    features = np.arange(count) % channels
    start = np.zeros((count, *size), np.float32)
    start[:, rng.integers(size[0]), rng.integers(size[1])] = 1
    found = []
    with fd.config(backend="native", isa=isa):
        for pays in (True, False):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(cost, "pays", lambda *_, answer=pays: answer)
                found.append(maps(trace, features, "gradient", start=start))
    assert np.array_equal(found[0], found[1])
    with fd.config(backend="reference"):
        want = maps(trace, features, "gradient", start=start)
    assert not found[1][want == 0].any()


@pytest.fixture
def kernels_used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels of all steps from here on."""
    seen: list[str] = []

    def noting(kernel: Any) -> Any:
        def takes(table: Any, job: Any) -> bool:
            taken = bool(kernel.takes(table, job))
            if taken:
                seen.append(kernel.name)
            return taken

        return kernel._replace(takes=takes)

    monkeypatch.setattr(native_cpu, "STEP_KERNELS", tuple(map(noting, native_cpu.STEP_KERNELS)))
    return seen


@pytest.mark.parametrize(
    "records, uses",
    [
        ([conv(32), {"type": "relu"}, conv(32), {"type": "relu"}, conv(32)], True),
        ([conv(32), {"type": "elu"}, conv(64), {"type": "batch_norm2d"}, conv(32)], True),
        ([conv(32), {"type": "max_pool2d", "kernel_size": (2, 2)}] * 2 + [conv(32)], False),
        ([conv(32), conv(4), conv(32)], False),
        ([conv(32), conv(32, kernel=(5, 3)), conv(32)], False),
        ([conv(32), conv(32, stride=(1, 2), padding=1), conv(32)], False),
        ([conv(32), conv(32, dilation=(2, 1)), conv(32)], False),
        ([conv(32), conv(32, groups=2), conv(32)], False),
    ],
    ids=["ReLU", "ELU", "pools", "few channels", "kernel", "stride", "dilation", "groups"],
)
@pytest.mark.parametrize("count", [1, 20])
def test_which_convolutions_it_takes(on, build, kernels_used, records, uses, count):
    shape = 1, 20, 24
    trace = build([dict(record) for record in records], shape).forward(np.ones(shape))
    maps(trace, range(count))
    assert kernels_used
    assert ("winograd" in kernels_used) is uses


@pytest.mark.parametrize("depth, lies", [(3, False), (4, True)])
@pytest.mark.parametrize("count", [1, 20])
def test_a_tensor_lies_between_two_of_them_but_not_above_the_first(
    on, build, monkeypatch, depth, lies, count
):
    made = []

    def noting(chain: Any, shape: tuple[int, ...], real: Any = native_cpu._tensor_of) -> Any:
        made.append(shape)
        return real(chain, shape)

    monkeypatch.setattr(native_cpu, "_tensor_of", noting)
    shape = 1, 20, 24
    records = [conv(32), {"type": "elu"}] * (depth - 1) + [conv(32)]
    trace = build([dict(record) for record in records], shape).forward(np.ones(shape))
    maps(trace, range(count))
    assert bool(made) is lies


def test_a_closed_gate_is_left_to_other_kernels(on, build, kernels_used):
    shape = 1, 20, 24
    records = [conv(32), {"type": "relu"}, conv(32), {"type": "relu"}, conv(32)]
    trace = build(records, shape).forward(np.ones(shape))
    maps(trace, range(20), "guided")
    assert kernels_used and "winograd" not in kernels_used


def test_a_silent_start_gives_exact_zeros(on, build):
    shape = 1, 20, 24
    records = [conv(32), {"type": "relu"}, conv(32), {"type": "relu"}, conv(32)]
    trace = build(records, shape).forward(np.ones(shape))
    start = np.zeros((20, 20, 24), np.float32)
    start[3] = 1
    found = maps(trace, range(20), start=start)
    assert not np.delete(found, 3, axis=0).any()


def residual(kind: str) -> list[dict[str, Any]]:
    """3 x 3 convolutions in lanes to whose sums others are added, or whose rows are summed."""
    block = [conv(16), {"type": "elu"}, conv(16), {"type": "elu"}, conv(16)]
    if kind == "add":
        return [*block, {"type": "add", "inputs": ["l1", "l4"]}, {"type": "elu"}, conv(16)]
    if kind == "gate":
        gate = [
            {"type": "reduce_mean", "axes": "HW"}, conv(16, kernel=(1, 1)), {"type": "sigmoid"},
            {"type": "multiply", "inputs": ["l4", "l7"]},
        ]
        return [*block, *gate, conv(16)]
    return [conv(16), conv(20), conv(24), conv(17, kernel=(1, 1)), {"type": "elu"}, conv(16)]


@pytest.mark.parametrize("kind", ["add", "gate", "pointwise"])
@pytest.mark.parametrize("count", [1, 5, 16])
@pytest.mark.parametrize("rule", ["deconvnet", "gradient"])
def test_what_is_added_to_its_pixels_is_added_to_the_right_ones(
    on, build, kernels_used, kind, count, rule
):
    trace = traced(build, (residual(kind), (1, 19, 30)), seed=5)
    found = maps(trace, range(count), rule)
    assert "winograd" in kernels_used
    with fd.config(backend="reference"):
        want = maps(trace, range(count), rule)
    assert np.abs(found - want).max() <= 2e-6 * np.abs(want).max()
