"""Bands of the spectrum: mel filters, or the user's own matrix."""

from __future__ import annotations

import functools
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...arrays import as_array
from ...errors import ParameterError, shown
from .._checks import as_bool, as_int, as_number
from ..mel import mel_filters
from ..scaling import magnitude
from .bands import from_bands, on_bins_of, spread_bands
from .base import ComplexArray, Fields, FloatArray, Kind

__all__ = ["Filters", "Mel"]

_MOST_BANDS = 1 << 20
# Values of a matrix, at most: 256 MiB of float32.
_MOST_VALUES = 1 << 26


class Filters(Kind):
    """Kind "filters": a matrix (bands, bins) times abs(STFT) ** power."""

    name: ClassVar[str] = "filters"
    own: ClassVar[tuple[str, ...]] = ("filters",)

    def check(self, fields: Fields, sr: float, n_fft: int) -> dict[str, Any]:
        _refuse_power(fields, self.name)
        bins = 1 + n_fft // 2
        if fields.filters is None:
            raise ParameterError(
                f"a front end of kind 'filters' needs filters, an array (bands, {bins}), found None"
            )
        array = as_array(fields.filters, "filters")
        if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[1] != bins:
            turned = "; transpose them" if array.shape[:1] == (bins,) and array.ndim == 2 else ""
            raise ParameterError(
                f"filters must be real numbers of shape (bands, {bins}) with n_fft {n_fft}, "
                f"found {array.dtype} of shape {array.shape}{turned}"
            )
        if not 0 < array.size <= _MOST_VALUES:
            raise ParameterError(
                f"filters must have from 1 to {_MOST_VALUES} values, found shape {array.shape}"
            )
        with np.errstate(over="ignore"):
            matrix = np.array(array, np.float32, order="C")
        if not np.isfinite(matrix).all() or matrix.min() < 0:
            raise ParameterError(
                f"filters must be finite and not negative, found values from {matrix.min():g} to "
                f"{matrix.max():g}"
            )
        matrix.flags.writeable = False
        return {"filters": matrix}

    def matrix(self, frontend: Fields) -> FloatArray:
        """The matrix, shape (bands, bins)."""
        filters: FloatArray = frontend.filters
        return filters

    def rows(self, frontend: Fields) -> int:
        return len(self.matrix(frontend))

    def values(
        self, frontend: Fields, samples: FloatArray, spectra: ComplexArray
    ) -> NDArray[np.float64]:
        bands: NDArray[np.float64] = magnitude(spectra, frontend.power) @ self.matrix(
            frontend
        ).T.astype(np.float64)
        return bands

    def spread(self, frontend: Fields, planes: FloatArray, n_fft: int) -> FloatArray:
        """The weight of a bin is the mean of the bands that contain it, see `from_bands`."""
        return spread_bands(_back(self, frontend, n_fft), planes)

    def map_order(self, frontend: Fields) -> Literal["C", "F"]:
        return "F"


class Mel(Filters):
    """Kind "mel": the filters of ``librosa.filters.mel``."""

    name: ClassVar[str] = "mel"
    own: ClassVar[tuple[str, ...]] = ("n_mels", "fmin", "fmax", "htk", "norm")

    def check(self, fields: Fields, sr: float, n_fft: int) -> dict[str, Any]:
        _refuse_power(fields, self.name)
        fmin = as_number("fmin", 0.0 if fields.fmin is None else fields.fmin)
        fmax = as_number("fmax", sr / 2 if fields.fmax is None else fields.fmax)
        if not 0 <= fmin < fmax:
            raise ParameterError(
                f"fmin must be from 0 to below fmax, found {fmin:g} and {fmax:g}"
            )
        named = fields.norm is None or isinstance(fields.norm, str)
        if isinstance(fields.norm, str) and fields.norm != "slaney":
            raise ParameterError(
                f"norm must be 'slaney', None or a number above 0, found {shown(fields.norm)}"
            )
        return {
            "n_mels": as_int("n_mels", fields.n_mels, minimum=1, maximum=_MOST_BANDS),
            "fmin": fmin,
            "fmax": fmax,
            "htk": as_bool("htk", fields.htk),
            "norm": fields.norm if named else as_number("norm", fields.norm, above=0),
        }

    def matrix(self, frontend: Fields) -> FloatArray:
        return _mel(
            frontend.sr, frontend.n_fft, frontend.n_mels, frontend.fmin, frontend.fmax,
            frontend.htk, frontend.norm,
        )

    def rows(self, frontend: Fields) -> int:
        return int(frontend.n_mels)


def _refuse_power(fields: Fields, kind: str) -> None:
    if isinstance(fields.scale, str) and fields.scale == "power":
        raise ParameterError(
            f"scale 'power' is |STFT|^2, which kind {kind!r} does not have; use power=2, which "
            "squares before the filters"
        )


@functools.lru_cache(maxsize=8)
def _mel(
    sr: float, n_fft: int, n_mels: int, fmin: float, fmax: float, htk: bool,
    norm: Any,
) -> FloatArray:
    if n_mels * (1 + n_fft // 2) > _MOST_VALUES:
        raise ParameterError(
            f"{n_mels} mel bands of {1 + n_fft // 2} bins are more than {_MOST_VALUES} values"
        )
    filters = mel_filters(sr, n_fft, n_mels, fmin, fmax, htk, norm)
    filters.flags.writeable = False
    return filters


@functools.lru_cache(maxsize=8)
def _back(kind: Filters, frontend: Fields, n_fft: int) -> Any:
    """The matrix of `from_bands` for the bins of an STFT of size `n_fft`."""
    return from_bands(on_bins_of(n_fft, kind.matrix(frontend), frontend.n_fft))
