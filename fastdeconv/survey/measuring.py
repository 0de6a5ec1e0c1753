"""One track: its windows, and the values of every feature in each window."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio.clip import LEAST_SAMPLES, Clip, native_samples
from ..audio.frontend import Frontend
from ..audio.song import Song, load_song
from ..deconvnet.scores import class_means
from ..deconvnet.strongest import strongest_units
from ..deconvnet.together import run_inputs, together
from ..errors import AudioError
from ..network.network import Network
from .collection import Track, path_of

__all__ = [
    "LayerValues", "Measured", "Window", "measure", "patience", "read_track", "reduced",
    "seconds_at", "sounding", "window_again", "window_samples", "windows",
]

Floats = NDArray[np.float32]

_PATIENCE, _SLOWEST = 300.0, 1e5
"""Seconds, and bytes per second (a hundredth of the usual speed). If reading takes longer than this
allows, the decoder hangs or the disk does not answer."""


class LayerValues(NamedTuple):
    """The values of a layer's features, arrays of shape (windows, features); see `schema`."""

    mean: Floats
    max: Floats
    active: Floats
    at: NDArray[np.int32]
    size: NDArray[np.int32]
    """(windows,)"""


class Window(NamedTuple):
    """A piece of a track, in seconds."""

    start: float
    duration: float


class Measured(NamedTuple):
    """What was measured of a track."""

    windows: list[Window]
    scores: Floats
    """(windows, classes)"""
    layers: list[LayerValues]


def window_samples(frontend: Frontend, seconds: float) -> tuple[int, int]:
    """The length of a window and the distance from one window to the next, in samples.

    If the front end fixes the number of frames, a window has that many, and the distance is such
    that no frame is in two windows. Otherwise windows are `seconds` long and follow each other.
    """
    frames, framing = frontend.frames, frontend.framing
    if frames is None:
        size = max(LEAST_SAMPLES, round(seconds * frontend.sr))
        return size, size
    return framing.shortest(frames), frames * (framing.seen(2) - framing.seen(1))


def measure(
    network: Network, layers: Sequence[str], root: str, track: Track, seconds: float
) -> Measured:
    """Read a track, and run the network on every window of it.

    Raises
    ------
    AudioError
        If it cannot be used, or has changed since the survey began.
    OSError
        If it cannot be opened.
    """
    frontend = network.frontend
    assert frontend is not None
    song = read_track(root, track, frontend)
    places, scores = [], []
    indices = [network.layer_index(layer) for layer in layers]
    values: list[tuple[list[Any], ...]] = [([], [], [], [], []) for _ in layers]
    how = together(network, window_samples(frontend, seconds)[0])
    for group in run_inputs(network, windows(song, seconds), how):
        for window, clip, run in group:
            share = window.duration / clip.duration
            for index, columns in zip(indices, values):
                planes = run.activation(index)
                for column, own in zip(columns, reduced(planes, frontend.layout, share)):
                    column.append(own)
            scores.append(class_means(run.output))
            places.append(window)
    return Measured(
        places, np.array(scores, np.float32), [LayerValues(*map(np.stack, v)) for v in values]
    )


def read_track(root: str, track: Track, frontend: Frontend) -> Song:
    """Read a track in a thread of its own, which is abandoned if the decoder hangs.

    Raises
    ------
    AudioError
        If it cannot be used, takes too long, or has changed since the survey began.
    OSError
        If it cannot be opened.
    """
    path = path_of(track.name, root)
    ended: list[Song | BaseException] = []

    def read() -> None:
        try:
            ended.append(load_song(path, frontend))
        except BaseException as error:
            ended.append(error)

    seconds = patience(track)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(seconds)
    if not ended:
        raise AudioError(f"reading it took longer than {seconds:.0f} s, and was given up")
    (song,) = ended
    if isinstance(song, BaseException):
        raise song
    found = os.stat(path)
    if (found.st_size, found.st_mtime_ns) != (track.size, track.mtime):
        raise AudioError("changed since the survey began; run it again")
    return song


def patience(track: Track) -> float:
    """Seconds to wait until a track has been read."""
    return _PATIENCE + (track.size or 0) / _SLOWEST


def seconds_at(
    at: NDArray[np.int32], size: NDArray[np.int32],
    start: NDArray[np.float64], length: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Where in a track, in seconds, the middle of a place of a map lies.

    Parameters
    ----------
    at, size : array of int32
        The place along time, and how many places the map has along time.
    start, length : array of float64
        Of the window, padding included, in seconds.
    """
    found: NDArray[np.float64] = start + (at + 0.5) / np.maximum(size, 1) * length
    return found


def windows(song: Song, seconds: float) -> Iterator[tuple[Window, Clip]]:
    """The windows of a song.

    The last window is moved back so that it ends where the song ends, and overlaps the one before.
    So a window is padded with silence only if the whole song is shorter.
    """
    frontend, total = song.frontend, song.samples.size
    size, step = window_samples(frontend, seconds)
    most = native_samples(frontend, song.sr) or size
    starts = [*range(0, max(1, total - size + 1), step)]
    # What follows the last whole window; up to a hop of it belongs to that window's last frame.
    longest = size if frontend.frames is None else frontend.framing.longest(frontend.frames)
    if starts[-1] + longest < total:
        starts.append(total - size)
    for start in starts:
        clip = Clip(song.samples[start : start + most], song.sr, frontend)
        duration = min(clip.samples.size, total - start) / song.sr
        yield Window(start / song.sr, duration), clip


def reduced(planes: Floats, layout: str, share: float) -> tuple[Any, ...]:
    """The values of `LayerValues` for one window, from feature maps (C, H, W).

    Places that stand for padding only do not count.
    """
    size = planes.shape[1 + _time_axis(layout)]
    planes = sounding(planes, layout, share)
    if _time_axis(layout) == 0:
        planes = planes.transpose(0, 2, 1)
    flat = planes.reshape(len(planes), -1)
    largest, _, at = strongest_units(planes)
    return (
        flat.mean(axis=1, dtype=np.float64).astype(np.float32),
        largest.astype(np.float32),
        (np.count_nonzero(flat > 0, axis=1) / flat.shape[1]).astype(np.float32),
        at.astype(np.int32),
        np.int32(size),
    )


def sounding(planes: Floats, layout: str, share: float) -> Floats:
    """The first `share` of feature maps (C, H, W) along time: the part that stands for sound.

    The rest stands for the silence after a track that is shorter than its window.
    """
    if share >= 1:
        return planes
    axis = 1 + _time_axis(layout)
    kept = [slice(None)] * 3
    kept[axis] = slice(max(1, math.ceil(planes.shape[axis] * share)))
    return planes[tuple(kept)]


def _time_axis(layout: str) -> int:
    """The axis of a map that is time: 0 for rows, 1 for columns."""
    return 0 if layout[1] == "T" or layout[2] == "F" else 1


def window_again(song: Song, start: float, end: float) -> Clip | None:
    """The window of a survey from `start` to `end`, in seconds; None if the song is shorter."""
    first, last = round(start * song.sr), round(end * song.sr)
    if last > song.samples.size + 1:
        return None
    if song.frontend.frames is not None:
        return song.window(first)
    clip = Clip(song.samples[first:last], song.sr, song.frontend)
    clip.start = first / song.sr
    return clip
