"""JAX (jit), channels last. The way back is written out from the switches, as masks over
windows: the transpose that `jax.vjp` derives for a max pool is slower."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..measure import Contender
from ..stages import Stage, places
from ..workload import Work
from .torch_module import fastest_batch

AXES = ("NHWC", "HWIO", "NHWC")


def forward(work: Work) -> Iterator[Contender]:
    """With switches, and activations alone."""
    x = jnp.asarray(work.x[None].transpose(0, 2, 3, 1))
    weights = [jnp.asarray(s.weight.transpose(2, 3, 1, 0)) for s in work.stages]
    biases = [jnp.asarray(s.bias) for s in work.stages]
    pools = [s.pool.kernel for s in work.stages]

    def run(x: jax.Array, weights: Any, biases: Any, switches: bool) -> Any:
        out = []
        for weight, bias, kernel in zip(weights, biases, pools):
            x = jax.nn.relu(_conv(x, weight, [(k // 2, k // 2) for k in weight.shape[:2]]) + bias)
            x, where = _pool(x, kernel)
            out.append((x, where if switches else None))
        return out

    for switches in (True, False):
        compiled = jax.jit(lambda x, w, b, s=switches: run(x, w, b, s))
        yield Contender(
            "JAX" if switches else "JAX, no switches",
            lambda c=compiled: jax.block_until_ready(c(x, weights, biases)),
            "jit, NHWC" + (", switches by comparing" if switches else ", activations only"),
            read=lambda out: _read(out, work.stages),
        )


def project(work: Work, depth: int) -> Iterator[Contender]:
    """All features of stage `depth`, so many at a time as is fastest."""
    start = jnp.asarray(work.given[depth - 1].activation)
    count = len(start)
    masks = [jnp.asarray(_mask(given.switches, stage))
             for stage, given in zip(work.stages[:depth], work.given)]
    weights = [jnp.asarray(s.weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1).copy())
               for s in work.stages[:depth]]
    stages = work.stages[:depth]

    @jax.jit
    def chunk(features: jax.Array, masks: Any, weights: Any, start: jax.Array) -> jax.Array:
        values = jax.nn.relu(start[features])[..., None]
        # (K, h, w, kernel, kernel, 1), the mask of each feature's own channel
        own = jnp.moveaxis(masks[-1], -1, 0)[features][..., None]
        plane = _spread(values, own, stages[-1].above)[..., 0]
        maps = _first(plane, weights[-1][:, :, features], stages[-1])
        for stage, mask, weight in zip(stages[-2::-1], masks[-2::-1], weights[-2::-1]):
            maps = _spread(jax.nn.relu(maps), mask, stage.above)
            maps = _conv(maps, weight, stage.way_back)
        return maps

    def run(size: int, count: int = count) -> np.ndarray:
        parts = [
            chunk(jnp.arange(at, at + size), masks, weights, start)
            for at in range(0, count, size)
        ]
        return np.concatenate([np.asarray(p) for p in parts])

    size = fastest_batch(lambda size: run(size, size), count)
    yield Contender(
        "JAX", lambda: run(size), f"jit of relu(maps) * mask and a convolution with flipped "
        f"filters, NHWC, {size} features at a time (the fastest)",
        read=lambda maps: maps.transpose(0, 3, 1, 2),
    )


def _conv(x: jax.Array, weight: jax.Array, padding: Any) -> jax.Array:
    return jax.lax.conv_general_dilated(x, weight, (1, 1), padding, dimension_numbers=AXES)


def _pool(x: jax.Array, kernel: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Maxima and which tap of the window they were (the first, if several)."""
    kh, kw = kernel
    h, w = x.shape[1] // kh, x.shape[2] // kw
    taps = [x[:, i : h * kh : kh, j : w * kw : kw] for i in range(kh) for j in range(kw)]
    most = taps[0]
    for tap in taps[1:]:
        most = jnp.maximum(most, tap)
    where = jnp.full(most.shape, len(taps) - 1, jnp.uint8)
    for i in range(len(taps) - 2, -1, -1):
        where = jnp.where(taps[i] == most, jnp.uint8(i), where)
    return most, where


def _mask(switches: np.ndarray, stage: Stage) -> np.ndarray:
    """(h, w, kernel, kernel, C): 1 where a switch points."""
    kh, kw = stage.pool.kernel
    taps = np.arange(kh * kw).reshape(kh, kw)
    return (switches[..., None, None] == taps).transpose(1, 2, 3, 4, 0).astype(np.float32)


def _spread(maps: jax.Array, mask: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Every value (K, h, w, C) times the mask of its window, as planes of `size`."""
    *_, h, w, kh, kw, channels = mask.shape
    wide = maps[:, :, :, None, None] * mask
    planes = wide.transpose(0, 1, 3, 2, 4, 5).reshape(len(maps), h * kh, w * kw, channels)
    return jnp.pad(planes, ((0, 0), (0, size[0] - h * kh), (0, size[1] - w * kw), (0, 0)))


def _first(plane: jax.Array, weight: jax.Array, stage: Stage) -> jax.Array:
    """One channel per feature: the sum over taps of shifted planes times rows of weights."""
    h, w = stage.below
    padded = jnp.pad(plane, ((0, 0), *stage.way_back))
    return sum(
        padded[:, i : i + h, j : j + w, None] * weight[i, j][:, None, None]
        for i in range(weight.shape[0])
        for j in range(weight.shape[1])
    )


def _read(out: Any, stages: list[Stage]) -> list[tuple[np.ndarray, np.ndarray | None]]:
    return [
        (_planes(value), None if where is None else places(_planes(where), stage))
        for (value, where), stage in zip(out, stages)
    ]


def _planes(value: jax.Array) -> np.ndarray:
    return np.asarray(value)[0].transpose(2, 0, 1)

