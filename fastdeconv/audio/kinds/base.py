"""The interface of a kind of front end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..stft import Stft

__all__ = ["Fields", "Framing", "Kind", "Samples"]

Fields = Any
"""A `Frontend`, which cannot be imported here: its module imports this one."""

FloatArray = NDArray[np.float32]
ComplexArray = NDArray[np.complex64]


class Framing(Protocol):
    """How the number of samples and the number of input columns (frames) depend on each other."""

    def num_frames(self, n_samples: int) -> int:
        """Columns that `n_samples` samples give."""

    def shortest(self, frames: int) -> int:
        """The fewest samples that give `frames` columns."""

    def longest(self, frames: int) -> int:
        """The most samples that give `frames` columns."""

    def seen(self, frames: int) -> int:
        """How many samples, from the first on, the first `frames` columns depend on."""


class Samples:
    """One column for each sample."""

    def num_frames(self, n_samples: int) -> int:
        return n_samples

    def shortest(self, frames: int) -> int:
        return frames

    def longest(self, frames: int) -> int:
        return frames

    def seen(self, frames: int) -> int:
        return frames


class Kind:
    """A kind of front end.

    Attributes
    ----------
    name : str
    own : tuple of str
        Fields of `Frontend` that this kind has and not all kinds have.
    on_stft : bool
        Whether the values of the input belong to places of the STFT, so that a map can mask
        the STFT (`spread`). Otherwise the kind makes its sounds itself (`sounds`).
    of_a_channel : tuple of str
        Fields that may differ from channel to channel.
    """

    name: ClassVar[str]
    own: ClassVar[tuple[str, ...]] = ()
    on_stft: ClassVar[bool] = True

    @property
    def of_a_channel(self) -> tuple[str, ...]:
        sizes = ("n_fft", "win_length", "window") if self.on_stft else ()
        return (*sizes, "power", "scale", "normalize", "delta", *self.own)

    def check(self, fields: Fields, sr: float, n_fft: int) -> dict[str, Any]:
        """Check and complete the fields of this kind.

        Raises
        ------
        ParameterError
            If a field is wrong.
        """
        return {}

    def framing(self, fields: Mapping[str, Any]) -> Framing:
        """The framing of a front end with these fields."""
        return Stft(**{name: fields[name] for name in Stft.__dataclass_fields__})

    def rows(self, frontend: Fields) -> int:
        """Number of values in a column of the input."""
        raise NotImplementedError

    def values(
        self, frontend: Fields, samples: FloatArray, spectra: ComplexArray
    ) -> NDArray[np.float64]:
        """The input (T, rows) before scale and normalisation, from samples and STFT (T, F)."""
        raise NotImplementedError

    def spread(self, frontend: Fields, planes: FloatArray, n_fft: int) -> FloatArray:
        """Turn maps (K, T, rows) into weights (K, T, F) of the bins of an STFT of size `n_fft`."""
        raise NotImplementedError

    def drawn(self, frontend: Fields, planes: FloatArray, n_fft: int) -> FloatArray:
        """Values (K, T, rows) at the bins (K, T, F) of an STFT of size `n_fft`, for pictures.

        Bins that the network is not given get the smallest value. It is not 0, because 0 is
        bright in a picture in decibels.
        """
        drawn = self.spread(frontend, planes, n_fft)
        ones = np.ones((1, 1, planes.shape[2]), np.float32)
        given = self.spread(frontend, ones, n_fft)[0, 0] > 0
        return drawn if given.all() else np.where(given, drawn, planes.min())

    def map_order(self, frontend: Fields) -> Literal["C", "F"]:
        """Memory order of the arrays (T, F) that `spread` returns."""
        return "C"

    def sounds(
        self, frontend: Fields, samples: FloatArray, planes: FloatArray, mode: str
    ) -> FloatArray:
        """The sounds (K, n) of maps (K, T, rows), each as long as `samples`.

        `mode` is "mask" or "phase".
        """
        raise NotImplementedError
