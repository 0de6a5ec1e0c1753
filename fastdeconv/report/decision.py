"""The folder of a decision: a page, pictures, sounds and the table of numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import printable
from ..textfiles import write_text
from .axis import FrequencyAxis
from .citations import AURALISATION
from .folder import (
    DECISION,
    check_free,
    manifest_head,
    new_folder,
    result_place,
    write_manifest,
)
from .listening import axis_of, covered
from .names import safe_name, unique_names
from .notebook import CLASSES, Judged, decision_overview
from .numbers import with_minus
from .picture import levels, signed_levels, write_png
from .song import original_gain, weights
from .sounds import check_format, peak_gain, write_sound
from .tables import write_rows
from .web import render, url

if TYPE_CHECKING:
    from ..belief.decision import Decision

__all__ = ["check_place", "class_label", "notebook_of", "write_decision"]

_PARTS = {
    "for": "what spoke for it", "against": "what spoke against it",
    "left": "what remains without what spoke for it",
}
# Columns of the page's table: key, name, and which values are best. The CSV has all columns.
_SHOWN = (
    ("srg", "srg", "high"), ("srg_min", "srg, silence", "above 0"), ("ad_top", "ad top", "low"),
    ("fid_in_top", "fid-in top", "high"), ("ff_top", "ff top", "high"),
    ("ad", "ad", "low"), ("fid_in", "fid-in", "high"), ("energy", "energy", ""),
    ("sps", "sps", "high"),
)
_MEANINGS = (
    ("srg", "Patches of the input are replaced by band means, one after another: once beginning "
            "with those that the map calls most important, and once ending with them. srg is the "
            "area between the two curves of the class's probability: 0 for a random order, at most "
            "1."),
    ("srg, silence", "The same with silence instead of band means. Loudness does well here, so "
                     "this only shows that a map is not upside down."),
    ("ad, fid-in, ff, energy", "The network is given the sound that you hear. ad: by how many "
                               "percent the probability drops. fid-in: whether the decision stays "
                               "the same. ff: how much of the probability is lost if what the map "
                               "keeps is removed. energy: the share of the clip's energy in the "
                               "sound."),
    ("top", "The same numbers with only the fifth of the bins in which the map is largest. Compare "
            "methods by these: with a decibel front end even a smooth mask of noise keeps the "
            "decision."),
    ("sps", "How far the map is concentrated in few bins (Gini coefficient)."),
    ("random, input, band_mean", "Noise, the spectrogram itself, and its mean over time: what a "
                                 "method has to beat."),
    ("runner_up", "The method's map for the most probable other class. If it does as well, the map "
                  "is about the clip and not about the class."),
)


def check_place(out: str | os.PathLike[str], source: str | None, *, overwrite: bool) -> None:
    """See that the decision about a file may be written in `out` under its default name.

    Raises
    ------
    ParameterError
        As `check_free`.
    """
    check_free(*_place(out, source, None), DECISION, overwrite=overwrite)


def _place(
    out: str | os.PathLike[str], source: str | None, name: str | None
) -> tuple[Path, str]:
    stem = "clip" if source is None else Path(source).stem
    return result_place(out, f"{stem} why" if name is None else name, "why")


def write_decision(
    why: Decision, out: str | os.PathLike[str], name: str | None, *, overwrite: bool,
    audio_format: str,
) -> Path:
    """Write a decision; see `fastdeconv.Decision.save`."""
    check_format(audio_format)
    place, folder_name = _place(out, why.source, name)
    with new_folder(place, folder_name, DECISION, overwrite=overwrite) as folder:
        clip, axis = why.clip, FrequencyAxis.of(why.clip.frontend)
        write_sound(
            folder / f"original.{audio_format}", clip.samples, clip.sr, original_gain(clip.samples)
        )
        magnitude = np.ascontiguousarray(np.abs(clip.stft))
        loudest = axis.loudest(magnitude)
        write_png(folder / "original.png", levels(loudest, float(magnitude.max(initial=0.0))))
        shown = _write_classes(why, folder, axis, audio_format)
        write_rows(folder / "decision.csv", why.table)
        write_text(folder / "index.html", render("decision.html", [], {
            **_said(why),
            "title": f"Why {', '.join(class_label(why, name) for name in why.classes)}?",
            "classes": shown,
            "columns": _SHOWN, "meanings": _MEANINGS, "axis": axis_of(axis, clip.duration),
            "original": f"original.{audio_format}",
        }))
        write_manifest(folder, _manifest(why, audio_format))
    return place / folder_name


def notebook_of(why: Decision) -> str:
    """What a notebook shows of a decision; see `decision_overview`."""
    return decision_overview(_said(why), why.clip, [
        (class_label(why, name), [
            Judged(
                method, weights(why.clip, why.input_map(name, method), "mask"),
                why.sound(name, method, "for"),
            )
            for method in why.methods
        ])
        for name in why.classes[:CLASSES]
    ], len(why.classes))


def _said(why: Decision) -> dict[str, Any]:
    return {
        "explained": printable(why.source or "a clip"),
        "network": printable(why.network.name or "without a name"),
        "versus": None if why.versus is None else class_label(why, why.versus),
        "scores": _scores(why), "notes": _notes(why),
    }


def class_label(why: Decision, name: str) -> str:
    """A class as a person reads it: its name or, where the classes have none, "class 4"."""
    return printable(name if why.network.classes else f"class {name}")


def _write_classes(
    why: Decision, folder: Path, axis: FrequencyAxis, audio_format: str
) -> list[dict[str, Any]]:
    """Write the pictures and sounds of every class and method; returns what the page shows."""
    stems = unique_names([safe_name(name, "class") for name in why.classes], taken=("original",))
    shown = []
    for name, stem in zip(why.classes, stems):
        methods = []
        for method in why.methods:
            start = f"{stem} {method}"
            plane = why.input_map(name, method)
            write_png(
                folder / f"{start}.png",
                signed_levels(axis.nearest(weights(why.clip, plane, "mask"))), signed=True,
            )
            sounds: list[tuple[str, str | None]] = []
            for part, words in _PARTS.items():
                sound = why.sound(name, method, part)
                if sound.any():
                    file = f"{start} {part}.{audio_format}"
                    write_sound(folder / file, sound, why.clip.sr, _gain(sound))
                    sounds.append((words, url(file)))
                else:
                    sounds.append((words, None))
            methods.append({"name": method, "picture": url(f"{start}.png"), "sounds": sounds})
        rows = [row for row in why.table if row["class"] == name]
        shown.append({
            "name": class_label(why, name), "verdict": with_minus(why.verdict(name)),
            "methods": methods, "rows": [_cells(row) for row in rows],
        })
    return shown


def _gain(sound: NDArray[np.float32]) -> float:
    return peak_gain(float(np.abs(sound).max(initial=0.0)))


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    name = row["method"] if row["of"] is None else f"{row['method']} of {row['of']}"
    # Adding 0 turns -0.0 into 0.0.
    cells = [
        "" if row[key] is None else with_minus(f"{round(row[key], 2) + 0:.2f}")
        for key, _, _ in _SHOWN
    ]
    return {"name": name, "best": row["best"], "cells": cells}


def _scores(why: Decision) -> Sequence[tuple[str, str, str, str]]:
    ordered = sorted(why.scores.items(), key=lambda item: -item[1].probability)
    return [
        (
            printable(name), with_minus(f"{one.score:.3g}"), f"{100 * one.probability:.1f} %",
            with_minus(f"{round(one.log_odds, 2) + 0:.2f}"),
        )
        for name, one in ordered
    ]


def _notes(why: Decision) -> list[str]:
    clip = why.clip
    part = covered(clip.start, clip.duration, is_cut=clip.is_cut, padding=clip.padding)
    return [with_minus(printable(note)) for note in [*why.notes, *([] if part is None else [part])]]


def _manifest(why: Decision, audio_format: str) -> dict[str, Any]:
    return {
        **manifest_head(DECISION),
        "source": why.source,
        "network": why.network.name,
        "classes": why.classes,
        "versus": why.versus,
        "methods": why.methods,
        "scores": {name: one._asdict() for name, one in why.scores.items()},
        "notes": why.notes,
        "verdicts": {name: why.verdict(name) for name in why.classes},
        "parameters": {"steps": why.steps, "blur": why.blur, "audio_format": audio_format},
        "citation": [AURALISATION],
    }
