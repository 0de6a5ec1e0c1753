"""Routes on the parts of the maps that are computed, as jobs want them.

They are made once for a network and a shape of its input, without switches, gates and slopes.
These depend on the trace, and are added for each one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..kernels.lanes import Convolution, Post, Source, cached
from . import cost
from .facts import Facts
from .region import Part, Region
from .route import Abilities, Route, Segment, route_of
from .starts import Start

__all__ = ["Leg", "Way", "Ways"]

PLANE_BYTES = 1 << 28
"""Planes of features that are projected layer by layer stay below this."""


class Leg(NamedTuple):
    """A segment on the part of its maps that is computed, as jobs want it."""

    top: int
    segment: Segment | None
    """None: layer `top` by itself, on planes."""
    cells: Region
    """Of the tensor at the top."""
    arriving: Region
    """What of that is not zero (see `Part`)."""
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
    legs: list[Leg]
    inputs: Region
    alone: bool = False
    """Whether maps are zero outside that."""


class _Key(NamedTuple):
    starts: tuple[tuple[int, bool, bool], ...]
    """Each its layer, whether a convolution takes it as one map a feature, and whether it goes in
    lanes."""
    rule: str
    abilities: Abilities | None


class Ways:
    """The ways down for one trace, rule and back end; `abilities` None: there are no lanes."""

    def __init__(
        self, facts: Facts, rule: str, abilities: Abilities | None, bf16: bool,
        fuses: cost.Fuses | None, isa: str | None,
    ) -> None:
        self.facts, self.net, self.rule = facts, facts.net, rule
        self.abilities, self.bf16, self._fuses, self._isa = abilities, bf16, fuses, isa

    def _segments(self, key: _Key) -> dict[int, Segment | None]:
        """The way down from the starts; without lane kernels layer by layer."""
        joins = self.abilities is not None and self.abilities.joins
        tops: dict[int, bool] = {}
        for layer, is_first, in_lanes in key.starts:
            top = self.facts.below(layer) if is_first else layer
            # Without joins lanes take no more than one.
            tops[top] = in_lanes and (joins or top not in tops)
        return route_of(
            self.net, tops, self.rule, self.facts.overlapping, self.abilities,
            self.facts.shapes[1:],
        )

    def _key(self, starts: Sequence[Start]) -> _Key:
        """All that the way from these starts depends on."""
        own = tuple((start.layer, start.is_first, not start.as_planes) for start in starts)
        return _Key(own, self.rule, self.abilities)

    def route(self, starts: Sequence[Start]) -> Route | None:
        """The way down where lanes take all of it."""
        key = self._key(starts)

        def make() -> Route | None:
            segments = self._segments(key)
            if None in segments.values() or not all(in_lanes for _, _, in_lanes in key.starts):
                return None
            whole = {top: s for top, s in segments.items() if s is not None}
            firsts = tuple(layer for layer, is_first, _ in key.starts if is_first)
            if not firsts:
                return None
            return cost.route_in_lanes(self.facts, firsts, whole, self._fuses)

        return cached(self.facts.of_shape("routes"), (key, self.bf16, self._isa), make)

    def _way(self, route: Route, inputs: Region, parts: dict[int, Part]) -> Way:
        firsts = {}
        for conv in route.firsts:
            part = cost.whole_start(self.facts, conv, parts, inputs)
            firsts[conv] = self.facts.convolution(conv, part), part.output
        legs = [
            self._leg(top, segment, parts[top]) for top, segment in route.segments.items()
        ]
        return Way(firsts, legs, inputs)

    def _leg(self, top: int, segment: Segment, part: Part) -> Leg:
        facts = self.facts
        sources = cost.sources_of(facts, segment)
        post, below = facts.post(segment, segment.order), None
        if segment.below is not None:
            below = facts.post(segment, segment.below)
        if not cost.is_convolution(facts, segment):
            return Leg(top, segment, part.cells, part.arriving, post, sources)
        scaled, scales = None, segment.order.scales
        if segment.only_scales and scales:
            scaled = facts.convolution(segment.end, part, scales)
        return Leg(
            top, segment, part.cells, part.arriving, post, sources, facts.source(segment, part),
            facts.convolution(segment.end, part), scaled, below,
        )

    def _with_values(self, way: Way) -> Way:
        """A way with the switches, gates and slopes of the trace."""
        return way._replace(legs=[self._leg_with_values(leg) for leg in way.legs])

    def _leg_with_values(self, leg: Leg) -> Leg:
        facts, segment = self.facts, leg.segment
        if segment is None:
            return leg
        if leg.source is not None:
            leg = leg._replace(source=facts.with_values(leg.source, segment))
        factor = facts.factor(segment, leg.cells, with_gates=leg.conv is None)
        if factor is None:
            return leg
        if leg.below is not None:
            return leg._replace(below=leg.below._replace(factor=factor))
        return leg._replace(post=leg.post._replace(factor=factor))

    def _whole_ways(self, key: _Key, route: Route, columns: int) -> list[Way]:
        """The ways to all of the input, so many columns each."""
        facts = self.facts

        def make() -> list[Way]:
            ways: list[Way] = cached(facts.of_shape("ways"), (key, columns), lambda: [
                self._way(route, inputs, cost.parts_above(facts, route, inputs))
                for inputs in cost.pieces_of(facts.size(-1), columns)
            ])
            return [self._with_values(way) for way in ways]

        return cached(facts.trace.derived("ways"), (key, columns), make)

    def whole_way(self, route: Route, start: Start) -> Way:
        """The way to all of the input at once."""
        (way,) = self._whole_ways(self._key([start]), route, self.facts.size(-1)[1])
        return way

    def of_planes(self, starts: Sequence[Start]) -> Way:
        """The whole way, where not all of it is in lanes."""
        key = self._key(starts)

        def make() -> Way:
            legs = []
            for top, segment in self._segments(key).items():
                cells = Region.of(self.facts.size(top))
                if segment is None:
                    legs.append(Leg(top, None, cells, cells, Post(), self.net.sources[top]))
                else:
                    part = cost.part_whole(self.facts, segment)
                    legs.append(self._leg(top, segment, part))
            firsts = {}
            for layer, is_first, _ in key.starts:
                if is_first:
                    part = self.facts.whole(layer)
                    firsts[layer] = self.facts.convolution(layer, part), part.output
            return Way(firsts, legs, Region.of(self.facts.size(-1)))

        facts = self.facts
        return cached(facts.trace.derived("ways of planes"), key, lambda: self._with_values(
            cached(facts.of_shape("ways of planes"), key, make)
        ))

    def features_at_once(self, index: int) -> int:
        """Features of layer `index` whose projections as planes fit in bounded memory."""
        largest = max(math.prod(shape) for shape in self.facts.shapes[: index + 2])
        at_a_time = 2 if self.net.is_chain else 4
        if self.abilities is None:
            size = self.facts.dtype().itemsize
            return max(1, PLANE_BYTES // (at_a_time * size * largest))
        fits = cost.LANE_BYTES // (at_a_time * 4 * largest)
        return max(cost.FEW_LANES, min(cost.LANES, fits // cost.FEW_LANES * cost.FEW_LANES))

    def passes(
        self, route: Route, starts: Sequence[Start], sparse: bool, threads: int
    ) -> Iterator[list[tuple[Way, list[int]]]]:
        """Which features go together, the ways they go, and which of these passes run at a
        time."""
        most, columns = cost.at_once(self.facts, route)
        count = len(starts[0].maps)
        most, at_a_time = cost.side_by_side(self.facts, route, count, most, threads)
        some: list[tuple[Way, list[int]]] = []
        for one in self._pieces(route, starts, sparse, most, columns):
            some.append(one)
            if len(some) == at_a_time:
                yield some
                some = []
        if some:
            yield some

    def _pieces(
        self, route: Route, starts: Sequence[Start], sparse: bool, most: int, columns: int
    ) -> Iterator[tuple[Way, list[int]]]:
        rest = list(range(len(starts[0].maps)))
        few = cost.few_apart(route, self.rule, self.bf16)
        if sparse and route.is_chain and not _starts_at_sums(route, starts):
            rest, facts = [], self.facts
            whole = cost.whole_parts(facts, route)
            for box, group in cost.boxes(starts[0].maps).items():
                first, below = cost.parts_below(facts, route, box)
                parts = [first, *below.values()]
                # A start that sees nothing but padding reaches no place: no part to compute.
                if all(min(p.input.size) > 0 for p in parts) and cost.pays(
                    facts, route, parts, whole, len(group)
                ):
                    legs = [self._leg(*item, below[item[0]]) for item in route.segments.items()]
                    conv = facts.convolution(route.firsts[0], first)
                    firsts = {route.firsts[0]: (conv, first.output)}
                    way = self._with_values(Way(firsts, legs, parts[-1].input, alone=True))
                    for some in cost.together(group, few, cost.LANES):
                        yield way, some
                else:
                    rest += group
            rest.sort()
        ways = self._whole_ways(self._key(starts), route, columns)
        for some in cost.together(rest, few, most):
            for way in ways:
                yield way, some


def _starts_at_sums(route: Route, starts: Sequence[Start]) -> bool:
    """Whether maps arrive where the windows of a pool overlap. Only whole maps are added there."""
    tops = (route.segments.get(start.layer) for start in starts)
    return any(segment is not None and segment.below is not None for segment in tops)
