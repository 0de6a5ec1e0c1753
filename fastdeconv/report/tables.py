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
#: Where the strongest unit of a feature of a clip looks.
PLACE_COLUMNS = ("unit_start", "unit_end", "unit_low", "unit_high")
_GROUPS = (PLACE_COLUMNS, TRUST_COLUMNS)
"""Of columns that a table has whole or not at all."""


def columns_of(row: Mapping[str, Any]) -> list[str]:
    """`COLUMNS`, and where it looks and how far to believe it, if the row says that."""
    groups = [group for group in _GROUPS if not row.keys().isdisjoint(group)]
    return [*COLUMNS, *(column for group in groups for column in group)]


def place_columns(place: Place | None) -> dict[str, float | None]:
    """`PLACE_COLUMNS` of a row; None for what is not known."""
    seconds = (None, None) if place is None or place.seconds is None else place.seconds
    hertz = (None, None) if place is None or place.hertz is None else place.hertz
    return dict(zip(PLACE_COLUMNS, (*seconds, *hertz), strict=True))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, with the columns of the first; numbers with every digit they have."""
    write_text(path, table_text(columns_of(rows[0] if rows else {}), rows))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows whose columns are the keys of the first."""
    write_text(path, table_text(list(rows[0]), rows))


def own_and_theirs(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """One row of columns of ours, then columns that the user named, none of them lost.

    A name that is ours already gets the prefix ``attribute_``, as often as it takes to have
    every name once.
    """
    row = dict(own)
    for name, value in theirs.items():
        column = name
        while column in row or (column != name and column in theirs):
            column = f"attribute_{column}"
        row[column] = value
    return row
