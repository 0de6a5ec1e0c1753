"""Which features fire together: correlations of their maxima over all windows.

What is computed: Pearson's r of every pair of features, of one layer or of two. The values of a
feature are first rounded to whole numbers, from 0 for its smallest value to 2^b for its largest.
The number of bits b is such that products of two such numbers, and their sums over all windows, are
whole numbers below 2^53, which float64 holds exactly. So the result has the same bits in whatever
order they are added, with any BLAS and any number of threads. b is 17 for 100,000 windows and 13
for 30 million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .schema import TOGETHER_KEPT

__all__ = ["Pairs", "strongest_pairs"]

_MOST_BITS = 20
_EXACT_BITS = 52
_MOST_CELLS = 1 << 25
"""Correlations that are computed at a time: 256 MB."""

#: Goes through the maxima (windows, features) of all shards; called several times.
Shards = Callable[[], Iterable[NDArray[np.float32]]]


class Pairs(NamedTuple):
    """Pairs of features, by their index among all features, with their correlation."""

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    r: NDArray[np.float64]


def strongest_pairs(shards: Shards, features: int) -> Pairs:
    """For every feature the others with the highest correlation, the highest first."""
    low, high = np.full(features, np.inf), np.full(features, -np.inf)
    count = 0
    for maxima in shards():
        count += len(maxima)
        if len(maxima):
            low = np.minimum(low, maxima.min(axis=0))
            high = np.maximum(high, maxima.max(axis=0))
    bits = min(_MOST_BITS, (_EXACT_BITS - count.bit_length()) // 2)
    changes = high > low
    steps = np.zeros(features)
    np.divide(2.0**bits, high - low, out=steps, where=changes)
    low[~changes] = 0
    found: list[Pairs] = []
    at_once = max(1, _MOST_CELLS // max(1, features))
    for begin in range(0, features, at_once):
        block = slice(begin, min(features, begin + at_once))
        r = _correlations(shards, low, steps, count, block)
        found += [_strongest(row, begin + i) for i, row in enumerate(r)]
    return Pairs(*(np.concatenate(column) for column in zip(*found)))


def _correlations(
    shards: Shards, low: NDArray[np.float64], steps: NDArray[np.float64], count: int, block: slice
) -> NDArray[np.float64]:
    """Correlations of the features of a block with all; NaN for a constant feature."""
    features = len(low)
    products = np.zeros((block.stop - block.start, features))
    sums, squares = np.zeros(features), np.zeros(features)
    for maxima in shards():
        whole = np.rint((maxima - low) * steps)
        products += whole[:, block].T @ whole
        sums += whole.sum(axis=0)
        squares += np.square(whole).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = products - np.outer(sums[block], sums / count)
        variance = squares - sums * sums / count
        variance[steps == 0] = np.nan
        r = covariance / np.sqrt(np.outer(variance[block], variance))
    return np.clip(r, -1, 1)


def _strongest(row: NDArray[np.float64], own: int) -> Pairs:
    order = np.argsort(-np.nan_to_num(row, nan=-2), kind="stable")
    order = order[(order != own) & np.isfinite(row[order])][:TOGETHER_KEPT]
    return Pairs(np.full(len(order), own), order, row[order])
