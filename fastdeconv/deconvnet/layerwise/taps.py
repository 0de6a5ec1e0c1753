"""Linear maps along one axis, in which every output is a sum of few inputs.

Padding by the input's own values, interpolation and adaptive means are such maps, along rows
and columns one after the other. Their adjoints are of the same kind.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...network import layers as nn

__all__ = ["Taps", "along", "circular", "lines", "nearest", "reflect", "replicate", "windows"]

Array = NDArray[Any]


class Taps(NamedTuple):
    """Which inputs each output is a sum of, and times what, one output after another."""

    inputs: NDArray[np.intp]
    weights: Array
    """float64, one for each of `inputs`."""
    counts: NDArray[np.intp]
    """Of how many inputs each output is a sum."""

    def adjoint(self, size: int) -> Taps:
        """The map from the outputs back to `size` inputs."""
        order = np.argsort(self.inputs, kind="stable")
        outputs = np.repeat(np.arange(len(self.counts)), self.counts)
        counts = np.bincount(self.inputs, minlength=size)
        return Taps(outputs[order], self.weights[order], counts)


def along(x: Array, taps: Taps, axis: int) -> Array:
    """The map along an axis of `x`; terms are added in one order, whatever the other axes are."""
    terms = x.take(taps.inputs, axis)
    shape = [1] * x.ndim
    shape[axis] = -1
    if (taps.weights != 1).any():
        terms = terms * taps.weights.reshape(shape)
    if (taps.counts == 1).all():
        return terms
    taken = taps.counts > 0
    begins = np.cumsum(taps.counts) - taps.counts
    sums: Array = np.add.reduceat(terms, begins[taken], axis)
    if taken.all():
        return sums
    # Nothing is sent to the others.
    shape = [*sums.shape]
    shape[axis] = len(taken)
    out = np.zeros(shape, sums.dtype)
    np.moveaxis(out, axis, 0)[taken] = np.moveaxis(sums, axis, 0)
    return out


def _picked(places: Array) -> Taps:
    ones = np.ones(len(places), np.intp)
    return Taps(places.astype(np.intp), ones.astype(np.float64), ones)


def replicate(size: int, before: int, after: int) -> Taps:
    """The edges repeated."""
    return _picked(np.clip(np.arange(-before, size + after), 0, size - 1))


def circular(size: int, before: int, after: int) -> Taps:
    """On from the other side."""
    return _picked(np.arange(-before, size + after) % size)


def reflect(size: int, before: int, after: int) -> Taps:
    """Mirrored at the edges, which come once."""
    places = np.abs(np.arange(-before, size + after))
    return _picked(np.where(places < size, places, 2 * (size - 1) - places))


def nearest(size: int, wanted: int) -> Taps:
    """`wanted` of the `size` values, as evenly as they go, some of them several times."""
    return _picked(np.arange(wanted) * size // wanted)


def lines(size: int, wanted: int, align_corners: bool) -> Taps:
    """`wanted` values on the lines between `size` neighbours."""
    steps = np.arange(wanted, dtype=np.float64)
    if align_corners:
        at = steps * ((size - 1) / max(1, wanted - 1))
    else:
        at = np.maximum((steps + 0.5) * (size / wanted) - 0.5, 0)
    first = np.minimum(at.astype(np.intp), size - 1)
    share = np.clip(at - first, 0, 1)
    inputs = np.stack([first, np.minimum(first + 1, size - 1)], axis=1)
    weights = np.stack([1 - share, share], axis=1)
    return Taps(inputs.reshape(-1), weights.reshape(-1), np.full(wanted, 2))


def windows(size: int, count: int) -> Taps:
    """Means over `count` windows that lie evenly over `size` places."""
    begins, ends = np.array(nn.adaptive_windows(size, count)).T
    counts = ends - begins
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return Taps(np.repeat(begins, counts) + within, np.repeat(1 / counts, counts), counts)
