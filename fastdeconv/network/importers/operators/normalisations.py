"""Scales and shifts, with stored numbers or with statistics of the input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..building import Builder, CannotImportError
from ..graph import Node
from ..views import View, completed
from .scaling import plain, scaled_by
from .windows import over_window

__all__ = ["batch_norm", "group_norm", "group_normalization", "instance_norm",
           "layer_normalization", "local_response_norm", "scale_shift", "standardise"]


def batch_norm(builder: Builder, node: Node) -> View:
    if node.attributes.get("training_mode", 0):
        raise CannotImportError(
            "it is a batch norm in training; export the network after module.eval()"
        )
    view = builder.view(node, 0)
    shape, place = view.shape, 1 if len(view.shape) > 1 else 0
    view, groups = builder.grouped(view, [i > place for i in range(len(shape))], [place])
    view, letters = builder.letters(view)
    axis = completed(view, letters)[groups.index([place])]
    if axis is None:
        raise CannotImportError(f"its input {shape} has no axis for channels")
    names = ("weight", "bias", "running_mean", "running_var")
    arrays = {name: builder.needed(node, i) for i, name in enumerate(names, start=1)}
    made = builder.on(view, "batch_norm2d", arrays, axis=axis,
                      eps=plain(node.attributes.get("epsilon", 1e-5)))
    return replace(made, shape=shape)


def scale_shift(builder: Builder, node: Node) -> View:
    return scaled_by(
        builder, builder.view(node, 0), builder.needed(node, 1), builder.needed(node, 2)
    )


def instance_norm(builder: Builder, node: Node) -> View:
    view = over_window(builder, node, len(builder.view(node, 0).shape))
    scale, shift = builder.needed(node, 1), builder.needed(node, 2)
    affine = bool((scale != 1).any() or (shift != 0).any())
    return builder.on(view, "instance_norm", {"weight": scale, "bias": shift} if affine else {},
                      affine=affine, eps=plain(node.attributes.get("epsilon", 1e-5)))


def group_normalization(builder: Builder, node: Node) -> View:
    """ONNX's own operator; before version 21 it has one scale and shift for each group."""
    groups = int(node.attributes["num_groups"])
    view = over_window(builder, node, len(builder.view(node, 0).shape))
    scale, shift = builder.needed(node, 1), builder.needed(node, 2)
    channels = view.sizes[0]
    if len(scale) == groups:
        scale, shift = (np.repeat(array, channels // groups) for array in (scale, shift))
    return _grouped(builder, view, groups, node.attributes.get("epsilon", 1e-5), scale, shift)


def group_norm(builder: Builder, node: Node) -> View:
    view = over_window(builder, node, len(builder.view(node, 0).shape))
    scale, shift = builder.floats(node, 1), builder.floats(node, 2)
    given = node.attributes
    return _grouped(builder, view, int(given["groups"]), given["eps"], scale, shift)


def _grouped(builder: Builder, view: View, groups: int, eps: float,
             scale: NDArray[Any] | None, shift: NDArray[Any] | None) -> View:
    arrays: dict[str, Any] = {}
    if scale is not None:
        arrays = {"weight": scale, "bias": np.zeros_like(scale) if shift is None else shift}
    return builder.on(view, "group_norm", arrays, groups=groups, eps=plain(eps),
                      affine=scale is not None)


def layer_normalization(builder: Builder, node: Node) -> View:
    rank = len(builder.view(node, 0).shape)
    axes = list(range(int(node.attributes.get("axis", -1)) % rank, rank))
    return _standardised(builder, node, axes, node.attributes.get("epsilon", 1e-5))


def standardise(builder: Builder, node: Node) -> View:
    return _standardised(builder, node, node.attributes["axes"], node.attributes["eps"])


def _standardised(builder: Builder, node: Node, axes: list[int], eps: float) -> View:
    """Layer normalisation over axes of the file's array."""
    view = builder.view(node, 0)
    scale, shift = builder.floats(node, 1), builder.floats(node, 2)
    shape, own = view.shape, axes
    if axes == list(range(axes[0], axes[-1] + 1)):
        view, groups = builder.grouped(view, [i in axes for i in range(len(shape))])
        axes = [i for i, group in enumerate(groups) if group[0] in axes]
    view, letters = builder.letters(view)
    named = [axis for axis in axes if letters[axis]]
    if not named:
        raise CannotImportError("it normalises single values")
    arrays: dict[str, Any] = {}
    if scale is not None:
        full = [shape[axis] for axis in own]
        shift = np.zeros_like(scale) if shift is None else shift
        kept = [view.shape[axis] for axis in named]
        order = sorted(range(len(named)), key=lambda i: "CHW".index(str(letters[named[i]])))
        for key, array in (("weight", scale), ("bias", shift)):
            arrays[key] = np.broadcast_to(array, full).reshape(kept).transpose(order)
    text = "".join(letter for letter in "CHW" if letter in [letters[axis] for axis in named])
    made = builder.on(view, "layer_norm", arrays, axes=text, eps=plain(eps),
                      affine=scale is not None)
    return replace(made, shape=shape)


def local_response_norm(builder: Builder, node: Node) -> View:
    given = node.attributes
    size = int(given["size"])
    if size % 2 == 0:
        raise CannotImportError(f"it normalises over an even number of channels, {size}")
    view = over_window(builder, node, len(builder.view(node, 0).shape))
    return builder.on(view, "local_response_norm", size=size, alpha=plain(given.get("alpha", 1e-4)),
                      beta=plain(given.get("beta", 0.75)), k=plain(given.get("bias", 1.0)))
