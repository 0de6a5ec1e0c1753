"""Bands of work on the shared threads."""

from __future__ import annotations

import _thread
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdeconv.kernels import schedule
from fastdeconv.kernels.schedule import (
    band_edges,
    copy_edges,
    run_bands,
    run_undisturbed,
    shrinking_edges,
)

WAIT = 20
"""Seconds after which a test that waits for a thread gives up."""


@pytest.mark.parametrize("num_threads", [1, 2, 5, 100])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 500])
def test_every_band_is_called_once(count, num_threads):
    calls: list[int] = []
    run_bands(count, calls.append, num_threads)
    assert sorted(calls) == list(range(count))


def test_one_thread_means_the_caller_in_order():
    calls: list[tuple[int, int]] = []
    run_bands(5, lambda i: calls.append((i, threading.get_ident())), 1)
    assert calls == [(i, threading.get_ident()) for i in range(5)]


@pytest.mark.parametrize("num_threads", [2, 4])
def test_so_many_threads_work_at_once_the_caller_among_them(num_threads):
    # Only when all meet does any go on.
    meeting, idents = threading.Barrier(num_threads, timeout=WAIT), set()

    def work(i: int) -> None:
        idents.add(threading.get_ident())
        meeting.wait()

    run_bands(num_threads, work, num_threads)
    assert len(idents) == num_threads and threading.get_ident() in idents


def test_no_more_threads_than_asked_for():
    running, most, lock = 0, 0, threading.Lock()

    def work(i: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    run_bands(300, work, 3)
    assert most <= 3


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_of_a_band_is_raised_and_later_calls_work(num_threads, error):
    calls: list[int] = []

    def work(i: int) -> None:
        calls.append(i)
        if i == 3:
            raise error("band 3")

    with pytest.raises(error, match="band 3"):
        run_bands(1000, work, num_threads)
    assert len(calls) < 1000
    test_every_band_is_called_once(500, num_threads)


def test_an_exception_in_a_helper_is_raised_in_the_caller():
    caller, meeting = threading.get_ident(), threading.Barrier(2, timeout=WAIT)

    def work(i: int) -> None:
        meeting.wait()
        if threading.get_ident() != caller:
            raise LookupError("in a helper")

    with pytest.raises(LookupError, match="in a helper"):
        run_bands(2, work, 2)


def test_an_exception_in_the_caller_waits_for_the_helpers_bands():
    caller, meeting = threading.get_ident(), threading.Barrier(2, timeout=WAIT)
    left, finished = threading.Event(), []

    def work(i: int) -> None:
        meeting.wait()
        if threading.get_ident() == caller:
            threading.Timer(0.05, left.set).start()
            raise KeyboardInterrupt
        left.wait(WAIT)
        finished.append(i)

    with pytest.raises(KeyboardInterrupt):
        run_bands(2, work, 2)
    assert len(finished) == 1


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two CPUs and a system that says which",
)
def test_helpers_keep_off_the_callers_cpu_and_leave_the_caller_alone():
    allowed, seen = os.sched_getaffinity(0), {}
    meeting = threading.Barrier(2, timeout=WAIT)

    def work(i):
        seen[threading.get_ident()] = os.sched_getaffinity(0)
        meeting.wait()

    run_bands(2, work, 2)
    assert seen.pop(threading.get_ident()) == allowed == os.sched_getaffinity(0)
    (helper,) = seen.values()
    assert helper < allowed
    assert len(helper) == len(allowed) - 1


def test_calls_nest():
    calls: list[tuple[int, int]] = []
    run_bands(6, lambda i: run_bands(6, lambda j: calls.append((i, j)), 3), 4)
    assert sorted(calls) == [(i, j) for i in range(6) for j in range(6)]


def test_calls_nest_deeper_than_there_are_helpers(monkeypatch):
    monkeypatch.setattr(schedule, "_MAX_HELPERS", 1)
    monkeypatch.setattr(schedule, "_helpers", schedule._Helpers())
    calls: list[int] = []

    def nested(depth: int) -> None:
        if depth == 0:
            calls.append(1)
        else:
            run_bands(2, lambda i: nested(depth - 1), 4)

    nested(7)
    assert len(calls) == 2**7


def test_many_callers_share_the_helpers():
    def call(n: int) -> int:
        calls: list[int] = []
        run_bands(n, calls.append, 4)
        return sum(calls)

    with ThreadPoolExecutor(12) as callers:
        assert list(callers.map(call, range(200))) == [n * (n - 1) // 2 for n in range(200)]


def test_what_the_bands_worked_on_is_let_go_at_once(monkeypatch):
    class Work:
        def __call__(self, i: int) -> None:
            pass

    # The helper is called, and never comes.
    monkeypatch.setattr(schedule, "start_new_thread", lambda *args: 0)
    monkeypatch.setattr(schedule, "_helpers", schedule._Helpers())
    work = Work()
    alive = weakref.ref(work)
    run_bands(10, work, 2)
    assert schedule._helpers._calls.qsize() == 1
    del work
    assert alive() is None


def refuse_to_start(*args: object) -> None:
    raise RuntimeError("can't start new thread")


def test_without_threads_the_caller_does_the_work(monkeypatch):
    monkeypatch.setattr(schedule, "start_new_thread", refuse_to_start)
    monkeypatch.setattr(schedule, "_helpers", schedule._Helpers())
    test_every_band_is_called_once(20, 4)


def test_an_exception_at_any_bytecode_of_the_caller_ends_the_call_and_no_more(
    interrupt_everywhere,
):
    caller = threading.get_ident()
    working: set[int] = set()
    done: list[int] = []

    def work(i: int) -> None:
        working.add(ident := threading.get_ident())
        # Helpers are at work when the caller is interrupted, or wait for its band.
        time.sleep(3e-4 if ident == caller else 1e-4)
        done.append(i)
        working.remove(ident)

    def check(interrupted: bool) -> None:
        assert not working
        assert interrupted or sorted(done) == [0, 1, 2, 3, 4]
        done.clear()

    interrupt_everywhere(lambda: run_bands(5, work, 3), check)


def test_run_undisturbed_returns_and_raises_what_the_function_does():
    assert run_undisturbed(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        run_undisturbed(divmod, 7, 0)


@pytest.mark.parametrize("threads_start", [True, False])
def test_run_undisturbed_leaves_the_main_thread_where_it_can(threads_start, monkeypatch):
    if not threads_start:
        monkeypatch.setattr(schedule, "start_new_thread", refuse_to_start)
    in_main = run_undisturbed(threading.get_ident) == threading.get_ident()
    assert in_main != threads_start


def test_an_exception_in_the_main_thread_waits_for_nobody_who_is_undisturbed():
    """Neither for the main thread's own function nor for that of a helper."""
    inside, may_end, over = threading.Semaphore(0), threading.Event(), threading.Semaphore(0)
    began: list[int] = []
    continued: list[int] = []

    def function(i: int) -> None:
        began.append(i)
        inside.release()
        assert may_end.wait(WAIT), f"nobody was interrupted; bands that began: {began}"
        over.release()

    def work(i: int) -> None:
        run_undisturbed(function, i)
        continued.append(i)

    def interrupt() -> None:
        if inside.acquire(timeout=WAIT) and inside.acquire(timeout=WAIT):
            _thread.interrupt_main()

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        run_bands(2, work, 2)
    other.join()
    may_end.set()
    for _ in range(2):
        assert over.acquire(timeout=WAIT)
    run_bands(4, lambda i: None, 2)
    assert not continued


def test_a_call_waits_for_the_band_of_a_helper_that_was_undisturbed():
    caller, meeting = threading.get_ident(), threading.Barrier(2, timeout=WAIT)
    may_end, done = threading.Event(), []

    def work(i: int) -> None:
        meeting.wait()
        if threading.get_ident() != caller:
            run_undisturbed(may_end.wait, WAIT)
            done.append(i)
        else:
            threading.Timer(0.05, may_end.set).start()  # meanwhile the caller has finished

    run_bands(2, work, 2)
    assert len(done) == 1


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(schedule.os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_threads_of_its_own():
    code = """
import os, sys, threading
from fastdeconv.kernels.schedule import run_bands
def meet():
    meeting = threading.Barrier(3, timeout=20)
    run_bands(3, lambda i: meeting.wait(), 3)
meet()
child = os.fork()
meet()
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print("parent and child")
"""
    assert run_python(code) == "parent and child\n"


def test_bands_run_while_the_interpreter_closes_down():
    code = """
import atexit
from fastdeconv.kernels.schedule import run_bands
run_bands(9, lambda i: None, 3)
def last():
    calls = []
    run_bands(9, calls.append, 3)
    print(sorted(calls) == list(range(9)))
atexit.register(last)
"""
    assert run_python(code) == "True\n"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer on this system")
@pytest.mark.parametrize("seconds", [3e-3, 2e-4], ids=["now and then", "often"])
def test_a_process_ends_after_its_calls_were_interrupted(seconds):
    code = f"""
import signal
from fastdeconv.kernels.schedule import run_bands
class Interrupt(BaseException):
    pass
def ring(signum, frame):
    while frame is not None and frame.f_code is not call.__code__:
        frame = frame.f_back
    if frame is not None:
        raise Interrupt
def call():
    calls = []
    run_bands(12, calls.append, 3)
    assert sorted(calls) == [*range(12)]
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, {seconds}, {seconds})
hits = 0
while hits < 100:
    try:
        call()
    except Interrupt:
        hits += 1
signal.signal(signal.SIGALRM, signal.SIG_IGN)
call()
print("done")
"""
    assert run_python(code) == "done\n"


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 64), st.integers(1, 4), st.integers(0, 12))
def test_edges_cut_all_rows_into_bands_within_their_limits(rows, num_threads, smallest, more):
    largest = smallest + more
    edges = band_edges(rows, num_threads, smallest=smallest, largest=largest)
    sizes = [b - a for a, b in itertools.pairwise(edges)]
    assert edges[0] == 0 and edges[-1] == rows
    assert all(smallest <= size <= largest for size in sizes[:-1])
    assert 1 <= sizes[-1] <= largest


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 64))
def test_copy_edges_cut_all_rows_into_few_bands_for_every_thread(rows, num_threads):
    edges = copy_edges(rows, num_threads)
    assert edges[0] == 0 and edges[-1] == rows
    assert edges == sorted(set(edges))
    assert min(rows, 2 * num_threads) <= len(edges) - 1 <= 4 * num_threads


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 3000), st.integers(1, 64))
def test_shrinking_edges_cut_all_rows_and_the_last_bands_are_small(rows, num_threads):
    edges = shrinking_edges(rows, num_threads)
    sizes = [b - a for a, b in itertools.pairwise(edges)]
    assert edges[0] == 0 and edges[-1] == rows
    assert sizes == sorted(sizes, reverse=True)
    assert all(1 <= size <= max(1, rows // (2 * num_threads)) for size in sizes)
    assert rows == 0 or sizes[-1] == 1
