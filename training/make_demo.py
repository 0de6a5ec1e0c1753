"""Making the demo clip: ``python -m training.make_demo``.

The clip is "Feelings" by Carlos Viola Iborra (Sectoid) from 60 to 64 s, with both stems mixed, in
mono at 11,025 Hz. With ``--check`` nothing is written, and the clip in the package is compared with
a fresh one. Decoders and resamplers may round a sample differently, so a difference of two steps of
16 bits is allowed.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .audiofile import read_mono
from .fetch import fetch
from .manifest import HERE, load_sources

PACKAGE = "fretsonfire-songs-sectoid"
SONG = "usr/share/games/fretsonfire/data/songs/sectoid/Feelings"
SR, START, SECONDS = 11025, 60, 4
PEAK = 0.7
TARGET = HERE.parent / "fastdeconv" / "data" / "demo.flac"
TOLERANCE = 2


def make(cache: Path) -> npt.NDArray[np.int16]:
    """Return the 44,100 samples of the clip as they are stored."""
    (package,) = (package for package in load_sources() if package.name == PACKAGE)
    folder = fetch(package, cache) / SONG
    song = read_mono([folder / "song.ogg", folder / "guitar.ogg"], SR)
    clip = song[START * SR : (START + SECONDS) * SR]
    scaled: npt.NDArray[np.float32] = np.round(clip * (PEAK / np.abs(clip).max()) * 32767)
    return scaled.astype(np.int16)


def write(samples: npt.NDArray[np.int16], path: Path) -> None:
    """Write the clip, with its credit in the tags of the file."""
    import soundfile

    partial = path.with_suffix(".partial")
    try:
        with soundfile.SoundFile(partial, "w", SR, 1, "PCM_16", format="FLAC") as file:
            file.title = "Feelings (60-64 s)"
            file.artist = "Carlos Viola Iborra (Sectoid)"
            file.copyright = "Copyright (c) 2006/2007 Carlos Viola Iborra"
            file.license = "MIT"
            file.write(samples)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check(samples: npt.NDArray[np.int16], path: Path) -> None:
    """Raise ValueError if the clip at `path` is not `samples`, up to rounding."""
    import soundfile

    stored, rate = soundfile.read(path, dtype="int16")
    if rate != SR or stored.shape != samples.shape:
        raise ValueError(
            f"{path}: found {stored.shape} at {rate} Hz, wanted {samples.shape} at {SR} Hz"
        )
    off = int(np.abs(stored.astype(np.int32) - samples).max())
    if off > TOLERANCE:
        raise ValueError(f"{path}: differs from a fresh clip by {off} steps of 16 bits")
    print(f"{path.name}: {len(stored)} samples, largest difference {off}")


def main() -> None:
    """Make the clip, or check the one that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=HERE / "cache")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    options = parser.parse_args()
    samples = make(options.cache)
    if not options.check:
        write(samples, TARGET)
    check(samples, TARGET)


if __name__ == "__main__":
    main()
