"""Winograd's filters, and the bound that decides which windows are summed again."""

from __future__ import annotations

import numpy as np
import pytest

from fastdeconv.kernels.winograd import error_bound, transform_filters

INPUT = {
    2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    4: [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ],
}
OUTPUT = {
    2: [[1, 1, 1, 0], [0, 1, -1, -1]],
    4: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
}
PART = 64
"""Input channels that are summed at a time."""


def patches(x: np.ndarray) -> np.ndarray:
    """(C, 4, 4) as (2, 2, C, 3, 3): what each output of a tile sees."""
    views = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return views.transpose(1, 2, 0, 3, 4)


def parts(inputs: int, part: int) -> list[range]:
    """The input channels that are summed together; with part 0 all of them."""
    each = part or inputs
    return [range(first, min(inputs, first + each)) for first in range(0, inputs, each)]


def direct(
    x: np.ndarray, w: np.ndarray, bias: np.ndarray, dtype: type, part: int
) -> np.ndarray:
    """(O, 2, 2): a tile's sums, two roundings a product, taps outside, inputs inside."""
    out = np.empty((len(w), 2, 2), dtype)
    for y, x0 in np.ndindex(2, 2):
        patch = patches(x)[y, x0].astype(dtype)
        total = bias.astype(dtype)
        for i, j in np.ndindex(3, 3):
            for channels in parts(len(x), part):
                partial = np.zeros_like(total) if part else total
                for c in channels:
                    partial = partial + w[:, c, i, j].astype(dtype) * patch[c, i, j]
                total = total + partial if part else partial
        out[:, y, x0] = total
    return out


def by_winograd(x: np.ndarray, w: np.ndarray, bias: np.ndarray, part: int) -> np.ndarray:
    """The same by F(2 x 2, 3 x 3) in float32."""
    u = transform_filters(w, 2).astype(np.float32)
    b, a = np.array(INPUT[2], np.float32), np.array(OUTPUT[2], np.float32)
    v = b @ x @ b.T
    m = np.zeros((len(w), 4, 4), np.float32)
    for channels in parts(len(x), part):
        partial = np.zeros_like(m)
        for c in channels:
            partial += u[:, c] * v[c]
        m = m + partial
    return a @ m @ a.T + bias[:, None, None]


@pytest.mark.parametrize("tile", [2, 4])
def test_transformed_filters_give_the_convolution(tile):
    rng = np.random.default_rng(tile)
    w = rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    x = rng.standard_normal((2, tile + 2, tile + 2))
    b, a = np.array(INPUT[tile]), np.array(OUTPUT[tile])
    m = (transform_filters(w, tile) * (b @ x @ b.T)).sum(axis=1)
    views = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    np.testing.assert_allclose(a @ m @ a.T, np.einsum("cyxij,ocij->oyx", views, w), atol=1e-12)


@pytest.mark.parametrize("part", [0, PART])
@pytest.mark.parametrize("inputs", [1, 8, 64, 65, 200])
@pytest.mark.parametrize("kind", ["normal", "positive", "one pixel", "cancelling", "wide"])
def test_the_bound_holds_and_is_not_empty(inputs, kind, part):
    rng = np.random.default_rng(inputs)
    w = rng.standard_normal((40, inputs, 3, 3)).astype(np.float32)
    bias = rng.standard_normal(40).astype(np.float32)
    slope, base = error_bound(w, bias, None, part)
    worst = 0.0
    for _ in range(10):
        x = rng.standard_normal((inputs, 4, 4)).astype(np.float32)
        if kind == "positive":
            x = np.abs(x)
        elif kind == "one pixel":
            x[:, np.arange(4) != 1] *= 1e-3
        elif kind == "cancelling":
            x = x * 1e-4 + 1000
        elif kind == "wide":
            x *= (10.0 ** rng.uniform(-6, 6, x.shape)).astype(np.float32)
        norm = np.sqrt((patches(x).astype(float) ** 2).sum(axis=(2, 3, 4))).max()
        bound = slope * norm + base
        difference = np.abs(
            direct(x, w, bias, np.float32, part)
            - by_winograd(x, w, bias, part).astype(np.float64)
        ).max(axis=(1, 2))
        assert (difference < bound).all()
        worst = max(worst, float((difference / bound).max()))
    assert worst > 5e-4


@pytest.mark.parametrize("part", [0, PART])
@pytest.mark.parametrize("inputs", [64, 300])
def test_the_bound_holds_for_roundings_that_all_go_one_way(inputs, part):
    # 1 + 2^-12: squares need 25 bits, and partial sums drop the last of them.
    w = np.full((1, inputs, 3, 3), 1 + 2.0**-12, np.float32)
    x = np.full((inputs, 4, 4), 1 + 2.0**-12, np.float32)
    bias = np.zeros(1, np.float32)
    slope, base = error_bound(w, bias, None, part)
    bound = slope * np.sqrt((x[:, :3, :3].astype(float) ** 2).sum()) + base
    exact = direct(x, w, bias, np.float64, part)
    for got in (direct(x, w, bias, np.float32, part), by_winograd(x, w, bias, part)):
        assert (np.abs(got - exact) < bound).all()


def test_scale_and_shift_are_in_the_bound():
    rng = np.random.default_rng(0)
    w = rng.standard_normal((5, 4, 3, 3)).astype(np.float32)
    bias = rng.standard_normal(5).astype(np.float32)
    slope, base = error_bound(w, bias, None, PART)
    scale = np.array([0, 1, -3, 100, 1e-3], np.float32)
    scaled = error_bound(w, bias, (scale, np.full(5, -7, np.float32)), PART)
    np.testing.assert_allclose(scaled[0], np.abs(scale) * slope, rtol=1e-5, atol=1e-30)
    assert (scaled[1] > np.abs(scale) * base + 7 * 2.0**-23).all()


def test_channels_without_weights_are_never_in_doubt():
    w = np.ones((2, 3, 3, 3), np.float32)
    w[1] = 0
    slope, base = error_bound(w, None, None, PART)
    assert slope[1] == 0 and base[1] == -1
    assert slope[0] > 0 and base[0] > 0


def test_filters_near_the_end_of_float32_have_an_infinite_bound():
    slope, _ = error_bound(np.full((1, 64, 3, 3), 3e38, np.float32), None, None, PART)
    assert slope[0] > 1e30


def test_sums_in_parts_leave_a_smaller_bound():
    w = np.random.default_rng(0).standard_normal((3, 512, 3, 3)).astype(np.float32)
    whole, parts = (error_bound(w, None, None, part)[0] for part in (0, PART))
    assert (10 * parts < whole).all()
