"""The backward pass of the Numba back end: features in the lanes.

What    The jobs of `fastdeconv.kernels.lanes`, for any convolution (kernel, stride,
        dilation, padding, groups) and any pool without overlap. The unpooled tensor is
        never built. Instead, every output pixel gets a list, made from the switches, of
        the rows of values that contribute to it and of the rows of weights that belong
        to them. Then
            out[column][lane] += weights[entry][column] * values[entry][lane].
        In the first step every lane has one channel, and so weights of its own.
        The last step scatters each pixel's panel (channels x lanes), still in cache,
        into a band of output rows; the tensor between it and the step above never
        exists as a whole.
Layout  values (h, w, channel, lane); weights [group][tap][channel][column], of the
        first step [channel][tap][lane], of the last [channel][tap, column]; places
        (h, w, channel), the switches as int32, -1 where a gate is closed and 0 without
        a pool. Kernels get flat arrays and offsets in elements.
Numbers float32 multiply-adds in list order: taps row-major, channels innermost. Bands
        of the last step have a fixed height. Where two of them share rows, the sums of
        the upper one come first. The bits of a lane depend neither on the number of
        threads nor on other lanes.
"""

# Numba infers the types of its kernels; they carry no annotations.
# mypy: allow-untyped-defs

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import binding
from numpy.typing import NDArray

from .interface import FloatArray, Pair, Window
from .lanes import (
    First,
    Last,
    Post,
    Step,
    aligned_empty,
    aligned_zeros,
    cached,
    cell_places,
    first_lanes,
    first_phases,
    first_weight,
    last_band,
    pack_blocks,
    pack_scatter,
)
from .numba_jit import kernel as _kernel
from .numba_vector import broadcast, load, multiply_add, store, zeros
from .schedule import band_edges, run_bands

__all__ = ["lanes", "project", "project_last"]

# Columns of the first step that share a load of its weights.
COLUMNS = 4


# ---- the entry points ----


def lanes(count: int) -> int:
    """See `fastdeconv.kernels.lanes.LaneBackend`."""
    unit = next((n for n in _vector_sizes() if n >= count), _vector_sizes()[-1])
    return -(-count // unit) * unit


def project(job: First | Step, num_threads: int) -> FloatArray:
    """See `fastdeconv.kernels.lanes.LaneBackend`."""
    above = _above(job)
    h, w = job.conv.input_size
    out = aligned_empty((h, w, job.conv.input_channels, above.lanes))
    flat, edges = out.reshape(-1), band_edges(h, num_threads)

    def work(i: int) -> None:
        _rows(above.produce, above.tile, above.fresh(), flat, edges[i], edges[i + 1])

    run_bands(len(edges) - 1, work, num_threads)
    return out


def project_last(job: Last, out: FloatArray, to: NDArray[np.intp], num_threads: int) -> None:
    """See `fastdeconv.kernels.lanes.LaneBackend`."""
    above = _above(job.above)
    last = _last_work(job, above.lanes)
    height = last_band(last.reach, last.advance, job.rows)
    # Bands begin where they begin in the whole map, so that sums are the same.
    cells, skip = job.source.cells[0], job.source.origin[0] % height
    edges = [0, *range(height - skip, cells, height), cells]
    bands = len(edges) - 1
    shared = last.reach - last.advance
    # The first and the last rows of every band, to which its neighbours add.
    side = aligned_empty((bands, 2, shared, last.row))

    def work(i: int) -> None:
        rows = edges[i + 1] - edges[i]
        sums = aligned_zeros(((rows - 1) * last.advance + last.reach, last.row))
        _scatter_rows(
            above.produce, above.tile, above.fresh(), _products(_vector(above.lanes)),
            last, edges[i], rows, sums.reshape(-1),
        )
        first, stop = 0, len(sums)
        if i > 0:
            first = shared
            side[i, 0] = sums[:shared]
        if i < bands - 1:
            stop -= shared
            side[i, 1] = sums[stop:]
        _flush(last, sums[first:stop], edges[i] * last.advance + first, out, to)

    def seam(i: int) -> None:
        _flush(last, side[i, 1] + side[i + 1, 0], edges[i + 1] * last.advance, out, to)

    run_bands(bands, work, num_threads)
    if shared:
        run_bands(bands - 1, seam, num_threads)


# ---- what kernels are given ----


@functools.cache
def _vector_sizes() -> tuple[int, ...]:
    """The numbers of lanes that a register tile can have. The largest fills the registers with four
    columns.
    """
    features = binding.get_host_cpu_features()
    if features.get("avx512f", False):
        return 16, 32, 64
    return (16, 32) if features.get("avx", False) else (16,)


def _vector(count: int) -> int:
    """The number of lanes of the largest tile that divides a tensor of `count` lanes."""
    return max(n for n in _vector_sizes() if count % n == 0)


class _Finish(NamedTuple):
    """A `Post` without branches: max(low_before, x) * scale[channel], then max(low_after, x)."""

    low_before: np.float32
    scale: FloatArray
    low_after: np.float32


class _FirstWork(NamedTuple):
    values: FloatArray
    weights: FloatArray
    conv: Window
    out_w: int
    channels: int
    lanes: int
    pitch: int
    """Elements of one row of `values`."""
    taps: int
    phase_start: NDArray[np.int32]
    phase_tap: NDArray[np.int64]
    phase_place: NDArray[np.int64]
    finish: _Finish


class _StepWork(NamedTuple):
    values: FloatArray
    weights: FloatArray
    places: NDArray[np.int32]
    pool: Window
    conv: Window
    groups: int
    size: Pair
    """The size of the unpooled tensor."""
    out_w: int
    channels: int
    """The channels of the result."""
    lanes: int
    finish: _Finish
    targets: NDArray[np.int64]
    """Offsets of the columns of a group in its pixel."""
    held: NDArray[np.int64]
    """(slot,): which row of the unpooled tensor is listed."""
    counts: NDArray[np.int64]
    """(slot, x, group): the number of entries."""
    held_v: NDArray[np.int64]
    """(slot, x, group, entry): offset in `values`."""
    held_w: NDArray[np.int64]
    """(slot, x, group, entry): offset in the weights of a tap."""
    list_v: NDArray[np.int64]
    """The list of one output pixel: offsets in `values`."""
    list_w: NDArray[np.int64]
    """The same list: offsets in `weights`."""


class _LastWork(NamedTuple):
    weights: FloatArray
    places: NDArray[np.int32]
    pool: Window
    conv: Window
    channels: int
    """The channels of the result."""
    lanes: int
    reach: int
    """Output rows that one row of cells reaches."""
    advance: int
    """Output rows from one row of cells to the next."""
    top: int
    """Output rows before the result's first one that the first cells reach."""
    row: int
    """Elements of an output row; it begins with the columns of the padding."""


class _Above(NamedTuple):
    """How a lane tensor is produced."""

    produce: Callable[..., Any]
    tile: Callable[..., Any]
    fresh: Callable[[], Any]
    """The kernel's argument; every thread needs one, with scratch space of its own."""
    lanes: int


def _above(job: First | Step) -> _Above:
    if isinstance(job, Step):
        count = job.v.shape[3]
        make = functools.partial(_with_scratch, _step_work(job))
        return _Above(_step_columns, _products(_vector(count)), make, count)
    count = lanes(len(job.values))
    work = _first_work(job, count)
    return _Above(_first_columns, _diagonal(_vector(count)), lambda: work, count)


def _finish(post: Post, channels: int) -> _Finish:
    scale = np.ones(channels, np.float32) if post.scale is None else post.scale
    low = {False: np.float32(-np.inf), True: np.float32(0)}
    return _Finish(low[post.relu_before], np.array(scale, np.float32), low[post.relu_after])


def _first_work(job: First, count: int) -> _FirstWork:
    conv = job.conv
    phases = first_phases(conv.window)
    u = first_lanes(job, phases, count)
    pitch = u.shape[1] * count
    place = (np.array(phases.pad) - phases.back) @ np.array([pitch, count])
    weights = first_weight(job, count)
    return _FirstWork(
        u.reshape(-1), weights.reshape(-1), conv.window, conv.input_size[1],
        conv.input_channels, count, pitch, weights.shape[1], phases.start,
        phases.tap.astype(np.int64), place.astype(np.int64),
        _finish(job.post, conv.input_channels),
    )


def _step_work(job: Step) -> _StepWork:
    """The work of a step, without scratch space."""
    conv, count = job.conv, job.v.shape[3]
    inner = conv.weight.shape[1]
    weights = cached(
        conv.cache, "numba step", lambda: pack_blocks(conv.weight, conv.groups, inner)
    )
    return _StepWork(
        job.v.reshape(-1), weights, cell_places(job.source), job.source.pool, conv.window,
        conv.groups, job.source.size, conv.input_size[1], conv.input_channels, count,
        _finish(job.post, conv.input_channels), np.arange(inner) * count,
        *(np.empty((0,) * axes, np.int64) for axes in (1, 3, 4, 4, 1, 1)),
    )


def _with_scratch(step: _StepWork) -> _StepWork:
    (kh, kw), channels = step.conv.kernel, step.places.shape[2]
    h, w = step.size
    slots = min((kh - 1) * step.conv.dilation[0] // step.conv.stride[0] + 1, h)
    per_group = channels // step.groups
    return step._replace(
        held=np.full(slots, -1),
        counts=np.empty((slots, w, step.groups), np.int64),
        held_v=np.empty((slots, w, step.groups, per_group), np.int64),
        held_w=np.empty((slots, w, step.groups, per_group), np.int64),
        list_v=np.empty(kh * kw * per_group, np.int64),
        list_w=np.empty(kh * kw * per_group, np.int64),
    )


def _last_work(job: Last, count: int) -> _LastWork:
    conv, source = job.conv, job.source
    (kh, kw), (sh, sw), (dh, dw) = conv.window.kernel, conv.window.stride, conv.window.dilation
    (top, _), (left, _) = conv.window.padding
    pool, channels = source.pool, conv.input_channels
    weights = cached(
        conv.cache, "numba last", lambda: pack_scatter(conv.weight, kh * kw * channels)
    )
    advance = pool.stride[0] * sh
    span = (pool.extent[0] - 1) * sh + (kh - 1) * dh + 1
    columns = max((source.size[1] - 1) * sw + (kw - 1) * dw + 1, left + conv.input_size[1])
    return _LastWork(
        weights, cell_places(source), pool, conv.window, channels, count,
        # Rows that no cell reaches belong to the cells above them.
        max(span, advance), advance, pool.padding[0][0] * sh + top,
        columns * channels * count,
    )


# ---- register tiles: the only code that depends on the size of a vector ----


@functools.cache
def _products(size: int) -> Callable[..., Any]:
    """Multiply-adds of a list of values with all columns of its weights."""

    @_kernel
    def products(list_v, list_w, first, stop, values, weights, targets, out, base, count):
        """out[base + targets[i]] += weights[list_w + i] * values[list_v], lane by lane."""
        columns = len(targets)
        for at in range(0, count, size):
            start = base + at
            for i in range(0, columns - 3, 4):
                t0, t1 = start + targets[i], start + targets[i + 1]
                t2, t3 = start + targets[i + 2], start + targets[i + 3]
                s0, s1 = load(out, t0, size), load(out, t1, size)
                s2, s3 = load(out, t2, size), load(out, t3, size)
                for e in range(first, stop):
                    v = load(values, list_v[e] + at, size)
                    w = list_w[e] + i
                    s0 = multiply_add(broadcast(weights, w, size), v, s0)
                    s1 = multiply_add(broadcast(weights, w + 1, size), v, s1)
                    s2 = multiply_add(broadcast(weights, w + 2, size), v, s2)
                    s3 = multiply_add(broadcast(weights, w + 3, size), v, s3)
                store(out, t0, s0)
                store(out, t1, s1)
                store(out, t2, s2)
                store(out, t3, s3)
            for i in range(columns - columns % 4, columns):
                s = load(out, start + targets[i], size)
                for e in range(first, stop):
                    v = load(values, list_v[e] + at, size)
                    s = multiply_add(broadcast(weights, list_w[e] + i, size), v, s)
                store(out, start + targets[i], s)

    return products


@functools.cache
def _diagonal(size: int) -> Callable[..., Any]:
    """Sums over taps where every lane has weights of its own."""

    @_kernel
    def diagonal(first, start, stop, place, columns, out, base, pitch):
        """All channels of one column, or of `COLUMNS` neighbours (`pitch` apart in `out`)."""
        count = first.lanes
        for c in range(first.channels):
            row = c * first.taps
            for at in range(0, count, size):
                target = base + c * count + at
                s0, s1, s2, s3 = zeros(size), zeros(size), zeros(size), zeros(size)
                for t in range(start, stop):
                    w = load(first.weights, (row + first.phase_tap[t]) * count + at, size)
                    v = place + first.phase_place[t] + at
                    s0 = multiply_add(w, load(first.values, v, size), s0)
                    if columns == COLUMNS:
                        s1 = multiply_add(w, load(first.values, v + count, size), s1)
                        s2 = multiply_add(w, load(first.values, v + 2 * count, size), s2)
                        s3 = multiply_add(w, load(first.values, v + 3 * count, size), s3)
                store(out, target, s0)
                if columns == COLUMNS:
                    store(out, target + pitch, s1)
                    store(out, target + 2 * pitch, s2)
                    store(out, target + 3 * pitch, s3)

    return diagonal


# ---- a row of a lane tensor: first step ----


@_kernel
def _first_columns(diagonal, first, y, x, columns, out, base, pitch):
    """Pixels x, x + stride, ... of row y to `out`, `pitch` elements apart."""
    window = first.conv
    row, py = divmod(y + window.padding[0][0], window.stride[0])
    column, px = divmod(x + window.padding[1][0], window.stride[1])
    phase = py * window.stride[1] + px
    start, stop = first.phase_start[phase], first.phase_start[phase + 1]
    place = row * first.pitch + column * first.lanes
    if columns == COLUMNS:
        diagonal(first, start, stop, place, columns, out, base, pitch)
    else:
        for i in range(columns):
            diagonal(
                first, start, stop, place + i * first.lanes, 1, out, base + i * pitch, pitch
            )
    for i in range(columns):
        _finish_pixel(first.finish, out, base + i * pitch, first.lanes)


@_kernel
def _finish_pixel(finish, out, base, count):
    for scale in finish.scale:
        lane = out[base : base + count]
        for k in range(count):
            a = max(lane[k], finish.low_before) * scale
            lane[k] = max(a, finish.low_after)
        base += count


# ---- a row of a lane tensor: other steps ----


@_kernel
def _step_columns(products, step, y, x, columns, out, base, pitch):
    """Pixels x, x + stride, ... of row y to `out`, `pitch` elements apart."""
    inner = len(step.targets)
    size = step.channels * step.lanes
    for i in range(columns):
        pixel = base + i * pitch
        out[pixel : pixel + size] = np.float32(0)
        for group in range(step.groups):
            n = _gather(step, y, x + i * step.conv.stride[1], group)
            products(
                step.list_v, step.list_w, np.int64(0), n, step.values, step.weights,
                step.targets, out, pixel + group * inner * step.lanes, step.lanes,
            )
        _finish_pixel(step.finish, out, pixel, step.lanes)


@_kernel
def _gather(step, out_y, out_x, group):
    """List the values of a group that reach an output pixel; returns how many."""
    window = step.conv
    kh, kw = window.kernel
    weights_of_tap = step.places.shape[2] // step.groups * len(step.targets)
    n = np.int64(0)
    for i in range(kh):
        y = _reached(out_y, window, 0, i, step.size[0])
        if y < 0:
            continue
        slot = y % len(step.held)
        if step.held[slot] != y:
            _list_row(step, y, step.counts[slot], step.held_v[slot], step.held_w[slot])
            step.held[slot] = y
        for j in range(kw):
            x = _reached(out_x, window, 1, j, step.size[1])
            if x < 0:
                continue
            tap = ((group * kh + i) * kw + j) * weights_of_tap
            count = step.counts[slot, x, group]
            from_v, from_w = step.held_v[slot, x, group], step.held_w[slot, x, group]
            to_v, to_w = step.list_v[n : n + count], step.list_w[n : n + count]
            for e in range(count):
                to_v[e] = from_v[e]
                to_w[e] = from_w[e] + tap
            n += count
    return n


@_kernel
def _reached(place, window, axis, tap, size):
    """The value that a tap carries to this place of the output; negative: none."""
    n = place + window.padding[axis][0] - tap * window.dilation[axis]
    q, rest = divmod(n, window.stride[axis])
    return q if rest == 0 and q < size else -1


@_kernel
def _list_row(step, y, counts, held_v, held_w):
    """What row y of the unpooled tensor holds, by column and group; channels ascending."""
    pool, places = step.pool, step.places
    cells_h, cells_w, channels = places.shape
    per_group = channels // step.groups
    counts[:] = 0
    cell_y, offset = divmod(y + pool.padding[0][0], pool.stride[0])
    ky, rest = divmod(offset, pool.dilation[0])
    if cell_y >= cells_h or rest != 0 or ky >= pool.kernel[0]:
        return
    for cell_x in range(cells_w):
        cell = (cell_y * cells_w + cell_x) * channels
        x = cell_x * pool.stride[1] - pool.padding[1][0]
        for group in range(step.groups):
            for i in range(per_group):
                c = group * per_group + i
                kx = places[cell_y, cell_x, c] - ky * pool.kernel[1]
                if 0 <= kx < pool.kernel[1]:
                    column = x + kx * pool.dilation[1]
                    n = counts[column, group]
                    held_v[column, group, n] = (cell + c) * step.lanes
                    held_w[column, group, n] = i * len(step.targets)
                    counts[column, group] = n + 1


@_kernel
def _rows(produce, tile, above, out, row0, row1):
    """Rows row0..row1 of a lane tensor."""
    stride = above.conv.stride[1]
    pixel = above.channels * above.lanes
    for y in range(row0, row1):
        for phase in range(stride):
            for x in range(phase, above.out_w, COLUMNS * stride):
                columns = min(COLUMNS, -(-(above.out_w - x) // stride))
                base = (y * above.out_w + x) * pixel
                produce(tile, above, y, x, columns, out, base, stride * pixel)


# ---- the last step, fused with the one above it ----


@_kernel
def _scatter_rows(produce, tile, above, products, last, row0, rows, sums):
    """Cell rows row0..row0 + rows, added to the output rows they reach."""
    stride = above.conv.stride[1]
    pixel = above.channels * above.lanes
    channels = last.places.shape[2]
    panels = np.empty(COLUMNS * pixel, np.float32)
    order = np.empty(channels, np.int64)
    ends = np.empty(last.pool.kernel[0] * last.pool.kernel[1], np.int64)
    list_v, list_w = np.empty(channels, np.int64), np.empty(channels, np.int64)
    targets = np.empty(len(last.weights) // channels, np.int64)
    for y in range(row0, row0 + rows):
        start = (y - row0) * last.advance * last.row
        for phase in range(stride):
            # By the phase in the whole map, so that a part of it is summed in the same order.
            begin = (phase - above.conv.padding[1][0]) % stride
            for x in range(begin, above.out_w, COLUMNS * stride):
                columns = min(COLUMNS, -(-(above.out_w - x) // stride))
                produce(tile, above, y, x, columns, panels, np.int64(0), pixel)
                for i in range(columns):
                    cell_x = x + i * stride
                    _sort_channels(last.places[y, cell_x], order, ends)
                    for e in range(ends[-1]):
                        list_v[e] = i * pixel + order[e] * last.lanes
                        list_w[e] = order[e] * len(targets)
                    first = np.int64(0)
                    for place in range(len(ends)):
                        if ends[place] > first:
                            _find_targets(last, cell_x, place, targets)
                            products(
                                list_v, list_w, first, ends[place], panels, last.weights,
                                targets, sums, start, last.lanes,
                            )
                        first = ends[place]


@_kernel
def _sort_channels(places, order, ends):
    """Channels by place, those of place p up to ends[p]."""
    ends[:] = 0
    for place in places:
        if place >= 0:
            ends[place] += 1
    total = np.int64(0)
    for place in range(len(ends)):
        # The place's start for now; filling moves it to its end.
        ends[place], total = total, total + ends[place]
    for c in range(len(places)):
        place = places[c]
        if place >= 0:
            order[ends[place]] = c
            ends[place] += 1


@_kernel
def _find_targets(last, cell_x, place, targets):
    """Where each (tap, channel) of a value at this place of its cell is summed."""
    pool, conv = last.pool, last.conv
    ky, kx = divmod(place, pool.kernel[1])
    x = cell_x * pool.stride[1] - pool.padding[1][0] + kx * pool.dilation[1]
    n = 0
    for i in range(conv.kernel[0]):
        row = ky * pool.dilation[0] * conv.stride[0] + i * conv.dilation[0]
        for j in range(conv.kernel[1]):
            # The columns before the first one cancel the padding.
            column = x * conv.stride[1] + j * conv.dilation[1]
            for c in range(last.channels):
                targets[n] = row * last.row + (column * last.channels + c) * last.lanes
                n += 1


def _flush(
    last: _LastWork, sums: FloatArray, first: int, out: FloatArray, to: NDArray[np.intp]
) -> None:
    """Write finished output rows; `first` counts from the first one that cells reach."""
    y = first - last.top
    skip = max(0, -y)
    stop = min(len(sums), out.shape[2] - y)
    if skip < stop:
        before = last.conv.padding[1][0]
        rows = sums.reshape(len(sums), -1, last.channels, last.lanes)[skip:stop, before:]
        _transpose(rows, out[:, :, y + skip : y + stop], to)


@_kernel
def _transpose(rows, out, to):
    """(H, W.., C, lanes) to planes (N, C, H, W), lane k to plane to[k]."""
    _, channels, height, width = out.shape
    for y in range(height):
        for c in range(channels):
            # Few enough columns that their lanes stay in L1 from feature to feature.
            for x0 in range(0, width, 16):
                for k in range(len(to)):
                    for x in range(x0, min(x0 + 16, width)):
                        out[to[k], c, y, x] = rows[y, x, c, k]
