"""The config of a Keras model as one flat list of layers, each called once.

Nested models are expanded, and a layer that is used twice appears twice. After this module, the
differences between Keras 1, 2 and 3 no longer matter. Nothing in a config is executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import ArchiveError, ParameterError, shown
from ..archive import MAX_LAYERS
from ..layers import checks
from .advising import Call
from .keras_calls import MODELS, Calls, layer_entries, layer_name, refs_in
from .keras_legacy import modern

__all__ = ["Graph", "Node", "choose_output", "flat_graph"]

# Most layers and inputs of layers that are visited.
_MOST_STEPS = 16 * MAX_LAYERS


@dataclass(frozen=True)
class Node:
    """One call of a layer.

    Attributes
    ----------
    name : str
        ``c``; ``c:1`` for the second call of the layer ``c``; ``outer.c`` in a nested model.
    kind : str
        The class, by its name in Keras 2 and 3.
    config : mapping
        The config, with the keys of Keras 2 and 3.
    path : tuple of str
        The names of the models around the layer, and its own name.
    inputs : tuple of int
        Positions in the list of nodes.
    custom : str or None
        For a class or call that is not Keras's own, a message that says so.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    path: tuple[str, ...]
    inputs: tuple[int, ...]
    custom: str | None = None


@dataclass
class Graph:
    """All nodes, in an order in which they can be computed.

    Attributes
    ----------
    nodes : list of Node
    outputs : list of int
        The nodes that are outputs of the model.
    ends : dict of str to int
        For the name of a layer or a nested model, the node that is its output.
    """

    nodes: list[Node] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)

    def needed(self, last: int) -> list[int]:
        """The node `last` and all nodes that it depends on, in order."""
        found = {last}
        for place in range(last, -1, -1):
            if place in found:
                found.update(self.nodes[place].inputs)
        return sorted(found)


def flat_graph(model: Mapping[str, Any]) -> Graph:
    """The graph of ``{"class_name": ..., "config": ...}``.

    Raises
    ------
    ArchiveError
        If the config is not that of a Sequential or functional model, or its layers form a
        cycle, have inputs that do not exist, or are too many.
    """
    kind = model.get("class_name")
    if kind not in MODELS:
        raise ArchiveError(
            f"the model has the class {shown(kind)}, wanted Sequential or Functional: what a "
            "custom class computes is in its Python code and not in the file"
        )
    graph = Graph()
    graph.outputs = _Expansion(graph).model(model, "", (), None)
    return graph


@dataclass
class _Expansion:
    """Fills a graph with the layers of nested models."""

    graph: Graph
    owners: dict[str, tuple[str, ...]] = field(default_factory=dict)
    steps: int = 0

    def _spend(self, steps: int) -> None:
        # Models that call each other twice, nested n deep, have 2 ** n layers.
        self.steps += steps
        if self.steps > _MOST_STEPS:
            raise ArchiveError(
                f"nested models give more than {_MOST_STEPS} layers and inputs, over the limit"
            )

    def model(
        self, entry: Mapping[str, Any], prefix: str, path: tuple[str, ...],
        given: Sequence[int] | None,
    ) -> list[int]:
        """Add the layers of a model; `given` are its inputs, None for the outermost model."""
        if entry["class_name"] == "Sequential":
            return self._sequential(entry, prefix, path, given)
        return self._functional(entry, prefix, path, given)

    def _sequential(
        self, entry: Mapping[str, Any], prefix: str, path: tuple[str, ...],
        given: Sequence[int] | None,
    ) -> list[int]:
        entries = layer_entries(entry)
        self._spend(len(entries))
        taken = None if given is None else list(given)
        for layer in entries:
            if layer["class_name"] == "InputLayer" and taken is not None:
                continue
            if taken is None and layer["class_name"] not in (*MODELS, "InputLayer"):
                taken = [self._implied_input(entry, layer, prefix, path)]
            taken = self._apply(layer, prefix, path, 0, taken, None)
        return taken or []

    def _implied_input(
        self, model: Mapping[str, Any], first: Mapping[str, Any], prefix: str,
        path: tuple[str, ...],
    ) -> int:
        """The input of a Sequential model without an InputLayer."""
        inner, outer = first.get("config"), model.get("config")
        shape = inner.get("batch_input_shape") if isinstance(inner, Mapping) else None
        if shape is None and isinstance(outer, Mapping):
            shape = outer.get("build_input_shape")
        config = {"batch_shape": shape}
        return self._add(f"{prefix}input", Node("", "InputLayer", config, (*path, "input"), ()))

    def _functional(
        self, entry: Mapping[str, Any], prefix: str, path: tuple[str, ...],
        given: Sequence[int] | None,
    ) -> list[int]:
        config = entry.get("config")
        if not isinstance(config, Mapping):
            raise ArchiveError(f"config: found {shown(config)}, wanted a JSON object")
        entries = {layer_name(layer): layer for layer in layer_entries(entry)}
        if len(entries) < len(layer_entries(entry)):
            raise ArchiveError("two layers of one model have the same name")
        wanted = list(refs_in(config.get("output_layers"), entries))
        calls = Calls(entries, wanted)
        self._spend(len(entries) + sum(len(refs) for refs, _ in calls.refs.values()))
        made: dict[tuple[str, int], list[int]] = {}
        if given is not None:
            inputs = list(refs_in(config.get("input_layers"), entries))
            if len(inputs) != len(given):
                raise ArchiveError(
                    f"model {shown('.'.join(path))}: found {len(given)} inputs, wanted "
                    f"{len(inputs)}"
                )
            made = {(ref.layer, 0): [place] for ref, place in zip(inputs, given)}
        for name, number in calls.in_order():
            if (name, number) in made:
                continue
            refs, odd = calls.refs[name, number]
            taken = [_output_of(made[ref.layer, ref.node], ref.tensor) for ref in refs]
            made[name, number] = self._apply(entries[name], prefix, path, number, taken, odd)
        if not wanted:
            raise ArchiveError("output_layers: found none, wanted the outputs of the model")
        return [_output_of(made[calls.key(ref)], ref.tensor) for ref in wanted]

    def _apply(
        self, entry: Mapping[str, Any], prefix: str, path: tuple[str, ...], number: int,
        taken: list[int] | None, odd: str | None,
    ) -> list[int]:
        """Add one call of a layer or of a nested model."""
        own, kind = layer_name(entry), entry["class_name"]
        name = prefix + own + (f":{number}" if number else "")
        custom = _foreign(entry) or odd
        if kind in MODELS and custom is None:
            last = self.model(entry, f"{name}.", (*path, own), taken)
            self.graph.ends.setdefault(name, last[0])
            return last
        config = entry.get("config")
        if not isinstance(config, Mapping):
            raise ArchiveError(f"layer {shown(name)}: found config {shown(config)}")
        kind, config = modern(kind, config, name)
        node = Node("", kind, config, (*path, own), tuple(taken or ()), custom)
        return [self._add(name, node)]

    def _add(self, name: str, node: Node) -> int:
        place = len(self.graph.nodes)
        if place >= MAX_LAYERS:
            raise ArchiveError(f"found more than {MAX_LAYERS} layers")
        try:
            legal = checks.name(name.replace("/", "."))
        except checks.WantedError as wanted:
            raise ArchiveError(f"found the layer name {shown(name)}, wanted {wanted}") from None
        if legal in self.owners:
            raise ArchiveError(
                f"the layers {shown('/'.join(self.owners[legal]))} and "
                f"{shown('/'.join(node.path))} have the same name {shown(legal)}"
            )
        self.owners[legal] = node.path
        self.graph.nodes.append(
            Node(legal, node.kind, node.config, node.path, node.inputs, node.custom)
        )
        self.graph.ends[legal] = self.graph.ends[name] = place
        return place


def _output_of(places: list[int], number: int) -> int:
    # No importable layer has several outputs, so the number does not matter for a single layer.
    return places[number] if number < len(places) else places[0]


def _foreign(entry: Mapping[str, Any]) -> str | None:
    """A message if the config says that a class is not one of Keras's own, else None."""
    module, registered = entry.get("module"), entry.get("registered_name")
    if isinstance(registered, str) and ">" in registered:
        return f"it is a custom class, registered as {shown(registered)}"
    if isinstance(module, str) and module.partition(".")[0] not in ("keras", "tf_keras"):
        return f"it is a custom class from the module {shown(module)}"
    return None


def choose_output(graph: Graph, outputs: str | None, call: Call) -> int:
    """The last node of the network; `call` is for messages.

    Raises
    ------
    ParameterError
        If there is no such layer, or the model has several outputs and `outputs` is None.
    """
    if outputs is None:
        places = list(dict.fromkeys(graph.outputs))
        if len(places) == 1:
            return places[0]
        names = [graph.nodes[place].name for place in places]
        raise ParameterError(
            f"the model has {len(places)} outputs ({', '.join(names)}); choose one with "
            f"{call.with_argument('outputs', names[0])}"
        )
    if not isinstance(outputs, str):
        raise ParameterError(f"outputs must be the name of a layer, found {shown(outputs)}")
    if outputs not in graph.ends:
        names = [node.name for node in graph.nodes if node.kind != "InputLayer"]
        raise ParameterError(
            f"outputs: there is no layer {shown(outputs)}; there are {', '.join(names)}"
        )
    return graph.ends[outputs]
