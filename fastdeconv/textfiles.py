"""Text files of a result: tables, JSON and plain text, all in UTF-8.

The same content gives the same bytes: there are no times and no paths of this machine in them.

A spreadsheet takes text that begins with one of ``= + - @`` or a tab for a formula, and computes
it. The names of songs, layers and attributes come from outside, so `table_text` puts an apostrophe
before such text, as one does by hand in a spreadsheet. `read_rows` removes it again.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["as_bytes", "json_text", "read_rows", "table_text", "write_json", "write_text"]

# The wide forms are those of East Asian keyboards, which some spreadsheets take as well.
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")


def table_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A CSV table. Numbers are written with all their digits."""
    lines = [_line(columns), *(_line([row.get(column) for column in columns]) for row in rows)]
    return "".join(lines)


def read_rows(lines: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a table of `table_text`, from its lines.

    Parameters
    ----------
    lines : iterable of str
        Such as a file opened with ``newline=""``.

    Raises
    ------
    ValueError
        If they are not the lines of such a table.
    """
    try:
        header, *rows = ([_text(cell) for cell in row] for row in csv.reader(lines, strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return [dict(zip(header, row, strict=True)) for row in rows]


def _line(values: Iterable[Any]) -> str:
    buffer = io.StringIO()
    # csv quotes a line end inside a cell only if it ends its own lines in the same way.
    csv.writer(buffer, lineterminator="\r\n").writerow(map(_cell, values))
    return buffer.getvalue()[:-2] + "\n"


def _cell(value: Any) -> Any:
    """A value as it is written: empty for NaN, and never a formula."""
    if isinstance(value, str):
        is_formula = _FORMULA.match(value.lstrip("'")) and not _NUMBER.fullmatch(value)
        return f"'{value}" if is_formula else value
    return "" if value != value else value


def _text(cell: str) -> str:
    """The text from which `_cell` made a cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell.lstrip("'")) else cell


def json_text(record: Mapping[str, Any]) -> str:
    """A JSON object, indented for people."""
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_bytes(text: str) -> bytes:
    """Text as UTF-8, whatever characters it has."""
    # A file name that is not valid text reaches Python as lone surrogates, which UTF-8
    # refuses. Their backslash escapes are valid JSON too.
    return text.encode("utf-8", "backslashreplace")


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object, indented for people."""
    write_text(path, json_text(record))


def write_text(path: Path, text: str) -> None:
    """Write text, whatever characters it has."""
    path.write_bytes(as_bytes(text))
