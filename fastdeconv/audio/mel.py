"""Mel filters equal to those of ``librosa.filters.mel``, without importing librosa.

Most networks for music take mel bands, but librosa needs Numba, which does not exist for some
systems (musl) and comes late for a new version of Python.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["mel_filters"]

Array = NDArray[np.float64]

# Slaney's scale (Auditory Toolbox, 1998) is linear up to 1000 Hz = 15 mel. Above, every 27 mel
# multiply the frequency by 6.4.
_HZ_PER_MEL = 200 / 3
_LINEAR_HZ = 1000.0
_LINEAR_MEL = _LINEAR_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def mel_filters(
    sr: float, n_fft: int, n_mels: int, fmin: float, fmax: float, htk: bool,
    norm: str | float | None,
) -> NDArray[np.float32]:
    """Triangular filters whose corners lie at equal distances on the mel scale.

    Parameters
    ----------
    sr, n_fft, n_mels, fmin, fmax
        As in ``librosa.filters.mel``; frequencies in Hz.
    htk : bool
        Use the mel scale of HTK instead of Slaney's.
    norm : "slaney", float or None
        "slaney": each triangle has area 1 over Hz. A number: each row has norm 1 of this
        order. None: each triangle has height 1.

    Returns
    -------
    array of float32, shape (n_mels, 1 + n_fft // 2)
        A band narrower than a bin may be 0 everywhere.
    """
    ends = _to_mel(np.array([fmin, fmax]), htk)
    corners = _to_hz(np.linspace(ends[0], ends[1], n_mels + 2), htk)
    slopes = np.diff(corners)
    distances = corners[:, None] - np.fft.rfftfreq(n_fft, 1 / sr)
    filters = np.empty((n_mels, distances.shape[1]), np.float32)
    for band, out in enumerate(filters):
        rising = -distances[band] / slopes[band]
        falling = distances[band + 2] / slopes[band + 1]
        out[:] = np.maximum(0, np.minimum(rising, falling))
    if norm == "slaney":
        filters *= (2 / (corners[2:] - corners[:-2]))[:, None]
    elif norm is not None:
        order = float(norm)
        length = (filters.astype(np.float64) ** order).sum(axis=1) ** (1 / order)
        length[length < np.finfo(np.float32).tiny] = 1
        filters = (filters / length[:, None]).astype(np.float32)
    return filters


def _to_mel(hz: Array, htk: bool) -> Array:
    if htk:
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))
    above = _LINEAR_MEL + np.log(np.maximum(hz, _LINEAR_HZ) / _LINEAR_HZ) / _LOG_STEP
    return np.where(hz >= _LINEAR_HZ, above, hz / _HZ_PER_MEL)


def _to_hz(mel: Array, htk: bool) -> Array:
    if htk:
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
    above = _LINEAR_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _LINEAR_MEL) - _LINEAR_MEL))
    return np.where(mel >= _LINEAR_MEL, above, mel * _HZ_PER_MEL)
