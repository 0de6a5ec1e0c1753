"""From the maps of several input channels back to one sound: the channels are added up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .frontend import Frontend

__all__ = ["sounds_of", "spread"]

FloatArray = NDArray[np.float32]


def spread(frontend: Frontend, planes: FloatArray) -> FloatArray:
    """Maps (K, parts, T, rows) as weights (K, T, F) of the front end's own STFT.

    Only for kinds with `Kind.on_stft`.
    """
    kind, n_fft = frontend.meaning, frontend.n_fft
    total = None
    for i, part in enumerate(frontend.parts):
        weights = kind.spread(part, planes[:, i], n_fft)
        total = weights if total is None else total + weights
    assert total is not None
    return total


def sounds_of(
    frontend: Frontend, samples: FloatArray, planes: FloatArray, mode: str
) -> FloatArray:
    """The sounds (K, n) of maps (K, parts, T, rows), for kinds without `Kind.on_stft`."""
    kind = frontend.meaning
    total = None
    for i, part in enumerate(frontend.parts):
        sounds = kind.sounds(part, samples, planes[:, i], mode)
        total = sounds if total is None else total + sounds
    assert total is not None
    return total
