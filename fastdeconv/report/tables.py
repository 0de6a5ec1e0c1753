"""Text files of a result: tables, ``manifest.json``, words, all UTF-8.

The same content gives the same bytes: no times, no paths of this machine.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..analysis.descriptors import DESCRIPTORS

__all__ = ["COLUMNS", "write_csv", "write_json", "write_rows", "write_text"]

#: Columns of ``features.csv``; `fastdeconv.Explanation.table` says what they hold.
COLUMNS = (
    "layer", "feature", "energy", "peak", "nonzero", "gain", "rank", "label", "twin_of",
    *DESCRIPTORS,
)


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows with the keys `COLUMNS`; numbers with every digit they have."""
    _write_table(path, COLUMNS, rows)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows whose columns are the keys of the first."""
    _write_table(path, list(rows[0]), rows)


def _write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object, indented for people."""
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text, whatever characters it has."""
    # A file name that is not valid text reaches Python as lone surrogates, which UTF-8
    # refuses. Their backslash escapes are valid JSON too.
    path.write_bytes(text.encode("utf-8", "backslashreplace"))
