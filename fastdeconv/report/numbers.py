"""The numbers of a feature as a person reads them: names, units, digits, meaning."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["NUMBERS", "PLACES", "TRUST", "Number", "rounded"]


class Number(NamedTuple):
    """How one column of the table is shown."""

    key: str
    name: str
    unit: str
    digits: int
    """Decimals."""
    percent: bool
    meaning: str
    caveat: str = ""
    """What it does not prove."""

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

#: Where the strongest unit of a feature looks; see `Explanation.table`.
PLACES = (
    Number("unit_start", "strongest unit, from", "s", 2, False,
           "beginning of what the feature's strongest unit can see"),
    Number("unit_end", "strongest unit, to", "s", 2, False, "end of it"),
    Number("unit_low", "strongest unit, lowest", "Hz", 0, False,
           "lowest frequency that the feature's strongest unit can see"),
    Number("unit_high", "strongest unit, highest", "Hz", 0, False, "highest frequency"),
)

#: How far to believe a feature, in the order in which they are shown; those that decide first.
TRUST = (
    Number("nearest", "unlike an untrained network", "", 2, False,
           "1 less the correlation of the map with the most similar one that an untrained "
           "network draws of this clip",
           "that the picture means something: only that random filters do not draw it"),
    Number("where", "looks where it reacts", "", 2, False,
           "rank correlation of the map's size, patch by patch, with how much the activation "
           "changes when the patch is replaced by the mean of its band",
           "that the feature likes what is there, or that the map is better than loudness"),
    Number("reactivation", "answers to its own sound", "", 2, False,
           "how strongly the feature answers to its own sound, as a share of the clip",
           "that this sound is the cause: a copy of the clip has exactly 1, and untrained "
           "features come close to it"),
    Number("among_sounds", "prefers its own sound", "", 2, False,
           "share of the other features' sounds that excite it less than its own; 0.5 is chance",
           "that it is selective in other clips, or among sounds that are not in this one"),
    Number("steadiness", "steady under noise", "", 2, False,
           "correlation of the map with that of the clip with noise 60 dB below it",
           "that the map is right: only that it does not hang on what nobody hears"),
    Number("support", "reacts in favour", "", 2, False,
           "as “looks where it reacts”, but with the sign: whether bright patches raise the "
           "activation",
           "that dark patches count for nothing"),
    Number("input_where", "what loudness would score", "", 2, False,
           "what the bare spectrogram scores for “looks where it reacts”",
           "anything about the feature: it is the number to beat"),
    Number("beyond_input", "beyond loudness", "", 2, False,
           "“looks where it reacts” with what loudness explains taken out (a partial correlation)",
           "that the rest was learned: compare with the untrained network"),
    Number("among_features", "its sound is its own", "", 2, False,
           "share of the other features that its sound excites less, relative to the clip; 0.5 "
           "is chance",
           "that nobody else would answer: features that like any sparse sound score low here"),
    Number("same", "unlike its untrained namesake", "", 2, False,
           "1 less the correlation with the untrained network's feature of the same number",
           "anything alone: after training the number of a feature means nothing"),
)


def rounded(value: Any) -> Any:
    """A float to five digits, as a page needs it, None for NaN; anything else as it is."""
    if value != value:
        return None
    return float(f"{value:.5g}") if isinstance(value, float) else value
