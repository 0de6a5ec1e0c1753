"""The part of every layer that a projection needs, or that it reaches.

A long clip is projected in pieces. And start values that are zero almost everywhere (such as the
strongest unit alone) reach only a part of the input. In both cases each layer on the way down is
computed on a rectangle of its map only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..kernels.interface import Pair, Window
from ..network import layers as nn
from ..network.network import Network

__all__ = ["Part", "Region", "covering_cells", "reached_by", "seen_by", "within"]


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
    """The part of a convolution that is computed on the way down."""

    output: Region
    """The part of its output, where projections come from."""
    input: Region
    """The part of its input, where projections go to."""
    cells: Region
    """The part of the lane tensor that becomes its output: pooled places, if there is a pool."""
    arriving: Region
    """The part of it that the convolution above makes. Where windows overlap, `cells` is larger:
    the sum for a place is stored in the first window that points to it."""


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
    """The window for these parts of the maps: its padding is counted from where they begin.

    The padding behind the end stays the same; nothing that computes on parts reads it.
    """
    padding = tuple(
        (before + inputs[axis][0] - outputs[axis][0] * window.stride[axis], after)
        for axis, (before, after) in enumerate(window.padding)
    )
    return window._replace(padding=(padding[0], padding[1]))


def seen_by(net: Network, index: int, place: Pair, sizes: Sequence[Pair]) -> Region:
    """The part of the network's input that one unit of a layer depends on.

    Parameters
    ----------
    net : Network
    index : int
        The layer.
    place : (int, int)
        Row and column of the unit in the layer's map.
    sizes : sequence of (H, W)
        The size of the input, then of the output of every layer.

    Returns
    -------
    Region
        The smallest rectangle of the input that holds this part, without padding. It is the whole
        input if a layer between mixes places in another way than by windows.
    """
    row, column = place
    reached = {index: Region((row, row + 1), (column, column + 1))}
    for i in range(index, -1, -1):
        if i not in reached:
            continue
        for source in net.sources[i]:
            part = _needed(net.layers[i], net.arrays, reached[i], sizes[source + 1], sizes[i + 1])
            reached[source] = part.around(reached[source]) if source in reached else part
    return reached.get(-1, Region.of(sizes[0]))


# An output of these layers depends on the same place of the input only (of all channels).
_IN_PLACE = (
    nn.Elementwise, nn.Softmax, nn.LogSoftmax, nn.Scaling, nn.LocalResponseNorm, nn.Dropout,
    nn.Add, nn.Multiply,
)


def _needed(
    layer: nn.Layer, arrays: nn.Arrays, output: Region, in_size: Pair, out_size: Pair
) -> Region:
    """The part of a layer's input that a part of its output depends on."""
    if isinstance(layer, nn.SlidingLayer):
        return reached_by(layer.window(in_size, arrays), output, in_size)
    if isinstance(layer, nn.ConvTranspose2d):
        return covering_cells(layer.window(out_size, arrays), output, in_size)
    if isinstance(layer, nn.Permute) and layer.order[0] == 0:
        h = layer.order.index(1) - 1
        return Region(output[h], output[1 - h])
    if isinstance(layer, nn.Reduction):
        whole = Region.of(in_size)
        rows, cols = (
            whole[i] if axis in layer.axes else output[i] for i, axis in enumerate("HW")
        )
        return Region(rows, cols)
    in_place = isinstance(layer, _IN_PLACE) or (
        isinstance(layer, (nn.Concat, nn.Slice)) and layer.axis == "C"
    )
    return output if in_place and in_size == out_size else Region.of(in_size)
