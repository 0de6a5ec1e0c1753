"""Where features are strongest: which unit of a map, and which clips of a collection.

Zeiler and Fergus (arXiv 1311.2901, figure 2) show every feature by the clips that excite it most.
A clip counts once, with its strongest unit; otherwise neighbours of one unit would fill the list.
Both `fastdeconv.top_clips` and surveys of collections use this module.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ABSENT", "Units", "best_first", "firing_scores", "strongest_units"]

#: The score of a clip in which a feature does not fire. It is left out of the lists.
ABSENT = -np.inf


class Units(NamedTuple):
    """The strongest unit of every feature of a layer; arrays of shape (C,)."""

    value: NDArray[np.float32]
    row: NDArray[np.intp]
    column: NDArray[np.intp]


def strongest_units(planes: NDArray[np.float32]) -> Units:
    """The largest value of each plane of (C, H, W); of equal ones the first in row-major order."""
    flat = planes.reshape(len(planes), -1)
    place = flat.argmax(axis=1)
    value = np.take_along_axis(flat, place[:, np.newaxis], axis=1)[:, 0]
    return Units(value, *np.divmod(place, planes.shape[2]))


def firing_scores(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values of strongest units as scores: `ABSENT` where a feature is not above 0."""
    found: NDArray[np.float32] = np.where(values > 0, values, np.float32(ABSENT))
    return found


def best_first(scores: NDArray[Any], count: int) -> NDArray[np.intp]:
    """For each row of (features, clips), the columns of the `count` largest scores.

    The largest comes first, of equal ones the first clip. Scores that are `ABSENT` come last.
    """
    order: NDArray[np.intp] = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return order
