"""Correlations between maps that are computed one after the other and not kept.

What is computed: for each group of maps, the sum of the correlations of all its pairs. Let z_i be
the maps minus their mean, scaled to length 1. The correlation of two maps is the dot product of
their z, so for a group of n maps

    sum over pairs of <z_i, z_j>  =  (|sum of z_i|^2 - n) / 2

and only one running sum is kept for each group instead of its maps. A map that is the same
everywhere (silence) has no correlation and is in no pair.

Numerical contract: sums of float32 numbers of magnitude 1 / sqrt(size) in the order of the stimuli,
whatever the number of threads. The error of a mean correlation is below 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.schedule import run_bands
from .design import Group

__all__ = ["PairSums", "open_at_most"]

_FLAT = 1e-12
"""A map is flat if subtracting its mean leaves less than this share of its energy."""
_LARGEST_EXPONENT = 126
"""Largest exponent of 2 for which the power and its inverse are normal numbers of float32."""


def open_at_most(groups: Sequence[Group], order: Sequence[int]) -> int:
    """The largest number of groups that are incomplete at a time when stimuli come in `order`."""
    place = {stimulus: i for i, stimulus in enumerate(order)}
    changes = [0] * (len(order) + 1)
    for group in groups:
        places = [place[i] for i in group.members]
        changes[min(places)] += 1
        changes[max(places) + 1] -= 1
    return int(np.cumsum(changes).max())


class PairSums:
    """Takes maps stimulus by stimulus, and adds up their correlations inside groups.

    Parameters
    ----------
    groups : sequence of Group
    features : int
        Number of maps of a stimulus. The maps of a feature are compared with each other only.

    Attributes
    ----------
    sums : array of float64, shape (features, groups)
        Sum of the correlations of all pairs of a group.
    pairs : array of int64, shape (features, groups)
        Number of these pairs, without pairs with a flat map.
    """

    def __init__(self, groups: Sequence[Group], features: int) -> None:
        self.sums = np.zeros((features, len(groups)))
        self.pairs = np.zeros((features, len(groups)), np.int64)
        self._members = np.zeros((features, len(groups)), np.int64)
        self._left = [len(group.members) for group in groups]
        self._groups_of: dict[int, list[int]] = {}
        for g, group in enumerate(groups):
            for stimulus in group.members:
                self._groups_of.setdefault(stimulus, []).append(g)
        self._open: dict[int, NDArray[np.float32]] = {}
        # Memory of completed groups, used again: new memory costs page faults.
        self._free: list[NDArray[np.float32]] = []

    def add(self, stimulus: int, maps: NDArray[np.float32], num_threads: int) -> None:
        """Add the maps of a stimulus, (features, size). They are overwritten."""
        mine = self._groups_of.get(stimulus, [])
        fresh = [g for g in mine if g not in self._open]
        for g in fresh:
            self._open[g] = self._free.pop() if self._free else np.empty_like(maps)
        for g in mine:
            self._left[g] -= 1
        ended = [g for g in mine if self._left[g] == 0]

        def work(k: int) -> None:
            is_flat = not _standardise(maps[k])
            for g in mine:
                total = self._open[g][k]
                if g in fresh:
                    total[...] = maps[k]
                elif not is_flat:
                    total += maps[k]
                self._members[k, g] += not is_flat
            for g in ended:
                n = int(self._members[k, g])
                self.pairs[k, g] = n * (n - 1) // 2
                if n > 1:
                    self.sums[k, g] = (_energy(self._open[g][k]) - n) / 2

        run_bands(len(maps), work, num_threads)
        for g in ended:
            self._free.append(self._open.pop(g))


def _standardise(row: NDArray[np.float32]) -> bool:
    """Subtract the mean and scale to length 1, in place; False if the row is flat and becomes 0."""
    # Squares of very large or small values would overflow or vanish, so scale by a power of two
    # first, which does not round.
    exponent = int(np.frexp(max(row.max(), -row.min()))[1])
    row *= np.float32(2.0 ** -min(max(exponent, -_LARGEST_EXPONENT), _LARGEST_EXPONENT))
    before = _energy(row)
    row -= row.mean()
    energy = _energy(row)
    if not energy > _FLAT * before:
        row[...] = 0
        return False
    row *= np.float32(1 / np.sqrt(energy))
    return True


def _energy(row: NDArray[Any]) -> float:
    # Not np.dot: BLAS would start threads of its own, and this sum is pairwise and more exact.
    return float(np.square(row).sum())
