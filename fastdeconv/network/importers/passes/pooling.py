"""Recognise adaptive pools as `torch_pools` writes them."""

from __future__ import annotations

import numpy as np

from ... import layers as nn
from ..graph import Graph, Node
from ..torch_pools import mean_matrix

__all__ = ["as_adaptive_pool"]


def as_adaptive_pool(graph: Graph, node: Node) -> bool:
    """A pool over evenly spread windows becomes AdaptivePool.

    AdaptivePool is an operator of `passes` with the attributes `kind`, "avg" or "max", and
    `sizes`, which maps axes to their sizes in the output. It is recognised from

    1. a MatMul with the matrix of `mean_matrix`, on either side;
    2. a Concat of the maxima over such slices;
    3. two of these along two axes. Maxima must be taken along the last axis first, so that of
       equal ones the first in row-major order wins.
    """
    found = _mean(graph, node) or _maximum(graph, node)
    if found is None:
        return False
    x, kind, axis, count = found
    before = graph.made_by(x, "AdaptivePool")
    sizes = {axis: count}
    if before is not None and before.attributes["kind"] == kind:
        earlier = before.attributes["sizes"]
        if axis not in earlier and len(earlier) == 1 and (kind == "avg" or axis < min(earlier)):
            x, sizes = before.inputs[0], {**earlier, **sizes}
    node.op, node.domain, node.inputs = "AdaptivePool", "", [x]
    node.attributes = {"kind": kind, "sizes": sizes}
    return True


_Found = tuple[str, str, int, int]


def _mean(graph: Graph, node: Node) -> _Found | None:
    if node.op != "MatMul":
        return None
    for place, axis in ((1, -1), (0, -2)):
        matrix, x = graph.constants.get(node.inputs[place]), node.inputs[1 - place]
        shape = graph.shapes.get(x, ())
        if matrix is None or matrix.ndim != 2 or len(shape) < 2 or x in graph.constants:
            continue
        matrix = matrix if place else matrix.T
        size, count = matrix.shape
        if size != count and np.array_equal(matrix, mean_matrix(size, count)):
            return x, "avg", len(shape) + axis, count
    return None


def _maximum(graph: Graph, node: Node) -> _Found | None:
    if node.op != "Concat" or len(node.inputs) < 2:
        return None
    count, origins, windows = len(node.inputs), set[str](), list[tuple[int, int]]()
    rank = len(graph.shapes.get(node.outputs[0], ()))
    axis = int(node.attributes["axis"]) % rank
    for value in node.inputs:
        maximum = graph.made_by(value, "ReduceMax")
        part = None if maximum is None else graph.made_by(maximum.inputs[0], "Slice")
        if maximum is None or part is None or not maximum.attributes.get("keepdims", 1):
            return None
        axes = maximum.attributes.get("axes", graph.constants.get(maximum.input(1)))
        if axes is None or [int(n) % rank for n in np.reshape(axes, -1)] != [axis]:
            return None
        begin, end, along = (graph.scalar(part.input(place)) for place in (1, 2, 3))
        step = graph.scalar(part.input(4)) if part.input(4) else 1
        if begin is None or end is None or along not in (axis, axis - rank) or step != 1:
            return None
        origins.add(part.inputs[0])
        windows.append((int(begin), int(end)))
    if len(origins) != 1:
        return None
    (x,) = origins
    size = graph.shapes[x][axis]
    windows = [(begin, min(end, size)) for begin, end in windows]
    return (x, "max", axis, count) if windows == nn.adaptive_windows(size, count) else None
