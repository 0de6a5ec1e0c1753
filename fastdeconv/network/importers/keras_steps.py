"""TimeDistributed of Keras, which applies a layer to every step of a sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from .keras_building import UnsupportedError, Value
from .keras_functions import FUNCTION_LAYERS
from .keras_graph import Node
from .keras_legacy import modern
from .keras_shaping import NOTHING

__all__ = ["at_every_step"]

# Layers that give the same for every step alone as for the whole sequence.
_SAME = {*FUNCTION_LAYERS, *NOTHING, "Dense", "BatchNormalization", "LayerNormalization"}
_ALONG_AN_AXIS = ("BatchNormalization", "LayerNormalization", "Softmax")


def at_every_step(node: Node, values: Sequence[Value]) -> Node:
    """The layer that equals a TimeDistributed on the whole sequence; other layers unchanged."""
    if node.kind != "TimeDistributed":
        return node
    inner = node.config.get("layer")
    config = inner.get("config") if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(config, Mapping) or len(values) != 1:
        raise UnsupportedError("its config does not say which layer it contains")
    kind, config = modern(str(inner.get("class_name")), config, node.name)
    (value,) = values
    if kind == "Flatten":
        if not value.axes[1:]:
            raise UnsupportedError("its input has no axis besides the steps to flatten")
        steps = value.sizes[0]
        shape = [-1 if steps is None else steps, -1]
        if steps is None:
            rest = [n for n in value.sizes[1:] if n is not None]
            if len(rest) < len(value.sizes) - 1:
                raise UnsupportedError("the sizes of its input are not known; give input_shape=")
            shape = [-1, math.prod(rest)]
        return replace(node, kind="Reshape", config={"target_shape": shape})
    axis = config.get("axis", -1)
    # Axes of the inner layer are counted without the axis of the steps.
    last = axis in (-1, [-1], len(value.axes) - 1, [len(value.axes) - 1])
    if kind not in _SAME or (kind in _ALONG_AN_AXIS and not last):
        raise UnsupportedError(
            f"it applies a {kind} to each step of a sequence, for which three axes are not enough; "
            "import the model of a single step"
        )
    if kind in _ALONG_AN_AXIS:
        config = {**config, "axis": -1}
    return replace(node, kind=kind, config=config)
