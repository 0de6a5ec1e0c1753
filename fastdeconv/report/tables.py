"""The tables of a result, as `fastdeconv.textfiles` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..analysis.descriptors import DESCRIPTORS
from ..textfiles import table_text, write_text

__all__ = ["COLUMNS", "own_and_theirs", "write_csv", "write_rows"]

#: Columns of ``features.csv``; `fastdeconv.Explanation.table` says what they hold.
COLUMNS = (
    "layer", "feature", "energy", "peak", "nonzero", "gain", "rank", "label", "twin_of",
    *DESCRIPTORS,
)


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows with the keys `COLUMNS`; numbers with every digit they have."""
    write_text(path, table_text(COLUMNS, rows))


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
