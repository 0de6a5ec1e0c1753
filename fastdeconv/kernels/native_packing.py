"""The lanes of a job of the way back, and the weights of its first and its last convolution.

Those of a step are in `native_steps`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .interface import FloatArray, Window
from .lanes import First, cached, first_phases, first_weight, pack_scatter
from .native_shared import pad_last

__all__ = ["lanes_for", "pack_last", "places_of_taps", "vectors_at_a_time", "weight_of_first"]


def lanes_for(table: Any, count: int, bf16: bool) -> tuple[int, bool]:
    """The number of lanes for `count` features, and whether their layout is by feature.

    Few features would leave most lanes empty. Then the layout is by feature, and the kernels have
    output channels in the lanes. Not for tiles, where a feature's bits would depend on how many
    others share its call.
    """
    width: int = table.width
    in_tiles = bf16 and table.bf16 == "tiles"
    if count <= width // 2 and not in_tiles:
        return count, True
    # Short vectors are computed in pairs.
    unit = width if width >= 16 or count <= width else 2 * width
    return -(-count // unit) * unit, False


def vectors_at_a_time(table: Any, lanes: int) -> int:
    """How many vectors of lanes a product works on at a time: the most that divide the tensor."""
    vectors = lanes // table.width
    return max(n for n in range(1, table.max_nv + 1) if vectors % n == 0)


def pack_last(weight: FloatArray, table: Any, nv: int) -> FloatArray:
    """Weights of a `Last` as csrc/project.c wants them; nv 0 by feature."""
    if nv:
        return pack_scatter(weight, table.tile_nc(nv))
    pairs = weight[0].size
    return pad_last(pack_scatter(weight, pairs).reshape(-1, pairs), table.width)


def weight_of_first(table: Any, job: First, lanes: int, by_feature: bool) -> FloatArray:
    """The weights of a first convolution as csrc/project.c wants them."""
    conv = job.conv
    if not by_feature:
        return first_weight(job, lanes)
    if conv.groups > 1:
        weight = first_weight(job, lanes)
        return np.ascontiguousarray(pad_last(weight.transpose(1, 2, 0), table.width))
    packed: FloatArray = cached(
        conv.cache, ("first", table.width), lambda: _pack_first(conv.weight, table)
    )
    return packed.take(job.features, axis=1)


def _pack_first(weight: FloatArray, table: Any) -> FloatArray:
    """Weights of a `First` by feature: (taps, O, C in whole vectors)."""
    out, inner = weight.shape[:2]
    return pad_last(weight.reshape(out, inner, -1).transpose(2, 0, 1), table.width)


@functools.lru_cache(maxsize=256)
def places_of_taps(window: Window, columns: int, lanes: int) -> NDArray[np.intp]:
    """Where the taps of a first convolution read, in a start with so many columns."""
    phases = first_phases(window)
    places = (np.array(phases.pad) - phases.back) @ np.array([columns * lanes, lanes])
    return np.ascontiguousarray(places, np.intp)
