"""Mel filters are librosa's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdeconv.audio.mel import mel_filters

filters = pytest.importorskip("librosa", reason="the filters compared with").filters


@given(
    sr=st.sampled_from([8000, 11025, 16000, 22050, 44100]),
    n_fft=st.integers(64, 2048),
    n_mels=st.integers(1, 128),
    fmin=st.one_of(st.just(0.0), st.floats(1, 1500)),
    width=st.floats(100, 6000),
    htk=st.booleans(),
    norm=st.one_of(st.none(), st.just("slaney"), st.floats(0.5, 4)),
)
def test_they_are_librosas(sr, n_fft, n_mels, fmin, width, htk, norm):
    asked = {"sr": sr, "n_fft": n_fft, "n_mels": n_mels, "fmin": fmin, "fmax": fmin + width}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bands that are narrower than a bin
        wanted = filters.mel(htk=htk, norm=norm, **asked)
    found = mel_filters(htk=htk, norm=norm, **asked)
    assert found.dtype == wanted.dtype
    # Logarithms may differ in their last bit between two ways to call them.
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 * max(wanted.max(), 1e-9))
