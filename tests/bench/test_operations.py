"""Counted multiply-adds against those of a projection and a convolution done one by one."""

from __future__ import annotations

import numpy as np
import pytest

from bench import workload
from bench.operations import forward_operations, projection_operations
from bench.workload import Work


@pytest.fixture(params=["2x2", "overlapping", "none", "even kernels"])
def work(request):
    kernels = [(2, 3), (4, 1)] if request.param == "even kernels" else [(3, 3), (3, 3)]
    pool = {"overlapping": ((3, 3), (2, 2)), "none": None}.get(request.param, (2, 2))
    net = workload.network((3, 4), kernels, (pool, pool), height=13)
    x = np.random.default_rng(1).random((1, 13, 11), np.float32)
    return Work.of(net, x)


def test_projection(work):
    features = np.array([0, 2])
    assert projection_operations(work.stages, work.given, features) == sum(
        _one_by_one(work, feature) for feature in features
    )


def _one_by_one(work, feature):
    """Multiply-adds of one feature, as a scatter from every place that may hold a value."""
    total = 0
    for depth in reversed(range(len(work.stages))):
        stage, trace = work.stages[depth], work.trace
        held = _held(stage, trace)
        if depth == len(work.stages) - 1:
            held = [(c, y, x) for c, y, x in held if c == feature]
        (top, _), (left, _) = stage.conv.padding
        for _, y, x in held:
            for i in range(stage.conv.kernel[0]):
                for j in range(stage.conv.kernel[1]):
                    row, column = y - top + i, x - left + j
                    if 0 <= row < stage.below[0] and 0 <= column < stage.below[1]:
                        total += stage.weight.shape[1]
    return total


def _held(stage, trace):
    """Places (channel, y, x) of the convolution's output that a value is sent back to."""
    channels = len(stage.weight)
    if stage.pool is None:
        return list(np.ndindex(channels, *stage.above))
    switches = trace.switches(stage.top).astype(int)
    (_, width), (sh, sw) = stage.pool.kernel, stage.pool.stride
    return list({
        (c, y * sh + switches[c, y, x] // width, x * sw + switches[c, y, x] % width)
        for c, y, x in np.ndindex(switches.shape)
    })


def test_forward_leaves_out_what_no_pool_reads():
    net = workload.network((2,), ((3, 3),), ((2, 2),), height=5)
    work = Work.of(net, np.ones((1, 5, 5), np.float32))
    # 4 x 4 outputs of 9 taps; 3 fall over the upper edge of 4, 3 over the left edge of 4
    assert forward_operations(work.stages) == 2 * (16 * 9 - 4 * 3 - 4 * 3 + 1)
