"""Layers that move, repeat or interpolate values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...errors import ParameterError, shown
from ...kernels.interface import Padding, Pair, as_pair
from .base import SINCE_2, Arrays, IntOrPair, Layer, Shape, shape_text
from .checks import (
    LARGEST_SIZE,
    Check,
    WantedError,
    axes,
    choice,
    flag,
    is_int,
    number,
    optional,
    pair,
    plain,
    sides,
    whole,
)

__all__ = ["Dropout", "Flatten", "Pad", "Permute", "Reshape", "Slice", "Upsample"]


@dataclass(frozen=True)
class Dropout(Layer):
    """The identity, because dropout does something only during training."""

    type: ClassVar[str] = "dropout"
    prefix: ClassVar[str] = "dropout"


@dataclass(frozen=True)
class Flatten(Layer):
    """(C, H, W) to (C * H * W, 1, 1), in the order C, H, W."""

    type: ClassVar[str] = "flatten"
    prefix: ClassVar[str] = "flatten"

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        if shape[0] is None or shape[1] is None or shape[2] is None:
            return None, 1, 1
        return shape[0] * shape[1] * shape[2], 1, 1


def _place(value: Any) -> int:
    if not is_int(value) or abs(value) > LARGEST_SIZE:
        raise WantedError("an int")
    return int(value)


@dataclass(frozen=True)
class Slice(Layer):
    """Every `step`-th place along an axis, from `start` up to but not including `stop`.

    Negative numbers count from the end, as in Python.

    Parameters
    ----------
    name : str
    axis : {"C", "H", "W"}
    start : int
    stop : int, optional
        None for all up to the end.
    step : int
    """

    type: ClassVar[str] = "slice"
    prefix: ClassVar[str] = "slice"
    _checks: ClassVar[dict[str, Check]] = {
        "axis": choice("C", "H", "W"), "start": _place, "stop": optional(_place), "step": whole(1),
    }

    axis: str
    start: int = 0
    stop: int | None = None
    step: int = 1

    @property
    def selection(self) -> tuple[slice, ...]:
        """The index of (C, H, W)."""
        taken = slice(self.start, self.stop, self.step)
        return tuple(taken if axis == self.axis else slice(None) for axis in "CHW")

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        c, h, w = (
            n if n is None else len(range(*taken.indices(n)))
            for n, taken in zip(shape, self.selection)
        )
        if 0 in (c, h, w):
            raise ParameterError(
                f"{self.label}: the slice of an input of {shape_text(shape)} is empty"
            )
        return c, h, w


@dataclass(frozen=True)
class Pad(Layer):
    """Adds rows and columns around the input.

    Parameters
    ----------
    name : str
    padding : ((top, bottom), (left, right))
    value : float
        The value of what is added with mode "constant".
    mode : {"constant", "reflect", "replicate", "circular"}
        As in PyTorch: "reflect" mirrors the input without repeating its edge, "replicate" repeats
        the edge, "circular" continues with the opposite side.
    """

    type: ClassVar[str] = "pad"
    prefix: ClassVar[str] = "pad"
    _checks: ClassVar[dict[str, Check]] = {
        "padding": sides, "value": number(),
        "mode": choice("constant", "reflect", "replicate", "circular"),
    }

    padding: Padding
    value: float = 0.0
    mode: str = field(default="constant", metadata=SINCE_2)

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        most = {"reflect": -1, "circular": 0}.get(self.mode)
        for n, side in zip(shape[1:], self.padding):
            if most is not None and n is not None and max(side) > n + most:
                raise ParameterError(
                    f"{self.label} cannot take an input of {shape_text(shape[1:])}: with mode "
                    f"{self.mode!r} it pads at most {n + most} of {n}, found {side}"
                )
        h, w = (
            n if n is None else n + sum(side) for n, side in zip(shape[1:], self.padding)
        )
        return shape[0], h, w


@dataclass(frozen=True)
class Permute(Layer):
    """The axes in another order.

    Parameters
    ----------
    name : str
    axes : str
        "CWH" exchanges rows and columns.
    """

    type: ClassVar[str] = "permute"
    prefix: ClassVar[str] = "permute"
    _checks: ClassVar[dict[str, Check]] = {"axes": axes(every=True)}

    axes: str

    @property
    def order(self) -> tuple[int, int, int]:
        """For each axis of the output, the number of that axis in the input."""
        c, h, w = ("CHW".index(axis) for axis in self.axes)
        return c, h, w

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        c, h, w = self.order
        return shape[c], shape[h], shape[w]


def _new_shape(value: Any) -> Any:
    value = plain(value)
    if (
        isinstance(value, tuple) and len(value) == 3
        and all(is_int(n) and (n == -1 or 0 < n <= LARGEST_SIZE) for n in value)
        and value.count(-1) <= 1
    ):
        return value
    raise WantedError("(C, H, W), positive ints of which one may be -1")


@dataclass(frozen=True)
class Reshape(Layer):
    """The same values, in row-major order, in another shape.

    Parameters
    ----------
    name : str
    shape : (C, H, W)
        One size may be -1: it is computed from the others.
    """

    type: ClassVar[str] = "reshape"
    prefix: ClassVar[str] = "reshape"
    _checks: ClassVar[dict[str, Check]] = {"shape": _new_shape}

    shape: tuple[int, int, int]

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        known = [n for n in self.shape if n != -1]
        if None in shape:
            c, h, w = (None if n == -1 else n for n in self.shape)
            return c, h, w
        count = math.prod(n for n in shape if n is not None)
        fits = count % math.prod(known) == 0 if len(known) < 3 else count == math.prod(known)
        if not fits:
            raise ParameterError(
                f"{self.label}: an input of {shape_text(shape)} cannot become "
                f"{shown(self.shape)}"
            )
        c, h, w = (count // math.prod(known) if n == -1 else n for n in self.shape)
        return c, h, w


# Most rows or columns that a layer can ask for regardless of its input: six minutes of samples.
_LARGEST_MAP = 2**24


def _new_size(value: Any) -> Any:
    value = plain(value)
    sizes = value if isinstance(value, tuple) else (value, value)
    if len(sizes) == 2 and all(is_int(n) and 0 < n <= _LARGEST_MAP for n in sizes):
        return value
    raise WantedError(f"an int or a pair of ints from 1 to {_LARGEST_MAP}")


@dataclass(frozen=True)
class Upsample(Layer):
    """Changes the number of rows and columns, by repeating values or by interpolation.

    Parameters
    ----------
    name : str
    scale : int or pair of int, optional
        Factors for rows and columns. Either this or `size` must be given.
    size : int or pair of int, optional
        Rows and columns of the output.
    mode : {"nearest", "bilinear"}
        As in PyTorch; along a single axis "bilinear" is linear.
    align_corners : bool
        For mode "bilinear", as in PyTorch. If True, the first and last values of input and output
        coincide. If False, values belong to the middle of their place, and values beyond the
        outermost middles are those of the edge.
    """

    type: ClassVar[str] = "upsample"
    prefix: ClassVar[str] = "upsample"
    _checks: ClassVar[dict[str, Check]] = {
        "scale": optional(pair(1)), "mode": choice("nearest", "bilinear"),
        "size": optional(_new_size), "align_corners": flag,
    }

    scale: IntOrPair | None = None
    mode: str = "nearest"
    size: IntOrPair | None = field(default=None, metadata=SINCE_2)
    align_corners: bool = field(default=False, metadata=SINCE_2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.scale is None) == (self.size is None):
            raise ParameterError(
                f"{self.label}: found scale {shown(self.scale)} and size {shown(self.size)}, "
                "wanted exactly one of them"
            )

    @property
    def scales(self) -> Pair | None:
        """Factors for rows and columns; None if `size` is given."""
        return None if self.scale is None else as_pair(self.scale, "scale", minimum=1)

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        if self.size is not None:
            h, w = as_pair(self.size, "size", minimum=1)
            return shape[0], h, w
        scales = as_pair(self.scale, "scale", minimum=1)
        rows, columns = (n if n is None else n * scale for n, scale in zip(shape[1:], scales))
        if max(rows or 0, columns or 0) > LARGEST_SIZE:
            raise ParameterError(
                f"{self.label}: the output would have {rows} x {columns} places, over the limit of "
                f"{LARGEST_SIZE} along an axis"
            )
        return shape[0], rows, columns
