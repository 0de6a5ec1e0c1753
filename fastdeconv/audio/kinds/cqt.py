"""The constant-Q transform, as librosa or nnAudio computes it."""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import AudioError, ParameterError
from .._checks import as_choice, as_int, as_number
from ..librosa_quietly import librosa_module
from ..scaling import magnitude
from ..stft import Stft
from .base import ComplexArray, Fields, FloatArray, Framing, Kind
from .octaves import least_hop, octave_cqt

__all__ = ["Cqt"]

_LOCK = threading.Lock()
_PURPOSE = "a front end of kind 'cqt'"
_METHODS = ("librosa", "nnaudio")
_MOST_BINS = 1 << 14
# Values of the filters of one octave, at most: 1 GiB of complex64.
_MOST_VALUES = 1 << 27
_C1_HZ = 32.70319566257483  # librosa's lowest note of a CQT


class Cqt(Kind):
    """Kind "cqt": ``librosa.cqt``, or the CQT of nnAudio.

    In both cases the sound of a map is ``librosa.icqt`` of librosa's CQT x map.
    """

    name: ClassVar[str] = "cqt"
    own: ClassVar[tuple[str, ...]] = ("fmin", "n_bins", "bins_per_octave", "method")
    on_stft: ClassVar[bool] = False

    def check(self, fields: Fields, sr: float, n_fft: int) -> dict[str, Any]:
        fmin = as_number("fmin", _C1_HZ if fields.fmin is None else fields.fmin, above=0)
        if fmin >= sr / 2:
            raise ParameterError(f"fmin must be below sr / 2 = {sr / 2:g}, found {fmin:g}")
        count = as_int("n_bins", fields.n_bins, minimum=1, maximum=_MOST_BINS)
        each = as_int("bins_per_octave", fields.bins_per_octave, minimum=1, maximum=_MOST_BINS)
        _check_lengths(sr, fmin, count, each)
        fitting = math.ceil(each * min(math.log2(sr / 2 / fmin), 2048))
        if count > fitting:
            raise ParameterError(
                f"n_bins must be at most {fitting}, so that all bins lie below sr / 2 = "
                f"{sr / 2:g} Hz, found {count}"
            )
        method = as_choice("method", fields.method, _METHODS)
        if method == "nnaudio":
            hop = 1 if fields.hop_length is None else fields.hop_length
            step = least_hop(sr, as_int("hop_length", hop, minimum=1, maximum=1 << 24), fmin,
                             count, each)
            if fields.hop_length is None or hop % step:
                raise ParameterError(
                    f"hop_length must be a multiple of {step} for {count} bins with method "
                    f"'nnaudio', found {fields.hop_length}"
                )
        return {"fmin": fmin, "n_bins": count, "bins_per_octave": each, "method": method}

    def framing(self, fields: Mapping[str, Any]) -> Framing:
        # The frames of a CQT are always centred, even if `center` is False for the STFT.
        hop = fields["hop_length"]
        return Stft(2, hop, 2, "hann", True, "constant")

    def rows(self, frontend: Fields) -> int:
        return int(frontend.n_bins)

    def values(
        self, frontend: Fields, samples: FloatArray, spectra: ComplexArray
    ) -> NDArray[np.float64]:
        if frontend.method == "librosa":
            return magnitude(_cqt(frontend, samples).T, frontend.power)
        found = octave_cqt(
            samples, sr=frontend.sr, hop_length=frontend.hop_length, fmin=frontend.fmin,
            n_bins=frontend.n_bins, bins_per_octave=frontend.bins_per_octave,
            pad_mode=frontend.pad_mode,
        )
        return np.asarray(np.abs(found.T) ** frontend.power)

    def drawn(self, frontend: Fields, planes: FloatArray, n_fft: int) -> FloatArray:
        """A bin of the STFT gets the value of the nearest CQT bin, if within half a step."""
        hz = frontend.transform.frequencies(frontend.sr)
        with np.errstate(divide="ignore"):
            step = frontend.bins_per_octave * np.log2(hz / frontend.fmin)
        nearest = np.rint(step.clip(-1, frontend.n_bins)).astype(int)
        inside = (nearest >= 0) & (nearest < frontend.n_bins)
        return np.where(inside, planes[:, :, nearest * inside], planes.min())

    def sounds(
        self, frontend: Fields, samples: FloatArray, planes: FloatArray, mode: str
    ) -> FloatArray:
        librosa = librosa_module("librosa.core.constantq", _PURPOSE)
        transform = _cqt(frontend, samples)
        if mode == "phase":
            size = np.abs(transform)
            transform = np.divide(
                transform, size, out=np.zeros_like(transform), where=size > 0
            )
            planes = np.maximum(planes, 0)
        # librosa.icqt counts octaves from the lowest bin and librosa.cqt from the highest. If the
        # last octave is incomplete, the sound is noise, up to 40 dB above the clip. So silent bins
        # are added at the bottom to complete it.
        each = frontend.bins_per_octave
        missing = -frontend.n_bins % each
        sounds = np.empty((len(planes), samples.size), np.float32)
        for plane, out in zip(planes, sounds):
            with _padding_quietly():
                out[:] = librosa.icqt(
                    np.pad(transform * plane.T, ((missing, 0), (0, 0))),
                    sr=frontend.sr, hop_length=frontend.hop_length,
                    fmin=frontend.fmin / 2 ** (missing / each), bins_per_octave=each,
                    length=out.size,
                )
        return sounds


def _check_lengths(sr: float, fmin: float, n_bins: int, bins_per_octave: int) -> None:
    """Refuse filters that would fill the memory: low, narrow bands have long ones."""
    # The highest octave has the most samples, and for sounds it is completed to a whole one. Its
    # lowest bin lies this many octaves above fmin. Logarithms, because the numbers may overflow.
    above = n_bins / bins_per_octave - 1
    lowest = math.log2(fmin) + above
    length = math.log2(sr) - lowest - math.log2(2 ** (1 / bins_per_octave) - 1)
    if math.log2(bins_per_octave) + length > math.log2(_MOST_VALUES):
        raise ParameterError(
            f"the {bins_per_octave} filters of an octave of a CQT with fmin {fmin:g} and {n_bins} "
            f"bins have 2^{length:.1f} samples each at {sr:g} Hz: more than {_MOST_VALUES} values"
        )


@contextlib.contextmanager
def _padding_quietly() -> Iterator[None]:
    """Suppress librosa's warning that a clip is shorter than a window."""
    # Warning filters belong to the whole process, so one thread at a time may change them.
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_fft=")
        yield


def _cqt(frontend: Fields, samples: FloatArray) -> ComplexArray:
    """The transform of librosa, shape (bins, T)."""
    librosa = librosa_module("librosa.core.constantq", _PURPOSE)
    with _padding_quietly():
        try:
            found: ComplexArray = librosa.cqt(
                samples, sr=frontend.sr, hop_length=frontend.hop_length, fmin=frontend.fmin,
                n_bins=frontend.n_bins, bins_per_octave=frontend.bins_per_octave,
            )
        except librosa.ParameterError as error:
            raise AudioError(f"the CQT of {samples.size} samples: {error}") from None
    return found
