"""What every kind of front end says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..stft import Stft

__all__ = ["Fields", "Framing", "Kind", "Samples"]

Fields = Any
"""A `Frontend`: this room is below the record."""

FloatArray = NDArray[np.float32]
ComplexArray = NDArray[np.complex64]


class Framing(Protocol):
    """How many samples belong to how many columns of the input."""

    def num_frames(self, n_samples: int) -> int:
        """Columns of so many samples."""

    def shortest(self, frames: int) -> int:
        """The fewest samples that give so many columns."""

    def longest(self, frames: int) -> int:
        """The most."""

    def seen(self, frames: int) -> int:
        """The samples that so many columns reach."""


class Samples:
    """A column for each sample."""

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
        Fields of `Frontend` that only some kinds have.
    on_stft : bool
        Whether every value of the input belongs to a place of the STFT, so that a map masks
        that. Else a kind has `sounds`.
    of_a_channel : tuple of str
        Fields of it that may differ from channel to channel.
    """

    name: ClassVar[str]
    own: ClassVar[tuple[str, ...]] = ()
    on_stft: ClassVar[bool] = True

    @property
    def of_a_channel(self) -> tuple[str, ...]:
        sizes = ("n_fft", "win_length", "window") if self.on_stft else ()
        return (*sizes, "power", "scale", "normalize", "delta", *self.own)

    def check(self, fields: Fields, sr: float, n_fft: int) -> dict[str, Any]:
        """Its own fields and those that mean something else here, checked and completed."""
        return {}

    def framing(self, fields: Mapping[str, Any]) -> Framing:
        """How samples become columns, from the fields of a front end."""
        return Stft(**{name: fields[name] for name in Stft.__dataclass_fields__})

    def rows(self, frontend: Fields) -> int:
        """Values in a column of the input."""
        raise NotImplementedError

    def values(
        self, frontend: Fields, samples: FloatArray, spectra: ComplexArray
    ) -> NDArray[np.float64]:
        """The input (T, rows) before scale and normalisation, from samples and STFT (T, F)."""
        raise NotImplementedError

    def spread(self, frontend: Fields, planes: FloatArray, n_fft: int) -> FloatArray:
        """Maps (K, T, rows) as weights (K, T, F) of the bins of an STFT of size `n_fft`."""
        raise NotImplementedError

    def drawn(self, frontend: Fields, planes: FloatArray, n_fft: int) -> FloatArray:
        """Values (K, T, rows) at the bins (K, T, F) of such an STFT, to be looked at.

        Bins that the network is not given have the smallest of them: in decibels 0 is bright.
        """
        drawn = self.spread(frontend, planes, n_fft)
        ones = np.ones((1, 1, planes.shape[2]), np.float32)
        given = self.spread(frontend, ones, n_fft)[0, 0] > 0
        return drawn if given.all() else np.where(given, drawn, planes.min())

    def map_order(self, frontend: Fields) -> Literal["C", "F"]:
        """How what `spread` gives lies in memory, as arrays (T, F)."""
        return "C"

    def sounds(
        self, frontend: Fields, samples: FloatArray, planes: FloatArray, mode: str
    ) -> FloatArray:
        """The sounds (K, n) of maps (K, T, rows), each as long as the samples."""
        raise NotImplementedError
