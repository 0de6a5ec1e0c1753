"""What is explained: the score of a class, or the difference of two scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..deconvnet.scores import (
    class_number,
    log_odds,
    log_odds_slopes,
    output_kind,
    score_probabilities,
)
from ..deconvnet.trace import Trace
from ..errors import ParameterError, shown
from ..network.choosing import as_list
from ..network.network import Network

__all__ = ["Target", "chosen_classes", "class_names", "decision_kind", "target_scores"]

Numbers = NDArray[np.float64]


class Target(NamedTuple):
    """What is explained: the log odds of a class, or by how much it exceeds another class."""

    name: str
    """The name of the class."""
    number: int
    """Its index."""
    kind: str
    """How scores become probabilities: "softmax" or "sigmoid"."""
    versus: int | None = None
    """Index of the other class."""

    def score(self, scores: Numbers) -> float:
        """The log odds, or the difference of two scores, from scores (classes, H, W).

        The mean over places.
        """
        if self.versus is not None:
            return float((scores[self.number] - scores[self.versus]).mean())
        return float(log_odds(self.kind, scores)[self.number].mean())

    def slopes(self, scores: Numbers) -> Numbers:
        """The derivative of `score` with respect to the scores: (classes, H, W)."""
        if self.versus is not None:
            return self.start(scores)
        return log_odds_slopes(self.kind, scores, [self.number])[0]

    def start(self, scores: Numbers) -> Numbers:
        """What deconvnet and guided start from: (classes, H, W).

        1 at the class and -1 at the other one, both divided by the number of places.
        """
        start = np.zeros(scores.shape)
        start[self.number] = 1 / scores[0].size
        if self.versus is not None:
            start[self.versus] = -1 / scores[0].size
        return start

    def probabilities(self, scores: Numbers) -> tuple[Numbers, int]:
        """The probabilities of all alternatives, and the index of the class among them.

        With `versus` the alternatives are the two classes. A network with a single output has two
        alternatives: the class and its opposite.
        """
        if self.versus is not None:
            scores = scores[[self.number, self.versus]]
            kind, own = "softmax", 0
        else:
            kind, own = self.kind, self.number
        p = score_probabilities(kind, scores).mean(axis=(1, 2))
        return (np.array([p[0], 1 - p[0]]), 0) if len(p) == 1 else (p, own)

    def probability(self, scores: Numbers) -> float:
        """The probability of the class among the alternatives."""
        p, own = self.probabilities(scores)
        return float(p[own])


def target_scores(targets: Sequence[Target], scores: Numbers) -> Numbers:
    """``target.score(scores)`` of each target; the log odds of all classes are computed once."""
    odds: Numbers | None = None
    found = np.empty(len(targets))
    for i, target in enumerate(targets):
        if target.versus is not None:
            found[i] = target.score(scores)
            continue
        if odds is None:
            odds = log_odds(target.kind, scores).mean(axis=(1, 2))
        found[i] = odds[target.number]
    return found


def decision_kind(net: Network) -> str:
    """How scores become probabilities; "softmax" if the network does not say."""
    return output_kind(net) or "softmax"


def class_names(trace: Trace) -> list[str]:
    """The names of all classes; their numbers as text if they have no names."""
    count = trace.activation(len(trace.network.layers) - 1).shape[0]
    return list(trace.network.classes or map(str, range(count)))


def chosen_classes(trace: Trace, classes: str | Iterable[str] | None) -> dict[str, int]:
    """The classes asked for, by default all, with their numbers.

    Raises
    ------
    ParameterError
        If there is no such class; lists the classes.
    """
    known = class_names(trace)
    if classes is None:
        return {name: number for number, name in enumerate(known)}
    asked = [classes] if isinstance(classes, str) else as_list("classes", classes)
    chosen = {}
    for name in asked:
        if not isinstance(name, str):
            raise ParameterError(f"classes must be names, found {shown(name)}")
        number = class_number(trace.network, len(known), name)
        chosen[known[number]] = number
    return chosen
