"""Measures of spectrograms and maps that descriptors and training reports share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["correlation", "selectivity", "spectral_flux"]

Array = NDArray[Any]


def spectral_flux(magnitude: Array) -> NDArray[np.float64]:
    """Sum of the rises from frame to frame: (F, T) to (T,), 0 in the first frame."""
    rises = np.maximum(np.diff(magnitude, axis=1, prepend=magnitude[:, :1]), 0)
    return rises.sum(axis=0, dtype=np.float64)


def selectivity(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of an axis maps leave out: 0 for none of it, near 1 for all but a bin.

    One minus (sum e)^2 / (n sum e^2), e being the energy of each of n bins: (K, n) to (K,);
    0 for a silent map.
    """
    squares = energy.shape[1] * np.square(energy).sum(axis=1)
    even = np.square(energy.sum(axis=1))
    return 1 - np.divide(even, squares, out=np.ones(len(energy)), where=squares > 0)


def correlation(sizes: NDArray[np.float64], flux: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations of rows (K, T) with the flux (T,); 0 where either does not change."""
    sizes, flux = sizes - sizes.mean(axis=1, keepdims=True), flux - flux.mean()
    norm = np.sqrt(np.square(sizes).sum(axis=1) * np.square(flux).sum())
    return np.divide(sizes @ flux, norm, out=np.zeros(len(sizes)), where=norm > 0)
