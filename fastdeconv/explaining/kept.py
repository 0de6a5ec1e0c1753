"""Layers of an earlier result that are copied into a new one instead of being computed again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import ParameterError, printable
from ..report.listening import STAGE_FEATURES, Layer
from ..report.saved_files import DAMAGED
from .additions import Additions
from .planning import LAYERS_SETTING, Plan, features_hash
from .result import MAPS
from .saved import SavedExplanation, load

__all__ = ["Kept", "kept_layers"]


class Kept(NamedTuple):
    """A saved result of a clip whose layers are all wanted again."""

    saved: SavedExplanation
    spectra: dict[str, dict[int, str]]
    """For each layer the spectrum of each feature, as the page has it."""

    @property
    def layers(self) -> list[str]:
        """Their names."""
        return list(self.saved.features)

    def copy(self, layer: str, folder: Path, inner: str, *, maps: bool) -> Layer:
        """Copy the files of a layer to a folder; returns what the page shows of the layer.

        Raises
        ------
        ParameterError
            If a file is not there.
        """
        saved = self.saved
        ranked = [row["feature"] for row in saved.ranked(layer)]
        rows = [row for row in saved.table if row["layer"] == layer]
        place = saved.place(layer)
        stage = ranked[:STAGE_FEATURES] if (place / "activation_mean.png").is_file() else None
        for version in saved.versions:
            (folder / version).mkdir()
        for name in self._names(layer, stage, maps=maps):
            source = place / name
            if source.is_symlink() or not source.is_file():
                raise ParameterError(
                    f"{printable(str(source))} is not there: --overwrite makes the result anew"
                )
            shutil.copyfile(source, folder / name)
        spectra = [self.spectra[layer][row["feature"]] for row in rows]
        return Layer(layer, inner, rows, spectra, stage, versions=saved.heard(layer))

    def _names(self, layer: str, stage: list[int] | None, *, maps: bool) -> Iterator[str]:
        """The files of a layer, by their paths in its folder."""
        for inner in ("", *(f"{version}/" for version in self.saved.versions)):
            for k in self.saved.features[layer]:
                yield from (
                    f"{inner}feature_{k}.{self.saved.format}", f"{inner}feature_{k}.png",
                    f"{inner}map_{k}.png",
                )
        if stage is not None:
            yield from (f"activation_{k}.png" for k in ("mean", *stage))
        if maps:
            yield MAPS


def kept_layers(
    planned: Plan, folder: Path, audio_format: str, additions: Additions
) -> Kept | None:
    """A saved result, if all of it can go into the one that is planned.

    Returns
    -------
    Kept or None
        None where the saved result is damaged, or differs from the plan in more than that it has
        fewer layers.
    """
    wanted = planned.settings(audio_format) | additions.settings
    try:
        saved = load(folder)
        found = saved.manifest["settings"]
        there = {
            layer["name"]: [int(k) for k in layer["gains"]] for layer in saved.manifest["layers"]
        }
        if found[LAYERS_SETTING] != features_hash(there) or saved.features != there:
            return None
        spectra = {
            layer["name"]: {one["k"]: str(one["spectrum"]) for one in layer["features"]}
            for layer in saved.page()["layers"]
        }
        complete = all({*spectra[layer]} == {*ks} for layer, ks in there.items())
    except DAMAGED:
        return None
    others = all(
        found.get(key) == wanted.get(key) for key in {**found, **wanted} if key != LAYERS_SETTING
    )
    asked = all(planned.features.get(layer) == ks for layer, ks in there.items())
    return Kept(saved, spectra) if complete and others and asked else None
