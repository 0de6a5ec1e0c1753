"""The backward pass with features in vector lanes: what a back end is asked to do.

All features of one clip share the switches of its forward pass, and with them the
pattern of non-zeros of every unpooled tensor. So the backward pass keeps one
feature per vector lane in a *lane tensor* (H, W, C, lanes) and a back end that has
``project`` and ``project_last`` walks down a network in jobs:

`First`  the start (one channel per lane) through the first transposed convolution
`Step`   unpool, then transposed convolution, for a lane tensor
`Overlap`  before a `Step` or `Last` that unpools overlapping windows: sums what they
         send to the same place
`Last`   the transposed convolution to the network's input, fused with the `First`
         or `Step` above it so that the largest lane tensor never exists
`Combine`, `Reduce`  what layers of several inputs send back; only some back ends

Native and Numba back ends share the geometry and packing in this module.
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
"""The pool of a `Source` without one."""

_BAND, _BANDS = 8, 4
"""Most cell rows of one band of a `Last` job, and least bands if there are as many rows."""


class Convolution(NamedTuple):
    """The convolution a job goes back through."""

    weight: FloatArray
    """(O, C / groups, kh, kw)"""
    window: Window
    groups: int
    input_size: Pair
    cache: dict[Any, Any]
    """For packed weights; lives as long as the weights do."""

    @property
    def input_channels(self) -> int:
        return self.weight.shape[1] * self.groups


class Source(NamedTuple):
    """Where the values of an unpooled tensor come from.

    Where windows overlap the lane tensor is what an `Overlap` job has made of it.

    Lane tensor and unpooled tensor may be parts of the whole ones: `origin` says where the
    lane tensor begins, and `pool` has its padding counted from there.
    """

    switches: NDArray[Any] | None
    """(H, W, Cs >= channels) of the whole pool, or None: the lane tensor is not pooled."""
    gate: NDArray[np.uint8] | None
    """(H, W, channels) of the whole tensor: 0 leaves a value out for every feature."""
    pool: Window
    origin: Pair
    """Row and column of the whole tensor where the lane tensor begins."""
    cells: Pair
    """Size of the lane tensor."""
    size: Pair
    """Size of the unpooled tensor."""
    channels: int
    cache: dict[Any, Any]
    """For what a back end derives from switches and gate; lives as long as they do."""
    open_places: NDArray[np.uint8] | None = None
    """(H, W, channels) of the whole unpooled tensor: where there are no switches, a value goes to
    every place of its window where this is 1; only where the back end ``spreads``."""


class View(NamedTuple):
    """A lane tensor or a part of one."""

    v: Any
    origin: Pair = (0, 0)
    """Row and column of `v` where it begins."""
    channel: int = 0
    """Its first channel."""
    repeated: bool = False
    """Whether `v` is one pixel, which is meant at every place."""


class Post(NamedTuple):
    """What follows a sum: x + more, max(0, x), x * scale[channel], max(0, x), x * factor."""

    relu_before: bool = False
    scale: FloatArray | None = None
    relu_after: bool = False
    factor: FloatArray | None = None
    """(H, W, C), contiguous in C, the same for all features; only where the back end says that
    it ``multiplies``."""
    more: View | None = None
    """Only where the back end ``joins``, and not after an `Overlap`."""
    counts: FloatArray | None = None
    """(H, W, C), contiguous in C: the result comes with the sum of all its places, each times
    these; only where the back end ``joins``."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing follows."""
        return not (self.relu_before or self.relu_after) and all(
            x is None for x in (self.scale, self.factor, self.more, self.counts)
        )


class First(NamedTuple):
    """Transposed convolution of `values` (K, H, W), where map k is of channel features[k]."""

    values: FloatArray
    features: NDArray[np.intp]
    conv: Convolution
    post: Post
    bf16: bool
    """Whether `Step` jobs that follow multiply in bfloat16; this one never does."""


class Step(NamedTuple):
    """Transposed convolution of an unpooled lane tensor."""

    v: Any
    """A lane tensor as the back end that runs the job lays it out, or the step whose result it is
    where the back end ``fuses`` them."""
    source: Source
    conv: Convolution
    post: Post
    bf16: bool
    """Operands rounded to bfloat16, sums in float32; only where `LaneBackend.bf16` says "vectors"
    or "tiles"."""


class Overlap(NamedTuple):
    """Sums of what overlapping windows send to the same place, each where its first window is."""

    v: Any
    origin: Pair
    """Row and column of the whole tensor where `v` begins; elsewhere it is zero."""
    source: Source
    """Of the result."""
    post: Post
    """What follows the sum."""


class Term(NamedTuple):
    """A lane tensor of a `Combine`."""

    view: View
    factor: FloatArray | None = None
    """(H, W, C), contiguous in C, the same for all features."""


class Combine(NamedTuple):
    """The sum of lane tensors, each times its factor."""

    terms: Sequence[Term]
    size: Pair
    channels: int
    post: Post
    """What follows the sum."""
    into: int | None = None
    """The term whose lane tensor, which is whole and nobody else's, the result may replace."""


class Reduce(NamedTuple):
    """The sum of all places of a lane tensor, each times its factor: one pixel.

    What a job has summed with `Post.counts` needs no more than that.
    """

    term: Term
    size: Pair
    channels: int


class Last(NamedTuple):
    """Transposed convolution to the input, of what `above` would have produced."""

    above: First | Step | Any
    """Or the lane tensor itself, after an `Overlap`."""
    source: Source
    conv: Convolution
    rows: int
    """Of the whole lane tensor, whatever part of it the source is."""


class Single(NamedTuple):
    """Transposed convolution to the input of `values` (K, H, W), map k of features[k].

    Back ends may do it without lanes (``project_single``); stride 1, one group.
    """

    values: FloatArray
    """At the output of the pool, if there is one."""
    features: NDArray[np.intp]
    rows: NDArray[np.intp]
    """Where in the result each map belongs."""
    switches: NDArray[Any] | None
    """Planes (C, H, W) of the pool, whose windows do not overlap."""
    pool: Window
    conv: Convolution


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


Bf16 = Literal["none", "slow", "vectors", "tiles"]
"""How a back end multiplies in bfloat16: not at all, no faster than in float32 (so that nobody
should ask for it), by AVX512_BF16, or by AMX."""


class LaneBackend(Backend, Protocol):
    """A back end with the lane kernels.

    One that has ``add_overlaps(job: Overlap, num_threads)``, too, takes pools whose windows
    overlap; the result takes the place of ``job.v``, which nobody uses any more. One whose
    ``multiplies`` is true takes activations that go back by their derivative, as `Post.factor`.
    One whose ``spreads`` is true takes `Source.open_places`. One whose ``joins`` is true takes
    `Post.more` and has ``combine(job: Combine, num_threads)`` and ``reduce(job: Reduce,
    num_threads)``, both of which give a lane tensor, ``add_maps(v, maps, features)``, which adds
    one map to each lane, and ``fuses(above, source, conv)``, whether it takes a step that has
    another one for its lane tensor.

    One that has ``plan`` and ``run_plan`` prepares the jobs of a pass once, for as many features
    of the same network and trace: ``plan(given: Given, conv, bf16, unpool, follow, num_threads)``.
    `conv` is that of its `First` job, `unpool` the pool that comes before, if there is one, and the
    size of what it is undone to. ``follow(values, rows, out)`` goes the way once, on what stands
    for those, and returns what ``project_last`` returned. The plan is None where it is better to
    prepare the jobs again. ``run_plan(plan, given: Given)`` is what is left to run.
    """

    def bf16(self) -> Bf16:
        """How jobs multiply in bfloat16 here and now."""

    def project(self, job: First | Step, num_threads: int) -> Any:
        """Run a job; the result is a lane tensor."""

    def project_last(
        self, job: Last, out: FloatArray, rows: NDArray[np.intp], num_threads: int
    ) -> Any:
        """Run a job into planes `out` (N, C, H, W), contiguous in W; feature k is rows[k] of N.

        The result is what is left to run, for a `finish` of the back end; None: nothing is.
        """

    def release(self, v: Any) -> None:
        """Nobody uses this lane tensor any more."""

    def end(self) -> None:
        """No job follows for now."""

    def from_planes(self, planes: FloatArray, bf16: bool) -> Any:
        """(K, C, H, W) as a lane tensor, for jobs in bfloat16 or not."""

    def to_planes(self, v: Any, planes: FloatArray, num_threads: int) -> None:
        """Copy a lane tensor to `planes` (K, C, H, W)."""


_Cached = TypeVar("_Cached")


def cached(cache: dict[Any, Any], key: Any, make: Callable[[], _Cached]) -> _Cached:
    """cache[key], made when missing; two threads may both make it, to the same bits."""
    if key not in cache:
        cache[key] = make()
    value: _Cached = cache[key]
    return value


def pack_blocks(weight: FloatArray, groups: int, nc: int) -> FloatArray:
    """Weights (O, C / groups, kh, kw) as blocks of `nc` inputs: [group][block][tap][O][nc]."""
    out, inner = weight.shape[:2]
    # (group, tap, O / groups, C / groups)
    taps = weight.reshape(groups, out // groups, inner, -1).transpose(0, 3, 1, 2)
    blocks = [
        group[:, :, at : at + nc].ravel() for group in taps for at in range(0, inner, nc)
    ]
    return np.concatenate(blocks)


def pack_scatter(weight: FloatArray, nc: int) -> FloatArray:
    """Weights (O, C, kh, kw) as blocks of `nc` (tap, C) pairs: [block][O][nc]."""
    out = weight.shape[0]
    pairs = weight.transpose(0, 2, 3, 1).reshape(out, -1)
    return np.concatenate(
        [pairs[:, at : at + nc].ravel() for at in range(0, pairs.shape[1], nc)]
    )


class Phases(NamedTuple):
    """Taps of a transposed convolution by output phase (output place + padding, mod stride).

    Phase p = py * stride_w + px owns entries start[p]:start[p + 1] of `tap`, and
    `back`, how many rows and columns before (y // stride, x // stride) each reads.
    """

    start: NDArray[np.int32]
    tap: NDArray[np.int32]
    back: NDArray[np.intp]
    pad: Pair
    """Most rows and columns any tap reads back."""


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

    Place p owns entries start[p]:start[p + 1] of `window` (which one, ascending, window 0 among
    them) and `place` (as what it knows p).
    """

    start: NDArray[np.int32]
    window: NDArray[np.int32]
    place: NDArray[np.int32]


def shared_windows(window: Window, axis: int) -> Shared:
    """Which windows overlap along an axis, and where."""
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
    """Size of a map of `size`, padded for every tap of its transposed convolution."""
    rows, cols = (
        p + max((n - 1 + side[0]) // s + 1, m)
        for m, n, side, s, p in zip(size, out_size, window.padding, window.stride, pad)
    )
    return rows, cols


def first_lanes(job: First, phases: Phases, lanes: int) -> FloatArray:
    """The start of a `First` job (rows, columns, lanes), zero-padded for every tap."""
    count, h, w = job.values.shape
    top, left = phases.pad
    size = padded_size((h, w), job.conv.input_size, job.conv.window, phases.pad)
    u = aligned_zeros((*size, lanes))
    u[top : top + h, left : left + w, :count] = job.values.transpose(1, 2, 0)
    return u


def first_weight(job: First, lanes: int) -> FloatArray:
    """Weights of a `First` job by lane: (C, taps, lanes)."""
    conv = job.conv
    if conv.groups > 1:  # by output they are mostly zeros: not kept
        return _first_of_groups(job, lanes)
    by_output = cached(conv.cache, "first", lambda: _by_output(conv))
    outputs = by_output.shape[-1]
    if lanes == outputs and np.array_equal(job.features, np.arange(outputs)):
        return by_output
    by_lane = aligned_zeros((*by_output.shape[:-1], lanes))
    by_lane[..., : len(job.features)] = by_output[..., as_index(job.features)]
    return by_lane


def _by_output(conv: Convolution) -> FloatArray:
    """Weights with the outputs last: (C, taps, O)."""
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
    """Where in its window every value of a lane tensor goes, (H, W, channels).

    Negative: nowhere.
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
    """Cell rows of a band: so many that only neighbouring bands share output rows.

    Sums across bands depend on it, so it must not depend on the part that is computed, nor
    on the number of threads.
    """
    least = -(-(reach - advance) // advance)
    return max(least, min(_BAND, rows // _BANDS), 1)


def last_bands(rows: int) -> int:
    """About how many bands a `Last` job of so many cell rows has."""
    return -(-rows // last_band(1, 1, rows))


def aligned_zeros(shape: tuple[int, ...]) -> FloatArray:
    """Zeros that start on a cache line."""
    # Not np.zeros: numpy asks for huge pages for large np.empty arrays only, and without
    # them page faults cost more than everything else done with a tensor.
    zeros = aligned_empty(shape)
    zeros.fill(0)
    return zeros


def aligned_copy(array: NDArray[Any]) -> FloatArray:
    """`array` as contiguous float32 that start on a cache line.

    For weights: out of L1 a wide load that touches two lines takes twice as long as one.
    """
    copy = aligned_empty(array.shape)
    copy[...] = array
    return copy


def aligned_empty(shape: tuple[int, ...]) -> FloatArray:
    """Uninitialised floats that start on a cache line."""
    size = math.prod(shape)
    view: FloatArray = aligned(np.empty(size + 16, np.float32))[:size].reshape(shape)
    return view


def aligned(memory: FloatArray) -> FloatArray:
    """What of some memory starts on a cache line, 16 floats less."""
    skip = -memory.__array_interface__["data"][0] % 64 // 4
    return memory[skip : skip + memory.size - 16]
