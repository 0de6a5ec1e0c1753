"""Reading ``sources.toml``: which packages have the music, and what each track is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCES = HERE / "sources.toml"

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Group:
    """Tracks of one artist and one class inside one package.

    Attributes
    ----------
    artist : str
        Name for the split by artist. A person has the same name in all packages.
    label : str
        Class of the tracks.
    licence, credit : str
        Licence of the tracks, and the credit that it requires.
    files : tuple of str
        Glob patterns in the unpacked package: of files or, with `stems`, of folders.
    exclude : tuple of str
        Glob patterns of files or folders that `files` matches but that must not be used.
    stems : tuple of str
        Names of the files in each folder that add up to one track. Empty if every file is a track.
    """

    artist: str
    label: str
    licence: str
    credit: str
    files: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    stems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Package:
    """A Debian package: name, pinned version, sha256 of the .deb file, its tracks."""

    name: str
    version: str
    sha256: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Track:
    """A piece of music: its files, which are added up, and its group."""

    id: str
    package: str
    group: Group
    paths: tuple[Path, ...]


def _take(record: Mapping[str, Any], required: set[str], optional: set[str], where: str) -> None:
    missing = required - set(record)
    unknown = set(record) - required - optional
    if missing or unknown:
        raise ValueError(f"{where}: missing keys {sorted(missing)}, unknown keys {sorted(unknown)}")


def _group(record: Mapping[str, Any], where: str) -> Group:
    required = {"artist", "label", "licence", "credit", "files"}
    _take(record, required, {"exclude", "stems"}, where)
    files, exclude, stems = (tuple(record.get(key, ())) for key in ("files", "exclude", "stems"))
    if not files:
        raise ValueError(f"{where}: no files")
    for pattern in (*files, *exclude, *stems):
        if pattern.startswith("/") or ".." in Path(pattern).parts:
            raise ValueError(f"{where}: the pattern {pattern!r} leaves the package")
    return Group(
        artist=record["artist"],
        label=record["label"],
        licence=record["licence"],
        credit=record["credit"],
        files=files,
        exclude=exclude,
        stems=stems,
    )


def parse_sources(text: str) -> tuple[Package, ...]:
    """Parse the text of a sources file.

    Raises
    ------
    ValueError
        If a key is missing or unknown, a checksum is malformed, a pattern leaves the package, or a
        package is listed twice.
    """
    packages = []
    for record in tomllib.loads(text).get("package", ()):
        where = f"package {record.get('name', '?')}"
        _take(record, {"name", "version", "sha256", "group"}, set(), where)
        if not _SHA256.fullmatch(record["sha256"]):
            raise ValueError(f"{where}: sha256 {record['sha256']!r} is not 64 hex digits")
        groups = tuple(_group(group, where) for group in record["group"])
        packages.append(Package(record["name"], record["version"], record["sha256"], groups))
    names = [package.name for package in packages]
    if len(set(names)) != len(names):
        raise ValueError("a package is listed twice")
    return tuple(packages)


def load_sources(path: Path = SOURCES) -> tuple[Package, ...]:
    """Parse the sources file at `path`."""
    return parse_sources(path.read_text(encoding="utf-8"))


def find_tracks(package: Package, folder: Path) -> list[Track]:
    """List the tracks of `package`, unpacked in `folder`, in a fixed order.

    Raises
    ------
    ValueError
        If a pattern matches nothing: the manifest no longer fits the package.
    """
    tracks = []
    for group in package.groups:
        excluded = {path for pattern in group.exclude for path in folder.glob(pattern)}
        for pattern in group.files:
            found = sorted(set(folder.glob(pattern)) - excluded)
            if not found:
                raise ValueError(f"package {package.name}: nothing matches {pattern!r}")
            for path in found:
                paths = tuple(path / stem for stem in group.stems) or (path,)
                name = path.relative_to(folder).with_suffix("").as_posix()
                tracks.append(Track(f"{package.name}/{name}", package.name, group, paths))
    return tracks
