"""The way back on a back end: from maps of some features down to the input.

Features are projected down together. Until the first convolution every feature is a single
map, handled layer by layer; from there on, back ends with lane kernels (see
`fastdeconv.kernels.lanes`) go along a route, one convolution a job. Whatever no lane kernel
can do is done layer by layer, on planes (K, C, H, W).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.lanes import (
    NO_POOL,
    Combine,
    Convolution,
    First,
    LaneBackend,
    Last,
    Overlap,
    Post,
    Reduce,
    Single,
    Source,
    Step,
    Term,
    View,
    cached,
)
from ..network import layers as nn
from . import cost
from .facts import Facts
from .folding import folded
from .joins import backward_join
from .layerwise import Arithmetic, backward_layer, mixes
from .plan import is_affine, rectifies
from .region import Part, Region
from .route import Abilities, Route, Segment, abilities_of, has_slope, route_of
from .trace import Trace

__all__ = ["Run"]

Array = NDArray[Any]

PLANE_BYTES = 1 << 28
"""Planes of features that are projected layer by layer stay below this."""


class Start(NamedTuple):
    """Where the way begins, and with what."""

    layer: int
    """A convolution; or a layer at whose output something else is added; -1 is the input."""
    maps: Array
    """At its output: (K, H, W), one a feature."""
    pool: int | None = None
    """A pool that is left to do, at whose output they are."""
    as_planes: bool = False
    """Whether the layer goes by itself, on planes of all channels."""


class _Key(NamedTuple):
    starts: tuple[tuple[int, bool, bool], ...]
    """Each its layer, whether a convolution takes it as one map a feature, and whether it goes in
    lanes."""
    rule: str
    abilities: Abilities | None


class Stage(NamedTuple):
    """A segment on the part of its maps that is computed, as jobs want it."""

    top: int
    segment: Segment | None
    """None: layer `top` by itself, on planes."""
    cells: Region
    """Of the tensor at the top."""
    post: Post
    sources: tuple[int, ...]
    source: Source | None = None
    conv: Convolution | None = None
    """Where a convolution takes what comes out."""
    scaled: Convolution | None = None
    """The same that has taken the scales of `post` on itself, if nothing else is in that."""
    below: Post | None = None
    """What follows the sum of overlapping windows, where there are any."""


class Way(NamedTuple):
    """A route on the parts that are computed."""

    firsts: dict[int, tuple[Convolution, Region]]
    """Of the convolutions that take one map a feature, and the part of their outputs."""
    stages: list[Stage]
    inputs: Region
    alone: bool = False
    """Whether maps are zero outside that."""


@dataclass
class _Tensor:
    """A lane tensor that several may take; the last one gives it back."""

    v: Any
    uses: int = 1


@dataclass
class _Part:
    """What of a lane tensor comes back to the output of a layer."""

    tensor: _Tensor
    region: Region
    """Of the map there that it covers."""
    channel: int = 0
    repeated: bool = False
    is_whole: bool = True
    """Whether it has all channels of the tensor."""
    factor: Array | None = None

    def is_all_of(self, region: Region) -> bool:
        """Whether the tensor has these places and channels, each once, and no others."""
        return not self.repeated and self.is_whole and self.region == region

    def term(self, region: Region) -> Term:
        """What of it lies in a smaller region."""
        down, right = (a - b for a, b in zip(region.begin, self.region.begin))
        factor, (h, w) = self.factor, region.size
        if factor is not None:
            factor = factor[down : down + h, right : right + w]
        view = View(self.tensor.v, (down, right), self.channel, self.repeated)
        return Term(view, factor)


@dataclass
class _Job:
    """A convolution that is still to be taken back."""

    job: First | Step
    uses: list[_Tensor] = field(default_factory=list)


@dataclass
class _Maps:
    """One map a feature."""

    maps: Array


class Run:
    """The way down a network for one trace, rule and back end."""

    def __init__(
        self, trace: Trace, rule: str, backend: Any, num_threads: int, bf16: bool
    ) -> None:
        self.trace, self.rule, self.num_threads, self.bf16 = trace, rule, num_threads, bf16
        self.net, self.backend = trace.network, backend
        self.arithmetic = Arithmetic(backend, num_threads)
        self.facts = Facts(trace, self.arithmetic.dtype)
        self.lanes: LaneBackend | None = backend if hasattr(backend, "project_last") else None
        self.abilities = None if self.lanes is None else abilities_of(backend)

    def project(
        self, index: int, features: NDArray[np.intp], values: Array, out: Array, sparse: bool
    ) -> None:
        """Project `values` (K, H, W) of layer `index` into `out` (K, C, H, W).

        `sparse`: it may pay to look where they are zero.
        """
        if self.lanes is not None:
            trace, index = folded(self.trace, index, self.rule)
            if trace is not self.trace:
                run = Run(trace, self.rule, self.backend, self.num_threads, self.bf16)
                run.project(index, features, values, out, sparse)
                return
        sounding = values.any(axis=(1, 2))
        out[~sounding] = 0
        rows = np.flatnonzero(sounding)
        if not len(rows):
            return
        if len(rows) < len(values):
            features, values = features[rows], values[rows]
        maps = values.astype(self.arithmetic.dtype, copy=False)
        starts = self._starts(index, maps, features)
        if self._is_single(starts):
            self._project_single(starts[0], features, rows, out)
            return
        starts = [self._unpooled(start, features) for start in starts]
        route = self._route(starts)
        if route is None:
            size = self._features_at_once(index)
            for at in range(0, len(rows), size):
                few = slice(at, at + size)
                part = [start._replace(maps=start.maps[few]) for start in starts]
                self._run(self._way_of_planes(starts), part, features[few], rows[few], out)
            self._end()
            return
        for way, some in self._pieces(route, starts, sparse):
            self._run_piece(way, some, starts, features, rows, out)
        self._end()

    def _end(self) -> None:
        """Nothing is taken back any more."""
        if self.lanes is not None:
            self.lanes.end()

    @property
    def _joins(self) -> bool:
        return self.abilities is not None and self.abilities.joins

    # ---- one map a feature ----

    def _starts(self, index: int, maps: Array, features: NDArray[np.intp]) -> list[Start]:
        """Where single maps meet a layer that mixes channels, or something that is added."""
        starts: list[Start] = []
        single, others = {index: maps}, set[int]()
        while single:
            top = max(*single, *others) if others else max(single)
            if top in others:
                others.discard(top)
                if top in single:
                    starts.append(Start(top, single.pop(top)))
                if top >= 0:
                    others.update(self.net.sources[top])
                continue
            start = self._down(top, single.pop(top), features)
            layer = start.layer
            if layer >= 0 and self._adds(layer):
                for source in self.net.sources[layer]:
                    single[source] = single[source] + start.maps if source in single else start.maps
            elif layer >= 0 and layer != top and not self._mixes(layer):
                single[layer] = single[layer] + start.maps if layer in single else start.maps
            else:
                is_convolution = layer >= 0 and isinstance(self.net.layers[layer], nn.Conv2d)
                lanes = is_convolution and self.lanes is not None
                starts.append(start._replace(as_planes=not lanes))
                if layer >= 0:
                    others.update(self.net.sources[layer])
        return starts

    def _adds(self, index: int) -> bool:
        """Whether a layer sends all inputs what comes back to it."""
        return isinstance(self.net.layers[index], nn.Add) and all(
            self.facts.shape(k) == self.facts.shape(index) for k in self.net.sources[index]
        )

    def _mixes(self, index: int) -> bool:
        return mixes(self.net.layers[index], self.rule)

    def _down(self, index: int, maps: Array, features: NDArray[np.intp]) -> Start:
        """Maps (K, H, W), one a feature, down to the layer that first mixes channels, or whose
        output several take."""
        top, pool = index, None
        R = maps[None]
        while index >= 0 and not self._mixes(index):
            if index != top and self.facts.takers[index] > 1:
                break
            layer = self.net.layers[index]
            if pool is None and isinstance(layer, nn.MaxPool2d) and (
                index not in self.facts.overlapping
            ):
                # Every value goes to one place: what follows is done while there are few.
                pool = index
            elif pool is not None and rectifies(layer):
                R = self._pooled_rectifier(index, pool, R, features)
            elif pool is not None and has_slope(layer, self.net.arrays):
                R = R * self.facts.pooled_slope(index, pool)[features]
            elif pool is not None and not (isinstance(layer, nn.Dropout) or is_affine(layer)):
                R, pool = self._layer(pool, R, features), None
                continue
            else:
                R = self._layer(index, R, features)
            index = self.facts.below(index)
        start = Start(index, R[0], pool)
        is_convolution = index >= 0 and isinstance(self.net.layers[index], nn.Conv2d)
        return start if is_convolution else self._unpooled(start, features)

    def _unpooled(self, start: Start, features: NDArray[np.intp]) -> Start:
        if start.pool is None:
            return start
        maps = self._layer(start.pool, start.maps[None], features)[0]
        return start._replace(maps=maps, pool=None)

    def _pooled_rectifier(
        self, index: int, pool: int, R: Array, features: NDArray[np.intp]  # noqa: N803
    ) -> Array:
        """Rectifier `index` at the places of the map that `pool` made."""
        if self.rule != "gradient" and R.min(initial=0) < 0:  # an activation has no negatives
            R = np.maximum(R, 0)
        if self.rule != "deconvnet":
            R = np.where(self.facts.active(index, pool)[features], R, 0)
        return R

    def _spread(
        self, index: int, maps: Array, features: NDArray[np.intp], region: Region
    ) -> Array:
        """A part of single maps as planes (K, C, H, W) at the output of a layer."""
        shape = len(features), self.facts.shape(index)[0], *region.size
        planes = np.zeros(shape, maps.dtype)
        planes[np.arange(len(features)), features] = maps[(slice(None), *region.slices)]
        return planes

    def _is_single(self, starts: list[Start]) -> bool:
        """Whether all there is is a convolution that `project_single` takes to the input."""
        index = starts[0].layer
        layer: Any = self.net.layers[index]
        return (
            len(starts) == 1
            and self._is_first(starts[0])
            and self.facts.below(index) < 0
            and layer.groups == 1
            and self.facts.window(index).stride == (1, 1)
            and hasattr(self.lanes, "project_single")
        )

    def _project_single(
        self, start: Start, features: NDArray[np.intp], rows: NDArray[np.intp], out: Array
    ) -> None:
        """Project maps at the output of a convolution, or of the pool that is left to do."""
        switches, window = None, NO_POOL
        if start.pool is not None:
            switches = self.trace.switch_planes(start.pool)
            window = self.facts.window(start.pool)
        conv = self.facts.convolution(start.layer, self.facts.whole(start.layer))
        job = Single(start.maps, features, rows, switches, window, conv)
        self.backend.project_single(job, out, self.num_threads)

    # ---- routes and ways ----

    def _segments(self, key: _Key) -> dict[int, Segment | None]:
        """The way down from the starts; without lane kernels layer by layer."""
        tops: dict[int, bool] = {}
        for layer, is_first, in_lanes in key.starts:
            top = self.facts.below(layer) if is_first else layer
            # Without joins lanes take no more than one.
            tops[top] = in_lanes and (self._joins or top not in tops)
        return route_of(
            self.net, tops, self.rule, self.facts.overlapping, self.abilities,
            self.facts.shapes[1:],
        )

    def _key(self, starts: Sequence[Start]) -> _Key:
        """All that the way from these starts depends on."""
        own = tuple((start.layer, self._is_first(start), not start.as_planes) for start in starts)
        return _Key(own, self.rule, self.abilities)

    def _route(self, starts: Sequence[Start]) -> Route | None:
        """The way down where lanes take all of it."""
        key = self._key(starts)

        def make() -> Route | None:
            segments = self._segments(key)
            if None in segments.values() or not all(in_lanes for _, _, in_lanes in key.starts):
                return None
            whole = {top: s for top, s in segments.items() if s is not None}
            firsts = tuple(layer for layer, is_first, _ in key.starts if is_first)
            return cost.route_in_lanes(self.facts, firsts, whole) if firsts else None

        return cached(self.trace.derived("routes"), key, make)

    def _way(self, route: Route, inputs: Region, parts: dict[int, Part], **more: Any) -> Way:
        firsts = {}
        for conv in route.firsts:
            part = cost.whole_start(self.facts, conv, parts, inputs)
            firsts[conv] = self.facts.convolution(conv, part), part.output
        stages = [
            self._stage(top, segment, parts[top]) for top, segment in route.segments.items()
        ]
        return Way(firsts, stages, inputs, **more)

    def _stage(self, top: int, segment: Segment, part: Part) -> Stage:
        facts = self.facts
        sources = cost.sources_of(facts, segment)
        is_convolution = cost.is_convolution(facts, segment)
        factor = facts.factor(segment, part.cells, with_gates=not is_convolution)
        post, below = facts.post(segment.order, factor), None
        if segment.below is not None:
            post, below = facts.post(segment.order), facts.post(segment.below, factor)
        if not is_convolution:
            return Stage(top, segment, part.cells, post, sources)
        scaled, scales = None, segment.order.scales
        if segment.only_scales and scales:
            scaled = facts.convolution(segment.end, part, scales)
        return Stage(
            top, segment, part.cells, post, sources, facts.source(segment, part),
            facts.convolution(segment.end, part), scaled, below,
        )

    def _whole_ways(self, key: _Key, route: Route, columns: int) -> list[Way]:
        """The ways to all of the input, so many columns each."""
        return cached(self.trace.derived("ways"), (key, columns), lambda: [
            self._way(route, inputs, cost.parts_above(self.facts, route, inputs))
            for inputs in cost.pieces_of(self.facts.size(-1), columns)
        ])

    def _way_of_planes(self, starts: Sequence[Start]) -> Way:
        """The whole way, where not all of it is in lanes."""
        key = self._key(starts)

        def make() -> Way:
            stages = []
            for top, segment in self._segments(key).items():
                cells = Region.of(self.facts.size(top))
                if segment is None:
                    stages.append(Stage(top, None, cells, Post(), self.net.sources[top]))
                else:
                    part = cost.part_whole(self.facts, segment)
                    stages.append(self._stage(top, segment, part))
            firsts = {}
            for layer, is_first, _ in key.starts:
                if is_first:
                    part = self.facts.whole(layer)
                    firsts[layer] = self.facts.convolution(layer, part), part.output
            return Way(firsts, stages, Region.of(self.facts.size(-1)))

        return cached(self.trace.derived("ways of planes"), key, make)

    def _is_first(self, start: Start) -> bool:
        """Whether a start is taken by a convolution as one map a feature."""
        is_layer = start.layer >= 0 and not start.as_planes and self.lanes is not None
        return is_layer and isinstance(self.net.layers[start.layer], nn.Conv2d)

    def _features_at_once(self, index: int) -> int:
        """Features of layer `index` whose projections as planes fit in bounded memory."""
        largest = max(math.prod(shape) for shape in self.facts.shapes[: index + 2])
        at_a_time = 2 if self.net.is_chain else 4
        if self.lanes is None:
            size = self.arithmetic.dtype().itemsize
            return max(1, PLANE_BYTES // (at_a_time * size * largest))
        fits = cost.LANE_BYTES // (at_a_time * 4 * largest)
        return max(cost.FEW_LANES, min(cost.LANES, fits // cost.FEW_LANES * cost.FEW_LANES))

    def _pieces(
        self, route: Route, starts: Sequence[Start], sparse: bool
    ) -> Iterator[tuple[Way, list[int]]]:
        """Which features go together, and the ways they go."""
        rest = list(range(len(starts[0].maps)))
        few = cost.few_apart(route, self.rule, self.bf16)
        # In bfloat16 entries are rounded in pairs, and which pair up depends on the part.
        if sparse and route.is_chain and not self.bf16:
            rest, facts = [], self.facts
            whole = [facts.whole(route.firsts[0])]
            whole += [cost.part_whole(facts, segment) for segment in route.segments.values()]
            for box, group in cost.boxes(starts[0].maps).items():
                first, below = cost.parts_below(facts, route, box)
                parts = [first, *below.values()]
                # A start that sees nothing but padding reaches no place: no part to compute.
                if all(min(p.input.size) > 0 for p in parts) and cost.pays(
                    facts, route, parts, whole, len(group)
                ):
                    stages = [self._stage(*item, below[item[0]]) for item in route.segments.items()]
                    conv = facts.convolution(route.firsts[0], first)
                    firsts = {route.firsts[0]: (conv, first.output)}
                    way = Way(firsts, stages, parts[-1].input, alone=True)
                    for some in cost.together(group, few, cost.LANES):
                        yield way, some
                else:
                    rest += group
            rest.sort()
        most, columns = cost.at_once(self.facts, route)
        ways = self._whole_ways(self._key(starts), route, columns)
        for some in cost.together(rest, few, most):
            for way in ways:
                yield way, some

    # ---- going ----

    def _run_piece(
        self, way: Way, some: list[int], starts: Sequence[Start], features: NDArray[np.intp],
        rows: NDArray[np.intp], out: Array,
    ) -> None:
        """Project some features along a way, of which map k belongs into out[rows[k]]."""
        to = rows[some]
        if way.alone:
            out[to] = 0
        part = []
        for start in starts:
            # Cut first: choosing may copy, and a long clip has many pieces.
            maps = start.maps
            if start.layer in way.firsts:
                maps = maps[(slice(None), *way.firsts[start.layer][1].slices)]
            part.append(start._replace(maps=maps[_index(some)]))
        self._run(way, part, features[some], to, out[(..., *way.inputs.slices)])

    def _run(
        self, way: Way, starts: Sequence[Start], features: NDArray[np.intp],
        rows: NDArray[np.intp], out: Array,
    ) -> None:
        """From starts along a way to out[rows] at the input."""
        sent: dict[int, list[Any]] = defaultdict(list)
        for start in starts:
            if start.layer in way.firsts:
                conv, _ = way.firsts[start.layer]
                job = First(start.maps, features, conv, Post(), self.bf16)
                sent[self.facts.below(start.layer)].append(_Job(job))
            else:
                sent[start.layer].append(_Maps(start.maps))
        lasts = [stage for stage in way.stages if -1 in stage.sources]
        for stage in way.stages:
            came = sent.pop(stage.top)
            if stage.segment is None:
                for source, planes in self._by_itself(stage.top, came, features):
                    sent[source].append(planes)
            elif stage.conv is None:
                for source, part in self._join(stage, came, features):
                    sent[source].append(part)
            elif lasts == [stage] and not sent and _scatters(stage):
                self._last(stage, came, features, out, rows)
                return
            else:
                sent[stage.sources[0]].append(self._step(stage, came, features))
        out[_index(rows)] = self._planes(-1, sent[-1], features, way.inputs)

    # ---- lanes ----

    def _settled(
        self, stage: Stage, came: list[Any], features: NDArray[np.intp]
    ) -> tuple[_Job | _Tensor, Convolution | None]:
        """The sum of what came to the top of a segment, with what follows it, and the convolution
        that takes that."""
        assert self.lanes is not None
        joins = self._joins or len(came) == 1
        if not joins or any(isinstance(one, np.ndarray) for one in came):
            planes = self._planes(stage.top, came, features, stage.cells)
            came = [_Part(_Tensor(self.lanes.from_planes(planes, self.bf16)), stage.cells)]
        jobs = [one for one in came if isinstance(one, _Job)]
        parts = [one for one in came if isinstance(one, _Part)]
        maps = [one.maps for one in came if isinstance(one, _Maps)]
        if maps:
            tensor = self._own(stage, self._tensor(self._summed(stage, jobs, parts, Post())))
            for one in maps:
                cut = one[(slice(None), *stage.cells.slices)]
                self.backend.add_maps(tensor.v, cut, features)
            jobs, parts = [], [_Part(tensor, stage.cells)]
        if stage.scaled is not None and not jobs and self._are_all(stage, parts):
            return parts[0].tensor, stage.scaled
        return self._summed(stage, jobs, parts, stage.post), stage.conv

    def _summed(
        self, stage: Stage, jobs: list[_Job], parts: list[_Part], post: Post
    ) -> _Job | _Tensor:
        if not jobs:
            if post.is_empty and self._are_all(stage, parts):
                return parts[0].tensor
            return self._combined(stage, parts, post)
        more = parts[0] if parts else None
        if len(parts) > 1 or (more is not None and more.factor is not None):
            more = _Part(self._combined(stage, parts, Post()), stage.cells)
        for job in jobs[:-1]:
            more = _Part(self._tensor(_with(job, Post(), more, stage.cells)), stage.cells)
        return _with(jobs[-1], post, more, stage.cells)

    def _are_all(self, stage: Stage, parts: list[_Part]) -> bool:
        """Whether the sum of these is a tensor that is there already."""
        (part,) = parts if len(parts) == 1 else [None]
        return part is not None and part.factor is None and part.is_all_of(stage.cells)

    def _combined(self, stage: Stage, parts: list[_Part], post: Post) -> _Tensor:
        terms = [part.term(stage.cells) for part in parts]
        own = (
            i for i, part in enumerate(parts)
            if part.tensor.uses == 1 and part.is_all_of(stage.cells)
        )
        into = next(own, None)
        job = Combine(terms, stage.cells.size, self.facts.shape(stage.top)[0], post, into)
        v = self.backend.combine(job, self.num_threads)
        for i, part in enumerate(parts):
            if i != into:
                self._release(part.tensor)
        return _Tensor(v)

    def _own(self, stage: Stage, tensor: _Tensor) -> _Tensor:
        """A tensor that nobody else reads, to be written to."""
        if tensor.uses == 1:
            return tensor
        return self._combined(stage, [_Part(tensor, stage.cells)], Post())

    def _tensor(self, what: _Job | _Tensor) -> _Tensor:
        """The result of a job, or the tensor itself."""
        if isinstance(what, _Tensor):
            return what
        assert self.lanes is not None
        v = self.lanes.project(what.job, self.num_threads)
        for tensor in what.uses:
            self._release(tensor)
        return _Tensor(v)

    def _release(self, tensor: _Tensor) -> None:
        tensor.uses -= 1
        if tensor.uses == 0 and self.lanes is not None:
            self.lanes.release(tensor.v)

    def _unpooled_sums(self, stage: Stage, settled: _Job | _Tensor) -> _Job | _Tensor:
        """What a convolution is fed from: where windows overlap, what they send summed."""
        if stage.below is None:
            return settled
        assert stage.source is not None
        tensor = self._own(stage, self._tensor(settled))
        job = Overlap(tensor.v, stage.cells.begin, stage.source, stage.below)
        return _Tensor(self.backend.add_overlaps(job, self.num_threads))

    def _step(
        self, stage: Stage, came: list[Any], features: NDArray[np.intp]
    ) -> _Job:
        """The convolution at the end of a segment, still to be taken back."""
        settled, conv = self._settled(stage, came, features)
        settled = self._unpooled_sums(stage, settled)
        assert conv is not None and stage.source is not None
        if isinstance(settled, _Job) and self._joins and self.backend.fuses(
            settled.job, stage.source, conv
        ):
            return _Job(Step(settled.job, stage.source, conv, Post(), self.bf16), settled.uses)
        tensor = self._tensor(settled)
        return _Job(Step(tensor.v, stage.source, conv, Post(), self.bf16), [tensor])

    def _last(
        self, stage: Stage, came: list[Any], features: NDArray[np.intp], out: Array,
        rows: NDArray[np.intp],
    ) -> None:
        """The convolution at the network's input, into out[rows]."""
        assert self.lanes is not None and stage.source is not None
        settled, conv = self._settled(stage, came, features)
        settled = self._unpooled_sums(stage, settled)
        assert conv is not None and stage.segment is not None
        pool = stage.segment.pool
        height, _ = self.facts.size(stage.segment.end if pool is None else pool)
        if isinstance(settled, _Job):
            above, uses = settled.job, settled.uses
        else:
            above, uses = settled.v, [settled]
        self.lanes.project_last(
            Last(above, stage.source, conv, height), out, rows, self.num_threads
        )
        for tensor in uses:
            self._release(tensor)

    def _join(
        self, stage: Stage, came: list[Any], features: NDArray[np.intp]
    ) -> Iterator[tuple[int, _Part]]:
        """What a layer of several inputs, a mean or a fork sends where."""
        assert stage.segment is not None
        settled, _ = self._settled(stage, came, features)
        end, sources, facts = stage.segment.end, stage.sources, self.facts
        layer, cells = self.net.layers[end], stage.cells
        if isinstance(settled, _Job) and isinstance(layer, nn.Multiply):
            settled = self._counting(settled, sources, cells)
        tensor = self._tensor(settled)
        if stage.sources == (end,) or isinstance(layer, nn.Add):
            parts = [_Part(tensor, cells) for _ in sources]
        elif isinstance(layer, nn.Concat):
            channels = [facts.shape(source)[0] for source in sources]
            begins = np.cumsum([0, *channels[:-1]])
            parts = [_Part(tensor, cells, int(begin), is_whole=False) for begin in begins]
        elif isinstance(layer, nn.Multiply):
            parts = [
                self._product(tensor, cells, source, other)
                for source, other in zip(sources, reversed(sources))
            ]
        else:
            c, h, w = facts.shape(sources[0])
            share = np.broadcast_to(np.full(c, 1 / (h * w), np.float32), (h, w, c))
            whole = Region.of((h, w))
            parts = [_Part(tensor, whole, repeated=True, factor=share)]
        tensor.uses += sum(part.tensor is tensor for part in parts) - 1
        if not any(part.tensor is tensor for part in parts):
            tensor.uses += 1
            self._release(tensor)
        return zip(sources, parts)

    def _counting(self, job: _Job, sources: tuple[int, ...], cells: Region) -> _Job:
        """A job that sums up on the way what a product sends to an input of one pixel."""
        for source, other in zip(sources, reversed(sources)):
            if self.facts.size(source) == (1, 1) != cells.size:
                counts = self.facts.cells_last(other)
                return _Job(job.job._replace(post=job.job.post._replace(counts=counts)), job.uses)
        return job

    def _product(self, tensor: _Tensor, cells: Region, source: int, other: int) -> _Part:
        """What a product sends to one of its inputs."""
        shape = self.facts.shape(source)
        factor = self.facts.cells_last(other)
        if factor.shape[:2] != cells.size:
            whole = Region.of(self.facts.size(source if factor.shape[:2] == (1, 1) else other))
            factor = np.broadcast_to(factor, (*whole.size, shape[0]))[cells.slices]
        if shape[1:] == (1, 1) and cells.size != (1, 1):
            term = Term(View(tensor.v), factor)
            v = self.backend.reduce(Reduce(term, cells.size, shape[0]), self.num_threads)
            return _Part(_Tensor(v), Region.of((1, 1)))
        return _Part(tensor, cells, factor=factor)

    # ---- planes ----

    def _planes(
        self, index: int, came: list[Any], features: NDArray[np.intp], region: Region
    ) -> Array:
        """The sum of what came to the output of a layer as planes (K, C, H, W)."""
        channels = self.facts.shape(index)[0]
        total: Array | None = None
        for one in came:
            if isinstance(one, _Maps):
                planes = self._spread(index, one.maps, features, region)
            elif isinstance(one, np.ndarray):
                planes = one
            else:
                tensor = self._as_tensor(one, region, channels)
                planes = np.empty((len(features), channels, *region.size), np.float32)
                assert self.lanes is not None
                self.lanes.to_planes(tensor.v, planes, self.num_threads)
                self._release(tensor)
            total = planes if total is None else total + planes
        assert total is not None
        return total

    def _as_tensor(self, one: _Job | _Part, region: Region, channels: int) -> _Tensor:
        if isinstance(one, _Job):
            return self._tensor(one)
        job = Combine([one.term(region)], region.size, channels, Post())
        tensor = _Tensor(self.backend.combine(job, self.num_threads))
        self._release(one.tensor)
        return tensor

    def _by_itself(
        self, index: int, came: list[Any], features: NDArray[np.intp]
    ) -> Iterator[tuple[int, Array]]:
        """What a layer sends where, as planes."""
        R = self._planes(index, came, features, Region.of(self.facts.size(index)))
        layer, sources = self.net.layers[index], self.net.sources[index]
        if isinstance(layer, nn.Joining):
            inputs = [self.trace.activation(source) for source in sources]
            return zip(sources, backward_join(layer, inputs, R))
        return iter([(sources[0], self._layer(index, R))])

    def _layer(self, index: int, R: Array, channels: Any = slice(None)) -> Array:  # noqa: N803
        return backward_layer(self.trace, index, R, self.rule, self.arithmetic, channels)


def _scatters(stage: Stage) -> bool:
    """Whether the convolution at the end of a segment is a `Last` job."""
    assert stage.conv is not None and stage.segment is not None
    # Planes come to the convolution itself.
    return stage.conv.groups == 1 and stage.top != stage.segment.end


def _with(job: _Job, post: Post, more: _Part | None, cells: Region) -> _Job:
    """A job with what follows its sums, of which these cells are computed."""
    if more is None:
        return _Job(job.job._replace(post=post), job.uses)
    view = more.term(cells).view
    return _Job(job.job._replace(post=post._replace(more=view)), [*job.uses, more.tensor])


def _index(numbers: list[int] | NDArray[np.intp]) -> Any:
    """What takes these of an array, without a copy where they follow each other."""
    each = numbers if isinstance(numbers, list) else numbers.tolist()
    if each and each == list(range(each[0], each[0] + len(each))):
        return slice(each[0], each[-1] + 1)
    return numbers
