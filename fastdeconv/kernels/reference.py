"""The reference: the four operations in plain NumPy, computed in float64.

It is written to be obviously right rather than fast: Python loops over the places
of the window and over channels, NumPy over rows and columns. The functions of this
module return float64, so that nothing is rounded to float32 between several of them;
`ReferenceBackend` converts their results for `fastdeconv.ops`.

Products are added one by one in a fixed order, never by a matrix product: a BLAS
rounds differently at the edges of its tiles, and equal patches of the input must give
equal bits wherever they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .interface import FloatArray, Pair, Window, switch_dtype

__all__ = [
    "BACKEND",
    "ReferenceBackend",
    "conv2d",
    "conv_transpose2d",
    "max_pool2d",
    "max_unpool2d",
]

DoubleArray = NDArray[np.float64]


def conv2d(
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    window: Window,
    groups: int,
    out_size: Pair,
) -> DoubleArray:
    """Cross-correlation with zero padding.

    Parameters
    ----------
    x : array, shape (N, C, H, W)
    weight : array, shape (O, C / groups, kh, kw)
    bias : array, shape (O,), or None
    window : Window
        Its kernel is (kh, kw).
    groups : int
    out_size : pair
        (H', W'), see `fastdeconv.kernels.interface.conv_output_size`.

    Returns
    -------
    array of float64, shape (N, O, H', W')
    """
    channels = weight.shape[1]
    padded = _pad(x, window, out_size, 0.0)
    split = padded.reshape(len(x), groups, channels, *padded.shape[2:])
    taps = _by_group(weight, groups)
    out = np.zeros((len(x), groups, taps.shape[1], *out_size))
    for ky, kx, view in _positions(window, out_size):
        for channel in range(channels):
            out += taps[:, :, channel, ky, kx, None, None] * split[:, :, None, channel][view]
    return _with_bias(out.reshape(len(x), len(weight), *out_size), bias)


def conv_transpose2d(
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    window: Window,
    groups: int,
    out_size: Pair,
) -> DoubleArray:
    """Adjoint of `conv2d`.

    Parameters
    ----------
    x : array, shape (N, O, H', W')
    weight : array, shape (O, C / groups, kh, kw)
    bias : array, shape (C,), or None
    window : Window
        The window of the convolution; its kernel is (kh, kw).
    groups : int
    out_size : pair
        (H, W) of the convolution's input.

    Returns
    -------
    array of float64, shape (N, C, H, W)
    """
    channels = weight.shape[1]
    taps = _by_group(weight, groups)
    split = np.asarray(x, np.float64).reshape(len(x), groups, taps.shape[1], *x.shape[2:])
    padded = np.zeros((len(x), groups, channels, *_covered(window, x.shape[2:])))
    for ky, kx, view in _positions(window, x.shape[2:]):
        for output in range(taps.shape[1]):
            padded[view] += taps[:, output, :, ky, kx, None, None] * split[:, :, None, output]
    whole = padded.reshape(len(x), groups * channels, *padded.shape[3:])
    return _with_bias(_crop(whole, window, out_size), bias)


def max_pool2d(
    x: NDArray[Any], window: Window, out_size: Pair
) -> tuple[DoubleArray, NDArray[np.int64]]:
    """Maximum over windows and its row-major index in the (padded) window.

    Of equal values the first one wins, also among zeros of either sign. The first NaN wins
    over every number. Padding never wins, not even over minus infinity.

    Parameters
    ----------
    x : array, shape (N, C, H, W)
    window : Window
    out_size : pair
        (H', W'), see `fastdeconv.kernels.interface.pool_output_size`.

    Returns
    -------
    values : array of float64, shape (N, C, H', W')
    switches : array of int64, shape (N, C, H', W')
    """
    padded = _pad(x, window, out_size, -np.inf)
    inside = _pad(np.ones((1, 1, *x.shape[2:])), window, out_size, 0.0) == 1.0
    best = np.full((*x.shape[:2], *out_size), -np.inf)
    switches = np.zeros(best.shape, np.int64)
    empty = np.ones(best.shape, bool)
    for ky, kx, view in _positions(window, out_size):
        value = padded[view]
        wins = empty | (value > best) | (np.isnan(value) & ~np.isnan(best))
        wins &= inside[view]
        best[wins] = value[wins]
        switches[wins] = ky * window.kernel[1] + kx
        empty &= ~wins
    return best, switches


def max_unpool2d(
    values: NDArray[Any], switches: NDArray[Any], window: Window, out_size: Pair
) -> DoubleArray:
    """Adjoint of `max_pool2d`; overlapping windows add in their row-major order.

    Parameters
    ----------
    values : array, shape (N, C, H', W')
    switches : array of int, shape (N, C, H', W')
    window : Window
        Of the pool.
    out_size : pair
        (H, W) of the pool's input.

    Returns
    -------
    array of float64, shape (N, C, H, W)
    """
    n, c, rows, cols = values.shape
    ky, kx = np.divmod(switches.astype(np.int64), window.kernel[1])
    (top, _), (left, _) = window.padding
    y = np.arange(rows)[:, None] * window.stride[0] + ky * window.dilation[0] - top
    x = np.arange(cols) * window.stride[1] + kx * window.dilation[1] - left
    plane = np.arange(n * c).reshape(n, c, 1, 1)
    out = np.zeros((n * c, *out_size))
    # add.at is unbuffered: it adds in the order of its operands, here row-major.
    np.add.at(out, (plane, y, x), values)
    return out.reshape(n, c, *out_size)


def _by_group(weight: NDArray[Any], groups: int) -> DoubleArray:
    """(O, C / groups, kh, kw) as (groups, O / groups, C / groups, kh, kw)."""
    return np.asarray(weight, np.float64).reshape(groups, -1, *weight.shape[1:])


def _positions(window: Window, out_size: Pair) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
    """Each place (ky, kx) in row-major order, and the padded elements that windows have there."""
    (sh, sw), (dh, dw) = window.stride, window.dilation
    for ky in range(window.kernel[0]):
        rows = slice(ky * dh, ky * dh + (out_size[0] - 1) * sh + 1, sh)
        for kx in range(window.kernel[1]):
            cols = slice(kx * dw, kx * dw + (out_size[1] - 1) * sw + 1, sw)
            yield ky, kx, (..., rows, cols)


def _covered(window: Window, out_size: Sequence[int]) -> Pair:
    """Rows and columns from the first window's start to the last one's end."""
    return (
        (out_size[0] - 1) * window.stride[0] + window.extent[0],
        (out_size[1] - 1) * window.stride[1] + window.extent[1],
    )


def _pad(x: NDArray[Any], window: Window, out_size: Pair, fill: float) -> DoubleArray:
    """The part of the padded input that windows cover, in float64."""
    (top, _), (left, _) = window.padding
    out = np.full((*x.shape[:2], *_covered(window, out_size)), fill)
    inner = out[..., top : top + x.shape[2], left : left + x.shape[3]]
    inner[...] = x[..., : inner.shape[2], : inner.shape[3]]
    return out


def _crop(padded: DoubleArray, window: Window, out_size: Pair) -> DoubleArray:
    """Undo `_pad`; what no window covers is zero."""
    (top, _), (left, _) = window.padding
    inner = padded[..., top : top + out_size[0], left : left + out_size[1]]
    out = np.zeros((*padded.shape[:2], *out_size))
    out[..., : inner.shape[2], : inner.shape[3]] = inner
    return out


def _with_bias(out: DoubleArray, bias: NDArray[Any] | None) -> DoubleArray:
    return out if bias is None else out + np.asarray(bias, np.float64)[:, None, None]


def _single(array: DoubleArray) -> FloatArray:
    with np.errstate(over="ignore"):  # what is too large becomes inf, as on every back end
        return array.astype(np.float32)


class ReferenceBackend:
    """The reference as a back end: computed in float64, then rounded to float32.

    It runs in the calling thread, whatever `num_threads` is.
    """

    name = "reference"

    def conv2d(
        self,
        x: FloatArray,
        weight: FloatArray,
        bias: FloatArray | None,
        window: Window,
        groups: int,
        out_size: Pair,
        num_threads: int,
    ) -> FloatArray:
        """See `fastdeconv.kernels.interface.Backend`."""
        return _single(conv2d(x, weight, bias, window, groups, out_size))

    def max_pool2d(
        self, x: FloatArray, window: Window, out_size: Pair, num_threads: int
    ) -> tuple[FloatArray, NDArray[Any]]:
        """See `fastdeconv.kernels.interface.Backend`."""
        values, switches = max_pool2d(x, window, out_size)
        return _single(values), switches.astype(switch_dtype(window.kernel))

    def max_unpool2d(
        self,
        values: FloatArray,
        switches: NDArray[Any],
        window: Window,
        out_size: Pair,
        num_threads: int,
    ) -> FloatArray:
        """See `fastdeconv.kernels.interface.Backend`."""
        return _single(max_unpool2d(values, switches, window, out_size))

    def conv_transpose2d(
        self,
        x: FloatArray,
        weight: FloatArray,
        bias: FloatArray | None,
        window: Window,
        groups: int,
        out_size: Pair,
        num_threads: int,
    ) -> FloatArray:
        """See `fastdeconv.kernels.interface.Backend`."""
        return _single(conv_transpose2d(x, weight, bias, window, groups, out_size))


BACKEND = ReferenceBackend()
