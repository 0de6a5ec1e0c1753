"""Recognise layer and group normalisation that exporters split."""

from __future__ import annotations

import numpy as np

from ..graph import Graph, Node

__all__ = ["absorbed_scale", "as_group_norm", "as_instance_norm", "as_layer_norm"]


def as_layer_norm(graph: Graph, node: Node) -> bool:
    """``(x - mean) / sqrt(mean((x - mean) ** 2) + eps)`` becomes Standardise.

    Standardise is an operator of `passes` with the attributes `axes` (from 0) and `eps`.
    """
    if node.op not in ("Div", "Mul"):
        return False
    for centred, other in (node.inputs, node.inputs[::-1]):
        sub = graph.made_by(centred, "Sub")
        root = _root(graph, other, inverse=node.op == "Mul")
        if sub is not None and root is not None:
            break
        if node.op == "Div":
            return False
    else:
        return False
    mean = graph.made_by(sub.inputs[1], "ReduceMean")
    plus = graph.made_by(root, "Add")
    if mean is None or plus is None or mean.inputs[0] != sub.inputs[0]:
        return False
    for variance, added in (plus.inputs, plus.inputs[::-1]):
        eps = graph.scalar(added)
        outer = graph.made_by(variance, "ReduceMean")
        if eps is not None and outer is not None:
            break
    else:
        return False
    axes, rank = _axes(graph, mean), len(graph.shapes.get(sub.inputs[0], ()))
    if axes is None or _axes(graph, outer) != axes or not _is_square(graph, outer.inputs[0], sub):
        return False
    node.op, node.inputs = "Standardise", [sub.inputs[0]]
    node.attributes = {"axes": sorted(axis % rank for axis in axes), "eps": eps}
    return True


def _root(graph: Graph, value: str, inverse: bool) -> str | None:
    """x if the value is ``sqrt(x)`` or, with `inverse`, ``1 / sqrt(x)``; else None."""
    if inverse:
        node = graph.made_by(value, "Reciprocal", "Div", "Pow")
        if node is None:
            return None
        if node.op == "Pow":
            return node.inputs[0] if graph.scalar(node.inputs[1]) == -0.5 else None
        if node.op == "Div" and graph.scalar(node.inputs[0]) != 1.0:
            return None
        value = node.inputs[-1]
    node = graph.made_by(value, "Sqrt", "Pow")
    if node is None or (node.op == "Pow" and graph.scalar(node.inputs[1]) != 0.5):
        return None
    return node.inputs[0]


def _is_square(graph: Graph, value: str, centred: Node) -> bool:
    node = graph.made_by(value, "Pow", "Mul")
    if node is None or (node.op == "Pow" and graph.scalar(node.inputs[1]) != 2.0):
        return False
    both = node.inputs if node.op == "Mul" else node.inputs[:1] * 2
    makers = [graph.made_by(name, "Sub") for name in both]
    return both[0] == both[1] and makers[0] is not None and makers[0].inputs == centred.inputs


def _axes(graph: Graph, node: Node) -> list[int] | None:
    if "axes" in node.attributes:
        return [int(n) for n in node.attributes["axes"]]
    array = graph.constants.get(node.input(1))
    return None if array is None else [int(n) for n in array.reshape(-1)]


def as_instance_norm(graph: Graph, node: Node) -> bool:
    """A batch norm by the means and variances of its own input becomes InstanceNormalization.

    This is what PyTorch's batch norm does with ``track_running_stats=False``.
    """
    if node.op != "BatchNormalization":
        return False
    mean, variance = (graph.made_by(name, "ReduceMean") for name in node.inputs[3:5])
    if mean is None or variance is None:
        return False
    node.op, node.inputs, node.outputs = "InstanceNormalization", node.inputs[:3], node.outputs[:1]
    node.attributes = {"epsilon": node.attributes.get("epsilon", 1e-5)}
    return True


def as_group_norm(graph: Graph, node: Node) -> bool:
    """Reshape to groups, InstanceNormalization and Reshape back become GroupNorm.

    GroupNorm is an operator of `passes` with the attributes `groups` and `eps`, and optional
    inputs for a scale and a shift of each channel.
    """
    if node.op != "Reshape":
        return False
    inner = graph.made_by(node.inputs[0], "InstanceNormalization")
    outer = None if inner is None else graph.made_by(inner.inputs[0], "Reshape")
    if inner is None or outer is None:
        return False
    x = outer.inputs[0]
    shape, grouped = graph.shapes.get(x), graph.shapes.get(outer.outputs[0])
    if shape is None or grouped is None or shape != graph.shapes.get(node.outputs[0]):
        return False
    if len(shape) < 3 or len(grouped) < 3 or shape[:1] != grouped[:1] or shape[1] % grouped[1]:
        return False
    scale, shift = (graph.constants.get(inner.input(place)) for place in (1, 2))
    if scale is None or shift is None or not (scale == 1).all() or not (shift == 0).all():
        return False
    eps = inner.attributes.get("epsilon", 1e-5)
    node.op, node.inputs = "GroupNorm", [x]
    node.attributes = {"groups": int(grouped[1]), "eps": eps}
    return True


def absorbed_scale(graph: Graph, node: Node) -> bool:
    """A scale and a shift after Standardise or GroupNorm become inputs of the normalisation.

    Only if the constant has one number for each normalised place, or for each channel.
    """
    if node.op not in ("Mul", "Add") or len(node.inputs) != 2:
        return False
    for x, other in (node.inputs, node.inputs[::-1]):
        norm, array = graph.made_by(x, "Standardise", "GroupNorm"), graph.constants.get(other)
        if norm is not None and array is not None:
            break
    else:
        return False
    given = len(norm.inputs) - 1
    if given != (0 if node.op == "Mul" else 1) or array.dtype.kind != "f":
        return False
    shape = graph.shapes[x]
    axes = norm.attributes["axes"] if norm.op == "Standardise" else [1]
    if array.ndim > len(shape) or graph.shapes.get(node.outputs[0]) != shape:
        return False
    spread = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    if any(n not in ((1, shape[i]) if i in axes else (1,)) for i, n in enumerate(spread.shape)):
        return False
    wanted = tuple(shape[axis] for axis in axes)
    values = np.broadcast_to(
        spread, [shape[i] if i in axes else 1 for i in range(len(shape))]
    ).reshape(wanted)
    node.op, node.attributes = norm.op, dict(norm.attributes)
    node.inputs = [*norm.inputs, graph.add_constant(node.outputs[0], values)]
    return True
