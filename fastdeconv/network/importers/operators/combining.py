"""Operators with several computed inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ....errors import shown
from ... import layers as nn
from ..building import Builder, CannotImportError, Operator
from ..graph import Node
from ..views import View, completed, default_letters, group_sizes, joined_axes
from .scaling import scaled_by, times
from .selecting import taken

__all__ = [
    "add", "concat", "divide", "extreme", "joined", "mean", "multiply", "repeated", "subtract",
]


def _together(builder: Builder, views: Sequence[View]) -> list[View]:
    """Give the axes of views of equal rank the same letters in all of them."""
    base = max(views, key=lambda view: sum(n > 1 for n in view.shape))
    base_letters = base.letters or default_letters(base.shape)
    if base_letters is None:
        raise CannotImportError(f"its input has more than three axes: {base.shape}")
    letters = list(base_letters)
    for i, n in enumerate(base.shape):
        if n == 1:
            letters[i] = None
    wide = [i for i in range(len(letters)) if any(view.shape[i] > 1 for view in views)]
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


def joined(
    builder: Builder, kind: str, views: Sequence[View], shape: Sequence[int], suffix: str = ""
) -> View:
    """Add a layer with several inputs, which are broadcast to a shape.

    If there are more than three axes, axes along which the same inputs vary are joined; if
    necessary they are first moved next to each other.
    """
    rank = len(shape)
    views = [replace(view, shape=(1,) * (rank - len(view.shape)) + view.shape) for view in views]
    whole = tuple(max(sizes) for sizes in zip(*(view.shape for view in views)))
    marks = [tuple(view.shape[axis] > 1 for view in views) for axis in range(rank)]
    order = list(range(rank))
    if sum(n > 1 for n in whole) > 3:
        if len(joined_axes(whole, marks)) > 3:
            order.sort(key=lambda axis: marks[axis], reverse=True)
            views = [builder.transposed(view, order) for view in views]
            whole, marks = tuple(whole[axis] for axis in order), [marks[axis] for axis in order]
        groups = joined_axes(whole, marks)
        views = [replace(view, shape=tuple(group_sizes(view.shape, groups))) for view in views]
    settled = _together(builder, views)
    draft = builder.put(kind, settled, suffix=suffix)
    made = builder.read(draft, settled[0].order, whole)
    back = [order.index(axis) for axis in range(rank)]
    return replace(builder.transposed(made, back) if back != order else made, shape=tuple(shape))


def _joined(builder: Builder, node: Node, kind: str, views: Sequence[View]) -> View:
    return joined(builder, kind, views, builder.shape(node))


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


def _constant(builder: Builder, node: Node, place: int) -> View:
    """A constant array as a layer: another input of the node times 0, plus the array."""
    shape, array = builder.shape(node), builder.needed(node, place)
    for other in node.inputs:
        view = builder.views.get(other)
        if view is not None and view.shape == shape:
            return scaled_by(builder, view, np.zeros((), np.float32), array, "constant")
    raise CannotImportError(f"its input {shown(node.input(place))} is a constant")


def extreme(kind: str) -> Operator:
    """The function of Max or Min."""

    def function(builder: Builder, node: Node) -> View:
        views = [
            _constant(builder, node, place) if name in builder.graph.constants
            else builder.view(node, place)
            for place, name in enumerate(node.inputs)
        ]
        return views[0] if len(views) == 1 else _joined(builder, node, kind, views)

    return function


def subtract(builder: Builder, node: Node) -> View:
    """a + (-1) b."""
    first, second = builder.view(node, 0), builder.view(node, 1)
    return _joined(builder, node, "add", [first, times(builder, second, -1.0, suffix="minus")])


def divide(builder: Builder, node: Node) -> View:
    """a times b to the power of -1."""
    second = builder.on(builder.view(node, 1), "power", exponent=-1.0, suffix="inverse")
    if node.input(0) in builder.graph.constants:
        number = builder.graph.scalar(node.input(0))
        if number is None:
            raise CannotImportError("it divides an array of constants")
        return times(builder, second, number)
    return _joined(builder, node, "multiply", [builder.view(node, 0), second])


def mean(builder: Builder, node: Node) -> View:
    views = _views(builder, node)
    if len(views) == 1:
        return views[0]
    total = _joined(builder, node, "add", views)
    builder.drafts[total.draft].suffix = "sum"
    return times(builder, total, 1 / len(views))


def concat(builder: Builder, node: Node) -> View:
    axis = int(node.attributes["axis"]) % len(builder.shape(node))
    computed = [builder.views[name] for name in node.inputs if name in builder.views]
    views = [
        _constant_part(builder, node, place, computed[0], axis)
        if computed and name in builder.graph.constants else builder.view(node, place)
        for place, name in enumerate(node.inputs)
    ]
    if len(views) == 1:
        return views[0]
    return replace(joined_along(builder, views, axis), shape=builder.shape(node))


def _constant_part(builder: Builder, node: Node, place: int, view: View, axis: int) -> View:
    """A constant array as a layer: an equally large part of a computed value times 0, plus it."""
    array = builder.needed(node, place)
    count, n = array.shape[axis], view.shape[axis]
    if count > n:
        view = repeated(builder, view, -(-count // n), axis)
        builder.drafts[view.draft].suffix = "repeat"
    view = taken(builder, view, axis, slice(0, count), "part")
    return scaled_by(builder, view, np.zeros((), np.float32), array, "constant")


def repeated(builder: Builder, view: View, count: int, axis: int) -> View:
    """Repeat a value several times along an axis."""
    most = nn.Concat.arity[1]
    if count > most:
        raise CannotImportError(
            f"it repeats a value {count} times along an axis, and a layer has at most {most} inputs"
        )
    return joined_along(builder, [view] * count, axis)


def joined_along(builder: Builder, views: list[View], axis: int) -> View:
    """Join values along an axis."""
    shape = list(views[0].shape)
    shape[axis] = sum(view.shape[axis] for view in views)
    letters = _letters_along(views, axis)
    if letters is None:
        groups = joined_axes(shape, [i > axis for i in range(len(shape))], [axis])
        views = [replace(view, shape=tuple(group_sizes(view.shape, groups))) for view in views]
        axis = groups.index([axis])
        letters = _letters_along(views, axis)
    assert letters is not None  # of three axes at most
    settled = [builder.settle(view, tuple(letters)) for view in views]
    draft = builder.put("concat", settled, axis=letters[axis])
    return builder.read(draft, settled[0].order, shape)


def _letters_along(views: Sequence[View], axis: int) -> list[str | None] | None:
    """Letters for the axes of values that are joined along one; None if there are too many."""
    base = max(views, key=lambda view: sum(n > 1 for n in view.shape))
    found = base.letters or default_letters(base.shape)
    if found is None:
        return None
    letters = list(found)
    if letters[axis] is None:
        letters[axis] = completed(base, found)[axis]
    if letters[axis] is None:
        letters[axis] = next((letter for letter in "CHW" if letter not in letters), None)
    wide = [i for i in range(len(letters)) if any(view.shape[i] > 1 for view in views)]
    return None if any(letters[i] is None for i in [*wide, axis]) else letters
