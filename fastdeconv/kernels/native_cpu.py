"""The native back end: C kernels for every instruction set, driven from here.

This module lays out memory, packs weights and cuts the work into bands; all
arithmetic is in csrc/ (through `native`). Activations travel in `Channels`: channels
last, with room for the next convolution's padding around them, so that no kernel
tests a border and nothing is copied between layers.
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
from .activations import InKernel
from .block_stages import BlockStages, Reach, Work
from .blocks import ConvBlock, Epilogue, ForwardBlock, JoinBlock, Pool, PoolBlock
from .dispatch import get_isa
from .interface import FloatArray, Padding, Pair, Window, switch_dtype
from .lanes import (
    NO_POOL,
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
    aligned,
    aligned_copy,
    aligned_empty,
    aligned_zeros,
    cached,
    first_phases,
    first_room,
    first_weight,
    last_band,
    pack_blocks,
    pack_scatter,
    padded_size,
    shared_windows,
)
from .schedule import band_edges, copy_edges, run_bands, run_stages, shrinking_edges
from .winograd import error_bound, transform_filters

__all__ = ["BACKEND", "Channels", "NativeBackend"]

_SPLIT = 16_000_000
"""Multiply-adds worth a thread: some 0.15 ms."""

_BY_FEATURE = 8
"""How much longer a multiply-add takes with so few features that they are kept out of the lanes."""

_COPY = 64
"""Multiply-adds in the time one value is copied to another layout,"""

_ADD = 16
"""and in the time one is read and added."""

_KEPT, _KEPT_MEANWHILE = 1 << 26, 1 << 28
"""Bytes of lane tensors that are kept for the next one, for good and while jobs go on."""

_WINOGRAD_INPUTS = 16
"""Input channels from which on Winograd's algorithm is not slower (8: 1.0 to 1.1 of the direct
time, 16: 0.8 to 1.0, 32: 0.6 to 0.7)."""

_LARGEST_SLOPE = 1e15
"""Of an error bound: beyond it, and inputs as large, sums might overflow on the way."""

_TABLES: dict[str, Any] = native.tables()


class Channels(NamedTuple):
    """An activation (height, width, channels), padded with zeros on all sides."""

    buffer: FloatArray
    """(rows, columns, Cs), Cs >= channels"""
    top: int
    left: int
    shape: tuple[int, int, int]
    """(C, H, W) of what is inside the padding"""

    def planes(self) -> FloatArray:
        """The activation as a (C, H, W) array."""
        c, h, w = self.shape
        table, stored = _table(), self.buffer.shape[2]
        if self.buffer.shape[:2] == (h, w) and stored % table.width == 0:
            planes = np.empty((c, h, w), np.float32)
            native.lanes_to_planes(
                table, self.buffer.reshape(h, w, 1, stored), planes.reshape(c, 1, h, w), 0, h
            )
            return planes
        inside = self.buffer[self.top : self.top + h, self.left : self.left + w, :c]
        return np.ascontiguousarray(inside.transpose(2, 0, 1))

    def largest(self) -> float:
        """Its largest absolute value."""
        return float(max(self.buffer.max(), -self.buffer.min()))

    def offset(self, row: int, column: int) -> int:
        """Element of the buffer where padded place (row, column) starts."""
        return (row * self.buffer.shape[1] + column) * self.buffer.shape[2]


class Lanes(NamedTuple):
    """A lane tensor."""

    values: FloatArray
    """(H, W, C, lanes), lanes in whole vectors; `by_feature`: (H, W, lanes, C), one a feature"""
    lanes: int
    by_feature: bool
    rectified: bool
    """Whether many of the values are zero."""
    sums: FloatArray | None = None
    """Of every row, as `Post.counts` asked for them."""


class NativeBackend:
    """The kernels of csrc/, on the instruction set chosen by `fastdeconv.config`."""

    name = "native"
    multiplies = joins = spreads = runs_joins = True

    # ---- the general operations, (N, C, H, W) ----

    def conv2d(
        self, x: FloatArray, weight: FloatArray, bias: FloatArray | None,
        window: Window, groups: int, out_size: Pair, num_threads: int,
    ) -> FloatArray:
        table = _table()
        packed = _pack_forward(weight, groups, table.width)
        bias_lanes = _pad_lanes(bias, weight.shape[0], table.width)
        out = np.empty((x.shape[0], weight.shape[0], *out_size), np.float32)
        for sample, planes in zip(x, out):
            inside = to_channels(sample, window.padding, num_threads)
            job = native.Conv(
                table, inside.buffer, 0, *_origin_steps(inside, window),
                _tap_offsets(inside, window), weight.shape[1], weight.shape[0], groups,
                packed, bias_lanes, *out_size, planes, 0, out_size[1], 1,
                out_size[0] * out_size[1],
            )
            _run_rows(job.planes_rows, out_size[0], num_threads)
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
        table = _table()
        bias_lanes = _pad_lanes(bias, channels, table.width)
        rows, cols = padded_size(x.shape[2:], out_size, window, phases.pad)
        (top, left), (h, w) = phases.pad, x.shape[2:]
        padding = (top, rows - top - h), (left, cols - left - w)
        weights = [_pack_forward(flipped[:, :, t], groups, table.width) for t in _taps(phases)]
        for sample, planes in zip(x, out):
            inside = to_channels(sample, padding, num_threads)
            for phase, packed in enumerate(weights):
                job = _phase_job(
                    table, inside, phases, phase, packed, bias_lanes, window, groups,
                    weight.shape[0] // groups, planes,
                )
                if job is not None:
                    _run_rows(job.planes_rows, _phase_rows(out_size, window, phase), num_threads)
        return out

    def max_pool2d(
        self, x: FloatArray, window: Window, out_size: Pair, num_threads: int
    ) -> tuple[FloatArray, NDArray[Any]]:
        planes = x.reshape(-1, *x.shape[2:])
        values = np.empty((len(planes), *out_size), np.float32)
        switches = np.empty(values.shape, switch_dtype(window.kernel))
        if len(planes):
            _run_rows(
                lambda a, b: native.pool_planes(planes, window, values, switches, a, b),
                len(planes), num_threads,
            )
        shape = (*x.shape[:2], *out_size)
        return values.reshape(shape), switches.reshape(shape)

    def max_unpool2d(
        self, values: FloatArray, switches: NDArray[Any],
        window: Window, out_size: Pair, num_threads: int,
    ) -> FloatArray:
        planes = values.reshape(-1, *values.shape[2:])
        out = np.empty((len(planes), *out_size), np.float32)
        if len(planes):
            _run_rows(
                lambda a, b: native.unpool_planes(planes, switches, window, out, a, b),
                len(planes), num_threads,
            )
        return out.reshape(*values.shape[:2], *out_size)

    # ---- the forward pass ----

    def forward_blocks(
        self, given: Mapping[int, Any], blocks: Sequence[ForwardBlock], algorithm: str,
        num_threads: int,
    ) -> list[tuple[Channels, NDArray[Any] | None]]:
        """See `fastdeconv.kernels.blocks.BlockBackend`.

        Everything is prepared before anything runs: Python between kernels, which have the
        caches to themselves, takes twice as long.
        """
        threads = _enough_threads(num_threads, sum(map(_operations, blocks)))
        stages, results = BlockStages(threads), []
        values: dict[int, Channels] = {}
        made = {block.key for block in blocks}
        for source in dict.fromkeys(i for block in blocks for i in block.sources):
            if source not in made:
                value = given[source]
                if isinstance(value, Channels) and value.buffer.shape[2] % _table().width:
                    value = value.planes()  # from another instruction set
                if isinstance(value, np.ndarray):
                    takers = [block for block in blocks if source in block.sources]
                    value, to_channels = _to_channels_job(value, *_wanted_around(takers))
                    stages.add_copy(source, to_channels, value.shape[1])
                values[source] = value
        for block in blocks:
            job = _forward_job(block, [values[i] for i in block.sources], algorithm)
            stages.add(
                block.key, job.work, block.shape[1 + job.axis], job.axis, job.unit,
                block.sources, job.reach,
            )
            values[block.key] = job.out
            results.append((job.out, job.switches))
        run_stages(stages.all, threads)
        return results

    # ---- the backward pass ----

    def has_bf16(self) -> bool:
        result: bool = _table().has_bf16
        return result

    def project(self, job: First | Step, num_threads: int) -> Lanes:
        table = _table()
        kernel, lanes, by_feature = _prepare(table, job, num_threads)
        h, w = job.conv.input_size
        channels = job.conv.input_channels
        out = _scratch.take((h, w, lanes, channels) if by_feature else (h, w, channels, lanes))
        sums = None
        if job.post.counts is not None:
            sums = aligned_zeros((h, 1, *out.shape[2:]))
            kernel.sum_up(job.post.counts, sums)
        threads = _enough_threads(num_threads, _multiply_adds(job))
        _run_edges(lambda a, b: kernel.rows(out, a, b), shrinking_edges(h, threads), threads)
        return Lanes(out, lanes, by_feature, _rectifies(job.post), sums)

    def add_overlaps(self, job: Overlap, num_threads: int) -> Lanes:
        table, v, source = _table(), job.v, job.source
        whole_v = (job.origin, v.values.shape[:2]) == (source.origin, source.cells)
        out = v.values if whole_v else _scratch.take((*source.cells, *v.values.shape[2:]))
        kernel = native.Overlap(
            table, v.values, v.lanes, v.by_feature, job.origin, source, _cells(source, num_threads),
            _links(source, num_threads)[0], _readable(table, job.post), out,
        )
        _run_rows(
            kernel.rows, source.cells[0], _enough_threads(num_threads, out.size * _COPY)
        )
        if not whole_v:
            self.release(v)
        return Lanes(out, v.lanes, v.by_feature, v.rectified or _rectifies(job.post))

    def fuses(self, above: First | Step, source: Source, conv: Convolution) -> bool:
        """Whether a step takes its values from the one above while they are in cache."""
        pointwise = conv.groups == 1 and conv.window == NO_POOL
        plain = source.switches is None and source.gate is None and source.open_places is None
        # What leaves out zeros does less than what saves the way to memory and back.
        return (
            pointwise and plain and isinstance(above, Step) and isinstance(above.v, Lanes)
            and not above.bf16 and not _rectifies(above.post)
        )

    def combine(self, job: Combine, num_threads: int) -> Lanes:
        terms = job.terms
        if len(terms) > native.MOST_TERMS:
            sums = job._replace(terms=terms[: native.MOST_TERMS], post=Post(), into=None)
            rest = [Term(View(self.combine(sums, num_threads))), *terms[native.MOST_TERMS :]]
            return self.combine(job._replace(terms=rest, into=0), num_threads)
        table, like = _table(), terms[0].view.v
        lanes, by_feature = like.lanes, like.by_feature
        shape = (lanes, job.channels) if by_feature else (job.channels, lanes)
        own = None if job.into is None else terms[job.into].view.v.values
        out = _scratch.take((*job.size, *shape)) if own is None else own
        kernel = native.Combine(
            table, [(_viewed(term.view), term.factor) for term in terms], lanes, by_feature,
            job.channels, _readable(table, job.post), out,
        )
        threads = _enough_threads(num_threads, len(terms) * out.size * _ADD)
        _run_rows(kernel.rows, job.size[0], threads)
        rectified = _rectifies(job.post) or all(term.view.v.rectified for term in terms)
        return Lanes(out, lanes, by_feature, rectified)

    def reduce(self, job: Reduce, num_threads: int) -> Lanes:
        table, (view, factor), channels = _table(), job.term, job.channels
        lanes, by_feature, size = view.v.lanes, view.v.by_feature, job.size
        if view.v.sums is not None:
            view, factor, size = View(view.v._replace(values=view.v.sums)), None, (size[0], 1)
        out = _scratch.take((1, 1, lanes, channels) if by_feature else (1, 1, channels, lanes))
        kernel = native.Reduce(table, _viewed(view), factor, lanes, by_feature, size, channels, out)
        threads = _enough_threads(num_threads, math.prod(size) * out.size * _ADD)
        _run_rows(kernel.channels, channels, threads)
        return Lanes(out, lanes, by_feature, False)

    def add_maps(self, v: Lanes, maps: FloatArray, features: NDArray[np.intp]) -> None:
        """Add maps (K, H, W), map k to channel features[k] of its lane."""
        own = np.arange(len(features))
        at = (slice(None), slice(None), *((own, features) if v.by_feature else (features, own)))
        v.values[at] += maps.transpose(1, 2, 0)

    def project_last(
        self, job: Last, out: FloatArray, rows: NDArray[np.intp], num_threads: int
    ) -> None:
        table, conv = _table(), job.conv
        if isinstance(job.above, Lanes):
            above, lanes, by_feature = job.above[:3]
        else:
            above, lanes, by_feature = _prepare(table, job.above, num_threads)
        nv = 0 if by_feature else _vectors(table, lanes)
        weight = cached(
            conv.cache, ("last", table.name, nv),
            lambda: _pack_last(conv.weight, table, nv),
        )
        kernel = native.Last(
            table, above, lanes, nv, job.source, _cells(job.source, num_threads),
            conv.window, conv.input_channels, weight, rows.astype(np.int32), out,
        )
        reach, advance, row = kernel.reach()
        band = last_band(reach, advance, job.rows)
        skip = job.source.origin[0] % band
        bands = -(-(job.source.cells[0] + skip) // band)
        shared = reach - advance
        side = aligned_empty((bands, 2, shared, row)) if bands > 1 and shared else None
        kernel.set_bands(band, skip, side)
        values = math.prod(job.source.cells) * job.source.channels * lanes
        work = values * conv.weight[0].size
        if isinstance(job.above, Step):
            work += _multiply_adds(job.above)
        threads = _enough_threads(num_threads, _BY_FEATURE * work if by_feature else work)
        _run_edges(kernel.bands, shrinking_edges(bands, threads), threads)
        if side is not None:
            run_bands(bands - 1, lambda i: kernel.seam(i + 1), threads)

    def from_planes(self, planes: FloatArray, bf16: bool) -> Lanes:
        count, channels, h, w = planes.shape
        lanes, by_feature = _lanes(_table(), count, bf16)
        # In bfloat16 what is left out shows in the bits, which no other feature may decide.
        rectified = not bf16 and 2 * int(np.count_nonzero(planes)) <= planes.size
        values = _scratch.take((h, w, lanes, channels) if by_feature else (h, w, channels, lanes))
        if by_feature:
            values[...] = planes.transpose(2, 3, 0, 1)
        else:
            values[..., :count] = planes.transpose(2, 3, 1, 0)
            values[..., count:] = 0
        return Lanes(values, lanes, by_feature, rectified)

    def project_single(self, job: Single, out: FloatArray, num_threads: int) -> None:
        """Run a job into planes `out` (K, C, H, W)."""
        kernel = native.Single(
            _table(), np.ascontiguousarray(job.values, np.float32), job.switches,
            job.features.astype(np.int32), job.rows.astype(np.int32), job.pool,
            np.ascontiguousarray(job.conv.weight[job.features]), job.conv.window, out,
        )
        _run_rows(kernel.features, len(job.rows), num_threads)

    def release(self, v: Lanes) -> None:
        _scratch.give(v.values)

    def end(self) -> None:
        _scratch.keep(_KEPT)

    def to_planes(self, v: Lanes, planes: FloatArray, num_threads: int) -> None:
        if v.by_feature:
            planes[:] = v.values.transpose(2, 3, 0, 1)
            return
        table = _table()
        whole = planes if planes.flags.c_contiguous else np.empty(planes.shape, np.float32)
        _run_rows(
            lambda a, b: native.lanes_to_planes(table, v.values, whole, a, b),
            v.values.shape[0], num_threads,
        )
        if whole is not planes:
            planes[:] = whole


BACKEND = NativeBackend()


class _Scratch:
    """Lane tensors that are done with, kept for the next ones.

    Memory fresh from the system comes as page faults: 10 to 20 ms of the 90 that the 64
    features of a deepest layer take.
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
            # The smallest that will do, but none of which most would lie idle.
            if size <= memory.size <= 4 * size and (found is None or memory.size < found.size):
                memory, found = found, memory
            if memory is not None:
                self._free.append(memory)
        flat = aligned_empty((size,)) if found is None else found[:size]
        return flat.reshape(shape)

    def give(self, tensor: FloatArray) -> None:
        """Nobody uses the tensor any more."""
        memory = tensor.base
        assert isinstance(memory, np.ndarray)
        self._free.append(aligned(memory))
        self.keep(_KEPT_MEANWHILE)

    def keep(self, most: int) -> None:
        """Give back what is more than so many bytes."""
        while sum(a.nbytes for a in self._free.copy()) > most:
            self._take_any()

    def _take_any(self) -> FloatArray | None:
        try:
            return self._free.popleft()
        except IndexError:  # another thread has taken the last one
            return None


_scratch = _Scratch()


def _table() -> Any:
    return _TABLES[get_isa()]


def _enough_threads(num_threads: int, multiply_adds: int) -> int:
    """At most `num_threads`: a small job is done before another thread has woken up."""
    return min(num_threads, 1 + multiply_adds // _SPLIT)


def _multiply_adds(job: First | Step) -> int:
    """What a job takes without a pool; one that has a pool takes less."""
    if isinstance(job, Step) and isinstance(job.v, Step):
        lanes, _ = _lanes_of(job)
        own = math.prod(job.conv.input_size) * lanes * job.conv.weight.size
        return own + _multiply_adds(job.v)
    values = job.values if isinstance(job, First) else job.v.values
    return int(values.size) * job.conv.weight[0].size


def _run_rows(work: Any, rows: int, num_threads: int, *, largest: int = 8) -> None:
    _run_edges(work, band_edges(rows, num_threads, largest=largest), num_threads)


def _run_edges(work: Any, edges: list[int], num_threads: int) -> None:
    run_bands(len(edges) - 1, lambda i: work(edges[i], edges[i + 1]), num_threads)


# ---- the forward pass: layout and packing ----


def to_channels(planes: FloatArray, padding: Padding, num_threads: int) -> Channels:
    """A (C, H, W) array as `Channels` with this much padding."""
    inside, work = _to_channels_job(planes, padding, False)
    threads = _enough_threads(num_threads, planes.size * _COPY)
    _run_edges(work, copy_edges(planes.shape[1], threads), threads)
    return inside


def _to_channels_job(
    planes: FloatArray, padding: Padding, whole: bool
) -> tuple[Channels, Work]:
    """`to_channels`, and what fills it, row by row; `whole`: with channels in whole vectors."""
    c, h, w = planes.shape
    table = _table()
    stored = -(-c // table.width) * table.width if whole else c
    inside = _room((c, h, w), stored, padding)
    inside.buffer[:, : inside.left] = inside.buffer[:, inside.left + w :] = 0
    if stored > c:
        inside.buffer[:, :, c:] = 0

    def work(row0: int, row1: int) -> None:
        native.planes_to_channels(
            table, planes, inside.buffer, inside.top, inside.left, row0, row1
        )

    return inside, work


def _wanted_around(takers: Sequence[ForwardBlock]) -> tuple[Padding, bool]:
    """The padding that the takers of an input want, and whether they want whole vectors."""
    paddings = [block.window.padding for block in takers if isinstance(block, ConvBlock)]
    height, width = (
        (max(p[axis][0] for p in paddings), max(p[axis][1] for p in paddings))
        if paddings else (0, 0)
        for axis in (0, 1)
    )
    return (height, width), len(paddings) < len(takers)


class _Lines(NamedTuple):
    """A part of a result as the kernels are to see it: lines of columns.

    A result of several rows is one part, its rows are the lines. A single row is cut into
    pieces, each of which is a line, so that more than one thread has something to do.
    """

    column: int
    """Where the first line begins."""
    lines: int
    width: int
    row: int | None
    """Columns from one line to the next; None: the rows of the result."""


_PIECE = 48
"""Columns of a piece of a row."""


class _ForwardJob(NamedTuple):
    """What fills the activation of a block."""

    out: Channels
    switches: NDArray[Any] | None
    work: Work
    axis: int
    """Whether it does rows (0) or columns (1)."""
    unit: int
    """How many of them at a time."""
    reach: Reach = ()


def _operations(block: ForwardBlock) -> int:
    """About how many multiply-adds a block takes."""
    if isinstance(block, ConvBlock):
        return block.weight.size * math.prod(block.out_size)
    if isinstance(block, PoolBlock):
        return _ADD * math.prod(block.shape) * math.prod(block.pool.window.kernel)
    return _ADD * math.prod(block.shape) * len(block.sources)


def _forward_job(block: ForwardBlock, given: Sequence[Channels], algorithm: str) -> _ForwardJob:
    width = _table().width
    stored = -(-block.shape[0] // width) * width
    out = _room(block.shape, stored, block.room)
    if isinstance(block, ConvBlock):
        return _conv_job(block, given[0], out, algorithm)
    if isinstance(block, JoinBlock):
        return _join_job(block, given, out)
    assert isinstance(block, PoolBlock)
    return _pool_job(block, given[0], out)


def _conv_job(block: ConvBlock, x: Channels, out: Channels, algorithm: str) -> _ForwardJob:
    table, pool = _table(), block.pool
    channels, window = block.shape[0], block.window
    packed, bias, epilogue = _packed_forward(block, table)
    (top, _), (left, _) = window.padding
    first = x.offset(x.top - top, x.left - left)
    row, column = _origin_steps(x, window)
    taps = _tap_offsets(x, window)
    switches = _switches(pool, block.shape, out)
    tile = _winograd_tile(x, block, algorithm, table)
    step = pool.window.stride[1] if pool else 1

    def make(lines: _Lines) -> Work:
        size = block.out_size
        if lines.row is not None:
            extent = pool.window.extent[1] if pool else 1
            size = lines.lines, (lines.width - 1) * step + extent
        job = native.Conv(
            table, x.buffer, first + lines.column * step * column,
            row if lines.row is None else lines.row * step * column, column, taps,
            block.weight.shape[1], channels, block.groups, packed, bias, *size,
            *_part(out, lines), 0, epilogue,
        )
        if pool is None:
            return job.rows
        job.pooled(
            _in_lines(pool.window, lines), *_part(out, lines), _of_lines(switches, lines),
            _of_lines(pool.counts, lines),
        )
        if not tile:
            return job.pool_rows
        job.winograd(tile, *_packed_winograd(block, tile, table)[:3])
        return job.winograd_rows

    cut = _can_be_cut(out, pool, block.out_size) and block.out_size[0] == 1
    axis, unit, work = _work(out, make, max(1, tile // 2), cut)
    reach: Reach = ((window, x.shape[1 + axis]),)
    if pool is not None:
        reach = (pool.window, block.out_size[axis]), *reach
    return _ForwardJob(out, switches, work, axis, unit, reach)


def _join_job(block: JoinBlock, given: Sequence[Channels], out: Channels) -> _ForwardJob:
    channels, height, width = block.shape
    table = _table()
    epilogue = cached(
        block.cache, ("join", table.name, block.epilogue.parts),
        lambda: _packed_epilogue(block.epilogue, channels, table.width),
    )

    def make(lines: _Lines) -> Work:
        inputs = []
        for x in given:
            column = 0 if x.shape[2] < width else x.offset(0, 1)
            row = 0 if x.shape[1] < height else x.offset(1, 0)
            if lines.row is not None:
                row = lines.row * column
            first = x.offset(x.top, x.left) + lines.column * column
            inputs.append((x.buffer, first, row, column, x.shape[0]))
        part = _part(out, lines)
        return native.Join(
            table, block.kind, inputs, epilogue, lines.width, channels, *part
        ).rows

    axis, unit, work = _work(out, make, 1, _can_be_cut(out, None, (1, width)))
    return _ForwardJob(out, None, work, axis, unit)


def _pool_job(block: PoolBlock, x: Channels, out: Channels) -> _ForwardJob:
    window, counts = block.pool
    switches = _switches(block.pool, block.shape, out)

    def make(lines: _Lines) -> Work:
        row, column, size = x.offset(1, 0), x.offset(0, 1), x.shape[1:]
        first = x.offset(x.top, x.left) + lines.column * window.stride[1] * column
        if lines.row is not None:
            row = lines.row * window.stride[1] * column
            size = lines.lines, (lines.width - 1) * window.stride[1] + window.extent[1]
        return native.Pool(
            _table(), (x.buffer, first, row, column, x.shape[0]), size,
            _in_lines(window, lines), *_part(out, lines), _of_lines(switches, lines),
            _of_lines(counts, lines),
        ).rows

    cut = x.shape[1] == 1 and _can_be_cut(out, block.pool, x.shape[1:])
    axis, unit, work = _work(out, make, 1, cut)
    return _ForwardJob(out, switches, work, axis, unit, ((window, x.shape[1 + axis]),))


def _can_be_cut(out: Channels, pool: Pool | None, size: Pair) -> bool:
    """Whether a result is a row whose pieces can be done one by one.

    Pools keep to the piece that they are in, and all of their windows are inside.
    """
    _, height, width = out.shape
    if height > 1 or width <= _PIECE:
        return False
    if pool is None:
        return True
    window = pool.window
    inside = (width - 1) * window.stride[1] + window.extent[1] <= size[1]
    return inside and window.kernel[0] == 1 and window.padding == ((0, 0), (0, 0))


def _work(
    out: Channels, make: Callable[[_Lines], Work], unit: int, cut: bool
) -> tuple[int, int, Work]:
    """The axis along which a result is done, how much at a time, and what does it.

    It clears the padding beside what it does, too: that is in the caches then.
    """
    _, height, width = out.shape
    if not cut:
        rows = make(_Lines(0, height, width, None))
        left, right = out.left, out.buffer.shape[1] - out.left - width
        if not left and not right:
            return 0, unit, rows

        def work(a: int, b: int) -> None:
            rows(a, b)
            last = min(b * unit, height)
            native.clear_sides(out.buffer, left, right, out.top + a * unit, out.top + last)

        return 0, unit, work
    out.buffer[:, : out.left] = out.buffer[:, out.left + width :] = 0
    whole = width // _PIECE
    pieces = make(_Lines(0, whole, _PIECE, _PIECE))
    rest = width - whole * _PIECE
    remainder = make(_Lines(whole * _PIECE, 1, rest, 0)) if rest else None

    def columns(a: int, b: int) -> None:
        if a < whole:
            pieces(a, min(b, whole))
        if b > whole and remainder is not None:
            remainder(0, 1)

    return 1, _PIECE, columns


def _part(out: Channels, lines: _Lines) -> tuple[FloatArray, int, int, int]:
    """The buffer, where in it the lines begin, and the elements between lines and columns."""
    column = out.offset(0, 1)
    row = out.offset(1, 0) if lines.row is None else lines.row * column
    return out.buffer, out.offset(out.top, out.left) + lines.column * column, row, column


def _in_lines(window: Window, lines: _Lines) -> Window:
    """A pool's window when every line is a row."""
    return window if lines.row is None else window._replace(stride=(1, window.stride[1]))


def _of_lines(cells: NDArray[Any] | None, lines: _Lines) -> NDArray[Any] | None:
    """Of an array (H, W, ...) what belongs to the lines, one after another."""
    if cells is None or lines.row is None:
        return cells
    end = lines.column + lines.lines * lines.width
    return cells[0, lines.column : end].reshape(lines.lines, lines.width, *cells.shape[2:])


def _switches(pool: Pool | None, shape: tuple[int, int, int], out: Channels) -> Any:
    """Space for the switches of a max pool."""
    if pool is None or pool.counts is not None:
        return None
    return np.empty((*shape[1:], out.buffer.shape[2]), switch_dtype(pool.window.kernel))


def _room(shape: tuple[int, int, int], stored: int, padding: Padding) -> Channels:
    """Space for an activation; only the padding above and below it is set, to zero."""
    (top, bottom), (left, right) = padding
    _, h, w = shape
    buffer = aligned_empty((top + h + bottom, left + w + right, stored))
    buffer[:top] = buffer[top + h :] = 0
    return Channels(buffer, top, left, shape)


def _origin_steps(x: Channels, window: Window) -> Pair:
    """Elements between the inputs of neighbouring output rows, and columns."""
    stored = x.buffer.shape[2]
    return window.stride[0] * x.buffer.shape[1] * stored, window.stride[1] * stored


def _tap_offsets(x: Channels, window: Window) -> NDArray[np.intp]:
    """Offset of every tap, row-major, from an output's first one."""
    _, width, stored = x.buffer.shape
    return _kernel_offsets(
        window.kernel, (window.dilation[0] * width * stored, window.dilation[1] * stored)
    )


@functools.lru_cache(maxsize=64)
def _kernel_offsets(kernel: Pair, steps: Pair) -> NDArray[np.intp]:
    rows, cols = (np.arange(n) * step for n, step in zip(kernel, steps))
    return np.add.outer(rows, cols).ravel().astype(np.intp)


def _pack_forward(weight: FloatArray, groups: int, width: int) -> FloatArray:
    """(O, I, taps...) as csrc/conv.c wants it."""
    out, inner = weight.shape[:2]
    by_tap = weight.reshape(out, inner, -1).transpose(2, 1, 0)
    per_group = out // groups
    if groups > 1 and per_group % width:
        padded = _pad_last(by_tap, width)
        return _blocks(padded, width)
    packed = [
        _blocks(_pad_last(by_tap[:, :, g * per_group : (g + 1) * per_group], width), 2 * width)
        for g in range(groups)
    ]
    return np.concatenate(packed)


def _pad_last(array: FloatArray, width: int) -> FloatArray:
    size = array.shape[-1]
    padded = aligned_zeros((*array.shape[:-1], -(-size // width) * width))
    padded[..., :size] = array
    return padded


def _blocks(by_tap: FloatArray, width: int) -> FloatArray:
    """[block][tap][input][lane] of (tap, input, output), `width` outputs a block."""
    outputs = by_tap.shape[2]
    blocks = [by_tap[:, :, at : at + width].ravel() for at in range(0, outputs, width)]
    return np.ascontiguousarray(np.concatenate(blocks), np.float32)


def _pad_lanes(values: FloatArray | None, size: int, width: int) -> FloatArray:
    out = np.zeros(-(-size // width) * width, np.float32)
    if values is not None:
        out[:size] = values
    return out


def _packed_forward(conv: ConvBlock, table: Any) -> tuple[Any, Any, Any]:
    def make() -> tuple[Any, Any, Any]:
        size, width = conv.weight.shape[0], table.width
        return (
            _pack_forward(conv.weight, conv.groups, width),
            _pad_lanes(conv.bias, size, width),
            _packed_epilogue(conv.epilogue, size, width),
        )

    key = "forward", table.name, conv.epilogue.parts
    packed: tuple[Any, Any, Any] = cached(conv.cache, key, make)
    return packed


def _packed_epilogue(epilogue: Epilogue, channels: int, width: int) -> tuple[Any, Any, Any]:
    """As `native` wants it."""

    def lanes(affine: tuple[FloatArray, FloatArray] | None) -> Any:
        return affine and tuple(_pad_lanes(a, channels, width) for a in affine)

    name, a, b = epilogue.activation or (None, 0.0, 0.0)
    weight = epilogue.weight
    weight = None if weight is None else _pad_lanes(weight, channels, width)
    return lanes(epilogue.affine1), (name, a, b, weight), lanes(epilogue.affine2)


_RELU = InKernel("relu")
_PLAIN_POOL = Window((2, 2), (2, 2), (1, 1), ((0, 0), (0, 0)))


def _winograd_tile(x: Channels, block: ConvBlock, algorithm: str, table: Any) -> int:
    """The tile of Winograd's algorithm for this block, 0 where it is not for it."""
    window, conv_size = block.window, block.out_size
    if (
        algorithm == "direct"
        or block.pool is None
        or block.pool.window != _PLAIN_POOL
        or any(2 * n > m for n, m in zip(block.shape[1:], conv_size))  # ceil mode
        or (window.kernel, window.stride, window.dilation) != ((3, 3), (1, 1), (1, 1))
        or block.groups != 1
        or block.epilogue.affine2 is not None
        # The order of sums says nothing of what other functions round to the same number.
        or block.epilogue.activation not in (None, _RELU)
        or block.weight.shape[1] < _WINOGRAD_INPUTS
        or x.buffer.shape[2] % table.width  # transforms work on whole vectors
    ):
        return 0
    if algorithm == "winograd":
        return 4
    return 2 if _packed_winograd(block, 2, table)[3] else 0


def _packed_winograd(block: ConvBlock, tile: int, table: Any) -> tuple[Any, ...]:
    """Filters, the bounds of the error (slope and base by channel), and if they are of use."""

    def make() -> tuple[Any, ...]:
        size = len(block.weight)
        with np.errstate(over="ignore"):
            filters = transform_filters(block.weight, tile).astype(np.float32)
        bounds = error_bound(block.weight, block.bias, block.epilogue.affine1)
        lanes = [_pad_lanes(bound, size, table.width) for bound in bounds]
        lanes[1][size:] = -1  # no channel, no doubt
        usable = bool(lanes[0].max() < _LARGEST_SLOPE)
        return _pack_forward(filters, 1, table.width), *lanes, usable

    # Kept apart by affine1 as in _packed_forward.
    key = ("winograd", table.name, tile, block.epilogue.affine1 is None)
    packed: tuple[Any, ...] = cached(block.cache, key, make)
    return packed


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
    """First output row and column of a phase."""
    py, px = divmod(phase, window.stride[1])
    return (
        (py - window.padding[0][0]) % window.stride[0],
        (px - window.padding[1][0]) % window.stride[1],
    )


def _phase_rows(out_size: Pair, window: Window, phase: int) -> int:
    """Output rows of a phase."""
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


# ---- the backward pass: the kernels of a step ----


def _takes_depthwise(table: Any, job: Step) -> bool:
    """Every channel by itself, from a source that has values everywhere."""
    conv, source = job.conv, job.source
    by_itself = conv.weight.shape[:2] == (conv.groups, 1)
    plain = source.switches is None and source.gate is None and source.open_places is None
    return by_itself and plain and not job.bf16


def _takes_sparse(table: Any, job: Step) -> bool:
    """What csrc/sparse.h can take, and has zeros."""
    return not job.bf16 and _fits_lists(job) and _has_zeros(table, job)


def _takes_sparse_bf16(table: Any, job: Step) -> bool:
    """The same; numbers of rows have 15 bits."""
    fits = job.conv.weight[:, 0].size <= 2**15
    return job.bf16 and fits and _fits_lists(job) and _has_zeros(table, job)


def _fits_lists(job: Step) -> bool:
    """Whether csrc/sparse.h can take a step."""
    conv = job.conv
    plain = conv.groups == 1 and conv.window.dilation == (1, 1)
    # Offsets into the weights have 32 bits.
    width = job.source.size[1] * conv.window.stride[1]
    fits = width * conv.weight[:, :, 0, 0].size < 2**30
    return plain and fits and isinstance(job.v, Lanes) and not job.v.by_feature


def _has_zeros(table: Any, job: Step) -> bool:
    """Whether a step has as many values that are zero as make it worth while to look for them."""
    # In bfloat16 the dense product is twice as fast; looking for zeros pays for whole blocks.
    least = table.width * table.sparse_nv if job.bf16 else table.sparse_least
    return job.v.rectified and job.conv.input_channels >= least


def _pack_depthwise(conv: Convolution, table: Any, nv: int) -> FloatArray:
    """(taps, channels)"""
    taps = conv.weight[:, 0].reshape(len(conv.weight), -1)
    return np.ascontiguousarray(taps.T)


def _pack_dense(conv: Convolution, table: Any, nv: int) -> FloatArray:
    """As csrc/project.c wants them; nv 0 by feature."""
    weight, groups = conv.weight, conv.groups
    if nv:
        return pack_blocks(weight, groups, table.tile_nc(nv))
    inner = weight.shape[1]
    return _pad_last(pack_blocks(weight, groups, inner).reshape(-1, inner), table.width)


def _pack_sparse(conv: Convolution, table: Any, nv: int) -> FloatArray:
    """As csrc/sparse.h wants them: [block][tap][O][width]."""
    return _in_blocks(conv.weight, table, table.width)


def _pack_sparse_bf16(conv: Convolution, table: Any, nv: int) -> NDArray[np.uint16]:
    """The same for csrc/sparse_bf16.h."""
    return _round_bf16(_in_blocks(conv.weight, table, 2 * table.width))


def _in_blocks(weight: FloatArray, table: Any, unit: int) -> FloatArray:
    out, inner = weight.shape[:2]
    units = -(-inner // unit)
    blocks = -(-units * unit // (table.sparse_nv * table.width))
    width = -(-units // blocks) * unit
    rows = _pad_last(weight.reshape(out, inner, -1).transpose(2, 0, 1), blocks * width)
    return aligned_copy(rows.reshape(-1, out, blocks, width).transpose(2, 0, 1, 3))


def _pack_bf16(conv: Convolution, table: Any, nv: int) -> NDArray[np.uint16]:
    """As csrc/bf16.h wants them: (taps * O, C in groups of 32)."""
    out, inner = conv.weight.shape[:2]
    by_tap = conv.weight.reshape(out, inner, -1).transpose(2, 0, 1)
    rows = _round_bf16(_pad_last(by_tap, 32))
    return rows.reshape(-1, rows.shape[2])


def _round_bf16(rows: FloatArray) -> NDArray[np.uint16]:
    """Rows of groups of 32 to bfloat16, which start on a cache line."""
    bits = np.ascontiguousarray(rows).view(np.uint32)
    # To nearest, ties to even.
    rounded = ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)
    # Unpacking takes four numbers of every eight for the lower 16 channels, and four for the
    # upper ones.
    halves = rounded.reshape(-1, 2, 4, 4).swapaxes(1, 2)
    packed = aligned_empty((rows.size // 2,)).view(np.uint16)
    packed.reshape(halves.shape)[...] = halves
    return packed.reshape(rows.shape)


class StepKernel(NamedTuple):
    """One way to take a step back through a convolution."""

    name: str
    takes: Callable[[Any, Step], bool]
    """``takes(table, job)``: whether it can take a job, and is the fastest that can."""
    pack: Callable[[Convolution, Any, int], NDArray[Any]]
    """``pack(conv, table, nv)``: its weights; nv as in csrc/fastdeconv.h."""
    give: str
    """The method of `native.Step` that gets them."""
    by_lanes: bool = False
    """Whether they depend on nv."""
    in_lists: bool = True
    """Whether it goes by the lists of csrc/gather.h, which want a stride of 1."""


_STEP_KERNELS = (
    StepKernel("depthwise", _takes_depthwise, _pack_depthwise, "keep_apart", in_lists=False),
    StepKernel("sparse", _takes_sparse, _pack_sparse, "leave_out_zeros"),
    StepKernel("sparse bf16", _takes_sparse_bf16, _pack_sparse_bf16, "leave_out_zeros"),
    StepKernel("bf16", lambda table, job: job.bf16 and job.conv.groups == 1, _pack_bf16,
               "multiply"),
    StepKernel("dense", lambda table, job: True, _pack_dense, "multiply", by_lanes=True),
)
"""The first one that takes a job does it."""


# ---- the backward pass: packing ----


def _lanes(table: Any, count: int, bf16: bool) -> tuple[int, bool]:
    """Lanes for `count` features, and whether they lie by feature.

    Few features would leave most lanes of their vectors empty; they are kept apart, and
    the kernels put output channels into the lanes. In bfloat16 none do: the bits of a
    feature must not depend on how many others share its call.
    """
    width: int = table.width
    if count <= width // 2 and not bf16:
        return count, True
    # Short vectors run in pairs.
    unit = width if width >= 16 or count <= width else 2 * width
    return -(-count // unit) * unit, False


def _vectors(table: Any, lanes: int) -> int:
    """Vectors of lanes a product works on at a time: the most that divide the tensor."""
    vectors = lanes // table.width
    return max(n for n in range(1, table.max_nv + 1) if vectors % n == 0)


def _prepare(table: Any, job: First | Step, num_threads: int) -> tuple[Any, int, bool]:
    """The kernel object of a job, the lanes of its result, and whether they lie by feature."""
    post = _readable(table, job.post)
    if isinstance(job, Step):
        return _step(table, job, post, num_threads), *_lanes_of(job)
    lanes, by_feature = _lanes(table, len(job.values), job.bf16)
    return _first(table, job, post, lanes, by_feature, num_threads), lanes, by_feature


def _lanes_of(job: Step) -> tuple[int, bool]:
    """The lanes of a step's result, and whether they lie by feature."""
    if isinstance(job.v, Step):
        return _lanes_of(job.v)
    return job.v.lanes, job.v.by_feature


def _readable(table: Any, post: Post) -> Post:
    """`post` for kernels: groups that end within a vector read on."""
    if post.scale is None:
        return post
    padding = (0, 2 * table.width - len(post.scale) % table.width)
    return post._replace(scale=np.pad(post.scale, padding))


def _step(table: Any, job: Step, post: Post, num_threads: int) -> Any:
    conv, source = job.conv, job.source
    lanes, by_feature = _lanes_of(job)
    nv = 0 if by_feature else _vectors(table, lanes)
    cells = _cells(source, num_threads)
    if isinstance(job.v, Step):
        v, _, _ = _prepare(table, job.v, num_threads)
    else:
        v = job.v.values
    if lanes == 1 and not isinstance(job.v, Step) and source.open_places is None:
        cells = _without_zeros(source, cells, job.v.values, num_threads)
    window = conv.window
    kernel = next(kernel for kernel in _STEP_KERNELS if kernel.takes(table, job))
    if window.stride != (1, 1) and kernel.in_lists:
        source, window = _with_stride(source, window)
    step = native.Step(
        table, v, lanes, nv, source, cells, window, conv.groups,
        conv.input_channels, post, _viewed(post.more), conv.input_size,
    )
    key = kernel.name, table.name, nv if kernel.by_lanes else None
    weight = cached(conv.cache, key, lambda: kernel.pack(conv, table, nv))
    getattr(step, kernel.give)(weight)
    return step


def _with_stride(source: Source, window: Window) -> tuple[Source, Window]:
    """A convolution with a stride as one of stride 1, of a source with as much room between."""
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
    and, of few features, features."""
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


_Cells = tuple[NDArray[np.int32], NDArray[np.int32], Pair]
"""(order, first) of fd_source, and the row and column in them where a source begins."""


def _cells(source: Source, num_threads: int) -> _Cells:
    order, first = cached(source.cache, "cells", lambda: _sort_cells(source, num_threads))
    return order, first, source.origin


def _sort_cells(
    source: Source, num_threads: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The cells of the whole map, whatever part of it the source is."""
    if source.open_places is not None:
        return _spread_cells(source, source.open_places)
    gate = _links(source, num_threads)[1] if source.pool.overlapping else source.gate
    whole = source.switches if gate is None else gate
    channels, (kh, kw) = source.channels, source.pool.kernel
    if whole is None:
        order = np.zeros(channels + native.LIST_ROOM, np.int32)
        order[:channels] = np.arange(channels)
        return order, np.array([0, channels], np.int32)
    order, first = _empty_cells(whole.shape[:2], channels, kh * kw)
    _run_rows(
        lambda a, b: native.sort_cells(
            source.switches, gate, channels, kh * kw, order, first, a, b
        ),
        math.prod(whole.shape[:2]), _enough_threads(num_threads, order.size * _COPY),
        largest=256,
    )
    return order, first


def _spread_cells(
    source: Source, places: NDArray[np.uint8]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The cells of a tensor whose values go to every open place of their window."""
    (kh, kw), channels = source.pool.kernel, source.channels
    h, w = places.shape[0] // kh, places.shape[1] // kw
    windows = places[: h * kh, : w * kw].reshape(h, kh, w, kw, channels).swapaxes(1, 2)
    windows = windows.reshape(h * w, kh * kw, channels)
    first = np.zeros((h, w, kh * kw + 1), np.int32)
    np.cumsum(windows.sum(axis=2, dtype=np.int32).reshape(h, w, -1), axis=2, out=first[:, :, 1:])
    most = kh * kw * channels
    order = np.zeros(h * w * most + native.LIST_ROOM, np.int32)
    cell, _, channel = np.nonzero(windows)
    counts = first[:, :, -1].ravel()
    rank = np.arange(len(cell)) - np.repeat(np.cumsum(counts) - counts, counts)
    order[cell * most + rank] = channel
    return order, first


def _links(source: Source, num_threads: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Of overlapping windows: the next cell that sends a channel to the same place, and whether
    none did before."""
    links: tuple[NDArray[np.int32], NDArray[np.uint8]] = cached(
        source.cache, "links", lambda: _link_cells(source, num_threads)
    )
    return links


def _link_cells(
    source: Source, num_threads: int
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    assert source.switches is not None
    h, w = source.switches.shape[:2]
    following = np.empty((h, w, source.channels), np.int32)
    is_first = np.empty(following.shape, np.uint8)
    high, wide = (shared_windows(source.pool, axis) for axis in (0, 1))
    _run_rows(
        lambda a, b: native.link_cells(
            source.switches, source.gate, source.channels, source.pool.kernel[1], high, wide,
            following, is_first, a, b,
        ),
        h, _enough_threads(num_threads, following.size * _COPY),
    )
    return following, is_first


def _empty_cells(
    size: Pair, channels: int, places: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    # The room at the end, and what gates leave over, is read as channels, not used.
    order = np.zeros(math.prod(size) * channels + native.LIST_ROOM, np.int32)
    return order, np.empty((*size, places + 1), np.int32)


def _without_zeros(source: Source, cells: _Cells, v: FloatArray, num_threads: int) -> _Cells:
    """The cells of a lone feature (H, W, 1, C): adding what is 0 changes nothing."""
    places = math.prod(source.pool.kernel)
    order, first = _empty_cells(source.cells, source.channels, places)
    _run_rows(
        lambda a, b: native.filter_cells(source, cells, v, order, first, a, b),
        source.cells[0], _enough_threads(num_threads, v.size * _COPY),
    )
    return order, first, (0, 0)


def _pack_last(weight: FloatArray, table: Any, nv: int) -> FloatArray:
    """Weights of a `Last` as csrc/project.c wants them; nv 0 by feature."""
    if nv:
        return pack_scatter(weight, table.tile_nc(nv))
    pairs = weight[0].size
    return _pad_last(pack_scatter(weight, pairs).reshape(-1, pairs), table.width)


def _first(
    table: Any, job: First, post: Post, lanes: int, by_feature: bool, num_threads: int
) -> Any:
    conv = job.conv
    phases = first_phases(conv.window)
    u = first_room(job, phases, lanes)
    values = np.ascontiguousarray(job.values, np.float32)
    _run_rows(
        lambda a, b: native.planes_to_channels(table, values, u, *phases.pad, a, b),
        values.shape[1], _enough_threads(num_threads, values.size * _COPY),
    )
    places = (np.array(phases.pad) - phases.back) @ np.array([u.shape[1] * lanes, lanes])
    weight = first_weight(job, lanes)
    if by_feature:
        weight = np.ascontiguousarray(_pad_last(weight.transpose(1, 2, 0), table.width))
    return native.First(
        table, u, weight, by_feature, conv.input_channels, phases.start,
        np.ascontiguousarray(places, np.intp), phases.tap, conv.window, post,
        _viewed(post.more), conv.input_size,
    )
