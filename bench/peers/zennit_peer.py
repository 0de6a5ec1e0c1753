"""Zennit's DeconvNet composite. It runs forward in every call; switches are its own."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import numpy as np
import torch

from ..measure import Contender
from ..workload import Work
from . import OWN_SWITCHES
from .torch_module import fastest_batch, tower


def _import_zennit() -> None:
    """Zennit imports torchvision to recognise two of its classes, which we do not use.

    Beside a CPU build of PyTorch the torchvision of the package index does not load; then
    empty classes take the place of the two.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("torchvision", "torchvision.models", "torchvision.models.resnet"):
            sys.modules[name] = types.ModuleType(name)
        resnet = sys.modules["torchvision.models.resnet"]
        resnet.Bottleneck, resnet.BasicBlock = type("Bottleneck", (), {}), type("Basic", (), {})
    import zennit  # noqa: F401


_import_zennit()

from zennit.attribution import Gradient  # noqa: E402
from zennit.composites import DeconvNet  # noqa: E402


def project(work: Work, depth: int) -> Iterator[Contender]:
    """One feature a call, as its documentation shows; and many in a batch."""
    x = torch.from_numpy(work.x.copy())[None]
    count = len(work.given[depth - 1].activation)
    chosen = torch.eye(count)[:, :, None, None]
    documented = Gradient(tower(work, depth), DeconvNet())
    tuned = Gradient(
        tower(work, depth).to(memory_format=torch.channels_last), DeconvNet()
    )

    def attribute(method: Gradient, inputs: torch.Tensor) -> np.ndarray:
        with method as attributor:
            # The map of the feature alone is what goes back.
            _, maps = attributor(inputs, lambda output: output * chosen[: len(output)])
        return maps.numpy()

    def batch(size: int) -> np.ndarray:
        inputs = x.expand(size, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return attribute(tuned, inputs)

    size = fastest_batch(batch, count)
    yield Contender(
        "Zennit, one feature a call", lambda: attribute(documented, x.clone()),
        "Gradient(model, DeconvNet()), attr_output = the feature's map, a call per feature; "
        "extrapolated from one",
        whole=count, tolerance=OWN_SWITCHES,
    )
    yield Contender(
        "Zennit, batched", lambda: batch(size),
        f"the clip repeated, {size} features a call (the fastest), channels_last; "
        "extrapolated from one call",
        whole=count / size, tolerance=OWN_SWITCHES,
    )
