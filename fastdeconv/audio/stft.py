"""The short-time Fourier transform of librosa, without importing librosa.

Importing librosa costs more than a second, its STFT a millisecond; so the
transform is done here with ``numpy.fft``. `Stft.forward` works in float64 and
rounds once to complex64, as ``librosa.stft`` does; `Stft.inverse` works in
float32 on many spectrograms at once and divides by the summed squares of the
window, as ``librosa.istft`` does (Griffin and Lim 1984).

Where hardly a window reaches (before the middle of the first frame without centring, behind
the middle of the last), that sum goes to 0, and what a modified frame holds there would be
divided by next to nothing: clicks of up to 1e14 times the signal. `Stft.envelope` therefore
never falls below a share of the window's peak, and sounds fade out there instead.

Spectra lie here as (frames, bins), so that every FFT reads memory in order.
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

# Cosine coefficients as in scipy.signal.windows, which costs half a second to import.
_COSINE_WINDOWS = {
    "boxcar": (1.0,),
    "ones": (1.0,),
    "hann": (0.5, 0.5),
    "hamming": (0.54, 1.0 - 0.54),
    "blackman": (0.42, 0.50, 0.08),
}
# Shares of the squared window's peak. Frames are divided by no less than the first anywhere,
# and by no less than the second behind the middle of the last frame: a sample of a single
# frame is enlarged 3.5 times at most there.
_LEAST_SHARE = 0.01
_END_SHARE = 0.08
# Frames transformed at a time, so that the float64 work space of a long clip stays small.
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
    # The symmetric window one longer, less its last value: same bits as scipy's.
    phase = np.linspace(-np.pi, np.pi, length + 1)
    values = np.zeros(length + 1)
    for k, coefficient in enumerate(coefficients):
        values += coefficient * np.cos(k * phase)
    return values[:-1]


@dataclass(frozen=True)
class Stft:
    """One setting of the transform and its inverse; parameters as in ``librosa.stft``.

    Values are taken as valid: `fastdeconv.audio.frontend.Frontend` checks them.
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
        """Hz of every bin."""
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
        """The samples that `frames` frames reach."""
        return (frames - 1) * self.hop_length + self.n_fft - self.pad

    def forward(self, samples: FloatArray, frames: int | None = None) -> ComplexArray:
        """Spectra, shape (frames, bins), complex64, of `samples`, shape (n,).

        Only the first `frames`, or all there are. Fewer samples than a window are followed by
        silence.
        """
        if self.center:
            samples = np.pad(samples, self.pad, mode=self.pad_mode)  # type: ignore[call-overload]
        if samples.size < self.n_fft:
            samples = np.pad(samples, (0, self.n_fft - samples.size))
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.n_fft)
        windows = windows[:: self.hop_length][:frames]
        spectra = np.empty((len(windows), self.bins), np.complex64)
        for start in range(0, len(windows), _BLOCK):
            block = windows[start : start + _BLOCK] * self.window_values
            spectra[start : start + _BLOCK] = np.fft.rfft(block)
        return spectra

    def envelope(self, frames: int, n_samples: int) -> FloatArray:
        """What the overlapping frames of a signal are divided by at each of `n_samples` samples.

        The sum of their squared windows, as in ``librosa.istft``, where that is large enough to
        divide by.
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

        Equal to ``librosa.istft(..., length=n_samples)`` but for the ends, see `envelope`,
        of which that of these frames and samples is given. A signal has the same bits
        whatever K is.
        """
        frames = np.fft.irfft(spectra, n=self.n_fft).astype(np.float32, copy=False)
        frames *= self.window_values.astype(np.float32)
        signals: FloatArray = self._trim(_overlap_add(frames, self.hop_length), envelope.size)
        signals /= envelope
        return signals

    def _trim(self, padded: NDArray[Any], n_samples: int) -> NDArray[Any]:
        return padded[:, self.pad : self.pad + n_samples]


def _overlap_add(frames: NDArray[Any], hop: int) -> NDArray[Any]:
    """Add (K, T, n) frames at steps of `hop`: (K, at least (T - 1) * hop + n)."""
    count, steps, size = frames.shape
    slabs = -(-size // hop)
    # Seen as rows of `hop` samples, slab i of every frame falls on the row i below its
    # own: a few additions of whole arrays, in the order of a loop over frames.
    rows = np.zeros((count, steps + slabs, hop), frames.dtype)
    for i in reversed(range(slabs)):
        part = frames[:, :, i * hop : (i + 1) * hop]
        rows[:, i : i + steps, : part.shape[2]] += part
    return rows.reshape(count, -1)
