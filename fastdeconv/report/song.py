"""The sounds and pictures of one clip: from arrays to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..audio.auralise import heard_magnitude
from ..kernels.dispatch import get_num_threads
from ..kernels.schedule import run_bands
from .axis import FrequencyAxis
from .picture import levels, shades, signed_levels, write_png
from .sounds import PEAK, write_sound

if TYPE_CHECKING:
    from ..audio.clip import Clip

__all__ = ["SongFiles", "heard", "original_gain", "spectrum", "weights"]

# The character for each shade in the spectra of a page.
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

FloatArray = NDArray[np.float32]


def original_gain(samples: FloatArray) -> float:
    """The factor with which the original is written: 1.0 unless it exceeds full scale."""
    peak = float(np.abs(samples).max(initial=0.0))
    return PEAK / peak if peak > 1.0 else 1.0


class SongFiles:
    """Writes the sounds and pictures of one clip.

    The columns of all pictures are the clip's frames, and the rows those of a `FrequencyAxis`.

    Parameters
    ----------
    clip : Clip
    mode : {"mask", "phase", "wiener"}
        The mode in which the sounds were made.
    audio_format : {"wav", "flac", "ogg"}
    num_threads : int, optional
    """

    def __init__(
        self, clip: Clip, mode: str, audio_format: str, num_threads: int | None = None
    ) -> None:
        self._clip, self._mode, self._format = clip, mode, audio_format
        self._threads = get_num_threads(num_threads)
        self._axis = FrequencyAxis.of(clip.frontend)
        # In the same memory order as the maps: multiplying arrays of different orders takes twice
        # as long.
        self._stft = np.ascontiguousarray(np.abs(clip.stft))

    def write_original(self, folder: Path) -> None:
        """Write the sound and the spectrogram ``original``, and the network's input ``input.png``.

        The brightest colour of the spectrogram is the clip's largest magnitude. The colours of the
        input run from its smallest value to its largest.
        """
        clip = self._clip
        write_sound(
            folder / f"original.{self._format}", clip.samples, clip.sr, original_gain(clip.samples)
        )
        shown = self._axis.loudest(self._stft)
        write_png(folder / "original.png", levels(shown, float(self._stft.max(initial=0.0))))
        write_png(folder / "input.png", shades(self._axis.loudest(clip.seen)))

    def write_features(
        self,
        folder: Path,
        features: Sequence[int],
        maps: FloatArray,
        sounds: FloatArray,
        gains: Sequence[float],
    ) -> list[str]:
        """Write the sound and the pictures of the features of one layer.

        ``feature_<k>.png`` is the magnitude of the spectrogram that became the sound (see
        `heard`). The pictures of one call share one scale, whose brightest colour is the largest
        magnitude among them. So they show how strong the features are relative to each other, which
        the sounds do not: each sound is normalised by itself. ``map_<k>.png`` is the map, on a
        scale of its own.

        Parameters
        ----------
        folder : Path
            Must exist.
        features : sequence of int
            The K feature numbers, no two the same.
        maps : array of float32, shape (K, C, H, W)
        sounds : array of float32, shape (K, n)
        gains : sequence of float
            The factor for each sound.

        Returns
        -------
        list of str
            The `spectrum` of each.
        """
        spectra = [""] * len(features)
        peaks = np.zeros(len(features))

        def measure(i: int) -> None:
            peaks[i] = self._heard(maps[i], sounds[i]).max(initial=0.0)

        def write(i: int) -> None:
            k = features[i]
            heard = self._heard(maps[i], sounds[i])
            spectra[i] = self.spectrum(heard)
            shown = levels(self._axis.loudest(heard), reference)
            write_png(folder / f"feature_{k}.png", shown)
            seen = self._axis.nearest(weights(self._clip, maps[i], self._mode, sounds[i]))
            write_png(folder / f"map_{k}.png", signed_levels(seen), signed=True)
            write_sound(folder / f"feature_{k}.{self._format}", sounds[i], self._clip.sr, gains[i])

        run_bands(len(features), measure, self._threads)
        reference = float(peaks.max(initial=0.0))
        run_bands(len(features), write, self._threads)
        return spectra

    def spectrum(self, magnitude: FloatArray | None = None) -> str:
        """The spectrum of a magnitude (F, T) over all frames; by default that of the clip.

        It has one character for every row of the pictures, which says how many dB the row lies
        below the largest, in `SHADES` steps.
        """
        magnitude = self._stft if magnitude is None else magnitude
        largest = float(magnitude.max(initial=0.0))
        unit = magnitude / np.float32(largest) if largest > 0 else magnitude
        return spectrum(self._axis, np.einsum("ft,ft->f", unit, unit))

    def write_stage(
        self, folder: Path, activation: FloatArray, features: Sequence[int]
    ) -> None:
        """Write pictures of the output of a layer.

        ``activation_mean.png`` is the mean over all features of the layer, ``activation_<k>.png``
        the output of one feature. The colours of each run from its smallest value to its largest.
        Every unit is drawn as large as the part of the clip that it stands for.

        Parameters
        ----------
        folder : Path
        activation : array of float32, shape (K, H, W)
            The output of all features of the layer.
        features : sequence of int
            Those of which a picture is written.
        """
        mean = activation.mean(axis=0, dtype=np.float64).astype(np.float32)
        for name, plane in [("mean", mean), *((str(k), activation[k]) for k in features)]:
            seen = self._axis.nearest(self._clip.stretched(plane))
            write_png(folder / f"activation_{name}.png", shades(seen))

    def _heard(self, feature_map: FloatArray, sound: FloatArray) -> FloatArray:
        return heard(self._clip, self._stft, feature_map, self._mode, sound)


def spectrum(axis: FrequencyAxis, energy: NDArray[Any]) -> str:
    """The energy of every bin, (F,), in the characters of `SongFiles.spectrum`."""
    mean = np.asarray(np.sqrt(energy), np.float32)[:, None]
    found = levels(axis.loudest(mean), float(mean.max(initial=0.0)))
    return "".join(_DIGITS[i] for i in found[:, 0].tolist())


def heard(
    clip: Clip, stft: FloatArray, feature_map: FloatArray, mode: str,
    sound: FloatArray | None = None,
) -> FloatArray:
    """The magnitude (F, T) that is heard of a map (C, H, W); see `fastdeconv.audio.auralise`."""
    return heard_magnitude(weights(clip, feature_map, mode, sound), stft, mode)


def weights(
    clip: Clip, feature_map: FloatArray, mode: str, sound: FloatArray | None = None
) -> FloatArray:
    """A map (C, H, W) on the grid of the STFT, (F, T).

    `sound` is the sound of the map, where it is known already: some front ends need it.
    """
    sounds = None if sound is None else sound[np.newaxis]
    return clip.to_stft(feature_map[np.newaxis], mode, sounds)[0]
