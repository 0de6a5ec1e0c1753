"""Checkpoints of TensorFlow 1: what was written comes back, and damage is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdeconv import ArchiveError
from fastdeconv.network.public.tensorflow import read_checkpoint

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "bool": 10}


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, value):
    """A field of a Protocol Buffers message."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def masked_crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def shared_length(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


HEADER = field(1, 1)


class Table:
    """Writes a sorted string table."""

    def __init__(self):
        self.file = b""

    def block(self, entries, compression=0):
        content, restarts, before = b"", [], b""
        for i, (key, value) in enumerate(entries):
            if i % 3 == 0:
                restarts.append(len(content))
                before = b""
            n = shared_length(before, key)
            content += varint(n) + varint(len(key) - n) + varint(len(value)) + key[n:] + value
            before = key
        content += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
        handle = varint(len(self.file)) + varint(len(content))
        body = content + bytes([compression])
        self.file += body + struct.pack("<I", masked_crc32c(body))
        return handle

    def finish(self, blocks):
        meta = self.block([])
        index = self.block([(key, handle) for key, handle in blocks])
        self.file += (meta + index).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
        return self.file


def entry(array, offset, size=None, **more):
    dims = b"".join(field(2, field(1, n)) for n in array.shape)
    message = field(1, DTYPES[str(array.dtype)]) + field(2, dims) + field(4, offset)
    message += field(5, array.nbytes if size is None else size)
    return message + b"".join(field(int(key[1:]), value) for key, value in more.items())


def checkpoint(arrays, header=HEADER, change=None, per_block=2, compression=0):
    """(index, data) of arrays by name."""
    data, items = b"", [(b"", header)]
    for key, array in sorted(arrays.items()):
        message = entry(array, len(data))
        if change and key in change:
            message = change[key](array, len(data))
        items.append((key.encode(), message))
        data += array.tobytes()
    table = Table()
    blocks = [
        (part[-1][0], table.block(part, compression))
        for part in (items[i : i + per_block] for i in range(0, len(items), per_block))
    ]
    return table.finish(blocks), data


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "conv2d/bias": rng.normal(size=7).astype(np.float32),
        "conv2d/kernel": rng.normal(size=(3, 2, 1, 7)).astype(np.float32),
        "conv2d_1/kernel": rng.normal(size=(3, 3, 7, 2)),
        "global_step": np.array(12, np.int64),
        "sizes": np.arange(300, dtype=np.int32),
    }


@pytest.mark.parametrize("per_block", [1, 2, 4, 100])
def test_what_was_written_comes_back(arrays, per_block):
    found = read_checkpoint(*checkpoint(arrays, per_block=per_block))
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        assert found[key].dtype == array.dtype and not found[key].flags.writeable
        np.testing.assert_array_equal(found[key], array)


def test_variables_of_other_types_are_left_out(arrays):
    found = read_checkpoint(*checkpoint(arrays | {"flag": np.array([True])}))
    assert found.keys() == arrays.keys()


@pytest.mark.parametrize("change, message", [
    (lambda a, at: entry(a, at, size=4), "has 168 bytes, but the index says 4"),
    (lambda a, at: entry(a, 1 << 40), "but the index says 168 from 1099511627776 on"),
    (lambda a, at: entry(a, at + 100000), "and the data file has"),
    (lambda a, at: entry(a, at, f3=2), "is stored in slices"),
    (lambda a, at: entry(a, at, f7=b"x"), "is stored in slices"),
    (lambda a, at: field(1, 1) + field(2, field(2, field(1, 1 << 50)) * 3), r"has \d+ bytes, but"),
    (lambda a, at: field(1, 1) + field(2, field(2, field(1, 1)) * 30), "its shape is damaged"),
    (lambda a, at: field(1, 1) + field(2, 5), "its shape is damaged"),
    (lambda a, at: field(1, b"float"), "damaged"),
    (lambda a, at: field(1, 1) + b"\x12\xff", "damaged"),
    (lambda a, at: field(1, 1) + b"\x0f", "damaged"),
    (lambda a, at: b"\xff" * 20, "damaged"),
])
def test_entries_that_lie_are_refused(arrays, change, message):
    files = checkpoint(arrays, change={"conv2d/kernel": change})
    with pytest.raises(ArchiveError, match=message):
        read_checkpoint(*files)


@pytest.mark.parametrize("header, message", [
    (field(1, 3), "has 3 data files"), (field(1, 1) + field(2, 1), "byte order 1"),
])
def test_other_kinds_of_checkpoints_are_refused(arrays, header, message):
    with pytest.raises(ArchiveError, match=message):
        read_checkpoint(*checkpoint(arrays, header))


def test_compressed_blocks_are_refused(arrays):
    with pytest.raises(ArchiveError, match="compressed"):
        read_checkpoint(*checkpoint(arrays, compression=1))


def test_files_of_another_kind_are_refused():
    for content in (b"", b"short", b"x" * 100, b"PK\x03\x04" * 50):
        with pytest.raises(ArchiveError, match="its footer is wrong"):
            read_checkpoint(content, b"")


def test_a_data_file_that_is_cut_short_is_refused(arrays):
    index, data = checkpoint(arrays)
    with pytest.raises(ArchiveError, match=r"'sizes' of shape \(300,\) has 1200 bytes"):
        read_checkpoint(index, data[:-1])


def test_every_changed_byte_of_the_blocks_is_noticed(arrays):
    index, data = checkpoint(arrays)
    for place in range(0, len(index) - 48):
        changed = bytearray(index)
        changed[place] ^= 0x10
        try:
            found = read_checkpoint(bytes(changed), data)
        except ArchiveError:
            continue
        # The block of metadata says nothing of the variables.
        for key, array in arrays.items():
            np.testing.assert_array_equal(found[key], array)


@given(st.data())
def test_no_damage_gives_another_error(data):
    index, values = checkpoint({"a": np.ones(3, np.float32), "b": np.ones((2, 2), np.float32)})
    changed = bytearray(index)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(index) - 9))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 40))
    for content in (bytes(changed), bytes(changed[:cut]) + bytes(changed[-48:])):
        try:
            read_checkpoint(content, values)
        except ArchiveError:
            pass
