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

# Values of work space of one band: stays in a core's cache for clips of seconds.
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
        As `fastdeconv.deconvolve` gives them: maps of ``clip.x``.
    mode : {"mask", "phase", "wiener"}
        "mask": the inverse STFT of STFT x map; where the map is negative the
        phase turns over. "phase": the inverse STFT of max(0, map) with the
        phase of the clip, 0 where its STFT is 0 (arXiv 1607.02444, section 2).
        "wiener": the inverse STFT of STFT x abs(map) / max(abs(map)): no phase turns over, and
        levels are those of the clip. An aid for ears; it is no evidence of anything that
        "mask" is not.
        Maps of bands come to the STFT as `Clip.to_stft` says. With a CQT it is that instead of
        the STFT. Of a waveform "mask" is samples x map, "phase" the map.
    num_threads : int, optional
        Threads to use; see `fastdeconv.config`.

    Returns
    -------
    array, shape (K, n_samples), float32
        As long as ``clip.samples``; not normalised. Equal to ``librosa.istft``
        with ``length=n_samples`` wherever windows reach; samples that hardly a window
        reaches (before the middle of the first frame without centring, behind the middle
        of the last frame) fade out instead of being divided by next to nothing. The bits
        of a sound depend neither on the number of threads nor on the other maps; a zero
        map gives zeros.

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
    """What of maps multiplies the clip's STFT ("mask"), or its phases ("phase")."""
    return np.maximum(planes, 0) if mode == "phase" else planes


def heard_magnitude(planes: FloatArray, stft: FloatArray, mode: str) -> FloatArray:
    """Magnitude of the spectrograms that `auralise` turns into sound.

    Parameters
    ----------
    planes : array of float32, shape (..., F, T) or (..., T, F)
        As `Clip.to_stft` gives them for this mode, lying as `stft` does.
    stft : array of float32
        Magnitude of the clip's STFT.
    mode : {"mask", "phase", "wiener"}
        ``|STFT| * |weights|``, or with "phase" the positive part of the map.
    """
    weights = _weights(planes, mode)
    if mode == "phase":
        return weights
    heard: FloatArray = np.abs(weights)
    heard *= stft
    return heard


def _unit_phase(spectra: ComplexArray) -> ComplexArray:
    """exp(i phase) of `spectra`, 1 where they are 0."""
    # In complex128 the magnitude of the smallest float32 does not underflow.
    exact = spectra.astype(np.complex128)
    magnitude = np.abs(exact)
    return np.divide(exact, magnitude, out=np.ones_like(exact), where=magnitude > 0).astype(
        np.complex64
    )
