"""Which layers are gone back through in SIMD lanes, and which layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..kernels.dispatch import get_backend
from ..network import layers as nn
from ..network.network import Network
from .folding import pool_above
from .layerwise import RULES
from .route import abilities_of, route_of, segment_from, takers_of

__all__ = ["speeds"]


def speeds(net: Network) -> list[str]:
    """For each layer, how the current back end goes back through it; from the last layer down.

    Returns
    -------
    list of str
        ``"lanes"``, ``"layer by layer"``, or the rules under which it goes in lanes:
        ``"lanes: deconvnet"``.
    """
    backend: Any = get_backend()
    if not hasattr(backend, "project_last"):
        return ["layer by layer"] * len(net.layers)
    found = {rule: _in_lanes(net, rule, backend) for rule in RULES}

    def text(index: int) -> str:
        rules = [rule for rule in RULES if index in found[rule]]
        if len(rules) == len(RULES):
            return "lanes"
        return f"lanes: {', '.join(rules)}" if rules else "layer by layer"

    return [text(index) for index in range(len(net.layers))]


@dataclass
class _Folded:
    """A network as routes see it, where folded pools do nothing."""

    layers: list[nn.Layer]
    sources: Sequence[tuple[int, ...]]
    arrays: nn.Arrays


def _in_lanes(net: Network, rule: str, backend: Any) -> set[int]:
    last = len(net.layers) - 1
    layers = list(net.layers)
    for conv in range(len(layers)):
        pool = pool_above(net, conv, last, rule == "deconvnet")
        if pool is not None:
            layers[pool] = nn.Dropout(layers[pool].name)
    seen: Any = _Folded(layers, net.sources, net.arrays)
    overlapping = {
        i
        for i, layer in enumerate(layers)
        if isinstance(layer, nn.MaxPool2d) and layer.window((1, 1), net.arrays).overlapping
    }

    abilities, shapes, takers = abilities_of(backend), net.known_shapes, takers_of(net)
    # What is above the first segment is a head, whose features are single maps at its foot.
    start = last
    while start > 0 and segment_from(
        seen, start, rule, overlapping, abilities, shapes, takers
    ) is None:
        start -= 1
    taken: set[int] = set()
    route = route_of(seen, {start: True}, rule, overlapping, abilities, shapes)
    for top, segment in route.items():
        index = top
        while segment is not None and index != segment.end:
            taken.add(index)
            (index,) = net.sources[index]
        if segment is not None:
            taken.add(index)
    return taken
