"""Harmonic and percussive parts of a spectrogram, without importing librosa.

Fitzgerald's median filters (DAFx 2010) with soft masks, equal to those of
``librosa.decompose.hpss(..., mask=True)`` with its default arguments. Importing librosa takes two
seconds, the filters about ten milliseconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..kernels.schedule import run_bands

__all__ = ["harmonic_mask"]

FloatArray = NDArray[np.float32]

_KERNEL = 31
"""Length of the median filters, in bins or frames."""
_BAND_VALUES = 1 << 20
"""Values that a thread copies at a time, to sort them."""


def harmonic_mask(magnitude: FloatArray, num_threads: int) -> FloatArray:
    """The share of the harmonic part in every bin, 0 to 1. The percussive part is the rest.

    Parameters
    ----------
    magnitude : array of float32, shape (F, T)
        Not negative.
    num_threads : int

    Returns
    -------
    array of float32, shape (F, T)
        0.5 where both parts are 0.
    """
    harmonic = _median_along_rows(magnitude, num_threads)
    percussive = _median_along_rows(np.ascontiguousarray(magnitude.T), num_threads).T
    # Divide by the larger part first, so that squares neither overflow nor vanish.
    larger = np.maximum(harmonic, percussive)
    nothing = larger < np.finfo(np.float32).tiny
    larger[nothing] = 1
    ours, other = (harmonic / larger) ** 2, (percussive / larger) ** 2
    mask = np.full(magnitude.shape, 0.5, np.float32)
    np.divide(ours, ours + other, out=mask, where=~nothing)
    return mask


def _median_along_rows(values: FloatArray, num_threads: int) -> FloatArray:
    half = _KERNEL // 2
    padded = np.pad(values, ((0, 0), (half, half)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, _KERNEL, axis=1)
    medians = np.empty_like(values)
    size = max(1, _BAND_VALUES // (values.shape[1] * _KERNEL))

    def work(band: int) -> None:
        rows = slice(band * size, (band + 1) * size)
        medians[rows] = np.partition(windows[rows], half, axis=-1)[..., half]

    run_bands(-(-len(values) // size), work, num_threads)
    return medians
