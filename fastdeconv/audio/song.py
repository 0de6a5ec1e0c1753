"""A sound of any length, and its windows, which a network takes one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import AudioError, ParameterError
from ._checks import as_int, as_number
from .clip import (
    LEAST_SAMPLES,
    Clip,
    at_rate,
    check_frontend,
    native_samples,
    needed_frontend,
)
from .frontend import Frontend
from .reading import MAX_SAMPLES, SourceLike, named, read_source

__all__ = ["Song", "load_song"]

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Song:
    """A sound of any length at the rate of a front end. `load_song` makes one.

    Attributes
    ----------
    samples : array, shape (n,), float32
        Mono, at the front end's rate, read-only.
    frontend : Frontend
    start : float
        Where it begins in its source, in seconds.
    is_cut : bool
        Whether the source continues after it.
    """

    samples: FloatArray
    frontend: Frontend
    start: float
    is_cut: bool

    @property
    def sr(self) -> float:
        """Samples per second."""
        return self.frontend.sr

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.samples.size / self.sr

    def starts(self, hop: int | None = None) -> list[int]:
        """Position of the first sample of every window.

        Parameters
        ----------
        hop : int, optional
            Columns of the network's input from one window to the next. By default half of
            the front end's `frames`.

        Returns
        -------
        list of int
            The first is 0; there are as many as it takes to reach the end of the song. ``[0]``
            if the front end has no fixed number of `frames`.

        Raises
        ------
        ParameterError
            If `hop` is not an int of at least 1.
        """
        frames, framing = self.frontend.frames, self.frontend.framing
        if frames is None:
            return [0]
        columns = max(1, frames // 2)
        if hop is not None:
            columns = as_int("hop", hop, minimum=1, maximum=MAX_SAMPLES)
        step = columns * (framing.seen(2) - framing.seen(1))
        size = self.samples.size
        count = 1 + math.ceil(max(0, size - framing.longest(frames)) / step)
        return [i * step for i in range(count) if i == 0 or size - i * step >= LEAST_SAMPLES]

    def window(self, start: int, size: int | None = None) -> Clip:
        """The clip that begins with sample `start`, as `load_clip` reads it with that offset.

        Parameters
        ----------
        start : int
        size : int, optional
            Samples of the window, for a front end without a fixed number of `frames`. By default
            all up to the end of the song.

        Returns
        -------
        Clip
            The last window of a song is padded with silence to the front end's `frames`.
        """
        # Only as many samples as the clip can use, because it checks and copies them all.
        most = native_samples(self.frontend, self.sr) if size is None else size
        stop = None if most is None else start + most
        clip = Clip(self.samples[start:stop], self.sr, self.frontend)
        clip.start = self.start + start / self.sr
        clip.is_cut = clip.is_cut or self.is_cut or (
            size is not None and start + size < self.samples.size
        )
        return clip

    def windows(self, hop: int | None = None) -> Iterator[Clip]:
        """All windows, one at a time; `hop` as in `starts`."""
        return map(self.window, self.starts(hop))


def load_song(
    source: SourceLike | tuple[ArrayLike, float], frontend: Frontend | None, *,
    offset: float = 0.0, duration: float | None = None,
) -> Song:
    """Read a sound of any length.

    Parameters
    ----------
    source : path, binary file object, or (samples, sr)
        As in `load_clip`.
    frontend : Frontend or None
        As in `load_clip`.
    offset : float
        Seconds to skip.
    duration : float, optional
        Seconds to read at most; None reads to the end.

    Returns
    -------
    Song

    Raises
    ------
    AudioError, FileNotFoundError, ParameterError
        As `load_clip` does.
    """
    frontend = needed_frontend(frontend)
    check_frontend(frontend)
    start = as_number("offset", offset)
    if start < 0:
        raise ParameterError(f"offset must not be negative, found {start:g}")
    seconds = None if duration is None else as_number("duration", duration, above=0)

    def wanted(rate: float) -> int | None:
        # One second more shows whether the source goes on, and is enough for the resampler's
        # filter, which needs samples after the last one.
        if seconds is None or seconds * rate > MAX_SAMPLES:
            return None
        return math.ceil((seconds + 1) * rate)

    found, rate, name = read_source(source, start, wanted)
    try:
        samples = at_rate(found, rate, frontend)
    except AudioError as error:
        raise named(error, name) from error
    size = samples.size
    if seconds is not None:
        # The product may be infinite, which round() does not take.
        size = max(LEAST_SAMPLES, round(min(seconds * frontend.sr, size)))
    kept = samples[:size].copy() if size < samples.size else samples
    kept.flags.writeable = False
    return Song(kept, frontend, start, is_cut=size < samples.size)
