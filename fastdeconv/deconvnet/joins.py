"""Layers with several inputs, forward and back; all rules treat them alike.

Forward, an axis of size 1 is repeated where another input is larger. So the projections that come
back to it are summed along that axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np

from ..network import layers as nn
from .layerwise.base import Array, double, entry

__all__ = ["backward_join", "forward_join"]

_Forward = Callable[[Any, Sequence[Array]], Array]
_Back = Callable[[Any, Sequence[Array], Array], list[Array]]


def forward_join(layer: nn.Layer, inputs: Sequence[Array]) -> Array:
    """The output of a join for planes (C, H, W)."""
    forward, _ = entry(_JOINS, layer)
    return np.ascontiguousarray(forward(layer, inputs))


def backward_join(
    layer: nn.Layer, inputs: Sequence[Array], R: Array  # noqa: N803
) -> list[Array]:
    """Projections (K, C, H, W) at the output of a join, taken back to each input.

    Do not write to the results: they may share memory with `R`.
    """
    _, back = entry(_JOINS, layer)
    return back(layer, inputs, R)


def _add(layer: nn.Add, inputs: Sequence[Array]) -> Array:
    return reduce(np.add, inputs)


def _add_back(layer: nn.Add, inputs: Sequence[Array], R: Array) -> list[Array]:  # noqa: N803
    return [R if x.shape == R.shape[1:] else _summed(double, R, x.shape) for x in inputs]


def _multiply(layer: nn.Multiply, inputs: Sequence[Array]) -> Array:
    return reduce(np.multiply, inputs)


def _multiply_back(
    layer: nn.Multiply, inputs: Sequence[Array], R: Array  # noqa: N803
) -> list[Array]:
    sent = []
    for i, x in enumerate(inputs):
        others = reduce(np.multiply, map(double, [*inputs[:i], *inputs[i + 1 :]]))
        sent.append(_summed(partial(np.multiply, others), R, x.shape))
    return sent


def _chosen(layer: nn.Layer, inputs: Sequence[Array]) -> tuple[Array, Array]:
    """The maximum (or minimum) at every place, and the number of the first input that has it."""
    beats = np.greater if isinstance(layer, nn.Maximum) else np.less
    first, *others = np.broadcast_arrays(*inputs)
    best, winner = first, np.zeros(first.shape, np.intp)
    for number, x in enumerate(others, start=1):
        wins = (beats(x, best) | np.isnan(x)) & ~np.isnan(best)
        best, winner = np.where(wins, x, best), np.where(wins, number, winner)
    return best, winner


def _choose(layer: nn.Layer, inputs: Sequence[Array]) -> Array:
    return _chosen(layer, inputs)[0]


def _choose_back(
    layer: nn.Layer, inputs: Sequence[Array], R: Array  # noqa: N803
) -> list[Array]:
    _, winner = _chosen(layer, inputs)

    def sent(number: int) -> Callable[[Array], Array]:
        won = winner == number
        return lambda r: np.where(won, double(r), 0)

    return [_summed(sent(i), R, x.shape) for i, x in enumerate(inputs)]


def _concat(layer: nn.Concat, inputs: Sequence[Array]) -> Array:
    return np.concatenate(inputs, axis="CHW".index(layer.axis))


def _concat_back(layer: nn.Concat, inputs: Sequence[Array], R: Array) -> list[Array]:  # noqa: N803
    axis = "CHW".index(layer.axis)
    ends = np.cumsum([x.shape[axis] for x in inputs])
    return np.split(R, ends[:-1], axis=axis + 1)


def _summed(
    back: Callable[[Array], Array], R: Array, shape: Sequence[int]  # noqa: N803
) -> Array:
    """`back` of every projection, summed in float64 along the axes where `shape` has size 1.

    It is done one projection at a time, so that no bit depends on how many there are.
    """
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    out = np.empty((len(R), *shape), R.dtype)
    for projected, r in zip(out, R):
        projected[...] = back(r).sum(axes, keepdims=True)
    return out


_JOINS: dict[type[nn.Layer], tuple[_Forward, _Back]] = {
    nn.Add: (_add, _add_back),
    nn.Multiply: (_multiply, _multiply_back),
    nn.Maximum: (_choose, _choose_back),
    nn.Minimum: (_choose, _choose_back),
    nn.Concat: (_concat, _concat_back),
}
"""The functions forward and back of every type."""
