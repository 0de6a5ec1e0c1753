"""Captum's integrated gradients, Grad-CAM and occlusion of the log odds of a class.

In both memory formats: contiguous, which PyTorch begins with, and channels_last, which one has to
ask for. What a call does at a time is whatever was fastest here. The weights ask for no gradients,
so that none are computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion

import fastdeconv as fd
from fastdeconv.network import layers as nn

from ..measure import Contender

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Asked(NamedTuple):
    """What is explained."""

    network: fd.Network
    x: np.ndarray
    number: int
    """of the class"""
    steps: int
    cam_layer: int
    patches: tuple[int, int]


def module_of(net: fd.Network) -> torch.nn.Sequential:
    """A chain of convolutions, ReLUs and pools with a linear layer at its end; layer for layer."""
    found: list[torch.nn.Module] = []
    for layer in net.layers:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            weight = torch.tensor(net.arrays[f"{layer.name}.weight"])
            one: Any = (
                torch.nn.Conv2d(weight.shape[1], len(weight), tuple(weight.shape[2:]),
                                padding="same")
                if isinstance(layer, nn.Conv2d) else torch.nn.Linear(weight.shape[1], len(weight))
            )
            one.weight.data = weight
            one.bias.data = torch.tensor(net.arrays[f"{layer.name}.bias"])
        elif isinstance(layer, nn.MaxPool2d):
            one = torch.nn.MaxPool2d(layer.kernel_size)
        else:
            one = {
                "relu": torch.nn.ReLU(), "global_avg_pool2d": torch.nn.AdaptiveAvgPool2d(1),
                "flatten": torch.nn.Flatten(),
            }[layer.type]
        found.append(one)
    return torch.nn.Sequential(*found).eval().requires_grad_(False)


class _LogOdds(torch.nn.Module):
    def __init__(self, tower: torch.nn.Sequential, number: int) -> None:
        super().__init__()
        self.tower, self.number = tower, number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.tower(x)
        others = [j for j in range(z.shape[1]) if j != self.number]
        return z[:, self.number] - torch.logsumexp(z[:, others], dim=1)


def integrated_gradients(asked: Asked) -> Iterator[Contender]:
    """As few or many steps at a time as is fastest."""
    x, score = torch.from_numpy(asked.x.copy())[None], _score(asked)
    silence = torch.full_like(x, float(asked.x.min()))

    def run(size: int, layout: str) -> np.ndarray:
        score.to(memory_format=FORMATS[layout])
        found = IntegratedGradients(score).attribute(
            x, silence, n_steps=asked.steps, method="riemann_middle", internal_batch_size=size
        )
        return found[0, 0].detach().numpy()

    sizes = [size for size in (1, 2, 3, 4, 6, 12) if size <= asked.steps]
    yield from _fastest("Captum, IntegratedGradients", run, sizes, "steps", 1e-2)


def cam(asked: Asked) -> Iterator[Contender]:
    """With what it takes to bring the map to the size of the input."""
    x, score = torch.from_numpy(asked.x.copy())[None], _score(asked)

    def run(size: int, layout: str) -> np.ndarray:
        score.to(memory_format=FORMATS[layout])
        found = LayerGradCam(score, score.tower[asked.cam_layer]).attribute(
            x, relu_attributions=True
        )
        fine = LayerAttribution.interpolate(found, tuple(x.shape[2:]), "bilinear")
        return fine[0, 0].detach().numpy()

    yield from _fastest("Captum, LayerGradCam", run, [1], "inputs", 1e-3)


def occlusion(asked: Asked) -> Iterator[Contender]:
    """Patches of the same size; where they do not divide the input there is one more."""
    x, score = torch.from_numpy(asked.x.copy())[None], _score(asked)
    means = x.mean(dim=3, keepdim=True).expand_as(x).contiguous()

    def run(size: int, layout: str) -> np.ndarray:
        score.to(memory_format=FORMATS[layout])
        with torch.inference_mode():
            found = Occlusion(score).attribute(
                x, sliding_window_shapes=(1, *asked.patches), strides=(1, *asked.patches),
                baselines=means, perturbations_per_eval=size,
            )
        return found[0, 0].numpy()

    yield from _fastest("Captum, Occlusion", run, [1, 4, 16], "patches", 1e-2)


def _score(asked: Asked) -> Any:
    return _LogOdds(module_of(asked.network), asked.number)


def _fastest(
    name: str, run: Callable[[int, str], np.ndarray], sizes: Sequence[int], what: str,
    tolerance: float,
) -> Iterator[Contender]:
    """One for each memory format."""
    def seconds(size: int, layout: str) -> float:
        run(size, layout)
        begin = time.perf_counter()
        run(size, layout)
        return time.perf_counter() - begin

    for layout in FORMATS:
        size = min(sizes, key=lambda n, f=layout: seconds(n, f))
        yield Contender(
            f"{name}, {layout}", lambda n=size, f=layout: run(n, f),
            f"{size} {what} at a time", tolerance=tolerance,
        )
