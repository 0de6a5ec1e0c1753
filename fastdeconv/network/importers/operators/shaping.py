"""Operators that move values and change none."""

from __future__ import annotations

from dataclasses import replace

from ..building import Builder, CannotImportError
from ..graph import Node
from ..views import View, completed

__all__ = ["expand", "gather", "pad", "reshape", "resize", "slices", "split", "transpose"]


def reshape(builder: Builder, node: Node) -> View:
    """Reshape, Flatten, Squeeze, Unsqueeze: the same values in the same order."""
    return replace(builder.view(node, 0), shape=builder.shape(node))


def transpose(builder: Builder, node: Node) -> View:
    view = builder.view(node, 0)
    order = node.attributes.get("perm", list(range(len(view.shape)))[::-1])
    return builder.transposed(view, [int(axis) for axis in order])


def _sliced(builder: Builder, view: View, axis: int, taken: slice, suffix: str = "") -> View:
    """Some places along an axis."""
    n = view.shape[axis]
    places = range(*taken.indices(n))
    if len(places) == n and places.step == 1:
        return view
    if places.step < 1:
        raise CannotImportError("it turns an axis round")
    view, letters = builder.letters(view)
    shape = [len(places) if i == axis else size for i, size in enumerate(view.shape)]
    to_the_end = places.stop >= n
    draft = builder.put(
        "slice", view, suffix=suffix, axis=str(letters[axis]), start=places.start,
        stop=None if to_the_end else places.stop, step=places.step,
    )
    return builder.read(draft, view.order, shape)


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
        stop = None if end >= n else max(end, -n)
        if len(range(*slice(start, stop, step).indices(n))) < n or step < 0:
            parts.append((axis % rank, slice(start, stop, step)))
    for count, (axis, taken) in enumerate(parts, start=1):
        view = _sliced(builder, view, axis, taken, "" if count == len(parts) else "slice")
    return view


def gather(builder: Builder, node: Node) -> View:
    """Some places along an axis that follow each other at equal distances."""
    view = builder.view(node, 0)
    axis = int(node.attributes.get("axis", 0)) % len(view.shape)
    array = builder.constant(node, 1)
    n = view.shape[axis]
    places = [] if array is None or array.ndim > 1 else [int(i) % n for i in array.reshape(-1)]
    if not places:
        raise CannotImportError("it picks places that are not a list of numbers")
    step = places[1] - places[0] if len(places) > 1 else 1
    if step < 1 or places != list(range(places[0], places[-1] + 1, step)):
        raise CannotImportError("it picks places that are not at equal distances")
    view = _sliced(builder, view, axis, slice(places[0], places[-1] + 1, step))
    return replace(view, shape=builder.shape(node))


def split(builder: Builder, node: Node) -> list[View]:
    view = builder.view(node, 0)
    axis = int(node.attributes.get("axis", 0)) % len(view.shape)
    views, start = [], 0
    for place in range(len(node.outputs)):
        size = builder.shape(node, place)[axis]
        views.append(_sliced(builder, view, axis, slice(start, start + size)))
        start += size
    return views


def pad(builder: Builder, node: Node) -> View:
    mode = node.attributes.get("mode", "constant")
    view = builder.view(node, 0)
    rank = len(view.shape)
    pads = builder.ints(node, "pads", 1)
    axes = builder.ints(node, "axes", 3) or list(range(rank))
    if pads is None or len(pads) != 2 * len(axes):
        raise CannotImportError("its pads are not two for each axis")
    value = builder.floats(node, 2)
    given = node.attributes.get("value", 0.0) if value is None else value.reshape(-1)[0]
    number = float(given)
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis % rank], after[axis % rank] = pads[i], pads[len(axes) + i]
    for axis in range(rank):
        if before[axis] < 0 or after[axis] < 0:
            start, stop = max(0, -before[axis]), view.shape[axis] - max(0, -after[axis])
            view = _sliced(builder, view, axis, slice(start, stop), "crop")
    wide = [axis for axis in range(rank) if max(before[axis], after[axis]) > 0]
    if not wide:
        return _as_main(builder, view, node)
    if mode != "constant":
        raise CannotImportError(f"it pads by {mode}, and only padding with a number is a layer")
    view, found = builder.letters(view)
    letters = completed(view, found)
    sides = {letter: (0, 0) for letter in "CHW"}
    for axis in wide:
        if letters[axis] is None:
            raise CannotImportError("it pads the batch")
        sides[str(letters[axis])] = max(0, before[axis]), max(0, after[axis])
    if any(sides["C"]):
        raise CannotImportError("it pads channels")
    view = builder.settle(view, letters)
    draft = builder.put("pad", view, padding=(sides["H"], sides["W"]), value=number)
    return builder.read(draft, view.order, builder.shape(node))


def _as_main(builder: Builder, view: View, node: Node) -> View:
    """A crop is the whole of a pad that is negative."""
    if view.draft >= 0 and builder.drafts[view.draft].node is node:
        builder.drafts[view.draft].suffix = ""
    return view


def resize(builder: Builder, node: Node) -> View:
    """Every value repeated a whole number of times."""
    given = node.attributes
    mode = given.get("mode", "nearest")
    if mode != "nearest":
        raise CannotImportError(f"it enlarges by {mode} interpolation; only nearest is a layer")
    view, found = builder.letters(builder.view(node, 0))
    letters = completed(view, found)
    shape = builder.shape(node)
    scales = {letter: 1 for letter in "CHW"}
    for axis, (n, larger) in enumerate(zip(view.shape, shape)):
        if larger == n:
            continue
        if larger % n or letters[axis] in (None, "C"):
            raise CannotImportError(f"it makes {shape} of {view.shape}, no whole number of times")
        scales[str(letters[axis])] = larger // n
    if node.op == "Resize":
        place = given.get("coordinate_transformation_mode", "half_pixel")
        rounding = given.get("nearest_mode", "round_prefer_floor")
        fits = (place == "asymmetric" and rounding == "floor") or (
            place in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
            and rounding.startswith("round_prefer")
        )
        if not fits and scales != {"C": 1, "H": 1, "W": 1}:
            raise CannotImportError(f"it enlarges with places {place!r} and rounding {rounding!r}")
    if scales["H"] == scales["W"] == 1:
        return view
    view = builder.settle(view, letters)
    draft = builder.put("upsample", view, scale=(scales["H"], scales["W"]))
    return builder.read(draft, view.order, shape)


def expand(builder: Builder, node: Node) -> View:
    """One value repeated along rows or columns."""
    view, shape = builder.view(node, 0), builder.shape(node)
    view = replace(view, shape=(1,) * (len(shape) - len(view.shape)) + view.shape)
    if view.shape == shape:
        return view
    view, found = builder.letters(view)
    letters = completed(view, found)
    scales = {letter: 1 for letter in "CHW"}
    for axis, (n, larger) in enumerate(zip(view.shape, shape)):
        if larger != n:
            if letters[axis] in (None, "C"):
                raise CannotImportError("it repeats channels or the batch")
            scales[str(letters[axis])] = larger
    view = builder.settle(view, letters)
    draft = builder.put("upsample", view, scale=(scales["H"], scales["W"]))
    builder.drafts[draft].sized = True
    return builder.read(draft, view.order, shape)
