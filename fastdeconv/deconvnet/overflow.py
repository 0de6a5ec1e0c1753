"""Whether values can leave float32 on their way through a network.

Weights alone bound how much each layer can enlarge its input, forward and back. Real
networks stay far below the limit, so their values need not be looked at, which would cost
as much as projecting a shallow layer. Where the bound does not rule an overflow out, values
are checked, and an overflow is refused by the name of the layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ParameterError
from ..kernels.lanes import cached
from ..network import layers as nn
from ..network.network import Network
from .layerwise import affine_of
from .plan import AFFINE, layer_cache

__all__ = ["bounds_back", "bounds_forward", "check_overflow", "is_safe", "without_warnings"]

_SAFE = 1e30
"""float32 ends at 3.4e38. The rest is room for sums inside kernels (Winograd's transforms)."""

_NEVER_LARGER = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Softmax, nn.MaxPool2d, nn.AvgPool2d, nn.GlobalAvgPool2d,
    nn.GlobalMaxPool2d, nn.Dropout, nn.Flatten,
)
"""Layers whose output is at most as large as their input, or 1."""


class _Growth(NamedTuple):
    """At most so many times larger than its input, plus a shift, is what a layer gives."""

    forward: float
    shift: float
    back: float


def is_safe(bound: float) -> bool:
    """Whether values up to `bound` are sure to stay inside float32 (NaN is not)."""
    return bound < _SAFE


def bounds_forward(net: Network, largest: float) -> list[float]:
    """The largest absolute value up to the output of each layer, for an input up to `largest`."""
    def onward(bound: float, growth: _Growth) -> float:
        return max(bound, bound * growth.forward + growth.shift)

    return [*accumulate(_growths(net), onward, initial=max(1.0, largest))][1:]


def bounds_back(net: Network, index: int, largest: float) -> float:
    """The largest absolute value on the way from the output of layer `index` to the input."""
    bound = max(1.0, largest)
    for growth in reversed(_growths(net)[: index + 1]):
        bound = max(bound, bound * growth.back)
    return bound


def without_warnings() -> np.errstate:
    """NumPy's own warnings are left out where an overflow is looked for afterwards."""
    return np.errstate(over="ignore", invalid="ignore")


def check_overflow(values: Iterable[NDArray[Any]], what: str) -> None:
    """Refuse values that are not finite in float32.

    Raises
    ------
    ParameterError
        Begins with `what`.
    """
    for array in values:
        with without_warnings():
            finite = np.isfinite(array.astype(np.float32, copy=False)).all()
        if not finite:
            raise ParameterError(f"{what} overflows float32: are the weights in order?")


def _growths(net: Network) -> list[_Growth]:
    found: list[_Growth] = cached(
        layer_cache(net, -1), "growths", lambda: [_growth(net, i) for i in range(len(net.layers))]
    )
    return found


def _growth(net: Network, index: int) -> _Growth:
    layer: Any = net.layers[index]
    if isinstance(layer, _NEVER_LARGER):
        # Where windows of a pool overlap, what they send back to a place is added up.
        overlap = 1.0
        if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
            overlap = float(math.prod(layer.window((1, 1), net.arrays).kernel))
        return _Growth(1.0, 0.0, 2.0 if isinstance(layer, nn.Softmax) else overlap)
    if isinstance(layer, AFFINE):
        scale, shift = (float(np.abs(a).max()) for a in affine_of(net, index))
        return _Growth(scale, shift, scale)
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        weight = np.abs(net.arrays[f"{layer.name}.weight"].astype(np.float64))
        bias = net.arrays.get(f"{layer.name}.bias")
        others = tuple(range(2, weight.ndim))
        return _Growth(
            float(weight.sum(axis=(1, *others)).max()),
            0.0 if bias is None else float(np.abs(bias).max()),
            float(weight.sum(axis=(0, *others)).max()),
        )
    return _Growth(math.inf, 0.0, math.inf)
