"""Scale, normalisation and layout of the network's input."""

from __future__ import annotations

import warnings

import librosa
import numpy as np
import pytest

from fastdeconv import AudioError, Clip, Frontend

SIZES = {"sr": 8000, "n_fft": 256, "hop_length": 128}
TONE = (0.3 * np.sin(0.3 * np.arange(4000)) * np.linspace(0, 1, 4000)).astype(np.float32)
S = np.abs(librosa.stft(TONE, n_fft=256, hop_length=128))


def x_of(samples=TONE, **fields):
    clip = Clip(samples, 8000, Frontend(**SIZES, **fields))
    assert clip.x.dtype == np.float32
    return clip.x[0]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, S),
        ({"power": 2.0}, S**2),
        ({"power": 0.5}, np.sqrt(S)),
        ({"scale": "power"}, S**2),
        ({"scale": "power", "power": 2.0}, S**2),
        ({"scale": "log1p"}, np.log1p(S)),
        ({"scale": "db"}, librosa.amplitude_to_db(S, ref=np.max)),
        ({"scale": "db", "power": 2.0}, librosa.power_to_db(S**2, ref=np.max)),
        (
            {"scale": {"type": "db", "ref": 0.5, "amin": 1e-3, "top_db": None}},
            librosa.amplitude_to_db(S, ref=0.5, amin=1e-3, top_db=None),
        ),
        (
            {"scale": {"type": "db", "ref": 1.0, "amin": 1e-10, "top_db": 60}, "power": 2.0},
            librosa.power_to_db(S**2, ref=1.0, amin=1e-10, top_db=60),
        ),
        (
            {"scale": {"type": "log", "base": 10, "gain": 1e4, "offset": 1}},
            np.log10(1 + 1e4 * S),
        ),
        ({"scale": {"type": "log", "floor": 1e-2}}, np.log(np.maximum(S, 1e-2))),
        ({"scale": {"type": "log", "base": 2, "offset": 0.01}}, np.log2(S + 0.01)),
    ],
)
def test_scales_are_those_of_librosa_and_their_formulas(fields, expected):
    np.testing.assert_allclose(x_of(**fields), expected, rtol=2e-6, atol=2e-5)


def test_range_maps_the_extremes_of_the_clip():
    x = x_of(normalize={"type": "range", "low": -1, "high": 3})
    assert (x.min(), x.max()) == (-1, 3)
    np.testing.assert_allclose(x, -1 + 4 * (S - S.min()) / (S.max() - S.min()), atol=1e-6)


@pytest.mark.parametrize("ddof", [0, 1])
def test_standardize_per_clip_and_per_band(ddof):
    exact = S.astype(np.float64)
    x = x_of(normalize={"type": "standardize", "ddof": ddof})
    np.testing.assert_allclose(x, (exact - exact.mean()) / exact.std(ddof=ddof), atol=1e-5)
    x = x_of(normalize={"type": "standardize", "ddof": ddof, "per": "band"})
    expected = exact - exact.mean(axis=1, keepdims=True)
    expected /= exact.std(axis=1, ddof=ddof, keepdims=True)
    np.testing.assert_allclose(x, expected, atol=1e-5)


NORMALIZERS = [
    None,
    {"type": "range", "low": -2, "high": 5},
    {"type": "standardize"},
    {"type": "standardize", "per": "band", "ddof": 1},
]
SCALES = ["linear", "power", "db", "log1p", {"type": "log"}]


@pytest.mark.parametrize("normalize", NORMALIZERS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n", [2, 100, 1000])
def test_silence_is_constant_and_causes_no_warning(scale, normalize, n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = x_of(np.zeros(n, np.float32), scale=scale, normalize=normalize)
    assert np.isfinite(x).all()
    assert (x == x[0, 0]).all()
    if normalize is not None:
        assert x[0, 0] == (-2 if normalize["type"] == "range" else 0)


def test_a_silent_band_of_a_loud_clip_becomes_zero():
    stft = np.ones((129, 5), np.complex64) * np.arange(5)
    stft[7] = 0
    fe = Frontend(**SIZES, normalize={"type": "standardize", "per": "band"})
    x = Clip.from_stft(stft, fe).x[0]
    assert (x[7] == 0).all()
    np.testing.assert_allclose(x[8].std(), 1, rtol=1e-6)


@pytest.mark.parametrize("normalize", NORMALIZERS)
@pytest.mark.parametrize("scale", SCALES)
def test_layout_ctf_is_the_transpose(scale, normalize):
    rows_are_frequency = x_of(scale=scale, normalize=normalize)
    rows_are_time = x_of(scale=scale, normalize=normalize, layout="CTF")
    np.testing.assert_array_equal(rows_are_time, rows_are_frequency.T)
    assert rows_are_time.flags.c_contiguous
    assert rows_are_frequency.flags.c_contiguous


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("peak", [1e25, 3e38])
def test_samples_too_large_for_the_spectrogram_are_refused_without_a_warning(scale, peak):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if scale == "power" or peak > 1e38:
            with pytest.raises(AudioError, match="overflows float32"):
                x_of(np.full(1000, peak, np.float32), scale=scale)
        else:
            assert np.isfinite(x_of(np.full(1000, peak, np.float32), scale=scale)).all()
