"""``index.html`` of a folder with several songs: find them, and hear one feature in all.

Made from what lies there (``manifest.json`` and ``features.csv`` of every song), so that
songs explained at different times come together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ParameterError, printable
from .folder import MANIFEST, replace_file
from .listening import axis_of, facts_of, feature_rms
from .names import safe_name
from .numbers import NUMBERS, rounded
from .tables import read_rows
from .web import GENERATOR, render, url

__all__ = ["overview", "write_overview"]

_SCRIPTS = ("page.js", "player.js", "overview.js")
# What a card of a feature shows; all its numbers are on the page of the song.
_SHOWN = tuple(number for number in NUMBERS if number.key in ("level", "centroid", "onset"))
_FORMAT = ("fastdeconv-explanation", 1)


class _Result(NamedTuple):
    folder: str
    manifest: dict[str, Any]
    rows: list[dict[str, str]]


def overview(out: str | os.PathLike[str]) -> Path:
    """Write ``out/index.html``: all songs explained in a folder, side by side.

    A page with a search over songs and features, and one feature in every song at a time:
    that is how one learns what it hears. It is made of the results of `Explanation.save`
    (or ``fastdeconv explain``) in `out`; those of the network with the most results are
    shown. An earlier overview is replaced.

    Parameters
    ----------
    out : path

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ParameterError
        If there are no results in `out`, or its ``index.html`` is not an overview.
    """
    path = write_overview(Path(out), least=1)
    if path is None:
        raise ParameterError(f"no results of explain in {printable(os.fspath(out))}")
    return path


def write_overview(out: Path, *, least: int) -> Path | None:
    """Write the overview if there are at least so many songs; see `overview`."""
    results = _most_alike(list(_results(out)))
    if len(results) < least:
        return None
    path = out / "index.html"
    if os.path.lexists(path) and not _is_ours(path):
        raise ParameterError(
            f"{printable(str(path))} is not a page of fastdeconv and is not overwritten"
        )
    replace_file(path, render("overview.html", _SCRIPTS, _content(results)))
    return path


def _is_ours(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(2048)


def _results(out: Path) -> Iterator[_Result]:
    if not out.is_dir():
        return
    for folder in sorted(entry.name for entry in out.iterdir() if entry.is_dir()):
        if folder.startswith("."):
            continue
        try:
            manifest = json.loads((out / folder / MANIFEST).read_text(encoding="utf-8"))
            if (manifest["format"], manifest["version"]) != _FORMAT:
                continue
            with (out / folder / "features.csv").open(newline="", encoding="utf-8") as file:
                yield _Result(folder, manifest, read_rows(file))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # somebody else's folder, or of another version


def _most_alike(results: list[_Result]) -> list[_Result]:
    """The largest group of results that can be compared; of equal ones the first."""
    groups: dict[str, list[_Result]] = {}
    for result in results:
        network = result.manifest["network"]
        key = json.dumps([
            network["name"], result.manifest["frontend"],
            {key: value for key, value in result.manifest["parameters"].items()
             if key != "offset"},
        ])
        groups.setdefault(key, []).append(result)
    return max(groups.values(), key=len, default=[])


def _content(results: list[_Result]) -> dict[str, Any]:
    first = results[0].manifest
    lengths = [_seconds(result.manifest) for result in results]
    axis = axis_of(first["frontend"], max(lengths))
    if max(lengths) > 1.02 * min(lengths):
        axis["seconds"] = []  # one set of ticks cannot be right for all
    songs = [_song(result) for result in results]
    return {
        "title": f"{len(results)} songs",
        "left_out": [],
        # What differs from song to song is on its own page.
        "facts": [fact for fact in facts_of(first) if fact[0] not in ("song", "its output")],
        "axis": axis,
        "songs": songs,
        "data": {
            "numbers": [number._asdict() for number in _SHOWN],
            "songs": songs,
            "features": _features(results),
        },
    }


def _seconds(manifest: Mapping[str, Any]) -> float:
    return float(manifest["audio"]["samples"] / manifest["audio"]["sr"])


def _song(result: _Result) -> dict[str, Any]:
    audio = result.manifest["audio"]
    counts: dict[str, int] = {}
    for row in result.rows:
        for label in filter(None, row["label"].split(", ")):
            counts[label] = counts.get(label, 0) + 1
    return {
        "name": printable(result.manifest["song"]),
        "page": url(result.folder, "index.html"),
        "picture": url(result.folder, "original.png"),
        "sound": url(result.folder, f"original.{audio['format']}"),
        "rms": rounded(audio["original_rms"]),
        "seconds": _seconds(result.manifest),
        "labels": sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])),
    }


def _features(results: list[_Result]) -> list[dict[str, Any]]:
    """Every feature of any song, with what it is in each; None where it was not explained."""
    features: dict[tuple[str, int], dict[str, Any]] = {}
    for i, result in enumerate(results):
        folders = {layer["name"]: layer["folder"] for layer in result.manifest["layers"]}
        audio = result.manifest["audio"]
        for row in result.rows:
            layer, k = row["layer"], int(row["feature"])
            folder = folders.get(layer, "")
            if safe_name(folder, "") != folder or not folder:
                continue  # not a folder that a result of ours has
            feature = features.setdefault(
                (layer, k), {"layer": layer, "k": k, "songs": [None] * len(results)}
            )
            feature["songs"][i] = {
                "label": row["label"],
                "silent": row["level"] == "",
                "picture": url(result.folder, folder, f"feature_{k}.png"),
                "sound": url(result.folder, folder, f"feature_{k}.{audio['format']}"),
                "rms": feature_rms(
                    float(row["energy"]), float(row["gain"]), audio["samples"]
                ),
                "numbers": [_number(row[number.key]) for number in _SHOWN],
            }
    return list(features.values())


def _number(text: str) -> float | None:
    return rounded(float(text)) if text else None
