"""Verdicts on the excerpts of an atlas: how far to believe what is seen and heard in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..belief.trust import VERDICTS
from ..errors import printable
from .atlas_excerpts import Excerpt
from .atlas_tables import Exemplar, Key, SurveyRecord

if TYPE_CHECKING:
    from ..survey.verdicts import Place, Way

__all__ = ["Verdicts", "counts_of", "read_verdicts"]

_TABLE = "trust.parquet"

Excerpts = Mapping[Key, Sequence[Excerpt]]


class Verdicts(NamedTuple):
    """How far to believe the excerpts of an atlas."""

    rows: dict[tuple[Key, Exemplar], dict[str, Any]]
    """A row for each excerpt that was judged; see `fastdeconv.survey.schema.TRUST`."""
    missing: dict[str, str]
    """Tracks whose windows could not be judged, and why."""


def counts_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How many excerpts have which verdict, and what is usual in the same windows.

    Returns
    -------
    dict or None
        ``counts`` in the order of `VERDICTS`; ``usual``, the share of "yes" among all features of
        the layer, and ``control``, that share for an untrained network, both means over the windows
        of the excerpts (``control`` is None without an untrained network). None without rows.
    """
    if not rows:
        return None
    words = [row["verdict"] for row in rows]
    control = [row["control_yes_rate"] for row in rows if row["control_yes_rate"] is not None]
    return {
        "counts": [words.count(word) for word in VERDICTS],
        "usual": sum(row["yes_rate"] for row in rows) / len(rows),
        "control": sum(control) / len(control) if control else None,
    }


def read_verdicts(
    out: Path,
    survey: SurveyRecord,
    root: str,
    way: Way,
    excerpts: Excerpts,
    *,
    asked: bool,
    executor: Executor | None,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Verdicts:
    """Read the verdicts on excerpts that are there; if `asked`, compute the others, too.

    Writes all of them to ``trust.parquet``, in the order of the excerpts.
    """
    import pyarrow as pa

    from ..survey.schema import TRUST
    from ..survey.store import write_table
    from ..survey.verdicts import judge_places, known_verdicts

    places, gone = _places(survey, root, excerpts)
    wanted = {place: _layers(survey, own) for place, own in places.items()}
    missing: dict[str, str] = {}
    if asked:
        judged = judge_places(
            out, survey.settings, root, way, wanted, executor, workers, progress
        )
        missing = gone | judged
    found: dict[tuple[Key, Exemplar], dict[str, Any]] = {}
    for place, own in places.items():
        for layer, count in wanted[place].items():
            rows = known_verdicts(out, survey.settings, way, place, layer, count)
            if rows is not None:
                found |= {(key, one): rows[key[1]] for key, one in own if key[0] == layer}
    ordered = {
        (key, one.exemplar): found[key, one.exemplar]
        for key, own in excerpts.items() for one in own if (key, one.exemplar) in found
    }
    if ordered:
        write_table(out / _TABLE, pa.Table.from_pylist([*ordered.values()], schema=TRUST))
    else:
        (out / _TABLE).unlink(missing_ok=True)  # verdicts on excerpts that are not shown any more
    return Verdicts(ordered, missing)


def _places(
    survey: SurveyRecord, root: str, excerpts: Excerpts
) -> tuple[dict[Place, list[tuple[Key, Exemplar]]], dict[str, str]]:
    """The windows that excerpts are from, track by track, and the excerpts of each.

    Also the tracks that are not there any more, and why.
    """
    from ..survey.collection import Track, path_of
    from ..survey.verdicts import Place

    tracks: dict[str, Track] = {}
    gone: dict[str, str] = {}
    found: dict[Place, list[tuple[Key, Exemplar]]] = {}
    for key, own in excerpts.items():
        for one in own:
            name = one.exemplar.track
            if name not in tracks and name not in gone:
                # The file was there when its excerpt was made, but that may be minutes ago.
                try:
                    seen = os.stat(path_of(name, root))
                except OSError as error:
                    gone[name] = printable(error.strerror or str(error))
                else:
                    tracks[name] = Track(name, seen.st_size, seen.st_mtime_ns)
            if name in gone:
                continue
            place = Place(tracks[name], one.exemplar.start, one.exemplar.end)
            found.setdefault(place, []).append((key, one.exemplar))
    ordered = sorted(found.items(), key=lambda item: (item[0].track.name, *item[0][1:]))
    return dict(ordered), gone


def _layers(survey: SurveyRecord, own: Sequence[tuple[Key, Exemplar]]) -> dict[str, int]:
    """The layers of these excerpts, in the order of the tables, with their numbers of features."""
    used = {key[0] for key, _ in own}
    return {layer: count for layer, count in survey.layers.items() if layer in used}
