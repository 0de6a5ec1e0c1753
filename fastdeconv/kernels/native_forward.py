"""The forward pass of the native back end: the kernels of blocks, their layout and packing.

Activations are stored as `Channels`: channels last, with the zeros of the next convolution's
padding around them. So no kernel tests for borders, and nothing is copied between layers.

A pass is planned once: which kernel computes what, in which bands, and where the results lie in
one piece of memory. The jobs then know all arrays except that memory and the inputs. Another pass
of the same network on an input of the same size only has to tell them these.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import native  # type: ignore[attr-defined, unused-ignore]
from .activations import InKernel
from .block_stages import CHANNELS, BlockStages, Reach
from .blocks import ConvBlock, Epilogue, ForwardBlock, JoinBlock, Pool, PoolBlock
from .interface import FloatArray, Padding, Pair, Window, switch_dtype
from .lanes import aligned_empty, cached
from .native_shared import (
    ADD,
    COPY,
    SPLIT,
    Places,
    Plan,
    enough_threads,
    kernels,
    pad_last,
    run_edges,
    run_rows,
    run_stages,
)
from .schedule import copy_edges
from .winograd import error_bound, transform_filters

__all__ = [
    "Channels",
    "forward_blocks",
    "origin_steps",
    "pack_forward",
    "pad_lanes",
    "switch_planes",
    "tap_offsets",
    "to_channels",
]

_WINOGRAD_INPUTS = 16
"""The least number of input channels for Winograd's algorithm. Measured: with 8 it takes 1.0 to 1.1
of the time of the direct kernel, with 16 0.8 to 1.0, with 32 0.6 to 0.7."""

_PART = 64
"""Input channels that are summed at a time, tap by tap, where there are as many and Winograd's
algorithm can be used. The direct kernel by itself is 2 % faster with one sum; with fewer channels
there is little to gain."""

_LARGEST_SLOPE = 1e15
"""The largest slope of an error bound: with larger ones, sums might overflow on the way."""


_LEAST_SLOPE = 2.0**-20
"""The least slope of a leaky ReLU: with smaller ones, different sums might underflow to the same
number."""

_LEAKY_ROUNDINGS = 4
"""Units in the last place by which two sums must differ; else their products with the slope may be
equal."""


class Channels(NamedTuple):
    """An activation (height, width, channels), padded with zeros on all sides."""

    buffer: Any
    """Array (rows, columns, Cs), Cs >= channels. While a pass is planned, a ``native.Place``."""
    top: int
    left: int
    shape: tuple[int, int, int]
    """(C, H, W) without the padding."""

    def planes(self, num_threads: int = 1) -> FloatArray:
        """The activation as a (C, H, W) array."""
        c, h, w = self.shape
        planes = np.empty((c, h, w), np.float32)
        job = native.ToPlanes(
            kernels(), self.buffer[:, :, None], planes[:, None], self.top, self.left
        )
        run_rows(job, h, enough_threads(num_threads, planes.size * COPY))
        return planes

    def cells(self) -> FloatArray:
        """The activation as a view (H, W, C)."""
        c, h, w = self.shape
        view: FloatArray = self.buffer[self.top : self.top + h, self.left : self.left + w, :c]
        return view

    def largest(self) -> float:
        """Its largest absolute value."""
        return float(native.largest(self.buffer))

    def offset(self, row: int, column: int) -> int:
        """The index in the buffer of place (row, column), counted with the padding."""
        return (row * self.buffer.shape[1] + column) * self.buffer.shape[2]


def forward_blocks(
    given: Mapping[int, Any], blocks: Sequence[ForwardBlock], algorithm: str,
    num_threads: int,
) -> _Results:
    """See `fastdeconv.kernels.blocks.BlockBackend`."""
    made = {block.key for block in blocks}
    inputs = {
        source: _as_input(given[source])
        for block in blocks for source in block.sources if source not in made
    }
    plan = _plan(inputs, blocks, algorithm, num_threads)
    arrays, stages = plan.plan.on(
        [x.buffer if isinstance(x, Channels) else x for x in inputs.values()]
    )
    run_stages(stages, plan.plan.threads)
    return _Results(plan, arrays[:1])


def switch_planes(switches: NDArray[Any], channels: int, num_threads: int) -> NDArray[Any]:
    """See `fastdeconv.kernels.blocks.BlockBackend`."""
    h, w, _ = switches.shape
    planes = np.empty((channels, h, w), switches.dtype)
    run_rows(
        native.SwitchPlanes(switches, planes), h,
        enough_threads(num_threads, planes.size * COPY),
    )
    return planes


def _as_input(value: FloatArray | Channels) -> FloatArray | Channels:
    if isinstance(value, Channels) and value.buffer.shape[2] % kernels().width:
        return value.planes()  # from another instruction set
    return value


class _Plan(NamedTuple):
    """A pass through blocks, for inputs of one size."""

    plan: Plan
    """The arrays that it is given are the inputs, in their order."""
    results: list[tuple[Channels, Any]]
    """The activation and the switches of every block; both are places in the memory."""
    copies: dict[int, tuple[Channels, Any]]
    """The copies of the inputs that are planes, and the largest values of their rows: places, too.
    """


class _Results(Sequence[tuple[Channels, "NDArray[Any] | None"]]):
    """What a pass has made. Arrays are made of its memory when they are asked for: to make them
    all takes some 20 us, most of them for nothing."""

    def __init__(self, plan: _Plan, memory: list[Any]) -> None:
        """`memory`: array 0, in which all places are. The inputs belong to the caller."""
        self._plan, self._arrays = plan, memory

    def __len__(self) -> int:
        return len(self._plan.results)

    def __getitem__(self, block: Any) -> Any:
        made, switches = self._plan.results[block]
        return self._found(made), None if switches is None else switches.of(self._arrays)

    def copy_of(self, key: int) -> Channels:
        """See `fastdeconv.kernels.blocks.BlockResults`."""
        return self._found(self._plan.copies[key][0])

    def largest_of(self, key: int) -> float:
        """See `fastdeconv.kernels.blocks.BlockResults`."""
        return float(native.largest(self._plan.copies[key][1].of(self._arrays)))

    def _found(self, place: Channels) -> Channels:
        return Channels(place.buffer.of(self._arrays), *place[1:])


def _plan(
    inputs: Mapping[int, Any], blocks: Sequence[ForwardBlock], algorithm: str, num_threads: int
) -> _Plan:
    """The plan of a pass. That of the last pass is kept, and used again if it fits."""
    layouts = tuple(
        (source, x.buffer.shape, x[1:]) if isinstance(x, Channels) else (source, x.shape)
        for source, x in inputs.items()
    )
    cache, key = blocks[0].cache, (layouts, algorithm, num_threads, kernels().name)
    place = "plan", blocks[-1].key  # a part of the first block has the same cache
    kept_blocks, kept_key, kept = cache.get(place, ((), None, None))
    # Blocks are compared by identity: comparing them by value would compare their arrays.
    if kept_key == key and [*map(id, kept_blocks)] == [*map(id, blocks)]:
        plan: _Plan = kept
    else:
        plan = _make_plan(inputs, blocks, algorithm, num_threads)
        cache[place] = tuple(blocks), key, plan
    return plan


def _make_plan(
    inputs: Mapping[int, Any], blocks: Sequence[ForwardBlock], algorithm: str, num_threads: int
) -> _Plan:
    threads = enough_threads(num_threads, sum(map(_operations, blocks)))
    stages, memory = BlockStages(threads), Places()
    results: list[tuple[Channels, Any]] = []
    values: dict[int, Channels] = {}
    copies: dict[int, tuple[Channels, Any]] = {}
    for number, (source, x) in enumerate(inputs.items(), start=1):
        if isinstance(x, Channels):
            place = native.Place(number, 0, x.buffer.shape, _FLOAT)
            values[source] = x._replace(buffer=place)
            continue
        takers = [block for block in blocks if source in block.sources]
        planes = native.Place(number, 0, x.shape, _FLOAT)
        rows = memory.take(x.shape[1::-1])
        values[source], job = _to_channels_job(planes, *_wanted_around(takers), memory.take, rows)
        copies[source] = values[source], rows
        stages.add_copy(source, job, x.shape[1])
    for block in blocks:
        given = [values[i] for i in block.sources]
        found = _forward_job(block, given, algorithm, memory, threads)
        size = found.units if found.axis == CHANNELS else block.shape[1 + found.axis]
        stages.add(
            block.key, found.job, size, found.axis, found.unit, block.sources, found.reach,
            found.smallest,
        )
        values[block.key] = found.out
        results.append((found.out, found.switches))
    return _Plan(Plan.of(stages.all, memory, threads), results, copies)


_FLOAT = np.dtype(np.float32)


def to_channels(planes: FloatArray, padding: Padding, num_threads: int) -> Channels:
    """A (C, H, W) array as `Channels` with this much padding."""
    inside, job = _to_channels_job(planes, padding, False, aligned_empty)
    threads = enough_threads(num_threads, planes.size * COPY)
    run_edges(job, copy_edges(planes.shape[1], threads), threads)
    return inside


def _to_channels_job(
    planes: Any, padding: Padding, whole: bool, take: Callable[[tuple[int, ...]], Any],
    largest: Any = None,
) -> tuple[Channels, Any]:
    """`to_channels`, and the job that fills it row by row; `whole`: channels in whole vectors.

    `largest`: where the job stores the largest absolute value of every row, (H, C).
    """
    c, h, w = planes.shape
    table = kernels()
    stored = -(-c // table.width) * table.width if whole else c
    inside = _room((c, h, w), stored, padding, take)
    job = native.ToChannels(table, planes, inside.buffer, inside.top, inside.left, largest)
    return inside, _framed(job, inside, 1, False)


def _wanted_around(takers: Sequence[ForwardBlock]) -> tuple[Padding, bool]:
    """The padding that the takers of an input need, and whether they need whole vectors."""
    convs = [block for block in takers if isinstance(block, ConvBlock)]
    paddings = [block.window.padding for block in convs]
    height, width = (
        (max(p[axis][0] for p in paddings), max(p[axis][1] for p in paddings))
        if paddings else (0, 0)
        for axis in (0, 1)
    )
    return (height, width), len(convs) < len(takers) or any(map(_suits_winograd, convs))


class _Lines(NamedTuple):
    """A part of a result, as lines of columns: what a kernel is told are the rows of the result.

    A result of several rows is one part, and its rows are the lines. A single row is cut into
    pieces, and each piece is a line, so that several threads can share the work.
    """

    column: int
    """Where the first line begins."""
    lines: int
    width: int
    row: int | None
    """Columns from one line to the next. None: the lines are the rows of the result."""


_PIECE = 48
"""Columns of a piece of a row."""


class _ForwardJob(NamedTuple):
    """The job that fills the activation of a block."""

    out: Channels
    switches: Any
    """A ``native.Place``, or None without a max pool."""
    job: Any
    """A ``native.Job``."""
    axis: int
    """0: the job works on ranges of rows. 1: on ranges of columns. `CHANNELS`: on ranges of
    channels."""
    unit: int
    """How many rows (or columns) are computed at a time."""
    reach: Reach = ()
    smallest: int = 1
    """How many units a band has at least."""
    units: int = 0
    """How many ranges of channels there are."""


def _operations(block: ForwardBlock) -> int:
    """About how many multiply-adds a block takes."""
    if isinstance(block, ConvBlock):
        return block.weight.size * math.prod(block.out_size)
    if isinstance(block, PoolBlock):
        return ADD * math.prod(block.shape) * math.prod(block.pool.window.kernel)
    return ADD * math.prod(block.shape) * len(block.sources)


def _forward_job(
    block: ForwardBlock, given: Sequence[Channels], algorithm: str, memory: Places, threads: int
) -> _ForwardJob:
    width = kernels().width
    stored = -(-block.shape[0] // width) * width
    out = _room(block.shape, stored, block.room, memory.take)
    if isinstance(block, JoinBlock):
        return _join_job(block, given, out)
    assert isinstance(block, (ConvBlock, PoolBlock))
    switches = _switches(block.pool, block.shape, out, memory)
    if isinstance(block, ConvBlock):
        return _conv_job(block, given[0], out, switches, algorithm, threads)
    return _pool_job(block, given[0], out, switches, threads)


def _conv_job(
    block: ConvBlock, x: Channels, out: Channels, switches: Any, algorithm: str, threads: int
) -> _ForwardJob:
    table, pool = kernels(), block.pool
    channels, window = block.shape[0], block.window
    packed, bias, epilogue = _packed_forward(block, table)
    (top, _), (left, _) = window.padding
    first = x.offset(x.top - top, x.left - left)
    row, column = origin_steps(x, window)
    taps = tap_offsets(x, window)
    tile = _winograd_tile(x, block, algorithm, table)
    step = pool.window.stride[1] if pool else 1

    def make(lines: _Lines) -> Any:
        size = block.out_size
        if lines.row is not None:
            extent = pool.window.extent[1] if pool else 1
            size = lines.lines, (lines.width - 1) * step + extent
        job = native.Conv(
            table, x.buffer, first + lines.column * step * column,
            row if lines.row is None else lines.row * step * column, column, taps,
            block.weight.shape[1], channels, block.groups, packed, bias, *size,
            *_part(out, lines), 0, epilogue, _sum_part(block),
        )
        if pool is None:
            return job
        job.pooled(
            _in_lines(pool.window, lines), *_part(out, lines), _of_lines(switches, lines),
            _of_lines(pool.counts, lines),
        )
        if tile:
            job.winograd(tile, *_packed_winograd(block, tile, table)[:4])
        return job

    cut = _can_be_cut(out, pool, block.out_size) and block.out_size[0] == 1
    unit = max(1, tile // 2)
    channels_each = 0 if cut else _channels_each(block, out, tile, table.width, threads)
    if channels_each:
        rows = -(-out.shape[1] // unit)
        job = make(_Lines(0, *out.shape[1:], None)).by_channels(channels_each, rows)
        return _ForwardJob(
            out, switches, _framed(job, out, 0, False), CHANNELS, 1,
            units=-(-channels // channels_each),
        )
    axis, unit, job = _lines_job(out, make, unit, cut)
    smallest = -(-_TILE // out.shape[2]) if axis == 0 and (tile or pool is None) else 1
    reach: Reach = ((window, x.shape[1 + axis]),)
    if pool is not None:
        reach = (pool.window, block.out_size[axis]), *reach
    return _ForwardJob(out, switches, job, axis, unit, reach, smallest)


def _channels_each(
    block: ConvBlock, out: Channels, tile: int, width: int, threads: int
) -> int:
    """How many channels each band of a convolution has; 0 where bands are ranges of rows.

    Every band of rows reads all weights. Those of many channels come from memory, so where the map
    is small it pays to read them only once. A map that has fewer rows than there are threads is
    shared between these.
    """
    pair = 2 * width  # weights are packed for two vectors of channels at a time
    channels, height, columns = out.shape
    if block.groups > 1 or channels <= pair:
        return 0
    few_rows = height < threads and (
        _operations(block) > SPLIT or block.weight.nbytes > _HEAVY
    )
    pixels = height * columns if tile else math.prod(block.out_size)
    is_heavy = block.weight.nbytes > _CACHED and pixels <= _FEW_TILES * _TILE * threads
    if not (few_rows or is_heavy):
        return 0
    each = max(1, channels // (_RANGES * threads * pair)) * pair
    # Fewer ranges than rows would leave threads without work.
    return each if -(-channels // each) >= min(threads, height) else 0


_TILE = 12
"""Pixels, or windows of Winograd's algorithm, that kernels compute together, at most."""

_CACHED = 2**20
"""Bytes of weights that stay in the cache of a core."""

_HEAVY = 2**17
"""Bytes of weights that take longer to read (7 us from L3) than another thread takes to begin."""

_FEW_TILES = 32
"""Up to so many tiles a thread, bands are ranges of channels where weights do not stay there. With
more tiles, bands of rows have enough work for the weights that they read, and those of Winograd's
algorithm transform the input only once."""

_RANGES = 4
"""About how many ranges of channels there are for each thread."""


def _join_job(block: JoinBlock, given: Sequence[Channels], out: Channels) -> _ForwardJob:
    channels, height, width = block.shape
    table = kernels()
    epilogue = cached(
        block.cache, ("join", table.name, block.epilogue.parts),
        lambda: _packed_epilogue(block.epilogue, channels, table.width),
    )

    def make(lines: _Lines) -> Any:
        inputs = []
        for x in given:
            column = 0 if x.shape[2] < width else x.offset(0, 1)
            row = 0 if x.shape[1] < height else x.offset(1, 0)
            if lines.row is not None:
                row = lines.row * column
            first = x.offset(x.top, x.left) + lines.column * column
            inputs.append((x.buffer, first, row, column, x.shape[0]))
        part = _part(out, lines)
        return native.Join(table, block.kind, inputs, epilogue, lines.width, channels, *part)

    axis, unit, job = _lines_job(out, make, 1, _can_be_cut(out, None, (1, width)))
    return _ForwardJob(out, None, job, axis, unit)


_LONG_POOL = 2**20
"""Work of a pool, as `_operations` counts it, from which on threads share its channels where
they cannot share its rows: so much takes 4 us."""


def _pool_job(
    block: PoolBlock, x: Channels, out: Channels, switches: Any, threads: int
) -> _ForwardJob:
    window, counts = block.pool

    def make(lines: _Lines) -> Any:
        row, column, size = x.offset(1, 0), x.offset(0, 1), x.shape[1:]
        first = x.offset(x.top, x.left) + lines.column * window.stride[1] * column
        if lines.row is not None:
            row = lines.row * window.stride[1] * column
            size = lines.lines, (lines.width - 1) * window.stride[1] + window.extent[1]
        return native.Pool(
            kernels(), (x.buffer, first, row, column, x.shape[0]), size,
            _in_lines(window, lines), *_part(out, lines), _of_lines(switches, lines),
            _of_lines(counts, lines),
        )

    cut = x.shape[1] == 1 and _can_be_cut(out, block.pool, x.shape[1:])
    width, (_, height, columns) = kernels().width, out.shape
    if not cut and height < threads and x.shape[0] > width and _operations(block) > _LONG_POOL:
        each = max(1, out.shape[0] // (_RANGES * threads * width)) * width
        job = make(_Lines(0, height, columns, None)).by_channels(each, height)
        return _ForwardJob(
            out, switches, _framed(job, out, 0, False), CHANNELS, 1,
            units=-(-out.shape[0] // each),
        )
    axis, unit, job = _lines_job(out, make, 1, cut)
    return _ForwardJob(out, switches, job, axis, unit, ((window, x.shape[1 + axis]),))


def _can_be_cut(out: Channels, pool: Pool | None, size: Pair) -> bool:
    """Whether a result is a single row that can be computed in pieces.

    The windows of a pool must not go over the edges of the map, since a piece knows no edge.
    """
    _, height, width = out.shape
    if height > 1 or width <= _PIECE:
        return False
    if pool is None:
        return True
    window = pool.window
    inside = (width - 1) * window.stride[1] + window.extent[1] <= size[1]
    return inside and window.kernel[0] == 1 and window.padding == ((0, 0), (0, 0))


def _lines_job(
    out: Channels, make: Callable[[_Lines], Any], unit: int, cut: bool
) -> tuple[int, int, Any]:
    """The axis along which a result is computed, how much of it at a time, and the job."""
    _, height, width = out.shape
    if not cut:
        return 0, unit, _framed(make(_Lines(0, height, width, None)), out, unit, False)
    whole = width // _PIECE
    rest = width - whole * _PIECE
    job = native.Cut(
        make(_Lines(0, whole, _PIECE, _PIECE)),
        make(_Lines(whole * _PIECE, 1, rest, 0)) if rest else None, whole,
    )
    return 1, _PIECE, _framed(job, out, _PIECE, True)


def _framed(job: Any, out: Channels, unit: int, by_columns: bool) -> Any:
    """A job that fills an activation and sets the padding around it to zero."""
    if out.buffer.shape[:2] == out.shape[1:]:
        return job
    return native.Framed(job, out.buffer, out.top, out.left, out.shape[1:], unit, by_columns)


def _part(out: Channels, lines: _Lines) -> tuple[Any, int, int, int]:
    """The buffer, where in it the lines begin, and the elements between lines, and columns."""
    column = out.offset(0, 1)
    row = out.offset(1, 0) if lines.row is None else lines.row * column
    return out.buffer, out.offset(out.top, out.left) + lines.column * column, row, column


def _in_lines(window: Window, lines: _Lines) -> Window:
    """The window of a pool, for a kernel that takes every line for a row."""
    return window if lines.row is None else window._replace(stride=(1, window.stride[1]))


def _of_lines(cells: Any, lines: _Lines) -> Any:
    """The part of an array or place (H, W, ...) that belongs to the lines, line after line."""
    if cells is None or lines.row is None:
        return cells
    shape = lines.lines, lines.width, *cells.shape[2:]
    if isinstance(cells, native.Place):
        return cells.part(lines.column * math.prod(cells.shape[2:]), shape)
    return cells[0, lines.column : lines.column + lines.lines * lines.width].reshape(shape)


def _switches(
    pool: Pool | None, shape: tuple[int, int, int], out: Channels, memory: Places
) -> Any:
    """A place for the switches of a max pool; None if there are none."""
    if pool is None or pool.counts is not None:
        return None
    dtype = np.dtype(switch_dtype(pool.window.kernel))
    return memory.take((*shape[1:], out.buffer.shape[2]), dtype)


def _room(
    shape: tuple[int, int, int], stored: int, padding: Padding,
    take: Callable[[tuple[int, ...]], Any],
) -> Channels:
    """A place for an activation, with its padding."""
    (top, bottom), (left, right) = padding
    _, h, w = shape
    return Channels(take((top + h + bottom, left + w + right, stored)), top, left, shape)


def origin_steps(x: Channels, window: Window) -> Pair:
    """Elements between the inputs of neighbouring output rows, and columns."""
    stored = x.buffer.shape[2]
    return window.stride[0] * x.buffer.shape[1] * stored, window.stride[1] * stored


def tap_offsets(x: Channels, window: Window) -> NDArray[np.intp]:
    """The offset of every tap, in row-major order, from the first one."""
    _, width, stored = x.buffer.shape
    return _kernel_offsets(
        window.kernel, (window.dilation[0] * width * stored, window.dilation[1] * stored)
    )


@functools.lru_cache(maxsize=64)
def _kernel_offsets(kernel: Pair, steps: Pair) -> NDArray[np.intp]:
    rows, cols = (np.arange(n) * step for n, step in zip(kernel, steps))
    return np.add.outer(rows, cols).ravel().astype(np.intp)


def pack_forward(weight: FloatArray, groups: int, width: int) -> FloatArray:
    """Weights (O, I, taps...), packed as csrc/conv.c describes."""
    out, inner = weight.shape[:2]
    rows = weight.reshape(out, inner, -1)
    group, block = out // groups, 2 * width
    if groups > 1 and group % width:
        group, block = out, width
    return np.concatenate([
        # Each block is copied once: the weights of large networks are many.
        _lanes_last(rows[first : min(first + block, end)], width).ravel()
        for end in range(group, out + 1, group)
        for first in range(end - group, end, block)
    ])


def _lanes_last(rows: FloatArray, width: int) -> FloatArray:
    """(output, input, tap) as (tap, input, output), with whole vectors of outputs."""
    return pad_last(rows.transpose(2, 1, 0), width)


def pad_lanes(values: FloatArray | None, size: int, width: int) -> FloatArray:
    out = np.zeros(-(-size // width) * width, np.float32)
    if values is not None:
        out[:size] = values
    return out


def _packed_forward(conv: ConvBlock, table: Any) -> tuple[Any, Any, Any]:
    def make() -> tuple[Any, Any, Any]:
        size, width = conv.weight.shape[0], table.width
        return (
            pack_forward(conv.weight, conv.groups, width),
            pad_lanes(conv.bias, size, width),
            _packed_epilogue(conv.epilogue, size, width),
        )

    key = "forward", table.name, conv.epilogue.parts
    packed: tuple[Any, Any, Any] = cached(conv.cache, key, make)
    return packed


def _packed_epilogue(epilogue: Epilogue, channels: int, width: int) -> tuple[Any, Any, Any]:
    """An epilogue as ``native.Conv`` takes it."""

    def lanes(affine: tuple[FloatArray, FloatArray] | None) -> Any:
        return affine and tuple(pad_lanes(a, channels, width) for a in affine)

    name, a, b = epilogue.activation or (None, 0.0, 0.0)
    weight = epilogue.weight
    weight = None if weight is None else pad_lanes(weight, channels, width)
    return lanes(epilogue.affine1), (name, a, b, weight), lanes(epilogue.affine2)


_RELU = InKernel("relu")
_PLAIN_POOL = Window((2, 2), (2, 2), (1, 1), ((0, 0), (0, 0)))


def _winograd_tile(x: Channels, block: ConvBlock, algorithm: str, table: Any) -> int:
    """The tile of Winograd's algorithm for this block; 0 if the direct kernel is to be used."""
    if (
        algorithm == "direct"
        or not _suits_winograd(block)
        or any(2 * n > m for n, m in zip(block.shape[1:], block.out_size))  # ceil mode
        or x.buffer.shape[2] % table.width  # transforms work on whole vectors
    ):
        return 0
    if algorithm == "winograd":
        return 4
    return 2 if _packed_winograd(block, 2, table)[4] else 0


def _suits_winograd(block: ConvBlock) -> bool:
    """Whether Winograd's algorithm can be used, as far as the layers of the block decide it.

    The order of the direct sums depends on this, so that it is the same with every algorithm and
    instruction set, and for inputs of every size.
    """
    window = block.window
    return (
        block.pool is not None
        and block.pool.window == _PLAIN_POOL
        and (window.kernel, window.stride, window.dilation) == ((3, 3), (1, 1), (1, 1))
        and block.groups == 1
        and block.epilogue.affine2 is None
        # Other functions may round different sums to the same number.
        and (block.epilogue.activation in (None, _RELU) or _rises(block.epilogue))
        and block.weight.shape[1] >= _WINOGRAD_INPUTS
    )


def _sum_part(block: ConvBlock) -> int:
    """Input channels that are summed at a time; 0 where there is one sum of all products."""
    suits = _suits_winograd(block.cut_from or block)
    return _PART if suits and block.weight.shape[1] >= _PART else 0


def _rises(epilogue: Epilogue) -> bool:
    """Whether the activation is a leaky ReLU that keeps the order of any two sums."""
    assert epilogue.activation is not None
    name, slope, _ = epilogue.activation
    slopes = np.float32(slope) if epilogue.weight is None else epilogue.weight
    return name == "leaky" and bool(np.all((slopes > _LEAST_SLOPE) & (slopes < 1 / _LEAST_SLOPE)))


def _packed_winograd(block: ConvBlock, tile: int, table: Any) -> tuple[Any, ...]:
    """Filters, bounds of the error (slope and base by channel), with tile 2 filters by channel for
    what is in doubt, and whether they can be used."""

    def make() -> tuple[Any, ...]:
        size = len(block.weight)
        with np.errstate(over="ignore"):
            filters = transform_filters(block.weight, tile).astype(np.float32)
        roundings = 0 if block.epilogue.activation in (None, _RELU) else _LEAKY_ROUNDINGS
        bounds = error_bound(
            block.weight, block.bias, block.epilogue.affine1, _sum_part(block), roundings
        )
        lanes = [pad_lanes(bound, size, table.width) for bound in bounds]
        lanes[1][size:] = -1  # lanes without a channel are never in doubt
        usable = bool(lanes[0].max() < _LARGEST_SLOPE)
        by_channel = None
        if tile == 2 and usable:
            rows = np.zeros((len(lanes[0]) - size, *block.weight.shape[1:]), np.float32)
            by_channel = pad_last(
                np.concatenate([block.weight, rows]).transpose(0, 2, 3, 1), table.width
            )
        return pack_forward(filters, 1, table.width), *lanes, by_channel, usable

    key = ("winograd", table.name, tile, block.epilogue.parts)
    packed: tuple[Any, ...] = cached(block.cache, key, make)
    return packed
