"""The folder of one clip: how each layer is written, by each rule and mode that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_index
from ..audio.auralise import auralise
from ..belief.feature_maps import feature_maps
from ..errors import enough_memory
from ..report.listening import Layer, feature_rms
from ..report.song import SongFiles
from ..report.sounds import peak_gain
from .additions import Version
from .planning import MEMORY_ADVICE, Plan
from .result import MAPS, as_computed

if TYPE_CHECKING:
    from ..deconvnet.trace import Trace

__all__ = ["ClipWriter", "LayerContent"]

FloatArray = NDArray[np.float32]


class LayerContent(NamedTuple):
    """What is written of a layer. No two of its K features are the same."""

    name: str
    features: list[int]
    maps: FloatArray
    """(K, C, H, W)"""
    sounds: FloatArray
    """(K, samples)"""
    rows: list[dict[str, Any]]
    """Their rows of the table."""
    activations: FloatArray
    """The output of all features of the layer, (all, h, w)."""
    stage: list[int] | None
    """The features whose activation is drawn; None if the layer gets no such pictures."""


class ClipWriter:
    """Writes what was explained of a clip.

    Parameters
    ----------
    plan : Plan
        How it was explained.
    computed : mapping
        What computed it, as `computation` found it.
    audio_format : {"wav", "flac", "ogg"}
    versions : sequence of Version
        The other rules and modes by which every layer is written, too.
    """

    def __init__(
        self, plan: Plan, computed: Mapping[str, Any], audio_format: str,
        versions: Sequence[Version],
    ) -> None:
        self._plan, self._computed, self._versions = plan, computed, versions
        modes = dict.fromkeys([plan.mode, *(version.mode for version in versions)])
        self._files = {
            mode: SongFiles(plan.clip, mode, audio_format, computed["threads"]) for mode in modes
        }

    def write_original(self, folder: Path) -> None:
        """Write the sound and the pictures of the clip itself."""
        self._files[self._plan.mode].write_original(folder)

    def spectrum(self) -> str:
        """The spectrum of the clip, as the page has it."""
        return self._files[self._plan.mode].spectrum()

    def write_layer(self, folder: Path, layer: LayerContent, *, maps: bool) -> Layer:
        """Write a layer to a new folder; returns what the page shows of it.

        Parameters
        ----------
        folder : Path
        layer : LayerContent
        maps : bool
            Write the array of the maps, too.
        """
        folder.mkdir()
        files = self._files[self._plan.mode]
        gains = [row["gain"] for row in layer.rows]
        spectra = files.write_features(folder, layer.features, layer.maps, layer.sounds, gains)
        if layer.stage is not None:
            files.write_stage(folder, layer.activations, layer.stage)
        if maps:
            np.save(folder / MAPS, layer.maps)
        versions = {
            version.key: self._write_version(folder / version.key, layer, version)
            for version in self._versions
        }
        return Layer(
            layer.name, folder.name, layer.rows, spectra, layer.stage, versions=versions
        )

    def _write_version(
        self, folder: Path, layer: LayerContent, version: Version
    ) -> dict[str, dict[str, float]]:
        """The features of a layer by another rule or mode; returns their gains and loudness."""
        clip, features = self._plan.clip, layer.features
        with enough_memory(MEMORY_ADVICE):
            maps = layer.maps if version.rule == self._plan.how["rule"] else self._maps_by(
                version.rule, layer
            )
            sounds = auralise(clip, maps, version.mode, num_threads=self._computed["threads"])
        gains = [peak_gain(float(np.abs(sound).max(initial=0.0))) for sound in sounds]
        folder.mkdir()
        self._files[version.mode].write_features(folder, features, maps, sounds, gains)
        energies = np.square(sounds, dtype=np.float64).sum(axis=1)
        return {
            "gains": {str(k): gain for k, gain in zip(features, gains)},
            "rms": {
                str(k): feature_rms(float(energy), gain, clip.samples.size)
                for k, energy, gain in zip(features, energies, gains)
            },
        }

    def _maps_by(self, rule: str, layer: LayerContent) -> FloatArray:
        """The maps of the features of a layer by another rule."""
        # As they were asked for: an array to start from has an entry for each repeat, too.
        asked = self._plan.features[layer.name]
        how = {**self._plan.how, "rule": rule}
        with as_computed(self._computed):
            maps = feature_maps(
                self._trace, self._plan.clip.frontend.layout, layer.name, asked, **how
            )
        return maps[as_index([asked.index(k) for k in layer.features])]

    @cached_property
    def _trace(self) -> Trace:
        """The forward pass, run once, and only if there are other rules."""
        return self._plan.network.forward(self._plan.clip.x)
