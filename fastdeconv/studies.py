"""Studies as users hold them: what the analysis found, which can be put in words and saved."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .analysis import attributes, evolution
from .analysis.findings import findings
from .belief import decision as belief
from .belief import protocols
from .belief import top_clips as tops
from .report.decision import write_decision
from .report.protocols import (
    plotted,
    write_correspondence,
    write_invariance,
    write_top_clips,
)
from .report.study import write_evolution, write_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "AttributeStudy", "Correspondence", "Decision", "Evolution", "Invariance", "TopClips",
    "attribute_study", "correspondence", "decision", "feature_evolution", "invariance", "top_clips",
]

_P = ParamSpec("_P")
_Found = TypeVar("_Found")
_Held = TypeVar("_Held")


@dataclass(frozen=True)
class AttributeStudy(attributes.AttributeStudy):
    __doc__ = attributes.AttributeStudy.__doc__

    def findings(self) -> str:
        """What the numbers say, in words, controls first.

        Returns
        -------
        str
            Several lines.
        """
        return findings(self)

    def save(
        self, out: str | os.PathLike[str], name: str = "attributes", *, overwrite: bool = False
    ) -> Path:
        """Write tables, arrays, findings and (with matplotlib) figures to ``out / name``.

        Parameters
        ----------
        out : path
            Made if need be.
        name : str
            Of the folder in it.
        overwrite : bool
            Replace an earlier result of this name; anything else is never replaced.

        Returns
        -------
        Path
            The folder, which appears whole or not at all.

        Raises
        ------
        ParameterError
            If it cannot be written or is there already.
        """
        return write_study(self, self.findings(), out, name, overwrite=overwrite)


@dataclass(frozen=True, eq=False)
class Evolution(evolution.Evolution):
    __doc__ = evolution.Evolution.__doc__

    def save(
        self, out: str | os.PathLike[str], name: str = "evolution", *, overwrite: bool = False
    ) -> Path:
        """Write arrays, a table and (with matplotlib) the grid of pictures to ``out / name``.

        Parameters
        ----------
        out : path
            Made if need be.
        name : str
            Of the folder in it.
        overwrite : bool
            Replace an earlier result of this name; anything else is never replaced.

        Returns
        -------
        Path
            The folder, which appears whole or not at all.

        Raises
        ------
        ParameterError
            If it cannot be written or is there already.
        """
        return write_evolution(self, out, name, overwrite=overwrite)


class Decision(belief.Decision):
    __doc__ = belief.Decision.__doc__

    def save(
        self, out: str | os.PathLike[str], name: str | None = None, *, overwrite: bool = False,
        audio_format: str = "wav",
    ) -> Path:
        """Write a page, pictures, sounds and the table to ``out / name``.

        Parameters
        ----------
        out : path
        name : str, optional
            Default: the file's name without its suffix, and "why".
        overwrite : bool
        audio_format : {"wav", "flac", "ogg"}

        Returns
        -------
        Path
            The folder, which appears whole or not at all.

        Raises
        ------
        ParameterError
            If it cannot be written or is there already.
        """
        return write_decision(self, out, name, overwrite=overwrite, audio_format=audio_format)


@dataclass(frozen=True, eq=False)
class TopClips(tops.TopClips):
    __doc__ = tops.TopClips.__doc__

    def plot(self, layer: str, feature: int) -> Figure:
        """What each of a feature's strongest units sees, above its projection, by matplotlib.

        Parameters
        ----------
        layer : str
        feature : int

        Returns
        -------
        matplotlib.figure.Figure
            pyplot does not know it: there is nothing to close.

        Raises
        ------
        ParameterError
            If there is no such layer or feature, or matplotlib is not installed.
        """
        return plotted("draw_top_clips", self.excerpts(layer, feature), f"{layer}/{feature}")

    def save(
        self, out: str | os.PathLike[str], name: str = "top-clips", *,
        layers: str | Iterable[str] | None = None, features: Sequence[int] | None = None,
        mode: str = "mask", overwrite: bool = False, audio_format: str = "ogg",
    ) -> Path:
        """Write a page to see and to hear, its pictures and sounds, and the table.

        Parameters
        ----------
        out : path
            The result goes to ``out / name``.
        name : str
        layers, features : optional
            Only these; default all that have top clips.
        mode : {"mask", "phase", "wiener"}
            How a projection becomes a sound, as in `explain`.
        overwrite : bool
        audio_format : {"ogg", "wav", "flac"}

        Returns
        -------
        Path
            The folder, which appears whole or not at all.

        Raises
        ------
        ParameterError
            If it cannot be written or is there already, or a layer or feature has no top clips.
        """
        return write_top_clips(
            self, out, name, layers, features, mode, overwrite=overwrite, audio_format=audio_format
        )


class Invariance(protocols.Invariance):
    __doc__ = protocols.Invariance.__doc__

    def plot(self) -> Figure:
        """For every change a curve of each layer, the control's dashed, by matplotlib.

        Below them the probability of the class that the network gives the unchanged clip.

        Returns
        -------
        matplotlib.figure.Figure
            pyplot does not know it: there is nothing to close.

        Raises
        ------
        ParameterError
            If matplotlib is not installed.
        """
        return plotted("draw_invariance", self)

    def save(
        self, out: str | os.PathLike[str], name: str = "invariance", *, overwrite: bool = False
    ) -> Path:
        """Write the table and (with matplotlib) the figure to ``out / name``.

        Parameters
        ----------
        out : path
            Made if need be.
        name : str
            Of the folder in it.
        overwrite : bool
            Replace an earlier result of this name; anything else is never replaced.

        Returns
        -------
        Path
            The folder, which appears whole or not at all.

        Raises
        ------
        ParameterError
            If it cannot be written or is there already.
        """
        return write_invariance(self, out, name, overwrite=overwrite)


class Correspondence(protocols.Correspondence):
    __doc__ = protocols.Correspondence.__doc__

    def plot(self) -> Figure:
        """The clips with the part and the random boxes, and both in every layer, by matplotlib.

        Returns
        -------
        matplotlib.figure.Figure
            pyplot does not know it: there is nothing to close.

        Raises
        ------
        ParameterError
            If matplotlib is not installed.
        """
        return plotted("draw_correspondence", self)

    def save(
        self, out: str | os.PathLike[str], name: str = "correspondence", *,
        overwrite: bool = False,
    ) -> Path:
        """Write the table, the boxes and draws and (with matplotlib) the figure to ``out / name``.

        Parameters
        ----------
        out : path
            Made if need be.
        name : str
            Of the folder in it.
        overwrite : bool
            Replace an earlier result of this name; anything else is never replaced.

        Returns
        -------
        Path
            The folder, which appears whole or not at all.

        Raises
        ------
        ParameterError
            If it cannot be written or is there already.
        """
        return write_correspondence(self, out, name, overwrite=overwrite)


def _holding(compute: Callable[_P, _Found], held: Callable[..., _Held]) -> Callable[_P, _Held]:
    """`compute`, whose result can be saved."""

    @functools.wraps(compute)
    def study(*args: _P.args, **kwargs: _P.kwargs) -> _Held:
        return held(**vars(compute(*args, **kwargs)))

    return study


attribute_study = _holding(attributes.attribute_study, AttributeStudy)
feature_evolution = _holding(evolution.feature_evolution, Evolution)
top_clips = _holding(tops.top_clips, TopClips)


@functools.wraps(protocols.invariance)
def invariance(*args: Any, **kwargs: Any) -> Invariance:
    found = protocols.invariance(*args, **kwargs)
    return Invariance(found, **vars(found))


@functools.wraps(protocols.correspondence)
def correspondence(*args: Any, **kwargs: Any) -> Correspondence:
    found = protocols.correspondence(*args, **kwargs)
    return Correspondence(found, **vars(found))


@functools.wraps(belief.decision)
def decision(*args: Any, **kwargs: Any) -> Decision:
    return Decision(*args, **kwargs)
