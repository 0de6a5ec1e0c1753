"""Operators without weights that move, repeat, pad and resize."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ....errors import shown
from ..building import Builder, CannotImportError
from ..graph import Node
from ..views import View, completed
from .combining import repeated
from .selecting import taken

__all__ = [
    "adaptive_pool", "cast", "expand", "expanded", "pad", "reshape", "resize", "tile", "transpose",
]

# ONNX's names of modes of padding, and the layer's, which are PyTorch's.
_PADS = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
_FLOAT = 1


def reshape(builder: Builder, node: Node) -> View:
    """Reshape, Flatten, Squeeze, Unsqueeze: the same values in the same order."""
    return replace(builder.view(node, 0), shape=builder.shape(node))


def cast(builder: Builder, node: Node) -> View:
    if node.attributes.get("to", _FLOAT) != _FLOAT:
        raise CannotImportError(
            "it converts to integers or booleans, through which no signal goes back"
        )
    return reshape(builder, node)


def transpose(builder: Builder, node: Node) -> View:
    view = builder.view(node, 0)
    order = node.attributes.get("perm", list(range(len(view.shape)))[::-1])
    return builder.transposed(view, [int(axis) for axis in order])


def _on_planes(
    builder: Builder, view: View, axes: Collection[int], what: str
) -> tuple[View, dict[int, str]]:
    """The view with some of its axes as rows and columns; also returns their letters."""
    rank = len(view.shape)
    if len(axes) > 2:
        raise CannotImportError(f"it {what} {len(axes)} axes, and a layer does so along at most 2")
    view, groups = builder.grouped(view, [i in axes for i in range(rank)], sorted(axes))
    own = {axis: groups.index([axis]) for axis in axes}
    view, found = builder.letters(view)
    letters = list(completed(view, found))
    if any(letters[place] in (None, "C") for place in own.values()):
        # These axes become rows and columns; the others get the letters that are left.
        named = dict(zip(sorted(own.values()), "HW" if len(own) == 2 else "W"))
        free = [letter for letter in "CHW" if letter not in named.values()]
        letters = [named.get(place) for place in range(len(letters))]
        for place, n in enumerate(view.shape):
            if letters[place] is None and n > 1:
                if not free:
                    raise CannotImportError(f"its input has more than three axes: {view.shape}")
                letters[place] = free.pop(0)
        view = builder.settle(view, tuple(letters))
    else:
        view = builder.settle(view, tuple(letters))
    return view, {axis: str(letters[place]) for axis, place in own.items()}


def _put(
    builder: Builder, kind: str, view: View, shape: Sequence[int], **parameters: Any
) -> View:
    return builder.read(builder.put(kind, view, **parameters), view.order, shape)


def pad(builder: Builder, node: Node) -> View:
    mode = node.attributes.get("mode", "constant")
    view = builder.view(node, 0)
    rank = len(view.shape)
    pads = builder.ints(node, "pads", 1)
    axes = builder.ints(node, "axes", 3) or list(range(rank))
    if pads is None or len(pads) != 2 * len(axes):
        raise CannotImportError("it does not have two pads for each axis")
    value = builder.floats(node, 2)
    given = node.attributes.get("value", 0.0) if value is None else value.reshape(-1)[0]
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis % rank], after[axis % rank] = pads[i], pads[len(axes) + i]
    for axis in range(rank):
        if before[axis] < 0 or after[axis] < 0:
            places = slice(max(0, -before[axis]), min(0, after[axis]) or None)
            view = taken(builder, view, axis, places, "crop")
    sides = {
        axis: (max(0, before[axis]), max(0, after[axis])) for axis in range(rank)
        if max(before[axis], after[axis]) > 0
    }
    if not sides:
        return _as_main(builder, view, node)
    if mode not in _PADS:
        raise CannotImportError(
            f"its mode of padding is {shown(mode)}, wanted one of {', '.join(_PADS)}"
        )
    view, letters = _on_planes(builder, view, sides, "pads")
    named = {letter: sides[axis] for axis, letter in letters.items()}
    more: dict[str, Any] = {"value": float(given)}
    if mode != "constant":
        more = {"mode": _PADS[mode]}
    padding = named.get("H", (0, 0)), named.get("W", (0, 0))
    return _put(builder, "pad", view, builder.shape(node), padding=padding, **more)


def _as_main(builder: Builder, view: View, node: Node) -> View:
    """If all pads are negative, the crop is the main layer of the node."""
    if view.draft >= 0 and builder.drafts[view.draft].node is node:
        builder.drafts[view.draft].suffix = ""
    return view


def resize(builder: Builder, node: Node) -> View:
    given = node.attributes
    mode = given.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise CannotImportError(
            f"its interpolation is {shown(mode)}, wanted nearest or linear"
        )
    if given.get("antialias", 0):
        raise CannotImportError("it smooths before it resizes (antialias)")
    view, shape = builder.view(node, 0), builder.shape(node)
    changed = [axis for axis, (n, m) in enumerate(zip(view.shape, shape)) if n != m]
    if not changed:
        return view
    before = [view.shape[axis] for axis in changed]
    after = [shape[axis] for axis in changed]
    whole = all(m % n == 0 for n, m in zip(before, after))
    more = _resizing(node, mode, whole)
    view, letters = _on_planes(builder, view, changed, "resizes")
    if whole:
        times = {letters[axis]: m // n for axis, n, m in zip(changed, before, after)}
        return _put(builder, "upsample", view, shape,
                    scale=(times.get("H", 1), times.get("W", 1)), **more)
    sizes = {letters[axis]: m for axis, m in zip(changed, after)}
    size = sizes.get("H", view.size("H")), sizes.get("W", view.size("W"))
    return _put(builder, "upsample", view, shape, size=size, **more)


def _resizing(node: Node, mode: str, whole: bool) -> dict[str, Any]:
    """The mode of an upsample layer; `whole`: the factors of all axes are whole numbers."""
    given = node.attributes
    usual = "half_pixel" if node.op == "Resize" else "asymmetric"
    place = given.get("coordinate_transformation_mode", usual)
    half = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
    if mode == "linear":
        if place == "align_corners":
            return {"mode": "bilinear", "align_corners": True}
        if place not in half:
            raise CannotImportError(
                f"its coordinate_transformation_mode is {shown(place)}, which no layer has"
            )
        return {"mode": "bilinear"}
    rounding = given.get("nearest_mode", "round_prefer_floor")
    if node.op == "Upsample" or (place == "asymmetric" and rounding == "floor"):
        return {}
    # For whole factors, rounding half-pixel positions to the nearest is the same.
    if whole and place in half and rounding.startswith("round_prefer"):
        return {}
    raise CannotImportError(
        f"it resizes with coordinate_transformation_mode {shown(place)} and nearest_mode "
        f"{shown(rounding)}, which no layer has"
    )


def adaptive_pool(builder: Builder, node: Node) -> View:
    sizes = node.attributes["sizes"]
    view = builder.view(node, 0)
    view, letters = _on_planes(builder, view, list(sizes), "pools")
    wanted = {letters[axis]: n for axis, n in sizes.items()}
    return _put(builder, f"adaptive_{node.attributes['kind']}_pool2d", view, builder.shape(node),
                output_size=(wanted.get("H"), wanted.get("W")))


def expand(builder: Builder, node: Node) -> View:
    return expanded(builder, builder.view(node, 0), builder.shape(node))


def expanded(builder: Builder, view: View, shape: Sequence[int], suffix: str = "") -> View:
    """Repeat axes of size 1 to a shape."""
    view = replace(view, shape=(1,) * (len(shape) - len(view.shape)) + view.shape)
    longer = [axis for axis, (n, m) in enumerate(zip(view.shape, shape)) if n != m]
    while longer:
        some, longer = longer[-2:], longer[:-2]
        rank = len(shape)
        view, letters = _on_planes(builder, view, some, "repeats")
        times = {letters[axis]: shape[axis] for axis in some}
        now = [shape[i] if i in some or i not in longer else 1 for i in range(rank)]
        view = _put(builder, "upsample", view, now, suffix=suffix or ("repeat" if longer else ""),
                    scale=(times.get("H", 1), times.get("W", 1)))
        builder.drafts[view.draft].sized = True
    return view


def tile(builder: Builder, node: Node) -> View:
    """Repeat the whole value along its axes, one axis after the other."""
    view, times = builder.view(node, 0), builder.ints(node, "repeats", 1)
    if times is None or len(times) != len(view.shape):
        raise CannotImportError("it does not have one number of repeats for each axis")
    shape = builder.shape(node)
    ones = tuple(m if n == 1 else n for n, m in zip(view.shape, shape))
    view = expanded(builder, view, ones)
    for axis, count in enumerate(times):
        if view.shape[axis] != shape[axis]:
            view = repeated(builder, view, count, axis)
            builder.drafts[view.draft].sized = True
    return view
