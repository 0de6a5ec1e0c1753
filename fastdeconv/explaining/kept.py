"""What is there of a result that is asked for, and which of its layers go into a new one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ParameterError, printable
from ..report.folder import EXPLANATION, read_manifest
from ..report.listening import STAGE_FEATURES, Layer
from .additions import ADDITIONS, Additions, additions_beyond
from .planning import LAYERS_SETTING, Plan, features_hash
from .result import layer_files, layer_record
from .saved import SavedExplanation, damage_named, load
from .song_planning import SongPlan

__all__ = ["Kept", "There", "what_is_there"]

# What differs where a song with other layers is not taken in the same windows.
_WINDOWS_SETTING = "windows of the song"


class Kept(NamedTuple):
    """A saved result that a new one is to replace, because all that it is is wanted again."""

    saved: SavedExplanation
    pages: dict[str, Layer]
    """The layers that are taken over, and what the page shows of them."""
    damaged: list[str]
    """Layers that are computed again, because their files are not as they were written."""

    @property
    def features(self) -> dict[str, list[int]]:
        """For each layer that is kept the features that have a sound."""
        return {layer: self.saved.features[layer] for layer in self.pages}

    def copy(self, layer: str, folder: Path, inner: str) -> Layer:
        """Copy the files of a layer to a new folder `inner`; returns what the page shows of it."""
        page, source, target = self.pages[layer], self.saved.place(layer), folder / inner
        target.mkdir()
        for version in self.saved.versions:
            (target / version).mkdir()
        for name in layer_files(source, page, self.saved.format):
            shutil.copyfile(source / name, target / name)
        return page._replace(folder=inner)

    def check(self) -> None:
        """Refuse to replace a result that has changed since it was read."""
        folder = self.saved.folder
        try:
            manifest = read_manifest(folder, EXPLANATION)
        except ValueError:
            manifest = None
        if manifest != self.saved.manifest:
            raise ParameterError(
                f"{printable(str(folder))} has changed meanwhile: run the command again"
            )


class There(NamedTuple):
    """A result that is where another is to go."""

    differing: list[str]
    """The settings in which it differs."""
    is_part: bool = False
    """Whether all that it is, is asked for, and something more."""
    kept: Kept | None = None
    """What of it is taken over, where it is a part."""
    beyond: Mapping[str, list[str]] = {}
    """Additions that it has and that are not asked for, where nothing else differs."""


def what_is_there(
    planned: Plan | SongPlan, folder: Path, audio_format: str, additions: Additions
) -> There | None:
    """Compare what is asked for with what is saved in a folder.

    Returns
    -------
    There or None
        None if there is no result in the folder, or one whose settings cannot be read.

    Raises
    ------
    ParameterError
        If only layers or additions are missing, but what is there is damaged.
    """
    try:
        manifest = read_manifest(folder, EXPLANATION)
    except ValueError:
        return None
    found = None if manifest is None else manifest.get("settings")
    if not isinstance(found, dict):
        return None
    assert manifest is not None
    wanted = planned.settings(audio_format) | additions.settings
    differing = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    if not differing:
        return There([])
    adds_layers = differing == [LAYERS_SETTING]
    if not adds_layers:
        beyond = additions_beyond(found, wanted)
        if {*differing} <= {*ADDITIONS} and not additions_beyond(wanted, found):
            return There([], beyond=beyond)
        if beyond or not {*differing} <= {*ADDITIONS}:
            return There(differing)
    if adds_layers and isinstance(planned, SongPlan) and manifest.get("windows") != planned.taken:
        return There([*differing, _WINDOWS_SETTING])
    try:
        saved = load(folder)
        with damage_named(folder):
            kept = _kept(planned, saved) if adds_layers else Kept(saved, {}, [])
    except ParameterError as error:
        raise ParameterError(f"{error}; --overwrite makes the result anew") from None
    if kept is not None and kept.pages.keys() == planned.asked.keys():
        return There([])  # asked for in another order
    return There(differing, kept is not None, kept)


def _kept(planned: Plan | SongPlan, saved: SavedExplanation) -> Kept | None:
    """What a result with the same settings, but for its layers, holds already."""
    if not saved.features.keys() <= planned.asked.keys():
        return None
    there = {layer: planned.asked[layer] for layer in saved.features}
    if saved.manifest["settings"][LAYERS_SETTING] != features_hash(there):
        return None  # other features of a layer
    records = {layer["name"]: layer for layer in saved.manifest["layers"]}
    spectra = {
        layer["name"]: {one["k"]: str(one["spectrum"]) for one in layer["features"]}
        for layer in saved.page()["layers"]
    }
    pages = {
        name: page for name, page in _pages(planned, saved, spectra)
        if _is_as_written(saved, page, records[name])
    }
    return Kept(saved, pages, [layer for layer in there if layer not in pages])


def _pages(
    planned: Plan | SongPlan, saved: SavedExplanation,
    spectra: Mapping[str, Mapping[int, str]],
) -> Iterator[tuple[str, Layer]]:
    """What the page is to show of the layers, if their files are as they should be."""
    for layer in saved.features:
        place = saved.place(layer)
        rows = [row for row in saved.table if row["layer"] == layer]
        stage = None
        if (place / "activation_mean.png").is_file():
            stage = [row["feature"] for row in saved.ranked(layer)[:STAGE_FEATURES]]
        yield layer, Layer(
            layer, place.name, rows, [spectra[layer][row["feature"]] for row in rows], stage,
            *((planned.counts[layer], None) if isinstance(planned, SongPlan)
              else (None, saved.heard(layer))),
        )


def _is_as_written(
    saved: SavedExplanation, page: Layer, record: Mapping[str, Any]
) -> bool:
    """Whether the files and gains of a layer are those that its manifest tells of."""
    try:
        found = layer_record(saved.place(page.name), page, saved.format, {})
    except OSError:
        return False
    return all(record.get(key) == value for key, value in found.items())
