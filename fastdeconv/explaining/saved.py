"""A saved result, read back from its folder."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio._checks import MODES, as_choice, as_int, as_number
from ..audio.frontend import plain_record
from ..audio.reading import MAX_SAMPLES, read_file
from ..belief.trust import COLUMNS as TRUST_COLUMNS
from ..belief.trust import VERDICTS
from ..errors import AudioError, ParameterError, printable, shown
from ..files import read_regular
from ..network.choosing import as_list
from ..report.folder import EXPLANATION, as_folder, read_manifest
from ..report.listening import Heard, covered
from ..report.notebook import SavedFeatureView
from ..report.saved_files import DAMAGED, layer_place, page_data, read_array, read_table, typed_row
from ..report.sounds import FORMATS
from ..report.timeline import NUMBERS_FILE
from .additions import read_versions
from .layer_features import NOT_OF_A_SONG, LayerFeatures
from .result import MAPS, TABLE

__all__ = ["SavedExplanation", "damage_named", "load"]

FloatArray = NDArray[np.float32]

_MOST_PICTURE_BYTES = 1 << 26


class SavedExplanation(LayerFeatures):
    """A result that `Explanation.save` or `SongExplanation.save` wrote. Made by `Explanation.load`.

    Nothing of it is computed anew: sounds are those of the files, so of 16 bits, or lossy.

    Attributes
    ----------
    folder : Path
    name : str
    manifest : dict
        How it was made.
    features : dict of str -> list of int
        For each layer the numbers of the features that have a sound.
    table : list of dict
        As `Explanation.table`.
    outputs, probabilities : list of (str, float)
    sr, duration : float
    mode : str
    versions : list of str
        The rules and modes by which features can be heard besides.
    format : {"wav", "flac", "ogg"}
        Of the sounds.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        audio, network = manifest["audio"], manifest["network"]
        self.frontend = plain_record(manifest["frontend"])
        self.sr = float(self.frontend["sr"])
        self._size = as_int("samples", audio["samples"], minimum=1, maximum=MAX_SAMPLES)
        self.duration = self._size / self.sr
        self._start = as_number("start", audio["start"])
        self._padding = as_number("padding", audio.get("padding", 0.0))
        self.format = as_choice("audio format", audio["format"], FORMATS)
        self._gain = as_number("original_gain", audio["original_gain"], above=0)
        self.name = str(manifest["song"])
        self.mode = as_choice("mode", manifest["parameters"]["mode"], MODES)
        self.outputs = _pairs(network["outputs"])
        self.probabilities = _pairs(network["probabilities"])
        self.versions = [version.key for version in read_versions(manifest.get("versions", []))]
        self._heard = {
            str(layer["name"]): _heard(layer.get("versions", {}), self.versions)
            for layer in manifest["layers"]
        }
        self._places = {
            str(layer["name"]): layer_place(folder, layer["folder"])
            for layer in manifest["layers"]
        }
        self.table = [typed_row(row) for row in read_table(folder / TABLE)]
        self.features: dict[str, list[int]] = {layer: [] for layer in self._places}
        for row in self.table:
            self.features[row["layer"]].append(row["feature"])
            as_number("gain", row["gain"], above=0)
            if "verdict" in row:
                as_choice("verdict", row["verdict"], VERDICTS)
                as_number("yes_rate", row["yes_rate"])
        for layer, versions in self._heard.items():
            wanted = {str(feature) for feature in self.features[layer]}
            for version, numbers in versions.items():
                if any({*found} != wanted for found in numbers.values()):
                    raise ValueError(
                        f"layer {shown(layer)} has not the same features by {version} as in {TABLE}"
                    )

    def __repr__(self) -> str:
        counts = ", ".join(f"{layer}: {len(ks)}" for layer, ks in self.features.items())
        return f"<SavedExplanation of {self.name!r}: {counts or 'no layers'}>"

    def _repr_html_(self) -> str:
        from ..report.notebook import saved_overview

        def picture(layer: str, feature: int) -> bytes:
            place = self.place(layer) / f"feature_{feature}.png"
            return read_regular(place, _MOST_PICTURE_BYTES)

        with damage_named(self.folder):
            original = read_regular(self.folder / "original.png", _MOST_PICTURE_BYTES)
            return saved_overview(
                self, self.manifest["network"], self.frontend,
                (original, self.samples, self._gain), picture,
            )

    @property
    def covered(self) -> str | None:
        """Which part of the song this is about, in words; None if it is about all of it."""
        is_cut = bool(self.manifest["audio"]["is_cut"])
        return covered(self._start, self.duration, is_cut=is_cut, padding=self._padding)

    def _rows_of(self, layer: str) -> list[dict[str, Any]]:
        return [row for row in self.table if row["layer"] == layer]

    def sound(self, layer: str, feature: int, version: str | None = None) -> FloatArray:
        """The sound of one feature, as `Explanation.sound` but for the rounding of the file.

        Parameters
        ----------
        layer : str
        feature : int
        version : str, optional
            One of `versions`. Default: the rule and the mode of the result itself.

        Returns
        -------
        array of float32, shape (samples,)

        Raises
        ------
        ParameterError
            If the layer or feature was not explained, or there is no such version.
        AudioError
            If the file is not there or not a sound of this length.
        """
        row = self._row(layer, feature)
        place, gain = self.place(layer), row["gain"]
        if version is not None:
            if version not in self.versions:
                raise ParameterError(
                    f"there is no version {shown(version)}; there are "
                    f"{', '.join(self.versions) or 'none'}: rules and modes of save make them"
                )
            place /= version
            with damage_named(self.folder):
                gain = self._heard[layer][version]["gains"][str(row["feature"])]
        return self._sound(place / f"feature_{row['feature']}.{self.format}") / np.float32(gain)

    def heard(self, layer: str) -> Heard:
        """Of each of `versions` the gains and the loudness of the sounds of a layer.

        Parameters
        ----------
        layer : str

        Returns
        -------
        Heard
        """
        return self._heard[layer]

    def trust(self, layers: str | Iterable[str] | None = None) -> list[dict[str, Any]]:
        """How far to believe the features, as `Explanation.trust`, of a result saved with it.

        Parameters
        ----------
        layers : iterable of str, optional
            Default: all.

        Returns
        -------
        list of dict

        Raises
        ------
        ParameterError
            If a layer was not explained, the result was saved without, or is of a song.
        """
        if layers is None:
            chosen = list(self.features)
        else:
            chosen = [layers] if isinstance(layers, str) else as_list("layers", layers)
        for layer in chosen:
            self._require_layer(layer)
        rows = [row for layer in chosen for row in self._rows_of(layer)]
        if any("verdict" not in row for row in rows):
            raise ParameterError(
                "the result was saved without: trust=True of save (--trust) adds it"
                if self.manifest.get("windows") is None else NOT_OF_A_SONG
            )
        return [
            {"layer": row["layer"], "feature": row["feature"]}
            | {key: math.nan if row[key] is None else row[key] for key in TRUST_COLUMNS}
            for row in rows
        ]

    @property
    def samples(self) -> FloatArray:
        """What was explained, (n,)."""
        return self._sound(self.folder / f"original.{self.format}") / np.float32(self._gain)

    def maps(self, layer: str) -> FloatArray:
        """The maps of a layer, (K, C, H, W), of a result saved with ``maps=True``.

        Parameters
        ----------
        layer : str

        Returns
        -------
        array of float32, shape (K, C, H, W)

        Raises
        ------
        ParameterError
            If the layer was not explained, or its maps were not saved.
        """
        return self._array(layer, MAPS, "maps=True of save keeps them")

    def timeline(self, layer: str) -> FloatArray:
        """Of a song how strongly all features of a layer fire, see `SongExplanation`.

        Parameters
        ----------
        layer : str

        Returns
        -------
        array of float32, shape (features, columns)

        Raises
        ------
        ParameterError
            If the layer was not explained, or the result is of a clip.
        """
        return self._array(layer, NUMBERS_FILE, "songs, explained with a duration, have one")

    def show(self, layer: str, feature: int) -> SavedFeatureView:
        """One feature to look at and listen to in a notebook, as `Explanation.show`.

        Parameters
        ----------
        layer : str
        feature : int

        Returns
        -------
        SavedFeatureView
            What a notebook draws and plays.

        Raises
        ------
        ParameterError
            If the layer or feature was not explained, or a picture is not there.
        """
        row = self._row(layer, feature)
        place, k = self.place(layer), row["feature"]
        with damage_named(self.folder):
            pictures = [
                read_regular(path, _MOST_PICTURE_BYTES)
                for path in (
                    self.folder / "original.png", place / f"map_{k}.png", place / f"feature_{k}.png"
                )
            ]
        return SavedFeatureView(
            row, self.name, self.frontend, self.mode, pictures,
            (self.samples, self.sound(layer, feature)), (self._gain, row["gain"]),
            len(self.features[layer]),
        )

    def page(self) -> dict[str, Any]:
        """What the page of the result was given, for a page with more on it.

        Returns
        -------
        dict
        """
        return page_data(self.folder)

    def _array(self, layer: str, name: str, advice: str) -> FloatArray:
        path = self.place(layer) / name
        if not path.exists():
            raise ParameterError(f"there is no {name} of layer {shown(layer)}: {advice}")
        with damage_named(self.folder):
            return read_array(path)

    def _sound(self, path: Path) -> FloatArray:
        samples, _ = read_file(path, 0.0, lambda rate: self._size + 1)
        if samples.size != self._size:
            raise AudioError(
                f"{printable(str(path))}: found {samples.size} samples, wanted {self._size}"
            )
        return samples

    def place(self, layer: str) -> Path:
        """The folder of a layer.

        Parameters
        ----------
        layer : str

        Returns
        -------
        Path

        Raises
        ------
        ParameterError
            If `layer` was not explained.
        """
        self._require_layer(layer)
        return self._places[layer]

    def _row(self, layer: str, feature: int) -> dict[str, Any]:
        self._require_feature(layer, feature)
        return next(dict(row) for row in self._rows_of(layer) if row["feature"] == feature)


def load(folder: str | os.PathLike[str]) -> SavedExplanation:
    """Read a saved result; see `Explanation.load`."""
    path = as_folder(folder)
    with damage_named(path):
        manifest = read_manifest(path, EXPLANATION)
        if manifest is None:
            raise ValueError("there is no manifest.json of a result of explain in it")
        return SavedExplanation(path, manifest)


@contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """What is wrong with a result as an error that names it."""
    try:
        yield
    except DAMAGED as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ParameterError(f"{printable(str(folder))}: {what}") from None


def _heard(records: Any, versions: Sequence[str]) -> Heard:
    """What a manifest says of the sounds of the versions of a layer."""
    return {
        version: {
            "gains": {
                str(k): as_number("gain", gain, above=0)
                for k, gain in records[version]["gains"].items()
            },
            "rms": {str(k): as_number("rms", rms) for k, rms in records[version]["rms"].items()},
        }
        for version in versions
    }


def _pairs(values: Sequence[Sequence[Any]]) -> list[tuple[str, float]]:
    return [(str(name), float(value)) for name, value in values]
