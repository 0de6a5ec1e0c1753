"""Layers that scale and shift, with stored statistics or with those of the input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ...errors import ParameterError
from .base import (
    SINCE_2,
    Arrays,
    Layer,
    Shape,
    check_per_channel,
    check_shape,
    shape_text,
    weight_names,
)
from .checks import LARGEST_STEP, Check, axes, choice, flag, number, whole

__all__ = [
    "Affine", "BatchNorm2d", "GroupNorm", "InstanceNorm", "LayerNorm", "LocalResponseNorm",
    "Normalisation", "Scaling",
]

_WORDS = {"C": "channels", "H": "rows", "W": "columns"}


@dataclass(frozen=True)
class Scaling(Layer):
    """A scale and a shift for each channel, each row or each column.

    Parameters
    ----------
    name : str
    axis : {"C", "H", "W"}
        The axis that the arrays have: channels, rows or columns.
    """

    _checks: ClassVar[dict[str, Check]] = {"axis": choice("C", "H", "W")}

    axis: str = field(default="C", metadata=SINCE_2, kw_only=True)

    @property
    def array_names(self) -> tuple[str, ...]:
        return weight_names(self.name, True)

    def check_arrays(self, arrays: Arrays) -> None:
        check_per_channel(self.array_names, arrays)

    def input_channels(self, arrays: Arrays) -> int | None:
        return len(arrays[f"{self.name}.weight"]) if "C" in self.axis else None

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        self._check_channels(shape, arrays)
        key = f"{self.name}.weight"
        letters = [letter for letter in "CHW" if letter in self.axis]
        for letter, count in zip(letters, arrays[key].shape):
            found = shape["CHW".index(letter)]
            if found not in (None, count):
                raise ParameterError(
                    f"{self.label}: array {key!r} is for {count} {_WORDS[letter]}, but the layer "
                    f"gets {found}"
                )
        return shape


@dataclass(frozen=True)
class BatchNorm2d(Scaling):
    """Batch normalisation with stored statistics.

    Arrays, each with one number for each place along `axis`: ``<name>.weight``, ``.bias``,
    ``.running_mean``, ``.running_var``. The variance must not be negative, and the scale
    weight / sqrt(running_var + eps) must be finite.

    Parameters
    ----------
    name : str
    eps : float
    axis : {"C", "H", "W"}
    """

    type: ClassVar[str] = "batch_norm2d"
    prefix: ClassVar[str] = "bn"
    _checks: ClassVar[dict[str, Check]] = {"eps": number(0), **Scaling._checks}

    eps: float = 1e-5

    @property
    def array_names(self) -> tuple[str, ...]:
        suffixes = ("weight", "bias", "running_mean", "running_var")
        return tuple(f"{self.name}.{suffix}" for suffix in suffixes)

    def check_arrays(self, arrays: Arrays) -> None:
        check_per_channel(self.array_names, arrays)
        key = f"{self.name}.running_var"
        variance = arrays[key].astype(np.float64)
        if variance.min() < 0:
            raise ParameterError(
                f"array {key!r}: found the negative variance {variance.min():g}, "
                "wanted at least 0"
            )
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            scale = arrays[f"{self.name}.weight"] / np.sqrt(variance + self.eps)
            scale = scale.astype(np.float32)
        if not np.isfinite(scale).all():
            raise ParameterError(
                f"array {key!r}: found a variance so small that the scale "
                f"weight / sqrt(running_var + eps) is infinite, with eps={self.eps:g}"
            )


@dataclass(frozen=True)
class LocalResponseNorm(Layer):
    """x / (k + alpha / size * sum of squares over `size` channels) ** beta, as in PyTorch.

    Parameters
    ----------
    name : str
    size : int
        Number of neighbouring channels, at most 65,536.
    alpha, beta, k : float
    """

    type: ClassVar[str] = "local_response_norm"
    prefix: ClassVar[str] = "lrn"
    # k = 0 would make silence 0 / 0.
    _checks: ClassVar[dict[str, Check]] = {
        "size": whole(1, LARGEST_STEP), "alpha": number(0), "beta": number(), "k": number(above=0),
    }

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class Affine(Scaling):
    """A scale and a shift for each place along one or several axes.

    Arrays: ``<name>.weight`` and ``<name>.bias``, with the sizes of the axes in `axis` in the
    order C, H, W: (C,) for "C", (C, H) for "CH".

    Parameters
    ----------
    name : str
    axis : str
        Letters of C, H, W.
    """

    type: ClassVar[str] = "affine"
    prefix: ClassVar[str] = "affine"
    _checks: ClassVar[dict[str, Check]] = {"axis": axes()}

    def check_arrays(self, arrays: Arrays) -> None:
        weight, bias = self.array_names
        check_shape(weight, arrays, tuple(_WORDS[x] for x in "CHW" if x in self.axis))
        check_shape(bias, arrays, arrays[weight].shape)


@dataclass(frozen=True)
class Normalisation(Layer):
    """(x - mean) / sqrt(variance + eps) with the input's own statistics, then scale and shift.

    The scale ``<name>.weight`` and the shift ``<name>.bias`` exist only with `affine`.
    """

    @property
    def array_names(self) -> tuple[str, ...]:
        return weight_names(self.name, True) if getattr(self, "affine", False) else ()

    def check_arrays(self, arrays: Arrays) -> None:
        if self.array_names:
            check_per_channel(self.array_names, arrays)

    def input_channels(self, arrays: Arrays) -> int | None:
        return len(arrays[self.array_names[0]]) if self.array_names else None


@dataclass(frozen=True)
class LayerNorm(Normalisation):
    """Normalisation over some axes, separately for every place along the others.

    With `affine`, its arrays have the sizes of these axes, in the order C, H, W.

    Parameters
    ----------
    name : str
    axes : str
        Letters of C, H, W.
    eps : float
    affine : bool
    """

    type: ClassVar[str] = "layer_norm"
    prefix: ClassVar[str] = "layer_norm"
    _checks: ClassVar[dict[str, Check]] = {"axes": axes(), "eps": number(0), "affine": flag}

    axes: str
    eps: float = 1e-5
    affine: bool = True

    def check_arrays(self, arrays: Arrays) -> None:
        for key in self.array_names:
            check_shape(key, arrays, tuple(axis for axis in "CHW" if axis in self.axes))

    def input_channels(self, arrays: Arrays) -> int | None:
        return len(arrays[self.array_names[0]]) if self.affine and "C" in self.axes else None

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        wanted = tuple(n for axis, n in zip("CHW", shape) if axis in self.axes)
        for key in self.array_names:
            found = arrays[key].shape
            if any(n not in (None, size) for n, size in zip(wanted, found)):
                raise ParameterError(
                    f"{self.label}: array {key!r} is for {shape_text(found)}, but the layer "
                    f"gets {shape_text(wanted)} along {self.axes}"
                )
        return shape


@dataclass(frozen=True)
class GroupNorm(Normalisation):
    """Normalisation over groups of channels and all rows and columns.

    Parameters
    ----------
    name : str
    groups : int
    eps : float
    affine : bool
    """

    type: ClassVar[str] = "group_norm"
    prefix: ClassVar[str] = "group_norm"
    _checks: ClassVar[dict[str, Check]] = {"groups": whole(1), "eps": number(0), "affine": flag}

    groups: int
    eps: float = 1e-5
    affine: bool = True

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        self._check_channels(shape, arrays)
        if shape[0] is not None and shape[0] % self.groups:
            raise ParameterError(
                f"{self.label}: found {shape[0]} input channels, wanted a multiple of "
                f"groups={self.groups}"
            )
        return shape


@dataclass(frozen=True)
class InstanceNorm(Normalisation):
    """Normalisation over all rows and columns, separately for each channel.

    Parameters
    ----------
    name : str
    eps : float
    affine : bool
    """

    type: ClassVar[str] = "instance_norm"
    prefix: ClassVar[str] = "instance_norm"
    _checks: ClassVar[dict[str, Check]] = {"eps": number(0), "affine": flag}

    eps: float = 1e-5
    affine: bool = False
