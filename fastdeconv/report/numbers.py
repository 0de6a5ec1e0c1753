"""The numbers of a feature as a person reads them: names, units, digits, meaning."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["NUMBERS", "Number", "rounded"]


class Number(NamedTuple):
    """How one column of the table is shown."""

    key: str
    name: str
    unit: str
    digits: int
    """Decimals."""
    percent: bool
    meaning: str

    def text(self, value: float | None) -> str:
        """The value with its unit; a dash for None."""
        if value is None:
            return "–"
        shown = 100 * value if self.percent else value
        return f"{shown:.{self.digits}f}{self.unit and ' ' + self.unit}".replace("-", "−")


#: In the order in which they are shown.
NUMBERS = (
    Number("level", "level", "dB", 1, False,
           "energy heard, relative to the strongest feature of the layer"),
    Number("onset", "onset", "", 2, False,
           "correlation of the map's size with the clip's spectral flux, frame by frame"),
    Number("attack", "attack", "dB", 1, False,
           "size of the map at onsets relative to all other frames; negative: it avoids them"),
    Number("harmonic", "harmonic", "%", 0, True,
           "energy heard in the harmonic part of the clip (HPSS); the rest is percussive"),
    Number("sustain", "sustain", "", 2, False,
           "autocorrelation of the spectrogram heard, after 0.1 s"),
    Number("centroid", "centroid", "Hz", 0, False, "mean frequency of the energy heard"),
    Number("bandwidth", "bandwidth", "Hz", 0, False, "its standard deviation"),
    Number("flatness", "flatness", "", 2, False,
           "spectral flatness of the energy heard: 1 for white noise, near 0 for a tone"),
    Number("low", "below 200 Hz", "%", 0, True, "share of the energy heard"),
    Number("mid", "200–2000 Hz", "%", 0, True, "share of the energy heard"),
    Number("high", "above 2 kHz", "%", 0, True, "share of the energy heard"),
    Number("share", "clip let through", "%", 1, True,
           "share of the clip's energy, were the map's largest value 1"),
    Number("nonzero", "bins used", "%", 0, True, "share of the map's bins that are not zero"),
    Number("frequency_selectivity", "selective in frequency", "", 2, False,
           "0 if the map is as large in all bands, near 1 if in one"),
    Number("time_selectivity", "selective in time", "", 2, False,
           "0 if the map is as large in all frames, near 1 if in one"),
    Number("sign", "sign balance", "", 2, False,
           "sum of the map over the sum of its sizes: 1 all positive, −1 all negative"),
    Number("copy", "likeness to input", "", 2, False,
           "correlation of the map with the network's input"),
)


def rounded(value: Any) -> Any:
    """A float to five digits, as a page needs it; anything else as it is."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
