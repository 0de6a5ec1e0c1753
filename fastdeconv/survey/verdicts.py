"""How far to believe the excerpts of an atlas: verdicts on features in the excerpts' windows.

A verdict is a word about a feature and a clip, see `fastdeconv.belief.trust`. It takes the sounds
of all features of the layer, and those of an untrained network. So verdicts are computed for all
features of a layer in one window together. They are kept in a file whose name is a hash of
everything that they depend on: a file that exists is done.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from ..belief.trust import VERDICTS, trust_features
from ..errors import AudioError, FastdeconvError, ParameterError
from ..kernels.dispatch import config, get_implementation
from ..version import __version__
from .collection import Track, path_of, reason_without_path
from .engine import Progress, run_jobs
from .measuring import read_track, window_again
from .schema import TRUST
from .store import clear_temporary, read_table, write_table
from .worker import DIED, network_of

if TYPE_CHECKING:
    from ..network.network import Network

__all__ = ["FOLDER", "Place", "Way", "judge_places", "judge_window", "known_verdicts"]

#: The folder of the files in that of a survey.
FOLDER = "trust"

# To be increased when the computation of verdicts changes within one version of the package.
_VERSION = 1
_DIGITS = 32
_NUMBERS = tuple(field.name for field in TRUST if field.nullable)


class Way(NamedTuple):
    """How maps and sounds are made: what a verdict depends on besides the feature and the clip."""

    rule: str
    start: str
    """What the way back starts from, as in `explain`."""
    mode: str
    """How a map becomes a sound."""


class Place(NamedTuple):
    """A window of a track."""

    track: Track
    start: float
    end: float


class WindowJob(NamedTuple):
    """A window to judge, in any process that sees the files."""

    out: str
    """The folder of the survey."""
    root: str
    """The folder that tracks are relative to."""
    tracks: tuple[Track]
    start: float
    end: float
    layers: dict[str, str]
    """Layer -> name of its file."""
    network: str
    """Hash of the network."""
    way: Way
    backend: str
    isa: str | None
    deadly: frozenset[str] = frozenset()
    """Names of tracks that must not be opened, because they end the process."""


class Judged(NamedTuple):
    """A window whose features were judged, or could not be."""

    track: str
    layers: int
    """How many layers."""
    error: str | None


def known_verdicts(
    out: Path, settings: Mapping[str, Any], way: Way, place: Place, layer: str, features: int
) -> list[dict[str, Any]] | None:
    """The verdicts on all features of a layer in a window that were found before.

    Returns
    -------
    list of dict or None
        Rows of `schema.TRUST`. None if there are none, or if their file is damaged: then they
        are computed again.
    """
    try:
        table = read_table(_path(out, _name(settings, way, place, layer)), TRUST)
    except ParameterError:
        return None
    rows: list[dict[str, Any]] = table.to_pylist()
    same = {"layer": layer, "track": place.track.name, "start": place.start, "end": place.end}
    if [row["feature"] for row in rows] != list(range(features)) or any(
        row["verdict"] not in VERDICTS or any(row[key] != value for key, value in same.items())
        or not all(0 <= (row[key] or 0) <= 1 for key in ("yes_rate", "control_yes_rate"))
        for row in rows
    ):
        return None
    return rows


def judge_places(
    out: Path,
    settings: Mapping[str, Any],
    root: str,
    way: Way,
    places: Mapping[Place, Mapping[str, int]],
    executor: Executor | None,
    workers: int,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Judge features of layers in windows, except those that were judged before.

    The files have the same bits whatever the executor, the number of workers and the order.

    Parameters
    ----------
    out : Path
        The folder of a survey, with its network.
    settings : mapping
        The settings of the survey.
    root : str
        The folder that tracks are relative to.
    way : Way
    places : mapping of Place to (mapping of layer to number of its features)
    executor : Executor or None
        None starts processes on this machine.
    workers : int
    progress : callable, optional
        Called with (done, in all), which count each layer of each window.

    Returns
    -------
    dict of str to str
        Tracks of which a window could not be judged, and why.

    Raises
    ------
    OSError
        If a file cannot be written. Files that were written before stay.
    BackendError
        If processes cannot be started, or die whatever they do.
    """
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    clear_temporary(folder)
    todo = [
        (place, missing) for place, layers in places.items()
        if (missing := [
            layer for layer, count in layers.items()
            if known_verdicts(out, settings, way, place, layer, count) is None
        ])
    ]
    total = sum(map(len, places.values()))
    done = total - sum(len(missing) for _, missing in todo)
    failed: dict[str, str] = {}
    backend, isa = get_implementation()

    def jobs() -> Iterator[WindowJob]:
        for place, missing in todo:
            yield WindowJob(
                str(out.absolute()), root, (place.track,), place.start, place.end,
                {layer: _name(settings, way, place, layer) for layer in missing},
                settings["network"], way, backend, isa,
            )

    def tell(one: Judged) -> None:
        nonlocal done
        done += one.layers
        if one.error is not None:
            failed.setdefault(one.track, one.error)
        if progress is not None:
            progress(done, total)

    if progress is not None:
        progress(done, total)
    if todo:
        run_jobs(jobs(), executor, workers, tell, run=judge_window, attempt=judge_window)
    return failed


def judge_window(job: WindowJob) -> Judged:
    """Judge the features of some layers in a window, and write the verdicts.

    Raises
    ------
    OSError
        If a file cannot be written.
    FastdeconvError
        If the network is not the one of the survey, or the back end is not there.
    """
    (track,), count = job.tracks, len(job.layers)
    if track.name in job.deadly:
        return Judged(track.name, count, DIED)
    with config(backend=job.backend, isa=job.isa, num_threads=1):
        network = network_of(job.out, job.network)
        try:
            rows = _rows(job, track, network)
        except (FastdeconvError, OSError, MemoryError, ValueError, ArithmeticError) as error:
            reason = reason_without_path(error, path_of(track.name, job.root))
            return Judged(track.name, count, reason)
    for layer, name in job.layers.items():
        own = [row for row in rows if row["layer"] == layer]
        write_table(_path(Path(job.out), name), pa.Table.from_pylist(own, schema=TRUST))
    return Judged(track.name, count, None)


def _rows(job: WindowJob, track: Track, network: Network) -> list[dict[str, Any]]:
    assert network.frontend is not None
    song = read_track(job.root, track, network.frontend)
    clip = window_again(song, job.start, job.end)
    if clip is None:
        raise AudioError("the track is shorter than it was when the survey was made")
    how = {"rule": job.way.rule, "start": job.way.start}
    rows = trust_features(clip, network, list(job.layers), how, job.way.mode, {})
    return [
        {
            "layer": row["layer"], "feature": row["feature"], "track": track.name,
            "start": job.start, "end": job.end, "rule": job.way.rule,
            "map_start": job.way.start, "mode": job.way.mode,
            "verdict": row["verdict"], "reason": row["reason"],
            # nan becomes null in the table.
            **{name: None if math.isnan(row[name]) else row[name] for name in _NUMBERS},
            "yes_rate": row["yes_rate"],
        }
        for row in rows
    ]


def _name(settings: Mapping[str, Any], way: Way, place: Place, layer: str) -> str:
    """The name, without its suffix, of the file of a layer in a window."""
    decides = [
        _VERSION, __version__, dict(settings), *way, *place.track, place.start, place.end, layer,
    ]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _path(out: Path, name: str) -> Path:
    return out / FOLDER / f"{name}.parquet"
