"""The folders of top clips, of an invariance and of a correspondence: tables, figures, sounds.

Figures need matplotlib, an optional extra; without it everything else is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ParameterError, printable, shown
from ..network.choosing import as_list
from ..optional import optional_module
from ..textfiles import write_text
from .citations import DECONVNET
from .folder import (
    CORRESPONDENCE,
    INVARIANCE,
    TOP_CLIPS,
    manifest_head,
    new_folder,
    result_place,
    write_manifest,
)
from .names import safe_name, unique_names
from .picture import shades, signed_levels, write_png
from .sounds import check_format, peak_gain, write_sound
from .study import has_figures
from .tables import write_rows
from .web import render, url

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..belief.protocols import Correspondence, Invariance
    from ..belief.top_clips import Excerpt, TopClips

__all__ = ["plotted", "write_correspondence", "write_invariance", "write_top_clips"]


def plotted(name: str, *args: Any) -> Figure:
    """The figure that the function `name` of `figures` draws.

    Raises
    ------
    ParameterError
        If matplotlib is not installed.
    """
    optional_module("matplotlib", "plot", "figures")
    from . import figures

    draw: Callable[..., Figure] = getattr(figures, name)
    return draw(*args)


# ---- top clips ----


def write_top_clips(
    top: TopClips, out: str | os.PathLike[str], name: str, layers: Any, features: Any, mode: str,
    *, overwrite: bool, audio_format: str,
) -> Path:
    """Write a page with the top clips of features; see `fastdeconv.TopClips.save`."""
    check_format(audio_format)
    rows = _chosen(top, layers, features)
    place, folder_name = result_place(out, name, "top clips")
    names = list(dict.fromkeys(row["layer"] for row in rows))
    folders = dict(zip(names, unique_names([safe_name(layer, "layer") for layer in names])))
    with new_folder(place, folder_name, TOP_CLIPS, overwrite=overwrite) as folder:
        for layer in folders.values():
            (folder / layer).mkdir()
        cards: dict[tuple[str, int], dict[int, dict[str, Any]]] = {}
        for one in top.all_excerpts(rows, mode):
            key = one.row["layer"], one.row["feature"]
            stem = f"{key[1]}_{one.row['rank']}"
            files = _write_excerpt(folder / folders[key[0]], stem, one, top, audio_format)
            cards.setdefault(key, {})[one.row["rank"]] = {
                **{what: url(folders[key[0]], file) for what, file in files.items()},
                "rank": one.row["rank"], "clip": one.row["clip"],
                "value": f"{one.row['value']:.3g}", "where": ", ".join(one.place.texts()),
            }
        write_rows(folder / "top_clips.csv", rows)
        asked = sorted(cards, key=lambda key: (names.index(key[0]), key[1]))
        write_text(folder / "index.html", render("top_clips.html", [], {
            "network": printable(top.network.name or "without a name"),
            "clips": len(top.clips), "mode": mode,
            "features": [
                {
                    "name": f"{printable(layer)}/{k}",
                    "cards": [cards[layer, k][rank] for rank in sorted(cards[layer, k])],
                }
                for layer, k in asked
            ],
        }))
        write_manifest(folder, _manifest(TOP_CLIPS, top.network.name, {
            "layers": names, "clips": len(top.clips), "mode": mode, "audio_format": audio_format,
        }))
    return place / folder_name


def _chosen(top: TopClips, layers: Any, features: Any) -> list[dict[str, Any]]:
    rows = top.table
    for column, asked in (("layer", layers), ("feature", features)):
        if asked is None:
            continue
        wanted = [asked] if isinstance(asked, (str, Integral)) else as_list(f"{column}s", asked)
        known = {row[column] for row in top.table}
        for value in wanted:
            if value not in known:
                raise ParameterError(f"{column} {shown(value)} has no top clips")
        rows = [row for row in rows if row[column] in wanted]
    if not top.table:
        raise ParameterError("no feature fires in any of the clips: there is nothing to write")
    if not rows:
        raise ParameterError("these features of these layers have no top clips")
    return rows


def _write_excerpt(
    folder: Path, stem: str, one: Excerpt, top: TopClips, audio_format: str
) -> dict[str, str]:
    files = {
        "input": f"{stem}_input.png", "projection": f"{stem}_projection.png",
        "heard": f"{stem}_heard.{audio_format}", "original": f"{stem}_original.{audio_format}",
    }
    sr = top.clips[one.row["clip"]].sr
    write_png(folder / files["input"], shades(one.input))
    write_png(folder / files["projection"], signed_levels(one.projection), signed=True)
    for what, sound in (("heard", one.heard), ("original", one.original)):
        peak = float(np.abs(sound).max(initial=0.0))
        write_sound(folder / files[what], sound, sr, peak_gain(peak))
    return files


# ---- invariance and correspondence ----


def write_invariance(
    found: Invariance, out: str | os.PathLike[str], name: str, *, overwrite: bool
) -> Path:
    """Write a table and a figure; see `fastdeconv.Invariance.save`."""
    return _write_table(
        found, out, name, INVARIANCE, "invariance", "draw_invariance",
        {"network": found.network, "control": found.control}, {}, overwrite=overwrite,
    )


def write_correspondence(
    found: Correspondence, out: str | os.PathLike[str], name: str, *, overwrite: bool
) -> Path:
    """Write a table, arrays and a figure; see `fastdeconv.Correspondence.save`."""
    arrays: dict[str, Any] = {
        "boxes": np.array(found.boxes),
        "random_boxes": np.array(found.random_boxes).reshape(-1, len(found.clips), 2, 2),
        "layers": np.array(list(found.draws)),
        "random_moved": np.stack([*found.draws.values()]),
    }
    return _write_table(
        found, out, name, CORRESPONDENCE, "correspondence", "draw_correspondence",
        {
            "network": found.network, "clips": len(found.clips), "draws": len(found.random_boxes),
        }, arrays,
        overwrite=overwrite,
    )


def _write_table(
    rows: Sequence[dict[str, Any]], out: str | os.PathLike[str], name: str, kind: str, stem: str,
    draw: str, facts: dict[str, Any], arrays: dict[str, Any], *, overwrite: bool,
) -> Path:
    if not rows:
        raise ParameterError("there are no rows to write")
    place, folder_name = result_place(out, name, stem)
    with new_folder(place, folder_name, kind, overwrite=overwrite) as folder:
        write_rows(folder / f"{stem}.csv", rows)
        if arrays:
            np.savez_compressed(folder / f"{stem}.npz", **arrays)
        if has_figures():
            from .figures import save_figure

            save_figure(plotted(draw, rows), folder / stem)
        layers = list(dict.fromkeys(row["layer"] for row in rows))
        write_manifest(folder, _manifest(kind, facts.pop("network", None), {
            "layers": layers, **facts,
        }))
    return place / folder_name


def _manifest(kind: str, network: str | None, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        **manifest_head(kind), "network": network, **facts, "citation": [DECONVNET],
    }
