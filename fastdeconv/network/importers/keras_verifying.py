"""Compare a Keras model in memory with the network made from it, on random input.

Each layer of the model is called on the outputs of its inputs according to the graph, and its
output is compared with that of the network's layer. The last output is also compared with the
output of the model itself, so that the graph is checked too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ParameterError, shown
from ..network import Network
from .keras_building import Value
from .keras_graph import Graph, Node
from .keras_weights import LiveModel, Weights

__all__ = ["compare"]

Array = NDArray[Any]

# Largest accepted difference, as a share of the largest absolute value of a layer.
_TOLERANCE = 1e-4
# Heights and widths that are tried for sizes that may vary.
_SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


def compare(
    model: Any, weights: Weights, graph: Graph, values: Mapping[int, Value], net: Network
) -> str:
    """Compare every layer of `values`.

    Returns
    -------
    str
        The result in one line.

    Raises
    ------
    ParameterError
        If a layer differs. The message names the first one.
    """
    assert isinstance(weights, LiveModel)
    x = np.random.default_rng(0).normal(size=_shape(net)).astype(np.float32)
    trace = net.forward(x)
    start = next(place for place in values if graph.nodes[place].kind == "InputLayer")
    found = {start: _as_keras(x, values[start])[None]}
    last = max(values)
    largest, where = 0.0, ""
    for place, value in sorted(values.items()):
        if place == start:
            continue
        node = graph.nodes[place]
        taken = [found[i] for i in node.inputs]
        layer = weights.layer(node.path)
        # Operations such as x + y are not layers, and take several arguments.
        operation = not hasattr(layer, "get_weights")
        made = layer(*taken) if operation or len(taken) == 1 else layer(taken)
        found[place] = _numpy(made)
        off = _difference(node, found[place], trace[value.name], value)
        if off >= largest:
            largest, where = off, node.name
    whole = _whole(model, graph, last, found[start])
    if whole is not None:
        _difference(graph.nodes[last], whole, trace[values[last].name], values[last])
    return (
        f"{len(values) - 1} layers compared with Keras: equal to {largest:.0e} of their largest "
        f"value (worst: {where})"
    )


def _shape(net: Network) -> tuple[int, int, int]:
    """The smallest of the tried inputs that the network accepts."""
    for size in _SIZES:
        c, h, w = (size if n is None else n for n in net.input_shape)
        try:
            net.shapes((c, h, w))
        except ParameterError:
            continue
        return c, h, w
    raise ParameterError(f"the network accepts no input of up to {_SIZES[-1]} rows and columns")


def _as_keras(x: Array, value: Value) -> Array:
    """An array (C, H, W) with the axes of Keras."""
    if value.order is not None:
        return x.reshape(-1)[value.order]
    whole = value.axes + "".join(axis for axis in "CHW" if axis not in value.axes)
    moved = x.transpose(["CHW".index(axis) for axis in whole])
    return moved.reshape(moved.shape[: len(value.axes)])


def _numpy(value: Any) -> Array:
    """A tensor of any of Keras's back ends as an array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value)


def _difference(node: Node, keras: Array, ours: Array, value: Value) -> float:
    """The largest difference divided by the largest value of Keras; an error if too large."""
    ours = _as_keras(ours, value)
    label = f"layer {shown(node.name)} ({node.kind})"
    if keras.shape[1:] != ours.shape:
        raise ParameterError(
            f"{label}: its output has the shape {keras.shape[1:]} in Keras and {ours.shape} in "
            "the network"
        )
    largest = float(np.abs(keras).max(initial=0.0)) or 1.0
    worst = float(np.abs(keras[0] - ours).max(initial=0.0)) / largest
    if not worst <= _TOLERANCE:
        raise ParameterError(
            f"{label}: its output differs from that of Keras by {worst:.1e} of its maximum, "
            f"wanted at most {_TOLERANCE:.0e}"
        )
    return worst


def _whole(model: Any, graph: Graph, last: int, x: Array) -> Array | None:
    """The output of the model itself at the last layer; None if it cannot be computed."""
    if len(model.inputs) != 1:
        return None
    if graph.outputs == [last]:
        return _numpy(model(x))
    (name, *inner) = graph.nodes[last].path
    base = next((cls for cls in type(model).__mro__ if cls.__name__ == "Model"), None)
    if inner or base is None:
        return None
    try:
        part: Any = base(model.inputs, model.get_layer(name).output)
    # A layer that is used twice has no single output.
    except (AttributeError, ValueError):
        return None
    return _numpy(part(x))
