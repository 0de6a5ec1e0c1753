"""A feature in words, where its numbers warrant them. docs/listening.md has the table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["LABELS", "label"]

Numbers = Mapping[str, Any]

#: Every word there is, in the order in which they are given.
LABELS = (
    "silent", "copies the input", "onsets", "avoids onsets", "sustained harmonics",
    "low end", "high noise",
)

_ASKED = ("onset", "attack", "sustain", "harmonic", "low", "high")

_COPY = 0.5**0.5  # half of the map's variance is the input's
_ONSETS = (0.4, 4.0)  # least correlation with the flux, least dB at onsets
_AVOIDS = (-0.3, -1.5)
_HARMONIC, _SUSTAIN, _CALM = 0.8, 0.5, 0.3  # least, least, less than (of onset)
_CHANCE = 1.96  # over the root of n - 1: what a correlation of n values reaches by chance
_LOW = 0.6
_HIGH, _NOISE = 0.5, 0.6  # least, less than (of harmonic)
_ODDS = 1.5  # how much more of its energy than of the clip's lies where the label says


def label(row: Numbers, clip: Numbers, frames: int) -> str:
    """The labels of a feature, joined by ", "; empty if none is warranted.

    Parameters
    ----------
    row, clip : mapping
        Descriptors of the feature, and of the clip itself: a feature is not called
        low because the clip is. What is None warrants nothing.
    frames : int
        Of the clip. Of few frames a high correlation with the onsets may be chance.
    """
    if row["level"] is None:
        return "silent"
    if row["copy"] >= _COPY:
        return "copies the input"
    # No comparison with NaN holds.
    known = {key: math.nan if row[key] is None else row[key] for key in _ASKED}
    chance = _CHANCE / math.sqrt(max(1, frames - 1))
    onset, attack = known["onset"], known["attack"]
    warranted = {
        "onsets": onset >= max(_ONSETS[0], chance) and attack >= _ONSETS[1],
        "avoids onsets": onset <= min(_AVOIDS[0], -chance) and attack <= _AVOIDS[1],
        "sustained harmonics": known["sustain"] >= _SUSTAIN and onset < _CALM
        and _stands_out(known, clip, "harmonic", _HARMONIC),
        "low end": _stands_out(known, clip, "low", _LOW),
        "high noise": known["harmonic"] < _NOISE and _stands_out(known, clip, "high", _HIGH),
    }
    return ", ".join(word for word in LABELS if warranted.get(word))


def _stands_out(row: Numbers, clip: Numbers, key: str, least: float) -> bool:
    """Whether a share is at least `least`, and its odds well above the clip's."""
    share, own = row[key], clip[key] or 0.0  # a silent clip has nothing anywhere
    return bool(share >= least and share * (1 - own) >= _ODDS * own * (1 - share))
