"""The descriptors of a whole song, from those of its windows.

A descriptor of a feature is the mean over the windows, weighted by the energy heard of the feature
in each window. Energies are added up. The correlation of two features is the mean of their
correlations in the windows, weighted by the square root of the product of their energies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .descriptors import DESCRIPTORS, Measured

__all__ = ["ClipNumbers", "SongNumbers"]

_OWN = tuple(key for key in DESCRIPTORS if key != "level")


class SongNumbers:
    """Adds up what was measured of a layer's maps, window after window.

    Parameters
    ----------
    count : int
        Number of features.
    """

    def __init__(self, count: int) -> None:
        self._sums = np.zeros((count, len(_OWN)))
        self._weights = np.zeros((count, len(_OWN)))
        self._energies = np.zeros(count)
        self._alike = np.zeros((count, count))
        self._copies = np.zeros(count)
        self._frames = 0

    def add(self, measured: Measured) -> None:
        """Add the next window."""
        energies = measured.energies * measured.scale
        values = np.array(
            [[np.nan if row[key] is None else row[key] for key in _OWN] for row in measured.rows],
            float,
        ).reshape(self._sums.shape)
        known = ~np.isnan(values)
        weights = np.where(known, energies[:, None], 0)
        self._sums += np.where(known, values, 0) * weights
        self._weights += weights
        self._energies += energies
        roots = np.sqrt(energies)
        self._alike += measured.alike * roots[:, None] * roots
        self._copies += measured.copies * energies
        self._frames = max(self._frames, measured.frames)

    def measured(self) -> Measured:
        """The measurements of the whole song."""
        rows = [
            {key: sums[i] / weights[i] if weights[i] > 0 else None for i, key in enumerate(_OWN)}
            for sums, weights in zip(self._sums.tolist(), self._weights.tolist())
        ]
        energies = np.where(self._energies > 0, self._energies, 1)
        roots = np.sqrt(energies)
        return Measured(
            [{key: row.get(key) for key in DESCRIPTORS} for row in rows],
            self._energies, self._alike / roots[:, None] / roots, self._copies / energies,
            self._frames, 1.0,
        )


class ClipNumbers:
    """The same for the song itself, with windows weighted by their energy."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys(DESCRIPTORS, 0.0)
        self._weights = dict.fromkeys(DESCRIPTORS, 0.0)

    def add(self, numbers: Mapping[str, Any], energy: float) -> None:
        """Add the next window."""
        for key in DESCRIPTORS:
            if numbers[key] is not None:
                self._sums[key] += numbers[key] * energy
                self._weights[key] += energy

    def numbers(self) -> dict[str, Any]:
        """The descriptors of the whole song."""
        return {
            key: self._sums[key] / weight if weight > 0 else None
            for key, weight in self._weights.items()
        }
