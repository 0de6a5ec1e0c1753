"""The tables of a survey from its shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..deconvnet.strongest import ABSENT
from ..errors import ParameterError, printable
from .rows import matrix
from .schema import EXEMPLARS, FEATURES, KEPT, TOGETHER, TRACKS, rows_schema, summary_schema
from .store import read_table, shard_path
from .summaries import Summary, empty_summary, merge_into, percentiles, summarise, summary_of
from .together import strongest_pairs

__all__ = [
    "Shards", "exemplar_table", "feature_table", "means_of_tracks", "together_table", "track_table",
]

_SHARES = (0.5, 0.9, 0.99)


class Shards(NamedTuple):
    """All shards of a survey, in the order of their tracks.

    A shard has one file for each set of layers that were computed together.
    """

    out: Path
    names: list[list[str]]
    """For each shard the names of its files, one for each set of layers."""
    layer_sets: list[dict[str, int]]
    """Layer -> number of its features, for each set."""
    rows: bool
    """Whether files have a row for each window, or only statistics."""
    padded_to: float
    """Seconds to which windows are padded; 0 if they are not."""

    @property
    def features(self) -> dict[str, int]:
        """Layer -> number of its features, in the order of the tables."""
        return {layer: n for layers in self.layer_sets for layer, n in layers.items()}

    def read(self, name: str, layers: Mapping[str, int], columns: list[str] | None) -> pa.Table:
        """Read a file of a shard.

        Raises
        ------
        ParameterError
            If it does not exist, or is damaged.
        """
        schema = rows_schema(layers) if self.rows else summary_schema(layers)
        try:
            return read_table(shard_path(self.out, name), schema, columns)
        except ParameterError as error:
            raise ParameterError(
                f"{error}. Remove it, if it is there, and run the survey again to have it made anew"
            ) from None

    def has_errors(self, name: str, layers: Mapping[str, int]) -> bool:
        """Whether some track of a shard could not be used."""
        if self.rows:
            table = self.read(name, layers, ["error"])
            return bool(table["error"].null_count < len(table))
        table = self.read(name, layers, ["tracks"])
        return any(track["error"] is not None for track in table["tracks"][0].as_py())

    def summary(self) -> Summary:
        """The statistics of the whole collection."""
        totals = []
        for place, layers in enumerate(self.layer_sets):
            totals.append(empty_summary(layers))
            for names in self.names:
                table = self.read(names[place], layers, None)
                with _naming(shard_path(self.out, names[place])):
                    part = (
                        summarise(table, layers, self.padded_to) if self.rows
                        else summary_of(table, layers)
                    )
                merge_into(totals[-1], part)
        # A track may have failed with one set of layers only: its process died.
        tracks = [max(same, key=lambda one: one.error is not None)
                  for same in zip(*(total.tracks for total in totals))]
        found = {layer: own for total in totals for layer, own in total.layers.items()}
        return Summary(tracks, sum(one.windows for one in tracks), found)

    def values(self, what: str) -> Iterator[tuple[list[str], NDArray[Any]]]:
        """Shard by shard, the track of each window and its values, (windows, all features).

        Only of tracks that could be used with all layers. `what` is a column of
        `schema.rows_schema`, such as "max".
        """
        for names in self.names:
            parts: list[tuple[list[str], NDArray[Any]]] = []
            for name, layers in zip(names, self.layer_sets):
                wanted = ["track", "error", *(f"{layer}.{what}" for layer in layers)]
                table = self.read(name, layers, wanted)
                used = table.filter(pc.is_null(table["error"]))
                with _naming(shard_path(self.out, name)):
                    columns = [matrix(used, f"{layer}.{what}", n) for layer, n in layers.items()]
                parts.append((used["track"].to_pylist(), np.concatenate(columns, axis=1)))
            common = set(parts[0][0]).intersection(*(tracks for tracks, _ in parts[1:]))
            kept = [
                array[[track in common for track in tracks]] for tracks, array in parts
            ]
            if len({len(array) for array in kept}) > 1:
                raise ParameterError(
                    f"{printable(str(shard_path(self.out, names[0])))}: its windows are not those "
                    f"of {names[-1]}.parquet"
                )
            tracks = [track for track in parts[0][0] if track in common]
            yield tracks, np.concatenate(kept, axis=1)


def track_table(summary: Summary, digests: Sequence[str]) -> pa.Table:
    """The table `schema.TRACKS`; `digests` has the shard of each track."""
    rows = [{**facts._asdict(), "shard": own} for facts, own in zip(summary.tracks, digests)]
    return pa.Table.from_pylist(rows, schema=TRACKS)


def feature_table(summary: Summary) -> pa.Table:
    """The table `schema.FEATURES`."""
    parts = [FEATURES.empty_table()]
    for layer, own in summary.layers.items():
        features, count = len(own.max), own.windows
        unknown = np.full(features, count == 0)
        shares = percentiles(own, _SHARES)
        numbers: dict[str, NDArray[Any]] = {
            "mean": own.mean, "std": np.sqrt(own.m2 / max(1, count)),
            **dict(zip(("p50", "p90", "p99"), shares)),
            "max": own.max, "active": own.active / max(1, count),
        }
        columns: dict[str, Any] = {
            "layer": [layer] * features, "feature": np.arange(features),
            "n": np.full(features, count), "silent": ~(own.max > 0),
            "histogram": list(own.histogram),
            **{name: pa.array(values, mask=unknown) for name, values in numbers.items()},
        }
        parts.append(pa.table(
            [pa.array(columns[field.name], field.type) if field.name not in numbers
             else columns[field.name].cast(field.type) for field in FEATURES],
            schema=FEATURES,
        ))
    return pa.concat_tables(parts).combine_chunks()


def exemplar_table(summary: Summary, classes: Sequence[str]) -> pa.Table:
    """The table `schema.EXEMPLARS`."""
    columns: dict[str, list[Any]] = {name: [] for name in EXEMPLARS.names}
    for layer, own in summary.layers.items():
        for feature, best in enumerate(own.best):
            for rank, row in enumerate(best[best["score"] > ABSENT][:KEPT]):
                label = int(row["label"])
                values = {
                    "layer": layer, "feature": feature, "rank": rank,
                    "track": summary.tracks[row["track"]].track,
                    **{name: row[name].item() for name in ("start", "end", "at", "score")},
                    "label": classes[label] if 0 <= label < len(classes) else None,
                }
                for name, value in values.items():
                    columns[name].append(value)
    return pa.table(columns, schema=EXEMPLARS)


def together_table(shards: Shards) -> pa.Table:
    """The table `schema.TOGETHER`."""
    named = [(layer, k) for layer, n in shards.features.items() for k in range(n)]
    pairs = strongest_pairs(lambda: (own for _, own in shards.values("max")), len(named))
    one, other = ([named[i] for i in places] for places in (pairs.one, pairs.other))
    return pa.table({
        "layer": [layer for layer, _ in one], "feature": [k for _, k in one],
        "other_layer": [layer for layer, _ in other], "other_feature": [k for _, k in other],
        "r": pairs.r,
    }, schema=TOGETHER)


def means_of_tracks(shards: Shards) -> tuple[list[str], NDArray[np.float32]]:
    """The tracks that could be used, and the mean of their windows' means, (tracks, features)."""
    names: list[str] = []
    means: list[NDArray[np.float32]] = []
    for tracks, values in shards.values("mean"):
        begins = [i for i, track in enumerate(tracks) if i == 0 or track != tracks[i - 1]]
        for begin, end in zip(begins, [*begins[1:], len(tracks)]):
            names.append(tracks[begin])
            means.append(values[begin:end].mean(axis=0, dtype=np.float64).astype(np.float32))
    none = np.zeros((0, sum(shards.features.values())), np.float32)
    return names, np.stack(means) if means else none


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the path of a file before the message of an error inside."""
    try:
        yield
    except ParameterError as error:
        raise ParameterError(f"{printable(str(path))}: {error}") from None
