"""Prepare the nodes of an ONNX file: split fused ones, and sort all by their dependencies."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

from ...errors import ArchiveError, shown
from .subgraphs import copied, taken_by

__all__ = ["said", "sort", "take_apart"]


def take_apart(onnx: Any, model: Any) -> None:
    """Split the fused convolutions of ONNX Runtime into the operators they were made of."""
    nodes = []
    for node in model.graph.node:
        if node.domain == "ai.onnx":
            node.domain = ""
        if (node.domain, node.op_type) == ("com.microsoft", "FusedConv"):
            nodes += _unfused(onnx, node)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _unfused(onnx: Any, node: Any) -> list[Any]:
    """A convolution, the sum with the fourth input if there is one, and the activation."""
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    kind = values.pop("activation", b"").decode("utf-8", "replace")
    numbers = values.pop("activation_params", [])
    keys = {"LeakyRelu": ["alpha"], "HardSigmoid": ["alpha", "beta"], "Relu": [], "Tanh": [],
            "Sigmoid": [], "Clip": ["min", "max"]}
    if kind not in keys or len(numbers) != len(keys[kind]):
        raise ArchiveError(
            f"node {shown(node.name)} (FusedConv): found the activation {shown(kind)} with "
            f"{shown(list(numbers))}, wanted one of {', '.join(keys)}"
        )
    out, name = node.output[0], node.name
    parts = [onnx.helper.make_node("Conv", list(node.input[:3]), [f"{out}#conv"], name)]
    parts[0].attribute.extend(
        a for a in node.attribute if a.name not in ("activation", "activation_params")
    )
    last = f"{out}#conv"
    if len(node.input) > 3 and node.input[3]:
        parts.append(
            onnx.helper.make_node("Add", [last, node.input[3]], [f"{out}#sum"], f"{name}_sum")
        )
        last = f"{out}#sum"
    own = f"{name}_{kind.lower()}" if name else ""
    if kind == "Clip":
        for key, number in zip(keys[kind], numbers):
            tensor = onnx.numpy_helper.from_array(np.float32(number).reshape(()))
            constant = onnx.helper.make_node("Constant", [], [f"{out}#{key}"], value=tensor)
            parts.append(constant)
        inputs = [last, f"{out}#min", f"{out}#max"]
        return [*parts, onnx.helper.make_node("Clip", inputs, [out], own)]
    given = dict(zip(keys[kind], numbers))
    return [*parts, onnx.helper.make_node(kind, [last], [out], own, **given)]


def sort(graph: Any) -> None:
    """Sort nodes so that each comes after those that compute its inputs.

    Raises
    ------
    ArchiveError
        If a value is computed twice or not at all, or nodes form a cycle.
    """
    known = {""} | {value.name for value in [*graph.input, *graph.initializer]}
    known.update(value.values.name for value in graph.sparse_initializer)
    made: dict[str, int] = {}
    for place, node in enumerate(graph.node):
        for name in node.output:
            if name and (name in made or name in known):
                raise ArchiveError(
                    f"{said(node)}: its output {shown(name)} exists already, wanted a new name"
                )
            made[name] = place
    waiting: list[int] = []
    users: dict[int, list[int]] = {}
    for place, node in enumerate(graph.node):
        before = set()
        for name in taken_by(node):
            if name in made and name:
                before.add(made[name])
            elif name not in known:
                raise ArchiveError(f"{said(node)}: no node computes its input {shown(name)}")
        waiting.append(len(before))
        for k in before:
            users.setdefault(k, []).append(place)
    ready = [place for place, count in enumerate(waiting) if not count]
    order = []
    heapq.heapify(ready)
    while ready:
        place = heapq.heappop(ready)
        order.append(graph.node[place])
        for user in users.get(place, ()):
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, user)
    if len(order) < len(graph.node):
        stuck = next(graph.node[i] for i, count in enumerate(waiting) if count)
        raise ArchiveError(f"{said(stuck)}: its input depends on its own output (a cycle)")
    for value in graph.output:
        if value.name not in made and value.name not in known:
            raise ArchiveError(f"no node computes the output {shown(value.name)}")
    order = [copied(node) for node in order]
    del graph.node[:]
    graph.node.extend(order)


def said(node: Any) -> str:
    """The name of a node in messages."""
    return f"node {shown(node.name or node.output[0] if node.output else '')} ({node.op_type})"
