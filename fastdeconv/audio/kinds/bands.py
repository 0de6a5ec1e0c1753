"""From maps of bands back to weights of the bins of an STFT.

scipy.sparse is imported inside the functions, because a plain STFT does not need it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["from_bands", "on_bins_of", "spread_bands"]

FloatArray = NDArray[np.float32]

# A matrix is stored sparse if at most this share of its values differs from 0: then it is faster.
_SPARSE = 0.1


def on_bins_of(n_fft: int, matrix: Any, own_n_fft: int) -> Any:
    """Convert a matrix (bands, bins) to the bins of an STFT of another size.

    A bin that lies between two bins of the matrix is interpolated linearly. A bin that is wider
    than those of the matrix is the mean of all bins within its width, weighted by a triangle.

    Parameters
    ----------
    n_fft : int
        Size of the other STFT.
    matrix : array or sparse array, shape (bands, 1 + own_n_fft // 2)
    own_n_fft : int
        Size of the STFT that the matrix is for.

    Returns
    -------
    sparse array, shape (bands, 1 + n_fft // 2)
    """
    import scipy.sparse

    values = scipy.sparse.csr_array(matrix, dtype=np.float64)
    if n_fft == own_n_fft:
        return values
    ratio = own_n_fft / n_fft
    width = max(1.0, ratio)
    centre = ratio * np.arange(1 + n_fft // 2)
    reach = int(np.ceil(width))
    bins = np.floor(centre).astype(int) + np.arange(-reach, reach + 1)[:, None]
    shares = np.maximum(1 - np.abs(bins - centre) / width, 0)
    shares[(bins < 0) | (bins >= values.shape[1])] = 0
    # The highest bin of an even size may lie above all bins of an odd one: avoid 0 / 0.
    total = shares.sum(axis=0)
    shares /= np.where(total > 0, total, 1)
    own, columns = shares.nonzero()
    triangles = scipy.sparse.coo_array(
        (shares[own, columns], (bins[own, columns], columns)),
        shape=(values.shape[1], centre.size),
    )
    return values @ triangles.tocsr()


def from_bands(matrix: Any) -> Any:
    """The matrix (bins, bands) that turns maps of bands into weights of bins.

    The weight of a bin is the mean over the bands that contain it, weighted by the matrix M
    (bands, bins): M.T m / M.T 1. It is 0 where no band contains the bin.

    Parameters
    ----------
    matrix : sparse array
        M, as `on_bins_of` returns it.

    Returns
    -------
    sparse array, or a dense array if few of its values are 0
    """
    import scipy.sparse

    own = matrix.tocoo()
    bands, bins = own.coords
    total = np.bincount(bins, own.data, minlength=own.shape[1])
    heard = own.data > 0
    shares = (own.data[heard] / total[bins[heard]]).astype(np.float32)
    back = scipy.sparse.coo_array(
        (shares, (bins[heard], bands[heard])), shape=own.shape[::-1]
    ).tocsr()
    return back if back.nnz <= _SPARSE * np.prod(back.shape) else back.toarray()


def spread_bands(back: Any, planes: FloatArray) -> FloatArray:
    """Turn maps (K, T, bands) into weights (K, T, bins), with the matrix of `from_bands`.

    In memory the axes have the order (K, bins, T).
    """
    spread = np.empty((len(planes), back.shape[0], planes.shape[1]), np.float32)
    # One at a time, so that the bits do not depend on the number of maps.
    for plane, out in zip(planes, spread):
        out[:] = back @ np.ascontiguousarray(plane.T)
    return spread.transpose(0, 2, 1)
