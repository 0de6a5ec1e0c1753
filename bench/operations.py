"""How many multiply-adds the work needs, counted on the actual network and clip.

Forward: every tap inside the input, for every output of a convolution that a pool reads.
Back: the switches say which places of an unpooled plane hold a value; each sends one
multiply-add per channel below to every place of the input that a tap reaches. That is
2.25 taps per place and channel after a 2x2 pool, not 9, less what falls over the edge.
Values that a ReLU made zero are counted: whether they are is not known beforehand.
"""

from __future__ import annotations

import numpy as np

from .stages import Given, Stage, places


def forward_operations(stages: list[Stage]) -> int:
    """Multiply-adds of the convolutions, by their definition."""
    total = 0
    for stage in stages:
        read = _read_by_pool(stage)
        taps = _taps(stage)[: read[0], : read[1]].sum()
        total += int(taps) * stage.weight.shape[0] * stage.weight.shape[1]
    return total


def projection_operations(stages: list[Stage], given: list[Given], features: np.ndarray) -> int:
    """Multiply-adds to project `features` of the last stage to the input."""
    reached = [_reached(stage, state) for stage, state in zip(stages, given)]
    first = int(reached[-1][features].sum()) * stages[-1].weight.shape[1]
    rest = sum(int(r.sum()) * s.weight.shape[1] for r, s in zip(reached[:-1], stages))
    return first + len(features) * rest


def _reached(stage: Stage, state: Given) -> np.ndarray:
    """Per channel of the stage: places of its input reached by its values, all in all."""
    taps = _taps(stage).ravel()
    if state.switches is None:
        return np.full(stage.weight.shape[0], taps.sum())
    # Windows that overlap may share their maximum, which then counts once.
    return np.array([taps[np.unique(p)].sum() for p in places(state.switches, stage)])


def _taps(stage: Stage) -> np.ndarray:
    """(H, W): how many taps of the convolution's window at every output lie in the input."""
    sides = []
    for axis in range(2):
        start = np.arange(stage.above[axis])[:, None] - stage.conv.padding[axis][0]
        at = start + np.arange(stage.conv.kernel[axis])
        sides.append(((at >= 0) & (at < stage.below[axis])).sum(1))
    return np.outer(*sides)


def _read_by_pool(stage: Stage) -> tuple[int, ...]:
    """(height, width) of the convolution's output that some window of the pool covers."""
    if stage.pool is None:
        return stage.above
    return tuple(
        min(n, (n + sum(p) - e) // s * s + e - p[0])
        for n, p, e, s in zip(
            stage.above, stage.pool.padding, stage.pool.extent, stage.pool.stride
        )
    )
