"""The tables of a survey as an atlas needs them, read with care.

They may come from anybody. Nothing in them is trusted as a path or as HTML, and a small file that
would unpack to something huge is refused before it is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio.frontend import plain_record
from ..errors import FastdeconvError, ParameterError, printable, shown

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "TAGS_KEPT", "Association", "Companion", "Exemplar", "FeatureRow", "Key", "SurveyRecord",
    "Tables", "TrackRow", "means_by_track", "read_survey",
]

Key = tuple[str, int]
"""A layer and the number of one of its features."""

#: How many associations of a feature with tags are kept, the strongest.
TAGS_KEPT = 20

_CONTROL = "control"
_STORED = {"k": "feature"}
_KINDS = frozenset({"r", "auc", "eta2"})


class SurveyRecord(NamedTuple):
    """What ``survey.json`` says, as far as an atlas needs it."""

    name: str | None
    """Of the network."""
    classes: tuple[str, ...]
    frontend: dict[str, Any]
    layers: dict[str, int]
    """The number of features of every layer, in the order of the tables."""
    edges: NDArray[np.float64]
    """The edges of all histograms."""
    root: str
    settings: dict[str, Any]
    left_out: tuple[str, ...]
    """Attributes of the user's table that are not compared with features, and why."""


class FeatureRow(NamedTuple):
    """A row of ``features.parquet``."""

    layer: str
    k: int
    n: int
    mean: float | None
    std: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None
    active: float | None
    silent: bool
    histogram: NDArray[np.int64]
    """How many windows have their maximum between two of `SurveyRecord.edges`."""


class Exemplar(NamedTuple):
    """A row of ``exemplars.parquet``, without layer and feature."""

    track: str
    start: float
    end: float
    at: float
    score: float
    label: str | None


class Companion(NamedTuple):
    """A feature that fires with another one."""

    layer: str
    k: int
    r: float


class Association(NamedTuple):
    """How a feature is related to a column of the user's table."""

    attribute: str
    kind: str
    value: float
    low: float | None
    high: float | None
    label: str | None
    n: int
    q: float | None
    effect: float
    """How strong it is, on one scale from 0 to 1 for all kinds: the absolute value of a
    correlation; the distance of an AUC from chance, 0 to 1; the square root of a share of variance,
    which is the correlation ratio."""
    in_control: bool | None
    """Whether some feature of this layer in the untrained network is related to the column as
    strongly. None if no control was run."""


class TrackRow(NamedTuple):
    """A row of ``tracks.parquet``."""

    track: str
    windows: int
    duration: float
    is_error: bool


@dataclass(frozen=True)
class Tables:
    """All that an atlas shows of a survey; features and tracks in the order of the tables."""

    survey: SurveyRecord
    features: dict[Key, FeatureRow]
    exemplars: dict[Key, list[Exemplar]]
    """The largest activation first."""
    together: dict[Key, list[Companion]]
    associations: dict[Key, list[Association]]
    """At most `TAGS_KEPT` for each feature, the strongest first."""
    attributes: dict[str, str]
    """The columns of the user's table and the kind of each."""
    has_control: bool
    """Whether the same was computed for an untrained network."""
    tracks: list[TrackRow]
    tags: dict[str, dict[str, float | str]]
    """The user's table: attribute -> track -> number or label."""


def read_survey(out: Path) -> Tables:
    """All tables of a survey.

    Raises
    ------
    ParameterError
        If there is no survey, it is not complete, or one of its files is damaged. Names the file.
    """
    from ..survey.record import checked_record

    record = checked_record(out)
    if record["counts"] is None:
        raise ParameterError(
            f"{printable(str(out))}: the survey is not complete; run its command again to continue"
        )
    survey = _survey_of(record, str(out / "survey.json"))

    def read(name: str, *, needed: bool = False) -> pa.Table | None:
        return _read(out, record, name, needed=needed)

    features = _features(
        read("features", needed=True), survey.layers, out / "features.parquet"
    )
    control = _read_control(out / _CONTROL)
    attributes, associations = _associations(
        read("attributes"), out / "attributes.parquet", control
    )
    return Tables(
        survey, features,
        _exemplars(read("exemplars", needed=True), out / "exemplars.parquet"),
        _together(read("together")),
        associations, attributes, control is not None,
        _tracks(read("tracks", needed=True)), _tags(read("tags")),
    )


def means_by_track(out: Path) -> tuple[list[str], NDArray[np.float32]] | None:
    """The tracks, and the mean activation of every feature in each, (tracks, features).

    None for a survey that keeps no rows, or whose shards are not there any more.
    """
    from ..survey.record import checked_record, shards_of_record
    from ..survey.store import shard_path
    from ..survey.tables import means_of_tracks

    record = checked_record(out)
    tracks = _read(out, record, "tracks", needed=True)
    shards = shards_of_record(out, record, tracks)
    places = [shard_path(out, name) for names in shards.names for name in names]
    if not shards.rows or not all(place.is_file() for place in places):
        return None
    return means_of_tracks(shards)


def _survey_of(record: Mapping[str, Any], where: str) -> SurveyRecord:
    from ..survey.schema import EDGES
    from ..survey.store import LONGEST_TEXT

    network = record["network"]
    texts = [network["name"] or "", *network["classes"], *record["features"], record["root"]]
    longest = max(map(len, texts))
    if longest > LONGEST_TEXT:
        raise ParameterError(f"{printable(where)}: found a text of {longest} characters")
    try:
        frontend = plain_record(record["frontend"])
    except FastdeconvError as error:
        raise ParameterError(f"{printable(where)}: frontend: {error}") from None
    return SurveyRecord(
        network["name"], tuple(network["classes"]), frontend, dict(record["features"]), EDGES,
        record["root"], dict(record["settings"]), tuple(record["left_out"]),
    )


# --- one table each ------------------------------------------------------------------------


def _features(
    table: pa.Table, layers: Mapping[str, int], path: Path
) -> dict[Key, FeatureRow]:
    found = {}
    for values in _rows(table, [_STORED.get(name, name) for name in FeatureRow._fields]):
        row = FeatureRow(*values)
        histogram = np.asarray(row.histogram, np.int64)
        found[row.layer, row.k] = row._replace(histogram=histogram)
    if list(found) != [(layer, k) for layer, count in layers.items() for k in range(count)]:
        raise _damaged(path, "its rows are not those of the features of survey.json, in order")
    return found


def _exemplars(table: pa.Table, path: Path) -> dict[Key, list[Exemplar]]:
    ranked: dict[Key, list[tuple[int, Exemplar]]] = {}
    for layer, k, rank, *values in _rows(table, ["layer", "feature", "rank", *Exemplar._fields]):
        one = Exemplar(*values)
        numbers = one.start, one.end, one.at, one.score
        if not all(map(math.isfinite, numbers)) or not 0 <= one.start < one.end:
            raise _damaged(path, f"found the times and score {shown(numbers)}")
        ranked.setdefault((layer, k), []).append((rank, one))
    return {
        key: [one for _, one in sorted(own, key=lambda pair: pair[0])]
        for key, own in ranked.items()
    }


def _together(table: pa.Table | None) -> dict[Key, list[Companion]]:
    found: dict[Key, list[Companion]] = {}
    if table is not None:
        names = ["layer", "feature", "other_layer", "other_feature", "r"]
        for layer, k, *values in _rows(table, names):
            found.setdefault((layer, k), []).append(Companion(*values))
    return {key: sorted(own, key=lambda one: -one.r) for key, own in found.items()}


def _associations(
    table: pa.Table | None, path: Path, control: Mapping[tuple[str, str], float] | None
) -> tuple[dict[str, str], dict[Key, list[Association]]]:
    """The kind of each attribute, and the strongest associations of each feature."""
    if table is None:
        return {}, {}
    fields = [name for name in Association._fields if name not in ("effect", "in_control")]
    table = table.select(["layer", "feature", *fields])
    kinds = dict(zip(table["attribute"].to_pylist(), table["kind"].to_pylist(), strict=True))
    effects = _effects(table, path)
    found: dict[Key, list[Association]] = {}
    for i in _strongest(table, effects):
        layer, k, *values = (column[i].as_py() for column in table.columns)
        row = dict(zip(fields, values, strict=True))
        floor = None if control is None else control.get((layer, row["attribute"]), 0.0)
        found.setdefault((layer, k), []).append(Association(
            effect=float(effects[i]),
            in_control=None if floor is None else bool(effects[i] <= floor), **row,
        ))
    return kinds, found


def _effects(table: pa.Table, path: Path) -> NDArray[np.float64]:
    """How strong every association is (see `Association.effect`); NaN where it has no value."""
    kind = np.array(table["kind"].to_pylist(), object)
    strange = set(kind) - _KINDS
    if strange:
        raise _damaged(path, f"there is no kind {shown(min(strange))}")
    value = np.array(table["value"].to_pylist(), np.float64)
    with np.errstate(invalid="ignore"):
        of_classes = np.where(kind == "auc", np.abs(2 * value - 1), np.sqrt(np.maximum(value, 0)))
        return np.where(kind == "r", np.abs(value), of_classes)


def _strongest(table: pa.Table, effects: NDArray[np.float64]) -> list[int]:
    """The rows to keep, the strongest first, with at most `TAGS_KEPT` for every feature."""
    order = np.argsort(-effects, kind="stable")  # NaN comes last
    seen: dict[tuple[Any, Any], int] = {}
    layers, numbers = table["layer"].to_pylist(), table["feature"].to_pylist()
    kept = []
    for i in order[: np.count_nonzero(np.isfinite(effects))].tolist():
        key = layers[i], numbers[i]
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= TAGS_KEPT:
            kept.append(i)
    return kept


def _read_control(folder: Path) -> dict[tuple[str, str], float] | None:
    """The strongest association of each layer and attribute in the untrained network."""
    from ..survey.record import checked_record

    path = folder / "attributes.parquet"
    if not path.exists():
        return None
    table = _read(folder, checked_record(folder), "attributes", needed=True)
    found: dict[tuple[str, str], float] = {}
    effects = _effects(table, path).tolist()
    names = _rows(table, ["layer", "attribute"])
    for (layer, attribute), effect in zip(names, effects, strict=True):
        if math.isfinite(effect):
            found[layer, attribute] = max(found.get((layer, attribute), 0.0), effect)
    return found


def _tracks(table: pa.Table) -> list[TrackRow]:
    return [
        TrackRow(track, windows, duration, error is not None)
        for track, windows, duration, error in _rows(
            table, ["track", "windows", "duration", "error"]
        )
    ]


def _tags(table: pa.Table | None) -> dict[str, dict[str, float | str]]:
    found: dict[str, dict[str, float | str]] = {}
    if table is not None:
        for track, attribute, number, label in _rows(
            table, ["track", "attribute", "number", "label"]
        ):
            value = number if label is None else label
            if value is not None:
                found.setdefault(attribute, {})[track] = value
    return found


# --- Parquet -------------------------------------------------------------------------------


def _read(folder: Path, record: Mapping[str, Any], name: str, *, needed: bool) -> Any:
    """A table of a survey; None if it is not there and not `needed`."""
    from ..survey.record import read_named_table

    path = folder / f"{name}.parquet"
    if not needed and not path.exists():
        return None
    return read_named_table(folder, dict(record), name)


def _rows(table: pa.Table, names: list[str]) -> Any:
    """The rows of some columns as tuples of Python values."""
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _damaged(path: Path, reason: str) -> ParameterError:
    return ParameterError(f"{printable(str(path))}: {reason}")
