"""Opening files that were named by a user or found in a folder.

A named pipe would keep the reader waiting for a writer, and a device may have no end.
Every file that is not part of the package is therefore opened here.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import IO

__all__ = ["open_regular", "read_regular"]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
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
