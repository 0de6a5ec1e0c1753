"""Labels of a feature: words that its descriptors justify. docs/listening.md has the table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["LABELS", "label"]

Numbers = Mapping[str, Any]

#: All labels, in the order in which a feature has them.
LABELS = (
    "silent", "copies the input", "onsets", "avoids onsets", "sustained harmonics",
    "low end", "high noise",
)

_NEEDED = ("onset", "attack", "sustain", "harmonic", "low", "high")

_COPY = 0.5**0.5  # smallest `copy`: the input explains half of the map's variance
_ONSETS = (0.4, 4.0)  # smallest `onset` and `attack` (dB)
_AVOIDS = (-0.3, -1.5)  # largest `onset` and `attack` (dB)
_HARMONIC, _SUSTAIN, _CALM = 0.8, 0.5, 0.3  # smallest `harmonic` and `sustain`, bound of `onset`
_CHANCE = 1.96  # divided by sqrt(n - 1): what a correlation of n values reaches by chance
_LOW = 0.6  # smallest `low`
_HIGH, _NOISE = 0.5, 0.6  # smallest `high`, bound of `harmonic`
_ODDS = 1.5  # smallest ratio of the odds of a share in the feature to its odds in the clip


def label(row: Numbers, clip: Numbers, frames: int) -> str:
    """The labels of a feature, joined by ", "; empty if none is justified.

    Parameters
    ----------
    row, clip : mapping
        Descriptors of the feature and of the clip itself: a feature is not called low only because
        the clip is low. A descriptor that is None justifies no label.
    frames : int
        Number of frames of the clip. With few of them a high correlation with onsets may be chance.
    """
    if row["level"] is None:
        return "silent"
    if row["copy"] >= _COPY:
        return "copies the input"
    # NaN for None: every comparison with it is False.
    known = {key: math.nan if row[key] is None else row[key] for key in _NEEDED}
    chance = _CHANCE / math.sqrt(max(1, frames - 1))
    onset, attack = known["onset"], known["attack"]
    justified = {
        "onsets": onset >= max(_ONSETS[0], chance) and attack >= _ONSETS[1],
        "avoids onsets": onset <= min(_AVOIDS[0], -chance) and attack <= _AVOIDS[1],
        "sustained harmonics": known["sustain"] >= _SUSTAIN and onset < _CALM
        and _stands_out(known, clip, "harmonic", _HARMONIC),
        "low end": _stands_out(known, clip, "low", _LOW),
        "high noise": known["harmonic"] < _NOISE and _stands_out(known, clip, "high", _HIGH),
    }
    return ", ".join(word for word in LABELS if justified.get(word))


def _stands_out(row: Numbers, clip: Numbers, key: str, least: float) -> bool:
    """Whether a share is at least `least`, and its odds are well above those in the clip."""
    share, own = row[key], clip[key] or 0.0  # None for a silent clip
    return bool(share >= least and share * (1 - own) >= _ODDS * own * (1 - share))
