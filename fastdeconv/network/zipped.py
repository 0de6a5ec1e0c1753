"""Zip files from unknown sources: listed and inflated within limits, and checked."""

from __future__ import annotations

import contextlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

from ..errors import ArchiveError, ParameterError, shown
from ..files import open_regular

__all__ = [
    "MAX_DIRECTORY_BYTES", "MAX_MEMBERS", "MAX_MEMBER_BYTES", "MAX_TOTAL_BYTES", "check_limits",
    "inflate", "list_zip", "opened",
]

#: Most members of an archive.
MAX_MEMBERS = 4096
#: Most bytes of one member, uncompressed.
MAX_MEMBER_BYTES = 1 << 30
#: Most bytes of all members together, uncompressed.
MAX_TOTAL_BYTES = 1 << 31
#: Most bytes of the zip directory, and of any one read while it is listed.
MAX_DIRECTORY_BYTES = 1 << 20
_CHUNK = 1 << 20


@contextlib.contextmanager
def opened(source: Any) -> Iterator[tuple[IO[bytes], str]]:
    """Open a path, or take a binary file object; also gives its name for messages.

    Raises
    ------
    ParameterError
        If `source` is neither.
    ArchiveError
        If the file cannot be opened.
    FileNotFoundError
        If there is no such file.
    """
    if hasattr(source, "read") and hasattr(source, "seek"):
        name = getattr(source, "name", None)
        yield source, shown(name) if isinstance(name, str) else "<file object>"
        return
    if isinstance(source, os.PathLike):
        source = os.fspath(source)
    if not isinstance(source, str):
        raise ParameterError(
            f"path must be a str, a path or a seekable binary file object, found {shown(source)}"
        )
    try:
        file = open_regular(source)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise ArchiveError(f"{shown(source)}: cannot be opened ({exc.strerror})") from exc
    with file:
        yield file, shown(source)


class _DirectoryReader:
    """The file for `zipfile` while it lists the members; large reads are refused."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size
        self.seek, self.tell = file.seek, file.tell

    def seekable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        count = min(count, left) if count >= 0 else left
        if count > MAX_DIRECTORY_BYTES:
            raise ArchiveError(
                f"found a zip directory of {count} bytes, over the limit of {MAX_DIRECTORY_BYTES}"
            )
        return self._file.read(count)


def list_zip(file: IO[bytes]) -> tuple[list[zipfile.ZipInfo], int]:
    """The members, and the offset of the directory that follows them."""
    try:
        file.seek(0, os.SEEK_END)
        size = file.tell()
        if not isinstance(file.read(0), bytes):
            raise ArchiveError("the file object is open as text, wanted binary")
        reader: Any = _DirectoryReader(file, size)
        with zipfile.ZipFile(reader) as archive:
            infos, directory = archive.infolist(), int(getattr(archive, "start_dir", size))
            tail = 22 + len(archive.comment)
        file.seek(max(0, size - tail))
        if file.read(4) != b"PK\x05\x06":
            raise ArchiveError("found bytes after the end of the zip archive")
    except ArchiveError:
        raise
    # `zipfile` raises all of these for damaged directories.
    except (
        zipfile.BadZipFile, zipfile.LargeZipFile, struct.error, EOFError, NotImplementedError,
        RuntimeError, OverflowError, ValueError, TypeError, IndexError,
    ) as exc:
        raise ArchiveError(f"not a readable .npz (zip) archive ({exc})") from exc
    return infos, directory


def check_limits(sizes: list[int]) -> None:
    """Refuse too many members, and members that are too large."""
    for what, found, limit in (
        ("members", len(sizes), MAX_MEMBERS),
        ("bytes in one member", max(sizes, default=0), MAX_MEMBER_BYTES),
        ("bytes in all members", sum(sizes), MAX_TOTAL_BYTES),
    ):
        if found > limit:
            raise ArchiveError(f"found {found} {what}, over the limit of {limit}")


def inflate(file: IO[bytes], info: zipfile.ZipInfo, end: int) -> bytearray:
    """The bytes of a member.

    Raises
    ------
    ArchiveError
        If it is damaged, reaches beyond the offset `end`, or has not the declared size.
    """
    if info.header_offset < 0:
        raise ArchiveError("the member begins before the file")
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise ArchiveError("the member's zip header is damaged or missing")
    name_size, extra_size = struct.unpack("<HH", header[26:30])
    # Bit 11: the name is in UTF-8; otherwise in the code page of DOS.
    codec = "utf-8" if info.flag_bits & 0x800 else "cp437"
    if file.read(name_size) != info.orig_filename.encode(codec):
        raise ArchiveError("the zip directory and the member's header name different members")
    start = info.header_offset + 30 + name_size + extra_size
    if start + info.compress_size > end:
        raise ArchiveError("the member is cut short, or overlaps the next one")
    file.seek(start)
    pieces = _pieces(file, info.compress_size)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        pieces = _deflated(pieces)
    data = bytearray()
    for piece in pieces:
        data += piece
        if len(data) > info.file_size:
            break
    if len(data) != info.file_size:
        found = "more" if len(data) > info.file_size else str(len(data))
        raise ArchiveError(f"found {found} bytes, wanted the declared {info.file_size}")
    if zlib.crc32(data) != info.CRC:
        raise ArchiveError("the checksum does not match: the member is damaged")
    return data


def _pieces(file: IO[bytes], count: int) -> Iterator[bytes]:
    while count:
        piece = file.read(min(count, _CHUNK))
        if not piece:
            raise ArchiveError("the file ends inside the member")
        count -= len(piece)
        yield piece


def _deflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate in pieces of bounded size; the stream must end with the last input byte."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in pieces:
            while piece:
                yield stream.decompress(piece, _CHUNK)
                piece = stream.unconsumed_tail
        # What `max_length` held back after the last byte was read.
        while not stream.eof:
            held = stream.decompress(b"", _CHUNK)
            if not held:
                break
            yield held
    except zlib.error as exc:
        raise ArchiveError(f"the compressed data is damaged ({exc})") from exc
    if not stream.eof or stream.unused_data:
        raise ArchiveError("the compressed data does not end where the member does")
