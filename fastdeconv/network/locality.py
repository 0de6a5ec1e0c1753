"""Whether layers can be computed a piece of the input at a time, and what that takes.

A layer that sees a few columns of the input gives the same whether the columns far from them are
there or not. So a long input is computed in pieces: each with a margin on both sides, which is
computed and thrown away.
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

__all__ = ["Reach", "head_after", "local_layers", "of_any_length"]

# A length at which sizes are compared: longer than kernels are.
_LONG = 1 << 14

_ALWAYS_LOCAL = (
    nn.SlidingLayer, nn.ConvTranspose2d, nn.Elementwise, nn.Softmax, nn.LogSoftmax,
    nn.LocalResponseNorm, nn.Dropout, nn.Add, nn.Multiply, nn.Maximum, nn.Minimum,
)


class Reach(NamedTuple):
    """What pieces of an input need, in places of the input along one axis."""

    margin: int
    """What a place depends on lies no further away, going forward and back again."""
    step: int
    """A piece begins at a multiple of this, so that strides fall on the same places."""


def local_layers(network: Network, axis: str) -> int:
    """How many layers, from the first on, see a bounded part of the input along an axis."""
    for place, layer in enumerate(network.layers):
        if not _is_local(layer, axis):
            return place
    return len(network.layers)


def of_any_length(network: Network, layer: str, axis: str) -> tuple[Network, Reach] | None:
    """The network as far as a layer, made to take an input of any length.

    Parameters
    ----------
    network : Network
    layer : str
    axis : {"H", "W"}
        Along which the input is to be as long as it likes.

    Returns
    -------
    (Network, Reach) or None
        None where the layer, or one below it, sees the input as a whole.
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
            return None  # something of a fixed size is repeated
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
    """The size of every layer along an axis, for a long input."""
    shape = [n or _LONG for n in network.input_shape]
    found = {-1: shape[along]}
    found |= {i: own[along] for i, own in enumerate(network.shapes(shape))}
    return found


def _is_local(layer: nn.Layer, axis: str) -> bool:
    """Whether an output depends on nothing that is far away along an axis."""
    if isinstance(layer, (nn.Scaling, nn.Concat, nn.Slice)):
        return axis not in layer.axis
    if isinstance(layer, (nn.Reduction, nn.LayerNorm)):
        return axis not in layer.axes
    if isinstance(layer, nn.Upsample):
        # Other values lie at places that depend on how many there are.
        return layer.scales is not None and not layer.align_corners
    if isinstance(layer, nn.Pad):
        return layer.mode != "circular"
    return isinstance(layer, _ALWAYS_LOCAL)


def head_after(network: Network, axis: str) -> tuple[str, Network] | None:
    """Where the local layers end, and what goes on from there as a network of its own.

    Returns
    -------
    (str, Network) or None
        The name of the last layer whose output is all that the others take, and the network of
        those others; None where there is no such layer.
    """
    count = len(network.layers)
    for place in range(min(local_layers(network, axis), count - 1) - 1, -1, -1):
        above = range(place + 1, count)
        if all(min(network.sources[i]) >= place for i in above):
            return network.layers[place].name, _from(network, place)
    return None


def _from(network: Network, place: int) -> Network:
    """The layers behind one, which take its output for their input."""
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
