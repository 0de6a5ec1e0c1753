"""Files made of chunks (wav, rf64, w64, aiff, caf, iff) and au: where the sound ends.

A recorder that was interrupted, or a program that wrote to a pipe, leaves sizes in the header
that are 0, too small or too large. This module reads the sizes, compares them with the file, and
gives libsndfile a header with the right ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import mpeg
from .pieces import Needed, Part, Piece, read_at
from .tags import HEAD_SIZE, tag_size

__all__ = ["is_known", "parts"]

# By the width of a size in bytes: a program that does not know the size writes 0, a negative
# number, or a number from here on.
_UNKNOWN = {4: 0x7F000000, 8: 1 << 61}
# A file with more chunks before the sound is damaged.
_MAX_CHUNKS = 10_000
# After the sound, fewer bytes than this are ignored, and zeros are padding, not silence, if there
# are fewer than this.
_MIN_REST = 8
_MAX_PADDING = 1 << 16
# Bytes of sound in one part for libsndfile, if the whole size does not fit into 32 bits.
_SPLIT = 1 << 31
# Numbers of codecs in wav and w64.
_GSM, _MP3 = 0x31, 0x55


class _Layout(NamedTuple):
    """How a family of files writes its chunks."""

    #: Bytes before the first chunk.
    first: int
    #: Format of a size.
    size: str
    #: Position of the size of the whole file.
    whole: int | None = 4
    #: Bytes between the head of the sound's chunk and the sound.
    within: int = 0
    #: Bytes of the chunk's head that are included in its size.
    counted: int = 0
    #: Every chunk begins at a multiple of this.
    align: int = 2
    #: Whether chunks after the sound may say how to decode it.
    needs_rest: bool = False


_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0"
# Keys: the first bytes of the file, and the bytes from position 8 on.
_LAYOUTS = {
    (b"RIFF", b"WAVE"): _Layout(12, "<I"),
    (b"RF64", b"WAVE"): _Layout(12, "<I"),
    (b"BW64", b"WAVE"): _Layout(12, "<I"),
    (b"RIFX", b"WAVE"): _Layout(12, ">I"),
    (b"FORM", b"AIFF"): _Layout(12, ">I", within=8, needs_rest=True),
    (b"FORM", b"AIFC"): _Layout(12, ">I", within=8, needs_rest=True),
    (b"FORM", b"8SVX"): _Layout(12, ">I", needs_rest=True),
    (b"FORM", b"16SV"): _Layout(12, ">I", needs_rest=True),
    (b"caff", b""): _Layout(8, ">q", whole=None, within=4, align=1, needs_rest=True),
    (_W64, b""): _Layout(40, "<q", whole=16, counted=24, align=8),
    (b".snd", b""): _Layout(24, ">I", whole=None, align=1),
    (b"dns.", b""): _Layout(24, "<I", whole=None, align=1),
}
_AU = (b".snd", b"dns.")
_RF64 = (b"RF64", b"BW64")
_SOUND = (b"data", b"SSND", b"BODY")


class _Field(NamedTuple):
    """A size in a header."""

    position: int
    format: str
    #: The size is counted from here on.
    origin: int


class _Sound(NamedTuple):
    """Where the sound of a file is, according to its headers."""

    layout: _Layout
    #: Position of its first byte.
    start: int
    #: Its bytes; 0 or less where the header does not know.
    claim: int
    size: _Field
    #: Size and end of the whole file.
    whole: _Field | None
    end: int | None
    #: Where the contents of each chunk before it begin, by the chunk's name.
    contents: dict[bytes, int]


def is_known(head: bytes) -> bool:
    """Whether a file that begins with `head` is of one of these kinds."""
    return _layout(head) is not None


def _layout(head: bytes) -> _Layout | None:
    for (magic, kind), layout in _LAYOUTS.items():
        if head.startswith(magic) and head[8:].startswith(kind):
            return layout
    return None


def parts(file: Any, start: int, stop: int, needed: Needed) -> Iterator[Part]:
    """The sound of the file at `start`, and of further files appended to it."""
    follow: int | None = start
    while follow is not None:
        start = follow
        sound = _find_sound(file, start, stop)
        if sound is None:  # libsndfile says what is wrong
            yield Part(((start, stop),))
            return
        follow = _next_file(file, sound, stop)
        end = stop if follow is None else follow
        size, cut = _true_size(file, sound, end)
        if _codec(file, sound) == _MP3:
            yield from mpeg.parts(file, sound.start, sound.start + size, needed)
        else:
            yield from _with_size(file, start, end, sound, size, cut)


def _find_sound(file: Any, start: int, stop: int) -> _Sound | None:
    head = read_at(file, start, 40)
    layout = _layout(head)
    if layout is None or len(head) < layout.first:
        return None
    if head[:4] in _AU:
        begin, claim = struct.unpack_from(layout.size[0] + "II", head, 4)
        begin += start
        return _Sound(layout, begin, claim, _Field(start + 8, layout.size, begin), None, None, {})
    whole = end = None
    if layout.whole is not None:
        (claim,) = struct.unpack_from(layout.size, head, layout.whole)
        whole = _Field(start + layout.whole, layout.size, start + (0 if layout.counted else 8))
        end = whole.origin + claim
    at, contents = start + layout.first, dict[bytes, int]()
    for _ in range(_MAX_CHUNKS):
        chunk = _chunk(file, at, layout)
        if chunk is None:
            return None
        name, content, size = chunk
        if name in _SOUND:
            field = _Field(content - _width(layout.size), layout.size, content - layout.counted)
            begin = content + layout.within
            sound = _Sound(layout, begin, size - layout.within, field, whole, end, contents)
            return _with_64_bits(file, sound) if head[:4] in _RF64 else sound
        contents.setdefault(name, content)
        if not 0 <= size <= stop - content:
            return None
        at = _aligned(content + size, start, layout)
    return None


def _width(size: str) -> int:
    return struct.calcsize(size)


def _aligned(position: int, start: int, layout: _Layout) -> int:
    return position + (start - position) % layout.align


def _chunk(file: Any, position: int, layout: _Layout) -> tuple[bytes, int, int] | None:
    """Name of a chunk, where its contents begin, and their size."""
    name_size = 16 if layout.counted else 4
    head = read_at(file, position, name_size + _width(layout.size))
    if len(head) < name_size + _width(layout.size):
        return None
    (size,) = struct.unpack_from(layout.size, head, name_size)
    return head[:4], position + len(head), size - layout.counted


def _with_64_bits(file: Any, sound: _Sound) -> _Sound:
    """The sizes of rf64, which are in a chunk of their own."""
    at = sound.contents.get(b"ds64")
    numbers = b"" if at is None else read_at(file, at, 16)
    if at is None or len(numbers) < 16 or sound.whole is None:
        return sound
    end, claim = struct.unpack("<qq", numbers)
    short = sound.claim if sound.claim < _UNKNOWN[4] else 0
    return sound._replace(
        claim=claim if claim > 0 else short,
        size=sound.size._replace(position=at + 8, format="<q"),
        whole=sound.whole._replace(position=at, format="<q"),
        end=sound.whole.origin + end,
    )


def _true_size(file: Any, sound: _Sound, stop: int) -> tuple[int, str | None]:
    """How many bytes of sound there are, and, if bytes are missing, a message about it."""
    there, claim = max(0, stop - sound.start), sound.claim
    if claim <= 0:
        return (0 if _is_chunk(file, sound.start, stop, sound.layout) else there), None
    if claim > there:
        unknown = claim >= _UNKNOWN[_width(sound.size.format)]
        return there, None if unknown else f"truncated: {there} bytes where the header says {claim}"
    # The header may have been written when the sound was shorter. That is so if what follows is
    # not included in the size of the file, and is no chunk, padding or tag either.
    end = _aligned(sound.start + claim, sound.start, sound.layout)
    is_counted = sound.end is not None and sound.end > end
    is_known = _is_chunk(file, end, stop, sound.layout) or _is_padding(file, end, stop)
    if is_counted or is_known or tag_size(read_at(file, end, HEAD_SIZE)):
        return claim, None
    return there, None


def _is_chunk(file: Any, position: int, stop: int, layout: _Layout) -> bool:
    chunk = _chunk(file, position, layout)
    if chunk is None:
        return False
    name, content, size = chunk
    printable = all(0x20 <= byte < 0x7F for byte in name)
    return printable and 0 <= size <= stop - content + layout.align


def _is_padding(file: Any, position: int, stop: int) -> bool:
    size = stop - position
    return size < _MIN_REST or (size < _MAX_PADDING and not any(read_at(file, position, size)))


def _next_file(file: Any, sound: _Sound, stop: int) -> int | None:
    """Where another file begins that was appended to this one; None without one."""
    for end in (_aligned(sound.start + sound.claim, sound.start, sound.layout), sound.end):
        if end is not None and sound.start <= end < stop and is_known(read_at(file, end, 40)):
            return end
    return None


def _codec(file: Any, sound: _Sound) -> int | None:
    content = sound.contents.get(b"fmt ")
    return None if content is None else _number(file, sound, content)


def _number(file: Any, sound: _Sound, position: int) -> int:
    """The 16-bit number at a position of the header."""
    order: Any = "little" if sound.layout.size[0] == "<" else "big"
    return int.from_bytes(read_at(file, position, 2), order)


def _with_size(
    file: Any, start: int, stop: int, sound: _Sound, size: int, cut: str | None
) -> Iterator[Part]:
    """The file with its headers changed: they claim `size` bytes of sound."""
    if size == sound.claim and sound.layout.needs_rest:
        yield Part((*_header(start, sound, size, stop), (sound.start, stop)))
        return
    frame = _frame_size(file, sound)
    fits = sound.start + size - sound.size.origin <= _largest(sound.size)
    step = max(1, size) if fits or not frame else _SPLIT // frame * frame
    for first in range(sound.start, sound.start + max(1, size), step):
        count = min(step, sound.start + size - first)
        header = _header(start, sound, count, sound.start + count)
        length = _gsm_length(file, sound, count) if _codec(file, sound) == _GSM else None
        yield Part((*header, (first, first + count)), length=length, cut=cut)


def _gsm_length(file: Any, sound: _Sound, size: int) -> int:
    """Samples in whole blocks. After an odd number of blocks, libsndfile invents another."""
    content = sound.contents[b"fmt "]
    block, samples = (_number(file, sound, content + at) for at in (12, 18))
    return size // max(1, block) * samples


def _largest(field: _Field) -> int:
    return (1 << 32) - 1 if field.format.endswith("I") else (1 << 63) - 1


def _frame_size(file: Any, sound: _Sound) -> int:
    """Bytes that must not be separated; 0 if unknown."""
    if b"fmt " in sound.contents:
        return _number(file, sound, sound.contents[b"fmt "] + 12)
    if b"COMM" in sound.contents:
        content = sound.contents[b"COMM"]
        return _number(file, sound, content) * ((_number(file, sound, content + 6) + 7) // 8)
    return 0


def _header(start: int, sound: _Sound, size: int, end: int) -> list[Piece]:
    """The bytes before the sound; they claim `size` bytes of sound and a file up to `end`."""
    patches = {}
    for field, value in ((sound.size, sound.start + size), (sound.whole, end)):
        if field is not None:
            number = min(value - field.origin, _largest(field))
            patches[field.position] = struct.pack(field.format, number)
    if size != sound.claim and b"COMM" in sound.contents:
        # The number of frames, where libsndfile stops with some codecs of aiff.
        patches[sound.contents[b"COMM"] + 2] = b"\xff" * 4
    if sound.size.format != sound.layout.size:
        patches[start] = b"RF64"  # libsndfile does not know its other name, BW64
    pieces: list[Piece] = []
    for position in sorted(patches):
        pieces += [(start, position), patches[position]]
        start = position + len(patches[position])
    return [*pieces, (start, sound.start)]
