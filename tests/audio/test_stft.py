"""The STFT and its window against librosa and scipy."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdeconv import Clip, Frontend, ParameterError
from fastdeconv.audio.stft import Stft, get_window

WINDOWS = ["hann", "hamming", "blackman", "boxcar", "ones", "triang", ("kaiser", 8.6)]


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("length", [1, 2, 3, 64, 511, 512])
def test_windows_have_the_bits_of_scipy(window, length):
    expected = scipy.signal.get_window(window, length, fftbins=True)
    np.testing.assert_array_equal(get_window(window, length), expected)


@pytest.mark.parametrize("window", [
    "hanning2", "kaiser", ("hann", 1.0, 2.0, 3.0), ("general_cosine", 1.0),
])
def test_a_window_that_scipy_does_not_know_is_refused(window):
    with pytest.raises(ParameterError, match="is not one of scipy's"):
        get_window(window, 64)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(600, 3000),
    n_fft=st.integers(2, 600),
    hop=st.integers(1, 700),
    window=st.sampled_from(WINDOWS),
    center=st.booleans(),
    data=st.data(),
)
def test_stft_has_the_bits_of_librosa(n, n_fft, hop, window, center, data):
    win_length = data.draw(st.integers(max(1, n_fft // 2), n_fft))
    fe = Frontend(
        sr=8000, n_fft=n_fft, hop_length=hop, win_length=win_length, window=window, center=center
    )
    clip = Clip(noise(n), 8000, fe)
    expected = librosa.stft(
        noise(n), n_fft=n_fft, hop_length=hop, win_length=win_length, window=window, center=center
    )
    assert clip.stft.dtype == np.complex64
    assert clip.stft.shape == expected.shape == (1 + n_fft // 2, fe.num_frames(n))
    # librosa and this package may use different builds of the same FFT.
    np.testing.assert_allclose(clip.stft, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("pad_mode", ["constant", "edge", "linear_ramp", "reflect", "symmetric"])
@pytest.mark.parametrize("n", [300, 1000, 1001])
def test_every_pad_mode_is_that_of_librosa(pad_mode, n):
    fe = Frontend(sr=8000, n_fft=256, hop_length=64, pad_mode=pad_mode)
    expected = librosa.stft(noise(n), n_fft=256, hop_length=64, pad_mode=pad_mode)
    np.testing.assert_allclose(Clip(noise(n), 8000, fe).stft, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pad_mode", ["constant", "edge", "linear_ramp", "reflect", "symmetric"])
@pytest.mark.parametrize("n", [2, 3, 100, 129])
def test_sounds_shorter_than_a_frame_are_padded_like_any_other(pad_mode, n):
    fe = Frontend(sr=8000, n_fft=256, hop_length=256, pad_mode=pad_mode)
    padded = np.pad(noise(n), 128, mode=pad_mode)
    expected = librosa.stft(padded, n_fft=256, hop_length=256, center=False)
    np.testing.assert_allclose(Clip(noise(n), 8000, fe).stft, expected, rtol=0, atol=1e-5)


@given(
    frames=st.integers(1, 50),
    n_fft=st.integers(2, 64),
    hop=st.integers(1, 80),
    center=st.booleans(),
)
def test_shortest_and_longest_are_the_bounds_of_a_number_of_frames(frames, n_fft, hop, center):
    transform = Stft(n_fft, hop, n_fft, "hann", center, "constant")
    shortest, longest = transform.shortest(frames), transform.longest(frames)
    assert transform.num_frames(shortest) == transform.num_frames(longest) == frames
    assert transform.num_frames(longest + 1) == frames + 1
    assert transform.num_frames(shortest - 1) == frames - 1


def test_a_long_sound_is_transformed_in_blocks_without_seams():
    fe = Frontend(sr=8000, n_fft=64, hop_length=16)
    samples = noise(16 * 600)
    expected = librosa.stft(samples, n_fft=64, hop_length=16)
    np.testing.assert_allclose(Clip(samples, 8000, fe).stft, expected, rtol=0, atol=1e-5)
