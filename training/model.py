"""The network as it is trained, and its conversion to the layers of the archive."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .settings import Shape


class Net(nn.Module):
    """Blocks of [conv 3x3, batch norm, max-pool 2x2, ReLU], mean over all places, linear.

    ReLU comes after the pool, because it is cheaper there. Both orders give the same result, and
    the archive has ReLU before the pool.
    """

    def __init__(self, shape: Shape, n_classes: int) -> None:
        super().__init__()
        widths = [1, *[shape.channels] * shape.layers]
        pairs = list(pairwise(widths))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o in pairs)
        self.dropout = nn.Dropout(shape.dropout)
        self.fc = nn.Linear(shape.channels, n_classes)
        with torch.no_grad():
            self.blocks()[0][0].weight.mul_(shape.first_layer_init_scale)
            for conv, _ in self.blocks()[1:]:
                conv.weight.mul_(shape.other_layers_init_scale)

    def blocks(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Return the convolution and the batch norm of each block."""
        pairs = zip(self.convs, self.norms, strict=True)
        return [(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm)) for conv, norm in pairs]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, 1, F, T) to logits (N, classes)."""
        for conv, norm in self.blocks():
            x = torch.relu(nn.functional.max_pool2d(norm(conv(x)), 2))
        logits: torch.Tensor = self.fc(self.dropout(x.mean(dim=(2, 3))))
        return logits


def folded(net: Net) -> dict[str, npt.NDArray[np.float32]]:
    """Return the arrays of the archive, with each batch norm folded into its convolution.

    Computed in float64 and rounded once.
    """
    arrays = {}
    for number, (conv, norm) in enumerate(net.blocks(), 1):
        mean, variance = (cast(torch.Tensor, x) for x in (norm.running_mean, norm.running_var))
        scale = norm.weight.detach().double() / (variance.double() + norm.eps).sqrt()
        weight = conv.weight.detach().double() * scale[:, None, None, None]
        bias = norm.bias.detach().double() - mean.double() * scale
        arrays[f"conv{number}.weight"] = weight.float().numpy()
        arrays[f"conv{number}.bias"] = bias.float().numpy()
    arrays["fc.weight"] = net.fc.weight.detach().float().numpy()
    arrays["fc.bias"] = net.fc.bias.detach().float().numpy()
    return arrays


def layer_records(n_layers: int) -> list[dict[str, Any]]:
    """Return the layers of the archive as records."""
    records: list[dict[str, Any]] = []
    for number in range(1, n_layers + 1):
        records += [
            {"type": "conv2d", "name": f"conv{number}", "padding": "same", "bias": True},
            {"type": "relu", "name": f"relu{number}"},
            {"type": "max_pool2d", "name": f"pool{number}", "kernel_size": 2, "stride": 2},
        ]
    return [
        *records,
        {"type": "global_avg_pool2d", "name": "mean"},
        {"type": "flatten", "name": "flat"},
        {"type": "linear", "name": "fc", "bias": True},
    ]


def logits_from_arrays(arrays: dict[str, npt.NDArray[np.float32]], x: torch.Tensor) -> torch.Tensor:
    """Run the archive's arrays with plain PyTorch functions: (N, 1, F, T) to (N, classes)."""
    weights = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    number = 1
    while f"conv{number}.weight" in weights:
        kernel, bias = weights[f"conv{number}.weight"], weights[f"conv{number}.bias"]
        x = torch.relu(nn.functional.conv2d(x, kernel, bias, padding=1))
        x = nn.functional.max_pool2d(x, 2)
        number += 1
    return nn.functional.linear(x.mean(dim=(2, 3)), weights["fc.weight"], weights["fc.bias"])


def cosines(net: Net, initial: dict[str, torch.Tensor]) -> list[float]:
    """For each layer the median cosine between its filters now and at the start.

    Near 1, the filters of a layer are still those of their random initialisation.
    """
    medians = []
    for number, (conv, _) in enumerate(net.blocks()):
        now = conv.weight.detach().flatten(1)
        then = initial[f"convs.{number}.weight"].flatten(1)
        medians.append(float(nn.functional.cosine_similarity(now, then).median()))
    return medians
