"""The model of how bands are handed out, and what it is fed with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastdeconv as fd
from bench import schedule_model
from bench.schedule_model import Costs, makespan
from fastdeconv.kernels import recording
from fastdeconv.kernels.recording import BandTimes

FREE = Costs(0, 0, 0)


def queue(seconds, needs=None, most=64):
    return BandTimes(0, 1, seconds, needs or [0] * len(seconds), most)


@given(
    st.lists(st.floats(0.001, 1), min_size=1, max_size=30), st.integers(1, 8), st.data()
)
def test_no_schedule_beats_its_bounds(seconds, threads, data):
    needs = [data.draw(st.integers(0, i)) for i in range(len(seconds))]
    took = makespan(seconds, needs, threads, FREE)
    assert max(max(seconds), sum(seconds) / threads) <= took + 1e-9
    assert took <= sum(seconds) + 1e-9


def test_bands_that_wait_for_all_before_follow_one_another():
    assert makespan([1, 2, 3], [0, 1, 2], 4, FREE) == 6


def test_independent_bands_run_side_by_side():
    assert makespan([3, 1, 1, 1], [0, 0, 0, 0], 2, FREE) == 3


def test_helpers_come_late_and_one_by_one():
    costs = Costs(0, 2, 1)
    assert makespan([1, 1, 1, 1], [0] * 4, 3, costs) == 3
    assert makespan([9, 9, 9], [0] * 3, 3, costs) == 2 + 1 + 9


def test_every_hand_over_takes_the_lock_in_turn():
    assert makespan([1, 1], [0, 0], 2, Costs(0.25, 0, 0)) == pytest.approx(0.5 + 1 + 0.25)


def test_a_queue_has_no_more_threads_than_it_may():
    recorded = schedule_model.Recorded(0.5, [queue([1, 1, 1, 1], most=2)])
    assert schedule_model.predicted(recorded, 16, FREE) == 2.5
    assert schedule_model.longest(recorded) == 1.5
    assert schedule_model.total(recorded) == 4.5


@pytest.mark.skipif("native" not in fd.available_backends(), reason="no native extension")
def test_recording_changes_no_bits_and_cuts_for_the_cpus_it_pretends_to_have():
    rng = np.random.default_rng(0)
    shapes = {"a": (24, 1, 3, 3), "b": (24, 24, 3, 3)}
    layers, arrays = [], {}
    for name, shape in shapes.items():
        layers += [
            {"type": "conv2d", "name": name, "padding": "same"},
            {"type": "relu", "name": f"relu {name}"},
            {"type": "max_pool2d", "name": f"pool {name}", "kernel_size": 2},
        ]
        arrays[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        arrays[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    net = fd.Network(layers, arrays, input_shape=(1, 400, 64))
    x = rng.normal(size=(1, 400, 64)).astype(np.float32)

    def maps():
        return fd.deconvolve(net.forward(x), "pool b", backend="native")

    with fd.config(backend="native", num_threads=1):
        want = maps()
    with fd.config(backend="native", num_threads=64), recording.started(64) as record:
        assert np.array_equal(maps(), want)
    assert recording.recording() is None
    assert max(queue.most for queue in record.queues) > 2  # of work this small, three threads
    assert all(len(queue.seconds) == len(queue.needs) for queue in record.queues)
    assert all(need <= i for queue in record.queues for i, need in enumerate(queue.needs))
