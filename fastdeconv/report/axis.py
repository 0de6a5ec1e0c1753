"""The axes of the pictures: frequency in equal musical steps, time in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..audio.frontend import Frontend

__all__ = ["ROWS_PER_OCTAVE", "FrequencyAxis", "time_step"]

#: A row of a picture is a quarter tone.
ROWS_PER_OCTAVE = 24

_LOWEST_HZ = 30.0
_C0_HZ = 16.351597831287414
_STEPS = (1, 2, 5)


class FrequencyAxis:
    """Turns bins of an STFT, evenly spaced in Hz, into rows evenly spaced in octaves.

    Parameters
    ----------
    sr : float
        Sample rate, Hz.
    n_fft : int
    notes : bool
        Whether ticks are named by notes instead of frequencies.

    Attributes
    ----------
    low, high : float
        Hz at the lower edge of row 0 and the upper edge of the last: 30 Hz, or bin 1 if
        that is higher, to half the sample rate.
    rows : int
        Number of rows, `ROWS_PER_OCTAVE` for each octave.
    notes : bool
    """

    def __init__(self, sr: float, n_fft: int, notes: bool = False) -> None:
        self.notes = notes
        self._width = width = sr / n_fft
        self.high = sr / 2
        self.low = min(max(_LOWEST_HZ, width), self.high / 2)
        self.rows = max(1, round(ROWS_PER_OCTAVE * math.log2(self.high / self.low)))
        edges = self.low * (self.high / self.low) ** (np.arange(self.rows + 1) / self.rows) / width
        bins = n_fft // 2 + 1
        self._nearest = np.rint(np.sqrt(edges[:-1] * edges[1:])).astype(int).clip(0, bins - 1)
        # The bins of a row begin with the first that is not below its lower edge, and end before
        # the first of the next row.
        first = np.ceil(edges[:-1] - 1e-9).astype(int).clip(0, bins - 1)
        count = np.diff(np.append(first, bins))
        # The i-th bin of all rows that have so many: taking a few gathers of whole rows needs a
        # quarter of the time of np.maximum.reduceat.
        self._own = [
            (rows, first[rows] + i)
            for i in range(int(count.max()))
            for rows in [np.flatnonzero(count > i)]
        ]

    @classmethod
    def of(cls, frontend: Frontend | Mapping[str, Any]) -> FrequencyAxis:
        """The axis for a front end, or the record of one."""
        record = frontend if isinstance(frontend, Mapping) else frontend.to_record()
        return cls(record["sr"], record["n_fft"], record["kind"] == "cqt")

    def loudest(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The largest of the bins of every row, or its nearest bin: (F, ...) to (rows, ...)."""
        out = values[self._nearest]
        for i, (rows, bins) in enumerate(self._own):
            out[rows] = values[bins] if i == 0 else np.maximum(out[rows], values[bins])
        return out

    def nearest(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The bin nearest to the middle of every row: (F, ...) to (rows, ...)."""
        return values[self._nearest]

    def position(self, hz: float) -> float:
        """Height of a frequency in the picture, 0 at the bottom to 1 at the top."""
        return math.log(hz / self.low) / math.log(self.high / self.low)

    def span(self, low: float, high: float) -> tuple[float, float]:
        """Heights of the lower edge of the bin at `low` and the upper edge of that at `high`."""
        half = self._width / 2
        return self.position(max(low - half, self.low)), self.position(max(high + half, self.low))

    def ticks(self) -> list[tuple[float, str]]:
        """Frequencies to name on the axis and their names: 100, 200, 500, 1k, ... or C2, C3, ..."""
        if self.notes:
            octaves = [(_C0_HZ * 2.0**n, f"C{n}") for n in range(11)]
            return [(hz, name) for hz, name in octaves if 0.02 < self.position(hz) < 0.99]
        found = [s * 10.0**e for e in range(1, 6) for s in _STEPS]
        return [(hz, f"{hz / 1000:g}k" if hz >= 1000 else f"{hz:g}")
                for hz in found if 0.02 < self.position(hz) < 0.99]


def time_step(seconds: float) -> float:
    """Seconds between the ticks of a time axis of this length: a round number, for 3 to 8 ticks."""
    rough = seconds / 4 if seconds > 0 else 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return power * max(s for s in _STEPS if s * power <= rough * (1 + 1e-9))
