"""Passes back that are prepared once and told their arrays later."""

from __future__ import annotations

import gc
import itertools
import pickle
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.deconvnet import cost, plan, run
from fastdeconv.kernels import native_forward, native_plans, native_shared

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


def traced(
    net: fd.Network, seed: int = 3, shape: tuple[int, int, int] = SHAPE
) -> fd.Trace:
    return net.forward(np.random.default_rng(seed).standard_normal(shape))


def plans_of(trace: fd.Trace) -> dict[Any, Any]:
    kept: dict[Any, Any] = plan.shape_cache(trace.network, trace.x.shape)["plans"]
    return kept


def times_planned(patch: pytest.MonkeyPatch) -> list[Any]:
    """One entry for every pass that is planned from now on."""
    done: list[Any] = []
    planned = run.Run._plan
    patch.setattr(run.Run, "_plan", lambda *given: done.append(1) or planned(*given))
    return done


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
    assert any(plans for plans in plans_of(trace).values())


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


def slopes(build: Any) -> fd.Network:
    """A network whose jobs multiply by what depends on the trace."""
    records = [
        {**CONV, "out": 6}, {"type": "elu"}, POOL,
        {**CONV, "out": 18}, {"type": "elu"}, POOL, {**CONV, "out": 33, "name": "top"},
    ]
    return build(records, SHAPE)


def slopes_of_sums(build: Any) -> fd.Network:
    """The same where windows overlap: their sums are multiplied."""
    pool = {**POOL, "kernel_size": 3, "stride": 2}
    records = [
        {**CONV, "out": 6}, {"type": "elu"}, pool,
        {**CONV, "out": 18}, {"type": "tanh"}, pool, {**CONV, "out": 33, "name": "top"},
    ]
    return build(records, SHAPE)


@pytest.mark.parametrize("kind", ["rectified", "slopes", "slopes of sums"])
def test_traces_in_turn_give_the_bits_of_each_alone(on, net, build, monkeypatch, kind):
    net = {"rectified": lambda _: net, "slopes": slopes, "slopes of sums": slopes_of_sums}[kind](
        build
    )
    cases = list(itertools.product((1, 20), RULES))
    seeds = range(3)
    with monkeypatch.context() as patch:
        unplanned(patch)
        wanted = [[projected(traced(net, s), *case) for case in cases] for s in seeds]
    traces = [traced(net, s) for s in seeds]
    assert not np.array_equal(*wanted[:2])
    for turn in range(2):
        for k, case in enumerate(cases):
            for trace, want in zip(traces, wanted):
                np.testing.assert_array_equal(projected(trace, *case), want[k], f"turn {turn}")


def test_another_trace_of_the_same_shape_is_not_planned_again(net, monkeypatch):
    projected(traced(net, 0), 20, "guided")
    done = times_planned(monkeypatch)
    projected(traced(net, 0), 20, "guided")
    assert not done
    projected(traced(net, 0, (1, 22, 26)), 20, "guided")
    assert done


def test_shapes_in_turn_give_the_bits_of_each_alone(on, net, monkeypatch):
    monkeypatch.setattr(plan, "_MOST_SHAPES", 3)
    shapes = [(1, 21 + k % 3, 26 + k) for k in range(5)]
    with monkeypatch.context() as patch:
        unplanned(patch)
        wanted = [projected(traced(net, 0, shape), 20, "guided") for shape in shapes]
    for _ in range(2):
        for shape, want in zip(shapes, wanted):
            np.testing.assert_array_equal(projected(traced(net, 0, shape), 20, "guided"), want)
            assert len(plan.layer_cache(net, -1)["by shape"]) <= 3


def test_threads_may_project_traces_of_one_network(net, monkeypatch):
    monkeypatch.setattr(run, "_MOST_PLANS", 2)
    monkeypatch.setattr(plan, "_MOST_SHAPES", 2)
    shapes = [SHAPE, (1, 22, 26), (1, 21, 30)]
    cases = [(k, shape, count) for k, shape in enumerate(shapes) for count in (1, 2, 20)]
    wanted = {case: projected(traced(net, *case[:2]), case[2], "guided") for case in cases}
    found: list[list[Any]] = [[] for _ in range(4)]

    def work(mine: list[Any]) -> None:
        for case in cases * 2:
            mine.append((case, projected(traced(net, *case[:2]), case[2], "guided")))

    threads = [threading.Thread(target=work, args=[mine]) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine in found:
        assert len(mine) == 2 * len(cases)
        for case, maps in mine:
            np.testing.assert_array_equal(maps, wanted[case])


@pytest.mark.parametrize("kind", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("rule", RULES)
def test_nothing_that_is_kept_keeps_a_trace_alive(build, kind, rule):
    pool = {"type": kind, "kernel_size": 2}
    net = build(
        [{**CONV, "out": 6}, RELU, pool, {**CONV, "out": 9}, {"type": "elu"}, pool,
         {**CONV, "out": 5}, RELU, {**pool, "name": "top"}], SHAPE,
    )
    trace = traced(net)
    projected(trace, 5, rule)
    pools = [i for i, layer in enumerate(net.layers) if layer.type == "max_pool2d"]
    switches = [weakref.ref(trace.switch_cells(i)) for i in pools]
    left = weakref.ref(trace)
    gc.disable()
    try:
        del trace
        assert left() is None
        assert all(array() is None for array in switches)
    finally:
        gc.enable()


def test_a_network_and_its_trace_can_be_pickled_after_a_pass_back(on, net):
    trace = traced(net)
    want = projected(trace, 5, "guided")
    again = pickle.loads(pickle.dumps(trace))
    for other in (again, traced(pickle.loads(pickle.dumps(net)))):
        np.testing.assert_array_equal(projected(other, 5, "guided"), want)
    np.testing.assert_array_equal(projected(trace, 5, "guided"), want)


def test_a_layer_that_is_asked_for_does_not_undo_the_plan_of_a_pass(build, monkeypatch):
    made: list[Any] = []
    make = native_forward._make_plan
    monkeypatch.setattr(native_forward, "_make_plan", lambda *a: made.append(1) or make(*a))
    # The last layer is no block of its own, so blocks are prepared one by one.
    net = build([{**CONV, "out": 6}, {**RELU, "name": "inside"}, POOL,
                 {"type": "softmax"}], SHAPE)
    with fd.config(backend="native"):
        for turn in range(3):
            _ = traced(net)["inside"]
            if turn == 0:
                before = len(made)
    assert before == len(made) == 2


def test_a_network_keeps_no_more_than_a_few_plans(net, monkeypatch):
    monkeypatch.setattr(run, "_MOST_PLANS", 3)
    trace = traced(net)
    for count in range(1, 9):
        projected(trace, count, "deconvnet")
        assert len(plans_of(trace)) <= 3


def sounding_of(trace: fd.Trace, count: int) -> np.ndarray:
    """The first features of the top layer that are not silent."""
    found = np.flatnonzero(trace["top"].any(axis=(1, 2)))[:count]
    assert len(found) == count
    return found


def test_a_plan_that_is_refused_is_not_prepared_again(net, monkeypatch):
    monkeypatch.setattr(native_plans, "_MOST_PLANNED", 0)
    done = times_planned(monkeypatch)
    with fd.config(backend="native", num_threads=1):
        trace = traced(net)
        for count in (16, 17, 18):  # each begins with a pass of 16
            fd.deconvolve(trace, "top", sounding_of(trace, count))
    assert len(done) == 1


def test_passes_that_want_too_much_memory_together_are_not_planned(net, monkeypatch):
    monkeypatch.setattr(cost, "side_by_side", lambda *_: (16, 2))
    with fd.config(backend="native", num_threads=1):
        trace = traced(net)
        features = sounding_of(trace, 18)

        def plans() -> Any:
            wanted = fd.deconvolve(trace, "top", features)
            (found,) = [kept for key, kept in plans_of(trace).items() if "in all" in key]
            plans_of(trace).clear()
            return wanted, found

        wanted, ((joined, _),) = plans()
        largest = max(one.plan.size for one in joined.passes)
        monkeypatch.setattr(native_plans, "_MOST_PLANNED", largest)
        maps, found = plans()
    assert len(joined.passes) == 2 and found == []
    np.testing.assert_array_equal(maps, wanted)


def test_each_trace_leaves_out_the_features_that_are_silent_there(on, build):
    shape = 1, 4, 4  # maps of one place: half of them are silent
    net = build(
        [{**CONV, "out": 6}, RELU, POOL, {**CONV, "out": 40}, RELU, {**POOL, "name": "top"}], shape
    )
    traces = [traced(net, seed, shape) for seed in (0, 1)]
    sounding = [trace["top"].any(axis=(1, 2)) for trace in traces]
    assert not np.array_equal(*sounding)
    wanted = [projected(traced(net, seed, shape), 40, "deconvnet") for seed in (0, 1)]
    for _ in range(2):
        for trace, sounds, want in zip(traces, sounding, wanted):
            maps = projected(trace, 40, "deconvnet")
            assert not maps[~sounds].any()
            np.testing.assert_array_equal(maps, want)


def test_passes_of_as_many_features_share_a_plan(net, monkeypatch):
    done = times_planned(monkeypatch)
    with fd.config(backend="native", num_threads=1):
        trace = traced(net)
        sounding = sounding_of(trace, 18)
        fd.deconvolve(trace, "top", sounding)  # 16 features, and 2 that are left over
        before = len(done)
        fd.deconvolve(trace, "top", sounding[:2])
    assert len(done) == before
