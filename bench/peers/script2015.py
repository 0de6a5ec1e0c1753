"""The published algorithm in its own style, from its description: loops over channels around
scipy.signal.convolve2d. It is given NumPy unpooling, which is kinder than the original."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.signal import convolve2d

from ..measure import Contender
from ..stages import places
from ..workload import Work


def project(work: Work, depth: int) -> Iterator[Contender]:
    """One feature; its loops know no other way."""
    count = len(work.given[depth - 1].activation)
    yield Contender(
        "2015 script", lambda: _project(work, depth, 0)[None],
        "the published loops around scipy.signal.convolve2d; extrapolated from one feature",
        whole=count,
    )


def _project(work: Work, depth: int, feature: int) -> np.ndarray:
    maps = np.zeros_like(work.given[depth - 1].activation)
    maps[feature] = work.given[depth - 1].activation[feature]
    for stage, given in zip(work.stages[:depth][::-1], work.given[:depth][::-1]):
        unpooled = np.zeros((len(maps), stage.above[0] * stage.above[1]), np.float32)
        where = places(given.switches, stage).reshape(len(maps), -1)
        np.put_along_axis(unpooled, where, maps.reshape(len(maps), -1), axis=1)
        rectified = np.maximum(unpooled, 0).reshape(-1, *stage.above)
        maps = np.zeros((stage.weight.shape[1], *stage.below), np.float32)
        for inner in range(stage.weight.shape[1]):
            for outer in range(stage.weight.shape[0]):
                maps[inner] += convolve2d(
                    rectified[outer], stage.weight[outer, inner], mode="same"
                )
    return maps
