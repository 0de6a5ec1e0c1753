"""The tracks of a collection on an atlas: which features stand out in each, and its own page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import printable
from .atlas_tables import Key, Tables, TrackRow, read_shard
from .folder import EXPLANATION, read_manifest
from .names import safe_name
from .web import url

__all__ = ["SONGS", "Songs", "songs_of"]

#: The folder, in that of a survey, with what `fastdeconv explain` says of single tracks.
SONGS = "songs"
#: Tracks on the page at the most: what is searched must have been loaded.
MOST_SONGS = 50_000

# Of a track.
_MOST_FEATURES = 6
_LEAST_DEVIATIONS = 1.0


@dataclass(frozen=True)
class Songs:
    """The tracks of a survey as a page shows them."""

    of_excerpts: list[str]
    """Tracks of which the page has excerpts, in order."""
    listed: list[dict[str, Any]]
    """Those that are searched: name, page, features that stand out."""
    left_out: int
    """How many are not listed."""
    shares: dict[Key, float]
    """Of every feature the share of tracks in which its mean is above 0, where that is known."""


def songs_of(out: Path, tables: Tables, used: Iterable[str]) -> Songs:
    """All of a survey's tracks.

    Parameters
    ----------
    out : Path
        The folder of the survey.
    tables : Tables
    used : iterable of str
        Tracks of which the page has excerpts.
    """
    of_excerpts = sorted(set(used))
    tracks = [track for track in tables.tracks if not track.is_error]
    kept = tracks
    if len(tracks) > MOST_SONGS:
        first = set(of_excerpts)
        kept = sorted(tracks, key=lambda track: track.track not in first)[:MOST_SONGS]
        kept.sort(key=lambda track: track.track)
    outstanding, shares = _outstanding(out, tables, tracks)
    pages = _pages(out, tables.tracks)
    listed = [
        {
            "name": printable(track.track),
            "page": pages.get(track.track),
            "features": outstanding.get(track.track, []),
        }
        for track in kept
    ]
    return Songs(of_excerpts, listed, len(tracks) - len(kept), shares)


def _outstanding(
    out: Path, tables: Tables, tracks: Iterable[TrackRow]
) -> tuple[dict[str, list[int]], dict[Key, float]]:
    """Of every track the features whose mean is the most deviations above that of all windows.

    Also of every feature the share of tracks in which it is active.
    """
    places = {key: i for i, key in enumerate(tables.features)}
    layers = tables.survey.layers
    found: dict[str, list[int]] = {}
    active = np.zeros(len(places))
    count = 0
    of_layer = {
        layer: np.array([places.get((layer, k), -1) for k in range(size)])
        for layer, size in layers.items()
    }
    mean, std = (
        np.array([value if value is not None else np.nan for value in column], np.float64)
        for column in zip(*((row.mean, row.std) for row in tables.features.values()), strict=True)
    ) if places else (np.zeros(0), np.zeros(0))
    for shard in sorted({track.shard for track in tracks}):
        names, means = read_shard(out, shard, layers)
        for track, own in _by_track(names, means, of_layer, len(places)):
            count += 1
            active += own > 0
            with np.errstate(invalid="ignore", divide="ignore"):
                deviations = np.where(std > 0, (own - mean) / std, 0.0)
            order = np.argsort(-np.nan_to_num(deviations), kind="stable")[:_MOST_FEATURES]
            found[track] = [int(i) for i in order if deviations[i] >= _LEAST_DEVIATIONS]
    shares = {key: float(active[i] / count) for key, i in places.items()} if count else {}
    return found, shares


def _by_track(
    names: list[str],
    means: Mapping[str, NDArray[np.float32]],
    of_layer: Mapping[str, NDArray[np.int64]],
    features: int,
) -> Iterable[tuple[str, NDArray[np.float64]]]:
    """Of every track the mean over its windows, of all features."""
    tracks = np.array(names, object)
    for track in dict.fromkeys(names):
        own = np.zeros(features)
        rows = tracks == track
        for layer, values in means.items():
            there = of_layer[layer] >= 0
            own[of_layer[layer][there]] = values[rows].mean(axis=0, dtype=np.float64)[there]
        yield track, own


def _pages(out: Path, tracks: Iterable[TrackRow]) -> dict[str, str]:
    """The page of each track that was explained by itself, in the folder `SONGS`.

    A result says the name of its file and not where it lay: a name that several tracks have
    says nothing, nor do two results of the same name.
    """
    folder = out / SONGS
    if not folder.is_dir():
        return {}
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        if safe_name(name, "") != name:
            continue
        try:
            manifest = read_manifest(folder / name, EXPLANATION)
        except ValueError:
            continue
        source = None if manifest is None else manifest.get("source")
        if isinstance(source, str) and (folder / name / "index.html").is_file():
            found.setdefault(source, []).append(url(SONGS, name, "index.html"))
    names = {track.track: track.track.rsplit("/", 1)[-1] for track in tracks}
    counts = Counter(names.values())
    return {
        track: found[name][0]
        for track, name in names.items()
        if counts[name] == 1 and len(found.get(name, ())) == 1
    }
