"""CUDA kernels of the back end for GPUs.

What    Convolution, max pooling and their adjoints on planes (N, C, H, W), and the steps of
        the backward pass with features in the lanes (see `fastdeconv.kernels.lanes`). Any
        kernel, stride, dilation, padding and groups.
Layout  Arrays are flat, their shapes tuples; windows are tuples (kh, kw, sh, sw, dh, dw, rows
        above, columns to the left). A thread computes an output, neighbouring threads
        neighbouring ones; of a lane tensor (H, W, channel, lane) neighbours are lanes.
        Nearly all the arithmetic is in `step`. What reaches a pixel is a list: `list_channels`
        has sorted the channels of every cell by switch, and the threads of a block find out
        together which cell and place every tap looks at. A block of `step` owns `columns`
        channels by `lanes` lanes of a pixel: it brings values and weights of `ROWS` entries
        at a time into shared memory and adds their products to sums in registers (12 loads
        for 32 multiply-adds). With few channels nothing is shared: `step_few`.
Mix     Numba counts in 64 bits, which a GPU does in pieces, and asks of every index if it is
        negative: an entry of `step` took 168 instructions for 32 multiply-adds. So arrays have
        less than 2^31 elements, and where it counts indices are unsigned sums of products of
        32 bits (`_times`), one instruction each, in while loops (a range takes five a turn).
Numbers float32 multiply-adds in one order for every output: row, column, channel of the window.
        Nothing depends on where an output lies, on the grid or on the other lanes, so equal
        patches give equal bits.
"""

# Numba infers the types of its kernels; they carry no annotations.
# mypy: allow-untyped-defs

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda as numba_cuda
from numba import float32, int32, int64, uint32, uint64

__all__ = [
    "conv2d",
    "conv_transpose2d",
    "first",
    "from_planes",
    "list_channels",
    "max_pool2d",
    "max_unpool2d",
    "step",
    "step_few",
    "to_planes",
]

cuda: Any = numba_cuda
"""Without types: a redirection of imports provides it."""

ROWS = 32
"""Entries of `step` in shared memory at a time."""
THREADS = 256
"""Of all kernels but `step`."""
OWN = 4
"""Channels of a thread of `first`."""
TAPS = 32
"""Of a pixel of `step_few`, in shared memory at a time."""


def _kernel(function: Callable[..., Any]) -> Any:
    return cuda.jit(function)


def _device(function: Callable[..., Any]) -> Any:
    return cuda.jit(function, device=True)


@_device
def _at_least(low, value):
    """max(low, value); a NaN stays."""
    return low if value < low else value


@_device
def _finished(total, scale, lows):
    """A `Post`: max(lows[0], total) * scale, then max(lows[1], .)"""
    return _at_least(lows[1], _at_least(lows[0], total) * scale)


@_device
def _divided(a, b):
    """divmod(a, b) of numbers that are not negative."""
    q = uint32(a) // uint32(b)
    return int64(q), int64(uint32(a) - q * uint32(b))


@_device
def _times(a, b):
    """Product of numbers that are not negative, unsigned."""
    return uint64(uint32(a)) * uint64(uint32(b))


@_device
def _index4(at, shape):
    """Row-major index of element `at` of an array of four axes."""
    rest, l = _divided(at, shape[3])
    rest, k = _divided(rest, shape[2])
    i, j = _divided(rest, shape[1])
    return i, j, k, l


@_device
def _reached(place, tap, stride, dilation, before, size):
    """The output whose tap covers this place of the input, along one axis; negative: none."""
    n = place + before - tap * dilation
    q = n if stride == 1 else n // stride
    return q if n >= 0 and q * stride == n and q < size else -1


# ---- planes (N, C, H, W) ----


@functools.cache
def conv2d(own: int) -> Any:
    """The kernel whose threads compute `own` outputs of a place; their number is a multiple."""

    @_kernel
    def kernel(x, x_shape, weight, groups, window, finish, low, out, out_shape):
        """Weights (group, taps, C / groups, O / groups).

        finish: (O, 5) bias, then scale and shift before and after max(low, .)
        """
        at = cuda.grid(1)
        if at >= out.size // own:
            return
        _, outputs, out_h, out_w = out_shape
        rest, j = _divided(at, out_w)
        tile, i = _divided(rest, out_h)
        n, tile = _divided(tile, outputs // own)
        o = tile * own
        kh, kw, sh, sw, dh, dw, above, left = window
        _, channels, height, width = x_shape
        inner, per_group = channels // groups, outputs // groups
        group = o // per_group
        plane = (n * channels + group * inner) * height
        block = group * kh * kw * inner * per_group + o - group * per_group
        sums = cuda.local.array(own, float32)
        for s in range(own):
            sums[s] = float32(0)
        for ky in range(kh):
            y = i * sh + ky * dh - above
            if y < 0 or y >= height:
                continue
            for kx in range(kw):
                column = j * sw + kx * dw - left
                if column < 0 or column >= width:
                    continue
                place = uint64((plane + y) * width + column)
                tap = uint64(block + (ky * kw + kx) * inner * per_group)
                c = 0
                while c < inner:
                    value = x[place]
                    for s in range(own):
                        sums[s] += weight[tap + uint64(s)] * value
                    place += uint64(height * width)
                    tap += uint64(per_group)
                    c += 1
        to = ((n * outputs + o) * out_h + i) * out_w + j
        for s in range(own):
            f = (o + s) * 5
            total = (sums[s] + finish[f]) * finish[f + 1] + finish[f + 2]
            out[to + s * out_h * out_w] = _at_least(low, total) * finish[f + 3] + finish[f + 4]

    return kernel


@_kernel
def conv_transpose2d(x, x_shape, weight, groups, window, bias, out, out_shape):
    """Weights (O, C / groups, taps)."""
    at = cuda.grid(1)
    if at >= out.size:
        return
    n, c, y, column = _index4(at, out_shape)
    kh, kw, sh, sw, dh, dw, above, left = window
    _, outputs, height, width = x_shape
    inner, per_group = out_shape[1] // groups, outputs // groups
    group, c_in = divmod(c, inner)
    total = float32(0)
    for ky in range(kh):
        i = _reached(y, ky, sh, dh, above, height)
        if i < 0:
            continue
        for kx in range(kw):
            j = _reached(column, kx, sw, dw, left, width)
            if j < 0:
                continue
            for o in range(group * per_group, (group + 1) * per_group):
                tap = uint32(((o * inner + c_in) * kh + ky) * kw + kx)
                total += weight[tap] * x[uint32(((n * outputs + o) * height + i) * width + j)]
    out[at] = total + bias[c]


@_kernel
def max_pool2d(x, x_shape, window, values, switches, shape):
    at = cuda.grid(1)
    if at >= values.size:
        return
    n, c, i, j = _index4(at, shape)
    kh, kw, sh, sw, dh, dw, above, left = window
    _, channels, height, width = x_shape
    plane = (n * channels + c) * height * width
    y0, x0 = i * sh - above, j * sw - left
    first_row, first_column = max(0, -(y0 // dh)), max(0, -(x0 // dw))
    # A window of -inf alone keeps this start: padding never wins.
    best, where = float32(-np.inf), first_row * kw + first_column
    for ky in range(first_row, kh):
        y = y0 + ky * dh
        if y >= height:
            break
        for kx in range(first_column, kw):
            column = x0 + kx * dw
            if column >= width:
                break
            v = x[uint32(plane + y * width + column)]
            # Larger, or the first NaN (best == best is false once it is one).
            if not v <= best and best == best:
                best, where = v, ky * kw + kx
    values[at] = best
    switches[at] = where


@_kernel
def max_unpool2d(values, switches, shape, window, out, out_shape):
    """Every place collects from the windows over it, in their row-major order."""
    at = cuda.grid(1)
    if at >= out.size:
        return
    n, c, y, column = _index4(at, out_shape)
    kh, kw, sh, sw, dh, dw, above, left = window
    _, channels, rows, columns = shape
    y += above
    column += left
    row0 = max(0, -(((kh - 1) * dh - y) // sh))
    column0 = max(0, -(((kw - 1) * dw - column) // sw))
    total = float32(0)
    for i in range(row0, min(rows, y // sh + 1)):
        ky = (y - i * sh) // dh
        if ky >= kh or ky * dh != y - i * sh:
            continue
        for j in range(column0, min(columns, column // sw + 1)):
            kx = (column - j * sw) // dw
            cell = ((n * channels + c) * rows + i) * columns + j
            if kx < kw and kx * dw == column - j * sw and switches[cell] == ky * kw + kx:
                total += values[cell]
    out[at] = total


# ---- lane tensors ----


@_kernel
def from_planes(planes, count, out, shape):
    """(K, C, H, W) to (H, W, C, lanes); lanes from K on are zero."""
    at = cuda.grid(1)
    if at < out.size:
        y, x, c, k = _index4(at, shape)
        height, width, channels, _ = shape
        plane = (k * channels + c) * height + y
        out[at] = planes[uint32(plane * width + x)] if k < count else float32(0)


@_kernel
def to_planes(v, shape, out, out_shape):
    """(H, W, C, lanes) to (K, C, H, W)."""
    at = cuda.grid(1)
    if at < out.size:
        k, c, y, x = _index4(at, out_shape)
        out[at] = v[uint32(((y * shape[1] + x) * shape[2] + c) * shape[3] + k)]


@_kernel
def list_channels(places, cells, groups, order, ends):
    """Channels of every cell and group by place; those of place p are ends[p] to ends[p + 1].

    places (cells, C), negative: none; order (cells, C); ends (cells, groups, places + 1)
    """
    at = cuda.grid(1)
    cell, group = divmod(at, groups)
    if cell >= cells:
        return
    channels, count = places.size // cells, ends.size // (cells * groups) - 1
    row, begin, mine = cell * channels, group * (channels // groups), at * (count + 1)
    stop = begin + channels // groups
    for p in range(count + 1):
        ends[mine + p] = 0
    for c in range(begin, stop):
        if places[row + c] >= 0:
            ends[mine + places[row + c] + 1] += 1
    total = begin
    for p in range(count):
        # The place's start for now; filling moves it to its end.
        here = ends[mine + p + 1]
        ends[mine + p + 1] = total
        total += here
    ends[mine] = begin
    for c in range(begin, stop):
        p = places[row + c]
        if p >= 0:
            order[row + ends[mine + p + 1]] = c
            ends[mine + p + 1] += 1


@_kernel
def first(values, size, weight, window, scale, lows, out, shape):
    """values (H', W', lanes), weight (C, taps, lanes), out (H, W, C, lanes); a block a pixel"""
    _, width, channels, lanes = shape
    y, x = divmod(cuda.blockIdx.x, width)
    if y >= shape[0]:
        return
    kh, kw, sh, sw, dh, dw, above, left = window
    taps, pixel = kh * kw, cuda.blockIdx.x * channels * lanes
    sums = cuda.local.array(OWN, float32)
    for e in range(cuda.threadIdx.x, (channels + OWN - 1) // OWN * lanes, THREADS):
        c, k = _divided(e, lanes)
        c *= OWN
        for s in range(OWN):
            sums[s] = float32(0)
        for ky in range(kh):
            i = _reached(y, ky, sh, dh, above, size[0])
            if i < 0:
                continue
            for kx in range(kw):
                j = _reached(x, kx, sw, dw, left, size[1])
                if j < 0:
                    continue
                value = values[_times(i * size[1] + j, lanes) + uint64(k)]
                for s in range(OWN):
                    # Beyond the last channel some other one, whose sum is not kept.
                    row = min(c + s, channels - 1) * taps + ky * kw + kx
                    sums[s] += weight[_times(row, lanes) + uint64(k)] * value
        for s in range(OWN):
            if c + s < channels:
                to = _times(pixel // lanes + c + s, lanes) + uint64(k)
                out[to] = _finished(sums[s], scale[c + s], lows)


@_device
def _sender(y, x, tap, window, size, pool):
    """(cell, place in it) of the unpooled value that a tap carries to a pixel; cell -1: none.

    pool: a window, then the rows and columns of cells
    """
    _, kw, sh, sw, dh, dw, above, left = window
    pool_h, pool_w, step_h, step_w, gap_h, gap_w, pool_above, pool_left, cells_h, cells_w = pool
    ky, kx = divmod(tap, kw)
    q = _reached(y, ky, sh, dh, above, size[0])
    r = _reached(x, kx, sw, dw, left, size[1])
    if q < 0 or r < 0:
        return -1, 0
    q += pool_above
    r += pool_left
    i, j = q // step_h, r // step_w
    py, px = (q - i * step_h) // gap_h, (r - j * step_w) // gap_w
    # Where pools have gaps, between windows or in them, nothing comes from.
    if (
        i < 0 or j < 0 or i >= cells_h or j >= cells_w or py >= pool_h or px >= pool_w
        or i * step_h + py * gap_h != q or j * step_w + px * gap_w != r
    ):
        return -1, 0
    return i * cells_w + j, py * pool_w + px


@_device
def _entries(y, x, tap, window, size, pool, ends, group, groups):
    """(cell, first, stop): what a tap carries to a pixel is order[first:stop] of the cell."""
    cell, place = _sender(y, x, tap, window, size, pool)
    if cell < 0:
        return cell, 0, 0
    at = (cell * groups + group) * (pool[0] * pool[1] + 1) + place
    return cell, int64(ends[at]), int64(ends[at + 1])


@functools.cache
def step(columns: int, lanes: int) -> tuple[Any, int]:
    """The kernel for tiles of so many channels and lanes, and its threads.

    columns 16 or 64; lanes 16, 32 or 64. Grid: pixels of `out`, tiles of channels in all
    groups, tiles of lanes.
    """
    across = 8
    along = min(lanes, 16)
    threads = across * along
    own_columns, own_lanes = columns // across, lanes // along
    own = own_columns * own_lanes
    values_size, weights_size = ROWS * lanes, ROWS * columns
    lane_bits, column_bits = lanes.bit_length() - 1, columns.bit_length() - 1

    @_kernel
    def kernel(v, order, ends, pool, size, weight, blocks, window, scale, lows, out, shape):
        """weight (groups, taps, C / groups, inner), the last two are `blocks`"""
        tap_cell = cuda.shared.array(threads, int32)
        tap_first = cuda.shared.array(threads, int32)
        tap_count = cuda.shared.array(threads, int32)
        row_value = cuda.shared.array(ROWS, uint32)
        row_weight = cuda.shared.array(ROWS, uint32)
        held_values = cuda.shared.array(values_size, float32)
        held_weights = cuda.shared.array(weights_size, float32)
        sums = cuda.local.array(own, float32)
        for s in range(own):
            sums[s] = float32(0)
        y, x = divmod(cuda.blockIdx.x, shape[1])
        if y >= shape[0]:
            return
        thread = cuda.threadIdx.x
        lane, column = thread % along, thread // along
        per_group, inner = blocks
        group, tile = divmod(cuda.blockIdx.y, (inner + columns - 1) // columns)
        begin, lane0 = tile * columns, cuda.blockIdx.z * lanes
        taps, groups = window[0] * window[1], shape[2] // inner
        for tap0 in range(0, taps, threads):
            some = min(threads, taps - tap0)
            cuda.syncthreads()
            if thread < some:
                cell, first, stop = _entries(
                    y, x, tap0 + thread, window, size, pool, ends, group, groups
                )
                tap_cell[thread], tap_first[thread] = cell, first
                tap_count[thread] = stop - first
            cuda.syncthreads()
            total = 0
            for t in range(some):
                total += tap_count[t]
            tap = before = 0
            for at in range(0, total, ROWS):
                rows = min(ROWS, total - at)
                for row in range(thread, rows, threads):
                    while at + row >= before + tap_count[tap]:
                        before += tap_count[tap]
                        tap += 1
                    cell = tap_cell[tap] * groups * per_group
                    o = order[cell + tap_first[tap] + at + row - before]
                    row_value[row] = (cell + o) * shape[3] + lane0
                    # o counts in all groups, channels of the weights in their own.
                    block = group * (taps - 1) + tap0 + tap
                    row_weight[row] = (block * per_group + o) * inner + begin
                cuda.syncthreads()
                row, k = uint64(thread >> lane_bits), uint64(thread & (lanes - 1))
                while row < rows:
                    held_values[row * uint64(lanes) + k] = v[uint64(row_value[row]) + k]
                    row += uint64(threads >> lane_bits)
                row, k = uint64(thread >> column_bits), uint64(thread & (columns - 1))
                inside = begin + (thread & (columns - 1)) < inner
                while row < rows:
                    held_weights[row * uint64(columns) + k] = (
                        weight[uint64(row_weight[row]) + k] if inside else float32(0)
                    )
                    row += uint64(threads >> column_bits)
                cuda.syncthreads()
                row, to_w, to_v = 0, uint64(column), uint64(lane)
                while row < rows:
                    for s in range(own_columns):
                        w = held_weights[to_w + uint64(s * across)]
                        for t in range(own_lanes):
                            sums[s * own_lanes + t] += w * held_values[to_v + uint64(t * along)]
                    to_w += uint64(columns)
                    to_v += uint64(lanes)
                    row += 1
        for s in range(own_columns):
            c = begin + column + s * across
            if c < inner:
                c += group * inner
                to = (cuda.blockIdx.x * shape[2] + c) * shape[3] + lane0 + lane
                for t in range(own_lanes):
                    result = _finished(sums[s * own_lanes + t], scale[c], lows)
                    out[uint32(to + t * along)] = result

    return kernel, threads


@functools.cache
def step_few(lanes: int) -> Any:
    """As `step`, for few channels: a thread computes one of them for one lane of a pixel.

    lanes 16, 32 or 64. Grid: so many pixels that there are `THREADS` threads a block,
    channels, tiles of lanes.
    """
    pixels = THREADS // lanes
    in_block = pixels * TAPS

    @_kernel
    def kernel(v, order, ends, pool, size, weight, blocks, window, scale, lows, out, shape):
        tap_cell = cuda.shared.array(in_block, int32)
        tap_first = cuda.shared.array(in_block, int32)
        tap_stop = cuda.shared.array(in_block, int32)
        thread, pixel0 = cuda.threadIdx.x, cuda.blockIdx.x * pixels
        mine, lane = thread // lanes, cuda.blockIdx.z * lanes + thread % lanes
        per_group, inner = blocks
        channel = cuda.blockIdx.y
        group, c = divmod(channel, inner)
        taps, groups = window[0] * window[1], shape[2] // inner
        total = float32(0)
        for tap0 in range(0, taps, TAPS):
            some = min(TAPS, taps - tap0)
            cuda.syncthreads()
            for t in range(thread, pixels * some, THREADS):
                pixel, tap = divmod(t, some)
                y, x = divmod(pixel0 + pixel, shape[1])
                cell, first, stop = _entries(
                    y, x, tap0 + tap, window, size, pool, ends, group, groups
                )
                tap_cell[t], tap_first[t], tap_stop[t] = cell, first, stop
            cuda.syncthreads()
            for t in range(some):
                at = mine * some + t
                cell = max(0, tap_cell[at]) * groups * per_group
                block = (group * (taps - 1) + tap0 + t) * per_group
                from_w = _times(block, inner) + uint64(c)
                from_v = _times(cell, shape[3]) + uint64(lane)
                e, stop = uint64(cell + tap_first[at]), uint64(cell + tap_stop[at])
                while e < stop:
                    o = order[e]
                    w = weight[from_w + _times(o, inner)]
                    total += w * v[from_v + _times(o, shape[3])]
                    e += uint64(1)
        pixel = pixel0 + mine
        if pixel < shape[0] * shape[1]:
            to = uint32((pixel * shape[2] + channel) * shape[3] + lane)
            out[to] = _finished(total, scale[channel], lows)

    return kernel
