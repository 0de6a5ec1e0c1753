"""Layers that move values, or draw lines between them; back, by their adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.interface import Pair
from ...network import layers as nn
from . import taps
from .base import (
    Arithmetic,
    Array,
    Back,
    Passes,
    always,
    double,
    each_feature,
    never,
    out_size,
    size_of,
)

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


_PADDED = {"reflect": taps.reflect, "replicate": taps.replicate, "circular": taps.circular}


def _pad_taps(layer: Any, size: Pair) -> list[taps.Taps]:
    """Of a pad with the input's own values: along rows and along columns."""
    return [_PADDED[layer.mode](n, *side) for n, side in zip(size, layer.padding)]


def _pad(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    if layer.mode != "constant":
        return _along_both(x, _pad_taps(layer, size_of(x)))
    return np.pad(x, ((0, 0), *layer.padding), constant_values=layer.value)


def _pad_back(at: Back, R: Array) -> Array:  # noqa: N803
    if at.layer.mode != "constant":
        return _back_along_both(at, R, _pad_taps(at.layer, at.input_size))
    (top, _), (left, _) = at.layer.padding
    _, height, width = at.input.shape
    return R[:, :, top : top + height, left : left + width]


def _along_both(x: Array, maps: list[taps.Taps]) -> Array:
    """Maps along rows and along columns of planes."""
    return taps.along(taps.along(x, maps[0], -2), maps[1], -1)


def _back_along_both(at: Back, R: Array, maps: list[taps.Taps]) -> Array:  # noqa: N803
    adjoints = [one.adjoint(n) for one, n in zip(maps, at.input_size)]
    return each_feature(at, R, lambda r: _along_both(r, adjoints))


def _permute(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    return x.transpose(layer.order)


def _permute_back(at: Back, R: Array) -> Array:  # noqa: N803
    return R.transpose(0, *(1 + np.argsort(at.layer.order)))


def _permute_mixes(layer: Any, rule: str) -> bool:
    return bool(layer.order[0] != 0)


def _upsample_taps(layer: Any, size: Pair, wanted: Pair) -> list[taps.Taps]:
    if layer.mode == "nearest":
        return [taps.nearest(n, m) for n, m in zip(size, wanted)]
    return [taps.lines(n, m, layer.align_corners) for n, m in zip(size, wanted)]


def _upsample(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    maps = _upsample_taps(layer, size_of(x), out_size(layer, arrays, x))
    return _along_both(x if layer.mode == "nearest" else double(x), maps)


def _upsample_back(at: Back, R: Array) -> Array:  # noqa: N803
    maps = _upsample_taps(at.layer, at.input_size, size_of(R))
    return _back_along_both(at, R, maps)


PASSES: dict[type[nn.Layer], Passes] = {
    nn.Dropout: Passes(_dropout, _dropout_back, never),
    nn.Flatten: Passes(_reshape, _reshape_back, always),
    nn.Reshape: Passes(_reshape, _reshape_back, always),
    nn.Slice: Passes(_slice, _slice_back, _slice_mixes),
    nn.Pad: Passes(_pad, _pad_back, never),
    nn.Permute: Passes(_permute, _permute_back, _permute_mixes),
    nn.Upsample: Passes(_upsample, _upsample_back, never),
}
