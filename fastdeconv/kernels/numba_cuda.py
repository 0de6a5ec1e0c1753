"""The back end for NVIDIA GPUs: kernels in Numba, compiled for the card on first use.

Importing this module imports numba.cuda. Arrays come from the host and go back to it.
Between two kernels, data stays on the card: activations of a forward pass until somebody
asks for them, lane tensors, and weights and lists for as long as the network or trace that
they belong to. All arithmetic is in `numba_cuda_kernels`.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import numba_cuda_kernels as kernels
from .blocks import ConvBlock, ForwardBlock
from .interface import FloatArray, Pair, Window, conv_output_size, switch_dtype, switches_as_planes
from .lanes import (
    Bf16,
    Convolution,
    First,
    Last,
    Post,
    Single,
    Source,
    Step,
    cached,
    cell_places,
    first_weight,
    pack_blocks,
)
from .numba_cuda_kernels import cuda

__all__ = ["BACKEND", "CudaBackend", "Tensor"]

if not cuda.is_available():
    raise ImportError(
        "Numba finds no CUDA compiler; pip install 'fastdeconv[cuda]', or for drivers older than "
        "580 pip install 'numba-cuda[cu12]'"
    )

_OWN = 4
"""Outputs that a thread of a convolution computes, where their number in a group is a multiple."""

_FEW = 8
"""The least number of channels that fills the tiles of `step`."""

_MOST_ELEMENTS = (1 << 31) - 1

_OUT_OF_MEMORY = 2
"""The number of this error in CUDA."""

_LEAST_BLOCKS = 128
"""Numba warns about smaller grids. Blocks without work end within a microsecond."""

_STREAMS = os.environ.get("NUMBA_CUDA_PER_THREAD_DEFAULT_STREAM") == "1"
"""Whether what one thread asks of the card may overtake what another one asked before."""

_CARD = threading.RLock()
"""Held while a call uses the card and the arrays that are kept on it for the next call."""


class Tensor(NamedTuple):
    """An array on the card."""

    flat: Any
    """As Numba's functions take and make it."""
    shape: tuple[int, ...]


class Activation(NamedTuple):
    """See `fastdeconv.kernels.blocks.Activation`."""

    on_card: Tensor
    """(1, C, H, W)"""

    @property
    def shape(self) -> tuple[int, int, int]:
        _, c, h, w = self.on_card.shape
        return c, h, w

    def planes(self, num_threads: int = 1) -> FloatArray:
        with _CARD:
            planes: FloatArray = _copied(self.on_card)[0]
            return planes

    def cells(self) -> FloatArray | None:
        return None

    def largest(self) -> float:
        """Its largest absolute value."""
        return float(np.abs(self.planes()).max())


class CudaBackend:
    """The kernels of `numba_cuda_kernels`, on Numba's current device.

    `num_threads` changes nothing.
    """

    name = "cuda"
    runs_joins = copies_given = False

    # ---- the general operations, (N, C, H, W) ----

    def conv2d(
        self, x: FloatArray, weight: FloatArray, bias: FloatArray | None,
        window: Window, groups: int, out_size: Pair, num_threads: int,
    ) -> FloatArray:
        shape = x.shape[0], weight.shape[0], *out_size
        if 0 in shape:
            return np.empty(shape, np.float32)
        with _CARD:
            arrays = (
                _up(x), _up(_forward_weight(weight, groups)), _up(_finish(bias, shape[1]))
            )
            return _down(_convolve(*arrays, window, groups, shape), *arrays)

    def conv_transpose2d(
        self, x: FloatArray, weight: FloatArray, bias: FloatArray | None,
        window: Window, groups: int, out_size: Pair, num_threads: int,
    ) -> FloatArray:
        shape = x.shape[0], weight.shape[1] * groups, *out_size
        if 0 in shape:
            return np.empty(shape, np.float32)
        shift = np.zeros(shape[1], np.float32) if bias is None else bias
        with _CARD:
            arrays = _up(x), _up(weight), _up(shift)
            return _down(_transpose(*arrays, window, groups, shape), *arrays)

    def max_pool2d(
        self, x: FloatArray, window: Window, out_size: Pair, num_threads: int
    ) -> tuple[FloatArray, NDArray[Any]]:
        shape = *x.shape[:2], *out_size
        if 0 in shape:
            return np.empty(shape, np.float32), np.empty(shape, switch_dtype(window.kernel))
        with _CARD:
            planes = _up(x)
            values, switches = _pool(planes, window, out_size)
            return _down(values, planes), _down(switches)

    def max_unpool2d(
        self, values: FloatArray, switches: NDArray[Any],
        window: Window, out_size: Pair, num_threads: int,
    ) -> FloatArray:
        shape = *values.shape[:2], *out_size
        if 0 in shape:
            return np.empty(shape, np.float32)
        with _CARD:
            arrays = _up(values), _up(switches)
            return _down(_unpool(*arrays, window, out_size), *arrays)

    # ---- the forward pass, see `fastdeconv.kernels.blocks.BlockBackend` ----

    def forward_blocks(
        self, given: Mapping[int, Any], blocks: Sequence[ForwardBlock], algorithm: str,
        num_threads: int,
    ) -> list[tuple[Activation, NDArray[Any] | None]]:
        """Every `algorithm` is the direct one."""
        values, results = dict(given), []
        with _CARD:
            for block in blocks:
                assert isinstance(block, ConvBlock)
                (source,) = block.sources
                if isinstance(values[source], np.ndarray):
                    values[source] = Activation(_up(values[source][None]))
                results.append(_forward_block(values[source], block))
                values[block.key] = results[-1][0]
        return results

    def switch_planes(
        self, switches: NDArray[Any], channels: int, num_threads: int
    ) -> NDArray[Any]:
        return switches_as_planes(switches, channels)

    # ---- the backward pass, see `fastdeconv.kernels.lanes.LaneBackend` ----

    def bf16(self) -> Bf16:
        return "none"

    def project(self, job: First | Step, num_threads: int) -> Tensor:
        with _CARD:
            return _first(job) if isinstance(job, First) else _step(job)

    def project_last(
        self, job: Last, out: FloatArray, rows: NDArray[np.intp], num_threads: int
    ) -> None:
        with _CARD:
            above = self.project(job.above, num_threads)
            v = _step(Step(above, job.source, job.conv, Post(), False))
            planes = _to_planes(v, len(rows))
            _copy_rows(planes, out, rows)
            _scratch.give(above, v, planes)

    def project_single(self, job: Single, out: FloatArray, num_threads: int) -> None:
        """Run a job into planes out[job.rows]: every feature is a group of its own."""
        conv, count = job.conv, len(job.values)
        shape = conv.input_channels, *conv.input_size
        with _CARD:
            maps, weight = _up(job.values[None]), _up(conv.weight[job.features])
            if job.switches is not None:
                pooled, places = maps, _up(job.switches[job.features][None])
                size = conv_output_size(conv.input_size, conv.window)
                maps = _unpool(pooled, places, job.pool, size)
                _scratch.give(pooled, places)
            shift = _up(np.zeros(count * shape[0], np.float32))
            planes = _transpose(
                maps, weight, shift, conv.window, count, (1, count * shape[0], *shape[1:])
            )
            _copy_rows(Tensor(planes.flat, (count, *shape)), out, job.rows)
            _scratch.give(maps, weight, shift, planes)

    def release(self, v: Tensor) -> None:
        with _CARD:
            _scratch.give(v)

    def end(self) -> None:
        """See `fastdeconv.kernels.lanes.LaneBackend`."""

    def from_planes(self, planes: FloatArray, bf16: bool) -> Tensor:
        with _CARD:
            return _to_lanes(planes)

    def to_planes(self, v: Tensor, planes: FloatArray, num_threads: int) -> None:
        with _CARD:
            planes[...] = _down(_to_planes(v, len(planes)))


BACKEND = CudaBackend()


# ---- arrays on the card ----


class _Scratch:
    """Arrays nobody uses any more, kept for the next of the same size: allocating takes 0.1 ms."""

    _MOST = 1 << 29
    """How many bytes are kept at most."""

    def __init__(self) -> None:
        self._free: list[Any] = []

    def take(self, shape: tuple[int, ...], dtype: Any) -> Tensor:
        size = math.prod(shape)
        if size > _MOST_ELEMENTS:
            raise MemoryError("kernels count elements in 32 bits")
        for i, flat in enumerate(self._free):
            if flat.size == size and flat.dtype == dtype:
                return Tensor(self._free.pop(i), shape)
        try:
            return Tensor(cuda.device_array(size, dtype), shape)
        except Exception as error:  # Numba's own, of a module it loads only where there is a card
            if getattr(error, "code", None) != _OUT_OF_MEMORY:
                raise
        if self._free:
            self._free.clear()
            return self.take(shape, dtype)
        raise MemoryError("of the GPU")

    def give(self, *tensors: Tensor) -> None:
        """Take back arrays that nobody asks for any more. Kernels may still be using them."""
        if _STREAMS:
            cuda.synchronize()
        self._free += [tensor.flat for tensor in tensors]
        while sum(flat.nbytes for flat in self._free) > self._MOST:
            self._free.pop(0)


_scratch = _Scratch()


def _empty(shape: tuple[int, ...], dtype: Any = np.float32) -> Tensor:
    return _scratch.take(shape, dtype)


def _up(array: NDArray[Any]) -> Tensor:
    tensor = _empty(array.shape, array.dtype)
    tensor.flat.copy_to_device(np.ascontiguousarray(array).reshape(-1))
    return tensor


def _copied(tensor: Tensor) -> NDArray[Any]:
    """The tensor on the host."""
    host: NDArray[Any] = tensor.flat.copy_to_host().reshape(tensor.shape)
    return host


def _down(tensor: Tensor, *others: Tensor) -> NDArray[Any]:
    """The tensor, copied to the host. It and the others are not used any more."""
    host = _copied(tensor)
    _scratch.give(tensor, *others)
    return host


def _copy_rows(planes: Tensor, out: FloatArray, rows: NDArray[np.intp]) -> None:
    """planes[k] to out[rows[k]]."""
    if not out.flags.c_contiguous:
        out[rows] = _copied(planes)
        return
    size = math.prod(planes.shape[1:])
    for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
        to = out[rows[run[0]] : rows[run[-1]] + 1]
        planes.flat[run[0] * size : (run[-1] + 1) * size].copy_to_host(to.reshape(-1))


def _run(kernel: Any, outputs: int, *arguments: Any) -> None:
    """Start a kernel of which every thread computes one output."""
    kernel[_blocks(outputs, kernels.THREADS), kernels.THREADS](*arguments)


def _blocks(outputs: int, each: int = 1) -> int:
    return max(_LEAST_BLOCKS, -(-outputs // each))


def _numbers(window: Window) -> tuple[int, ...]:
    """A window as the kernels take it."""
    (above, _), (left, _) = window.padding
    return *window.kernel, *window.stride, *window.dilation, above, left


# ---- forward ----


def _finish(
    bias: FloatArray | None,
    channels: int,
    before: tuple[FloatArray, FloatArray] | None = None,
    after: tuple[FloatArray, FloatArray] | None = None,
) -> FloatArray:
    """What is applied to sums, (channels, 5): bias, scale and shift, scale and shift."""
    columns = np.zeros((channels, 5), np.float32)
    columns[:, 1] = columns[:, 3] = 1
    if bias is not None:
        columns[:, 0] = bias
    for at, affine in ((1, before), (3, after)):
        if affine is not None:
            columns[:, at : at + 2] = np.stack(affine, axis=1)
    return columns


def _forward_weight(weight: FloatArray, groups: int) -> FloatArray:
    """(groups, taps, C / groups, O / groups)"""
    out, inner = weight.shape[:2]
    return weight.reshape(groups, out // groups, inner, -1).transpose(0, 3, 2, 1)


def _low(relu: bool) -> np.float32:
    return np.float32(0 if relu else -np.inf)


def _forward_block(
    x: Activation, block: ConvBlock
) -> tuple[Activation, NDArray[Any] | None]:
    channels, epilogue = block.weight.shape[0], block.epilogue
    weight = cached(
        block.cache, "cuda weight", lambda: _up(_forward_weight(block.weight, block.groups))
    )
    finish = cached(
        block.cache, ("cuda", epilogue.parts),
        lambda: _up(_finish(block.bias, channels, epilogue.affine1, epilogue.affine2)),
    )
    out = _convolve(
        x.on_card, weight, finish, block.window, block.groups,
        (1, channels, *block.out_size), relu=epilogue.activation is not None,
    )
    if block.pool is None:
        return Activation(out), None
    values, switches = _pool(out, block.pool.window, block.shape[1:])
    _scratch.give(out)
    cells = np.ascontiguousarray(_down(switches)[0].transpose(1, 2, 0))
    return Activation(values), cells


def _convolve(
    x: Tensor, weight: Tensor, finish: Tensor, window: Window, groups: int,
    shape: tuple[int, ...], relu: bool = False,
) -> Tensor:
    out = _empty(shape)
    own = 1 if shape[1] // groups % _OWN else _OWN
    _run(
        kernels.conv2d(own), out.flat.size // own,
        *x, weight.flat, groups, _numbers(window), finish.flat, _low(relu), *out,
    )
    return out


def _pool(x: Tensor, window: Window, out_size: Pair) -> tuple[Tensor, Tensor]:
    values = _empty((*x.shape[:2], *out_size))
    switches = _empty(values.shape, switch_dtype(window.kernel))
    _run(
        kernels.max_pool2d, values.flat.size, *x, _numbers(window), values.flat, *switches
    )
    return values, switches


# ---- back ----


def _transpose(
    x: Tensor, weight: Tensor, shift: Tensor, window: Window, groups: int, shape: tuple[int, ...]
) -> Tensor:
    out = _empty(shape)
    _run(
        kernels.conv_transpose2d, out.flat.size,
        *x, weight.flat, groups, _numbers(window), shift.flat, *out,
    )
    return out


def _unpool(values: Tensor, switches: Tensor, window: Window, out_size: Pair) -> Tensor:
    out = _empty((*values.shape[:2], *out_size))
    _run(
        kernels.max_unpool2d, out.flat.size, values.flat, *switches, _numbers(window), *out
    )
    return out


def _to_lanes(planes: FloatArray) -> Tensor:
    count, channels, h, w = planes.shape
    source, v = _up(planes), _empty((h, w, channels, -(-count // 16) * 16))
    _run(kernels.from_planes, v.flat.size, source.flat, count, *v)
    _scratch.give(source)
    return v


def _to_planes(v: Tensor, count: int) -> Tensor:
    h, w, channels, _ = v.shape
    planes = _empty((count, channels, h, w))
    _run(kernels.to_planes, planes.flat.size, *v, *planes)
    return planes


def _post(post: Post, conv: Convolution) -> tuple[Any, tuple[np.float32, np.float32]]:
    """The scales of a `Post`, and the lower bounds before and after them."""
    if post.scale is not None:
        scale = _up(post.scale)
    else:
        ones = np.ones(conv.input_channels, np.float32)
        scale = cached(conv.cache, "cuda no scale", lambda: _up(ones))
    return scale.flat, (_low(post.relu_before), _low(post.relu_after))


def _result(conv: Convolution, lanes: int) -> Tensor:
    """Space for a lane tensor at a convolution's input."""
    return _empty((*conv.input_size, conv.input_channels, lanes))


def _first(job: First) -> Tensor:
    conv, values = job.conv, _to_lanes(job.values[:, None])
    h, w, _, lanes = values.shape
    weight, out = _up(first_weight(job, lanes)), _result(conv, lanes)
    kernels.first[_blocks(math.prod(conv.input_size)), kernels.THREADS](
        values.flat, (h, w), weight.flat, _numbers(conv.window), *_post(job.post, conv), *out
    )
    _scratch.give(values, weight)
    return out


def _step(job: Step) -> Tensor:
    conv, source = job.conv, job.source
    inner, lanes = conv.weight.shape[1], job.v.shape[3]
    weight = cached(
        conv.cache, "cuda step", lambda: _up(pack_blocks(conv.weight, conv.groups, inner))
    )
    out, pixels = _result(conv, lanes), math.prod(conv.input_size)
    wide = next(n for n in (64, 32, 16) if lanes % n == 0)
    if inner < _FEW:
        kernel, threads = kernels.step_few(wide), kernels.THREADS
        grid = _blocks(pixels, threads // wide), conv.input_channels, lanes // wide
    else:
        columns = 16 if inner <= 16 else 64
        kernel, threads = kernels.step(columns, wide)
        grid = _blocks(pixels), conv.groups * -(-inner // columns), lanes // wide
    order, ends = _lists(source, conv.groups)
    kernel[grid, threads](
        job.v.flat, order.flat, ends.flat, (*_numbers(source.pool), *source.cells), source.size,
        weight.flat, (source.channels // conv.groups, inner), _numbers(conv.window),
        *_post(job.post, conv), *out,
    )
    return out


def _lists(source: Source, groups: int) -> tuple[Tensor, Tensor]:
    """The channels of every cell, sorted by place, and where those of each place begin and end."""

    def make() -> tuple[Tensor, Tensor]:
        cells = math.prod(source.cells)
        where = _up(cell_places(source))
        order = _empty(where.shape, np.int32)
        ends = _empty((cells, groups, math.prod(source.pool.kernel) + 1), np.int32)
        _run(
            kernels.list_channels, cells * groups,
            where.flat, cells, groups, order.flat, ends.flat,
        )
        _scratch.give(where)
        return order, ends

    key = "cuda lists", source.origin, source.cells, groups
    lists: tuple[Tensor, Tensor] = cached(source.cache, key, make)
    return lists
