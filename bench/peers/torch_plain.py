"""PyTorch as one writes it: max_unpool2d, relu, conv_transpose2d, all features in one batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)

from ..measure import Contender
from ..stages import places
from ..workload import Work


def project(work: Work, depth: int) -> Iterator[Contender]:
    """All features of stage `depth`."""
    plain = TorchPlain(work, depth)
    yield Contender(
        "PyTorch plain", plain.project,
        "max_unpool2d, relu and conv_transpose2d on all features in one batch",
    )


class TorchPlain:
    """On a device; the maps end on the host."""

    def __init__(self, work: Work, depth: int, device: str = "cpu") -> None:
        self.stages = work.stages[:depth]
        self.start = torch.tensor(work.given[depth - 1].activation, device=device)
        self.weights = [torch.tensor(s.weight, device=device) for s in self.stages]
        self.places = [
            torch.tensor(places(given.switches, stage), device=device)[None]
            for stage, given in zip(self.stages, work.given)
        ]

    @torch.inference_mode()
    def project(self) -> np.ndarray:
        count = len(self.start)
        maps = self.start.new_zeros((count, *self.start.shape))
        maps[torch.arange(count), torch.arange(count)] = self.start
        for stage, weight, where in zip(
            self.stages[::-1], self.weights[::-1], self.places[::-1]
        ):
            expanded = where.expand(count, -1, -1, -1)
            maps = F.max_unpool2d(maps, expanded, stage.pool.kernel, output_size=stage.above)
            padding = [low for low, _ in stage.conv.padding]
            maps = F.conv_transpose2d(F.relu(maps), weight, padding=padding)
        return maps.cpu().numpy()
