"""Time lines: when every feature of a layer fires, as numbers and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .picture import shades, write_png

__all__ = ["NUMBERS_FILE", "PICTURE", "timeline_indices", "write_timeline"]

NUMBERS_FILE = "timeline.npy"
PICTURE = "timeline.png"

FloatArray = NDArray[np.float32]


def write_timeline(folder: Path, values: FloatArray) -> None:
    """Write how strongly all features of a layer fire over time, as an array and a picture.

    In the picture feature 0 is at the top. Every feature has its own scale, from 0 to its strongest
    column, so that one also sees when weak features fire.

    Parameters
    ----------
    folder : Path
    values : array of float32, shape (K, columns)
    """
    np.save(folder / NUMBERS_FILE, values)
    write_png(folder / PICTURE, timeline_indices(values))


def timeline_indices(values: FloatArray) -> NDArray[np.uint8]:
    """The pixels of the picture of time lines (K, columns), the last feature first."""
    rows = [shades(row[np.newaxis])[0] for row in values[::-1]]
    return np.array(rows, np.uint8).reshape(values.shape)
