"""How the numbers of a feature are shown to a person: names, units, digits and meanings."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

__all__ = ["NUMBERS", "PLACES", "TRUST", "Number", "length_text", "rounded", "with_minus"]


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
    """What the number does not prove."""

    def text(self, value: float | None) -> str:
        """The value with its unit; a dash for None."""
        if value is None:
            return "–"
        shown = 100 * value if self.percent else value
        return with_minus(f"{shown:.{self.digits}f}{self.unit and ' ' + self.unit}")


def with_minus(text: str) -> str:
    """A text with minus signs instead of the hyphens before and in its numbers."""
    return re.sub(r"(?<!\w)-(?=\.?\d)|(?<=\de)-(?=\d)", "−", text)


def length_text(seconds: float) -> str:
    """How long a collection is, in minutes or hours."""
    if seconds < 3600:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:,.1f} hours"


#: In the order in which they are shown.
NUMBERS = (
    Number("level", "level", "dB", 1, False,
           "energy of what is heard, relative to the strongest feature of the layer"),
    Number("onset", "onset", "", 2, False,
           "correlation of the map's size with the clip's spectral flux, frame by frame"),
    Number("attack", "attack", "dB", 1, False,
           "size of the map at onsets, relative to all other frames; negative if it avoids onsets"),
    Number("harmonic", "harmonic", "%", 0, True,
           "share of the energy that is heard in the harmonic part of the clip (HPSS); the rest is "
           "percussive"),
    Number("sustain", "sustain", "", 2, False,
           "autocorrelation of the spectrogram that is heard, at a lag of 0.1 s"),
    Number("centroid", "centroid", "Hz", 0, False, "mean frequency of the energy that is heard"),
    Number("bandwidth", "bandwidth", "Hz", 0, False,
           "standard deviation of that energy about the centroid"),
    Number("flatness", "flatness", "", 2, False,
           "spectral flatness of the energy that is heard: 1 for white noise, near 0 for a tone"),
    Number("low", "below 200 Hz", "%", 0, True, "share of the energy that is heard in this range"),
    Number("mid", "200–2000 Hz", "%", 0, True, "share of the energy that is heard in this range"),
    Number("high", "above 2 kHz", "%", 0, True, "share of the energy that is heard in this range"),
    Number("share", "clip let through", "%", 1, True,
           "share of the clip's energy that passes if the map is scaled to a largest value of 1"),
    Number("nonzero", "bins used", "%", 0, True, "share of the map's bins that are not zero"),
    Number("frequency_selectivity", "selective in frequency", "", 2, False,
           "0 if the map is equally large in all bands, near 1 if it is large in only one"),
    Number("time_selectivity", "selective in time", "", 2, False,
           "0 if the map is equally large in all frames, near 1 if it is large in only one"),
    Number("sign", "sign balance", "", 2, False,
           "sum of the map divided by the sum of its absolute values: 1 if all of it is positive, "
           "−1 if all of it is negative"),
    Number("copy", "likeness to input", "", 2, False,
           "correlation of the map with the network's input"),
)

#: What the strongest unit of a feature can see; see `Explanation.table`.
PLACES = (
    Number("unit_start", "strongest unit, from", "s", 2, False,
           "beginning of what the feature's strongest unit can see"),
    Number("unit_end", "strongest unit, to", "s", 2, False, "end of what it can see"),
    Number("unit_low", "strongest unit, lowest", "Hz", 0, False,
           "lowest frequency that the feature's strongest unit can see"),
    Number("unit_high", "strongest unit, highest", "Hz", 0, False,
           "highest frequency that it can see"),
)

#: The numbers about how far to believe a feature, in the order in which they are shown; those that
#: decide the verdict come first.
TRUST = (
    Number("nearest", "unlike an untrained network", "", 2, False,
           "1 minus the correlation of the map with the most similar map that an untrained network "
           "draws of this clip",
           "that the picture means something: only that random filters do not draw it"),
    Number("where", "looks where it reacts", "", 2, False,
           "rank correlation of the map's size, patch by patch, with how much the activation "
           "changes when the patch is replaced by the mean of its band",
           "that the feature likes what is there, or that the map is better than loudness"),
    Number("reactivation", "answers to its own sound", "", 2, False,
           "how strongly the feature answers to its own sound, as a share of the clip",
           "that this sound is the cause: a copy of the clip has exactly 1, and untrained "
           "features come close to that"),
    Number("among_sounds", "prefers its own sound", "", 2, False,
           "share of the other features' sounds that excite it less than its own; 0.5 is chance",
           "that it is selective in other clips, or among sounds that are not in this one"),
    Number("steadiness", "steady under noise", "", 2, False,
           "correlation of the map with the map of the same clip with noise 60 dB below it",
           "that the map is right: only that it does not depend on what nobody hears"),
    Number("support", "reacts in favour", "", 2, False,
           "as “looks where it reacts”, but with the sign: whether bright patches raise the "
           "activation",
           "that dark patches do not matter"),
    Number("input_where", "what loudness would score", "", 2, False,
           "the value of “looks where it reacts” for the spectrogram itself instead of the map",
           "anything about the feature: it is the number to beat"),
    Number("beyond_input", "beyond loudness", "", 2, False,
           "“looks where it reacts” without what loudness explains (a partial correlation)",
           "that the rest was learned: compare with the untrained network"),
    Number("among_features", "its sound is its own", "", 2, False,
           "share of the other features that its sound excites less, relative to the clip; 0.5 "
           "is chance",
           "that no other feature would answer: features that like any sparse sound score low"),
    Number("same", "unlike its untrained namesake", "", 2, False,
           "1 minus the correlation with the map of the untrained network's feature of the same "
           "number",
           "anything by itself: after training the number of a feature means nothing"),
)


def rounded(value: Any) -> Any:
    """A float rounded to five digits for a page; None for NaN; anything else unchanged."""
    if value != value:
        return None
    return float(f"{value:.5g}") if isinstance(value, float) else value
