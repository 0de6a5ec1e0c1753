"""How long a call would take on more cores than there are: its recorded bands, handed out as
csrc/schedule.c hands them out.

The model knows the order of bands, what each waits for, the lock that every hand-over takes, and
that helpers come one after the other. It does not know that cores share memory bandwidth and
caches, that many of them run at a lower clock, nor that a band finds less in its cache when
another thread computed what it reads. What it predicts is a lower bound of the time.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastdeconv.kernels import recording, schedule
from fastdeconv.kernels.recording import BandTimes

WATCHES = 50e-6
"""Seconds for which a thread watches before it sleeps (SPIN in csrc/schedule.c)."""


class Costs(NamedTuple):
    """What handing out takes on this machine, in seconds."""

    hand_over: float
    """Of a band, under the lock."""
    first_helper: float
    """From the call until the first other thread works; also until one that slept does."""
    next_helper: float
    """From one helper to the next."""


class Recorded(NamedTuple):
    """A call."""

    serial: float
    """Seconds between its queues: Python."""
    queues: list[BandTimes]


def record(work: Callable[[], object], cpus: int, times: int) -> Recorded:
    """A call, recorded several times: the shortest time of every band, and of what is between
    queues, since whatever else the machine does only adds to them."""
    found = [_record_once(work, cpus) for _ in range(times)]
    return Recorded(
        min(one.serial for one in found),
        [_shortest(queues) for queues in zip(*(one.queues for one in found))],
    )


def _record_once(work: Callable[[], object], cpus: int) -> Recorded:
    with recording.started(cpus) as record:
        begin = time.perf_counter()
        work()
        took = time.perf_counter() - begin
    return Recorded(took - sum(q.end - q.begin for q in record.queues), record.queues)


def _shortest(queues: tuple[BandTimes, ...]) -> BandTimes:
    """Of recordings of the same queue."""
    seconds = np.min([queue.seconds for queue in queues], axis=0)
    return queues[0]._replace(seconds=[float(s) for s in seconds])


def total(recorded: Recorded) -> float:
    """Seconds on one thread that hands nothing over."""
    return recorded.serial + sum(sum(queue.seconds) for queue in recorded.queues)


def predicted(recorded: Recorded, threads: int, costs: Costs) -> float:
    """Seconds on so many cores."""
    return recorded.serial + sum(_queue_time(q, threads, costs) for q in recorded.queues)


def longest(recorded: Recorded) -> float:
    """Seconds on endless cores that cost nothing: what is serial, and the longest chain of bands
    that wait for one another."""
    return recorded.serial + sum(
        _queue_time(q._replace(most=len(q.seconds)), len(q.seconds), Costs(0, 0, 0))
        for q in recorded.queues
    )


def _queue_time(queue: BandTimes, threads: int, costs: Costs) -> float:
    seconds, threads = queue.seconds, min(threads, queue.most)
    if threads == 1:
        return sum(seconds) + 2 * costs.hand_over * len(seconds)
    return makespan(seconds, queue.needs, threads, costs)


def makespan(seconds: list[float], needs: list[int], threads: int, costs: Costs) -> float:
    """Seconds from the first band to the last, on so many threads."""
    free = [0.0] + [
        costs.first_helper + i * costs.next_helper for i in range(threads - 1)
    ]
    heapq.heapify(free)
    lock, done = 0.0, [0.0]  # done[n]: when the first n bands are
    for band, need in zip(seconds, needs):
        came = heapq.heappop(free)
        # Bands are handed out in order, so who comes for this one waits for what it needs.
        begin = max(came, done[need])
        if begin - came > WATCHES:
            begin += costs.first_helper
        lock = begin = max(begin, lock) + costs.hand_over
        end = begin + band + costs.hand_over
        heapq.heappush(free, end)
        done.append(max(done[-1], end))
    return done[-1]


def measured_costs() -> Costs:
    """On this machine; with several CPUs, as helpers come through the interpreter one by one."""
    return Costs(_hand_over(), *_helpers_come())


def _hand_over() -> float:
    """From two lengths of a queue of bands that do nothing."""
    from fastdeconv.kernels import native  # type: ignore[attr-defined, unused-ignore]
    from fastdeconv.kernels.native_shared import Stage, kernels

    planes = np.zeros((1, 1, 1, 1), np.float32)
    job = native.ToPlanes(kernels(), np.zeros((1, 1, 1, kernels().width), np.float32), planes)

    def seconds(bands: int) -> float:
        queue = native.Queue([Stage(job, np.zeros(bands + 1, np.int32))])
        begin = time.perf_counter()
        schedule.share(queue, 0)
        return time.perf_counter() - begin

    few, many = 1_000, 11_000
    took = [seconds(many) - seconds(few) for _ in range(15)]
    return float(np.median(took)) / (many - few) / 2  # the lock is taken before and after


class _Waiting:
    """A queue whose caller waits until all helpers have come."""

    def __init__(self, helpers: int) -> None:
        self.stopped, self.error = False, None
        self.came: list[float] = []
        self._helpers, self._all = helpers, threading.Event()

    def drain(self) -> None:
        self._all.wait()

    def help(self) -> None:
        self.came.append(time.perf_counter())
        if len(self.came) == self._helpers:
            self._all.set()


def _helpers_come(helpers: int = 15, rounds: int = 200) -> tuple[float, float]:
    first, following = [], []
    for _ in range(rounds):
        time.sleep(1e-3)  # as after what comes between calls: helpers are asleep
        queue = _Waiting(helpers)
        begin = time.perf_counter()
        schedule.share(queue, helpers)
        first.append(queue.came[0] - begin)
        following.append((queue.came[-1] - queue.came[0]) / (helpers - 1))
    return float(np.median(first)), float(np.median(following))
