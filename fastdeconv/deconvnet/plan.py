"""Which layers run together in the forward pass.

A `Block` is a layer with the layers after it that only it feeds: a convolution with its batch
norms, activation and pool; a sum, a product or an activation with the same except the pool.
`fastdeconv.deconvnet.route` does the same for the way back.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..kernels.activations import InKernel
from ..kernels.interface import Padding
from ..kernels.lanes import cached
from ..network import layers as nn
from ..network.network import Network

__all__ = [
    "Block", "forward_plan", "in_kernel", "is_affine", "layer_cache", "rectifies", "room_around",
    "shape_cache",
]

_MOST_SHAPES = 8
"""The most shapes of inputs for which something is kept with a network."""


def is_affine(layer: nn.Layer) -> bool:
    """Whether a layer is a scale and a shift for each channel."""
    return isinstance(layer, nn.Scaling) and layer.axis == "C"


def rectifies(layer: nn.Layer) -> bool:
    """Whether the rules treat a layer as a ReLU."""
    return isinstance(layer, nn.Elementwise) and layer.row.rectifies(**layer.parameters)


class Block(NamedTuple):
    """Layers that run together; the others are the places of its parts."""

    layers: tuple[int, ...]
    """In order. Each one but the first takes the output of the one before it, and nothing else."""
    sources: tuple[int, ...]
    """The layers whose outputs the first one takes; -1 is the network's input."""
    affine1: int | None = None
    activation: int | None = None
    affine2: int | None = None
    pool: int | None = None
    cut_from: Block | None = None
    """The block that this one is a part of."""

    @property
    def first(self) -> int:
        return self.layers[0]

    @property
    def last(self) -> int:
        return self.layers[-1]

    @property
    def end(self) -> int:
        """The last layer that changes anything; only dropout follows it."""
        parts = (self.first, self.affine1, self.activation, self.affine2, self.pool)
        return max(i for i in parts if i is not None)

    def cut(self, index: int) -> Block:
        """The part of the block up to layer `index`."""
        layers = tuple(i for i in self.layers if i <= index)

        def kept(part: int | None) -> int | None:
            return part if part in layers else None

        return Block(
            layers, self.sources, kept(self.affine1), kept(self.activation), kept(self.affine2),
            kept(self.pool), self.cut_from or self,
        )


def kept_layers(net: Network, blocks: Sequence[Block]) -> dict[int, int]:
    """The layers whose output is that of a block, its end and dropout after it: the block's number
    by layer."""
    cache = layer_cache(net, -1)
    known, numbers = cache.get("kept layers", (None, {}))
    if known is not blocks:
        numbers = {
            index: number
            for number, block in enumerate(blocks)
            for index in block.layers[block.layers.index(block.end) :]
        }
        cache["kept layers"] = blocks, numbers
    return numbers


def forward_plan(net: Network, fuses_all: bool) -> list[Block]:
    """The network as blocks, in an order in which they can be computed.

    Unless it `fuses_all`, a back end takes along only what is behind a convolution, and no
    other activation than ReLU.
    """
    blocks: list[Block] = cached(
        layer_cache(net, -1), ("forward plan", fuses_all), lambda: _plan(net, fuses_all)
    )
    return blocks


def _plan(net: Network, fuses_all: bool) -> list[Block]:
    takers: list[list[int]] = [[] for _ in net.layers]
    for place, sources in enumerate(net.sources):
        for source in sources:
            if source >= 0:
                takers[source].append(place)
    blocks, done = [], set[int]()
    for place in range(len(net.layers)):
        if place not in done:
            blocks.append(_block(net, place, takers, fuses_all))
            done.update(blocks[-1].layers)
    return blocks


def _block(net: Network, first: int, takers: list[list[int]], fuses_all: bool) -> Block:
    """A layer with those that run with it: [scale][activation][scale][pool], each optional."""
    def is_activation(layer: nn.Layer) -> bool:
        return isinstance(layer, nn.ReLU) or (fuses_all and in_kernel(layer) is not None)

    def is_pool(layer: nn.Layer) -> bool:
        return isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d) if fuses_all else nn.MaxPool2d)

    tests: dict[str, Callable[[nn.Layer], bool]] = {
        "affine1": is_affine, "activation": is_activation, "affine2": is_affine, "pool": is_pool,
    }
    def beginning_with(layer: nn.Layer, slots: list[str]) -> list[str]:
        """The slots from the one on that takes a layer."""
        fits = [tests[slot](layer) for slot in slots]
        return slots[fits.index(True) :] if True in fits else []

    head, parts, slots = net.layers[first], dict[str, Any](), list[str]()
    if isinstance(head, nn.Conv2d):
        slots = [*tests]
    elif fuses_all and isinstance(head, nn.Joining):
        slots = ["affine1", "activation", "affine2"]
    elif fuses_all:
        slots = beginning_with(head, ["affine1", "activation", "affine2"])
        if slots:
            parts[slots.pop(0)] = first
    layers = [first]
    while len(takers[layers[-1]]) == 1:
        (place,) = takers[layers[-1]]
        layer = net.layers[place]
        if not isinstance(layer, nn.Dropout):
            slots = beginning_with(layer, slots)
            if not slots:
                break
            parts[slots.pop(0)] = place
        layers.append(place)
    return Block(tuple(layers), net.sources[first], **parts)


def in_kernel(layer: nn.Layer) -> InKernel | None:
    """How kernels are told to compute a layer, if it is an activation that they can."""
    return layer.row.in_kernel(**layer.parameters) if isinstance(layer, nn.Elementwise) else None


def room_around(net: Network, source: int, size: tuple[int, int]) -> Padding:
    """The padding that convolutions need around the output of a layer, which has this size."""
    sides = [(0, 0), (0, 0)]
    for layer, sources in zip(net.layers, net.sources):
        if source in sources and isinstance(layer, nn.Conv2d):
            padding = layer.window(size, net.arrays).padding
            sides = [(max(a, c), max(b, d)) for (a, b), (c, d) in zip(sides, padding)]
    return sides[0], sides[1]


_caches: weakref.WeakKeyDictionary[Network, dict[int, dict[Any, Any]]]
_caches = weakref.WeakKeyDictionary()


def layer_cache(net: Network, index: int) -> dict[Any, Any]:
    """Where back ends keep packed weights of a layer for as long as the network lives.

    Index -1 is for what is of the whole network.
    """
    found = _caches.get(net)  # which takes a third of the time of `setdefault`
    if found is None:
        found = _caches.setdefault(net, {})
    return found.setdefault(index, {})


def shape_cache(net: Network, shape: tuple[int, ...]) -> dict[Any, Any]:
    """Where to keep what depends on a network and on the shape of its input, but on no values.

    It is kept for a few shapes: the clips of a collection have the same one. Nothing in it may
    refer to a trace.
    """
    kept: dict[tuple[int, ...], dict[Any, Any]] = cached(layer_cache(net, -1), "by shape", dict)
    found = kept.get(shape)
    if found is None:
        if len(kept) >= _MOST_SHAPES:
            kept.clear()  # who still uses one of them holds it
        found = kept.setdefault(shape, {})
    return found
