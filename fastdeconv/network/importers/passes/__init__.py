"""Rewriting rules: join the operators that exporters split.

A rule is a function of a graph and a node. It looks at the node and at the nodes before it. If it
recognises a pattern, it changes the node in place into one that computes the same directly from
earlier values. Nodes between that are not used any more are dropped at the end, so a rule never
has to check who else uses a value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from ..graph import MALFORMED, Graph, Node
from .activations import as_activation, as_itself
from .constants import as_linear, as_scale_shift, joined_scale_shifts, without_expand
from .normalisations import absorbed_scale, as_group_norm, as_instance_norm, as_layer_norm
from .padding import pad_into_window
from .pooling import as_adaptive_pool

__all__ = ["rewrite"]

Rule = Callable[[Graph, Node], bool]

# Activations and normalisations contain sums and products with constants. They are recognised in
# the first round, because the second round rewrites these sums and products.
_ROUNDS: tuple[tuple[Rule, ...], ...] = (
    (as_adaptive_pool, without_expand, as_itself, as_activation, as_instance_norm, as_layer_norm,
     as_group_norm, absorbed_scale, as_linear),
    (as_scale_shift, joined_scale_shifts, pad_into_window),
)


def rewrite(graph: Graph) -> None:
    """Apply every rule to every node, and drop the nodes that are not used any more."""
    for rules in _ROUNDS:
        for node in graph.nodes:
            for rule in rules:
                # A node that does not fit its operator is left for `building` to refuse.
                with contextlib.suppress(*MALFORMED):
                    rule(graph, node)
    graph.drop_dead()
