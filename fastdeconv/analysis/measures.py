"""Measures of spectrograms and maps, for descriptors, verdicts and the report on training."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PRODUCT", "correlation", "cross_correlations", "require_product_memory", "selectivity",
    "spectral_flux",
]

#: Largest matrix product that is computed in one go, in multiply-adds. From 262,144 on, OpenBLAS
#: starts threads of its own: its sums depend on their number, and they spin on the cores that our
#: threads need.
PRODUCT = 200_000

#: Bytes of memory for a thread that computes matrix products: the buffer of OpenBLAS, 32 MB, and
#: some room for what other threads allocate meanwhile.
_BUFFER = 40 << 20

Array = NDArray[Any]


@functools.cache
def require_product_memory(threads: int) -> None:
    """Check that so many threads can compute matrix products at the same time.

    OpenBLAS takes a buffer for each of them and keeps it, so one check is enough. If there is no
    memory for a buffer, it ends the process itself; another thread that is in a product at that
    moment turns this into a segmentation fault. One thread is not checked.

    Raises
    ------
    MemoryError
    """
    if threads == 1:
        return
    np.empty(_BUFFER, np.uint8)
    rows = np.ones((64, 32), np.float32)
    np.matmul(rows, rows.T)  # takes the first buffer, if no product has taken it yet
    np.empty((threads - 1) * _BUFFER, np.uint8)


def spectral_flux(magnitude: Array) -> NDArray[np.float64]:
    """Spectral flux of a spectrogram (F, T): the sum of the rises since the last frame, (T,).

    0 in the first frame.
    """
    rises = np.maximum(np.diff(magnitude, axis=1, prepend=magnitude[:, :1]), 0)
    return rises.sum(axis=0, dtype=np.float64)


def selectivity(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of an axis maps leave out: 0 if nothing, near 1 if all but one bin.

    This is 1 - (sum e)^2 / (n sum e^2), where e is the energy in each of n bins; 0 for a silent
    map.

    Parameters
    ----------
    energy : array, shape (K, n)

    Returns
    -------
    array of float64, shape (K,)
    """
    squares = energy.shape[1] * np.square(energy).sum(axis=1)
    even = np.square(energy.sum(axis=1))
    return 1 - np.divide(even, squares, out=np.ones(len(energy)), where=squares > 0)


def correlation(sizes: NDArray[np.float64], flux: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations of rows (K, T) with the flux (T,); 0 if either is constant."""
    sizes, flux = sizes - sizes.mean(axis=1, keepdims=True), flux - flux.mean()
    norm = np.sqrt(np.square(sizes).sum(axis=1) * np.square(flux).sum())
    # Not sizes @ flux: with many values, its rounding depends on how many threads BLAS has.
    products = np.einsum("kt,t->k", sizes, flux)
    return np.divide(products, norm, out=np.zeros(len(sizes)), where=norm > 0)


def cross_correlations(ours: Array, others: Array) -> NDArray[np.float64]:
    """Pearson's r of each row of (K, n) with each row of (J, n): (K, J).

    nan if either row is constant.
    """
    size = ours.shape[1]
    means = [_row_means(rows) for rows in (ours, others)]
    found = np.zeros((len(ours), len(others)))
    squares = [np.zeros(len(rows)) for rows in (ours, others)]
    step = max(1, PRODUCT // max(1, found.size))
    for at in range(0, size, step):
        a, b = (
            rows[:, at : at + step] - mean[:, None] for rows, mean in zip((ours, others), means)
        )
        found += a @ b.T
        for total, part in zip(squares, (a, b)):
            total += np.square(part).sum(axis=1)
    norms = [
        np.where(_varies(rows), np.sqrt(total), np.nan)
        for rows, total in zip((ours, others), squares)
    ]
    found /= np.multiply.outer(*norms)
    return found


def _row_means(rows: Array) -> NDArray[np.float64]:
    return np.array([row.mean(dtype=np.float64) for row in rows])


def _varies(rows: Array) -> NDArray[np.bool_]:
    return np.array([row.max() > row.min() for row in rows], bool)
