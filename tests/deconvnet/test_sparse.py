"""Leaving out the zeros behind a rectifier (csrc/sparse.h) changes no bit of any map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastdeconv as fd

pytest.importorskip("fastdeconv.kernels.native")

from fastdeconv.deconvnet.plan import shape_cache
from fastdeconv.kernels import native_cpu, native_shared, native_steps

PROPERTY = settings(derandomize=True, deadline=None)


@pytest.fixture(params=fd.available_isas())
def on(request: pytest.FixtureRequest) -> Any:
    """Every instruction set in turn."""
    with fd.config(backend="native", isa=request.param):
        yield request.param


def maps(trace: fd.Trace, features: Any, rule: str, sparse: bool, **options: Any) -> np.ndarray:
    """Maps of the last layer, with all steps that can leave out zeros doing so, or none."""
    layer = trace.network.layers[-1].name
    # Plans of passes keep the kernels that were chosen for them.
    plans = shape_cache(trace.network, trace.x.shape).setdefault("plans", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_steps, "_has_zeros", lambda *_: sparse)
        plans.clear()
        found = fd.deconvolve(trace, layer, features, rule, **options)
        plans.clear()
        return found


@contextmanager
def rows_together(rows: int | None) -> Iterator[None]:
    """csrc/sparse.h computes so many rows of a result together; None: it tries both ways."""
    table = native_shared.kernels()
    table.rows_together = rows
    try:
        yield
    finally:
        table.rows_together = None


def sides(smallest: int, largest: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(smallest, largest), st.integers(smallest, largest))


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[dict[str, Any]], tuple[int, int, int]]:
    """Three convolutions, the upper two with pools of any kind below them or none."""
    shape = draw(st.integers(1, 2)), draw(st.integers(7, 20)), draw(st.integers(7, 40))
    records: list[dict[str, Any]] = []
    for _ in range(3):
        if records:
            records.append({"type": "relu"})
            kernel = draw(sides(1, 3))
            if draw(st.booleans()):
                records.append({
                    "type": "max_pool2d", "kernel_size": kernel, "stride": draw(sides(1, 4)),
                    "padding": tuple(k // 2 for k in kernel) if draw(st.booleans()) else (0, 0),
                    "dilation": draw(sides(1, 2)), "ceil_mode": draw(st.booleans()),
                })
            if draw(st.booleans()):
                records.append({"type": "batch_norm2d"})
        records.append({
            "type": "conv2d", "out": draw(st.sampled_from([1, 3, 8, 17, 33, 70])),
            "kernel": draw(sides(1, 5)),
            "padding": draw(st.one_of(st.sampled_from(["same", "valid"]), st.tuples(
                sides(0, 3), sides(0, 3)))),
        })
    return records, shape


def traced(build: Any, network: Any, seed: int) -> fd.Trace:
    """Noise through a network, if the network has room for it."""
    try:
        return build(*network, seed).forward(
            np.random.default_rng(seed).standard_normal(network[1])
        )
    except fd.ParameterError:
        assume(False)
        raise


@settings(PROPERTY, max_examples=60)
@given(
    network=networks(), seed=st.integers(0, 2**16),
    rule=st.sampled_from(["deconvnet", "guided", "gradient"]), count=st.sampled_from([9, 20, 64]),
)
def test_the_bits_are_those_of_the_dense_product(build, network, seed, rule, count):
    trace = traced(build, network, seed)
    features = np.arange(count) % network[0][-1]["out"]
    for isa in fd.available_isas():
        with fd.config(backend="native", isa=isa):
            dense = maps(trace, features, rule, sparse=False)
            for rows in 1, 2:
                with rows_together(rows):
                    found = maps(trace, features, rule, sparse=True)
                assert np.array_equal(found, dense), (isa, rows)


@settings(PROPERTY, max_examples=60)
@given(
    network=networks(), seed=st.integers(0, 2**16),
    rule=st.sampled_from(["deconvnet", "guided", "gradient"]), count=st.sampled_from([1, 20, 64]),
)
def test_in_bfloat16_only_the_order_of_sums_differs(
    build, bf16_settings, network, seed, rule, count
):
    """Of the three convolutions one is a step in bfloat16: nothing is rounded after it."""
    trace = traced(build, network, seed)
    features = np.arange(count) % network[0][-1]["out"]
    with fd.config(**bf16_settings):
        check_bf16(trace, features, rule)


def check_bf16(trace: fd.Trace, features: Any, rule: str) -> None:
    dense = maps(trace, features, rule, sparse=False, precision="bf16")
    found = maps(trace, features, rule, sparse=True, precision="bf16")
    assert np.abs(found - dense).max() <= 2e-6 * np.abs(dense).max()


def test_in_bfloat16_numbers_of_rows_may_need_more_than_their_bits(build, bf16):
    """Lists count rows of the weights modulo 2^16; here the last column is at 77000."""
    conv = {"type": "conv2d", "out": 70, "kernel": (1, 3), "padding": "same"}
    records = [dict(conv), {"type": "relu"}, dict(conv), {"type": "relu"}, dict(conv)]
    net = build(records, (1, 1, 1100))
    trace = net.forward(np.random.default_rng(4).standard_normal((1, 1, 1100)))
    check_bf16(trace, range(20), "deconvnet")


def tower(build: Any, channels: int) -> fd.Trace:
    conv = {"type": "conv2d", "out": channels, "kernel": (3, 3), "padding": "same"}
    block = [conv, {"type": "relu"}, {"type": "max_pool2d", "kernel_size": (2, 2)}]
    net = build([dict(record) for record in block * 3], (1, 40, 56), 5)
    return net.forward(np.random.default_rng(6).standard_normal((1, 40, 56)))


@pytest.fixture
def zeros_left_out(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The steps that leave out zeros from here on."""
    seen: list[Any] = []

    def noting(kernel: Any) -> Any:
        def takes(table: Any, job: Any) -> bool:
            taken = bool(kernel.takes(table, job))
            if taken:
                seen.append(job)
            return taken

        return kernel._replace(takes=takes) if "sparse" in kernel.name else kernel

    kernels = tuple(map(noting, native_cpu.STEP_KERNELS))
    monkeypatch.setattr(native_cpu, "STEP_KERNELS", kernels)
    return seen


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
def test_many_channels_behind_a_rectifier_go_without_their_zeros(on, build, zeros_left_out, rule):
    trace = tower(build, 64)
    found = fd.deconvolve(trace, trace.network.layers[-1].name, range(20), rule)
    assert zeros_left_out
    assert np.array_equal(found, maps(trace, range(20), rule, sparse=False))


@pytest.mark.parametrize("count", range(1, 10))
def test_few_features_are_taken_on_by_a_1x1_convolution(on, build, count):
    """It takes its pixels from the step above, which sums several of them together."""
    net = build([
        {"type": "conv2d", "out": 8, "kernel": (3, 3), "padding": "same"}, {"type": "relu"},
        {"type": "conv2d", "out": 12, "kernel": (1, 1)},
        {"type": "conv2d", "out": 70, "kernel": (5, 5), "padding": "same"}, {"type": "relu"},
        {"type": "conv2d", "out": 10, "kernel": (3, 3), "padding": "same"},
    ], (1, 13, 61))
    trace = net.forward(np.random.default_rng(7).standard_normal((1, 13, 61)))
    found = fd.deconvolve(trace, net.layers[-1].name, range(count))
    with fd.config(backend="reference"):
        want = fd.deconvolve(trace, net.layers[-1].name, range(count))
    assert np.abs(found - want).max() <= 2e-6 * np.abs(want).max()


def test_without_a_rectifier_nothing_is_looked_for(on, build, zeros_left_out):
    trace = tower(build, 64)
    fd.deconvolve(trace, trace.network.layers[-1].name, range(20), "gradient")
    # A feature that is left over by itself always goes by the same lists.
    assert all(job.v.lanes == 1 for job in zeros_left_out)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("rows", [1, 2, None])
def test_neither_threads_nor_rows_computed_together_change_a_bit(on, build, threads, rows):
    trace = tower(build, 50)
    dense = maps(trace, range(50), "deconvnet", sparse=False, num_threads=1)
    with rows_together(rows):
        found = maps(trace, range(50), "deconvnet", sparse=True, num_threads=threads)
    assert np.array_equal(found, dense)


@pytest.mark.parametrize("start", ["max", "one"])
def test_parts_of_maps_by_two_rows_have_the_bits_of_one_by_one(on, build, start):
    trace = tower(build, 64)
    found = []
    for rows in 1, 2:
        with rows_together(rows):
            found.append(maps(trace, range(40), "deconvnet", sparse=True, start=start))
    assert np.array_equal(*found)


def test_what_was_decided_about_rows_is_kept_by_the_number_of_vectors(on):
    table = native_shared.kernels()
    with rows_together(2):
        assert set(table.rows_together.values()) == {2}
    assert table.rows_together == {}


def test_values_that_are_all_there_fit_into_the_lists(on, build):
    """No zeros at all: a gradient without any gate."""
    conv = {"type": "conv2d", "out": 40, "kernel": (3, 3), "padding": "same"}
    net = build([dict(conv) for _ in range(3)], (1, 9, 11), 1)
    trace = net.forward(np.random.default_rng(2).standard_normal((1, 9, 11)))
    dense = maps(trace, range(40), "gradient", sparse=False)
    assert np.array_equal(maps(trace, range(40), "gradient", sparse=True), dense)


@pytest.mark.parametrize("value", [np.float32(-0.0), np.float32(1e-45), np.float32(1e30)])
def test_negative_zeros_denormals_and_large_values_change_no_bit(on, build, value):
    trace = tower(build, 48)
    start = np.random.default_rng(3).standard_normal((48, 5, 7)).astype(np.float32)
    start[:, ::2] = value
    dense = maps(trace, range(48), "gradient", sparse=False, start=start)
    found = maps(trace, range(48), "gradient", sparse=True, start=start)
    assert np.array_equal(found, dense)
