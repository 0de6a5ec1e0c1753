"""Decoding every track once: to mono, at the network's sample rate, in one array file each."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .audiofile import read_mono
from .manifest import Package, Track, find_tracks


@dataclass(frozen=True)
class Prepared:
    """A decoded track: what it is, and the name of the array file with its samples."""

    id: str
    package: str
    artist: str
    label: str
    licence: str
    credit: str
    n_samples: int
    array: str


def prepare(
    packages: Sequence[Package], folders: dict[str, Path], cache: Path, sr: float
) -> list[Prepared]:
    """Decode tracks that are not decoded yet, and write ``tracks.json`` in the cache folder."""
    arrays = cache / f"arrays-{sr:g}"
    arrays.mkdir(parents=True, exist_ok=True)
    tracks = [
        (package, track)
        for package in packages for track in find_tracks(package, folders[package.name])
    ]
    prepared = []
    for number, (package, track) in enumerate(tracks, 1):
        print(f"\rdecoding {number}/{len(tracks)} ", end="", file=sys.stderr, flush=True)
        prepared.append(_prepare_track(package, track, arrays, sr))
    print(file=sys.stderr)
    index = json.dumps([asdict(track) for track in prepared], indent=1, ensure_ascii=False)
    (cache / "tracks.json").write_text(index + "\n", encoding="utf-8")
    return prepared


def load_prepared(cache: Path) -> list[Prepared]:
    """Read the list that `prepare` wrote."""
    records = json.loads((cache / "tracks.json").read_text(encoding="utf-8"))
    return [Prepared(**record) for record in records]


def open_samples(cache: Path, track: Prepared, sr: float) -> npt.NDArray[np.float32]:
    """Return the samples of a track, memory-mapped from its file."""
    samples: npt.NDArray[np.float32] = np.load(
        cache / f"arrays-{sr:g}" / track.array, mmap_mode="r", allow_pickle=False
    )
    return samples


def _prepare_track(package: Package, track: Track, arrays: Path, sr: float) -> Prepared:
    # Another version of a package may have another sound under the same name.
    sources = "\n".join([package.sha256, track.id, *(path.name for path in track.paths)])
    name = hashlib.sha256(sources.encode()).hexdigest()[:24] + ".npy"
    path = arrays / name
    if not path.exists():
        partial = path.with_suffix(".partial")
        with partial.open("wb") as stream:
            np.save(stream, read_mono(track.paths, sr))
        partial.replace(path)
    group = track.group
    n_samples = len(np.load(path, mmap_mode="r", allow_pickle=False))
    return Prepared(
        id=track.id,
        package=track.package,
        artist=group.artist,
        label=group.label,
        licence=group.licence,
        credit=group.credit,
        n_samples=n_samples,
        array=name,
    )
