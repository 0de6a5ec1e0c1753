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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["band_edges", "run_bands", "shrinking_edges"]

# An upper bound only: the executor starts a thread when there is work for it.
_MAX_WORKERS = 256
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def run_bands(count: int, work: Callable[[int], None], num_threads: int) -> None:
    """Call ``work(i)`` once for every i in range(count), on up to `num_threads` threads.

    Bands are handed out in order to whichever thread is free. The first
    exception stops the handing out and is raised here once all threads are done.
    """
    helpers = min(count, num_threads) - 1
    if helpers < 1:
        for i in range(count):
            work(i)
        return
    queue = _Queue(count, work, _other_cpus())
    try:
        _call_helpers(queue, helpers)
        queue.drain()
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


def shrinking_edges(rows: int, num_threads: int) -> list[int]:
    """As `band_edges`, the largest band first: for kernels that keep something from row to row.

    The last ones are small, so that all threads are done at about the same time.
    """
    edges = [0]
    while (left := rows - edges[-1]) > 0:
        edges.append(edges[-1] + max(1, left // (2 * num_threads)))
    return edges


class _Queue:
    """Band numbers, handed out one at a time."""

    def __init__(
        self, count: int, work: Callable[[int], None], helper_cpus: frozenset[int] | None
    ) -> None:
        self._next, self._count = 0, count
        self._helper_cpus = helper_cpus
        self._work: Callable[[int], None] | None = work
        self._helping = 0
        self._idle = threading.Condition()
        self.error: BaseException | None = None
        """The first exception of a helper."""

    def _take(self) -> int | None:
        with self._idle:
            if self._next >= self._count:
                return None
            self._next += 1
            return self._next - 1

    def drain(self) -> None:
        """Work until no band is left."""
        work = self._work
        while work is not None and (i := self._take()) is not None:
            work(i)

    def help(self) -> None:
        """`drain`, for a thread of the pool; one that comes late finds nothing to do."""
        _run_on(self._helper_cpus)
        with self._idle:
            if self._next >= self._count:
                return
            self._helping += 1
        try:
            self.drain()
        except BaseException as error:
            self._stop(error)
        finally:
            with self._idle:
                self._helping -= 1
                self._idle.notify_all()

    def _stop(self, error: BaseException | None = None) -> None:
        with self._idle:
            self._count = 0
            if self.error is None:
                self.error = error

    def finish(self) -> None:
        """Hand out no more bands, and wait for the helpers that are working on one."""
        self._stop()
        with self._idle:
            self._idle.wait_for(lambda: self._helping == 0)
        # The pool may hold a late helper for a while, and must not hold arrays with it.
        self._work = None


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
