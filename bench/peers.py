"""The same work done by others, each as well as we know how.

`TorchTuned`  PyTorch with channels_last, filters flipped once and run as plain conv2d,
              the first step as unfold + bmm (one channel per feature), unpooling as
              upsampling times a mask made once, and as many features at a time as is
              fastest; the whole process keeps freed memory (see `keep_freed_memory`).
`TorchPlain`  PyTorch as one writes it: max_unpool2d, relu, conv_transpose2d, all
              features in one batch.
`Script2015`  the published algorithm in its own style, from its description: loops over
              features and channels around scipy.signal.convolve2d. It is given NumPy
              unpooling, which is kinder than the original.
"""

from __future__ import annotations

import ctypes

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)
from scipy.signal import convolve2d

import fastdeconv as fd

State = tuple[torch.Tensor, torch.Tensor, torch.Size]
"""(pooled activation, indices of the maxima, size before the pool) of a layer"""


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, so that no contender pays for page faults again."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold, most = -1, -3, 1 << 30
        mallopt(mmap_threshold, most)
        mallopt(trim_threshold, most)


def _weights(net: fd.Network) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (net.arrays[f"conv{i}.weight"], net.arrays[f"conv{i}.bias"])
        for i in range(1, len(net.pooling_layers) + 1)
    ]


class _Torch:
    """Shared set-up: weights, the forward pass, and switches as PyTorch has them."""

    memory_format = torch.contiguous_format

    def __init__(self, net: fd.Network, x: np.ndarray) -> None:
        self.params = [
            (
                torch.from_numpy(w.copy()).contiguous(memory_format=self.memory_format),
                torch.from_numpy(b.copy()),
            )
            for w, b in _weights(net)
        ]
        self.x = torch.from_numpy(x.copy())[None].contiguous(memory_format=self.memory_format)

    @torch.inference_mode()
    def forward(self) -> list[State]:
        """One `State` a layer."""
        value, out = self.x, []
        for weight, bias in self.params:
            value = F.relu(F.conv2d(value, weight, bias, padding=1))
            size = value.shape[-2:]
            value, indices = F.max_pool2d(value, 2, return_indices=True)
            out.append((value, indices, size))
        return out


def state_of(trace: fd.Trace) -> list[State]:
    """Our activations and switches as PyTorch's, so that both project the same thing."""
    states = []
    for i, name in enumerate(trace.network.pooling_layers, 1):
        h, w = trace[f"relu{i}"].shape[1:]
        switches = trace.switches(name).astype(np.int64)
        _, y, x = np.indices(switches.shape, sparse=True)
        indices = (2 * y + switches // 2) * w + 2 * x + switches % 2
        states.append((torch.from_numpy(trace[name].copy())[None],
                       torch.from_numpy(indices)[None], torch.Size((h, w))))
    return states


class TorchPlain(_Torch):
    """PyTorch as one writes it."""

    name = "PyTorch plain"

    @torch.inference_mode()
    def project(self, state: list[State], depth: int) -> np.ndarray:
        value = state[depth - 1][0][0]
        count = len(value)
        maps = torch.zeros((count, *value.shape))
        maps[torch.arange(count), torch.arange(count)] = value
        for layer in reversed(range(depth)):
            _, indices, size = state[layer]
            expanded = indices.expand(count, -1, -1, -1)
            maps = F.max_unpool2d(maps, expanded, 2, output_size=size)
            maps = F.conv_transpose2d(F.relu(maps), self.params[layer][0], padding=1)
        return maps.numpy()


class TorchTuned(_Torch):
    """PyTorch as fast as we could make it."""

    name = "PyTorch tuned"
    memory_format = torch.channels_last

    def __init__(self, net: fd.Network, x: np.ndarray, chunk: int = 8) -> None:
        super().__init__(net, x)
        self.chunk = chunk
        self.flipped = [
            w.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
            for w, _ in self.params
        ]
        # (feature, channel below, tap) of the first step's product
        self.rows = [w.flip(2, 3).flatten(2).contiguous() for w, _ in self.params]
        self._masks: dict[int, list[torch.Tensor]] = {}

    def _unpool_masks(self, state: list[State]) -> list[torch.Tensor]:
        """1 where a switch points, at the size before each pool (made once per clip)."""
        key = id(state)
        if key not in self._masks:
            masks = []
            for value, indices, size in state:
                ones = torch.ones_like(value).contiguous()
                mask = F.max_unpool2d(ones, indices.contiguous(), 2, output_size=size)
                masks.append(mask.contiguous(memory_format=torch.channels_last))
            self._masks = {key: masks}
        return self._masks[key]

    @staticmethod
    def _unpool(maps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        h, w = mask.shape[-2:]
        up = F.interpolate(maps, scale_factor=2, mode="nearest")
        return F.pad(up, (0, w - up.shape[-1], 0, h - up.shape[-2])).mul_(mask).relu_()

    @torch.inference_mode()
    def project(self, state: list[State], depth: int) -> np.ndarray:
        masks = self._unpool_masks(state)
        value = state[depth - 1][0]
        first = self._unpool(value, masks[depth - 1])[0]
        count, (h, w) = len(first), first.shape[-2:]
        out = torch.empty((count, 1, *self.x.shape[-2:]))
        for at in range(0, count, self.chunk):
            part = slice(at, min(at + self.chunk, count))
            columns = F.unfold(first[part, None], 3, padding=1)
            maps = torch.bmm(self.rows[depth - 1][part], columns)
            maps = maps.view(len(maps), -1, h, w).contiguous(memory_format=torch.channels_last)
            for layer in reversed(range(depth - 1)):
                maps = self._unpool(maps, masks[layer])
                maps = F.conv2d(maps, self.flipped[layer], padding=1)
            out[part] = maps
        return out.numpy()


class Script2015:
    """The published loops, for one feature."""

    name = "2015 script"

    def __init__(self, net: fd.Network) -> None:
        self.weights = [w for w, _ in _weights(net)]

    def project(self, trace: fd.Trace, depth: int, feature: int) -> np.ndarray:
        maps = np.zeros_like(trace[f"pool{depth}"])
        maps[feature] = trace[f"pool{depth}"][feature]
        for layer in reversed(range(depth)):
            below = trace[f"relu{layer + 1}"].shape[1:]
            switches = trace.switches(f"pool{layer + 1}")
            unpooled = np.maximum(_unpool(maps, switches, below), 0)
            weight = self.weights[layer]
            maps = np.zeros((weight.shape[1], *below), np.float32)
            for inner in range(weight.shape[1]):
                for outer in range(weight.shape[0]):
                    maps[inner] += convolve2d(
                        unpooled[outer], weight[outer, inner], mode="same"
                    )
        return maps


def _unpool(maps: np.ndarray, switches: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    out = np.zeros((len(maps), *size), np.float32)
    c, y, x = np.indices(maps.shape, sparse=True)
    out[c, 2 * y + switches // 2, 2 * x + switches % 2] = maps
    return out
