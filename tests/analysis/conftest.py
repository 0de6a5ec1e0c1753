"""A small network with a front end, and tones that differ in known ways."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import fastdeconv as fd

SR = 8000


@pytest.fixture(scope="session")
def net():
    rng = np.random.default_rng(0)
    return fd.Network(
        [
            {"type": "conv2d", "name": "conv1", "padding": "same"},
            {"type": "relu", "name": "relu1"},
            {"type": "max_pool2d", "name": "pool1", "kernel_size": 2},
            {"type": "conv2d", "name": "conv2", "padding": "same"},
            {"type": "relu", "name": "relu2"},
            {"type": "max_pool2d", "name": "pool2", "kernel_size": 2},
        ],
        {
            "conv1.weight": rng.standard_normal((4, 1, 3, 3)),
            "conv1.bias": np.zeros(4),
            "conv2.weight": rng.standard_normal((6, 4, 3, 3)),
            # Feature 5 never fires.
            "conv2.bias": np.array([0, 0, 0, 0, 0, -1e6]),
        },
        (1, 33, 20),
        frontend={"kind": "stft", "sr": SR, "n_fft": 64, "hop_length": 32, "frames": 20},
        name="tiny",
    )


@pytest.fixture(scope="session")
def tones():
    """Three pitches by two loudnesses: loudness alone changes nothing but the scale."""
    return [
        fd.Stimulus(f"{hertz}-{gain}", {"pitch": str(hertz), "gain": str(gain)},
                    tone(hertz, gain, 0.02))
        for hertz, gain in product((500, 1100, 2300), (0.25, 0.5))
    ]


@pytest.fixture(scope="session")
def many_tones():
    """Pitches, loudnesses and beginnings: eight groups of each attribute, or more."""
    return [
        fd.Stimulus(f"{hertz}-{gain}-{start}",
                    {"pitch": str(hertz), "gain": str(gain), "start": str(start)},
                    tone(hertz, gain, start))
        for hertz, gain, start in product((500, 900, 1500, 2300), (0.25, 0.5), (0.01, 0.02, 0.03,
                                                                               0.04))
    ]


def tone(hertz, gain, start):
    time = np.arange(640) / SR
    samples = (gain * np.sin(2 * np.pi * hertz * time) * (time > start)).astype(np.float32)
    return lambda frontend: fd.Clip(samples, SR, frontend)
