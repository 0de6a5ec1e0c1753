"""The sounds and pictures of one song, from plain arrays to files."""

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

# One character a shade, for pages.
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

FloatArray = NDArray[np.float32]


def original_gain(samples: FloatArray) -> float:
    """The factor the original is written with: 1.0 unless it exceeds full scale."""
    peak = float(np.abs(samples).max(initial=0.0))
    return PEAK / peak if peak > 1.0 else 1.0


class SongFiles:
    """Writes the sounds and pictures of one clip.

    All pictures have the clip's frames as columns and the rows of a `FrequencyAxis`.

    Parameters
    ----------
    clip : Clip
    mode : {"mask", "phase", "wiener"}
        The mode the sounds were made with.
    audio_format : {"wav", "flac", "ogg"}
    num_threads : int, optional
    """

    def __init__(
        self, clip: Clip, mode: str, audio_format: str, num_threads: int | None = None
    ) -> None:
        self._clip, self._mode, self._format = clip, mode, audio_format
        self._threads = get_num_threads(num_threads)
        self._axis = FrequencyAxis.of(clip.frontend)
        # In the memory order of the maps: half the time of multiplying across orders.
        self._stft = np.ascontiguousarray(np.abs(clip.stft))

    def write_original(self, folder: Path) -> None:
        """Write the sound and its spectrogram ``original``, and ``input.png``.

        The spectrogram's brightest colour is the clip's own largest magnitude; the
        network's input is shown from its smallest value to its largest.
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
        maps: Sequence[FloatArray],
        sounds: Sequence[FloatArray],
        gains: Sequence[float],
    ) -> list[str]:
        """Write the sound and the pictures of the features of one layer.

        ``feature_<k>.png`` is the magnitude of the spectrogram that became the sound (see
        `heard`). All of a call share one scale, whose brightest colour is the
        largest magnitude among them: unlike the sounds, which each fill the scale of their
        file, they show how strong the features are beside each other. ``map_<k>.png`` is
        the map, each on its own scale.

        Parameters
        ----------
        folder : Path
            Must exist.
        features : sequence of int
            The feature numbers, no two alike.
        maps : sequence of arrays of float32, shape (C, H, W)
        sounds : sequence of arrays of float32, shape (n,)
        gains : sequence of float
            Factor for each sound.

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
        """Spectrum of a magnitude (F, T), or of the clip, over all frames.

        One character for every row of the pictures: `SHADES` steps of dB below its maximum.
        """
        magnitude = self._stft if magnitude is None else magnitude
        largest = float(magnitude.max(initial=0.0))
        unit = magnitude / np.float32(largest) if largest > 0 else magnitude
        return spectrum(self._axis, np.einsum("ft,ft->f", unit, unit))

    def write_stage(
        self, folder: Path, activation: FloatArray, features: Sequence[int]
    ) -> None:
        """Write what the clip looks like after a layer.

        ``activation_mean.png`` is the mean over all features of the layer,
        ``activation_<k>.png`` those asked for; each from its smallest value to its largest,
        every unit as large as the part of the clip it stands for.

        Parameters
        ----------
        folder : Path
        activation : array of float32, shape (K, H, W)
        features : sequence of int
        """
        mean = activation.mean(axis=0, dtype=np.float64).astype(np.float32)
        for name, plane in [("mean", mean), *((str(k), activation[k]) for k in features)]:
            seen = self._axis.nearest(self._clip.stretched(plane))
            write_png(folder / f"activation_{name}.png", shades(seen))

    def _heard(self, feature_map: FloatArray, sound: FloatArray) -> FloatArray:
        return heard(self._clip, self._stft, feature_map, self._mode, sound)


def spectrum(axis: FrequencyAxis, energy: NDArray[Any]) -> str:
    """The energy of every bin, (F,), as `SongFiles.spectrum` shows it."""
    mean = np.asarray(np.sqrt(energy), np.float32)[:, None]
    found = levels(axis.loudest(mean), float(mean.max(initial=0.0)))
    return "".join(_DIGITS[i] for i in found[:, 0].tolist())


def heard(
    clip: Clip, stft: FloatArray, feature_map: FloatArray, mode: str,
    sound: FloatArray | None = None,
) -> FloatArray:
    """What is heard of a map (C, H, W), as (F, T); see `fastdeconv.audio.auralise`."""
    return heard_magnitude(weights(clip, feature_map, mode, sound), stft, mode)


def weights(
    clip: Clip, feature_map: FloatArray, mode: str, sound: FloatArray | None = None
) -> FloatArray:
    """A map (C, H, W) on the grid of the STFT, (F, T); `sound` is its own, where it is known."""
    sounds = None if sound is None else sound[np.newaxis]
    return clip.to_stft(feature_map[np.newaxis], mode, sounds)[0]
