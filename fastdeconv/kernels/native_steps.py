"""The kernels for a `Step` on the native back end: a record for each, with its packing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import native  # type: ignore[attr-defined, unused-ignore]
from .interface import FloatArray
from .lanes import Convolution, Source, Step, aligned_copy, aligned_empty, pack_blocks
from .native_shared import Lanes, pad_last
from .winograd import transform_filters

__all__ = ["STEP_KERNELS", "StepKernel", "has_all_values", "takes_winograd"]


def _takes_depthwise(table: Any, job: Step) -> bool:
    """A depthwise convolution, from a lane tensor that has values everywhere.

    A 1 x 1 convolution of one channel is one, too, unless it takes its values from the step above.
    """
    conv = job.conv
    by_itself = conv.weight.shape[:2] == (conv.groups, 1) and isinstance(job.v, Lanes)
    return by_itself and has_all_values(job.source) and not job.bf16


def has_all_values(source: Source) -> bool:
    """Whether an unpooled tensor is the lane tensor itself: no pool, no gate."""
    return source.switches is None and source.gate is None and source.open_places is None


def takes_winograd(table: Any, job: Step) -> bool:
    """A 3 x 3 convolution from a source that has values everywhere.

    Nothing here may depend on the features or on the part of a map that is computed: sums round
    otherwise than those of the other kernels.
    """
    conv = job.conv
    is_plain = conv.window[:3] == ((3, 3), (1, 1), (1, 1)) and conv.groups == 1
    has_many = min(conv.weight.shape[:2]) >= table.winograd_least
    return is_plain and has_many and has_all_values(job.source) and not job.bf16


def _takes_sparse(table: Any, job: Step) -> bool:
    """What csrc/sparse.h can take: one feature, or more of them if they have zeros."""
    if job.bf16 or not _fits_lists(table, job):
        return False
    if job.v.by_feature:
        return bool(job.v.lanes == 1 or job.v.rectified)
    return _is_undilated(job) and _has_zeros(table, job)


def _takes_sparse_bf16(table: Any, job: Step) -> bool:
    """The same, of few features, too; numbers of rows have 15 bits."""
    fits = job.conv.weight[:, 0].size <= 2**15 and _fits_lists(table, job) and _is_undilated(job)
    return fits and _takes_vectors(table, job) and _has_zeros(table, job)


def _takes_vectors(table: Any, job: Step) -> bool:
    """From 32 channels on; with fewer, float32 is faster for some numbers of features."""
    vectors = job.bf16 and table.bf16 == "vectors"
    return vectors and job.conv.groups == 1 and job.conv.input_channels >= 2 * table.width


def _takes_tiles(table: Any, job: Step) -> bool:
    """Zeros are not looked for: that would take longer than the product in tiles."""
    return job.bf16 and job.conv.groups == 1 and table.bf16 == "tiles"


def _fits_lists(table: Any, job: Step) -> bool:
    """Whether csrc/sparse.h can take a step of one feature; of more, if it is undilated."""
    conv = job.conv
    # Offsets into the weights, whose rows are whole vectors or pairs of them, have 32 bits.
    unit = 2 * table.width
    row = -(-conv.weight.shape[1] // unit) * unit
    columns = job.source.size[1] * conv.window.stride[1]
    fits = columns * len(conv.weight) * row < 2**30
    return fits and conv.groups == 1 and isinstance(job.v, Lanes)


def _is_undilated(job: Step) -> bool:
    return job.conv.window.dilation == (1, 1)


def _has_zeros(table: Any, job: Step) -> bool:
    """Whether so many of a step's values are zero that leaving them out pays."""
    # Steps in bfloat16 have enough channels, see _takes_vectors.
    return job.v.rectified and (job.bf16 or job.conv.input_channels >= table.sparse_least)


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
    return pad_last(pack_blocks(weight, groups, inner).reshape(-1, inner), table.width)


def _pack_winograd(conv: Convolution, table: Any, nv: int) -> FloatArray:
    """As csrc/winograd_step.h wants them; nv 0 by feature."""
    out, inner = conv.weight.shape[:2]
    places = transform_filters(conv.weight[:, :, ::-1, ::-1], 2).astype(np.float32)
    places = places.reshape(out, inner, -1)
    block: int = native.WINOGRAD_ROWS
    if not nv:
        block = table.max_nv * table.width
        places = np.pad(places, ((0, 0), (0, -inner % table.width), (0, 0)))
    return aligned_copy(np.concatenate(
        [pack_blocks(places[:, :, q : q + 1], 1, block) for q in range(places.shape[2])]
    ))


def _pack_sparse(conv: Convolution, table: Any, nv: int) -> FloatArray:
    """As csrc/sparse.h wants them: [block][tap][O][width]."""
    return _in_blocks(conv.weight, table, table.width)


def _pack_sparse_bf16(conv: Convolution, table: Any, nv: int) -> NDArray[np.uint16]:
    """The same for csrc/sparse_bf16.h."""
    return _unpackable(_rounded(_in_blocks(conv.weight, table, 2 * table.width)))


def _in_blocks(weight: FloatArray, table: Any, unit: int) -> FloatArray:
    out, inner = weight.shape[:2]
    units = -(-inner // unit)
    blocks = -(-units * unit // (table.sparse_nv * table.width))
    width = -(-units // blocks) * unit
    rows = pad_last(weight.reshape(out, inner, -1).transpose(2, 0, 1), blocks * width)
    return aligned_copy(rows.reshape(-1, out, blocks, width).transpose(2, 0, 1, 3))


def _pack_bf16(conv: Convolution, table: Any, nv: int) -> NDArray[np.uint16]:
    """As csrc/bf16.h wants them: (taps * O + 1, C in groups of 32)."""
    return _unpackable(_rounded(_by_tap(conv.weight, 32)))


def _pack_tiles(conv: Convolution, table: Any, nv: int) -> NDArray[np.uint16]:
    """As csrc/tile_product.h wants them: (taps * O + 1, C in groups of 16)."""
    rounded = _rounded(_by_tap(conv.weight, 16))
    packed = aligned_empty((rounded.size // 2,)).view(np.uint16).reshape(rounded.shape)
    packed[...] = rounded
    return packed


def _by_tap(weight: FloatArray, unit: int) -> FloatArray:
    """(taps * O, C, padded to whole units), and a row of zeros (see csrc/gather.h)"""
    out, inner = weight.shape[:2]
    rows = weight.reshape(out, inner, -1).transpose(2, 0, 1).reshape(-1, inner)
    return pad_last(np.pad(rows, ((0, 1), (0, 0))), unit)


def _rounded(values: FloatArray) -> NDArray[np.uint16]:
    """To bfloat16, to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)


def _unpackable(rounded: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Rows of groups of 32, which start on a cache line, in the order that unpacking wants."""
    # Unpacking takes four numbers of every eight for the lower 16 channels, and four for the
    # upper ones.
    halves = rounded.reshape(-1, 2, 4, 4).swapaxes(1, 2)
    packed = aligned_empty((rounded.size // 2,)).view(np.uint16)
    packed.reshape(halves.shape)[...] = halves
    return packed.reshape(rounded.shape)


class StepKernel(NamedTuple):
    """A kernel for a `Step`."""

    name: str
    takes: Callable[[Any, Step], bool]
    """``takes(table, job)``: whether it can do a job, and is the fastest kernel that can."""
    pack: Callable[[Convolution, Any, int], NDArray[Any]]
    """``pack(conv, table, nv)``: the weights as it reads them; nv as in csrc/fastdeconv.h."""
    give: str
    """The method of `native.Step` that is given these weights."""
    packing: Callable[[int], int] = lambda nv: 0
    """The packing for nv; where the number is the same, so are the packed weights."""
    in_lists: bool = True
    """Whether it uses the lists of csrc/gather.h, which need a stride of 1."""
    filtered: bool = False
    """Whether the lists of a lone feature are made without its zeros."""


STEP_KERNELS = (
    StepKernel("depthwise", _takes_depthwise, _pack_depthwise, "keep_apart", in_lists=False),
    StepKernel(
        "winograd", takes_winograd, _pack_winograd, "multiply_transformed", packing=bool,
        in_lists=False,
    ),
    StepKernel("sparse", _takes_sparse, _pack_sparse, "leave_out_zeros"),
    StepKernel("sparse bf16", _takes_sparse_bf16, _pack_sparse_bf16, "leave_out_zeros"),
    StepKernel("bf16", _takes_vectors, _pack_bf16, "multiply"),
    StepKernel("tiles", _takes_tiles, _pack_tiles, "multiply"),
    StepKernel(
        "dense", lambda table, job: True, _pack_dense, "multiply", packing=int, filtered=True
    ),
)
"""A job is done by the first of these that takes it."""
