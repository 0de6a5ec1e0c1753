"""The base classes of layers, and checks of their arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from ...errors import ParameterError, shown
from ...kernels.interface import Pair, Window
from . import checks
from .checks import Check, WantedError

__all__ = [
    "INPUT", "SINCE_2", "Arrays", "IntOrPair", "Layer", "Shape", "SlidingLayer",
    "check_per_channel", "check_shape", "label_of", "shape_text", "weight_names",
]

Arrays = Mapping[str, NDArray[np.float32]]
IntOrPair = int | Pair
Shape = tuple[int | None, int | None, int | None]

#: The name of the network's input in the `inputs` of layers.
INPUT = "input"
#: Marks parameters that version 1 of the archive lacks. Records leave them out if they have their
#: default value.
SINCE_2 = {"since": 2}


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape as text: ``64 x 128 x ?``."""
    return " x ".join("?" if n is None else str(n) for n in shape)


def _inputs(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(value) if isinstance(value, (list, tuple)) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise WantedError("a list of names of layers")
    return names


@dataclass(frozen=True)
class Layer:
    """The base of all layers: a name, a type, inputs, the arrays it needs, a shape rule.

    Parameters
    ----------
    name : str
        Not empty, printable, without slashes.
    inputs : sequence of str, optional
        Names of the layers whose outputs it takes; "input" is the input of the network. Without
        it the input is the layer before it, which the network fills in.

    Raises
    ------
    ParameterError
        If a parameter has a wrong type or value. The message names the layer and the key.
    """

    type: ClassVar[str] = ""
    #: Prefix of the generated name of a layer that was created without one.
    prefix: ClassVar[str] = ""
    #: Fewest and most inputs.
    arity: ClassVar[tuple[int, int]] = (1, 1)
    _checks: ClassVar[dict[str, Check]] = {}

    name: str
    inputs: tuple[str, ...] = field(default=cast(Any, None), kw_only=True)
    # Whether a network filled in the inputs. In another list, the layer then takes the layer that
    # is before it there.
    implied: bool = field(default=False, kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        for key, check in {"name": checks.name, "inputs": _inputs, **self._checks}.items():
            value = getattr(self, key)
            try:
                object.__setattr__(self, key, check(value))
            except WantedError as wanted:
                label = label_of(self.name, self.type)
                raise ParameterError(
                    f"{label}: {key} must be {wanted}, found {shown(value)}"
                ) from None

    @property
    def label(self) -> str:
        """The name of this layer in messages."""
        return label_of(self.name, self.type)

    @property
    def array_names(self) -> tuple[str, ...]:
        """Names of the arrays that this layer needs, as in a PyTorch state dict."""
        return ()

    def check_arrays(self, arrays: Arrays) -> None:
        """Check this layer's arrays, without knowing its input.

        Raises
        ------
        ParameterError
            If one has a wrong shape or value. The message names the array, what was found and
            wanted.
        """

    def input_channels(self, arrays: Arrays) -> int | None:
        """The number of input channels that the arrays are for; None if they fit any number."""
        return None

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        """Shape of the output for an input of `shape`.

        Parameters
        ----------
        shape : (C, H, W)
            None for an unknown size.
        arrays : mapping of str to array
            The arrays of the network.

        Returns
        -------
        (C, H, W)

        Raises
        ------
        ParameterError
            If the layer cannot take that input.
        """
        self._check_channels(shape, arrays)
        return shape

    def joined_shape(self, shapes: Sequence[Shape], arrays: Arrays) -> Shape:
        """`output_shape` for a layer with any number of inputs."""
        (shape,) = shapes
        return self.output_shape(shape, arrays)

    def to_record(self) -> dict[str, Any]:
        """The layer as a JSON object of the archive, without its inputs.

        Parameters that are None are left out; so are newer ones with their default value.
        """
        record: dict[str, Any] = {"type": self.type}
        for parameter in dataclasses.fields(self):
            value = getattr(self, parameter.name)
            as_before = "since" in parameter.metadata and value == parameter.default
            about_inputs = parameter.name in ("inputs", "implied")
            if value is not None and not about_inputs and not as_before:
                record[parameter.name] = value
        return record

    def _check_channels(self, shape: Shape, arrays: Arrays) -> None:
        wanted = self.input_channels(arrays)
        if None in (wanted, shape[0]) or wanted == shape[0]:
            return
        key = self.array_names[0]
        raise ParameterError(
            f"{self.label}: array {key!r} of shape {arrays[key].shape} is for {wanted} input "
            f"channels, but the layer gets {shape[0]}"
        )


def label_of(name: Any, type_name: str) -> str:
    """The name of a layer in messages."""
    return f"layer {shown(name)} ({type_name})"


def check_shape(key: str, arrays: Arrays, wanted: tuple[int | str, ...]) -> None:
    """Check one array's shape; a string in `wanted` stands for any size but 0."""
    found = arrays[key].shape
    fits = len(found) == len(wanted) and all(
        n > 0 and (isinstance(w, str) or n == w) for n, w in zip(found, wanted)
    )
    if not fits:
        text = ", ".join(map(str, wanted)) + ("," if len(wanted) == 1 else "")
        raise ParameterError(f"array {key!r}: found shape {found}, wanted ({text})")


class SlidingLayer(Layer):
    """A layer whose window slides over height and width."""

    def window(self, in_hw: Pair, arrays: Arrays) -> Window:
        """The window, resolved for an input of (height, width) `in_hw`.

        Parameters
        ----------
        in_hw : pair of int
        arrays : mapping of str to array
            The arrays of the network; the weight of a convolution has its kernel size.

        Returns
        -------
        Window
        """
        raise NotImplementedError

    def _out_size(self, in_hw: Pair, window: Window) -> Pair:
        raise NotImplementedError

    def _slide(
        self, size: tuple[int | None, int | None], arrays: Arrays
    ) -> tuple[int | None, int | None]:
        """(height, width) of the output; if only one of `size` is known, only that one."""
        if size == (None, None):
            return size
        rows, cols = size
        stand_in = (1 if rows is None else rows, 1 if cols is None else cols)
        window = _free_axes(self.window(stand_in, arrays), rows is None, cols is None)
        try:
            out = self._out_size(stand_in, window)
        except ParameterError as exc:
            raise ParameterError(
                f"{self.label} cannot take an input of {shape_text(size)}: {exc}"
            ) from None
        return (None if rows is None else out[0]), (None if cols is None else out[1])


def _free_axes(window: Window, rows: bool, cols: bool) -> Window:
    """`window`, reduced along rows or columns to a single element, which fits any size."""
    (kh, kw), (sh, sw), (dh, dw), (ph, pw) = window
    if rows:
        kh, sh, dh, ph = 1, 1, 1, (0, 0)
    if cols:
        kw, sw, dw, pw = 1, 1, 1, (0, 0)
    return Window((kh, kw), (sh, sw), (dh, dw), (ph, pw))


def weight_names(name: str, bias: bool) -> tuple[str, ...]:
    """Names of a layer's weight and, with `bias`, of its bias."""
    return (f"{name}.weight", f"{name}.bias") if bias else (f"{name}.weight",)


def check_per_channel(keys: tuple[str, ...], arrays: Arrays) -> None:
    """Check that arrays have one axis, and all the same size."""
    check_shape(keys[0], arrays, ("channels",))
    for key in keys[1:]:
        check_shape(key, arrays, arrays[keys[0]].shape)
