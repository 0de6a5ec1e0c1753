"""A value times numbers plus numbers, which many operators need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..building import Builder
from ..views import View

__all__ = ["plain", "scaled_by", "times"]


def plain(number: Any) -> float:
    """The shortest number that is equal in float32: 0.01 for 0.009999999776482582."""
    return float(str(np.float32(number)))


def times(
    builder: Builder, view: View, scale: float, shift: float = 0.0, suffix: str = ""
) -> View:
    """A value times a number plus a number."""
    channels = view.sizes[0]
    arrays = {"weight": np.full(channels, scale), "bias": np.full(channels, shift)}
    return builder.on(view, "affine", arrays, suffix=suffix)


def scaled_by(
    builder: Builder, view: View, scale: NDArray[Any], shift: NDArray[Any], suffix: str = ""
) -> View:
    """A value times an array plus an array, both of which broadcast to its shape."""
    shape, rank = view.shape, len(view.shape)
    full = [array.reshape((1,) * (rank - array.ndim) + array.shape) for array in (scale, shift)]
    wide = {axis for array in full for axis, n in enumerate(array.shape) if n > 1}
    if not wide:
        first, second = (float(array.reshape(-1)[0]) for array in full)
        return view if (first, second) == (1, 0) else times(builder, view, first, second, suffix)
    # If axes are joined, the arrays get values for all places of the joined axis.
    view, groups = builder.grouped(view, [axis in wide for axis in range(rank)])
    view, letters = builder.letters(view)
    taken = [i for i, group in enumerate(groups) if wide.intersection(group)]
    named = sorted(taken, key=lambda i: "CHW".index(str(letters[i])))
    sizes = [n if axis in wide else 1 for axis, n in enumerate(shape)]
    arrays = {
        key: np.broadcast_to(array, sizes).reshape([view.shape[i] for i in taken]).transpose(
            [taken.index(i) for i in named]
        )
        for key, array in zip(("weight", "bias"), full)
    }
    made = builder.on(view, "affine", arrays, suffix=suffix,
                      axis="".join(str(letters[i]) for i in named))
    return replace(made, shape=shape)
