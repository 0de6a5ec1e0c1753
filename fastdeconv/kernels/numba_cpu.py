"""The CPU back end that needs no compiler at install time: kernels in Numba.

Importing this module imports numba. Kernels are compiled on first use, and are not
cached on disk, which would fail where the package is installed read-only or moved.
Kernels own no threads: each call does one tile of the work without the GIL, and
`run_bands` makes the calls.

Convolution and its adjoint are one kernel, `_correlate`. Input rows and columns
of equal phase modulo the stride are laid out next to each other, with zeros
around them. Then the outputs (for the adjoint: the outputs of one phase) are a
sum of products: a weight times a shifted run of one flat buffer. The place of an
output only decides where the run starts, so borders and edges of tiles need no
code of their own and round as all other places do. Products are added one by one,
in the order channel, row, column of the window, in float32, without reassociation
and contraction. So equal input patches give equal bits, whatever the number of
threads.
"""

# Numba infers the types of its kernels; they carry no annotations.
# mypy: allow-untyped-defs

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import numba_lanes
from .interface import FloatArray, Pair, Window, switch_dtype
from .lanes import Bf16, First, Last, Step, aligned_zeros
from .numba_jit import kernel as _kernel
from .schedule import run_bands

__all__ = ["BACKEND", "NumbaBackend"]

# Elements of a tile: the sums of four outputs over one tile stay in the L1 cache.
TILE = 256
# Bands for each thread: more than one, so that others help out a slow core.
BANDS_PER_THREAD = 4


def _input(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view: Numba would compile anew for an array that may be written."""
    view: NDArray[Any] = array.view()
    view.flags.writeable = False
    return view


# Convolution and its adjoint


class _Correlation(NamedTuple):
    """Outputs of one phase of the stride, as sums over runs of a flat buffer.

    Output (y, x) of the phase's grid `size` goes to ``start + (y, x) * step`` and
    is the sum over taps of ``weights * source[offsets + y * pitch + x]``.
    """

    offsets: NDArray[np.int64]  # (taps,)
    weights: FloatArray  # (groups, taps, outputs of a group)
    pitch: int
    start: Pair
    step: Pair
    size: Pair

    @property
    def length(self) -> int:
        """Positions of the flat run, the gap between rows included."""
        return (self.size[0] - 1) * self.pitch + self.size[1]


def _forward_plan(
    x: FloatArray, weight: FloatArray, window: Window, groups: int, out_size: Pair
) -> tuple[FloatArray, list[_Correlation]]:
    """Source (N, groups, length) and the one correlation of a convolution."""
    (sh, sw), (dh, dw), (kh, kw) = window.stride, window.dilation, window.kernel
    rows = out_size[0] + (kh - 1) * dh // sh
    cols = out_size[1] + (kw - 1) * dw // sw
    (top, _), (left, _) = window.padding
    padded = _shifted(x, (-top, -left), (rows * sh, cols * sw))
    # (channel, row phase, column phase, row, column)
    phased = np.ascontiguousarray(
        padded.reshape(*x.shape[:2], rows, sh, cols, sw).transpose(0, 1, 3, 5, 2, 4)
    )
    channel = np.arange(weight.shape[1])[:, None, None] * (sh * sw * rows * cols)
    ky, kx = np.arange(kh)[:, None] * dh, np.arange(kw) * dw
    offsets = channel + ((ky % sh) * sw + kx % sw) * (rows * cols) + (ky // sh) * cols + kx // sw
    taps = weight.reshape(groups, -1, offsets.size).transpose(0, 2, 1)
    taps = _input(np.ascontiguousarray(taps))
    plan = _Correlation(offsets.ravel(), taps, cols, (0, 0), (1, 1), out_size)
    return _by_group(phased, groups), [plan]


def _adjoint_plan(
    x: FloatArray, weight: FloatArray, window: Window, groups: int, out_size: Pair
) -> tuple[FloatArray, list[_Correlation]]:
    """Source (N, groups, length) and one correlation per phase of the stride.

    A padded position ``r * stride + phase`` receives from window ``r - k *
    dilation // stride`` through those k with ``k * dilation % stride == phase``.
    """
    row_phases = _axis_phases(window, out_size, 0)
    col_phases = _axis_phases(window, out_size, 1)
    low = min(p.lowest for p in row_phases), min(p.lowest for p in col_phases)
    high = max(p.highest for p in row_phases), max(p.highest for p in col_phases)
    rows, cols = high[0] - low[0] + 1, high[1] - low[1] + 1
    source = _by_group(_shifted(x, low, (rows, cols)), groups)
    per_group = weight.reshape(groups, -1, *weight.shape[1:])
    channel = np.arange(per_group.shape[1])[:, None, None] * (rows * cols)
    plans = []
    for p in row_phases:
        for q in col_phases:
            first_row = (p.first - low[0] - p.shifts)[:, None]
            offsets = channel + first_row * cols + (q.first - low[1] - q.shifts)
            taps = per_group[..., p.taps, :][..., q.taps].transpose(0, 1, 3, 4, 2)
            taps = np.ascontiguousarray(taps).reshape(groups, -1, weight.shape[1])
            plans.append(
                _Correlation(
                    offsets.ravel(),
                    _input(taps),
                    cols,
                    (p.start, q.start),
                    window.stride,
                    (p.length, q.length),
                )
            )
    return source, plans


class _AxisPhase(NamedTuple):
    """Along one axis, the outputs of the adjoint with equal phase of the stride."""

    start: int  # first output position, and how many there are
    length: int
    first: int  # the window that starts at the first one
    taps: NDArray[np.int64]  # positions of the window that reach this phase
    shifts: NDArray[np.int64]  # how many windows earlier each of them comes from

    @property
    def lowest(self) -> int:
        return self.first - int(self.shifts.max(initial=0))

    @property
    def highest(self) -> int:
        return self.first + self.length - 1


def _axis_phases(window: Window, out_size: Pair, axis: int) -> list[_AxisPhase]:
    stride, dilation = window.stride[axis], window.dilation[axis]
    before = window.padding[axis][0]
    reach = np.arange(window.kernel[axis]) * dilation
    phases = []
    for start in range(min(stride, out_size[axis])):
        first, phase = divmod(start + before, stride)
        taps = np.flatnonzero(reach % stride == phase)
        length = -(-(out_size[axis] - start) // stride)
        phases.append(_AxisPhase(start, length, first, taps, reach[taps] // stride))
    return phases


def _shifted(x: FloatArray, low: Pair, size: Pair) -> FloatArray:
    """``out[..., i, j] = x[..., low[0] + i, low[1] + j]``, zeros where x has nothing."""
    out = np.zeros((*x.shape[:2], *size), np.float32)
    source, target = [], []
    for first, length, n in zip(low, size, x.shape[2:], strict=True):
        begin, end = max(first, 0), max(min(first + length, n), max(first, 0))
        source.append(slice(begin, end))
        target.append(slice(begin - first, end - first))
    out[:, :, target[0], target[1]] = x[:, :, source[0], source[1]]
    return out


def _by_group(array: FloatArray, groups: int) -> FloatArray:
    """(N, C, ...) as (N, groups, values of a group)."""
    return array.reshape(len(array), groups, math.prod(array.shape[1:]) // groups)


def _run_plans(
    source: FloatArray,
    plans: list[_Correlation],
    bias: FloatArray | None,
    out: FloatArray,
    num_threads: int,
) -> FloatArray:
    source = _input(source)
    addend = _input(np.zeros(out.shape[1], np.float32) if bias is None else bias)
    tiles = [
        (sample, plan, low, min(low + TILE, plan.length))
        for plan in plans
        for low in range(0, plan.length, TILE)
        for sample in range(len(out))
    ]

    def work(i: int) -> None:
        sample, plan, low, high = tiles[i]
        _correlate(source[sample], *plan, addend, out[sample], low, high)

    run_bands(len(tiles), work, num_threads)
    return out


@_kernel
def _correlate(source, offsets, weights, pitch, start, step, size, bias, out, low, high):
    """Positions low..high of a correlation's flat run, all output channels."""
    groups, _, outputs = weights.shape
    sums = np.empty((4, high - low), np.float32)
    for group in range(groups):
        run = source[group, low:]
        for first in range(0, outputs, 4):
            lanes = min(4, outputs - first)
            sums[:] = np.float32(0)
            taps = weights[group, :, first : first + lanes]
            if lanes == 4:
                _add_taps_to_four(sums, run, offsets, taps)
            else:
                for lane in range(lanes):
                    _add_taps(sums[lane], run, offsets, taps[:, lane])
            for lane in range(lanes):
                channel = group * outputs + first + lane
                _store(out[channel], sums[lane], bias[channel], pitch, start, step, size, low)


@_kernel
def _add_taps_to_four(sums, run, offsets, taps):
    """Four outputs and four taps at a time, so that eight loads serve 16 products."""
    n = sums.shape[1]
    s0, s1, s2, s3 = sums[0], sums[1], sums[2], sums[3]
    paired = len(offsets) // 4 * 4
    for t in range(0, paired, 4):
        r0 = run[offsets[t] : offsets[t] + n]
        r1 = run[offsets[t + 1] : offsets[t + 1] + n]
        r2 = run[offsets[t + 2] : offsets[t + 2] + n]
        r3 = run[offsets[t + 3] : offsets[t + 3] + n]
        a0, a1, a2, a3 = taps[t, 0], taps[t, 1], taps[t, 2], taps[t, 3]
        b0, b1, b2, b3 = taps[t + 1, 0], taps[t + 1, 1], taps[t + 1, 2], taps[t + 1, 3]
        c0, c1, c2, c3 = taps[t + 2, 0], taps[t + 2, 1], taps[t + 2, 2], taps[t + 2, 3]
        d0, d1, d2, d3 = taps[t + 3, 0], taps[t + 3, 1], taps[t + 3, 2], taps[t + 3, 3]
        for i in range(n):
            v0, v1, v2, v3 = r0[i], r1[i], r2[i], r3[i]
            s0[i] = s0[i] + a0 * v0 + b0 * v1 + c0 * v2 + d0 * v3
            s1[i] = s1[i] + a1 * v0 + b1 * v1 + c1 * v2 + d1 * v3
            s2[i] = s2[i] + a2 * v0 + b2 * v1 + c2 * v2 + d2 * v3
            s3[i] = s3[i] + a3 * v0 + b3 * v1 + c3 * v2 + d3 * v3
    for lane in range(4):
        _add_taps(sums[lane], run, offsets[paired:], taps[paired:, lane])


@_kernel
def _add_taps(sums, run, offsets, taps):
    n = len(sums)
    paired = len(offsets) // 4 * 4
    for t in range(0, paired, 4):
        r0 = run[offsets[t] : offsets[t] + n]
        r1 = run[offsets[t + 1] : offsets[t + 1] + n]
        r2 = run[offsets[t + 2] : offsets[t + 2] + n]
        r3 = run[offsets[t + 3] : offsets[t + 3] + n]
        a, b, c, d = taps[t], taps[t + 1], taps[t + 2], taps[t + 3]
        for i in range(n):
            sums[i] = sums[i] + a * r0[i] + b * r1[i] + c * r2[i] + d * r3[i]
    for t in range(paired, len(offsets)):
        r0 = run[offsets[t] : offsets[t] + n]
        a = taps[t]
        for i in range(n):
            sums[i] += a * r0[i]


@_kernel
def _store(out, sums, bias, pitch, start, step, size, low):
    """Copy flat positions from `low` on to their places, without those in the gap after a row."""
    i = 0
    while i < len(sums):
        row, col = divmod(low + i, pitch)
        y = start[0] + row * step[0]
        n = min(size[1] - col, len(sums) - i)
        for j in range(n):
            out[y, start[1] + (col + j) * step[1]] = sums[i + j] + bias
        i += pitch - col


# Max pooling and its adjoint


def _run_planes(count: int, work: Callable[[int, int], None], num_threads: int) -> None:
    """``work(low, high)`` over ranges of the `count` planes of (N, C)."""
    bands = min(count, num_threads * BANDS_PER_THREAD)
    run_bands(bands, lambda i: work(i * count // bands, (i + 1) * count // bands), num_threads)


@_kernel
def _pool(x, kernel, stride, dilation, before, values, switches):
    """Planes (P, H, W) to maxima and switches, whole rows of windows at a time."""
    height, width = x.shape[1:]
    rows, cols = values.shape[1:]
    kw = kernel[1]
    seen = np.empty(cols, np.float32)
    leading = np.empty(cols, np.int64)  # first column of each window that is not padding
    for j in range(cols):
        leading[j] = max(0, -(-(before[1] - j * stride[1]) // dilation[1]))
    for plane in range(len(x)):
        for i in range(rows):
            top = i * stride[0] - before[0]
            first_row = max(0, -(top // dilation[0]))
            best, where = values[plane, i], switches[plane, i]
            # A window of -inf alone keeps this start: padding never wins.
            for j in range(cols):
                best[j] = -np.inf
                where[j] = first_row * kw + leading[j]
            for ky in range(first_row, kernel[0]):
                y = top + ky * dilation[0]
                if y >= height:
                    break
                for kx in range(kw):
                    left = kx * dilation[1] - before[1]
                    j0 = max(0, -(left // stride[1]))
                    j1 = min(cols, (width - 1 - left) // stride[1] + 1)
                    if j0 < j1:
                        row = x[plane, y, j0 * stride[1] + left :]
                        index = ky * kw + kx
                        _raise_to(best[j0:j1], where[j0:j1], row, stride[1], index, seen)


@_kernel
def _raise_to(best, where, row, stride, index, seen):
    # Two loops, because only the one without the stride becomes vector code.
    for j in range(len(best)):
        seen[j] = row[j * stride]
    for j in range(len(best)):
        v, b, w = seen[j], best[j], where[j]
        # Larger, or the first NaN (b == b is false once b is one); equals do not win.
        wins = not (v <= b) and b == b
        best[j] = v if wins else b
        where[j] = index if wins else w


@_kernel
def _unpool(values, switches, kernel, stride, dilation, before, out):
    """Planes (P, H', W') added into `out` (P, H, W) in the windows' row-major order."""
    for plane in range(len(values)):
        for i in range(values.shape[1]):
            for j in range(values.shape[2]):
                ky, kx = divmod(np.int64(switches[plane, i, j]), kernel[1])
                y = i * stride[0] + ky * dilation[0] - before[0]
                x = j * stride[1] + kx * dilation[1] - before[1]
                out[plane, y, x] += values[plane, i, j]


class NumbaBackend:
    """The ops of `fastdeconv.kernels.interface.Backend`, compiled on first use."""

    name = "numba"

    def conv2d(
        self,
        x: FloatArray,
        weight: FloatArray,
        bias: FloatArray | None,
        window: Window,
        groups: int,
        out_size: Pair,
        num_threads: int,
    ) -> FloatArray:
        """See `fastdeconv.kernels.interface.Backend`."""
        out = np.empty((len(x), len(weight), *out_size), np.float32)
        source, plans = _forward_plan(x, weight, window, groups, out_size)
        return _run_plans(source, plans, bias, out, num_threads)

    def conv_transpose2d(
        self,
        x: FloatArray,
        weight: FloatArray,
        bias: FloatArray | None,
        window: Window,
        groups: int,
        out_size: Pair,
        num_threads: int,
    ) -> FloatArray:
        """See `fastdeconv.kernels.interface.Backend`."""
        out = np.empty((len(x), weight.shape[1] * groups, *out_size), np.float32)
        source, plans = _adjoint_plan(x, weight, window, groups, out_size)
        return _run_plans(source, plans, bias, out, num_threads)

    def max_pool2d(
        self, x: FloatArray, window: Window, out_size: Pair, num_threads: int
    ) -> tuple[FloatArray, NDArray[Any]]:
        """See `fastdeconv.kernels.interface.Backend`."""
        values = np.empty((*x.shape[:2], *out_size), np.float32)
        switches = np.empty(values.shape, switch_dtype(window.kernel))
        planes = [_planes(array) for array in (_input(x), values, switches)]
        before = (window.padding[0][0], window.padding[1][0])

        def work(low: int, high: int) -> None:
            inputs, *outputs = (array[low:high] for array in planes)
            _pool(inputs, window.kernel, window.stride, window.dilation, before, *outputs)

        _run_planes(len(planes[0]), work, num_threads)
        return values, switches

    def max_unpool2d(
        self,
        values: FloatArray,
        switches: NDArray[Any],
        window: Window,
        out_size: Pair,
        num_threads: int,
    ) -> FloatArray:
        """See `fastdeconv.kernels.interface.Backend`."""
        out = np.zeros((*values.shape[:2], *out_size), np.float32)
        sources = _planes(_input(values)), _planes(_input(switches))
        targets = _planes(out)
        before = (window.padding[0][0], window.padding[1][0])

        def work(low: int, high: int) -> None:
            inputs = (array[low:high] for array in sources)
            geometry = (window.kernel, window.stride, window.dilation, before)
            _unpool(*inputs, *geometry, targets[low:high])

        _run_planes(len(targets), work, num_threads)
        return out

    def bf16(self) -> Bf16:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        return "none"

    def project(self, job: First | Step, num_threads: int) -> FloatArray:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        return numba_lanes.project(job, num_threads)

    def project_last(
        self, job: Last, out: FloatArray, rows: NDArray[np.intp], num_threads: int
    ) -> None:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        out[rows] = 0
        numba_lanes.project_last(job, out, rows, num_threads)

    def release(self, v: FloatArray) -> None:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""

    def end(self) -> None:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""

    def from_planes(self, planes: FloatArray, bf16: bool) -> FloatArray:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        count, channels, h, w = planes.shape
        v = aligned_zeros((h, w, channels, numba_lanes.lanes(count)))
        v[..., :count] = planes.transpose(2, 3, 1, 0)
        return v

    def to_planes(self, v: FloatArray, planes: FloatArray, num_threads: int) -> None:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""
        planes[:] = v[..., : len(planes)].transpose(3, 2, 0, 1)


def _planes(array: NDArray[Any]) -> NDArray[Any]:
    """(N, C, H, W) as (N * C, H, W), without a copy."""
    return array.reshape(-1, *array.shape[2:])


BACKEND = NumbaBackend()
