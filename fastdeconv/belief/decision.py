"""Explaining the decision of a network, and measuring how far to believe the explanation."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio._checks import as_bool, as_int
from ..audio.auralise import auralise
from ..audio.clip import file_name, open_clip
from ..deconvnet.scores import log_odds, output_kind, scores_of
from ..errors import ParameterError, enough_memory, shown
from ..network.choosing import as_list, open_network
from ..network.network import Network
from .grid import Grid, as_fill
from .metrics import Trial, Tried, own_mask
from .rules import METHODS, STEPS, Rules, blurred
from .targets import Target, chosen_classes, class_names, decision_kind

__all__ = ["BASELINES", "Decision", "Score", "decision"]

Array = NDArray[Any]
Numbers = NDArray[np.float64]

#: Maps that every method is compared with: noise, the input itself, the input's mean over time.
BASELINES = ("random", "input", "band_mean")
_MOST_CLASSES = 3
"""Classes that are explained by default."""
_INCOMPLETE = 0.1
"""Largest error of the sum of integrated gradients, as a share of what it should be."""
_LEAST = 0.01
"""A map speaks for a class only if removing its largest fifth costs more than this share of p."""
_PARTS = ("for", "against", "left")


class Score(NamedTuple):
    """What the network says of a class.

    Attributes
    ----------
    score : float
        The output before a closing softmax or sigmoid. If the output has several places, the mean
        over them.
    probability, log_odds : float
        The probability p of the class and log(p / (1 - p)), means over places too.
    """

    score: float
    probability: float
    log_odds: float


def decision(
    source: Any,
    net: Network | str | os.PathLike[str],
    classes: str | Iterable[str] | None = None,
    methods: str | Iterable[str] | None = None,
    versus: str | None = None,
    *,
    offset: float = 0.0,
    steps: int = STEPS,
    blur: bool = True,
) -> Decision:
    """Explain what a network says of a clip, class by class.

    Every map is positive where the input speaks for the class. Do not believe any of them without
    the numbers in `Decision.table`, which puts them beside those of noise, of the input itself, and
    of the same method for another class.

    Parameters
    ----------
    source : path, file object, (samples, sr) or Clip
    net : Network, str or path
    classes : iterable of str, optional
        Names, or numbers as text ("0"). Default: the likeliest classes, at most three, whose
        probability is above chance; the likeliest class if there is none.
    methods : iterable of str, optional
        Some of ``"integrated_gradients"`` (the default), ``"cam"``, ``"occlusion"``,
        ``"gradient_x_deviation"``, ``"gradient"``, ``"guided"`` and ``"deconvnet"``; or "all".
    versus : str, optional
        Another class: explain by how much the score of each class exceeds the score of this one.
    offset : float
        Seconds to skip at the beginning of the file.
    steps : int
        Number of steps of integrated gradients, 1 to 10,000.
    blur : bool
        Whether maps are smoothed (by a Gaussian of 8 bins and 8 frames) before they are heard and
        measured. Class activation maps and occlusion are smooth anyway. `Decision.maps` are never
        smoothed.

    Returns
    -------
    Decision

    Raises
    ------
    ParameterError
        If a class or method does not exist, `versus` is one of the classes, or the network cannot
        take the clip.
    AudioError
        If `source` cannot be used as sound.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> clip = np.sin(np.arange(44100)), 11025
    >>> why = fd.decision(clip, "choi5-genre", ["orchestral"], methods=["cam"])
    >>> why.maps["orchestral", "cam"].shape, why.sound("orchestral", "cam").shape
    ((257, 173), (44100,))
    """
    return Decision(source, net, classes, methods, versus, offset=offset, steps=steps, blur=blur)


class Decision:
    """The explanation of a decision. Made by `decision`, which describes the parameters.

    Attributes
    ----------
    clip : Clip
    source : str or None
        The name of the file, if there is one.
    network : Network
    classes, methods : list of str
        The classes that were explained, and the methods used.
    versus : str or None
    scores : dict of str to Score
        The scores of all classes.
    maps : dict of (str, str) to array of float64, shape (F, T)
        For each class and method a map that is positive where the input speaks for the class. It is
        not smoothed. The maps of "integrated_gradients" add up to a difference of log odds; a value
        of "occlusion" is by how much the log odds fall without the patch.
    notes : list of str
        Warnings about this decision, for the reader.
    """

    def __init__(
        self, source: Any, net: Network | str | os.PathLike[str],
        classes: str | Iterable[str] | None = None, methods: str | Iterable[str] | None = None,
        versus: str | None = None, *, offset: float = 0.0, steps: int = STEPS, blur: bool = True,
    ) -> None:
        self.network = open_network(net)
        self.methods = _chosen_methods(methods)
        self.blur = as_bool("blur", blur)
        self.steps = as_int("steps", steps, minimum=1, maximum=10_000)
        self.clip = open_clip(source, self.network.frontend, offset)
        self.source = file_name(source)
        self.network.shapes(self.clip.x.shape)
        with enough_memory("this decision: take a shorter clip"):
            self._explain(classes, versus)

    def _explain(self, classes: str | Iterable[str] | None, versus: str | None) -> None:
        clip, network, methods = self.clip, self.network, self.methods
        self._trace = trace = network.forward(clip.x)
        self._kind = decision_kind(network)
        self._scores = scores_of(trace)
        self._names = class_names(trace)
        self.scores = self._all_scores()
        self.versus, other = self._versus(versus)
        self.classes = self._likeliest() if classes is None else [*chosen_classes(trace, classes)]
        if not self.classes and classes is None:
            raise ParameterError(f"the network has no other class than versus, {shown(versus)}")
        if not self.classes:
            raise ParameterError("classes must name at least one class, found none")
        if self.versus in self.classes:
            raise ParameterError(
                f"versus is the class {shown(self.versus)} itself: name another one"
            )
        self._targets = {
            name: Target(name, number, self._kind, other)
            for name, number in chosen_classes(trace, self.classes).items()
        }
        # For each class another one whose map it is compared with: a map of this class should not
        # explain the other.
        self._rivals = {name: self._rival(name) for name in self.classes}
        # Their maps come with the others: one pass through the network serves all classes.
        rivals = {
            rival.name: rival for rival in self._rivals.values()
            if rival is not None and rival.name not in self._targets
        }
        every = self._targets | rivals
        self._rules = Rules(trace, Grid.of(clip), [*every.values()], self.steps)
        self._rows_of_maps = {name: row for row, name in enumerate(every)}
        self.maps = {
            (name, method): plane
            for method in methods
            for name, plane in zip(self._targets, self._rules.maps(method))
        }
        self.notes = self._notes()

    def __repr__(self) -> str:
        asked = ", ".join(self.classes)
        beside = "" if self.versus is None else f" versus {self.versus}"
        return f"<Decision: {asked}{beside}; {', '.join(self.methods)}>"

    # ---- what was asked for ----

    def _all_scores(self) -> dict[str, Score]:
        odds = log_odds(self._kind, self._scores).mean(axis=(1, 2))
        return {
            name: Score(
                float(self._scores[i].mean()),
                Target(name, i, self._kind).probability(self._scores),
                float(odds[i]),
            )
            for i, name in enumerate(self._names)
        }

    @property
    def _chance(self) -> float:
        is_choice = self._kind == "softmax" and len(self._names) > 1
        return 1 / len(self._names) if is_choice else 0.5

    def _likeliest(self) -> list[str]:
        order = sorted(self._names, key=lambda name: -self.scores[name].probability)
        order = [name for name in order if name != self.versus]
        above = [name for name in order if self.scores[name].probability > self._chance]
        return above[:_MOST_CLASSES] or order[:1]

    def _versus(self, versus: str | None) -> tuple[str | None, int | None]:
        if versus is None:
            return None, None
        if not isinstance(versus, str):
            raise ParameterError(f"versus must be the name of a class, found {shown(versus)}")
        ((name, number),) = chosen_classes(self._trace, versus).items()
        return name, number

    def _rival(self, name: str) -> Target | None:
        """The likeliest other class."""
        others = [n for n in self._names if n not in (name, self.versus)]
        if not others:
            return None
        best = max(others, key=lambda n: self.scores[n].probability)
        return Target(best, self._names.index(best), self._kind, next(
            iter(self._targets.values())
        ).versus)

    def _notes(self) -> list[str]:
        notes = []
        if output_kind(self.network) is None:
            notes.append(
                "The network does not say how scores become probabilities; softmax is assumed."
            )
        if not np.any(self.clip.samples):
            notes.append("The clip is silent: there is nothing to explain a decision by.")
        for name in self.classes:
            p = self.scores[name].probability
            if p <= self._chance:
                notes.append(
                    f"{name}: the network gives it {p:.3f}, no more than chance "
                    f"({self._chance:.3f}); the map explains a class that was not chosen."
                )
        for name, (found, wanted) in self.completeness.items():
            if abs(found - wanted) > _INCOMPLETE * abs(wanted):
                notes.append(
                    f"{name}: integrated gradients add up to {found:.3g} instead of "
                    f"{wanted:.3g}, off by more than a tenth; take more steps."
                )
        return notes

    @property
    def completeness(self) -> dict[str, tuple[float, float]]:
        """For each class the sum of the map of integrated gradients, and what it should be.

        It should be the log odds of the clip minus those of silence. Empty without that method.
        """
        return dict(zip(self._targets, self._rules.complete))

    # ---- numbers ----

    @functools.cached_property
    def table(self) -> list[dict[str, Any]]:
        """How faithful the maps are, beside what they have to beat.

        For each class there is a row for each method, then one for each baseline: "random" (noise),
        "input" (the spectrogram: what is loud), "band_mean" (the spectrogram's mean over time) and,
        for each method (named in ``of``), "runner_up", its map of the likeliest other class. A row
        has

        ``class``, ``method``, ``of``
            What the row is about. ``of`` is None except in rows of "runner_up".
        ``srg``, ``morf``, ``lerf`` and the same with ``_min``
            Area under the curve of the class's probability p while patches of the input are
            replaced by band means (``_min``: by silence), those with the map's largest values first
            (``morf``) or last (``lerf``). ``srg`` is lerf - morf: 0 for a random order, high is
            good.
        ``ad``, ``ai``, ``ag``, ``ff``, ``fid_in``, ``energy`` and the same with ``_top``
            Of the sound that the map keeps as a mask: the drop of p in percent; 100 if p rises,
            else 0; the gain of p in percent of what is possible; by how much p falls in the sound
            that the mask takes away; 1 if the network's choice stays the same, else 0; the sound's
            share of the clip's energy. ``_top``: the mask is the fifth of the bins with the largest
            values. Compare methods by these only.
        ``sps``, ``comp``
            Gini coefficient and entropy (in nats) of the map's absolute values.
        ``best``
            True for the method to look at for this class, if there is one. Candidates have an
            ``srg`` above 0, above that of "input" and above that of their own "runner_up"; an
            ``srg_min`` above 0; and an ``ff_top`` above a hundredth of p, since something must have
            spoken for the class. Of these the method with the smallest ``ad_top`` is best. ``srg``
            alone does not decide, because it favours methods that fill patches with band means
            themselves, as occlusion does.

        A number that does not exist, such as ``sps`` of a map of zeros, is None.
        """
        rows: list[dict[str, Any]] = []
        with enough_memory("these numbers: take a shorter clip or fewer methods"):
            for name, target in self._targets.items():
                rows += self._rows(name, target)
        return rows

    @functools.cached_property
    def _trial(self) -> Trial:
        return Trial(self.clip, self.network, self._scores)

    @functools.cached_property
    def _tried(self) -> dict[tuple[str, str], Tried]:
        return {}

    def _try(self, name: str, method: str) -> Tried:
        key = (name, method) if method in METHODS else ("", method)
        if key not in self._tried:
            plane = self._heard_map(name, method) if method in METHODS else self._baseline(method)
            self._tried[key] = self._trial.tried(plane)
        return self._tried[key]

    def _baseline(self, method: str) -> Numbers:
        grid = self._trial.grid
        if method == "random":
            noise = np.random.default_rng(0).normal(size=grid.shape)
            return blurred(method, noise) if self.blur else noise
        x = grid.x if method == "input" else as_fill(grid, "band_mean")
        return np.asarray(x.sum(axis=0), np.float64)

    def _rows(self, name: str, target: Target) -> list[dict[str, Any]]:
        tries: list[tuple[str, str | None, Tried]] = [
            (method, None, self._try(name, method)) for method in self.methods
        ]
        tries += [(method, None, self._try(name, method)) for method in BASELINES]
        rival = self._rivals[name]
        if rival is not None:
            tries += [
                ("runner_up", method, self._try(rival.name, method)) for method in self.methods
            ]
        rows: list[dict[str, Any]] = []
        for method, of, tried in tries:
            numbers = tried.numbers(target, self._scores)
            plain = {k: None if math.isnan(v) else v for k, v in numbers.items()}
            rows.append({"class": name, "method": method, "of": of, **plain, "best": False})
        good = [row for row in rows if row["method"] in METHODS and self._beats(row, rows)]
        if good:
            min(good, key=lambda row: (row["ad_top"], -row["srg"]))["best"] = True
        return rows

    def _beats(self, row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
        """Whether a method is a candidate for the best one; see `table`."""
        others = [
            r["srg"] for r in rows
            if r["method"] == "input" or (r["method"], r["of"]) == ("runner_up", row["method"])
        ]
        before = self._targets[row["class"]].probability(self._scores)
        speaks_for_it = row["ff_top"] > _LEAST * before
        return row["srg"] > max(0.0, *others) and row["srg_min"] > 0 and speaks_for_it

    def verdict(self, name: str) -> str:
        """A sentence that says which method to look at for a class, if any.

        Parameters
        ----------
        name : str
            The class.

        Returns
        -------
        str

        Raises
        ------
        ParameterError
            If the class was not explained.
        """
        self._require(name)
        rows = [row for row in self.table if row["class"] == name]
        by_loudness = next(row["srg"] for row in rows if row["method"] == "input")
        best = next((row for row in rows if row["best"]), None)
        if best is not None:
            return (
                f"Look at {best['method']}: srg {best['srg']:.2f} under band means (what is loud: "
                f"{round(by_loudness, 2) + 0:.2f}); with its top fifth alone the network loses "
                f"{best['ad_top']:.0f} % of the probability."
            )
        methods = [row for row in rows if row["method"] in METHODS]
        if all(row["srg"] <= by_loudness for row in methods):
            return "No explanation found: no method here beats loudness."
        return (
            "No explanation found: what beats loudness here does no better than the map of "
            "another class, fails when patches become silence, or takes nothing from the class "
            "when it is removed."
        )

    # ---- pictures and sounds ----

    def _require(self, name: str, method: str | None = None) -> None:
        if name not in self._targets:
            raise ParameterError(
                f"class {shown(name)} was not explained; there are "
                f"{', '.join(map(shown, self.classes))}"
            )
        if method is not None and method not in self.methods:
            raise ParameterError(
                f"method {shown(method)} was not asked for; there are {', '.join(self.methods)}"
            )

    def _map(self, name: str, method: str) -> Numbers:
        """The map of a class, or of a rival."""
        plane: Numbers = self._rules.maps(method)[self._rows_of_maps[name]]
        return plane

    def _heard_map(self, name: str, method: str) -> Numbers:
        plane = self._map(name, method)
        return blurred(method, plane) if self.blur else plane

    def heard_map(self, name: str, method: str) -> Numbers:
        """The map that `sound` and `table` use: smoothed, unless `blur` is False.

        Parameters
        ----------
        name, method : str
            The class and the method.

        Returns
        -------
        array of float64, shape (F, T)

        Raises
        ------
        ParameterError
            If the class or method was not asked for.
        """
        self._require(name, method)
        return self._heard_map(name, method)

    def input_map(self, name: str, method: str) -> NDArray[np.float32]:
        """A map of `maps` in the shape of the network's input, as `auralise` takes it.

        Parameters
        ----------
        name, method : str
            The class and the method.

        Returns
        -------
        array of float32, shape (C, H, W)

        Raises
        ------
        ParameterError
            If the class or method was not asked for.
        """
        self._require(name, method)
        plane = self.maps[name, method][None].astype(np.float32)
        found: NDArray[np.float32] = Grid.of(self.clip).inputs(plane)[0]
        return found

    def sound(
        self, name: str, method: str | None = None, part: str = "for"
    ) -> NDArray[np.float32]:
        """The sound of what spoke for or against a class.

        Parameters
        ----------
        name : str
            The class.
        method : str, optional
            Default: the first of `methods`.
        part : {"for", "against", "left"}
            The mask for the clip's spectrogram: the positive part of the map, scaled to a maximum
            of 1; its negative part, likewise; or 1 minus the first, which leaves the rest of the
            clip.

        Returns
        -------
        array of float32, shape (n,)
            As long as the clip. All zeros if the map has no such part.

        Raises
        ------
        ParameterError
            If the class or method was not asked for, or there is no such part.
        """
        chosen = self.methods[0] if method is None else method
        self._require(name, chosen)
        if part not in _PARTS:
            raise ParameterError(f"part must be one of {', '.join(_PARTS)}, found {shown(part)}")
        plane = self._heard_map(name, chosen)
        mask = own_mask(-plane if part == "against" else plane)
        if part == "left":
            mask = 1 - mask
        maps = Grid.of(self.clip).inputs(mask[None].astype(np.float32))
        sound: NDArray[np.float32] = auralise(self.clip, maps)[0]
        return sound


def _chosen_methods(methods: str | Iterable[str] | None) -> list[str]:
    if methods is None:
        return [METHODS[0]]
    if isinstance(methods, str) and methods == "all":
        return [*METHODS]
    asked = [methods] if isinstance(methods, str) else as_list("methods", methods)
    for method in asked:
        if method not in METHODS:
            raise ParameterError(
                f"there is no method {shown(method)}; methods: {', '.join(METHODS)}, or 'all'"
            )
    if not asked:
        raise ParameterError("methods must name at least one method, found none")
    return list(dict.fromkeys(asked))
