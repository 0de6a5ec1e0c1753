"""The pool that a convolution takes along: which value wins, and which values are summed again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.kernels import reference
from fastdeconv.kernels.blocks import ConvBlock, Epilogue, Pool
from fastdeconv.kernels.dispatch import get_backend
from fastdeconv.kernels.interface import Window

ISAS = fd.available_isas()
NO_PADDING = ((0, 0), (0, 0))
PLAIN = Window((2, 2), (2, 2), (1, 1), NO_PADDING)
WIDE = Window((3, 3), (2, 2), (1, 1), NO_PADDING)
PART = 64
"""Input channels that are summed at a time where there are as many."""
CHANNELS = 16
"""As many as the widest vector has lanes, and enough inputs for Winograd's algorithm."""


def block(weight: np.ndarray, size: tuple[int, int], pool: Window, pooled: Any) -> ConvBlock:
    kernel = weight.shape[2:]
    window = Window(kernel, (1, 1), (1, 1), NO_PADDING)
    out = size[0] - kernel[0] + 1, size[1] - kernel[1] + 1
    return ConvBlock(
        sources=(-1,), key=0, shape=(len(weight), *pooled), room=NO_PADDING, weight=weight,
        bias=None, window=window, groups=1, out_size=out, epilogue=Epilogue(), pool=Pool(pool),
        cache={},
    )


def run(x: np.ndarray, one: ConvBlock, algorithm: str = "direct") -> tuple[Any, Any]:
    """Values and switches, planes."""
    backend: Any = get_backend("native")
    ((value, switches),) = backend.forward_blocks({-1: x}, [one], algorithm, 1)
    return value.planes(1), switches[:, :, : len(one.weight)].transpose(2, 0, 1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pool", [PLAIN, WIDE], ids=["2x2", "3x3"])
def test_the_first_nan_of_a_window_wins(isa, pool):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((CHANNELS, 13, 17)).astype(np.float32)
    x[:, rng.random((13, 17)) < 0.3] = np.nan
    weight = np.ascontiguousarray(np.eye(CHANNELS, dtype=np.float32)[:, :, None, None])
    size = (6, 8)
    with fd.config(backend="native", isa=isa):
        values, switches = run(x, block(weight, (13, 17), pool, size))
    seen = np.where(np.isnan(x).any(axis=0), np.nan, x)
    wanted, places = reference.max_pool2d(seen[None], pool, size)
    assert np.isnan(wanted).any() and not np.isnan(wanted).all()
    np.testing.assert_array_equal(values, wanted[0])
    np.testing.assert_array_equal(switches, places[0])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["base", "slope"])
def test_exactly_the_values_in_doubt_are_summed_again(isa, kind, monkeypatch):
    """With a bound of our own: values of windows whose best two sums are closer than twice that
    have the bits of the direct kernel, all others those of Winograd's algorithm."""
    native_forward = pytest.importorskip("fastdeconv.kernels.native_forward")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((CHANNELS, 42, 38)).astype(np.float32)
    weight = rng.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32)

    def found(slope: float, base: float, algorithm: str = "auto") -> np.ndarray:
        bounds = tuple(np.full(CHANNELS, value, np.float32) for value in (slope, base))
        monkeypatch.setattr(native_forward, "error_bound", lambda *_: bounds)
        return run(x, block(weight, (42, 38), PLAIN, (20, 18)), algorithm)[0]

    with fd.config(backend="native", isa=isa):
        direct, quick = found(0, 0, "direct"), found(0, -1)
        assert (direct != quick).mean() > 0.3
        patches = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), (1, 2))
        sums = np.einsum("cyxij,ocij->oyx", patches, weight.astype(np.float64))
        sums = sums.reshape(CHANNELS, 20, 2, 18, 2).swapaxes(2, 3).reshape(CHANNELS, 20, 18, 4)
        gaps = np.diff(np.sort(sums, axis=3)[..., 2:])[..., 0]
        norms = np.sqrt((patches**2).sum(axis=(0, 3, 4)))
        norms = norms.reshape(20, 2, 18, 2).max(axis=(1, 3))
        size = np.ones((20, 18)) if kind == "base" else norms
        factor = float(np.median(gaps / size)) / 4
        mixed = found(0, factor) if kind == "base" else found(factor, 0)
    margin = gaps - 2 * factor * size
    sure, doubtful = margin > 1e-3, margin < -1e-3
    assert sure.any() and doubtful.any()
    np.testing.assert_array_equal(mixed[sure], quick[sure])
    np.testing.assert_array_equal(mixed[doubtful], direct[doubtful])


def documented_sums(x: np.ndarray, one: ConvBlock, fused: bool, part: int) -> np.ndarray:
    """The convolution (O, H, W) in the order of csrc/conv.c, rounded after every multiply-add
    (`fused`) or after every operation; `part` input channels at a time, or all of them (0)."""
    h, w = one.out_size
    inner = one.weight.shape[1]
    each = part or inner
    exact = np.float64 if fused else np.float32
    total = np.zeros((len(one.weight), h, w), np.float32)
    group = np.repeat(np.arange(one.groups), len(one.weight) // one.groups)
    for i, j in np.ndindex(one.weight.shape[2:]):
        for first in range(0, inner, each):
            partial = np.zeros_like(total) if part else total
            for c in range(first, min(inner, first + each)):
                values = x[group * inner + c, i : i + h, j : j + w].astype(exact)
                weights = one.weight[:, c, i, j, None, None].astype(exact)
                partial = (values * weights + partial).astype(np.float32)
            total = total + partial if part else partial
    return total


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("inputs", [63, 64, 65, 150])
def test_sums_have_the_documented_order_in_every_kernel(isa, inputs, monkeypatch):
    native_forward = pytest.importorskip("fastdeconv.kernels.native_forward")
    rng = np.random.default_rng(inputs)
    x = rng.standard_normal((3 * inputs, 8, 32)).astype(np.float32)
    weight = rng.standard_normal((24, inputs, 3, 3)).astype(np.float32)
    pooled = block(weight, (8, 32), PLAIN, (3, 15))
    plain = dataclasses.replace(pooled, shape=(24, 6, 30), pool=None)
    wide = block(weight, (8, 32), WIDE, (2, 14))
    short = dataclasses.replace(plain, shape=(24, 6, 5), out_size=(6, 5))
    groups = dataclasses.replace(plain, groups=3, cache={})
    # Parts are for layers that Winograd's algorithm suits, and for what is cut from these.
    part = PART if inputs >= PART else 0
    # All values of a vector, or only one of them, in doubt.
    every, some = np.full(24, np.inf, np.float32), np.full(24, -1, np.float32)
    some[::16] = np.inf
    with fd.config(backend="native", isa=isa):
        backend: Any = get_backend("native")

        def found(one: ConvBlock, given: np.ndarray, algorithm: str = "direct") -> np.ndarray:
            ((value, _),) = backend.forward_blocks({-1: given}, [one], algorithm, 1)
            return np.asarray(value.planes(1))

        fused = isa != "baseline"
        for cut_from, each in ((None, 0), (pooled, part)):
            sums = documented_sums(x[:inputs], plain, fused, each)
            cut, few = (
                dataclasses.replace(one, cut_from=cut_from, cache={}) for one in (plain, short)
            )
            np.testing.assert_array_equal(found(cut, x[:inputs]), sums)
            np.testing.assert_array_equal(found(few, x[:inputs, :, :7].copy()), sums[:, :, :5])
        best = sums.reshape(24, 3, 2, 15, 2).max(axis=(2, 4))
        sums = documented_sums(x[:inputs], plain, fused, 0)
        np.testing.assert_array_equal(found(groups, x), documented_sums(x, groups, fused, 0))
        windows = np.lib.stride_tricks.sliding_window_view(sums, (3, 3), (1, 2))[:, ::2, ::2]
        np.testing.assert_array_equal(found(wide, x[:inputs]), windows.max(axis=(3, 4)))
        np.testing.assert_array_equal(found(pooled, x[:inputs]), best)
        for base in (every, some):
            bounds = np.zeros(24, np.float32), base
            monkeypatch.setattr(native_forward, "error_bound", lambda *_, b=bounds: b)
            again = found(dataclasses.replace(pooled, cache={}), x[:inputs], "auto")
            np.testing.assert_array_equal(again[np.isinf(base)], best[np.isinf(base)])
