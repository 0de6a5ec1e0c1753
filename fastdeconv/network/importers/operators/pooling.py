"""Pools, and means, maxima and sums over whole axes."""

from __future__ import annotations

import math
from typing import Any

from ..building import Builder, CannotImportError
from ..graph import Node
from ..views import View
from .scaling import times
from .windows import depends_on_size, over_window, window

__all__ = [
    "average_pool", "global_average_pool", "global_max_pool", "max_pool", "reduce_l1", "reduce_l2",
    "reduce_log_sum", "reduce_log_sum_exp", "reduce_max", "reduce_mean", "reduce_min", "reduce_sum",
    "reduce_sum_square", "summed",
]


def _pool(builder: Builder, node: Node, kind: str, **more: Any) -> View:
    given = node.attributes
    kernel = [int(n) for n in given["kernel_shape"]]
    view = over_window(builder, node, len(kernel) + 2)
    ceil = bool(given.get("ceil_mode", 0))
    plain = window(node, len(kernel), view.shape[2:], tuple(kernel), ceil=ceil)
    dilation = plain.pop("dilation")
    if kind == "max_pool2d":
        plain["dilation"] = dilation
    elif dilation != 1:
        raise CannotImportError("it is an average pool with dilation")
    pair = (1, *kernel) if len(kernel) == 1 else tuple(kernel)
    plain["kernel_size"] = pair[0] if pair[0] == pair[1] else pair
    draft = builder.put(kind, view, ceil_mode=ceil, **plain, **more)
    builder.drafts[draft].sized = depends_on_size(node, plain)
    return builder.read(draft, "CHW", _in_rank(builder, draft, len(view.shape)))


def _in_rank(builder: Builder, draft: int, rank: int) -> tuple[int, ...]:
    c, h, w = builder.drafts[draft].sizes
    return (1, c, h, w) if rank == 4 else (1, c, w)


def max_pool(builder: Builder, node: Node) -> View:
    return _pool(builder, node, "max_pool2d")


def average_pool(builder: Builder, node: Node) -> View:
    counted = bool(node.attributes.get("count_include_pad", 0))
    return _pool(builder, node, "avg_pool2d", count_include_pad=counted)


def _axes(builder: Builder, node: Node, rank: int) -> list[int]:
    axes = builder.ints(node, "axes", 1)
    if not axes:
        if node.attributes.get("noop_with_empty_axes", 0):
            return []
        axes = list(range(rank))
    return [axis % rank for axis in axes]


def _reduced(
    builder: Builder, view: View, axes: list[int], kind: str
) -> tuple[View, tuple[str, ...]]:
    """Reduce a view along some axes to size 1; also returns the letters of these axes."""
    marks = [axis in axes for axis in range(len(view.shape))]
    view, groups = builder.grouped(view, marks)
    axes = [i for i, group in enumerate(groups) if any(marks[axis] for axis in group)]
    view, letters = builder.letters(view)
    alone = [axis for axis in axes if view.shape[axis] == 1]
    gone = tuple(sorted(str(letters[axis]) for axis in axes if letters[axis]))
    shape = [1 if axis in axes else n for axis, n in enumerate(view.shape)]
    if not gone:
        builder.hold(view, alone)
        return view, gone
    whole = all(letter in gone or view.size(letter) == 1 for letter in "HW")
    if whole and "C" not in gone:
        kind = {"reduce_mean": "global_avg_pool2d", "reduce_max": "global_max_pool2d"}[kind]
        draft = builder.put(kind, view)
    else:
        builder.hold(view, alone)
        draft = builder.put(kind, view, axes="".join(gone))
    return builder.read(draft, view.order, shape), gone


def _reduce(builder: Builder, node: Node, kind: str) -> View:
    view = builder.view(node, 0)
    made, _ = _reduced(builder, view, _axes(builder, node, len(view.shape)), kind)
    return View(made.draft, made.sizes, made.order, builder.shape(node))


def reduce_mean(builder: Builder, node: Node) -> View:
    return _reduce(builder, node, "reduce_mean")


def reduce_max(builder: Builder, node: Node) -> View:
    return _reduce(builder, node, "reduce_max")


def _global(builder: Builder, node: Node, kind: str) -> View:
    view = builder.view(node, 0)
    made, _ = _reduced(builder, view, list(range(2, len(view.shape))), kind)
    return View(made.draft, made.sizes, made.order, builder.shape(node))


def global_average_pool(builder: Builder, node: Node) -> View:
    return _global(builder, node, "reduce_mean")


def global_max_pool(builder: Builder, node: Node) -> View:
    return _global(builder, node, "reduce_max")


def summed(builder: Builder, view: View, axes: list[int], suffix: str = "") -> View:
    """The sum over some axes, which remain with size 1."""
    count = math.prod(view.shape[axis] for axis in axes)
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(view.shape))
    made, gone = _reduced(builder, view, axes, "reduce_mean")
    if gone:
        builder.drafts[made.draft].suffix = "mean"
        made = times(builder, made, float(count), suffix=suffix)
        # The number of summed places is fixed.
        builder.hold(view, axes)
        builder.drafts[made.draft].sized = view.letters is None
    return View(made.draft, made.sizes, made.order, shape)


def _of_sum(builder: Builder, node: Node, before: str = "", after: str = "") -> View:
    """A function of the sum of a function of the values."""
    view = builder.view(node, 0)
    axes = _axes(builder, node, len(view.shape))
    if before:
        view = builder.on(view, before, suffix=before)
    made = summed(builder, view, axes, "sum" if after else "")
    if after:
        made = builder.on(made, after)
    return View(made.draft, made.sizes, made.order, builder.shape(node))


def reduce_sum(builder: Builder, node: Node) -> View:
    return _of_sum(builder, node)


def reduce_l1(builder: Builder, node: Node) -> View:
    return _of_sum(builder, node, "abs")


def reduce_l2(builder: Builder, node: Node) -> View:
    return _of_sum(builder, node, "square", "sqrt")


def reduce_sum_square(builder: Builder, node: Node) -> View:
    return _of_sum(builder, node, "square")


def reduce_log_sum(builder: Builder, node: Node) -> View:
    return _of_sum(builder, node, "", "log")


def reduce_log_sum_exp(builder: Builder, node: Node) -> View:
    return _of_sum(builder, node, "exp", "log")


def reduce_min(builder: Builder, node: Node) -> View:
    """-max(-x)."""
    view = builder.view(node, 0)
    axes = _axes(builder, node, len(view.shape))
    minus = times(builder, view, -1.0, suffix="minus")
    made, gone = _reduced(builder, minus, axes, "reduce_max")
    if gone:
        builder.drafts[made.draft].suffix = "max"
    made = times(builder, made, -1.0)
    return View(made.draft, made.sizes, made.order, builder.shape(node))
