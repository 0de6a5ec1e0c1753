"""Which part of every layer a projection needs, or reaches.

A long clip is projected in pieces, and a start that is zero almost everywhere (its
strongest unit alone) reaches only a part of the input. Either way each layer on the way
down is computed on a rectangle of its map, and on nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

from ..kernels.interface import Pair, Window

__all__ = ["Part", "Region", "covering_cells", "reached_by", "within"]


class Region(NamedTuple):
    """A rectangle of a map: rows and columns as (begin, end)."""

    rows: Pair
    cols: Pair

    @classmethod
    def of(cls, size: Pair) -> Region:
        """All of a map of this size."""
        return cls((0, size[0]), (0, size[1]))

    @property
    def size(self) -> Pair:
        return self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]

    @property
    def begin(self) -> Pair:
        return self.rows[0], self.cols[0]

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(*self.rows), slice(*self.cols)

    def around(self, other: Region) -> Region:
        """The smallest rectangle with both in it."""
        (top, bottom), (left, right) = self
        return Region(
            (min(top, other.rows[0]), max(bottom, other.rows[1])),
            (min(left, other.cols[0]), max(right, other.cols[1])),
        )


class Part(NamedTuple):
    """What of one convolution is computed on the way down."""

    output: Region
    """Its output, where projections come from."""
    input: Region
    """Its input, where they go to."""
    cells: Region
    """Of the lane tensor that becomes its output: the pooled places where there is a pool."""


def reached_by(window: Window, output: Region, in_size: Pair) -> Region:
    """The input places that windows at these outputs cover."""
    rows, cols = (
        _reached(window, axis, output[axis], in_size[axis]) for axis in (0, 1)
    )
    return Region(rows, cols)


def _reached(window: Window, axis: int, outputs: Pair, size: int) -> Pair:
    stride, before = window.stride[axis], window.padding[axis][0]
    begin = outputs[0] * stride - before
    end = (outputs[1] - 1) * stride - before + window.extent[axis]
    return max(0, begin), min(size, end)


def covering_cells(window: Window, inputs: Region, out_size: Pair) -> Region:
    """The outputs whose windows cover any of these input places; at least one."""
    rows, cols = (_covering(window, axis, inputs[axis], out_size[axis]) for axis in (0, 1))
    return Region(rows, cols)


def _covering(window: Window, axis: int, inputs: Pair, size: int) -> Pair:
    stride, before = window.stride[axis], window.padding[axis][0]
    begin = max(0, (inputs[0] + before - window.extent[axis] + 1) // stride)
    end = min(size, (inputs[1] - 1 + before) // stride + 1)
    begin = min(begin, size - 1)
    return begin, max(end, begin + 1)


def within(window: Window, inputs: Region, outputs: Region) -> Window:
    """The window as seen from the parts: its padding counted from where they begin.

    The padding after the end stays what it was, since nothing that computes on parts reads it.
    """
    padding = tuple(
        (before + inputs[axis][0] - outputs[axis][0] * window.stride[axis], after)
        for axis, (before, after) in enumerate(window.padding)
    )
    return window._replace(padding=(padding[0], padding[1]))
