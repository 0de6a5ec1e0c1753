"""Read checkpoints of TensorFlow 1 and 2, without TensorFlow.

A checkpoint has two files. ``NAME.index`` is a sorted string table as in LevelDB: blocks of
entries whose keys share prefixes, an index block with the positions of the blocks, and a footer
with the position of the index block. Its entries give the dtype, the shape and the position of
every variable in ``NAME.data-00000-of-00001``, which contains only the raw values. The formats are
described by tensorflow/core/lib/io/format.cc, block.cc and core/protobuf/tensor_bundle.proto.

Every size and position is compared with the size of the file before it is used. The checksum of
every block of the index is verified. The checksums of the values are not, because that takes a
second for each network in Python, and a recipe has the SHA-256 of the whole file.
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
"""Bytes after a block: its compression and its checksum."""
_OF_VERSION_2 = "/.ATTRIBUTES/VARIABLE_VALUE"
"""The end of names in TensorFlow 2."""
_MOST_VARIABLES = 10_000
_MOST_AXES = 8
_LARGEST_INDEX = 1 << 24
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}
"""From the number of TensorFlow's DataType. Variables of other types are left out."""

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
        Read-only views of `data`. Variables that are neither float nor int are left out. The end
        ``/.ATTRIBUTES/VARIABLE_VALUE`` of names in TensorFlow 2 is removed.

    Raises
    ------
    ArchiveError
        If the index is damaged, or does not fit the data file.
    """
    if len(index) > _LARGEST_INDEX:
        raise ArchiveError(
            f"the index of the checkpoint has {len(index)} bytes, over the limit of "
            f"{_LARGEST_INDEX}"
        )
    variables: dict[str, NDArray[Any]] = {}
    for count, (key, value) in enumerate(_table(index)):
        if count > _MOST_VARIABLES:
            raise ArchiveError(f"the checkpoint has more than {_MOST_VARIABLES} variables")
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
            f"the checkpoint has {files} data files in byte order {order}, wanted one file in "
            "byte order 0 (little-endian)"
        )


def _variable(name: str, entry: Fields, data: bytes) -> NDArray[Any] | None:
    dtype = _DTYPES.get(_number(entry, 1))
    if dtype is None:
        return None
    shape = _shape(name, entry)
    offset, size = _number(entry, 4), _number(entry, 5)
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if _number(entry, 3) != 0 or 7 in entry:
        raise ArchiveError(f"variable {shown(name)} is stored in slices, which are not supported")
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
        raise ArchiveError(
            f"variable {shown(name)}: its shape is damaged or has more than {_MOST_AXES} axes"
        )
    return sizes


# The sorted string table


def _table(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values, in their order."""
    if len(index) < _FOOTER or index[-len(_MAGIC) :] != _MAGIC:
        raise ArchiveError("not the index of a TensorFlow checkpoint: its footer is wrong")
    place = len(index) - _FOOTER
    # The first two numbers belong to a block without variables.
    for _ in range(2):
        _, place = _varint(index, place)
    for _, handle in _entries(_block(index, index[place:])):
        yield from _entries(_block(index, handle))


def _block(index: bytes, handle: bytes) -> bytes:
    """The block that a handle (position and size) describes."""
    start, place = _varint(handle, 0)
    size, _ = _varint(handle, place)
    end = start + size
    if end + _BLOCK_END > len(index) - _FOOTER:
        raise ArchiveError(
            f"the index of the checkpoint is cut short: a block of {size} bytes at {start} does "
            f"not fit in {len(index)}"
        )
    if index[end] != 0:
        raise ArchiveError("the index of the checkpoint is compressed, which is not supported")
    found = int.from_bytes(index[end + 1 : end + _BLOCK_END], "little")
    if found != _masked(_crc32c(index[start : end + 1])):
        raise ArchiveError("the index of the checkpoint is damaged: a checksum is wrong")
    return index[start:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block.

    An entry begins with three numbers: how many bytes its key shares with the key before it, how
    many bytes of the key follow, and the size of the value. Then come the rest of the key and the
    value.
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
    """The values of a message, ints or bytes, by the number of their field."""
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
    """The last value of a field; 0 if there is none."""
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise _damaged()
    return value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number with seven bits in each byte, and the position after it."""
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
    """A checksum in the form in which LevelDB stores it."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
