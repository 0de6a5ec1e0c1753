"""How strongly each feature of a layer fires over time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..audio.windows import Window

__all__ = ["MOST_COLUMNS", "Timeline", "columns", "strength"]

FloatArray = NDArray[np.float32]

#: Largest number of columns of a time line, and of the pictures of a song.
MOST_COLUMNS = 2000
_SECONDS = 0.05
"""Shortest column, in seconds."""
_POINTS = 8
"""A column is the mean of this many points in it."""


def strength(activation: FloatArray, time_is_row: bool) -> FloatArray:
    """How strongly features fire at every place in time, from feature maps (K, h, w): (K, n).

    This is the mean over frequency of the positive part.
    """
    upright = activation.transpose(0, 2, 1) if time_is_row else activation
    found: FloatArray = np.maximum(upright, 0).mean(axis=1, dtype=np.float64).astype(np.float32)
    return found


def columns(size: int, sr: float) -> int:
    """How many columns the time lines of a song of `size` samples have."""
    return min(MOST_COLUMNS, max(1, math.ceil(size / sr / _SECONDS)))


class Timeline:
    """The strengths of the features of a layer, window after window.

    Parameters
    ----------
    count : int
        Number of features.
    size : int
        Length of the song in samples.
    sr : float
        Sample rate in Hz.
    """

    def __init__(self, count: int, size: int, sr: float) -> None:
        self.columns = columns(size, sr)
        points = self.columns * _POINTS
        self._places = ((np.arange(points) + 0.5) * size / points).astype(np.int64)
        self._sums = np.zeros((count, self.columns))

    def add(self, window: Window, length: int, strengths: FloatArray, unit: float | None) -> None:
        """Add the next window.

        Parameters
        ----------
        window : Window
        length : int
            Length of the window in samples.
        strengths : array of float32, shape (K, n)
            See `strength`.
        unit : float or None
            Samples from one place to the next; None if n places divide the window evenly.
        """
        first, end = np.searchsorted(self._places, [window.begin, window.end])
        if first == end:
            return
        here = self._places[first:end]
        weights = window.weights()[here - window.begin]
        step = length / strengths.shape[1] if unit is None else unit
        places = ((here - window.start) / step).astype(np.int64).clip(0, strengths.shape[1] - 1)
        values = strengths[:, places] * weights.astype(np.float64)
        columns = np.arange(first, end) // _POINTS
        starts = np.flatnonzero(np.diff(columns, prepend=-1))
        self._sums[:, columns[starts]] += np.add.reduceat(values, starts, axis=1)

    def values(self) -> FloatArray:
        """The time line so far, (K, columns)."""
        return np.asarray(self._sums / _POINTS, np.float32)
