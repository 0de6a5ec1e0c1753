"""Networks with branches: the kinds that are in use for music, with He-normal weights.

`residual` is what the short-chunk residual tagger of Won et al. (arXiv 2006.00751) is made of,
`mobile` what the MobileNetV3 taggers of Schmid et al. (arXiv 2211.04772) are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastdeconv as fd

__all__ = ["Builder", "mobile", "one_dimensional", "residual"]

_HEIGHT = 257
IntOrPair = int | tuple[int, int]


class Builder:
    """Layers and arrays of a network that grows from its input."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self.layers: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}

    def layer(self, kind: str, *inputs: str, **parameters: Any) -> str:
        """A layer of this type on these inputs; its name."""
        name = f"{kind}{sum(layer['type'] == kind for layer in self.layers) + 1}"
        self.layers.append({"type": kind, "name": name, "inputs": list(inputs), **parameters})
        return name

    def conv(
        self, x: str, below: int, above: int, kernel: IntOrPair = 3, stride: IntOrPair = 1,
        groups: int = 1,
    ) -> str:
        """A convolution without bias, and the batch norm that follows it."""
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = [(n // 2, n // 2) for n in size]
        name = self.layer("conv2d", x, stride=stride, padding=padding, groups=groups, bias=False)
        shape = above, below // groups, *size
        deviation = np.sqrt(2 / np.prod(shape[1:]))
        self.arrays[f"{name}.weight"] = self._normal(0, deviation, shape)
        norm = self.layer("batch_norm2d", name)
        statistics = {
            "weight": (1, 0.1), "bias": (0, 0.1), "running_mean": (0, 0.1), "running_var": (1, 0)
        }
        for key, (mean, spread) in statistics.items():
            self.arrays[f"{norm}.{key}"] = self._normal(mean, spread, (above,))
        return norm

    def squeeze(self, x: str, channels: int, inside: int) -> str:
        """Squeeze-and-excite: every channel times a number that all channels' means decide."""
        mean = self.layer("reduce_mean", x, axes="HW")
        hidden = self.layer("relu", self._pointwise(mean, channels, inside))
        gate = self.layer("hardsigmoid", self._pointwise(hidden, inside, channels))
        return self.layer("multiply", x, gate)

    def network(self, height: int = _HEIGHT) -> fd.Network:
        """What has been built."""
        return fd.Network(self.layers, self.arrays, input_shape=(1, height, None))

    def _pointwise(self, x: str, below: int, above: int) -> str:
        name = self.layer("conv2d", x)
        self.arrays[f"{name}.weight"] = self._normal(0, np.sqrt(2 / below), (above, below, 1, 1))
        self.arrays[f"{name}.bias"] = self._normal(0, 0.1, (above,))
        return name

    def _normal(self, mean: float, deviation: float, shape: Sequence[int]) -> np.ndarray:
        return self._random.normal(mean, deviation, shape).astype(np.float32)


def residual(channels: int = 64, strides: Sequence[int] = (2, 2, 2, 2)) -> fd.Network:
    """Blocks of two 3 x 3 convolutions and a shortcut.

    The shortcut is a convolution where the block changes the shape.
    """
    build, x, below = Builder(), "input", 1
    for stride in strides:
        shortcut = x
        if stride != 1 or below != channels:
            shortcut = build.conv(x, below, channels, stride=stride)
        x = build.layer("relu", build.conv(x, below, channels, stride=stride))
        x = build.conv(x, channels, channels)
        x = build.layer("relu", build.layer("add", x, shortcut))
        below = channels
    return build.network()


def one_dimensional(first: int, hop: int, kernel: int, channels: int = 64) -> fd.Network:
    """A network of a waveform (1, 1, W): four convolutions, each but the last with a pool of 4.

    The first takes `first` samples every `hop`, the others `kernel` values.
    """
    build = Builder()
    x = build.layer("relu", build.conv("input", 1, channels, (1, first), (1, hop)))
    for _ in range(3):
        x = build.layer("max_pool2d", x, kernel_size=(1, 4))
        x = build.layer("relu", build.conv(x, channels, channels, (1, kernel)))
    return build.network(height=1)


#: kernel, channels inside, channels above, stride
_MOBILE = ((3, 64, 24, 2), (3, 72, 24, 1), (5, 96, 40, 2), (5, 240, 40, 1))


def mobile(blocks: Sequence[tuple[int, int, int, int]] = _MOBILE) -> fd.Network:
    """A stem, and inverted bottlenecks of depthwise convolutions with squeeze-and-excite."""
    build, below = Builder(), 16
    x = build.layer("hardswish", build.conv("input", 1, below, stride=2))
    for kernel, inside, above, stride in blocks:
        shortcut = x
        x = build.layer("hardswish", build.conv(x, below, inside, kernel=1))
        x = build.conv(x, inside, inside, kernel=kernel, stride=stride, groups=inside)
        x = build.squeeze(build.layer("hardswish", x), inside, inside // 4)
        x = build.conv(x, inside, above, kernel=1)
        if stride == 1 and below == above:
            x = build.layer("add", x, shortcut)
        below = above
    return build.network()
