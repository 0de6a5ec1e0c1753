"""The constant-Q transform octave by octave, as nnAudio's CQT2010v2 computes it.

The kernels of the highest octave are used for all octaves: for each lower octave the sound is
low-pass filtered and every second sample is kept (Schoerkhuber and Klapuri 2010). The values
differ from those of ``librosa.cqt``, which filters better, so a network that was trained on these
needs these.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["least_hop", "octave_cqt"]

Float64Array = NDArray[np.float64]

# Constants of nnAudio: the low-pass filters before samples are left out, and the bandwidth of a
# Hann window.
_TAPS = 256
_EARLY_TRANSITION, _TRANSITION = 0.03, 0.001
_BANDWIDTH = 1.5


class _Plan(NamedTuple):
    """The part of the computation that depends only on the front end."""

    early: int
    """Factor by which the sound is downsampled before the highest octave."""
    octaves: int
    kernels: NDArray[np.complex128]
    """Kernels of the highest octave, (bins, samples)."""
    gains: Float64Array
    """One factor for each bin of the transform."""


def octave_cqt(
    samples: NDArray[np.float32], *, sr: float, hop_length: int, fmin: float, n_bins: int,
    bins_per_octave: int, pad_mode: str,
) -> NDArray[np.complex128]:
    """The transform, shape (bins, 1 + n // hop_length). Its phases are not those of librosa."""
    plan = _plan(sr, hop_length, fmin, n_bins, bins_per_octave)
    frames, taps = 1 + samples.size // hop_length, plan.kernels.shape[1]
    signal, hop = samples.astype(np.float64), hop_length
    if plan.early > 1:
        signal, hop = _fewer(signal, plan.early, _EARLY_TRANSITION), hop // plan.early
    found = np.empty((plan.octaves, len(plan.kernels), frames), np.complex128)
    for octave in reversed(range(plan.octaves)):
        # A sound that is too short to be mirrored is padded with silence, as in nnAudio.
        mode: Any = "constant" if signal.size <= taps // 2 else pad_mode
        padded = np.pad(signal, taps // 2, mode=mode)
        windows = np.lib.stride_tricks.sliding_window_view(padded, taps)[::hop]
        found[octave] = plan.kernels @ windows[:frames].T
        if octave:
            signal, hop = _fewer(signal, 2, _TRANSITION), hop // 2
    return np.asarray(found.reshape(-1, frames)[-n_bins:] * plan.gains[:, np.newaxis])


def least_hop(
    sr: float, hop_length: int, fmin: float, n_bins: int, bins_per_octave: int
) -> int:
    """The number that the hop must be a multiple of, so that it can be halved for each octave."""
    octaves = math.ceil(n_bins / bins_per_octave)
    return _early(sr, hop_length, fmin, n_bins, bins_per_octave) * 2 ** (octaves - 1)


def _early(sr: float, hop_length: int, fmin: float, n_bins: int, bins_per_octave: int) -> int:
    quality = 1 / (2 ** (1 / bins_per_octave) - 1)
    highest = fmin * 2 ** ((n_bins - 1) / bins_per_octave) * (1 + 0.5 * _BANDWIDTH / quality)
    octaves = math.ceil(n_bins / bins_per_octave)
    by_frequency = max(0, math.ceil(math.log2(0.85 * (sr // 2) / highest)) - 2)
    by_hop = max(0, math.ceil(math.log2(hop_length)) - octaves + 1)
    return int(2 ** min(by_frequency, by_hop))


@functools.lru_cache(maxsize=4)
def _plan(sr: float, hop_length: int, fmin: float, n_bins: int, bins_per_octave: int) -> _Plan:
    early = _early(sr, hop_length, fmin, n_bins, bins_per_octave)
    rate = sr / early
    quality = 1 / (2 ** (1 / bins_per_octave) - 1)
    hz = fmin * 2.0 ** (np.arange(n_bins) / bins_per_octave)
    count = min(bins_per_octave, n_bins)
    octave = hz[-1] / 2 ** (1 - 1 / bins_per_octave) * 2.0 ** (np.arange(count) / bins_per_octave)
    return _Plan(
        early, math.ceil(n_bins / bins_per_octave), _kernels(rate, octave, quality),
        early * np.sqrt(np.ceil(quality * rate / hz)),
    )


def _kernels(rate: float, hz: Float64Array, quality: float) -> NDArray[np.complex128]:
    """Windowed complex waves, one for each frequency, centred in rows of equal length."""
    from scipy.signal import get_window

    lengths = np.ceil(quality * rate / hz).astype(int)
    size = 2 ** math.ceil(math.log2(lengths[0]))
    kernels = np.zeros((len(hz), size), np.complex128)
    for kernel, frequency, length in zip(kernels, hz, lengths.tolist()):
        time = np.arange(-length // 2, length // 2)[:length]
        wave = get_window("hann", length) * np.exp(2j * np.pi * frequency / rate * time)
        begin = math.ceil(size / 2 - length / 2) - length % 2
        kernel[begin : begin + length] = wave / np.abs(wave).sum()
    return kernels


def _fewer(signal: Float64Array, factor: int, transition: float) -> Float64Array:
    """Low-pass filter a signal, and keep every `factor`-th sample."""
    from scipy.signal import oaconvolve

    side = (_TAPS - 1) // 2
    padded = np.pad(signal, side)
    if padded.size < _TAPS:
        return np.zeros(0)
    # The filter is symmetric: convolution and correlation are the same.
    return np.asarray(oaconvolve(padded, _lowpass(1 / factor, transition), "valid")[::factor])


@functools.lru_cache(maxsize=4)
def _lowpass(centre: float, transition: float) -> Float64Array:
    from scipy.signal import firwin2

    edges = [0.0, centre / (1 + transition), centre * (1 + transition), 1.0]
    return np.asarray(firwin2(_TAPS, edges, [1.0, 1.0, 0.0, 0.0]))
