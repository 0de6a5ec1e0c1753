"""Sentences about the results of an attribute study.

They say only what was measured: silent features are called silent and are not compared, and without
an interval nothing is said about other stimuli.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from ..errors import printable
from .attributes import (
    CONFIDENCE,
    RESOLUTION,
    AttributeStudy,
    least_groups,
    least_resamplings,
)

__all__ = ["findings"]

_MARGIN = 0.1
"""Smallest margin of a feature that is counted as ignoring one attribute rather than another."""

_CAVEAT = (
    "A high correlation says that maps look alike, not that the network does not know the "
    "attribute; a difference from the control says what training changed for stimuli like these. "
    f"Intervals are {100 * CONFIDENCE:g} %, by bootstrap over groups of stimuli, if there are "
    f"at least {least_groups()} groups. They do not cover another training run."
)


def findings(study: AttributeStudy) -> str:
    """The results of an attribute study in words, the controls first.

    Parameters
    ----------
    study : AttributeStudy

    Returns
    -------
    str
        Paragraphs separated by blank lines.
    """
    parts = [
        _controls(study), *(_attribute(study, name) for name in study.attributes),
        _features(study), _CAVEAT,
    ]
    return "\n\n".join(map(printable, parts)) + "\n"


def _controls(study: AttributeStudy) -> str:
    pairs = study.found["input", "input"]["map"].pairs
    own = ", ".join(f"{name} {study.mean(name, subject='input')}" for name in study.attributes)
    count = int(pairs[0].sum())
    groups = ", ".join(f"{name} {len(study.design.of(name))}" for name in study.attributes)
    return (
        f"{len(study.stimuli)} stimuli with {count:,} pairs that differ in one attribute only, in "
        f"groups that share all other attributes: {groups}. "
        f"Before any network, their input spectrograms correlate: {own}. "
        f"Read every figure of {study.network} beside these and beside those of "
        f"{study.control}, the control."
    )


def _attribute(study: AttributeStudy, name: str) -> str:
    return (
        f"{name}: maps of stimuli that differ in {name} only correlate "
        f"{_along(study, name, 'network')}; those of the control "
        f"{_along(study, name, 'control')}. {_against_control(study, name)}"
    )


def _along(study: AttributeStudy, name: str, subject: str) -> str:
    """The means of the first and the last layer, and how many features are silent there."""
    told = []
    for layer in dict.fromkeys((study.layers[0], study.layers[-1])):
        each = study.correlation(name, layer, subject)
        silent = int(np.isnan(each).sum())
        some = f" ({silent} of {len(each)} features silent)" if 0 < silent < len(each) else ""
        told.append(f"{study.mean(name, layer, subject)} in {layer}{some}")
    return ", ".join(told)


def _against_control(study: AttributeStudy, name: str) -> str:
    more, less, same, untold, silent, no_control = (_Said() for _ in range(6))
    for layer in study.layers:
        difference = study.difference(name, layer)
        if np.isnan(study.mean(name, layer).value):
            silent.append(layer)
        elif np.isnan(study.mean(name, layer, "control").value):
            no_control.append(layer)
        elif not difference.has_interval:
            untold.append(layer)
        elif difference.low > RESOLUTION:
            more.append(f"{layer} ({difference.text('+')})")
        elif difference.high < -RESOLUTION:
            less.append(f"{layer} ({difference.text('+')})")
        else:
            same.append(layer)
    compared = "; ".join(
        f"{how} the control's in {layers}" for how, layers in (
            ("more alike than", more), ("less alike than", less),
            ("not distinguishable from", same),
        ) if layers
    )
    return " ".join(sentence for sentence in (
        f"They are {compared}." if compared else "",
        f"About other stimuli than these nothing can be said for {untold}: {_why(study, name)}."
        if untold else "",
        f"Silent, and not compared: {silent}." if silent else "",
        f"Not compared, because the control is silent there: {no_control}." if no_control else "",
    ) if sentence)


class _Said(list[str]):
    """Layers about which the same is said."""

    def __str__(self) -> str:
        return ", ".join(self)


def _why(study: AttributeStudy, name: str) -> str:
    """Why the difference from the control has no interval."""
    groups, resamplings = len(study.design.of(name)), study.parameters["resamplings"]
    needed = f"an interval needs {least_groups()}"
    if groups == 1:
        return f"there is only one group of stimuli, and {needed}"
    if groups < least_groups():
        return f"there are only {groups} groups of stimuli, and {needed}"
    if resamplings < least_resamplings():
        return f"{resamplings} resamplings are too few for an interval"
    return f"in too many groups of stimuli the maps are silent, and {needed}"


def _features(study: AttributeStudy) -> str:
    if len(study.attributes) < 2:
        return (
            "About single features nothing can be said: there is only one attribute, so that no "
            "other one can be ignored or followed instead."
        )
    total = sum(map(len, study.features.values()))
    untold = sum(
        bool(np.isnan(row["low"])) for row in study.feature_table if row["subject"] == "network"
    )
    if untold == total:
        needed = study.margin_confidence
        return (
            "About single features nothing can be said: a margin between two attributes needs "
            f"{least_groups(needed)} groups of stimuli of each in which the maps are not silent, "
            f"and {least_resamplings(needed)} resamplings."
        )
    missing = (
        f" About {untold} of them nothing can be said: they are silent in all or in too many "
        "groups of stimuli." if untold else ""
    )
    return f"{_kinds(study, total)}{missing}"


def _kinds(study: AttributeStudy, total: int) -> str:
    """How many features, and how many of the control's, ignore one attribute and not another."""
    counts = [
        Counter((row["ignores"], row["follows"]) for row in study.find(subject=s, margin=_MARGIN))
        for s in ("network", "control")
    ]
    kinds = sorted(counts[0] | counts[1], key=lambda kind: -counts[0][kind])
    if not kinds:
        return (
            f"None of {total} features ignores one attribute rather than another by a margin of "
            f"{_MARGIN} or more, beyond what the input spectrogram does anyway."
        )
    listed = "; ".join(
        f"{a} rather than {b}: {counts[0][a, b]} ({counts[1][a, b]})" for a, b in kinds
    )
    return (
        f"How many of {total} features (in brackets, of the control) ignore one attribute rather "
        f"than another by a margin of {_MARGIN} or more, beyond what the input spectrogram does "
        f"anyway: {listed}."
    )
