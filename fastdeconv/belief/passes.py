"""Passes of one network through many inputs, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..deconvnet.plan import shape_cache
from ..deconvnet.scores import scores_of
from ..kernels.dispatch import config, get_implementation, get_num_threads
from ..kernels.schedule import run_bands
from ..network.network import Network

__all__ = ["scores_of_constant", "side_by_side"]

Found = TypeVar("Found")

_AT_ONCE = 8
"""Passes at a time: each keeps all of its activations."""

_IN_A_ROUND = 16
"""Passes whose results are kept until all before them are there."""

_MOST_CONSTANTS = 16
"""Constant inputs whose scores are kept with a network, for each shape."""


def scores_of_constant(
    net: Network, shape: tuple[int, ...], value: np.float32
) -> NDArray[np.float64]:
    """The scores (classes, H, W) of an input that is `value` everywhere, as silence is.

    They are kept with the network. Such a pass takes twice as long as others, since all values
    in a window of a pool are equal, and clips often have the same least value.
    """
    kept: dict[Any, NDArray[np.float64]] = shape_cache(net, shape).setdefault("constants", {})
    key = *get_implementation(), float(value)
    found = kept.get(key)
    if found is None:
        found = scores_of(net.forward(np.full(shape, value, np.float32)))
        found.flags.writeable = False
        if len(kept) >= _MOST_CONSTANTS:
            kept.clear()
        kept[key] = found
    return found


def side_by_side(work: Callable[[int], Found], count: int) -> Iterator[Found]:
    """``work(i)`` for every i in range(count), in order; several at a time, in a thread each.

    Passes through small maps hardly gain from threads inside: two such passes side by side take
    two thirds of the time of two in a row (bundled network, two cores).
    """
    threads, (name, isa) = get_num_threads(), get_implementation()
    at_once = min(threads, _AT_ONCE)
    for first in range(0, count, _IN_A_ROUND):
        found: dict[int, Found] = {}

        def one(i: int, first: int = first, found: dict[int, Found] = found) -> None:
            with config(backend=name, num_threads=max(1, threads // at_once), isa=isa):
                found[first + i] = work(first + i)

        some = min(_IN_A_ROUND, count - first)
        run_bands(some, one, at_once)
        yield from (found[i] for i in range(first, first + some))
