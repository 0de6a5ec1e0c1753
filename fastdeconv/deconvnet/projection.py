"""The backward pass: what in the input a feature responds to.

Features are projected down together. Until the first convolution every feature is a
single map, handled layer by layer; from there on, back ends with lane kernels (see
`fastdeconv.kernels.lanes`) take one convolution per job, and whatever no job covers
(linear layers, other activations) is again done layer by layer.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import as_array
from ..audio._checks import as_choice
from ..errors import BackendError, ParameterError, enough_memory, shown
from ..kernels.dispatch import get_backend, get_num_threads, has_bf16
from ..kernels.interface import Pair, Window
from ..kernels.lanes import (
    NO_POOL,
    Convolution,
    First,
    LaneBackend,
    Last,
    Overlap,
    Post,
    Single,
    Source,
    Step,
    cached,
)
from ..network import layers as nn
from .folding import folded
from .graph_walk import GraphWalk
from .layerwise import (
    RULES,
    Arithmetic,
    activation_slope,
    affine_of,
    backward_layer,
    mixes,
)
from .overflow import bounds_back, check_overflow, is_safe, without_warnings
from .plan import Abilities, Order, Segment, is_affine, layer_cache, rectifies, segment_below
from .region import Part, Region, covering_cells, reached_by, within
from .scores import class_start
from .trace import GraphTrace, Trace

__all__ = ["checked_features", "deconvolve"]

Array = NDArray[Any]

_STARTS = ("map", "max", "one")
_CLASS = "class:"
_CLASS_DIGITS = 9
"""More digits are no index of a class; Python refuses to read thousands of them."""

_LANES = 64
"""Most features in one pass."""
_FEW_LANES = 16
"""Lanes come in this many."""
_LANE_BYTES = 1 << 26
"""Two consecutive lane tensors stay below this; longer clips are projected in pieces."""
_LEAST_COLUMNS = 128
"""Input columns of such a piece: pieces overlap by what a few of them reach."""
_PIECE_WORK = 2e7
"""What it costs to look after a piece, as multiply-adds: some 0.2 ms."""
_PLANE_BYTES = 1 << 28
"""As `_LANE_BYTES`, for the planes of features that are projected layer by layer."""


@enough_memory("these maps: take a shorter clip or fewer features at a time")
def deconvolve(
    trace: Trace,
    layer: str,
    features: Sequence[int] | None = None,
    rule: Literal["deconvnet", "guided", "gradient"] = "deconvnet",
    start: Literal["map", "max", "one"] | ArrayLike = "map",
    *,
    precision: Literal["float32", "bf16"] = "float32",
    backend: str | None = None,
    num_threads: int | None = None,
) -> NDArray[np.float32]:
    """Project features of a layer down to the network's input.

    For each feature all others are set to zero and the way back is taken layer by
    layer: max pools by their switches, convolutions by their transpose, ReLUs by the
    rule (Zeiler and Fergus, arXiv 1311.2901, section 2.1). Biases are dropped. Nothing
    is rectified after the last transposed convolution, so maps are signed.

    A map shows what the feature's *input pattern* looked like, not why the network
    decided: deconvnet and guided backpropagation partly recover the image whatever the
    weights (Nie et al., arXiv 1805.07039).

    Parameters
    ----------
    trace : Trace
        From ``net.forward(x)``.
    layer : str
        Any layer, by name. ``"class:NAME"`` or ``"class:INDEX"`` stands for that class's
        score: the last layer's feature, before a closing softmax or sigmoid, the mean over
        its places where there are several.
    features : sequence of int, optional
        Numbers from 0, any order, repeats allowed; default all. Not with ``"class:..."``.
    rule : {"deconvnet", "guided", "gradient"}
        What a ReLU does on the way back: max(0, R); max(0, R) where its activation was
        positive; R where its activation was positive.
    start : {"map", "max", "one"} or array, shape (K, H, W)
        ``"map"``: the feature's whole activation map. ``"max"``: its strongest unit alone (the
        first in row-major order). ``"one"``: 1 everywhere, so that under ``"gradient"`` the map
        is the derivative of the feature's sum. Or your own values at the layer's output.

        A class starts from 1, divided by the number of its places (with ``"max"`` from 1 at the
        strongest of them): the map shows what raises its score, whether the score is positive
        or negative. The score itself as the start would turn the map over where it is negative.
    precision : {"float32", "bf16"}
        ``"bf16"`` rounds every value and weight that is multiplied to bfloat16, by up to 1/512
        of itself, and adds in float32: with many channels 1.3 to 1.5 times as fast. Through
        n convolutions, what is added up for a place of a map is then off by up to some n/256 of the
        sum of its absolute values. What share of the map's maximum that is depends on how much
        cancels out. On the bundled network it is 2e-3. Of 2,500 random networks (3 to 5
        convolutions, ReLUs, with and without pools) half stayed below 5e-3, and the worst came
        to 2e-2. A map that cancels out nearly altogether may be wrong. For listening, not for
        comparing numbers. It needs the native back end and a CPU with AVX512_BF16.
    backend, num_threads
        See `fastdeconv.config`.

    Returns
    -------
    array of float32, shape (K, C, H, W)
        Map k is of features[k]. A silent feature gives exact zeros. The bits do not
        depend on `num_threads` or on which features share a call.

    Raises
    ------
    ParameterError
        If layer, feature, rule, start or precision do not exist or do not fit, or maps
        overflow float32.
    BackendError
        If the back end, or this CPU, cannot multiply in bfloat16.
    """
    if not isinstance(trace, Trace):
        raise ParameterError(f"trace must be a Trace, from net.forward(x), found {shown(trace)}")
    net = trace.network
    as_choice("rule", rule, RULES)
    if isinstance(layer, str) and layer.startswith(_CLASS):
        if features is not None:
            raise ParameterError(f"{shown(layer)} is one feature already: leave features out")
        number = _class_number(trace, layer[len(_CLASS) :])
        index, feature, values = class_start(trace, number, strongest=_is_max(start))
        chosen = np.array([feature])
        if not isinstance(start, str) or start not in _STARTS:
            values = _start_values(trace.activation(index), chosen, start)
    else:
        index = net.layer_index(layer)
        chosen = checked_features(layer, trace.activation(index).shape[0], features)
        values = _start_values(trace.activation(index), chosen, start)
    chosen_backend: Any = get_backend(backend)
    bf16 = _wants_bf16(precision, chosen_backend)
    threads = get_num_threads(num_threads)

    def walk_of(chain: Trace) -> _Walk:
        return _Walk(chain, rule, chosen_backend, threads, bf16)

    walk: Any = GraphWalk(trace, walk_of) if isinstance(trace, GraphTrace) else walk_of(trace)
    out = np.empty((len(chosen), *trace.x.shape), np.float32)
    named = isinstance(start, str)
    with without_warnings():
        walk.project(index, chosen, values, out, sparse=not named or _is_max(start))
    # Values of one's own may be as large as they like; others are not larger than the map's.
    largest = trace.bound(index) if named else float(np.abs(values).max(initial=0))
    if not is_safe(bounds_back(net, index, largest, trace.bound)):
        check_overflow(out, f"a map of {net.layers[index].label}")
    return out


def _is_max(start: Any) -> bool:
    return isinstance(start, str) and start == "max"


def _wants_bf16(precision: str, backend: Any) -> bool:
    as_choice("precision", precision, ("float32", "bf16"))
    if precision == "bf16" and not has_bf16(backend):
        raise BackendError(
            "precision 'bf16' needs the native back end on a CPU with AVX512_BF16 "
            f"(instruction set avx512); this is back end {backend.name!r}"
        )
    return precision == "bf16"


def _class_number(trace: Trace, name: str) -> int:
    """The number of a class from its name, or from the number itself."""
    classes = trace.network.classes or ()
    if name in classes:
        return classes.index(name)
    count = trace.activation(len(trace.network.layers) - 1).shape[0]
    if name.isascii() and name.isdigit() and len(name) <= _CLASS_DIGITS and int(name) < count:
        return int(name)
    known = ", ".join(map(shown, classes)) or f"none named (use class:0 to class:{count - 1})"
    raise ParameterError(f"there is no class {shown(name)}; classes: {known}")


def checked_features(layer: str, count: int, features: Sequence[int] | None) -> NDArray[np.intp]:
    """The features asked for, of a layer that has `count`; None for all.

    Raises
    ------
    ParameterError
        If they are not ints from 0 below `count`.
    """
    if features is None:
        return np.arange(count)
    array = as_array(features, "features")
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ParameterError(f"features must be a sequence of ints, found {shown(features)}")
    if any(isinstance(f, (bool, np.bool_)) for f in features):
        raise ParameterError(f"features must be ints, found a bool in {features!r}")
    if array.size and (array.min() < 0 or array.max() >= count):
        raise ParameterError(
            f"layer {shown(layer)} has features 0..{count - 1}, found {array.min()}..{array.max()}"
        )
    return array.astype(np.intp)


def _start_values(activation: Array, features: NDArray[np.intp], start: Any) -> Array:
    """(K, H, W): the values each feature starts from."""
    maps = activation[_index(features)]
    if isinstance(start, str):
        if start == "map":
            return maps
        if start == "max":
            flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
            strongest = np.zeros_like(flat)
            rows = np.arange(len(flat))
            places = flat.argmax(axis=1)
            strongest[rows, places] = flat[rows, places]
            return strongest.reshape(maps.shape)
        if start == "one":
            # A silent feature stays silent, whatever the rule would make of it.
            return np.broadcast_to(maps.any(axis=(1, 2), keepdims=True), maps.shape).astype(
                maps.dtype
            )
        raise ParameterError(
            f"start must be 'map', 'max', 'one' or an array, found {shown(start)}"
        )
    array = as_array(start, "start")
    if array.dtype.kind not in "fiub" or array.shape != maps.shape:
        raise ParameterError(
            f"start must be real numbers of shape {maps.shape} (features, height, width), "
            f"found {array.dtype} of shape {array.shape}"
        )
    with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
        finite = np.isfinite(array.astype(np.float32)).all()
    if not finite:
        raise ParameterError("start has NaN or infinite values (as float32)")
    return array.astype(maps.dtype)


def _index(numbers: list[int] | NDArray[np.intp]) -> Any:
    """What takes these of an array, without a copy where they follow each other."""
    each = numbers if isinstance(numbers, list) else numbers.tolist()
    if each and each == list(range(each[0], each[0] + len(each))):
        return slice(each[0], each[-1] + 1)
    return numbers


class _Link(NamedTuple):
    """A convolution on the way down, and the segment that leads to it from the one above."""

    conv: int
    segment: Segment | None


def _boxes(maps: Array) -> dict[Region, list[int]]:
    """Which of the maps (K, H, W), none of them silent, are zero outside the same rectangle."""
    there = maps != 0
    sides = []
    for axis in (2, 1):
        some = there.any(axis=axis)
        sides.append((some.argmax(axis=1), some.shape[1] - some[:, ::-1].argmax(axis=1)))
    boxes: dict[Region, list[int]] = {}
    for k, (top, bottom, left, right) in enumerate(zip(*sides[0], *sides[1])):
        box = Region((int(top), int(bottom)), (int(left), int(right)))
        boxes.setdefault(box, []).append(k)
    return boxes


class _Stage(NamedTuple):
    """A convolution that is fed from the tensor above it, as its job wants it."""

    post: Post
    """Of the job above."""
    source: Source
    conv: Convolution
    below: Post | None
    """What follows the sum of overlapping windows, where there are any."""
    begin: Pair
    """Row and column where the tensor above begins."""
    height: int
    """Rows of all of it."""
    last: bool


class _Way(NamedTuple):
    """A chain on the part of every convolution that is computed."""

    start: Region
    """At the output of the first convolution."""
    first: Convolution
    stages: list[_Stage]
    inputs: Region
    end: int
    """The last convolution."""


class _Piece(NamedTuple):
    """Features that are projected together, and the way they go."""

    chosen: list[int]
    way: _Way
    alone: bool
    """The rest of their maps is zero."""


class _Walk:
    """The way down a chain for one trace, rule and back end."""

    def __init__(
        self, trace: Trace, rule: str, backend: Any, num_threads: int, bf16: bool
    ) -> None:
        self.trace, self.rule, self.num_threads, self.bf16 = trace, rule, num_threads, bf16
        self.net = trace.network
        self.arithmetic = Arithmetic(backend, num_threads)
        self.lanes: LaneBackend | None = backend if hasattr(backend, "project_last") else None
        self.abilities = Abilities(
            adds=hasattr(backend, "add_overlaps"), multiplies=getattr(backend, "multiplies", False)
        )
        known = trace.derived("walks")
        self.shapes = cached(
            known, "shapes", lambda: [trace.x.shape, *self.net.shapes(trace.x.shape)]
        )
        self.overlapping = cached(known, "overlapping", lambda: {
            i
            for i, layer in enumerate(self.net.layers)
            if isinstance(layer, nn.MaxPool2d) and self.window(i).overlapping
        })

    def project(
        self, index: int, features: NDArray[np.intp], values: Array, out: Array, sparse: bool
    ) -> None:
        """Project `values` (K, H, W) of layer `index` into `out` (K, C, H, W).

        `sparse`: it may pay to look where they are zero.
        """
        walk, index = self._folded(index)
        walk._project(index, features, values, out, sparse)

    def planes_down(self, index: int, R: Array) -> Array:  # noqa: N803
        """From projections (K, C, H, W) at the output of layer `index` to the input."""
        walk, index = self._folded(index)
        return walk._planes_down(index, R)

    def _folded(self, index: int) -> tuple[_Walk, int]:
        """The walk that goes back from layer `index`, and the layer's place on its chain."""
        if self.lanes is None:
            return self, index
        trace, place = folded(self.trace, index, self.rule)
        if trace is self.trace:
            return self, index
        return _Walk(trace, self.rule, self.lanes, self.num_threads, self.bf16), place

    def _project(
        self, index: int, features: NDArray[np.intp], values: Array, out: Array, sparse: bool
    ) -> None:
        sounding = values.any(axis=(1, 2))
        out[~sounding] = 0
        rows = np.flatnonzero(sounding)
        if not len(rows):
            return
        if len(rows) < len(values):
            features, values = features[rows], values[rows]
        maps = values.astype(self.arithmetic.dtype, copy=False)
        index, maps, pool = self._down_to_mixing(index, maps, features)
        if self._is_single(index):
            self._project_single(pool, features, maps, rows, out)
            return
        if pool is not None:
            maps = self._layer(pool, maps[None], features)[0]
        chain = self._chain(index)
        if chain and chain[-1].conv == 0:
            for piece in self._pieces(chain, maps, sparse):
                self._project_piece(piece, features, maps, rows, out)
            return
        size = self._features_at_once(index)
        for some in (slice(at, at + size) for at in range(0, len(rows), size)):
            out[rows[some]] = self._project_whole(index, chain, features[some], maps[some])

    def _down_to_mixing(
        self, index: int, maps: Array, features: NDArray[np.intp]
    ) -> tuple[int, Array, int | None]:
        """Maps (K, H, W), one a feature, down to the layer that first mixes channels.

        Returns
        -------
        (that layer, the maps at its output or, of a max pool that is left to do, at the
        pool's, the pool)
        """
        pool = None
        R = maps[None]
        while index >= 0 and not mixes(self.net.layers[index], self.rule):
            layer = self.net.layers[index]
            if pool is None and isinstance(layer, nn.MaxPool2d) and index not in self.overlapping:
                # Every value goes to one place: what follows is done while there are few.
                pool = index
            elif pool is not None and rectifies(layer):
                R = self._pooled_rectifier(index, pool, R, features)
            elif pool is not None and self._has_slope(layer):
                R = R * self._pooled_slope(index, pool)[features]
            elif pool is not None and not (isinstance(layer, nn.Dropout) or is_affine(layer)):
                R, pool = self._layer(pool, R, features), None
                continue
            else:
                R = self._layer(index, R, features)
            index -= 1
        return index, R[0], pool

    def _pooled_rectifier(
        self, index: int, pool: int, R: Array, features: NDArray[np.intp]  # noqa: N803
    ) -> Array:
        """Rectifier `index` at the places of the map that `pool` made."""
        if self.rule != "gradient" and R.min(initial=0) < 0:  # an activation has no negatives
            R = np.maximum(R, 0)
        if self.rule != "deconvnet":
            R = np.where(self._active(index, pool)[features], R, 0)
        return R

    def _pooled_slope(self, index: int, pool: int) -> Array:
        cache = self.trace.derived("slopes")
        key = index, pool, self.arithmetic.dtype
        slope: Array = cached(cache, key, lambda: self._slope(index, pool))
        return slope

    def _is_single(self, index: int) -> bool:
        """Whether layer `index` is a convolution that `project_single` takes to the input."""
        layer: Any = self.net.layers[index]
        return (
            index == 0
            and isinstance(layer, nn.Conv2d)
            and layer.groups == 1
            and self.window(0).stride == (1, 1)
            and hasattr(self.lanes, "project_single")
        )

    def _project_single(
        self, pool: int | None, features: NDArray[np.intp], maps: Array,
        rows: NDArray[np.intp], out: Array,
    ) -> None:
        """Project maps at the output of convolution 0, or of the pool that is left to do."""
        backend: Any = self.lanes
        switches, window = None, NO_POOL
        if pool is not None:
            switches, window = self.trace.switch_planes(pool), self.window(pool)
        conv = self._convolution(0, self._whole(0))
        job = Single(maps, features, rows, switches, window, conv)
        backend.project_single(job, out, self.num_threads)

    # ---- whole planes, wherever something is no work for lanes ----

    def _layer(self, index: int, R: Array, channels: Any = slice(None)) -> Array:  # noqa: N803
        return backward_layer(self.trace, index, R, self.rule, self.arithmetic, channels)

    def _project_whole(
        self, index: int, chain: list[_Link], features: NDArray[np.intp], maps: Array
    ) -> Array:
        """Projections (K, C, H, W) of maps at the output of layer `index`."""
        if chain:
            way = self._whole_way(chain)
            job = First(maps, features, way.first, Post(), self.bf16)
            return self._planes_down(*self._lanes_down(job, way, len(maps)))
        spread = np.zeros((len(features), *self.shapes[index + 1]), maps.dtype)
        spread[np.arange(len(features)), features] = maps
        return self._planes_down(index, spread)

    def _planes_down(self, index: int, R: Array) -> Array:  # noqa: N803
        while index >= 0:
            chain = self._chain(index)
            if chain:
                way = self._whole_way(chain)
                index, R = self._lanes_down(self._dense(way.first, R), way, len(R))
            else:
                R = self._layer(index, R)
                index -= 1
        return R

    def _lanes_down(
        self, job: First | Step, way: _Way, count: int
    ) -> tuple[int, Array]:
        """Run a whole chain; (the layer at whose output it ends, projections there)."""
        planes = np.empty((count, *self.shapes[way.end]), np.float32)
        self._run(job, way.stages, planes, np.arange(count))
        return way.end - 1, planes

    def _features_at_once(self, index: int) -> int:
        """Features of layer `index` whose projections fit in bounded memory."""
        sizes = [math.prod(s) for s in self.shapes[: index + 2]]
        if self.lanes is None:
            return max(1, _PLANE_BYTES // (2 * self.arithmetic.dtype().itemsize * max(sizes)))
        fits = _LANE_BYTES // (2 * 4 * max(sizes))
        return max(_FEW_LANES, min(_LANES, fits // _FEW_LANES * _FEW_LANES))

    # ---- lanes all the way, in pieces or only where a start reaches ----

    def _chain(self, index: int) -> list[_Link]:
        """The convolutions that lanes take from layer `index` down, without a gap."""
        if index < 0 or self.lanes is None or not isinstance(self.net.layers[index], nn.Conv2d):
            return []
        return cached(
            self.trace.derived("chains"), (index, self.rule, self.abilities),
            lambda: self._make_chain(index),
        )

    def _make_chain(self, index: int) -> list[_Link]:
        chain = [_Link(index, None)]
        while True:
            segment = segment_below(
                self.net, chain[-1].conv, self.rule, self.overlapping, self.abilities
            )
            if segment is None:
                return chain
            chain.append(_Link(segment.conv, segment))

    def window(self, index: int) -> Window:
        """The window of a convolution or pool."""
        layer: Any = self.net.layers[index]
        return cached(
            self.trace.derived("windows"), index,
            lambda: layer.window(self.shapes[index][1:], self.net.arrays),
        )

    def _size(self, index: int) -> Pair:
        """Of the map at the output of a layer; -1 is the input."""
        _, h, w = self.shapes[index + 1]
        return h, w

    def _whole(self, index: int, cells: Region | None = None) -> Part:
        """All of convolution `index`; `cells` where its output is unpooled from those."""
        output = Region.of(self._size(index))
        return Part(output, Region.of(self._size(index - 1)), cells or output)

    def _whole_parts(self, chain: list[_Link]) -> list[Part]:
        parts = [self._whole(chain[0].conv)]
        for conv, _ in chain[1:]:
            parts.append(self._whole(conv, parts[-1].input))
        return parts

    def _parts_below(self, chain: list[_Link], start: Region) -> list[Part]:
        """What is reached from `start` at the output of the chain's first convolution."""
        parts: list[Part] = []
        for conv, segment in chain:
            cells = output = start
            if segment:
                cells = self._cells_below(segment, parts[-1].input)
                output = self._unpooled(segment, cells)
            reached = reached_by(self.window(conv), output, self._size(conv - 1))
            parts.append(Part(output, reached, cells))
        return parts

    def _cells_below(self, segment: Segment, above: Region) -> Region:
        """What the tensor above a segment becomes before it is unpooled."""
        if segment.pool is None or segment.below is None:
            return above
        # Sums are kept at the first window that points to a place, even if that sends nothing.
        return covering_cells(
            self.window(segment.pool), self._unpooled(segment, above), self._size(segment.pool)
        )

    def _parts_above(self, chain: list[_Link], inputs: Region) -> list[Part]:
        """What these input places need of every convolution in the chain."""
        parts: list[Part] = []
        for conv, segment in reversed(chain):
            output = cells = covering_cells(self.window(conv), inputs, self._size(conv))
            if segment:
                if segment.pool is not None:
                    pool = self.window(segment.pool)
                    cells = covering_cells(pool, cells, self._size(segment.pool))
                output = self._unpooled(segment, cells)
            parts.append(Part(output, inputs, cells))
            inputs = cells
        return parts[::-1]

    def _unpooled(self, segment: Segment, cells: Region) -> Region:
        """What cells of the tensor above a segment become at its lower end."""
        if segment.pool is None:
            return cells
        return reached_by(self.window(segment.pool), cells, self._size(segment.pool - 1))

    def _pieces(
        self, chain: list[_Link], maps: Array, sparse: bool
    ) -> Iterator[_Piece]:
        """Which features go together, and the parts of the layers they are computed on."""
        rest = list(range(len(maps)))
        # In bfloat16 entries are rounded in pairs, and which pair up depends on the part.
        if sparse and not self.bf16:
            rest, whole = [], self._whole_parts(chain)
            for box, group in _boxes(maps).items():
                parts = self._parts_below(chain, box)
                # A start that sees nothing but padding reaches no place: no part to compute.
                if all(min(p.input.size) > 0 for p in parts) and self._pays(
                    chain, parts, whole, len(group)
                ):
                    way = self._way(chain, parts)
                    for some in self._together(group):
                        yield _Piece(some, way, alone=True)
                else:
                    rest += group
            rest.sort()
        _, width = self._size(-1)
        step = max(_LEAST_COLUMNS, _LANE_BYTES * width // max(1, self._lane_bytes(chain)))
        ways = cached(
            self.trace.derived("ways"), (chain[0].conv, self.rule, self.abilities, step),
            lambda: self._whole_ways(chain, step),
        )
        for some in self._together(rest):
            for way in ways:
                yield _Piece(some, way, alone=False)

    def _whole_ways(self, chain: list[_Link], step: int) -> list[_Way]:
        """The ways to all of the input, `step` columns each."""
        height, width = self._size(-1)
        pieces = (
            Region((0, height), (column, min(width, column + step)))
            for column in range(0, width, step)
        )
        return [self._way(chain, self._parts_above(chain, inputs)) for inputs in pieces]

    def _together(self, features: list[int]) -> Iterator[list[int]]:
        """As many features as share a pass."""
        for at in range(0, len(features), _LANES):
            some = features[at : at + _LANES]
            left_over = len(some) % _FEW_LANES
            # Behind a rectifier native kernels leave out zeros, padding among them.
            few = _FEW_LANES // (2 if self.rule == "gradient" else 4)
            if len(some) > left_over and 0 < left_over <= few and not self.bf16:
                # Padded to whole vectors they would cost more than by themselves.
                yield some[:-left_over]
                some = some[-left_over:]
            yield some

    def _pays(
        self, chain: list[_Link], parts: list[Part], whole: list[Part], count: int
    ) -> bool:
        """Whether `count` features are cheaper on these parts than among others on the whole."""
        alone, together = self._work(chain, parts), self._work(chain, whole)
        # Measured on 64 channels: one feature alone does the work of 4 in full lanes, 8 of 12.
        few = count <= _FEW_LANES // 2
        in_lanes = 3 + 1.1 * count if few else -(-count // _FEW_LANES) * _FEW_LANES
        return alone * in_lanes + _PIECE_WORK < together * count

    def _work(self, chain: list[_Link], parts: list[Part]) -> float:
        """Multiply-adds of one feature."""
        work = 0.0
        for (conv, segment), part in zip(chain, parts):
            layer: Any = self.net.layers[conv]
            weight = self.net.arrays[f"{layer.name}.weight"]
            channels = len(weight) if segment else 1
            each = channels * weight[0].size
            if segment is not None and segment.pool is not None:
                each /= math.prod(self.window(segment.pool).stride)
            work += math.prod(part.input.size) * each
        return work

    def _lane_bytes(self, chain: list[_Link]) -> int:
        """Bytes of the largest two lane tensors that exist at a time."""
        sizes = [math.prod(self.shapes[link.conv]) for link in chain]
        if self._scatters(chain):
            # The last one is the result, and the one above it stays in cache.
            sizes = sizes[: -1 if self._is_made(chain[-1]) else -2]
        pairs = max((a + b for a, b in itertools.pairwise([0, *sizes])), default=0)
        return 4 * _LANES * pairs

    def _is_made(self, link: _Link) -> bool:
        """Whether the tensor above a convolution exists as a whole, summed up."""
        return link.segment is not None and link.segment.below is not None

    def _scatters(self, chain: list[_Link]) -> bool:
        """Whether the chain ends in a `Last` job."""
        layer: Any = self.net.layers[chain[-1].conv]
        return chain[-1].conv == 0 and len(chain) > 1 and layer.groups == 1

    def _project_piece(
        self, piece: _Piece, features: NDArray[np.intp], maps: Array, rows: NDArray[np.intp],
        out: Array,
    ) -> None:
        """Project a piece's features, of which map k belongs into out[rows[k]]."""
        to, way = rows[piece.chosen], piece.way
        if piece.alone:
            out[to] = 0
        # Cut first: choosing may copy, and a long clip has many pieces.
        values = maps[(slice(None), *way.start.slices)][_index(piece.chosen)]
        job = First(values, features[piece.chosen], way.first, Post(), self.bf16)
        self._run(job, way.stages, out[(..., *way.inputs.slices)], to)

    def _way(self, chain: list[_Link], parts: list[Part]) -> _Way:
        scatters = self._scatters(chain)
        stages = []
        for (conv, segment), above, part in zip(chain[1:], parts, parts[1:]):
            assert segment is not None
            factor = self._factor(segment, part.cells)
            if segment.below is None:
                post, below = self._post(segment.order, factor), None
            else:
                post, below = self._post(segment.order), self._post(segment.below, factor)
            stages.append(_Stage(
                post, self._source(segment, part), self._convolution(conv, part), below,
                above.input.begin, self._size(conv if segment.pool is None else segment.pool)[0],
                scatters and conv == chain[-1].conv,
            ))
        first = self._convolution(chain[0].conv, parts[0])
        return _Way(parts[0].output, first, stages, parts[-1].input, chain[-1].conv)

    def _whole_way(self, chain: list[_Link]) -> _Way:
        return cached(
            self.trace.derived("whole ways"), (chain[0].conv, self.rule, self.abilities),
            lambda: self._way(chain, self._whole_parts(chain)),
        )

    def _run(
        self, job: First | Step, stages: list[_Stage], out: Array, rows: NDArray[np.intp]
    ) -> None:
        """From a job for the first convolution of a way to out[rows] at the input of its last."""
        assert self.lanes is not None
        for post, source, conv, below, begin, height, last in stages:
            job = job._replace(post=post)
            if last and below is None:
                self.lanes.project_last(
                    Last(job, source, conv, height), out, rows, self.num_threads
                )
                self._release(job)
                return
            v = self._lanes_of(job)
            if below is not None:
                v = self._add_overlaps(v, begin, source, below)
            if last:
                self.lanes.project_last(
                    Last(v, source, conv, height), out, rows, self.num_threads
                )
                self.lanes.release(v)
                return
            job = Step(v, source, conv, Post(), self.bf16)
        v = self._lanes_of(job)
        to = _index(rows)
        planes = out[to]  # of rows that do not follow each other a copy
        self.lanes.to_planes(v, planes, self.num_threads)
        if not isinstance(to, slice):
            out[to] = planes
        self.lanes.release(v)

    def _lanes_of(self, job: First | Step) -> Any:
        """The result of a job, whose own lane tensor nobody uses any more."""
        assert self.lanes is not None
        v = self.lanes.project(job, self.num_threads)
        self._release(job)
        return v

    def _add_overlaps(self, v: Any, begin: Pair, source: Source, below: Post) -> Any:
        """What becomes of a lane tensor that begins there before it is unpooled."""
        lanes: Any = self.lanes
        job = Overlap(v, begin, source, below)
        return lanes.add_overlaps(job, self.num_threads)

    def _release(self, job: First | Step) -> None:
        if isinstance(job, Step) and self.lanes is not None:
            self.lanes.release(job.v)

    # ---- jobs ----

    def _convolution(self, index: int, part: Part) -> Convolution:
        layer: Any = self.net.layers[index]
        return Convolution(
            self.net.arrays[f"{layer.name}.weight"],
            within(self.window(index), part.input, part.output),
            layer.groups,
            part.input.size,
            layer_cache(self.net, index),
        )

    def _dense(self, conv: Convolution, R: Array) -> Step:  # noqa: N803
        assert self.lanes is not None
        _, channels, h, w = R.shape
        source = Source(None, None, NO_POOL, (0, 0), (h, w), (h, w), channels, {})
        v = self.lanes.from_planes(R, self.bf16)
        return Step(v, source, conv, Post(), self.bf16)

    def _post(self, order: Order, factor: Array | None = None) -> Post:
        scale = None
        for index in order.scales:
            one = affine_of(self.net, index)[0]
            scale = one if scale is None else scale * one
        return Post(
            order.relu_before,
            None if scale is None else scale.astype(np.float32),
            order.relu_after,
            factor,
        )

    def _source(self, segment: Segment, part: Part) -> Source:
        """What the convolution below a segment is fed from: the tensor above the segment."""
        cells, unpooled = part.cells, part.output
        pool, switches = NO_POOL, None
        if segment.pool is not None:
            pool = self.window(segment.pool)
            switches = self.trace.switch_cells(segment.pool)
        cache = self.trace.derived(("source", segment.conv, segment.pool, segment.gates))
        gate = cached(cache, "gate", lambda: self._gate(segment))
        return Source(
            switches, gate, within(pool, unpooled, cells), cells.begin, cells.size,
            unpooled.size, self.shapes[segment.conv + 1][0], cache,
        )

    def _gate(self, segment: Segment) -> NDArray[np.uint8] | None:
        """1 where every gating ReLU was active, in the places of the pooled tensor."""
        gate: Array | None = None
        for index in segment.gates:
            active = self._active(index, segment.pool)
            gate = active if gate is None else gate & active
        if gate is None:
            return None
        return np.ascontiguousarray(gate.transpose(1, 2, 0)).view(np.uint8)

    def _factor(self, segment: Segment, cells: Region) -> Array | None:
        """The product of the slopes of a segment, in the places of the tensor above it."""
        if not segment.slopes:
            return None
        cache = self.trace.derived(("products", segment.pool))
        whole = cached(cache, segment.slopes, lambda: np.ascontiguousarray(
            functools.reduce(
                np.multiply, (self._slope(i, segment.pool) for i in segment.slopes)
            ).transpose(1, 2, 0),
            np.float32,
        ))
        part: Array = whole[cells.slices]
        return part

    def _has_slope(self, layer: nn.Layer) -> bool:
        """Whether a layer multiplies what goes back by finite factors of its own."""
        return isinstance(layer, nn.Elementwise) and layer.steepest(self.net.arrays) < math.inf

    def _slope(self, index: int, pool: int | None) -> Array:
        """The derivative of activation `index`, in the places of the tensor pooled by `pool`."""
        slope = activation_slope(self.trace, index).astype(self.arithmetic.dtype)
        return slope if pool is None or index > pool else self._pooled(slope, pool)

    def _active(self, index: int, pool: int | None) -> Array:
        """Where rectifier `index` was active, in the places of the tensor pooled by `pool`."""
        layer: Any = self.net.layers[index]

        def active(output: Array) -> Array:
            where: Array = layer.row.derivative(output, **layer.parameters) > 0
            return where

        if pool is None or index > pool:
            return active(self.trace.activation(index))
        if all(isinstance(layer, nn.Dropout) for layer in self.net.layers[index + 1 : pool]):
            # The pool kept the rectifier's own values, and those are at hand.
            return active(self.trace.activation(pool))
        return self._pooled(active(self.trace.activation(index)), pool)

    def _pooled(self, values: Array, pool: int) -> Array:
        """Planes at a pool's input, read where its switches point."""
        window = self.window(pool)
        switches = self.trace.switch_planes(pool).astype(np.intp)
        c, h, w = switches.shape
        rows = switches // window.kernel[1] * window.dilation[0]
        rows += (np.arange(h) * window.stride[0] - window.padding[0][0])[:, None]
        cols = switches % window.kernel[1] * window.dilation[1]
        cols += np.arange(w) * window.stride[1] - window.padding[1][0]
        picked: Array = values[np.arange(c)[:, None, None], rows, cols]
        return picked
