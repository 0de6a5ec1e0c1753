"""Layers that multiply by learned weights: convolutions and fully connected layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...errors import ParameterError
from ...kernels.interface import (
    PaddingLike,
    Pair,
    Window,
    as_pair,
    conv_output_size,
    conv_window,
)
from .base import (
    Arrays,
    IntOrPair,
    Layer,
    Shape,
    SlidingLayer,
    check_shape,
    shape_text,
    weight_names,
)
from .checks import LARGEST_SIZE, Check, flag, padding, pair, whole

__all__ = ["Conv2d", "ConvTranspose2d", "Linear"]


@dataclass(frozen=True)
class Conv2d(SlidingLayer):
    """Cross-correlation with zero padding.

    Arrays: ``<name>.weight`` (out, in / groups, kh, kw) and, with `bias`,
    ``<name>.bias`` (out,).

    Parameters
    ----------
    name : str
    stride, dilation : int or pair of int
    padding : int, pair, "same", "valid" or ((top, bottom), (left, right))
        ``"same"`` is TensorFlow's: output = ceil(input / stride); if the number of padded
        rows or columns is odd, the extra one is at the bottom or right.
    groups : int
    bias : bool
    """

    type: ClassVar[str] = "conv2d"
    prefix: ClassVar[str] = "conv"
    _checks: ClassVar[dict[str, Check]] = {
        "stride": pair(1), "padding": padding, "dilation": pair(1), "groups": whole(1),
        "bias": flag,
    }

    stride: IntOrPair = 1
    padding: PaddingLike = 0
    dilation: IntOrPair = 1
    groups: int = 1
    bias: bool = True

    @property
    def array_names(self) -> tuple[str, ...]:
        return weight_names(self.name, self.bias)

    def check_arrays(self, arrays: Arrays) -> None:
        key = f"{self.name}.weight"
        check_shape(key, arrays, ("out", "in / groups", "height", "width"))
        out = arrays[key].shape[0]
        if out % self.groups:
            raise ParameterError(
                f"array {key!r}: found {out} output channels, wanted a multiple of "
                f"groups={self.groups}"
            )
        if self.bias:
            check_shape(f"{self.name}.bias", arrays, (out,))

    def input_channels(self, arrays: Arrays) -> int | None:
        return int(arrays[f"{self.name}.weight"].shape[1]) * self.groups

    def window(self, in_hw: Pair, arrays: Arrays) -> Window:
        kernel = arrays[f"{self.name}.weight"].shape[2:]
        return conv_window(
            kernel, in_hw, stride=self.stride, padding=self.padding, dilation=self.dilation
        )

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        self._check_channels(shape, arrays)
        return (arrays[f"{self.name}.weight"].shape[0], *self._slide(shape[1:], arrays))

    def _out_size(self, in_hw: Pair, window: Window) -> Pair:
        return conv_output_size(in_hw, window)


@dataclass(frozen=True)
class ConvTranspose2d(Layer):
    """The adjoint of a convolution: every input value adds its filter to the output.

    Arrays: ``<name>.weight`` (in, out / groups, kh, kw) and, with `bias`,
    ``<name>.bias`` (out,).

    Parameters
    ----------
    name : str
    stride, dilation : int or pair of int
    padding : int, pair, "valid" or ((top, bottom), (left, right))
        The padding of the convolution whose adjoint it is, which is cut from the output.
    output_padding : int or pair of int
        Rows and columns added at the bottom and the right; fewer than the stride.
    groups : int
    bias : bool
    """

    type: ClassVar[str] = "conv_transpose2d"
    prefix: ClassVar[str] = "conv_transpose"
    _checks: ClassVar[dict[str, Check]] = {
        "stride": pair(1), "padding": padding, "output_padding": pair(0), "dilation": pair(1),
        "groups": whole(1), "bias": flag,
    }

    stride: IntOrPair = 1
    padding: PaddingLike = 0
    output_padding: IntOrPair = 0
    dilation: IntOrPair = 1
    groups: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.padding == "same":
            raise ParameterError(f"{self.label}: padding must be numbers, found 'same'")
        extra, stride = (as_pair(value, "", minimum=0) for value in
                         (self.output_padding, self.stride))
        if extra[0] >= stride[0] or extra[1] >= stride[1]:
            raise ParameterError(
                f"{self.label}: output_padding must be smaller than the stride {stride}, "
                f"found {extra}"
            )

    @property
    def array_names(self) -> tuple[str, ...]:
        return weight_names(self.name, self.bias)

    def check_arrays(self, arrays: Arrays) -> None:
        key = f"{self.name}.weight"
        check_shape(key, arrays, ("in", "out / groups", "height", "width"))
        inner, out = arrays[key].shape[:2]
        if inner % self.groups:
            raise ParameterError(
                f"array {key!r}: found {inner} input channels, wanted a multiple of "
                f"groups={self.groups}"
            )
        if self.bias:
            check_shape(f"{self.name}.bias", arrays, (out * self.groups,))

    def input_channels(self, arrays: Arrays) -> int | None:
        return int(arrays[f"{self.name}.weight"].shape[0])

    def window(self, out_hw: Pair, arrays: Arrays) -> Window:
        """The window of the convolution that maps the output back to the input."""
        return conv_window(
            arrays[f"{self.name}.weight"].shape[2:], out_hw, stride=self.stride,
            padding=self.padding, dilation=self.dilation,
        )

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        self._check_channels(shape, arrays)
        window = self.window((1, 1), arrays)
        extra = as_pair(self.output_padding, "output_padding", minimum=0)
        sizes: list[int | None] = []
        for axis, n in enumerate(shape[1:]):
            if n is None:
                sizes.append(None)
                continue
            size = (n - 1) * window.stride[axis] + window.extent[axis] + extra[axis]
            size -= sum(window.padding[axis])
            if not 1 <= size <= LARGEST_SIZE:
                raise ParameterError(
                    f"{self.label} cannot take an input of {shape_text(shape[1:])}: its output "
                    f"would have {size} {('rows', 'columns')[axis]}"
                )
            sizes.append(size)
        return arrays[f"{self.name}.weight"].shape[1] * self.groups, sizes[0], sizes[1]


@dataclass(frozen=True)
class Linear(Layer):
    """A fully connected layer on a flat input.

    Arrays: ``<name>.weight`` (out, in) and, with `bias`, ``<name>.bias`` (out,).

    Parameters
    ----------
    name : str
    bias : bool
    """

    type: ClassVar[str] = "linear"
    prefix: ClassVar[str] = "fc"
    _checks: ClassVar[dict[str, Check]] = {"bias": flag}

    bias: bool = True

    @property
    def array_names(self) -> tuple[str, ...]:
        return weight_names(self.name, self.bias)

    def check_arrays(self, arrays: Arrays) -> None:
        key = f"{self.name}.weight"
        check_shape(key, arrays, ("out", "in"))
        if self.bias:
            check_shape(f"{self.name}.bias", arrays, (arrays[key].shape[0],))

    def input_channels(self, arrays: Arrays) -> int | None:
        return int(arrays[f"{self.name}.weight"].shape[1])

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        if shape[1:] != (1, 1):
            raise ParameterError(
                f"{self.label}: the input {shape_text(shape)} is not flat; put a flatten or a "
                "global pooling layer before it"
            )
        self._check_channels(shape, arrays)
        return arrays[f"{self.name}.weight"].shape[0], 1, 1
