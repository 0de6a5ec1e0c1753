"""Which neighbouring layers run as one going forward.

A convolution takes the batch norms, the ReLU and the max pool that follow it along (`Block`).
`fastdeconv.deconvnet.route` says the same of the way back.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from ..kernels.lanes import cached
from ..network import layers as nn
from ..network.network import Network

__all__ = ["Block", "forward_plan", "is_affine", "layer_cache", "rectifies"]


def is_affine(layer: nn.Layer) -> bool:
    """Whether a layer is a scale and a shift for each channel."""
    return isinstance(layer, nn.Scaling) and layer.axis == "C"


def rectifies(layer: nn.Layer) -> bool:
    """Whether the rules treat a layer as a ReLU."""
    return isinstance(layer, nn.Elementwise) and layer.row.rectifies(**layer.parameters)


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


_caches: weakref.WeakKeyDictionary[Network, dict[int, dict[Any, Any]]]
_caches = weakref.WeakKeyDictionary()


def layer_cache(net: Network, index: int) -> dict[Any, Any]:
    """Where back ends keep packed weights of a layer for as long as the network lives.

    Index -1 is for what is of the whole network.
    """
    return _caches.setdefault(net, {}).setdefault(index, {})
