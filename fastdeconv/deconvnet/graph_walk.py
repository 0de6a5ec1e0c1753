"""The backward pass of a network with branches, chain by chain, from the last to the first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .graph import GraphPart, parts_of
from .joins import backward_join
from .layerwise import Arithmetic
from .trace import GraphTrace, Trace

__all__ = ["ChainWalk", "GraphWalk"]

Array = NDArray[Any]

_MOST, _LEAST = 64, 16
"""Features that go together: they come in lanes of 16."""
_PLANE_BYTES = 1 << 28
"""What has come back to forks may take so much memory at a time,"""
_FORKS = 4
"""of so many planes of the largest layer."""


class ChainWalk(Protocol):
    """The way down a chain; see `fastdeconv.deconvnet.projection`."""

    arithmetic: Arithmetic

    def project(
        self, index: int, features: NDArray[np.intp], values: Array, out: Array, sparse: bool
    ) -> None:
        """Project `values` (K, H, W) of layer `index` into `out` (K, C, H, W)."""

    def planes_down(self, index: int, R: Array) -> Array:  # noqa: N803
        """From projections (K, C, H, W) at the output of layer `index` to the chain's input."""


class GraphWalk:
    """The way down a network with branches: chain by chain, from the last to the first.

    Where a signal forks going forward, what comes back is added.
    """

    def __init__(self, trace: GraphTrace, walk_of: Callable[[Trace], ChainWalk]) -> None:
        self.trace, self.walk_of = trace, walk_of
        self.net = trace.network
        self.parts = parts_of(self.net)

    def project(
        self, index: int, features: NDArray[np.intp], values: Array, out: Array, sparse: bool
    ) -> None:
        """Project `values` (K, H, W) of layer `index` into `out` (K, C, H, W)."""
        size = self._features_at_once(index)
        for at in range(0, len(features), size):
            some = slice(at, at + size)
            out[some] = self._project_some(index, features[some], values[some], sparse)

    def _project_some(
        self, index: int, features: NDArray[np.intp], values: Array, sparse: bool
    ) -> Array | float:
        """Projections (K, C, H, W) at the network's input; 0 if nothing comes there."""
        reached: dict[int, Array] = {}
        """What has come back to the output of a layer, or to the input."""

        def send(source: int, R: Array) -> None:  # noqa: N803
            reached[source] = reached[source] + R if source in reached else R

        number = next(i for i, part in enumerate(self.parts) if index in part.places)
        part = self.parts[number]
        if part.chain is None:
            whole = np.zeros((len(values), *self.trace.activation(index).shape), values.dtype)
            whole[np.arange(len(values)), features] = values
            reached[index] = whole
            number += 1
        else:
            chain, place = self.trace.chain_at(index)
            walk = self.walk_of(chain)
            planes = np.empty((len(values), *chain.x.shape), walk.arithmetic.dtype)
            walk.project(place, features, values, planes, sparse)
            send(part.sources[0], planes)
        for part in reversed(self.parts[:number]):
            R = reached.pop(part.places[-1], None)
            if R is None:
                continue
            for source, sent in zip(part.sources, self._back(part, R)):
                send(source, sent)
        return reached.get(-1, 0.0)

    def _back(self, part: GraphPart, R: Array) -> list[Array]:  # noqa: N803
        """From the output of a part to each of what it takes."""
        last = part.places[-1]
        if part.chain is None:
            inputs = [self.trace.activation(source) for source in part.sources]
            return backward_join(self.net.layers[last], inputs, R)
        chain, place = self.trace.chain_at(last)
        return [self.walk_of(chain).planes_down(place, R)]

    def _features_at_once(self, index: int) -> int:
        """Features whose projections at all forks fit in bounded memory."""
        shapes = self.net.shapes(self.trace.x.shape)
        largest = max(math.prod(shape) for shape in shapes[: index + 1])
        fits = _PLANE_BYTES // (4 * _FORKS * largest)
        return max(_LEAST, min(_MOST, fits // _LEAST * _LEAST))
