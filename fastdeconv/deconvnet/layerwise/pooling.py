"""Layers that keep one value of many.

Going back, a maximum sends everything to the place that it was taken from, a mean sends its
share to every place. Where windows overlap, values add.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...kernels import reference
from ...kernels.interface import Pair, Window
from ...network import layers as nn
from . import taps
from .base import Arithmetic, Array, Back, Passes, double, each_feature, never, out_size, size_of

__all__ = ["PASSES", "mean_window"]


def _max_pool(
    layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic
) -> tuple[Array, Array]:
    window, size = layer.window(size_of(x), arrays), out_size(layer, arrays, x)
    values, switches = arithmetic.max_pool2d(x[None], window, size)
    return values[0], switches[0]


def _max_pool_back(at: Back, R: Array) -> Array:  # noqa: N803
    size = at.input_size
    switches = np.broadcast_to(at.trace.switch_planes(at.index)[at.channels], R.shape)
    return at.arithmetic.max_unpool2d(R, switches, at.layer.window(size, at.arrays), size)


def _ends(start: Array, layer: Any, window: Window, axis: int, n: int) -> Array:
    """Where average-pool windows end: PyTorch counts padding, not what ceil_mode adds."""
    limit = n + window.padding[axis][1] if layer.count_include_pad else n
    return np.minimum(start + window.kernel[axis], limit)


def _counts(layer: Any, window: Window, in_size: Pair, out_size: Pair) -> Array:
    """How many elements every average is taken over, (H', W')."""
    sides = []
    for axis in (0, 1):
        start = np.arange(out_size[axis]) * window.stride[axis] - window.padding[axis][0]
        end = _ends(start, layer, window, axis, in_size[axis])
        sides.append(end - (start if layer.count_include_pad else np.maximum(start, 0)))
    return np.multiply.outer(*sides)


def _ones(channels: int, window: Window) -> Array:
    """Filters that sum every channel's windows.

    The reference's convolution adds in one fixed order; a matrix product would round
    equal windows differently.
    """
    return np.ones((channels, 1, *window.kernel))


def _avg_pool(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    window, size = layer.window(size_of(x), arrays), out_size(layer, arrays, x)
    sums = reference.conv2d(x[None], _ones(len(x), window), None, window, len(x), size)[0]
    out: Array = sums / _counts(layer, window, size_of(x), size)
    return out


def _avg_pool_back(at: Back, R: Array) -> Array:  # noqa: N803
    size = at.input_size
    window = at.layer.window(size, at.arrays)
    shares = R / _counts(at.layer, window, size, size_of(R))
    count = R.shape[1]
    return reference.conv_transpose2d(shares, _ones(count, window), None, window, count, size)


# ---- over windows that lie evenly ----


def _adaptive_mean(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    rows, columns = map(taps.windows, size_of(x), out_size(layer, arrays, x))
    return taps.along(taps.along(double(x), rows, -2), columns, -1)


def _adaptive_mean_back(at: Back, R: Array) -> Array:  # noqa: N803
    rows, columns = (
        taps.windows(n, m).adjoint(n) for n, m in zip(at.input_size, size_of(R))
    )
    return each_feature(at, R, lambda r: taps.along(taps.along(r, rows, -2), columns, -1))


def _adaptive_best(x: Array, size: Pair) -> Array:
    """The place of each window's maximum in a plane of `x`, row by row: (C, H', W')."""
    places = np.broadcast_to(np.arange(x[0].size).reshape(size_of(x)), x.shape)
    # Columns first: among equal maxima the row then decides before the column does.
    for axis, count in ((2, size[1]), (1, size[0])):
        best = []
        for window in nn.adaptive_windows(x.shape[axis], count):
            part = (slice(None),) * axis + (slice(*window),)
            winner = np.expand_dims(x[part].argmax(axis), axis)
            best.append([np.take_along_axis(a[part], winner, axis) for a in (x, places)])
        x, places = (np.concatenate(parts, axis) for parts in zip(*best))
    return places


def _adaptive_max(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    best = _adaptive_best(x, out_size(layer, arrays, x))
    flat = x.reshape(len(x), -1)
    return np.take_along_axis(flat, best.reshape(len(x), -1), axis=1).reshape(best.shape)


def _adaptive_max_back(at: Back, R: Array) -> Array:  # noqa: N803
    x = at.input
    best = _adaptive_best(x, size_of(R)).reshape(len(x), -1)
    size = x[0].size
    # Windows overlap, so that a place may win in several.
    winners = (best + size * np.arange(len(x))[:, None]).reshape(-1)

    def back(r: Array) -> Array:
        return np.bincount(winners, r.reshape(-1), x.size).reshape(x.shape)

    return each_feature(at, R, back)


# ---- over whole axes ----


def _letters(layer: nn.Layer) -> str:
    return layer.axes if isinstance(layer, nn.Reduction) else "HW"


def _axes(layer: nn.Layer) -> tuple[int, ...]:
    return tuple("CHW".index(letter) for letter in sorted(_letters(layer)))


def _mean(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    out: Array = double(x).mean(_axes(layer), keepdims=True)
    return out


def mean_window(
    layer: Any, arrays: nn.Arrays, shape: tuple[int, int, int]
) -> tuple[Window, Array] | None:
    """The window of a layer that takes means, and over how many elements each is, (H', W').

    None for other layers, for means over channels, and for those of a head, which are taken once
    and in float64.
    """
    size = shape[-2], shape[-1]
    if isinstance(layer, nn.AvgPool2d):
        window = layer.window(size, arrays)
        out: Any = layer.output_shape(shape, arrays)[1:]
        return window, _counts(layer, window, size, out).astype(np.float32)
    if not isinstance(layer, nn.ReduceMean) or "C" in layer.axes:
        return None
    height, width = (n if letter in layer.axes else 1 for letter, n in zip("HW", size))
    window = Window((height, width), (height, width), (1, 1), ((0, 0), (0, 0)))
    counts = np.full((size[0] // height, size[1] // width), height * width, np.float32)
    return window, counts


def _mean_back(at: Back, R: Array) -> Array:  # noqa: N803
    x = at.input
    shares = R / (x.size // math.prod(R.shape[1:]))
    return np.broadcast_to(shares, (len(R), *x.shape))


def _rows(layer: nn.Layer, x: Array) -> Array:
    """`x` with the axes that the layer reduces last and together, in row-major order."""
    reduced = _axes(layer)
    kept = [axis for axis in range(3) if axis not in reduced]
    moved = x.transpose(*kept, *reduced)
    return moved.reshape(*moved.shape[: len(kept)], -1)


def _max(layer: Any, arrays: nn.Arrays, x: Array, arithmetic: Arithmetic) -> Array:
    # Of equal zeros the first, whose sign counts; argmax is sure to find it, max is not.
    rows = _rows(layer, x)
    best = np.take_along_axis(rows, rows.argmax(axis=-1)[..., None], axis=-1)
    return best.reshape(layer.output_shape(x.shape, arrays))


def _max_back(at: Back, R: Array) -> Array:  # noqa: N803
    x = at.input
    places = _rows(at.layer, np.arange(x.size).reshape(x.shape))
    best = _rows(at.layer, x).argmax(axis=-1)
    wins = np.zeros(x.size, bool)
    wins[np.take_along_axis(places, best[..., None], axis=-1)] = True
    return np.where(wins.reshape(x.shape), R, 0)


def _reduces_channels(layer: nn.Layer, rule: str) -> bool:
    return "C" in _letters(layer)


PASSES: dict[type[nn.Layer], Passes] = {
    nn.MaxPool2d: Passes(_max_pool, _max_pool_back, never),
    nn.AvgPool2d: Passes(_avg_pool, _avg_pool_back, never),
    nn.AdaptiveMaxPool2d: Passes(_adaptive_max, _adaptive_max_back, never),
    nn.AdaptiveAvgPool2d: Passes(_adaptive_mean, _adaptive_mean_back, never),
    nn.GlobalAvgPool2d: Passes(_mean, _mean_back, _reduces_channels),
    nn.GlobalMaxPool2d: Passes(_max, _max_back, _reduces_channels),
    nn.ReduceMean: Passes(_mean, _mean_back, _reduces_channels),
    nn.ReduceMax: Passes(_max, _max_back, _reduces_channels),
}
