"""Activation functions of Keras, as layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import shown
from .keras_building import Builder, UnsupportedError, Value, reordered
from .keras_graph import Node

__all__ = ["FUNCTION_LAYERS", "activated", "applied"]

# Name in Keras -> type and parameters of the layer.
_FUNCTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("relu", {}),
    "relu6": ("clip", {"min": 0.0, "max": 6.0}),
    "leaky_relu": ("leaky_relu", {"negative_slope": 0.2}),
    "elu": ("elu", {}),
    "celu": ("elu", {}),
    "selu": ("selu", {}),
    "gelu": ("gelu", {}),
    "sigmoid": ("sigmoid", {}),
    "tanh": ("tanh", {}),
    "hard_tanh": ("clip", {"min": -1.0, "max": 1.0}),
    "silu": ("silu", {}),
    "swish": ("silu", {}),
    "hard_silu": ("hardswish", {}),
    "hard_swish": ("hardswish", {}),
    "softplus": ("softplus", {}),
    "softsign": ("softsign", {}),
    "mish": ("mish", {}),
    "exponential": ("exp", {}),
}
_SOFTMAXES = ("softmax", "log_softmax")
# Classes of `keras.ops` -> name of the function in Keras, or type of the layer.
_OPERATIONS = {
    "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Tanh": "tanh", "Silu": "silu",
    "Softplus": "softplus", "Softsign": "softsign", "Elu": "elu", "Selu": "selu", "Gelu": "gelu",
    "LeakyRelu": "leaky_relu", "HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu",
    "HardTanh": "hard_tanh", "LogSoftmax": "log_softmax", "Exp": "exp", "Log": "log",
    "Sqrt": "sqrt", "Square": "square", "Absolute": "abs", "Abs": "abs",
}


def activated(node: Node, build: Builder, value: Value) -> Value:
    """Add the `activation` of a layer to its output, as a layer `<name>.activation`."""
    return applied(node, build, f"{node.name}.activation", value, node.config.get("activation"))


def applied(node: Node, build: Builder, name: str, value: Value, function: Any) -> Value:
    """Add an activation function of Keras, given by name or config, as a layer called `name`.

    The linear function adds no layer.
    """
    if isinstance(function, Mapping):
        kind, config = function.get("class_name"), function.get("config")
        if isinstance(config, Mapping) and kind in FUNCTION_LAYERS:
            inner = Node(name, str(kind), config, node.path, node.inputs)
            # Its arrays would be looked for among those of the layer around it.
            if kind == "PReLU":
                raise UnsupportedError("its activation is a layer with weights of its own")
            return FUNCTION_LAYERS[str(kind)](inner, build, value)
        registered = function.get("registered_name")
        builtin = registered is None or registered == config
        function = config if kind == "function" and builtin else function
    if function is None or function == "linear":
        return value
    if function in _SOFTMAXES:
        value = build.channels_at(node, value, -1)
        return build.add(function, name, value, order=value.order)
    if function == "hard_sigmoid":
        return _hard_sigmoid(build, name, value)
    if not isinstance(function, str) or function not in _FUNCTIONS:
        raise UnsupportedError(f"its activation is {shown(function)}, for which there is no layer")
    kind, parameters = _FUNCTIONS[function]
    return build.add(kind, name, value, parameters, order=value.order)


def _hard_sigmoid(build: Builder, name: str, value: Value) -> Value:
    """x / 6 + 0.5 since Keras 3, 0.2 x + 0.5 before; clipped to 0 and 1."""
    if build.major is None:
        raise UnsupportedError(
            "hard_sigmoid changed with Keras 3, and the file does not say which Keras wrote it"
        )
    if build.major >= 3:
        return build.add("hardsigmoid", name, value, order=value.order)
    value = build.scaled(f"{name}.line", value, 0.2, 0.5)
    return build.add("clip", name, value, {"min": 0.0, "max": 1.0}, order=value.order)


def _number(config: Mapping[str, Any], *keys: str, default: float = 0.0) -> float:
    """A parameter, by any of its names; TensorFlow's Keras writes some as arrays."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, Mapping):
            value = value.get("value", value.get("config"))
        if value is not None:
            if type(value) not in (int, float):
                raise UnsupportedError(f"{key} is {shown(value)}, wanted a number")
            return float(value)
    return default


def _activation(node: Node, build: Builder, value: Value) -> Value:
    made = applied(node, build, node.name, value, node.config.get("activation"))
    return build.same(node.name, value) if made is value else made


def _relu(node: Node, build: Builder, value: Value) -> Value:
    slope = _number(node.config, "negative_slope", "alpha")
    largest = node.config.get("max_value")
    if _number(node.config, "threshold"):
        raise UnsupportedError("its threshold is not 0")
    if largest is None:
        kind, parameters = ("leaky_relu", {"negative_slope": slope}) if slope else ("relu", {})
        return build.add(kind, node.name, value, parameters, order=value.order)
    ends: dict[str, Any] = {"max": _number(node.config, "max_value")}
    if slope:
        parameters = {"negative_slope": slope}
        value = build.add(
            "leaky_relu", f"{node.name}.slope", value, parameters, order=value.order
        )
    else:
        ends["min"] = 0.0
    return build.add("clip", node.name, value, ends, order=value.order)


def _leaky(node: Node, build: Builder, value: Value) -> Value:
    slope = _number(node.config, "negative_slope", "alpha", default=0.3)
    return build.add(
        "leaky_relu", node.name, value, {"negative_slope": slope}, order=value.order
    )


def _elu(node: Node, build: Builder, value: Value) -> Value:
    alpha = _number(node.config, "alpha", default=1.0)
    return build.add("elu", node.name, value, {"alpha": alpha}, order=value.order)


def _softmax(node: Node, build: Builder, value: Value) -> Value:
    axis = node.config.get("axis", -1)
    if value.letter(axis) != "C":
        value = build.channels_at(node, value, axis[0] if isinstance(axis, (list, tuple)) else axis)
    return build.add("softmax", node.name, value, order=value.order)


def _operation(function: str) -> Callable[[Node, Builder, Value], Value]:
    """The converter of a function of `keras.ops`."""

    def convert(node: Node, build: Builder, value: Value) -> Value:
        if function == "elu":
            return _elu(node, build, value)
        if function == "leaky_relu":
            return _leaky(node, build, value)
        if function == "gelu":
            form = "tanh" if node.config.get("approximate", True) else "none"
            return build.add("gelu", node.name, value, {"approximate": form}, order=value.order)
        if function in _SOFTMAXES:
            value = build.channels_at(node, value, node.config.get("axis", -1))
            return build.add(function, node.name, value, order=value.order)
        if function in _FUNCTIONS or function == "hard_sigmoid":
            return applied(node, build, node.name, value, function)
        return build.add(function, node.name, value, order=value.order)

    return convert


def _prelu(node: Node, build: Builder, value: Value) -> Value:
    (alpha,) = build.arrays(node, "alpha")
    sizes = dict(zip(value.axes, alpha.shape))
    if alpha.ndim != len(value.axes):
        raise UnsupportedError(f"it has slopes of shape {alpha.shape}")
    if any(sizes[a] != 1 for a in value.axes if a != "C"):
        return _prelu_at_places(node, build, value, alpha)
    weight = np.reshape(alpha, -1)
    if weight.size > 1:
        weight = reordered(weight, value)
    return build.add("prelu", node.name, value, arrays={"weight": weight}, order=value.order)


def _prelu_at_places(
    node: Node, build: Builder, value: Value, alpha: NDArray[Any]
) -> Value:
    """A PReLU whose slopes differ from place to place: x + (slope - 1) min(x, 0)."""
    named = [(axis, n) for axis, n in zip(value.axes, alpha.shape) if n > 1]
    order = sorted(range(len(named)), key=lambda i: named[i][0])
    scale = (alpha.reshape([n for _, n in named]) - 1).transpose(order)
    letters = "".join(named[i][0] for i in order)
    below = build.add("clip", f"{node.name}.below", value, {"max": 0.0})
    arrays = {"weight": scale, "bias": np.zeros_like(scale)}
    scaled = build.add(
        "affine", f"{node.name}.slopes", below, {"axis": letters}, arrays=arrays
    )
    return build.add("add", node.name, [value, scaled])


#: Layers that apply a function to each value.
FUNCTION_LAYERS: dict[str, Callable[[Node, Builder, Value], Value]] = {
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _leaky,
    "PReLU": _prelu,
    "ELU": _elu,
    "Softmax": _softmax,
    **{kind: _operation(name) for kind, name in _OPERATIONS.items()},
}
