"""Damaged and lying archives: an ArchiveError that names file and key, and little memory."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from fastdeconv.errors import ArchiveError, ParameterError
from fastdeconv.network import archive
from fastdeconv.network import zipped as reading
from fastdeconv.network.network import Network


def npy(array, **kwargs):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **kwargs)
    return file.getvalue()


def header(text, version=1, size=None):
    raw = text.encode()
    size = len(raw) if size is None else size
    length = struct.pack("<H" if version == 1 else "<I", size)
    return b"\x93NUMPY" + bytes([version, 0]) + length + raw


def zipped(members, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as out:
        for name, data in members:
            out.writestr(name, data)
    return file.getvalue()


@pytest.fixture
def members(record, arrays):
    """(name, bytes) of every member of a good archive."""
    every = {"network": np.array(json.dumps(record)), **arrays}
    return {f"{key}.npy": npy(array) for key, array in every.items()}


@pytest.fixture
def refused(tmp_path):
    """refused(bytes): the message of the ArchiveError, which names the file."""

    def load(data):
        path = tmp_path / "net.npz"
        path.write_bytes(data)
        with pytest.raises(ArchiveError) as error:
            Network.load(path)
        message = str(error.value)
        assert message.startswith(repr(str(path))[:60])
        assert message.isprintable() and len(message) < 1000
        return message

    return load


def with_json(members, text):
    return zipped({**members, "network.npy": npy(np.array(text))}.items())


# --- the zip -----------------------------------------------------------------------------


def test_the_archive_these_tests_damage_is_good(members):
    assert len(Network.load(io.BytesIO(zipped(members.items()))).layers) == 8


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip" * 100, b"PK\x05\x06" + b"\0" * 18])
def test_files_that_are_no_archive_are_refused(refused, data):
    refused(data)


def test_a_missing_file_stays_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        Network.load(tmp_path / "nothing.npz")


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "a\0b", "/dev/zero"):
        with pytest.raises(ArchiveError):
            Network.load(path)
    for path in (3, None, b"bytes"):
        with pytest.raises(ParameterError, match="path must be"):
            Network.load(path)
    with pytest.raises(ArchiveError, match="text"):
        Network.load(io.StringIO("PK"))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_truncation_is_refused(members, method):
    data = zipped(members.items(), method)
    for end in range(0, len(data), 37):
        with pytest.raises(ArchiveError):
            Network.load(io.BytesIO(data[:end]))


def test_bytes_after_the_end_are_refused(refused, members):
    assert "after the end" in refused(zipped(members.items()) + b"more")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(refused, members):
    twice = [*members.items(), ("conv1.bias.npy", members["conv1.bias.npy"])]
    assert "'conv1.bias.npy' is there twice" in refused(zipped(twice))


@pytest.mark.parametrize(
    "name",
    ["../x.npy", "/x.npy", "a/b.npy", "a\\b.npy", "..npy.npy", ".npy", "x.txt", "folder/",
     "a\nb.npy", "a\x1b[2J.npy"],
)
def test_member_names_that_could_be_a_trap_are_refused(refused, members, name):
    assert "member called" in refused(zipped([*members.items(), (name, b"")]))


def test_too_many_members_are_refused(refused, members, monkeypatch):
    monkeypatch.setattr(reading, "MAX_MEMBERS", 11)
    assert "found 12 members, over the limit of 11" in refused(zipped(members.items()))


def test_a_huge_directory_is_refused_before_it_is_read(refused, members, monkeypatch):
    monkeypatch.setattr(reading, "MAX_DIRECTORY_BYTES", 70_000)
    many = [(f"{n:0200}.npy", b"") for n in range(300)]
    assert "bytes, over the limit of 70000" in refused(zipped(many))


def test_declared_sizes_over_the_limits_are_refused(refused, members, monkeypatch):
    monkeypatch.setattr(reading, "MAX_TOTAL_BYTES", 3000)
    assert "bytes in all members" in refused(zipped(members.items()))
    monkeypatch.setattr(reading, "MAX_MEMBER_BYTES", 300)
    assert "bytes in one member" in refused(zipped(members.items()))


def patched(data, name, offset, value):
    """`data` with a field of a member's entry in the zip directory overwritten."""
    place = data.rindex(name.encode()) - 46
    assert data[place : place + 4] == b"PK\x01\x02"
    return data[: place + offset] + value + data[place + offset + len(value) :]


def test_encrypted_members_and_odd_compression_are_refused(refused, members):
    data = zipped(members.items())
    assert "encrypted" in refused(patched(data, "conv1.bias.npy", 8, b"\x01\0"))
    assert "compression method 12" in refused(patched(data, "conv1.bias.npy", 10, b"\x0c\0"))


def bomb(real, declared, name="conv1.weight.npy"):
    """A lone member of `real` zeros whose directory entry declares `declared` bytes."""
    payload = b"\0" * real
    data = zipped([(name, payload)], zipfile.ZIP_DEFLATED)
    data = patched(data, name, 24, struct.pack("<I", declared))
    return patched(data, name, 16, struct.pack("<I", zlib.crc32(payload[:declared])))


def test_a_member_larger_than_declared_is_refused_without_inflating_it(members):
    data = bomb(real=50_000_000, declared=1000)
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match=r"conv1\.weight.*found more bytes, wanted.*1000"):
            Network.load(io.BytesIO(data), architecture="choi2016")
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_sizes_that_lie_cost_no_memory(method):
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (250000000,), }"
    data = zipped([("W0.npy", header(text))], method)
    data = patched(data, "W0.npy", 24, struct.pack("<I", 10**9 + len(header(text))))
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match=r"'W0'.*bytes, wanted the declared"):
            Network.load(io.BytesIO(data), architecture="choi2016")
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_a_wrong_checksum_is_refused(refused, members):
    data = zipped(members.items())
    assert "'conv1.bias'" in refused(patched(data, "conv1.bias.npy", 16, b"\1\2\3\4"))


def test_members_that_overlap_are_refused(refused, members):
    data, name = zipped(members.items()), "conv1.bias.npy"
    start = data.index(members[name])
    longer = data[start : start + len(members[name]) + 40]
    data = patched(data, name, 16, struct.pack("<3I", zlib.crc32(longer), *[len(longer)] * 2))
    assert "'conv1.bias'" in (message := refused(data)) and "overlaps" in message


def test_two_names_for_one_member_are_refused(refused, members):
    data = zipped(members.items())
    offset = struct.pack("<I", data.index(b"conv1.bias.npy") - 30)
    message = refused(patched(data, "affine1.bias.npy", 42, offset))
    assert "'affine1.bias'" in message and "different members" in message


def test_bytes_behind_a_compressed_stream_are_refused(refused, members):
    name, plain = "conv1.bias.npy", members["conv1.bias.npy"]
    squeeze = zlib.compressobj(wbits=-15)
    stream = squeeze.compress(plain) + squeeze.flush()
    data = zipped({**members, name: stream + b"more"}.items())
    data = patched(data, name, 10, struct.pack("<H", zipfile.ZIP_DEFLATED))
    data = patched(data, name, 16, struct.pack("<I", zlib.crc32(plain)))
    data = patched(data, name, 24, struct.pack("<I", len(plain)))
    assert "does not end where the member does" in refused(data)


# --- the arrays --------------------------------------------------------------------------

GOOD = "'fortran_order': False, 'shape': (4,), }"


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPX\1\0" + b" " * 100,
        header("{'descr': '<f4', " + GOOD, version=4) + b"\0" * 16,
        header("{'descr': '<f4', " + GOOD, size=60000) + b"\0" * 16,
        header("{'descr': '<f4', " + GOOD, version=2, size=2**32 - 1) + b"\0" * 16,
        header("{'descr': '<f4', " + GOOD) + b"\0" * 15,
        header("{'descr': '<f4', " + GOOD) + b"\0" * 17,
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-4,), }") + b"\0" * 16,
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -2), }") + b"\0" * 16,
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 0), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': [4], }") + b"\0" * 16,
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }") + b"\0" * 4,
        header("{'descr': '<f4', 'fortran_order': 0, 'shape': (4,), }") + b"\0" * 16,
        header("{'descr': '<f4', 'shape': (4,), }") + b"\0" * 16,
        header("{'descr': '<f4', 'x': 1, " + GOOD) + b"\0" * 16,
        header("{'descr': '|O', " + GOOD) + b"\0" * 32,
        header("{'descr': 'f4,f4', " + GOOD) + b"\0" * 32,
        header("{'descr': [('a', '<f4')], " + GOOD) + b"\0" * 16,
        header("{'descr': '<f3', " + GOOD) + b"\0" * 12,
        header("{'descr': '<U99999999', " + GOOD) + b"\0" * 12,
        header("{'descr': '<U0', 'fortran_order': False, 'shape': (4,), }"),
        header("{'descr': '<U0', 'fortran_order': False, 'shape': (), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (0" + ", 1073741824" * 7 + ")}"),
        header("{'descr': ('<f4', (2,)), " + GOOD) + b"\0" * 32,
        header("[" * 4000),
        header("-" * 4000 + "1"),
        header("(1," * 1300),
        header("{[]: 1}"),
        header("__import__('os').abort()"),
        header("'\0'"),
        npy(np.array([None, 1, 2, 3]), allow_pickle=True),
        npy(np.ones(4, complex)),
        npy(np.ones(4, bool)),
        npy(np.array(["a", "b", "c", "d"])),
        npy(np.ones(4, "M8[s]")),
        npy(np.array([1, 2, np.nan, 4])),
        npy(np.array([1, 2, 1e300, 4])),
        npy(np.ones((1, 4))),
        npy(np.ones(5)),
    ],
)
def test_damaged_members_are_refused_by_key(refused, members, member):
    assert "'conv1.bias'" in refused(zipped({**members, "conv1.bias.npy": member}.items()))


def test_left_over_members_are_refused_without_reading_them(refused, members):
    message = refused(zipped({**members, "other.npy": b"not an array"}.items()))
    assert "no layer uses the array 'other'" in message


def test_pickles_are_never_loaded(refused, members):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    trap = np.empty(4, object)
    trap[:] = [Trap()] * 4
    refused(zipped({**members, "conv1.bias.npy": npy(trap, allow_pickle=True)}.items()))
    refused(zipped({**members, "network.npy": npy(trap, allow_pickle=True)}.items()))


def test_missing_and_left_over_members_are_refused_by_key(refused, members):
    spare = npy(np.ones(3))
    assert "'other'" in refused(zipped({**members, "other.npy": spare}.items()))
    del members["conv1.bias.npy"]
    assert "'conv1.bias'" in refused(zipped(members.items()))


# --- the record --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "wanted a JSON object"),
        ("null", "wanted a JSON object"),
        ("3", "wanted a JSON object"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e999}', "1e999"),
        ('{"a": %s}' % ("9" * 5000), "not valid JSON"),
        ('{"a": 1, "b": 2, "a": 1}', "'a' is there twice"),
        ("[" * 100_000, "nested deeper"),
        ('{"a":' * 17, "nested deeper"),
        ('"' + '\\"' * 200_000, "not valid JSON"),
    ],
)
def test_records_that_are_no_plain_json_object_are_refused(refused, members, text, word):
    message = refused(with_json(members, text))
    assert "network: " in message and word in message


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("format", None, "format"),
        ("format", "other", "'fastdeconv-network'"),
        ("version", 3, "newer fastdeconv"),
        ("version", 0, "wanted 1"),
        ("version", True, "wanted 1"),
        ("version", 1.0, "wanted 1"),
        ("version", "1", "wanted 1"),
        ("wheels", 4, "unknown key 'wheels'"),
        ("layers", [], "at least one layer"),
        ("layers", {}, "layers must be a list"),
        ("layers", [{"type": "relu"}], "'name' is missing"),
        ("layers", [{"type": "warp", "name": "a"}], "unknown type 'warp'"),
        ("layers", [{"type": "relu", "name": "../x"}], "name must be"),
        ("layers", [{"type": "relu", "name": "a\nb"}], "name must be"),
        ("input_shape", [1, 12], "input_shape must be"),
        ("input_shape", [3, 12, None], "channels"),
        ("input_shape", [1, 1, 1], "'pool1'"),
        ("classes", ["a"], "classes: found 1 names, wanted 3"),
        ("classes", [1, 2, 3], "classes[0]"),
        ("name", 3, "name must be a string"),
        ("name", "\ud800", "name must be a string"),
        ("frontend", 3, "frontend must be"),
        ("frontend", {"kind": "warp"}, "frontend"),
        ("frontend", {"kind": "stft", "wheels": 4}, "wheels"),
    ],
)
def test_wrong_entries_of_a_record_are_refused_by_key(refused, members, record, key, value, word):
    record[key] = value
    assert word in refused(with_json(members, json.dumps(record)))


@pytest.mark.parametrize("key", ["format", "version", "input_shape", "layers"])
def test_a_record_without_a_key_it_must_have_is_refused(refused, members, record, key):
    del record[key]
    message = refused(with_json(members, json.dumps(record)))
    assert key in message and "missing" in message


def test_a_record_of_another_kind_of_array_is_refused(refused, members):
    for array in (np.array(["{}"]), np.array(b"{}"), np.array(3.0), np.zeros(0)):
        assert "'network'" in refused(zipped({**members, "network.npy": npy(array)}.items()))
    # A code point that is no character.
    wild = header("{'descr': '<U1', 'fortran_order': False, 'shape': (), }") + b"\xff" * 4
    assert "unicode" in refused(zipped({**members, "network.npy": wild}.items()))


def test_records_over_the_limits_are_refused(refused, members, record, monkeypatch):
    monkeypatch.setattr(archive, "MAX_LAYERS", 7)
    assert "found 8 layers, over the limit of 7" in refused(zipped(members.items()))
    monkeypatch.setattr(archive, "MAX_JSON_CHARS", 100)
    assert "over the limit of 100" in refused(zipped(members.items()))
    monkeypatch.setattr(archive, "_MAX_NPY_HEADER", 128)
    assert "'network': found" in refused(zipped(members.items()))


# --- anything ----------------------------------------------------------------------------


def damaged(data, rng):
    """`data` with some bytes changed, removed, moved or added."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(len(data))
        if rng.random() < 0.4:
            # The zip directory is where most of the meaning is.
            place = max(0, len(data) - rng.randrange(1, 900))
        kind = rng.randrange(5)
        if kind < 2:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[place : place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"])
        elif kind == 3:
            del data[place : place + rng.choice([1, 4, 100])]
        else:
            other = rng.randrange(len(data))
            data[place:place] = data[other : other + rng.randrange(1, 200)]
        if not data:
            break
    return bytes(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_random_damage_gives_an_archive_error_or_a_whole_network(members, method):
    rng = random.Random(7)
    good = zipped(members.items(), method)
    outcome = {True: 0, False: 0}
    for _ in range(400):
        try:
            net = Network.load(io.BytesIO(damaged(good, rng)))
        except ArchiveError:
            outcome[False] += 1
        else:
            outcome[True] += 1
            assert all(np.isfinite(array).all() for array in net.arrays.values())
    assert outcome[False] > 300
