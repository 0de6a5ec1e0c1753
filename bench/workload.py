"""What is timed: networks with He-normal weights (arXiv 1502.01852) on a real clip.

The time of a projection depends on shapes and switches, hardly on what was learned.
`paper()` is the architecture of the 2016 paper: five times [3x3 convolution, ReLU, 2x2
max pool] with 64 channels on a 257 x 173 magnitude spectrogram of 4 s.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np

import fastdeconv as fd

from .stages import Given, Stage, given_by, stages_of

CHANNELS = 64
DEPTH = 5
FRONTEND = {"kind": "stft", "sr": 11025, "n_fft": 512, "hop_length": 256, "frames": 173}
FRAMES_PER_SECOND = 11025 / 256

Pair = tuple[int, int]
Pool = Pair | tuple[Pair, Pair] | None
"""kernel; or kernel and stride; or none"""


class Work(NamedTuple):
    """A network and a clip's way through it."""

    network: fd.Network
    x: np.ndarray
    trace: fd.Trace
    stages: list[Stage]
    given: list[Given]

    @classmethod
    def of(cls, network: fd.Network, x: np.ndarray) -> Work:
        """The forward pass of `x` by us, and what peers need to go back from it."""
        trace = network.forward(x)
        stages = stages_of(network, x.shape)
        return cls(network, x, trace, stages, given_by(trace, stages))


def network(
    channels: Sequence[int] = (CHANNELS,) * DEPTH,
    kernels: Sequence[Pair] = ((3, 3),) * DEPTH,
    pools: Sequence[Pool] = ((2, 2),) * DEPTH,
    height: int = 257,
    frontend: dict[str, object] | None = None,
    activation: str = "relu",
    pool_type: str = "max_pool2d",
) -> fd.Network:
    """Stages of ['same' convolution, ReLU, max pool] with He-normal weights, small biases.

    `activation` and `pool_type` are types of layers to take their places.
    """
    rng = np.random.default_rng(0)
    layers, arrays, below = [], {}, 1
    for i, (above, kernel, pool) in enumerate(zip(channels, kernels, pools), 1):
        layers += [
            {"type": "conv2d", "name": f"conv{i}", "padding": "same"},
            {"type": activation, "name": f"{activation}{i}"},
        ]
        if pool is not None:
            size, stride = pool if isinstance(pool[0], tuple) else (pool, pool)
            layers.append({
                "type": pool_type, "name": f"pool{i}", "kernel_size": size, "stride": stride,
            })
        shape = (above, below, *kernel)
        deviation = np.sqrt(2 / np.prod(shape[1:]))
        arrays[f"conv{i}.weight"] = rng.normal(0, deviation, shape).astype(np.float32)
        arrays[f"conv{i}.bias"] = rng.normal(0, 0.01, above).astype(np.float32)
        below = above
    return fd.Network(layers, arrays, input_shape=(1, height, None), frontend=frontend)


def spectrogram(height: int, frames: int) -> np.ndarray:
    """The demo clip's magnitudes, repeated as often as the size asks for."""
    x = clip().x
    return np.tile(x, (1, -(-height // x.shape[1]), -(-frames // x.shape[2])))[:, :height, :frames]


@functools.cache
def clip() -> fd.Clip:
    """The bundled demo clip."""
    path = resources.files("fastdeconv") / "data" / "demo.flac"
    with path.open("rb") as file:
        return fd.load_clip(file, fd.Frontend(**FRONTEND))


@functools.cache
def paper() -> Work:
    """The paper's network on the demo clip."""
    return Work.of(network(frontend=FRONTEND), clip().x)
