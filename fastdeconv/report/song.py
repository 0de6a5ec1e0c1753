"""The sounds and pictures of one song, from plain arrays to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..kernels.dispatch import get_num_threads
from ..kernels.schedule import run_bands
from .picture import levels, write_png
from .wav import PEAK, write_wav

if TYPE_CHECKING:
    from ..audio.frontend import Clip

__all__ = ["heard_magnitude", "original_gain", "write_features", "write_original"]


def original_gain(clip: Clip) -> float:
    """The factor ``original.wav`` is written with: 1.0 unless the clip exceeds full scale."""
    peak = float(np.abs(clip.samples).max(initial=0.0))
    return PEAK / peak if peak > 1.0 else 1.0


def write_original(folder: Path, clip: Clip) -> None:
    """Write ``original.wav``, what was explained, and ``original.png``, its spectrogram.

    The picture's brightest colour is the clip's own largest magnitude.
    """
    write_wav(folder / "original.wav", clip.samples, clip.sr, original_gain(clip))
    magnitude = np.abs(clip.stft)
    write_png(folder / "original.png", levels(magnitude, float(magnitude.max(initial=0.0))))


def write_features(
    folder: Path,
    clip: Clip,
    features: Sequence[int],
    maps: Sequence[NDArray[np.float32]],
    sounds: Sequence[NDArray[np.float32]],
    gains: Sequence[float],
    *,
    mode: str,
    num_threads: int | None = None,
) -> None:
    """Write ``feature_<k>.wav`` and ``.png`` of the features of one layer.

    The picture is the magnitude of the spectrogram that became the sound (see
    `heard_magnitude`). All pictures of a call share one scale, whose brightest
    colour is the largest magnitude among them: unlike the sounds, which each fill
    the scale of their file, they show how strong the features are beside each
    other.

    Parameters
    ----------
    folder : Path
        Must exist.
    clip : Clip
    features : sequence of int
        The feature numbers, no two alike.
    maps : sequence of arrays of float32, shape (C, H, W)
    sounds : sequence of arrays of float32, shape (n,)
    gains : sequence of float
        Factor for each sound.
    mode : {"mask", "phase"}
        The mode the sounds were made with.
    num_threads : int, optional
    """
    threads = get_num_threads(num_threads)
    # In the memory order of the maps: half the time of multiplying across orders.
    stft = np.ascontiguousarray(np.abs(clip.stft))
    peaks = np.zeros(len(features))

    def measure(i: int) -> None:
        peaks[i] = heard_magnitude(clip, stft, maps[i], mode).max(initial=0.0)

    def write(i: int) -> None:
        stem = f"feature_{features[i]}"
        magnitude = heard_magnitude(clip, stft, maps[i], mode)
        write_png(folder / f"{stem}.png", levels(magnitude, reference))
        write_wav(folder / f"{stem}.wav", sounds[i], clip.sr, gains[i])

    run_bands(len(features), measure, threads)
    reference = float(peaks.max(initial=0.0))
    run_bands(len(features), write, threads)


def heard_magnitude(
    clip: Clip, stft: NDArray[np.float32], feature_map: NDArray[np.float32], mode: str
) -> NDArray[np.float32]:
    """Magnitude of the spectrogram that `fastdeconv.auralise` turns into sound.

    Parameters
    ----------
    clip : Clip
    stft : array of float32, shape (F, T)
        Magnitude of the clip's STFT.
    feature_map : array of float32, shape (1, H, W)
        (H, W) is (F, T), or (T, F) when the front end's layout is "CTF".
    mode : {"mask", "phase"}
        ``|STFT| * |map|``, or the positive part of the map.

    Returns
    -------
    array of float32, shape (F, T)
    """
    plane = feature_map[0].T if clip.frontend.layout == "CTF" else feature_map[0]
    heard: NDArray[np.float32] = np.maximum(plane, 0) if mode == "phase" else np.abs(plane * stft)
    return heard
