"""Filters and error bounds for the convolutions of csrc/winograd.c.

Winograd's F(m x m, 3 x 3) computes a tile of m x m outputs from (m + 2) x (m + 2) inputs
d as A^T [(G g G^T) * (B^T d B)] A, with as many products as the tile has inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .interface import FloatArray

__all__ = ["error_bound", "transform_filters"]

_FILTER = {
    2: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
    4: [
        [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
    ],
}
"""G"""

# Which places an output reads, and which inputs a place: |A^T| and |B^T| of F(2 x 2, 3 x 3).
_READS_PLACES = np.array([[1, 1, 1, 0], [0, 1, 1, 1]])
_READS_INPUTS = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]])

_UNIT = 2.0**-24
_SLACK = 1.001
"""Enlarges the bound, for products of roundings and for the rounding of the bound itself."""
_UNDERFLOW = 2.0**-120
"""More than any number of products can lose by underflow."""


def transform_filters(weight: FloatArray, tile: int) -> NDArray[np.float64]:
    """(O, I, 3, 3) as (O, I, tile + 2, tile + 2)."""
    g = np.array(_FILTER[tile])
    return np.asarray(g @ weight.astype(np.float64) @ g.T)


def error_bound(
    weight: FloatArray, bias: FloatArray | None, affine: Any, roundings: int = 0
) -> tuple[FloatArray, FloatArray]:
    """(slope, base) of every output channel; infinite where they overflow float32.

    The sums of F(2 x 2, 3 x 3) and the direct sums, with bias, scale and shift, differ by less
    than slope * (Euclidean norm of the input of a pixel) + base, plus `roundings` roundings of
    the result. csrc/winograd.c has the derivation. A channel whose weights are all zero has the
    same bits either way. Its base is -1, so that it is never in doubt.
    """
    w = np.abs(weight.astype(np.float64))
    channels, inner = w.shape[:2]
    terms = 9 * inner
    later = terms - np.arange(terms).reshape(3, 3, inner).transpose(2, 0, 1) + 2
    places = np.abs(transform_filters(weight, 2)) * (
        inner - np.arange(inner)[:, None, None] + 10
    )
    norms = []
    for y in (0, 1):
        for x in (0, 1):
            rows, cols = (_READS_PLACES[i, :, None] * _READS_INPUTS for i in (y, x))
            patch = np.einsum("ocpq,pi,qj->ocij", places, rows, cols)
            whole = later * w + patch[:, :, y : y + 3, x : x + 3]
            norms.append(np.sqrt((whole**2).sum(axis=(1, 2, 3))))
    norm = np.sqrt((w**2).sum(axis=(1, 2, 3)))
    offset = np.abs(np.zeros(channels) if bias is None else bias.astype(np.float64))
    scale, shift = (
        (1.0, 0.0) if affine is None else (np.abs(a.astype(np.float64)) for a in affine)
    )
    # The last roundings are of the sum with its bias, and of scale and shift.
    slope = scale * (np.max(norms, axis=0) + (6 + roundings) * norm)
    base = scale * (terms + 9 + roundings) * offset + (4 + roundings) * shift
    slack = _SLACK / (1 - 2 * terms * _UNIT) * _UNIT
    empty = norm == 0
    with np.errstate(over="ignore"):
        return (
            np.where(empty, 0, slope * slack + _UNDERFLOW).astype(np.float32),
            np.where(empty, -1, base * slack + _UNDERFLOW).astype(np.float32),
        )
