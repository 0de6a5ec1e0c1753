"""``index.html`` of a folder with several songs: find them, and hear one feature in all of them.

It is made of what is in the folder (``manifest.json`` and ``features.csv`` of every song), so songs
that were explained at different times are on one page. The files may come from anybody: a song
whose files are damaged is left out, the page and the result say which, and it is not an error.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..audio._checks import as_choice, as_int
from ..audio.frontend import plain_record
from ..audio.reading import MAX_SAMPLES
from ..errors import ParameterError, printable, shortened
from .axis import FrequencyAxis
from .folder import EXPLANATION, as_folder, read_manifest, replace_file
from .listening import axis_of, facts_of, feature_rms
from .numbers import NUMBERS, rounded
from .saved_files import DAMAGED, layer_place, read_table
from .sounds import FORMATS
from .web import is_ours, render, url

__all__ = ["Overview", "overview", "write_overview"]

_SCRIPTS = ("page.js", "player.js", "overview.js")
# The numbers on a card of a feature; the page of the song has all numbers.
_SHOWN = tuple(number for number in NUMBERS if number.key in ("level", "centroid", "onset"))
_TABLE = "features.csv"


class Overview(NamedTuple):
    """What `write_overview` wrote."""

    page: Path
    left_out: list[tuple[str, str]]
    """Songs that are in the folder but not on the page, and why."""


class _Result(NamedTuple):
    """One song, read and checked."""

    folder: str
    compared: dict[str, Any]
    """What has to be the same in two songs so that they can be compared."""
    frontend: dict[str, Any]
    seconds: float
    facts: list[tuple[str, str]]
    song: dict[str, Any]
    features: dict[tuple[str, int], dict[str, Any]]


def overview(out: str | os.PathLike[str]) -> Path:
    """Write ``out/index.html``, a page about all songs that were explained in a folder.

    The page has a search over songs and features, and shows one feature in every song at a time:
    that is how one finds out what the feature responds to. It is made of the results of
    `Explanation.save` (or ``fastdeconv explain``) in `out`. If they differ in network, front end or
    parameters, the largest group of equal ones is shown. An earlier overview is replaced.

    Parameters
    ----------
    out : path
        The folder with the folders of the songs.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ParameterError
        If there are no results in `out`, or its ``index.html`` is not a page of fastdeconv.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> for step in (1, 2):
    ...     sound = np.sin(step * np.arange(44100)), 11025
    ...     page = fd.explain(sound, layers="pool5", features=[0]).save("out", f"sine {step}")
    >>> fd.overview("out").name
    'index.html'
    """
    written = write_overview(as_folder(out), least=1)
    if written is None:
        raise ParameterError(f"no results of explain in {printable(os.fspath(out))}")
    return written.page


def write_overview(out: Path, *, least: int) -> Overview | None:
    """Write the overview if it would have at least `least` songs; see `overview`."""
    results, left_out = _read_all(out)
    shown = _most_alike(results)
    if len(shown) < least:
        return None
    left_out += [
        (printable(result.folder), _difference(result, shown[0]))
        for result in results if result.compared != shown[0].compared
    ]
    path = out / "index.html"
    if os.path.lexists(path) and not is_ours(path):
        raise ParameterError(
            f"{printable(str(path))} is not a page of fastdeconv and is not overwritten"
        )
    content = {**_content(shown), "left_out": sorted(left_out)}
    replace_file(path, render("overview.html", _SCRIPTS, content))
    return Overview(path, sorted(left_out))


def _read_all(out: Path) -> tuple[list[_Result], list[tuple[str, str]]]:
    """The results in a folder, and those that cannot be read, with the reason."""
    results: list[_Result] = []
    damaged: list[tuple[str, str]] = []
    names = sorted(entry.name for entry in out.iterdir()) if out.is_dir() else []
    for name in names:
        if name.startswith(".") or not (out / name).is_dir():
            continue
        try:
            manifest = read_manifest(out / name, EXPLANATION)
            if manifest is not None:
                results.append(_read(out / name, manifest))
        except DAMAGED as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            damaged.append((printable(name), shortened(printable(f"it is damaged: {what}"))))
    return results, damaged


def _read(folder: Path, manifest: Mapping[str, Any]) -> _Result:
    # Every size in the record is checked here, before anything of that size is made.
    frontend = plain_record(manifest["frontend"])
    audio = manifest["audio"]
    samples = as_int("samples", audio["samples"], minimum=1, maximum=MAX_SAMPLES)
    as_choice("audio format", audio["format"], FORMATS)
    seconds = samples / frontend["sr"]
    rows = read_table(folder / _TABLE)
    parameters = {k: v for k, v in manifest["parameters"].items() if k != "offset"}
    return _Result(
        folder.name,
        {"network": manifest["network"]["name"], "front end": frontend, **parameters},
        frontend,
        seconds,
        # The name differs from song to song, so it is only on the song's own page.
        [fact for fact in facts_of(manifest) if fact[0] != "song"],
        _song(folder.name, manifest, rows, seconds),
        _features(folder, manifest, rows),
    )


def _most_alike(results: list[_Result]) -> list[_Result]:
    """The largest group of results that can be compared; the first of equally large groups."""
    groups: dict[str, list[_Result]] = {}
    for result in results:
        groups.setdefault(json.dumps(result.compared, sort_keys=True), []).append(result)
    return max(groups.values(), key=len, default=[])


def _difference(result: _Result, other: _Result) -> str:
    """In what a result cannot be compared with another."""
    differing = [
        key for key in {**other.compared, **result.compared}
        if result.compared.get(key) != other.compared.get(key)
    ]
    return "it was made with another " + " and another ".join(map(printable, differing))


def _content(results: list[_Result]) -> dict[str, Any]:
    lengths = [result.seconds for result in results]
    axis = axis_of(FrequencyAxis.of(results[0].frontend), max(lengths))
    if max(lengths) > 1.02 * min(lengths):
        axis["seconds"] = []  # the same ticks would be wrong for some of them
    songs = [result.song for result in results]
    return {
        "title": f"{len(results)} songs",
        "facts": results[0].facts,
        "axis": axis,
        "songs": songs,
        "data": {
            "numbers": [number._asdict() for number in _SHOWN],
            "songs": songs,
            "features": _side_by_side(results),
        },
    }


def _song(
    folder: str, manifest: Mapping[str, Any], rows: list[dict[str, str]], seconds: float
) -> dict[str, Any]:
    audio = manifest["audio"]
    counts: dict[str, int] = {}
    for row in rows:
        for label in filter(None, row["label"].split(", ")):
            counts[label] = counts.get(label, 0) + 1
    return {
        "name": printable(manifest["song"]),
        "page": url(folder, "index.html"),
        "picture": url(folder, "original.png"),
        "sound": url(folder, f"original.{audio['format']}"),
        "rms": _finite(audio["original_rms"]),
        "seconds": seconds,
        "labels": sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])),
    }


def _features(
    place: Path, manifest: Mapping[str, Any], rows: list[dict[str, str]]
) -> dict[tuple[str, int], dict[str, Any]]:
    """What the page shows of every feature of a song, by layer and number."""
    folders = {layer["name"]: layer["folder"] for layer in manifest["layers"]}
    audio, folder = manifest["audio"], place.name
    features = {}
    for row in rows:
        layer, k = row["layer"], int(row["feature"])
        inner = folders[layer]
        try:
            layer_place(place, inner)
        except ValueError:
            continue
        features[layer, k] = {
            "label": row["label"],
            "silent": row["level"] == "",
            "picture": url(folder, inner, f"feature_{k}.png"),
            "sound": url(folder, inner, f"feature_{k}.{audio['format']}"),
            "rms": _finite(feature_rms(
                float(row["energy"]), float(row["gain"]), audio["samples"]
            )),
            "numbers": [
                None if row[number.key] == "" else _finite(float(row[number.key]))
                for number in _SHOWN
            ],
        }
    return features


def _side_by_side(results: list[_Result]) -> list[dict[str, Any]]:
    """Every feature that any song has, with its entry in each song; None where there is none."""
    found = dict.fromkeys(key for result in results for key in result.features)
    return [
        {"layer": layer, "k": k, "songs": [result.features.get((layer, k)) for result in results]}
        for layer, k in found
    ]


def _finite(value: float) -> Any:
    if not math.isfinite(value):
        raise ValueError(f"found the number {value}")
    return rounded(value)
