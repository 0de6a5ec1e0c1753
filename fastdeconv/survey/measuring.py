"""One track: its windows, and what every feature puts out in each of them."""

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
from ..deconvnet.scores import class_scores
from ..deconvnet.strongest import strongest_units
from ..errors import AudioError
from ..network.network import Network
from .collection import Track, path_of

__all__ = [
    "LayerValues", "Measured", "Window", "measure", "patience", "read_track", "reduced",
    "seconds_at", "sounding", "window_again", "window_samples", "windows",
]

Floats = NDArray[np.float32]

_PATIENCE, _SLOWEST = 300.0, 1e5
"""Seconds, and bytes a second: a file that is not read by then, at a hundredth of the usual speed,
is stuck in its decoder, or lies on a disk that does not answer."""


class LayerValues(NamedTuple):
    """What the features of a layer put out in each window, (windows, features)."""

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
    """A track."""

    windows: list[Window]
    scores: Floats
    """(windows, classes)"""
    layers: list[LayerValues]


def window_samples(frontend: Frontend, seconds: float) -> tuple[int, int]:
    """Samples of a window, and from one window to the next.

    Where the front end fixes the number of frames, windows have it, and lie side by side, so
    that no column of the input is in two of them. Elsewhere they are `seconds` long.
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
        If it cannot be used, or is not the file any more that it was when the survey began.
    OSError
        If it cannot be opened.
    """
    frontend = network.frontend
    assert frontend is not None
    song = read_track(root, track, frontend)
    places, scores = [], []
    indices = [network.layer_index(layer) for layer in layers]
    values: list[tuple[list[Any], ...]] = [([], [], [], [], []) for _ in layers]
    for window, clip in windows(song, seconds):
        trace = network.forward(clip.x)
        share = window.duration / clip.duration
        for index, columns in zip(indices, values):
            planes = trace.activation(index)
            for column, own in zip(columns, reduced(planes, frontend.layout, share)):
                column.append(own)
        scores.append([one.score for one in class_scores(trace)])
        places.append(window)
    return Measured(
        places, np.array(scores, np.float32), [LayerValues(*map(np.stack, v)) for v in values]
    )


def read_track(root: str, track: Track, frontend: Frontend) -> Song:
    """Read a track, in a thread that is left behind if a decoder hangs.

    Raises
    ------
    AudioError
        If it cannot be used, takes too long, or is not the file any more that it was when the
        survey began.
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
    """Seconds after which a track is no longer waited for."""
    return _PATIENCE + (track.size or 0) / _SLOWEST


def seconds_at(
    at: NDArray[np.int32], size: NDArray[np.int32],
    start: NDArray[np.float64], length: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Where in a track the middle of place `at` lies, of a map with `size` places along time.

    `start` and `length` are of the window, padding included, in seconds.
    """
    found: NDArray[np.float64] = start + (at + 0.5) / np.maximum(size, 1) * length
    return found


def windows(song: Song, seconds: float) -> Iterator[tuple[Window, Clip]]:
    """The windows of a song.

    The last one ends where the song does, and overlaps the one before: no window but that of
    a song that is shorter is padded with silence, and none has the edge of a silence in it.
    """
    frontend, total = song.frontend, song.samples.size
    size, step = window_samples(frontend, seconds)
    most = native_samples(frontend, song.sr) or size
    starts = [*range(0, max(1, total - size + 1), step)]
    # Behind the last whole window; up to a hop more belongs to its last frame.
    longest = size if frontend.frames is None else frontend.framing.longest(frontend.frames)
    if starts[-1] + longest < total:
        starts.append(total - size)
    for start in starts:
        clip = Clip(song.samples[start : start + most], song.sr, frontend)
        duration = min(clip.samples.size, total - start) / song.sr
        yield Window(start / song.sr, duration), clip


def reduced(planes: Floats, layout: str, share: float) -> tuple[Any, ...]:
    """The values of `LayerValues` of one window, of planes (C, H, W).

    Places that stand for padding alone do not count.
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
    """The part of planes (C, H, W) that stands for sound, which is this share of their time.

    The rest stands for the silence behind a track that is shorter than its window.
    """
    if share >= 1:
        return planes
    axis = 1 + _time_axis(layout)
    kept = [slice(None)] * 3
    kept[axis] = slice(max(1, math.ceil(planes.shape[axis] * share)))
    return planes[tuple(kept)]


def _time_axis(layout: str) -> int:
    """Whether time is the rows, 0, or the columns, 1, of a map."""
    return 0 if layout[1] == "T" or layout[2] == "F" else 1


def window_again(song: Song, start: float, end: float) -> Clip | None:
    """The window of a survey that begins and ends here; None if the song does not reach it."""
    first, last = round(start * song.sr), round(end * song.sr)
    if last > song.samples.size + 1:
        return None
    if song.frontend.frames is not None:
        return song.window(first)
    clip = Clip(song.samples[first:last], song.sr, song.frontend)
    clip.start = first / song.sr
    return clip
