"""What libsndfile reads instead of a file: pieces of it, with other bytes in between.

Headers are often wrong about the length of the sound that follows, and libsndfile believes them.
The modules for the containers (`chunks`, `flac`, `mpeg`, `ogg`) therefore read what they need of
the headers, and say which bytes libsndfile is given: the same audio data with a correct header.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Needed", "Part", "Piece", "Pieces", "find", "read_at"]

#: Bytes, or a range of the file: the position of its first byte, and of the one after its last.
Piece = bytes | tuple[int, int]
#: Takes the rate; returns how many samples of the file are needed from its start; None for all.
Needed = Callable[[float], int | None]
_BLOCK = 1 << 20
# Bytes of a tag at the end of an mp3.
_TAG_SIZE = 128


@dataclass(frozen=True)
class Part:
    """A stream of sound in a file. Most files have one.

    Attributes
    ----------
    pieces : tuple
        What libsndfile reads, to the end.
    tail : int
        Bytes by which the pieces seem longer to libsndfile than they are.
    skip : int
        Decoded samples at the start that do not belong to the sound.
    length : int, optional
        Samples after them that belong to the sound; None for all.
    promised : int, optional
        Decoded samples that there should be. If there are fewer, the file is damaged.
    cut : str, optional
        Error message, if it is already known that the end of the sound is missing.
    """

    pieces: tuple[Piece, ...]
    tail: int = 0
    skip: int = 0
    length: int | None = None
    promised: int | None = None
    cut: str | None = None


class Pieces:
    """Pieces of a file, one after another, as a binary file for libsndfile.

    A failed read or seek raises nothing, because an exception cannot pass through libsndfile; it
    is noted in `failed`. A damaged file can make libsndfile ask for impossible seeks; it notices
    that the position or the number of bytes is not the one it asked for.

    With a `tail` the file seems longer by so many bytes. They cannot be read, except for the last
    ones, where libsndfile looks for a tag and finds zeros.
    """

    def __init__(self, file: Any, pieces: Iterable[Piece], tail: int = 0) -> None:
        self.failed: str | None = None
        self._file = file
        self._pieces: list[Piece] = []
        self._starts: list[int] = []
        self._tail = tail
        self.size = self._position = 0
        for piece in pieces:
            size = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            if size > 0:
                self._pieces.append(piece)
                self._starts.append(self.size)
                self.size += size

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_CUR: self._position, os.SEEK_END: self.size + self._tail}.get(whence, 0)
        if base + offset >= 0:
            self._position = base + offset
        return self._position

    def read(self, size: int) -> bytes:
        if self._tail and self._position >= self.size + self._tail - _TAG_SIZE:
            return bytes(size)
        found: list[bytes] = []
        while size > 0 and self._position < self.size and self.failed is None:
            k = bisect_right(self._starts, self._position) - 1
            within = self._position - self._starts[k]
            data = self._read_piece(self._pieces[k], within, size)
            found.append(data)
            self._position += len(data)
            size -= len(data)
        return found[0] if len(found) == 1 else b"".join(found)

    def _read_piece(self, piece: Piece, within: int, size: int) -> bytes:
        if isinstance(piece, bytes):
            return piece[within : within + size]
        start = piece[0] + within
        size = min(size, piece[1] - start)
        try:
            data = read_at(self._file, start, size)
        except (OSError, ValueError) as error:
            self.failed = str(error)
            return b""
        if len(data) < size:
            self.failed = "the file ends earlier than it did when it was opened"
        return data


def read_at(file: Any, position: int, size: int) -> bytes:
    """Read `size` bytes from `position`; fewer only where the file ends."""
    file.seek(position)
    data: bytes = file.read(size)
    # An unbuffered file may return fewer bytes than there are.
    while 0 < len(data) < size:
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data


def find(file: Any, pattern: re.Pattern[bytes], start: int, stop: int) -> int | None:
    """Position of the first match of `pattern`, which is at most 8 bytes long; else None."""
    tail = b""
    while start < stop:
        block = read_at(file, start, min(_BLOCK, stop - start))
        if not block:
            break
        found = pattern.search(tail + block)
        if found:
            return start - len(tail) + found.start()
        start, tail = start + len(block), (tail + block)[-7:]
    return None
