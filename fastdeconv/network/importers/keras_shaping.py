"""Layers of Keras without weights: pools, padding, reshaping, and layers with several inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import ArchiveError, shown
from .keras_building import Builder, UnsupportedError, Value
from .keras_graph import Node
from .keras_layers import channel_axis, numbers, pair, slid

__all__ = ["JOINING_LAYERS", "NOTHING", "SHAPING_LAYERS"]

#: Layers that do something only during training.
NOTHING = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout",
    "AlphaDropout", "ActivityRegularization", "Identity",
)


def _nothing(node: Node, build: Builder, value: Value) -> Value:
    return build.same(node.name, value)


def _pool(kind: str, rank: int) -> Callable[[Node, Builder, Value], Value]:
    def convert(node: Node, build: Builder, value: Value) -> Value:
        value, letters = slid(node, build, value, rank)
        size = numbers(node, "pool_size", rank, 2)
        padding = node.config.get("padding", "valid")
        if padding not in ("same", "valid"):
            raise UnsupportedError(f"its padding is {shown(padding)}, wanted 'same' or 'valid'")
        if padding == "same" and build.flipped:
            raise UnsupportedError("pools of Theano with padding 'same' cannot be imported")
        return build.add(kind, node.name, value, {
            "kernel_size": pair(letters, size),
            "stride": pair(letters, numbers(node, "strides", rank, size)), "padding": padding,
        })

    return convert


def _global_pool(kind: str, rank: int) -> Callable[[Node, Builder, Value], Value]:
    def convert(node: Node, build: Builder, value: Value) -> Value:
        value, _ = slid(node, build, value, rank)
        axes = value.axes if node.config.get("keepdims") else "C"
        return build.add(kind, node.name, value, axes=axes)

    return convert


def _sides(node: Node, key: str, rank: int) -> list[tuple[int, int]]:
    """The sizes at both ends of each axis, from an int, ints or pairs."""
    value = node.config.get(key, 1)
    if rank == 1 and isinstance(value, (list, tuple)) and len(value) == 2:
        value = [value]
    if rank == 2 and isinstance(value, (list, tuple)) and len(value) == 4:
        value = [value[:2], value[2:]]  # Keras 1
    found = list(value) if isinstance(value, (list, tuple)) else [value] * rank
    sides = [tuple(n) if isinstance(n, (list, tuple)) else (n, n) for n in found]
    plain = all(len(side) == 2 and all(type(n) is int and n >= 0 for n in side) for side in sides)
    if len(sides) != rank or not plain:
        raise ArchiveError(
            f"layer {shown(node.name)}: found {key} {shown(value)}, wanted two ints for each of "
            f"{rank} axes"
        )
    return [(side[0], side[1]) for side in sides]


def _zero_padding(rank: int) -> Callable[[Node, Builder, Value], Value]:
    def convert(node: Node, build: Builder, value: Value) -> Value:
        value, letters = slid(node, build, value, rank)
        sides = pair(letters, _sides(node, "padding", rank), (0, 0))
        return build.add("pad", node.name, value, {"padding": sides})

    return convert


def _cropping(rank: int) -> Callable[[Node, Builder, Value], Value]:
    def convert(node: Node, build: Builder, value: Value) -> Value:
        value, letters = slid(node, build, value, rank)
        cuts = [
            (letter, side) for letter, side in zip(letters, _sides(node, "cropping", rank))
            if side != (0, 0)
        ]
        for i, (letter, (first, last)) in enumerate(cuts):
            name = node.name if i == len(cuts) - 1 else f"{node.name}.{letter}"
            value = build.add("slice", name, value, {
                "axis": letter, "start": first, "stop": -last if last else None,
            })
        return value if cuts else build.same(node.name, value)

    return convert


def _upsampling(rank: int) -> Callable[[Node, Builder, Value], Value]:
    def convert(node: Node, build: Builder, value: Value) -> Value:
        value, letters = slid(node, build, value, rank)
        scale = pair(letters, numbers(node, "size", rank, 2))
        return build.add("upsample", node.name, value, {"scale": scale, **_interpolation(node)})

    return convert


def _interpolation(node: Node, usual: str = "nearest") -> dict[str, Any]:
    mode = node.config.get("interpolation", usual)
    if mode not in ("nearest", "bilinear"):
        raise UnsupportedError(f"its interpolation is {shown(mode)}, wanted nearest or bilinear")
    return {"mode": mode}


def _resizing(node: Node, build: Builder, value: Value) -> Value:
    odd = [key for key in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias")
           if node.config.get(key)]
    if odd:
        raise UnsupportedError(f"it has {odd[0]}=True, for which there is no layer")
    value, letters = slid(node, build, value, 2)
    sizes = [numbers(node, key, 1)[0] for key in ("height", "width")]
    parameters = _interpolation(node, "bilinear")
    if parameters["mode"] == "nearest":
        raise UnsupportedError("its interpolation is 'nearest', wanted 'bilinear'")
    return build.add("upsample", node.name, value, {"size": pair(letters, sizes), **parameters})


def _repeat_vector(node: Node, build: Builder, value: Value) -> Value:
    if len(value.axes) != 1 or value.shape[1:] != (1, 1):
        raise UnsupportedError(f"its input has {len(value.axes) + 1} axes, wanted 2")
    value = build.in_order(node, value)
    (count,) = numbers(node, "n", 1)
    return build.add("upsample", node.name, value, {"scale": (1, count)}, axes="WC")


def _rescaling(node: Node, build: Builder, value: Value) -> Value:
    scale, offset = node.config.get("scale", 1.0), node.config.get("offset", 0.0)
    if any(type(n) not in (int, float) for n in (scale, offset)):
        raise UnsupportedError("its scale or offset is not one number")
    return build.scaled(node.name, value, float(scale), float(offset))


def _flatten(node: Node, build: Builder, value: Value) -> Value:
    if len(value.axes) == 1:
        return build.same(node.name, value)
    axes = value.axes
    if channel_axis(node) == 1:
        # Keras moves the channels to the end before it flattens.
        axes = axes[1:] + axes[0]
    return build.flattened(node.name, value, axes)


def _permute(node: Node, build: Builder, value: Value) -> Value:
    rank = len(value.axes)
    dims = numbers(node, "dims", rank)
    if sorted(dims) != list(range(1, rank + 1)):
        raise ArchiveError(f"layer {shown(node.name)}: found dims {shown(dims)}")
    return build.same(node.name, value, "".join(value.axes[n - 1] for n in dims))


def _reshape(node: Node, build: Builder, value: Value) -> Value:
    target = node.config.get("target_shape")
    if (
        not isinstance(target, (list, tuple))
        or not all(n is None or (type(n) is int and n >= -1 and n != 0) for n in target)
    ):
        raise ArchiveError(f"layer {shown(node.name)}: found target_shape {shown(target)}")
    sizes = [-1 if n is None else n for n in target]
    if not 1 <= len(sizes) <= 3:
        raise UnsupportedError(f"its target has {len(sizes) + 1} axes")
    found = value.sizes
    if len(sizes) == 1 and len(found) > 1:
        return build.flattened(node.name, value)
    count = math.prod(n for n in found if n is not None)
    known = math.prod(n for n in sizes if n != -1)
    if None not in found and sizes.count(-1) == 1 and count % known == 0:
        sizes[sizes.index(-1)] = count // known
    axes = _relabelled(value, sizes, build.wanted.get(node.name))
    if axes is not None:
        return build.same(node.name, value, axes)
    value = build.in_order(node, value)
    found = value.sizes
    if None in found and sizes.count(-1) != 1:
        raise UnsupportedError("the sizes of its input are not known; give input_shape=(C, H, W)")
    # First in the order in which Keras reads the values, then in the new shape.
    ordered = build.with_axes(node, value, "CHW"[: len(found)])
    shape = [*sizes, 1, 1][:3]
    return build.add(
        "reshape", node.name, ordered, {"shape": shape}, axes="CHW"[: len(sizes)]
    )


def _relabelled(value: Value, sizes: Sequence[int], wanted: str | None) -> str | None:
    """The letters of the new axes if only axes of size 1 are added or removed, else None."""
    long = [(axis, n) for axis, n in zip(value.axes, value.sizes) if n != 1]
    new = [i for i, n in enumerate(sizes) if n != 1]
    fits = len(long) == len(new) and all(
        (sizes[i] == -1 and n is None) or sizes[i] == n for i, (_, n) in zip(new, long)
    )
    if not fits or sum(n is None for _, n in long) > 1 or value.order is not None:
        return None
    letters: list[str] = [""] * len(sizes)
    for i, (axis, _) in zip(new, long):
        letters[i] = axis
    standard = wanted or {1: "C", 2: "WC", 3: "HWC"}[len(sizes)]
    # Axes of size 1 get the letters that suit the next layer, if these are free.
    for i, letter in enumerate(letters):
        if not letter and i < len(standard) and standard[i] not in letters:
            letters[i] = standard[i]
    for i, letter in enumerate(letters):
        if not letter:
            letters[i] = next(axis for axis in "CHW" if axis not in letters)
    return "".join(letters)


def _same_order(values: Sequence[Value]) -> Any:
    """The common order of flat values that are combined number by number."""
    first = values[0].order
    for value in values[1:]:
        other = value.order
        same = first is other or (
            first is not None and other is not None and np.array_equal(first, other)
        )
        if not same:
            raise UnsupportedError("its inputs are flattened from maps of different shapes")
    return first


def _joined(kind: str) -> Callable[[Node, Builder, Sequence[Value]], Value]:
    def convert(node: Node, build: Builder, values: Sequence[Value]) -> Value:
        values = build.aligned(node, values)
        order = _same_order(values)
        if kind == "average":
            total = build.add("add", f"{node.name}.sum", values, order=order)
            return build.scaled(node.name, total, 1 / len(values))
        if kind == "subtract":
            minus = build.scaled(f"{node.name}.minus", values[1], -1.0)
            return build.add("add", node.name, [values[0], minus], order=order)
        return build.add(kind, node.name, values, order=order)

    return convert


def _concatenate(node: Node, build: Builder, values: Sequence[Value]) -> Value:
    values = build.aligned(node, values)
    axis = node.config.get("axis", -1)
    letter = values[0].letter(axis)
    order = None
    if any(value.order is not None for value in values):
        parts, begin = [], 0
        for value in values:
            if value.shape[0] is None:
                raise UnsupportedError("the sizes of its inputs are not known; give input_shape=")
            own = np.arange(value.shape[0]) if value.order is None else value.order
            parts.append(own + begin)
            begin += value.shape[0]
        order = np.concatenate(parts)
    return build.add("concat", node.name, values, {"axis": letter}, order=order)


def _reduction(kind: str) -> Callable[[Node, Builder, Value], Value]:
    """The converter of a mean or maximum of `keras.ops` over some axes."""

    def convert(node: Node, build: Builder, value: Value) -> Value:
        value = build.in_order(node, value)
        given = node.config.get("axis")
        axes = given if isinstance(given, (list, tuple)) else [given]
        gone = {value.letter(axis) for axis in axes}
        kept = "".join(axis for axis in value.axes if axis not in gone)
        if node.config.get("keepdims"):
            kept = value.axes
        if not kept:
            kept = "C" if "C" in value.axes else value.axes[0]
        letters = "".join(axis for axis in "CHW" if axis in gone)
        return build.add(kind, node.name, value, {"axes": letters}, axes=kept)

    return convert


#: Layers with one input and without weights.
SHAPING_LAYERS: dict[str, Callable[[Node, Builder, Value], Value]] = {
    **dict.fromkeys(NOTHING, _nothing),
    **{
        f"{word}{rank}D": make(kind, rank)
        for rank in (1, 2)
        for word, make, kind in (
            ("MaxPooling", _pool, "max_pool2d"),
            ("AveragePooling", _pool, "avg_pool2d"),
            ("GlobalMaxPooling", _global_pool, "global_max_pool2d"),
            ("GlobalAveragePooling", _global_pool, "global_avg_pool2d"),
        )
    },
    **{
        f"{word}{rank}D": make(rank)
        for rank in (1, 2)
        for word, make in (
            ("ZeroPadding", _zero_padding), ("Cropping", _cropping), ("UpSampling", _upsampling),
        )
    },
    "Flatten": _flatten,
    "Permute": _permute,
    "Reshape": _reshape,
    "Mean": _reduction("reduce_mean"),
    "Max": _reduction("reduce_max"),
    "RepeatVector": _repeat_vector,
    "Rescaling": _rescaling,
    "Resizing": _resizing,
}

#: Layers with several inputs.
JOINING_LAYERS: dict[str, Callable[[Node, Builder, Sequence[Value]], Value]] = {
    "Add": _joined("add"),
    "Multiply": _joined("multiply"),
    "Maximum": _joined("maximum"),
    "Minimum": _joined("minimum"),
    "Average": _joined("average"),
    "Subtract": _joined("subtract"),
    "Concatenate": _concatenate,
}
