"""How far to believe the excerpts of an atlas: verdicts on features in the windows they are from.

A verdict is a word about a feature and a clip, see `fastdeconv.belief.trust`. It takes the sounds
of all features of the layer, and those of an untrained network, so it is computed for a whole layer
in a window at a time, and kept in a file that is called by all that decides it: there = done.
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
from ..kernels.dispatch import config, get_backend, get_isa
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

# Changes with everything that decides a verdict and is not in the name of its file.
_VERSION = 1
_DIGITS = 32
_NUMBERS = tuple(field.name for field in TRUST if field.nullable)


class Way(NamedTuple):
    """How features are made heard: what a verdict is about, besides feature and clip."""

    rule: str
    start: str
    """What the way back starts from."""
    mode: str


class Place(NamedTuple):
    """A window of a track."""

    track: Track
    start: float
    end: float


class WindowJob(NamedTuple):
    """A window to judge, in any process that sees the files."""

    out: str
    root: str
    tracks: tuple[Track]
    start: float
    end: float
    layers: dict[str, str]
    """Layer -> name of its file."""
    network: str
    """Its hash."""
    way: Way
    backend: str
    isa: str | None
    deadly: frozenset[str] = frozenset()
    """Names of tracks that are not to be opened, because that ends the process."""


class Judged(NamedTuple):
    """A window that is done, or that could not be."""

    track: str
    layers: int
    error: str | None


def known_verdicts(
    out: Path, settings: Mapping[str, Any], way: Way, place: Place, layer: str, features: int
) -> list[dict[str, Any]] | None:
    """The rows of `schema.TRUST` of all features of a layer in a window.

    Returns
    -------
    list of dict or None
        None if the window was not judged, or what is there is damaged: it is computed again then.
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
    """Judge the features of layers in windows, those that were not judged yet.

    The same files bit for bit whatever the executor, the number of workers and the order.

    Parameters
    ----------
    out : Path
        The folder of a survey, with its network.
    settings : mapping
        Those of the survey.
    root : str
        Of the tracks.
    way : Way
    places : mapping of Place to (mapping of layer to number of its features)
    executor : Executor or None
        None begins processes of this machine.
    workers : int
    progress : callable, optional
        Called with (layers of windows done, layers of windows in all).

    Returns
    -------
    dict of str to str
        Tracks that could not be judged, and why.

    Raises
    ------
    OSError
        If a file cannot be written; what is done stays.
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
    backend = get_backend().name

    def jobs() -> Iterator[WindowJob]:
        for place, missing in todo:
            yield WindowJob(
                str(out.absolute()), root, (place.track,), place.start, place.end,
                {layer: _name(settings, way, place, layer) for layer in missing},
                settings["network"], way, backend, get_isa() if backend == "native" else None,
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
    """Judge the features of some layers in a window, and write what was found.

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
        raise AudioError("is shorter than it was for the survey")
    how = {"rule": job.way.rule, "start": job.way.start}
    rows = trust_features(clip, network, list(job.layers), how, job.way.mode, {})
    return [
        {
            "layer": row["layer"], "feature": row["feature"], "track": track.name,
            "start": job.start, "end": job.end, "rule": job.way.rule,
            "map_start": job.way.start, "mode": job.way.mode,
            "verdict": row["verdict"], "reason": row["reason"],
            # nan is no number: an empty cell.
            **{name: None if math.isnan(row[name]) else row[name] for name in _NUMBERS},
            "yes_rate": row["yes_rate"],
        }
        for row in rows
    ]


def _name(settings: Mapping[str, Any], way: Way, place: Place, layer: str) -> str:
    """What the file of a layer in a window is called, without its suffix."""
    decides = [
        _VERSION, __version__, dict(settings), *way, *place.track, place.start, place.end, layer,
    ]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _path(out: Path, name: str) -> Path:
    return out / FOLDER / f"{name}.parquet"
