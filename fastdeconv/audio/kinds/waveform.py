"""The samples themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import ParameterError, shown
from .base import ComplexArray, Fields, FloatArray, Framing, Kind, Samples

__all__ = ["Waveform"]


class Waveform(Kind):
    """Kind "waveform": one row of samples. The STFT is only for pictures and descriptions."""

    name: ClassVar[str] = "waveform"
    on_stft: ClassVar[bool] = False

    def check(self, fields: Fields, sr: float, n_fft: int) -> dict[str, Any]:
        if fields.scale != "linear" or fields.power != 1:
            raise ParameterError(
                f"a front end of kind 'waveform' needs scale 'linear' and power 1, found "
                f"{shown(fields.scale)} and {shown(fields.power)}"
            )
        return {}

    def framing(self, fields: Mapping[str, Any]) -> Framing:
        return Samples()

    def rows(self, frontend: Fields) -> int:
        return 1

    def values(
        self, frontend: Fields, samples: FloatArray, spectra: ComplexArray
    ) -> NDArray[np.float64]:
        return samples[:, np.newaxis].astype(np.float64)

    def drawn(self, frontend: Fields, planes: FloatArray, n_fft: int) -> FloatArray:
        """The same value at every frequency."""
        return np.repeat(planes, frontend.transform.bins, axis=2)

    def sounds(
        self, frontend: Fields, samples: FloatArray, planes: FloatArray, mode: str
    ) -> FloatArray:
        """With "mask" samples x map, with "phase" the map itself."""
        return samples * planes[:, :, 0] if mode == "mask" else planes[:, :, 0].copy()
