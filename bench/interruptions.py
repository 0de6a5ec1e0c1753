"""A call that does not follow the one before: after another library's threads, after a pause.

Every library keeps its threads spinning for a while when it is done, on the processors of
whoever comes next, and a pause lets threads and processors fall asleep. Each interruption comes
right before every timed call; the reference is the same call in a loop of its own, in the same
round.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

import fastdeconv as fd

from . import workload
from .measure import Times
from .report import Report, number, spread
from .sections import Options
from .workload import Work

LOOP = "in a loop"
PAUSES = (1, 10, 100)
"""Milliseconds."""
CALLS = 8
"""Of a work after an interruption, in each round; the median counts."""
BUSY = 4e-3
"""Seconds that another library is busy before a call."""


class _Work(NamedTuple):
    name: str
    run: Callable[[], object]


class _Interruption(NamedTuple):
    name: str
    come: Callable[[], object]


def interruptions(report: Report, options: Options) -> None:
    """Ratios to the same call in a loop."""
    report.heading("After another library, after a pause")
    work = workload.paper()
    works, others = list(_works(work, options.threads)), list(_others(work, options.threads))
    report.paragraph(
        "A call right after another library has worked on all threads for "
        f"{1e3 * BUSY:.0f} ms, or after a pause, divided by the same call in a loop of its own in "
        f"the same round: medians of {CALLS} calls, over the rounds [quartiles]. Behind PyTorch "
        "come the threads of its OpenMP, which go on spinning when it is done; ONNX Runtime's "
        "spin, too, here by its defaults. Products of NumPy are those of its BLAS."
    )
    rows = []
    for one in works:
        times = _timed(one, others, options.rounds)
        for name in times:
            if name == LOOP:
                rows.append((one.name, name, spread(times.spread(name)), "1"))
                continue
            ratio = times.ratio(name, LOOP)
            rows.append(("", name, spread(times.spread(name)), spread(ratio)))
            report.figures[f"{one.name}, {name}, over in a loop"] = f"{number(ratio.middle)}x"
    report.table(("", "called", "ms [quartiles]", "ratio to in a loop"), rows)


def _works(work: Work, threads: int) -> Iterator[_Work]:
    yield _Work("forward", lambda: work.network.forward(work.x))
    layer = work.stages[1].top
    yield _Work("layer 2, 64 features", lambda: fd.deconvolve(work.trace, layer))
    run = _onnxruntime(work, threads)
    if run is not None:
        yield _Work("ONNX Runtime's forward, no switches", run)


def _others(work: Work, threads: int) -> Iterator[_Interruption]:
    try:
        import torch
    except ImportError:
        pass
    else:
        tensor = torch.ones(256, 256)
        yield _Interruption("after PyTorch", lambda: _busy(lambda: tensor @ tensor))
    run = _onnxruntime(work, threads)
    if run is not None:
        yield _Interruption("after ONNX Runtime", lambda: _busy(run))
    array = np.ones((256, 256), np.float32)
    yield _Interruption("after NumPy's products", lambda: _busy(lambda: array @ array))
    for milliseconds in PAUSES:
        yield _Interruption(
            f"after {milliseconds} ms", functools.partial(time.sleep, 1e-3 * milliseconds)
        )


def _busy(run: Callable[[], object]) -> None:
    end = time.perf_counter() + BUSY
    while time.perf_counter() < end:
        run()


def _onnxruntime(work: Work, threads: int) -> Callable[[], object] | None:
    """A session of its own, whose threads spin as they do by default."""
    try:
        from .peers import onnxruntime_peer
    except ImportError:
        return None
    session = onnxruntime_peer.activations(work, threads, spinning=True)
    feed = {"x": work.x[None]}
    return lambda: session.run(None, feed)


def _timed(work: _Work, others: list[_Interruption], rounds: int) -> Times:
    found: dict[str, list[float]] = {LOOP: [], **{other.name: [] for other in others}}
    for _ in range(rounds):
        time.sleep(0.05)  # until nobody spins any more
        found[LOOP].append(_median(work, lambda: None))
        for other in others:
            time.sleep(0.05)
            found[other.name].append(_median(work, other.come))
    return Times({name: np.array(seconds) for name, seconds in found.items()})


def _median(work: _Work, come: Callable[[], object]) -> float:
    """Of the calls but the first."""
    took = []
    for _ in range(1 + CALLS):
        come()
        begin = time.perf_counter()
        work.run()
        took.append(time.perf_counter() - begin)
    return float(np.median(took[1:]))
