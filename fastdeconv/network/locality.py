"""Which layers can be computed one piece of the input at a time, and how large its margins are.

If a layer sees only a few columns of the input, its output does not depend on columns that are
far away. So a long input can be computed in pieces. Each piece has a margin on both sides that is
computed and then discarded.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

from ..errors import ParameterError
from . import layers as nn
from .choosing import up_to
from .fields import receptive_fields
from .network import Network

__all__ = ["Reach", "head_after", "local_layers", "of_any_length", "rows_apart"]

# An input length for comparing sizes, longer than any usual kernel.
_LONG = 1 << 14

_ALWAYS_LOCAL = (
    nn.SlidingLayer, nn.ConvTranspose2d, nn.Elementwise, nn.Softmax, nn.LogSoftmax,
    nn.LocalResponseNorm, nn.Dropout, nn.Add, nn.Multiply, nn.Maximum, nn.Minimum,
)


class Reach(NamedTuple):
    """The requirements of pieces, in rows or columns of the input."""

    margin: int
    """A place depends on nothing further away, in a pass forward and back."""
    step: int
    """A piece must begin at a multiple of this, so that strides fall on the same places."""


def local_layers(network: Network, axis: str) -> int:
    """How many layers, from the first on, see only a bounded part of the input along an axis."""
    for place, layer in enumerate(network.layers):
        if not _is_local(layer, axis):
            return place
    return len(network.layers)


def of_any_length(network: Network, layer: str, axis: str) -> tuple[Network, Reach] | None:
    """The network up to a layer, changed to take an input of any length.

    Parameters
    ----------
    network : Network
    layer : str
    axis : {"H", "W"}
        The axis along which the input may have any length.

    Returns
    -------
    (Network, Reach) or None
        None if the layer, or one below it, depends on the whole length of the input.
    """
    index, along = network.layer_index(layer), "CHW".index(axis)
    if local_layers(network, axis) <= index:
        return None
    part = up_to(network, layer)
    shape = [*part.input_shape]
    shape[along] = None
    try:
        part = Network(
            part.layers, part.arrays, shape, frontend=part.frontend, name=part.name,
            aliases=part.aliases,
        )
        sizes = _sizes(part, along)
    except ParameterError:
        return None
    for taken in part.sources:
        if len({sizes[source] for source in taken}) > 1:
            return None  # a value of a fixed size is broadcast
    fields = receptive_fields(part.layers, part.sources, part.arrays)
    jumps = [round(field.jump[along - 1]) for field in fields if field.jump[along - 1] >= 1]
    step = math.lcm(1, *jumps)
    size = max(field.size[along - 1] for field in fields)
    if not math.isfinite(size):
        return None
    padded = sum(
        sum(own.padding[along - 1]) for own in part.layers if isinstance(own, nn.Pad)
    )
    return part, Reach(math.ceil(size) + (padded + 1) * step, step)


def _sizes(network: Network, along: int) -> dict[int, int]:
    """The output size of every layer along an axis, for a long input; -1 is the input."""
    shape = [n or _LONG for n in network.input_shape]
    found = {-1: shape[along]}
    found |= {i: own[along] for i, own in enumerate(network.shapes(shape))}
    return found


def _is_local(layer: nn.Layer, axis: str) -> bool:
    """Whether an output of the layer depends only on near places along an axis."""
    if isinstance(layer, (nn.Scaling, nn.Concat, nn.Slice)):
        return axis not in layer.axis
    if isinstance(layer, (nn.Reduction, nn.LayerNorm)):
        return axis not in layer.axes
    if isinstance(layer, nn.Upsample):
        # With a fixed size or aligned corners, positions depend on the size of the input.
        return layer.scales is not None and not layer.align_corners
    if isinstance(layer, nn.Pad):
        return layer.mode != "circular"
    return isinstance(layer, _ALWAYS_LOCAL)


def head_after(network: Network, axis: str) -> tuple[str, Network] | None:
    """Split the network where its local layers end.

    Returns
    -------
    (str, Network) or None
        The name of the last local layer whose output is all that the layers after it take, and
        the network of those layers. None if there is no such layer.
    """
    count = len(network.layers)
    for place in range(min(local_layers(network, axis), count - 1) - 1, -1, -1):
        above = range(place + 1, count)
        if all(min(network.sources[i]) >= place for i in above):
            return network.layers[place].name, _from(network, place)
    return None


def _from(network: Network, place: int) -> Network:
    """The network of the layers after one, whose output becomes the input."""
    name = network.layers[place].name
    layers = [
        dataclasses.replace(
            layer, inputs=tuple("input" if own == name else own for own in layer.inputs)
        )
        for layer in network.layers[place + 1 :]
    ]
    arrays = {key: network.arrays[key] for own in layers for key in own.array_names}
    return Network(
        layers, arrays, network.known_shapes[place], classes=network.classes,
        output=network.output, name=network.name,
    )


def rows_apart(network: Network) -> tuple[Network, str, Network] | None:
    """Split a network whose input is one row, so that its first part takes any number of rows.

    Every row of that part's layers depends on the same row of the input, and on no other.

    Returns
    -------
    (Network, str, Network) or None
        The first part; the name of its last layer, whose output is all that the second part takes;
        and the second part, which takes one row. None if no layer keeps rows apart.
    """
    split = head_after(network, "H") if network.input_shape[1] == 1 else None
    found = None if split is None else of_any_length(network, split[0], "H")
    if split is None or found is None:
        return None
    part, _ = found
    fields = receptive_fields(part.layers, part.sources, part.arrays)
    are_apart = all(field.size[0] == field.jump[0] == 1 for field in fields)
    keep_rows = set(_sizes(part, 1).values()) == {_LONG}
    return (part, *split) if are_apart and keep_rows else None
