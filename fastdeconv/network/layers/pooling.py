"""Layers that make one value of many: pools, and means and maxima over whole axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from ...kernels.interface import PaddingLike, Pair, Window, pool_output_size, pool_window
from .base import Arrays, IntOrPair, Layer, Shape, SlidingLayer
from .checks import (
    LARGEST_STEP,
    Check,
    WantedError,
    axes,
    flag,
    is_int,
    optional,
    padding,
    pair,
    plain,
)

__all__ = [
    "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AdaptivePool", "AvgPool2d", "GlobalAvgPool2d",
    "GlobalMaxPool2d", "MaxPool2d", "ReduceMax", "ReduceMean", "Reduction",
    "adaptive_windows",
]


@dataclass(frozen=True)
class MaxPool2d(SlidingLayer):
    """Max pooling; pads with minus infinity.

    Parameters
    ----------
    name : str
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        None means the kernel size.
    padding : int, pair, "same", "valid" or ((top, bottom), (left, right))
    dilation : int or pair of int
    ceil_mode : bool
        Round output sizes up (PyTorch's rule) instead of down.
    """

    type: ClassVar[str] = "max_pool2d"
    prefix: ClassVar[str] = "pool"
    _checks: ClassVar[dict[str, Check]] = {
        "kernel_size": pair(1), "stride": optional(pair(1)), "padding": padding,
        "dilation": pair(1), "ceil_mode": flag,
    }

    kernel_size: IntOrPair
    stride: IntOrPair | None = None
    padding: PaddingLike = 0
    dilation: IntOrPair = 1
    ceil_mode: bool = False

    def window(self, in_hw: Pair, arrays: Arrays) -> Window:
        return pool_window(
            self.kernel_size, in_hw, stride=self.stride, padding=self.padding,
            dilation=self.dilation,
        )

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        return (shape[0], *self._slide(shape[1:], arrays))

    def _out_size(self, in_hw: Pair, window: Window) -> Pair:
        return pool_output_size(in_hw, window, ceil_mode=self.ceil_mode)


@dataclass(frozen=True)
class AvgPool2d(SlidingLayer):
    """Average pooling; pads with zeros.

    Parameters
    ----------
    name : str
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        None means the kernel size.
    padding : int, pair, "same", "valid" or ((top, bottom), (left, right))
    ceil_mode : bool
        Round output sizes up (PyTorch's rule) instead of down.
    count_include_pad : bool, optional
        Whether the zeros of the padding count in the average. By default they do, as in
        PyTorch, except with ``padding="same"``, because TensorFlow never counts them.
    """

    type: ClassVar[str] = "avg_pool2d"
    prefix: ClassVar[str] = "avg_pool"
    _checks: ClassVar[dict[str, Check]] = {
        "kernel_size": pair(1), "stride": optional(pair(1)), "padding": padding,
        "ceil_mode": flag, "count_include_pad": optional(flag),
    }

    kernel_size: IntOrPair
    stride: IntOrPair | None = None
    padding: PaddingLike = 0
    ceil_mode: bool = False
    # Not None after __post_init__, so the annotation says bool.
    count_include_pad: bool = cast(bool, None)

    def __post_init__(self) -> None:
        super().__post_init__()
        given: bool | None = self.count_include_pad
        object.__setattr__(
            self, "count_include_pad", self.padding != "same" if given is None else given
        )

    def window(self, in_hw: Pair, arrays: Arrays) -> Window:
        return pool_window(
            self.kernel_size, in_hw, stride=self.stride, padding=self.padding, dilation=1
        )

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        return (shape[0], *self._slide(shape[1:], arrays))

    def _out_size(self, in_hw: Pair, window: Window) -> Pair:
        return pool_output_size(in_hw, window, ceil_mode=self.ceil_mode)


def adaptive_windows(size: int, count: int) -> list[tuple[int, int]]:
    """(begin, end) of `count` windows spread evenly over `size` places; `end` is excluded."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _output_size(value: Any) -> Any:
    value = plain(value)
    sizes = value if isinstance(value, tuple) else (value, value)
    if len(sizes) == 2 and all(n is None or (is_int(n) and 0 < n <= LARGEST_STEP) for n in sizes):
        return value
    raise WantedError(
        f"an int or a pair of ints from 1 to {LARGEST_STEP}, or None for as many as the input has"
    )


@dataclass(frozen=True)
class AdaptivePool(Layer):
    """One value for each of a fixed number of windows, which are spread evenly over the input.

    Window i of m on an axis of n places begins at floor(i n / m) and ends before
    ceil((i + 1) n / m), as in PyTorch. If m does not divide n, windows overlap, and their sizes
    differ by one.

    Parameters
    ----------
    name : str
    output_size : int or pair of (int or None)
        Rows and columns of the output; None for as many as the input has.
    """

    _checks: ClassVar[dict[str, Check]] = {"output_size": _output_size}

    output_size: int | tuple[int | None, int | None]

    @property
    def sizes(self) -> tuple[int | None, int | None]:
        """Rows and columns of the output."""
        size = self.output_size
        return size if isinstance(size, tuple) else (size, size)

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        h, w = (n if wanted is None else wanted for n, wanted in zip(shape[1:], self.sizes))
        return shape[0], h, w


@dataclass(frozen=True)
class AdaptiveAvgPool2d(AdaptivePool):
    """The mean over each of a fixed number of windows; see `AdaptivePool` for the windows.

    Parameters
    ----------
    name : str
    output_size : int or pair of (int or None)
        Rows and columns of the output; None for as many as the input has.
    """

    type: ClassVar[str] = "adaptive_avg_pool2d"
    prefix: ClassVar[str] = "adaptive_avg_pool"


@dataclass(frozen=True)
class AdaptiveMaxPool2d(AdaptivePool):
    """The maximum over each of a fixed number of windows; see `AdaptivePool` for the windows.

    The first maximum in row-major order wins, and the first NaN.

    Parameters
    ----------
    name : str
    output_size : int or pair of (int or None)
        Rows and columns of the output; None for as many as the input has.
    """

    type: ClassVar[str] = "adaptive_max_pool2d"
    prefix: ClassVar[str] = "adaptive_max_pool"


@dataclass(frozen=True)
class GlobalPool(Layer):
    """One value for each channel."""

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        return shape[0], 1, 1


@dataclass(frozen=True)
class GlobalAvgPool2d(GlobalPool):
    """Mean over height and width: (C, H, W) to (C, 1, 1)."""

    type: ClassVar[str] = "global_avg_pool2d"
    prefix: ClassVar[str] = "global_avg_pool"


@dataclass(frozen=True)
class GlobalMaxPool2d(GlobalPool):
    """Maximum over height and width: (C, H, W) to (C, 1, 1)."""

    type: ClassVar[str] = "global_max_pool2d"
    prefix: ClassVar[str] = "global_max_pool"


@dataclass(frozen=True)
class Reduction(Layer):
    """One value for all values along some axes; these axes remain with size 1.

    Parameters
    ----------
    name : str
    axes : str
        Letters of C, H, W.
    """

    _checks: ClassVar[dict[str, Check]] = {"axes": axes()}

    axes: str

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        c, h, w = (1 if axis in self.axes else n for axis, n in zip("CHW", shape))
        return c, h, w


@dataclass(frozen=True)
class ReduceMean(Reduction):
    """The mean over some axes; these axes remain with size 1.

    Parameters
    ----------
    name : str
    axes : str
        Letters of C, H, W.
    """

    type: ClassVar[str] = "reduce_mean"
    prefix: ClassVar[str] = "mean"


@dataclass(frozen=True)
class ReduceMax(Reduction):
    """The maximum over some axes; these axes remain with size 1.

    The first maximum in row-major order wins.

    Parameters
    ----------
    name : str
    axes : str
        Letters of C, H, W.
    """

    type: ClassVar[str] = "reduce_max"
    prefix: ClassVar[str] = "max"
