"""Reads checkpoints of TensorFlow 1 and 2, without TensorFlow.

A checkpoint is two files. ``NAME.index`` is a sorted string table, as of LevelDB: blocks of
entries whose keys share prefixes, an index block that says where the blocks are, and a footer
that says where the index block is. Its entries say the dtype, the shape and the place of every
variable in ``NAME.data-00000-of-00001``, which is nothing but their raw values. The formats:
tensorflow/core/lib/io/format.cc, block.cc and core/protobuf/tensor_bundle.proto.

Every size and place is compared with the size of the file before it is used. The checksum of
every block of the index is verified. The checksums of the values are not: in Python that takes
a second a network, and a recipe has the SHA-256 of the whole file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArchiveError, shown

__all__ = ["fields_of", "read_checkpoint"]

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_BLOCK_END = 5
"""Bytes behind a block: how it is compressed, and its checksum."""
_OF_VERSION_2 = "/.ATTRIBUTES/VARIABLE_VALUE"
"""The end of names that TensorFlow 2 wrote."""
_MOST_VARIABLES = 10_000
_MOST_AXES = 8
_LARGEST_INDEX = 1 << 24
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}
"""By the number of TensorFlow's DataType. Variables of other types are left out."""

Fields = dict[int, list[int | bytes]]


def read_checkpoint(index: bytes, data: bytes) -> dict[str, NDArray[Any]]:
    """The variables of a checkpoint by name.

    Parameters
    ----------
    index : bytes
        The file ``.index``.
    data : bytes
        The file ``.data-00000-of-00001``.

    Returns
    -------
    dict of str to array
        Read-only views of `data`. Variables that are neither float nor int are left out, and
        so is the end ``/.ATTRIBUTES/VARIABLE_VALUE`` of names that TensorFlow 2 wrote.

    Raises
    ------
    ArchiveError
        If the index is damaged, or a variable is not where the index says.
    """
    if len(index) > _LARGEST_INDEX:
        raise ArchiveError(f"the index of a checkpoint has {len(index)} bytes, too many")
    variables: dict[str, NDArray[Any]] = {}
    for count, (key, value) in enumerate(_table(index)):
        if count > _MOST_VARIABLES:
            raise ArchiveError(f"a checkpoint of more than {_MOST_VARIABLES} variables")
        if not key:
            _check_header(fields_of(value))
            continue
        name = key.decode("utf-8", "backslashreplace").removesuffix(_OF_VERSION_2)
        array = _variable(name, fields_of(value), data)
        if array is not None:
            variables[name] = array
    return variables


def _check_header(header: Fields) -> None:
    files, order = _number(header, 1), _number(header, 2)
    if files != 1 or order != 0:
        raise ArchiveError(
            f"a checkpoint of {files} data files in byte order {order}: only those of one file, "
            "little-endian, are read"
        )


def _variable(name: str, entry: Fields, data: bytes) -> NDArray[Any] | None:
    dtype = _DTYPES.get(_number(entry, 1))
    if dtype is None:
        return None
    shape = _shape(name, entry)
    offset, size = _number(entry, 4), _number(entry, 5)
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if _number(entry, 3) != 0 or 7 in entry:
        raise ArchiveError(f"variable {shown(name)} lies in pieces, which are not read")
    if size != wanted or offset + size > len(data):
        raise ArchiveError(
            f"variable {shown(name)} of shape {shape} has {wanted} bytes, but the index says "
            f"{size} from {offset} on, and the data file has {len(data)}"
        )
    try:
        return np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)
    except ValueError as exc:  # an empty array with huge axes
        raise ArchiveError(f"variable {shown(name)} of shape {shape}: {exc}") from exc


def _shape(name: str, entry: Fields) -> tuple[int, ...]:
    (shape,) = entry.get(2, [b""])[:1]
    axes = fields_of(shape).get(2, []) if isinstance(shape, bytes) else [shape]
    sizes = tuple(_number(fields_of(axis), 1) for axis in axes if isinstance(axis, bytes))
    if len(axes) > _MOST_AXES or len(sizes) < len(axes):
        raise ArchiveError(f"variable {shown(name)} has no shape that can be read")
    return sizes


# The sorted string table


def _table(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values, in their order."""
    if len(index) < _FOOTER or index[-len(_MAGIC) :] != _MAGIC:
        raise ArchiveError("not the index of a TensorFlow checkpoint: its end is another one")
    place = len(index) - _FOOTER
    # The first two numbers are of a block that says nothing of the variables.
    for _ in range(2):
        _, place = _varint(index, place)
    for _, handle in _entries(_block(index, index[place:])):
        yield from _entries(_block(index, handle))


def _block(index: bytes, handle: bytes) -> bytes:
    """The block at a handle: a place and a size."""
    start, place = _varint(handle, 0)
    size, _ = _varint(handle, place)
    end = start + size
    if end + _BLOCK_END > len(index) - _FOOTER:
        raise ArchiveError(
            f"the index of the checkpoint is cut short: a block of {size} bytes at {start} does "
            f"not fit in {len(index)}"
        )
    if index[end] != 0:
        raise ArchiveError("the index of the checkpoint is compressed, which is not read")
    found = int.from_bytes(index[end + 1 : end + _BLOCK_END], "little")
    if found != _masked(_crc32c(index[start : end + 1])):
        raise ArchiveError("the index of the checkpoint is damaged: a checksum is wrong")
    return index[start:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block.

    An entry has three numbers (how many bytes its key shares with the key before it, how many
    follow, and the size of the value), then the rest of the key, then the value.
    """
    if len(block) < 4:
        raise _damaged()
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    key, place = b"", 0
    while place < end:
        shared, place = _varint(block, place)
        rest, place = _varint(block, place)
        size, place = _varint(block, place)
        if shared > len(key) or place + rest + size > end:
            raise _damaged()
        key = key[:shared] + block[place : place + rest]
        place += rest
        yield key, block[place : place + size]
        place += size
    if place != end:
        raise _damaged()


def _damaged() -> ArchiveError:
    return ArchiveError("the index of the checkpoint is damaged")


# Messages of Protocol Buffers


def fields_of(message: bytes) -> Fields:
    """The values of a message by the number of their field: ints, or bytes."""
    fields: Fields = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == 0:
            value, place = _varint(message, place)
        else:
            if wire == 2:
                size, place = _varint(message, place)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise _damaged()
            if place + size > len(message):
                raise _damaged()
            value = message[place : place + size]
            place += size
        fields.setdefault(number, []).append(value)
    return fields


def _number(fields: Fields, number: int) -> int:
    """The last value of a field, 0 where there is none."""
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise _damaged()
    return value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place behind it."""
    value = 0
    for shift in range(0, 63, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise _damaged()


# Checksums


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    table = _crc_table()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@functools.cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def _masked(crc: int) -> int:
    """The form in which LevelDB stores a checksum."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
