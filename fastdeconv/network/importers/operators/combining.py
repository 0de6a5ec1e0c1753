"""Operators with several computed inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..building import Builder, CannotImportError
from ..graph import Node
from ..views import View, completed, default_letters

__all__ = ["add", "concat", "divide", "mean", "multiply", "subtract"]


def _together(builder: Builder, views: list[View]) -> list[View]:
    """Views of one rank whose axes have the same letters in all of them."""
    rank = max(len(view.shape) for view in views)
    views = [replace(view, shape=(1,) * (rank - len(view.shape)) + view.shape) for view in views]
    base = max(views, key=lambda view: sum(n > 1 for n in view.shape))
    base_letters = base.letters or default_letters(base.shape)
    if base_letters is None:
        raise CannotImportError(f"its input has more than three axes: {base.shape}")
    letters = list(base_letters)
    for i, n in enumerate(base.shape):
        if n == 1:
            letters[i] = None
    wide = [i for i in range(rank) if any(view.shape[i] > 1 for view in views)]
    if any(letters[i] is None for i in wide):
        full = completed(base, tuple(letters))
        for i in wide:
            letters[i] = letters[i] or full[i]
        free = [letter for letter in "CHW" if letter not in letters]
        for i in wide:
            if letters[i] is None and free:
                letters[i] = free.pop()
    if any(letters[i] is None for i in wide):
        raise CannotImportError("its inputs vary along more than three axes")
    full = completed(base, tuple(letters))
    return [builder.settle(view, full) for view in views]


def _joined(builder: Builder, node: Node, kind: str, views: list[View]) -> View:
    views = _together(builder, views)
    draft = builder.put(kind, views)
    return builder.read(draft, views[0].order, builder.shape(node))


def _views(builder: Builder, node: Node) -> list[View]:
    return [builder.view(node, place) for place in range(len(node.inputs))]


def add(builder: Builder, node: Node) -> View:
    views = _views(builder, node)
    return views[0] if len(views) == 1 else _joined(builder, node, "add", views)


def multiply(builder: Builder, node: Node) -> View:
    views = _views(builder, node)
    if len(views) == 2 and views[0] == views[1]:
        return builder.on(views[0], "square")
    return _joined(builder, node, "multiply", views)


def _times(builder: Builder, view: View, number: float, suffix: str = "") -> View:
    channels = view.sizes[0]
    arrays = {"weight": np.full(channels, number), "bias": np.zeros(channels)}
    return builder.on(view, "affine", arrays, suffix=suffix)


def subtract(builder: Builder, node: Node) -> View:
    """a + (-1) b."""
    first, second = builder.view(node, 0), builder.view(node, 1)
    return _joined(builder, node, "add", [first, _times(builder, second, -1.0, "minus")])


def divide(builder: Builder, node: Node) -> View:
    """a times b to the power of -1."""
    second = builder.on(builder.view(node, 1), "power", exponent=-1.0, suffix="inverse")
    if node.input(0) in builder.graph.constants:
        number = builder.graph.scalar(node.input(0))
        if number is None:
            raise CannotImportError("it divides an array of constants")
        return _times(builder, second, number)
    return _joined(builder, node, "multiply", [builder.view(node, 0), second])


def mean(builder: Builder, node: Node) -> View:
    views = _views(builder, node)
    if len(views) == 1:
        return views[0]
    total = _joined(builder, node, "add", views)
    builder.drafts[total.draft].suffix = "sum"
    return _times(builder, total, 1 / len(views))


def concat(builder: Builder, node: Node) -> View:
    views = _views(builder, node)
    if len(views) == 1:
        return views[0]
    rank = len(views[0].shape)
    axis = int(node.attributes["axis"]) % rank
    base = max(views, key=lambda view: sum(n > 1 for n in view.shape))
    found = base.letters or default_letters(base.shape)
    if found is None:
        raise CannotImportError(f"its input has more than three axes: {base.shape}")
    letters = list(found)
    if letters[axis] is None:
        letters[axis] = completed(base, tuple(letters))[axis]
    if letters[axis] is None:
        free = [letter for letter in "CHW" if letter not in letters]
        if not free:
            raise CannotImportError(f"it joins arrays {base.shape} along axis {axis}")
        letters[axis] = free[0]
    settled = [builder.settle(view, tuple(letters)) for view in views]
    draft = builder.put("concat", settled, axis=letters[axis])
    return builder.read(draft, settled[0].order, builder.shape(node))
