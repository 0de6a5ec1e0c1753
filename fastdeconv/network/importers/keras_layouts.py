"""Find out which axes the input of a Keras model has, from the layers that follow it.

The first layer after the input with a known position of its channels decides; layers between
pass its requirement on. Without such a layer, channels are last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..layers import LARGEST_SIZE
from .keras_building import standard_axes
from .keras_functions import FUNCTION_LAYERS
from .keras_graph import Node
from .keras_layers import channel_axis
from .keras_norms import NORMALISING_LAYERS
from .keras_shaping import JOINING_LAYERS, NOTHING

__all__ = ["input_sizes", "wanted_axes"]

# Layers that do not change the axes.
_PASSING = frozenset({
    *FUNCTION_LAYERS, *JOINING_LAYERS, *NORMALISING_LAYERS, *NOTHING, "Rescaling",
})
_SLIDING = re.compile(
    r"(Conv|DepthwiseConv|SeparableConv|MaxPooling|AveragePooling|GlobalMaxPooling|"
    r"GlobalAveragePooling|ZeroPadding|Cropping|UpSampling)([12])D(Transpose)?"
)


def wanted_axes(nodes: Sequence[Node], places: Sequence[int]) -> dict[str, str]:
    """For each layer, the axes of its output that suit the next layers best.

    Parameters
    ----------
    nodes : sequence of Node
        All nodes of the graph.
    places : sequence of int
        The nodes that are imported.

    Returns
    -------
    dict of str to str
        From the name of a layer to letters of axes; layers without a requirement are left out.
    """
    wishes: dict[int, str] = {}
    for place in reversed(places):
        node = nodes[place]
        wish = _wish(node, wishes.get(place), nodes)
        for taken in node.inputs:
            if wish is not None:
                wishes[taken] = wish
    return {nodes[place].name: wish for place, wish in wishes.items()}


def _wish(node: Node, behind: str | None, nodes: Sequence[Node]) -> str | None:
    """The axes that a node needs for its input, if its output should have the axes `behind`."""
    sliding = _SLIDING.fullmatch(node.kind)
    if sliding:
        return standard_axes(int(sliding.group(2)) + 1, channel_axis(node))
    if node.kind in _PASSING:
        return behind
    if behind is None:
        return None
    if node.kind == "Permute":
        return _before_permute(node.config.get("dims"), behind)
    if node.kind == "Reshape":
        return _before_reshape(node, behind, nodes)
    return None


def _before_permute(dims: Any, behind: str) -> str | None:
    if not isinstance(dims, (list, tuple)) or sorted(map(str, dims)) != [
        str(i + 1) for i in range(len(behind))
    ]:
        return None
    # Rows and columns keep their order; only the position of the channels matters.
    channels = dims[behind.index("C")]
    return standard_axes(len(behind), channels)


def _before_reshape(node: Node, behind: str, nodes: Sequence[Node]) -> str | None:
    """The axes before a Reshape that only adds or removes axes of size 1; else None."""
    target = node.config.get("target_shape")
    place = node.inputs[0] if node.inputs else None
    while place is not None and nodes[place].kind in _PASSING and nodes[place].inputs:
        place = nodes[place].inputs[0]
    if place is None or nodes[place].kind != "InputLayer":
        return None
    sizes = input_sizes(nodes[place].config)
    if sizes is None or not isinstance(target, (list, tuple)) or len(target) != len(behind):
        return None
    long = [i for i, n in enumerate(sizes) if n != 1]
    kept = [axis for axis, n in zip(behind, target) if n != 1]
    new = [n for n in target if n != 1]
    fits = len(long) == len(kept) and all(
        n == sizes[i] or n in (-1, None) for i, n in zip(long, new)
    )
    if not fits:
        return None
    letters = [""] * len(sizes)
    for i, axis in zip(long, kept):
        letters[i] = axis
    for i, letter in enumerate(letters):
        if not letter:
            letters[i] = next(axis for axis in "CHW" if axis not in letters)
    return "".join(letters)


def input_sizes(config: Mapping[str, Any]) -> list[int | None] | None:
    """The sizes after the batch that an InputLayer declares; None if it declares none."""
    shape = config.get("batch_shape", config.get("batch_input_shape"))
    if shape is None and config.get("shape") is not None:
        shape = [None, *config["shape"]]
    if not isinstance(shape, (list, tuple)) or not 2 <= len(shape) <= 4:
        return None
    sizes = list(shape[1:])
    if not all(n is None or (type(n) is int and 0 < n <= LARGEST_SIZE) for n in sizes):
        return None
    return sizes
