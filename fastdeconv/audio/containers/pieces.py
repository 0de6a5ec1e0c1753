"""What libsndfile reads instead of a file: pieces of it, with other bytes in between.

Headers are often wrong about the length of the sound behind them, and libsndfile believes
them. The modules that know a container (`chunks`, `flac`, `mpeg`, `ogg`) therefore read the
little that has to be known of it, and say which bytes libsndfile is to be given: the same
audio data under a header that is right.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Needed", "Part", "Piece", "Pieces", "find", "read_at"]

#: Bytes as they are, or from where to where in the file.
Piece = bytes | tuple[int, int]
#: From a rate to how many samples of the file are needed from its start on; None for all.
Needed = Callable[[float], int | None]
_BLOCK = 1 << 20
# Of the tags that may stand at the end of an mp3.
_TAG_SIZE = 128


@dataclass(frozen=True)
class Part:
    """A stream of sound in a file; most files have one.

    Attributes
    ----------
    pieces : tuple
        What libsndfile is to read to its end.
    tail : int
        By how many bytes they are to seem longer to it.
    skip : int
        Decoded samples at the start that do not belong to the sound.
    length : int, optional
        Samples behind them that do; None for all.
    promised : int, optional
        Decoded samples that there should be: if there are fewer, the file is not whole.
    cut : str, optional
        Why the sound is known to end before its end.
    """

    pieces: tuple[Piece, ...]
    tail: int = 0
    skip: int = 0
    length: int | None = None
    promised: int | None = None
    cut: str | None = None


class Pieces:
    """Pieces of a file, one after another, as a binary file for libsndfile.

    A failed read or seek is silent here and noted in `failed`: an exception cannot pass
    through libsndfile. A damaged file asks for impossible seeks; libsndfile sees that the
    position or the count is not the one it asked for.

    With a `tail` the file seems to be so much longer: there is nothing to be read in it, but
    for the last bytes, where libsndfile looks for a tag.
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
    """`size` bytes from `position` on; fewer only where the file ends."""
    file.seek(position)
    data: bytes = file.read(size)
    # A file without a buffer may give less than there is.
    while 0 < len(data) < size:
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data


def find(file: Any, pattern: re.Pattern[bytes], start: int, stop: int) -> int | None:
    """Where `pattern`, of at most 8 bytes, is found first."""
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
