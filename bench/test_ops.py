"""The primitives, on every back end and instruction set: `pytest bench --benchmark-only`."""

from __future__ import annotations

import numpy as np
import pytest

import fastdeconv as fd

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 64, 128, 86)).astype(np.float32)
CONVOLUTIONS = {
    "3x3": ((64, 64, 3, 3), {"padding": "same"}),
    "1x1": ((64, 64, 1, 1), {}),
    "5x5": ((64, 64, 5, 5), {"padding": "same"}),
    "3x3 stride 2": ((64, 64, 3, 3), {"stride": 2, "padding": 1}),
    "3x3 depthwise": ((64, 1, 3, 3), {"padding": "same", "groups": 64}),
}
POOLS = {"2x2": (2, {}), "3x3 stride 2": (3, {"stride": 2}), "4x1": ((4, 1), {})}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_conv2d(benchmark, settings, case):
    shape, options = CONVOLUTIONS[case]
    weight = RNG.standard_normal(shape).astype(np.float32)
    benchmark(fd.ops.conv2d, X, weight, **options)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_conv_transpose2d(benchmark, settings, case):
    shape, options = CONVOLUTIONS[case]
    weight = RNG.standard_normal(shape).astype(np.float32)
    y = fd.ops.conv2d(X, weight, **options)
    benchmark(fd.ops.conv_transpose2d, y, weight, X.shape[2:], **options)


@pytest.mark.parametrize("case", POOLS)
def test_max_pool2d(benchmark, settings, case):
    kernel, options = POOLS[case]
    benchmark(fd.ops.max_pool2d, X, kernel, **options)


@pytest.mark.parametrize("case", POOLS)
def test_max_unpool2d(benchmark, settings, case):
    kernel, options = POOLS[case]
    values, switches = fd.ops.max_pool2d(X, kernel, **options)
    benchmark(fd.ops.max_unpool2d, values, switches, X.shape[2:], kernel, **options)
