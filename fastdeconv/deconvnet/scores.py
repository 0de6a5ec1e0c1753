"""What a network says of its classes, and where the way back from one class starts.

The output of a network has a channel for each class. Where the output also has several
places (a score for every frame), the score of a class is the mean over them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..network import layers as nn
from ..network.network import Network
from .layerwise import probabilities
from .trace import Trace

__all__ = ["ClassScore", "ClassStart", "class_scores", "class_start"]

_PASSING = (nn.Dropout, nn.Flatten)
"""Layers that hand every value on as it is."""


_CLOSING = (nn.Softmax, nn.LogSoftmax, nn.ACTIVATION_TYPES["sigmoid"])
"""Layers whose derivative vanishes exactly where the network is sure of itself."""


class ClassScore(NamedTuple):
    """What a network puts out for one class.

    Attributes
    ----------
    name : str
    score : float
        The last layer's value, the mean over its places.
    probability : float or None
        None where the network does not say how scores become probabilities.
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
    """The scores of all classes, in order; none where the network does not name them."""
    net = trace.network
    if not net.classes:
        return []
    output = trace.activation(len(net.layers) - 1)
    kind = net.output or _closing_type(net)
    known: list[float | None] = [None] * len(net.classes)
    if kind is not None:
        # A network that ends in a softmax or sigmoid puts out probabilities already.
        known = _means(probabilities(kind, output) if net.output else output)
    return list(map(ClassScore, net.classes, _means(output), known))


def class_start(trace: Trace, number: int, *, strongest: bool = False) -> ClassStart:
    """The start for the score of class `number`, from 0, or for its strongest place alone.

    It is the score before a closing softmax or sigmoid, whose derivative vanishes exactly
    where the network is sure of itself.
    """
    net = trace.network
    output = trace.activation(len(net.layers) - 1)
    score = np.zeros(output.shape, np.float32)
    if strongest:
        score[number].flat[output[number].argmax()] = 1
    else:
        score[number] = 1 / score[number].size
    index = _score_layer(net)
    # The layers between change shapes alone, or values place by place.
    values = score.reshape(trace.activation(index).shape)
    feature = int(np.flatnonzero(values.any(axis=(1, 2)))[0])
    return ClassStart(index, feature, values[feature : feature + 1])


def _last_changing(net: Network) -> int:
    """The last layer that changes values."""
    index = len(net.layers) - 1
    while isinstance(net.layers[index], _PASSING) and net.sources[index] != (-1,):
        (index,) = net.sources[index]
    return index


def _closing_type(net: Network) -> str | None:
    kind = net.layers[_last_changing(net)].type
    return kind if kind in nn.OUTPUTS else None


def _score_layer(net: Network) -> int:
    """The layer whose output are the scores: the last one, or the one below a closing softmax."""
    closing = _last_changing(net)
    if not isinstance(net.layers[closing], _CLOSING) or net.sources[closing] == (-1,):
        return len(net.layers) - 1
    (below,) = net.sources[closing]
    return below


def _means(planes: NDArray[Any]) -> list[Any]:
    means: list[Any] = planes.mean(axis=(1, 2), dtype=np.float64).tolist()
    return means
