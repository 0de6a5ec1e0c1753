"""Layers with several inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...errors import ParameterError
from .base import Arrays, Layer, Shape, shape_text
from .checks import Check, choice

__all__ = ["Add", "Concat", "Joining", "Maximum", "Minimum", "Multiply"]

_MOST_INPUTS = 256


@dataclass(frozen=True)
class Joining(Layer):
    """A layer with two or more inputs."""

    arity: ClassVar[tuple[int, int]] = (2, _MOST_INPUTS)

    def _mismatch(self, first: Shape, other: Shape, number: int) -> ParameterError:
        named = self.inputs or ()
        names = [repr(named[i]) if i < len(named) else f"input {i}" for i in (0, number)]
        return ParameterError(
            f"{self.label}: {names[0]} is {shape_text(first)} and {names[1]} is "
            f"{shape_text(other)}, which do not fit together"
        )


@dataclass(frozen=True)
class _Broadcasting(Joining):
    def joined_shape(self, shapes: Sequence[Shape], arrays: Arrays) -> Shape:
        joined = list(shapes[0])
        for number, shape in enumerate(shapes[1:], start=1):
            for axis, n in enumerate(shape):
                if joined[axis] == 1:
                    joined[axis] = n
                elif n != 1 and None not in (n, joined[axis]) and n != joined[axis]:
                    raise self._mismatch(shapes[0], shape, number)
                elif joined[axis] is None and n != 1:
                    joined[axis] = n
        return joined[0], joined[1], joined[2]


@dataclass(frozen=True)
class Add(_Broadcasting):
    """The sum of its inputs; axes of size 1 are broadcast."""

    type: ClassVar[str] = "add"
    prefix: ClassVar[str] = "add"


@dataclass(frozen=True)
class Multiply(_Broadcasting):
    """The product of its inputs; axes of size 1 are broadcast."""

    type: ClassVar[str] = "multiply"
    prefix: ClassVar[str] = "multiply"


@dataclass(frozen=True)
class Maximum(_Broadcasting):
    """The largest of its inputs at every place; axes of size 1 are broadcast.

    Of equal values the first input wins, and the first NaN.
    """

    type: ClassVar[str] = "maximum"
    prefix: ClassVar[str] = "maximum"


@dataclass(frozen=True)
class Minimum(_Broadcasting):
    """The smallest of its inputs at every place; axes of size 1 are broadcast.

    Of equal values the first input wins, and the first NaN.
    """

    type: ClassVar[str] = "minimum"
    prefix: ClassVar[str] = "minimum"


@dataclass(frozen=True)
class Concat(Joining):
    """Its inputs joined along an axis, in their order.

    Parameters
    ----------
    name : str
    axis : {"C", "H", "W"}
    """

    type: ClassVar[str] = "concat"
    prefix: ClassVar[str] = "concat"
    _checks: ClassVar[dict[str, Check]] = {"axis": choice("C", "H", "W")}

    axis: str = "C"

    def joined_shape(self, shapes: Sequence[Shape], arrays: Arrays) -> Shape:
        along = "CHW".index(self.axis)
        joined = list(shapes[0])
        for number, shape in enumerate(shapes[1:], start=1):
            for axis, n in enumerate(shape):
                known = joined[axis]
                if axis == along:
                    joined[axis] = None if n is None or known is None else known + n
                elif known is None:
                    joined[axis] = n
                elif n not in (None, known):
                    raise self._mismatch(shapes[0], shape, number)
        return joined[0], joined[1], joined[2]
