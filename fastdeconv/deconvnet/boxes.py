"""The forward pass for many inputs that differ from one input in a small rectangle only.

When a rectangle of the input changes, a rectangle of every map changes with it, its *box*. All
values outside of the box stay the same. So each layer is computed on its box alone. The box and
what its windows read around it are taken from the activations of the unchanged input, and the
changed values are written over them.

Many changed inputs are computed together. Their boxes are enlarged to one size (what is added are
values that do not change) and put one below the other into one tall map. Between them are rows
that are not used, where windows would see two boxes at once. The tall map goes through the same
kernels as any other map. Beyond the edge of the original map it has what the layer pads with.

Where a layer looks at its whole input at once (a mean over all places, a linear layer), the box is
the whole map from there on, and costs a full pass of the layers that are left.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.dispatch import get_backend, get_num_threads
from ..kernels.interface import Padding, Pair, Window
from ..kernels.lanes import cached
from ..network import layers as nn
from ..network.network import Network
from .joins import forward_join
from .layerwise import Arithmetic, affine_of, forward_layer
from .overflow import check_overflow, without_warnings
from .plan import forward_plan, is_affine, layer_cache
from .region import Region
from .route import takers_of
from .trace import Trace, make_runner

__all__ = ["Boxes", "forward_changed"]

Array = NDArray[Any]

_VALUES = 1 << 21
"""The number of values of one tall map, padding included: 8 MB. Measured with the bundled network;
half or twice as many take 5 to 10 % longer."""

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_PER_CHANNEL = (
    nn.GlobalAvgPool2d, nn.GlobalMaxPool2d, nn.ReduceMean, nn.ReduceMax, nn.Upsample,
)
"""Layers that look at whole maps, one channel at a time."""
_PER_PLACE = (nn.Elementwise, nn.LocalResponseNorm, nn.Dropout, nn.Softmax, nn.LogSoftmax)
"""Layers that look at one place at a time."""


class Boxes(NamedTuple):
    """The changed parts of the output of a layer, for some changed inputs."""

    begin: NDArray[np.intp]
    """Where each box begins: (P, 2), row and column."""
    values: Array
    """(C, P, h, w)"""

    @property
    def size(self) -> Pair:
        return self.values.shape[2], self.values.shape[3]

    def of(self, original: Array) -> Array:
        """The same places of the unchanged output (C, H, W), as `values`."""
        h, w = self.size
        out = np.empty(self.values.shape, original.dtype)
        for p, (row, column) in enumerate(self.begin.tolist()):
            out[:, p] = original[:, row : row + h, column : column + w]
        return out


class _Spans(NamedTuple):
    """The places of a map that change: [lo, hi) for each changed input and axis, (P, 2)."""

    lo: NDArray[np.intp]
    hi: NDArray[np.intp]

    def boxes(self, size: Pair) -> tuple[NDArray[np.intp], Pair]:
        """Boxes of one size that cover these places: where each begins, and the size."""
        height, width = (self.hi - self.lo).max(axis=0).tolist()
        return np.minimum(self.lo, np.array(size) - (height, width)), (height, width)

    def through(self, window: Window, out_size: Pair) -> _Spans:
        """The outputs whose windows cover any of these places, at least one."""
        before = np.array([p[0] for p in window.padding])
        extent, stride, size = map(np.array, (window.extent, window.stride, out_size))
        lo = -((extent - 1 - before - self.lo) // stride)
        hi = (self.hi - 1 + before) // stride + 1
        lo = np.clip(lo, 0, size - 1)
        return _Spans(lo, np.clip(hi, lo + 1, size))

    def around(self, other: _Spans) -> _Spans:
        return _Spans(np.minimum(self.lo, other.lo), np.maximum(self.hi, other.hi))

    def whole(self, size: Pair) -> _Spans:
        return _Spans(np.zeros_like(self.lo), np.broadcast_to(np.array(size), self.hi.shape))


class _Step(NamedTuple):
    """Layers that are computed together on boxes."""

    layers: tuple[int, ...]
    sources: tuple[int, ...]
    kind: str
    """"windows": a convolution or pool and what follows it; "places": one place at a time;
    "per channel" and "whole": whole maps, one channel at a time or all together."""
    behind: tuple[int, ...]
    """Layers of the block of the forward pass behind the first one of this step."""

    @property
    def last(self) -> int:
        return self.layers[-1]


def forward_changed(
    trace: Trace, changed: Sequence[Region], values: Array, wanted: Collection[int]
) -> Iterator[tuple[slice, dict[int, Boxes]]]:
    """The outputs of the layers in `wanted` when one rectangle of the input changes.

    Parameters
    ----------
    trace : Trace
        The trace of the unchanged input.
    changed : sequence of Region
        The rectangle that changes, one for each changed input.
    values : array, shape (C, H, W)
        The changed input. Only the values inside of the rectangle are read.
    wanted : collection of int
        Indices of layers.

    Yields
    ------
    (slice, dict of int to Boxes)
        Which of the changed inputs these are, and their boxes for each layer in `wanted`. The
        bits depend neither on the number of threads nor on the other changed inputs.
    """
    run = _Run(trace, wanted)
    lo = np.array([(r.rows[0], r.cols[0]) for r in changed], np.intp).reshape(-1, 2)
    hi = np.array([(r.rows[1], r.cols[1]) for r in changed], np.intp).reshape(-1, 2)
    at_once = run.at_once(_Spans(lo, hi)) if len(lo) else 1
    for first in range(0, len(lo), at_once):
        part = slice(first, min(first + at_once, len(lo)))
        with without_warnings():
            yield part, run.boxes(_Spans(lo[part], hi[part]), values)


class _Run:
    """The forward pass on boxes of one trace."""

    def __init__(self, trace: Trace, wanted: Collection[int]) -> None:
        self.trace, self.net, self.wanted = trace, trace.network, frozenset(wanted)
        self.arithmetic = Arithmetic(get_backend(), get_num_threads())
        self.shapes = [*self.net.shapes(trace.input_shape), trace.input_shape]  # -1 is the input
        fuses_all = getattr(get_backend(), "runs_joins", False)
        key = "steps of boxes", fuses_all, trace.input_shape, self.wanted
        self.steps: list[_Step] = cached(
            layer_cache(self.net, -1), key, lambda: self._plan(fuses_all)
        )
        self._padded: dict[Any, Array] = {}

    def size(self, index: int) -> Pair:
        _, h, w = self.shapes[index]
        return h, w

    # ---- which layers go together ----

    def _plan(self, fuses_all: bool) -> list[_Step]:
        """The steps: the blocks of a forward pass, cut so that each wanted layer ends a step."""
        takers = takers_of(self.net)
        steps: list[_Step] = []
        for block in forward_plan(self.net, fuses_all):
            for index in block.layers:
                if index > max(self.wanted, default=-1):
                    return steps
                before = steps[-1] if steps and index != block.first else None
                if before is not None and self._joins(before, index) and (
                    before.last not in self.wanted and takers[before.last] == 1
                ):
                    steps[-1] = before._replace(layers=(*before.layers, index))
                else:
                    behind = block.layers[block.layers.index(index) + 1 :]
                    steps.append(
                        _Step((index,), self.net.sources[index], self._kind(index), behind)
                    )
        return steps

    def _kind(self, index: int) -> str:
        layer, sources = self.net.layers[index], self.net.sources[index]
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            return "windows"
        if isinstance(layer, nn.AvgPool2d):
            # The last row of a window may lie beyond the padding, where no zeros are counted.
            window = self.window(index)
            is_even = window.padding == ((0, 0), (0, 0)) or layer.count_include_pad
            return "windows" if is_even and not layer.ceil_mode else "per channel"
        if isinstance(layer, (nn.Add, nn.Multiply)) or (
            isinstance(layer, nn.Concat) and layer.axis == "C"
        ):
            return "places"
        if isinstance(layer, (*_PER_PLACE, nn.Scaling)):
            return "places"
        keeps_channels = self.shapes[index][0] == self.shapes[sources[0]][0]
        if isinstance(layer, _PER_CHANNEL) and keeps_channels and (
            not isinstance(layer, nn.Reduction) or "C" not in layer.axes
        ):
            return "per channel"
        return "whole"

    def _joins(self, step: _Step, index: int) -> bool:
        """Whether a layer can be computed together with the convolution before it."""
        layer = self.net.layers[index]
        if not isinstance(self.net.layers[step.layers[0]], nn.Conv2d) or any(
            isinstance(self.net.layers[i], _POOLS) for i in step.layers
        ):
            return False
        if isinstance(layer, _POOLS):
            # No window may reach over the edge of the output of the convolution.
            window, size, out = self.window(index), self.size(step.last), self.size(index)
            return window.padding == ((0, 0), (0, 0)) and all(
                (n - 1) * s + e <= m
                for n, s, e, m in zip(out, window.stride, window.extent, size)
            )
        return is_affine(layer) or isinstance(layer, (nn.Elementwise, nn.Dropout))

    def window(self, index: int) -> Window:
        layer: Any = self.net.layers[index]
        return layer.window(self.size(self.net.sources[index][0]), self.net.arrays)

    def _windows(self, step: _Step) -> list[Window]:
        """The windows of its convolution and its pool, in order."""
        return [
            self.window(i) for i in step.layers
            if isinstance(self.net.layers[i], (nn.Conv2d, *_POOLS))
        ]

    # ---- which places change ----

    def _spans(self, step: _Step, spans: dict[int, _Spans]) -> _Spans:
        """The places of a step's output that change."""
        size = self.size(step.last)
        if step.kind == "windows":
            found, below = spans[step.sources[0]], self.size(step.sources[0])
            for window in self._windows(step):
                rows, cols = (
                    max(1, (n + sum(p) - e) // s + 1)
                    for n, p, e, s in zip(below, window.padding, window.extent, window.stride)
                )
                below = rows, cols
                found = found.through(window, below)
            # A pool that rounds up can have one place more than its window says.
            return _Spans(found.lo, np.minimum(found.hi + self._rounds_up(step), size))
        first = spans[step.sources[0]]
        if step.kind != "places" or any(self.size(source) != size for source in step.sources):
            return first.whole(size)
        for source in step.sources[1:]:
            first = first.around(spans[source])
        return first

    def _rounds_up(self, step: _Step) -> int:
        return int(getattr(self.net.layers[step.last], "ceil_mode", False))

    def at_once(self, spans: _Spans) -> int:
        """How many changed inputs go through together."""
        found, most = {-1: spans}, 1
        for step in self.steps:
            found[step.last] = self._spans(step, found)
            for source in step.sources:
                _, size = found[step.last].boxes(self.size(step.last))
                if step.kind == "windows":
                    size, _, _ = _reading(self._windows(step), size)
                elif step.kind != "places":
                    size = self.size(source)
                most = max(most, self.shapes[source][0] * math.prod(size))
        return max(1, _VALUES // most)

    # ---- computing ----

    def boxes(self, spans: _Spans, values: Array) -> dict[int, Boxes]:
        found = {-1: spans}
        begin, (height, width) = spans.boxes(self.size(-1))
        boxes = {-1: Boxes(begin, np.empty((len(values), len(begin), height, width),
                                           self.arithmetic.dtype))}
        boxes[-1].values[...] = boxes[-1].of(self.trace.x)
        for p in range(len(begin)):
            rows, cols = (slice(*pair) for pair in zip(spans.lo[p], spans.hi[p]))
            row, column = begin[p]
            boxes[-1].values[
                :, p, rows.start - row : rows.stop - row, cols.start - column : cols.stop - column
            ] = values[:, rows, cols]
        for step in self.steps:
            found[step.last] = self._spans(step, found)
            begin, size = found[step.last].boxes(self.size(step.last))
            given = [boxes[source] for source in step.sources]
            if step.kind == "windows":
                computed = self._through_windows(step, given[0], begin, size)
            elif step.kind == "places":
                computed = self._at_places(step, given, begin, size)
            else:
                computed = self._of_whole_maps(step, given)
            if step.last in self.wanted:
                check_overflow([computed], f"the output of {self.net.layers[step.last].label}")
            boxes[step.last] = Boxes(begin, computed)
        return {index: boxes[index] for index in self.wanted}

    def _original(self, index: int) -> Array:
        return self.trace.x if index < 0 else self.trace.activation(index)

    def _read(
        self, source: int, boxes: Boxes, begin: NDArray[np.intp], size: Pair, out: Array,
        edge: Padding = ((0, 0), (0, 0)), fill: float = 0.0,
    ) -> None:
        """Copy rectangles of changed maps to `out` (C, P, h, w).

        They may reach over the edge of the map by `edge`, where the value is `fill`.
        """
        padded = self._with_edge(source, edge, fill)
        h, w = size
        height, width = boxes.size
        for p, (row, column) in enumerate(begin.tolist()):
            to = out[:, p]
            a, b = row + edge[0][0], column + edge[1][0]
            to[:, :h, :w] = padded[:, a : a + h, b : b + w]
            # Where the box lies in this rectangle.
            down, right = (int(n) for n in boxes.begin[p] - (row, column))
            r0, r1 = max(0, down), min(h, down + height)
            c0, c1 = max(0, right), min(w, right + width)
            if r0 < r1 and c0 < c1:
                to[:, r0:r1, c0:c1] = boxes.values[
                    :, p, r0 - down : r1 - down, c0 - right : c1 - right
                ]

    def _with_edge(self, source: int, edge: Padding, fill: float) -> Array:
        """The unchanged map with `fill` around it."""
        return cached(
            self._padded, (source, edge, fill),
            lambda: np.pad(self._original(source), ((0, 0), *edge), constant_values=fill),
        )

    def _through_windows(
        self, step: _Step, boxes: Boxes, begin: NDArray[np.intp], size: Pair
    ) -> Array:
        (source,) = step.sources
        windows = self._windows(step)
        read, unit, shift = _reading(windows, size)
        needed, out, below = _needed(windows, size), self.size(step.last), self.size(source)
        top, left = (max(0, n) for n in shift)
        bottom, right = (
            max(0, (n - m) * u - s + k - b)
            for n, m, u, s, k, b in zip(out, size, unit, shift, needed, below)
        )
        count, rows = len(begin), read[0] // unit[0]
        # Rows between boxes also follow the last box, so that all boxes give equally many rows.
        tall = max(count * read[0], _needed(windows, (count * rows, 1))[0])
        stacked = np.zeros((self.shapes[source][0], tall, read[1]), self.arithmetic.dtype)
        each = stacked[:, : count * read[0]].reshape(len(stacked), count, *read)
        is_max = isinstance(self.net.layers[step.layers[0]], nn.MaxPool2d)
        self._read(
            source, boxes, begin * unit - shift, needed, each, ((top, bottom), (left, right)),
            -np.inf if is_max else 0.0,
        )
        lowered = self._lowered(step)
        runner = make_runner(lowered)
        # As a part of its block, whose sums depend on what is behind it.
        (block,) = forward_plan(lowered, runner.fuses_all)
        results = runner.run([block.cut(len(step.layers) - 1)], {-1: stacked})
        planes = runner.planes(results[-1][0])
        split = planes[:, : count * rows].reshape(len(planes), count, rows, -1)
        return np.ascontiguousarray(split[:, :, : size[0], : size[1]])

    def _lowered(self, step: _Step) -> Network:
        """The layers of a step, without padding, and those behind it in its block, as a network of
        its own."""
        block = step.layers[0], *step.behind

        def make() -> Network:
            layers = []
            for i in block:
                layer: Any = self.net.layers[i]
                changes: dict[str, Any] = {"inputs": None, "implied": False}
                if isinstance(layer, (nn.Conv2d, *_POOLS)) and i in step.layers:
                    changes["padding"] = 0
                if isinstance(layer, _POOLS) and i in step.layers:
                    changes["ceil_mode"] = False
                layers.append(dataclasses.replace(layer, **changes))
            keys = [key for layer in layers for key in layer.array_names]
            channels = self.shapes[step.sources[0]][0]
            return Network(
                layers, {key: self.net.arrays[key] for key in keys}, (channels, None, None)
            )

        key = "lowered", step.layers, step.behind
        return cached(layer_cache(self.net, step.layers[0]), key, make)

    def _at_places(
        self, step: _Step, given: Sequence[Boxes], begin: NDArray[np.intp], size: Pair
    ) -> Array:
        (index,) = step.layers
        layer, taken = self.net.layers[index], []
        for source, boxes in zip(step.sources, given):
            # An axis of size 1 is repeated where another input is larger.
            is_whole = self.size(source) != self.size(index)
            wanted = self.size(source) if is_whole else size
            out = np.empty(
                (self.shapes[source][0], len(begin), *wanted), self.arithmetic.dtype
            )
            self._read(source, boxes, np.zeros_like(begin) if is_whole else begin, wanted, out)
            taken.append(out)
        if isinstance(layer, nn.Joining):
            return forward_join(layer, taken)
        (x,) = taken
        if isinstance(layer, nn.Scaling) and not is_affine(layer):
            scale, shift = (a.astype(x.dtype) for a in affine_of(self.net, index))
            axis = "HW".index(layer.axis)
            places = begin[:, axis, None] + np.arange(size[axis])
            shape = [(-1, size[0], 1), (-1, 1, size[1])][axis]
            return x * scale[places].reshape(shape) + shift[places].reshape(shape)
        tall = x.reshape(len(x), -1, size[1])
        values, _ = forward_layer(self.net, index, tall, self.arithmetic)
        return values.reshape(len(values), *x.shape[1:])

    def _of_whole_maps(self, step: _Step, given: Sequence[Boxes]) -> Array:
        (index,) = step.layers
        layer, count = self.net.layers[index], len(given[0].begin)
        taken = []
        for source, boxes in zip(step.sources, given):
            channels, *size = self.shapes[source]
            out = np.empty((channels, count, *size), self.arithmetic.dtype)
            self._read(source, boxes, np.zeros_like(boxes.begin), self.size(source), out)
            taken.append(out)
        shape = self.shapes[index]
        if step.kind == "per channel":
            (x,) = taken
            values, _ = forward_layer(
                self.net, index, x.reshape(-1, *x.shape[2:]), self.arithmetic
            )
            return values.reshape(len(x), count, *shape[1:])
        values = np.empty((shape[0], count, *shape[1:]), self.arithmetic.dtype)
        for p in range(count):
            each = [np.ascontiguousarray(x[:, p]) for x in taken]
            if isinstance(layer, nn.Joining):
                values[:, p] = forward_join(layer, each)
            else:
                values[:, p] = forward_layer(self.net, index, each[0], self.arithmetic)[0]
        return values


def _needed(windows: Sequence[Window], size: Pair) -> Pair:
    """The size of the part of an input that windows read for an output of this size."""
    for window in reversed(windows):
        rows, cols = (
            (n - 1) * s + e for n, s, e in zip(size, window.stride, window.extent)
        )
        size = rows, cols
    return size


def _reading(windows: Sequence[Window], size: Pair) -> tuple[Pair, Pair, Pair]:
    """`_needed`, rounded up to whole units of rows; the unit; and how far before it windows read.

    A unit is the number of rows (and columns) by which neighbouring outputs lie apart in the input.
    """
    unit, shift = (1, 1), (0, 0)
    for window in windows:
        (top, _), (left, _) = window.padding
        shift = shift[0] + top * unit[0], shift[1] + left * unit[1]
        unit = unit[0] * window.stride[0], unit[1] * window.stride[1]
    height, width = _needed(windows, size)
    return (-(-height // unit[0]) * unit[0], width), unit, shift
