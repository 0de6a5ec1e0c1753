"""A song taken a window at a time, and the sounds of the windows joined.

There are two ways, and what follows is the same for both. Windows of a network that takes a fixed
number of frames overlap by half, and the sound of one fades into that of the next. Pieces of a
network that takes any length overlap by so much that what is heard of each is exactly what one
pass over the whole song would give; so one follows the other without a fade.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .clip import Clip
from .frontend import Frontend
from .song import Song

__all__ = ["Joiner", "Window", "Windows", "depends_on_the_whole", "pieces", "windows"]

FloatArray = NDArray[np.float32]

_SECONDS = 10.0
"""Length of a window where the network leaves it open but depends on all that it is given."""
_PIECE_SECONDS = 8.0
"""What is kept of a piece, at least: margins are computed once more for every piece."""


class Window(NamedTuple):
    """A part of a song that is computed by itself, in samples of the song."""

    start: int
    """Its first sample."""
    size: int | None
    """How many samples; None for as many as the frames take."""
    begin: int
    """Where it begins to be heard."""
    rise: int
    """Up to here it fades in."""
    fall: int
    """From here it fades out."""
    end: int
    """Where it is no longer heard."""

    def weights(self) -> FloatArray:
        """How much of it is heard, for every sample from `begin` to `end`.

        A raised cosine; with those of the window before and behind it adds up to 1.
        """
        found = np.ones(self.end - self.begin, np.float32)
        found[: self.rise - self.begin] = _ramp(self.rise - self.begin)
        found[self.fall - self.begin :] = 1 - _ramp(self.end - self.fall)
        return found

    @property
    def middles(self) -> tuple[int, int]:
        """The part in which no other window is heard more."""
        return (self.begin + self.rise) // 2, (self.fall + self.end) // 2


def _ramp(count: int) -> FloatArray:
    at = (np.arange(count) + 0.5) / max(1, count)
    return np.asarray(np.sin(0.5 * np.pi * at) ** 2, np.float32)


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of a song.

    Attributes
    ----------
    song : Song
        Its front end is the one that the windows are made with.
    rows : tuple of Window
    exact : bool
        Whether what is heard is that of one pass over the whole song.
    """

    song: Song
    rows: tuple[Window, ...]
    exact: bool

    def __len__(self) -> int:
        return len(self.rows)

    def clip(self, number: int) -> Clip:
        """The clip of a window."""
        window = self.rows[number]
        return self.song.window(window.start, window.size)

    def shares(self) -> NDArray[np.float64]:
        """How much of the song is heard of each window; they add up to 1."""
        heard = [float(window.weights().sum(dtype=np.float64)) for window in self.rows]
        return np.asarray(heard) / sum(heard)


def depends_on_the_whole(frontend: Frontend) -> bool:
    """Whether a column of the input depends on more of the clip than the frames around it."""
    return any(map(_depends_on_the_whole, frontend.parts))


def _depends_on_the_whole(part: Frontend) -> bool:
    scale, normalize = part.scale, part.normalize
    if part.kind == "cqt" or scale == "db":
        return True
    if isinstance(scale, dict) and scale["type"] == "db":
        return scale["ref"] == "max" or scale["top_db"] is not None
    return normalize is not None and normalize["type"] != "affine"


def windows(song: Song) -> Windows:
    """Windows of the front end's frames, each half a window behind the one before.

    Where the front end leaves the number of frames open, they are 10 s long; a shorter song is
    one window.
    """
    frontend = song.frontend
    if frontend.frames is None:
        frames = max(1, frontend.num_frames(math.ceil(_SECONDS * song.sr)))
        if frontend.num_frames(song.samples.size) <= frames:
            size = song.samples.size
            return Windows(song, (Window(0, None, 0, 0, size, size),), exact=True)
        song = dataclasses.replace(song, frontend=dataclasses.replace(frontend, frames=frames))
    return Windows(song, tuple(_fading(song)), exact=False)


def _fading(song: Song) -> Iterator[Window]:
    starts, size = song.starts(), song.samples.size
    frames = song.frontend.frames
    assert frames is not None
    length = song.frontend.framing.shortest(frames)
    step = starts[1] if len(starts) > 1 else length
    # Where more than two windows overlap, the middle of each is heard.
    lead = max(0, (length - 2 * step) // 2)
    begin = rise = 0
    for i, start in enumerate(starts):
        if i + 1 == len(starts):
            yield Window(start, None, begin, rise, size, size)
            return
        fall = starts[i + 1] + lead
        end = min(start + length, fall + step)
        yield Window(start, None, begin, rise, fall, end)
        begin, rise = fall, end


def pieces(song: Song, margin: int, step: int) -> Windows:
    """Pieces of a song, of which what is heard is that of one pass.

    Parameters
    ----------
    song : Song
        Its front end must not depend on the clip as a whole, see `depends_on_the_whole`.
    margin, step : int
        In columns of the input, see `fastdeconv.network.locality.Reach`.
    """
    frontend = dataclasses.replace(song.frontend, frames=None)
    song = dataclasses.replace(song, frontend=frontend)
    framing, size = frontend.framing, song.samples.size
    hop = framing.seen(2) - framing.seen(1)
    if frontend.meaning.on_stft:
        # Frames at an end of a piece see padding there; a sample is heard in all frames around.
        largest = max(part.n_fft for part in frontend.parts)
        margin += 2 * math.ceil(largest / hop) + 1
    deltas = [part.delta for part in frontend.parts if isinstance(part.delta, dict)]
    margin += max((delta["width"] for delta in deltas), default=0)
    margin = -(-margin // step) * step
    kept = max(2 * margin, math.ceil(_PIECE_SECONDS * song.sr / hop))
    kept = -(-kept // step) * step
    total = frontend.num_frames(size)
    rows = []
    # At least one, also of a song that is too short: the clip says so.
    for column in range(0, max(1, -(-size // hop)), kept):
        first = max(0, column - margin)
        # As many columns as the whole has, up to multiples of a step: padding may depend on it.
        last = column + kept + margin + total % step
        begin, end = column * hop, min(size, (column + kept) * hop)
        samples = None if last >= total else framing.shortest(last - first)
        rows.append(Window(first * hop, samples, begin, begin, end, end))
    return Windows(song, tuple(rows), exact=True)


class Joiner:
    """Adds the sounds of windows up, as they come, and gives what is finished."""

    def __init__(self) -> None:
        self._open: FloatArray | None = None

    def add(self, window: Window, sounds: FloatArray) -> FloatArray:
        """The sounds (K, n) of the next window; returns all that no later window changes."""
        heard = sounds[:, window.begin - window.start : window.end - window.start]
        heard = heard * window.weights()
        if self._open is not None:
            heard[:, : window.rise - window.begin] += self._open
        finished = window.fall - window.begin
        self._open = heard[:, finished:].copy()
        return heard[:, :finished]
