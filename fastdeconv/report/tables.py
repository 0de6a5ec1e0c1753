"""The tables of a result, as `fastdeconv.textfiles` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..analysis.descriptors import DESCRIPTORS
from ..belief.trust import COLUMNS as TRUST_COLUMNS
from ..deconvnet.fields import Place
from ..textfiles import table_text, write_text

__all__ = [
    "COLUMNS", "PLACE_COLUMNS", "columns_of", "own_and_theirs", "place_columns", "write_csv",
    "write_rows",
]

#: Columns of ``features.csv``; `fastdeconv.Explanation.table` says what they hold.
COLUMNS = (
    "layer", "feature", "energy", "peak", "nonzero", "gain", "rank", "label", "twin_of",
    *DESCRIPTORS,
)
#: What the strongest unit of a feature can see in a clip.
PLACE_COLUMNS = ("unit_start", "unit_end", "unit_low", "unit_high")
_GROUPS = (PLACE_COLUMNS, TRUST_COLUMNS)
"""Groups of columns; a table has all columns of a group or none."""


def columns_of(row: Mapping[str, Any]) -> list[str]:
    """`COLUMNS`, and the columns of places and of verdicts if the row has any of them."""
    groups = [group for group in _GROUPS if not row.keys().isdisjoint(group)]
    return [*COLUMNS, *(column for group in groups for column in group)]


def place_columns(place: Place | None) -> dict[str, float | None]:
    """The `PLACE_COLUMNS` of a row; None for what is not known."""
    seconds = (None, None) if place is None or place.seconds is None else place.seconds
    hertz = (None, None) if place is None or place.hertz is None else place.hertz
    return dict(zip(PLACE_COLUMNS, (*seconds, *hertz), strict=True))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of ``features.csv``, with the columns that the first row has."""
    write_text(path, table_text(columns_of(rows[0] if rows else {}), rows))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows whose columns are the keys of the first."""
    write_text(path, table_text(list(rows[0]), rows))


def own_and_theirs(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """One row: our own columns, then all columns that the user named.

    A user's column with the name of one of ours gets the prefix ``attribute_``, repeated until
    every name is there only once.
    """
    row = dict(own)
    for name, value in theirs.items():
        column = name
        while column in row or (column != name and column in theirs):
            column = f"attribute_{column}"
        row[column] = value
    return row
