"""Blocks of the forward pass as stages: which rows of one a band of the next waits for.

Threads do not meet after a block: a band of the next one begins as soon as the rows that its
windows reach are there.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable, Sequence

from .blocks import ForwardBlock
from .interface import Window
from .schedule import Stage, band_edges, copy_edges

__all__ = ["BlockStages", "Work"]

Work = Callable[[int, int], None]
"""Does a range of rows."""


class BlockStages:
    """What fills activations, each from the one before, as stages of bands."""

    def __init__(self, num_threads: int) -> None:
        self._threads = num_threads
        self._edges: tuple[int, ...] | None = None
        """Rows of the last activation where bands begin or end; None if it is there."""
        self.all: list[Stage] = []

    def add_copy(self, work: Work, rows: int) -> None:
        """What copies the input, row by row."""
        edges = copy_edges(rows, self._threads)
        self._add(work, edges, tuple(edges), None)

    def add_block(self, work: Work, unit: int, block: ForwardBlock) -> None:
        """What computes `block`, so many rows of its result a unit of work."""
        pool = block.pool[0] if block.pool else None
        self._add(work, *_block_bands(
            block.shape[1], unit, block.window, block.out_size[0], pool, self._edges,
            self._threads,
        ))

    def _add(
        self, work: Work, edges: Sequence[int], rows: tuple[int, ...],
        before: Sequence[int] | None,
    ) -> None:
        def band(i: int) -> None:
            work(edges[i], edges[i + 1])

        self.all.append(Stage(len(edges) - 1, band, before))
        self._edges = rows


_Bands = tuple[Sequence[int], tuple[int, ...], "Sequence[int] | None"]
"""Where bands begin or end, in units and in rows, and `Stage.before`."""


@functools.lru_cache(maxsize=64)
def _block_bands(
    rows: int, unit: int, window: Window, conv_rows: int, pool: Window | None,
    before: tuple[int, ...] | None, num_threads: int,
) -> _Bands:
    """Bands of so many rows a unit, and how many of those `before` each one waits for."""
    edges = band_edges(-(-rows // unit), num_threads)
    ends = [unit * edge for edge in edges]
    done = tuple(min(end, rows) for end in ends)
    if before is None:
        return edges, done, None
    waits = []
    for end in ends[1:]:
        wanted = end if pool is None else min(conv_rows, _rows_wanted(end, pool))
        waits.append(bisect_left(before, min(before[-1], _rows_wanted(wanted, window))))
    return edges, done, waits


def _rows_wanted(rows: int, window: Window) -> int:
    """Rows a window's first so many output rows want, without padding above."""
    reach = (window.kernel[0] - 1) * window.dilation[0] + 1
    return max(0, (rows - 1) * window.stride[0] + reach - window.padding[0][0])
