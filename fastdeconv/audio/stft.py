"""The short-time Fourier transform of librosa, without importing librosa.

Importing librosa takes more than a second, its STFT a millisecond, so the
transform is computed here with ``numpy.fft``. `Stft.forward` works in float64 and
rounds once to complex64, as ``librosa.stft`` does. `Stft.inverse` works in
float32 on many spectrograms at once and divides by the sum of the squared
windows, as ``librosa.istft`` does (Griffin and Lim 1984).

That sum goes to 0 at the ends, where hardly any window reaches: before the middle of the first
frame (without centring) and after the middle of the last frame. A modified frame would be divided
by almost 0 there, which gives clicks of up to 1e14 times the signal. `Stft.envelope` therefore
never falls below a share of the window's peak, and sounds fade out there instead.

Spectra have the axes (frames, bins), so that every FFT reads memory in order.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ParameterError, reason_of, shown

__all__ = ["PAD_MODES", "Stft", "WindowLike", "get_window"]

FloatArray = NDArray[np.float32]
ComplexArray = NDArray[np.complex64]
WindowLike = str | tuple[str | float, ...]

PAD_MODES = ("constant", "edge", "linear_ramp", "reflect", "symmetric")

# Cosine coefficients as in scipy.signal.windows, whose import takes half a second.
_COSINE_WINDOWS = {
    "boxcar": (1.0,),
    "ones": (1.0,),
    "hann": (0.5, 0.5),
    "hamming": (0.54, 1.0 - 0.54),
    "blackman": (0.42, 0.50, 0.08),
}
# Lower bounds of the envelope as shares of the squared window's peak: the first holds everywhere,
# the second after the middle of the last frame. A sample that only one frame covers is therefore
# enlarged at most 3.5 times there.
_LEAST_SHARE = 0.01
_END_SHARE = 0.08
# Frames that are transformed at a time, so that the float64 work space of a long clip is small.
_BLOCK = 256


def get_window(window: WindowLike, length: int) -> NDArray[np.float64]:
    """A periodic window, equal to ``scipy.signal.get_window(window, length)``.

    Parameters
    ----------
    window : str or tuple
        A name, or (name, parameter, ...), e.g. ``("kaiser", 8.6)``.
    length : int
        Number of values, at least 1.

    Returns
    -------
    array, shape (length,), float64

    Raises
    ------
    ParameterError
        If scipy knows no such window.
    """
    if isinstance(window, str) and window in _COSINE_WINDOWS:
        return _cosine_window(_COSINE_WINDOWS[window], length)
    import scipy.signal

    try:
        values = scipy.signal.get_window(window, length, fftbins=True)
    except Exception as error:  # scipy does not check all parameters: IndexError, OverflowError
        raise ParameterError(
            f"window {shown(window)} is not one of scipy's: {reason_of(error)}"
        ) from None
    return np.asarray(values, dtype=np.float64)


def _cosine_window(coefficients: tuple[float, ...], length: int) -> NDArray[np.float64]:
    if length == 1:
        return np.ones(1)
    # The symmetric window of one more value, without its last value: the same bits as scipy's.
    phase = np.linspace(-np.pi, np.pi, length + 1)
    values = np.zeros(length + 1)
    for k, coefficient in enumerate(coefficients):
        values += coefficient * np.cos(k * phase)
    return values[:-1]


@dataclass(frozen=True)
class Stft:
    """The transform and its inverse for one set of parameters, which are those of librosa.stft.

    They are not checked here: `fastdeconv.audio.frontend.Frontend` does that.
    """

    n_fft: int
    hop_length: int
    win_length: int
    window: WindowLike
    center: bool
    pad_mode: str

    @property
    def bins(self) -> int:
        """Number of frequency bins, 1 + n_fft // 2."""
        return 1 + self.n_fft // 2

    @property
    def pad(self) -> int:
        """Samples added before and after the signal."""
        return self.n_fft // 2 if self.center else 0

    def frequencies(self, sr: float) -> NDArray[np.float64]:
        """Frequency of every bin in Hz, shape (bins,)."""
        return np.asarray(np.arange(self.bins) * (sr / self.n_fft), np.float64)

    @functools.cached_property
    def window_values(self) -> NDArray[np.float64]:
        """The window, centred in n_fft values."""
        values = np.zeros(self.n_fft)
        left = (self.n_fft - self.win_length) // 2
        values[left : left + self.win_length] = get_window(self.window, self.win_length)
        return values

    def num_frames(self, n_samples: int) -> int:
        """Frames of a signal of `n_samples`; 0 if it is shorter than one frame."""
        return max(0, 1 + (n_samples + 2 * self.pad - self.n_fft) // self.hop_length)

    def shortest(self, frames: int) -> int:
        """The fewest samples that give `frames` frames."""
        return (frames - 1) * self.hop_length + self.n_fft - 2 * self.pad

    def longest(self, frames: int) -> int:
        """The most samples that give `frames` frames."""
        return self.shortest(frames) + self.hop_length - 1

    def seen(self, frames: int) -> int:
        """How many samples, from the first on, the first `frames` frames depend on."""
        return (frames - 1) * self.hop_length + self.n_fft - self.pad

    def forward(self, samples: FloatArray, frames: int | None = None) -> ComplexArray:
        """The spectra of `samples`, shape (..., n): complex64, shape (..., frames, bins).

        At most the first `frames` frames; all of them with None. A sound shorter than a window
        is padded with silence at its end. The bits of a sound's spectra do not depend on others.
        """
        if self.center:
            samples = _padded(samples, self.pad, self.pad, self.pad_mode)
        missing = self.n_fft - samples.shape[-1]
        if missing > 0:
            samples = _padded(samples, 0, missing, "constant")
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.n_fft, axis=-1)
        windows = windows[..., :: self.hop_length, :][..., :frames, :]
        spectra = np.empty((*windows.shape[:-1], self.bins), np.complex64)
        for start in range(0, windows.shape[-2], _BLOCK):
            block = windows[..., start : start + _BLOCK, :] * self.window_values
            spectra[..., start : start + _BLOCK, :] = np.fft.rfft(block)
        return spectra

    def envelope(self, frames: int, n_samples: int) -> FloatArray:
        """The divisor of the overlap-added frames, shape (n_samples,), float32.

        It is the sum of the squared windows, as in ``librosa.istft``, but never smaller than a
        share of the window's peak.
        """
        squares = self.window_values**2
        spread = np.broadcast_to(squares, (1, frames, self.n_fft))
        total = _overlap_add(spread, self.hop_length)[0]
        peak = squares.max()
        middle = self.n_fft // 2
        least = total[middle : middle + (frames - 1) * self.hop_length + 1].min()
        # Between the middles of the first and the last frame the sum is used as it is.
        floor = peak * min(max(least / peak, _LEAST_SHARE), _END_SHARE)
        total = self._trim(np.maximum(total, floor)[np.newaxis], n_samples)[0]
        return np.asarray(total, np.float32)

    def inverse(self, spectra: ComplexArray, envelope: FloatArray) -> FloatArray:
        """Signals, shape (K, n_samples), of K spectra, shape (K, frames, bins).

        `envelope` is what the method of that name returns for these frames and samples. The
        signals equal ``librosa.istft(..., length=n_samples)`` except at the ends, where the
        envelope differs. The bits of a signal do not depend on K.
        """
        frames = np.fft.irfft(spectra, n=self.n_fft).astype(np.float32, copy=False)
        frames *= self.window_values.astype(np.float32)
        signals: FloatArray = self._trim(_overlap_add(frames, self.hop_length), envelope.size)
        signals /= envelope
        return signals

    def _trim(self, padded: NDArray[Any], n_samples: int) -> NDArray[Any]:
        return padded[:, self.pad : self.pad + n_samples]


def _padded(samples: FloatArray, before: int, after: int, mode: str) -> FloatArray:
    """Samples (..., n) with so many more at their ends, see `numpy.pad`."""
    # np.pad takes 40 microseconds, which is much for the frames of a pitch tracker.
    size = samples.shape[-1]
    if mode in ("constant", "reflect") and (mode == "constant" or size > max(before, after)):
        padded = np.zeros((*samples.shape[:-1], before + size + after), samples.dtype)
        padded[..., before : before + size] = samples
        if mode == "reflect":
            padded[..., :before] = samples[..., before:0:-1]
            padded[..., before + size :] = samples[..., ::-1][..., 1 : 1 + after]
        return padded
    widths = [(0, 0)] * (samples.ndim - 1) + [(before, after)]
    return np.pad(samples, widths, mode=mode)  # type: ignore[call-overload]


def _overlap_add(frames: NDArray[Any], hop: int) -> NDArray[Any]:
    """Add up frames (K, T, n) that begin `hop` samples apart.

    Returns at least (T - 1) * hop + n samples for each K.
    """
    count, steps, size = frames.shape
    slabs = -(-size // hop)
    # The result is seen as rows of `hop` samples, and every frame is cut into slabs of `hop`
    # samples. Slab i of frame t belongs to row t + i, so a few additions of whole arrays do what
    # a loop over frames would do, in the same order.
    rows = np.zeros((count, steps + slabs, hop), frames.dtype)
    for i in reversed(range(slabs)):
        part = frames[:, :, i * hop : (i + 1) * hop]
        rows[:, i : i + steps, : part.shape[2]] += part
    return rows.reshape(count, -1)
