"""The backward pass with features in vector lanes: what a back end is asked to do.

All features of one clip share the switches of its forward pass. So the non-zero values of an
unpooled tensor lie at the same places for every feature. The backward pass therefore computes
many features at once: it stores them in a *lane tensor* (H, W, C, lanes), with one feature in
each lane of a SIMD register. A back end that has ``project`` and ``project_last`` goes down a
network in jobs:

`First`    the start values (one channel for each lane) through the first transposed convolution
`Step`     unpool a lane tensor, then a transposed convolution
`Overlap`  before a `Step` or `Last` that unpools overlapping windows: add up the values that
           they send to the same place
`Last`     the transposed convolution to the network's input, together with the `First` or `Step`
           above it, so that the largest lane tensor never exists
`Combine`, `Reduce`  what layers with several inputs send back; only some back ends have them

The native and Numba back ends share the geometry and the packing of weights in this module.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_index
from .interface import Backend, FloatArray, Pair, Window

__all__ = [
    "Bf16",
    "Combine",
    "Convolution",
    "First",
    "Given",
    "LaneBackend",
    "Last",
    "Overlap",
    "Phases",
    "Post",
    "Read",
    "Reduce",
    "Shared",
    "Single",
    "Source",
    "Step",
    "Term",
    "View",
    "cached",
    "cell_places",
    "first_lanes",
    "first_phases",
    "first_weight",
    "last_band",
    "last_bands",
    "pack_blocks",
    "padded_size",
    "shared_windows",
]

NO_POOL = Window((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)))
"""The pool of a `Source` that has none: windows of one place."""

_BAND, _BANDS = 8, 4
"""A `Last` job is cut into bands of at most `_BAND` cell rows, and into at least `_BANDS` bands
where there are that many rows."""


class Convolution(NamedTuple):
    """The convolution that a job goes back through."""

    weight: FloatArray
    """(O, C / groups, kh, kw)"""
    window: Window
    groups: int
    input_size: Pair
    cache: dict[Any, Any]
    """Packed weights. It lives as long as the weights do."""

    @property
    def input_channels(self) -> int:
        return self.weight.shape[1] * self.groups


class Source(NamedTuple):
    """Where the values of an unpooled tensor come from.

    They come from a lane tensor, whose places are called *cells*: each stands for a window of the
    pool. Where windows overlap, an `Overlap` job has gone over the lane tensor before.

    Lane tensor and unpooled tensor may be parts of the whole ones. `origin` says where the lane
    tensor begins, and the padding in `pool` is counted from there.
    """

    switches: NDArray[Any] | None
    """(H, W, Cs) of the whole pool, Cs >= channels. None where there is no pool."""
    gate: NDArray[np.uint8] | None
    """(H, W, channels) of the whole lane tensor: where it is 0, no feature has a value."""
    pool: Window
    origin: Pair
    """Row and column of the whole tensor where the lane tensor begins."""
    cells: Pair
    """Size of the lane tensor."""
    size: Pair
    """Size of the unpooled tensor."""
    channels: int
    cache: dict[Any, Any]
    """What a back end has computed from switches and gate. It lives as long as they do."""
    open_places: NDArray[np.uint8] | None = None
    """(H, W, channels) of the whole unpooled tensor, for a pool without switches: a value goes to
    every place of its window where this is 1. Only for a back end that ``spreads``."""


class View(NamedTuple):
    """A lane tensor or a part of one."""

    v: Any
    origin: Pair = (0, 0)
    """Row and column of `v` where the part begins."""
    channel: int = 0
    """The first channel of the part."""
    repeated: bool = False
    """Whether `v` has a single pixel, which stands for all places."""


class Post(NamedTuple):
    """What is done to a finished sum x, in this order, each only where asked for.

    x + more, max(0, x), x * scale[channel], max(0, x), x * factor.
    """

    relu_before: bool = False
    scale: FloatArray | None = None
    relu_after: bool = False
    factor: FloatArray | None = None
    """(H, W, C), contiguous in C, the same for all features. Only for a back end that
    ``multiplies``."""
    more: View | None = None
    """Only for a back end that ``joins``, and not after an `Overlap`."""
    counts: FloatArray | None = None
    """(H, W, C), contiguous in C. If given, the job also sums its result over all places, each
    multiplied by its count. Only for a back end that ``joins``."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing follows."""
        return not (self.relu_before or self.relu_after) and all(
            x is None for x in (self.scale, self.factor, self.more, self.counts)
        )


class First(NamedTuple):
    """Transposed convolution of `values` (K, H, W), where map k belongs to channel features[k]."""

    values: FloatArray
    features: NDArray[np.intp]
    conv: Convolution
    post: Post
    bf16: bool
    """Whether the `Step` jobs that follow multiply in bfloat16. This job never does."""


class Step(NamedTuple):
    """Transposed convolution of an unpooled lane tensor."""

    v: Any
    """A lane tensor, in the layout of the back end that runs the job. Where the back end ``fuses``
    two jobs, the `First` or `Step` that makes the lane tensor."""
    source: Source
    conv: Convolution
    post: Post
    bf16: bool
    """Whether operands are rounded to bfloat16; sums are float32. Only where `LaneBackend.bf16`
    returns "vectors" or "tiles"."""


class Overlap(NamedTuple):
    """Add up the values that overlapping windows send to the same place.

    The sum is stored in the cell of the first of these windows.
    """

    v: Any
    origin: Pair
    """Row and column of the whole tensor where `v` begins. Outside of `v` it is zero."""
    source: Source
    """Describes the result."""
    post: Post


class Term(NamedTuple):
    """A lane tensor of a `Combine`."""

    view: View
    factor: FloatArray | None = None
    """(H, W, C), contiguous in C, the same for all features."""


class Combine(NamedTuple):
    """The sum of several lane tensors, each multiplied by its factor."""

    terms: Sequence[Term]
    size: Pair
    channels: int
    post: Post
    into: int | None = None
    """The index of a term whose lane tensor the result may overwrite: nobody else uses it, and it
    has the size of the result."""


class Reduce(NamedTuple):
    """The sum of a lane tensor over all places, each multiplied by its factor: one pixel.

    Not needed for a tensor that was already summed by `Post.counts`.
    """

    term: Term
    size: Pair
    channels: int


class Last(NamedTuple):
    """Transposed convolution to the network's input, of the lane tensor that `above` makes."""

    above: First | Step | Any
    """The job that makes the lane tensor, or after an `Overlap` the lane tensor itself."""
    source: Source
    conv: Convolution
    rows: int
    """Rows of the whole lane tensor, even where the source is a part of it."""


class Single(NamedTuple):
    """Transposed convolution of `values` (K, H, W) to the network's input; map k is features[k]'s.

    For a back end that can do it without lanes (``project_single``). Stride 1, one group.
    """

    values: FloatArray
    """At the output of the pool, if there is one."""
    features: NDArray[np.intp]
    rows: NDArray[np.intp]
    """The index in the result for each map."""
    switches: NDArray[Any] | None
    """Planes (C, H, W) of the pool, whose windows do not overlap."""
    pool: Window
    conv: Convolution


Read = tuple[Source, FloatArray | None]
"""What jobs read of a trace between two convolutions: the source of the lower one, and the
`Post.factor` above it, or of its `Overlap`."""


class Given(NamedTuple):
    """What a pass that is planned is told each time."""

    values: FloatArray
    """(K, H, W), at the output of the pool, if there is one"""
    switches: NDArray[Any] | None
    """(K, H, W) of the pool, whose windows do not overlap"""
    features: NDArray[np.intp]
    rows: NDArray[np.intp]
    out: FloatArray
    """(N, C, H, W); feature k is rows[k] of N"""
    lists: list[Any]
    """What the back end's ``lists`` made of the trace."""


Bf16 = Literal["none", "slow", "vectors", "tiles"]
"""How a back end multiplies in bfloat16: "none", not at all; "slow", it could, but no faster than
in float32, so it should not be asked to; "vectors", by AVX512_BF16; "tiles", by AMX."""


class LaneBackend(Backend, Protocol):
    """A back end with the lane kernels.

    Some things only some back ends can do:

    - pools whose windows overlap: if it has ``add_overlaps(job: Overlap, num_threads)``. The
      result replaces ``job.v``, which nobody may use any more.
    - activations that are gone back through by their derivative (`Post.factor`): if its
      ``multiplies`` is true.
    - `Source.open_places`: if its ``spreads`` is true.
    - `Post.more` and `Post.counts`: if its ``joins`` is true. It then also has
      ``combine(job: Combine, num_threads)`` and ``reduce(job: Reduce, num_threads)``, which both
      return a lane tensor; ``add_maps(v, maps, features)``, which adds one map to each lane; and
      ``fuses(above, source, conv)``, which tells whether a step may have the job above it in the
      place of its lane tensor.
    - plans, which are prepared once and run for any features of the same number, and for any trace
      of the same network on inputs of the same shape: if it has ``plan``, ``lists``, ``together``
      and ``run_plans``.
      ``plan(given: Given, conv, read, bf16, unpool, follow, num_threads)`` prepares the jobs of a
      pass. `conv` is the convolution of its `First` job. `read` is a list of `Read`, one for each
      convolution after it. `unpool` is the pool before it, if there is one, and the size that this
      is unpooled to. ``follow(values, rows, out, read)`` goes the whole way once, with what stands
      for these four, and returns the result of ``project_last``. The plan is None where it is
      better to prepare the jobs in every call. ``lists(read, num_threads)`` are the arrays of a
      trace that jobs read; they are kept with the trace. ``together(plans, num_threads)``
      joins the plans of passes that run at the same time, or returns None if they want too much
      memory together; ``run_plans(joined, given)`` runs them, with a list of `Given`.
    """

    def bf16(self) -> Bf16:
        """How jobs multiply in bfloat16 on this CPU, with the current instruction set."""

    def project(self, job: First | Step, num_threads: int) -> Any:
        """Run a job; the result is a lane tensor."""

    def project_last(
        self, job: Last, out: FloatArray, rows: NDArray[np.intp], num_threads: int
    ) -> Any:
        """Run a job and write planes to `out` (N, C, H, W), contiguous in W.

        Feature k becomes row rows[k] of `out`. Returns what is still to be run, for the back
        end's ``finish``, or None if everything is done.
        """

    def release(self, v: Any) -> None:
        """Give back the memory of a lane tensor that nobody uses any more."""

    def end(self) -> None:
        """Told when no job follows for now."""

    def from_planes(self, planes: FloatArray, bf16: bool) -> Any:
        """Planes (K, C, H, W) as a lane tensor, for jobs in bfloat16 or in float32."""

    def to_planes(self, v: Any, planes: FloatArray, num_threads: int) -> None:
        """Copy a lane tensor to `planes` (K, C, H, W)."""


_Cached = TypeVar("_Cached")


def cached(cache: dict[Any, Any], key: Any, make: Callable[[], _Cached]) -> _Cached:
    """cache[key], made if it is missing. Two threads may both make it, and get the same bits."""
    if key not in cache:
        cache[key] = make()
    value: _Cached = cache[key]
    return value


def pack_blocks(weight: FloatArray, groups: int, nc: int) -> FloatArray:
    """Weights (O, C / groups, kh, kw) in blocks of `nc` inputs: [group][block][tap][O][nc]."""
    out, inner = weight.shape[:2]
    # (group, tap, O / groups, C / groups)
    taps = weight.reshape(groups, out // groups, inner, -1).transpose(0, 3, 1, 2)
    blocks = [
        group[:, :, at : at + nc].ravel() for group in taps for at in range(0, inner, nc)
    ]
    return np.concatenate(blocks)


def pack_scatter(weight: FloatArray, nc: int) -> FloatArray:
    """Weights (O, C, kh, kw) in blocks of `nc` (tap, channel) pairs: [block][O][nc]."""
    out = weight.shape[0]
    pairs = weight.transpose(0, 2, 3, 1).reshape(out, -1)
    return np.concatenate(
        [pairs[:, at : at + nc].ravel() for at in range(0, pairs.shape[1], nc)]
    )


class Phases(NamedTuple):
    """The taps of a transposed convolution, sorted by output phase.

    The phase of an output place is its row and column plus the padding, modulo the stride:
    p = py * stride_w + px. The taps that contribute to phase p are tap[start[p]:start[p + 1]]. The
    same entries of `back` say how many rows and columns before (y // stride, x // stride) each
    of them reads.
    """

    start: NDArray[np.int32]
    tap: NDArray[np.int32]
    back: NDArray[np.intp]
    pad: Pair
    """The largest numbers of rows and columns in `back`."""


@functools.lru_cache(maxsize=256)
def first_phases(window: Window) -> Phases:
    """The phases of a transposed convolution with this window."""
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    starts, taps, back = [0], [], []
    for py in range(sh):
        for px in range(sw):
            for i in range(kh):
                for j in range(kw):
                    if (i * dh - py) % sh == 0 and (j * dw - px) % sw == 0:
                        taps.append(i * kw + j)
                        back.append(((i * dh - py) // sh, (j * dw - px) // sw))
            starts.append(len(taps))
    reach = np.array(back, np.intp).reshape(-1, 2)
    pad = reach.max(axis=0, initial=0)
    return Phases(
        np.array(starts, np.int32), np.array(taps, np.int32), reach, (int(pad[0]), int(pad[1]))
    )


class Shared(NamedTuple):
    """The windows that share places with window 0 along one axis.

    Place p of window 0 lies in the windows window[start[p]:start[p + 1]], ascending, window 0
    among them. The same entries of `place` give the number of p in each of these windows.
    """

    start: NDArray[np.int32]
    window: NDArray[np.int32]
    place: NDArray[np.int32]


def shared_windows(window: Window, axis: int) -> Shared:
    """Which windows overlap along an axis, and at which places."""
    kernel, stride, dilation = (side[axis] for side in window[:3])
    most = (kernel - 1) * dilation // stride
    start, found = [0], []
    for p in range(kernel):
        for other in range(-most, most + 1):
            place, rest = divmod(p * dilation - other * stride, dilation)
            if rest == 0 and 0 <= place < kernel:
                found.append((other, place))
        start.append(len(found))
    windows, places = np.array(found, np.int32).T
    return Shared(
        np.array(start, np.int32), np.ascontiguousarray(windows), np.ascontiguousarray(places)
    )


def padded_size(size: Pair, out_size: Pair, window: Window, pad: Pair) -> Pair:
    """The size of a map of `size` after padding for all taps of its transposed convolution."""
    rows, cols = (
        p + max((n - 1 + side[0]) // s + 1, m)
        for m, n, side, s, p in zip(size, out_size, window.padding, window.stride, pad)
    )
    return rows, cols


def first_lanes(job: First, phases: Phases, lanes: int) -> FloatArray:
    """The start values of a `First` job (rows, columns, lanes), padded with zeros for every tap."""
    count, h, w = job.values.shape
    top, left = phases.pad
    size = padded_size((h, w), job.conv.input_size, job.conv.window, phases.pad)
    u = aligned_zeros((*size, lanes))
    u[top : top + h, left : left + w, :count] = job.values.transpose(1, 2, 0)
    return u


def first_weight(job: First, lanes: int) -> FloatArray:
    """The weights of a `First` job, one feature in each lane: (C, taps, lanes)."""
    conv = job.conv
    if conv.groups > 1:  # not kept: sorted by output, most of them would be zeros
        return _first_of_groups(job, lanes)
    by_output = cached(conv.cache, "first", lambda: _by_output(conv))
    outputs = by_output.shape[-1]
    if lanes == outputs and np.array_equal(job.features, np.arange(outputs)):
        return by_output
    by_lane = aligned_zeros((*by_output.shape[:-1], lanes))
    by_lane[..., : len(job.features)] = by_output[..., as_index(job.features)]
    return by_lane


def _by_output(conv: Convolution) -> FloatArray:
    """Weights with the output channels last: (C, taps, O)."""
    out, inner = conv.weight.shape[:2]
    taps = conv.weight.reshape(out, inner, -1).transpose(1, 2, 0)
    weight = aligned_zeros(taps.shape)
    weight[:] = taps
    return weight


def _first_of_groups(job: First, lanes: int) -> FloatArray:
    conv = job.conv
    out, inner = conv.weight.shape[:2]
    rows = conv.weight[job.features].reshape(len(job.features), inner, -1)
    by_lane = aligned_zeros((conv.input_channels, rows.shape[2], lanes))
    group = job.features // (out // conv.groups)
    for g in np.unique(group):
        mine = np.flatnonzero(group == g)
        by_lane[g * inner : (g + 1) * inner, :, mine] = rows[mine].transpose(1, 2, 0)
    return by_lane


def cell_places(source: Source) -> NDArray[np.int32]:
    """The place in its window to which each value of a lane tensor goes, (H, W, channels).

    Negative where a value goes nowhere.
    """
    (row, column), (h, w) = source.origin, source.cells
    part = slice(row, row + h), slice(column, column + w)
    if source.switches is None:
        where = np.zeros((h, w, source.channels), np.int32)
    else:
        where = source.switches[part][:, :, : source.channels].astype(np.int32)
    if source.gate is not None:
        where[source.gate[part] == 0] = -1
    return where


def last_band(reach: int, advance: int, rows: int) -> int:
    """The number of cell rows of a band: enough that only neighbouring bands share output rows.

    The sums where bands meet depend on this number. So it must not depend on which part of a map
    is computed, nor on the number of threads.
    """
    least = -(-(reach - advance) // advance)
    return max(least, min(_BAND, rows // _BANDS), 1)


def last_bands(rows: int) -> int:
    """About how many bands a `Last` job of `rows` cell rows has."""
    return -(-rows // last_band(1, 1, rows))


def aligned_zeros(shape: tuple[int, ...]) -> FloatArray:
    """Zeros that start on a cache line."""
    # Not np.zeros: NumPy asks for huge pages only for large arrays of np.empty. Without them, page
    # faults take longer than everything else that is done with a tensor.
    zeros = aligned_empty(shape)
    zeros.fill(0)
    return zeros


def aligned_copy(array: NDArray[Any]) -> FloatArray:
    """A contiguous float32 copy of `array` that starts on a cache line.

    Used for weights: a wide load from the L1 cache takes twice as long if it touches two lines.
    """
    copy = aligned_empty(array.shape)
    copy[...] = array
    return copy


def aligned_empty(shape: tuple[int, ...]) -> FloatArray:
    """Uninitialised floats, of which the first starts a cache line."""
    size = math.prod(shape)
    view: FloatArray = aligned(np.empty(size + 16, np.float32))[:size].reshape(shape)
    return view


def aligned(memory: FloatArray) -> FloatArray:
    """The part of `memory` that starts on a cache line; it is 16 floats shorter."""
    skip = -memory.__array_interface__["data"][0] % 64 // 4
    return memory[skip : skip + memory.size - 16]
