"""The tables of a survey as an atlas needs them, read with care.

Anybody may have written them. A table is refused, and the message names its file, if it is larger
than a survey of ours can be, lacks a column, or holds text of absurd length. Nothing here is
trusted as a path or as HTML.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio.frontend import plain_record
from ..errors import FastdeconvError, ParameterError, printable, shown
from ..files import read_regular
from ..untrusted_json import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Association", "Companion", "Exemplar", "FeatureRow", "Key", "Survey", "Tables", "TrackRow",
    "read_shard", "read_survey",
]

Key = tuple[str, int]
"""A layer and the number of a feature of it."""

#: Correlations with tags that are kept of a feature, the strongest.
TAGS_KEPT = 20

_MOST_JSON_BYTES = 1 << 26
_DEEPEST_JSON = 16
_MOST_TABLE_BYTES = 1 << 32
_MOST_ROWS = 20_000_000
_MOST_VALUES = 1 << 28  # of a column, those in lists counted one by one
_MOST_FEATURES = 1_000_000
_LONGEST_TEXT = 4096  # characters; the longest path that Linux opens
_SHARD = re.compile(r"[0-9a-f]{1,64}")
# What reading records of unknown content raises.
_DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, FastdeconvError)


class Survey(NamedTuple):
    """What ``survey.json`` says, as far as an atlas needs it."""

    name: str | None
    """Of the network."""
    classes: tuple[str, ...]
    frontend: dict[str, Any]
    layers: dict[str, int]
    """Features of every layer, in the order of the tables."""
    edges: NDArray[np.float64]
    """Of all histograms."""
    root: str
    settings: dict[str, Any]
    counts: dict[str, Any]

    @property
    def window(self) -> float | None:
        """Seconds of a window."""
        value = self.settings.get("window")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return float(value) if is_number and value > 0 else None


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
    """Of the maxima of windows, see `Survey.edges`."""


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
    """How a feature goes together with a column of the user's table."""

    attribute: str
    kind: str
    value: float
    low: float | None
    high: float | None
    label: str | None
    n: int
    q: float | None
    effect: float
    """How strong it is, 0 to 1, the same for all kinds: the size of a correlation; of an AUC how
    far it is from chance; of a share of variance its root, the correlation ratio."""
    in_control: bool | None
    """Whether some feature of this layer in the untrained network goes with it as strongly; None
    where no control was run."""


class TrackRow(NamedTuple):
    """A row of ``tracks.parquet``."""

    track: str
    shard: str
    windows: int
    duration: float
    is_error: bool


@dataclass(frozen=True)
class Tables:
    """All of a survey that an atlas shows; of features and tracks in the order of the tables."""

    survey: Survey
    features: dict[Key, FeatureRow]
    exemplars: dict[Key, list[Exemplar]]
    """The largest activation first."""
    together: dict[Key, list[Companion]]
    associations: dict[Key, list[Association]]
    """The strongest first, `TAGS_KEPT` at the most."""
    attributes: dict[str, str]
    """Columns of the user's table and of which kind they are."""
    has_control: bool
    """Whether the same was computed of an untrained network."""
    tracks: list[TrackRow]
    tags: dict[str, dict[str, float | str]]
    """The user's table: attribute -> track -> number or label."""


def read_survey(out: Path) -> Tables:
    """All tables of a survey.

    Raises
    ------
    ParameterError
        If there is no survey, or one of its files is damaged; names the file.
    """
    survey = _read_record(out / "survey.json")
    features = _read_features(out / "features.parquet", survey)
    control = _read_control(out / "control" / "attributes.parquet")
    attributes, associations = _read_associations(out / "attributes.parquet", features, control)
    return Tables(
        survey, features,
        _read_exemplars(out / "exemplars.parquet", features),
        _read_together(out / "together.parquet", features),
        associations, attributes, control is not None,
        _read_tracks(out / "tracks.parquet"),
        _read_tags(out / "tags.parquet"),
    )


# --- survey.json ---------------------------------------------------------------------------


def _read_record(path: Path) -> Survey:
    where = printable(str(path))
    try:
        data = read_regular(path, _MOST_JSON_BYTES)
        record = parse_json(data.decode("utf-8"), most_chars=len(data), deepest=_DEEPEST_JSON)
    except FileNotFoundError:
        raise ParameterError(f"{where} is not there: there is no survey in this folder") from None
    except OSError as error:
        raise ParameterError(f"{where} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ParameterError(f"{where} is damaged: {error}") from None
    try:
        if record["format"] != "fastdeconv-survey" or record["version"] != 1:
            raise ValueError("it is no survey of version 1")
        return _survey_of(record)
    except _DAMAGED as error:
        reason = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ParameterError(f"{where} is damaged: {reason}") from None


def _survey_of(record: Mapping[str, Any]) -> Survey:
    network, counts = record["network"], record["counts"]
    layers = {_text(name): int(count) for name, count in record["features"].items()}
    edges = np.asarray(record["edges"], np.float64)
    if edges.ndim != 1 or not 1 < edges.size < 1 << 16 or not (np.diff(edges) > 0).all():
        raise ValueError("its edges do not rise")
    if counts is None:
        raise ValueError("the tables were not made yet: the survey is not done")
    return Survey(
        None if network["name"] is None else _text(network["name"]),
        tuple(_text(name) for name in network["classes"] or ()),
        plain_record(record["frontend"]), layers, edges, _text(record["root"]),
        dict(record["settings"]), dict(counts),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise ValueError(f"found {shown(value)}, wanted text of at most {_LONGEST_TEXT} characters")
    return value


# --- tables --------------------------------------------------------------------------------


def _read_features(path: Path, survey: Survey) -> dict[Key, FeatureRow]:
    from ..survey.schema import FEATURES

    bins = survey.edges.size + 1
    found: dict[Key, FeatureRow] = {}
    names = ["feature" if name == "k" else name for name in FeatureRow._fields]
    for values in _rows(_read(path, FEATURES, names, most=_MOST_FEATURES)):
        row = FeatureRow(*values)
        histogram = np.asarray(row.histogram, np.int64)
        if row.layer not in survey.layers or not 0 <= row.k < survey.layers[row.layer]:
            raise _damaged(path, f"the survey has no feature {shown((row.layer, row.k))}")
        if histogram.shape != (bins,) or histogram.min() < 0:
            raise _damaged(path, f"a histogram must have {bins} counts")
        found[row.layer, row.k] = row._replace(histogram=histogram)
    return found


def _read_exemplars(path: Path, features: Mapping[Key, FeatureRow]) -> dict[Key, list[Exemplar]]:
    from ..survey.schema import EXEMPLARS

    found: dict[Key, list[tuple[int, Exemplar]]] = {key: [] for key in features}
    names = ("layer", "feature", "rank", *Exemplar._fields)
    for layer, k, rank, *values in _rows(_read(path, EXEMPLARS, names)):
        exemplar = Exemplar(*values)
        numbers = exemplar.start, exemplar.end, exemplar.at, exemplar.score
        if (layer, k) not in found:
            raise _damaged(path, f"there is no feature {shown((layer, k))}")
        if not all(map(math.isfinite, numbers)) or not 0 <= exemplar.start < exemplar.end:
            raise _damaged(path, f"found the times and score {shown(numbers)}")
        found[layer, k].append((rank, exemplar))
    return {
        key: [exemplar for _, exemplar in sorted(ranked, key=lambda pair: pair[0])]
        for key, ranked in found.items()
    }


def _read_together(path: Path, features: Mapping[Key, FeatureRow]) -> dict[Key, list[Companion]]:
    from ..survey.schema import TOGETHER

    found: dict[Key, list[Companion]] = {key: [] for key in features}
    if not path.exists():
        return found
    for layer, k, *values in _rows(_read(path, TOGETHER, TOGETHER.names)):
        companion = Companion(*values)
        if (layer, k) not in found or companion[:2] not in found or not math.isfinite(companion.r):
            raise _damaged(path, f"found {shown((layer, k, *companion))}")
        found[layer, k].append(companion)
    for companions in found.values():
        companions.sort(key=lambda one: -one.r)
    return found


def _read_associations(
    path: Path, features: Mapping[Key, FeatureRow], control: Mapping[Key, float] | None
) -> tuple[dict[str, str], dict[Key, list[Association]]]:
    """The kinds of the attributes, and of every feature the strongest associations."""
    from ..survey.schema import ATTRIBUTES

    found: dict[Key, list[Association]] = {key: [] for key in features}
    if not path.exists():
        return {}, found
    fields = [name for name in Association._fields if name not in ("effect", "in_control")]
    table = _read(path, ATTRIBUTES, ("layer", "feature", *fields))
    kinds = dict(zip(table["attribute"].to_pylist(), table["kind"].to_pylist(), strict=True))
    effects = _effects(path, table)
    for i in _strongest(table, effects):
        layer, k, *values = (column[i].as_py() for column in table.columns)
        if (layer, k) not in found:
            raise _damaged(path, f"there is no feature {shown((layer, k))}")
        row = dict(zip(fields, values, strict=True))
        floor = None if control is None else control.get((layer, row["attribute"]), 0.0)
        row["in_control"] = None if floor is None else bool(effects[i] <= floor)
        found[layer, k].append(Association(effect=float(effects[i]), **row))
    return kinds, found


def _effects(path: Path, table: pa.Table) -> NDArray[np.float64]:
    """How strong every association is, see `Association.effect`; NaN where there is none."""
    kind = np.array(table["kind"].to_pylist(), object)
    value = np.array(table["value"].to_pylist(), np.float64)
    strange = set(kind) - {"r", "auc", "eta2"}
    if strange:
        raise _damaged(path, f"there is no kind {shown(min(strange))}")
    with np.errstate(invalid="ignore"):
        of_classes = np.where(kind == "auc", np.abs(2 * value - 1), np.sqrt(np.maximum(value, 0)))
        return np.where(kind == "r", np.abs(value), of_classes)


def _strongest(table: pa.Table, effects: NDArray[np.float64]) -> list[int]:
    """Rows to keep, the strongest first; of every feature `TAGS_KEPT` at the most."""
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


def _read_control(path: Path) -> dict[tuple[str, str], float] | None:
    """Of every layer and attribute the strongest association in the untrained network."""
    from ..survey.schema import ATTRIBUTES

    if not path.exists():
        return None
    table = _read(path, ATTRIBUTES, ("layer", "attribute", "kind", "value"))
    found: dict[tuple[str, str], float] = {}
    for layer, attribute, strength in zip(
        table["layer"].to_pylist(), table["attribute"].to_pylist(), _effects(path, table).tolist()
    ):
        if math.isfinite(strength):
            found[layer, attribute] = max(found.get((layer, attribute), 0.0), strength)
    return found


def _read_tracks(path: Path) -> list[TrackRow]:
    from ..survey.schema import TRACKS

    return [
        TrackRow(track, shard, windows, duration, error is not None)
        for track, shard, windows, duration, error in _rows(_read(path, TRACKS, TRACKS.names))
    ]


def _read_tags(path: Path) -> dict[str, dict[str, float | str]]:
    from ..survey.schema import TAGS

    found: dict[str, dict[str, float | str]] = {}
    if path.exists():
        for track, attribute, number, label in _rows(_read(path, TAGS, TAGS.names)):
            value = number if label is None else label
            if value is not None:
                found.setdefault(attribute, {})[track] = value
    return found


def read_shard(
    out: Path, shard: str, layers: Mapping[str, int]
) -> tuple[list[str], dict[str, NDArray[np.float32]]]:
    """Of every window in a shard the track, and by layer the mean activations of the features.

    Nothing if the shard is not there or its name is none of ours.

    Returns
    -------
    tracks : list of str
    means : dict of str -> array, shape (windows, features)
    """
    from ..survey.schema import rows_schema

    path = out / "shards" / f"{shard}.parquet"
    if not _SHARD.fullmatch(shard) or not path.is_file():
        return [], {}
    names = [f"{layer}.mean" for layer in layers]
    table = _read(path, rows_schema(layers), ("track", "start", *names))
    import pyarrow.compute as pc

    table = table.filter(pc.is_valid(table["start"]))  # a track with an error has a row of nulls
    means = {}
    for (layer, count), name in zip(layers.items(), names, strict=True):
        column = table[name].combine_chunks()
        lengths = set(pc.list_value_length(column).to_pylist())
        if lengths - {count}:
            raise _damaged(path, f"column {shown(name)} must have {count} values a row")
        values = column.flatten().to_numpy(zero_copy_only=False)
        means[layer] = values.reshape(-1, count)
    return table["track"].to_pylist(), means


# --- Parquet -------------------------------------------------------------------------------


def _read(
    path: Path, schema: pa.Schema, names: Sequence[str], *, most: int = _MOST_ROWS
) -> pa.Table:
    """Columns of a table, in the order of `names`, of the types that the schema says."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [name for name in names if pa.types.is_string(schema.field(name).type)]
    try:
        if path.stat().st_size > _MOST_TABLE_BYTES:
            raise ValueError(f"it is larger than {_MOST_TABLE_BYTES >> 20} MB")
        with path.open("rb") as file, pq.ParquetFile(file) as parquet:
            _check_columns(parquet.schema_arrow, [schema.field(name) for name in names])
            _check_size(parquet.metadata, set(names), most)
        # Text comes as numbers into a list of what is different: a long one that a small file
        # repeats a million times is there once.
        with path.open("rb") as file:
            table = pq.read_table(file, columns=list(names), read_dictionary=texts)
        for name in names:
            if table[name].null_count and not schema.field(name).nullable:
                raise ValueError(f"column {shown(name)} has empty places")
        for name in texts:
            _check_texts(name, table[name])
        return table.select(list(names))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _damaged(path, reason) from None


def _rows(table: pa.Table) -> Any:
    """The rows as tuples of Python values."""
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _check_columns(found: pa.Schema, wanted: Sequence[pa.Field]) -> None:
    for field in wanted:
        if field.name not in found.names:
            raise ValueError(f"it has no column {shown(field.name)}")
        kind = found.field(field.name).type
        if kind != field.type:
            raise ValueError(f"column {shown(field.name)} is {kind}, wanted {field.type}")


def _check_size(metadata: Any, names: set[str], most: int) -> None:
    if metadata.num_rows > most:
        raise ValueError(f"it has {metadata.num_rows} rows, over the limit of {most}")
    values: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        for i in range(metadata.num_columns):
            column = metadata.row_group(group).column(i)
            name = column.path_in_schema.removesuffix(".list.element")
            values[name] = values.get(name, 0) + column.num_values
    for name, count in values.items():
        if name in names and count > _MOST_VALUES:
            raise ValueError(f"column {shown(name)} has {count} values")


def _check_texts(name: str, column: Any) -> None:
    for chunk in column.chunks:
        for text in chunk.dictionary.to_pylist():
            if text is not None and len(text) > _LONGEST_TEXT:
                raise ValueError(f"column {shown(name)} has a text of {len(text)} characters")


def _damaged(path: Path, reason: str) -> ParameterError:
    return ParameterError(f"{printable(str(path))} cannot be used: {reason}")
