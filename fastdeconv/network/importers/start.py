"""Decide which axes of a model's input become channels, rows and columns of the network's."""

from __future__ import annotations

from collections.abc import Sequence

from .graph import Graph, Node
from .views import Letters, View, default_letters

__all__ = ["input_view"]

_WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "InstanceNormalization")
_MATRICES = ("Gemm", "MatMul", "Linear")
_SHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_PLANES: dict[int, Letters] = {3: (None, "C", "W"), 4: (None, "C", "H", "W")}

# For every axis of a value, the axis of the model's input that it comes from.
_Axes = tuple[int | None, ...]


def input_view(graph: Graph) -> View | None:
    """The input of the network, and how the model's input is read from it.

    The axes get the letters that the first convolution or pool needs, so that nothing has to
    be moved before it. If a matrix product comes first, the last axis is C. Without either, the
    axes get the usual letters for their number. None if the input cannot be (C, H, W).
    """
    shape = graph.shapes[graph.input]
    letters = _wanted_letters(graph, shape) or default_letters(shape)
    if letters is None or any(n > 1 and letter is None for n, letter in zip(shape, letters)):
        return None
    sizes = {letter: 1 for letter in "CHW"}
    sizes.update({letter: n for n, letter in zip(shape, letters) if letter})
    order = "".join(letter for letter in letters if letter)
    order += "".join(letter for letter in "CHW" if letter not in order)
    return View(-1, (sizes["C"], sizes["H"], sizes["W"]), order, tuple(shape))


def _wanted_letters(graph: Graph, shape: Sequence[int]) -> Letters | None:
    axes: dict[str, _Axes] = {graph.input: tuple(range(len(shape)))}
    matrix: Letters | None = None
    for node in graph.nodes:
        taken = next((name for name in node.inputs if name in axes), None)
        if taken is None:
            continue
        known = axes[taken]
        if node.op in _WINDOWS and node.input(0) == taken and len(known) in _PLANES:
            return _lettered(shape, known, _PLANES[len(known)])
        if node.op in _MATRICES and matrix is None and len(known) > 1 and known[-1] is not None:
            usual = default_letters([graph.shapes[taken][i] for i in range(len(known))])
            if usual is not None and len(known) == 2:
                matrix = _lettered(shape, known, ("W", "C") if usual[0] else (None, "C"))
            elif usual is not None:
                matrix = _lettered(shape, known, (*([None] * (len(known) - 2)), "W", "C"))
        onward = _onward(graph, node, known)
        if onward is not None:
            axes.update({name: onward for name in node.outputs if name})
    return matrix


def _onward(graph: Graph, node: Node, known: _Axes) -> _Axes | None:
    """The axes of the model's input that the axes of a node's output come from."""
    before, after = graph.shapes.get(node.inputs[0]), graph.shapes.get(node.outputs[0])
    if before is None or after is None:
        return None
    if node.op == "Transpose":
        order = node.attributes.get("perm", list(range(len(known)))[::-1])
        return tuple(known[int(axis)] for axis in order)
    if node.op in _SHAPING:
        kept = [axis for axis, n in zip(known, before) if n > 1]
        if [n for n in before if n > 1] != [n for n in after if n > 1]:
            return None
        return tuple(kept.pop(0) if n > 1 else None for n in after)
    return known if len(after) == len(known) else None


def _lettered(shape: Sequence[int], known: _Axes, letters: Letters) -> Letters | None:
    """Letters of the input's axes; None if an axis that needs a letter gets none."""
    found: list[str | None] = [None] * len(shape)
    for axis, letter in zip(known, letters):
        if axis is not None:
            found[axis] = letter
    missing = [i for i, n in enumerate(shape) if n > 1 and found[i] is None]
    free = [letter for letter in "WHC" if letter not in found]
    for place in missing:
        if (place == 0 and len(shape) > 1) or not free:
            return None
        found[place] = free.pop(0)
    return tuple(found)
