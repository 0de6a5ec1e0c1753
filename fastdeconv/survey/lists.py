"""Reading the lists and tables of tracks that a user wrote."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Iterator

from ..errors import ParameterError, printable, shown
from ..files import read_regular

__all__ = ["TRACK_COLUMNS", "header_text", "read_table_rows", "read_text"]

#: Names of the column that has the tracks.
TRACK_COLUMNS = ("track", "file", "path")
_MOST_BYTES = 1 << 30
_OTHER_SEPARATORS = ";\t"


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file. Bytes that are not UTF-8 become lone surrogates: file names have them.

    Raises
    ------
    ParameterError
        If it cannot be read, or is UTF-16, as spreadsheets write "Unicode text".
    FileNotFoundError
        If there is no such file.
    """
    where = printable(os.fspath(path))
    try:
        data = read_regular(path, _MOST_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ParameterError(f"{where}: {error.strerror}") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ParameterError(f"{where}: the text is UTF-16; save it as UTF-8")
    return os.fsdecode(data.removeprefix(codecs.BOM_UTF8))


def read_table_rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not empty, each with its line; the header comes first.

    Raises
    ------
    ParameterError
        If it cannot be read, or is no CSV file; names the line.
    FileNotFoundError
        If there is no such file.
    """
    rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        yield 1, [name.strip() for name in next(rows, [])]
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise ParameterError(
            f"{printable(os.fspath(path))}, line {rows.line_num}: {error}"
        ) from None


def header_text(header: list[str]) -> str:
    """A header as an error message shows it, with a hint if commas do not separate its columns."""
    found = ", ".join(map(shown, header)) or "nothing"
    is_separated_otherwise = len(header) == 1 and any(c in header[0] for c in _OTHER_SEPARATORS)
    return found + ("; columns must be separated by commas" if is_separated_otherwise else "")
