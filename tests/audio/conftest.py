"""Sounds, and what is read of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray

from fastdeconv import Frontend, load_clip

SR = 16000


@pytest.fixture(scope="session")
def samples() -> NDArray[np.float32]:
    """A second of a chord and a click."""
    t = np.arange(SR) / SR
    sound = sum(np.sin(2 * np.pi * hz * t) * np.exp(-3 * t) for hz in (220, 330, 1250, 4100))
    sound[SR // 2] += 2
    found = (sound / 8 + np.random.default_rng(0).normal(0, 1e-3, SR)).astype(np.float32)
    found.flags.writeable = False
    return found


def loaded(
    content: bytes, sr: int = SR, frames: int | None = None, offset: float = 0.0
) -> NDArray[np.float32]:
    """The samples of a file with this content, as a clip at the rate `sr`."""
    frontend = Frontend(sr=sr, n_fft=512, hop_length=256, frames=frames)
    return load_clip(io.BytesIO(content), frontend, offset=offset).samples


def close(found: np.ndarray, wanted: np.ndarray, share: float = 1e-5) -> None:
    """Assert that two arrays differ by no more than a share of the largest value."""
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=share * float(np.abs(wanted).max()))
