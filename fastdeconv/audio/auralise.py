"""From maps on the spectrogram to sound."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..kernels.dispatch import get_num_threads
from ..kernels.schedule import run_bands
from ._checks import MODES, as_choice
from .channels import sounds_of, spread
from .clip import Clip, as_clip, check_finite, masking

__all__ = ["auralise", "heard_magnitude"]

FloatArray = NDArray[np.float32]
ComplexArray = NDArray[np.complex64]

# Values of the work space of one band (a few maps), chosen so that it stays in the cache of a
# core for clips of some seconds.
_BAND_VALUES = 1 << 18


def auralise(
    clip: Clip, maps: ArrayLike, mode: str = "mask", num_threads: int | None = None
) -> FloatArray:
    """Turn maps into sound with the phase of the clip.

    Parameters
    ----------
    clip : Clip
        The clip the maps explain.
    maps : array, shape (K, 1, H, W) or (K, H, W), real
        Maps of ``clip.x``, as `fastdeconv.deconvolve` returns them.
    mode : {"mask", "phase", "wiener"}
        - "mask": the inverse STFT of STFT x map. Where the map is negative, the phase is
          inverted.
        - "phase": the inverse STFT of max(0, map) with the phase of the clip; that phase is 0
          where the STFT is 0 (arXiv 1607.02444, section 2).
        - "wiener": the inverse STFT of STFT x abs(map) / max(abs(map)). No phase is inverted,
          and nothing is louder than in the clip. It is easier to listen to, but it is no
          evidence of anything that "mask" does not show.

        `Clip.to_stft` says how a map of bands becomes weights of the STFT. A front end of kind
        "cqt" uses the CQT instead of the STFT. With a waveform, "mask" is samples x map, and
        "phase" is the map itself.
    num_threads : int, optional
        Threads to use; see `fastdeconv.config`.

    Returns
    -------
    array, shape (K, n_samples), float32
        As long as ``clip.samples``; not normalised. Equal to ``librosa.istft``
        with ``length=n_samples``, except at the ends: samples before the middle of the first
        frame (without centring) and after the middle of the last frame are covered by hardly
        any window. They fade out instead of being divided by almost 0. The bits of a sound
        depend neither on the number of threads nor on the other maps. A map of zeros gives
        zeros.

    Raises
    ------
    ParameterError
        If the maps do not fit the clip or are not finite, or `mode` is unknown.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> net = fd.pretrained("choi5-genre")
    >>> clip = fd.Clip(np.sin(np.arange(44100)), 11025, net.frontend)
    >>> maps = fd.deconvolve(net.forward(clip.x), "pool5", features=[12, 40])
    >>> fd.auralise(clip, maps).shape
    (2, 44100)
    """
    as_choice("mode", mode, MODES)
    threads = get_num_threads(num_threads)
    planes, mode = masking(as_clip(clip).planes(maps), mode)
    frontend = clip.frontend
    if not frontend.meaning.on_stft:
        with np.errstate(over="ignore", invalid="ignore"):
            sounds = sounds_of(frontend, clip.samples, planes, mode)
        check_finite(sounds, "the sound of map")
        return sounds
    spectra = np.ascontiguousarray(clip.stft.T)
    if mode == "phase":
        spectra = _unit_phase(spectra)
    transform = frontend.transform
    envelope = transform.envelope(len(spectra), clip.samples.size)
    sounds = np.empty((len(planes), clip.samples.size), np.float32)
    size = max(1, _BAND_VALUES // (len(spectra) * transform.n_fft))

    def work(band: int) -> None:
        part = slice(band * size, (band + 1) * size)
        # np.errstate belongs to the thread, so it is set in each.
        with np.errstate(over="ignore", invalid="ignore"):
            weights = _weights(np.ascontiguousarray(spread(frontend, planes[part])), mode)
            sounds[part] = transform.inverse(spectra * weights, envelope)

    run_bands(-(-len(planes) // size), work, threads)
    check_finite(sounds, "the sound of map")
    return sounds


def _weights(planes: FloatArray, mode: str) -> FloatArray:
    """The factor of the clip's STFT ("mask") or of its unit phases ("phase")."""
    return np.maximum(planes, 0) if mode == "phase" else planes


def heard_magnitude(planes: FloatArray, stft: FloatArray, mode: str) -> FloatArray:
    """Magnitude of the spectrograms that `auralise` turns into sound.

    Parameters
    ----------
    planes : array of float32, shape (..., F, T) or (..., T, F)
        The weights that `Clip.to_stft` gives for this mode, with axes in the order of `stft`.
    stft : array of float32, shape (F, T) or (T, F)
        Magnitude of the clip's STFT.
    mode : {"mask", "phase", "wiener"}

    Returns
    -------
    array of float32, shape of `planes`
        ``|STFT| * |weights|``, or with "phase" the positive part of the weights.
    """
    weights = _weights(planes, mode)
    if mode == "phase":
        return weights
    heard: FloatArray = np.abs(weights)
    heard *= stft
    return heard


def _unit_phase(spectra: ComplexArray) -> ComplexArray:
    """exp(i phase) of `spectra`; 1 where they are 0."""
    # In complex128 the magnitude of the smallest float32 does not underflow.
    exact = spectra.astype(np.complex128)
    magnitude = np.abs(exact)
    return np.divide(exact, magnitude, out=np.ones_like(exact), where=magnitude > 0).astype(
        np.complex64
    )
