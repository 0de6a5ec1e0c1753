"""One clip: the map and the sound of every feature, in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_index
from ..errors import ParameterError, enough_memory
from ..network.choosing import as_list
from ..optional import optional_module
from ..report.folder import EXPLANATION, check_free, new_folder, result_place, write_manifest
from ..report.sounds import check_format, peak_gain
from .additions import Additions, additions_of
from .kept import Kept
from .layer_features import LayerFeatures
from .planning import MEMORY_ADVICE, Features, Plan, Progress, choose_features
from .result import (
    TABLE,
    as_computed,
    audio_record,
    layer_folders,
    layer_record,
    manifest,
    result_name,
)
from .saved import SavedExplanation, load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..analysis.descriptors import Listener
    from ..deconvnet.scores import ClassScore
    from ..report.listening import Layer
    from ..report.notebook import FeatureView
    from .clip_saving import LayerContent

__all__ = ["Explanation"]

FloatArray = NDArray[np.float32]

# How many features `plot` draws by default.
_PLOTTED = 8
_MOST_COLUMNS = 100


class Explanation(LayerFeatures):
    """What the features of a network respond to in one clip. Made by `explain`.

    Attributes
    ----------
    clip : Clip
        What was explained.
    network : Network
    maps : dict of str -> array of float32, shape (K, C, H, W)
        For each layer its features projected back to the network's input.
    features : dict of str -> list of int
        For each layer the numbers of the features, in the order of `maps`.
    activations : dict of str -> array of float32, shape (K, h, w)
        For each layer the output of all its features in the forward pass.
    outputs : list of (str, float)
        The network's classes and its output for each: a mean, where it has several outputs for
        each class (one per frame). Empty if the network names no classes.
    probabilities : list of (str, float)
        The same as probabilities; empty if the network does not say how to get them.
    mode : str
        How maps become sound.
    name : str
        The file name without its suffix, made safe; "clip" for a source without a file name.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        maps: Mapping[str, FloatArray],
        activations: Mapping[str, FloatArray],
        scores: Sequence[ClassScore],
        computation: Mapping[str, Any],
        kept: Kept | None = None,
    ) -> None:
        self.clip = plan.clip
        self.network = plan.network
        self.maps = dict(maps)
        self.features = {layer: [int(k) for k in plan.features[layer]] for layer in maps}
        self.activations = dict(activations)
        self.outputs = [(one.name, one.score) for one in scores]
        self.probabilities = [
            (one.name, one.probability) for one in scores if one.probability is not None
        ]
        self.mode = plan.mode
        self.name = result_name(plan.source)
        self._plan, self._kept = plan, kept
        self._computation = dict(computation)
        self._sounds: dict[str, FloatArray] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._trusted: dict[str, list[dict[str, Any]]] = {}
        self._listener: Listener | None = None

    def __repr__(self) -> str:
        counts = ", ".join(f"{layer}: {len(ks)}" for layer, ks in self.features.items())
        return f"<Explanation of {self.name!r}: {counts or 'no layers'}>"

    def _repr_html_(self) -> str:
        from ..report.notebook import overview

        return overview(self)

    def sounds(self, layer: str) -> FloatArray:
        """The sounds of all features of a layer, in the order of ``features[layer]``.

        Parameters
        ----------
        layer : str

        Returns
        -------
        array of float32, shape (K, n)
            As long as the clip, not normalised. Kept in memory for the next call.

        Raises
        ------
        ParameterError
            If `layer` was not explained, or a sound overflows float32.
        """
        self._require_layer(layer)
        if layer not in self._sounds:
            self._sounds[layer] = self._auralise(layer)
        return self._sounds[layer]

    def sound(self, layer: str, feature: int) -> FloatArray:
        """The sound of one feature.

        Parameters
        ----------
        layer : str
        feature : int
            The feature's number in its layer, not its position in ``features[layer]``.

        Returns
        -------
        array of float32, shape (n,)
            As long as the clip, not normalised.

        Raises
        ------
        ParameterError
            If the layer or feature was not explained, or a sound overflows float32.
        """
        self._require_feature(layer, feature)
        sound: FloatArray = self.sounds(layer)[self.features[layer].index(feature)]
        return sound

    def show(self, layer: str, feature: int) -> FeatureView:
        """One feature to look at and listen to in a notebook, beside the clip.

        Parameters
        ----------
        layer : str
        feature : int
            The feature's number in its layer.

        Returns
        -------
        FeatureView
            A notebook shows it as players for the clip and the feature, pictures of abs(STFT),
            of the map and of what is heard, and the numbers of the feature beside those of the
            clip; see `table` for what they mean.

        Raises
        ------
        ParameterError
            If the layer or feature was not explained, or a sound overflows float32.
        """
        from ..report.notebook import FeatureView

        self._require_feature(layer, feature)
        row = next(row for row in self.ranked(layer) if row["feature"] == feature)
        return FeatureView(self, row)

    def plot(
        self, layer: str, features: int | Sequence[int] | None = None, *, columns: int = 4
    ) -> Figure:
        """Spectrograms of what is heard of some features of a layer, drawn by matplotlib.

        Parameters
        ----------
        layer : str
        features : int or sequence of int, optional
            Feature numbers. Default: the first eight features to hear that are not silent.
        columns : int
            Spectrograms in a row, 1 to 100.

        Returns
        -------
        matplotlib.figure.Figure
            One axes per feature, as `librosa.display.specshow` draws them, and a colour bar in
            dB below the loudest of all features of the layer, shown or not. pyplot does not know
            the figure, so it need not be closed.

        Raises
        ------
        ParameterError
            If the layer or a feature was not explained, `columns` is not one of the above,
            a sound overflows float32, or matplotlib or librosa is not installed.
        """
        optional_module("matplotlib", "plot", "notebook")
        from ..audio._checks import as_int
        from ..report.figures import draw_spectrograms
        from ..report.notebook import Heard

        columns = as_int("columns", columns, minimum=1, maximum=_MOST_COLUMNS)
        self._require_layer(layer)
        rows = self.ranked(layer)
        if features is None:
            chosen = [row["feature"] for row in rows if row["level"] is not None][:_PLOTTED]
        else:
            asked = features if isinstance(features, Iterable) else [features]
            chosen = as_list("features", asked)
        for feature in chosen:
            self._require_feature(layer, feature)
        labels = {row["feature"]: row["label"] for row in rows}
        heard = Heard(self, layer)
        return draw_spectrograms(
            [heard[k] for k in chosen],
            [f"{layer}/{k}  {labels[k]}".rstrip() for k in chosen],
            heard.reference, self.clip.sr, self.clip.frontend.transform, columns=columns,
        )

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row per layer and feature: list of dict, also the content of ``features.csv``.

        ``layer``, ``feature``
            A str and an int. A feature that was asked for twice has one row.
        ``energy``, ``peak``
            The sum of squares of the sound, and its largest absolute value, both before
            normalisation. Their unit depends on the network; it is the same for all features of
            one layer.
        ``nonzero``
            The share of the map's bins that are not zero, 0 to 1.
        ``gain``
            The factor between the sound and its file; 1.0 for a silent sound.
        ``rank``, ``label``, ``twin_of`` and others
            What `describe` says of the sound and the map.
        ``unit_start``, ``unit_end``, ``unit_low``, ``unit_high``
            What the strongest unit of the feature can see, in seconds from the clip's beginning
            and in Hz, as `Trace.place` says it. None where the feature is silent or the front end
            has no such axis.
        """
        return [dict(row) for layer in self.maps for row in self._rows_of(layer)]

    @property
    def clip_numbers(self) -> dict[str, Any]:
        """What `describe` says of the clip itself, to compare features with."""
        return dict(self._listen().clip)

    @property
    def covered(self) -> str | None:
        """Which part of the song was explained, in words; None if all of it was.

        It also says so where silence follows the song, because the network takes more.
        """
        from ..report.listening import covered

        clip = self.clip
        return covered(clip.start, clip.duration, is_cut=clip.is_cut, padding=clip.padding)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> SavedExplanation:
        """Read back a result that `save` wrote, of a clip or of a song.

        The folder may come from anybody: nothing in it is unpickled, and every name, size and
        number is checked before it is used.

        Parameters
        ----------
        folder : path

        Returns
        -------
        SavedExplanation

        Raises
        ------
        ParameterError
            If the folder holds no result, or a damaged one.
        """
        return load(folder)

    def save(
        self,
        out: str | os.PathLike[str],
        name: str | None = None,
        *,
        audio_format: Literal["wav", "flac", "ogg"] = "wav",
        maps: bool = False,
        trust: bool = False,
        rules: str | Iterable[str] = (),
        modes: str | Iterable[str] = (),
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Write everything to the folder ``out / name``, which appears whole or not at all.

        The folder holds

        ``index.html``
            A page to look, listen and compare. A double click opens it.
        ``original.wav``, ``original.png``, ``input.png``
            The clip, its spectrogram, and the network's input. The sound is normalised only if it
            exceeds full scale.
        ``<layer>/feature_<k>.wav``
            16-bit PCM, each sound normalised to a peak of -1 dBFS. Silence stays exactly zero.
        ``<layer>/feature_<k>.png``
            The magnitude of the spectrogram that became the sound: one column of pixels per frame,
            one row per quarter tone, low frequencies at the bottom. All features of a layer share
            one scale of 80 dB.
        ``<layer>/map_<k>.png``
            The map on the same axes: blue is negative, orange is positive, and every shade stands
            for half the values of the next.
        ``<layer>/activation_mean.png``, ``<layer>/activation_<k>.png``
            The output of the layer: the mean of all features, and the features to hear first.
        ``features.csv``
            The `table`.
        ``manifest.json``
            How the result was made: version, network, front end, parameters, back end, the features
            and gains of each layer with a hash of its files, what to cite, and which part of the
            song was explained. Its
            list of all files shows that a folder is a result and nothing else, which is checked
            before it is replaced. It holds no time of day and no path: the same call writes the
            same bytes.

        The folder of a layer has the layer's name, without characters that a file system does not
        allow. The manifest says which folder belongs to which layer.

        Parameters
        ----------
        out : path
            Made if it does not exist.
        name : str, optional
            Default: `name`. Made safe as a file name.
        audio_format : {"wav", "flac", "ogg"}
            Format of all sounds. ogg (Vorbis) is lossy, and a sixth of the size of wav.
        maps : bool
            Also write ``<layer>/maps.npy``: the maps of the features, without repeats, as float32
            of shape (K, C, H, W).
        trust : bool
            Call `trust` for all features. Its numbers become columns of ``features.csv``, and the
            page has a verdict on every feature.
        rules, modes : iterable of str, or "all"
            Other rules ("deconvnet", "guided", "gradient", "gradient_x_deviation") and modes
            ("mask", "phase", "wiener") by which the page shows and plays the features as well.
            Each adds a folder ``<layer>/<rule or mode>/`` with as many sounds and pictures again.
            The numbers stay those of the rule and mode that were explained.
        overwrite : bool
            Replace an earlier result of this name. A folder that holds anything else is never
            replaced.
        progress : callable, optional
            Called with (layer, features written, features in all) after each layer.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        ParameterError
            If `out` cannot be written, the folder is there already, `audio_format`, a rule or a
            mode is not one of the above, a sound overflows float32, or `trust` is asked for and
            the maps started from an array.
        AudioError
            If the format does not allow the clip's sample rate.
        OSError
            If writing fails later on, for instance on a full disk.
        """
        from ..report.listening import Song, write_page
        from ..report.tables import write_csv
        from .clip_saving import ClipWriter

        out, name = result_place(out, self.name if name is None else name, "clip")
        check_format(audio_format)
        check_free(out, name, EXPLANATION, overwrite=overwrite)
        additions = additions_of(
            self._plan.how, self.mode, trust=trust, rules=rules, modes=modes
        )
        if trust:
            self.trust()
        writer = ClipWriter(self._plan, self._computation, audio_format, additions.versions)
        done, total = 0, sum(len(set(ks)) for ks in self.features.values())
        with new_folder(out, name, EXPLANATION, overwrite=overwrite) as folder:
            writer.write_original(folder)
            pages = []
            for layer, layer_folder in self.layer_folders().items():
                if layer not in self.maps:
                    assert self._kept is not None
                    pages.append(self._kept.copy(layer, folder, layer_folder))
                    continue
                page = writer.write_layer(folder / layer_folder, self._content(layer), maps=maps)
                pages.append(page._replace(rows=self._with_trust(page.rows)) if trust else page)
                done += len(page.rows)
                if progress is not None:
                    progress(layer, done, total)
            write_csv(folder / TABLE, [row for page in pages for row in page.rows])
            record = self._manifest(name, folder, pages, audio_format, additions)
            write_page(folder, Song(record, self.clip_numbers, writer.spectrum(), pages))
            if self._kept is not None:
                self._kept.check()
            write_manifest(folder, record)
        return out / name

    def _content(self, layer: str) -> LayerContent:
        """Everything that `save` writes for a layer."""
        from .clip_saving import LayerContent

        # Sounds made here are not kept in memory, because they are written to files.
        sounds = self._sounds[layer] if layer in self._sounds else self._auralise(layer)
        if layer not in self._rows:
            self._rows[layer] = self._measure(layer, sounds)
        numbers, places = self._distinct(layer)
        which = as_index(places)
        return LayerContent(
            layer, numbers, self.maps[layer][which], sounds[which], self._rows[layer],
            self.activations[layer], self._stage(layer),
        )

    def _stage(self, layer: str) -> list[int] | None:
        """The features whose activation is drawn: those to hear first.

        None where the layer's output has no axes of time and frequency any more.
        """
        from ..report.listening import STAGE_FEATURES

        if not self.features[layer] or self.activations[layer].shape[1:] == (1, 1):
            return None
        return [row["feature"] for row in self.ranked(layer)[:STAGE_FEATURES]]

    def _rows_of(self, layer: str) -> list[dict[str, Any]]:
        if layer not in self._rows:
            self._rows[layer] = self._measure(layer, self.sounds(layer))
        return self._rows[layer]

    def trust(
        self, layers: str | Iterable[str] | None = None, features: Features | None = None,
        *, progress: Progress | None = None,
    ) -> list[dict[str, Any]]:
        """How far to believe the maps and sounds: numbers and a verdict for every feature.

        The same is measured for a control, a network of the same layers with random weights (for a
        bundled network, those from which its training began). The share of the control's features
        with the verdict "yes" is given for each layer, beside that of the layer itself. Takes
        seconds for each layer; a layer that was measured is not measured again.

        Parameters
        ----------
        layers : iterable of str, optional
            Layers that were explained. Default: all of them.
        features : sequence of int, or dict of layer name -> sequence of int, optional
            Features that were explained. Default: all of them.
        progress : callable, optional
            Called with (layer, features done, features in all) after each layer.

        Returns
        -------
        list of dict
            For each feature ``layer``, ``feature``, the numbers ``where``, ``support``,
            ``input_where``, ``beyond_input``, ``reactivation``, ``among_sounds``, ``nearest`` and
            others, the ``verdict`` ("yes", "unsure", "no" or "silent") with its ``reason``, and
            ``yes_rate`` and ``control_yes_rate`` of its layer. A number that does not exist is
            nan. docs/believe.md says what each number means and what it does not prove.

        Raises
        ------
        ParameterError
            If a layer or feature was not explained, or the maps started from an array.
        """
        from ..belief.trust import trust_features

        if not isinstance(self._plan.how["start"], str):
            raise ParameterError(
                "maps that started from an array cannot be compared with those of a control: "
                "explain with start 'map', 'max' or 'one'"
            )
        chosen = choose_features(self.network, self.maps if layers is None else layers, features)
        asked = {}
        for layer, wanted in chosen.items():
            self._require_layer(layer)
            asked[layer] = wanted if isinstance(wanted, list) else self.features[layer]
            for k in asked[layer]:
                self._require_feature(layer, k)
        missing = [layer for layer in chosen if layer not in self._trusted]
        if missing:
            known = {
                layer: self.maps[layer] for layer in missing
                if self.features[layer] == list(range(len(self.activations[layer])))
            }
            with as_computed(self._computation), enough_memory(MEMORY_ADVICE):
                rows = trust_features(
                    self.clip, self.network, missing, self._plan.how, self.mode, known, progress
                )
            for layer in missing:
                self._trusted[layer] = [row for row in rows if row["layer"] == layer]
        return [
            dict(row) for layer in chosen for row in self._trusted[layer]
            if row["feature"] in asked[layer]
        ]

    def _with_trust(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rows of the table, with the numbers and verdicts of `trust`."""
        return [{**row, **self._trusted[row["layer"]][row["feature"]]} for row in rows]

    def layer_folders(self) -> dict[str, str]:
        """The name of the folder `save` makes for each layer.

        Returns
        -------
        dict of str to str
        """
        return layer_folders(list(self._plan.features))

    def _auralise(self, layer: str) -> FloatArray:
        from ..audio.auralise import auralise

        with enough_memory(MEMORY_ADVICE):
            sounds: FloatArray = auralise(
                self.clip,
                self.maps[layer],
                mode=self.mode,
                num_threads=self._computation["threads"],
            )
        return sounds

    def _listen(self) -> Listener:
        if self._listener is None:
            from ..analysis.descriptors import Listener

            self._listener = Listener(self.clip, self.mode, self._computation["threads"])
        return self._listener

    def _measure(self, layer: str, sounds: FloatArray) -> list[dict[str, Any]]:
        numbers, places = self._distinct(layer)
        maps = self.maps[layer]
        planes = self.clip.weights(maps, self.mode, sounds)[as_index(places)]
        from ..deconvnet.fields import strongest_places
        from ..report.tables import place_columns

        seen = strongest_places(
            self.network, self.network.layer_index(layer), self.clip.x.shape,
            self.activations[layer][np.asarray(numbers, int)],
        )
        rows = []
        descriptions = self._listen().describe(planes, numbers)
        for i, described, unit in zip(places, descriptions, seen, strict=True):
            peak = float(np.abs(sounds[i]).max(initial=0.0))
            rows.append(
                {
                    "layer": layer,
                    "feature": described["feature"],
                    "energy": float(np.square(sounds[i], dtype=np.float64).sum()),
                    "peak": peak,
                    "nonzero": float(np.count_nonzero(maps[i]) / maps[i].size),
                    "gain": peak_gain(peak),
                    **described,
                    **place_columns(unit),
                }
            )
        return rows

    def _distinct(self, layer: str) -> tuple[list[int], list[int]]:
        """Feature numbers without repeats, and the index of each in ``maps[layer]``."""
        numbers = self.features[layer]
        distinct = list(dict.fromkeys(numbers))
        return distinct, [numbers.index(k) for k in distinct]

    def _manifest(
        self, name: str, folder: Path, pages: Sequence[Layer], audio_format: str,
        additions: Additions,
    ) -> dict[str, Any]:
        from ..report.song import original_gain

        clip, planned = self.clip, self._plan
        return manifest(
            name, planned.source, self.network,
            audio=audio_record(
                clip.samples, sr=clip.sr, start=clip.start, is_cut=clip.is_cut,
                padding=clip.padding, audio_format=audio_format,
                gain=original_gain(clip.samples), round_trip=clip.round_trip,
            ),
            outputs=self.outputs, probabilities=self.probabilities,
            frontend=clip.frontend.to_record(), parameters=planned.parameters,
            settings=planned.settings(audio_format) | additions.settings,
            computed=self._computation,
            more={"versions": [version._asdict() for version in additions.versions]},
            layers=[
                layer_record(
                    folder / page.folder, page, audio_format,
                    {"map_shape": list(clip.x.shape), "versions": page.versions},
                )
                for page in pages
            ],
        )
