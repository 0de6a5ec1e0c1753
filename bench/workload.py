"""What is timed: the paper's architecture on a real clip.

Five times [3x3 convolution, ReLU, 2x2 max pool] with 64 channels on a 257 x 173
magnitude spectrogram. Weights are random (He et al., arXiv 1502.01852): the time of a
projection depends on shapes and switches, hardly on what was learned.
"""

from __future__ import annotations

import functools
from importlib import resources

import numpy as np

import fastdeconv as fd

CHANNELS = 64
DEPTH = 5
FRONTEND = {"kind": "stft", "sr": 11025, "n_fft": 512, "hop_length": 256, "frames": 173}


@functools.cache
def network() -> fd.Network:
    """The five-layer network with He-normal weights and small random biases."""
    rng = np.random.default_rng(0)
    layers, arrays, channels = [], {}, 1
    for i in range(1, DEPTH + 1):
        layers += [
            {"type": "conv2d", "name": f"conv{i}", "padding": "same"},
            {"type": "relu", "name": f"relu{i}"},
            {"type": "max_pool2d", "name": f"pool{i}", "kernel_size": 2},
        ]
        deviation = np.sqrt(2 / (9 * channels))
        shape = (CHANNELS, channels, 3, 3)
        arrays[f"conv{i}.weight"] = rng.normal(0, deviation, shape).astype(np.float32)
        arrays[f"conv{i}.bias"] = rng.normal(0, 0.01, CHANNELS).astype(np.float32)
        channels = CHANNELS
    return fd.Network(layers, arrays, input_shape=(1, 257, 173), frontend=FRONTEND)


@functools.cache
def clip() -> fd.Clip:
    """The bundled demo clip."""
    path = resources.files("fastdeconv") / "data" / "demo.flac"
    with path.open("rb") as file:
        return fd.load_clip(file, network().frontend)


@functools.cache
def trace() -> fd.Trace:
    """Its forward pass."""
    return network().forward(clip().x)
