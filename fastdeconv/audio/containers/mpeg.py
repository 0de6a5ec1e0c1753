"""mp3 and its older layers: every frame is found, so that the length is known.

libsndfile's decoder takes the length of an mp3 from a header in its first frame ("Xing", "Info"
or "VBRI"). That header may be missing, empty, or from another file; without one the decoder
guesses. This module finds the frames one by one. It leaves out tags and other bytes between
them, and the frames that hold such headers; each header begins another part of the file.
libsndfile is given the bare frames and reads them to the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from .pieces import Needed, Part, read_at
from .tags import HEAD_SIZE, tag_size

__all__ = ["begins", "parts"]

_LAYER_1, _LAYER_2, _LAYER_3 = 1, 2, 3
_MARKS = (b"Xing", b"Info")
# In kbit/s. Keys: whether it is MPEG 1, and the layer.
_BIT_RATES = {
    (True, 1): tuple(range(0, 449, 32)),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)
# For MPEG 2.5, 2 and 1.
_RATE_DIVISORS = {0: 4, 2: 2, 3: 1}
# The possible first bytes of a frame.
_SYNC = re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]")
# The first frame must begin within so many bytes.
_MAX_JUNK = 1 << 16
# After so many places that look like a frame but are none, the rest is not audio.
_MAX_FALSE = 1 << 18
_BLOCK = 1 << 18
# An empty tag. Without a tag, libsndfile takes an mp3 for another kind of file if the working
# directory has a file called "._".
_EMPTY_TAG = b"ID3\x04\0\0\0\0\0\x14" + bytes(20)
# libsndfile's decoder guesses the length from the size of the file and of the first frame, and
# reads no further. The file is made to look this many times longer, which is more than the ratio
# of the largest frame to the smallest, so that the guess is never too short.
_GUESS_RATIO = 128
# Delay of every decoder in samples; it adds to the delay that the encoder noted.
_DECODER_DELAY = 529
# More samples than an encoder's delay and padding together can be.
_MAX_TRIM = 1 << 14


class _Kind(NamedTuple):
    """The properties that all frames of a stream share."""

    version: int
    layer: int
    rate: int
    mono: bool

    @property
    def samples(self) -> int:
        if self.layer == _LAYER_1:
            return 384
        return 1152 if self.layer == _LAYER_2 or self.version == 3 else 576

    def frame_size(self, bit_rate: int) -> int:
        """Bytes of a frame, without padding."""
        if self.layer == _LAYER_1:
            return 12_000 * bit_rate // self.rate * 4
        return self.samples // 8 * 1000 * bit_rate // self.rate

    @property
    def info_position(self) -> int:
        """Position, in a frame of layer 3, of a header for the whole stream."""
        if self.version == 3:
            return 21 if self.mono else 36
        return 13 if self.mono else 21


class _Frame(NamedTuple):
    kind: _Kind
    size: int
    has_crc: bool


@lru_cache(maxsize=4096)
def _frame(head: bytes) -> _Frame | None:
    """The frame that begins with these four bytes; None if no frame can begin with them."""
    if len(head) < 4 or not _SYNC.match(head):
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bit_rate, rate = head[2] >> 4, head[2] >> 2 & 3
    if bit_rate in (0, 15) or rate == 3:
        return None
    kind = _Kind(version, layer, _RATES[rate] // _RATE_DIVISORS[version], head[3] >> 6 == 3)
    size = kind.frame_size(_BIT_RATES[version == 3, layer][bit_rate])
    padding = head[2] >> 1 & 1
    return _Frame(kind, size + padding * (4 if layer == _LAYER_1 else 1), not head[1] & 1)


class _Window:
    """A buffer for reading a part of a file at positions that mostly increase."""

    def __init__(self, file: Any, start: int, stop: int) -> None:
        self.stop = stop
        self._file = file
        self._start, self._data = start, b""

    def at(self, position: int, size: int) -> bytes:
        first = position - self._start
        if first < 0 or first + size > len(self._data):
            count = max(0, min(max(size, _BLOCK), self.stop - position))
            self._start, self._data, first = position, read_at(self._file, position, count), 0
        return self._data[first : first + size]

    def next_sync(self, position: int) -> int:
        """Position of the next bytes that can begin a frame."""
        while position < self.stop:
            if not self.at(position, 2):
                break
            found = _SYNC.search(self._data, position - self._start)
            if found:
                return self._start + found.start()
            # The last byte may be the first one of two.
            position = max(position + 1, self._start + len(self._data) - 1)
        return self.stop


def begins(file: Any, start: int, stop: int) -> bool:
    """Whether frames begin at `start` or soon after it."""
    window = _Window(file, start, stop)
    return next(_frames(window, start), None) is not None or bool(_SYNC.match(window.at(start, 2)))


def parts(file: Any, start: int, stop: int, needed: Needed) -> Iterator[Part]:
    """Streams of frames that belong together."""
    window = _Window(file, start, stop)
    passed, last = 0, None
    stream: _Stream | None = None
    for position, frame, is_after_junk in _frames(window, start):
        info = _info(window, position, frame)
        if stream is not None and (info is not None or frame.kind != stream.kind):
            if stream.samples:
                part = stream.part()
                passed += min(part.length or stream.samples, stream.samples - part.skip)
                yield part
            stream = None
        if stream is None:
            stream = _Stream(frame.kind, info, position)
            last = needed(frame.kind.rate)
        if info is None:
            stream.add(position, frame.size, is_after_junk)
        is_enough = last is not None and passed + stream.samples >= last + _MAX_TRIM
        # Only the end of the stream tells whether frames were lost in the junk.
        if is_enough and not stream.is_doubtful:
            yield stream.part(is_whole=False)
            return
    # No frame was found: they may not tell their size ("free format"). libsndfile finds it.
    yield _given([(start, stop)]) if stream is None else stream.part()


def _frames(window: _Window, start: int) -> Iterator[tuple[int, _Frame, bool]]:
    """Positions of frames, and whether bytes that are no tag precede each."""
    position, kind, tries = start, None, _MAX_FALSE
    found = is_after_junk = False
    while tries and (found or position - start <= _MAX_JUNK):
        frame = _frame(window.at(position, 4))
        # Directly after a frame, one header is enough. Elsewhere, other bytes may look like one.
        if frame is not None and position + frame.size <= window.stop and (
            frame.kind == kind or _goes_on(window, position + frame.size, frame.kind)
        ):
            yield position, frame, is_after_junk
            found, is_after_junk, kind = True, False, frame.kind
            position += frame.size
            continue
        if position >= window.stop:
            return
        size = tag_size(window.at(position, HEAD_SIZE))
        if frame is None and 0 < size <= window.stop - position:
            position += size
        else:
            position = window.next_sync(position + 1)
            is_after_junk, kind = True, None
            tries -= 1


def _goes_on(window: _Window, position: int, kind: _Kind) -> bool:
    """Whether two more frames of the kind follow at `position`, or the stream ends there."""
    for _ in range(2):
        if position >= window.stop or tag_size(window.at(position, HEAD_SIZE)):
            return True
        frame = _frame(window.at(position, 4))
        if frame is None or frame.kind != kind:
            return False
        position += frame.size
    return True


class _Info(NamedTuple):
    """What a header in the first frame says about the stream; None for what it does not say."""

    frames: int | None
    #: Bytes, including the header's frame.
    size: int | None
    #: Samples that the encoder added before and after the sound.
    delay: int | None = None
    padding: int = 0


def _info(window: _Window, position: int, frame: _Frame) -> _Info | None:
    if frame.kind.layer != _LAYER_3:
        return None
    data = window.at(position, min(frame.size, 256))
    if data[36:40] == b"VBRI":
        return _Info(int.from_bytes(data[50:54], "big"), int.from_bytes(data[46:50], "big"))
    at = frame.kind.info_position
    if frame.has_crc and data[at : at + 4] not in _MARKS:
        at += 2
    if data[at : at + 4] not in _MARKS:
        return None
    flags, at = int.from_bytes(data[at + 4 : at + 8], "big"), at + 8
    fields: list[int | None] = []
    # The numbers of frames and of bytes, a table for seeking, the quality.
    for bit, size in enumerate((4, 4, 100, 4)):
        there = bool(flags >> bit & 1)
        fields.append(int.from_bytes(data[at : at + size], "big") if there else None)
        at += size * there
    encoder = data[at : at + 24]
    trim = int.from_bytes(encoder[21:24], "big") if encoder[:1] > b"\0" else 0
    return _Info(fields[0], fields[1], trim >> 12, trim & 0xFFF)


def _given(runs: list[tuple[int, int]]) -> Part:
    """The part that makes libsndfile decode these bytes of the file."""
    tail = _GUESS_RATIO * sum(stop - start for start, stop in runs)
    return Part((_EMPTY_TAG, *runs), tail=tail)


class _Stream:
    """Frames of one kind that are decoded together."""

    def __init__(self, kind: _Kind, info: _Info | None, position: int) -> None:
        self.kind = kind
        self._info, self._start = info, position
        self._runs: list[tuple[int, int]] = []
        self._runs_before_junk: int | None = None
        self._count = 0

    @property
    def samples(self) -> int:
        return self._count * self.kind.samples

    @property
    def is_doubtful(self) -> bool:
        """Whether frames that a header counts may have been lost where there is junk."""
        return self._info is not None and self._runs_before_junk is not None

    def add(self, position: int, size: int, is_after_junk: bool) -> None:
        if is_after_junk and self._count and self._runs_before_junk is None:
            self._runs_before_junk = len(self._runs)
        self._count += 1
        if self._runs and self._runs[-1][1] == position:
            self._runs[-1] = (self._runs[-1][0], position + size)
        else:
            self._runs.append((position, position + size))

    def part(self, is_whole: bool = True) -> Part:
        info = self._info
        cut = self._missing() if is_whole else None
        runs = self._runs[: self._runs_before_junk] if cut else self._runs
        part = replace(_given(runs), promised=None if cut else self.samples, cut=cut)
        if info is None or info.delay is None:
            return part
        length = self.samples - info.delay - info.padding
        if length <= 0:  # the numbers are wrong
            return part
        is_counted = is_whole and info.frames == self._count
        skip = info.delay + _DECODER_DELAY
        return replace(part, skip=skip, length=length if is_counted else None)

    def _missing(self) -> str | None:
        """A message that frames are missing, if more than one number of the header says so."""
        if self._info is None or not self._runs:
            return None
        found, claim, size = self._count, self._info.frames or 0, self._info.size
        # Some encoders also count the frame that holds the header.
        is_cut = size > self._runs[-1][1] - self._start if size else claim > found + 1
        if claim > found and (is_cut or self.is_doubtful):
            what = "truncated" if is_cut else "damaged"
            return f"{what}: {found} frames where the header says {claim}"
        return None
