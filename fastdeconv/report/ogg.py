"""Ogg files with the same bytes for the same sound."""

from __future__ import annotations

import struct
import zlib

__all__ = ["with_serial"]

_CAPTURE = b"OggS"
_SERIAL, _CHECK, _COUNT = 14, 22, 26
"""Where in the header of a page they are; what follows the last is as long as it says."""
_TURNED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


def with_serial(data: bytes, serial: int) -> bytes:
    """The same Ogg file with another serial number of its one stream.

    libsndfile draws that number by chance, so that no two files of a sound are the same.

    Raises
    ------
    ValueError
        If `data` are not whole pages of Ogg.
    """
    pages, at = [], 0
    while at < len(data):
        if len(data) < at + _COUNT + 1:
            raise ValueError(f"no page of Ogg at byte {at}")
        sizes = data[at + _COUNT + 1 : at + _COUNT + 1 + data[at + _COUNT]]
        end = at + _COUNT + 1 + len(sizes) + sum(sizes)
        page = bytearray(data[at:end])
        if not page.startswith(_CAPTURE) or len(page) < end - at:
            raise ValueError(f"no page of Ogg at byte {at}")
        struct.pack_into("<I", page, _SERIAL, serial)
        struct.pack_into("<I", page, _CHECK, 0)
        struct.pack_into("<I", page, _CHECK, _checksum(page))
        pages.append(page)
        at = end
    return b"".join(pages)


def _checksum(page: bytes | bytearray) -> int:
    """Ogg's CRC of 32 bits: that of zlib with the bits of every byte and of the sum turned round,
    from 0 instead of all ones, and not inverted at the end."""
    turned = zlib.crc32(page.translate(_TURNED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{turned:032b}"[::-1], 2)
