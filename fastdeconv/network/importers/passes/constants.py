"""Sums and products with constants: linear layers, and scales and shifts."""

from __future__ import annotations

import numpy as np

from ..graph import Graph, Node, as_floats

__all__ = ["as_linear", "as_scale_shift", "joined_scale_shifts", "without_expand"]


def as_linear(graph: Graph, node: Node) -> bool:
    """MatMul by a constant matrix, then Add of one number for each output, become Linear.

    Linear is an operator of `passes` with the inputs value, matrix (in, out) and bias.
    """
    if node.op != "Add":
        return False
    for value, added in (node.inputs, node.inputs[::-1]):
        product, array = graph.made_by(value, "MatMul"), graph.constants.get(added)
        if product is not None and array is not None:
            break
    else:
        return False
    matrix = graph.constants.get(product.inputs[1])
    if matrix is None or matrix.ndim != 2 or array.size != matrix.shape[1]:
        return False
    if array.shape[-1:] != matrix.shape[1:] or array.ndim > len(graph.shapes[value]):
        return False
    node.op, node.attributes = "Linear", {}
    node.inputs = [product.inputs[0], product.inputs[1],
                   graph.add_constant(node.outputs[0], array.reshape(-1))]
    graph.origins[node.inputs[2]] = added
    return True


def as_scale_shift(graph: Graph, node: Node) -> bool:
    """Add, Sub, Mul, Div and Neg with one constant, and Where with two, become ScaleShift.

    ScaleShift is an operator of `passes` with the inputs value, scale and shift; scale and shift
    are constants that broadcast to the value's shape.
    """
    if node.op == "Neg":
        _scale_shift(graph, node, node.inputs[0], np.float32(-1), np.float32(0))
        return True
    if node.op == "Where":
        return _as_mask(graph, node)
    if node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return False
    left, right = node.inputs
    first = left in graph.constants
    array = graph.constants.get(left if first else right)
    x = right if first else left
    shape = graph.shapes.get(node.outputs[0])
    if array is None or x in graph.constants or shape is None or array.dtype.kind not in "fiu":
        return False
    if graph.shapes.get(x) != shape or (node.op == "Div" and (first or (array == 0).any())):
        return False
    number = as_floats(array)
    one, zero = np.ones((), np.float32), np.zeros((), np.float32)
    if node.op == "Mul":
        scale, shift = number, zero
    elif node.op == "Div":
        scale, shift = as_floats(1 / number.astype(np.float64)), zero
    elif node.op == "Add":
        scale, shift = one, number
    else:
        scale, shift = (-one, number) if first else (one, -number)
    _scale_shift(graph, node, x, scale, shift)
    return True


def _as_mask(graph: Graph, node: Node) -> bool:
    """A Where with a constant condition: the value times 1 or 0, plus 0 or the constant."""
    condition = graph.constants.get(node.inputs[0])
    for x, other, keeps in (node.inputs[1], node.inputs[2], True), (
        node.inputs[2], node.inputs[1], False
    ):
        array = graph.constants.get(other)
        if condition is None or array is None or x in graph.constants:
            continue
        if graph.shapes.get(x) != graph.shapes.get(node.outputs[0]) or array.dtype.kind != "f":
            return False
        kept = condition.astype(bool) == keeps
        shift = np.where(kept, 0, array)
        if not np.isfinite(shift).all():
            return False
        _scale_shift(graph, node, x, kept.astype(np.float32), as_floats(shift))
        return True
    return False


def joined_scale_shifts(graph: Graph, node: Node) -> bool:
    """Two ScaleShifts in a row become one.

    Only if all their arrays vary along the same axis, or along none: otherwise the result might
    need more axes than a layer can have.
    """
    if node.op != "ScaleShift":
        return False
    before = graph.made_by(node.inputs[0], "ScaleShift")
    if before is None or _module(before) != _module(node):
        return False
    rank = len(graph.shapes[node.outputs[0]])
    arrays = [graph.constants[name] for name in (*before.inputs[1:], *node.inputs[1:])]
    full = [array.reshape((1,) * (rank - array.ndim) + array.shape) for array in arrays]
    varying = {axis for array in full for axis, n in enumerate(array.shape) if n > 1}
    if len(varying) > 1:
        return False
    a, b, c, d = (array.astype(np.float64) for array in full)
    _scale_shift(graph, node, before.inputs[0], as_floats(a * c), as_floats(b * c + d))
    return True


def without_expand(graph: Graph, node: Node) -> bool:
    """A sum or product with an expanded value takes the value before its Expand.

    Only if the other input already has the shape of the output, so that broadcasting does the
    same.
    """
    if node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return False
    shape = graph.shapes.get(node.outputs[0])
    for place, other in ((0, 1), (1, 0)):
        expand = graph.made_by(node.inputs[place], "Expand")
        if expand is not None and shape is not None and (
            graph.shapes.get(node.inputs[other]) == shape
        ):
            node.inputs = list(node.inputs)
            node.inputs[place] = expand.inputs[0]
            return True
    return False


def _module(node: Node) -> tuple[str, ...]:
    return node.scopes[:-1] if node.scopes else tuple(node.name.split("/")[:-1])


def _scale_shift(graph: Graph, node: Node, x: str, scale: object, shift: object) -> None:
    out = node.outputs[0]
    names = [name for name in node.inputs if name in graph.constants]
    node.op, node.attributes, node.domain = "ScaleShift", {}, ""
    node.inputs = [x, graph.add_constant(out, np.asarray(scale)),
                   graph.add_constant(out, np.asarray(shift))]
    for name in names:
        graph.origins[node.inputs[1]] = graph.origins.get(name, name)
