"""A network as its peers see it: stages of a convolution, an activation and perhaps a pool."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import fastdeconv as fd
from fastdeconv.deconvnet.layerwise import activation_slope
from fastdeconv.kernels.interface import Padding, Pair, Window
from fastdeconv.network import layers as nn


class Stage(NamedTuple):
    """A convolution (stride and dilation 1, no groups), its activation, perhaps a pool."""

    weight: np.ndarray
    bias: np.ndarray
    conv: Window
    pool: Window | None
    below: Pair
    """(height, width) of the convolution's input"""
    above: Pair
    """(height, width) of the convolution's output"""
    activation: str
    """name of the layer of the activation"""
    top: str
    """name of the stage's last layer"""
    is_average: bool = False
    """whether the pool averages"""

    @property
    def way_back(self) -> Padding:
        """Zeros around the convolution's output for its adjoint, run as a convolution."""
        sides = [
            (kernel - 1 - low, kernel - 1 - high)
            for kernel, (low, high) in zip(self.conv.kernel, self.conv.padding)
        ]
        return sides[0], sides[1]


def stages_of(net: fd.Network, shape: tuple[int, ...]) -> list[Stage]:
    """The stages of `net` for an input of `shape` (C, H, W)."""
    shapes = [shape, *net.shapes(shape)]
    stages: list[Stage] = []
    for i, layer in enumerate(net.layers):
        below, above = shapes[i][1:], shapes[i + 1][1:]
        if isinstance(layer, nn.Conv2d):
            arrays = (net.arrays[f"{layer.name}.{part}"] for part in ("weight", "bias"))
            window = layer.window(below, net.arrays)
            assert window.stride == window.dilation == (1, 1) and layer.groups == 1
            stages.append(Stage(*arrays, window, None, below, above, "", ""))
        elif isinstance(layer, nn.Elementwise):
            stages[-1] = stages[-1]._replace(activation=layer.name, top=layer.name)
        else:
            assert isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d))
            stages[-1] = stages[-1]._replace(
                pool=layer.window(below, net.arrays), top=layer.name,
                is_average=isinstance(layer, nn.AvgPool2d),
            )
    return stages


class Given(NamedTuple):
    """What the way back needs of one clip's forward pass, a stage."""

    activation: np.ndarray
    """(C, h, w): output of the stage"""
    active: np.ndarray
    """(C, H, W), bool: where the activation is positive"""
    slope: np.ndarray | None
    """(C, H, W): the derivative of an activation other than ReLU, which every rule goes by"""
    switches: np.ndarray | None
    """(C, h, w): place of the maximum in its window, row-major"""


def given_by(trace: fd.Trace, stages: list[Stage]) -> list[Given]:
    """Our activations and switches, so that all project the same thing."""
    return [
        Given(
            trace[s.top], trace[s.activation] > 0, _slope(trace, s.activation),
            None if s.pool is None or s.is_average else trace.switches(s.top),
        )
        for s in stages
    ]


def _slope(trace: fd.Trace, name: str) -> np.ndarray | None:
    index = trace.network.layer_index(name)
    if isinstance(trace.network.layers[index], nn.ReLU):
        return None
    return activation_slope(trace, index).astype(np.float32)


def places(switches: np.ndarray, stage: Stage) -> np.ndarray:
    """Switches as indices into the flattened plane before the pool (int64)."""
    pool = stage.pool
    assert pool is not None
    _, y, x = np.indices(switches.shape, sparse=True)
    inside = switches.astype(np.int64)
    row = y * pool.stride[0] - pool.padding[0][0] + inside // pool.kernel[1]
    column = x * pool.stride[1] - pool.padding[1][0] + inside % pool.kernel[1]
    return row * stage.above[1] + column
