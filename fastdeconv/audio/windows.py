"""Cut a song into windows, and join the sounds that are computed for each window.

There are two ways to cut, with one record (`Window`) for both:

- `windows`, for a network that takes a fixed number of frames: they overlap by half, and the sound
  of one fades into the sound of the next.
- `pieces`, for a network that takes any length: they overlap so much that the part which is kept
  of each equals one pass over the whole song. The kept parts follow each other without a fade.
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
"""Length of a window if the front end has no fixed length but the network sees the whole input."""
_PIECE_SECONDS = 8.0
"""Least that is kept of a piece: its margins are computed again for the pieces beside it."""


class Window(NamedTuple):
    """A part of a song that is computed on its own. Positions are samples of the song."""

    start: int
    """First sample of the input."""
    size: int | None
    """Number of samples; None for as many as the front end's `frames` need."""
    begin: int
    """First sample that is heard; the fade-in begins."""
    rise: int
    """End of the fade-in."""
    fall: int
    """Beginning of the fade-out."""
    end: int
    """End of the fade-out: the sample after the last that is heard."""

    def weights(self) -> FloatArray:
        """The gain of every sample from `begin` to `end`.

        The fades are raised cosines. Together with the windows before and after it, the gains
        add up to 1.
        """
        found = np.ones(self.end - self.begin, np.float32)
        found[: self.rise - self.begin] = _ramp(self.rise - self.begin)
        found[self.fall - self.begin :] = 1 - _ramp(self.end - self.fall)
        return found

    @property
    def middles(self) -> tuple[int, int]:
        """The part in which no other window is louder: from the middle of one fade to the next."""
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
        With the front end that the clips of the windows are made with.
    rows : tuple of Window
    exact : bool
        Whether the joined result equals one pass over the whole song.
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
        """The share of each window in what is heard of the song, shape (n,); the sum is 1."""
        heard = [float(window.weights().sum(dtype=np.float64)) for window in self.rows]
        return np.asarray(heard) / sum(heard)


def depends_on_the_whole(frontend: Frontend) -> bool:
    """Whether a column of the input depends on the whole clip, not only on frames around it."""
    return any(map(_part_depends_on_the_whole, frontend.parts))


def _part_depends_on_the_whole(part: Frontend) -> bool:
    scale, normalize = part.scale, part.normalize
    if part.kind == "cqt" or scale == "db":
        return True
    if isinstance(scale, dict) and scale["type"] == "db":
        return scale["ref"] == "max" or scale["top_db"] is not None
    return normalize is not None and normalize["type"] != "affine"


def windows(song: Song) -> Windows:
    """Windows of the front end's `frames`, each beginning half a window after the last.

    Without a fixed number of `frames` they are 10 s long, and a shorter song is one window.
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
    # If more than two windows overlap, only the middle of each is heard.
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
    """Pieces of a song whose kept parts equal one pass over the whole song.

    Parameters
    ----------
    song : Song
        Its front end must not depend on the whole clip, see `depends_on_the_whole`.
    margin, step : int
        Columns of the input, as in `fastdeconv.network.locality.Reach`.
    """
    frontend = dataclasses.replace(song.frontend, frames=None)
    song = dataclasses.replace(song, frontend=frontend)
    framing, size = frontend.framing, song.samples.size
    hop = framing.seen(2) - framing.seen(1)
    if frontend.meaning.on_stft:
        # Frames at the ends of a piece see padding. A sample of the sound depends on all frames
        # that cover it.
        largest = max(part.n_fft for part in frontend.parts)
        margin += 2 * math.ceil(largest / hop) + 1
    deltas = [part.delta for part in frontend.parts if isinstance(part.delta, dict)]
    margin += max((delta["width"] for delta in deltas), default=0)
    margin = -(-margin // step) * step
    kept = max(2 * margin, math.ceil(_PIECE_SECONDS * song.sr / hop))
    kept = -(-kept // step) * step
    total = frontend.num_frames(size)
    rows = []
    # At least one piece, even if the song is too short: making its clip raises the error.
    for column in range(0, max(1, -(-size // hop)), kept):
        first = max(0, column - margin)
        # The number of columns differs from that of the whole song by a multiple of `step`,
        # because padding may depend on it.
        last = column + kept + margin + total % step
        begin, end = column * hop, min(size, (column + kept) * hop)
        samples = None if last >= total else framing.shortest(last - first)
        rows.append(Window(first * hop, samples, begin, begin, end, end))
    return Windows(song, tuple(rows), exact=True)


class Joiner:
    """Joins the sounds of windows as they come, and returns what is finished."""

    def __init__(self) -> None:
        self._open: FloatArray | None = None

    def add(self, window: Window, sounds: FloatArray) -> FloatArray:
        """Add the sounds (K, n) of the next window; return the samples that are now final."""
        heard = sounds[:, window.begin - window.start : window.end - window.start]
        heard = heard * window.weights()
        if self._open is not None:
            heard[:, : window.rise - window.begin] += self._open
        finished = window.fall - window.begin
        self._open = heard[:, finished:].copy()
        return heard[:, :finished]
