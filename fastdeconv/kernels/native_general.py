"""The general operations of the native back end, on planes (N, C, H, W)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import native  # type: ignore[attr-defined, unused-ignore]
from .interface import FloatArray, Pair, Window, switch_dtype
from .lanes import first_phases, padded_size
from .native_forward import (
    Channels,
    origin_steps,
    pack_forward,
    pad_lanes,
    tap_offsets,
    to_channels,
)
from .native_shared import COPY, enough_threads, kernels, run_rows

__all__ = ["GeneralOperations"]


class GeneralOperations:
    """The operations of `fastdeconv.kernels.interface.Backend`."""

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
