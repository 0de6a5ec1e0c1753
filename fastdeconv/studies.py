"""Studies as users get them: what the analysis found, with methods to draw and to save it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from .analysis import attributes, evolution
from .analysis.findings import findings
from .belief import decision as belief
from .belief import protocols
from .belief import top_clips as tops
from .report.decision import notebook_of, write_decision
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


class _Saveable:
    """A study that is saved as a folder of tables, arrays and figures."""

    _folder: ClassVar[str]
    """The name that the folder gets by default."""

    def _write(self, out: str | os.PathLike[str], name: str, *, overwrite: bool) -> Path:
        raise NotImplementedError

    def save(
        self, out: str | os.PathLike[str], name: str | None = None, *, overwrite: bool = False
    ) -> Path:
        """Write everything to the folder ``out / name``, which appears whole or not at all.

        What it holds, beside ``manifest.json``:

        ``AttributeStudy``
            ``findings.txt``, ``layers.csv``, ``features.csv``, ``stimuli.csv``, ``study.npz``, and
            a figure for each attribute.
        ``Evolution``
            ``evolution.csv``, ``evolution.npz``, and the grid of pictures.
        ``Invariance``
            ``invariance.csv``, and the figure of `plot`.
        ``Correspondence``
            ``correspondence.csv``, ``correspondence.npz`` (the boxes, and what each random draw
            gave), and the figure of `plot`.

        Figures are PNG and SVG files. Without matplotlib there are none.

        Parameters
        ----------
        out : path
            Made if it does not exist.
        name : str, optional
            Default: "attributes", "evolution", "invariance" or "correspondence", by the kind of
            study. Made safe as a file name.
        overwrite : bool
            Replace an earlier result of this kind and name. Anything else is never replaced.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        ParameterError
            If the folder cannot be written, or is there already.
        OSError
            If writing fails later on, for instance on a full disk.
        """
        return self._write(out, self._folder if name is None else name, overwrite=overwrite)


@dataclass(frozen=True, repr=False)
class AttributeStudy(_Saveable, attributes.AttributeStudy):
    __doc__ = attributes.AttributeStudy.__doc__

    _folder = "attributes"

    def findings(self) -> str:
        """What the numbers say, in words, with the controls first.

        Returns
        -------
        str
            Several lines.
        """
        return findings(self)

    def _write(self, out: str | os.PathLike[str], name: str, *, overwrite: bool) -> Path:
        return write_study(self, self.findings(), out, name, overwrite=overwrite)


@dataclass(frozen=True, eq=False, repr=False)
class Evolution(_Saveable, evolution.Evolution):
    __doc__ = evolution.Evolution.__doc__

    _folder = "evolution"

    def _write(self, out: str | os.PathLike[str], name: str, *, overwrite: bool) -> Path:
        return write_evolution(self, out, name, overwrite=overwrite)


class Invariance(_Saveable, protocols.Invariance):
    __doc__ = protocols.Invariance.__doc__

    _folder = "invariance"

    def plot(self) -> Figure:
        """For every change a curve of each layer, the control's dashed, by matplotlib.

        Below them stands the probability of the class that the network gives the unchanged clip.

        Returns
        -------
        matplotlib.figure.Figure
            pyplot does not know it, so it need not be closed.

        Raises
        ------
        ParameterError
            If matplotlib is not installed.
        """
        return plotted("draw_invariance", self)

    def _write(self, out: str | os.PathLike[str], name: str, *, overwrite: bool) -> Path:
        return write_invariance(self, out, name, overwrite=overwrite)


class Correspondence(_Saveable, protocols.Correspondence):
    __doc__ = protocols.Correspondence.__doc__

    _folder = "correspondence"

    def plot(self) -> Figure:
        """The clips with the part and the random boxes, and the result for each layer.

        Returns
        -------
        matplotlib.figure.Figure
            pyplot does not know it, so it need not be closed.

        Raises
        ------
        ParameterError
            If matplotlib is not installed.
        """
        return plotted("draw_correspondence", self)

    def _write(self, out: str | os.PathLike[str], name: str, *, overwrite: bool) -> Path:
        return write_correspondence(self, out, name, overwrite=overwrite)


class Decision(belief.Decision):
    __doc__ = belief.Decision.__doc__

    def _repr_html_(self) -> str:
        return notebook_of(self)

    def save(
        self, out: str | os.PathLike[str], name: str | None = None, *, overwrite: bool = False,
        audio_format: str = "wav",
    ) -> Path:
        """Write a page, pictures, sounds and the table to the folder ``out / name``.

        Parameters
        ----------
        out : path
            Made if it does not exist.
        name : str, optional
            Default: the file's name without its suffix, then "why": "song why". Made safe as a
            file name.
        overwrite : bool
            Replace an earlier decision of this name. Anything else is never replaced.
        audio_format : {"wav", "flac", "ogg"}
            Format of all sounds.

        Returns
        -------
        Path
            The folder, which appears whole or not at all.

        Raises
        ------
        ParameterError
            If the folder cannot be written or is there already, or `audio_format` is none of the
            above.
        AudioError
            If the format does not allow the clip's sample rate.
        OSError
            If writing fails later on, for instance on a full disk.
        """
        return write_decision(self, out, name, overwrite=overwrite, audio_format=audio_format)


@dataclass(frozen=True, eq=False, repr=False)
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
            pyplot does not know it, so it need not be closed.

        Raises
        ------
        ParameterError
            If there is no such layer or feature, or matplotlib is not installed.
        """
        return plotted("draw_top_clips", self.excerpts(layer, feature), f"{layer}/{feature}")

    def save(
        self, out: str | os.PathLike[str], name: str = "top-clips", *,
        layers: str | Iterable[str] | None = None, features: int | Sequence[int] | None = None,
        mode: str = "mask", overwrite: bool = False, audio_format: str = "ogg",
    ) -> Path:
        """Write a page with pictures and sounds, and the table, to the folder ``out / name``.

        Parameters
        ----------
        out : path
            Made if it does not exist.
        name : str
            Made safe as a file name.
        layers : str or iterable of str, optional
            Default: all that have top clips.
        features : int or sequence of int, optional
            Of each of the layers. Default: all that have top clips.
        mode : {"mask", "phase", "wiener"}
            How a projection becomes a sound, as in `explain`.
        overwrite : bool
            Replace earlier top clips of this name. Anything else is never replaced.
        audio_format : {"ogg", "wav", "flac"}
            Format of all sounds.

        Returns
        -------
        Path
            The folder, which appears whole or not at all.

        Raises
        ------
        ParameterError
            If the folder cannot be written or is there already, a layer or feature has no top
            clips, or `mode` or `audio_format` is none of the above.
        AudioError
            If the format does not allow the clips' sample rate.
        OSError
            If writing fails later on, for instance on a full disk.
        """
        return write_top_clips(
            self, out, name, layers, features, mode, overwrite=overwrite, audio_format=audio_format
        )


def _holding(compute: Callable[_P, _Found], held: Callable[..., _Held]) -> Callable[_P, _Held]:
    """`compute`, with its result as an instance of `held`, which can be saved."""

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
