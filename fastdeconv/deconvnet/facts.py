"""What the way back needs to know, in the form that kernels need.

What the network and the shape of its input determine is kept with the network: the next clip of
a collection has the same shape. What depends on values is kept with the trace.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_index
from ..kernels.interface import Pair, Window
from ..kernels.lanes import NO_POOL, Convolution, Post, Source, cached
from ..network import layers as nn
from .layerwise import activation_slope, affine_of
from .plan import layer_cache, rectifies, shape_cache
from .region import Part, Region, within
from .route import Order, Segment, takers_of
from .trace import Trace

__all__ = ["Facts"]

Array = NDArray[Any]

_SILENT, _SOUNDS, _NEGATIVE = 1, 2, 3
"""What is known of a channel: all zero, no value below zero, or some."""


class Facts:
    """Sizes, switches, gates and slopes of a trace. Layers are indices; -1 is the input."""

    def __init__(self, trace: Trace, dtype: Any) -> None:
        self.trace, self.net, self.dtype = trace, trace.network, dtype
        self._of_shape = shape_cache(self.net, trace.input_shape)
        known = self._of_shape.get("facts")
        if known is None:
            self.shapes = [trace.input_shape, *self.net.shapes(trace.input_shape)]
            self.takers = takers_of(self.net)
            self.overlapping = {
                i
                for i, layer in enumerate(self.net.layers)
                if isinstance(layer, nn.MaxPool2d) and self.window(i).overlapping
            }
            known = self._of_shape["facts"] = self.shapes, self.takers, self.overlapping
        self.shapes, self.takers, self.overlapping = known

    def of_shape(self, key: Any) -> dict[Any, Any]:
        """Where to keep what depends on the network and the shape of its input alone."""
        found: dict[Any, Any] = self._of_shape.setdefault(key, {})
        return found

    # ---- sizes ----

    def shape(self, index: int) -> tuple[int, ...]:
        """(C, H, W) of the output of a layer."""
        shape: tuple[int, ...] = self.shapes[index + 1]
        return shape

    def size(self, index: int) -> Pair:
        """(H, W) of the output of a layer."""
        _, h, w = self.shapes[index + 1]
        return h, w

    def window(self, index: int) -> Window:
        """The window of a convolution or pool."""
        layer: Any = self.net.layers[index]
        return cached(
            self.of_shape("windows"), index,
            lambda: layer.window(self.size(self.below(index)), self.net.arrays),
        )

    def below(self, index: int) -> int:
        """The layer from which a layer with one input takes it."""
        (below,) = self.net.sources[index]
        return below

    def whole(self, index: int, cells: Region | None = None) -> Part:
        """All of convolution `index`, as a part; `cells`: what its output is unpooled from."""
        output = Region.of(self.size(index))
        cells = cells or output
        return Part(output, Region.of(self.size(self.below(index))), cells, cells)

    # ---- values ----

    def sounding(self, index: int, features: NDArray[np.intp]) -> tuple[Array | None, bool]:
        """Which of these channels of the output of a layer are not all zero, (K,), None for all of
        them, and whether any of their values is negative."""
        activation = self.trace.activation(index)
        known: Array = cached(
            self.trace.derived("sounding"), index, lambda: np.zeros(len(activation), np.int8)
        )
        found = known[features]
        kinds = found.tobytes()  # looking for a byte in them is sooner than comparing arrays
        if 0 in kinds:
            wanted = np.zeros(len(known), bool)
            wanted[features] = True
            new = np.flatnonzero(wanted & (known == 0))
            known[new] = self._kinds(index, activation[as_index(new)])
            found = known[features]
            kinds = found.tobytes()
        return found != _SILENT if _SILENT in kinds else None, _NEGATIVE in kinds

    def _kinds(self, index: int, maps: Array) -> Array:
        """What is known of channels (K, H, W) of a layer, once they have been looked at."""
        if self._is_rectified(index):
            # Every eighth row shows of most that they are not silent.
            sounds = np.asarray(maps[:, ::8].any(axis=(1, 2)))
            others = np.flatnonzero(~sounds)
            sounds[others] = maps[others].any(axis=(1, 2))
            return np.where(sounds, _SOUNDS, _SILENT)
        lowest, highest = maps.min(axis=(1, 2)), maps.max(axis=(1, 2))
        return np.where(lowest < 0, _NEGATIVE, np.where(highest > 0, _SOUNDS, _SILENT))

    def _is_rectified(self, index: int) -> bool:
        """Whether a layer puts out values of a rectifier, which has none below zero."""
        while index >= 0 and isinstance(self.net.layers[index], (nn.MaxPool2d, nn.Dropout)):
            index = self.below(index)
        return index >= 0 and rectifies(self.net.layers[index])

    # ---- for jobs ----

    def convolution(self, index: int, part: Part, scales: Sequence[int] = ()) -> Convolution:
        """A convolution on a part of its maps, with the scales of these layers in its weights."""
        layer: Any = self.net.layers[index]
        weight, cache = self.net.arrays[f"{layer.name}.weight"], layer_cache(self.net, index)
        if scales:
            cache = cached(cache, ("scaled", *scales), dict)
            own, scale = weight, self._scale(scales)
            assert scale is not None
            weight = cached(cache, "weight", lambda: own * scale[:, None, None, None])
        return Convolution(
            weight, within(self.window(index), part.input, part.output), layer.groups,
            part.input.size, cache,
        )

    def post(self, segment: Segment, order: Order) -> Post:
        """The `Post` of a segment; an average pool sends equal shares to all places."""
        scale = self._scale(order.scales)
        if self.averages(segment):
            assert segment.pool is not None
            share = np.float32(1 / math.prod(self.window(segment.pool).kernel))
            ones = np.ones(self.shape(segment.top)[0], np.float32)
            scale = (ones if scale is None else scale) * share
        return Post(order.relu_before, scale, order.relu_after)

    def averages(self, segment: Segment) -> bool:
        """Whether the pool of a segment sends every value to all places of its window."""
        pool = segment.pool
        return pool is not None and isinstance(self.net.layers[pool], nn.AvgPool2d)

    def _scale(self, scales: Sequence[int]) -> Array | None:
        scale = None
        for index in scales:
            one = affine_of(self.net, index)[0]
            scale = one if scale is None else scale * one
        return None if scale is None else scale.astype(np.float32)

    def source(self, segment: Segment, part: Part) -> Source:
        """The source of the convolution below a segment: the tensor above the segment.

        It is without what `with_values` adds.
        """
        cells, unpooled = part.cells, part.output
        pool = NO_POOL if segment.pool is None else self.window(segment.pool)
        return Source(
            None, None, within(pool, unpooled, cells), cells.begin, cells.size, unpooled.size,
            self.shape(segment.end)[0], {},
        )

    def with_values(self, source: Source, segment: Segment) -> Source:
        """The source below a segment, with the switches and gates of the trace."""
        switches = None
        if segment.pool is not None and not self.averages(segment):
            switches = self.trace.switch_cells(segment.pool)
        cache = self.trace.derived(("source", segment.end, segment.pool, segment.gates))
        open_places = None
        if self.averages(segment):
            gate, open_places = None, cached(cache, "open", lambda: self._open(segment))
        else:
            gate = cached(cache, "gate", lambda: self._gate(segment))
        return source._replace(
            switches=switches, gate=gate, cache=cache, open_places=open_places
        )

    def _open(self, segment: Segment) -> NDArray[np.uint8]:
        """1 at the places of an unpooled tensor where every gating rectifier was active."""
        assert segment.pool is not None
        (kh, kw), shape = self.window(segment.pool).kernel, self.shape(segment.end)
        places = np.ones(shape, bool)
        for index in segment.gates:
            if index < segment.pool:
                places &= self.active(index, None)
                continue
            above = self.active(index, None).repeat(kh, axis=1).repeat(kw, axis=2)
            _, h, w = above.shape
            places[:, :h, :w] &= above
        return np.ascontiguousarray(places.transpose(1, 2, 0)).view(np.uint8)

    def _gate(self, segment: Segment) -> NDArray[np.uint8] | None:
        """1 where every gating rectifier was active, in the places of the pooled tensor."""
        gate: Array | None = None
        for index in segment.gates:
            active = self.active(index, segment.pool, as_cells=True)
            gate = active if gate is None else gate & active
        return None if gate is None else np.ascontiguousarray(gate).view(np.uint8)

    def factor(self, segment: Segment, cells: Region, with_gates: bool) -> Array | None:
        """The product of the slopes of a segment at these places of the tensor above it.

        `with_gates`: 0 where a gate is closed.
        """
        gates = segment.gates if with_gates else ()
        if not segment.slopes and not gates:
            return None

        def product() -> Array:
            planes = [self.slope(i, segment.pool) for i in segment.slopes]
            planes += [self.active(i, segment.pool) for i in gates]
            whole = functools.reduce(np.multiply, planes).transpose(1, 2, 0)
            return np.ascontiguousarray(whole, np.float32)

        cache = self.trace.derived(("products", segment.pool))
        part: Array = cached(cache, (segment.slopes, gates), product)[cells.slices]
        return part

    def cells_last(self, index: int) -> Array:
        """The output of a layer as (H, W, C), float32."""
        return cached(
            self.trace.derived("cells last"), index,
            lambda: np.ascontiguousarray(
                self.trace.activation(index).transpose(1, 2, 0), np.float32
            ),
        )

    # ---- activations ----

    def pooled_slope(self, index: int, pool: int) -> Array:
        """`slope`, which is kept for the next call."""
        key = index, pool, self.dtype
        return cached(self.trace.derived("slopes"), key, lambda: self.slope(index, pool))

    def slope(self, index: int, pool: int | None) -> Array:
        """The derivative of activation `index`, at the places of the tensor pooled by `pool`."""
        slope = activation_slope(self.trace, index).astype(self.dtype)
        return slope if pool is None or index > pool else self._pooled(slope, pool)

    def active(self, index: int, pool: int | None, *, as_cells: bool = False) -> Array:
        """Where rectifier `index` was active, at the places of the tensor pooled by `pool`.

        Shape (C, H, W); with `as_cells` (H, W, C).
        """
        layer: Any = self.net.layers[index]
        output = self.trace.cells if as_cells else self.trace.activation

        def active(output: Array) -> Array:
            where: Array = layer.row.derivative(output, **layer.parameters)
            return where

        if pool is None or index > pool:
            return active(output(index))
        if self._hands_on(index, pool):
            # The pool put out the values of the rectifier, and they are stored.
            return active(output(pool))
        pooled = self._pooled(active(self.trace.activation(index)), pool)
        return pooled.transpose(1, 2, 0) if as_cells else pooled

    def _hands_on(self, index: int, pool: int) -> bool:
        """Whether the values that `index` puts out reach `pool` unchanged."""
        between = self.below(pool)
        while between != index and isinstance(self.net.layers[between], nn.Dropout):
            between = self.below(between)
        return between == index

    def _pooled(self, values: Array, pool: int) -> Array:
        """The values of planes at the input of a pool to which its switches point."""
        window = self.window(pool)
        switches = self.trace.switch_planes(pool).astype(np.intp)
        c, h, w = switches.shape
        rows = switches // window.kernel[1] * window.dilation[0]
        rows += (np.arange(h) * window.stride[0] - window.padding[0][0])[:, None]
        cols = switches % window.kernel[1] * window.dilation[1]
        cols += np.arange(w) * window.stride[1] - window.padding[1][0]
        picked: Array = values[np.arange(c)[:, None, None], rows, cols]
        return picked
