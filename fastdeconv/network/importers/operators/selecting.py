"""Operators that select places of an axis, in any order, or split axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...layers.checks import LARGEST_SIZE
from ..building import Builder, CannotImportError
from ..graph import Node
from ..views import View
from .windows import dense

__all__ = [
    "cumulative_sum", "depth_to_space", "gather", "gather_nd", "slices", "space_to_depth", "split",
    "taken",
]

# Most elements of a matrix that selects places: 16 MB of float32.
_MOST_ELEMENTS = 1 << 22


def taken(builder: Builder, view: View, axis: int, places: slice, suffix: str = "") -> View:
    """Select places along an axis at equal distances.

    A stop says where to end on an axis of any size; None is the end of the axis.
    """
    n = view.shape[axis]
    found = range(*places.indices(n))
    if len(found) == n and found.step == 1:
        if places.stop is not None or places.start:
            builder.hold(view, [axis])
        return view
    if found.step < 1:
        return picked(builder, view, axis, found)
    shape = tuple(len(found) if i == axis else size for i, size in enumerate(view.shape))
    view, groups = builder.grouped(view, [i > axis for i in range(len(shape))], [axis])
    own = groups.index([axis])
    view, letters = builder.letters(view)
    # Not the numbers of `found`: on a longer axis, places counted from the end are others.
    draft = builder.put(
        "slice", view, suffix=suffix, axis=str(letters[own]), start=places.start or 0,
        stop=places.stop, step=found.step,
    )
    return builder.read(draft, view.order, shape)


def picked(builder: Builder, view: View, axis: int, places: Sequence[int]) -> View:
    """Select any places along an axis, by a matrix of zeros and ones."""
    n, count = view.shape[axis], len(places)
    if n * count > _MOST_ELEMENTS:
        raise CannotImportError(
            f"it selects {count} of {n} places that are not at equal distances, and the matrix "
            f"for this has more than {_MOST_ELEMENTS} elements"
        )
    matrix = np.zeros((count, n), np.float32)
    matrix[np.arange(count), list(places)] = 1
    return _by_matrix(builder, view, axis, matrix)


def _by_matrix(builder: Builder, view: View, axis: int, matrix: NDArray[np.float32]) -> View:
    """Multiply by a matrix (out, in) along an axis."""
    rank = len(view.shape)
    last = [*(i for i in range(rank) if i != axis), axis]
    made = dense(builder, builder.transposed(view, last), matrix, None)
    return builder.transposed(made, [last.index(i) for i in range(rank)])


def cumulative_sum(builder: Builder, node: Node) -> View:
    """The sums of all places up to each one, by a triangular matrix."""
    view, axes = builder.view(node, 0), builder.ints(node, "axis", 1)
    if axes is None or len(axes) != 1:
        raise CannotImportError("its axis is not one number")
    axis = axes[0] % len(view.shape)
    n, given = view.shape[axis], node.attributes
    if n * n > _MOST_ELEMENTS:
        raise CannotImportError(
            f"it computes {n} cumulative sums, and the matrix for this has more than "
            f"{_MOST_ELEMENTS} elements"
        )
    matrix = np.tri(n, k=-1 if given.get("exclusive", 0) else 0, dtype=np.float32)
    made = _by_matrix(builder, view, axis, matrix.T if given.get("reverse", 0) else matrix)
    if made.draft >= 0:
        builder.drafts[made.draft].sized = True
    return made


def slices(builder: Builder, node: Node) -> View:
    view = builder.view(node, 0)
    rank = len(view.shape)
    starts, ends = builder.ints(node, "starts", 1), builder.ints(node, "ends", 2)
    if starts is None or ends is None:
        raise CannotImportError("its starts or ends are missing")
    axes = builder.ints(node, "axes", 3) or list(range(len(starts)))
    steps = builder.ints(node, "steps", 4) or [1] * len(starts)
    parts = []
    for start, end, axis, step in zip(starts, ends, axes, steps):
        n = view.shape[axis % rank]
        stop = None if end >= LARGEST_SIZE or (step < 0 and end < -n) else max(end, -LARGEST_SIZE)
        start = max(-LARGEST_SIZE, min(start, LARGEST_SIZE))
        if start or stop is not None or step < 0 or len(range(0, n, step)) < n:
            parts.append((axis % rank, slice(start, stop, step)))
    for count, (axis, places) in enumerate(parts, start=1):
        view = taken(builder, view, axis, places, "" if count == len(parts) else "slice")
    return view


def gather(builder: Builder, node: Node) -> View:
    view = builder.view(node, 0)
    axis = int(node.attributes.get("axis", 0)) % len(view.shape)
    n = view.shape[axis]
    indices = builder.ints(node, "indices", 1) or []
    if not all(-n <= i < n for i in indices):
        raise CannotImportError(f"it selects places beyond the end of an axis of size {n}")
    if any(i >= 0 for i in indices):
        indices = [i % n for i in indices]
    return replace(_places(builder, view, axis, indices), shape=builder.shape(node))


def gather_nd(builder: Builder, node: Node) -> View:
    """Gather along several axes that are joined."""
    view, indices = builder.view(node, 0), builder.constant(node, 1)
    if indices is None or node.attributes.get("batch_dims", 0):
        raise CannotImportError("it selects different places for each item of a batch")
    depth = indices.shape[-1]
    sizes = view.shape[:depth]
    columns = np.moveaxis(indices, -1, 0).reshape(depth, -1).astype(np.int64)
    if any(((column < -n) | (column >= n)).any() for column, n in zip(columns, sizes)):
        raise CannotImportError(f"it selects places beyond the end of axes of sizes {sizes}")
    within = [column % n for column, n in zip(columns, sizes)]
    places = np.ravel_multi_index(within, sizes)
    joined = replace(view, shape=(int(np.prod(sizes)), *view.shape[depth:]))
    return replace(_places(builder, joined, 0, places.tolist()), shape=builder.shape(node))


def _places(builder: Builder, view: View, axis: int, places: Sequence[int]) -> View:
    if not places:
        raise CannotImportError("it selects no place")
    step = places[1] - places[0] if len(places) > 1 else 1
    if step > 0 and list(places) == list(range(places[0], places[-1] + 1, step)):
        # After place -1 comes the end of the axis, and not place 0.
        return taken(builder, view, axis, slice(places[0], places[-1] + 1 or None, step))
    return picked(builder, view, axis, places)


def split(builder: Builder, node: Node) -> list[View]:
    view = builder.view(node, 0)
    axis = int(node.attributes.get("axis", 0)) % len(view.shape)
    views, start = [], 0
    for place in range(len(node.outputs)):
        size = builder.shape(node, place)[axis]
        views.append(taken(builder, view, axis, slice(start, start + size)))
        start += size
    return views


def depth_to_space(builder: Builder, node: Node) -> View:
    view, block = builder.view(node, 0), int(node.attributes["blocksize"])
    _, c, h, w = view.shape
    deep = c // block**2
    if node.attributes.get("mode", "DCR") == "CRD":
        shape, order = (deep, block, block, h, w), (0, 3, 1, 4, 2)
    else:
        shape, order = (block, block, deep, h, w), (2, 3, 0, 4, 1)
    moved = builder.transposed(replace(view, shape=shape), order)
    return replace(moved, shape=builder.shape(node))


def space_to_depth(builder: Builder, node: Node) -> View:
    view, block = builder.view(node, 0), int(node.attributes["blocksize"])
    _, c, h, w = view.shape
    apart = replace(view, shape=(c, h // block, block, w // block, block))
    return replace(builder.transposed(apart, (2, 4, 0, 1, 3)), shape=builder.shape(node))
