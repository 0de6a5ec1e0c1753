"""What is cut out of a clip to be heard: a place in it, and a little around it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["around", "faded"]

_LEAST_SECONDS = 1.0
"""Of an excerpt: less is a click to the ear."""
_AROUND_SECONDS = 0.1
"""Before and behind the place."""
_FADE_SECONDS = 0.01


def around(begin: float, end: float, a_second: float, size: int) -> tuple[int, int]:
    """The excerpt around a place.

    Parameters
    ----------
    begin, end : float
        The place, in samples or in frames.
    a_second : float
        How many of them there are in a second.
    size : int
        How many the clip has: the excerpt lies inside.

    Returns
    -------
    (int, int)
        From the first up to, and without, the second.
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
    """From silence and back to it, so that no cut is heard as a click."""
    count = min(max(1, round(_FADE_SECONDS * sr)), sound.size // 2)
    ramp = np.sin(np.arange(count, dtype=np.float32) * (np.pi / 2 / max(1, count))) ** 2
    found = sound.astype(np.float32)
    found[:count] *= ramp
    found[found.size - count :] *= ramp[::-1]
    return found
