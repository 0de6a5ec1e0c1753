"""What every back end offers, and the geometry all of them share.

A back end is an object with the methods of `Backend`. Arguments are checked once,
in `fastdeconv.kernels.ops` (public calls) or when a `Network` is made. A back end
gets C-contiguous arrays, a resolved `Window` and the output size, and does
nothing but arithmetic.

Geometry
--------
A `Window` is a sliding window along height and width: kernel size, stride,
dilation, and the padding of each side as numbers. Convolution and pooling both
use it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ParameterError, shown

__all__ = [
    "Backend",
    "Padding",
    "PaddingLike",
    "Pair",
    "Window",
    "as_pair",
    "conv_output_size",
    "conv_window",
    "pool_output_size",
    "pool_window",
    "resolve_padding",
    "switch_dtype",
    "switches_as_planes",
]

# Kernels count rows and columns in 32 bits.
_MAX_SIDE = (1 << 31) - 1
_MAX_AREA = 1 << 40

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
PaddingLike = int | str | Sequence[int] | Sequence[Sequence[int]] | NDArray[Any]
FloatArray = NDArray[np.float32]


class Window(NamedTuple):
    """A sliding window: (height, width) pairs, padding as ((top, bottom), (left, right))."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Padding

    @property
    def extent(self) -> Pair:
        """Rows and columns that one window spans, gaps of the dilation included."""
        return (
            (self.kernel[0] - 1) * self.dilation[0] + 1,
            (self.kernel[1] - 1) * self.dilation[1] + 1,
        )

    @property
    def overlapping(self) -> bool:
        """Whether one input element can lie in two windows."""
        # A gap of the dilation never makes two windows meet at stride >= extent.
        return self.extent[0] > self.stride[0] or self.extent[1] > self.stride[1]


def as_pair(value: Any, name: str, *, minimum: int) -> Pair:
    """An int or a pair of ints as a pair, each at least `minimum`."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    items = value if isinstance(value, (tuple, list)) else (value, value)
    if len(items) != 2:
        raise ParameterError(f"{name} must be an int or a pair of ints, found {shown(value)}")
    pair = (_as_int(items[0], name, value), _as_int(items[1], name, value))
    if min(pair) < minimum:
        raise ParameterError(f"{name} must be at least {minimum}, found {shown(value)}")
    return pair


def _as_int(item: Any, name: str, value: Any) -> int:
    if isinstance(item, (int, np.integer)) and not isinstance(item, bool):
        # Not inside `suppress` below, which would also swallow what a signal handler raises.
        return int(item)
    if not isinstance(item, (bool, np.bool_)):
        # operator.index runs code of the value's class, such as a tensor's.
        with suppress(Exception):
            return operator.index(item)
    raise ParameterError(f"{name} must be an int or a pair of ints, found {shown(value)}")


def resolve_padding(
    padding: PaddingLike, in_size: Pair, kernel: Pair, stride: Pair, dilation: Pair
) -> Padding:
    """Padding in any accepted form as ((top, bottom), (left, right)).

    ``"same"`` is TensorFlow's: output = ceil(input / stride). Where the padding is odd,
    the extra row or column is at the bottom or right.
    """
    if isinstance(padding, np.ndarray):
        padding = padding.tolist()
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding == "same":
            sides = [
                _same_padding(n, k, s, d)
                for n, k, s, d in zip(in_size, kernel, stride, dilation, strict=True)
            ]
            return sides[0], sides[1]
        raise ParameterError(f"padding must be 'same', 'valid' or numbers, found {shown(padding)}")
    if isinstance(padding, (tuple, list)) and any(
        isinstance(p, (tuple, list, np.ndarray)) for p in padding
    ):
        if len(padding) != 2:
            raise ParameterError(
                f"padding must be ((top, bottom), (left, right)), found {shown(padding)}"
            )
        return (
            as_pair(padding[0], "padding", minimum=0),
            as_pair(padding[1], "padding", minimum=0),
        )
    rows, cols = as_pair(padding, "padding", minimum=0)
    return (rows, rows), (cols, cols)


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> Pair:
    out = -(-size // stride)
    total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def conv_window(
    kernel: Any, in_size: Pair, *, stride: Any, padding: PaddingLike, dilation: Any
) -> Window:
    """The window of a convolution on an input of (height, width) `in_size`."""
    k = as_pair(kernel, "kernel_size", minimum=1)
    s = as_pair(stride, "stride", minimum=1)
    d = as_pair(dilation, "dilation", minimum=1)
    window = Window(k, s, d, resolve_padding(padding, in_size, k, s, d))
    rows, cols = (n + sum(p) for n, p in zip(in_size, window.padding, strict=True))
    if max(rows, cols, *window.extent, *s) > _MAX_SIDE or rows * cols > _MAX_AREA:
        raise ParameterError(
            f"a window of {window.extent[0]} x {window.extent[1]} and stride {s} on {rows} x "
            f"{cols} (padding included) is larger than what can be computed"
        )
    return window


def pool_window(
    kernel: Any, in_size: Pair, *, stride: Any, padding: PaddingLike, dilation: Any
) -> Window:
    """The window of a pool; `stride` None means the kernel size."""
    return conv_window(
        kernel,
        in_size,
        stride=kernel if stride is None else stride,
        padding=padding,
        dilation=dilation,
    )


def conv_output_size(in_size: Pair, window: Window) -> Pair:
    """(height, width) of a convolution's output; at least 1 x 1 or ParameterError."""
    size = tuple(
        (n + sum(p) - e) // s + 1
        for n, p, e, s in zip(in_size, window.padding, window.extent, window.stride, strict=True)
    )
    _require_positive(in_size, window, size)
    return size[0], size[1]


def pool_output_size(in_size: Pair, window: Window, *, ceil_mode: bool = False) -> Pair:
    """(height, width) of a pool's output, rounded down, or up by PyTorch's rule.

    With `ceil_mode` the last window must start inside the input or in the padding before it.
    ParameterError if a window would lie wholly in the padding.
    """
    size = []
    for n, p, e, s, k, d in zip(
        in_size, window.padding, window.extent, window.stride, window.kernel, window.dilation,
        strict=True,
    ):
        span = n + sum(p) - e
        out = -(-span // s) + 1 if ceil_mode else span // s + 1
        if ceil_mode and (out - 1) * s >= n + p[0]:
            out -= 1
        # Only windows that start in the padding before the input, or behind it, can miss it.
        leading = range(min(out, -(-p[0] // s)))
        if (out - 1) * s - p[0] >= n or not all(_touches(i * s - p[0], k, d, n) for i in leading):
            raise ParameterError(
                f"padding {window.padding} leaves a pool window wholly in the padding "
                f"(kernel {window.kernel}, stride {window.stride}, input {in_size})"
            )
        size.append(out)
    _require_positive(in_size, window, tuple(size))
    return size[0], size[1]


def _touches(start: int, kernel: int, dilation: int, n: int) -> bool:
    """Whether any place of a window that starts at `start` lies in [0, n)."""
    first = start if start >= 0 else start + -(start // dilation) * dilation
    return first < n and first <= start + (kernel - 1) * dilation


def _require_positive(in_size: Pair, window: Window, size: tuple[int, ...]) -> None:
    if min(size) < 1:
        raise ParameterError(
            f"input of {in_size[0]} x {in_size[1]} is smaller than the window: kernel "
            f"{window.kernel}, dilation {window.dilation}, padding {window.padding}"
        )


def switch_dtype(kernel: Pair) -> type[np.unsignedinteger[Any]]:
    """The smallest unsigned type that can number the places of a window."""
    area = kernel[0] * kernel[1]
    if area <= 1 << 8:
        return np.uint8
    return np.uint16 if area <= 1 << 16 else np.uint32


def switches_as_planes(switches: NDArray[Any], channels: int) -> NDArray[Any]:
    """Switches (H, W, Cs) as planes (C, H, W), on one thread."""
    return np.ascontiguousarray(switches[:, :, :channels].transpose(2, 0, 1))


class Backend(Protocol):
    """The arithmetic of the package. Arrays are (N, C, H, W) and C-contiguous."""

    name: str

    def conv2d(
        self, x: FloatArray, weight: FloatArray, bias: FloatArray | None,
        window: Window, groups: int, out_size: Pair, num_threads: int,
    ) -> FloatArray:
        """Cross-correlation with zero padding."""

    def max_pool2d(
        self, x: FloatArray, window: Window, out_size: Pair, num_threads: int
    ) -> tuple[FloatArray, NDArray[Any]]:
        """Maxima and switches (row-major index inside the padded window)."""

    def max_unpool2d(
        self, values: FloatArray, switches: NDArray[Any],
        window: Window, out_size: Pair, num_threads: int,
    ) -> FloatArray:
        """Adjoint of the pool: each value goes to its switch; where windows overlap, values add."""

    def conv_transpose2d(
        self, x: FloatArray, weight: FloatArray, bias: FloatArray | None,
        window: Window, groups: int, out_size: Pair, num_threads: int,
    ) -> FloatArray:
        """Adjoint of conv2d with the same weight and window."""
