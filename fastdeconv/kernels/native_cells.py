"""Lists of the values that an unpooled lane tensor has, for the native kernels.

They are made once for all features, from switches and gates: csrc/fastdeconv.h (fd_source) says
what they hold.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from . import native  # type: ignore[attr-defined, unused-ignore]
from .interface import FloatArray, Pair
from .lanes import Source, cached, shared_windows
from .native_shared import COPY, Chain, enough_threads, kernels, run_rows
from .schedule import band_edges

__all__ = ["Cells", "cells_of", "links_of", "without_zeros"]

_INT = np.dtype(np.int32)

Cells = tuple[NDArray[np.int32], NDArray[np.int32], Pair]
"""(order, first) of fd_source, and the row and column in them where a source begins."""


def cells_of(source: Source, num_threads: int) -> Cells:
    """The lists of a source; made once, and kept with the source."""
    order, first = cached(source.cache, "cells", lambda: _sort_cells(source, num_threads))
    return order, first, source.origin


def _sort_cells(
    source: Source, num_threads: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The cells of the whole map, whatever part of it the source is."""
    if source.open_places is not None:
        return _spread_cells(source, source.open_places)
    gate = links_of(source, num_threads)[1] if source.pool.overlapping else source.gate
    whole = source.switches if gate is None else gate
    channels, (kh, kw) = source.channels, source.pool.kernel
    if whole is None:
        order = np.zeros(channels + native.LIST_ROOM, np.int32)
        order[:channels] = np.arange(channels)
        return order, np.array([0, channels], np.int32)
    order, first = _empty_cells(whole.shape[:2], channels, kh * kw)
    run_rows(
        native.SortCells(kernels(), source.switches, gate, channels, kh * kw, order, first),
        math.prod(whole.shape[:2]), enough_threads(num_threads, order.size * COPY),
        largest=256,
    )
    return order, first


def _spread_cells(
    source: Source, places: NDArray[np.uint8]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The cells of a tensor whose values go to every open place of their window."""
    (kh, kw), channels = source.pool.kernel, source.channels
    h, w = places.shape[0] // kh, places.shape[1] // kw
    windows = places[: h * kh, : w * kw].reshape(h, kh, w, kw, channels).swapaxes(1, 2)
    windows = windows.reshape(h * w, kh * kw, channels)
    first = np.zeros((h, w, kh * kw + 1), np.int32)
    np.cumsum(windows.sum(axis=2, dtype=np.int32).reshape(h, w, -1), axis=2, out=first[:, :, 1:])
    most = kh * kw * channels
    order = np.zeros(h * w * most + native.LIST_ROOM, np.int32)
    cell, _, channel = np.nonzero(windows)
    counts = first[:, :, -1].ravel()
    rank = np.arange(len(cell)) - np.repeat(np.cumsum(counts) - counts, counts)
    order[cell * most + rank] = channel
    return order, first


def links_of(source: Source, num_threads: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Where windows overlap: for each cell and channel the next cell that sends the channel to the
    same place (-1: none), and whether the cell is the first one that does."""
    links: tuple[NDArray[np.int32], NDArray[np.uint8]] = cached(
        source.cache, "links", lambda: _link_cells(source, num_threads)
    )
    return links


def _link_cells(
    source: Source, num_threads: int
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    assert source.switches is not None
    h, w = source.switches.shape[:2]
    following = np.empty((h, w, source.channels), np.int32)
    is_first = np.empty(following.shape, np.uint8)
    high, wide = (shared_windows(source.pool, axis) for axis in (0, 1))
    run_rows(
        native.LinkCells(
            source.switches, source.gate, source.channels, source.pool.kernel[1], high, wide,
            following, is_first,
        ),
        h, enough_threads(num_threads, following.size * COPY),
    )
    return following, is_first


def _empty_cells(
    size: Pair, channels: int, places: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    # Not np.zeros: its memory is new to the process, and every page of it costs a page fault. What
    # is behind the last cell is read as channels, though not used.
    order = np.empty(math.prod(size) * channels + native.LIST_ROOM, np.int32)
    order[-native.LIST_ROOM :] = 0
    return order, np.empty((*size, places + 1), np.int32)


def without_zeros(
    source: Source, cells: Cells, v: FloatArray, num_threads: int, chain: Chain
) -> Cells:
    """The lists for a single feature, `v` (H, W, 1, C), without the values that are 0.

    Adding 0 changes no sum. This is for the dense product; csrc/sparse.h leaves zeros
    out by itself. The lists are made when the chain runs, after the jobs that fill `v`.
    """
    places, values = math.prod(source.pool.kernel), math.prod(v.shape)
    order = chain.room((values + native.LIST_ROOM,), _INT)
    first = chain.room((*source.cells, places + 1), _INT)
    rows, threads = source.cells[0], enough_threads(num_threads, values * COPY)
    chain.add(
        native.FilterCells(source, cells, v, order, first), band_edges(rows, threads), threads
    )
    return order, first, (0, 0)
