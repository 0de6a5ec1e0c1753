"""What the parts of the native back end share: the kernels in use, lane tensors, bands of work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import native  # type: ignore[attr-defined, unused-ignore]
from .dispatch import get_isa, usable_cpus
from .interface import FloatArray
from .lanes import aligned_zeros
from .schedule import band_edges, share

__all__ = [
    "ADD",
    "COPY",
    "SPLIT",
    "Lanes",
    "Stage",
    "enough_threads",
    "kernels",
    "pad_last",
    "run_edges",
    "run_rows",
    "run_stages",
]

SPLIT = 16_000_000
"""Multiply-adds worth a thread: some 0.15 ms."""

COPY = 64
"""Multiply-adds in the time one value is copied to another layout,"""

ADD = 16
"""and in the time one is read and added."""

_TABLES: dict[str, Any] = native.tables() | native.tables_on_request()


class Lanes(NamedTuple):
    """A lane tensor."""

    values: FloatArray
    """(H, W, C, lanes), lanes in whole vectors; `by_feature`: (H, W, lanes, C), one a feature"""
    lanes: int
    by_feature: bool
    rectified: bool
    """Whether many of the values are zero."""
    sums: FloatArray | None = None
    """Of every row, as `Post.counts` asked for them."""


def kernels() -> Any:
    """The kernels of the instruction set in use."""
    return _TABLES[get_isa()]


class Stage(NamedTuple):
    """Bands of a job, some of which may want results of stages before."""

    job: Any
    """A ``native.Job``."""
    edges: NDArray[np.int32]
    """Band i works on what lies between edges[i] and edges[i + 1]."""
    needs: NDArray[np.int32] | None = None
    """For how many bands, counted from the first one of the first stage, band i waits; None: for
    none."""


def enough_threads(num_threads: int, multiply_adds: int) -> int:
    """At most `num_threads`: a small job is done before another thread has woken up.

    More threads than CPUs would only keep each other waiting: no kernel waits for anything else.
    """
    return min(num_threads, usable_cpus(), 1 + multiply_adds // SPLIT)


def run_stages(stages: Sequence[Stage], num_threads: int) -> None:
    """One stage after the other, without waiting for all of a stage to end."""
    queue = native.Queue(stages)
    share(queue, min(queue.most, num_threads, usable_cpus()) - 1)


def run_rows(job: Any, rows: int, num_threads: int, *, largest: int = 8) -> None:
    """The rows of a job, in bands of about the same size."""
    run_edges(job, band_edges(rows, num_threads, largest=largest), num_threads)


def run_edges(job: Any, edges: Sequence[int], num_threads: int) -> None:
    """A job in bands."""
    run_stages([Stage(job, np.array(edges, np.int32))], num_threads)


def pad_last(array: FloatArray, width: int) -> FloatArray:
    size = array.shape[-1]
    padded = aligned_zeros((*array.shape[:-1], -(-size // width) * width))
    padded[..., :size] = array
    return padded
