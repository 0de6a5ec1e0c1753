"""Pictures of spectrograms: small palette PNGs, one pixel per bin and frame.

Time runs to the right, frequency upwards. A pixel's palette index is its level:
255 is the reference, 0 is `RANGE_DB` below it or less, evenly spaced in dB
between. Pillow is imported where it is used: only saving needs it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .colours import MAGMA

__all__ = ["RANGE_DB", "levels", "write_png"]

#: Decibels from the brightest colour to the darkest.
RANGE_DB = 80.0


def levels(magnitude: NDArray[np.float32], reference: float) -> NDArray[np.uint8]:
    """Magnitudes as palette indices, in dB below `reference`.

    Parameters
    ----------
    magnitude : array of float32, shape (F, T)
        Not negative.
    reference : float
        The magnitude that gets index 255; with 0 everything gets index 0.

    Returns
    -------
    array of uint8, shape (F, T)
    """
    if not reference > 0:
        return np.zeros(magnitude.shape, dtype=np.uint8)
    ratio = magnitude / np.float32(reference)
    np.clip(ratio, np.float32(10 ** (-RANGE_DB / 20)), 1, out=ratio)
    db: NDArray[np.float32] = np.log(ratio, out=ratio)
    db *= np.float32(255 * 20 / np.log(10) / RANGE_DB)
    db += np.float32(255.5)  # the half rounds to nearest in the cast
    indices: NDArray[np.uint8] = db.astype(np.uint8)
    return indices


def write_png(path: Path, indices: NDArray[np.uint8]) -> None:
    """Write palette indices (F, T), lowest frequency first, as a PNG of T x F pixels."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(indices[::-1]))
    image.putpalette(MAGMA)
    # Level 1: higher ones take longer and save nothing on spectrograms.
    image.save(path, format="PNG", compress_level=1)
