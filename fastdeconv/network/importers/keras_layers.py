"""Convolutions and Dense layers of Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArchiveError, shown
from .keras_building import Builder, UnsupportedError, Value, reordered
from .keras_functions import activated
from .keras_graph import Node
from .keras_legacy import KERAS_1

__all__ = ["WEIGHTED_LAYERS", "channel_axis", "numbers", "pair", "slid", "spatial"]

Array = NDArray[Any]


def channel_axis(node: Node) -> int:
    """The axis of the channels (1 or -1), from the layer's `data_format`."""
    found = node.config.get("data_format")
    if found not in (None, "channels_last", "channels_first"):
        raise ArchiveError(
            f"layer {shown(node.name)}: found data_format {shown(found)}, wanted "
            "'channels_last' or 'channels_first'"
        )
    return 1 if found == "channels_first" else -1


def slid(node: Node, build: Builder, value: Value, rank: int) -> tuple[Value, str]:
    """The input of a layer whose window slides along `rank` axes, and the letters of these."""
    if len(value.axes) != rank + 1:
        raise UnsupportedError(f"its input has {len(value.axes) + 1} axes, wanted {rank + 2}")
    value = build.channels_at(node, value, channel_axis(node))
    return value, spatial(value)


def spatial(value: Value) -> str:
    """The letters of the axes that are not channels, in Keras's order."""
    return value.axes.replace("C", "")


def numbers(node: Node, key: str, count: int, default: Any = 1) -> list[int]:
    """A parameter as `count` numbers; a single number is repeated."""
    value = node.config.get(key)
    value = default if value is None else value
    found = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(found) != count or not all(type(n) is int for n in found):
        raise ArchiveError(
            f"layer {shown(node.name)}: found {key} {shown(value)}, wanted {count} ints"
        )
    return found


def pair(letters: str, values: Sequence[Any], default: Any = 1) -> tuple[Any, Any]:
    """Values for the axes `letters` as a pair, for rows and columns."""
    given = dict(zip(letters, values))
    return given.get("H", default), given.get("W", default)


def _planar(weight: Array, letters: str) -> Array:
    """A kernel whose last axes are `letters`, changed to end with rows and columns."""
    if letters == "WH":
        return weight.swapaxes(-1, -2)
    if letters == "HW":
        return weight
    return weight[..., None, :] if letters == "W" else weight[..., None]


def _kernel(node: Node, build: Builder, array: Array, rank: int) -> Array:
    """The kernel of a convolution in the order of Keras 2, (..., in, out); flipped if needed."""
    if KERAS_1 in node.config and rank == 1 and array.ndim == 4:
        (size,) = numbers(node, "kernel_size", 1)
        # Before Keras 1.1 the order was (out, in, steps, 1).
        if array.shape[:2] != (size, 1) or array.shape[3] != node.config["filters"]:
            array = array.transpose(2, 3, 1, 0)
        array = array[:, 0]
    elif KERAS_1 in node.config and channel_axis(node) == 1 and array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    if array.ndim != rank + 2:
        raise ArchiveError(
            f"layer {shown(node.name)}: found a kernel of shape {array.shape}, wanted "
            f"{rank + 2} axes"
        )
    return np.flip(array, tuple(range(rank))) if build.flipped else array


def _window(
    node: Node, build: Builder, kernel: Array, letters: str, *, dilates: bool = True
) -> dict[str, Any]:
    """Stride, dilation and padding of a convolution whose kernel begins with the axes `letters`."""
    rank = len(letters)
    strides = numbers(node, "strides", rank)
    dilation = numbers(node, "dilation_rate", rank) if dilates else [1] * rank
    word = node.config.get("padding", "valid")
    padding: Any = word
    extents = [(n - 1) * step + 1 for n, step in zip(kernel.shape[:rank], dilation)]
    if word == "causal" and rank == 1:
        padding = pair(letters, [(extents[0] - 1, 0)], (0, 0))
    elif word == "same" and build.flipped:
        # Theano pads equally for every stride; with an even kernel the extra row is at the top.
        padding = pair(letters, [(n // 2, (n - 1) // 2) for n in extents], (0, 0))
    elif word not in ("same", "valid"):
        raise UnsupportedError(f"its padding is {shown(word)}, wanted 'same' or 'valid'")
    return {
        "stride": pair(letters, strides), "dilation": pair(letters, dilation), "padding": padding,
    }


def _bias(node: Node) -> tuple[str, ...]:
    return ("bias",) if node.config.get("use_bias", True) else ()


def _with_bias(weight: Array, bias: Sequence[Array]) -> dict[str, Array]:
    return {"weight": weight, **({"bias": bias[0]} if bias else {})}


def _convolution(rank: int) -> Callable[[Node, Builder, Value], Value]:
    def convert(node: Node, build: Builder, value: Value) -> Value:
        value, letters = slid(node, build, value, rank)
        array, *bias = build.arrays(node, "kernel", *_bias(node))
        kernel = _kernel(node, build, array, rank)
        weight = _planar(np.moveaxis(kernel, (-1, -2), (0, 1)), letters)
        parameters = {
            **_window(node, build, kernel, letters), "groups": node.config.get("groups", 1),
            "bias": bool(bias),
        }
        out = build.add(
            "conv2d", node.name, value, parameters, arrays=_with_bias(weight, bias)
        )
        return activated(node, build, out)

    return convert


def _depthwise(node: Node, build: Builder, array: Array, letters: str) -> tuple[Array, Any]:
    """The weight and the parameters of a depthwise convolution."""
    rank = len(letters)
    kernel = _kernel(node, build, array, rank)
    if build.flipped and max(kernel.shape[:rank]) > 1:
        raise UnsupportedError("depthwise convolutions of Theano cannot be imported")
    inner, times = kernel.shape[rank:]
    weight = np.moveaxis(kernel, (-2, -1), (0, 1)).reshape(inner * times, 1, *kernel.shape[:rank])
    return _planar(weight, letters), {**_window(node, build, kernel, letters), "groups": inner}


def _depthwise_layer(rank: int) -> Callable[[Node, Builder, Value], Value]:
    def convert(node: Node, build: Builder, value: Value) -> Value:
        value, letters = slid(node, build, value, rank)
        array, *bias = build.arrays(node, "depthwise_kernel", *_bias(node))
        weight, parameters = _depthwise(node, build, array, letters)
        out = build.add(
            "conv2d", node.name, value, {**parameters, "bias": bool(bias)},
            arrays=_with_bias(weight, bias),
        )
        return activated(node, build, out)

    return convert


def _separable(rank: int) -> Callable[[Node, Builder, Value], Value]:
    def convert(node: Node, build: Builder, value: Value) -> Value:
        value, letters = slid(node, build, value, rank)
        deep, point, *bias = build.arrays(
            node, "depthwise_kernel", "pointwise_kernel", *_bias(node)
        )
        weight, parameters = _depthwise(node, build, deep, letters)
        value = build.add(
            "conv2d", f"{node.name}.depthwise", value, {**parameters, "bias": False},
            arrays={"weight": weight},
        )
        mixing = np.moveaxis(_kernel(node, build, point, rank), (-1, -2), (0, 1))
        out = build.add(
            "conv2d", node.name, value, {"bias": bool(bias)},
            arrays=_with_bias(_planar(mixing, letters), bias),
        )
        return activated(node, build, out)

    return convert


def _transposed(rank: int) -> Callable[[Node, Builder, Value], Value]:
    def convert(node: Node, build: Builder, value: Value) -> Value:
        if KERAS_1 in node.config or build.flipped:
            raise UnsupportedError(
                "transposed convolutions of Keras 1 or Theano cannot be imported"
            )
        value, letters = slid(node, build, value, rank)
        array, *bias = build.arrays(node, "kernel", *_bias(node))
        kernel = _kernel(node, build, array, rank)
        strides = numbers(node, "strides", rank)
        dilation = numbers(node, "dilation_rate", rank)
        given = node.config.get("output_padding")
        extra = None if given is None else numbers(node, "output_padding", rank)
        word = node.config.get("padding", "valid")
        if word not in ("same", "valid"):
            raise UnsupportedError(f"its padding is {shown(word)}")
        sides, more = [], []
        for i in range(rank):
            extent = (kernel.shape[i] - 1) * dilation[i] + 1
            if extra is None:
                cut = extent - strides[i] if word == "same" else min(0, extent - strides[i])
            else:
                cut = (2 * (extent // 2) if word == "same" else 0) - extra[i]
            sides.append((max(0, cut) // 2, max(0, cut) - max(0, cut) // 2))
            more.append(max(0, -cut))
        parameters = {
            "stride": pair(letters, strides), "dilation": pair(letters, dilation),
            "padding": pair(letters, sides, (0, 0)), "output_padding": pair(letters, more, 0),
            "bias": bool(bias),
        }
        # The order in Keras is (..., out, in).
        weight = _planar(np.moveaxis(kernel, (-1, -2), (0, 1)), letters)
        out = build.add(
            "conv_transpose2d", node.name, value, parameters, arrays=_with_bias(weight, bias)
        )
        return activated(node, build, out)

    return convert


def _dense(node: Node, build: Builder, value: Value) -> Value:
    kernel, *bias = build.arrays(node, "kernel", *_bias(node))
    if kernel.ndim != 2:
        raise ArchiveError(
            f"layer {shown(node.name)}: found a kernel of shape {kernel.shape}, wanted (in, out)"
        )
    flat = len(value.axes) == 1 and value.shape[1:] == (1, 1)
    if flat:
        weight = reordered(kernel.T, value)
    else:
        value = build.channels_at(node, value, -1)
        weight = kernel.T[:, :, None, None]
    out = build.add(
        "linear" if flat else "conv2d", node.name, value, {"bias": bool(bias)},
        arrays=_with_bias(weight, bias),
    )
    return activated(node, build, out)


#: Layers that multiply by learned weights.
WEIGHTED_LAYERS: dict[str, Callable[[Node, Builder, Value], Value]] = {
    "Conv1D": _convolution(1),
    "Conv2D": _convolution(2),
    "DepthwiseConv1D": _depthwise_layer(1),
    "DepthwiseConv2D": _depthwise_layer(2),
    "SeparableConv1D": _separable(1),
    "SeparableConv2D": _separable(2),
    "Conv1DTranspose": _transposed(1),
    "Conv2DTranspose": _transposed(2),
    "Dense": _dense,
}
