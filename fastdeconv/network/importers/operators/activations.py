"""Functions that are applied to each value separately, and softmax."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..building import Builder, CannotImportError, Operator
from ..graph import Node
from ..views import View
from .scaling import plain, scaled_by, times

__all__ = [
    "celu", "clip", "cosine", "elu", "gelu", "hard_sigmoid", "leaky_relu", "log_softmax", "power",
    "prelu", "reciprocal", "same", "selu", "softmax", "softplus", "swish",
]


def same(kind: str) -> Operator:
    """The function of an operator that is a layer without parameters."""

    def function(builder: Builder, node: Node) -> View:
        return builder.on(builder.view(node, 0), kind)

    return function


def gelu(builder: Builder, node: Node) -> View:
    form = node.attributes.get("approximate", "none")
    return builder.on(builder.view(node, 0), "gelu", approximate=form)


def softplus(builder: Builder, node: Node) -> View:
    given = node.attributes
    return builder.on(builder.view(node, 0), "softplus", beta=plain(given.get("beta", 1.0)),
                      threshold=plain(given.get("threshold", 20.0)))


def swish(builder: Builder, node: Node) -> View:
    if node.attributes.get("alpha", 1.0) != 1.0:
        raise CannotImportError("it is a swish with alpha other than 1")
    return builder.on(builder.view(node, 0), "silu")


def leaky_relu(builder: Builder, node: Node) -> View:
    slope = plain(node.attributes.get("alpha", 0.01))
    return builder.on(builder.view(node, 0), "leaky_relu", negative_slope=slope)


def prelu(builder: Builder, node: Node) -> View:
    view, slope = builder.view(node, 0), builder.needed(node, 1)
    full = slope.reshape((1,) * (len(view.shape) - slope.ndim) + slope.shape)
    varying = [axis for axis, n in enumerate(full.shape) if n > 1]
    if not varying:
        return builder.on(view, "prelu", {"weight": full.reshape(-1)})
    view, letters = builder.letters(view)
    if len(varying) > 1 or letters[varying[0]] != "C":
        raise CannotImportError(f"its slopes {slope.shape} are not one for each channel")
    return builder.on(view, "prelu", {"weight": full.reshape(-1)})


def elu(builder: Builder, node: Node) -> View:
    alpha = plain(node.attributes.get("alpha", 1.0))
    return builder.on(builder.view(node, 0), "elu", alpha=alpha)


def celu(builder: Builder, node: Node) -> View:
    """alpha ELU(x / alpha)."""
    alpha, view = plain(node.attributes.get("alpha", 1.0)), builder.view(node, 0)
    if alpha == 1:
        return builder.on(view, "elu")
    inner = times(builder, view, 1 / alpha, suffix="scale")
    return times(builder, builder.on(inner, "elu", suffix="elu"), alpha)


def selu(builder: Builder, node: Node) -> View:
    alpha = node.attributes.get("alpha", 1.67326319217681884765625)
    gamma = node.attributes.get("gamma", 1.05070102214813232421875)
    view = builder.view(node, 0)
    if abs(alpha - 1.6732632) < 1e-5 and abs(gamma - 1.0507010) < 1e-5:
        return builder.on(view, "selu")
    return times(builder, builder.on(view, "elu", alpha=plain(alpha), suffix="elu"), gamma)


def clip(builder: Builder, node: Node) -> View:
    ends: list[float | None] = []
    for place, key in ((1, "min"), (2, "max")):
        array = builder.constant(node, place)
        number = node.attributes.get(key) if array is None else float(array.reshape(-1)[0])
        ends.append(None if number is None or abs(number) > 3e38 else plain(number))
    view = builder.view(node, 0)
    if ends == [None, None]:
        return view
    if ends == [0.0, None]:
        return builder.on(view, "relu")
    return builder.on(view, "clip", min=ends[0], max=ends[1])


def hard_sigmoid(builder: Builder, node: Node) -> View:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    view = builder.view(node, 0)
    if abs(alpha - 1 / 6) < 1e-5 and beta == 0.5:
        return builder.on(view, "hardsigmoid")
    return builder.on(times(builder, view, alpha, beta, "line"), "clip", min=0.0, max=1.0)


def power(builder: Builder, node: Node) -> View:
    if node.input(0) in builder.graph.constants:
        return _exponential(builder, node)
    exponent = builder.needed(node, 1)
    if exponent.size != 1:
        # exp(exponent * log(x)), which holds for x >= 0.
        logs = builder.on(builder.view(node, 0), "log", suffix="log")
        zero = np.zeros((), np.float32)
        return builder.on(scaled_by(builder, logs, exponent, zero, "exponent"), "exp")
    number, view = float(exponent.reshape(-1)[0]), builder.view(node, 0)
    if number == 1:
        return view
    kind = {2.0: "square", 0.5: "sqrt"}.get(number)
    return builder.on(view, kind) if kind else builder.on(view, "power", exponent=plain(number))


def _exponential(builder: Builder, node: Node) -> View:
    """A number to the power of a value: exp(x log(number))."""
    base = builder.graph.scalar(node.input(0))
    if base is None or base <= 0:
        raise CannotImportError("its base is not one number above 0")
    inner = times(builder, builder.view(node, 1), math.log(base), suffix="scale")
    return builder.on(inner, "exp")


def cosine(builder: Builder, node: Node) -> View:
    """sin(x + pi / 2)."""
    view = times(builder, builder.view(node, 0), 1.0, math.pi / 2, suffix="quarter")
    return builder.on(view, "sin")


def reciprocal(builder: Builder, node: Node) -> View:
    return builder.on(builder.view(node, 0), "power", exponent=-1.0)


def _over_channels(builder: Builder, node: Node, kind: str) -> View:
    view = builder.view(node, 0)
    shape, rank = view.shape, len(view.shape)
    newer = builder.graph.opset >= 13
    axis = int(node.attributes.get("axis", -1 if newer else 1)) % rank
    # Before version 13, all axes from that one on were treated as one.
    axes = [axis] if newer else [i for i in range(axis, rank) if view.shape[i] > 1] or [axis]
    if len(axes) > 1:
        raise CannotImportError("it is a softmax over several axes")
    view, groups = builder.grouped(
        view, [i > axes[0] for i in range(rank)], axes
    )
    view, letters = builder.letters(view)
    letter = letters[groups.index(axes)]
    if letter is None or letter == "C":
        if letter is None and view.sizes[0] > 1:
            raise CannotImportError("it is a softmax over one value")
        return replace(builder.on(view, kind), shape=shape)
    swap = {letter: "C", "C": letter}
    moved = tuple(swap.get(name, name) if name else None for name in letters)
    return replace(builder.on(builder.settle(view, moved), kind), shape=shape)


def softmax(builder: Builder, node: Node) -> View:
    return _over_channels(builder, node, "softmax")


def log_softmax(builder: Builder, node: Node) -> View:
    return _over_channels(builder, node, "log_softmax")
