"""The entries of a config: layers, and the inputs of each of their calls.

Keras 1 and 2 write ``[["name", 0, 0, {}]]`` for a call; Keras 3 writes an object with ``args``
and ``kwargs``, in which tensors are objects with the same three values.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import ArchiveError, shown
from ..archive import MAX_LAYERS

__all__ = ["MODELS", "Calls", "Ref", "layer_entries", "layer_name", "refs_in"]

#: Classes that only contain other layers.
MODELS = frozenset({"Sequential", "Functional", "Model"})
# Arguments of a call, besides tensors, that do not change what a layer computes.
_HARMLESS = frozenset({"mask", "training"})


class Ref(NamedTuple):
    """An output of a layer: its name, the number of its call, and the number of the output."""

    layer: str
    node: int
    tensor: int


def layer_entries(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of a model's layers; in Keras 1 the config may be just their list."""
    config = model.get("config")
    entries = config.get("layers") if isinstance(config, Mapping) else config
    if not isinstance(entries, (list, tuple)) or not entries:
        raise ArchiveError(
            f"config of {shown(model.get('class_name'))}: found {shown(entries)}, wanted a list "
            "of layers"
        )
    if len(entries) > MAX_LAYERS:
        raise ArchiveError(f"found {len(entries)} layers, over the limit of {MAX_LAYERS}")
    for i, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("class_name"), str):
            raise ArchiveError(f"layers[{i}]: found {shown(entry)}, wanted a layer with a class")
    return list(entries)


def layer_name(entry: Mapping[str, Any]) -> str:
    """The name of the layer of an entry."""
    config = entry.get("config")
    name = entry.get("name")
    if name is None and isinstance(config, Mapping):
        name = config.get("name")
    if name is None and entry["class_name"] in MODELS:
        name = entry["class_name"].lower()
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ArchiveError(
            f"found the layer name {shown(name)} ({shown(entry['class_name'])}), wanted a "
            "printable string"
        )
    return name


class Calls:
    """The calls of the layers of a functional model, and the inputs of each call."""

    def __init__(
        self, entries: Mapping[str, Mapping[str, Any]], outputs: Sequence[Ref]
    ) -> None:
        raw: dict[tuple[str, int], tuple[list[Ref], str | None]] = {}
        counts: dict[str, int] = {}
        for name, entry in entries.items():
            nodes = entry.get("inbound_nodes", [])
            if not isinstance(nodes, (list, tuple)):
                raise ArchiveError(f"layer {shown(name)}: found inbound_nodes {shown(nodes)}")
            if entry["class_name"] == "InputLayer":
                raw[name, 0] = [], None
                counts[name] = 1
                continue
            counts[name] = len(nodes)
            for number, node in enumerate(nodes):
                raw[name, number] = _call(node, entries)
            if len(raw) > MAX_LAYERS:
                raise ArchiveError(f"found more than {MAX_LAYERS} layers")
        # Before Keras 3, the first call of a nested model has number 1: call 0 was on its own
        # input when it was made.
        self._first: dict[str, int] = {}
        used = [ref for refs, _ in raw.values() for ref in refs] + list(outputs)
        for ref in used:
            nested = entries[ref.layer]["class_name"] in MODELS
            if nested and ref.node == counts[ref.layer] > 0:
                self._first[ref.layer] = 1
        self.refs: dict[tuple[str, int], tuple[list[Ref], str | None]] = {}
        for (name, number), (refs, odd) in raw.items():
            moved = []
            for ref in refs:
                layer, place = self.key(ref)
                if not 0 <= place < counts[layer]:
                    raise ArchiveError(
                        f"layer {shown(name)}: its input is call {ref.node} of the layer "
                        f"{shown(layer)}, which has {counts[layer]} calls"
                    )
                moved.append(Ref(layer, place, ref.tensor))
            self.refs[name, number] = moved, odd
        for ref in outputs:
            if self.key(ref) not in self.refs:
                raise ArchiveError(f"output_layers: there is no output {shown(tuple(ref))}")

    def key(self, ref: Ref) -> tuple[str, int]:
        """The layer and the number of its call, from 0."""
        return ref.layer, ref.node - self._first.get(ref.layer, 0)

    def in_order(self) -> Iterator[tuple[str, int]]:
        """The calls, each after its inputs, otherwise in the order of the file."""
        keys = list(self.refs)
        places = {key: i for i, key in enumerate(keys)}
        takers: dict[int, list[int]] = {}
        missing = []
        for i, key in enumerate(keys):
            taken = {places[ref.layer, ref.node] for ref in self.refs[key][0]}
            missing.append(len(taken))
            for place in taken:
                takers.setdefault(place, []).append(i)
        ready = [i for i, count in enumerate(missing) if not count]
        done = 0
        while ready:
            place = heapq.heappop(ready)
            done += 1
            yield keys[place]
            for taker in takers.get(place, ()):
                missing[taker] -= 1
                if not missing[taker]:
                    heapq.heappush(ready, taker)
        if done < len(keys):
            name = next(key[0] for key, count in zip(keys, missing) if count)
            raise ArchiveError(
                f"layer {shown(name)}: its input depends on its own output (a cycle)"
            )


def _call(node: Any, entries: Mapping[str, Any]) -> tuple[list[Ref], str | None]:
    """The inputs of a call, and a message about arguments that cannot be imported, or None."""
    if isinstance(node, Mapping):
        args, kwargs = node.get("args", ()), node.get("kwargs") or {}
        if not isinstance(kwargs, Mapping):
            raise ArchiveError(f"inbound_nodes: found {shown(kwargs)}, wanted a JSON object")
        plain = list(_constants(args))
        refs = [*refs_in(args, entries), *refs_in(kwargs, entries)]
    else:
        kwargs, plain = {}, []
        refs = list(refs_in(node, entries))
        for spec in _specs(node):
            if len(spec) > 3 and isinstance(spec[3], Mapping):
                kwargs = {**kwargs, **spec[3]}
                refs += refs_in(spec[3], entries)
    named = [key for key, value in kwargs.items() if value is not None and key not in _HARMLESS]
    if plain or named:
        given = ", ".join([shown(value) for value in plain[:3]] + [f"{key}=" for key in named[:3]])
        return refs, f"its call has arguments besides the outputs of other layers: {given}"
    return refs, None


def _is_spec(value: Any) -> bool:
    """Whether a value is ``["name", 0, 0]`` or ``["name", 0, 0, {}]``."""
    return (
        isinstance(value, (list, tuple))
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and all(type(n) is int for n in value[1:3])
    )


def _specs(value: Any) -> Iterator[Any]:
    if _is_spec(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _specs(item)


def refs_in(value: Any, entries: Mapping[str, Any]) -> Iterator[Ref]:
    """The outputs of layers that a value contains at any depth."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            config = value.get("config")
            history = config.get("keras_history") if isinstance(config, Mapping) else None
            if not _is_spec(history):
                raise ArchiveError(f"keras_history: found {shown(history)}, wanted a layer")
            value = history
        else:
            for item in value.values():
                yield from refs_in(item, entries)
            return
    if _is_spec(value):
        if value[0] == "_CONSTANT_VALUE":
            return
        if value[0] not in entries:
            raise ArchiveError(
                f"there is no layer {shown(value[0])}, which is named as an input or output"
            )
        yield Ref(*value[:3])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from refs_in(item, entries)


def _constants(value: Any) -> Iterator[Any]:
    """The arguments of a call that are neither tensors nor None."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _constants(item)
    elif value is not None and not (
        isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__"
    ):
        yield value
