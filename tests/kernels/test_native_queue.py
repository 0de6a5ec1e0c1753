"""The queue in C that hands out the bands of native jobs."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import subprocess
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdeconv.kernels import schedule

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "csrc" / "schedule.c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
FLAGS = ["-std=gnu11", "-O2", "-g", "-pthread", f"-I{ROOT / 'csrc'}"]

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


def compiled(*arguments: str) -> None:
    assert COMPILER is not None
    subprocess.run([COMPILER, *FLAGS, *arguments], check=True)


# ---- the unit by itself, with bands in Python ----

Run = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)


class CStage(ctypes.Structure):
    """As fd_stage."""

    _fields_ = (
        ("run", Run), ("job", ctypes.c_void_p), ("bands", ctypes.c_int),
        ("edges", ctypes.POINTER(ctypes.c_int32)), ("needs", ctypes.POINTER(ctypes.c_int32)),
    )


class Stage:
    """Bands of a Python function, which returns 0."""

    def __init__(
        self, bands: int, work: Callable[[int], int], needs: list[int] | None = None
    ) -> None:
        self.run = Run(lambda job, begin, end: work(begin))
        self.edges = (ctypes.c_int32 * (bands + 1))(*range(bands + 1))
        self.needs = None if needs is None else (ctypes.c_int32 * bands)(*needs)
        self.c = CStage(self.run, None, bands, self.edges, self.needs)


class Unit:
    """csrc/schedule.c as a library."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.fd_queue_new.restype = ctypes.c_void_p

    def run(self, stages: list[Stage], num_threads: int) -> bool:
        """Whether no band failed."""
        # The queue does not copy them.
        array = (CStage * len(stages))(*(stage.c for stage in stages))
        queue = ctypes.c_void_p(self.c.fd_queue_new(array, len(stages)))

        def work(stay: int) -> None:
            while self.c.fd_queue_work(queue, stay, ctypes.c_long(500)):
                pass

        with ThreadPoolExecutor(num_threads) as threads:
            for _ in range(num_threads - 1):
                threads.submit(work, 0)
            work(1)
            failed = self.c.fd_queue_failed(queue)
        self.c.fd_queue_free(queue)
        return not failed


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Unit:
    library = tmp_path_factory.mktemp("queue") / "schedule.so"
    compiled("-shared", "-fPIC", str(UNIT), "-o", str(library))
    return Unit(library)


@st.composite
def stages_of_bands(draw: st.DrawFn) -> tuple[list[int], list[list[int] | None]]:
    """Numbers of bands, and for each band how many of the stages before it waits for."""
    counts = draw(st.lists(st.integers(0, 6), max_size=5))
    waits: list[list[int] | None] = [None] * len(counts)
    for s in range(1, len(counts)):
        wait = st.integers(0, sum(counts[:s]))
        waits[s] = draw(st.none() | st.lists(wait, min_size=counts[s], max_size=counts[s]))
    return counts, waits


@needs_compiler
@settings(max_examples=60, deadline=None)
@given(drawn=stages_of_bands(), num_threads=st.integers(1, 4), slow=st.integers(0, 5))
def test_a_band_begins_when_all_it_waits_for_are_done(
    unit: Unit, drawn: Any, num_threads: int, slow: int
) -> None:
    counts, waits = drawn
    done: list[tuple[int, int]] = []
    early: list[Any] = []

    def stage(s: int) -> Stage:
        def work(i: int) -> int:
            if waits[s] is not None:
                bands = [(e, j) for e in range(s) for j in range(counts[e])]
                early.extend(set(bands[: waits[s][i]]) - set(done))
            if i == slow:
                time.sleep(1e-3)
            done.append((s, i))
            return 0

        return Stage(counts[s], work, waits[s])

    assert unit.run([stage(s) for s in range(len(counts))], num_threads)
    assert not early
    assert sorted(done) == [(s, i) for s, n in enumerate(counts) for i in range(n)]


@needs_compiler
def test_one_thread_takes_the_bands_in_order(unit: Unit) -> None:
    calls: list[tuple[int, int]] = []

    def stage(s: int, bands: int, needs: list[int] | None) -> Stage:
        return Stage(bands, lambda i: calls.append((s, i)) or 0, needs)  # type: ignore[func-returns-value]

    assert unit.run([stage(0, 3, None), stage(1, 0, None), stage(2, 2, [1, 3])], 1)
    assert calls == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]


@needs_compiler
@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_band_that_fails_ends_the_wait_for_it_and_all_that_follows(
    unit: Unit, num_threads: int
) -> None:
    done: list[int] = []

    def first(i: int) -> int:
        time.sleep(0.02)  # meanwhile the others wait
        return -(i == 1)

    assert not unit.run([Stage(2, first), Stage(9, lambda i: done.append(i) or 0, [2] * 9)],  # type: ignore[func-returns-value]
                        num_threads)
    assert not done


@needs_compiler
def test_no_race_is_found(tmp_path: Path) -> None:
    """By ThreadSanitizer, in queues of all kinds on several threads."""
    check = tmp_path / "check"
    try:
        compiled("-fsanitize=thread", str(UNIT), str(Path(__file__).with_name("queue_check.c")),
                 "-o", str(check))
    except subprocess.CalledProcessError:
        pytest.skip("no ThreadSanitizer")
    # What this process was started with may not go together with ThreadSanitizer.
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    found = subprocess.run(
        [check], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    if "unexpected memory mapping" in found.stderr:
        pytest.skip("ThreadSanitizer does not run on this kernel")
    assert (found.returncode, found.stdout, found.stderr) == (0, "done\n", "")


# ---- native jobs on the shared threads ----

native = pytest.importorskip("fastdeconv.kernels.native")
SHAPE = (3, 400, 40)


class Copy:
    """Planes to channels last, row by row."""

    def __init__(self) -> None:
        table = next(iter(native.tables().values()))
        self.planes = np.random.default_rng(0).random(SHAPE, np.float32)
        self.out = np.zeros((*SHAPE[1:], SHAPE[0]), np.float32)
        self.job = native.ToChannels(table, self.planes, self.out, 0, 0)

    def run(self, helpers: int) -> None:
        edges = np.arange(SHAPE[1] + 1, dtype=np.int32)
        schedule.share(native.Queue([(self.job, edges, None)]), helpers)

    def is_done(self) -> bool:
        return bool((self.out == self.planes.transpose(1, 2, 0)).all())


@pytest.mark.parametrize("helpers", [0, 1, 4])
def test_all_rows_are_done_whoever_helps(helpers: int) -> None:
    copy = Copy()
    copy.run(helpers)
    assert copy.is_done()


def test_many_callers_at_once_inside_bands_of_others() -> None:
    def call(i: int) -> None:
        copy = Copy()
        copy.run(3)
        assert copy.is_done()

    with ThreadPoolExecutor(8) as callers:
        for _ in callers.map(lambda i: schedule.run_bands(4, call, 3), range(20)):
            pass


def test_a_call_that_is_interrupted_anywhere_leaves_nothing_at_work(
    interrupt_everywhere: Callable[..., None],
) -> None:
    copy = Copy()

    def check(interrupted: bool) -> None:
        assert interrupted or copy.is_done()
        copy.out[:] = 0
        time.sleep(2e-4)
        assert not copy.out.any()

    interrupt_everywhere(lambda: copy.run(2), check)


def test_a_signal_ends_a_call_before_all_its_bands_are_done() -> None:
    """And what the call worked on can be used again as soon as it has ended."""
    import _thread

    table = next(iter(native.tables().values()))
    planes = np.ones((16, 200, 500), np.float32)
    out, last = (np.zeros((200, 500, 16), np.float32) for _ in range(2))
    edges = np.array([0, *([200, 0] * 30_000)], np.int32)  # all rows, again and again
    job = native.ToChannels(table, planes, out, 0, 0), edges, None
    # One more band, which waits for all of them.
    waits = np.array([len(edges) - 1], np.int32)
    after = native.ToChannels(table, planes, last, 0, 0), np.array([0, 200], np.int32), waits

    def interrupt() -> None:
        while not out.any():  # the call has not begun
            time.sleep(1e-3)
        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        schedule.share(native.Queue([job, after]), 1)
    planes[:] = 2
    assert not last.any()
    assert (out <= 1).all()


def test_what_jobs_worked_on_is_let_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # The helper is called, and never comes.
    monkeypatch.setattr(schedule, "start_new_thread", lambda *args: 0)
    monkeypatch.setattr(schedule, "_helpers", schedule._Helpers())
    copy = Copy()
    alive = weakref.ref(copy.out)
    copy.run(1)
    assert schedule._helpers._calls.qsize() == 1
    del copy
    gc.collect()
    assert alive() is None


def test_a_band_may_not_wait_for_one_that_is_handed_out_later() -> None:
    copy = Copy()
    edges = np.arange(3, dtype=np.int32)
    for needs, fits in (([0, 1], True), ([1, 0], False), ([0, 2], False)):
        stage = copy.job, edges, np.array(needs, np.int32)
        if fits:
            native.Queue([stage])
        else:
            with pytest.raises(ValueError, match="handed out later"):
                native.Queue([stage])


def test_a_job_knows_its_arrays_when_it_is_told_them() -> None:
    table = next(iter(native.tables().values()))
    planes = native.Place(1, 0, SHAPE, np.dtype(np.float32))
    out = native.Place(0, 64, (*SHAPE[1:], SHAPE[0]), np.dtype(np.float32))
    job = native.ToChannels(table, planes, out, 0, 0)
    for seed in range(2):
        given_planes = np.random.default_rng(seed).random(SHAPE, np.float32)
        arrays = [np.zeros(64 + given_planes.nbytes, np.uint8), given_planes]
        (bound,) = native.bound([job], arrays)
        bound(0, SHAPE[1])
        np.testing.assert_array_equal(out.of(arrays), given_planes.transpose(1, 2, 0))
        assert not arrays[0][:64].any()
