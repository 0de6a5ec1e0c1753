"""Layers that scale and shift: by stored statistics, or by those of the input.

Going back, stored scales multiply and shifts drop. What depends on the input goes back by
its true derivative, but local response norm hands on what comes, except under ``gradient``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...network import layers as nn
from .base import Arithmetic, Array, Back, Passes, always, double, each_feature, never

__all__ = ["PASSES", "scale_and_shift"]


def scale_and_shift(layer: nn.Scaling, arrays: nn.Arrays) -> tuple[Array, Array]:
    """One of each for every place along the layer's axis, float64."""
    scale, shift = (arrays[f"{layer.name}.{k}"].astype(np.float64) for k in ("weight", "bias"))
    if isinstance(layer, nn.BatchNorm2d):
        mean, var = (arrays[f"{layer.name}.running_{k}"] for k in ("mean", "var"))
        scale = scale / np.sqrt(var.astype(np.float64) + layer.eps)
        shift = shift - mean * scale
    return scale, shift


def _along(axes: str, values: Array) -> Array:
    """Values for places along some axes, to be combined with planes (C, H, W)."""
    sizes = iter(values.shape)
    return values.reshape([next(sizes) if letter in axes else 1 for letter in "CHW"])


def _scaling(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    scale, shift = (
        _along(layer.axis, a.astype(x.dtype)) for a in scale_and_shift(layer, arrays)
    )
    return x * scale + shift


def _scaling_back(at: Back, R: Array) -> Array:  # noqa: N803
    scale, _ = scale_and_shift(at.layer, at.arrays)
    if "C" in at.layer.axis:
        scale = scale[at.channels]
    return R * _along(at.layer.axis, scale.astype(at.arithmetic.dtype))


def _neighbours(layer: Any, values: Array, *, adjoint: bool = False) -> Array:
    """Sums over the channels a local response norm looks at (or is looked at from)."""
    before, after = layer.size // 2, (layer.size - 1) // 2
    if adjoint:
        before, after = after, before
    total = np.zeros_like(values)
    for shift in range(-before, after + 1):
        lo, hi = max(0, -shift), len(values) - max(0, shift)
        if lo < hi:
            total[lo:hi] += values[lo + shift : hi + shift]
    return total


def _lrn_base(layer: Any, x: Array) -> Array:
    return layer.k + layer.alpha / layer.size * _neighbours(layer, x.astype(np.float64) ** 2)


def _lrn(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    out: Array = x * _lrn_base(layer, x) ** -layer.beta
    return out


def _lrn_back(at: Back, R: Array) -> Array:  # noqa: N803
    if at.rule != "gradient":
        return R
    layer, x = at.layer, at.input.astype(np.float64)
    base = _lrn_base(layer, x)

    def back(r: Array) -> Array:
        spread = _neighbours(layer, r * x * base ** (-layer.beta - 1), adjoint=True)
        out: Array = r * base**-layer.beta
        return out - 2 * layer.alpha * layer.beta / layer.size * x * spread

    return each_feature(at, R, back)


def _lrn_mixes(layer: Any, rule: str) -> bool:
    return rule == "gradient"


# ---- by the mean and the variance of the input itself ----

_Axes = tuple[int, ...]


def _split(layer: Any, x: Array) -> tuple[Array, _Axes]:
    """Planes as (groups, C / groups, H, W), float64, and the axes normalised over."""
    groups, letters = 1, "HW"
    if isinstance(layer, nn.GroupNorm):
        groups, letters = layer.groups, "CHW"
    elif isinstance(layer, nn.LayerNorm):
        letters = layer.axes
    axes = tuple(i for i, letter in enumerate("CHW", start=1) if letter in letters)
    return double(x).reshape(groups, len(x) // groups, *x.shape[1:]), axes


def _standardised(layer: Any, x: Array) -> tuple[Array, Array]:
    """Split planes with mean 0 and variance 1, and the deviation that they are divided by."""
    values, axes = _split(layer, x)
    centred = values - values.mean(axes, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axes, keepdims=True) + layer.eps)
    return centred / deviation, deviation


def _learned(layer: Any, arrays: nn.Arrays, key: str, channels: Any = slice(None)) -> Array:
    """A layer's weight or bias, to be combined with planes of these channels."""
    letters = layer.axes if isinstance(layer, nn.LayerNorm) else "C"
    values = _along(letters, arrays[f"{layer.name}.{key}"])
    return values[channels] if "C" in letters else values


def _norm(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    values: Array = _standardised(layer, x)[0].reshape(x.shape)
    if not layer.affine:
        return values
    return values * _learned(layer, arrays, "weight") + _learned(layer, arrays, "bias")


def _norm_back(at: Back, R: Array) -> Array:  # noqa: N803
    layer = at.layer
    normal, deviation = _standardised(layer, at.input)
    weight = _learned(layer, at.arrays, "weight", at.channels) if layer.affine else 1.0

    def back(r: Array) -> Array:
        slope, axes = _split(layer, r * weight)
        # A change of the input also moves the mean and the variance.
        moved = slope.mean(axes, keepdims=True)
        moved = moved + normal * (slope * normal).mean(axes, keepdims=True)
        out: Array = ((slope - moved) / deviation).reshape(r.shape)
        return out

    return each_feature(at, R, back)


def _layer_norm_mixes(layer: Any, rule: str) -> bool:
    return "C" in layer.axes


PASSES: dict[type[nn.Layer], Passes] = {
    nn.BatchNorm2d: Passes(_scaling, _scaling_back, never),
    nn.Affine: Passes(_scaling, _scaling_back, never),
    nn.LocalResponseNorm: Passes(_lrn, _lrn_back, _lrn_mixes),
    nn.LayerNorm: Passes(_norm, _norm_back, _layer_norm_mixes),
    nn.GroupNorm: Passes(_norm, _norm_back, always),
    nn.InstanceNorm: Passes(_norm, _norm_back, never),
}
