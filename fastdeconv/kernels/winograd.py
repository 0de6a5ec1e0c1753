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
    # One product of matrices: two of every filter's 3 x 3 take eight times as long.
    places = weight.astype(np.float64).reshape(-1, 9) @ np.kron(g, g).T
    return places.reshape(*weight.shape[:2], tile + 2, tile + 2)


def error_bound(
    weight: FloatArray, bias: FloatArray | None, affine: Any, part: int, roundings: int = 0
) -> tuple[FloatArray, FloatArray]:
    """(slope, base) of every output channel; infinite where they overflow float32.

    The sums of F(2 x 2, 3 x 3) and the direct sums, with bias, scale and shift, differ by less
    than slope * (Euclidean norm of the input of a pixel) + base, plus `roundings` roundings of
    the result. Both sum `part` input channels at a time, or all together where that is 0.
    csrc/winograd.c has the derivation.
    A channel whose weights are all zero has the same bits either way. Its base is -1, so that it
    is never in doubt.
    """
    channels, inner = weight.shape[:2]
    terms = 9 * inner
    direct = _roundings(9, inner, part).reshape(3, 3, inner) + 2
    places = _roundings(1, inner, part) + 10
    # A few channels at a time: what is computed for a filter takes ten times its memory.
    found = [
        _norms(weight[at : at + _AT_A_TIME], direct, places)
        for at in range(0, channels, _AT_A_TIME)
    ]
    norm, largest = (np.concatenate(of) for of in zip(*found))
    offset = np.abs(np.zeros(channels) if bias is None else bias.astype(np.float64))
    scale, shift = (
        (1.0, 0.0) if affine is None else (np.abs(a.astype(np.float64)) for a in affine)
    )
    # The last roundings are of the sum with its bias, and of scale and shift.
    slope = scale * (largest + (6 + roundings) * norm)
    base = scale * (terms + 9 + roundings) * offset + (4 + roundings) * shift
    slack = _SLACK / (1 - 2 * terms * _UNIT) * _UNIT
    empty = norm == 0
    with np.errstate(over="ignore"):
        return (
            np.where(empty, 0, slope * slack + _UNDERFLOW).astype(np.float32),
            np.where(empty, -1, base * slack + _UNDERFLOW).astype(np.float32),
        )


_AT_A_TIME = 32
"""Output channels whose norms are computed together."""


def _roundings(taps: int, inner: int, part: int) -> NDArray[np.float64]:
    """How often the product of each tap and input channel is rounded, (taps, inner), in a sum of
    partial sums of `part` channels, or in one sum where that is 0."""
    if not part:
        return np.arange(taps * inner, 0, -1, dtype=np.float64).reshape(taps, inner)
    channel = np.arange(inner)
    number, place = np.divmod(channel, part)
    in_part = np.minimum(part, inner - number * part) - place
    parts = -(-inner // part)
    later = taps * parts - (np.arange(taps)[:, None] * parts + number)
    return (in_part + later).astype(np.float64)


def _norms(
    weight: FloatArray, direct: NDArray[np.float64], places: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of every filter the norm, and the largest of a tile's pixels of the norm of what multiplies
    the absolute inputs. `direct` (3, 3, inner) and `places` (1, inner) are numbers of roundings."""
    filters = np.abs(weight.astype(np.float64)).transpose(2, 3, 0, 1)
    transformed = np.abs(transform_filters(weight, 2)).transpose(2, 3, 0, 1) * places
    weighted = direct[:, :, None] * filters
    largest = np.zeros(len(weight))
    for y, x in np.ndindex(2, 2):
        of_rows = _by_input(y, transformed)
        patch = [_by_input(x, row) for row in of_rows]
        squares = sum(
            ((weighted[i, j] + patch[i][j]) ** 2).sum(axis=1) for i, j in np.ndindex(3, 3)
        )
        largest = np.maximum(largest, np.sqrt(squares))
    return np.sqrt((filters**2).sum(axis=(0, 1, 3))), largest


def _by_input(pixel: int, places: Any) -> list[Any]:
    """What the three inputs of a pixel meet along one axis: for each, the sum of the places that
    the pixel reads and the input is part of."""
    return [
        sum(places[k] for k in range(4) if _READS_PLACES[pixel, k] and _READS_INPUTS[k, i])
        for i in range(pixel, pixel + 3)
    ]
