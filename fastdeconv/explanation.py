"""The whole way in one call: from a song to the sound of every feature.

The rooms this module walks through are imported where they are used, so that
the command line can offer its help and check its arguments at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ParameterError, enough_memory
from .explaining.additions import Additions, Version, additions_of
from .explaining.kept import Kept
from .explaining.layer_features import LayerFeatures
from .explaining.planning import Features, Plan, Progress, choose_features, plan
from .explaining.result import (
    MAPS,
    TABLE,
    as_computed,
    audio_record,
    computation,
    layer_folders,
    layer_record,
    manifest,
    result_name,
)
from .explaining.saved import SavedExplanation, load
from .explaining.song_explanation import SongExplanation
from .explaining.song_planning import SongPlan, plan_song
from .kernels.dispatch import config
from .network.choosing import as_list
from .optional import optional_module
from .report.folder import EXPLANATION, check_free, new_folder, result_place, write_manifest
from .report.sounds import check_format, peak_gain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .analysis.descriptors import Listener
    from .deconvnet.scores import ClassScore
    from .network.network import Network
    from .report.listening import Layer
    from .report.notebook import FeatureView
    from .report.song import SongFiles

__all__ = ["DEFAULT_NETWORK", "Explanation", "compute", "explain", "prepare"]

#: The bundled network `explain` uses when it is given none.
DEFAULT_NETWORK = "choi5-genre"

FloatArray = NDArray[np.float32]

_MEMORY_ADVICE = "this: explain a shorter clip, fewer layers or fewer features"
# How many features `plot` draws by default.
_PLOTTED = 8
_MOST_COLUMNS = 100


@overload
def explain(
    source: Any,
    net: Network | str | os.PathLike[str] = ...,
    layers: str | Iterable[str] | None = ...,
    features: Features | None = ...,
    rule: Literal["deconvnet", "guided", "gradient", "gradient_x_deviation"] = ...,
    start: Literal["map", "max", "one"] | ArrayLike = ...,
    mode: Literal["mask", "phase", "wiener"] = ...,
    *,
    offset: float = ...,
    duration: None = ...,
    precision: Literal["float32", "bf16"] = ...,
    backend: str | None = ...,
    num_threads: int | None = ...,
    progress: Progress | None = ...,
) -> Explanation: ...


@overload
def explain(
    source: Any,
    net: Network | str | os.PathLike[str] = ...,
    layers: str | Iterable[str] | None = ...,
    features: Features | None = ...,
    rule: Literal["deconvnet", "guided", "gradient", "gradient_x_deviation"] = ...,
    start: Literal["map", "max", "one"] | ArrayLike = ...,
    mode: Literal["mask", "phase", "wiener"] = ...,
    *,
    offset: float = ...,
    duration: float | Literal["all"],
    precision: Literal["float32", "bf16"] = ...,
    backend: str | None = ...,
    num_threads: int | None = ...,
    progress: Progress | None = ...,
) -> SongExplanation: ...


def explain(
    source: Any,
    net: Network | str | os.PathLike[str] = DEFAULT_NETWORK,
    layers: str | Iterable[str] | None = None,
    features: Features | None = None,
    rule: Literal["deconvnet", "guided", "gradient", "gradient_x_deviation"] = "deconvnet",
    start: Literal["map", "max", "one"] | ArrayLike = "map",
    mode: Literal["mask", "phase", "wiener"] = "mask",
    *,
    offset: float = 0.0,
    duration: float | Literal["all"] | None = None,
    precision: Literal["float32", "bf16"] = "float32",
    backend: str | None = None,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> Explanation | SongExplanation:
    """Project the features of a network back to a clip, to be seen and heard.

    Parameters
    ----------
    source : path, file object, (samples, sr) or Clip
        What `load_clip` takes; a `Clip` is used as it is, with its own front end.
    net : Network, str or path
        A network, the name of a bundled one (`list_pretrained`) or of a public one
        (``fastdeconv networks`` lists both), or the path of an archive or of an ONNX or Keras
        model.
    layers : iterable of str, optional
        Names of layers. Default: every max-pooling layer; in a network without
        one, the last layer of every convolution block (convolution, normalisation,
        activation); with a dict of `features`, its keys.
    features : sequence of int, "all", or dict of layer name -> either, optional
        Feature numbers from 0, for all layers or for each. Default, also for a
        layer the dict does not hold: all features; of a song (`duration`) those to hear first.
    rule : {"deconvnet", "guided", "gradient", "gradient_x_deviation"}
        How the backward pass treats activations. The last is the gradient, times what the input
        has above or below its mean over time in every band: positive where what is there raises
        the activation, negative where it lowers it; with start "map" it starts from 1 everywhere.
        It is for clips alone.
    start : {"map", "max", "one"} or array, shape (K, H, W)
        What the backward pass starts from: the whole map of the feature
        (arXiv 1607.02444), its strongest unit alone (arXiv 1311.2901), 1 everywhere, or
        values of your own.
    mode : {"mask", "phase", "wiener"}
        How a map becomes sound, see `auralise`.
    offset : float
        Seconds of the file to skip.
    duration : float or "all", optional
        How many seconds of the song, which is then taken in windows, see `SongExplanation`.
        Default: as much as the front end's `frames` hold, as one clip.
    precision : {"float32", "bf16"}
        ``"bf16"`` is faster and less exact, see `deconvolve`.
    backend : {"native", "numba", "cuda", "reference"}, optional
    num_threads : int, optional
        The number of threads never changes a bit of the result.
    progress : callable, optional
        Called with (layer, features done, features in all) after each layer; of a song with
        ("time lines", windows done, windows in all).

    Returns
    -------
    Explanation
        With a `duration` a SongExplanation.

    Raises
    ------
    ParameterError
        If an argument is not one of the above, the network has no front end, or it
        cannot take an input of this size.
    AudioError
        If `source` cannot be used as sound.
    ArchiveError
        If the archive of the network is damaged.
    BackendError
        If the back end, or bfloat16 on it, is not available.
    FileNotFoundError
        If there is no such sound file or archive.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> net = fd.Network(
    ...     [{"type": "conv2d", "name": "conv1"}, {"type": "max_pool2d", "name": "pool1",
    ...      "kernel_size": 2}],
    ...     {"conv1.weight": np.ones((4, 1, 3, 3)), "conv1.bias": np.zeros(4)},
    ...     input_shape=(1, 257, None),
    ...     frontend=fd.Frontend(sr=11025, n_fft=512, hop_length=256),
    ... )
    >>> ex = fd.explain((np.ones(11025, np.float32), 11025), net, features=[3, 1])
    >>> ex
    <Explanation of 'clip': pool1: 2>
    >>> ex.maps["pool1"].shape, ex.sound("pool1", 3).shape
    ((2, 1, 257, 44), (11025,))
    """
    with config(backend=backend, num_threads=num_threads):
        prepared = prepare(
            source, net, layers, features, rule, start, mode, offset=offset,
            duration=duration, precision=precision,
        )
        return compute(prepared, progress)


def prepare(
    source: Any, net: Network | str | os.PathLike[str], *args: Any,
    duration: float | str | None = None, **how: Any,
) -> Plan | SongPlan:
    """What `explain` is asked for, read and checked; arguments as there."""
    if duration is None:
        return plan(source, net, *args, **how)
    return plan_song(source, net, *args, duration=duration, **how)


def compute(
    planned: Plan | SongPlan, progress: Progress | None = None, kept: Kept | None = None
) -> Explanation | SongExplanation:
    """The explanation that was prepared, with the back end of now; not of layers that are kept."""
    if isinstance(planned, SongPlan):
        return SongExplanation(planned, progress, kept)
    there = () if kept is None else kept.pages
    missing = {layer: ks for layer, ks in planned.features.items() if layer not in there}
    from .deconvnet.scores import class_scores

    with enough_memory(_MEMORY_ADVICE):
        trace = planned.network.forward(planned.clip.x)
        maps = planned._replace(features=missing).project(trace, progress)
        activations = {layer: trace[layer] for layer in missing}
        scores = class_scores(trace)
    return Explanation(
        plan=planned, maps=maps, activations=activations, scores=scores,
        computation=computation(), kept=kept,
    )


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
        For each layer what its features put out, all of them, going forward.
    outputs : list of (str, float)
        The network's classes and what it puts out for them, a mean where it puts out
        several numbers for each (one a frame); empty if it names no classes.
    probabilities : list of (str, float)
        The same as probabilities; empty if the network does not say how to get them.
    mode : str
        How maps become sound.
    name : str
        The file name without its suffix, made safe; "clip" for a source without one.
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
        from .report.notebook import overview

        return overview(self)

    def sounds(self, layer: str) -> FloatArray:
        """The sounds of all features of a layer, in the order of ``features[layer]``.

        Parameters
        ----------
        layer : str

        Returns
        -------
        array of float32, shape (K, n)
            As long as the clip, not normalised. Kept for the next call.

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
            The feature's number in its layer, not its place in ``features[layer]``.

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
            A notebook shows it as players of the clip and the feature, the pictures of
            abs(STFT), of the map and of what is heard, and every number of the feature
            beside that of the clip; see `table` for the numbers.

        Raises
        ------
        ParameterError
            If the layer or feature was not explained, or a sound overflows float32.
        """
        from .report.notebook import FeatureView

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
            Feature numbers. Default: the first eight in the order to listen in that
            are not silent.
        columns : int
            Spectrograms in a row, 1 to 100.

        Returns
        -------
        matplotlib.figure.Figure
            One axes a feature, as `librosa.display.specshow` draws them, and a colour bar:
            dB below the loudest of all features of the layer, shown or not. pyplot
            does not know it: there is nothing to close.

        Raises
        ------
        ParameterError
            If the layer or a feature was not explained, `columns` is not one of the above,
            a sound overflows float32, or matplotlib is not installed.
        """
        optional_module("matplotlib", "plot", "notebook")
        from .audio._checks import as_int
        from .report.figures import draw_spectrograms
        from .report.notebook import Heard

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
        """One row per layer and feature, also the content of ``features.csv``.

        A row has ``layer`` (str); ``feature`` (int); ``energy``, the sum of squares of
        the sound; ``peak``, its largest absolute value, both of the sound before
        normalisation, whose unit depends on the network and is the same for all
        features of one layer; ``nonzero``, the share of the map's bins that are not
        zero, 0 to 1; ``gain``, the factor between the sound and its file, 1.0
        for a silent one; and what `describe` says of it: ``rank``, ``label``,
        ``twin_of`` and the numbers of its sound and map. ``unit_start``, ``unit_end``
        (seconds from the clip's beginning), ``unit_low`` and ``unit_high`` (Hz) say what the
        strongest unit of the feature can see, as `Trace.place` does; None where it is silent or
        the front end has no such axis. A feature asked for twice has one row.
        """
        return [dict(row) for layer in self.maps for row in self._rows_of(layer)]

    @property
    def clip_numbers(self) -> dict[str, Any]:
        """What `describe` says of the clip itself, to compare features with."""
        return dict(self._listen().clip)

    @property
    def covered(self) -> str | None:
        """Which part of the song this is about, in words; None if it is about all of it."""
        from .report.listening import covered

        return covered(self.clip.start, self.clip.duration, is_cut=self.clip.is_cut)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> SavedExplanation:
        """Read back what `save` wrote, also of a song.

        Nothing in the folder is trusted: nothing is unpickled, and no name, size or number in
        it is used before it is checked.

        Parameters
        ----------
        folder : path

        Returns
        -------
        SavedExplanation

        Raises
        ------
        ParameterError
            If it holds no result, or a damaged one.
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
        """Write everything to the folder ``out/name``, which then is there whole or not at all.

        The folder holds

        ``index.html``
            A page to look, listen and compare; open it with a double click.
        ``original.wav``, ``original.png``, ``input.png``
            What was explained, its spectrogram, and what the network is given. The
            sound is written as it is, normalised only if it exceeds full scale.
        ``<layer>/feature_<k>.wav``
            16-bit PCM, each normalised to a peak of -1 dBFS; silence stays exact zeros.
        ``<layer>/feature_<k>.png``
            The magnitude of the spectrogram that became the sound, a pixel per frame
            and quarter tone, low frequencies at the bottom, on one 80 dB scale for all
            features of the layer.
        ``<layer>/map_<k>.png``
            The map in the same frame: blue negative, orange positive, every shade half
            of the next.
        ``<layer>/activation_mean.png``, ``<layer>/activation_<k>.png``
            What the clip looks like after the layer: the mean of all features and those
            to listen to first.
        ``features.csv``
            The `table`.
        ``manifest.json``
            How it was made: version, network, front end, parameters, back end, the
            features and gains of each layer with a hash of its files, what to cite; which
            part of the song it is about; and the list of all files, by which the folder is
            known for a result when it is to be replaced. It holds no time of day and no path:
            the same call writes the same bytes.

        Folders of layers are called as the layers are, less what a file system does
        not take; the manifest says which is which.

        Parameters
        ----------
        out : path
            Made if need be.
        name : str, optional
            Default: `name`. Made safe as a file name.
        audio_format : {"wav", "flac", "ogg"}
            Of all sounds. Vorbis in ogg is lossy, and a sixth of the size.
        maps : bool
            Write ``<layer>/maps.npy``, too: the maps of the features, without repeats, as
            float32 of shape (K, C, H, W).
        trust : bool
            Ask `trust` of all features: its numbers become columns of ``features.csv``, and the
            page has a verdict on every feature.
        rules, modes : iterable of str, or "all"
            Other rules ("deconvnet", "guided", "gradient", "gradient_x_deviation") and modes
            ("mask", "phase", "wiener") by which the page shows and plays the features besides.
            Each adds ``<layer>/<rule or mode>/`` with as many sounds and pictures again; the
            numbers stay those of the rule and mode that was explained.
        overwrite : bool
            Replace an earlier result of this name. Anything else is never replaced, nor
            a result in whose folder there is something else.
        progress : callable, optional
            Called with (layer, features written, features in all) after each layer.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        ParameterError
            If `out` cannot be written, the folder is there already, `audio_format` is
            not one of the above, or a sound overflows float32.
        AudioError
            If the format does not take the clip's sample rate.
        OSError
            If writing fails later on, for instance on a full disk.
        """
        from .report.listening import Song, write_page
        from .report.song import SongFiles
        from .report.tables import write_csv

        out, name = result_place(out, self.name if name is None else name, "clip")
        check_format(audio_format)
        check_free(out, name, EXPLANATION, overwrite=overwrite)
        additions = additions_of(
            self._plan.how, self.mode, trust=trust, rules=rules, modes=modes
        )
        if trust:
            self.trust()
        folders = self.layer_folders()
        files = {
            mode: SongFiles(self.clip, mode, audio_format, self._computation["threads"])
            for mode in dict.fromkeys([self.mode, *(one.mode for one in additions.versions)])
        }
        done, total = 0, sum(len(set(ks)) for ks in self.features.values())
        with new_folder(out, name, EXPLANATION, overwrite=overwrite) as folder:
            files[self.mode].write_original(folder)
            pages = []
            for layer, layer_folder in folders.items():
                if layer not in self.maps:
                    assert self._kept is not None
                    pages.append(self._kept.copy(layer, folder, layer_folder))
                    continue
                (folder / layer_folder).mkdir()
                page = self._write_layer(files[self.mode], folder, layer, layer_folder)
                if trust:
                    page = page._replace(rows=self._with_trust(page.rows))
                pages.append(page._replace(versions={
                    version.key: self._write_version(
                        files[version.mode], folder / layer_folder, layer, version
                    )
                    for version in additions.versions
                }))
                if maps:
                    _, places = self._distinct(layer)
                    np.save(folder / layer_folder / MAPS, self.maps[layer][places])
                done += len(self._rows[layer])
                if progress is not None:
                    progress(layer, done, total)
            write_csv(folder / TABLE, [row for page in pages for row in page.rows])
            record = self._manifest(name, folder, pages, audio_format, additions)
            spectrum = files[self.mode].spectrum()
            write_page(folder, Song(record, self.clip_numbers, spectrum, pages))
            write_manifest(folder, record)
        return out / name

    def _write_layer(
        self, files: SongFiles, folder: Path, layer: str, layer_folder: str
    ) -> Layer:
        from .report.listening import Layer

        # Not kept: what is written need not stay in memory.
        sounds = self._sounds[layer] if layer in self._sounds else self._auralise(layer)
        if layer not in self._rows:
            self._rows[layer] = self._measure(layer, sounds)
        numbers, places = self._distinct(layer)
        spectra = files.write_features(
            folder / layer_folder,
            numbers,
            [self.maps[layer][i] for i in places],
            [sounds[i] for i in places],
            [row["gain"] for row in self._rows[layer]],
        )
        stage = self._stage(layer)
        if stage is not None:
            files.write_stage(folder / layer_folder, self.activations[layer], stage)
        return Layer(layer, layer_folder, self._rows[layer], spectra, stage)

    def _write_version(
        self, files: SongFiles, folder: Path, layer: str, version: Version
    ) -> dict[str, dict[str, float]]:
        """The features of a layer by another rule or mode; returns their gains and loudness."""
        from .audio.auralise import auralise
        from .belief.feature_maps import feature_maps
        from .report.listening import feature_rms

        numbers, places = self._distinct(layer)
        maps, how = self.maps[layer], self._plan.how
        with enough_memory(_MEMORY_ADVICE):
            if version.rule != how["rule"]:
                layout, wanted = self.clip.frontend.layout, self.features[layer]
                how = {**how, "rule": version.rule}
                with as_computed(self._computation):
                    # Going through the network once more takes less than keeping the trace.
                    trace = self.network.forward(self.clip.x)
                    maps = feature_maps(trace, layout, layer, wanted, **how)
            maps = maps[places]
            sounds = auralise(
                self.clip, maps, version.mode, num_threads=self._computation["threads"]
            )
        gains = [peak_gain(float(np.abs(sound).max(initial=0.0))) for sound in sounds]
        (folder / version.key).mkdir()
        files.write_features(folder / version.key, numbers, list(maps), list(sounds), gains)
        energies = np.square(sounds, dtype=np.float64).sum(axis=1)
        return {
            "gains": {str(k): gain for k, gain in zip(numbers, gains)},
            "rms": {
                str(k): feature_rms(float(energy), gain, self.clip.samples.size)
                for k, energy, gain in zip(numbers, energies, gains)
            },
        }

    def _stage(self, layer: str) -> list[int] | None:
        """Features whose activation is shown: those to hear first.

        None where the layer's output no longer lies in time and frequency.
        """
        from .report.listening import STAGE_FEATURES

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

        A network with random weights of the same layers goes through the same (for a bundled
        network the one its training began with), and the share of its features that would be
        believed stands beside that of the layer. Takes seconds for every layer; what was asked
        once is kept.

        Parameters
        ----------
        layers : iterable of str, optional
            Of those that were explained; default all.
        features : sequence of int, or dict of layer name -> sequence of int, optional
            Of those that were explained; default all.
        progress : callable, optional
            Called with (layer, features done, features in all) after each layer.

        Returns
        -------
        list of dict
            As `fastdeconv.belief.trust.trust_features` has them: for each feature ``where``,
            ``support``, ``input_where``, ``beyond_input``, ``reactivation``, ``among_sounds``,
            ``nearest`` and others, ``verdict`` ("yes", "unsure", "no" or "silent") with its
            ``reason``, and ``yes_rate`` and ``control_yes_rate`` of its layer. A number that
            does not exist is nan.

        Raises
        ------
        ParameterError
            If a layer or feature was not explained, or the maps started from values of one's
            own.
        """
        from .belief.trust import trust_features

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
            with as_computed(self._computation), enough_memory(_MEMORY_ADVICE):
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
        """Rows of the table, with what `trust` says."""
        return [
            {**row, **self._trusted[row["layer"]][row["feature"]]} for row in rows
        ]

    def layer_folders(self) -> dict[str, str]:
        """The name of the folder `save` makes for each layer.

        Returns
        -------
        dict of str to str
        """
        return layer_folders(list(self._plan.features))

    def _auralise(self, layer: str) -> FloatArray:
        from .audio.auralise import auralise

        with enough_memory(_MEMORY_ADVICE):
            sounds: FloatArray = auralise(
                self.clip,
                self.maps[layer],
                mode=self.mode,
                num_threads=self._computation["threads"],
            )
        return sounds

    def _listen(self) -> Listener:
        if self._listener is None:
            from .analysis.descriptors import Listener

            self._listener = Listener(self.clip, self.mode, self._computation["threads"])
        return self._listener

    def _measure(self, layer: str, sounds: FloatArray) -> list[dict[str, Any]]:
        numbers, places = self._distinct(layer)
        planes = self.clip.weights(self.maps[layer], self.mode, sounds)
        if places != list(range(len(planes))):
            planes = planes[places]
        from .deconvnet.fields import strongest_places
        from .report.tables import place_columns

        seen = strongest_places(
            self.network, self.network.layer_index(layer), self.clip.x.shape,
            self.activations[layer][np.asarray(numbers, int)],
        )
        rows = []
        told_of = self._listen().describe(planes, numbers)
        for i, told, unit in zip(places, told_of, seen, strict=True):
            peak = float(np.abs(sounds[i]).max(initial=0.0))
            rows.append(
                {
                    "layer": layer,
                    "feature": told["feature"],
                    "energy": float(np.square(sounds[i], dtype=np.float64).sum()),
                    "peak": peak,
                    "nonzero": np.count_nonzero(self.maps[layer][i]) / self.maps[layer][i].size,
                    "gain": peak_gain(peak),
                    **told,
                    **place_columns(unit),
                }
            )
        return rows

    def _distinct(self, layer: str) -> tuple[list[int], list[int]]:
        """Feature numbers without repeats, and the place of each in ``maps[layer]``."""
        numbers = self.features[layer]
        distinct = list(dict.fromkeys(numbers))
        return distinct, [numbers.index(k) for k in distinct]

    def _manifest(
        self, name: str, folder: Path, pages: Sequence[Layer], audio_format: str,
        additions: Additions,
    ) -> dict[str, Any]:
        from .report.song import original_gain

        clip, planned = self.clip, self._plan
        return manifest(
            name, planned.source, self.network,
            audio=audio_record(
                clip.samples, clip.sr, clip.start, clip.is_cut, audio_format,
                original_gain(clip.samples), clip.round_trip,
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
