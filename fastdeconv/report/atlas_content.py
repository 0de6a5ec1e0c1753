"""What the page of an atlas shows, from the tables of a survey and the excerpts that were made.

It is plain data, ready to become JSON. Features, tracks and attributes are referred to by their
index in one list of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import printable
from .atlas_excerpts import EXCERPTS, NUMBERS, Excerpt
from .atlas_songs import Songs
from .atlas_tables import Association, Exemplar, FeatureRow, Key, Tables
from .atlas_trust import counts_of
from .numbers import NUMBERS as SHOWN_NUMBERS
from .numbers import rounded, with_minus
from .web import url

__all__ = ["LEAST_Q", "features_of", "histogram_of", "page_data", "twins_of"]

#: The largest q-value with which an association is called more than chance.
LEAST_Q = 0.05
#: The largest number of bars in a histogram.
_BARS = 40

_NUMBERS = [number for number in SHOWN_NUMBERS if number.key in NUMBERS]


def page_data(
    tables: Tables, excerpts: Mapping[Key, Sequence[Excerpt]], songs: Songs, suffix: str,
    shown: int, verdicts: Mapping[tuple[Key, Exemplar], Mapping[str, Any]],
) -> dict[str, Any]:
    """All data for the scripts of the page.

    Parameters
    ----------
    tables : Tables
    excerpts : dict of (layer, feature) -> sequence of Excerpt
        The strongest first; a silent feature has none.
    songs : Songs
    suffix : str
        The suffix of the sound files.
    shown : int
        The largest number of excerpts of a feature.
    verdicts : dict of ((layer, feature), Exemplar) -> dict
        How far to believe the excerpts that were judged.
    """
    attributes = {name: i for i, name in enumerate(tables.attributes)}
    return {
        "numbers": [number._asdict() for number in _NUMBERS],
        "attributes": [
            {"name": printable(name), "kind": kind} for name, kind in tables.attributes.items()
        ],
        "control": tables.has_control,
        "least_q": LEAST_Q,
        "shown": shown,
        "suffix": suffix,
        "layers": [
            {
                "name": layer,
                "numbers": _spreads(
                    [_medians(excerpts.get((layer, k), ())) for k in range(count)]
                ),
            }
            for layer, count in tables.survey.layers.items()
        ],
        "verdicts": bool(verdicts),
        "features": features_of(tables, excerpts, songs, attributes, verdicts),
        "tracks": [printable(track) for track in songs.of_excerpts],
        "songs": songs.listed,
    }


def features_of(
    tables: Tables,
    excerpts: Mapping[Key, Sequence[Excerpt]],
    songs: Songs,
    attributes: Mapping[str, int],
    verdicts: Mapping[tuple[Key, Exemplar], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """What the page shows of every feature, in the order of the tables."""
    places = {key: i for i, key in enumerate(tables.features)}
    layers = {layer: i for i, layer in enumerate(tables.survey.layers)}
    heads = twins_of(tables)
    tracks = {track: i for i, track in enumerate(songs.of_excerpts)}
    medians = {key: _medians(excerpts.get(key, ())) for key in tables.features}
    labels = {key: _counted(excerpts.get(key, ())) for key in tables.features}
    usual = _usual_counts(labels, excerpts)
    below = _shares_below(medians)
    found = []
    for key, row in tables.features.items():
        own = excerpts.get(key, ())
        judged = [verdicts.get((key, one.exemplar)) for one in own]
        found.append({
            "layer": layers[row.layer],
            "k": row.k,
            "silent": row.silent,
            "twin": places[heads[key]] if key in heads else None,
            "often": _often(tables, row),
            "songs": rounded(songs.shares.get(key)),
            "active": rounded(row.active),
            "levels": [rounded(value) for value in (row.p50, row.p90, row.p99, row.max)],
            "histogram": histogram_of(tables.survey.edges, row),
            "excerpts": [
                {
                    "file": url(EXCERPTS, one.folder, one.stem),
                    "track": tracks[one.exemplar.track],
                    "at": round(one.exemplar.at, 2),
                    "begin": round(one.begin, 2),
                    "seconds": round(one.seconds, 3),
                    "field": [round(100 * share, 1) for share in one.field],
                    "rms": [rounded(value) for value in one.rms],
                    "score": rounded(float(one.exemplar.score)),
                    "label": one.label,
                    "verdict": None if verdict is None else verdict["verdict"],
                    "reason": None if verdict is None else printable(verdict["reason"]),
                }
                for one, verdict in zip(own, judged)
            ],
            "believed": _believed([verdict for verdict in judged if verdict is not None]),
            "labels": [
                [label, count, round(usual[row.layer].get(label, 0.0), 1)]
                for label, count in labels[key]
            ],
            "classes": _classes(own),
            "numbers": [
                None if values is None else [*map(rounded, values), below[key].get(name)]
                for name, values in medians[key].items()
            ],
            "tags": [
                _association(one, attributes, tables, own)
                for one in tables.associations.get(key, ())
            ],
            "together": [
                [places[one.layer, one.k], round(one.r, 3)] for one in tables.together.get(key, ())
            ],
        })
    return found


def twins_of(tables: Tables) -> dict[Key, Key]:
    """For every twin the feature that is shown in its place: the first one of its group.

    Two features of a layer are twins if they correlate above the limit of the survey. Twins of the
    same feature are twins of each other, too.
    """
    from ..survey.schema import TWINS

    heads: dict[Key, Key] = {}

    def head(key: Key) -> Key:
        while key in heads:
            key = heads[key]
        return key

    order = {key: i for i, key in enumerate(tables.features)}
    for key, companions in tables.together.items():
        for one in companions:
            if one.layer == key[0] and one.r > TWINS:
                both = head(key), head((one.layer, one.k))
                first, second = sorted(both, key=order.__getitem__)
                if first != second:
                    heads[second] = first
    return {key: head(key) for key in heads}


def histogram_of(edges: Any, row: FeatureRow) -> dict[str, Any] | None:
    """How many windows have which largest activation, in a few bars.

    Returns
    -------
    dict or None
        ``silent``: the number of windows in which the feature stays below the first positive edge;
        ``counts`` and ``edges``: the bars for the other windows. None without windows.
    """
    if not row.n:
        return None
    zero = int(np.searchsorted(edges, 0.0))  # edges[zero] is 0
    below = int(row.histogram[: zero + 2].sum())
    counts = row.histogram[zero + 2 :]
    used = np.flatnonzero(counts)
    if not used.size:
        return {"silent": below, "counts": [], "edges": []}
    first, last = int(used[0]), int(used[-1]) + 1
    step = -(-(last - first) // _BARS)
    bars = [int(counts[i : min(i + step, last)].sum()) for i in range(first, last, step)]
    # The lower edge of bin zero + 2 + i is edges[zero + 1 + i].
    ends = [zero + 1 + first + i * step for i in range(len(bars))] + [zero + 1 + last]
    shown = [float(edges[min(i, len(edges) - 1)]) for i in ends]
    return {"silent": below, "counts": bars, "edges": [rounded(edge) for edge in shown]}


def _often(tables: Tables, row: FeatureRow) -> float | None:
    """The share of the windows in which the feature fires."""
    found = histogram_of(tables.survey.edges, row)
    return None if found is None else rounded(sum(found["counts"]) / row.n)


def _believed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    found = counts_of(rows)
    return found and {key: found[key] if key == "counts" else rounded(found[key]) for key in found}


# --- what the excerpts share ---------------------------------------------------------------


def _counted(excerpts: Sequence[Excerpt]) -> list[tuple[str, int]]:
    """How many excerpts have each label, the most frequent label first."""
    counts = Counter(label for one in excerpts for label in one.label.split(", ") if label)
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _usual_counts(
    labels: Mapping[Key, Sequence[tuple[str, int]]], excerpts: Mapping[Key, Sequence[Excerpt]]
) -> dict[str, dict[str, float]]:
    """The mean count of each label over the features of a layer that have excerpts."""
    totals: dict[str, Counter[str]] = {}
    features: Counter[str] = Counter()
    for key, counts in labels.items():
        totals.setdefault(key[0], Counter()).update(dict(counts))
        features[key[0]] += bool(excerpts.get(key))
    return {
        layer: {label: total / features[layer] for label, total in counts.items()}
        for layer, counts in totals.items()
    }


def _classes(excerpts: Sequence[Excerpt]) -> list[tuple[str, int]]:
    """How often the network chooses each class for the windows, the most frequent first."""
    counts = Counter(one.exemplar.label for one in excerpts if one.exemplar.label is not None)
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(printable(name), count) for name, count in ranked]


def _medians(excerpts: Sequence[Excerpt]) -> dict[str, tuple[float, float, float] | None]:
    """Median and quartiles of each number over the excerpts of a feature."""
    return {
        number.key: _spread(one.numbers[number.key] for one in excerpts) for number in _NUMBERS
    }


def _spread(values: Iterable[float | None]) -> tuple[float, float, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    middle, low, high = np.percentile(known, [50, 25, 75]).tolist()
    return middle, low, high


def _spreads(medians: Sequence[Mapping[str, tuple[float, float, float] | None]]) -> list[Any]:
    """For each number the median and quartiles of the features' medians."""
    found = [
        _spread(None if (own := one[number.key]) is None else own[0] for one in medians)
        for number in _NUMBERS
    ]
    return [None if spread is None else [*map(rounded, spread)] for spread in found]


def _shares_below(
    medians: Mapping[Key, Mapping[str, tuple[float, float, float] | None]]
) -> dict[Key, dict[str, float]]:
    """For each feature and number the share of the layer's other features with a lower median."""
    found: dict[Key, dict[str, float]] = {key: {} for key in medians}
    for layer in {key[0] for key in medians}:
        keys = [key for key in medians if key[0] == layer]
        for number in _NUMBERS:
            known = [
                (key, own[0]) for key in keys if (own := medians[key][number.key]) is not None
            ]
            values = np.sort([value for _, value in known])
            for key, value in known:
                others = max(1, len(known) - 1)
                found[key][number.key] = round(int(np.searchsorted(values, value)) / others, 3)
    return found


# --- the user's tags -----------------------------------------------------------------------


def _association(
    one: Association, attributes: Mapping[str, int], tables: Tables, excerpts: Sequence[Excerpt]
) -> dict[str, Any]:
    return {
        "attribute": attributes[one.attribute],
        "value": rounded(one.value),
        "low": rounded(one.low),
        "high": rounded(one.high),
        "label": None if one.label is None else printable(one.label),
        "n": one.n,
        "q": rounded(one.q),
        "effect": rounded(one.effect),
        "control": one.in_control,
        "excerpts": _in_excerpts(tables.tags.get(one.attribute, {}), excerpts),
    }


def _in_excerpts(values: Mapping[str, float | str], excerpts: Sequence[Excerpt]) -> str | None:
    """The values that the tracks of the excerpts have in a column of the user's table, in words."""
    own = [values[one.exemplar.track] for one in excerpts if one.exemplar.track in values]
    texts = [value for value in own if isinstance(value, str)]
    if texts:
        label, count = Counter(sorted(texts)).most_common(1)[0]
        usual = sum(value == label for value in values.values()) / len(values)
        return f"{printable(label)} {count} of {len(own)} (of all {100 * usual:.0f} %)"
    numbers = [value for value in own if not isinstance(value, str)]
    if not numbers:
        return None
    of_all = [value for value in values.values() if not isinstance(value, str)]
    middles = [with_minus(f"{np.median(part):.4g}") for part in (numbers, of_all)]
    return f"median {middles[0]} (of all {middles[1]})"
