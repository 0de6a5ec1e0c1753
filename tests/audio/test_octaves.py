"""The CQT octave by octave."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from fastdeconv import Clip, Frontend, ParameterError
from fastdeconv.audio.kinds.octaves import octave_cqt

SR = 16000
OWN = {"sr": SR, "hop_length": 256, "fmin": 110.0, "n_bins": 60, "bins_per_octave": 12}


@pytest.fixture(scope="module")
def samples() -> NDArray[np.float32]:
    t = np.arange(2 * SR) / SR
    sound = sum(np.sin(2 * np.pi * hz * t) for hz in (130.8, 440.0, 1760.0)) / 4
    return (sound + np.random.default_rng(0).normal(0, 0.05, t.size)).astype(np.float32)


def directly(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Every bin by its own windowed wave at the full rate, no samples left out."""
    quality = 1 / (2 ** (1 / 12) - 1)
    centres = np.arange(20, 100) * 256
    found = []
    for hz in 110 * 2 ** (np.arange(60) / 12):
        length = int(np.ceil(quality * SR / hz))
        time = np.arange(length) - length // 2
        wave = scipy.signal.get_window("hann", length) * np.exp(-2j * np.pi * hz / SR * time)
        wave *= np.sqrt(length) / np.abs(wave).sum()
        found.append([abs(samples[c - length // 2 :][:length] @ wave) for c in centres])
    return np.array(found)


def test_it_is_what_every_bin_alone_gives(samples):
    """But for what lies around half the rate of an octave, which the filters let pass."""
    found = np.abs(octave_cqt(samples, pad_mode="reflect", **OWN))[:, 20:100]
    wanted = directly(samples)
    off = np.abs(found - wanted)
    assert np.median(off) < 0.02 * np.median(wanted)
    assert off.max() < 0.06 * wanted.max()


@pytest.mark.parametrize("n_bins", [12, 30, 60])
def test_a_note_is_loudest_in_its_bin(n_bins):
    t = np.arange(SR) / SR
    for place in (3, n_bins // 2, n_bins - 2):
        tone = np.sin(2 * np.pi * 110 * 2 ** (place / 12) * t).astype(np.float32)
        clip = Clip(tone, SR, Frontend(kind="cqt", **{**OWN, "n_bins": n_bins}, method="nnaudio"))
        assert clip.x.shape == (1, n_bins, 63)
        assert (clip.x[0, :, 30:35].argmax(axis=0) == place).all()


@pytest.mark.parametrize("count", [2, 100, 1000, 5000, 16001])
def test_sounds_of_any_length(count):
    samples = np.random.default_rng(count).normal(size=count).astype(np.float32)
    clip = Clip(samples, SR, Frontend(kind="cqt", **OWN, method="nnaudio", pad_mode="reflect"))
    assert clip.x.shape == (1, 60, 1 + count // 256)


def test_its_record():
    fe = Frontend(kind="cqt", **OWN, method="nnaudio")
    assert Frontend.from_record(fe.to_record()) == fe and fe.is_new
    assert "method" not in Frontend(kind="cqt", **OWN).to_record()
    with pytest.raises(ParameterError, match="hop_length must be a multiple of 16 for 60 bins"):
        Frontend(kind="cqt", **{**OWN, "hop_length": 200}, method="nnaudio")
    with pytest.raises(ParameterError, match="method must be one of librosa, nnaudio"):
        Frontend(kind="cqt", **OWN, method="essentia")
    with pytest.raises(ParameterError, match="n_bins must be at most 75"):
        Frontend(kind="cqt", **{**OWN, "n_bins": 84})
