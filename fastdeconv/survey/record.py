"""Reading ``survey.json`` and the tables beside it, which anybody may have written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import ParameterError, printable, shown
from . import schema
from .store import RECORD, read_record, read_table
from .tables import Shards
from .worker import shard_name

__all__ = ["SCHEMAS", "checked_record", "read_named_table", "shards_of_record"]

#: Name of the file -> schema of the table.
SCHEMAS = {
    "tracks": schema.TRACKS, "features": schema.FEATURES, "exemplars": schema.EXEMPLARS,
    "together": schema.TOGETHER, "attributes": schema.ATTRIBUTES, "tags": schema.TAGS,
    "trust": schema.TRUST,
}
_WHY_NOT = {
    "together": "surveys without rows do not have it",
    "attributes": "the survey was given no table of tags, or keeps no rows",
    "tags": "the survey was given no table of tags",
    "trust": "no verdicts were asked for (write_atlas(trust=True), survey --trust)",
}
_MOST_FEATURES = 1 << 20
_COUNTS = ("tracks", "errors", "windows", "seconds")


def checked_record(folder: Path) -> dict[str, Any]:
    """Read and check ``survey.json`` of a folder; `schema` describes it.

    Raises
    ------
    ParameterError
        If it does not exist, is damaged, or is of another version.
    """
    where = printable(str(folder / RECORD))
    record = read_record(folder)
    if record is None:
        raise ParameterError(f"{printable(str(folder))}: there is no survey in it (no {RECORD})")
    if record.get("format") != schema.FORMAT:
        raise ParameterError(
            f"{where}: format: found {shown(record.get('format'))}, wanted {schema.FORMAT!r}"
        )
    if record.get("version") != schema.VERSION:
        raise ParameterError(
            f"{where}: version: found {shown(record.get('version'))}, wanted {schema.VERSION}"
        )
    for key, (is_right, wanted) in _WANTED.items():
        if not is_right(record.get(key)):
            raise ParameterError(f"{where}: {key}: found {shown(record.get(key))}, wanted {wanted}")
    listed = [layer for layers in record["layer_sets"] for layer in layers]
    if sorted(listed) != sorted(record["features"]):
        raise ParameterError(f"{where}: layer_sets and features name different layers")
    return record


def shards_of_record(folder: Path, record: Mapping[str, Any], tracks: pa.Table) -> Shards:
    """The shards that the tables were made of."""
    features = record["features"]
    sets = [{layer: features[layer] for layer in layers} for layers in record["layer_sets"]]
    digests = dict.fromkeys(tracks["shard"].to_pylist())
    names = [[shard_name(digest, layers) for layers in sets] for digest in digests]
    settings = record["settings"]
    return Shards(folder, names, sets, settings["rows"], padded_to(record))


def padded_to(record: Mapping[str, Any]) -> float:
    """Seconds to which windows are padded; 0 if the front end does not fix their length."""
    is_open = record["frontend"].get("frames") is None
    return 0.0 if is_open else float(record["settings"]["window"])


def read_named_table(folder: Path, record: Mapping[str, Any], name: str) -> pa.Table:
    """Read a table of a survey, and check that its layers and features are those of the record.

    Raises
    ------
    ParameterError
        If it does not exist, is damaged, or has other layers or features.
    """
    path = folder / f"{name}.parquet"
    if name in _WHY_NOT and not path.exists():
        raise ParameterError(f"{printable(str(path))}: there is no such table: {_WHY_NOT[name]}")
    table = read_table(path, SCHEMAS[name])
    for prefix in ("", "other_"):
        if f"{prefix}layer" in table.column_names:
            _check_features(
                table[f"{prefix}layer"], table[f"{prefix}feature"], record["features"], str(path)
            )
    if name == "features":
        lengths = pc.list_value_length(table["histogram"]).unique().to_pylist()
        if lengths not in ([], [len(schema.EDGES) + 1]):
            raise ParameterError(
                f"{printable(str(path))}: histograms must have {len(schema.EDGES) + 1} bins, found "
                f"{', '.join(map(str, lengths))}"
            )
    return table


def _check_features(
    layers: pa.ChunkedArray, features: pa.ChunkedArray, known: Mapping[str, int], path: str
) -> None:
    for layer in layers.unique().to_pylist():
        if layer not in known:
            raise ParameterError(f"{printable(path)}: no layer {shown(layer)} in this survey")
        bounds = pc.min_max(features.filter(pc.equal(layers, layer))).as_py()
        for number in bounds.values():
            if not 0 <= number < known[layer]:
                raise ParameterError(
                    f"{printable(path)}: layer {shown(layer)} has {known[layer]} features, found "
                    f"number {number}"
                )


# --- what a record must hold ---------------------------------------------------------------


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_settings(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("rows"), bool) and _is_number(
        value.get("window")
    )


def _is_network(value: Any) -> bool:
    return isinstance(value, dict) and _are_texts(value.get("classes")) and (
        value.get("name") is None or _is_text(value["name"])
    )


def _are_counts(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict) and all(_is_number(value.get(key)) for key in _COUNTS)
    )


def _are_sizes(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= _MOST_FEATURES
        for n in value.values()
    )


_WANTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "settings": (_are_settings, "an object with rows and window"),
    "network": (_is_network, "an object with name and classes"),
    "frontend": (lambda value: isinstance(value, dict), "an object, the front end"),
    "layer_sets": (
        lambda value: isinstance(value, list) and bool(value) and all(map(_are_texts, value)),
        "a list of lists of layers",
    ),
    "features": (_are_sizes, "an object with the number of features of each layer"),
    "edges": (lambda value: value == schema.EDGES.tolist(), "the edges of this version"),
    "root": (_is_text, "the path of a folder"),
    "left_aside": (_is_number, "a number of files"),
    "counts": (_are_counts, "null, or an object with tracks, errors, windows and seconds"),
    "left_out": (_are_texts, "a list of texts"),
}
