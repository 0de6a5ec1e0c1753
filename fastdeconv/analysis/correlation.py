"""Correlations between maps that come one after the other and are not kept.

What is computed: for groups of maps, the sum of the correlations of all their pairs. With
z the maps less their mean, at length 1, the correlation of two is their dot product, so for
a group of n

    sum over pairs of <z_i, z_j>  =  (|sum z|^2 - n) / 2

and one running sum a group is all that must be remembered, not its maps. A map that is the
same everywhere (silence) has no correlation and is in no pair.

Numerical contract: sums of float32 numbers of magnitude 1 / sqrt(size) in the order of the
stimuli, whatever the number of threads. Errors of a mean correlation are below 1e-5.
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
"""A map of which less than this share of the energy is left without its mean is flat."""
_LARGEST_EXPONENT = 126
"""Of a power of two that is a normal number in float32, and its inverse too."""


def open_at_most(groups: Sequence[Group], order: Sequence[int]) -> int:
    """How many groups are begun and not ended at a time, when stimuli come in `order`."""
    place = {stimulus: i for i, stimulus in enumerate(order)}
    changes = [0] * (len(order) + 1)
    for group in groups:
        places = [place[i] for i in group.members]
        changes[min(places)] += 1
        changes[max(places) + 1] -= 1
    return int(np.cumsum(changes).max())


class PairSums:
    """Collects maps stimulus by stimulus; gives the correlations inside groups.

    Parameters
    ----------
    groups : sequence of Group
    features : int
        Maps per stimulus; feature k is only compared with feature k.

    Attributes
    ----------
    sums : array of float64, shape (features, groups)
        Sum of the correlations of all pairs of a group.
    pairs : array of int64, shape (features, groups)
        How many pairs that are: those of maps that are not flat.
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
        # What a closed group leaves, to be written over: new memory costs page faults.
        self._free: list[NDArray[np.float32]] = []

    def add(self, stimulus: int, maps: NDArray[np.float32], num_threads: int) -> None:
        """Take the maps of a stimulus, (features, size); they are overwritten."""
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
    """Take away the mean and scale to length 1, in place; a flat row becomes 0 and is False."""
    # Squares of very large or small maps would overflow or vanish. A power of two rounds nothing.
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
    # Not np.dot, for which BLAS starts threads of its own; these sums are pairwise.
    return float(np.square(row).sum())
