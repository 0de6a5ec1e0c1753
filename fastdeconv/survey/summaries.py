"""Statistics of every feature over a shard, and how they are merged.

They are counts, means, sums of squares, histograms and the best windows. They are merged shard
after shard in the order of the tracks, in float64. So the result depends on the shards only, not on
when and by which process they were computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..deconvnet.strongest import ABSENT, best_first, firing_scores
from ..errors import ParameterError
from .measuring import seconds_at
from .rows import TrackRows, Windows, matrix, tracks_of, windows_of
from .schema import EDGES, KEPT, summary_schema

__all__ = [
    "BEST", "LayerSummary", "Summary", "TrackFacts", "empty_summary", "merge_into",
    "percentiles", "summarise", "summary_of", "summary_table",
]

_BINS = len(EDGES) + 1
#: A window that may become an exemplar. Unused places of an array have the score `ABSENT`.
BEST = np.dtype([
    ("track", np.int32), ("start", np.float64), ("end", np.float64), ("at", np.float64),
    ("score", np.float32), ("label", np.int32),
])


class TrackFacts(NamedTuple):
    """A row of `schema.TRACKS`, without the shard."""

    track: str
    windows: int
    duration: float
    error: str | None


class LayerSummary:
    """Statistics of the features of a layer; see `schema.summary_schema` for the numbers."""

    def __init__(self, features: int) -> None:
        self.mean = np.zeros(features)
        self.m2 = np.zeros(features)
        self.active = np.zeros(features)
        self.max = np.full(features, -np.inf, np.float32)
        self.histogram = np.zeros((features, _BINS), np.int64)
        self.best = _no_best(features, KEPT)

    @property
    def windows(self) -> int:
        """How many windows they are of."""
        return int(self.histogram[0].sum())


@dataclass
class Summary:
    """Statistics of one shard or of several."""

    tracks: list[TrackFacts]
    windows: int
    layers: dict[str, LayerSummary]


def empty_summary(features: Mapping[str, int]) -> Summary:
    """The statistics of no tracks; `features` has the number of features of each layer."""
    return Summary([], 0, {layer: LayerSummary(n) for layer, n in features.items()})


def summarise(table: pa.Table, features: Mapping[str, int], padded_to: float) -> Summary:
    """The statistics of a shard, from its rows.

    Parameters
    ----------
    table : pyarrow.Table
        See `schema.rows_schema`.
    features : mapping
        Layer -> number of features.
    padded_to : float
        Seconds to which windows are padded; 0 if they are not.

    Raises
    ------
    ParameterError
        If a list of the table does not have as many items as the layer has features.
    """
    tracks = tracks_of(table)
    used = table.filter(pc.is_null(table["error"]))
    windows = windows_of(used)
    facts = [
        TrackFacts(own.track, own.windows.stop - own.windows.start, own.duration, own.error)
        for own in tracks
    ]
    found = Summary(facts, len(used), {})
    for layer, count in features.items():
        own = LayerSummary(count)
        if len(used):
            _fill(own, used, layer, count, tracks, windows, padded_to)
        found.layers[layer] = own
    return found


def merge_into(total: Summary, part: Summary) -> None:
    """Add the statistics of a shard whose tracks come after those of `total`, in place."""
    before, more = total.windows, part.windows
    offset = len(total.tracks)
    total.tracks.extend(part.tracks)
    total.windows = both = before + more
    if not more:
        return
    for layer, own in part.layers.items():
        all_ = total.layers[layer]
        difference = own.mean - all_.mean
        all_.mean = all_.mean + difference * (more / both)
        all_.m2 = all_.m2 + own.m2 + np.square(difference) * (before * more / both)
        all_.active += own.active
        np.maximum(all_.max, own.max, out=all_.max)
        all_.histogram += own.histogram
        best = own.best.copy()
        best["track"] += offset
        all_.best = _best(np.concatenate([all_.best, best], axis=1))


def percentiles(summary: LayerSummary, shares: Sequence[float]) -> NDArray[np.float64]:
    """Percentiles of the windows' maxima, estimated from histograms: (shares, features)."""
    counts = summary.histogram
    below = np.cumsum(counts, axis=1)
    total = below[:, -1]
    found = np.empty((len(shares), len(counts)))
    edges = np.concatenate([[EDGES[0]], EDGES, [np.inf]])
    features = np.arange(len(counts))
    for row, share in zip(found, shares):
        wanted = share * total
        place = (below < wanted[:, np.newaxis]).sum(axis=1).clip(max=_BINS - 1)
        here = counts[features, place]
        inside = (wanted - (below[features, place] - here)) / np.maximum(here, 1)
        low = edges[place]
        high = np.minimum(edges[place + 1], np.maximum(summary.max, low))
        row[:] = low + np.where(low == 0, 0.0, (high - low) * inside)
    return found


def summary_table(summary: Summary) -> pa.Table:
    """The file of a shard of a survey without rows."""
    columns: dict[str, Any] = {
        "tracks": [[track._asdict() for track in summary.tracks]],
        "n": [summary.windows],
    }
    for layer, own in summary.layers.items():
        for what in ("mean", "m2", "active", "max"):
            columns[f"{layer}.{what}"] = [getattr(own, what)]
        columns[f"{layer}.histogram"] = [own.histogram.ravel()]
        feature, place = np.nonzero(own.best["score"] > ABSENT)
        kept = own.best[feature, place]
        columns[f"{layer}.exemplars"] = [[
            {"feature": int(k), **dict(zip(BEST.names or (), row.tolist()))}
            for k, row in zip(feature, kept)
        ]]
    return pa.table(columns, schema=summary_schema(summary.layers))


def summary_of(table: pa.Table, features: Mapping[str, int]) -> Summary:
    """The statistics of a shard, from the file that `summary_table` made.

    Raises
    ------
    ParameterError
        If it does not have exactly one row, or a list has another length.
    """
    if len(table) != 1:
        raise ParameterError(f"must have one row, found {len(table)}")
    facts = [TrackFacts(**track) for track in table["tracks"][0].as_py()]
    found = Summary(facts, table["n"][0].as_py(), {})
    for layer, count in features.items():
        own = LayerSummary(count)
        for what in ("mean", "m2", "active", "max"):
            setattr(own, what, matrix(table, f"{layer}.{what}", count)[0].copy())
        flat = matrix(table, f"{layer}.histogram", count * _BINS)
        own.histogram = flat.reshape(count, _BINS).copy()
        _read_best(own.best, table[f"{layer}.exemplars"][0].as_py(), len(facts))
        found.layers[layer] = own
    return found


def _fill(
    own: LayerSummary, used: pa.Table, layer: str, count: int, tracks: Sequence[TrackRows],
    windows: Windows, padded_to: float,
) -> None:
    means = matrix(used, f"{layer}.mean", count).astype(np.float64)
    maxima = matrix(used, f"{layer}.max", count)
    at = matrix(used, f"{layer}.at", count)
    sizes = used[f"{layer}.size"].to_numpy()
    own.mean = means.mean(axis=0)
    own.m2 = np.square(means - own.mean).sum(axis=0)
    own.active = matrix(used, f"{layer}.active", count).sum(axis=0, dtype=np.float64)
    own.max = maxima.max(axis=0)
    bins = np.searchsorted(EDGES, maxima, side="right") + np.arange(count) * _BINS
    own.histogram = np.bincount(bins.ravel(), minlength=count * _BINS).reshape(count, _BINS)
    features = np.arange(count)
    candidates = _no_best(count, len(tracks))
    for number, track in enumerate(tracks):
        mine = maxima[track.windows]
        if not len(mine):
            continue
        window = track.windows.start + mine.argmax(axis=0)  # the first if several are equal
        start, duration = windows.start[window], windows.duration[window]
        column = candidates[:, number]
        column["track"], column["label"] = number, windows.label[window]
        column["start"], column["end"] = start, start + duration
        column["at"] = np.minimum(
            seconds_at(at[window, features], sizes[window], start, np.maximum(duration, padded_to)),
            start + duration,
        )
        largest = mine.max(axis=0)
        column["score"] = firing_scores(largest)
    own.best = _best(candidates)


def _no_best(features: int, count: int) -> NDArray[Any]:
    none = np.zeros((features, count), BEST)
    none["score"] = ABSENT
    return none


def _best(candidates: NDArray[Any]) -> NDArray[Any]:
    """The `KEPT` best windows of each row; of equal ones the first."""
    best = np.take_along_axis(candidates, best_first(candidates["score"], KEPT), axis=1)
    missing = KEPT - best.shape[1]
    return np.concatenate([best, _no_best(len(best), missing)], axis=1) if missing else best


def _read_best(best: NDArray[Any], rows: Sequence[Mapping[str, Any]], tracks: int) -> None:
    filled = [0] * len(best)
    for row in rows:
        feature = row["feature"]
        if not (0 <= feature < len(best) and 0 <= row["track"] < tracks):
            raise ParameterError(
                f"an exemplar of feature {feature} and track {row['track']}, where there are "
                f"{len(best)} features and {tracks} tracks"
            )
        if filled[feature] == KEPT:
            raise ParameterError(f"feature {feature} has more than {KEPT} exemplars")
        best[feature, filled[feature]] = tuple(row[name] for name in BEST.names or ())
        filled[feature] += 1
