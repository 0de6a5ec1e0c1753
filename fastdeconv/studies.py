"""Studies as users hold them: what the analysis found, which can be put in words and saved."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from .analysis import attributes, evolution
from .analysis.findings import findings
from .belief import decision as belief
from .report.decision import write_decision
from .report.study import write_evolution, write_study

__all__ = [
    "AttributeStudy", "Decision", "Evolution", "attribute_study", "decision", "feature_evolution",
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


def _holding(compute: Callable[_P, _Found], held: Callable[..., _Held]) -> Callable[_P, _Held]:
    """`compute`, whose result can be saved."""

    @functools.wraps(compute)
    def study(*args: _P.args, **kwargs: _P.kwargs) -> _Held:
        return held(**vars(compute(*args, **kwargs)))

    return study


attribute_study = _holding(attributes.attribute_study, AttributeStudy)
feature_evolution = _holding(evolution.feature_evolution, Evolution)


@functools.wraps(belief.decision)
def decision(*args: Any, **kwargs: Any) -> Decision:
    return Decision(*args, **kwargs)
