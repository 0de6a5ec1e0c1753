"""The plane of bins and frames on which belief is measured, and its patches.

Maps here are planes (F, T) whose channels were added up, in whatever order the network takes its
axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_array
from ..audio._checks import as_int
from ..audio.clip import Clip
from ..deconvnet.region import Region
from ..errors import ParameterError, shown

__all__ = ["Grid", "Patches", "as_fill"]

Array = NDArray[Any]
Pair = tuple[int, int]
_MOST = 1 << 31


class Grid:
    """A network's input, with its axes in the order (C, F, T).

    Parameters
    ----------
    x : array of float32, shape (C, H, W)
    layout : str
        The order of its axes, as in the front end: "CFT", "CTF", ...
    """

    def __init__(self, x: NDArray[np.float32], layout: str) -> None:
        self._order = [layout.index(letter) for letter in "CFT"]
        #: The input, (C, F, T).
        self.x: NDArray[np.float32] = x.transpose(self._order)
        self.shape: Pair = self.x.shape[1], self.x.shape[2]

    @classmethod
    def of(cls, clip: Clip) -> Grid:
        """The grid of a clip's input."""
        return cls(clip.x, clip.frontend.layout)

    def planes(self, maps: Array) -> Array:
        """Maps in the shape of the network's input, (K, C, H, W), as planes (K, F, T)."""
        ordered = maps.transpose(0, *(1 + axis for axis in self._order))
        return ordered[:, 0] if ordered.shape[1] == 1 else ordered.sum(axis=1)

    def inputs(self, planes: Array) -> Array:
        """Planes (K, F, T) as maps (K, C, H, W) whose channels add up to them."""
        channels = len(self.x)
        shared = planes if channels == 1 else planes / channels
        ordered = np.broadcast_to(
            shared[:, None], (len(planes), channels, *planes.shape[1:])
        )
        return self.as_input(ordered)

    def as_input(self, values: Array) -> Array:
        """Values (..., C, F, T) with their axes in the order of the network's input."""
        lead = values.ndim - 3
        back = (lead + int(axis) for axis in np.argsort(self._order))
        return np.ascontiguousarray(values.transpose(*range(lead), *back))

    @property
    def is_local(self) -> bool:
        """Whether a patch of bins and frames is a rectangle in every channel of the input."""
        return self._order[0] == 0

    def region(self, bins: Pair, frames: Pair) -> Region:
        """A patch as rows and columns of the input."""
        upright = self._order[1] < self._order[2]
        return Region(bins, frames) if upright else Region(frames, bins)


class Patches(NamedTuple):
    """Rectangles of bins and frames, row by row.

    Patch ``i * len(frames) + j`` has the bins ``bins[i]`` and the frames ``frames[j]``.
    """

    bins: list[Pair]
    """The first bin of each, and the one after its last."""
    frames: list[Pair]
    """The first frame of each, and the one after its last."""

    @classmethod
    def of(cls, shape: Pair, patch: Any = (16, 16), stride: Any = None) -> Patches:
        """Patches of a plane (F, T); the last ones reach to the end of the plane.

        Raises
        ------
        ParameterError
            If sizes are not positive ints, or bins between patches would be left out.
        """
        size = _pair("patch", patch)
        step = size if stride is None else _pair("stride", stride)
        if step[0] > size[0] or step[1] > size[1]:
            raise ParameterError(
                f"stride {step} is larger than patch {size}: bins between patches would be left out"
            )
        return cls(*(_spans(*each) for each in zip(shape, size, step)))

    def __iter__(self) -> Iterator[tuple[Pair, Pair]]:  # type: ignore[override]
        for bins in self.bins:
            for frames in self.frames:
                yield bins, frames

    @property
    def shape(self) -> Pair:
        """The number of patches along bins and along frames."""
        return len(self.bins), len(self.frames)

    def means(self, planes: Array) -> NDArray[np.float64]:
        """The mean of planes (..., F, T) in every patch: (..., n)."""
        values = np.asarray(planes, np.float64)
        for axis, spans in ((-2, self.bins), (-1, self.frames)):
            values = _sums(values, spans, axis)
        areas = np.multiply.outer(*(
            [hi - lo for lo, hi in spans] for spans in (self.bins, self.frames)
        ))
        means: NDArray[np.float64] = values / areas
        return means.reshape(*means.shape[:-2], -1)

    def spread(self, values: Array) -> NDArray[np.float64]:
        """Planes (..., F, T) from a value for every patch, (..., n).

        A bin has the mean of the values of the patches that cover it.
        """
        lead = values.shape[:-1]
        shape = self.bins[-1][1], self.frames[-1][1]
        total, count = np.zeros((*lead, *shape)), np.zeros(shape)
        for i, (bins, frames) in enumerate(self):
            place = slice(*bins), slice(*frames)
            total[(..., *place)] += values[..., i, None, None]
            count[place] += 1
        return total / count


def _sums(values: NDArray[np.float64], spans: list[Pair], axis: int) -> NDArray[np.float64]:
    """Sums over spans of an axis. No sum depends on values outside its span."""
    last = values.shape[axis]
    bounds = [bound for span in spans for bound in span]
    if any(bound == last for bound in bounds):  # reduceat refuses an index after the end
        pad = [(0, 0)] * values.ndim
        pad[axis] = (0, 1)
        values = np.pad(values, pad)
    sums: NDArray[np.float64] = np.add.reduceat(values, bounds, axis=axis)
    return sums[..., ::2, :] if axis == -2 else sums[..., ::2]


def _spans(n: int, patch: int, stride: int) -> list[Pair]:
    patch = min(patch, n)
    # floor((n - patch) / stride + 1 / 2) + 1, in whole numbers.
    count = max(1, (2 * (n - patch) + stride) // (2 * stride) + 1)
    return [
        (i * stride, n if i == count - 1 else min(n, i * stride + patch)) for i in range(count)
    ]


def _pair(name: str, value: Any) -> Pair:
    if not isinstance(value, (tuple, list)):
        value = (value, value)
    if len(value) != 2:
        raise ParameterError(f"{name} must be (bins, frames), found {shown(value)}")
    sizes = [as_int(name, n, minimum=1, maximum=_MOST) for n in value]
    return sizes[0], sizes[1]


def as_fill(grid: Grid, fill: Any) -> NDArray[np.float32]:
    """The values that replace the input (C, F, T), from "band_mean", "min" or a number.

    Raises
    ------
    ParameterError
        If `fill` is none of these.
    """
    x = grid.x
    if isinstance(fill, str) and fill == "band_mean":
        means = x.mean(axis=2, keepdims=True, dtype=np.float64).astype(np.float32)
        return np.broadcast_to(means, x.shape)
    if isinstance(fill, str) and fill == "min":
        return np.broadcast_to(x.min(), x.shape)
    if not isinstance(fill, (str, bool)):
        value = as_array(fill, "fill")
        if value.ndim == 0 and value.dtype.kind in "fiu":
            with np.errstate(over="ignore"):
                number = np.float32(value)
            if np.isfinite(number):
                return np.broadcast_to(number, x.shape)
    raise ParameterError(
        f"fill must be 'band_mean', 'min' or a finite number, found {shown(fill)}"
    )
