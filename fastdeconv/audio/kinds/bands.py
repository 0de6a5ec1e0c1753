"""From bands back to the bins of an STFT.

scipy.sparse is imported inside the functions: the STFT itself does not need it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["from_bands", "on_bins_of", "spread_bands"]

FloatArray = NDArray[np.float32]

# Share of a matrix that differs from 0 up to which lists of it are faster than the whole matrix.
_SPARSE = 0.1


def on_bins_of(n_fft: int, matrix: Any, own_n_fft: int) -> Any:
    """A matrix (bands, bins) for the bins of an STFT of another size.

    A bin between two others hears what both hear, by how near it is (linear interpolation).
    A bin that is wider than those of the matrix hears all within its width, by the same triangle.

    Returns
    -------
    sparse array
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
    # The highest bin of an even size may lie above all of an odd one.
    total = shares.sum(axis=0)
    shares /= np.where(total > 0, total, 1)
    own, columns = shares.nonzero()
    triangles = scipy.sparse.coo_array(
        (shares[own, columns], (bins[own, columns], columns)),
        shape=(values.shape[1], centre.size),
    )
    return values @ triangles.tocsr()


def from_bands(matrix: Any) -> Any:
    """What maps of bands are multiplied by to be weights of bins, (bins, bands).

    The weight of a bin is the mean over the bands that hear it, weighted by how well they do:
    M.T m / M.T 1 for the matrix M (bands, bins), and 0 where no band does.

    Parameters
    ----------
    matrix : sparse array of `on_bins_of`

    Returns
    -------
    sparse array, or an array where little of it is 0
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
    """Maps (K, T, bands) as weights (K, T, bins), with the matrix of `from_bands`.

    They lie in memory as (K, bins, T).
    """
    spread = np.empty((len(planes), back.shape[0], planes.shape[1]), np.float32)
    # One after another, so that no bit depends on how many there are.
    for plane, out in zip(planes, spread):
        out[:] = back @ np.ascontiguousarray(plane.T)
    return spread.transpose(0, 2, 1)
