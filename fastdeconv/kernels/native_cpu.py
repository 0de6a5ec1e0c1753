"""The native back end: C kernels for every instruction set, driven from here.

Here are the jobs of the way back. The other parts are

`native_general`  the general operations, on planes
`native_forward`  the forward pass, whose bands `block_stages` cuts
`native_steps`    which kernel computes a step, and its weights
`native_packing`  the weights of the first and the last convolution; how many lanes
`native_cells`    the lists that the kernels go by
`native_plans`    passes that are prepared once and run often
`native_scratch`  memory of lane tensors
`native_shared`   what these have in common: the kernels in use, bands, chains of jobs

All arithmetic is in csrc/, through `native`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import native  # type: ignore[attr-defined, unused-ignore]
from .blocks import BlockResults, ForwardBlock
from .interface import FloatArray, Pair, Window
from .lanes import (
    NO_POOL,
    Bf16,
    Combine,
    Convolution,
    First,
    Last,
    Overlap,
    Post,
    Reduce,
    Single,
    Source,
    Step,
    Term,
    View,
    aligned_zeros,
    cached,
    first_phases,
    last_band,
    padded_size,
)
from .native_cells import cells_of, links_of, without_zeros
from .native_forward import forward_blocks, switch_planes
from .native_general import GeneralOperations
from .native_packing import lanes_for, pack_last, places_of_taps, vectors_at_a_time, weight_of_first
from .native_plans import Later, PlannedPasses
from .native_scratch import SCRATCH
from .native_shared import (
    ADD,
    COPY,
    Chain,
    Lanes,
    enough_threads,
    kernels,
    run_chains,
    run_rows,
)
from .native_steps import STEP_KERNELS, has_all_values, takes_winograd
from .recording import cpus
from .schedule import band_edges, copy_edges, shrinking_edges

__all__ = ["BACKEND", "NativeBackend"]

_BY_FEATURE = 8
"""Relative cost of one multiply-add when there are too few features to fill the SIMD lanes."""

_MOST_IN_CHAIN = 1 << 27
"""Bytes of lane tensors beyond which what makes them is run at once, so that those that they are
made from are free for the next ones."""


class NativeBackend(GeneralOperations, PlannedPasses):
    """The kernels of csrc/, on the instruction set chosen by `fastdeconv.config`."""

    name = "native"
    multiplies = joins = spreads = runs_joins = copies_given = True

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
        out = SCRATCH.take((*job.size, *shape)) if own is None else own
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
        out = SCRATCH.take((1, 1, lanes, channels) if by_feature else (1, 1, channels, lanes))
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
        nv = 0 if by_feature else vectors_at_a_time(table, lanes)
        weight = cached(
            conv.cache, ("last", table.name, nv),
            lambda: pack_last(conv.weight, table, nv),
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
    def from_planes(self, planes: FloatArray, bf16: bool) -> Lanes:
        count, channels, h, w = planes.shape
        lanes, by_feature = lanes_for(kernels(), count, bf16)
        # In bfloat16 what is left out shows in the bits, which no other feature may decide.
        rectified = not bf16 and 2 * int(np.count_nonzero(planes)) <= planes.size
        values = SCRATCH.take((h, w, lanes, channels) if by_feature else (h, w, channels, lanes))
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
            v.chain.then(functools.partial(SCRATCH.give, v.values))

    def end(self) -> None:
        SCRATCH.end()

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

def _tensor_of(chain: Chain, shape: tuple[int, ...]) -> Any:
    """A lane tensor that a job of the chain makes, or its place."""
    if chain.places is not None:
        return chain.room(shape)
    tensor = SCRATCH.take(shape)
    chain.held += tensor.nbytes
    return tensor


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
    return job.values.chain if isinstance(job.values, Later) else Chain()


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
        return lanes_for(kernels(), len(job.values), job.bf16)
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
    nv = 0 if by_feature else vectors_at_a_time(table, lanes)
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


def _first(
    table: Any, job: First, post: Post, lanes: int, by_feature: bool, num_threads: int,
    chain: Chain,
) -> Any:
    conv = job.conv
    phases = first_phases(conv.window)
    values: Any
    if isinstance(job.values, Later):
        values, weight = job.values.place, job.values.weight
    else:
        values = np.ascontiguousarray(job.values, np.float32)
        weight = weight_of_first(table, job, lanes, by_feature)
    size = values.shape[1:]
    u = chain.room((*padded_size(size, conv.input_size, conv.window, phases.pad), lanes))
    copy = native.ToChannels(table, values, u, *phases.pad)
    threads = enough_threads(num_threads, math.prod(values.shape) * COPY)
    chain.add(
        native.Framed(copy, u, *phases.pad, size, 1, False), copy_edges(size[0], threads), threads
    )
    return native.First(
        table, u, weight, by_feature, conv.input_channels, phases.start,
        places_of_taps(conv.window, u.shape[1], lanes), phases.tap, conv.window, post,
        _viewed(post.more), conv.input_size,
    )
