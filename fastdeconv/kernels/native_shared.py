"""What the parts of the native back end share: the kernels in use, lane tensors, bands of work."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import native  # type: ignore[attr-defined, unused-ignore]
from .dispatch import get_isa
from .interface import FloatArray
from .lanes import aligned_zeros
from .schedule import band_edges, run_bands

__all__ = [
    "ADD",
    "COPY",
    "SPLIT",
    "Lanes",
    "enough_threads",
    "kernels",
    "pad_last",
    "run_edges",
    "run_rows",
]

SPLIT = 16_000_000
"""Multiply-adds worth a thread: some 0.15 ms."""

COPY = 64
"""Multiply-adds in the time one value is copied to another layout,"""

ADD = 16
"""and in the time one is read and added."""

_TABLES: dict[str, Any] = native.tables()


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


def enough_threads(num_threads: int, multiply_adds: int) -> int:
    """At most `num_threads`: a small job is done before another thread has woken up."""
    return min(num_threads, 1 + multiply_adds // SPLIT)


def run_rows(work: Any, rows: int, num_threads: int, *, largest: int = 8) -> None:
    run_edges(work, band_edges(rows, num_threads, largest=largest), num_threads)


def run_edges(work: Any, edges: list[int], num_threads: int) -> None:
    run_bands(len(edges) - 1, lambda i: work(edges[i], edges[i + 1]), num_threads)


def pad_last(array: FloatArray, width: int) -> FloatArray:
    size = array.shape[-1]
    padded = aligned_zeros((*array.shape[:-1], -(-size // width) * width))
    padded[..., :size] = array
    return padded
