"""Graphs inside nodes of an ONNX file: branches of If, bodies of Loop and Scan.

Often only sizes decide which branch runs. They are fixed here, so the branch can replace its
node. Loops, and branches that depend on computed values, stay; such nodes cannot become layers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ...errors import ArchiveError, shown

__all__ = ["all_graphs", "branch_nodes", "copied", "inner_graphs", "taken_by"]


_DEEPEST = 20


def inner_graphs(node: Any) -> Iterator[Any]:
    """The graphs that a node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_graphs(graph: Any) -> Iterator[Any]:
    """A graph, and all graphs inside its nodes, at any depth."""
    waiting = [(graph, 0)]
    while waiting:
        one, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ArchiveError(f"graphs are nested more than {_DEEPEST} deep")
        yield one
        for node in one.node:
            waiting.extend((inner, depth + 1) for inner in inner_graphs(node))


def taken_by(node: Any) -> list[str]:
    """The values that a node and the graphs in it take; "" for an input that is left out."""
    found: dict[str, None] = {}
    for graph in inner_graphs(node):
        own = {value.name for value in [*graph.input, *graph.initializer]}
        used = [name for inner in graph.node for name in taken_by(inner) if name]
        used += [value.name for value in graph.output]
        own.update(name for inner in graph.node for name in inner.output)
        found.update(dict.fromkeys(name for name in used if name not in own))
    return [*node.input, *(name for name in found if name not in node.input)]


def branch_nodes(
    onnx: Any, node: Any, condition: bool, known: Collection[str]
) -> tuple[list[Any], list[Any]]:
    """The nodes and initializers of the branch of an If that runs.

    Values of the branch whose names are in `known` get new names, because other branches may use
    the same names.
    """
    key = "then_branch" if condition else "else_branch"
    graph = next((a.g for a in node.attribute if a.name == key and a.HasField("g")), None)
    if graph is None or len(graph.output) != len(node.output):
        raise ArchiveError(f"node {shown(node.name)} (If): found no {key} that fits its outputs")
    made = [tensor.name for tensor in graph.initializer]
    made += [name for inner in graph.node for name in inner.output if name]
    if len(set(made)) < len(made):
        raise ArchiveError(f"node {shown(node.name)} (If): a value of its {key} is computed twice")
    names: dict[str, str] = {}
    used: set[str] = set()
    for name in made:
        new, number = name, 0
        while new in known or new in used:
            number += 1
            new = f"{name}#{number}"
        names[name] = new
        used.add(new)
    tensors = []
    for tensor in graph.initializer:
        tensors.append(copied(tensor))
        tensors[-1].name = names[tensor.name]
    nodes = [copied(inner) for inner in graph.node]
    for inner in nodes:
        _rename(inner, names)
    for value, out in zip(graph.output, node.output):
        if out:
            copy = onnx.helper.make_node("Identity", [names.get(value.name, value.name)], [out])
            nodes.append(copy)
    return nodes, tensors


def _rename(node: Any, names: Mapping[str, str]) -> None:
    for values in (node.input, node.output):
        new = [names.get(name, name) for name in values]
        del values[:]
        values.extend(new)
    for graph in inner_graphs(node):
        own = {value.name for value in [*graph.input, *graph.initializer]}
        own.update(name for inner in graph.node for name in inner.output)
        outer = {name: new for name, new in names.items() if name not in own}
        for inner in graph.node:
            _rename(inner, outer)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)


def copied(proto: Any) -> Any:
    """A copy of a part of a model."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    return copy
