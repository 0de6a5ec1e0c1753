"""The excerpts of an atlas: the part of a track where a feature fires most, and what it hears.

Every excerpt has five files: two sounds, two pictures, and a record with its numbers. The record is
written last, so an excerpt with a record is complete. The name of the files is a hash of everything
that decides what is in them. So an excerpt that is there need not be made again, and is never taken
for another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..analysis.descriptors import DESCRIPTORS, Listener
from ..audio.auralise import auralise, heard_magnitude
from ..audio.clip import Clip
from ..audio.excerpts import around, faded
from ..audio.song import Song, load_song
from ..deconvnet.projection import deconvolve
from ..deconvnet.region import Region, seen_by
from ..deconvnet.strongest import strongest_units
from ..errors import FastdeconvError, ParameterError, printable
from ..files import read_regular
from ..kernels.dispatch import get_num_threads
from ..kernels.schedule import run_bands
from ..survey.measuring import sounding, window_again
from ..untrusted_json import parse_json
from ..version import __version__
from .atlas_tables import Exemplar, Key, SurveyRecord
from .axis import FrequencyAxis
from .folder import replace_file
from .names import safe_name, unique_names
from .picture import levels, write_png
from .sounds import encode, peak_gain

if TYPE_CHECKING:
    from ..deconvnet.trace import Trace
    from ..network.network import Network

__all__ = ["EXCERPTS", "Excerpt", "Settings", "Studio"]

FloatArray = NDArray[np.float32]

#: The folder of the excerpts, inside that of a survey.
EXCERPTS = "atlas"
#: The numbers of an excerpt. (`level` is left out: it compares features in the same clip.)
NUMBERS = tuple(name for name in DESCRIPTORS if name != "level")

# To be raised with every change that decides what is in the files but is not part of their hash.
_VERSION = 1
_SAME = 1e-3
"""Largest difference between a score and that of the survey, relative to the latter. Back ends
round differently, by about 1e-5; another sound gives another score."""
_MOST_MAP_VALUES = 1 << 24
"""How many values the maps that are computed at a time may have."""
_MOST_RECORD_BYTES = 1 << 14
_FILE = re.compile(
    r"[0-9]{1,9}_[0-9a-f]{20}(\.json|_(heard|original)\.(wav|flac|ogg|png))"
)


class Settings(NamedTuple):
    """How excerpts are made."""

    rule: str
    start: str
    """Where the backward pass starts."""
    mode: str
    audio_format: str


@dataclass(frozen=True)
class Excerpt:
    """An excerpt that lies in the folder."""

    exemplar: Exemplar
    folder: str
    stem: str
    """With what the names of its files in that folder begin."""
    begin: float
    """Where it begins in the track, in seconds."""
    seconds: float
    field: tuple[float, float, float, float]
    """What the strongest unit sees: left, right, bottom and top, as shares of the pictures."""
    rms: tuple[float, float]
    """Root mean square of the two sound files: of what is heard, and of the original."""
    label: str
    numbers: dict[str, float | None]
    """The `NUMBERS` of what is heard in the excerpt."""


@dataclass
class Studio:
    """Makes excerpts, one track after another.

    Parameters
    ----------
    out : Path
        The folder of the survey.
    root : str
        The folder of the tracks.
    net : Network
    survey : SurveyRecord
    settings : Settings
    outside : bool
        Whether tracks may lie outside of `root`.
    """

    out: Path
    root: str
    net: Network
    survey: SurveyRecord
    settings: Settings
    outside: bool = False
    missing: dict[str, str] = field(default_factory=dict)
    """Tracks that could not be used, and why."""

    def __post_init__(self) -> None:
        names = [safe_name(layer, "layer") for layer in self.survey.layers]
        self._folders = dict(zip(self.survey.layers, unique_names(names), strict=True))
        frontend = self.net.frontend
        assert frontend is not None
        self._frontend, self._axis = frontend, FrequencyAxis.of(frontend)
        self._done: dict[tuple[Key, Exemplar], Excerpt | None] = {}

    def make(
        self,
        exemplars: Mapping[Key, Sequence[Exemplar]],
        shown: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[Key, list[Excerpt]]:
        """For every feature excerpts of the first `shown` exemplars of which one can be made.

        Parameters
        ----------
        exemplars : dict of (layer, feature) -> sequence of Exemplar
            The strongest first, with spare ones at the end.
        shown : int
        progress : callable, optional
            Called with (excerpts that are done, excerpts in all).
        """
        while True:
            wanted = self._wanted(exemplars, shown)
            missing = self._missing(wanted)
            total = sum(map(len, wanted.values()))
            done = total - sum(map(len, missing.values()))
            if progress is not None:
                progress(done, total)
            if not missing:
                return {
                    key: [found for one in chosen if (found := self._done[key, one])]
                    for key, chosen in wanted.items()
                }
            for track, song in self._songs(sorted(missing)):
                self._make_track(track, song, missing[track])
                done += len(missing[track])
                if progress is not None:
                    progress(done, total)

    def remove_others(self, kept: Iterable[Excerpt]) -> None:
        """Remove the files of excerpts that are not among `kept`, and nothing else."""
        stems = {(one.folder, one.stem) for one in kept}
        for folder in self._folders.values():
            place = self.out / EXCERPTS / folder
            if not place.is_dir() or place.is_symlink():
                continue
            for name in sorted(os.listdir(place)):
                stem = re.split(r"_(?:heard|original)\.|\.", name)[0]
                if _FILE.fullmatch(name) and (folder, stem) not in stems:
                    (place / name).unlink(missing_ok=True)

    # ---- which ----

    def _wanted(
        self, exemplars: Mapping[Key, Sequence[Exemplar]], shown: int
    ) -> dict[Key, list[Exemplar]]:
        return {
            # As `islice` stops at `shown`, spare exemplars that are not needed are not looked up.
            key: [*islice((one for one in ranked if self._can_be_had(key, one)), shown)]
            for key, ranked in exemplars.items()
        }

    def _can_be_had(self, key: Key, exemplar: Exemplar) -> bool:
        """Whether the excerpt is done, or was not tried yet and its track is there."""
        if (key, exemplar) not in self._done:
            found = self._read(key, exemplar)
            if found is None and self._stat(exemplar.track) is not None:
                return True
            self._done[key, exemplar] = found
        return self._done[key, exemplar] is not None

    def _missing(
        self, wanted: Mapping[Key, Sequence[Exemplar]]
    ) -> dict[str, list[tuple[Key, Exemplar]]]:
        """The exemplars whose excerpt is not done yet, by track."""
        missing: dict[str, list[tuple[Key, Exemplar]]] = {}
        for key, chosen in wanted.items():
            for one in chosen:
                if (key, one) not in self._done:
                    missing.setdefault(one.track, []).append((key, one))
        return missing

    def _stat(self, track: str) -> os.stat_result | None:
        """The state of a track's file; if there is none, the track is noted as missing."""
        try:
            return os.stat(place_of(self.root, track, outside=self.outside))
        except (OSError, ValueError) as error:
            self._say(track, getattr(error, "strerror", None) or str(error))
            return None

    def _say(self, track: str, reason: str) -> None:
        self.missing.setdefault(track, printable(reason))

    # ---- what is there ----

    def _place(self, key: Key, exemplar: Exemplar) -> tuple[str, str] | None:
        """Folder and stem of an excerpt's files; None if the track is not there."""
        found = self._stat(exemplar.track)
        if found is None:
            return None
        decides = [
            _VERSION, __version__, self.survey.settings, *self.settings, *key, exemplar.track,
            found.st_size, found.st_mtime_ns, exemplar.start, exemplar.end,
        ]
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        return self._folders[key[0]], f"{key[1]}_{digest[:20]}"

    def _files(self, folder: str, stem: str) -> list[Path]:
        suffixes = (f"heard.{self.settings.audio_format}", "heard.png",
                    f"original.{self.settings.audio_format}", "original.png")
        return [self.out / EXCERPTS / folder / f"{stem}_{suffix}" for suffix in suffixes]

    def _read(self, key: Key, exemplar: Exemplar) -> Excerpt | None:
        """An excerpt that is there already; None if it is not, or not complete."""
        place = self._place(key, exemplar)
        if place is None or not all(file.is_file() for file in self._files(*place)):
            return None
        try:
            data = read_regular(
                self.out / EXCERPTS / place[0] / f"{place[1]}.json", _MOST_RECORD_BYTES
            )
            record = parse_json(data.decode("utf-8"), most_chars=len(data), deepest=4)
            return _excerpt_of(exemplar, *place, record)
        except (OSError, LookupError, TypeError, ValueError, AttributeError):
            return None  # the record is not there, or damaged: the excerpt is made again

    # ---- making ----

    def _songs(self, tracks: Sequence[str]) -> Iterator[tuple[str, Song | None]]:
        """Read the tracks; one that cannot be read is None, and is noted as missing.

        While one track is in use, the next one is read: decoding takes as long as all the rest.
        """
        with ThreadPoolExecutor(1) as reader:
            coming = [reader.submit(self._load, track) for track in tracks[:1]]
            for i, track in enumerate(tracks):
                here = coming.pop()
                coming += [reader.submit(self._load, after) for after in tracks[i + 1 : i + 2]]
                try:
                    yield track, here.result()
                except (FastdeconvError, OSError, ValueError) as error:
                    self._say(track, getattr(error, "strerror", None) or str(error))
                    yield track, None

    def _load(self, track: str) -> Song:
        return load_song(place_of(self.root, track, outside=self.outside), self._frontend)

    def _make_track(
        self, track: str, song: Song | None, wanted: Sequence[tuple[Key, Exemplar]]
    ) -> None:
        windows: dict[tuple[float, float], list[tuple[Key, Exemplar]]] = {}
        for key, exemplar in wanted:
            self._done[key, exemplar] = None  # until it is made
            windows.setdefault((exemplar.start, exemplar.end), []).append((key, exemplar))
        if song is None:
            return
        for (start, end), here in sorted(windows.items(), key=lambda item: item[0]):
            window = self._window(song, track, start, end)
            if window is None:
                continue
            for layer in dict.fromkeys(key[0] for key, _ in here):
                of_layer = [one for one in here if one[0][0] == layer]
                step = max(1, _MOST_MAP_VALUES // window.clip.x.size)
                for at in range(0, len(of_layer), step):
                    self._write(self._drafts(window, layer, of_layer[at : at + step]))

    def _window(self, song: Song, track: str, start: float, end: float) -> _Window | None:
        """A window of a track after one forward pass, which serves all its features."""
        try:
            clip = window_again(song, start, end)
            if clip is None:
                self._say(track, "is shorter than it was when the survey was made")
                return None
            trace = self.net.forward(clip.x)
        except FastdeconvError as error:
            self._say(track, str(error))
            return None
        sizes = [shape[1:] for shape in (clip.x.shape, *self.net.shapes(clip.x.shape))]
        sounding = min(clip.samples.size, song.samples.size - round(start * song.sr))
        return _Window(clip, trace, sizes, sounding)

    def _drafts(
        self, window: _Window, layer: str, wanted: Sequence[tuple[Key, Exemplar]]
    ) -> list[_Draft]:
        """Excerpts of one layer, without those whose score is not the one of the survey."""
        same = []
        for key, exemplar in wanted:
            if self._is_same(window, key, exemplar):
                same.append((key, exemplar))
            else:
                self._say(exemplar.track, "has changed since the survey")
        try:
            maps = deconvolve(
                window.trace, layer, [key[1] for key, _ in same],
                self.settings.rule, self.settings.start,  # type: ignore[arg-type]
            )
            found = [self._draft(window, *one, own) for one, own in zip(same, maps)]
        except FastdeconvError as error:  # such as values that overflow float32
            self._say(wanted[0][1].track, str(error))
            return []
        return [draft for draft in found if draft is not None]

    def _is_same(self, window: _Window, key: Key, exemplar: Exemplar) -> bool:
        """Whether the feature's largest value is the score that the survey found."""
        found = window.strongest(*key)[0]
        return abs(found - exemplar.score) <= _SAME * abs(exemplar.score)

    def _draft(
        self, window: _Window, key: Key, exemplar: Exemplar, own: FloatArray
    ) -> _Draft | None:
        """An excerpt that is not written yet; None if its track has been removed meanwhile."""
        place = self._place(key, exemplar)
        if place is None:
            return None
        clip, mode = window.clip, self.settings.mode
        cut = window.cut(self.net, *key)
        part = clip.part(*cut.frames)
        weights = clip.weights(own[None], mode)[:, slice(*cut.frames)]
        described = Listener(part, mode).describe(weights)[0]
        stft: FloatArray = np.ascontiguousarray(np.abs(part.stft))
        pictures = heard_magnitude(weights[0].T, stft, mode), stft
        sounds = [
            faded(sound[slice(*cut.samples)], clip.sr)
            for sound in (auralise(clip, own[None], mode)[0], clip.samples)
        ]
        peaks = [float(np.abs(sound).max(initial=0.0)) for sound in sounds]
        gains = peak_gain(peaks[0]), peak_gain(peaks[1]) if peaks[1] > 1 else 1.0
        record = {
            "begin": clip.start + cut.samples[0] / clip.sr,
            "seconds": (cut.samples[1] - cut.samples[0]) / clip.sr,
            "field": [*cut.times, *self._heights(cut.bins)],
            "rms": [gain * _rms(sound) for gain, sound in zip(gains, sounds)],
            "label": described["label"],
            "numbers": {name: described[name] for name in NUMBERS},
        }
        return _Draft((key, exemplar), place, (sounds[0], sounds[1]), gains, pictures, record)

    def _write(self, drafts: Sequence[_Draft]) -> None:
        for folder in {draft.place[0] for draft in drafts}:
            place = self.out / EXCERPTS / folder
            if place.is_symlink() or place.parent.is_symlink():
                raise ParameterError(f"{printable(str(place))} is a link: nothing is written there")
            place.mkdir(parents=True, exist_ok=True)

        def work(i: int) -> None:
            draft, which = drafts[i // 4], i % 4
            file = self._files(*draft.place)[which]
            if which % 2 == 0:
                sound, gain = draft.sounds[which // 2], draft.gains[which // 2]
                file.write_bytes(
                    encode(sound, self._frontend.sr, gain, self.settings.audio_format)
                )
            else:
                picture = draft.pictures[which // 2]
                shown = levels(self._axis.loudest(picture), float(picture.max(initial=0.0)))
                write_png(file, shown)

        # On all threads: encoding Vorbis takes longer than everything else that is computed.
        run_bands(4 * len(drafts), work, get_num_threads())
        for draft in drafts:
            folder, stem = draft.place
            text = json.dumps(draft.record, allow_nan=False) + "\n"
            replace_file(self.out / EXCERPTS / folder / f"{stem}.json", text)
            self._done[draft.wanted] = _excerpt_of(draft.wanted[1], folder, stem, draft.record)

    def _heights(self, bins: tuple[float, float] | None) -> tuple[float, float]:
        """The heights of these bins on the frequency axis; all of it if they are not known."""
        if bins is None:
            return 0.0, 1.0
        width = self._frontend.sr / self._frontend.n_fft
        low, high = (
            min(1.0, max(0.0, self._axis.position(max(b * width, 1e-3)))) for b in bins
        )
        return low, high


class _Draft(NamedTuple):
    """An excerpt before it is written. In each pair, what is heard comes before the original."""

    wanted: tuple[Key, Exemplar]
    place: tuple[str, str]
    """Folder and stem."""
    sounds: tuple[FloatArray, FloatArray]
    gains: tuple[float, float]
    pictures: tuple[FloatArray, FloatArray]
    """Magnitudes (F, T)."""
    record: dict[str, Any]


class _Cut(NamedTuple):
    """The part of a window that becomes an excerpt."""

    frames: tuple[int, int]
    samples: tuple[int, int]
    times: tuple[float, float]
    """What the strongest unit sees in the excerpt, as shares of its length."""
    bins: tuple[float, float] | None


class _Window(NamedTuple):
    """A window of a track, and its forward pass through the network."""

    clip: Clip
    trace: Trace
    sizes: Sequence[Any]
    """(H, W) of the input and of every layer's output."""
    sounding: int
    """How many samples come before the silence that fills up the last window of a track."""

    def strongest(self, layer: str, k: int) -> tuple[float, int, int]:
        """The largest value of a feature, its row and its column.

        Columns for the silence after the end of the track do not count, as in a survey.
        """
        share = self.sounding / self.clip.samples.size
        planes = sounding(self.trace[layer][k : k + 1], self.clip.frontend.layout, share)
        value, row, column = strongest_units(planes)
        return float(value[0]), int(row[0]), int(column[0])

    def cut(self, net: Network, layer: str, k: int) -> _Cut:
        """The excerpt around what the strongest unit of a feature sees."""
        clip, index = self.clip, net.layer_index(layer)
        _, row, column = self.strongest(layer, k)
        region = seen_by(net, index, (row, column), self.sizes)
        frontend = clip.frontend
        frames, hop = clip.stft.shape[1], frontend.transform.hop_length
        first, last = self._seen_frames(region)
        sounding = max(1, min(frames, -(-self.sounding // hop)))
        a_second = clip.sr / hop
        cut = around(first, last, a_second, sounding)
        length = cut[1] - cut[0]
        times = [min(1.0, max(0.0, (place - cut[0]) / length)) for place in (first, last)]
        samples = cut[0] * hop, max(cut[0] * hop + 1, min(cut[1] * hop, self.sounding))
        return _Cut(cut, samples, (times[0], times[1]), self._bins(region))

    def _seen_frames(self, region: Region) -> tuple[float, float]:
        """The frames of the STFT that a part of the input covers."""
        clip = self.clip
        frames, axis = clip.stft.shape[1], clip.frontend.layout[1:].find("T")
        if axis < 0:  # time is the channel axis, so every unit sees all frames
            return 0.0, float(frames)
        columns, (first, last) = clip.x.shape[1 + axis], region[axis]
        if columns == clip.samples.size:  # of a waveform
            hop = clip.frontend.transform.hop_length
            return first / hop, last / hop
        return first * frames / columns, last * frames / columns

    def _bins(self, region: Region) -> tuple[float, float] | None:
        """The bins of the STFT that a part of the input covers; None where they are not known."""
        frontend = self.clip.frontend
        axis = frontend.layout[1:].find("F")
        if frontend.kind != "stft" or axis < 0:
            return None
        below = 0 if frontend.bins is None else frontend.bins[0]
        first, last = region[axis]
        return below + first - 0.5, below + last - 0.5


def place_of(root: str, track: str, *, outside: bool) -> str:
    """The file of a track.

    Raises
    ------
    ValueError
        If it lies outside the root and `outside` is false.
    """
    parts = track.split("/")
    if not outside and (os.path.isabs(track) or "\0" in track or ".." in parts):
        raise ValueError("lies outside the root of the survey")
    from ..survey.collection import path_of

    return path_of(track, root)


def _excerpt_of(exemplar: Exemplar, folder: str, stem: str, record: Mapping[str, Any]) -> Excerpt:
    """An excerpt from its record, whose content is unknown: raises the errors of such reading."""
    numbers = {
        name: None if record["numbers"][name] is None else _number(record["numbers"][name])
        for name in NUMBERS
    }
    left, right, bottom, top = (_number(value) for value in record["field"])
    heard_rms, original_rms = (_number(value) for value in record["rms"])
    if not isinstance(record["label"], str):
        raise TypeError("a label is text")
    return Excerpt(
        exemplar, folder, stem, _number(record["begin"]), _number(record["seconds"]),
        (left, right, bottom, top), (heard_rms, original_rms), record["label"], numbers,
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("found no number")
    return float(value)


def _rms(sound: FloatArray) -> float:
    return float(np.sqrt(np.square(sound, dtype=np.float64).mean())) if sound.size else 0.0
