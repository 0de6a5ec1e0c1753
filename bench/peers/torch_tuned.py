"""PyTorch as fast as we could make it.

Switches become masks once per clip; a step is `relu(maps) * mask`, broadcast over each
window straight into the convolution's padded input, then a plain `conv2d` with filters
flipped once. The first step has one channel per feature: `max_unpool2d`, then a depthwise
convolution (to one channel) or unfold + bmm. The last step may be one matrix product and
`fold`. Which of the settings below is fastest depends on the shapes, so `tuned` tries them
on the case at hand. Tried and slower: `max_unpool2d` further down, nearest-neighbour
`interpolate` times a mask, four strided products, other orders of the last step's product.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (everyone's name for it)

import fastdeconv as fd

from ..measure import Contender
from ..stages import Given, Stage, places
from ..workload import Work
from . import BFLOAT16


class Settings(NamedTuple):
    """What depends on the shapes; see `tuned`."""

    chunk: int = 8
    """features at a time"""
    channels_last: bool = True
    transposed: bool = False
    """conv_transpose2d instead of conv2d with flipped filters"""
    fold: bool = True
    """the last step as matrix product + fold"""

    def __str__(self) -> str:
        return (
            f"{self.chunk} feature{'s' * (self.chunk > 1)} at a time, "
            f"{'channels_last' if self.channels_last else 'contiguous'}, "
            f"{'conv_transpose2d' if self.transposed else 'conv2d'}, last step as "
            f"{'matmul + fold' if self.fold else 'a convolution'}"
        )


class TorchTuned:
    """Projects `features` from `values` (K, h, w) at the output of the last of `stages`.

    Whatever can be made once per clip is made here.
    """

    name = "PyTorch tuned"

    def __init__(
        self,
        stages: list[Stage],
        given: list[Given],
        features: np.ndarray,
        values: np.ndarray,
        rule: str = "deconvnet",
        settings: Settings = Settings(),  # noqa: B008  (immutable)
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        self.device = device
        self.features = torch.tensor(features, device=device)
        self.start = torch.tensor(values, dtype=dtype, device=device)
        self.stages, self.given, self.settings, self.dtype = stages, given, settings, dtype
        self.rectify = rule != "gradient"
        self.format = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.steps = [
            _Step(stage, state, rule, self)
            for stage, state in zip(stages, given)
        ]

    @torch.inference_mode()
    def project(self) -> np.ndarray:
        """Maps (K, C, H, W)."""
        channels, (h, w) = self.stages[0].weight.shape[1], self.stages[0].below
        out = torch.empty((len(self.start), channels, h, w), device=self.device)
        for at in range(0, len(self.start), self.settings.chunk):
            part = slice(at, at + self.settings.chunk)
            out[part] = self.chunk(self.features[part], self.start[part])
        return out.cpu().numpy()

    def chunk(self, features: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The maps of a few features."""
        maps = self.steps[-1].first(features, values)
        for step in reversed(self.steps[:-1]):
            maps = step(maps)
        return maps


class _Step:
    """One stage, backwards."""

    def __init__(self, stage: Stage, state: Given, rule: str, of: TorchTuned) -> None:
        self.stage, self.format = stage, of.format
        self.rectify = of.rectify and state.slope is None
        gate = state.active if rule != "deconvnet" else None
        if state.slope is not None:
            gate = state.slope
        self.masks = _masks(stage, state, gate, of)
        self.places = self.gate = None
        if stage.pool is not None and not stage.is_average:
            self.places = torch.tensor(places(state.switches, stage), device=of.device)
        if gate is not None:
            self.gate = torch.tensor(gate, dtype=of.dtype, device=of.device)[None]
        weight = torch.tensor(stage.weight, dtype=of.dtype, device=of.device)
        kernel = weight.flip(2, 3)
        # (feature, tap, channel below) of the first step's product
        self.rows = kernel.flatten(2).transpose(1, 2).contiguous()
        self.columns = weight.flatten(1).contiguous()
        self.weight = weight.contiguous(memory_format=of.format)
        self.flipped = kernel.transpose(0, 1).contiguous(memory_format=of.format)
        self.bottom = stage is of.stages[0] and of.settings.fold
        self.transposed = of.settings.transposed
        self._rooms: dict[int, torch.Tensor] = {}

    # ---- unpool and rectify ----

    def _room(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(the convolution's input, the part of it that holds the unpooled maps).

        What conv2d cannot pad, as it differs between two sides, is kept in it as zeros.
        """
        count = len(maps)
        (top, bottom), (left, right) = self._uneven()
        h, w = self.stage.above
        if count not in self._rooms:
            size = (count, maps.shape[1], h + top + bottom, w + left + right)
            self._rooms = {count: maps.new_zeros(size).to(memory_format=self.format)}
        room = self._rooms[count]
        return room, room[:, :, top : top + h, left : left + w]

    def _uneven(self) -> tuple[tuple[int, int], tuple[int, int]]:
        if self.bottom or self.transposed:
            return (0, 0), (0, 0)
        sides = [(low - min(low, high), high - min(low, high)) for low, high in self.stage.way_back]
        return sides[0], sides[1]

    def unpool(self, maps: torch.Tensor) -> torch.Tensor:
        """The convolution's input for maps at the stage's output."""
        pool = self.stage.pool
        if pool is None:
            room, inside = self._room(maps)
            if self.rectify:
                torch.clamp_min(maps, 0, out=inside)
            else:
                inside.copy_(maps)
        elif not pool.overlapping:
            if self.rectify:  # a value moves unchanged: rectify where there are fewer
                maps = maps.relu_()
            room, inside = self._room(maps)
            _spread(inside, pool.kernel, maps, self.masks[0])
        else:
            room, inside = self._room(maps)
            inside.zero_()
            for part, mask in self._windows(inside, maps):
                part.addcmul_(maps, mask)
            if self.rectify:
                inside.relu_()
        if self.gate is not None and (pool is None or pool.overlapping):
            inside.mul_(self.gate)  # else in the mask already
        return room

    # ---- transposed convolution ----

    def first(self, features: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """From one channel per feature: a depthwise convolution or a product per feature."""
        plane = self._first_plane(features, values)
        count, (h, w) = len(features), self.stage.below
        (top, bottom), (left, right) = self.stage.way_back
        padding = (top, left)
        if top != bottom or left != right:
            plane, padding = F.pad(plane, (left, right, top, bottom)), (0, 0)
        if self.rows.shape[2] == 1:
            filters = self.flipped[0, features, None]
            return F.conv2d(plane[None], filters, padding=padding, groups=count)[0, :, None]
        columns = F.unfold(plane[:, None], self.stage.conv.kernel, padding=padding)
        maps = torch.bmm(columns.transpose(1, 2), self.rows[features])
        return maps.transpose(1, 2).unflatten(2, (h, w)).contiguous(memory_format=self.format)

    def _first_plane(self, features: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The unpooled and rectified channel of each feature: (K, H, W)."""
        pool = self.stage.pool
        if pool is None:
            plane = values
        elif self.stage.is_average:
            room = values.new_zeros((len(values), 1, *self.stage.above))
            _spread(room, pool.kernel, values[:, None], self.masks[0][:, :1])
            plane = room[:, 0]
        elif pool.overlapping:
            plane = values.new_zeros((len(values), *self.stage.above))
            for part, mask in self._windows(plane, values):
                part.addcmul_(values, mask[0, features])
        else:
            plane = F.max_unpool2d(
                values, self.places[features], pool.kernel, output_size=self.stage.above
            )
        if self.rectify:
            plane = plane.relu()
        return plane if self.gate is None else plane * self.gate[0, features]

    def _windows(
        self, planes: torch.Tensor, maps: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(every window's element at a tap, as a view of `planes`; mask of that tap)."""
        pool = self.stage.pool
        assert pool is not None
        h, w = maps.shape[-2:]
        for (i, j), mask in zip(np.ndindex(*pool.kernel), self.masks):
            rows = slice(i, i + (h - 1) * pool.stride[0] + 1, pool.stride[0])
            columns = slice(j, j + (w - 1) * pool.stride[1] + 1, pool.stride[1])
            yield planes[..., rows, columns], mask

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        room = self.unpool(maps)
        (top, bottom), (left, right) = self.stage.way_back
        h, w = self.stage.below
        if self.bottom:
            # (K, channel below and tap, place); fold is the adjoint of unfold
            flat = room.permute(0, 2, 3, 1).flatten(1, 2)
            columns = torch.matmul(self.columns.t(), flat.transpose(1, 2))
            (up, down), (before, after) = self.stage.conv.padding
            size = (h + up + down, w + before + after)
            maps = F.fold(columns, size, self.stage.conv.kernel)
            return maps[:, :, up : up + h, before : before + w]
        if self.transposed:
            (up, _), (before, _) = self.stage.conv.padding
            maps = F.conv_transpose2d(room, self.weight)
            return maps[:, :, up : up + h, before : before + w]
        return F.conv2d(room, self.flipped, padding=(min(top, bottom), min(left, right)))


def _spread(
    out: torch.Tensor, kernel: tuple[int, int], maps: torch.Tensor, mask: torch.Tensor
) -> None:
    """Every value times the mask of its window, into `out` (windows side by side)."""
    h, w = maps.shape[2:]
    windows = out[:, :, : h * kernel[0], : w * kernel[1]]
    windows = windows.unflatten(2, (h, kernel[0])).unflatten(4, (w, kernel[1]))
    torch.mul(maps[:, :, :, None, :, None], mask, out=windows)


def _masks(
    stage: Stage, state: Given, gate: np.ndarray | None, of: TorchTuned
) -> list[torch.Tensor]:
    """Where switches point, as numbers to multiply by; for pools of disjoint windows one
    mask (1, C, h, kernel, w, kernel), gate included, else one (1, C, h, w) per tap."""
    if stage.pool is None:
        return []
    if stage.is_average:
        assert gate is None and not stage.pool.overlapping
        (kh, kw), (c, h, w) = stage.pool.kernel, state.activation.shape
        mask = torch.full((1, c, h * kh, w * kw), 1 / (kh * kw), dtype=of.dtype, device=of.device)
        mask = mask.contiguous(memory_format=of.format)
        return [mask.unflatten(2, (h, kh)).unflatten(4, (w, kw))]
    assert state.switches is not None
    assert stage.pool.padding == ((0, 0), (0, 0)) and stage.pool.dilation == (1, 1)
    if stage.pool.overlapping:
        taps = range(stage.pool.kernel[0] * stage.pool.kernel[1])
        masks = [
            torch.tensor(state.switches == tap, dtype=of.dtype, device=of.device)[None]
            for tap in taps
        ]
        return [mask.contiguous(memory_format=of.format) for mask in masks]
    assert stage.pool.stride == stage.pool.kernel
    (kh, kw), (_, h, w) = stage.pool.kernel, state.switches.shape
    flat = np.zeros((len(state.switches), stage.above[0] * stage.above[1]), np.float32)
    at = places(state.switches, stage).reshape(len(flat), -1)
    np.put_along_axis(flat, at, 1, axis=1)
    mask = flat.reshape(len(flat), *stage.above)
    if gate is not None:
        mask *= gate
    planes = torch.tensor(mask[:, : h * kh, : w * kw], dtype=of.dtype, device=of.device)[None]
    planes = planes.contiguous(memory_format=of.format)
    return [planes.unflatten(2, (h, kh)).unflatten(4, (w, kw))]


_TRIAL = 0.2
"""Seconds a setting that may be the fastest is tried for."""


def tuned(
    stages: list[Stage],
    given: list[Given],
    features: np.ndarray,
    values: np.ndarray,
    rule: str = "deconvnet",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> TorchTuned:
    """`TorchTuned` with its fastest settings for this work, one setting after another."""
    def seconds(settings: Settings) -> float:
        """Per feature, of as few as show it."""
        # One layer is all memory: what of a few features fits a cache says nothing of many.
        few = slice(0, max(settings.chunk, 8) if len(stages) > 1 else None)
        peer = TorchTuned(stages, given, features[few], values[few], rule, settings, dtype, device)
        peer.project()
        times: list[float] = []
        most = 1.2 * least * len(peer.start)
        # What takes a millisecond is told from noise by its fastest of many.
        while len(times) < 2 or (sum(times) < _TRIAL and min(times) < most):
            begin = time.perf_counter()
            peer.project()
            times.append(time.perf_counter() - begin)
        return min(times) / len(peer.start)

    least = float("inf")
    best = Settings(chunk=min(8, len(features)))
    for change in ({}, *_changes(len(features), len(stages))):
        trial = best._replace(**change)
        if not change or trial != best:
            took = seconds(trial)
            if took < least:
                best, least = trial, took
    return TorchTuned(stages, given, features, values, rule, best, dtype, device)


def project(work: Work, depth: int) -> Iterator[Contender]:
    """All features of stage `depth`; of the last stage in bfloat16, too."""
    peer = tuned_for(work, depth)
    yield Contender("PyTorch tuned", peer.project, str(peer.settings))
    if depth == len(work.stages):
        half = tuned_for(work, depth, torch.bfloat16)
        yield Contender(
            "PyTorch tuned, bf16", half.project, f"all in bfloat16; {half.settings}",
            tolerance=BFLOAT16,
        )


_known: dict[tuple[fd.Network, int, torch.dtype, str], TorchTuned] = {}


def tuned_for(
    work: Work, depth: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> TorchTuned:
    """`tuned` for all features of stage `depth`, from their whole maps; searched once."""
    key = work.network, depth, dtype, device
    if key not in _known:
        values = work.given[depth - 1].activation
        stages, given = work.stages[:depth], work.given[:depth]
        _known[key] = tuned(
            stages, given, np.arange(len(values)), values, dtype=dtype, device=device
        )
    return _known[key]


def _changes(features: int, depth: int) -> Iterator[dict[str, int | bool]]:
    if depth > 1:
        yield {"fold": False}
        yield {"transposed": True}
        yield {"channels_last": False}
    for chunk in (1, 4, 16, 32, features):
        if chunk <= min(features, 64):
            yield {"chunk": chunk}
