"""The native back end: C kernels for every instruction set, driven from here.

Here are the general operations and the jobs of the way back. The forward pass is in
`native_forward`, the kernels of a step in `native_steps`, the lists they go by in
`native_cells`. All arithmetic is in csrc/ (through `native`).
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import native  # type: ignore[attr-defined, unused-ignore]
from .blocks import BlockResults, ForwardBlock
from .interface import FloatArray, Pair, Window, switch_dtype
from .lanes import (
    NO_POOL,
    Bf16,
    Combine,
    Convolution,
    First,
    Given,
    Last,
    Overlap,
    Post,
    Read,
    Reduce,
    Single,
    Source,
    Step,
    Term,
    View,
    aligned,
    aligned_empty,
    aligned_zeros,
    cached,
    first_phases,
    first_weight,
    last_band,
    pack_scatter,
    padded_size,
)
from .native_cells import cells_of, links_of, without_zeros
from .native_forward import (
    Channels,
    forward_blocks,
    origin_steps,
    pack_forward,
    pad_lanes,
    switch_planes,
    tap_offsets,
    to_channels,
)
from .native_shared import (
    ADD,
    COPY,
    Chain,
    Lanes,
    Places,
    Plan,
    Stage,
    enough_threads,
    in_turn,
    kernels,
    most_bands,
    pad_last,
    run_chains,
    run_rows,
    run_stages,
)
from .native_steps import STEP_KERNELS, has_all_values, takes_winograd
from .recording import cpus
from .schedule import band_edges, copy_edges, shrinking_edges

__all__ = ["BACKEND", "NativeBackend"]

_FLOAT = np.dtype(np.float32)

_BY_FEATURE = 8
"""Relative cost of one multiply-add when there are too few features to fill the SIMD lanes."""

_KEPT, _KEPT_MEANWHILE = 1 << 26, 1 << 28
"""Bytes of lane tensors that are kept for the next one, for good and while jobs go on."""

_MOST_IN_CHAIN = 1 << 27
"""Bytes of lane tensors beyond which what makes them is run at once, so that those that they are
made from are free for the next ones."""

_MOST_PLANNED, _MOST_PLANNED_FOR_MANY, _MANY = 1 << 24, 1 << 26, 8
"""Bytes of the memory of planned passes that run together, and those with `_MANY` threads or more.
Nothing in it is used twice. What needs more takes so long that it does not matter how its jobs are
prepared, unless many threads wait for that: of the predicted 7 ms of 64 features on 16 cores it is
0.4."""


class _Later:
    """Stands for the start of a pass that is planned, (K, H, W)."""

    def __init__(self, place: Any, chain: Chain) -> None:
        self.place, self.chain = place, chain
        self.size = math.prod(place.shape)

    def __len__(self) -> int:
        count: int = self.place.shape[0]
        return count


class _PassPlan(NamedTuple):
    """A plan, and what it wants the weights of the features for."""

    plan: Plan
    table: Any
    conv: Convolution
    lanes: int
    by_feature: bool


class _Together(NamedTuple):
    """Plans of passes that run together."""

    passes: list[_PassPlan]
    stages: list[Stage]
    """Of all passes. In the place of its job each has the numbers of its pass and of its stage
    there."""
    threads: int
    most: int
    """How many bands may run at the same time."""


# The arrays of a planned pass; number 0 is its memory. From number _LISTS on there are
# those of the trace, _EACH for every convolution after the first.
_VALUES, _SWITCHES, _WEIGHT, _ROWS, _OUT, _LISTS = range(1, 7)
_EACH = 4


class NativeBackend:
    """The kernels of csrc/, on the instruction set chosen by `fastdeconv.config`."""

    name = "native"
    multiplies = joins = spreads = runs_joins = copies_given = True

    # ---- the general operations, (N, C, H, W) ----

    def conv2d(
        self, x: FloatArray, weight: FloatArray, bias: FloatArray | None,
        window: Window, groups: int, out_size: Pair, num_threads: int,
    ) -> FloatArray:
        table = kernels()
        packed = pack_forward(weight, groups, table.width)
        bias_lanes = pad_lanes(bias, weight.shape[0], table.width)
        out = np.empty((x.shape[0], weight.shape[0], *out_size), np.float32)
        for sample, planes in zip(x, out):
            inside = to_channels(sample, window.padding, num_threads)
            job = native.Conv(
                table, inside.buffer, 0, *origin_steps(inside, window),
                tap_offsets(inside, window), weight.shape[1], weight.shape[0], groups,
                packed, bias_lanes, *out_size, planes, 0, out_size[1], 1,
                out_size[0] * out_size[1],
            )
            run_rows(job, out_size[0], num_threads)
        return out

    def conv_transpose2d(
        self, x: FloatArray, weight: FloatArray, bias: FloatArray | None,
        window: Window, groups: int, out_size: Pair, num_threads: int,
    ) -> FloatArray:
        """Every output phase (place modulo stride) is a small convolution of its own."""
        phases = first_phases(window)
        channels = weight.shape[1] * groups
        out = np.empty((x.shape[0], channels, *out_size), np.float32)
        flipped = _transposed_weight(weight, groups)
        table = kernels()
        bias_lanes = pad_lanes(bias, channels, table.width)
        rows, cols = padded_size(x.shape[2:], out_size, window, phases.pad)
        (top, left), (h, w) = phases.pad, x.shape[2:]
        padding = (top, rows - top - h), (left, cols - left - w)
        weights = [pack_forward(flipped[:, :, t], groups, table.width) for t in _taps(phases)]
        for sample, planes in zip(x, out):
            inside = to_channels(sample, padding, num_threads)
            for phase, packed in enumerate(weights):
                job = _phase_job(
                    table, inside, phases, phase, packed, bias_lanes, window, groups,
                    weight.shape[0] // groups, planes,
                )
                if job is not None:
                    run_rows(job, _phase_rows(out_size, window, phase), num_threads)
        return out

    def max_pool2d(
        self, x: FloatArray, window: Window, out_size: Pair, num_threads: int
    ) -> tuple[FloatArray, NDArray[Any]]:
        planes = x.reshape(-1, *x.shape[2:])
        values = np.empty((len(planes), *out_size), np.float32)
        switches = np.empty(values.shape, switch_dtype(window.kernel))
        if len(planes):
            job = native.PoolPlanes(planes, window, values, switches)
            run_rows(job, len(planes), num_threads)
        shape = (*x.shape[:2], *out_size)
        return values.reshape(shape), switches.reshape(shape)

    def max_unpool2d(
        self, values: FloatArray, switches: NDArray[Any],
        window: Window, out_size: Pair, num_threads: int,
    ) -> FloatArray:
        planes = values.reshape(-1, *values.shape[2:])
        out = np.empty((len(planes), *out_size), np.float32)
        if len(planes):
            job = native.UnpoolPlanes(planes, switches, window, out)
            run_rows(job, len(planes), enough_threads(num_threads, out.size * COPY))
        return out.reshape(*values.shape[:2], *out_size)

    # ---- the forward pass ----

    def forward_blocks(
        self, given: Mapping[int, Any], blocks: Sequence[ForwardBlock], algorithm: str,
        num_threads: int,
    ) -> BlockResults:
        """See `fastdeconv.kernels.blocks.BlockBackend`."""
        return forward_blocks(given, blocks, algorithm, min(num_threads, cpus()))

    def switch_planes(
        self, switches: NDArray[Any], channels: int, num_threads: int
    ) -> NDArray[Any]:
        """See `fastdeconv.kernels.blocks.BlockBackend`."""
        return switch_planes(switches, channels, num_threads)

    # ---- the backward pass ----

    def bf16(self) -> Bf16:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        result: Bf16 = kernels().bf16
        return result

    def project(self, job: First | Step, num_threads: int) -> Lanes:
        table = kernels()
        adds = _settle_what_is_added(job)
        chain = _chain_of(job)
        kernel, lanes, by_feature = _prepare(table, job, num_threads, chain)
        h, w = job.conv.input_size
        channels = job.conv.input_channels
        shape = (h, w, lanes, channels) if by_feature else (h, w, channels, lanes)
        out = _tensor_of(chain, shape)
        sums = None
        if job.post.counts is not None:
            sums = aligned_zeros((h, 1, *out.shape[2:]))
            kernel.sum_up(job.post.counts, sums)
        threads = enough_threads(num_threads, _multiply_adds(job))
        chain.add(kernel.into(out), _edges(kernel, h, threads), threads)
        result = Lanes(out, lanes, by_feature, _rectifies(job.post), chain, sums)
        if adds or chain.held > _MOST_IN_CHAIN:
            _settle(result)
        return result

    def add_overlaps(self, job: Overlap, num_threads: int) -> Lanes:
        table, v, source, chain = kernels(), job.v, job.source, job.v.chain
        whole_v = (job.origin, v.values.shape[:2]) == (source.origin, source.cells)
        shape = *source.cells, *v.values.shape[2:]
        out = v.values if whole_v else _tensor_of(chain, shape)
        kernel = native.Overlap(
            table, v.values, v.lanes, v.by_feature, job.origin, source,
            cells_of(source, num_threads), links_of(source, num_threads)[0],
            _readable(table, job.post), out,
        )
        rows, threads = source.cells[0], enough_threads(num_threads, math.prod(shape) * COPY)
        chain.add(kernel, band_edges(rows, threads), threads)
        if not whole_v:
            self.release(v)
        rectified = v.rectified or _rectifies(job.post)
        return Lanes(out, v.lanes, v.by_feature, rectified, chain)

    def fuses(self, above: First | Step, source: Source, conv: Convolution) -> bool:
        """Whether a step can take its values from the job above while they are in cache."""
        if isinstance(above, First):
            # Tiles come to its rows one after the other, and want few of them at a time.
            return takes_winograd(kernels(), Step(above, source, conv, Post(), above.bf16))
        pointwise = conv.groups == 1 and conv.window == NO_POOL
        # What leaves out zeros does less than what saves the way to memory and back.
        return (
            pointwise and has_all_values(source)
            and isinstance(above.v, Lanes)
            and not above.bf16 and not _rectifies(above.post)
        )

    def combine(self, job: Combine, num_threads: int) -> Lanes:
        terms = job.terms
        if len(terms) > native.MOST_TERMS:
            sums = job._replace(terms=terms[: native.MOST_TERMS], post=Post(), into=None)
            rest = [Term(View(self.combine(sums, num_threads))), *terms[native.MOST_TERMS :]]
            return self.combine(job._replace(terms=rest, into=0), num_threads)
        table, like = kernels(), terms[0].view.v
        for term in terms:
            _settle(term.view.v)
        lanes, by_feature = like.lanes, like.by_feature
        shape = (lanes, job.channels) if by_feature else (job.channels, lanes)
        own = None if job.into is None else terms[job.into].view.v.values
        out = _scratch.take((*job.size, *shape)) if own is None else own
        kernel = native.Combine(
            table, [(_viewed(term.view), term.factor) for term in terms], lanes, by_feature,
            job.channels, _readable(table, job.post), out,
        )
        threads = enough_threads(num_threads, len(terms) * out.size * ADD)
        run_rows(kernel, job.size[0], threads)
        rectified = _rectifies(job.post) or all(term.view.v.rectified for term in terms)
        return Lanes(out, lanes, by_feature, rectified, Chain())

    def reduce(self, job: Reduce, num_threads: int) -> Lanes:
        table, (view, factor), channels = kernels(), job.term, job.channels
        _settle(view.v)
        lanes, by_feature, size = view.v.lanes, view.v.by_feature, job.size
        if view.v.sums is not None:
            view, factor, size = View(view.v._replace(values=view.v.sums)), None, (size[0], 1)
        out = _scratch.take((1, 1, lanes, channels) if by_feature else (1, 1, channels, lanes))
        kernel = native.Reduce(table, _viewed(view), factor, lanes, by_feature, size, channels, out)
        threads = enough_threads(num_threads, math.prod(size) * out.size * ADD)
        run_rows(kernel, channels, threads)
        return Lanes(out, lanes, by_feature, False, Chain())

    def add_maps(self, v: Lanes, maps: FloatArray, features: NDArray[np.intp]) -> None:
        """Add maps (K, H, W), map k to channel features[k] of its lane."""
        _settle(v)
        own = np.arange(len(features))
        at = (slice(None), slice(None), *((own, features) if v.by_feature else (features, own)))
        v.values[at] += maps.transpose(1, 2, 0)

    def project_last(
        self, job: Last, out: FloatArray, rows: NDArray[np.intp], num_threads: int
    ) -> Chain:
        table, conv = kernels(), job.conv
        if isinstance(rows, np.ndarray):
            rows = rows.astype(np.int32)
        adds = False
        if isinstance(job.above, Lanes):
            chain = job.above.chain
            above, lanes, by_feature = job.above[:3]
        else:
            adds = _settle_what_is_added(job.above)
            chain = _chain_of(job.above)
            above, lanes, by_feature = _prepare(table, job.above, num_threads, chain)
        nv = 0 if by_feature else _vectors(table, lanes)
        weight = cached(
            conv.cache, ("last", table.name, nv),
            lambda: _pack_last(conv.weight, table, nv),
        )
        kernel = native.Last(
            table, above, lanes, nv, job.source, cells_of(job.source, num_threads),
            conv.window, conv.input_channels, weight, rows, out,
        )
        reach, advance, row = kernel.reach()
        band = last_band(reach, advance, job.rows)
        skip = job.source.origin[0] % band
        bands = -(-(job.source.cells[0] + skip) // band)
        shared = reach - advance
        side = chain.room((bands, 2, shared, row)) if bands > 1 and shared else None
        kernel.set_bands(band, skip, side)
        values = math.prod(job.source.cells) * job.source.channels * lanes
        work = values * conv.weight[0].size
        if not isinstance(job.above, Lanes):
            work += _multiply_adds(job.above)
        threads = enough_threads(num_threads, _BY_FEATURE * work if by_feature else work)
        edges = shrinking_edges(bands, threads)
        chain.add(kernel, edges, threads)
        if side is not None:
            seams = np.arange(bands, dtype=np.int32)
            # Between band i and i + 1: the latter has to be done.
            chain.add_after(
                native.Seams(kernel), seams, np.searchsorted(edges, seams[1:], side="right")
            )
        if adds:
            chain.run()
        return chain

    def finish(self, left: Sequence[Chain]) -> None:
        run_chains(left)

    def plan(
        self, given: Given, conv: Convolution, read: Sequence[Read], bf16: bool,
        unpool: tuple[Window, Pair] | None,
        follow: Callable[[Any, Any, Any, Sequence[Read]], Chain], num_threads: int,
    ) -> _PassPlan | None:
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
        follow(_Later(values, chain), rows, _place(_OUT, given.out.shape), later)
        table, plan = kernels(), chain.plan()
        if places.size > _most_planned(plan.threads):
            return None
        return _PassPlan(plan, table, conv, *_lanes(table, len(given.values), bf16))

    def lists(self, read: Sequence[Read], num_threads: int) -> list[NDArray[Any]]:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        found: list[NDArray[Any]] = []
        for source, factor in read:
            order, first, _ = cells_of(source, num_threads)
            following = links_of(source, num_threads)[0] if source.pool.overlapping else order
            found += [order, first, following]
            found.append(order if factor is None else np.ascontiguousarray(factor))
        return found

    def together(self, passes: list[_PassPlan], num_threads: int) -> _Together | None:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        threads = min(num_threads, sum(one.plan.threads for one in passes))
        if sum(one.plan.size for one in passes) > _most_planned(threads):
            return None
        each = [one.plan.stages for one in passes]
        numbered = [
            [stage._replace(job=(i, j)) for j, stage in enumerate(stages)]
            for i, stages in enumerate(each)
        ]
        return _Together(passes, in_turn(numbered), threads, most_bands(each))

    def run_plans(self, together: _Together, given: Sequence[Given]) -> None:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        each = [
            plan.plan.on(_arrays_of(plan, one))[1] for plan, one in zip(together.passes, given)
        ]
        stages = each[0] if len(each) == 1 else [
            Stage(each[i][j].job, edges, needs) for (i, j), edges, needs in together.stages
        ]
        run_stages(stages, together.threads, together.most)

    def from_planes(self, planes: FloatArray, bf16: bool) -> Lanes:
        count, channels, h, w = planes.shape
        lanes, by_feature = _lanes(kernels(), count, bf16)
        # In bfloat16 what is left out shows in the bits, which no other feature may decide.
        rectified = not bf16 and 2 * int(np.count_nonzero(planes)) <= planes.size
        values = _scratch.take((h, w, lanes, channels) if by_feature else (h, w, channels, lanes))
        if by_feature:
            values[...] = planes.transpose(2, 3, 0, 1)
        else:
            values[..., :count] = planes.transpose(2, 3, 1, 0)
            values[..., count:] = 0
        return Lanes(values, lanes, by_feature, rectified, Chain())

    def project_single(self, job: Single, out: FloatArray, num_threads: int) -> None:
        """Run a job into planes `out` (K, C, H, W)."""
        kernel = native.Single(
            kernels(), np.ascontiguousarray(job.values, np.float32), job.switches,
            job.features.astype(np.int32), job.rows.astype(np.int32), job.pool,
            np.ascontiguousarray(job.conv.weight[job.features]), job.conv.window, out,
        )
        run_rows(kernel, len(job.rows), num_threads)

    def release(self, v: Lanes) -> None:
        if v.chain.places is None:
            v.chain.then(functools.partial(_scratch.give, v.values))

    def end(self) -> None:
        _scratch.keep(_KEPT)

    def to_planes(self, v: Lanes, planes: FloatArray, num_threads: int) -> None:
        _settle(v)
        if v.by_feature:
            planes[:] = v.values.transpose(2, 3, 0, 1)
            return
        whole = planes if planes.flags.c_contiguous else np.empty(planes.shape, np.float32)
        run_rows(native.ToPlanes(kernels(), v.values, whole), v.values.shape[0], num_threads)
        if whole is not planes:
            planes[:] = whole


BACKEND = NativeBackend()


class _Scratch:
    """Lane tensors that nobody uses any more, kept for the next ones.

    New memory from the system costs page faults: 10 to 20 ms of the 90 that the 64 features of the
    deepest layer take.
    """

    def __init__(self) -> None:
        # No lock, as in schedule.py: an interrupted caller would not let go of it.
        self._free: deque[FloatArray] = deque()

    def take(self, shape: tuple[int, ...]) -> FloatArray:
        size = math.prod(shape)
        found: FloatArray | None = None
        for _ in range(len(self._free)):
            memory = self._take_any()
            if memory is None:
                break
            # The smallest that is large enough, but none of which most would not be used.
            if size <= memory.size <= 4 * size and (found is None or memory.size < found.size):
                memory, found = found, memory
            if memory is not None:
                self._free.append(memory)
        flat = aligned_empty((size,)) if found is None else found[:size]
        return flat.reshape(shape)

    def give(self, tensor: FloatArray) -> None:
        """Take a tensor that nobody uses any more."""
        memory = tensor.base
        assert isinstance(memory, np.ndarray)
        self._free.append(aligned(memory))
        self.keep(_KEPT_MEANWHILE)

    def keep(self, most: int) -> None:
        """Free the tensors beyond `most` bytes."""
        while sum(a.nbytes for a in self._free.copy()) > most:
            self._take_any()

    def _take_any(self) -> FloatArray | None:
        try:
            return self._free.popleft()
        except IndexError:  # another thread has taken the last one
            return None


_scratch = _Scratch()


def _tensor_of(chain: Chain, shape: tuple[int, ...]) -> Any:
    """A lane tensor that a job of the chain makes, or its place."""
    if chain.places is not None:
        return chain.room(shape)
    tensor = _scratch.take(shape)
    chain.held += tensor.nbytes
    return tensor


def _most_planned(threads: int) -> int:
    """The most bytes that planned passes may have that run together on so many threads."""
    return _MOST_PLANNED_FOR_MANY if threads >= _MANY else _MOST_PLANNED


def _place(array: int, shape: tuple[int, ...], dtype: Any = _FLOAT) -> Any:
    """The place of a whole array that is given in each pass."""
    return native.Place(array, 0, shape, dtype)


def _arrays_of(plan: _PassPlan, given: Given) -> list[Any]:
    """The arrays of a planned pass, without its memory."""
    values = np.ascontiguousarray(given.values, np.float32)
    job = First(values, given.features, plan.conv, Post(), False)
    weight = _first_weight(plan.table, job, plan.lanes, plan.by_feature)
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


def _edges(kernel: Any, rows: int, threads: int) -> tuple[int, ...]:
    """The bands of a job. They begin where a row of tiles does, which would be computed twice."""
    tiles = kernel.tiles if isinstance(kernel, native.Step) else None
    if tiles is None:
        return shrinking_edges(rows, threads)
    top, across, together = tiles
    count = (rows + top + 1) // 2
    # In bands of fewer rows of tiles, those that are multiplied together would not be complete.
    unit = min(together // math.gcd(across, together), -(-count // threads))
    between = shrinking_edges(-(-count // unit), threads)[1:-1]
    return 0, *(2 * unit * edge - top for edge in between), rows


def _multiply_adds(job: First | Step) -> int:
    """Multiply-adds of a job, as if it had no pool; with a pool there are fewer."""
    if isinstance(job, Step) and not isinstance(job.v, Lanes):
        lanes, _ = _lanes_of(job)
        own = math.prod(job.conv.input_size) * lanes * job.conv.weight.size
        return own + _multiply_adds(job.v)
    values = job.values.size if isinstance(job, First) else math.prod(job.v.values.shape)
    return int(values) * job.conv.weight[0].size


# ---- transposed convolution by phases ----


def _transposed_weight(weight: FloatArray, groups: int) -> FloatArray:
    """(O, C / groups, kh, kw) as (C, O / groups, taps), the filters of the adjoint."""
    out, inner = weight.shape[:2]
    split = weight.reshape(groups, out // groups, inner, -1)
    return np.ascontiguousarray(
        split.transpose(0, 2, 1, 3).reshape(groups * inner, out // groups, -1)
    )


def _taps(phases: Any) -> list[NDArray[np.int32]]:
    return [phases.tap[a:b] for a, b in zip(phases.start, phases.start[1:])]


def _phase_start(phase: int, window: Window) -> Pair:
    """The first output row and column of a phase."""
    py, px = divmod(phase, window.stride[1])
    return (
        (py - window.padding[0][0]) % window.stride[0],
        (px - window.padding[1][0]) % window.stride[1],
    )


def _phase_rows(out_size: Pair, window: Window, phase: int) -> int:
    """The number of output rows of a phase."""
    return -(-(out_size[0] - _phase_start(phase, window)[0]) // window.stride[0])


def _phase_job(
    table: Any, x: Channels, phases: Any, phase: int, packed: FloatArray, bias: FloatArray,
    window: Window, groups: int, cin: int, planes: FloatArray,
) -> Any:
    """The convolution that computes one phase of the output; None when it has no pixels."""
    channels, h, w = planes.shape
    y0, x0 = _phase_start(phase, window)
    rows = _phase_rows((h, w), window, phase)
    cols = -(-(w - x0) // window.stride[1])
    if rows < 1 or cols < 1:
        return None
    (sh, sw), ((top, _), (left, _)) = window.stride, window.padding
    a, b = phases.start[phase], phases.start[phase + 1]
    origin = x.offset(x.top + (y0 + top) // sh, x.left + (x0 + left) // sw)
    row, col = x.offset(1, 0), x.offset(0, 1)
    back = phases.back[a:b]
    return native.Conv(
        table, x.buffer, origin, row, col,
        np.ascontiguousarray(-(back[:, 0] * row + back[:, 1] * col), np.intp),
        cin, channels, groups, packed, bias, rows, cols,
        planes, y0 * w + x0, sh * w, sw, h * w,
    )


# ---- the backward pass: packing ----


def _lanes(table: Any, count: int, bf16: bool) -> tuple[int, bool]:
    """The number of lanes for `count` features, and whether their layout is by feature.

    Few features would leave most lanes empty. Then the layout is by feature, and the kernels have
    output channels in the lanes. Not for tiles, where a feature's bits would depend on how many
    others share its call.
    """
    width: int = table.width
    in_tiles = bf16 and table.bf16 == "tiles"
    if count <= width // 2 and not in_tiles:
        return count, True
    # Short vectors are computed in pairs.
    unit = width if width >= 16 or count <= width else 2 * width
    return -(-count // unit) * unit, False


def _vectors(table: Any, lanes: int) -> int:
    """How many vectors of lanes a product works on at a time: the most that divide the tensor."""
    vectors = lanes // table.width
    return max(n for n in range(1, table.max_nv + 1) if vectors % n == 0)


def _settle(v: Lanes) -> None:
    """Run all jobs that make the values of a lane tensor or read them."""
    v.chain.run()


def _settle_what_is_added(job: First | Step) -> bool:
    """Run the jobs that make the tensors which a job adds to its sums; returns if there are any.

    Such a job has to run before these tensors are released, since they belong to other chains.
    """
    adds = job.post.more is not None
    if job.post.more is not None:
        _settle(job.post.more.v)
    if isinstance(job, Step) and not isinstance(job.v, Lanes):
        return _settle_what_is_added(job.v) or adds
    return adds


def _chain_of(job: First | Step) -> Chain:
    """The jobs that a job follows."""
    while isinstance(job, Step):
        if isinstance(job.v, Lanes):
            return job.v.chain
        job = job.v
    return job.values.chain if isinstance(job.values, _Later) else Chain()


def _prepare(
    table: Any, job: First | Step, num_threads: int, chain: Chain
) -> tuple[Any, int, bool]:
    """The kernel object of a job, the lanes of its result, and whether that is by feature.

    What has to run before it is added to the chain.
    """
    post = _readable(table, job.post)
    lanes, by_feature = _lanes_of(job)
    if isinstance(job, Step):
        return _step(table, job, post, num_threads, chain), lanes, by_feature
    return _first(table, job, post, lanes, by_feature, num_threads, chain), lanes, by_feature


def _lanes_of(job: First | Step) -> tuple[int, bool]:
    """The lanes of a job's result, and whether its layout is by feature."""
    if isinstance(job, First):
        return _lanes(kernels(), len(job.values), job.bf16)
    if isinstance(job.v, Lanes):
        return job.v.lanes, job.v.by_feature
    return _lanes_of(job.v)


def _readable(table: Any, post: Post) -> Post:
    """`post` as kernels take it: where a group ends within a vector they read beyond its scales."""
    if post.scale is None:
        return post
    padding = (0, 2 * table.width - len(post.scale) % table.width)
    return post._replace(scale=np.pad(post.scale, padding))


def _step(table: Any, job: Step, post: Post, num_threads: int, chain: Chain) -> Any:
    conv, source = job.conv, job.source
    lanes, by_feature = _lanes_of(job)
    nv = 0 if by_feature else _vectors(table, lanes)
    cells = cells_of(source, num_threads)
    if isinstance(job.v, Lanes):
        v = job.v.values
    else:
        v, _, _ = _prepare(table, job.v, num_threads, chain)
    window = conv.window
    kernel = next(kernel for kernel in STEP_KERNELS if kernel.takes(table, job))
    alone = lanes == 1 and isinstance(job.v, Lanes)
    if alone and kernel.filtered and source.open_places is None:
        cells = without_zeros(source, cells, job.v.values, num_threads, chain)
    if window.stride != (1, 1) and kernel.in_lists:
        source, window = _with_stride(source, window)
    step = native.Step(
        table, v, lanes, nv, source, cells, window, conv.groups,
        conv.input_channels, post, _viewed(post.more), conv.input_size,
    )
    key = kernel.name, table.name, kernel.packing(nv)
    weight = cached(conv.cache, key, lambda: kernel.pack(conv, table, nv))
    getattr(step, kernel.give)(weight)
    return step


def _with_stride(source: Source, window: Window) -> tuple[Source, Window]:
    """A convolution with a stride, as one of stride 1 of a source with gaps between its values."""
    pool, stride = source.pool, window.stride
    rows_around, columns_around = (_times(side, (s, s)) for side, s in zip(pool.padding, stride))
    wide = Window(
        pool.kernel, _times(pool.stride, stride), _times(pool.dilation, stride),
        (rows_around, columns_around),
    )
    rows, columns = ((n - 1) * s + 1 for n, s in zip(source.size, stride))
    return source._replace(pool=wide, size=(rows, columns)), window._replace(stride=(1, 1))


def _times(one: Pair, other: Pair) -> Pair:
    return one[0] * other[0], one[1] * other[1]


def _viewed(view: View | None) -> tuple[FloatArray, int, int, int, int] | None:
    """A view for kernels: the tensor, its first element, and the elements between rows, columns
    and, in the layout by feature, features."""
    if view is None:
        return None
    values, lanes, by_feature = view.v[:3]
    _, w, *pixel = values.shape
    column = math.prod(pixel)
    channel = view.channel * (1 if by_feature else lanes)
    if view.repeated:
        return values, channel, 0, 0, pixel[1]
    row, first = w * column, view.origin[0] * w + view.origin[1]
    return values, first * column + channel, row, column, pixel[1]


def _rectifies(post: Post) -> bool:
    return post.relu_before or post.relu_after


def _pack_last(weight: FloatArray, table: Any, nv: int) -> FloatArray:
    """Weights of a `Last` as csrc/project.c wants them; nv 0 by feature."""
    if nv:
        return pack_scatter(weight, table.tile_nc(nv))
    pairs = weight[0].size
    return pad_last(pack_scatter(weight, pairs).reshape(-1, pairs), table.width)


def _first(
    table: Any, job: First, post: Post, lanes: int, by_feature: bool, num_threads: int,
    chain: Chain,
) -> Any:
    conv = job.conv
    phases = first_phases(conv.window)
    values: Any
    if isinstance(job.values, _Later):
        values, weight = job.values.place, _place(_WEIGHT, ())
    else:
        values = np.ascontiguousarray(job.values, np.float32)
        weight = _first_weight(table, job, lanes, by_feature)
    size = values.shape[1:]
    u = chain.room((*padded_size(size, conv.input_size, conv.window, phases.pad), lanes))
    copy = native.ToChannels(table, values, u, *phases.pad)
    threads = enough_threads(num_threads, math.prod(values.shape) * COPY)
    chain.add(
        native.Framed(copy, u, *phases.pad, size, 1, False), copy_edges(size[0], threads), threads
    )
    return native.First(
        table, u, weight, by_feature, conv.input_channels, phases.start,
        _places(conv.window, u.shape[1], lanes), phases.tap, conv.window, post,
        _viewed(post.more), conv.input_size,
    )


def _first_weight(table: Any, job: First, lanes: int, by_feature: bool) -> FloatArray:
    """The weights of a first convolution as csrc/project.c wants them."""
    conv = job.conv
    if not by_feature:
        return first_weight(job, lanes)
    if conv.groups > 1:
        weight = first_weight(job, lanes)
        return np.ascontiguousarray(pad_last(weight.transpose(1, 2, 0), table.width))
    packed: FloatArray = cached(
        conv.cache, ("first", table.width), lambda: _pack_first(conv.weight, table)
    )
    return packed.take(job.features, axis=1)


def _pack_first(weight: FloatArray, table: Any) -> FloatArray:
    """Weights of a `First` by feature: (taps, O, C in whole vectors)."""
    out, inner = weight.shape[:2]
    return pad_last(weight.reshape(out, inner, -1).transpose(2, 0, 1), table.width)


@functools.lru_cache(maxsize=256)
def _places(window: Window, columns: int, lanes: int) -> NDArray[np.intp]:
    """Where the taps of a first convolution read, in a start with so many columns."""
    phases = first_phases(window)
    places = (np.array(phases.pad) - phases.back) @ np.array([columns * lanes, lanes])
    return np.ascontiguousarray(places, np.intp)
