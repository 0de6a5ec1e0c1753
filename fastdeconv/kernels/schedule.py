"""Runs bands of work on threads.

Kernels never own threads: the threads are those of this module. The calling thread works
too, so a call makes progress even when all other threads are busy, and calls may nest. No
OpenMP run time is involved that could clash with another library's.

Threads take bands from a queue. There are two kinds: the queue of `run_bands` calls a Python
function for every band; that of the native back end (``native.Queue``) hands out the bands of its
jobs in C. `share` lets threads work on either.

The main thread can be interrupted at any place: the handler of a signal (Ctrl-C)
may raise an exception there, even in ``Condition.__enter__`` when the lock is
already taken. A caller therefore takes no lock. What it shares with the helpers,
the threads that work for it, are lists, deques and queues whose methods run in C,
each as a whole. Helpers are never interrupted.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar, cast

__all__ = [
    "BandQueue", "band_edges", "copy_edges", "run_bands", "run_undisturbed", "share",
    "shrinking_edges",
]

_T = TypeVar("_T")

_MAX_HELPERS = 256
"""An upper bound only: a helper starts when there is work for it."""

_LOOK_AGAIN = 0.1
"""Seconds after which a waiting thread checks again whether it still has to wait.

A caller that was interrupted twice may not have notified it, and a signal that the system delivers
to another thread does not wake the main thread.
"""


class BandQueue(Protocol):
    """Bands of work that several threads take one by one."""

    stopped: bool
    """Whether no further band may begin."""

    @property
    def error(self) -> BaseException | None:
        """The first exception in a thread other than the caller's."""

    def drain(self) -> None:
        """Run bands until all are done or, if the queue has been stopped, until none is running.

        For the calling thread: the handler of a signal may end it with an exception.
        """

    def help(self) -> None:
        """Run bands until none is left to begin; raises nothing.

        For the helpers. One that starts late returns at once.
        """


def run_bands(count: int, work: Callable[[int], None], num_threads: int) -> None:
    """Call ``work(i)`` once for every i in range(count), on up to `num_threads` threads.

    Bands are handed out in order to whichever thread is free. After the first exception no further
    band begins, and the exception is raised here when all threads are done. A second exception
    before that (Ctrl-C again) is raised at once; a band that another thread has begun then runs to
    its end.
    """
    helpers = min(count, num_threads) - 1
    if helpers < 1:
        for i in range(count):
            work(i)
        return
    share(_Queue(count, work), helpers)


def share(queue: BandQueue, helpers: int) -> None:
    """Run all bands of a queue with up to `helpers` other threads; exceptions as in `run_bands`."""
    try:
        if helpers > 0:
            _helpers.call(_Help(queue, _other_cpus()), helpers)
        queue.drain()
    except BaseException:
        # Not inside drain(): a second exception may come before its first statement.
        queue.stopped = True
        queue.drain()
        raise
    if queue.error is not None:
        raise queue.error


def run_undisturbed(function: Callable[..., _T], *arguments: Any) -> _T:
    """Call ``function(*arguments)`` where no handler of a signal can raise an exception.

    For functions that take seconds and write to no array of the caller. An exception in the main
    thread ends its call at once: it waits neither for this function nor for a helper that runs it.
    The function itself continues to its end.
    """
    if threading.get_ident() != threading.main_thread().ident:
        queue: _Queue | None = getattr(_thread, "queue", None)
        return function(*arguments) if queue is None else queue.leave_for(function, *arguments)
    answers: SimpleQueue[tuple[_T | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            answers.put((function(*arguments), None))
        except BaseException as error:
            answers.put((None, error))

    try:
        start_new_thread(run, ())
    except RuntimeError:
        run()
    answer = None
    while answer is None:
        with suppress(Empty):
            answer = answers.get(timeout=_LOOK_AGAIN)
    result, error = answer
    if error is not None:
        raise error
    return cast(_T, result)


def band_edges(rows: int, num_threads: int, *, smallest: int = 1, largest: int = 8) -> list[int]:
    """Cut `rows` into bands small enough to balance `num_threads` threads.

    For kernels whose bits do not depend on where the bands lie.
    """
    size = max(smallest, min(largest, rows // (8 * num_threads)))
    return [*range(0, rows, size), rows]


def copy_edges(rows: int, num_threads: int) -> list[int]:
    """As `band_edges`, with two bands per thread.

    For work that takes microseconds per row: with smaller bands, threads would mostly wait for each
    other's Python.
    """
    size = max(1, rows // (2 * num_threads))
    return band_edges(rows, num_threads, smallest=size, largest=size)


@functools.lru_cache(maxsize=256)
def shrinking_edges(rows: int, num_threads: int) -> tuple[int, ...]:
    """As `band_edges`, with the largest bands first: for kernels that keep results between rows.

    The last bands are small, so that all threads finish at about the same time.
    """
    edges = [0]
    while (left := rows - edges[-1]) > 0:
        edges.append(edges[-1] + max(1, left // (2 * num_threads)))
    return tuple(edges)


class _StoppedError(Exception):
    """Ends a band whose queue has been stopped."""


class _Help:
    """What a helper does for one call of `share`."""

    def __init__(self, queue: BandQueue, cpus: frozenset[int] | None) -> None:
        self._queue, self._cpus = queue, cpus

    def __call__(self) -> None:
        _run_on(self._cpus)
        self._queue.help()


class _Queue:
    """The bands of one call of `run_bands`, handed out one at a time."""

    def __init__(self, count: int, work: Callable[[int], None]) -> None:
        self._work: Callable[[int], None] | None = work
        self._count = count
        self._left = deque(range(count))
        self._done: list[None] = []
        """One entry for each band that is done."""
        self._helping: list[None] = []
        """One entry for each helper that is running bands."""
        self._waiting: list[SimpleQueue[None]] = []
        """One for each waiting thread, which gets an item at every change."""
        self.stopped = False
        self.error: BaseException | None = None

    def drain(self) -> None:
        self._take_all()
        self._wait_until(lambda: self.stopped or len(self._done) == self._count)
        self._wait_until(lambda: not self._helping)
        # A helper that starts late still holds this queue; it must not keep arrays alive.
        self._work = None

    def help(self) -> None:
        _thread.queue = self
        self._helping.append(None)
        try:
            self._take_all()
        except BaseException as error:
            if self.error is None:
                self.error = error
            self.stopped = True
        finally:
            _thread.queue = None
            self._helping.pop()
            self._tell()

    def leave_for(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a function in a helper. If the queue is stopped meanwhile, raise an exception."""
        _thread.queue = None
        self._helping.pop()
        self._tell()
        try:
            return function(*arguments)
        finally:
            self._helping.append(None)
            _thread.queue = self
            if self.stopped:
                raise _StoppedError

    def _take_all(self) -> None:
        """Run bands until none is left to begin."""
        work = self._work
        while work is not None and not self.stopped:
            try:
                i = self._left.popleft()
            except IndexError:
                return
            work(i)
            self._done.append(None)
            self._tell()

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        if ready():
            return
        changed: SimpleQueue[None] = SimpleQueue()
        self._waiting.append(changed)
        # Checked again now that `changed` is in the list: no later change can be missed.
        while not ready():
            with suppress(Empty):
                changed.get(timeout=_LOOK_AGAIN)
        self._waiting.remove(changed)

    def _tell(self) -> None:
        for changed in self._waiting.copy():
            changed.put(None)


class _Helpers:
    """Threads that wait for calls; one more than are needed at a time.

    Helpers start each other: a helper that gets a call when no other one is waiting starts the
    next. They are not joined when the interpreter exits.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._started = False
        self._lock = threading.Lock()
        """Protects the two numbers below, which only helpers use."""
        self._count = 1
        self._waiting = 0

    def call(self, function: Callable[[], None], times: int) -> None:
        """Let `times` helpers call a function that raises nothing; does not wait for them.

        Where no thread may start (the interpreter is closing down, or a limit of the system)
        there may be fewer, and they may come late.
        """
        if not self._started:
            if not self._start():
                return
            self._started = True
        for _ in range(times):
            self._calls.put(function)

    def _start(self) -> bool:
        try:
            # Not threading.Thread, whose start() takes locks.
            start_new_thread(self._serve, ())
        except RuntimeError:
            return False
        return True

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._waiting += 1
            function = self._calls.get()
            with self._lock:
                self._waiting -= 1
                if self._waiting == 0 and self._count < _MAX_HELPERS:
                    self._count += self._start()
            function()
            del function


_helpers = _Helpers()


def _other_cpus() -> frozenset[int] | None:
    """The CPUs that the caller may use without the one it is on; None where that is not known.

    Linux often wakes a helper on the CPU of its caller, which keeps that CPU busy until the work
    is done. After a pause, the forward pass of a 4 s clip took 7.7 ms for that reason, and takes
    5.0 ms with the helper kept off that CPU (two cores).
    """
    if _current_cpu is None:
        return None
    return frozenset(os.sched_getaffinity(0) - {_current_cpu()}) or None


def _run_on(cpus: frozenset[int] | None) -> None:
    """Keep this thread, a helper, on these CPUs."""
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
    # PyDLL: the call is so short that releasing the GIL would not pay.
    return getattr(ctypes.PyDLL(None), "sched_getcpu", None)


_current_cpu = _find_current_cpu()
_thread = threading.local()


def _forget_helpers() -> None:
    """To be called in the child after a fork, which has none of the threads."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helpers)
