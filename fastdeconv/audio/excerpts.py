"""Excerpts of a clip for listening: a place in it, and a little around it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["around", "faded"]

_LEAST_SECONDS = 1.0
"""Shortest excerpt: a shorter one sounds like a click."""
_AROUND_SECONDS = 0.1
"""What is added before and after the place."""
_FADE_SECONDS = 0.01


def around(begin: float, end: float, a_second: float, size: int) -> tuple[int, int]:
    """The excerpt around a place.

    Parameters
    ----------
    begin, end : float
        The place, in samples or in frames.
    a_second : float
        Samples or frames per second.
    size : int
        Samples or frames of the clip. The excerpt lies inside it.

    Returns
    -------
    (int, int)
        The first sample or frame, and the one after the last.
    """
    begin, end = begin - _AROUND_SECONDS * a_second, end + _AROUND_SECONDS * a_second
    short = max(0.0, _LEAST_SECONDS * a_second - (end - begin)) / 2
    begin, end = begin - short, end + short
    if begin < 0:
        begin, end = 0.0, end - begin
    if end > size:
        begin, end = begin - (end - size), float(size)
    return max(0, math.floor(begin)), min(size, math.ceil(end))


def faded(sound: NDArray[np.float32], sr: float) -> NDArray[np.float32]:
    """A copy that fades in and out, so that the cuts are not heard as clicks."""
    count = min(max(1, round(_FADE_SECONDS * sr)), sound.size // 2)
    ramp = np.sin(np.arange(count, dtype=np.float32) * (np.pi / 2 / max(1, count))) ** 2
    found = sound.astype(np.float32)
    found[:count] *= ramp
    found[found.size - count :] *= ramp[::-1]
    return found
