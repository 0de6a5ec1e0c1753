"""Normalisation layers of Keras, with stored statistics or with those of the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArchiveError, shown
from .keras_building import Builder, UnsupportedError, Value, reordered
from .keras_graph import Node

__all__ = ["NORMALISING_LAYERS"]

Array = NDArray[Any]

# Keras divides by no smaller standard deviation than this.
_LEAST_DEVIATION = 1e-7


def _scale_and_shift(node: Node, build: Builder, *more: str) -> tuple[Any, Any, list[Array]]:
    """gamma and beta (None if the layer has none), and other arrays."""
    roles = [role for role, key in (("gamma", "scale"), ("beta", "center"))
             if node.config.get(key, True)]
    arrays = dict(zip([*roles, *more], build.arrays(node, *roles, *more)))
    return arrays.get("gamma"), arrays.get("beta"), [arrays[role] for role in more]


def _batch_norm(node: Node, build: Builder, value: Value) -> Value:
    if node.config.get("mode", 0) != 0:
        raise UnsupportedError(
            f"its mode is {shown(node.config['mode'])}, which does not use the stored statistics"
        )
    axis = value.letter(node.config.get("axis", -1))
    gamma, beta, (mean, variance) = _scale_and_shift(
        node, build, "moving_mean", "moving_variance"
    )
    arrays = {
        "weight": np.ones_like(mean) if gamma is None else gamma,
        "bias": np.zeros_like(mean) if beta is None else beta,
        "running_mean": mean, "running_var": variance,
    }
    return build.add(
        "batch_norm2d", node.name, value, {"eps": node.config.get("epsilon", 1e-3), "axis": axis},
        arrays={key: reordered(array, value) for key, array in arrays.items()}, order=value.order,
    )


def _layer_norm(node: Node, build: Builder, value: Value) -> Value:
    if node.config.get("rms_scaling"):
        raise UnsupportedError("it has rms_scaling, for which there is no layer")
    axis = node.config.get("axis", -1)
    letters = [value.letter(n) for n in (axis if isinstance(axis, (list, tuple)) else [axis])]
    letters.sort(key=value.axes.index)
    gamma, beta, _ = _scale_and_shift(node, build)
    parameters = {
        "axes": "".join(letters), "eps": node.config.get("epsilon", 1e-3),
        "affine": gamma is not None or beta is not None,
    }
    arrays = {}
    if gamma is not None or beta is not None:
        whole = gamma if gamma is not None else beta
        for key, array, start in (("weight", gamma, 1.0), ("bias", beta, 0.0)):
            filled = np.full_like(whole, start) if array is None else array
            if filled.ndim != len(letters):
                raise ArchiveError(
                    f"layer {shown(node.name)}: found an array of shape {filled.shape}, wanted "
                    f"{len(letters)} axes"
                )
            order = sorted(range(len(letters)), key=lambda i: "CHW".index(letters[i]))
            arrays[key] = reordered(filled.transpose(order), value)
    return build.add("layer_norm", node.name, value, parameters, arrays=arrays, order=value.order)


def _group_norm(node: Node, build: Builder, value: Value) -> Value:
    axis = node.config.get("axis", -1)
    if value.letter(axis) != "C":
        raise UnsupportedError(f"it works along axis {shown(axis)}, which is not the channels")
    value = build.in_order(node, value)
    gamma, beta, _ = _scale_and_shift(node, build)
    groups = node.config.get("groups", 32)
    if groups == -1:
        groups = value.shape[0]
    parameters = {"groups": groups, "eps": node.config.get("epsilon", 1e-3), "affine": True}
    if gamma is None and beta is None:
        return build.add("group_norm", node.name, value, {**parameters, "affine": False})
    whole = gamma if gamma is not None else beta
    arrays = {
        "weight": np.ones_like(whole) if gamma is None else gamma,
        "bias": np.zeros_like(whole) if beta is None else beta,
    }
    return build.add("group_norm", node.name, value, parameters, arrays=arrays)


def _normalization(node: Node, build: Builder, value: Value) -> Value:
    """Normalization: a mean and a variance that were adapted to data, or are in the config."""
    if node.config.get("invert"):
        raise UnsupportedError("it has invert=True, for which there is no layer")
    axis = node.config.get("axis", -1)
    numbers = [node.config.get(key) for key in ("mean", "variance")]
    if numbers == [None, None]:
        mean, variance, _ = build.arrays(node, "mean", "variance", "count")
    elif all(type(n) in (int, float) for n in numbers):
        mean, variance = (np.array(n, np.float32) for n in numbers)
    else:
        raise UnsupportedError("the mean and variance in its config are not two numbers")
    if mean.shape != variance.shape or variance.min(initial=0) < 0:
        raise ArchiveError(
            f"layer {shown(node.name)}: found a mean of shape {mean.shape} and a variance of "
            f"shape {variance.shape} and minimum {variance.min(initial=0):g}, wanted the same "
            "shape and no negative variance"
        )
    scale = 1 / np.maximum(np.sqrt(variance), _LEAST_DEVIATION)
    if mean.size == 1:
        return build.scaled(node.name, value, scale.item(), (-mean * scale).item())
    letter = value.letter(axis)
    arrays = {"weight": scale.reshape(-1), "bias": (-mean * scale).reshape(-1)}
    return build.add(
        "affine", node.name, value, {"axis": letter},
        arrays={key: reordered(array, value) for key, array in arrays.items()}, order=value.order,
    )


#: Normalisation layers.
NORMALISING_LAYERS: dict[str, Callable[[Node, Builder, Value], Value]] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "Normalization": _normalization,
}
