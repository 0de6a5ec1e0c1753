"""Layers that move values and change none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import ParameterError, shown
from ...kernels.interface import Padding, Pair, as_pair
from .base import Arrays, IntOrPair, Layer, Shape, shape_text
from .checks import (
    LARGEST_SIZE,
    Check,
    WantedError,
    axes,
    choice,
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
    """The identity: a network here is always past its training."""

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
    """Every `step`-th place along an axis from `start` to before `stop`, as Python counts.

    Parameters
    ----------
    name : str
    axis : {"C", "H", "W"}
    start : int
    stop : int, optional
        None for the end.
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
                f"{self.label}: nothing of an input of {shape_text(shape)} is left"
            )
        return c, h, w


@dataclass(frozen=True)
class Pad(Layer):
    """Rows and columns of one value around the input.

    Parameters
    ----------
    name : str
    padding : ((top, bottom), (left, right))
    value : float
    """

    type: ClassVar[str] = "pad"
    prefix: ClassVar[str] = "pad"
    _checks: ClassVar[dict[str, Check]] = {"padding": sides, "value": number()}

    padding: Padding
    value: float = 0.0

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
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
        """Which axis of the input each axis of the output is."""
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
        One size may be -1: what is left for it.
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


@dataclass(frozen=True)
class Upsample(Layer):
    """Every value repeated.

    Parameters
    ----------
    name : str
    scale : int or pair of int
        How often along rows and columns.
    mode : {"nearest"}
    """

    type: ClassVar[str] = "upsample"
    prefix: ClassVar[str] = "upsample"
    _checks: ClassVar[dict[str, Check]] = {"scale": pair(1), "mode": choice("nearest")}

    scale: IntOrPair
    mode: str = "nearest"

    @property
    def scales(self) -> Pair:
        """How often along rows and columns."""
        return as_pair(self.scale, "scale", minimum=1)

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        h, w = (n if n is None else n * scale for n, scale in zip(shape[1:], self.scales))
        if max(h or 0, w or 0) > LARGEST_SIZE:
            raise ParameterError(f"{self.label}: the output would be {h} x {w}")
        return shape[0], h, w
