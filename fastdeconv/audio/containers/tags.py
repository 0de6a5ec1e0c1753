"""Tags that players put at the beginning or end of any audio file: ID3, APE, Lyrics3."""

from __future__ import annotations

from typing import Any

from .pieces import read_at

__all__ = ["HEAD_SIZE", "tag_size", "without_tags"]

#: Bytes that `tag_size` needs.
HEAD_SIZE = 32
# More tags in a row are not searched for.
_MAX_TAGS = 20
_APE = b"APETAGEX"
_APE_HAS_HEADER = 1 << 31
_ID3V1_SIZE = 128


def without_tags(file: Any, start: int, stop: int) -> tuple[int, int]:
    """The range of a file without the tags at its ends: first byte, and the one after the last."""
    for _ in range(_MAX_TAGS):
        size = tag_size(read_at(file, start, HEAD_SIZE))
        if not 0 < size <= stop - start:
            break
        start += size
    for _ in range(_MAX_TAGS):
        stop -= _size_behind(file, start, stop)
    return start, stop


def tag_size(head: bytes) -> int:
    """Bytes of the tag that begins with `head`, or 0."""
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 0x80:
        # Four groups of seven bits. Bit 4 of the flags says that there is a footer.
        size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:8] == _APE and len(head) >= HEAD_SIZE:
        return 32 + int.from_bytes(head[12:16], "little")
    if head[:3] == b"TAG":
        return _ID3V1_SIZE
    return 0


def _size_behind(file: Any, start: int, stop: int) -> int:
    """Bytes of the tag that ends at `stop`, or 0."""
    tail = read_at(file, max(start, stop - _ID3V1_SIZE), min(_ID3V1_SIZE, stop - start))
    size = 0
    if len(tail) == _ID3V1_SIZE and tail[:3] == b"TAG":
        size = _ID3V1_SIZE
    elif tail[-32:-24] == _APE:
        header = 32 if int.from_bytes(tail[-12:-8], "little") & _APE_HAS_HEADER else 0
        size = int.from_bytes(tail[-20:-16], "little") + header
    elif tail[-10:-7] == b"3DI":
        size = tag_size(b"ID3" + tail[-7:])
    elif tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
        size = int(tail[-15:-9]) + 15
    return size if size <= stop - start else 0
