"""Sentences from the numbers of an attribute study."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .attributes import Estimate

if TYPE_CHECKING:
    from .attributes import AttributeStudy

__all__ = ["findings"]

_MARGIN = 0.1
"""From here on a feature counts as one that ignores this and follows that."""

_CAVEAT = (
    "A high correlation says that maps look alike, not that the network is unaware of the "
    "attribute; a difference to the control says what training changed for stimuli like these. "
    "Intervals are 95 %, by bootstrap over groups of stimuli; another training run is not in them."
)


def findings(study: AttributeStudy) -> str:
    """What an attribute study says, in words, controls first.

    Returns
    -------
    str
        Paragraphs divided by blank lines.
    """
    parts = [_controls(study), *(_attribute(study, name) for name in study.attributes)]
    return "\n\n".join([*parts, _features(study), _CAVEAT]) + "\n"


def _controls(study: AttributeStudy) -> str:
    pairs = study.found["input", "input"]["map"].pairs
    own = ", ".join(f"{name} {study.mean(name)}" for name in study.attributes)
    count = int(pairs[0].sum())
    return (
        f"{len(study.stimuli)} stimuli, {count:,} pairs that differ in one attribute alone. "
        f"Before any network, their input spectrograms correlate: {own}. "
        f"Every figure of {study.network} is to be read beside these and beside "
        f"{study.control}, the control."
    )


def _attribute(study: AttributeStudy, name: str) -> str:
    first, last = study.layers[0], study.layers[-1]
    ends = [first] if first == last else [first, last]

    def along(subject: str) -> str:
        return ", ".join(f"{study.mean(name, layer, subject)} in {layer}" for layer in ends)

    return (
        f"{name}: maps of stimuli that differ in {name} alone correlate {along('network')}; "
        f"those of the control {along('control')}. {_against_control(study, name)}"
    )


def _against_control(study: AttributeStudy, name: str) -> str:
    said: dict[str, list[str]] = {"more": [], "less": [], "": []}
    for layer in study.layers:
        difference = study.difference(name, layer)
        value, low, high = difference
        figures = f" ({value:+.2f} [{low:+.2f}, {high:+.2f}])"
        which = _direction(difference)
        said[which].append(layer + figures if which else layer)
    sentences = [
        f"{which} alike than the control's in {', '.join(said[which])}"
        for which in ("more", "less") if said[which]
    ]
    if said[""]:
        sentences.append(f"not to be told from the control's in {', '.join(said[''])}")
    return f"They are {'; '.join(sentences)}."


def _direction(difference: Estimate) -> str:
    if difference.low > 0:
        return "more"
    return "less" if difference.high < 0 else ""


def _features(study: AttributeStudy) -> str:
    total = sum(map(len, study.features.values()))
    counts = [
        Counter((row["ignores"], row["follows"]) for row in study.find(subject=s, margin=_MARGIN))
        for s in ("network", "control")
    ]
    kinds = sorted(counts[0] | counts[1], key=lambda kind: -counts[0][kind])
    if not kinds:
        return (
            f"No feature of {total} minds one attribute less than another by {_MARGIN} more than "
            "the input spectrogram does."
        )
    listed = "; ".join(
        f"{a} rather than {b}: {counts[0][a, b]} ({counts[1][a, b]})" for a, b in kinds
    )
    return (
        f"Beyond what the input spectrogram does anyway, features of {total} (in brackets, of the "
        f"control) that ignore one attribute rather than another, by a margin of {_MARGIN} or "
        f"more: {listed}."
    )
