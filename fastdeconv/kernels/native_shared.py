"""What the parts of the native back end share: the kernels in use, lane tensors, bands of work."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import native  # type: ignore[attr-defined, unused-ignore]
from .dispatch import get_isa
from .interface import FloatArray
from .lanes import aligned_empty, aligned_zeros
from .recording import Recording, cpus, recording
from .schedule import band_edges, share

__all__ = [
    "ADD",
    "COPY",
    "SPLIT",
    "Chain",
    "Lanes",
    "Places",
    "Plan",
    "Stage",
    "enough_threads",
    "in_turn",
    "kernels",
    "most_bands",
    "pad_last",
    "run_chains",
    "run_edges",
    "run_rows",
    "run_stages",
]

SPLIT = 16_000_000
"""Work (multiply-adds) below which another thread does not pay; about 0.15 ms."""

COPY = 64
"""Multiply-adds that take as long as copying one value to another layout."""

ADD = 16
"""Multiply-adds that take as long as reading and adding one value."""

_TABLES: dict[str, Any] = native.tables() | native.tables_on_request()


def kernels() -> Any:
    """The kernels of the instruction set in use."""
    return _TABLES[get_isa()]


class Stage(NamedTuple):
    """A job in bands, some of which may need results of earlier stages."""

    job: Any
    """A ``native.Job``."""
    edges: NDArray[np.int32]
    """Band i works on the rows (or columns) from edges[i] up to edges[i + 1]."""
    needs: NDArray[np.int32] | None = None
    """The number of bands, counted from the first one of the first stage, that must be done before
    band i begins. None: it waits for none."""


_FLOAT = np.dtype(np.float32)
_LINE = 64
"""Bytes of a cache line."""


class Places:
    """Hands out places in the memory of a planned pass, which is array 0 of its jobs."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of the memory."""

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any] = _FLOAT) -> Any:
        """A ``native.Place``."""
        place = native.Place(0, self.size, shape, dtype)
        self.size += -(-math.prod(shape) * dtype.itemsize // _LINE) * _LINE
        return place


class Plan(NamedTuple):
    """Stages that are prepared once. In each pass, their jobs are only told their arrays."""

    stages: list[Stage]
    """Their `job` is None."""
    jobs: list[Any]
    """The jobs of the stages. Array 0 is the memory, the others are given in each pass."""
    size: int
    """Bytes of the memory."""
    threads: int

    @classmethod
    def of(cls, stages: Sequence[Stage], places: Places, threads: int) -> Plan:
        """The plan with these stages, whose jobs have places for arrays."""
        jobs = [stage.job for stage in stages]
        return cls([stage._replace(job=None) for stage in stages], jobs, places.size, threads)

    def on(self, given: Sequence[Any]) -> tuple[list[Any], list[Stage]]:
        """The arrays of a pass and its stages."""
        arrays = [new_memory(self.size), *given]
        jobs = native.bound(self.jobs, arrays)
        return arrays, [
            Stage(job, edges, needs) for job, (_, edges, needs) in zip(jobs, self.stages)
        ]


def new_memory(size: int) -> NDArray[np.uint8]:
    """Memory for the results of a planned pass: `size` bytes."""
    return np.frombuffer(native.Memory(size), np.uint8)


class Chain:
    """Jobs that follow one another. They are prepared one by one, and run together.

    So threads are called once, and do not wait for Python between two jobs. After a large job
    Python takes several times as long as otherwise, because the caches have none of its data.

    With `places` the chain becomes a plan, and the tensors between its jobs have places there.
    """

    def __init__(self, places: Places | None = None) -> None:
        self.places = places
        self._stages: list[Stage] = []
        self._bands = 0
        self._threads = 1
        self.held = 0
        """Bytes of the lane tensors that jobs will make which have not run yet."""
        self._then: list[Callable[[], None]] = []

    def plan(self) -> Plan:
        """The jobs that were added, as a plan."""
        assert self.places is not None
        stages, threads, _ = self.take()
        if threads == 1:  # which gains nothing by bands, and every one has to be begun
            stages = [
                Stage(job, edges[[0, -1]], np.array([before], np.int32))
                for before, (job, edges, _) in enumerate(stages)
            ]
        return Plan.of(stages, self.places, threads)

    def room(self, shape: tuple[int, ...], dtype: np.dtype[Any] = _FLOAT) -> Any:
        """An array, or its place, that nobody but jobs of the chain uses; of a type of 4 bytes."""
        if self.places is not None:
            return self.places.take(shape, dtype)
        return aligned_empty(shape).view(dtype)

    def add(self, job: Any, edges: Sequence[int], num_threads: int) -> None:
        """Add a job in bands. Each band may need everything that the jobs before it make."""
        needs = np.full(len(edges) - 1, self._bands, np.int32)
        self._append(Stage(job, np.array(edges, np.int32), needs), num_threads)

    def add_after(self, job: Any, edges: NDArray[np.int32], bands: NDArray[Any]) -> None:
        """Add a job in bands of which each needs only some bands of the job before."""
        before = self._bands - (len(self._stages[-1].edges) - 1)
        self._append(Stage(job, edges, (before + bands).astype(np.int32)), 1)

    def _append(self, stage: Stage, num_threads: int) -> None:
        self._stages.append(stage)
        self._bands += len(stage.edges) - 1
        self._threads = max(self._threads, num_threads)

    def then(self, call: Callable[[], None]) -> None:
        """Call a function when all jobs have run: now, if none is left."""
        if self._stages:
            self._then.append(call)
        else:
            call()

    def run(self) -> None:
        """Run the jobs that have not run yet."""
        run_chains([self])

    def take(self) -> tuple[list[Stage], int, list[Callable[[], None]]]:
        """The stages that have not run yet, for how many threads, and what to call afterwards."""
        taken = self._stages, self._threads, self._then
        self._stages, self._then, self._bands, self.held = [], [], 0, 0
        return taken


def _translated(needs: NDArray[np.int32] | None, wants: list[int]) -> NDArray[np.int32] | None:
    if needs is None or not len(needs):
        return needs
    if (needs == needs[0]).all():  # as most are; a list of hundreds takes longer
        return np.full(len(needs), wants[needs[0]], np.int32)
    return np.array(wants, np.int32)[needs]


class Lanes(NamedTuple):
    """A lane tensor."""

    values: FloatArray
    """(H, W, C, lanes), lanes in whole vectors; `by_feature`: (H, W, lanes, C), one a feature.
    While a pass is planned a ``native.Place``."""
    lanes: int
    by_feature: bool
    rectified: bool
    """Whether many of the values are zero."""
    chain: Chain
    """The jobs that still have to run and that make these values, or read them."""
    sums: FloatArray | None = None
    """The sums of every row, if `Post.counts` asked for them."""


def run_chains(chains: Sequence[Chain]) -> None:
    """Run several chains together: while a job of one ends, threads go on with another one's."""
    taken = [chain.take() for chain in chains]
    each = [stages for stages, _, _ in taken]
    stages = in_turn(each)
    if stages:
        run_stages(stages, max(threads for _, threads, _ in taken), most_bands(each))
    for _, _, then in taken:
        for call in then:
            call()


def most_bands(chains: Sequence[Sequence[Stage]]) -> int:
    """How many bands of some chains, at most, pay to be run at the same time."""
    return sum(max((len(stage.edges) - 1 for stage in own), default=0) for own in chains)


def in_turn(chains: Sequence[Sequence[Stage]]) -> list[Stage]:
    """The first stage of all chains, then the second one of all, and so on."""
    if len(chains) == 1:
        return list(chains[0])
    merged: list[Stage] = []
    bands = 0
    # Where the bands of a chain come to an end: wants[n] bands in all, before n of its own are.
    wants = [[0] for _ in chains]
    for turn in itertools.zip_longest(*chains):
        for own, stage in zip(wants, turn):
            if stage is None:
                continue
            count = len(stage.edges) - 1
            merged.append(stage._replace(needs=_translated(stage.needs, own)))
            own += range(bands + 1, bands + count + 1)
            bands += count
    return merged


def enough_threads(num_threads: int, multiply_adds: int) -> int:
    """How many threads to use, at most `num_threads`: a small job ends before others have woken up.

    More threads than CPUs do not help, since no kernel ever waits for anything.
    """
    return min(num_threads, cpus(), 1 + multiply_adds // SPLIT)


def run_stages(stages: Sequence[Stage], num_threads: int, most: int | None = None) -> None:
    """Run stages in order; a band does not wait for the whole stage before it.

    `most`: how many bands may run at the same time. Default: the number of the largest stage.
    """
    queue = native.Queue(stages)
    threads = min(queue.most if most is None else most, num_threads, cpus())
    record = recording()
    if record is None:
        share(queue, threads - 1)
    else:
        _run_recorded(record, stages, threads)


def _run_recorded(record: Recording, stages: Sequence[Stage], threads: int) -> None:
    begin = perf_counter()  # what only a recording needs does not count as serial
    bands: list[Callable[[], Any]] = []
    needs: list[int] = []
    for job, edges, waits in stages:
        bands += [functools.partial(job, *ends) for ends in itertools.pairwise(edges.tolist())]
        needs += [0] * (len(edges) - 1) if waits is None else waits.tolist()
    record.run(bands, needs, threads, begin)


def run_rows(job: Any, rows: int, num_threads: int, *, largest: int = 8) -> None:
    """Run the rows of a job, in bands of about the same size."""
    run_edges(job, band_edges(rows, num_threads, largest=largest), num_threads)


def run_edges(job: Any, edges: Sequence[int], num_threads: int) -> None:
    """A job in bands."""
    run_stages([Stage(job, np.array(edges, np.int32))], num_threads)


def pad_last(array: FloatArray, width: int) -> FloatArray:
    size = array.shape[-1]
    padded = aligned_zeros((*array.shape[:-1], -(-size // width) * width))
    padded[..., :size] = array
    return padded
