"""A network as a PyTorch module, for libraries that attribute modules."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ..workload import Work


def tower(work: Work, depth: int) -> torch.nn.Sequential:
    """The first `depth` stages."""
    layers: list[torch.nn.Module] = []
    for stage in work.stages[:depth]:
        padding = tuple(low for low, _ in stage.conv.padding)
        conv = torch.nn.Conv2d(
            stage.weight.shape[1], stage.weight.shape[0], stage.conv.kernel, padding=padding
        )
        conv.weight.data = torch.from_numpy(stage.weight.copy())
        conv.bias.data = torch.from_numpy(stage.bias.copy())
        layers += [conv, torch.nn.ReLU(), torch.nn.MaxPool2d(stage.pool.kernel)]
    # Nobody asks for the gradients of the weights: peers are spared them.
    return torch.nn.Sequential(*layers).eval().requires_grad_(False)


def fastest_batch(batch: Callable[[int], object], count: int) -> int:
    """The number of features in a call that takes least time a feature."""
    def seconds(size: int) -> float:
        batch(size)
        begin = time.perf_counter()
        batch(size)
        return (time.perf_counter() - begin) / size

    return min((size for size in (2, 4, 8, 16) if size <= count), key=seconds)
