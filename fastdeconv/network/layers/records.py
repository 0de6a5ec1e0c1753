"""Make layers from records of the archive, and resolve their inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ParameterError, shown
from .activations import ACTIVATION_TYPES, LogSoftmax, Softmax
from .base import INPUT, Layer
from .combining import Add, Concat, Maximum, Minimum, Multiply
from .convolution import Conv2d, ConvTranspose2d, Linear
from .normalisation import (
    Affine,
    BatchNorm2d,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LocalResponseNorm,
)
from .pooling import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    MaxPool2d,
    ReduceMax,
    ReduceMean,
)
from .shaping import Dropout, Flatten, Pad, Permute, Reshape, Slice, Upsample

__all__ = [
    "LAYER_TYPES", "layer_from_record", "layer_records", "layers_from_records", "resolve_inputs",
    "sources_of",
]

_CLASSES: tuple[type[Layer], ...] = (
    Conv2d, ConvTranspose2d, Linear, *ACTIVATION_TYPES.values(), Softmax, LogSoftmax,
    BatchNorm2d, Affine, LocalResponseNorm, LayerNorm, GroupNorm, InstanceNorm,
    MaxPool2d, AvgPool2d, AdaptiveMaxPool2d, AdaptiveAvgPool2d, GlobalAvgPool2d,
    GlobalMaxPool2d, ReduceMean, ReduceMax,
    Dropout, Flatten, Slice, Pad, Permute, Reshape, Upsample,
    Add, Multiply, Maximum, Minimum, Concat,
)

#: The layer class of every type string of the archive.
LAYER_TYPES: dict[str, type[Layer]] = {cls.type: cls for cls in _CLASSES}


def layer_from_record(record: Any, default_name: str | None = None) -> Layer:
    """Make the layer that a record of the archive describes.

    Parameters
    ----------
    record : mapping
        ``{"type": ..., "name": ..., parameters...}``.
    default_name : str, optional
        The name for a record without one. None: the record must have a name.

    Returns
    -------
    Layer

    Raises
    ------
    ParameterError
        If the type or a key is unknown, a required key is missing, or a value
        is wrong. The message names the layer and the key.
    """
    cls = LAYER_TYPES[_record_type(record)]
    values = {key: value for key, value in record.items() if key != "type"}
    if default_name is not None:
        values.setdefault("name", default_name)
    label = f"{_who(values)} ({cls.type})"
    fields = [field for field in dataclasses.fields(cls) if field.name != "implied"]
    known = [field.name for field in fields]
    for key in values:
        if key not in known:
            raise ParameterError(
                f"{label}: unknown key {shown(key)}; there are {', '.join(['type', *known])}"
            )
    for field in fields:
        if field.default is dataclasses.MISSING and field.name not in values:
            raise ParameterError(f"{label}: the key {field.name!r} is missing")
    return cls(**values)


def _who(record: Mapping[str, Any]) -> str:
    return f"layer {shown(record['name'])}" if "name" in record else "layer without a name"


def _record_type(record: Any) -> str:
    if not isinstance(record, Mapping):
        raise ParameterError(f"a layer must be an object with a type, found {shown(record)}")
    if "type" not in record:
        raise ParameterError(f"{_who(record)}: the key 'type' is missing")
    found = record["type"]
    if not isinstance(found, str) or found not in LAYER_TYPES:
        raise ParameterError(
            f"{_who(record)}: unknown type {shown(found)}; there are {', '.join(LAYER_TYPES)}"
        )
    return found


def layers_from_records(records: Any, *, named: bool = False) -> tuple[Layer, ...]:
    """Layers from records, dataclasses or a mixture of both.

    Parameters
    ----------
    records : sequence of mapping or Layer
        At least one.
    named : bool
        Whether every record must have a name. If False, a record without one is named after its
        type and its number among the layers of that type: ``conv1``, ``relu1``, ``pool1``.

    Returns
    -------
    tuple of Layer

    Raises
    ------
    ParameterError
        If a record is wrong, or two layers have the same name.
    """
    if not isinstance(records, (list, tuple)) or not records:
        raise ParameterError(
            f"layers must be a list of at least one layer, found {shown(records)}"
        )
    layers: list[Layer] = []
    seen: dict[str, int] = {}
    count: dict[str, int] = {}
    for place, record in enumerate(records):
        # Subclasses by the user are refused: there is no arithmetic for them.
        if isinstance(record, Layer) and type(record) in LAYER_TYPES.values():
            layer = record
        else:
            try:
                kind = _record_type(record)
                number = count.get(kind, 0) + 1
                default = None if named else f"{LAYER_TYPES[kind].prefix}{number}"
                layer = layer_from_record(record, default)
            except ParameterError as exc:
                raise ParameterError(f"layers[{place}]: {exc}") from None
        count[layer.type] = count.get(layer.type, 0) + 1
        if layer.name in seen:
            raise ParameterError(
                f"layers[{seen[layer.name]}] and layers[{place}] have the same name "
                f"{shown(layer.name)}"
            )
        seen[layer.name] = place
        layers.append(layer)
    return tuple(layers)


def resolve_inputs(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The same layers, with the names of their inputs filled in.

    Raises
    ------
    ParameterError
        If an input does not come before its layer, or a layer has a wrong number of inputs.
    """
    known = {INPUT}
    resolved: list[Layer] = []
    before = INPUT
    for layer in layers:
        implied = layer.implied or not layer.inputs
        inputs = (before,) if implied else layer.inputs
        for name in inputs:
            if name not in known:
                raise ParameterError(f"{layer.label}: {_unknown_input(name, layers)}")
        fewest, most = layer.arity
        if not fewest <= len(inputs) <= most:
            wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            raise ParameterError(
                f"{layer.label}: found {len(inputs)} inputs {shown(inputs)}, wanted {wanted}"
            )
        known.add(layer.name)
        resolved.append(dataclasses.replace(layer, inputs=inputs, implied=implied))
        before = layer.name
    return tuple(resolved)


def sources_of(layers: Sequence[Layer]) -> tuple[tuple[int, ...], ...]:
    """For each layer the positions of its inputs; -1 is the input of the network.

    If a layer is itself called "input", later layers mean that layer.
    """
    places = {INPUT: -1}
    sources = []
    for i, layer in enumerate(layers):
        sources.append(tuple(places[name] for name in layer.inputs))
        places[layer.name] = i
    return tuple(sources)


def _unknown_input(name: str, layers: Sequence[Layer]) -> str:
    if any(layer.name == name for layer in layers):
        return f"its input {shown(name)} does not come before it in the list of layers"
    return f"its input {shown(name)} is not the name of a layer"


def layer_records(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Records of layers with resolved inputs; the records of a chain need no inputs."""
    records = []
    before = INPUT
    for layer in layers:
        record = layer.to_record()
        if layer.inputs != (before,):
            record["inputs"] = list(layer.inputs)
        records.append(record)
        before = layer.name
    return records
