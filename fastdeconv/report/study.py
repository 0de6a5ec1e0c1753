"""The folders of an attribute study and of an evolution: tables, arrays, text and figures.

Figures need matplotlib, an optional extra; without it everything else is written.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..textfiles import write_text
from .citations import AURALISATION, DECONVNET
from .folder import (
    ATTRIBUTES,
    EVOLUTION,
    manifest_head,
    new_folder,
    result_place,
    write_manifest,
)
from .names import safe_name, unique_names
from .tables import own_and_theirs, write_rows

if TYPE_CHECKING:
    from ..analysis.attributes import AttributeStudy
    from ..analysis.evolution import Evolution

__all__ = ["has_figures", "write_evolution", "write_study"]

_EVOLUTION_ARRAYS = ("maps", "value", "clip", "position", "box")


def has_figures() -> bool:
    """Whether figures can be drawn: the extra ``fastdeconv[figures]`` is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def write_study(
    study: AttributeStudy, findings: str, out: str | os.PathLike[str], name: str, *,
    overwrite: bool,
) -> Path:
    """Write a study and its findings; see `fastdeconv.AttributeStudy.save`."""
    out, folder_name = result_place(out, name, "attributes")
    with new_folder(out, folder_name, ATTRIBUTES, overwrite=overwrite) as folder:
        write_rows(folder / "layers.csv", study.table)
        write_rows(folder / "features.csv", study.feature_table)
        write_rows(folder / "stimuli.csv", [
            own_and_theirs({"stimulus": stimulus.name}, stimulus.attributes)
            for stimulus in study.stimuli
        ])
        write_text(folder / "findings.txt", findings)
        _write_arrays(folder / "study.npz", study)
        _draw(folder, study)
        write_manifest(folder, _manifest(study))
    return out / folder_name


def _write_arrays(path: Path, study: AttributeStudy) -> None:
    """Write all correlations, group by group, and the stimuli of each group, without pickles."""
    arrays: dict[str, Any] = {}
    for (subject, layer), views in study.found.items():
        for view, own in views.items():
            key = "input" if subject == "input" else f"{subject}/{layer}/{view}"
            arrays[f"{key}/sums"], arrays[f"{key}/pairs"] = own
    groups = study.design.groups
    longest = max(len(group.members) for group in groups)
    members = np.full((len(groups), longest), -1)
    for row, group in zip(members, groups):
        row[: len(group.members)] = group.members
    arrays["groups/attribute"] = np.array([group.attribute for group in groups])
    arrays["groups/members"] = members
    np.savez_compressed(path, **arrays)


def _draw(folder: Path, study: AttributeStudy) -> None:
    if not has_figures():
        return
    from .figures import draw_attribute, save_figure

    names = unique_names([safe_name(name, "attribute") for name in study.attributes])
    for attribute, name in zip(study.attributes, names):
        save_figure(draw_attribute(study, attribute), folder / f"attribute_{name}")


def _manifest(study: AttributeStudy) -> dict[str, Any]:
    return {
        **manifest_head(ATTRIBUTES),
        "network": study.network,
        "control": study.control,
        "features": study.features,
        "attributes": study.attributes,
        "stimuli": len(study.stimuli),
        "parameters": study.parameters,
        "citation": [AURALISATION],
    }


def write_evolution(
    evolution: Evolution, out: str | os.PathLike[str], name: str, *, overwrite: bool
) -> Path:
    """Write the evolution of features; see `fastdeconv.Evolution.save`."""
    out, folder_name = result_place(out, name, "evolution")
    with new_folder(out, folder_name, EVOLUTION, overwrite=overwrite) as folder:
        write_rows(folder / "evolution.csv", evolution.table)
        arrays = {key: getattr(evolution, key) for key in _EVOLUTION_ARRAYS}
        np.savez_compressed(
            folder / "evolution.npz", features=evolution.features,
            checkpoints=np.array(evolution.labels), **arrays,
        )
        if has_figures():
            from .figures import draw_evolution, save_figure

            save_figure(draw_evolution(evolution), folder / "evolution")
        write_manifest(folder, {
            **manifest_head(EVOLUTION),
            "layer": evolution.layer,
            "features": evolution.features,
            "checkpoints": evolution.labels,
            "citation": [DECONVNET],
        })
    return out / folder_name
