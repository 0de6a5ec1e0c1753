"""Blocks of the forward pass as stages of bands, and the bands that each band waits for.

Threads do not wait for one another after every block. A band of the next block begins as soon as
the rows that its windows read are there.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .interface import Window
from .native_shared import Stage
from .schedule import band_edges, copy_edges

__all__ = ["CHANNELS", "BlockStages", "Reach"]

CHANNELS = 2
"""The axis of an activation that is computed in ranges of channels. Such a range needs all of the
input, and what takes the activation needs all ranges."""

Reach = tuple[tuple[Window, int], ...]
"""The windows between an input and a result, along one axis; the last one comes first.

Each stands with the number of rows (or columns) that it slides over. Empty: row i of the result
reads row i of the input."""


class _Filled(NamedTuple):
    """How an activation is filled."""

    before: int
    """The number of bands before its own ones."""
    axis: int
    """0: row by row. 1: column by column. Or `CHANNELS`."""
    edges: tuple[int, ...]
    """Where along the axis its bands begin or end."""


class BlockStages:
    """The jobs that fill the activations of a pass, as stages of bands."""

    def __init__(self, num_threads: int) -> None:
        self._threads = num_threads
        self._bands = 0
        self._filled: dict[int, _Filled] = {}
        """The activations filled by these stages, by key."""
        self.all: list[Stage] = []

    def add_copy(self, key: int, job: Any, rows: int) -> None:
        """Add a job that copies an input, row by row."""
        edges = copy_edges(rows, self._threads)
        self._add(key, job, edges, _Filled(self._bands, 0, tuple(edges)), None)

    def add(
        self, key: int, job: Any, size: int, axis: int, unit: int, sources: Sequence[int],
        reach: Reach, smallest: int = 1,
    ) -> None:
        """Add a job that computes an activation from others, in units of rows (or columns).

        No band is smaller than `smallest` units, except the last one. Where the axis is `CHANNELS`,
        bands are ranges of channels, and `size` counts the units in which they are computed.
        """
        edges, done = _edges(size, unit, self._threads, smallest)
        needs: list[int] | None = None
        for source in sources:
            if source not in self._filled:
                continue  # it is there before the pass begins
            filled = self._filled[source]
            if filled.axis == axis != CHANNELS:
                waits = _waits(done, reach, axis, filled.edges)
            else:
                waits = [len(filled.edges) - 1] * (len(edges) - 1)
            waits = [filled.before + n for n in waits]
            needs = waits if needs is None else [*map(max, needs, waits)]
        self._add(key, job, edges, _Filled(self._bands, axis, done), needs)

    def _add(
        self, key: int, job: Any, edges: Sequence[int], filled: _Filled,
        needs: Sequence[int] | None,
    ) -> None:
        self.all.append(Stage(
            job, np.array(edges, np.int32), None if needs is None else np.array(needs, np.int32)
        ))
        self._filled[key] = filled
        self._bands += len(edges) - 1


@functools.lru_cache(maxsize=256)
def _edges(
    size: int, unit: int, num_threads: int, smallest: int
) -> tuple[Sequence[int], tuple[int, ...]]:
    """The edges of the bands, in units, and in rows or columns."""
    edges = band_edges(-(-size // unit), num_threads, smallest=smallest)
    return edges, tuple(min(unit * edge, size) for edge in edges)


@functools.lru_cache(maxsize=256)
def _waits(
    done: tuple[int, ...], reach: Reach, axis: int, before: tuple[int, ...]
) -> list[int]:
    """For every band: how many bands of an input, whose edges are `before`, it waits for."""
    waits = []
    for wanted in done[1:]:
        for window, size in reach:
            wanted = min(size, _wanted(wanted, window, axis))
        # At least one band: the first one also sets the zeros before it.
        waits.append(max(1, bisect_left(before, min(before[-1], wanted))))
    return waits


def _wanted(count: int, window: Window, axis: int) -> int:
    """How many rows (or columns) of the input the first `count` of the output read."""
    reach = (count - 1) * window.stride[axis] + window.extent[axis]
    return max(0, reach - window.padding[axis][0])
