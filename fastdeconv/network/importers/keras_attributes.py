"""Read texts of variable length from attributes of HDF5 files, without HDF5's library.

The library allocates the length that such an attribute declares, up to 4 GB, before it notices
that the file is shorter, and a damaged heap can make it run for ever. So these texts are read
here: first the reference in the messages of the object's header (section IV.A of the HDF5 file
format specification, version 3), then the text in a global heap (section III.E).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import IO, Any

from ...errors import ArchiveError

__all__ = ["text_of"]

_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
_MOST_BLOCKS = 256
_MOST_BLOCK_BYTES = 1 << 20
# The numbers of objects have 16 bits.
_MOST_OBJECTS = 1 << 16


def text_of(raw: IO[bytes], node: Any, name: str) -> bytes:
    """Read an attribute that is a text of variable length.

    Parameters
    ----------
    raw : binary file
        The HDF5 file.
    node : h5py.Group or h5py.Dataset
    name : str
        An existing attribute with one value.

    Raises
    ------
    ArchiveError
        If it cannot be found, or is longer than the file.
    """
    import h5py

    wanted = name.encode() + b"\0"
    size = raw.seek(0, os.SEEK_END)
    try:
        for message in _messages(raw, h5py.h5o.get_info(node.id).addr):
            version = message[0]
            name_size, type_size, space_size = struct.unpack_from("<HHH", message, 2)
            begin = 9 if version == 3 else 8
            if message[begin : begin + name_size].rstrip(b"\0") + b"\0" != wanted:
                continue
            sizes = (name_size, type_size, space_size)
            if version == 1:  # each filled up to a multiple of 8
                sizes = ((name_size + 7) & ~7, (type_size + 7) & ~7, (space_size + 7) & ~7)
            length, heap, index = struct.unpack_from("<IQI", message, begin + sum(sizes))
            if length > size:
                raise ArchiveError(
                    f"attribute {name!r}: found a text of {length} bytes in a file of {size}"
                )
            return _of_heap(raw, heap, index, length)
    except (struct.error, IndexError) as exc:
        raise ArchiveError(f"attribute {name!r}: its header is damaged") from exc
    raise ArchiveError(f"attribute {name!r}: it is not in the header of its group")


def _of_heap(raw: IO[bytes], address: int, wanted: int, length: int) -> bytes:
    """An object of a global heap, which must have the length that the reference declares."""
    head = _read(raw, address, 16)
    (size,) = struct.unpack_from("<Q", head, 8)
    place, end = address + 16, address + size
    for _ in range(_MOST_OBJECTS if head[:4] == b"GCOL" else 0):
        if place + 16 > end:
            break
        index, _, _, size = struct.unpack("<HHIQ", _read(raw, place, 16))
        if index == wanted and index:
            data = raw.read(length) if size == length else b""
            if len(data) != length:
                break
            return data
        place += 16 + (size + 7) // 8 * 8
    raise ArchiveError("found a damaged heap, where the text of an attribute should be")


def _messages(raw: IO[bytes], address: int) -> Iterator[bytes]:
    """The attribute messages in the header of an object."""
    start = _read(raw, address, 64)
    if start[:4] == b"OHDR":
        flags, begin = start[5], 6
        begin += 16 if flags & 0x20 else 0
        begin += 4 if flags & 0x10 else 0
        width = 1 << (flags & 3)
        length = int.from_bytes(start[begin : begin + width], "little")
        blocks = [(address + begin + width, length)]
        head = 6 if flags & 0x04 else 4
    else:
        (length,) = struct.unpack_from("<I", start, 8)
        blocks, flags, head = [(address + 16, length)], 0, 8
    second = start[:4] == b"OHDR"
    for number in range(_MOST_BLOCKS):
        if number == len(blocks):
            return
        block = _read(raw, *blocks[number])
        place = 4 if second and number else 0  # after "OCHK"
        end = len(block) - (4 if second and number else 0)  # before the checksum
        while place + head <= end:
            kind = block[place] if second else struct.unpack_from("<H", block, place)[0]
            (length,) = struct.unpack_from("<H", block, place + (1 if second else 2))
            content = block[place + head : place + head + length]
            if kind == _ATTRIBUTE:
                yield content
            elif kind == _CONTINUATION:
                blocks.append(struct.unpack_from("<QQ", content))
            place += head + length


def _read(raw: IO[bytes], address: int, count: int) -> bytes:
    if address > 1 << 62 or count > _MOST_BLOCK_BYTES:
        raise ArchiveError(f"found an object header of {count} bytes at {address}")
    raw.seek(address)
    return raw.read(count)
