"""The magnitude of the STFT, or of some of its bins."""

from __future__ import annotations

import functools
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import ParameterError, shown
from .._checks import as_int
from ..scaling import magnitude
from .bands import from_bands, on_bins_of, spread_bands
from .base import ComplexArray, Fields, FloatArray, Kind

__all__ = ["StftKind"]


class StftKind(Kind):
    """Kind "stft"."""

    name: ClassVar[str] = "stft"
    own: ClassVar[tuple[str, ...]] = ("bins",)

    def check(self, fields: Fields, sr: float, n_fft: int) -> dict[str, Any]:
        if fields.bins is None:
            return {}
        count = 1 + n_fft // 2
        if not isinstance(fields.bins, (list, tuple)) or len(fields.bins) != 2:
            raise ParameterError(
                f"bins must be (first, last), the last one included, found {shown(fields.bins)}"
            )
        first, last = (
            as_int(f"bins[{i}]", n, minimum=0, maximum=count - 1)
            for i, n in enumerate(fields.bins)
        )
        if first > last:
            raise ParameterError(
                f"bins must be (first, last) with first <= last, found {shown(fields.bins)}"
            )
        return {"bins": (first, last)}

    def rows(self, frontend: Fields) -> int:
        return len(range(*self._range(frontend)))

    def values(
        self, frontend: Fields, samples: FloatArray, spectra: ComplexArray
    ) -> NDArray[np.float64]:
        return magnitude(spectra[:, slice(*self._range(frontend))], frontend.power)

    def spread(self, frontend: Fields, planes: FloatArray, n_fft: int) -> FloatArray:
        first, end = self._range(frontend)
        if n_fft != frontend.n_fft:
            return spread_bands(_back(frontend.n_fft, first, end, n_fft), planes)
        if frontend.bins is None:
            return planes
        spread = np.zeros((*planes.shape[:2], 1 + frontend.n_fft // 2), np.float32)
        spread[:, :, first:end] = planes
        return spread

    def map_order(self, frontend: Fields) -> Literal["C", "F"]:
        as_they_are = frontend.bins is None and frontend.layout == "CFT"
        return "F" if as_they_are else "C"

    def _range(self, frontend: Fields) -> tuple[int, int]:
        """The first bin, and the one after the last."""
        if frontend.bins is None:
            return 0, 1 + frontend.n_fft // 2
        first, last = frontend.bins
        return first, last + 1


@functools.lru_cache(maxsize=8)
def _back(own_n_fft: int, first: int, end: int, n_fft: int) -> Any:
    """The matrix of `from_bands`, where every bin is a band."""
    import scipy.sparse

    bins = scipy.sparse.eye_array(1 + own_n_fft // 2, format="csr")
    return from_bands(on_bins_of(n_fft, bins[first:end], own_n_fft))
