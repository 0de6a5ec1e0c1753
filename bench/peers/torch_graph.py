"""Networks with branches in PyTorch: the way back as fast as we could make it, and as a module.

As in `torch_tuned`: whatever one clip decides is made once, batch norms are folded into the
convolutions before them, many features go together, nothing is computed for weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)

import fastdeconv as fd
from fastdeconv.deconvnet.layerwise import activation_slope, affine_of
from fastdeconv.network import layers as nn

Back = Callable[[torch.Tensor], list[torch.Tensor]]


class Settings(NamedTuple):
    """What depends on the shapes."""

    chunk: int = 8
    """features at a time"""
    channels_last: bool = True
    transposed: bool = False
    """conv_transpose2d also where conv2d with flipped filters would do"""

    def __str__(self) -> str:
        return (
            f"{self.chunk} features at a time, "
            f"{'channels_last' if self.channels_last else 'contiguous'}, "
            f"{'conv_transpose2d' if self.transposed else 'conv2d where it can be'}"
        )


class TorchGraph:
    """Projects features of the last layer of a trace to the input, under one rule."""

    def __init__(
        self, trace: fd.Trace, count: int, rule: str = "deconvnet",
        settings: Settings = Settings(),  # noqa: B008  (immutable)
    ) -> None:
        self.trace, self.net, self.rule, self.settings = trace, trace.network, rule, settings
        self.shapes = [trace.x.shape, *self.net.shapes(trace.x.shape)]
        self.format = torch.channels_last if settings.channels_last else torch.contiguous_format
        last = len(self.net.layers) - 1
        values = torch.tensor(trace.activation(last)[:count])
        self.start = torch.zeros(len(values), *trace.activation(last).shape)
        self.start[torch.arange(count), torch.arange(count)] = values
        self.folded = {
            sources[0]
            for place, sources in enumerate(self.net.sources)
            if isinstance(self.net.layers[place], nn.BatchNorm2d)
        }
        self.steps = [self._step(place) for place in range(last + 1)]

    @torch.inference_mode()
    def project(self) -> np.ndarray:
        """Maps (K, C, H, W)."""
        parts = [
            self._chunk(self.start[at : at + self.settings.chunk])
            for at in range(0, len(self.start), self.settings.chunk)
        ]
        return torch.cat(parts).numpy()

    def _chunk(self, start: torch.Tensor) -> torch.Tensor:
        reached = {len(self.steps) - 1: start.contiguous(memory_format=self.format)}
        for place in range(len(self.steps) - 1, -1, -1):
            sent = self.steps[place](reached.pop(place))
            for source, maps in zip(self.net.sources[place], sent):
                reached[source] = reached[source] + maps if source in reached else maps
        return reached[-1]

    def _step(self, place: int) -> Back:
        layer: Any = self.net.layers[place]
        inputs = [self.trace.activation(i) for i in self.net.sources[place]]
        if isinstance(layer, nn.Conv2d):
            return self._conv(place, layer)
        if isinstance(layer, nn.BatchNorm2d) and self.net.sources[place][0] in self.folded:
            return lambda maps: [maps]
        if isinstance(layer, nn.ReLU):
            active = self._tensor(self.trace.activation(place) > 0)
            if self.rule == "deconvnet":
                return lambda maps: [maps.clamp_min(0)]
            if self.rule == "guided":
                return lambda maps: [maps.clamp_min(0).mul_(active)]
            return lambda maps: [maps * active]
        if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
            return self._unpool(place, layer)
        if isinstance(layer, nn.Elementwise):
            slope = self._tensor(self._slope(place))
            return lambda maps: [maps * slope]
        if isinstance(layer, nn.Add):
            return lambda maps: [maps] * len(inputs)
        if isinstance(layer, nn.Multiply):
            x, gate = map(self._tensor, inputs)
            return lambda maps: [maps * gate, (maps * x).sum((2, 3), keepdim=True)]
        if isinstance(layer, nn.ReduceMean):
            _, h, w = inputs[0].shape
            return lambda maps: [(maps / (h * w)).expand(-1, -1, h, w)]
        raise NotImplementedError(layer.label)

    def _conv(self, place: int, layer: Any) -> Back:
        weight = torch.tensor(self.net.arrays[f"{layer.name}.weight"])
        if place in self.folded:
            norm = self.net.sources.index((place,))
            scale, _ = affine_of(self.net, norm)
            weight = weight * torch.tensor(scale, dtype=torch.float32)[:, None, None, None]
        (h, w), out = self._size(self.net.sources[place][0]), self._size(place)
        window = layer.window((h, w), self.net.arrays)
        (top, bottom), (left, right) = window.padding
        assert (top, left) == (bottom, right) and window.dilation == (1, 1)
        if window.stride == (1, 1) and not self.settings.transposed:
            groups = layer.groups
            flipped = weight.flip(2, 3).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
            flipped = flipped.contiguous(memory_format=self.format)
            padding = window.kernel[0] - 1 - top, window.kernel[1] - 1 - left
            return lambda maps: [F.conv2d(maps, flipped, padding=padding, groups=groups)]
        weight = weight.contiguous(memory_format=self.format)
        extra = tuple(
            n - ((m - 1) * s - 2 * p + k)
            for n, m, s, p, k in zip((h, w), out, window.stride, (top, left), window.kernel)
        )
        return lambda maps: [F.conv_transpose2d(
            maps, weight, stride=window.stride, padding=(top, left), output_padding=extra,
            groups=layer.groups,
        )]

    def _unpool(self, place: int, layer: Any) -> Back:
        """Every value times the mask of its window."""
        window = layer.window((1, 1), self.net.arrays)
        kh, kw = window.kernel
        assert window.stride == window.kernel and window.padding == ((0, 0), (0, 0))
        c, h, w = self.shapes[place + 1]
        mask = np.zeros((c, h, w, kh * kw), np.float32)
        if isinstance(layer, nn.MaxPool2d):
            switches = self.trace.switch_planes(place).astype(np.int64)
            np.put_along_axis(mask, switches[..., None], 1, axis=-1)
        else:
            mask[...] = 1 / (kh * kw)
        planes = mask.reshape(c, h, w, kh, kw).transpose(0, 1, 3, 2, 4).reshape(c, h * kh, w * kw)
        spread = self._tensor(planes).unflatten(2, (h, kh)).unflatten(4, (w, kw))
        height, width = self._size(self.net.sources[place][0])

        def back(maps: torch.Tensor) -> list[torch.Tensor]:
            out = torch.zeros(len(maps), c, height, width).to(memory_format=self.format)
            windows = out[:, :, : h * kh, : w * kw]
            windows = windows.unflatten(2, (h, kh)).unflatten(4, (w, kw))
            torch.mul(maps[:, :, :, None, :, None], spread, out=windows)
            return [out]

        return back

    def _slope(self, place: int) -> np.ndarray:
        return activation_slope(self.trace, place)

    def _size(self, place: int) -> tuple[int, int]:
        _, h, w = self.shapes[place + 1]
        return h, w

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        tensor = torch.tensor(values, dtype=torch.float32)[None]
        return tensor.contiguous(memory_format=self.format)


class GraphModule(torch.nn.Module):
    """A network as a module, for libraries that attribute modules."""

    def __init__(self, net: fd.Network) -> None:
        super().__init__()
        self.sources = net.sources
        self.steps = torch.nn.ModuleList(_module(layer, net) for layer in net.layers)
        # Nobody asks for the gradients of the weights: libraries are spared them.
        self.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {-1: x}
        for place, (step, sources) in enumerate(zip(self.steps, self.sources)):
            values[place] = step(*(values[k] for k in sources))
        return values[place]


def _module(layer: Any, net: fd.Network) -> torch.nn.Module:
    arrays = {
        key[len(layer.name) + 1 :]: torch.tensor(net.arrays[key]) for key in layer.array_names
    }
    if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
        window = layer.window((1, 1), net.arrays)
        assert all(before == after for before, after in window.padding)
        padding = tuple(before for before, _ in window.padding)
        if isinstance(layer, nn.MaxPool2d):
            return torch.nn.MaxPool2d(window.kernel, window.stride, padding)
        weight = arrays["weight"]
        conv = torch.nn.Conv2d(
            weight.shape[1] * layer.groups, len(weight), window.kernel, window.stride, padding,
            groups=layer.groups, bias=layer.bias,
        )
        conv.load_state_dict(arrays)
        return conv
    if isinstance(layer, nn.BatchNorm2d):
        norm = torch.nn.BatchNorm2d(len(arrays["weight"]), layer.eps)
        norm.load_state_dict(arrays, strict=False)
        return norm
    known = {"relu": torch.nn.ReLU, "hardswish": torch.nn.Hardswish,
             "hardsigmoid": torch.nn.Hardsigmoid, "add": _Add, "multiply": _Multiply,
             "reduce_mean": _Mean}
    return known[layer.type]()


class _Add(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class _Multiply(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * y


class _Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True)


def tuned(trace: fd.Trace, count: int, rule: str = "deconvnet") -> TorchGraph:
    """`TorchGraph` with its fastest settings for this work, one setting after another."""
    def seconds(settings: Settings) -> float:
        few = min(count, max(settings.chunk, 8))
        peer = TorchGraph(trace, few, rule, settings)
        peer.project()
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            peer.project()
            times.append(time.perf_counter() - begin)
        return min(times) / few

    best = Settings(chunk=min(8, count))
    least = seconds(best)
    for change in _changes(count):
        trial = best._replace(**change)
        if trial != best and (took := seconds(trial)) < least:
            best, least = trial, took
    return TorchGraph(trace, count, rule, best)


def _changes(count: int) -> Iterator[dict[str, Any]]:
    yield {"channels_last": False}
    yield {"transposed": True}
    for chunk in (1, 2, 4, 16, 32, 64):
        if chunk <= count:
            yield {"chunk": chunk}
    yield {"channels_last": False}
    yield {"channels_last": True}
