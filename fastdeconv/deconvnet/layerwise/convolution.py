"""Layers that multiply by learned filters; back, by their adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...network import layers as nn
from .base import (
    Arithmetic,
    Array,
    Back,
    Passes,
    always,
    each_feature,
    out_size,
    size_of,
    weight_and_bias,
)

__all__ = ["PASSES"]


def _conv(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    weight, bias = weight_and_bias(layer, arrays)
    window = layer.window(size_of(x), arrays)
    size = out_size(layer, arrays, x)
    out: Array = arithmetic.conv2d(x[None], weight, bias, window, layer.groups, size)[0]
    return out


def _conv_back(at: Back, R: Array) -> Array:  # noqa: N803
    size = at.input_size
    weight, _ = weight_and_bias(at.layer, at.arrays)
    window = at.layer.window(size, at.arrays)
    return at.arithmetic.conv_transpose2d(R, weight, None, window, at.layer.groups, size)


def _conv_transpose(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    weight, bias = weight_and_bias(layer, arrays)
    size = out_size(layer, arrays, x)
    window = layer.window(size, arrays)
    out: Array = arithmetic.conv_transpose2d(x[None], weight, bias, window, layer.groups, size)[0]
    return out


def _conv_transpose_back(at: Back, R: Array) -> Array:  # noqa: N803
    weight, _ = weight_and_bias(at.layer, at.arrays)
    window = at.layer.window(size_of(R), at.arrays)
    return at.arithmetic.conv2d(R, weight, None, window, at.layer.groups, at.input_size)


def _linear(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    weight, bias = weight_and_bias(layer, arrays)
    # einsum: BLAS rounds differently with the number of its threads.
    out = np.einsum("oi,i->o", weight, x[:, 0, 0], dtype=np.float64)
    return (out if bias is None else out + bias)[:, None, None]


def _linear_back(at: Back, R: Array) -> Array:  # noqa: N803
    weight, _ = weight_and_bias(at.layer, at.arrays)

    def back(r: Array) -> Array:
        # einsum: BLAS rounds differently with the number of features.
        sums: Array = np.einsum("o,oi->i", r[:, 0, 0], weight, dtype=np.float64)
        return sums[:, None, None]

    return each_feature(at, R, back)


PASSES: dict[type[nn.Layer], Passes] = {
    nn.Conv2d: Passes(_conv, _conv_back, always),
    nn.ConvTranspose2d: Passes(_conv_transpose, _conv_transpose_back, always),
    nn.Linear: Passes(_linear, _linear_back, always),
}
