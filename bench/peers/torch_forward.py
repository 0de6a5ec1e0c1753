"""PyTorch forward: convolution, ReLU and max pool with indices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)

from ..measure import Contender
from ..workload import Work

Result = list[tuple[torch.Tensor, torch.Tensor]]


def forward(work: Work) -> Iterator[Contender]:
    """As one writes it, and with channels_last."""
    yield Contender(
        "PyTorch plain", Forward(work, torch.contiguous_format),
        "conv2d, relu, max_pool2d(return_indices=True) under inference_mode", read=read,
    )
    yield Contender(
        "PyTorch tuned", Forward(work, torch.channels_last),
        "the same with channels_last input and weights, ReLU in place", read=read,
    )


class Forward:
    """The forward pass of a clip; called, one run of it."""

    def __init__(
        self, work: Work, memory_format: torch.memory_format, device: str = "cpu"
    ) -> None:
        self.x = torch.tensor(work.x, device=device)[None].contiguous(memory_format=memory_format)
        self.stages = [
            (
                torch.tensor(s.weight, device=device).contiguous(memory_format=memory_format),
                torch.tensor(s.bias, device=device),
                [low for low, _ in s.conv.padding],
                s.pool.kernel,
            )
            for s in work.stages
        ]

    @torch.inference_mode()
    def __call__(self) -> Result:
        return self.run(self.x)

    def run(self, value: torch.Tensor) -> Result:
        """Activations and indices of every stage."""
        out = []
        for weight, bias, padding, pool in self.stages:
            value = F.conv2d(value, weight, bias, padding=padding).relu_()
            value, where = F.max_pool2d(value, pool, return_indices=True)
            out.append((value, where))
        return out


def read(result: Result) -> list[tuple[np.ndarray, np.ndarray]]:
    """As arrays."""
    return [(value.cpu().numpy(), where.cpu().numpy()) for value, where in result]
