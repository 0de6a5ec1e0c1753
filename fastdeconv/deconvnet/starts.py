"""The way back while every feature is still a single map.

From the layer that was asked for down to the first one that mixes channels nothing but the
feature's own channel is not zero. What is added on the way stays single, too.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.lanes import cached
from ..network import layers as nn
from .facts import Facts
from .layerwise import Arithmetic, backward_layer, mixes
from .plan import is_affine, rectifies
from .route import has_slope

__all__ = ["Start", "Starts"]

Array = NDArray[Any]


class Start(NamedTuple):
    """Where the way begins, and with what."""

    layer: int
    """A convolution; or a layer at whose output something else is added; -1 is the input."""
    maps: Array
    """At its output: (K, H, W), one a feature; or (K, C, H, W), which go as planes."""
    is_first: bool
    """Whether the layer is a convolution that lanes take back from one map a feature."""
    pool: int | None = None
    """A pool that is left to do, at whose output they are."""
    as_planes: bool = False
    """Whether the layer goes by itself, on planes of all channels."""


class _Descent(NamedTuple):
    """What single maps go through from a layer on; the same for every trace."""

    steps: list[tuple[Literal["rectifier", "slope", "layer"], int, int]]
    """What is done, the layer that does it, and the pool at whose output the maps are then."""
    end: int
    """The layer at whose output they are left, and ..."""
    pool: int | None
    """... the pool that is left to do above it."""


class Starts:
    """Where single maps meet what takes all channels; `lanes`: whether there are lane kernels."""

    def __init__(self, facts: Facts, rule: str, arithmetic: Arithmetic, lanes: bool) -> None:
        self.facts, self.net, self.rule = facts, facts.net, rule
        self.arithmetic, self.lanes = arithmetic, lanes

    def of(
        self, index: int, maps: Array, features: NDArray[np.intp], may_be_negative: bool = True
    ) -> list[Start]:
        """Where single maps meet a layer that mixes channels, or something that is added.

        `may_be_negative`: not only in the maps that it begins with.
        """
        starts: list[Start] = []
        single, others = {index: maps}, set[int]()
        while single:
            top = max(*single, *others) if others else max(single)
            if top in others:
                others.discard(top)
                if top in single:
                    starts.append(self._start(top, single.pop(top)))
                if top >= 0:
                    others.update(self.net.sources[top])
                continue
            start = self._down(top, single.pop(top), features, may_be_negative or top != index)
            layer = start.layer
            if layer >= 0 and self._adds(layer):
                for source in self.net.sources[layer]:
                    single[source] = single[source] + start.maps if source in single else start.maps
            elif layer >= 0 and layer != top and not self.mixes(layer):
                single[layer] = single[layer] + start.maps if layer in single else start.maps
            else:
                starts.append(start if start.is_first else start._replace(as_planes=True))
                if layer >= 0:
                    others.update(self.net.sources[layer])
        return starts

    def _adds(self, index: int) -> bool:
        """Whether a layer sends all inputs what comes back to it."""
        return isinstance(self.net.layers[index], nn.Add) and all(
            self.facts.shape(k) == self.facts.shape(index) for k in self.net.sources[index]
        )

    def mixes(self, index: int) -> bool:
        """Whether going back through a layer mixes channels."""
        return mixes(self.net.layers[index], self.rule)

    def _down(
        self, index: int, maps: Array, features: NDArray[np.intp], may_be_negative: bool
    ) -> Start:
        """Maps (K, H, W), one a feature, down to the layer that first mixes channels, or whose
        output several take."""
        descent = cached(
            self.facts.of_shape("descents"), (index, self.rule), lambda: self._descent(index)
        )
        R = maps[None]
        for kind, layer, pool in descent.steps:
            if kind == "rectifier":
                R = self._pooled_rectifier(layer, pool, R, features, may_be_negative)
                continue
            if kind == "slope":
                R = R * self.facts.pooled_slope(layer, pool)[features]
            else:
                R = self._layer(layer, R, features)
            may_be_negative = True
        start = self._start(descent.end, R[0], descent.pool)
        return start if start.is_first else self.unpooled(start, features)

    def _descent(self, index: int) -> _Descent:
        """What maps at the output of a layer go through before channels are mixed."""
        steps: list[Any] = []
        top, pool = index, None
        while index >= 0 and not self.mixes(index):
            if index != top and self.facts.takers[index] > 1:
                break
            layer = self.net.layers[index]
            if pool is None and isinstance(layer, nn.MaxPool2d) and (
                index not in self.facts.overlapping
            ):
                # Every value goes to one place: what follows is done while there are few.
                pool = index
            elif pool is not None and rectifies(layer):
                steps.append(("rectifier", index, pool))
            elif pool is not None and has_slope(layer, self.net.arrays):
                steps.append(("slope", index, pool))
            elif pool is not None and not (isinstance(layer, nn.Dropout) or is_affine(layer)):
                steps.append(("layer", pool, pool))
                pool = None
                continue
            else:
                steps.append(("layer", index, index))
            index = self.facts.below(index)
        return _Descent(steps, index, pool)

    def _start(self, index: int, maps: Array, pool: int | None = None) -> Start:
        is_convolution = index >= 0 and isinstance(self.net.layers[index], nn.Conv2d)
        return Start(index, maps, is_convolution and self.lanes, pool)

    def unpooled(self, start: Start, features: NDArray[np.intp]) -> Start:
        """The start at the output of its layer."""
        if start.pool is None:
            return start
        maps = self._layer(start.pool, start.maps[None], features)[0]
        return start._replace(maps=maps, pool=None)

    def _pooled_rectifier(
        self, index: int, pool: int, R: Array, features: NDArray[np.intp],  # noqa: N803
        may_be_negative: bool,
    ) -> Array:
        """Rectifier `index` at the places of the map that `pool` made."""
        # An activation has no negatives: to look for them is sooner than to copy it.
        if self.rule != "gradient" and may_be_negative and R.min(initial=0) < 0:
            R = np.maximum(R, 0)
        if self.rule != "deconvnet":
            R = np.where(self.facts.active(index, pool)[features], R, 0)
        return R

    def _layer(self, index: int, R: Array, channels: Any) -> Array:  # noqa: N803
        return backward_layer(
            self.facts.trace, index, R, self.rule, self.arithmetic, channels
        )
