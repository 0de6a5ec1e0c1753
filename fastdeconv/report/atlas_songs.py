"""The tracks of a collection in an atlas: the features that stand out in each, and its page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import printable
from ..files import read_regular
from ..untrusted_json import parse_json
from .atlas_tables import Key, Tables, TrackRow, means_by_track
from .folder import EXPLANATION, read_manifest
from .names import safe_name
from .web import is_ours, url

__all__ = ["SONGS", "Songs", "atlas_of", "songs_of"]

#: The folder, inside that of a survey, with results of `fastdeconv explain` for single tracks.
SONGS = "songs"
#: The largest number of tracks on the page, which loads all of them to search in them.
MOST_SONGS = 50_000

_MOST_RECORD_BYTES = 1 << 26
# A feature stands out in a track if its mean is at least so many standard deviations above its mean
# over all windows; at most so many features of a track are named.
_LEAST_DEVIATIONS = 1.0
_MOST_FEATURES = 6


@dataclass(frozen=True)
class Songs:
    """The tracks of a survey as a page shows them."""

    of_excerpts: list[str]
    """The tracks of which the page has excerpts, sorted."""
    listed: list[dict[str, Any]]
    """The tracks that can be searched: name, page and features that stand out."""
    left_out: int
    """How many tracks are not listed."""
    shares: dict[Key, float]
    """For every feature the share of tracks in which its mean is above 0, where that is known."""


def atlas_of(folder: Path, network: str) -> str | None:
    """The atlas for a song whose page lies in the folder `SONGS` of a survey.

    Parameters
    ----------
    folder : Path
        The folder in which the page of the song is written.
    network : str
        Hash of the song's network.

    Returns
    -------
    str or None
        The URL of the atlas, relative to the page; None if there is no atlas of this network.
    """
    songs = folder.parent
    out = songs.absolute().parent
    if songs.name != SONGS or not is_ours(out / "index.html"):
        return None
    try:
        data = read_regular(out / "survey.json", _MOST_RECORD_BYTES)
        record = parse_json(data.decode("utf-8"), most_chars=len(data), deepest=16)
        same = record["settings"]["network"] == network
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return "../../index.html" if same else None


def songs_of(out: Path, tables: Tables, used: Iterable[str]) -> Songs:
    """What the page shows of all tracks of a survey.

    Parameters
    ----------
    out : Path
        The folder of the survey.
    tables : Tables
    used : iterable of str
        The tracks of which the page has excerpts.
    """
    of_excerpts = sorted(set(used))
    tracks = [track for track in tables.tracks if not track.is_error]
    kept = tracks
    if len(tracks) > MOST_SONGS:
        first = set(of_excerpts)
        kept = sorted(tracks, key=lambda track: track.track not in first)[:MOST_SONGS]
        kept.sort(key=lambda track: track.track)
    outstanding, shares = _outstanding(out, tables)
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


def _outstanding(out: Path, tables: Tables) -> tuple[dict[str, list[int]], dict[Key, float]]:
    """For every track the features that stand out in it.

    Also, for every feature, the share of tracks in which its mean is above 0.
    """
    found = means_by_track(out)
    if found is None or not found[0]:
        return {}, {}
    tracks, means = found
    rows = tables.features.values()
    usual = np.array([row.mean or 0.0 for row in rows])
    spread = np.array([row.std or 0.0 for row in rows])
    outstanding = {}
    for track, own in zip(tracks, means):
        deviations = np.divide(own - usual, spread, out=np.zeros(usual.size), where=spread > 0)
        order = np.argsort(-deviations, kind="stable")[:_MOST_FEATURES]
        outstanding[track] = [int(i) for i in order if deviations[i] >= _LEAST_DEVIATIONS]
    shares = (means > 0).mean(axis=0)
    return outstanding, {key: float(share) for key, share in zip(tables.features, shares)}


def _pages(out: Path, tracks: Iterable[TrackRow]) -> dict[str, str]:
    """The page of each track that was explained by itself, in the folder `SONGS`.

    A result names the file it is about, but not that file's folder. So a page is left out if
    several tracks, or several results, have the same file name.
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
