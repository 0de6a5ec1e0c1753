"""A network cut into chains, so that the fast paths of chains serve every graph.

A chain is a row of layers each of which takes the one before it alone, and nobody else takes
that. It is a `Network` of its own, which shares the arrays. What lies between chains are
joins: layers of several inputs. A network without branches is one chain, itself.
"""

from __future__ import annotations

from typing import NamedTuple

from ..kernels.lanes import cached
from ..network.network import Network
from .plan import layer_cache

__all__ = ["GraphPart", "parts_of"]


class GraphPart(NamedTuple):
    """A chain or a join."""

    places: tuple[int, ...]
    """Of its layers in the network, in order."""
    sources: tuple[int, ...]
    """Of the layers whose outputs it takes; -1 is the network's input."""
    chain: Network | None
    """None for a join."""


def parts_of(net: Network) -> list[GraphPart]:
    """The parts of a network, in an order in which they can be computed.

    The output that a part takes is always that of the last layer of another part.
    """
    parts: list[GraphPart] = cached(layer_cache(net, -1), "parts", lambda: _cut(net))
    return parts


def _cut(net: Network) -> list[GraphPart]:
    takers = [0] * len(net.layers)
    for sources in net.sources:
        for source in sources:
            if source >= 0:
                takers[source] += 1
    rows: list[list[int]] = []
    row_of: dict[int, list[int]] = {}
    for place, sources in enumerate(net.sources):
        before = sources[0]
        if len(sources) == 1 and before in row_of and takers[before] == 1:
            row = row_of[before]
            row.append(place)
        else:
            row = [place]
            rows.append(row)
        # A chain does not go on behind a join: that is a part of its own.
        if len(sources) == 1:
            row_of[place] = row
    return [
        GraphPart(
            tuple(row),
            net.sources[row[0]],
            net.chain(row) if len(net.sources[row[0]]) == 1 else None,
        )
        for row in rows
    ]
