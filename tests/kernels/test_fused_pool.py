"""The pool that a convolution takes along: which value wins, and which values are summed again."""

from __future__ import annotations

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
