"""Rewriting: what exporters take apart is put together again.

A rule is a function of a graph and a node. It looks at the node and at what it takes and, if
it knows the pattern, changes the node in place into one that computes the same from values
further down; what lies between is dropped where nothing else uses it. A rule therefore never
has to ask who else uses a value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from ..graph import MALFORMED, Graph, Node
from .activations import as_activation
from .constants import as_linear, as_scale_shift, joined_scale_shifts, without_expand
from .normalisations import absorbed_scale, as_group_norm, as_layer_norm
from .padding import pad_into_window
from .pooling import as_adaptive_pool

__all__ = ["rewrite"]

Rule = Callable[[Graph, Node], bool]

# Activations and normalisations hold additions and products of constants, which the second
# round would take away from them.
_ROUNDS: tuple[tuple[Rule, ...], ...] = (
    (as_adaptive_pool, without_expand, as_activation, as_layer_norm, as_group_norm, absorbed_scale,
     as_linear),
    (as_scale_shift, joined_scale_shifts, pad_into_window),
)


def rewrite(graph: Graph) -> None:
    """Apply every rule wherever it fits."""
    for rules in _ROUNDS:
        for node in graph.nodes:
            for rule in rules:
                # A node that is not what its operator says is for `building` to refuse.
                with contextlib.suppress(*MALFORMED):
                    rule(graph, node)
    graph.drop_dead()
