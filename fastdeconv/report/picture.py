"""Pictures of spectrograms, maps and activations: small palette PNGs.

Time runs to the right, frequency upwards. They have few colours and no PNG filter: a result has
hundreds of pictures, and more shades than an eye can tell apart would double their size. They are
encoded here because zlib lets other threads run meanwhile and Pillow does not.

`levels`, `shades` and `signed_levels` each turn values (F, T), float32, into shades (F, T), uint8,
of one kind of picture; `png` and `write_png` make a picture of shades.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .colours import MAGMA, SIGNED

__all__ = [
    "RANGE_DB", "SHADES", "SIGNED_STEPS", "levels", "png", "shades", "signed_levels", "write_png",
]

#: Decibels from the brightest colour to the darkest.
RANGE_DB = 80.0
#: Shades of a picture of magnitudes, the darkest and the brightest included.
SHADES = 64
#: Shades for each sign in a picture of a map; each stands for half the values of the next.
SIGNED_STEPS = 5

_INDEXED = 3  # the colour type of a picture with a palette
_MAGMA = b"".join(MAGMA[3 * round(i * 255 / 63) :][:3] for i in range(SHADES))


def levels(magnitude: NDArray[np.float32], reference: float) -> NDArray[np.uint8]:
    """Magnitudes, none negative, as shades in dB below `reference`.

    `reference` gets the brightest shade, ``SHADES - 1``. What lies `RANGE_DB` or more below it
    gets shade 0, and so does everything if it is 0.
    """
    if not reference > 0:
        return np.zeros(magnitude.shape, dtype=np.uint8)
    ratio = magnitude / np.float32(reference)
    np.clip(ratio, np.float32(10 ** (-RANGE_DB / 20)), 1, out=ratio)
    db: NDArray[np.float32] = np.log(ratio, out=ratio)
    db *= np.float32((SHADES - 1) * 20 / np.log(10) / RANGE_DB)
    db += np.float32(SHADES - 0.5)  # with the half, the cast rounds to the nearest shade
    indices: NDArray[np.uint8] = db.astype(np.uint8)
    return indices


def shades(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Values as evenly spaced shades from the smallest value to the largest; 0 is always within."""
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float64) - low) * ((SHADES - 1) / (high - low))
    return np.rint(scaled).astype(np.uint8)


def signed_levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Signed values as shades; the middle one, `SIGNED_STEPS`, is zero.

    The outermost shades are for values down to half the largest magnitude, the next ones down to a
    quarter, and so on. Values smaller than that of the innermost shades are shown as zero.
    """
    largest = float(max(values.max(initial=0.0), -values.min(initial=0.0)))
    if not largest > 0:
        return np.full(values.shape, SIGNED_STEPS, np.uint8)
    size = np.abs(values / np.float32(largest))
    # The exponent is read from the bits, in a tenth of the time of np.frexp. It is -1 for sizes
    # in [1/2, 1), 0 for the largest size itself, and very negative for 0.
    exponent = (size.view(np.int32) >> 23) - 127
    step = np.clip(exponent + SIGNED_STEPS + 1, 0, SIGNED_STEPS).astype(np.uint8)
    return np.where(values < 0, SIGNED_STEPS - step, SIGNED_STEPS + step)


def write_png(path: Path, indices: NDArray[np.uint8], *, signed: bool = False) -> None:
    """Write shades (rows, T), the lowest frequency first, as a PNG of T x rows pixels."""
    path.write_bytes(png(indices, signed=signed))


def png(indices: NDArray[np.uint8], *, signed: bool = False) -> bytes:
    """Shades (rows, T) as the bytes of a PNG, in magma or, if `signed`, blue to orange."""
    rows, columns = indices.shape
    shown = indices[::-1]
    if signed:  # two pixels a byte
        pairs = np.zeros((rows, columns + columns % 2), np.uint8)
        pairs[:, :columns] = shown
        shown = pairs[:, ::2] * np.uint8(16) + pairs[:, 1::2]
    lines = np.zeros((rows, 1 + shown.shape[1]), np.uint8)  # each begins with its filter: none
    lines[:, 1:] = shown
    header = struct.pack(">IIBBBBB", columns, rows, 4 if signed else 8, _INDEXED, 0, 0, 0)
    return b"".join([
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", header),
        _chunk(b"PLTE", SIGNED if signed else _MAGMA),
        # Level 1: higher ones take longer and save little on spectrograms.
        _chunk(b"IDAT", zlib.compress(lines.tobytes(), 1)),
        _chunk(b"IEND", b""),
    ])


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
