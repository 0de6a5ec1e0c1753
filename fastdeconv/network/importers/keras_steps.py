"""TimeDistributed of Keras: a layer for every step of a sequence."""

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

# What does the same to every step alone as to all steps together.
_SAME = {*FUNCTION_LAYERS, *NOTHING, "Dense", "BatchNormalization", "LayerNormalization"}
_ALONG_AN_AXIS = ("BatchNormalization", "LayerNormalization", "Softmax")


def at_every_step(node: Node, values: Sequence[Value]) -> Node:
    """The layer that a TimeDistributed is on the whole sequence; other layers as they are."""
    if node.kind != "TimeDistributed":
        return node
    inner = node.config.get("layer")
    config = inner.get("config") if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(config, Mapping) or len(values) != 1:
        raise UnsupportedError("it does not say which layer it holds")
    kind, config = modern(str(inner.get("class_name")), config, node.name)
    (value,) = values
    if kind == "Flatten":
        if not value.axes[1:]:
            raise UnsupportedError("it has no step to flatten")
        steps = value.sizes[0]
        shape = [-1 if steps is None else steps, -1]
        if steps is None:
            rest = [n for n in value.sizes[1:] if n is not None]
            if len(rest) < len(value.sizes) - 1:
                raise UnsupportedError("the sizes of its input are not known; give input_shape=")
            shape = [-1, math.prod(rest)]
        return replace(node, kind="Reshape", config={"target_shape": shape})
    axis = config.get("axis", -1)
    # Axes are counted without that of the steps.
    last = axis in (-1, [-1], len(value.axes) - 1, [len(value.axes) - 1])
    if kind not in _SAME or (kind in _ALONG_AN_AXIS and not last):
        raise UnsupportedError(
            f"it applies a {kind} to each step of a sequence, which is no layer of three axes; "
            "import the model of a single step by itself"
        )
    if kind in _ALONG_AN_AXIS:
        config = {**config, "axis": -1}
    return replace(node, kind=kind, config=config)
