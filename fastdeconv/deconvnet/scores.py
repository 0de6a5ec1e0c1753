"""The scores of a network's classes, and where the way back from a class starts.

The output of a network has a channel for each class. Where the output also has several
places (a score for every frame), the score of a class is the mean over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ParameterError, shown
from ..network import layers as nn
from ..network.network import Network
from .layerwise import probabilities
from .trace import Trace

__all__ = [
    "ClassScore", "ClassStart", "class_means", "class_number", "class_scores", "class_start",
    "log_odds", "log_odds_slopes", "output_kind", "score_layer", "score_probabilities", "scores_of",
]

_CLASS_DIGITS = 9
"""A number with more digits is no index of a class, and Python refuses to read very long ones."""

_PASSING = (nn.Dropout, nn.Flatten)
"""Layers that pass on every value unchanged."""


_CLOSING = (nn.Softmax, nn.LogSoftmax, nn.ACTIVATION_TYPES["sigmoid"])
"""Layers whose derivative vanishes where the network is sure of a class."""


class ClassScore(NamedTuple):
    """The output of a network for one class.

    Attributes
    ----------
    name : str
    score : float
        The value of the last layer; the mean over its places.
    probability : float or None
        None if the network does not say how scores become probabilities.
    """

    name: str
    score: float
    probability: float | None


class ClassStart(NamedTuple):
    """Where the way back from a class begins."""

    layer: int
    feature: int
    values: NDArray[np.float32]
    """At the output of that layer, (1, H, W): the derivative of the class's score."""


def class_scores(trace: Trace) -> list[ClassScore]:
    """The scores of all classes, in order; empty if the network does not name its classes."""
    net = trace.network
    if not net.classes:
        return []
    kind = output_kind(net)
    known: list[float | None] = [None] * len(net.classes)
    if kind is not None:
        # A network that ends in a softmax or sigmoid puts out probabilities already.
        output = trace.activation(len(net.layers) - 1)
        known = _means(probabilities(kind, output) if net.output else output)
    return list(map(ClassScore, net.classes, class_means(trace), known))


def class_means(trace: Trace) -> list[float]:
    """The `ClassScore.score` of all classes, in order; empty if the network does not name them."""
    net = trace.network
    return _means(trace.activation(len(net.layers) - 1)) if net.classes else []


def class_start(trace: Trace, number: int, *, strongest: bool = False) -> ClassStart:
    """The start for the score of class `number`, from 0, or for its strongest place alone.

    It is the score before a closing softmax or sigmoid: the derivative of those vanishes where
    the network is sure of a class.
    """
    net = trace.network
    output = trace.activation(len(net.layers) - 1)
    score = np.zeros(output.shape, np.float32)
    if strongest:
        score[number].flat[output[number].argmax()] = 1
    else:
        score[number] = 1 / score[number].size
    index = score_layer(net)
    # The layers between change only the shape, or each value by itself.
    values = score.reshape(trace.activation(index).shape)
    feature = int(np.flatnonzero(values.any(axis=(1, 2)))[0])
    return ClassStart(index, feature, values[feature : feature + 1])


def class_number(net: Network, count: int, name: str) -> int:
    """The number of one of `count` classes, from its name or from its number as text.

    Raises
    ------
    ParameterError
        If there is no such class. The message lists the classes that there are.
    """
    classes = net.classes or ()
    if name in classes:
        return classes.index(name)
    if name.isascii() and name.isdigit() and len(name) <= _CLASS_DIGITS and int(name) < count:
        return int(name)
    known = ", ".join(map(shown, classes)) or f"without names, by number from 0 to {count - 1}"
    raise ParameterError(f"there is no class {shown(name)}; classes: {known}")


def output_kind(net: Network) -> str | None:
    """How scores become probabilities: "softmax", "sigmoid", or None if it is not known."""
    return net.output or _closing_type(net)


def scores_of(trace: Trace) -> NDArray[np.float64]:
    """The scores before a closing softmax or sigmoid, (classes, H, W)."""
    shape = trace.activation(len(trace.network.layers) - 1).shape
    return np.asarray(trace.activation(score_layer(trace.network)), np.float64).reshape(shape)


def score_probabilities(kind: str, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of scores (classes, ...), place by place."""
    one = "sigmoid" if len(scores) == 1 else kind
    return np.asarray(probabilities(one, scores))


def log_odds(kind: str, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """``log p - log(1 - p)`` of every class, from scores (classes, ...), place by place.

    Under "softmax" the score minus the log of the sum of exponentials of the others; under
    "sigmoid", or where there is one class, the score itself.
    """
    if kind == "sigmoid" or len(scores) == 1:
        return scores
    return scores - _others(scores)


def log_odds_slopes(
    kind: str, scores: NDArray[np.float64], numbers: Sequence[int]
) -> NDArray[np.float64]:
    """The derivative of the log odds of some classes with respect to scores (classes, H, W).

    The log odds are means over places. Shape (K, classes, H, W).
    """
    slopes = np.zeros((len(numbers), *scores.shape))
    if kind != "sigmoid" and len(scores) > 1:
        others = _others(scores)
        for slope, number in zip(slopes, numbers):
            with np.errstate(over="ignore"):  # of the class itself, which is written over
                slope[...] = -np.exp(scores - others[number])
    for slope, number in zip(slopes, numbers):
        slope[number] = 1
    places: int = scores[0].size
    return slopes / places


def _others(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each class, the log of the sum of exponentials of all other scores."""
    largest = scores.max(axis=0)
    powers = np.exp(scores - largest)
    # All but the largest itself leave at least its 1 in the sum, so nothing cancels out.
    rest = powers.sum(axis=0) - powers
    best = scores.argmax(axis=0)[None]
    without = scores.copy()
    np.put_along_axis(without, best, -np.inf, axis=0)
    second = without.max(axis=0)
    found = np.log(np.where(rest > 0, rest, 1)) + largest
    np.put_along_axis(
        found, best, (np.log(np.exp(without - second).sum(axis=0)) + second)[None], axis=0
    )
    return found


def _last_changing(net: Network) -> int:
    """The last layer that changes values."""
    index = len(net.layers) - 1
    while isinstance(net.layers[index], _PASSING) and net.sources[index] != (-1,):
        (index,) = net.sources[index]
    return index


def _closing_type(net: Network) -> str | None:
    kind = net.layers[_last_changing(net)].type
    return kind if kind in nn.OUTPUTS else None


def score_layer(net: Network) -> int:
    """The layer that puts out the scores: the last one, or the one below a closing softmax."""
    closing = _last_changing(net)
    if not isinstance(net.layers[closing], _CLOSING) or net.sources[closing] == (-1,):
        return len(net.layers) - 1
    (below,) = net.sources[closing]
    return below


def _means(planes: NDArray[Any]) -> list[Any]:
    means: list[Any] = planes.mean(axis=(1, 2), dtype=np.float64).tolist()
    return means
