"""Convolutions and matrix products."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..building import Builder, CannotImportError
from ..graph import Node
from ..views import Letters, View

__all__ = ["conv", "conv_transpose", "dense", "depends_on_size", "gemm", "linear", "over_window",
           "window"]

_PLANES: dict[int, Letters] = {3: (None, "C", "W"), 4: (None, "C", "H", "W")}


def over_window(builder: Builder, node: Node, rank: int) -> View:
    """The first input with its axes in the order for windows; of rank 3 it is (C, 1, W)."""
    view = builder.view(node, 0)
    if rank not in _PLANES:
        raise CannotImportError(f"its window has {rank - 2} axes, wanted one or two")
    if len(view.shape) != rank:
        raise CannotImportError(f"its input has the shape {view.shape}, wanted {rank} axes")
    return builder.settle(view, _PLANES[rank])


def window(node: Node, spatial: int, size: tuple[int, ...], kernel: tuple[int, ...],
           *, ceil: bool = False) -> dict[str, Any]:
    """Stride, padding and dilation of a window over one or two axes, as a layer has them."""
    given = node.attributes
    strides = [int(n) for n in given.get("strides", [1] * spatial)]
    dilations = [int(n) for n in given.get("dilations", [1] * spatial)]
    pads = [int(n) for n in given.get("pads", [0] * 2 * spatial)]
    if len(strides) != spatial or len(dilations) != spatial or len(pads) != 2 * spatial:
        raise CannotImportError(
            f"it does not have strides, dilations and pads for its {spatial} axes"
        )
    if min(pads) < 0:
        raise CannotImportError("it has negative pads")
    auto = given.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        for i in range(spatial):
            out = -(-size[i] // strides[i])
            need = max(0, (out - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - size[i])
            small, large = need // 2, need - need // 2
            pads[i], pads[spatial + i] = (small, large) if auto == "SAME_UPPER" else (large, small)
    elif auto == "VALID":
        pads = [0] * 2 * spatial
    sides = [(pads[i], pads[spatial + i]) for i in range(spatial)]
    if spatial == 1:
        strides, dilations, sides = [1, *strides], [1, *dilations], [(0, 0), *sides]
    plain: Any = tuple(sides)
    if auto == "SAME_UPPER" and not ceil:
        plain = "same"
    elif all(first == last for first, last in sides):
        plain = (sides[0][0], sides[1][0])
        plain = plain[0] if plain[0] == plain[1] else plain
    return {"stride": _short(strides), "padding": plain, "dilation": _short(dilations)}


def depends_on_size(node: Node, made: Mapping[str, Any]) -> bool:
    """Whether the pads of a window, as `window` made them, hold for this size alone."""
    automatic = node.attributes.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    return automatic and made["padding"] != "same" and made["stride"] != 1


def _short(pair: list[int]) -> Any:
    return pair[0] if pair[0] == pair[1] else tuple(pair)


def _weight(builder: Builder, node: Node) -> NDArray[np.float32]:
    weight = builder.needed(node, 1)
    return weight[:, :, None] if weight.ndim == 3 else weight


def _with_bias(builder: Builder, node: Node, weight: NDArray[Any]) -> dict[str, Any]:
    bias = builder.floats(node, 2)
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias.reshape(-1)}


def conv(builder: Builder, node: Node) -> View:
    rank = builder.needed(node, 1).ndim
    view = builder.view(node, 0)
    # Rows in the place of the batch, as where every band is smoothed alike, become H.
    in_rows = rank == len(view.shape) == 3 and view.shape[0] > 1
    view = builder.settle(view, ("H", "C", "W")) if in_rows else over_window(builder, node, rank)
    weight = _weight(builder, node)
    kernel = weight.shape[2:][-(rank - 2):]
    arrays = _with_bias(builder, node, weight)
    plain = window(node, rank - 2, view.shape[2:], kernel)
    draft = builder.put(
        "conv2d", view, arrays, bias="bias" in arrays, groups=int(node.attributes.get("group", 1)),
        **plain,
    )
    builder.drafts[draft].sized = depends_on_size(node, plain)
    if in_rows:
        c, h, w = builder.drafts[draft].sizes
        return builder.read(draft, "HCW", (h, c, w))
    return _planes(builder, draft, rank)


def conv_transpose(builder: Builder, node: Node) -> View:
    rank = builder.needed(node, 1).ndim
    view = over_window(builder, node, rank)
    weight = _weight(builder, node)
    given, spatial = node.attributes, rank - 2
    plain = _window_of_transposed(builder, node, view, weight.shape[2:][-spatial:])
    extra = [int(n) for n in given.get("output_padding", [0] * spatial)]
    arrays = _with_bias(builder, node, weight)
    draft = builder.put(
        "conv_transpose2d", view, arrays, bias="bias" in arrays,
        groups=int(given.get("group", 1)),
        output_padding=_short([0, *extra] if spatial == 1 else extra), **plain,
    )
    builder.drafts[draft].sized = "output_shape" in given
    return _planes(builder, draft, rank)


def _window_of_transposed(
    builder: Builder, node: Node, view: View, kernel: tuple[int, ...]
) -> dict[str, Any]:
    """The window of a transposed convolution; its pads may be implied by its output's shape."""
    spatial = len(view.shape) - 2
    given = dict(node.attributes)
    auto = given.pop("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER") or "output_shape" in given:
        wanted = builder.shape(node)[2:]
        strides = given.get("strides", [1] * spatial)
        dilations = given.get("dilations", [1] * spatial)
        extra = given.get("output_padding", [0] * spatial)
        pads = [0] * 2 * spatial
        for i in range(spatial):
            reach = (kernel[i] - 1) * dilations[i] + 1
            cut = (view.shape[2 + i] - 1) * strides[i] + reach + extra[i] - wanted[i]
            first = cut // 2 if auto == "SAME_UPPER" else cut - cut // 2
            pads[i], pads[spatial + i] = first, cut - first
        given["pads"] = pads
    return window(replace(node, attributes=given), spatial, view.shape[2:], kernel)


def _planes(builder: Builder, draft: int, rank: int) -> View:
    c, h, w = builder.drafts[draft].sizes
    return builder.read(draft, "CHW", (1, c, h, w) if rank == 4 else (1, c, w))


def gemm(builder: Builder, node: Node) -> View:
    given = node.attributes
    if given.get("transA", 0):
        raise CannotImportError("it transposes its input")
    view, matrix = builder.view(node, 0), builder.needed(node, 1)
    weight = (matrix if given.get("transB", 0) else matrix.T) * np.float32(given.get("alpha", 1.0))
    bias = builder.floats(node, 2)
    if bias is not None:
        bias = bias * np.float32(given.get("beta", 1.0))
    return dense(builder, view, weight, bias)


def linear(builder: Builder, node: Node) -> View:
    matrix = builder.needed(node, 1)
    return dense(builder, builder.view(node, 0), matrix.T, builder.floats(node, 2))


def dense(
    builder: Builder, view: View, weight: NDArray[Any], bias: NDArray[Any] | None
) -> View:
    """Multiply the last axis by a matrix (out, in): a linear layer, or a 1 x 1 convolution."""
    if weight.ndim != 2 or not view.shape or view.shape[-1] != weight.shape[1]:
        raise CannotImportError(f"its matrix {weight.shape} does not fit its input {view.shape}")
    if bias is not None:
        if bias.size not in (1, len(weight)):
            raise CannotImportError(f"its bias has the shape {bias.shape}, wanted {len(weight)}")
        bias = np.broadcast_to(bias.reshape(-1), (len(weight),))
    shape = (*view.shape[:-1], len(weight))
    if sum(n > 1 for n in view.shape[:-1]) > 2:
        view = replace(view, shape=(math.prod(view.shape[:-1]), view.shape[-1]))
    others = [i for i, n in enumerate(view.shape[:-1]) if n > 1]
    arrays = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    if not others:
        view, arrays["weight"] = _flat(builder, view, weight)
        draft = builder.put("linear", view, arrays, bias=bias is not None)
        return builder.read(draft, "CHW", shape)
    letters = _last_as_channels(builder, view, others)
    view = builder.settle(view, letters)
    arrays["weight"] = weight[:, :, None, None]
    draft = builder.put("conv2d", view, arrays, bias=bias is not None)
    return builder.read(draft, view.order, shape)


def _flat(builder: Builder, view: View, weight: NDArray[Any]) -> tuple[View, NDArray[Any]]:
    """A flat view, and the matrix with its columns in the order of the layer's values."""
    letters = (*[None] * (len(view.shape) - 1), "C")
    if view.in_order or view.letters is not None:
        return builder.settle(view, letters), weight
    columns = np.arange(weight.shape[1]).reshape([view.size(letter) for letter in view.order])
    own = columns.transpose([view.order.index(letter) for letter in "CHW"]).reshape(-1)
    return builder.settle(replace(view, order="CHW"), letters), weight[:, own]


def _last_as_channels(builder: Builder, view: View, others: list[int]) -> Letters:
    """Letters with C for the last axis; the other axes keep theirs if possible."""
    have = view.letters
    letters: list[str | None] = [None] * len(view.shape)
    letters[-1] = "C"
    free = ["H", "W"]
    for place in others:
        if have is not None and have[place] in free:
            letters[place] = have[place]
            free.remove(str(have[place]))
    for place in reversed(others):
        if letters[place] is None:
            letters[place] = free.pop()
    return tuple(letters)
