"""Convolutions of small maps with many channels: how they are divided must not change a bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.kernels import native_forward
from fastdeconv.kernels.activations import InKernel
from fastdeconv.kernels.block_stages import CHANNELS as CHANNEL_AXIS
from fastdeconv.kernels.block_stages import BlockStages
from fastdeconv.kernels.blocks import ConvBlock, Epilogue, ForwardBlock, Pool, PoolBlock
from fastdeconv.kernels.dispatch import get_backend
from fastdeconv.kernels.interface import FloatArray, Window

ISAS = fd.available_isas()
NO_PADDING = ((0, 0), (0, 0))
ONE = ((1, 1), (1, 1))
CHANNELS = 80
"""Whole vectors of every instruction set, and an odd number of pairs of them."""
POOLS = {
    "no pool": None, "2x2": Window((2, 2), (2, 2), (1, 1), NO_PADDING),
    "3x3": Window((3, 3), (2, 2), (1, 1), NO_PADDING),
    "whole columns": Window((6, 1), (6, 1), (1, 1), NO_PADDING),
}


def make_block(inputs: int, size: tuple[int, int], pool: Window | None) -> ConvBlock:
    """A 3 x 3 convolution with everything that can follow; room for another one around it."""
    rng = np.random.default_rng(inputs)
    def normal(*shape: int) -> FloatArray:
        return rng.normal(size=shape).astype(np.float32)

    out = size
    if pool is not None:
        out = tuple(  # type: ignore[assignment]
            (n - k) // s + 1 for n, k, s in zip(size, pool.kernel, pool.stride)
        )
    affine = normal(CHANNELS), normal(CHANNELS)
    weight, bias = normal(CHANNELS, inputs, 3, 3), normal(CHANNELS)
    epilogue = Epilogue(affine, InKernel("leaky", 0.0), np.abs(normal(CHANNELS)), None)
    return ConvBlock(
        sources=(-1,), key=0, shape=(CHANNELS, *out), room=ONE, weight=weight, bias=bias,
        window=Window((3, 3), (1, 1), (1, 1), ONE), groups=1, out_size=size, epilogue=epilogue,
        pool=pool and Pool(pool), cache={},
    )


def run(x: FloatArray, block: ForwardBlock, num_threads: int = 1) -> tuple[Any, Any, Any]:
    """The buffer with its room, the values as planes, and the switches."""
    backend: Any = get_backend("native")
    ((value, switches),) = backend.forward_blocks({-1: x}, [block], "auto", num_threads)
    if switches is not None:
        switches = switches[:, :, : block.shape[0]].copy()
    return value.buffer.copy(), value.planes(), switches


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("width", [2, 7, 19])
@pytest.mark.parametrize("inputs", [20, 130])
def test_ranges_of_channels_have_the_bits_of_ranges_of_rows(isa, pool, width, inputs, monkeypatch):
    if pool == "3x3" and width == 2:
        width = 3
    x = np.random.default_rng(width).normal(size=(inputs, 6, width)).astype(np.float32)
    found = []
    with fd.config(backend="native", isa=isa):
        for cached, threads in ((2**60, 1), (0, 1), (0, 3)):
            monkeypatch.setattr(native_forward, "_CACHED", cached)
            found.append(run(x, make_block(inputs, (6, width), POOLS[pool]), threads))
    for other in found[1:]:
        for got, wanted in zip(other, found[0]):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("counted", [False, True])
def test_pools_over_a_whole_map_have_the_same_bits_in_ranges_of_channels(isa, counted, monkeypatch):
    height, width = 6, 41
    x = np.random.default_rng(0).normal(size=(CHANNELS - 3, height, width)).astype(np.float32)
    counts = np.full((1, 1), height * width, np.float32) if counted else None
    window = Window((height, width), (1, 1), (1, 1), NO_PADDING)
    found, axes = [], []
    monkeypatch.setattr(native_forward, "enough_threads", lambda threads, work: threads)
    make_job = native_forward._pool_job

    def noted(*given: Any) -> Any:
        job = make_job(*given)
        axes.append(job.axis)
        return job

    monkeypatch.setattr(native_forward, "_pool_job", noted)
    with fd.config(backend="native", isa=isa):
        for least in (2**60, 0):
            monkeypatch.setattr(native_forward, "_LONG_POOL", least)
            block = PoolBlock(
                sources=(-1,), key=0, shape=(CHANNELS - 3, 1, 1), room=ONE, cache={},
                pool=Pool(window, counts),
            )
            found.append(run(x, block, 2))
    assert axes == [0, CHANNEL_AXIS]
    for got, wanted in zip(*found):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("inputs", [20, 512])
@pytest.mark.parametrize("width", [1, 2, 5, 11])
def test_short_rows_have_the_bits_of_long_ones(isa, inputs, width):
    x = np.zeros((inputs, 7, 40), np.float32)
    x[:, :, :width] = np.random.default_rng(0).normal(size=(inputs, 7, width))
    with fd.config(backend="native", isa=isa):
        _, short, _ = run(x[:, :, :width].copy(), make_block(inputs, (7, width), None))
        _, long, _ = run(x, make_block(inputs, (7, 40), None))
    np.testing.assert_array_equal(short, long[:, :, :width])


def test_what_takes_ranges_of_channels_waits_for_all_of_them():
    stages = BlockStages(3)
    stages.add(0, None, 4, CHANNEL_AXIS, 1, (-1,), ())
    ranges = len(stages.all[0].edges) - 1
    assert ranges > 1
    for key, axis in ((1, CHANNEL_AXIS), (2, 0)):
        stages.add(key, None, 4, axis, 1, (0,), ())
        assert set(stages.all[-1].needs) == {ranges}


@pytest.mark.parametrize(("channels", "height", "is_cut"), [(512, 6, True), (64, 30, False)])
def test_channels_are_cut_only_into_as_many_ranges_as_there_are_rows(channels, height, is_cut):
    weight = np.zeros((channels, 1024, 3, 3), np.float32)
    block = dataclasses.replace(
        make_block(20, (height, 40), None), shape=(channels, height, 40), weight=weight
    )
    with fd.config(backend="native"):
        width = native_forward.kernels().width
        out = native_forward.Channels(np.zeros(0), 0, 0, block.shape)
        each = native_forward._channels_each(block, out, 0, width, 16)
    assert bool(each) == is_cut
    assert not is_cut or channels // each >= height
