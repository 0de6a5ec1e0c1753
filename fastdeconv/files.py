"""Opening files that were named by a user or found in a folder, and reading a user's tables.

A named pipe would keep the reader waiting for a writer, and a device may have no end.
Every file that is not part of the package is therefore opened here.
"""

from __future__ import annotations

import codecs
import csv
import errno
import io
import os
import stat
from collections.abc import Iterator
from typing import IO

from .errors import ParameterError, printable

__all__ = ["open_regular", "read_regular", "read_table", "read_text"]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file for reading bytes; whatever is not a regular file is refused at once.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If it is a folder, pipe, socket or device, or cannot be opened. `strerror` is the
        reason without the name.
    """
    try:
        # Checked before opening, because opening a pipe waits for its other end.
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind == stat.S_IFREG:
            return open(path, "rb")
    except ValueError as error:  # a null byte in the name
        raise OSError(errno.EINVAL, str(error), path) from None
    found = _KINDS.get(kind, "something else")
    raise OSError(errno.EINVAL, f"{found}, not a regular file", path)


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """All bytes of a file that has at most `most` of them; see `open_regular`.

    Raises
    ------
    OSError
        Also if the file is larger.
    """
    with open_regular(path) as file:
        # Memory is taken for the bytes that are there, not for as many as are allowed.
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(size, most) + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MB", path)
    return data


def read_text(path: str | os.PathLike[str], most: int, *, any_bytes: bool = False) -> str:
    """The text of a list or table that a user wrote, without the mark that it is UTF-8.

    Parameters
    ----------
    path : path
    most : int
        How many bytes it may have.
    any_bytes : bool, default False
        Whether bytes that are not UTF-8 become lone surrogates, because file names have them.

    Raises
    ------
    ParameterError
        If it cannot be read or is no text in UTF-8, for instance UTF-16, as spreadsheets write
        "Unicode text".
    FileNotFoundError
        If there is no such file.
    """
    where = printable(os.fspath(path))
    try:
        data = read_regular(path, most)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ParameterError(f"{where}: {error.strerror}") from None
    for name, marks in _MARKS.items():
        if data.startswith(marks):
            raise ParameterError(f"{where}: the text is {name}; save it as UTF-8")
    if b"\0" in data:
        raise ParameterError(
            f"{where}: not a text file (it has NUL characters); if it is UTF-16 or UTF-32, save it "
            "as UTF-8"
        )
    text = data.removeprefix(codecs.BOM_UTF8)
    try:
        return os.fsdecode(text) if any_bytes else text.decode("utf-8")
    except UnicodeDecodeError as error:
        at = len(data) - len(text) + error.start
        raise ParameterError(f"{where}: not UTF-8 at byte {at}; save it as UTF-8") from None


def read_table(
    path: str | os.PathLike[str], most: int, *, any_bytes: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a user's CSV file that are not empty, each with its line; the header comes first.

    Parameters
    ----------
    path, most, any_bytes
        As in `read_text`.

    Raises
    ------
    ParameterError
        If it cannot be read, or is no CSV file; names the line.
    FileNotFoundError
        If there is no such file.
    """
    text = read_text(path, most, any_bytes=any_bytes)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        yield 1, [name.strip() for name in next(rows, [])]
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise ParameterError(
            f"{printable(os.fspath(path))}, line {rows.line_num}: {error}"
        ) from None
