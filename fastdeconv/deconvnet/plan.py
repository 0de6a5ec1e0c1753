"""Which neighbouring layers run as one.

Forward, a convolution takes the batch norms, the ReLU and the max pool that follow
it along (`Block`). Back, what lies between two convolutions becomes a `Segment`:
a few operations on whole lane tensors, and the switches and gates that decide which
values exist at all. Values of overlapping windows are added before the pool's own way
down goes on; what follows then applies to sums.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from ..kernels.lanes import cached
from ..network import layers as nn
from ..network.network import Network

__all__ = [
    "Abilities", "Block", "Order", "Segment", "forward_plan", "is_affine", "layer_cache",
    "rectifies", "segment_below",
]


def is_affine(layer: nn.Layer) -> bool:
    """Whether a layer is a scale and a shift for each channel."""
    return isinstance(layer, nn.Scaling) and layer.axis == "C"


class Block(NamedTuple):
    """Layers first..last that run together; the others are the indices of its parts."""

    first: int
    last: int
    affine1: int | None = None
    relu: int | None = None
    affine2: int | None = None
    pool: int | None = None

    @property
    def end(self) -> int:
        """The last layer that changes anything; only dropout follows it."""
        parts = (self.first, self.affine1, self.relu, self.affine2, self.pool)
        return max(i for i in parts if i is not None)

    def cut(self, index: int) -> Block:
        """The part of the block up to layer `index`."""
        keep = {
            key: i if i is not None and i <= index else None
            for key, i in self._asdict().items()
            if key not in ("first", "last")
        }
        return Block(self.first, min(self.last, index), **keep)


def forward_plan(net: Network) -> list[Block]:
    """The network as blocks; a layer that fuses with nothing is a block of its own."""
    blocks: list[Block] = cached(layer_cache(net, -1), "forward plan", lambda: _plan(net))
    return blocks


def _plan(net: Network) -> list[Block]:
    blocks, at = [], 0
    while at < len(net.layers):
        block = _fuse(net, at) if isinstance(net.layers[at], nn.Conv2d) else Block(at, at)
        blocks.append(block)
        at = block.last + 1
    return blocks


def _fuse(net: Network, conv: int) -> Block:
    """Convolution, then [scale][ReLU][scale][max pool], each where it comes next."""
    def is_relu(layer: nn.Layer) -> bool:
        return isinstance(layer, nn.ReLU)

    def is_pool(layer: nn.Layer) -> bool:
        return isinstance(layer, nn.MaxPool2d)

    slots: list[tuple[str, Callable[[nn.Layer], bool]]] = [
        ("affine1", is_affine), ("relu", is_relu), ("affine2", is_affine), ("pool", is_pool),
    ]
    parts: dict[str, Any] = {}
    last = conv
    for index in range(conv + 1, len(net.layers)):
        layer = net.layers[index]
        if isinstance(layer, nn.Dropout):
            last = index
            continue
        while slots and not slots[0][1](layer):
            slots.pop(0)
        if not slots:
            break
        parts[slots.pop(0)[0]] = last = index
    return Block(conv, last, **parts)


class Order(NamedTuple):
    """Layers whose scale multiplies, and where the rectifier comes."""

    scales: tuple[int, ...]
    relu_before: bool
    relu_after: bool


class Segment(NamedTuple):
    """The way down from one convolution's input to the next one's output, as one step.

    `gates` are rectifiers that let a value through only where their activation was positive.
    """

    conv: int
    """The next convolution."""
    order: Order
    gates: tuple[int, ...]
    pool: int | None
    below: Order | None
    """What follows a pool whose windows overlap: it applies to their sums."""
    slopes: tuple[int, ...] = ()
    """Activations that multiply by their derivative, of one value at a place and channel."""


class Abilities(NamedTuple):
    """What only some lane kernels can do."""

    adds: bool
    """Sum what overlapping windows of a pool send to the same place."""
    multiplies: bool
    """Multiply every value by a factor of its place and channel."""


def rectifies(layer: nn.Layer) -> bool:
    """Whether the rules treat a layer as a ReLU."""
    return isinstance(layer, nn.Elementwise) and layer.row.rectifies(**layer.parameters)


def segment_below(
    net: Network, conv: int, rule: str, overlapping: set[int], abilities: Abilities
) -> Segment | None:
    """What lies between convolution `conv` and the one below it, if lane kernels can do it.

    None when there is no convolution below or something else is in between, which then
    has to be done layer by layer. `overlapping` are the pools whose windows overlap.
    """
    steps: list[int] = []
    slopes: list[int] = []
    above: list[int] | None = None
    gates: list[int] = []
    pool = None
    for index in range(conv - 1, -1, -1):
        layer = net.layers[index]
        if isinstance(layer, nn.Conv2d):
            if above is None:
                order, below = _order(net, steps), None
            else:
                order, below = _order(net, above), _order(net, steps)
                if below is None:
                    return None
            if slopes and rule != "gradient" and any(rectifies(net.layers[i]) for i in
                                                     (*steps, *(above or ()))):
                return None  # a slope may be negative, so it makes a difference which is first
            return order and Segment(index, order, tuple(gates), pool, below, tuple(slopes))
        if rectifies(layer):
            if rule != "gradient":
                steps.append(index)
            if rule != "deconvnet":
                gates.append(index)
        elif is_affine(layer):
            steps.append(index)
        elif isinstance(layer, nn.Elementwise):
            # Times an infinite slope, what is zero would not stay so.
            if not abilities.multiplies or layer.steepest(net.arrays) == math.inf:
                return None
            slopes.append(index)
        elif isinstance(layer, nn.MaxPool2d):
            if pool is not None or (index in overlapping and (slopes or not abilities.adds)):
                return None
            if index in overlapping:
                above, steps = steps, []
            # Else every value goes to one place, so what follows a pool may precede it.
            pool = index
        elif not (
            isinstance(layer, nn.Dropout)
            or (isinstance(layer, nn.LocalResponseNorm) and rule != "gradient")
        ):
            return None
    return None


def _order(net: Network, steps: list[int]) -> Order | None:
    """ReLUs and scales as an `Order`; None when there are more turns than it has."""
    kinds = ["relu" if rectifies(net.layers[i]) else "scale" for i in steps]
    turns = [s for i, s in enumerate(kinds) if i == 0 or kinds[i - 1] != s]
    orders = {
        (): (False, False),
        ("relu",): (False, True),
        ("scale",): (False, False),
        ("relu", "scale"): (True, False),
        ("scale", "relu"): (False, True),
        ("relu", "scale", "relu"): (True, True),
    }
    relus = orders.get(tuple(turns))
    scales = tuple(i for i, kind in zip(steps, kinds) if kind == "scale")
    return relus and Order(scales, *relus)


_caches: weakref.WeakKeyDictionary[Network, dict[int, dict[Any, Any]]]
_caches = weakref.WeakKeyDictionary()


def layer_cache(net: Network, index: int) -> dict[Any, Any]:
    """Where back ends keep packed weights of a layer for as long as the network lives.

    Index -1 is for what is of the whole network.
    """
    return _caches.setdefault(net, {}).setdefault(index, {})
