"""Layers that move values and change none; back, by their adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...network import layers as nn
from .base import Arithmetic, Array, Back, Passes, always, each_feature, never

__all__ = ["PASSES"]


def _dropout(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    return x


def _dropout_back(at: Back, R: Array) -> Array:  # noqa: N803
    return R


def _reshape(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    return x.reshape(layer.output_shape(x.shape, arrays))


def _reshape_back(at: Back, R: Array) -> Array:  # noqa: N803
    return R.reshape(len(R), *at.input.shape)


def _slice(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    out: Array = x[layer.selection]
    return out


def _slice_back(at: Back, R: Array) -> Array:  # noqa: N803
    whole = np.zeros((len(R), *at.input.shape), R.dtype)
    whole[(slice(None), *at.layer.selection)] = R
    return whole


def _slice_mixes(layer: Any, rule: str) -> bool:
    return bool(layer.axis == "C")


def _pad(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    return np.pad(x, ((0, 0), *layer.padding), constant_values=layer.value)


def _pad_back(at: Back, R: Array) -> Array:  # noqa: N803
    (top, _), (left, _) = at.layer.padding
    _, height, width = at.input.shape
    return R[:, :, top : top + height, left : left + width]


def _permute(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    return x.transpose(layer.order)


def _permute_back(at: Back, R: Array) -> Array:  # noqa: N803
    return R.transpose(0, *(1 + np.argsort(at.layer.order)))


def _permute_mixes(layer: Any, rule: str) -> bool:
    return bool(layer.order[0] != 0)


def _upsample(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    rows, columns = layer.scales
    return x.repeat(rows, axis=1).repeat(columns, axis=2)


def _upsample_back(at: Back, R: Array) -> Array:  # noqa: N803
    count, height, width = at.input.shape
    rows, columns = at.layer.scales

    def back(r: Array) -> Array:
        sums: Array = r.reshape(count, height, rows, width, columns).sum(axis=(2, 4))
        return sums

    return each_feature(at, R, back)


PASSES: dict[type[nn.Layer], Passes] = {
    nn.Dropout: Passes(_dropout, _dropout_back, never),
    nn.Flatten: Passes(_reshape, _reshape_back, always),
    nn.Reshape: Passes(_reshape, _reshape_back, always),
    nn.Slice: Passes(_slice, _slice_back, _slice_mixes),
    nn.Pad: Passes(_pad, _pad_back, never),
    nn.Permute: Passes(_permute, _permute_back, _permute_mixes),
    nn.Upsample: Passes(_upsample, _upsample_back, never),
}
