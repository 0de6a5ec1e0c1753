"""Short inputs of a network, several of them run as the rows of one input.

Networks such as pitch trackers take a thousand samples at a time. Each of these inputs is little
work for the kernels and much for Python. Where the input of a network is a single row and no layer
joins rows, several inputs therefore become the rows of one. The results are the same as those of
each input by itself, bit by bit. Songs and surveys run their windows in this way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..audio.clip import Clip
from ..kernels.dispatch import get_backend
from ..kernels.lanes import cached
from ..network.locality import rows_apart
from ..network.network import Network
from .layerwise import Arithmetic
from .plan import layer_cache
from .projection import deconvolve
from .trace import Trace

__all__ = ["InputRun", "Together", "run_inputs", "together"]

FloatArray = NDArray[np.float32]
Label = TypeVar("Label")

_SAMPLES = 1 << 14
"""Samples of the inputs that run at a time: as much memory as one input of that length needs.

Sixteen inputs of a thousand samples are enough for two threads; more save no time.
"""


class Together(NamedTuple):
    """A network in two parts, of which the first takes several inputs as rows."""

    part: Network
    """Up to the layer whose output is all that the layers after it take."""
    head: Network
    """The layers after it, which take one row."""
    most: int
    """The most inputs at a time."""


def together(network: Network, samples: int) -> Together | None:
    """How inputs of so many samples run together; None if they have to run one at a time."""
    count = _SAMPLES // samples
    # What the reference back end keeps between two layers is more exact than an input may be.
    is_rounded = Arithmetic(get_backend(), 1).dtype == np.float32
    split = None
    if count > 1 and is_rounded:
        # Kept, as the parts keep what kernels make of their weights: many songs are short.
        split = cached(layer_cache(network, -1), "rows apart", lambda: rows_apart(network))
    return None if split is None else Together(split[0], split[2], count)


class InputRun:
    """An input, and its way through the network."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def activation(self, index: int) -> NDArray[Any]:
        """The feature maps of a layer of the network, as `Trace.activation` has them."""
        return self._trace.activation(index)

    def maps(self, layer: str, features: Sequence[int], how: Mapping[str, Any]) -> FloatArray:
        """What `deconvolve` finds for features of a layer."""
        return deconvolve(self._trace, layer, features=features, **how)

    @property
    def output(self) -> Trace:
        """The trace that has the output of the network."""
        return self._trace


class _Rows:
    """Several inputs as the rows of one."""

    def __init__(self, how: Together, clips: Sequence[Clip]) -> None:
        self.head = how.head
        self.trace = how.part.forward(np.concatenate([clip.x for clip in clips], axis=1))
        self._maps: tuple[Any, FloatArray] | None = None

    def maps(self, layer: str, features: Sequence[int], how: Mapping[str, Any]) -> FloatArray:
        """Of all rows. Those asked for last are kept, so that every row takes its own of them."""
        asked = layer, tuple(features), how
        if self._maps is None or self._maps[0] != asked:
            self._maps = None  # before others are made: they may be large
            self._maps = asked, deconvolve(self.trace, layer, features=features, **how)
        return self._maps[1]


class _RowRun(InputRun):
    """An input that is a row of another."""

    def __init__(self, rows: _Rows, row: int) -> None:
        super().__init__(rows.trace)
        self._rows, self._row = rows, row
        self._head: Trace | None = None

    def _own(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(values[..., self._row : self._row + 1, :])

    def activation(self, index: int) -> NDArray[Any]:
        above = index - len(self._trace.network.layers)
        if above >= 0:
            return self.output.activation(above)
        return self._own(self._trace.activation(index))

    def maps(self, layer: str, features: Sequence[int], how: Mapping[str, Any]) -> FloatArray:
        return self._own(self._rows.maps(layer, features, how))

    @property
    def output(self) -> Trace:
        if self._head is None:
            last = len(self._trace.network.layers) - 1
            self._head = self._rows.head.forward(self.activation(last))
        return self._head


def run_inputs(
    network: Network, inputs: Iterable[tuple[Label, Clip]], how: Together | None
) -> Iterator[list[tuple[Label, Clip, InputRun]]]:
    """Run a network on inputs; yields those that run at a time, in order.

    Parameters
    ----------
    network : Network
    inputs : iterable of (label, Clip)
        The label is given back with the input.
    how : Together or None
        From `together`, for this network and inputs of this length. None runs them one at a time.
    """
    waiting = iter(inputs)
    while group := list(islice(waiting, 1 if how is None else how.most)):
        if how is None:
            yield [(label, clip, InputRun(network.forward(clip.x))) for label, clip in group]
            continue
        rows = _Rows(how, [clip for _, clip in group])
        yield [(label, clip, _RowRun(rows, row)) for row, (label, clip) in enumerate(group)]
