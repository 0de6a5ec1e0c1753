"""Runs bands of work on threads.

Kernels never own threads: they take a range of rows, release the GIL and are
called from here. The calling thread works too, so a call makes progress even
when the pool is busy with other callers, and calls may nest. No OpenMP run time
is involved that could clash with another library's.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

__all__ = ["Stage", "band_edges", "copy_edges", "run_bands", "run_stages", "shrinking_edges"]

# An upper bound only: the executor starts a thread when there is work for it.
_MAX_WORKERS = 256
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


class Stage(NamedTuple):
    """Bands of work, some of which may want results of the stage before."""

    bands: int
    work: Callable[[int], None]
    before: Sequence[int] | None = None
    """How many bands of the stage before, of the first ones, band i waits for; None: for none."""


def run_bands(count: int, work: Callable[[int], None], num_threads: int) -> None:
    """Call ``work(i)`` once for every i in range(count), on up to `num_threads` threads.

    Bands are handed out in order to whichever thread is free. The first
    exception stops the handing out and is raised here once all threads are done.
    """
    run_stages([Stage(count, work)], num_threads)


def run_stages(stages: Sequence[Stage], num_threads: int) -> None:
    """`run_bands` of one stage after the other, without waiting for all of a stage to end.

    A band that waits for bands of the stage before waits for all stages before that one.
    """
    helpers = min(max((stage.bands for stage in stages), default=0), num_threads) - 1
    if helpers < 1:
        for bands, work, _ in stages:
            for i in range(bands):
                work(i)
        return
    queue = _Queue(stages, _other_cpus())
    try:
        _call_helpers(queue, helpers)
        queue.drain()
    except BaseException:
        queue.stop()
        raise
    finally:
        queue.finish()
    if queue.error is not None:
        raise queue.error


def _call_helpers(queue: _Queue, helpers: int) -> None:
    pool = _shared_pool()
    try:
        for _ in range(helpers):
            pool.submit(queue.help)
    except RuntimeError:
        # No thread may start (the interpreter is closing down, or a limit of the system):
        # the caller does what the helpers it got leave over.
        pass


def band_edges(rows: int, num_threads: int, *, smallest: int = 1, largest: int = 8) -> list[int]:
    """Cut `rows` into bands small enough to balance `num_threads` threads.

    For kernels whose bits do not depend on where the bands lie.
    """
    size = max(smallest, min(largest, rows // (8 * num_threads)))
    return [*range(0, rows, size), rows]


def copy_edges(rows: int, num_threads: int) -> list[int]:
    """As `band_edges`, two bands a thread.

    For work of microseconds a row: smaller bands would only wait for one another's Python.
    """
    size = max(1, rows // (2 * num_threads))
    return band_edges(rows, num_threads, smallest=size, largest=size)


def shrinking_edges(rows: int, num_threads: int) -> list[int]:
    """As `band_edges`, the largest band first: for kernels that keep something from row to row.

    The last ones are small, so that all threads are done at about the same time.
    """
    edges = [0]
    while (left := rows - edges[-1]) > 0:
        edges.append(edges[-1] + max(1, left // (2 * num_threads)))
    return edges


_Band = tuple[int, int]
"""Numbers of a stage and of a band in it; bands are handed out in the order of these."""


class _Queue:
    """Bands, handed out one at a time."""

    def __init__(
        self, stages: Sequence[Stage], helper_cpus: frozenset[int] | None
    ) -> None:
        self._stages = list(stages)
        self._next: _Band = 0, 0
        self._helper_cpus = helper_cpus
        self._working: list[_Band] = []
        """What was handed out and is not done."""
        self._helping = 0
        self._changed = threading.Condition()
        self.error: BaseException | None = None
        """The first exception of a helper."""

    def _take(self, done: _Band | None) -> tuple[_Band, Callable[[int], None]] | None:
        """The next band, and its work, once what it waits for is done."""
        with self._changed:
            if done:
                self._working.remove(done)
                self._changed.notify_all()
            band = self._find_next()
            if band is None:
                return None
            stage, number = band
            _, work, before = self._stages[stage]
            self._next = stage, number + 1
            self._working.append(band)
            if before:
                wanted = stage - 1, before[number]
                self._changed.wait_for(lambda: not self._stages or min(self._working) >= wanted)
            return (band, work) if self._stages else None

    def _find_next(self) -> _Band | None:
        stage, number = self._next
        while stage < len(self._stages) and number >= self._stages[stage].bands:
            stage, number = stage + 1, 0
        return (stage, number) if stage < len(self._stages) else None

    def drain(self) -> None:
        """Work until no band is left."""
        done = None
        while taken := self._take(done):
            done, work = taken
            work(done[1])

    def help(self) -> None:
        """`drain`, for a thread of the pool; one that comes late finds nothing to do."""
        _run_on(self._helper_cpus)
        with self._changed:
            if self._find_next() is None:
                return
            self._helping += 1
        try:
            self.drain()
        except BaseException as error:
            self.stop(error)
        finally:
            with self._changed:
                self._helping -= 1
                self._changed.notify_all()

    def stop(self, error: BaseException | None = None) -> None:
        """Hand out no more bands; one that waits for others is not worked on, either."""
        with self._changed:
            self._stages = []
            if self.error is None:
                self.error = error
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait for the helpers that are working."""
        with self._changed:
            self._changed.wait_for(lambda: self._helping == 0)
        # The pool may hold a late helper for a while, and must not hold arrays with it.
        self._stages = []


def _other_cpus() -> frozenset[int] | None:
    """The CPUs the caller may use less the one it is on; None where that is not known.

    Left to itself, Linux likes to wake a helper on the CPU of its caller, who does not
    let go of it until the work is done. The forward pass of a 4 s clip took 7.7 ms so
    after a pause, and takes 5.0 ms with the helper kept off that CPU (two cores).
    """
    if _current_cpu is None:
        return None
    return frozenset(os.sched_getaffinity(0) - {_current_cpu()}) or None


def _run_on(cpus: frozenset[int] | None) -> None:
    """Keep this thread, one of the pool's, on these CPUs."""
    if cpus is None or cpus == getattr(_thread, "cpus", None):
        return
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        return  # the CPUs a process may use can change at any time
    _thread.cpus = cpus


def _find_current_cpu() -> Callable[[], int] | None:
    if not hasattr(os, "sched_setaffinity"):
        return None
    # PyDLL: the call is too short to let go of the GIL for.
    return getattr(ctypes.PyDLL(None), "sched_getcpu", None)


_current_cpu = _find_current_cpu()
_thread = threading.local()


def _shared_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_MAX_WORKERS, thread_name_prefix="fastdeconv")
        return _pool


def _forget_pool() -> None:
    """After fork the child has the executor but not its threads."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
