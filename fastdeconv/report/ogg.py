"""Ogg files with the same bytes for the same sound."""

from __future__ import annotations

import struct
import zlib
from typing import IO

__all__ = ["set_serial"]

_CAPTURE = b"OggS"
_SERIAL, _CHECK, _COUNT = 14, 22, 26
"""Where in the header of a page they are; what follows the last is as long as it says."""
_TURNED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


def set_serial(file: IO[bytes], serial: int) -> None:
    """Give the one stream of an Ogg file another serial number, page by page, in place.

    libsndfile draws that number by chance, so that no two files of a sound are the same.

    Parameters
    ----------
    file : binary file
        Open for reading and writing; read from its beginning.
    serial : int

    Raises
    ------
    ValueError
        If the file is not made of whole pages of Ogg.
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
    """Ogg's CRC of 32 bits: that of zlib with the bits of every byte and of the sum turned round,
    from 0 instead of all ones, and not inverted at the end."""
    turned = zlib.crc32(page.translate(_TURNED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{turned:032b}"[::-1], 2)
