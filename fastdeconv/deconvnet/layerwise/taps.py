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
    """Which inputs each output is a sum of, and times what; both of shape (outputs, most)."""

    places: NDArray[np.intp]
    weights: Array
    """float64; 0 where an output is a sum of fewer."""

    def adjoint(self, size: int) -> Taps:
        """The map from the outputs back to `size` inputs."""
        sent = self.weights != 0
        order = np.argsort(self.places[sent], kind="stable")
        inputs = self.places[sent][order]
        counts = np.bincount(inputs, minlength=size)
        begins = np.cumsum(counts) - counts
        column = np.arange(len(inputs)) - begins[inputs]
        places = np.zeros((size, max(1, int(counts.max(initial=0)))), np.intp)
        weights = np.zeros(places.shape)
        places[inputs, column] = np.nonzero(sent)[0][order]
        weights[inputs, column] = self.weights[sent][order]
        return Taps(places, weights)


def along(x: Array, taps: Taps, axis: int) -> Array:
    """The map along an axis of `x`; terms are added in one order, whatever the other axes are."""
    shape = [1] * x.ndim
    shape[axis] = len(taps.places)
    total = x.take(taps.places[:, 0], axis)
    first = taps.weights[:, 0]
    if (first != 1).any():
        total = total * first.reshape(shape)
    for place, weight in zip(taps.places.T[1:], taps.weights.T[1:]):
        total = total + x.take(place, axis) * weight.reshape(shape)
    return total


def _picked(places: Array) -> Taps:
    places = places.astype(np.intp)[:, None]
    return Taps(places, np.ones(places.shape))


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
    places = np.stack([first, np.minimum(first + 1, size - 1)], axis=1)
    return Taps(places, np.stack([1 - share, share], axis=1))


def windows(size: int, count: int) -> Taps:
    """Means over `count` windows that lie evenly over `size` places."""
    begins, ends = np.array(nn.adaptive_windows(size, count)).T
    sizes = ends - begins
    inside = np.arange(int(sizes.max())) < sizes[:, None]
    places = np.where(inside, begins[:, None] + np.arange(inside.shape[1]), 0)
    return Taps(places, inside / sizes[:, None])
