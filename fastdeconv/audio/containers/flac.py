"""FLAC: the length in the header is compared with the sound, never believed.

It is 0 in a file that was written to a pipe, and it may be wrong. libsndfile is therefore told
that the length is unknown, and reads as long as there are frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .pieces import Needed, Part, find, read_at

__all__ = ["HEADER_SIZE", "length_forgotten", "parts", "rate_and_length"]

#: Bytes of the magic, the head of the block STREAMINFO, and STREAMINFO.
HEADER_SIZE = 42
_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")


def parts(file: Any, start: int, stop: int, needed: Needed) -> Iterator[Part]:
    """The stream at `start`, and further streams appended to it."""
    while True:
        header = read_at(file, start, HEADER_SIZE)
        if len(header) < HEADER_SIZE or not _START.match(header):
            yield Part(((start, stop),))
            return
        rate, length = rate_and_length(header)
        last = needed(rate)
        if last is not None and last <= length:
            # The end is not read, so a wrong length does no harm, and with a length libsndfile
            # seeks faster.
            yield Part(((start, stop),), promised=length)
            return
        follow = find(file, _START, start + HEADER_SIZE, stop)
        rest = (start + HEADER_SIZE, stop if follow is None else follow)
        yield Part((length_forgotten(header), rest), promised=length or None)
        if follow is None:
            return
        start, needed = follow, _all


def rate_and_length(header: bytes) -> tuple[int, int]:
    """Samples per second, and the number of samples (20 and 36 bits of STREAMINFO)."""
    rate = int.from_bytes(header[18:21], "big") >> 4
    return rate, int.from_bytes(header[21:26], "big") % (1 << 36)


def length_forgotten(header: bytes) -> bytes:
    """The header, changed to say that the number of samples is unknown."""
    return header[:21] + bytes([header[21] & 0xF0]) + bytes(4) + header[26:]


def _all(rate: float) -> int | None:
    return None

