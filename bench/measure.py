"""How anything here is timed: contenders take turns, round after round, in one process.

A noisy machine disturbs all alike that way. A turn lasts at least 50 ms and the median of
its runs but the first counts, as that one would tell who came before: PyTorch's idle threads
go on spinning for some 5 ms, on the processors of whoever comes next, and what is in the
caches is somebody else's. Ratios are taken within a round.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parent.parent
TURN = 0.05


@dataclass(frozen=True)
class Contender:
    """One who does the work; `work` is one run of it."""

    name: str
    work: Callable[[], Any]
    how: str = ""
    """how it is used, for the report"""
    whole: float = 1.0
    """the whole work is this many runs (where all of it would take too long)"""
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    """settings to hold during its turn"""
    read: Callable[[Any], Any] = lambda result: result
    """what a run returned, in the form that is compared with ours"""
    tolerance: float = 1e-5
    """largest difference from our maps, of their largest value"""


class Spread(NamedTuple):
    """Median and quartiles."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        return cls(*(float(v) for v in np.percentile(values, [25, 50, 75])))


class Times(dict[str, np.ndarray]):
    """Seconds of every contender, one number a round."""

    def spread(self, name: str) -> Spread:
        """Of the milliseconds."""
        return Spread.of(1e3 * self[name])

    def ratio(self, name: str, to: str) -> Spread:
        """Of the time of `name` over the time of `to` in the same round."""
        return Spread.of(self[name] / self[to])


def interleave(contenders: Iterable[Contender], rounds: int) -> Times:
    """Let contenders take turns; each warms up once before."""
    contenders = list(contenders)
    times: dict[str, list[float]] = {c.name: [] for c in contenders}
    for c in contenders:
        with c.around():
            c.work()
    for _ in range(rounds):
        for c in contenders:
            with c.around():
                times[c.name].append(c.whole * _turn(c.work))
    return Times({name: np.array(t) for name, t in times.items()})


def _turn(work: Callable[[], object]) -> float:
    first = _seconds(work)
    if first > 4 * TURN:
        return first  # so long that what came before does not matter
    runs = [_seconds(work)]
    while sum(runs) < TURN:
        runs.append(_seconds(work))
    return float(np.median(runs))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, so that no contender pays for page faults again."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold, never = -1, -3, -1
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, never)


def fresh_process(module: str, *arguments: object, **environment: str) -> Any:
    """What ``python -m bench.<module> ARGUMENTS`` prints, read as JSON."""
    run = subprocess.run(
        [sys.executable, "-m", f"bench.{module}", *map(str, arguments)],
        check=True, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment,
    )
    return json.loads(run.stdout.splitlines()[-1])
