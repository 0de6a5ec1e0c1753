"""Passes back that are prepared once and told their arrays later."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.deconvnet import run
from fastdeconv.kernels import native_shared

CONV = {"type": "conv2d", "kernel": (3, 3), "padding": "same"}
RELU = {"type": "relu"}
POOL = {"type": "max_pool2d", "kernel_size": 2}
SHAPE = (1, 21, 26)
RULES = ("deconvnet", "guided", "gradient")


@pytest.fixture(params=fd.available_isas())
def on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every instruction set of the back end that plans, in turn."""
    with fd.config(backend="native", isa=request.param):
        yield


@pytest.fixture
def net(build: Any) -> fd.Network:
    """Groups, an overlapping pool, a lone feature's lists: what jobs keep in the memory."""
    records = [
        {**CONV, "out": 6}, RELU, POOL,
        {**CONV, "out": 18, "groups": 2}, RELU, {**POOL, "kernel_size": 3, "stride": 2},
        {**CONV, "out": 33}, RELU, {**POOL, "name": "top"},
    ]
    return build(records, SHAPE)


def traced(net: fd.Network) -> fd.Trace:
    return net.forward(np.random.default_rng(3).standard_normal(SHAPE))


def projected(trace: fd.Trace, count: int, rule: str) -> np.ndarray:
    return fd.deconvolve(trace, "top", range(count), rule=rule)


def unplanned(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(run.Run, "_plans", lambda *_: [])
    return monkeypatch


def test_a_pass_that_is_planned_gives_the_bits_of_one_that_is_not(on, net, monkeypatch):
    cases = list(itertools.product((1, 5, 20, 33), RULES))
    with monkeypatch.context() as patch:
        unplanned(patch)
        wanted = [projected(traced(net), *case).tobytes() for case in cases]
    trace = traced(net)
    for _ in range(2):
        assert [projected(trace, *case).tobytes() for case in cases] == wanted
    assert any(plans for plans in trace.derived("plans").values())


def test_a_pass_reads_nothing_that_it_has_not_written(on, net, monkeypatch):
    cases = list(itertools.product((1, 5, 20), RULES))
    wanted = [projected(traced(net), *case) for case in cases]

    def new_memory(size: int) -> np.ndarray:
        return np.full(-(-size // 4), np.nan, np.float32).view(np.uint8)

    monkeypatch.setattr(native_shared, "new_memory", new_memory)
    trace = traced(net)
    for case, want in zip(cases, wanted):
        np.testing.assert_array_equal(projected(trace, *case), want)


def test_as_many_other_features_give_their_own_maps(on, net, monkeypatch):
    trace = traced(net)
    pairs, starts = [[0, 1], [9, 4], [32, 32], [1, 0]], ("map", "one")
    with monkeypatch.context() as patch:
        unplanned(patch)
        wanted = [fd.deconvolve(trace, "top", p, start=s) for p in pairs for s in starts]
    found = [fd.deconvolve(trace, "top", p, start=s) for p in pairs for s in starts]
    np.testing.assert_array_equal(found, wanted)


def test_a_trace_keeps_no_more_than_a_few_plans(net, monkeypatch):
    monkeypatch.setattr(run, "_MOST_PLANS", 3)
    trace = traced(net)
    for count in range(1, 9):
        projected(trace, count, "deconvnet")
        assert len(trace.derived("plans")) <= 3
