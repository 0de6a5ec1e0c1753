"""Whether values can overflow float32 on their way through a network.

The weights alone tell by how much each layer can enlarge its input at most, forward and back. Real
networks stay far below the limit. Then their values need not be looked at, which would cost as much
as projecting a shallow layer. Where the bounds do not rule out an overflow, values are checked, and
an overflow is an error that names the layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ParameterError
from ..kernels.lanes import cached
from ..network import layers as nn
from ..network.network import Network
from .layerwise import affine_of
from .plan import layer_cache

__all__ = [
    "bounds_back", "bounds_forward", "check_overflow", "is_safe", "largest_safe",
    "without_warnings",
]

_SAFE = 1e30
"""float32 ends at 3.4e38. The factor between is for sums inside kernels (Winograd's transforms)."""

_NEVER_LARGER = (
    nn.Softmax, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptivePool, nn.GlobalAvgPool2d,
    nn.GlobalMaxPool2d, nn.Reduction, nn.Dropout, nn.Flatten, nn.Slice, nn.Permute, nn.Reshape,
    nn.Upsample,
)
"""Layers whose output is at most as large as their input, or 1."""


Bounds = Callable[[int], float]


class _Growth(NamedTuple):
    """Bounds of a layer.

    Its output is at most `forward` times as large as its input, plus `shift`. What it sends back is
    at most `back` times as large as what comes.
    """

    forward: float
    shift: float
    back: float


def is_safe(bound: float) -> bool:
    """Whether values up to `bound` cannot overflow float32; False for NaN."""
    return bound < _SAFE


def bounds_forward(
    net: Network, largest: float, known: Callable[[int], float | None] = lambda index: None,
    check: Callable[[int], float] = lambda index: math.inf,
) -> list[float]:
    """The largest absolute value at the output of each layer, for an input up to `largest`.

    Bounds by weights alone get weaker with every layer. Where they do not rule out an overflow, the
    values themselves are looked at.

    Parameters
    ----------
    known : callable
        ``known(index)``: the largest absolute value of a layer (-1: the input); None if its
        activation is not stored.
    check : callable
        ``check(index)``: the same for any layer, which is computed if need be. Raises an error
        if values have overflowed.
    """
    if largest <= largest_safe(net):
        return _by_weights(net, max(1.0, largest))
    # Most clips of a network are about as large in these places. With sizes rounded up, the bounds
    # of the last one are those of the next, and the way through all layers is saved.
    most, keep = _rounded_up(largest), layer_cache(net, -1)
    latest: _Looked | None = keep.get("latest bounds")
    if latest is not None and latest.largest == most and all(
        _size(known(index)) == size for index, size in latest.sizes.items()
    ):
        return latest.bounds
    sizes: dict[int, float | None] = {}
    own = {-1: most}
    growths = _growths(net)

    def look(index: int) -> float | None:
        if index not in sizes:
            sizes[index] = _size(known(index))
        return sizes[index]

    def grown(index: int) -> float:
        return _grown(net.layers[index], growths[index], [own[k] for k in net.sources[index]])

    checked = False
    for index in range(len(net.layers)):
        own[index] = grown(index)
        if not is_safe(own[index]):
            for source in net.sources[index]:
                _tighten(source, net, own, look, grown)
            own[index] = grown(index)
        if not is_safe(own[index]):
            own[index], checked = check(index), True
    bounds = [own[index] for index in range(len(net.layers))]
    if not checked:
        keep["latest bounds"] = _Looked(most, sizes, bounds)
    return bounds


class _Looked(NamedTuple):
    """Bounds that were found by a look at values."""

    largest: float
    """Of the input, rounded up."""
    sizes: dict[int, float | None]
    """Of the layers that were looked at."""
    bounds: list[float]


def _size(found: float | None) -> float | None:
    return None if found is None else _rounded_up(found)


def _rounded_up(size: float) -> float:
    """A power of 2 that is not smaller, at least 1; NaN and infinity remain."""
    if size < 1:
        return 1.0
    return math.ldexp(1.0, math.frexp(size)[1]) if math.isfinite(size) else size


# Not a function inside: it would refer to itself and to `known`, which keeps a trace and its memory
# alive until the garbage collector comes.
def _tighten(
    index: int, net: Network, own: dict[int, float], known: Callable[[int], float | None],
    grown: Callable[[int], float],
) -> None:
    """Bound a layer by its values, or by those of the layers that it takes."""
    found = known(index)
    if found is not None:
        own[index] = found
    elif index >= 0:
        for source in net.sources[index]:
            _tighten(source, net, own, known, grown)
        own[index] = grown(index)


def largest_safe(net: Network) -> float:
    """Inputs up to this value cannot overflow, by the weights alone; -1 if they do not tell."""
    safe: float = cached(layer_cache(net, -1), "largest safe", lambda: _largest_safe(net))
    return safe


def _largest_safe(net: Network) -> float:
    def safe(largest: float) -> bool:
        return all(map(is_safe, _by_weights(net, largest)))

    if not safe(1.0):
        return -1.0
    # Bounds grow with the input: its exponent is found by halving.
    low, high = 0.0, math.log10(_SAFE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if safe(10**middle) else (low, middle)
    return float(10**low)


_HALVINGS = 12
"""These leave 2 % of the largest safe input undecided."""


def _by_weights(net: Network, largest: float) -> list[float]:
    """The bounds by weights alone."""
    own = {-1: largest}
    for index, growth in enumerate(_growths(net)):
        own[index] = _grown(net.layers[index], growth, [own[k] for k in net.sources[index]])
    return [own[index] for index in range(len(net.layers))]


def _grown(layer: nn.Layer, growth: _Growth, taken: Sequence[float]) -> float:
    """The bound of a layer, from the bounds of its inputs."""
    if isinstance(layer, nn.Multiply):
        return math.prod(taken)
    if isinstance(layer, nn.Concat):
        return max(taken)
    return _scaled(sum(taken), growth) + growth.shift


def _scaled(value: float, growth: _Growth) -> float:
    # Not 0 times infinity, where a function is bounded whatever goes in.
    return value * growth.forward if growth.forward else 0.0


def bounds_back(net: Network, index: int, largest: float, activations: Bounds) -> float:
    """The largest absolute value on the way from the output of layer `index` to the input.

    `activations` are the bounds of the forward pass, which a product sends back.
    """
    growth: float | None = cached(
        layer_cache(net, -1), ("growth back", index),
        # A product sends back more or less by what is there.
        lambda: None if any(isinstance(layer, nn.Multiply) for layer in net.layers)
        else _most_back(net, index, 1.0, activations),
    )
    if growth is None:
        return _most_back(net, index, largest, activations)
    return max(1.0, largest) * growth


def _most_back(net: Network, index: int, largest: float, activations: Bounds) -> float:
    bounds = {index: max(1.0, largest)}
    most = bounds[index]
    for i in range(index, -1, -1):
        if i not in bounds:
            continue
        sent = bounds[i] * _growths(net)[i].back
        if isinstance(net.layers[i], nn.Multiply):
            sent *= math.prod(max(1.0, activations(k)) for k in net.sources[i])
        for k in net.sources[i]:
            bounds[k] = bounds.get(k, 0.0) + sent
            most = max(most, bounds[k])
    return most


def without_warnings() -> np.errstate:
    """Without NumPy's warnings, where the caller looks for an overflow afterwards."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


def check_overflow(values: Iterable[NDArray[Any]], what: str) -> None:
    """Check that values are finite in float32.

    Raises
    ------
    ParameterError
        If they are not. Its message begins with `what`.
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
        back = 1.0
        if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
            back = float(math.prod(layer.window((1, 1), net.arrays).kernel))
        elif isinstance(layer, nn.AdaptivePool):
            back = math.inf  # how often windows overlap, the layer alone does not tell
        elif isinstance(layer, nn.Upsample):
            # Lines reach twice as far as repeated values.
            reach = 1 if layer.mode == "nearest" else 4
            back = math.inf if layer.scales is None else float(reach * math.prod(layer.scales))
        elif isinstance(layer, nn.Softmax):
            back = 2.0
        return _Growth(1.0, 0.0, back)
    if isinstance(layer, nn.Joining):
        return _Growth(1.0, 0.0, 1.0)
    if isinstance(layer, nn.Elementwise):
        given = layer.parameters
        for key in layer.array_names:
            given["weight"] = net.arrays[key]
        steepest = layer.steepest(net.arrays)
        with np.errstate(divide="ignore"):
            at_zero = layer.row.forward(np.zeros(1), **given)
        largest = layer.row.largest(**layer.parameters)
        if largest < math.inf:
            return _Growth(0.0, largest, steepest)
        return _Growth(steepest, float(np.abs(at_zero).max()), steepest)
    if isinstance(layer, nn.Scaling):
        scale, shift = (float(np.abs(a).max()) for a in affine_of(net, index))
        return _Growth(scale, shift, scale)
    if isinstance(layer, nn.Pad):
        if layer.mode == "constant":
            return _Growth(1.0, abs(layer.value), 1.0)
        # So often a value may be repeated.
        return _Growth(1.0, 0.0, float(math.prod(1 + sum(side) for side in layer.padding)))
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        weight = np.abs(net.arrays[f"{layer.name}.weight"])
        bias = net.arrays.get(f"{layer.name}.bias")
        rows = weight.reshape(len(weight), -1)
        growth = _Growth(
            float(rows.sum(axis=1, dtype=np.float64).max()),
            0.0 if bias is None else float(np.abs(bias).max()),
            float(
                rows.sum(axis=0, dtype=np.float64).reshape(weight.shape[1], -1).sum(axis=1).max()
            ),
        )
        if isinstance(layer, nn.ConvTranspose2d):  # whose first axis is the input's
            growth = growth._replace(forward=growth.back, back=growth.forward)
        return growth
    return _Growth(math.inf, 0.0, math.inf)
