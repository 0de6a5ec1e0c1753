"""Average pools folded into the convolution below them.

The way back spreads every value evenly over its window. Under the rule "deconvnet" rectifiers,
and always scales of channels, do the same to a value before it is spread as after. What is
left is linear: a convolution and the average over its outputs together are one convolution
with a larger kernel and stride. After a 2 x 2 average under a 3 x 3 convolution that takes 16
products a value, where the spread one would take 36, and the lane kernels do the rest.

Under the other rules a rectifier lets some of the places of a window through and others not,
so that nothing can be folded where there is one between: there the lists of lane kernels name
the places that are open (`fastdeconv.kernels.lanes.Source`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.lanes import cached
from ..network import layers as nn
from ..network.network import Network
from .plan import is_affine, rectifies, shape_cache
from .route import is_plain_average, takers_of
from .trace import Trace

__all__ = ["folded", "pool_above"]

Array = NDArray[Any]


class Folded(NamedTuple):
    """A network with its average pools folded."""

    network: Network
    places: tuple[int, ...]
    """For each of its layers the one of the whole network whose output has the same shape."""


class FoldedTrace(Trace):
    """The trace of a network, as the folded one sees it."""

    def __init__(self, trace: Trace, folded: Folded, derived: dict[Any, dict[Any, Any]]) -> None:
        self.network = folded.network
        self.input_shape = trace.input_shape
        self._trace, self._places = trace, (*folded.places, -1)
        self._derived = derived

    @functools.cached_property
    def x(self) -> NDArray[np.float32]:
        return self._trace.x

    def activation(self, index: int) -> Array:
        return self._trace.activation(self._places[index])

    def cells(self, index: int) -> Array:
        return self._trace.cells(self._places[index])

    def switch_cells(self, index: int) -> Array:
        return self._trace.switch_cells(self._places[index])

    def switch_planes(self, index: int) -> Array:
        return self._trace.switch_planes(self._places[index])


def folded(trace: Trace, index: int, rule: str) -> tuple[Trace, int]:
    """The trace to go back on from layer `index`, and the layer's place in it.

    The trace itself where there is nothing to fold.
    """
    if not any(isinstance(layer, nn.AvgPool2d) for layer in trace.network.layers[: index + 1]):
        return trace, index
    net, shape = trace.network, trace.input_shape
    through_rectifiers = rule == "deconvnet"
    found: Folded | None = cached(
        shape_cache(net, shape), ("folded", index, through_rectifiers),
        lambda: _fold(net, index, shape, through_rectifiers),
    )
    if found is None:
        return trace, index
    # Not kept with the trace, to which it refers; what is derived from it is.
    derived = trace.derived(("folded", index, through_rectifiers))
    return FoldedTrace(trace, found, derived), len(found.places) - 1


def _fold(
    net: Network, index: int, shape: tuple[int, ...], through_rectifiers: bool
) -> Folded | None:
    """The network up to layer `index`, folded; None if it stays as it is."""
    shapes = [shape, *net.shapes(shape)]
    layers: list[nn.Layer] = []
    places: list[int] = []
    arrays = dict(net.arrays)
    names: dict[str, str] = {}
    """Of a pool: what puts out the same now."""

    def keep(layer: nn.Layer, place: int) -> None:
        layers.append(replace(layer, inputs=tuple(names.get(name, name) for name in layer.inputs)))
        places.append(place)

    at = 0
    while at <= index:
        pool = pool_above(net, at, index, through_rectifiers)
        if pool is None:
            keep(net.layers[at], at)
            at += 1
            continue
        conv, weight = _joined(net, at, pool, shapes)
        arrays[f"{conv.name}.weight"] = weight
        # The rest of the block comes behind the join; what goes back through it does not look
        # at what it put out, only the shape counts, which is that of the pool.
        for layer in (conv, *net.layers[at + 1 : pool]):
            keep(layer, pool)
        names[net.layers[pool].name] = net.layers[pool - 1].name
        at = pool + 1
    if len(layers) == index + 1:
        return None
    keys = [key for layer in layers for key in layer.array_names]
    return Folded(
        Network(layers, {key: arrays[key] for key in keys}, shape), tuple(places)
    )


def pool_above(net: Network, conv: int, last: int, through_rectifiers: bool) -> int | None:
    """The average pool that convolution `conv` can be joined with, not above `last`."""
    if not isinstance(net.layers[conv], nn.Conv2d):
        return None
    takers = takers_of(net)
    for place in range(conv + 1, last + 1):
        layer = net.layers[place]
        if net.sources[place] != (place - 1,) or takers[place - 1] > 1:
            return None
        if isinstance(layer, nn.AvgPool2d):
            return place if is_plain_average(layer, net.arrays) else None
        if rectifies(layer) and not through_rectifiers:
            return None
        if not (rectifies(layer) or is_affine(layer) or isinstance(layer, nn.Dropout)):
            return None
    return None


def _joined(
    net: Network, conv: int, pool: int, shapes: Sequence[Sequence[int]]
) -> tuple[nn.Conv2d, Array]:
    """The convolution that is convolution `conv` and the average of its outputs."""
    layer: Any = net.layers[conv]
    pooling: Any = net.layers[pool]
    below, out = (shapes[conv][1], shapes[conv][2]), shapes[pool + 1][1:]
    window = layer.window(below, net.arrays)
    size = pooling.window((1, 1), net.arrays).kernel
    weight = net.arrays[f"{layer.name}.weight"].astype(np.float64)
    extent = tuple(
        e + (p - 1) * s for e, p, s in zip(window.extent, size, window.stride)
    )
    joined = np.zeros((*weight.shape[:2], *extent))
    (sh, sw), (dh, dw), (kh, kw) = window.stride, window.dilation, window.kernel
    for i, j in np.ndindex(*size):
        rows = slice(i * sh, i * sh + (kh - 1) * dh + 1, dh)
        columns = slice(j * sw, j * sw + (kw - 1) * dw + 1, dw)
        joined[:, :, rows, columns] += weight
    stride = sh * size[0], sw * size[1]
    padding = tuple(
        (before, max(0, (n_out - 1) * s + e - n - before))
        for (before, _), n_out, s, e, n in zip(window.padding, out, stride, extent, below)
    )
    made = replace(layer, stride=stride, padding=padding, dilation=1)
    return made, (joined / (size[0] * size[1])).astype(np.float32)
