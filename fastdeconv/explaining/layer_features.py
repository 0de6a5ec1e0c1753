"""What every explanation offers: of a clip, of a song, and one that was read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ParameterError, printable, shown

__all__ = ["NOT_OF_A_SONG", "LayerFeatures"]

NOT_OF_A_SONG = (
    "a verdict is about a feature in one clip, and a song has many windows: explain the part that "
    "you listen to, with offset and without duration, and ask about that"
)
"""Why `trust` of a song is an error."""


class LayerFeatures:
    """Layers with features, and a table with a row for each feature.

    Attributes
    ----------
    features : dict of str -> list of int
        For each layer the features that were explained.
    """

    features: dict[str, list[int]]

    def ranked(self, layer: str) -> list[dict[str, Any]]:
        """The rows of the `table` for one layer, the feature to hear first at the beginning.

        Parameters
        ----------
        layer : str

        Returns
        -------
        list of dict
            Strong features that differ from those before them come first, twins and silent
            features last.

        Raises
        ------
        ParameterError
            If `layer` was not explained.
        """
        self._require_layer(layer)
        return sorted(map(dict, self._rows_of(layer)), key=lambda row: row["rank"])

    def _rows_of(self, layer: str) -> Sequence[Mapping[str, Any]]:
        raise NotImplementedError

    def _require_layer(self, layer: str) -> None:
        if not isinstance(layer, str) or layer not in self.features:
            raise ParameterError(
                f"layer {shown(layer)} was not explained; there are "
                f"{', '.join(map(printable, self.features)) or 'none'}"
            )

    def _require_feature(self, layer: str, feature: int) -> None:
        self._require_layer(layer)
        if not isinstance(feature, (int, np.integer)) or feature not in self.features[layer]:
            raise ParameterError(
                f"feature {shown(feature)} of layer {shown(layer)} was not explained; "
                f"there are {_ranges(self.features[layer])}"
            )


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers for a message: 0-15 where they are a range, else the first few."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers[:16])) + (", ..." if len(numbers) > 16 else "") or "none"
