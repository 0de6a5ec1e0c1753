"""Recognise activations that are written as products, sums and bounds."""

from __future__ import annotations

import math

import numpy as np

from ..graph import Graph, Node

__all__ = ["as_activation", "as_itself", "product"]

_DEEPEST = 12
_TINY = 1e-37
"""The slope of its root, and this times a map, are far from overflowing float32."""


def product(graph: Graph, value: str) -> tuple[float, list[str]]:
    """Write a value as a number times other values: the factors of Mul, Div, Pow and Neg.

    Products with constant arrays are single factors.
    """
    return _product(graph, value, 0, {})


_Known = dict[tuple[str, int], tuple[float, list[str]]]


def _product(graph: Graph, value: str, depth: int, known: _Known) -> tuple[float, list[str]]:
    # Results are kept, because a value that is squared again and again has 2 ** depth factors.
    if (value, depth) not in known:
        known[value, depth] = _factors(graph, value, depth, known)
    return known[value, depth]


def _factors(graph: Graph, value: str, depth: int, known: _Known) -> tuple[float, list[str]]:
    node = graph.made_by(value, "Mul", "Div", "Pow", "Neg")
    if node is None or depth > _DEEPEST:
        return 1.0, [value]
    if node.op == "Neg":
        number, factors = _product(graph, node.inputs[0], depth + 1, known)
        return -number, factors
    left, right = node.inputs[:2]
    by = graph.scalar(right)
    if node.op == "Pow":
        return (1.0, [left] * int(by)) if by in (2.0, 3.0) else (1.0, [value])
    if by is not None:
        number, factors = _product(graph, left, depth + 1, known)
        if node.op == "Div" and by == 0:
            return 1.0, [value]
        return (number * by if node.op == "Mul" else number / by), factors
    if node.op == "Div":
        return 1.0, [value]
    by = graph.scalar(left)
    if by is not None:
        number, factors = _product(graph, right, depth + 1, known)
        return number * by, factors
    if left in graph.constants or right in graph.constants:
        return 1.0, [value]
    first, second = (_product(graph, name, depth + 1, known) for name in (left, right))
    return first[0] * second[0], first[1] + second[1]


def as_activation(graph: Graph, node: Node) -> bool:
    """Recognise an activation that was split into simpler operators.

    1. ``x * sigmoid(x)`` is Silu, ``x * hardsigmoid(x)`` HardSwish,
       ``x * tanh(softplus(x))`` Mish;
    2. ``x / 2 * (1 + erf(x / sqrt(2)))`` is Gelu, and so is its approximation by tanh;
    3. ``clip(x + 3, 0, 6) / 6`` is HardSigmoid;
    4. Max and Min with a number are Clip;
    5. ``where(b x > t, x, softplus(b x) / b)`` is Softplus with the attributes `beta` and
       `threshold`, and ``where(x <= 0, 0, x)`` Relu.
    """
    if node.op == "Where":
        return _as_piecewise(graph, node)
    if node.op in ("Max", "Min") and len(node.inputs) == 2:
        return _as_clip(graph, node)
    if node.op not in ("Mul", "Div"):
        return False
    number, factors = product(graph, node.outputs[0])
    if len(factors) == 1:
        x = _plus_three(graph, factors[0])
        if x is not None and _near(number, 1 / 6):
            _become(node, "HardSigmoid", x, alpha=1 / 6, beta=0.5)
            return True
    if len(factors) != 2:
        return False
    for x, gate in (factors, factors[::-1]):
        found = _gated(graph, number, x, gate)
        if found is not None:
            _become(node, found[0], x, **found[1])
            return True
    return False


def as_itself(graph: Graph, node: Node) -> bool:
    """``sign(x) * relu(abs(x))``, from PyTorch's LPPool2d, is x.

    A mean of powers gets a tiny lower bound: the root that follows has an infinite slope at 0,
    where PyTorch lets nothing back.
    """
    if node.op != "Mul":
        return False
    for left, right in (node.inputs, node.inputs[::-1]):
        sign, outer = graph.made_by(left, "Sign"), graph.made_by(right, "Abs", "Relu")
        if outer is not None and outer.op == "Relu":
            outer = graph.made_by(outer.inputs[0], "Abs")
        if sign is not None and outer is not None and sign.inputs == outer.inputs:
            x = sign.inputs[0]
            _become(node, "Identity", x)
            if _is_mean_of_powers(graph, x):
                bound = graph.add_constant(node.outputs[0], np.array(_TINY, np.float32))
                node.op, node.inputs = "Clip", [x, bound, ""]
            return True
    return False


def _is_mean_of_powers(graph: Graph, value: str) -> bool:
    pool = graph.made_by(value, "AveragePool")
    power = None if pool is None else graph.made_by(pool.inputs[0], "Pow")
    exponent = None if power is None else graph.scalar(power.inputs[1])
    # Of higher powers' means, the bound would be too large: its root is what silence becomes.
    return exponent is not None and 1 < exponent <= 6


def _gated(
    graph: Graph, number: float, x: str, gate: str
) -> tuple[str, dict[str, object]] | None:
    """The operator that ``number * x * gate`` is, and its attributes."""
    if _near(number, 1):
        made = graph.made_by(gate, "Sigmoid", "HardSigmoid", "Tanh")
        if made is None:
            return None
        taken = made.inputs[0]
        if made.op == "Sigmoid" and taken == x:
            return "Silu", {}
        if made.op == "HardSigmoid" and taken == x and _is_ours(made):
            return "HardSwish", {}
        if made.op == "Tanh":
            plus = graph.made_by(taken, "Softplus")
            return ("Mish", {}) if plus is not None and plus.inputs[0] == x else None
    if _near(number, 1 / 6) and _plus_three(graph, gate) == x:
        return "HardSwish", {}
    if _near(number, 0.5):
        return _gelu(graph, x, gate)
    return None


def _gelu(graph: Graph, x: str, gate: str) -> tuple[str, dict[str, object]] | None:
    inner = _plus(graph, gate, 1.0)
    made = None if inner is None else graph.made_by(inner, "Erf", "Tanh")
    if made is None:
        return None
    number, factors = product(graph, made.inputs[0])
    if made.op == "Erf":
        fits = _near(number, math.sqrt(0.5)) and factors == [x]
        return ("Gelu", {"approximate": "none"}) if fits else None
    if not _near(number, math.sqrt(2 / math.pi)) or len(factors) != 1:
        return None
    both = graph.made_by(factors[0], "Add")
    if both is None:
        return None
    for left, cubed in (both.inputs, both.inputs[::-1]):
        number, factors = product(graph, cubed)
        if left == x and _near(number, 0.044715) and factors == [x] * 3:
            return "Gelu", {"approximate": "tanh"}
    return None


def _as_clip(graph: Graph, node: Node) -> bool:
    """``max(x, a)`` and ``min(x, a)`` become Clip, whose bounds are inputs."""
    for x, bound in (node.inputs, node.inputs[::-1]):
        number = graph.scalar(bound)
        same = graph.shapes.get(x) == graph.shapes.get(node.outputs[0])
        if number is not None and x not in graph.constants and same:
            inputs = [x, bound, ""] if node.op == "Max" else [x, "", bound]
            node.op, node.inputs, node.attributes = "Clip", inputs, {}
            return True
    return False


def _as_piecewise(graph: Graph, node: Node) -> bool:
    """Softplus with its threshold, or a ReLU, from a Where."""
    asked = graph.made_by(node.inputs[0], "Greater", "LessOrEqual")
    limit = None if asked is None else graph.scalar(asked.inputs[1])
    if asked is None or limit is None:
        return False
    if asked.op == "LessOrEqual":
        x = node.inputs[2]
        fits = limit == 0 and graph.scalar(node.inputs[1]) == 0 and asked.inputs[0] == x
        if fits:
            _become(node, "Relu", x)
        return fits
    x = node.inputs[1]
    beta, factors = product(graph, asked.inputs[0])
    inverse, soft = product(graph, node.inputs[2])
    made = graph.made_by(soft[0], "Softplus") if len(soft) == 1 else None
    if made is None or factors != [x] or made.inputs[0] != asked.inputs[0]:
        return False
    if beta <= 0 or not _near(inverse * beta, 1):
        return False
    _become(node, "Softplus", x, beta=beta, threshold=limit)
    return True


def _plus(graph: Graph, value: str, number: float) -> str | None:
    """x if the value is ``x + number``."""
    node = graph.made_by(value, "Add")
    if node is None:
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        found = graph.scalar(other)
        if found is not None and _near(found, number):
            return x
    return None


def _plus_three(graph: Graph, value: str) -> str | None:
    """x if the value is ``clip(x + 3, 0, 6)``."""
    node = graph.made_by(value, "Clip")
    if node is None:
        return None
    low, high = (
        graph.scalar(node.input(place)) if node.input(place) else node.attributes.get(key)
        for place, key in ((1, "min"), (2, "max"))
    )
    return _plus(graph, node.inputs[0], 3.0) if (low, high) == (0.0, 6.0) else None


def _is_ours(node: Node) -> bool:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return _near(alpha, 1 / 6) and _near(beta, 0.5)


def _near(found: float, wanted: float) -> bool:
    return abs(found - wanted) <= 1e-4 * abs(wanted)


def _become(node: Node, op: str, x: str, **attributes: object) -> None:
    node.op, node.inputs, node.attributes, node.domain = op, [x], dict(attributes), ""
