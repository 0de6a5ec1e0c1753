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
from numpy.typing import NDArray

from ..audio.librosa_quietly import librosa_module
from ..errors import printable
from .picture import RANGE_DB

if TYPE_CHECKING:
    from ..analysis.attributes import AttributeStudy, Estimate
    from ..analysis.evolution import Evolution
    from ..audio.stft import Stft

__all__ = ["draw_attribute", "draw_evolution", "draw_spectrograms", "save_figure"]

# Okabe and Ito's colours, which colour-blind people can tell apart.
_SUBJECTS = {
    "network": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "control": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "input": {"color": "#000000", "marker": "", "linestyle": ":"},
}
_VIEWS = {"map": "deconvolved maps", "activation": "activation maps"}


# Any, because not every place that checks the types has matplotlib.
_Figure: Any = Figure


class Plot(_Figure):  # type: ignore[misc]
    """A figure that a notebook shows even if nobody imported pyplot, which would see to it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as ``path.png`` and ``path.svg``."""
    # No dates and no random ids.
    with mpl.rc_context({"svg.hashsalt": "fastdeconv"}):
        figure.savefig(f"{path}.png", dpi=150, metadata={"Software": None})
        figure.savefig(f"{path}.svg", metadata={"Date": None})


def draw_attribute(study: AttributeStudy, attribute: str) -> Figure:
    """Mean correlation over layers of network, control and input, with intervals if there are."""
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
    """Grid of patches, features down, checkpoints to the right; each on its own scale.

    Blue is negative, red positive, low frequencies are at the bottom, time runs to the right.
    Of several input channels the sum is shown.
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
    # A change of clip is why a picture jumps.
    figure.supxlabel(
        "under each: the clip in which the feature is strongest\neach on its own scale, "
        "blue negative, red positive", fontsize=8,
    )
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
    """Spectrograms (F, T) side by side as librosa draws them, in dB below `reference`.

    One axes each, `columns` in a row, and one colour bar. With none the figure says so.
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
    """Text from outside as it is: a dollar sign would begin mathematics."""
    return printable(text).replace("$", r"\$")
