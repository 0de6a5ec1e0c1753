"""torch.compile (inductor) of the forward pass and of the tuned projection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ..measure import Contender
from ..workload import Work
from . import UnavailableError
from .torch_forward import Forward, read
from .torch_tuned import TorchTuned, tuned_for


def forward(work: Work) -> Iterator[Contender]:
    """The tuned forward pass."""
    plain = Forward(work, torch.channels_last)
    compiled = _compiled(plain.run, plain.x)

    @torch.no_grad()
    def run() -> Any:
        return compiled(plain.x)

    yield Contender(
        "torch.compile", run, "inductor on the tuned forward pass",
        read=read,
    )


def project(work: Work, depth: int) -> Iterator[Contender]:
    """The tuned projection of a chunk of features."""
    values = work.given[depth - 1].activation
    count = len(values)
    settings = tuned_for(work, depth).settings
    # One of its own: buffers made under inference_mode may not be written to elsewhere.
    tuned = TorchTuned(
        work.stages[:depth], work.given[:depth], np.arange(count), values, settings=settings
    )
    size = settings.chunk
    features = torch.arange(count)
    compiled = _compiled(tuned.chunk, features[:size], tuned.start[:size])

    @torch.no_grad()
    def run() -> np.ndarray:
        parts = [
            compiled(features[at : at + size], tuned.start[at : at + size])
            for at in range(0, count, size)
        ]
        return torch.cat(parts).numpy()

    yield Contender(
        "torch.compile", run,
        f"inductor on the tuned projection ({size} features at a time)",
    )


def _compiled(function: Any, *example: torch.Tensor) -> Any:
    compiled = torch.compile(function, dynamic=False)
    try:
        with torch.no_grad():
            compiled(*example)
    except Exception as error:  # a missing compiler shows in many ways
        raise UnavailableError(f"torch.compile failed: {str(error).splitlines()[0]}") from error
    return compiled
