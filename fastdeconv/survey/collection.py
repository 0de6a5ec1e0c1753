"""The tracks of a collection, and how they are cut into shards.

A shard is a few tracks that are computed together. Where a shard ends depends on the names of its
tracks and not on their number: adding or removing a track changes its own shard and no other, and
every process that sees the same files cuts them in the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ParameterError, printable, reason_of, shown
from .lists import TRACK_COLUMNS, header_text, read_list, read_table_rows

__all__ = [
    "Collection", "Shard", "Track", "path_of", "read_collection", "reason_without_path",
    "shards_of", "track_of",
]

#: Suffixes of the files in a folder that are taken for sound. A list may name any file.
SUFFIXES = frozenset(
    ".aif .aifc .aiff .au .caf .flac .m4a .mka .mp2 .mp3 .mp4 .oga .ogg .opus .rf64 .snd .w64 .wav "
    ".webm .wma".split()
)

# Mean and largest number of tracks of a shard, with and without rows. A killed run loses the
# shards that it was working on, so shards with rows are small. Without rows, one summary (some
# 160 kB) replaces all rows of a shard, so shards are large.
_SIZES = {True: (5, 16), False: (256, 1024)}
_SHARD_DIGITS = 32

_UNDECODED = re.compile(r"\\udc([0-9a-f]{2})")
_BACKSLASH = "5c"


class Track(NamedTuple):
    """A file, as it was when the collection was read."""

    name: str
    """See `track_of`."""
    size: int | None
    """In bytes; None where there is no such file."""
    mtime: int
    """In nanoseconds."""


class Collection(NamedTuple):
    """The tracks of a survey."""

    root: str
    """The folder that names are relative to."""
    tracks: list[Track]
    """In the order of their names, each once."""
    left_aside: int
    """How many files of the folder were left out, because their suffix is not that of a sound."""


class Shard(NamedTuple):
    """A few tracks that are computed together."""

    digest: str
    """A hash of the names, sizes and times of its tracks."""
    tracks: tuple[Track, ...]


def track_of(path: str) -> str:
    """The name of a track, which is valid text, from a path.

    A byte of a file name that is not UTF-8 is written ``\\udcXX``. A backslash that could be
    mistaken for the beginning of such a code is written ``\\udc5c``.
    """
    text = os.fsencode(path).decode("utf-8", "surrogateescape").replace(os.sep, "/")
    if r"\udc" in text:
        text = text.replace(r"\udc", rf"\udc{_BACKSLASH}udc")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def path_of(track: str, root: str | None = None) -> str:
    """The path of a track: the inverse of `track_of`, inside of `root` if that is given."""

    def undo(found: re.Match[str]) -> str:
        return "\\" if found[1] == _BACKSLASH else chr(0xDC00 + int(found[1], 16))

    raw = _UNDECODED.sub(undo, track).encode("utf-8", "surrogateescape")
    path = os.fsdecode(raw)
    return path if root is None else os.path.join(root, path)


def reason_without_path(error: Exception, path: str) -> str:
    """What went wrong with the file at `path`, without the path.

    Errors of tracks stand beside the names of the tracks. The folder in which a collection lies
    is not for everybody who reads the tables.
    """
    text = reason_of(error)
    named = f"{error.filename}" if isinstance(error, OSError) else ""
    for said in filter(None, (path, named)):
        # As `reason_of` writes it: escaped, and of some errors with single spaces.
        for written in (printable(said), printable(" ".join(said.split()))):
            text = text.removeprefix(f"{written}: ")
    return text


def read_collection(files: Any, out: Path) -> Collection:
    """The tracks that a user means by a folder, a file with a list of paths, or paths.

    Parameters
    ----------
    files : path or iterable of paths
        - A folder: all files in it and in its subfolders that have the suffix of a sound, except
          hidden files and those in `out`. Links are followed; every folder is visited once. A
          subfolder that cannot be listed counts as one track, which has an error.
        - A file that ends in ``.csv``: its column ``track``, ``file`` or ``path``.
        - A file with the suffix of a sound: one track.
        - Any other file, such as ``.txt`` or ``.m3u``: one path in each line. Paths in a list or
          table are relative to the folder of that file. In an ``.m3u``, ``#`` begins a comment.
        - An iterable of paths, relative to the current folder.
    out : Path
        The folder of the survey.

    Raises
    ------
    ParameterError
        If `files` is none of these, or has no tracks.
    FileNotFoundError
        If there is no such folder or list.
    """
    if not isinstance(files, (str, os.PathLike)):
        paths = [os.fspath(path) for path in _paths(files)]
        return _collection(os.getcwd(), paths, "the list of files", 0)
    where = os.fspath(files)
    if os.path.isdir(where):
        found, left = _walk(where, out)
        if not found:
            raise ParameterError(
                f"{printable(where)}: no sound in this folder or in its subfolders"
                + (f"; {left} files have other suffixes" if left else "")
                + f". The suffixes of sounds are {', '.join(sorted(SUFFIXES))}"
            )
        return _collection(os.path.abspath(where), found, where, left)
    folder, name = os.path.split(os.path.abspath(where))
    if os.path.splitext(name)[1].lower() in SUFFIXES:
        return _collection(folder, [name], where, 0)
    return _collection(folder, list(_listed(where)), where, 0)


def shards_of(tracks: Sequence[Track], *, rows: bool) -> list[Shard]:
    """Cut tracks, which are in the order of their names, into shards."""
    mean, most = _SIZES[rows]
    shards, begin = [], 0
    for end, track in enumerate(tracks, 1):
        ends_here = int(_digest(track.name)[:8], 16) % mean == 0
        if ends_here or end - begin == most or end == len(tracks):
            own = tuple(tracks[begin:end])
            shards.append(Shard(_digest([list(track) for track in own]), own))
            begin = end
    return shards


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:_SHARD_DIGITS]


def _collection(root: str, paths: Iterable[str], where: str, left: int) -> Collection:
    known: dict[str, str] = {}
    for path in paths:
        try:
            known[track_of(os.path.normpath(path))] = path
        except UnicodeEncodeError:
            raise ParameterError(f"{printable(where)}: {shown(path)} is not a path") from None
    if not known:
        raise ParameterError(f"{printable(where)}: it lists no tracks")
    tracks = [_seen(root, name) for name in sorted(known)]
    return Collection(root, tracks, left)


def _seen(root: str, name: str) -> Track:
    try:
        found = os.stat(path_of(name, root))
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return Track(name, None, 0)
    return Track(name, found.st_size, found.st_mtime_ns)


def _paths(files: Any) -> Iterator[str | os.PathLike[str]]:
    try:
        listed = list(files)
    except TypeError:
        listed = [files]
    for path in listed:
        if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
            raise ParameterError(
                f"files must be a folder, a file with a list, or paths; found {shown(path)}"
            )
        yield path


def _walk(folder: str, out: Path) -> tuple[list[str], int]:
    """Paths of the sounds below `folder`, and how many files have another suffix."""
    found, left = [], 0
    seen = {_identity(out)} - {None}
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        place = os.path.join(folder, inside)
        identity = _identity(place)
        if identity in seen:
            continue  # reached by another link before, or the folder of the survey itself
        seen.add(identity)
        try:
            names = sorted(os.listdir(place))
        except OSError as error:
            if inside:
                found.append(inside)  # a track that cannot be read: one more error, but no end
                continue
            raise ParameterError(
                f"{printable(place)}: this folder cannot be listed: {error.strerror}"
            ) from None
        for name in names:
            path = os.path.join(inside, name)
            if name.startswith("."):
                continue
            if os.path.isdir(os.path.join(place, name)):
                waiting.append(path)
            elif os.path.splitext(name)[1].lower() in SUFFIXES:
                found.append(path)
            else:
                left += 1
    return found, left


def _identity(place: str | Path) -> tuple[int, int] | None:
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _listed(where: str) -> Iterator[str]:
    """The paths of a list or a table."""
    suffix = os.path.splitext(where)[1].lower()
    if suffix == ".csv":
        yield from _column(where)
        return
    for line in read_list(where).split("\n"):
        path = line.removesuffix("\r")
        if path and not (path.startswith("#") and suffix in (".m3u", ".m3u8")):
            yield path


def _column(where: str) -> Iterator[str]:
    rows = read_table_rows(where)
    _, header = next(rows)
    there = [place for place, name in enumerate(header) if name in TRACK_COLUMNS]
    if len(there) != 1:
        raise ParameterError(
            f"{printable(where)}: the header must have one of the columns "
            f"{', '.join(TRACK_COLUMNS)}, found {header_text(header)}"
        )
    for _, row in rows:
        if len(row) > there[0] and row[there[0]]:
            yield row[there[0]]
