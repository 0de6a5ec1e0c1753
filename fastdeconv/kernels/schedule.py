"""Runs bands of work on threads.

Kernels never own threads: they take a range of rows, release the GIL and are
called from here. The calling thread works too, so a call makes progress even
when all other threads are busy, and calls may nest. No OpenMP run time is
involved that could clash with another library's.

The main thread can be interrupted at any place: the handler of a signal (Ctrl-C)
may raise an exception there, even in ``Condition.__enter__`` when the lock is
already taken. A caller therefore takes no lock. What it shares with the helpers,
the threads that work for it, are lists, deques and queues whose methods run in C,
each as a whole. Helpers are never interrupted.
"""

from __future__ import annotations

import ctypes
import os
import threading
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import repeat
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar, cast

__all__ = [
    "Stage", "band_edges", "copy_edges", "run_bands", "run_stages", "run_undisturbed",
    "shrinking_edges",
]

_T = TypeVar("_T")

_MAX_HELPERS = 256
"""An upper bound only: a helper starts when there is work for it."""

_LOOK_AGAIN = 0.1
"""Seconds after which a thread that waits asks again whether it still has to.

A caller that was interrupted twice may have told nobody, and a signal that another thread
was given does not wake the main thread.
"""


class Stage(NamedTuple):
    """Bands of work, some of which may want results of stages before."""

    bands: int
    work: Callable[[int], None]
    needs: Sequence[int] | None = None
    """For how many bands, counted from the first one of the first stage, band i waits; None: for
    none."""


def run_bands(count: int, work: Callable[[int], None], num_threads: int) -> None:
    """Call ``work(i)`` once for every i in range(count), on up to `num_threads` threads.

    Bands are handed out in order to whichever thread is free. The first
    exception stops the handing out and is raised here once all threads are done. A second
    one that comes meanwhile (Ctrl-C again) is raised at once; a band that another thread
    has begun then runs to its end.
    """
    run_stages([Stage(count, work)], num_threads)


def run_stages(stages: Sequence[Stage], num_threads: int) -> None:
    """`run_bands` of one stage after the other, without waiting for all of a stage to end."""
    helpers = min(max((stage.bands for stage in stages), default=0), num_threads) - 1
    if helpers < 1:
        for bands, work, _ in stages:
            for i in range(bands):
                work(i)
        return
    queue = _Queue(stages, _other_cpus())
    try:
        _helpers.call(queue.help, helpers)
        queue.drain()
        queue.finish()
    except BaseException:
        # Set here: a second exception may come before a method has begun.
        queue.stopped = True
        queue.finish()
        raise
    if queue.error is not None:
        raise queue.error


def run_undisturbed(function: Callable[..., _T], *arguments: Any) -> _T:
    """``function(*arguments)`` where no handler of a signal can raise anything.

    For what takes seconds and writes to no array of the caller's. An exception in the main
    thread ends its call at once: it waits neither here nor for a helper that is in here. The
    function itself runs on to its end.
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


class _StoppedError(Exception):
    """Ends a band whose queue has stopped."""


class _Queue:
    """The bands of one call, handed out one at a time."""

    def __init__(self, stages: Sequence[Stage], helper_cpus: frozenset[int] | None) -> None:
        self._bands: list[tuple[Callable[[int], None], int, int]] = []
        """Work, what to call it with, and how many bands have to be done before that."""
        for count, work, needs in stages:
            self._bands += zip(repeat(work), range(count), repeat(0) if needs is None else needs)
        self._left = deque(range(len(self._bands)))
        self._done = bytearray(len(self._bands))
        self._helping: list[None] = []
        """One entry for each helper at work."""
        self._waiting: list[SimpleQueue[None]] = []
        """One for each thread that waits, which is told of every change."""
        self._helper_cpus = helper_cpus
        self.stopped = False
        """Whether no band is begun any more."""
        self.error: BaseException | None = None
        """The first exception of a helper."""

    def drain(self) -> None:
        """Work until no band is left."""
        bands = self._bands
        while True:
            try:
                number = self._left.popleft()
            except IndexError:
                return
            work, i, needs = bands[number]
            if not self._wait_for(needs):
                return
            work(i)
            self._done[number] = 1
            self._tell()

    def help(self) -> None:
        """`drain`, for a helper; one that comes late finds nothing to do."""
        _run_on(self._helper_cpus)
        _thread.queue = self
        self._helping.append(None)
        try:
            self.drain()
        except BaseException as error:
            if self.error is None:
                self.error = error
            self.stopped = True
        finally:
            _thread.queue = None
            self._helping.pop()
            self._tell()

    def leave_for(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a function for a helper; where the queue stops meanwhile it does not return."""
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

    def finish(self) -> None:
        """Wait until all bands are done or, if the queue has stopped, no helper is at work."""
        self._tell()
        self._wait_for(len(self._done))
        self._wait_until(lambda: not self._helping)
        # The call of a helper that comes late must not keep arrays alive.
        self._bands = []

    def _wait_for(self, count: int) -> bool:
        """Wait until the first `count` bands are done; False where the queue stops before."""

        def ready() -> bool:
            return self.stopped or not 0 <= self._done.find(0) < count

        self._wait_until(ready)
        return not self.stopped

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        if ready():
            return
        changed: SimpleQueue[None] = SimpleQueue()
        self._waiting.append(changed)
        # Asked again now that it is in the list: what changes from here on is told.
        while not ready():
            with suppress(Empty):
                changed.get(timeout=_LOOK_AGAIN)
        self._waiting.remove(changed)

    def _tell(self) -> None:
        for changed in self._waiting.copy():
            changed.put(None)


class _Helpers:
    """Threads that wait for calls, one more than there is work for.

    Helpers start each other: one that leaves nobody waiting when it begins to work starts
    the next. They are not joined when the interpreter exits.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._started = False
        self._lock = threading.Lock()
        """Of the numbers below, which belong to the helpers."""
        self._count = 1
        self._waiting = 0

    def call(self, function: Callable[[], None], times: int) -> None:
        """Have so many helpers call a function that raises nothing; does not wait for them.

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
    """The CPUs the caller may use less the one it is on; None where that is not known.

    Left to itself, Linux likes to wake a helper on the CPU of its caller, who does not
    let go of it until the work is done. The forward pass of a 4 s clip took 7.7 ms so
    after a pause, and takes 5.0 ms with the helper kept off that CPU (two cores).
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
    # PyDLL: the call is too short to let go of the GIL for.
    return getattr(ctypes.PyDLL(None), "sched_getcpu", None)


_current_cpu = _find_current_cpu()
_thread = threading.local()


def _forget_helpers() -> None:
    """After fork the child has none of the threads."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helpers)
