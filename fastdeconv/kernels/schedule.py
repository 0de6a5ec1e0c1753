"""Runs bands of work on threads.

Kernels never own threads: they take a range of rows, release the GIL and are
called from here. The calling thread works too, so a call makes progress even
when the pool is busy with other callers, and calls may nest. No OpenMP run time
is involved that could clash with another library's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["band_edges", "run_bands"]

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
    queue = _Queue(count, work)
    pool = _shared_pool()
    futures = [pool.submit(queue.drain) for _ in range(helpers)]
    try:
        queue.drain()
    finally:
        queue.stop()
        # A helper that has not started yet has nothing left to do.
        started = [f for f in futures if not f.cancel()]
        errors = [f.exception() for f in started]
    for error in errors:
        if error is not None:
            raise error


def band_edges(rows: int, num_threads: int, *, smallest: int = 1, largest: int = 8) -> list[int]:
    """Cut `rows` into bands small enough to balance `num_threads` threads.

    For kernels whose bits do not depend on where the bands lie.
    """
    size = max(smallest, min(largest, rows // (8 * num_threads)))
    return [*range(0, rows, size), rows]


class _Queue:
    """Band numbers, handed out one at a time."""

    def __init__(self, count: int, work: Callable[[int], None]) -> None:
        self._next, self._count, self._work = 0, count, work
        self._lock = threading.Lock()

    def _take(self) -> int | None:
        with self._lock:
            if self._next >= self._count:
                return None
            self._next += 1
            return self._next - 1

    def stop(self) -> None:
        with self._lock:
            self._count = 0

    def drain(self) -> None:
        try:
            while (i := self._take()) is not None:
                self._work(i)
        except BaseException:
            self.stop()
            raise


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
