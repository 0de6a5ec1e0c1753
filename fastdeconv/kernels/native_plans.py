"""Plans of passes of the native back end: see `fastdeconv.kernels.lanes.LaneBackend`.

The way back is gone once with places in the stead of arrays. What its jobs are then told in each
pass are the arrays: values and switches of the start, weights of the features, and the lists that
have been made of the trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import native  # type: ignore[attr-defined, unused-ignore]
from .interface import Pair, Window
from .lanes import Convolution, First, Given, Post, Read
from .native_cells import cells_of, links_of
from .native_packing import lanes_for, weight_of_first
from .native_shared import (
    COPY,
    Chain,
    Places,
    Plan,
    Stage,
    enough_threads,
    in_turn,
    kernels,
    most_bands,
    run_stages,
)
from .schedule import band_edges

__all__ = ["Later", "PlannedPasses"]

_FLOAT = np.dtype(np.float32)

_MOST_PLANNED, _MOST_PLANNED_FOR_MANY, _MANY = 1 << 24, 1 << 26, 8
"""Bytes of the memory of planned passes that run together, and those with `_MANY` threads or more.
Nothing in it is used twice. What needs more takes so long that it does not matter how its jobs are
prepared, unless many threads wait for that: of the predicted 7 ms of 64 features on 16 cores it is
0.4."""

# The arrays of a planned pass; number 0 is its memory. From number _LISTS on there are
# those of the trace, _EACH for every convolution after the first.
_VALUES, _SWITCHES, _WEIGHT, _ROWS, _OUT, _LISTS = range(1, 7)
_EACH = 4


class Later:
    """Stands for the start of a pass that is planned, (K, H, W)."""

    def __init__(self, place: Any, chain: Chain) -> None:
        self.place, self.chain = place, chain
        self.size = math.prod(place.shape)
        self.weight = _place(_WEIGHT, ())
        """Stands for the weights of the `First` job."""

    def __len__(self) -> int:
        count: int = self.place.shape[0]
        return count


class PassPlan(NamedTuple):
    """A plan, and what it wants the weights of the features for."""

    plan: Plan
    table: Any
    conv: Convolution
    lanes: int
    by_feature: bool


class Together(NamedTuple):
    """Plans of passes that run together."""

    passes: list[PassPlan]
    stages: list[Stage]
    """Of all passes. In the place of its job each has the numbers of its pass and of its stage
    there."""
    threads: int
    most: int
    """How many bands may run at the same time."""


class PlannedPasses:
    """The methods of `fastdeconv.kernels.lanes.LaneBackend` for plans."""

    def plan(
        self, given: Given, conv: Convolution, read: Sequence[Read], bf16: bool,
        unpool: tuple[Window, Pair] | None,
        follow: Callable[[Any, Any, Any, Sequence[Read]], Chain], num_threads: int,
    ) -> PassPlan | None:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        places = Places()
        chain = Chain(places)
        values = _place(_VALUES, given.values.shape)
        if unpool is not None:
            window, size = unpool
            assert given.switches is not None
            switches = _place(_SWITCHES, given.switches.shape, given.switches.dtype)
            planes = chain.room((values.shape[0], *size))
            threads = enough_threads(num_threads, math.prod(planes.shape) * COPY)
            job = native.UnpoolPlanes(values, switches, window, planes)
            chain.add(job, band_edges(planes.shape[0], threads), threads)
            values = planes
        rows = _place(_ROWS, given.rows.shape, np.dtype(np.int32))
        later = [_read_later(i, one, given.lists) for i, one in enumerate(read)]
        follow(Later(values, chain), rows, _place(_OUT, given.out.shape), later)
        table, plan = kernels(), chain.plan()
        if places.size > _most_planned(plan.threads):
            return None
        return PassPlan(plan, table, conv, *lanes_for(table, len(given.values), bf16))

    def lists(self, read: Sequence[Read], num_threads: int) -> list[NDArray[Any]]:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        found: list[NDArray[Any]] = []
        for source, factor in read:
            order, first, _ = cells_of(source, num_threads)
            following = links_of(source, num_threads)[0] if source.pool.overlapping else order
            found += [order, first, following]
            found.append(order if factor is None else np.ascontiguousarray(factor))
        return found

    def together(self, passes: list[PassPlan], num_threads: int) -> Together | None:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        threads = min(num_threads, sum(one.plan.threads for one in passes))
        if sum(one.plan.size for one in passes) > _most_planned(threads):
            return None
        each = [one.plan.stages for one in passes]
        numbered = [
            [stage._replace(job=(i, j)) for j, stage in enumerate(stages)]
            for i, stages in enumerate(each)
        ]
        return Together(passes, in_turn(numbered), threads, most_bands(each))

    def run_plans(self, together: Together, given: Sequence[Given]) -> None:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        each = [
            plan.plan.on(_arrays_of(plan, one))[1] for plan, one in zip(together.passes, given)
        ]
        stages = each[0] if len(each) == 1 else [
            Stage(each[i][j].job, edges, needs) for (i, j), edges, needs in together.stages
        ]
        run_stages(stages, together.threads, together.most)


def _most_planned(threads: int) -> int:
    """The most bytes that planned passes may have that run together on so many threads."""
    return _MOST_PLANNED_FOR_MANY if threads >= _MANY else _MOST_PLANNED


def _place(array: int, shape: tuple[int, ...], dtype: Any = _FLOAT) -> Any:
    """The place of a whole array that is given in each pass."""
    return native.Place(array, 0, shape, dtype)


def _arrays_of(plan: PassPlan, given: Given) -> list[Any]:
    """The arrays of a planned pass, without its memory."""
    values = np.ascontiguousarray(given.values, np.float32)
    job = First(values, given.features, plan.conv, Post(), False)
    weight = weight_of_first(plan.table, job, plan.lanes, plan.by_feature)
    switches = values if given.switches is None else np.ascontiguousarray(given.switches)
    return [values, switches, weight, given.rows.astype(np.int32), given.out, *given.lists]


def _read_later(number: int, read: Read, lists: Sequence[NDArray[Any]]) -> Read:
    """What stands for what is read of a trace, `lists` being those of one of them."""
    source, factor = read
    order, first, following, scaled = (
        _place(_LISTS + i, lists[i].shape, lists[i].dtype)
        for i in range(number * _EACH, (number + 1) * _EACH)
    )
    later = source._replace(cache={"cells": (order, first), "links": (following, None)})
    return later, None if factor is None else scaled
