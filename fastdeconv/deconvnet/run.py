"""The way back on a back end: from the maps of some features down to the input.

Many features are projected together. Down to the first convolution every feature is a single map,
and goes layer by layer. From there on, a back end with lane kernels (`fastdeconv.kernels.lanes`)
follows a route, one job for each convolution. What no lane kernel can do is computed layer by
layer, on planes (K, C, H, W).
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_index
from ..kernels.dispatch import bf16_of, get_isa
from ..kernels.lanes import (
    NO_POOL,
    Combine,
    Convolution,
    First,
    Given,
    LaneBackend,
    Last,
    Overlap,
    Post,
    Read,
    Reduce,
    Single,
    Source,
    Step,
    Term,
    View,
    cached,
)
from ..kernels.recording import cpus
from ..network import layers as nn
from .cost import Fuses
from .facts import Facts
from .folding import folded
from .joins import backward_join
from .layerwise import Arithmetic, backward_layer
from .region import Region
from .route import Route, abilities_of
from .starts import Start, Starts
from .trace import Trace
from .ways import Leg, Way, Ways

__all__ = ["Run"]

Array = NDArray[Any]

_Plans = list[tuple[Any, list[Any]]]
"""Plans of passes that run together, and the indices of the features of each of these passes."""

_UNKNOWN = object()
"""Stands for a plan that nobody has asked for yet; None is one that it is better not to have."""

_MOST_PLANS = 64
"""The most plans kept with a network for a shape of its input: for each layer, rule and number of
features, all of them and those of one pass. Of a layer's features some are silent, so that these
numbers differ from clip to clip."""


@dataclass
class _Tensor:
    """A lane tensor that several jobs may use; its memory is given back after the last one."""

    v: Any
    uses: int = 1


@dataclass
class _Part:
    """The part of a lane tensor that comes back to the output of a layer."""

    tensor: _Tensor
    region: Region
    """The part of that output's map that it covers."""
    channel: int = 0
    repeated: bool = False
    is_whole: bool = True
    """Whether it has all channels of the tensor."""
    factor: Array | None = None

    def is_all_of(self, region: Region) -> bool:
        """Whether the tensor has these places and channels, each once, and no others."""
        return not self.repeated and self.is_whole and self.region == region

    def term(self, region: Region) -> Term:
        """The part of it that lies in a smaller region."""
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
    """One map for each feature."""

    maps: Array


_COPIES = 4
"""To project a map down the lowest convolution takes as long as to copy so many maps."""


def _fuses_first(backend: Any, bf16: bool) -> Fuses:
    """What says whether a convolution takes what the first one of a way makes row by row."""

    def fuses(first: Convolution, source: Source, conv: Convolution) -> bool:
        job = First(np.empty((0, 0, 0), np.float32), np.empty(0, np.intp), first, Post(), bf16)
        takes: bool = backend.fuses(job, source, conv)
        return takes

    return fuses


class Run:
    """Projects features down a network, for one trace, rule and back end."""

    def __init__(
        self, trace: Trace, rule: str, backend: Any, num_threads: int, bf16: bool
    ) -> None:
        self.trace, self.rule, self.num_threads, self.bf16 = trace, rule, num_threads, bf16
        self.net, self.backend = trace.network, backend
        self.arithmetic = Arithmetic(backend, num_threads)
        self.facts = Facts(trace, self.arithmetic.dtype)
        self.lanes: LaneBackend | None = backend if hasattr(backend, "project_last") else None
        abilities = None if self.lanes is None else abilities_of(backend)
        self._joins = abilities is not None and abilities.joins
        self.starts = Starts(self.facts, rule, self.arithmetic, lanes=abilities is not None)
        fuses = _fuses_first(backend, bf16) if self._joins else None
        # Read once: a look at the environment takes longer than most of what a call does in Python.
        self._isa = get_isa() if hasattr(backend, "plan") else None
        self.ways = Ways(self.facts, rule, abilities, bf16, fuses, self._isa)
        self._left: list[Any] = []
        """The jobs of passes that are still to be run, all together."""

    def project(
        self, index: int, features: NDArray[np.intp], values: Array, out: Array, sparse: bool,
        *, own: bool = False,
    ) -> None:
        """Project `values` of layer `index` into `out` (K, C, H, W).

        They are (K, H, W), one map for each feature, or (K, C, h, w), in all channels of the layer.
        `sparse`: many of them may be zero, so it can pay to project only the rectangle around the
        others. `own`: they are the features' activations, or have zero maps and negative values
        only for features whose activations have them.
        """
        if self.lanes is not None:
            trace, index = folded(self.trace, index, self.rule)
            if trace is not self.trace:
                run = Run(trace, self.rule, self.backend, self.num_threads, self.bf16)
                run.project(index, features, values, out, sparse, own=own)
                return
        sounding: Array | None
        may_be_negative = True
        if own:
            sounding, may_be_negative = self.facts.sounding(index, features)
        else:
            # This takes half the time of `values.any(axis=...)`.
            sounding = (values != 0).reshape(len(values), math.prod(values.shape[1:])).any(axis=1)
        rows = np.arange(len(values)) if sounding is None else np.flatnonzero(sounding)
        silent = len(values) - len(rows)
        if values.ndim == 3 and 0 < silent < len(rows) / _COPIES and self._is_lowest(index):
            rows, silent = np.arange(len(values)), 0  # which saves a copy of all others
        if silent:
            assert sounding is not None
            out[~sounding] = 0
        if not len(rows):
            return
        if silent:
            features, values = features[rows], values[rows]
        maps = values.astype(self.arithmetic.dtype, copy=False)
        if maps.ndim == 4:
            starts = [Start(index, maps, is_first=False, as_planes=True)]
        else:
            starts = self.starts.of(index, maps, features, may_be_negative)
        if self._is_single(starts):
            self._project_single(starts[0], features, rows, out)
            return
        route = self.ways.route(starts)
        if route is None:
            starts = [self.starts.unpooled(start, features) for start in starts]
            size, way = self.ways.features_at_once(index), self.ways.of_planes(starts)
            for at in range(0, len(rows), size):
                few = slice(at, at + size)
                part = [start._replace(maps=start.maps[few]) for start in starts]
                self._run(way, part, features[few], rows[few], out)
                self._finish()
            self._end()
            return
        run = self
        if self.bf16 and bf16_of(self.backend) == "tiles":
            # A tile adds up entries by their place in a pixel's list. At the rim of a rectangle
            # the list is shorter, and the sum is rounded differently.
            sparse = False
        if self.bf16 and len(route.segments) == 1:
            # Only steps multiply in bfloat16, and hardly ever one lies between the first job and
            # the last: float32 is sooner where few features need not be in lanes.
            run = Run(self.trace, self.rule, self.backend, self.num_threads, bf16=False)
        # Back ends that run every pass at once gain nothing by smaller ones.
        threads = min(self.num_threads, cpus()) if hasattr(run.backend, "finish") else 1
        plans: _Plans = []
        if len(starts) == 1 and not sparse:
            plans = run._plans(route, starts[0], features, rows, out, threads)
        if plans:
            run._run_planned(plans, route, starts[0], features, rows, out)
            return
        starts = [self.starts.unpooled(start, features) for start in starts]
        for passes in run.ways.passes(route, starts, sparse, threads):
            for way, some in passes:
                run._run_piece(way, some, starts, features, rows, out)
            run._finish()
        self._end()

    def _finish(self) -> None:
        """Run the jobs that passes have left."""
        left, self._left = self._left, []
        if left:
            self.backend.finish(left)

    def _end(self) -> None:
        """Tell the back end that no job follows."""
        if self.lanes is not None:
            self.lanes.end()

    def _is_lowest(self, index: int) -> bool:
        """Whether a layer's maps meet the network's lowest convolution, one by one."""
        while index >= 0 and not self.starts.mixes(index):
            index = self.facts.below(index)
        return index >= 0 and self.net.sources[index] == (-1,)

    def _is_single(self, starts: list[Start]) -> bool:
        """Whether there is only one convolution left, and `project_single` can do it."""
        index = starts[0].layer
        layer: Any = self.net.layers[index]
        return (
            len(starts) == 1
            and starts[0].is_first
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

    # ---- passes that are planned ----

    def _plans(
        self, route: Route, start: Start, features: NDArray[np.intp], rows: NDArray[np.intp],
        out: Array, threads: int,
    ) -> _Plans:
        """Plans for as many features down a chain, kept with the network; [] if there are none."""
        if not (route.is_chain and route.segments and hasattr(self.backend, "plan")):
            return []
        kept = self.facts.of_shape("plans")
        key = (
            start.layer, start.pool, self.rule, self.bf16, self.num_threads, threads, self._isa,
        )
        in_all = (*key, "in all", len(rows))
        plans: _Plans | None = kept.get(in_all)  # another thread may clear them at any time
        if plans is not None:
            return plans
        made: dict[int, Any] = {}
        """By number of features."""
        together = [*self.ways.passes(route, [start], False, threads)]
        for way, some in itertools.chain.from_iterable(together):
            count = len(some)
            if count not in made:
                made[count] = kept.get((*key, count), _UNKNOWN)
            if made[count] is _UNKNOWN:
                made[count] = None
                if self._is_whole(way, start):
                    made[count] = self._plan(way, start, features, rows, out, as_index(some))
                    _keep(kept, (*key, count), made[count])
            if made[count] is None:
                break
        plans = []
        if None not in made.values():
            for passes in together:
                joined = self.backend.together(
                    [made[len(some)] for _, some in passes], self.num_threads
                )
                plans.append((joined, [as_index(some) for _, some in passes]))
        if any(joined is None for joined, _ in plans):
            plans = []
        _keep(kept, in_all, plans)
        return plans

    def _is_whole(self, way: Way, start: Start) -> bool:
        """Whether a way goes through whole maps, to a `Last` job."""
        _, output = way.firsts[start.layer]
        whole = Region.of(self.facts.size(start.layer)), Region.of(self.facts.size(-1))
        return (output, way.inputs) == whole and _scatters(way.legs[-1])

    def _lists(self, way: Way) -> list[Any]:
        """What jobs read of a trace on its way down a chain."""
        lists: list[Any] = self.backend.lists(_read(way), self.num_threads)
        return lists

    def _plan(
        self, way: Way, start: Start, features: NDArray[np.intp], rows: NDArray[np.intp],
        out: Array, at: Any,
    ) -> Any:
        """The plan of a pass of these features, or None if it is better not to have one."""
        conv, _ = way.firsts[start.layer]
        given = self._given(start, features, rows, out, at, self._lists(way))

        def follow(values: Any, rows: Any, out: Any, read: Sequence[Read]) -> Any:
            legs = [_with_read(leg, one) for leg, one in zip(way.legs, read)]
            starts = [Start(start.layer, values, True)]
            self._run(way._replace(legs=legs), starts, given.features, rows, out)
            return self._left.pop()

        unpool = None
        if start.pool is not None:
            unpool = self.facts.window(start.pool), self.facts.size(start.layer)
        return self.backend.plan(
            given, conv, _read(way), self.bf16, unpool, follow, self.num_threads
        )

    def _given(
        self, start: Start, features: NDArray[np.intp], rows: NDArray[np.intp], out: Array, at: Any,
        lists: list[Any],
    ) -> Given:
        """What a planned pass is told about these features."""
        some = features[at]
        switches = None
        if start.pool is not None:
            switches = self.trace.switch_planes(start.pool)[as_index(some)]
        return Given(start.maps[at], switches, some, rows[at], out, lists)

    def _run_planned(
        self, plans: _Plans, route: Route, start: Start, features: NDArray[np.intp],
        rows: NDArray[np.intp], out: Array,
    ) -> None:
        lists = cached(
            self.trace.derived("lists"), (start.layer, self.rule),
            lambda: self._lists(self.ways.whole_way(route, start)),
        )
        for plan, places in plans:
            given = [self._given(start, features, rows, out, at, lists) for at in places]
            self.backend.run_plans(plan, given)

    # ---- going ----

    def _run_piece(
        self, way: Way, some: list[int], starts: Sequence[Start], features: NDArray[np.intp],
        rows: NDArray[np.intp], out: Array,
    ) -> None:
        """Project some features along a way; map k goes to out[rows[k]]."""
        to = rows[some]
        if way.alone:
            out[to] = 0
        part = []
        for start in starts:
            # Cut first: choosing may copy, and a long clip has many pieces.
            maps = start.maps
            if start.layer in way.firsts:
                maps = maps[(slice(None), *way.firsts[start.layer][1].slices)]
            part.append(start._replace(maps=maps[as_index(some)]))
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
                has_channels = start.maps.ndim == 4
                sent[start.layer].append(start.maps if has_channels else _Maps(start.maps))
        lasts = [leg for leg in way.legs if -1 in leg.sources]
        for leg in way.legs:
            came = sent.pop(leg.top)
            if leg.segment is None:
                for source, planes in self._by_itself(leg.top, came, features):
                    sent[source].append(planes)
            elif leg.conv is None:
                for source, part in self._join(leg, came, features):
                    sent[source].append(part)
            elif lasts == [leg] and not sent and _scatters(leg):
                self._last(leg, came, features, out, rows)
                return
            else:
                sent[leg.sources[0]].append(self._step(leg, came, features))
        out[as_index(rows)] = self._planes(-1, sent[-1], features, way.inputs)

    # ---- lanes ----

    def _settled(
        self, leg: Leg, came: list[Any], features: NDArray[np.intp]
    ) -> tuple[_Job | _Tensor, Convolution | None]:
        """The sum of what came to the top of a segment, with its `Post`, and the convolution that
        takes it.
        """
        assert self.lanes is not None
        joins = self._joins or len(came) == 1
        if not joins or any(isinstance(one, np.ndarray) for one in came):
            planes = self._planes(leg.top, came, features, leg.cells)
            came = [_Part(_Tensor(self.lanes.from_planes(planes, self.bf16)), leg.cells)]
        jobs = [one for one in came if isinstance(one, _Job)]
        parts = [one for one in came if isinstance(one, _Part)]
        maps = [one.maps for one in came if isinstance(one, _Maps)]
        if maps:
            tensor = self._own(leg, self._tensor(self._summed(leg, jobs, parts, Post())))
            for one in maps:
                cut = one[(slice(None), *leg.cells.slices)]
                self.backend.add_maps(tensor.v, cut, features)
            jobs, parts = [], [_Part(tensor, leg.cells)]
        if leg.scaled is not None and not jobs and self._are_all(leg, parts):
            return parts[0].tensor, leg.scaled
        return self._summed(leg, jobs, parts, leg.post), leg.conv

    def _summed(
        self, leg: Leg, jobs: list[_Job], parts: list[_Part], post: Post
    ) -> _Job | _Tensor:
        if not jobs:
            if post.is_empty and self._are_all(leg, parts):
                return parts[0].tensor
            return self._combined(leg, parts, post)
        more = parts[0] if parts else None
        if len(parts) > 1 or (more is not None and more.factor is not None):
            more = _Part(self._combined(leg, parts, Post()), leg.cells)
        for job in jobs[:-1]:
            more = _Part(self._tensor(_with(job, Post(), more, leg.cells)), leg.cells)
        return _with(jobs[-1], post, more, leg.cells)

    def _are_all(self, leg: Leg, parts: list[_Part]) -> bool:
        """Whether the sum of these parts is a tensor that exists already."""
        (part,) = parts if len(parts) == 1 else [None]
        return part is not None and part.factor is None and part.is_all_of(leg.cells)

    def _combined(self, leg: Leg, parts: list[_Part], post: Post) -> _Tensor:
        terms = [part.term(leg.cells) for part in parts]
        own = (
            i for i, part in enumerate(parts)
            if part.tensor.uses == 1 and part.is_all_of(leg.cells)
        )
        into = next(own, None)
        job = Combine(terms, leg.cells.size, self.facts.shape(leg.top)[0], post, into)
        v = self.backend.combine(job, self.num_threads)
        for i, part in enumerate(parts):
            if i != into:
                self._release(part.tensor)
        return _Tensor(v)

    def _own(self, leg: Leg, tensor: _Tensor) -> _Tensor:
        """The tensor, or a copy of it if others read it too: the result may be written to."""
        if tensor.uses == 1:
            return tensor
        return self._combined(leg, [_Part(tensor, leg.cells)], Post())

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

    def _unpooled_sums(self, leg: Leg, settled: _Job | _Tensor) -> _Job | _Tensor:
        """What a convolution takes: where windows overlap, after their values are summed."""
        if leg.below is None:
            return settled
        assert leg.source is not None
        tensor = self._own(leg, self._tensor(settled))
        job = Overlap(tensor.v, leg.arriving.begin, leg.source, leg.below)
        return _Tensor(self.backend.add_overlaps(job, self.num_threads))

    def _step(
        self, leg: Leg, came: list[Any], features: NDArray[np.intp]
    ) -> _Job:
        """The job of the convolution at the end of a segment; not run yet."""
        settled, conv = self._settled(leg, came, features)
        settled = self._unpooled_sums(leg, settled)
        assert conv is not None and leg.source is not None
        if isinstance(settled, _Job) and self._joins and self.backend.fuses(
            settled.job, leg.source, conv
        ):
            return _Job(Step(settled.job, leg.source, conv, Post(), self.bf16), settled.uses)
        tensor = self._tensor(settled)
        return _Job(Step(tensor.v, leg.source, conv, Post(), self.bf16), [tensor])

    def _last(
        self, leg: Leg, came: list[Any], features: NDArray[np.intp], out: Array,
        rows: NDArray[np.intp],
    ) -> None:
        """Run the convolution at the network's input, into out[rows]."""
        assert self.lanes is not None and leg.source is not None
        settled, conv = self._settled(leg, came, features)
        settled = self._unpooled_sums(leg, settled)
        assert conv is not None and leg.segment is not None
        pool = leg.segment.pool
        height, _ = self.facts.size(leg.segment.end if pool is None else pool)
        if isinstance(settled, _Job):
            above, uses = settled.job, settled.uses
        else:
            above, uses = settled.v, [settled]
        left = self.lanes.project_last(
            Last(above, leg.source, conv, height), out, rows, self.num_threads
        )
        if left is not None:
            self._left.append(left)
        for tensor in uses:
            self._release(tensor)

    def _join(
        self, leg: Leg, came: list[Any], features: NDArray[np.intp]
    ) -> Iterator[tuple[int, _Part]]:
        """What a layer with several inputs, a mean or a fork sends, and to which layer."""
        assert leg.segment is not None
        settled, _ = self._settled(leg, came, features)
        end, sources, facts = leg.segment.end, leg.sources, self.facts
        layer, cells = self.net.layers[end], leg.cells
        if isinstance(settled, _Job) and isinstance(layer, nn.Multiply):
            settled = self._counting(settled, sources, cells)
        tensor = self._tensor(settled)
        if leg.sources == (end,) or isinstance(layer, nn.Add):
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
        """A job that also sums what a product sends to an input of one pixel."""
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
        """The sum of what came to the output of a layer, as planes (K, C, H, W)."""
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

    def _spread(
        self, index: int, maps: Array, features: NDArray[np.intp], region: Region
    ) -> Array:
        """A part of single maps as planes (K, C, H, W) at the output of a layer."""
        shape = len(features), self.facts.shape(index)[0], *region.size
        planes = np.zeros(shape, maps.dtype)
        planes[np.arange(len(features)), features] = maps[(slice(None), *region.slices)]
        return planes

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
        """What a layer sends, as planes, and to which layer."""
        R = self._planes(index, came, features, Region.of(self.facts.size(index)))
        layer, sources = self.net.layers[index], self.net.sources[index]
        if isinstance(layer, nn.Joining):
            inputs = [self.trace.activation(source) for source in sources]
            return zip(sources, backward_join(layer, inputs, R))
        return iter([(sources[0], self._layer(index, R))])

    def _layer(self, index: int, R: Array, channels: Any = slice(None)) -> Array:  # noqa: N803
        return backward_layer(self.trace, index, R, self.rule, self.arithmetic, channels)


def _read(way: Way) -> list[Read]:
    """What the jobs of a chain read of the trace."""
    read = []
    for leg in way.legs:
        assert leg.source is not None
        read.append((leg.source, (leg.below or leg.post).factor))
    return read


def _with_read(leg: Leg, read: Read) -> Leg:
    """A leg of a chain that reads something else, see `_read`."""
    source, factor = read
    leg = leg._replace(source=source)
    if leg.below is not None:
        return leg._replace(below=leg.below._replace(factor=factor))
    return leg._replace(post=leg.post._replace(factor=factor))


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    if len(kept) >= _MOST_PLANS:
        kept.clear()
    kept[key] = value


def _scatters(leg: Leg) -> bool:
    """Whether the convolution at the end of a segment is a `Last` job."""
    assert leg.conv is not None and leg.segment is not None
    # Planes come to the convolution itself.
    return leg.conv.groups == 1 and leg.top != leg.segment.end


def _with(job: _Job, post: Post, more: _Part | None, cells: Region) -> _Job:
    """A job with a `Post` for its sums; `cells`: the part of the map that it computes."""
    if more is None:
        return _Job(job.job._replace(post=post), job.uses)
    view = more.term(cells).view
    return _Job(job.job._replace(post=post._replace(more=view)), [*job.uses, more.tensor])
