"""Captum's Deconvolution.

Its target is a number per feature. That of half the sum of a feature's squared map has the
map itself as gradient, which makes the start the whole map, as ours. It runs forward in
every call, so its switches are its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from captum.attr import Deconvolution

from ..measure import Contender
from ..workload import Work
from . import OWN_SWITCHES
from .torch_module import fastest_batch, tower


def project(work: Work, depth: int) -> Iterator[Contender]:
    """One feature a call, as its documentation shows; and many in a batch."""
    count = len(work.given[depth - 1].activation)
    return attributing(lambda: tower(work, depth), work.x, count)


def attributing(
    make: Callable[[], torch.nn.Module], x: np.ndarray, count: int
) -> Iterator[Contender]:
    """All of a module's features, for one input (C, H, W)."""
    x = torch.from_numpy(x.copy())[None]
    documented = Deconvolution(_HalfSquares(make()))
    tuned = Deconvolution(_HalfSquares(make()).to(memory_format=torch.channels_last))

    def batch(size: int) -> np.ndarray:
        inputs = x.expand(size, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return _attribute(tuned, inputs, list(range(size)))

    size = fastest_batch(batch, count)
    yield Contender(
        "Captum, one feature a call", lambda: _attribute(documented, x, 0),
        "Deconvolution.attribute(x, target=k), a call per feature; extrapolated from one",
        whole=count, tolerance=OWN_SWITCHES,
    )
    yield Contender(
        "Captum, batched", lambda: batch(size),
        f"the clip repeated, target=[0, 1, ...], {size} features a call (the fastest), "
        "channels_last; extrapolated from one call",
        whole=count / size, tolerance=OWN_SWITCHES,
    )


class _HalfSquares(torch.nn.Module):
    def __init__(self, tower: torch.nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tower(x).square().sum((2, 3)) / 2


def _attribute(method: Deconvolution, x: torch.Tensor, target: int | list[int]) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the hooks that it sets, in every call
        return method.attribute(x, target=target).detach().numpy()
