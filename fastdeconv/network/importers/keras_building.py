"""Build the layers of a network from those of Keras.

The axes of a Keras tensor have one of several orders; those of a network are (C, H, W).
`Value.axes` has a letter for each axis of the tensor after the batch:

=========  ==============================================================================
``HWC``    (batch, rows, columns, channels), ``channels_last``
``CHW``    (batch, channels, rows, columns), ``channels_first``
``WC``     (batch, steps, channels) of a 1-D network; its layers here are C x 1 x W
``C``      flat
=========  ==============================================================================

So a Permute of Keras moves no values: it only changes the order of the letters. If a layer needs
its channels at an axis that has another letter, a layer called ``<name>.layout`` moves the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArchiveError, shown
from ..archive import MAX_LAYERS
from ..layers import INPUT, Layer, Shape, layer_from_record
from ..network import as_float32
from ..zipped import MAX_TOTAL_BYTES
from .keras_graph import Node
from .keras_weights import Weights

__all__ = ["Builder", "UnsupportedError", "Value", "reordered", "standard_axes"]

Array = NDArray[Any]

# Most values of a map whose positions are listed: far above any use, and 256 MB of positions.
_MOST_PLACES = 1 << 25


class UnsupportedError(Exception):
    """A layer of Keras that cannot be imported; the text says why."""


@dataclass(frozen=True)
class Value:
    """The output of a layer.

    Attributes
    ----------
    name : str
        The name of the layer.
    axes : str
        See above.
    shape : (C, H, W)
        None for unknown sizes.
    order : array, optional
        For a flat value: the i-th number in Keras is number ``order[i]`` here. None if the order
        is the same.
    """

    name: str
    axes: str
    shape: Shape
    order: NDArray[np.intp] | None = None
    origin: tuple[tuple[int, int, int], str] | None = None
    """For a flat value with an `order`: shape and Keras's axes of the map before flattening."""

    @property
    def sizes(self) -> list[int | None]:
        """The sizes in the order of Keras's axes."""
        return [self.shape["CHW".index(axis)] for axis in self.axes]

    def letter(self, axis: Any) -> str:
        """The letter of one of Keras's axes; they count from 1 after the batch, or from -1."""
        rank = len(self.axes)
        if isinstance(axis, (list, tuple)) and len(axis) == 1:
            axis = axis[0]
        if type(axis) is not int or not (1 <= axis <= rank or -rank <= axis <= -1):
            raise UnsupportedError(f"it works along axis {shown(axis)} of {rank + 1}")
        return self.axes[axis - 1 if axis > 0 else axis]


def standard_axes(rank: int, channels: int = -1) -> str:
    """The usual letters of a tensor whose channels are at an axis (from 1, or from -1)."""
    axes = list("HW"[3 - rank:]) if rank < 3 else list("HW")
    axes.insert(channels - 1 if channels > 0 else len(axes) + 1 + channels, "C")
    return "".join(axes)


@dataclass
class Builder:
    """The layers and arrays made so far.

    Attributes
    ----------
    weights : Weights
    major : int or None
        The version of Keras.
    wanted : mapping of str to str
        For the name of a layer, the axes of its output that suit the next layers best.
    flipped : bool
        Whether convolutions are true convolutions with Theano's padding.
    """

    weights: Weights
    major: int | None
    wanted: Mapping[str, str]
    flipped: bool = False
    layers: list[Layer] = field(default_factory=list)
    built_arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _shapes: dict[str, Shape] = field(default_factory=dict)
    _bytes: int = 0

    def arrays(self, node: Node, *roles: str) -> list[NDArray[np.float32]]:
        """The arrays of a layer of Keras as float32, in Keras's layout."""
        if not roles:
            return []
        found = self.weights.arrays(node.path, roles)
        return [as_float32(f"{node.name}.{role}", array) for role, array in zip(roles, found)]

    def add(
        self, kind: str, name: str, values: Value | Sequence[Value],
        parameters: Mapping[str, Any] | None = None, *, arrays: Mapping[str, Array] | None = None,
        axes: str | None = None, order: NDArray[np.intp] | None = None,
    ) -> Value:
        """Add a layer. By default the axes of its output are those of its first input."""
        taken = [values] if isinstance(values, Value) else list(values)
        # A layer of that name would hide the input of the network.
        name = f"{INPUT}:0" if name == INPUT else name
        if name in self._shapes:
            raise ArchiveError(f"two layers have the name {shown(name)}")
        if len(self.layers) >= MAX_LAYERS:
            raise ArchiveError(f"the network has more than {MAX_LAYERS} layers")
        for suffix, array in (arrays or {}).items():
            key = f"{name}.{suffix}"
            self._bytes += 4 * array.size
            if self._bytes > MAX_TOTAL_BYTES:
                raise ArchiveError(f"found more than {MAX_TOTAL_BYTES} bytes of weights")
            self.built_arrays[key] = np.ascontiguousarray(array, np.float32)
        record = {"type": kind, "name": name, "inputs": [value.name for value in taken]}
        layer = layer_from_record({**record, **(parameters or {})})
        layer.check_arrays(self.built_arrays)
        shape = layer.joined_shape([value.shape for value in taken], self.built_arrays)
        self._shapes[name] = shape
        self.layers.append(layer)
        origin = taken[0].origin if order is not None and order is taken[0].order else None
        return Value(name, taken[0].axes if axes is None else axes, shape, order, origin)

    def same(self, name: str, value: Value, axes: str | None = None) -> Value:
        """Add a layer that changes nothing, so that its name exists; axes may get new letters."""
        return self.add("dropout", name, value, axes=axes or value.axes, order=value.order)

    def scaled(
        self, name: str, value: Value, scale: float, shift: float = 0.0
    ) -> Value:
        """Multiply every value by a number and add a number."""
        known = [(n, axis) for axis, n in zip("CHW", value.shape) if n is not None]
        size, axis = min(known, default=(_MOST_PLACES, ""))
        if size >= _MOST_PLACES:
            raise UnsupportedError("the sizes of its input are not known; give input_shape=")
        arrays = {"weight": np.full(size, scale), "bias": np.full(size, shift)}
        return self.add(
            "affine", name, value, {"axis": axis}, arrays=arrays, order=value.order
        )

    def with_axes(self, node: Node, value: Value, axes: str) -> Value:
        """The same tensor of Keras with other letters; values are moved if necessary."""
        value = self.in_order(node, value)
        if value.axes == axes:
            return value
        source = dict(zip(axes, value.axes))
        # Axes that Keras does not have are of size 1 and get the letters that are left.
        left = [axis for axis in "CHW" if axis not in value.axes]
        left.sort(key=lambda axis: axis in axes)
        for axis in "CHW":
            if axis not in source:
                source[axis] = axis if axis in left else left[0]
                left.remove(source[axis])
        moved = "".join(source[axis] for axis in "CHW")
        name = self._free(f"{node.name}.layout")
        return self.add("permute", name, value, {"axes": moved}, axes=axes)

    def channels_at(self, node: Node, value: Value, axis: int) -> Value:
        """The same tensor of Keras, with C at an axis (from 1 after the batch, or from -1)."""
        if value.letter(axis) == "C":
            return value
        return self.with_axes(node, value, standard_axes(len(value.axes), axis))

    def in_order(self, node: Node, value: Value) -> Value:
        """The same value with its numbers in the order of Keras."""
        if value.order is None:
            return value
        if value.origin is None:
            raise UnsupportedError(
                "its input is several maps that were flattened and joined, and only Dense, "
                "BatchNormalization, Concatenate and activations can follow these"
            )
        shape, axes = value.origin
        whole = axes + "".join(axis for axis in "CHW" if axis not in axes)
        name = self._free(f"{node.name}.map")
        value = self.add("reshape", name, value, {"shape": shape}, axes="CHW")
        value = self.add("permute", self._free(f"{name}.layout"), value, {"axes": whole})
        return self.add("flatten", self._free(f"{name}.flat"), value, axes="C")

    def flattened(self, name: str, value: Value, axes: str | None = None) -> Value:
        """Flatten a value; `axes` is the order in which Keras reads the axes, the last fastest."""
        axes = value.axes if axes is None else axes
        shape = value.shape
        order: NDArray[np.intp] | None = None
        long = [axis for axis in axes if shape["CHW".index(axis)] != 1]
        if long != sorted(long):
            c, h, w = shape
            if c is None or h is None or w is None:
                raise UnsupportedError(
                    "it flattens a map of unknown size; give input_shape=(C, H, W)"
                )
            count = c * h * w
            if count > _MOST_PLACES:
                raise ArchiveError(
                    f"layer {shown(name)} flattens {count} values, over the limit of {_MOST_PLACES}"
                )
            places = np.arange(count, dtype=np.intp).reshape(c, h, w)
            whole = axes + "".join(axis for axis in "CHW" if axis not in axes)
            order = places.transpose(["CHW".index(axis) for axis in whole]).reshape(-1)
        made = self.add("flatten", name, value, axes="C", order=order)
        c, h, w = (n or 0 for n in shape)
        return made if order is None else replace(made, origin=((c, h, w), axes))

    def aligned(self, node: Node, values: Sequence[Value]) -> list[Value]:
        """Several values, all with the axes of the first one."""
        first = values[0]
        for value in values:
            if len(value.axes) != len(first.axes):
                raise UnsupportedError(
                    f"its inputs have {len(first.axes) + 1} and {len(value.axes) + 1} axes"
                )
        return [
            value if value.axes == first.axes else self.with_axes(node, value, first.axes)
            for value in values
        ]

    def _free(self, name: str) -> str:
        """`name`, with a number if the name exists already."""
        number, new = 1, name
        while new in self._shapes:
            number += 1
            new = f"{name}{number}"
        return new


def reordered(array: Array, value: Value) -> Array:
    """Put the last axis of `array`, which has Keras's order of a flat value, into our order."""
    if value.order is None:
        return array
    if not array.ndim or array.shape[-1] != len(value.order):
        raise ArchiveError(
            f"found an array of shape {array.shape}, wanted {len(value.order)} in the last axis"
        )
    out = np.empty_like(array)
    out[..., value.order] = array
    return out

