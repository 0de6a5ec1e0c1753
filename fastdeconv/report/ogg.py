"""Ogg files with the same bytes for the same sound."""

from __future__ import annotations

import struct
import zlib
from typing import IO

__all__ = ["set_serial"]

_CAPTURE = b"OggS"
_SERIAL, _CHECK, _COUNT = 14, 22, 26
"""Offsets in the header of a page. `_COUNT` says how many bytes with sizes follow it."""
_REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


def set_serial(file: IO[bytes], serial: int) -> None:
    """Give the stream of an Ogg file another serial number, page by page, in place.

    libsndfile draws that number at random, so that no two files of the same sound are the same.

    Parameters
    ----------
    file : binary file
        Open for reading and writing. It is read from its beginning, and has one stream.
    serial : int

    Raises
    ------
    ValueError
        If the file does not consist of whole Ogg pages.
    """
    at = 0
    while True:
        file.seek(at)
        head = file.read(_COUNT + 1)
        if not head:
            return
        sizes = file.read(head[_COUNT]) if len(head) > _COUNT else b""
        body = file.read(sum(sizes))
        page = bytearray(head + sizes + body)
        whole = len(head) > _COUNT and len(sizes) == head[_COUNT] and len(body) == sum(sizes)
        if not whole or not page.startswith(_CAPTURE):
            raise ValueError(f"no page of Ogg at byte {at}")
        struct.pack_into("<I", page, _SERIAL, serial)
        struct.pack_into("<I", page, _CHECK, 0)
        struct.pack_into("<I", page, _CHECK, _checksum(page))
        file.seek(at)
        file.write(page)
        at += len(page)


def _checksum(page: bytes | bytearray) -> int:
    """The 32-bit CRC of Ogg.

    It is zlib's with the bits of every byte and of the result in reverse order, starting from 0
    instead of all ones, and not inverted at the end.
    """
    reverse = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reverse:032b}"[::-1], 2)
