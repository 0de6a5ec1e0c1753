"""Activations: one pair of functions for all rows of their table, and softmax.

Going back, those that rectify (ReLU, clip from 0) follow the rule; all others are multiplied
by their derivative under every rule.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.activations import sigmoid
from ...network import layers as nn
from .base import Activations, Arithmetic, Array, Back, Passes, always, each_feature, never

__all__ = ["PASSES", "activation_slope", "probabilities"]


def _parameters(
    layer: nn.Elementwise, arrays: nn.Arrays, channels: Any = slice(None)
) -> dict[str, Any]:
    """What the functions of the layer's row are given besides the values of these channels."""
    parameters = layer.parameters
    for key in layer.array_names:
        weight = arrays[key]
        parameters["weight"] = (weight if len(weight) == 1 else weight[channels])[:, None, None]
    return parameters


def _elementwise(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    out: Array = layer.row.forward(x, **_parameters(layer, arrays))
    return out


def activation_slope(trace: Activations, index: int, channels: Any = slice(None)) -> Array:
    """The derivative of an activation where it was, planes of its channels (C, H, W)."""
    layer: Any = trace.network.layers[index]
    (below,) = trace.network.sources[index]
    taken = trace.activation(index if layer.row.at_output else below)[channels]
    slope: Array = layer.row.derivative(
        taken, **_parameters(layer, trace.network.arrays, channels)
    )
    return slope


def _elementwise_back(at: Back, R: Array) -> Array:  # noqa: N803
    row = at.layer.row
    parameters = _parameters(at.layer, at.arrays, at.channels)
    rectifies = row.rectifies(**parameters)
    if rectifies and at.rule != "gradient":
        R = np.maximum(R, 0)
    if rectifies and at.rule == "deconvnet":
        return R
    slope = activation_slope(at.trace, at.index, at.channels)
    if rectifies:
        return np.where(slope != 0, R, 0)
    slope = slope.astype(at.arithmetic.dtype)
    if np.isfinite(slope).all():
        return R * slope
    # At 0 a logarithm or a root is infinitely steep. Where nothing comes, nothing goes on.
    return np.where(R == 0, 0, R * slope)


def probabilities(kind: str, x: Array) -> Array:
    """Scores (C, H, W) as probabilities; `kind` is "softmax" (over the channels) or "sigmoid"."""
    return {"softmax": _softmax_of, "sigmoid": sigmoid}[kind](x)


def _exponentials(x: Array) -> tuple[Array, Array]:
    """exp(x - its largest channel), and the sum of that over the channels, float64."""
    powers = np.exp(x.astype(np.float64) - x.max(axis=0))
    return powers, powers.sum(axis=0)


def _softmax_of(x: Array) -> Array:
    """Over the channels, float64."""
    powers, total = _exponentials(x)
    out: Array = powers / total
    return out


def _softmax(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    return _softmax_of(x)


def _softmax_back(at: Back, R: Array) -> Array:  # noqa: N803
    p = _softmax_of(at.input)
    return each_feature(at, R, lambda r: p * (r - (p * r).sum(axis=0)))


def _log_softmax(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    _, total = _exponentials(x)
    out: Array = x.astype(np.float64) - x.max(axis=0) - np.log(total)
    return out


def _log_softmax_back(at: Back, R: Array) -> Array:  # noqa: N803
    p = _softmax_of(at.input)
    return each_feature(at, R, lambda r: r - p * r.sum(axis=0))


PASSES: dict[type[nn.Layer], Passes] = {
    **dict.fromkeys(
        nn.ACTIVATION_TYPES.values(), Passes(_elementwise, _elementwise_back, never)
    ),
    nn.Softmax: Passes(_softmax, _softmax_back, always),
    nn.LogSoftmax: Passes(_log_softmax, _log_softmax_back, always),
}
