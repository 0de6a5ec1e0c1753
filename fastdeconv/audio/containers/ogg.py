"""Ogg: all streams of a chain, each from its first sample to its last.

libsndfile reads only the first stream, and makes mistakes if the sound begins or ends within a
page. This module reads and checks the pages. It gives libsndfile one stream at a time, with
neutral positions, and `Part` says which samples the original positions leave out. FLAC in Ogg,
which libsndfile cannot read, is given as plain FLAC.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from ...errors import AudioError
from . import flac
from .foreign import not_read
from .pieces import Part, Piece, find, read_at

__all__ = ["Measure", "parts"]

#: Takes pieces; returns how many samples libsndfile decodes from them, and their rate.
Measure = Callable[[list[Piece]], tuple[int, int]]

_MAGIC = re.compile(b"OggS")
_HEAD = 27
_CONTINUED, _FIRST = 1, 2
_MAX_POSITION = 1 << 62
# Difference between the neutral positions of two pages: more samples than a page can hold.
_STEP = 1 << 32
# After so many places that look like a page but are none, the file is refused.
_MAX_FALSE = 1000
# A file with more streams at the same time is no recording.
_MAX_STREAMS = 1000
# zlib's checksum takes the bits of a byte in the opposite order.
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# First bytes of a stream, and the number of packets before its sound.
_VORBIS, _OPUS, _FLAC = b"\x01vorbis", b"OpusHead", b"\x7fFLAC"
_HEADERS = {_VORBIS: 3, _OPUS: 2, _FLAC: 1}
# Where plain FLAC begins in the first page.
_FLAC_OFFSET = 9
_OPUS_RATE = 48000
_FOREIGN = {
    b"Speex   ": "Speex", b"\x80theora": "Theora video", b"CELT    ": "CELT", b"PCM     ": "PCM"
}


class _Page(NamedTuple):
    #: Header and table of segments.
    head: bytes
    #: Where the body begins.
    start: int
    #: Empty if the file ends before the page does.
    body: bytes
    is_whole: bool

    @property
    def position(self) -> int | None:
        """Samples up to the end of the last packet that ends here; None where not noted."""
        value = int.from_bytes(self.head[6:14], "little")
        return value if value < _MAX_POSITION and self.packets else None

    @property
    def serial(self) -> bytes:
        return self.head[14:18]

    @property
    def number(self) -> int:
        return int.from_bytes(self.head[18:22], "little")

    @property
    def packets(self) -> int:
        """How many packets end here."""
        return sum(size < 255 for size in self.head[_HEAD:])

    def renumbered(self, number: int, flags: int, position: int) -> bytes:
        """The header with these values and the checksum that belongs to them."""
        head = bytearray(self.head)
        head[5] = flags
        head[6:14] = position.to_bytes(8, "little")
        head[18:22] = number.to_bytes(4, "little")
        head[22:26] = bytes(4)
        head[22:26] = _checksum(bytes(head) + self.body).to_bytes(4, "little")
        return bytes(head)


def parts(file: Any, start: int, stop: int, measure: Measure) -> Iterator[Part]:
    """The streams of a chain, one after another."""
    link: dict[bytes, _Stream] = {}
    # All streams of a link begin before the first of them goes on.
    goes_on = False
    for page in _pages(file, start, stop):
        if page.is_whole and page.head[5] & _FIRST:
            if goes_on:
                yield _sound_of(link).part(measure)
                link, goes_on = {}, False
            link[page.serial] = _Stream(page)
            if len(link) > _MAX_STREAMS:
                raise AudioError(f"damaged: more than {_MAX_STREAMS} streams of Ogg at a time")
        elif page.serial in link or not page.is_whole:
            goes_on = goes_on or bool(link)
            # A page that is not whole may belong to any stream.
            for stream in [link[page.serial]] if page.is_whole else link.values():
                stream.add(page)
    if link:
        yield _sound_of(link).part(measure)
    else:
        yield Part(((start, stop),))  # libsndfile says what is wrong


def _pages(file: Any, start: int, stop: int) -> Iterator[_Page]:
    """The pages with a correct checksum, and those that the end of the file cuts off."""
    tries = _MAX_FALSE
    position: int | None = start
    while position is not None and position < stop:
        page = _page(file, position, stop)
        if page is None:
            tries -= 1
            if not tries:
                raise AudioError("damaged: too many pages of Ogg are broken")
            position = find(file, _MAGIC, position + 1, stop)
            continue
        yield page
        position = page.start + len(page.body)


def _page(file: Any, position: int, stop: int) -> _Page | None:
    head = read_at(file, position, min(_HEAD + 255, stop - position))
    if not head or not b"OggS\0".startswith(head[:5]):
        return None
    segments = head[26] if len(head) >= _HEAD else 255
    head = head[: _HEAD + segments]
    start, size = position + len(head), sum(head[_HEAD:])
    if len(head) < _HEAD + segments or start + size > stop:
        return _Page(head, start, b"", False)
    body = read_at(file, start, size)
    clear = head[:22] + bytes(4) + head[26:]
    if len(body) < size or _checksum(clear + body) != int.from_bytes(head[22:26], "little"):
        return None
    return _Page(head, start, body, True)


def _checksum(data: bytes) -> int:
    # zlib inverts the value before and after; Ogg does not.
    mirrored = zlib.crc32(data.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRRORED), "big")


class _Stream:
    """The pages of one stream, as they are found."""

    def __init__(self, first: _Page) -> None:
        self.first = first.body
        self.codec = next((codec for codec in _HEADERS if first.body.startswith(codec)), None)
        self._pieces: list[Piece] = []
        self._cut: str | None = None
        self._number = first.number
        self._headers = _HEADERS.get(self.codec or b"", 0)
        self._sound_pages = 0
        # Positions of the pages that end a packet.
        self._positions: list[int | None] = []
        # Number of pieces up to the first noted position.
        self._first_pieces = 0
        if self.codec == _OPUS:
            # Without this, libsndfile would skip the encoder's delay by the positions.
            first = first._replace(body=first.body[:10] + b"\0\0" + first.body[12:])
        self._append(first, first.body)

    def add(self, page: _Page) -> None:
        """Add the page, unless one is missing before it."""
        if self.codec is None or self._cut is not None:
            return
        follows = page.number == (self._number + 1) % (1 << 32)
        if not page.is_whole:
            self._cut = "truncated: the last page of Ogg is not all there"
        elif self._sound_pages and not follows:
            self._cut = f"damaged: page {self._number + 1} of Ogg is broken or missing"
        else:
            self._number = page.number
            self._append(page, (page.start, page.start + len(page.body)))

    def _append(self, page: _Page, body: Piece) -> None:
        is_sound = self._headers <= 0
        self._headers -= page.packets
        self._sound_pages += is_sound
        if self.codec == _FLAC:
            self._pieces.append(body)
            return
        flags = page.head[5] & (_CONTINUED | _FIRST)
        number = len(self._pieces) // 2
        self._pieces += [page.renumbered(number, flags, self._sound_pages * _STEP), body]
        if is_sound and page.packets:
            self._positions.append(page.position)
        if is_sound and page.position is not None:
            self._first_pieces = self._first_pieces or len(self._pieces)

    def part(self, measure: Measure) -> Part:
        pieces, cut = tuple(self._pieces), self._cut
        if self.codec == _FLAC:
            header = self.first[_FLAC_OFFSET:]
            if len(header) != flac.HEADER_SIZE:
                return Part(pieces)  # libsndfile says what is wrong
            length = flac.rate_and_length(header)[1]
            pieces = (flac.length_forgotten(header), *pieces[1:])
            return Part(pieces, promised=length or None, cut=cut)
        count, rate = measure(self._pieces[: self._first_pieces or None])
        scale = _OPUS_RATE // rate if self.codec == _OPUS else 1
        pre_skip = int.from_bytes(self.first[10:12], "little") if self.codec == _OPUS else 0
        noted = [position for position in self._positions if position is not None]
        # Positions must rise from page to page; only the last page may end before its samples do.
        if not noted or noted[-1] < noted[-2:][0] or not _rise(noted[:-1]):
            return Part(pieces, skip=pre_skip // scale, cut=cut)
        # The position of the first decoded sample. If it is negative, the sound begins later. A
        # stream of one page begins at 0 and may end before its samples do.
        start = noted[0] - count * scale if len(self._positions) > 1 else 0
        skip = (max(0, -start) + pre_skip) // scale
        length = (noted[-1] - start) // scale - skip
        is_noted = cut is None and self._positions[-1] is not None and length > 0
        return Part(pieces, skip=skip, length=length if is_noted else None, cut=cut)


def _rise(numbers: list[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))


def _sound_of(link: dict[bytes, _Stream]) -> _Stream:
    """The first stream of sound among those that run at the same time."""
    for stream in link.values():
        if stream.codec is not None:
            return stream
    first = next(iter(link.values())).first
    names = (name for start, name in _FOREIGN.items() if first.startswith(start))
    raise AudioError(not_read(next(names, "an unknown kind of sound") + " in Ogg"))
