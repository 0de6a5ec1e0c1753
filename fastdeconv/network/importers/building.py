"""From a graph to layers that have no names yet.

For every operator, a function in `operators` adds layers to the `Builder` and says how the output
of the operator is read from the last of them. An operator that cannot become a layer does not
stop the import: all values that depend on it are marked as lost, and the layers below it can
still be imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ParameterError, shown
from .. import layers as nn
from .graph import MALFORMED, Graph, Node, as_floats
from .views import (
    Letters,
    View,
    completed,
    default_letters,
    group_sizes,
    joined_axes,
    steps_of_three,
    transposed_groups,
)

__all__ = ["Builder", "CannotImportError", "Draft", "Lost", "Operator"]


class CannotImportError(Exception):
    """A node cannot become a layer; the text says why."""


@dataclass
class Draft:
    """A layer that has no name yet."""

    kind: str
    parameters: dict[str, Any]
    arrays: dict[str, NDArray[np.float32]]
    inputs: tuple[int, ...]
    sizes: tuple[int, int, int]
    node: Node
    suffix: str = ""
    """End of its name, if it is only a helper for the main layer of the node."""
    view: View | None = None
    """How `value` is read from its output; None if the file has no such value."""
    value: str = ""
    """The value of the file that its output stands for."""
    sized: bool = False
    """Whether one of its numbers depends on the size of the network's input."""
    held: str = ""
    """Axes that must keep their size, because a node after it does nothing for this size alone."""


@dataclass(frozen=True)
class Lost:
    """Why a value cannot be computed: the node that cannot become a layer, and the reason."""

    node: Node
    reason: str


@dataclass
class Builder:
    """The layers made so far, and how the values of the graph are read from them."""

    graph: Graph
    drafts: list[Draft] = field(default_factory=list)
    views: dict[str, View] = field(default_factory=dict)
    lost: dict[str, Lost] = field(default_factory=dict)
    held: str = ""
    """`Draft.held` of the input."""
    _node: Node = field(default_factory=lambda: Node("", [], []))

    # --- building the nodes ---------------------------------------------------------------

    def run(self, start: View, operators: Mapping[str, Operator]) -> None:
        """Build every node that can be built, with the function of its operator."""
        self.views[self.graph.input] = start
        for node in self.graph.nodes:
            self._node = node
            before = next((self.lost[name] for name in node.inputs if name in self.lost), None)
            try:
                if before is None:
                    self._build(node, operators)
            except (CannotImportError, ParameterError) as error:
                before = Lost(node, str(error))
            except MALFORMED as error:
                why = shown(str(error) or type(error).__name__)
                before = Lost(node, f"its inputs or attributes are not those of {node.op} ({why})")
            if before is not None:
                self.lost.update({name: before for name in node.outputs if name})

    def _build(self, node: Node, operators: Mapping[str, Operator]) -> None:
        function = operators.get(node.op) if node.domain == "" else None
        if function is None:
            kind = f"{node.domain}.{node.op}" if node.domain else node.op
            raise CannotImportError(_why_not(kind, node))
        count = len(self.drafts)
        try:
            made = function(self, node)
            views = made if isinstance(made, list) else [made]
            for name, view in zip(node.outputs, views):
                self._check(name, view)
        except BaseException:
            del self.drafts[count:]
            raise
        for name, view in zip(node.outputs, views):
            self.views[name] = view
            self.graph.shapes.setdefault(name, view.shape)
            new = view.draft >= count and self.drafts[view.draft].node is node
            if new and not self.drafts[view.draft].value:
                self.drafts[view.draft].view = view
                self.drafts[view.draft].value = name
        for name in node.outputs[len(views) :]:
            self.lost[name] = Lost(node, _why_not_another(node))

    def _check(self, name: str, view: View) -> None:
        wanted = self.graph.shapes.get(name)
        if wanted is not None and wanted != view.shape:
            raise CannotImportError(
                f"its layers give the shape {view.shape}, and the file says {wanted}"
            )
        if int(np.prod(view.shape)) != int(np.prod(view.sizes)):
            raise CannotImportError(
                f"its layers give {view.sizes}, which is not the shape {view.shape} of the file"
            )

    # --- for the functions of operators: reading inputs -------------------------------------

    def view(self, node: Node, place: int) -> View:
        """How an input of a node is read from a layer."""
        name = node.input(place)
        if name in self.views:
            return self.views[name]
        if name in self.graph.constants:
            raise CannotImportError(f"its input {shown(name)} is a constant")
        raise CannotImportError(
            f"its input {shown(name)} is not computed from {shown(self.graph.input)}, where the "
            "network begins; begin at a value from which all of the rest is computed"
        )

    def constant(self, node: Node, place: int) -> NDArray[Any] | None:
        """A constant input of a node; None if it is left out."""
        name = node.input(place)
        if not name:
            return None
        if name not in self.graph.constants:
            raise CannotImportError(f"its input {shown(name)} must be a constant, but is computed")
        return self.graph.constants[name]

    def floats(self, node: Node, place: int) -> NDArray[np.float32] | None:
        """A constant input as float32; None if it is left out."""
        array = self.constant(node, place)
        return None if array is None else as_floats(array)

    def needed(self, node: Node, place: int) -> NDArray[np.float32]:
        """A constant input that may not be left out, as float32."""
        array = self.floats(node, place)
        if array is None:
            raise CannotImportError(f"its input {place} is missing")
        return array

    def ints(self, node: Node, key: str, place: int | None = None) -> list[int] | None:
        """Integers from an attribute or, in newer files, from a constant input."""
        if key in node.attributes:
            value = node.attributes[key]
            return [int(n) for n in value] if isinstance(value, list) else [int(value)]
        array = None if place is None else self.constant(node, place)
        return None if array is None else [int(n) for n in array.reshape(-1)]

    def shape(self, node: Node, place: int = 0) -> tuple[int, ...]:
        """The shape of an output, according to the file."""
        found = self.graph.shapes.get(node.outputs[place])
        if found is None:
            raise CannotImportError("the shape of its output depends on values")
        return found

    # --- for the functions of operators: adding layers --------------------------------------

    def put(
        self, kind: str, views: View | Sequence[View], arrays: Mapping[str, Any] | None = None,
        suffix: str = "", **parameters: Any,
    ) -> int:
        """Add a layer on top of others, and return its position.

        The axes of `views` must have the order that the layer needs.
        """
        taken = (views,) if isinstance(views, View) else tuple(views)
        stored = {key: as_floats(array) for key, array in (arrays or {}).items()}
        layer = nn.LAYER_TYPES[kind](name="it", **parameters)
        named = {f"it.{key}": array for key, array in stored.items()}
        layer.check_arrays(named)
        sizes = layer.joined_shape([view.sizes for view in taken], named)
        whole = (int(sizes[0] or 0), int(sizes[1] or 0), int(sizes[2] or 0))
        self.drafts.append(
            Draft(kind, parameters, stored, tuple(view.draft for view in taken), whole,
                  self._node, suffix)
        )
        return len(self.drafts) - 1

    def on(self, view: View, kind: str, arrays: Mapping[str, Any] | None = None,
           **parameters: Any) -> View:
        """Add a layer that keeps the order and sizes of axes; its output is read like `view`."""
        draft = self.put(kind, view, arrays, **parameters)
        return self.read(draft, view.order, view.shape)

    def read(self, draft: int, order: str, shape: Sequence[int]) -> View:
        """A view of a layer's output."""
        return View(draft, self.drafts[draft].sizes, order, tuple(shape))

    # --- for the functions of operators: moving axes ----------------------------------------

    def letters(self, view: View) -> tuple[View, Letters]:
        """The view, and the letters of its axes; joined axes are separated by a reshape."""
        found = view.letters
        if found is not None:
            return view, found
        wanted = default_letters(view.shape)
        if wanted is None:
            raise CannotImportError(f"its input has more than three axes: {view.shape}")
        view = self.settle(view, wanted)
        return view, view.letters or wanted

    def hold(self, view: View, axes: Iterable[int]) -> None:
        """Note that a layer is left out only because some axes have the size that they have."""
        letters = view.letters
        if letters is None:
            return
        full = completed(view, letters)
        found = "".join(str(full[axis]) for axis in axes if full[axis])
        if view.draft < 0:
            self.held += found
        else:
            self.drafts[view.draft].held += found

    def settle(self, view: View, letters: Letters) -> View:
        """The same array, read from a layer in which its axes are `letters`."""
        if any(n > 1 and letter is None for n, letter in zip(view.shape, letters)):
            raise CannotImportError(f"its input has the shape {view.shape}, wanted a batch of 1")
        order = "".join(letter for letter in letters if letter)
        order += "".join(letter for letter in "CHW" if letter not in order)
        have = view.letters
        sizes = {letter: 1 for letter in "CHW"}
        sizes.update({letter: n for n, letter in zip(view.shape, letters) if letter})
        if have is not None and all(h in (None, w) for h, w in zip(have, letters)):
            return replace(view, order=order)
        if have is not None:
            source = {new: old for new, old in zip(letters, have) if new and old}
            left = [letter for letter in "CHW" if letter not in source.values()]
            axes = "".join(source.get(new) or left.pop(0) for new in "CHW")
            return self.read(self.put("permute", view, axes=axes, suffix="permute"),
                             order, view.shape)
        return self._reshaped(view, letters, order, sizes)

    def _reshaped(
        self, view: View, letters: Letters, order: str, sizes: Mapping[str, int]
    ) -> View:
        """`settle` for an array whose axes are joined or split axes of the layer."""
        axes, target = view.joined(letters), "CHW"
        if axes is None:
            axes = "CHW" if view.in_order else view.order
            kept = [letter for letter in order if sizes[letter] > 1]
            target = "CHW" if kept == sorted(kept) else order
        if axes != "CHW":
            draft = self.put("permute", view, axes=axes, suffix="permute")
            view = self.read(draft, "CHW", view.shape)
        shape = tuple(sizes[letter] for letter in target)
        if shape[1:] == (1, 1):
            draft = self.put("flatten", view, suffix="flatten")
        else:
            draft = self.put("reshape", view, shape=shape, suffix="reshape")
        if target != "CHW":
            moved = "".join("CHW"[target.index(letter)] for letter in "CHW")
            draft = self.put("permute", self.read(draft, "CHW", view.shape), axes=moved,
                             suffix="permute")
        return self.read(draft, order, view.shape)

    def transposed(self, view: View, axes: Sequence[int]) -> View:
        """The view with its axes in another order; joined axes stay joined if possible."""
        if list(axes) == sorted(axes):
            return view
        shape = tuple(view.shape[axis] for axis in axes)
        found = view.letters
        if found is None:
            groups = transposed_groups(view.shape, axes)
            if len(groups) > 3:
                return self._transposed_in_steps(view, groups, shape)
            before = sorted(groups)
            merged = replace(view, shape=tuple(group_sizes(view.shape, before)))
            letters: Letters = tuple("CHW"[: len(groups)])
            view = self.settle(merged, letters)
            moved = [letters[before.index(group)] for group in groups]
        else:
            moved = [found[axis] for axis in axes]
        order = "".join(letter for letter in moved if letter)
        order += "".join(letter for letter in "CHW" if letter not in order)
        return replace(view, order=order, shape=shape)

    def _transposed_in_steps(
        self, view: View, groups: list[list[int]], shape: tuple[int, ...]
    ) -> View:
        """`transposed` for more than three groups of axes: several permutes of three axes."""
        sizes = group_sizes(view.shape, sorted(groups))
        steps = steps_of_three([sorted(groups).index(group) for group in groups])
        if steps is None:
            raise CannotImportError(f"it moves {len(groups)} groups of axes of {view.shape}")
        for parts, order in steps:
            merged = [math.prod(sizes[begin:end]) for begin, end in parts]
            view = self.transposed(replace(view, shape=tuple(merged)), order)
            sizes = [n for k in order for n in sizes[slice(*parts[k])]]
        return replace(view, shape=shape)

    def grouped(
        self, view: View, marks: Sequence[Any], alone: Sequence[int] = ()
    ) -> tuple[View, list[list[int]]]:
        """Join neighbouring axes with the same mark, if the view has more than three long axes.

        Returns
        -------
        view : View
            Unchanged if at most three of its axes are longer than 1.
        groups : list of list of int
            For each of its axes, the original axes that were joined. Axes of size 1 are left
            out, except those in `alone`, which are never joined.
        """
        if view.letters is not None or default_letters(view.shape) is not None:
            return view, [[axis] for axis in range(len(view.shape))]
        groups = joined_axes(view.shape, marks, alone)
        return replace(view, shape=tuple(group_sizes(view.shape, groups))), groups


#: A function that adds the layers of a node, and returns how its outputs are read from them.
Operator = Callable[[Builder, Node], View | list[View]]

_QUANTISED = ("QLinear", "Quantize", "Dequantize", "DynamicQuantize", "ConvInteger",
              "MatMulInteger", "QAttention", "QGemm")
_RECURRENT = ("GRU", "LSTM", "RNN")


def _why_not_another(node: Node) -> str:
    """Why an output behind the first is not computed."""
    if node.op == "MaxPool":
        return (
            "what follows needs the places of its maxima, as MaxUnpool2d does, and there is no "
            "layer for that; ConvTranspose2d and Upsample are layers"
        )
    return f"only the first output of {node.op} is computed"


def _why_not(kind: str, node: Node) -> str:
    if any(word in kind for word in _QUANTISED):
        return "it computes with 8-bit integers; export the network in float32"
    if node.op == "If":
        return "which of its branches runs depends on computed values"
    if node.op in ("Loop", "Scan"):
        return "it repeats a part of the graph"
    if node.op in _RECURRENT:
        return "there is no layer for recurrent networks"
    if node.op == "Dropout":
        return (
            "it drops values at random also after training; F.dropout needs "
            "training=self.training"
        )
    return f"there is no layer for the operator {kind}"
