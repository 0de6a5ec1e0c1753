"""Figures with axes, by matplotlib (an optional extra), without its global state.

The same numbers give the same files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ..audio.librosa_quietly import librosa_module
from ..belief.grid import Grid
from ..errors import printable
from .picture import RANGE_DB

if TYPE_CHECKING:
    from ..analysis.attributes import AttributeStudy, Estimate
    from ..analysis.evolution import Evolution
    from ..audio.stft import Stft
    from ..belief.protocols import Correspondence, Invariance
    from ..belief.top_clips import Excerpt

__all__ = [
    "draw_attribute", "draw_correspondence", "draw_evolution", "draw_invariance",
    "draw_spectrograms", "draw_top_clips", "save_figure",
]

# Okabe and Ito's colours, which colour-blind people can tell apart.
_SUBJECTS = {
    "network": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "control": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "input": {"color": "#000000", "marker": "", "linestyle": ":"},
}
_UNITS = {
    "gain": "gain in dB", "shift": "shift in s", "pitch": "pitch in semitones",
    "tempo": "times as fast",
}
#: How many clips of a correspondence are drawn at most.
_CLIPS = 8
_VIEWS = {"map": "deconvolved maps", "activation": "activation maps"}


# Typed as Any, because types are also checked where matplotlib is not installed.
_Figure: Any = Figure


class Plot(_Figure):  # type: ignore[misc]
    """A figure that a notebook shows even if pyplot, which would do that, was not imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as ``path.png`` and ``path.svg``."""
    # Without dates and random ids, so that the same figure gives the same bytes.
    with mpl.rc_context({"svg.hashsalt": "fastdeconv"}):
        figure.savefig(f"{path}.png", dpi=150, metadata={"Software": None})
        figure.savefig(f"{path}.svg", metadata={"Date": None})


def draw_attribute(study: AttributeStudy, attribute: str) -> Figure:
    """Mean correlation in each layer for network, control and input, with intervals if known."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes: Any = figure.subplots(1, 2, sharey=True)
    for ax, (view, title) in zip(axes, _VIEWS.items()):
        for subject in ("network", "control"):
            points = [study.mean(attribute, layer, subject, view) for layer in study.layers]
            _line(ax, points, subject)
        _line(ax, [study.mean(attribute, subject="input")] * len(study.layers), "input")
        ax.set_xticks(range(len(study.layers)), [_plain(layer) for layer in study.layers])
        ax.set_title(title)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("mean correlation of pairs")
    axes[0].legend(frameon=False)
    figure.suptitle(_plain(f"stimuli that differ in {attribute} alone"))
    return figure


def draw_evolution(evolution: Evolution) -> Figure:
    """A grid of patches: a row for each feature, a column for each checkpoint.

    Each patch has its own scale. Blue is negative and red is positive; low frequencies are at the
    bottom, and time runs to the right. Several input channels are shown as their sum.
    """
    rows, columns = evolution.value.shape
    figure = Figure(figsize=(1.1 * columns + 0.9, 1.1 * rows + 0.9), layout="constrained")
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for i, t in np.ndindex(rows, columns):
        _draw_patch(axes[i, t], evolution.patch(i, t).sum(axis=0), int(evolution.clip[i, t]))
    for ax, label in zip(axes[0], evolution.labels):
        ax.set_title(_plain(label), fontsize=9)
    for ax, k in zip(axes[:, 0], evolution.features):
        ax.set_ylabel(_plain(f"{evolution.layer}/{k}"), fontsize=9)
    # The clip is named because pictures look different when the strongest clip changes.
    figure.supxlabel(
        "under each: the clip in which the feature is strongest\neach on its own scale, "
        "blue negative, red positive", fontsize=8,
    )
    return figure


def draw_top_clips(excerpts: Sequence[Excerpt], title: str) -> Figure:
    """For each top clip of a feature what the strongest unit sees, above its projection.

    Each picture has its own scale; low frequencies are at the bottom, and time runs to the right.
    """
    columns = max(1, len(excerpts))
    figure = Plot(figsize=(1.5 * columns + 0.9, 3.6), layout="constrained")
    figure.suptitle(_plain(title))
    if not excerpts:
        figure.text(0.5, 0.5, "it fires in none of the clips", ha="center", va="center")
        return figure
    axes: Any = figure.subplots(2, columns, squeeze=False)
    for (above, below), one in zip(axes.T, excerpts):
        _draw_input(above, one.input)
        _draw_patch(below, one.projection, one.row["clip"])
        above.set_title(f"{one.row['value']:.3g}", fontsize=8)
        lines = [f"clip {one.row['clip']}", *one.place.texts()]
        below.set_xlabel("\n".join(lines), fontsize=7, labelpad=1)
    axes[0, 0].set_ylabel("input", fontsize=9)
    axes[1, 0].set_ylabel("projection", fontsize=9)
    figure.supxlabel(
        "above each: the activation. Each picture has its own scale; in projections blue is "
        "negative and red is positive", fontsize=8,
    )
    return figure


def draw_invariance(found: Invariance) -> Figure:
    """For every change how far each layer moves, above the class's probability.

    Each layer has one colour, the lowest layer the darkest. Dashed lines are the control's.
    """
    changes = list(dict.fromkeys(row["change"] for row in found))
    layers = list(dict.fromkeys(row["layer"] for row in found))
    figure = Plot(figsize=(2.9 * max(1, len(changes)) + 1.6, 5), layout="constrained")
    if not changes:
        figure.text(0.5, 0.5, "nothing was changed", ha="center", va="center")
        return figure
    axes: Any = figure.subplots(
        2, len(changes), sharey="row", squeeze=False, height_ratios=[2, 1]
    )
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(layers)))
    for (above, below), change in zip(axes.T, changes):
        for layer, colour in zip(layers, colours):
            rows = sorted(
                (row for row in found if (row["change"], row["layer"]) == (change, layer)),
                key=lambda row: row["amount"],
            )
            amounts = [row["amount"] for row in rows]
            above.plot(amounts, [row["distance"] for row in rows], color=colour, marker="o",
                       markersize=4, label=_plain(layer))
            above.plot(amounts, [row["control_distance"] for row in rows], color=colour,
                       linestyle="--", marker="s", markersize=3, markerfacecolor="none")
        below.plot(amounts, [row["probability"] for row in rows], color="#000000", marker="o",
                   markersize=4)
        notes = {row["note"] for row in found if row["change"] == change and row["note"]}
        above.set_title("\n".join(map(_plain, [change, *sorted(notes)])), fontsize=9)
        below.set_xlabel(_UNITS[change])
        below.set_ylim(0, 1)
        for ax in (above, below):
            ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("distance / length")
    axes[1, 0].set_ylabel(_plain(f"p({found[0]['class']})"))
    axes[0, -1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    if found.control is not None:
        figure.supxlabel(_plain(f"dashed: {found.control}"), fontsize=8)
    return figure


def draw_correspondence(found: Correspondence) -> Figure:
    """The clips with the part and the random boxes, above how many changes differ in sign."""
    clips = list(zip(found.clips, found.boxes))[:_CLIPS]
    figure = Plot(figsize=(1.9 * max(len(clips), 3), 5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.3])
    axes: Any = above.subplots(1, len(clips), squeeze=False)
    for i, (ax, (clip, box)) in enumerate(zip(axes[0], clips)):
        _draw_input(ax, Grid.of(clip).x.sum(axis=0))
        for boxes in found.random_boxes:
            _outline(ax, boxes[i], color="#ffffff", linewidth=0.6, alpha=0.6)
        _outline(ax, box, color="#56B4E9", linewidth=2)
        ax.set_title(f"clip {i}", fontsize=8)
    if len(found.clips) > len(clips):
        above.supxlabel(f"and {len(found.clips) - len(clips)} clips more", fontsize=8)
    ax = below.subplots()
    places = range(len(found))
    for draw in range(len(found.random_boxes)):
        ax.plot(places, [found.draws[row["layer"]][draw] for row in found], ".", color="#999999",
                label="random boxes" if draw == 0 else None)
    ax.plot(places, [row["random_moved"] for row in found], label="their mean",
            **_SUBJECTS["control"])
    ax.plot(places, [row["moved"] for row in found], label="the part", **_SUBJECTS["network"])
    ax.set_xticks(places, [_plain(row["layer"]) for row in found])
    ax.set_ylabel("changes that differ in sign")
    ax.set_ylim(bottom=0)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=8)
    return figure


def draw_spectrograms(
    magnitudes: Sequence[NDArray[np.float32]],
    titles: Sequence[str],
    reference: float,
    sr: float,
    transform: Stft,
    *,
    columns: int = 4,
) -> Figure:
    """Spectrograms (F, T) side by side, as librosa draws them, in dB below `reference`.

    Each has an axes, `columns` of them in a row, and all share one colour bar. If there are no
    spectrograms, the figure says that nothing is heard.
    """
    amplitude_to_db = librosa_module("librosa.core.spectrum", "plot").amplitude_to_db
    specshow = librosa_module("librosa.display", "plot").specshow
    columns = max(1, min(columns, len(magnitudes)))
    rows = max(1, -(-len(magnitudes) // columns))
    figure = Plot(figsize=(2.6 * columns + 1.4, 2.2 * rows + 0.4), layout="constrained")
    if not magnitudes:
        figure.text(0.5, 0.5, "nothing is heard", ha="center", va="center")
        return figure
    image, drawn = None, []
    for i, (magnitude, title) in enumerate(zip(magnitudes, titles, strict=True)):
        ax = figure.add_subplot(rows, columns, i + 1)
        share = magnitude / np.float32(reference or 1.0)
        image = specshow(
            amplitude_to_db(share, amin=10 ** (-RANGE_DB / 20), top_db=None),
            sr=sr, n_fft=transform.n_fft, hop_length=transform.hop_length, x_axis="time",
            y_axis="log", ax=ax, cmap="magma", vmin=-RANGE_DB, vmax=0,
        )
        ax.set_title(_plain(title), fontsize=9)
        ax.tick_params(labelsize=8)
        if i % columns:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
        if i + columns < len(magnitudes):
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
        drawn.append(ax)
    bar = figure.colorbar(image, ax=drawn, format="%+2.0f dB", pad=0.01, aspect=15 * rows)
    bar.ax.tick_params(labelsize=8)
    return figure


def _draw_input(ax: Any, plane: Any) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.imshow(plane, origin="lower", aspect="auto", cmap="magma", interpolation="nearest")


def _outline(ax: Any, box: Any, **how: Any) -> None:
    """Draw a rectangle around bins and frames; both ranges are half-open."""
    (low, high), (first, last) = box
    ax.add_patch(Rectangle(
        (first - 0.5, low - 0.5), last - first, high - low, fill=False, **how
    ))


def _draw_patch(ax: Any, patch: Any, clip: int) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    if clip < 0:
        ax.text(0.5, 0.5, "silent", ha="center", va="center", transform=ax.transAxes, fontsize=8)
        return
    limit = float(np.abs(patch).max()) or 1.0
    ax.imshow(patch, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set_xlabel(str(clip), fontsize=7, labelpad=1)


def _line(ax: Any, points: list[Estimate], subject: str) -> None:
    places = range(len(points))
    style = _SUBJECTS[subject]
    ax.plot(places, [p.value for p in points], label=subject, **style)
    lows, highs = [p.low for p in points], [p.high for p in points]
    ax.fill_between(places, lows, highs, color=style["color"], alpha=0.2, linewidth=0)


def _plain(text: str) -> str:
    """Text from outside, shown as it is: without the escape a dollar sign would begin a formula."""
    return printable(text).replace("$", r"\$")
