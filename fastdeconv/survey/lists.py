"""Reading the lists and tables of tracks that a user wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..errors import shown
from ..files import read_table, read_text

__all__ = ["TRACK_COLUMNS", "header_text", "read_list", "read_table_rows"]

#: Names of the column that has the tracks.
TRACK_COLUMNS = ("track", "file", "path")
_MOST_BYTES = 1 << 30
_OTHER_SEPARATORS = ";\t"


def read_list(path: str | os.PathLike[str]) -> str:
    """The text of a list or table of tracks; raises as `fastdeconv.files.read_text`."""
    return read_text(path, _MOST_BYTES, any_bytes=True)


def read_table_rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table of tracks; raises as `fastdeconv.files.read_table`."""
    return read_table(path, _MOST_BYTES, any_bytes=True)


def header_text(header: list[str]) -> str:
    """A header as an error message shows it, with a hint if commas do not separate its columns."""
    found = ", ".join(map(shown, header)) or "nothing"
    is_separated_otherwise = len(header) == 1 and any(c in header[0] for c in _OTHER_SEPARATORS)
    return found + ("; columns must be separated by commas" if is_separated_otherwise else "")
