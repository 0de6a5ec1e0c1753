"""A whole song: when every feature fires, and the sound of those to hear first.

Nothing here grows with the song but its samples, its time lines and its scores. A first pass over
the windows (see `fastdeconv.audio.windows`) takes the time lines and scores and chooses what to
hear; `SongExplanation.save` goes over them once more and writes sounds and pictures as it goes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ParameterError, enough_memory, shown
from ..report.folder import EXPLANATION, check_free, new_folder, result_place, write_manifest
from ..report.sounds import check_format
from .layer_features import NOT_OF_A_SONG, LayerFeatures
from .planning import Features, Progress
from .result import (
    TABLE,
    as_computed,
    audio_record,
    computation,
    layer_folders,
    layer_record,
    manifest,
    result_name,
)
from .song_pass import SongPass
from .song_planning import SongPlan
from .song_windows import WindowRun, runs

if TYPE_CHECKING:
    from ..report.listening import Layer
    from ..report.song_stream import LayerStream, SongStream
    from .kept import Kept

__all__ = ["SongExplanation"]

FloatArray = NDArray[np.float32]

SCORES = "scores.csv"
_MEMORY_ADVICE = "a window of this song: explain fewer layers or fewer features"


class SongExplanation(LayerFeatures):
    """What the features of a network respond to in a whole song. Made by `explain`.

    Attributes
    ----------
    samples : array of float32, shape (n,)
        The song, at the front end's rate.
    sr : float
    network : Network
    features : dict of str -> list of int
        For each layer the numbers of the features that have a sound: those asked for, or those
        to hear first.
    timeline : dict of str -> array of float32, shape (K, n)
        For each layer how strongly each of all its features fires over the song: the mean over
        frequency of what is positive in its activation. Column i is about second
        ``i * duration / n`` to ``(i + 1) * duration / n``.
    scores : list of dict
        For each window ``start`` and ``end`` (seconds in the source), ``share`` (of the song,
        0 to 1) and the network's score for each of its classes, by name. One row where the
        network takes a song of any length.
    outputs, probabilities : list of (str, float)
        As in `Explanation`; the means over the windows, each counted by its share.
    mode, name : str
    """

    def __init__(
        self, plan: SongPlan, progress: Progress | None = None, kept: Kept | None = None
    ) -> None:
        self._plan, self._kept = plan, kept
        song = plan.given
        self.samples, self.sr, self.network = song.samples, song.sr, plan.network
        self.mode, self.name = plan.mode, result_name(plan.source)
        self._computation = computation()
        with enough_memory(_MEMORY_ADVICE):
            self._pass = SongPass(plan.without(() if kept is None else kept.pages), progress)
        self.timeline, self.features = self._pass.timeline, self._pass.features
        self.scores = self._pass.scores
        self.outputs, self.probabilities = self._pass.outputs, self._pass.probabilities
        self._rows: dict[str, list[dict[str, Any]]] | None = None
        self._numbers: dict[str, Any] = {}

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{layer}: {len(ks)} of {self._plan.counts[layer]}"
            for layer, ks in self.features.items()
        )
        return f"<SongExplanation of {self.name!r}, {self.duration:.1f} s: {counts or 'no layers'}>"

    def _repr_html_(self) -> str:
        from ..report.notebook import song_overview

        return song_overview(
            self, self.network, self.samples, self._plan.given.frontend, self.timeline
        )

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.samples.size / self.sr

    @property
    def covered(self) -> str | None:
        """Which part of the song this is about, in words; None if it is about all of it."""
        from ..report.listening import covered

        song = self._plan.given
        return covered(song.start, self.duration, is_cut=song.is_cut)

    @property
    def left_out(self) -> str | None:
        """Which features have no sound, in words; None if all have."""
        all_features = self.features | ({} if self._kept is None else self._kept.features)
        if all(len(ks) == self._plan.counts[layer] for layer, ks in all_features.items()):
            return None
        count = sum(len(ks) for ks in all_features.values())
        total = sum(self._plan.counts.values())
        which = "those to hear first" if None in self._plan.chosen.values() else "those asked for"
        return f"{count} of {total} features have sounds and pictures: {which}"

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row for each layer and feature that has a sound, as `Explanation.table`.

        Numbers about sound and map are means over the windows, each counted by the energy that
        is heard of the feature there. Computed when first asked for, which takes as long as
        `save`.
        """
        if self._rows is None:
            self._measure(None, "wav", None)
        assert self._rows is not None
        return [dict(row) for rows in self._rows.values() for row in rows]

    @property
    def clip_numbers(self) -> dict[str, Any]:
        """The same numbers of the song itself, to compare features with."""
        _ = self.table
        return dict(self._numbers)

    def _rows_of(self, layer: str) -> list[dict[str, Any]]:
        return [row for row in self.table if row["layer"] == layer]

    def sound(self, layer: str, feature: int) -> FloatArray:
        """The sound of one feature over the whole song, also of one that `save` leaves out.

        Parameters
        ----------
        layer : str
        feature : int

        Returns
        -------
        array of float32, shape (n,)
            As long as the song, not normalised.

        Raises
        ------
        ParameterError
            If there is no such layer or feature, or the sound overflows float32.
        """
        from ..audio.auralise import auralise
        from ..audio.windows import Joiner

        self._require_layer(layer)
        count = self._plan.counts[layer]
        if not isinstance(feature, (int, np.integer)) or not 0 <= feature < count:
            raise ParameterError(
                f"layer {shown(layer)} has features 0..{count - 1}, found {shown(feature)}"
            )
        joiner, parts = Joiner(), []
        with as_computed(self._computation):
            for group in runs(self._plan, layers=[layer]):
                for window in group:
                    maps = self._maps(window, layer, [int(feature)])
                    sounds = auralise(window.clip, maps, mode=self.mode)
                    parts.append(joiner.add(self._plan.windows.rows[window.number], sounds)[0])
        return np.concatenate(parts)

    def trust(
        self, layers: str | Iterable[str] | None = None, features: Features | None = None,
        *, progress: Progress | None = None,
    ) -> None:
        """Raises: how far to believe a feature is measured of one clip, see `Explanation.trust`.

        Parameters
        ----------
        layers, features, progress : optional
            As there.

        Raises
        ------
        ParameterError
            Always, with what to do instead.
        """
        raise ParameterError(NOT_OF_A_SONG)

    @property
    def windows(self) -> int:
        """How many windows the song is taken in."""
        return len(self._plan.windows)

    def save(
        self,
        out: str | os.PathLike[str],
        name: str | None = None,
        *,
        audio_format: Literal["wav", "flac", "ogg"] = "wav",
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Write everything to the folder ``out/name``, as `Explanation.save` does for a clip.

        The differences: ``input.png`` and the pictures of activations are not there, but
        ``<layer>/timeline.png`` and ``timeline.npy`` (`timeline`, a row a feature) and
        ``scores.csv`` (`scores`) are. Pictures and time lines have at most 2,000 columns: of a
        longer song a column shows the loudest of its frames, or the mean strength.

        Parameters
        ----------
        out, name, audio_format, overwrite
            As in `Explanation.save`.
        progress : callable, optional
            Called with ("sounds", windows done, windows in all) after each window, or after
            several short ones that run together.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        ParameterError, AudioError, OSError
            As in `Explanation.save`.
        """
        out, name = result_place(out, self.name if name is None else name, "clip")
        check_format(audio_format)
        check_free(out, name, EXPLANATION, overwrite=overwrite)
        with new_folder(out, name, EXPLANATION, overwrite=overwrite) as folder:
            self._save(folder, name, audio_format, progress)
        return out / name

    def layer_folders(self) -> dict[str, str]:
        """The name of the folder `save` makes for each layer.

        Returns
        -------
        dict of str to str
        """
        return layer_folders(list(self._plan.chosen), taken=[SCORES])

    def _save(
        self, folder: Path, name: str, audio_format: str, progress: Progress | None
    ) -> None:
        from ..report.listening import Layer, Song, write_page
        from ..report.tables import write_csv, write_rows
        from ..report.timeline import write_timeline

        with ExitStack() as stack:
            song, streams = self._measure(folder, audio_format, progress, stack)
            song.write_original(folder)
            pages = []
            assert self._rows is not None
            for layer, inside in self.layer_folders().items():
                if layer not in self.features:
                    assert self._kept is not None
                    pages.append(self._kept.copy(layer, folder, inside))
                    continue
                rows = self._rows[layer]
                spectra = list(streams[layer].write(rows))
                write_timeline(folder / inside, self.timeline[layer])
                pages.append(Layer(layer, inside, rows, spectra, None, self._plan.counts[layer]))
        write_csv(folder / TABLE, [row for page in pages for row in page.rows])
        if self.scores:
            write_rows(folder / SCORES, self.scores)
        record = self._manifest(name, audio_format, song, folder, pages)
        write_page(folder, Song(record, self._numbers, song.spectrum, pages))
        if self._kept is not None:
            self._kept.check()
        write_manifest(folder, record)

    def _measure(
        self, folder: Path | None, audio_format: str, progress: Progress | None,
        stack: ExitStack | None = None,
    ) -> tuple[SongStream, dict[str, LayerStream]]:
        """Go over the windows once more, measure, and keep in the folder what is to be written."""
        from ..report.song_stream import LayerStream, SongStream

        windows, threads = self._plan.windows, self._computation["threads"]
        song, shares = SongStream(windows, self.mode, audio_format, threads), windows.shares()
        streams = {
            layer: LayerStream(
                song, layer, self.features[layer], None if folder is None else folder / inside,
                stack,
            )
            for layer, inside in self.layer_folders().items() if layer in self.features
        }
        with as_computed(self._computation), enough_memory(_MEMORY_ADVICE):
            for group in runs(self._plan, layers=self.features):
                framed = [song.frames(window.number, window.clip) for window in group]
                listeners = [song.listener(frames) for frames in framed]
                for layer, wanted in self.features.items():
                    for window, frames, listener in zip(group, framed, listeners):
                        maps, share = self._maps(window, layer, wanted), shares[window.number]
                        streams[layer].add(frames, listener, maps, float(share))
                if progress is not None:
                    progress("sounds", group[-1].number + 1, len(windows))
        self._numbers = song.numbers
        self._rows = {layer: stream.rows() for layer, stream in streams.items()}
        return song, streams

    def _maps(self, window: WindowRun, layer: str, features: list[int]) -> FloatArray:
        start = self._pass.start(window.number, layer, features, window.activation(layer))
        return window.maps(layer, features, start, self._plan.how)

    def _manifest(
        self, name: str, audio_format: str, song: SongStream, folder: Path,
        pages: Sequence[Layer],
    ) -> dict[str, Any]:
        from ..analysis.timeline import columns
        from ..report.song import original_gain

        plan, given = self._plan, self._plan.given
        return manifest(
            name, plan.source, self.network,
            audio=audio_record(
                self.samples, sr=self.sr, start=given.start, is_cut=given.is_cut, padding=0.0,
                audio_format=audio_format, gain=original_gain(self.samples),
                round_trip=song.round_trip,
            ),
            outputs=self.outputs, probabilities=self.probabilities,
            frontend=given.frontend.to_record(), parameters=plan.parameters,
            settings=plan.settings(audio_format), computed=self._computation,
            more={"windows": plan.taken, "left_out": self.left_out},
            layers=[
                layer_record(
                    folder / page.folder, page, audio_format,
                    {
                        "features": plan.counts[page.name],
                        "columns": columns(self.samples.size, self.sr),
                    },
                )
                for page in pages
            ],
        )
