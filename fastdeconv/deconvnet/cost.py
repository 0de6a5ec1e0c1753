"""Which features, and which parts of the maps, are computed together, by what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from ..kernels.interface import Pair
from ..kernels.lanes import Convolution, Source, last_bands
from ..network import layers as nn
from .facts import Facts
from .region import Part, Region, covering_cells, reached_by
from .route import Route, Segment, is_spread

__all__ = [
    "Fuses", "at_once", "boxes", "few_apart", "is_convolution", "part_whole", "parts_above",
    "parts_below", "pays", "pieces_of", "route_in_lanes", "side_by_side", "sources_of",
    "together", "whole_parts", "whole_start",
]

Array = NDArray[Any]

Fuses = Callable[[Convolution, Source, Convolution], bool]
"""``fuses(first, source, conv)``: whether `conv` takes the tensor that the first convolution of a
way makes row by row, so that it never exists as a whole."""

LANES = 64
"""The largest number of features in one pass."""
FEW_LANES = 16
"""The number of lanes of a tensor is a multiple of this."""
LANE_BYTES = 1 << 26
"""Bytes of two consecutive lane tensors; where they would be larger, clips go in pieces."""
BRANCHED_BYTES = 1 << 28
"""Bytes of all lane tensors that exist at the same time, in networks with branches."""
ROWS_MADE = 32
"""A tensor that is made row by row counts as so many rows of it. Few are kept at a time, but those
of all threads should stay in the L3: 860 columns of 64 channels and features at once are slower
than pieces of 128."""
LEAST_COLUMNS = 128
"""The least number of input columns of a piece: neighbouring pieces overlap, which costs."""
PIECE_WORK = 2e7
"""The overhead of a piece, in multiply-adds: about 0.2 ms."""
PASS_WORK = 1e7
"""The overhead of a pass among several side by side, in multiply-adds: about 0.1 ms of Python."""
PASS_FEATURES = 2
"""The same of each of its bands, in features: a feature takes a tenth longer among 16 than among
64."""


def sources_of(facts: Facts, segment: Segment) -> tuple[int, ...]:
    """The layers to which the layer at the end of a segment sends its values."""
    if segment.end != segment.top and facts.takers[segment.end] > 1:
        return (segment.end,)
    return facts.net.sources[segment.end]


def is_convolution(facts: Facts, segment: Segment) -> bool:
    """Whether the layer at the end of a segment is a convolution."""
    to_itself = sources_of(facts, segment) == (segment.end,)
    return isinstance(facts.net.layers[segment.end], nn.Conv2d) and not to_itself


def _needs_everything(facts: Facts, segment: Segment) -> bool:
    """Whether every part of what a segment sends depends on the whole tensor above it."""
    layer = facts.net.layers[segment.end]
    if sources_of(facts, segment) == (segment.end,):
        return False
    if isinstance(layer, nn.Multiply):
        return any(facts.size(k) != facts.size(segment.end) for k in facts.net.sources[segment.end])
    return is_spread(layer)


# ---- parts ----


def part_whole(facts: Facts, segment: Segment) -> Part:
    """The part that is all of the maps of a segment."""
    return _part(facts, segment, Region.of(facts.size(segment.top)))


def _part(facts: Facts, segment: Segment, cells: Region) -> Part:
    if is_convolution(facts, segment):
        return facts.whole(segment.end, cells)
    return Part(cells, cells, cells, cells)


def whole_parts(facts: Facts, route: Route) -> list[Part]:
    """The parts that are all of the maps: of a chain's first convolution, then of its segments."""
    segments = [part_whole(facts, segment) for segment in route.segments.values()]
    return [facts.whole(route.firsts[0]), *segments]


def parts_above(facts: Facts, route: Route, inputs: Region) -> dict[int, Part]:
    """For every segment, the part of the tensor at its top that these input places depend on."""
    needed = {-1: inputs}
    parts: dict[int, Part] = {}
    for top, segment in reversed(route.segments.items()):
        sources = sources_of(facts, segment)
        if is_convolution(facts, segment):
            below = needed[sources[0]]
            output = cells = _covering(facts, segment.end, below)
            if segment.pool is not None:
                cells = _covering(facts, segment.pool, output)
                output = _unpooled(facts, segment, cells)
            parts[top] = Part(output, below, cells, cells)
        elif _needs_everything(facts, segment):
            parts[top] = part_whole(facts, segment)
        else:
            cells = needed[sources[0]]
            for source in sources[1:]:
                cells = cells.around(needed[source])
            parts[top] = Part(cells, cells, cells, cells)
        needed[top] = parts[top].cells
    return parts


def whole_start(facts: Facts, conv: int, parts: dict[int, Part], inputs: Region) -> Part:
    """The part of a first convolution that is needed for the parts below it."""
    below = facts.below(conv)
    needed = inputs if below < 0 else parts[below].cells
    output = _covering(facts, conv, needed)
    return Part(output, needed, output, output)


def parts_below(facts: Facts, route: Route, start: Region) -> tuple[Part, dict[int, Part]]:
    """The parts of a chain that `start`, at the output of its first convolution, contributes to."""
    (conv,) = route.firsts
    first = Part(start, _reached(facts, conv, start), start, start)
    parts: dict[int, Part] = {}
    below = first.input
    for top, segment in route.segments.items():
        arriving = cells = output = below
        if segment.pool is not None:
            if segment.below is not None:
                # The sum for a place is stored in the first window that points to it, even if
                # that window sends nothing.
                cells = _covering(facts, segment.pool, _unpooled(facts, segment, arriving))
            output = _unpooled(facts, segment, cells)
        below = _reached(facts, segment.end, output)
        parts[top] = Part(output, below, cells, arriving)
    return first, parts


def _covering(facts: Facts, index: int, inputs: Region) -> Region:
    return covering_cells(facts.window(index), inputs, facts.size(index))


def _reached(facts: Facts, index: int, output: Region) -> Region:
    return reached_by(facts.window(index), output, facts.size(facts.below(index)))


def _unpooled(facts: Facts, segment: Segment, cells: Region) -> Region:
    """The places at the lower end of a segment that cells of the tensor above it become."""
    return cells if segment.pool is None else _reached(facts, segment.pool, cells)


# ---- features and columns that go together ----


def boxes(maps: Array) -> dict[Region, list[int]]:
    """The maps (K, H, W), none of them all zero, by the rectangle of their non-zero values."""
    there = maps != 0
    sides = []
    for axis in (2, 1):
        some = there.any(axis=axis)
        sides.append((some.argmax(axis=1), some.shape[1] - some[:, ::-1].argmax(axis=1)))
    found: dict[Region, list[int]] = {}
    for k, (top, bottom, left, right) in enumerate(zip(*sides[0], *sides[1])):
        box = Region((int(top), int(bottom)), (int(left), int(right)))
        found.setdefault(box, []).append(k)
    return found


def few_apart(route: Route, rule: str, bf16: bool) -> int:
    """The largest number of left-over features that are faster in a pass of their own."""
    if bf16 or not route.is_chain:
        return 0
    # Behind a rectifier the native kernels leave out zeros, and so empty lanes.
    return FEW_LANES // (2 if rule == "gradient" else 4)


def together(features: list[int], few: int, most: int) -> Iterator[list[int]]:
    """The features of each pass."""
    for at in range(0, len(features), most):
        some = features[at : at + most]
        left_over = len(some) % FEW_LANES
        if len(some) > left_over and 0 < left_over <= few:
            # Padded to whole vectors they would take longer than in a pass of their own.
            yield some[:-left_over]
            some = some[-left_over:]
        yield some


def pieces_of(size: Pair, columns: int) -> list[Region]:
    """An input of this size in pieces of `columns` columns."""
    height, width = size
    return [
        Region((0, height), (column, min(width, column + columns)))
        for column in range(0, width, columns)
    ]


def route_in_lanes(
    facts: Facts, firsts: tuple[int, ...], segments: dict[int, Segment], fuses: Fuses | None
) -> Route:
    """The route from some convolutions down to the input."""
    below = [facts.below(conv) for conv in firsts]
    for segment in segments.values():
        below += sources_of(facts, segment)
    is_chain = below == [*segments, -1] and all(
        is_convolution(facts, segment) for segment in segments.values()
    )
    route = Route(firsts, segments, is_chain)
    return route._replace(
        lane_bytes=_lane_bytes(facts, route, fuses),
        needs_everything=any(_needs_everything(facts, s) for s in segments.values()),
    )


def at_once(facts: Facts, route: Route) -> tuple[int, int]:
    """How many features, and columns of the input, are projected together."""
    _, width = facts.size(-1)
    each = max(1, route.lane_bytes)
    if route.is_chain:
        columns = max(LEAST_COLUMNS, LANE_BYTES * width // (LANES * each))
        return LANES, min(width, columns)
    fits = BRANCHED_BYTES // each
    if fits >= LANES // 2 or route.needs_everything:
        return max(FEW_LANES, min(LANES, fits // FEW_LANES * FEW_LANES)), width
    return LANES // 2, max(LEAST_COLUMNS, fits * width // (LANES // 2))


def side_by_side(
    facts: Facts, route: Route, count: int, most: int, threads: int
) -> tuple[int, int]:
    """With many threads: how many features a pass has, and how many passes run side by side.

    The last step has a fixed number of bands, and each is one thread's work. Where there are more
    threads than bands, passes get fewer features, so that several can run side by side, if that
    ends sooner: threads that are not enough for the bands of all passes take turns.
    """
    if not route.is_chain or not route.segments:
        return most, 1
    height, _ = facts.size(list(route.segments)[-1])
    bands = last_bands(height)
    if threads <= bands:
        return most, 1
    work = _work(facts, route, whole_parts(facts, route)) / bands

    def at_a_time(each: int) -> int:
        return min(-(-count // each), -(-threads // bands))

    def time(each: int) -> float:
        side_by_side = at_a_time(each)
        passes, turns = -(-count // each), -(-side_by_side * bands // threads)
        rounds = -(-passes // side_by_side) * turns
        return rounds * (each + PASS_FEATURES) * work + passes * PASS_WORK

    largest = max(FEW_LANES, min(most, -(-count // FEW_LANES) * FEW_LANES))
    each = min(range(largest, 0, -FEW_LANES), key=time)
    return each, at_a_time(each)


def _lane_bytes(facts: Facts, route: Route, fuses: Fuses | None) -> int:
    """The largest number of bytes, for one lane, of the tensors that exist at the same time."""
    tops = list(route.segments)
    place = {top: i for i, top in enumerate([*tops, -1])}
    alive = [0] * (len(tops) + 1)
    first, last = _fused_first(facts, route, fuses), _fused_last(facts, route)
    passed_on = _passed_on(facts, route)
    for i, top in enumerate(tops):
        if top == last or top in passed_on:
            continue  # it stays in cache, or is the tensor of another segment
        channels, height, width = facts.shape(top)
        rows = min(height, ROWS_MADE) if top == first else height
        until = max(place[source] for source in sources_of(facts, route.segments[top]))
        for at in range(i, until + 1):
            if at < len(tops):
                alive[at] += channels * rows * width
    if last is None:
        alive[-1] += math.prod(facts.shape(-1))
    return 4 * max(alive)


def _passed_on(facts: Facts, route: Route) -> set[int]:
    """The tops that need no tensor of their own: except for scales, it is one that others share."""
    senders: dict[int, list[Segment]] = {}
    for segment in route.segments.values():
        for source in sources_of(facts, segment):
            senders.setdefault(source, []).append(segment)
    return {
        top
        for top, segment in route.segments.items()
        if is_convolution(facts, segment) and segment.only_scales
        and [isinstance(facts.net.layers[s.end], nn.Add) for s in senders.get(top, [])] == [True]
    }


def _fused_first(facts: Facts, route: Route, fuses: Fuses | None) -> int | None:
    """The top of the first segment, if its tensor goes on row by row; else None."""
    top, segment = next(iter(route.segments.items()), (None, None))
    if fuses is None or segment is None or not route.is_chain:
        return None
    if segment.pool is not None or segment.gates:
        return None
    (conv,), part = route.firsts, part_whole(facts, segment)
    first = facts.convolution(conv, facts.whole(conv))
    below = facts.convolution(segment.end, part)
    return top if fuses(first, facts.source(segment, part), below) else None


def _fused_last(facts: Facts, route: Route) -> int | None:
    """The top of the last segment, if its tensor goes to the input pixel by pixel; else None."""
    top, segment = list(route.segments.items())[-1] if route.segments else (None, None)
    if segment is None or not route.is_chain or segment.below is not None:
        return None
    layer: Any = facts.net.layers[segment.end]
    return top if layer.groups == 1 else None


def pays(
    facts: Facts, route: Route, parts: Sequence[Part], whole: Sequence[Part], count: int
) -> bool:
    """Whether `count` features are faster on these parts than among others on the whole maps."""
    alone, all_of_it = _work(facts, route, parts), _work(facts, route, whole)
    # Measured with 64 channels: one feature alone takes as long as 2 in full lanes, 8 as 11.
    few = count <= FEW_LANES // 2
    in_lanes = 1 + 1.3 * count if few else -(-count // FEW_LANES) * FEW_LANES
    return alone * in_lanes + PIECE_WORK < all_of_it * count


def _work(facts: Facts, route: Route, parts: Sequence[Part]) -> float:
    """Multiply-adds of one feature on its way through a chain: first convolution and segments."""
    work = 0.0
    segments: list[Segment | None] = [None, *route.segments.values()]
    for segment, part in zip(segments, parts):
        conv = route.firsts[0] if segment is None else segment.end
        weight = facts.net.arrays[f"{facts.net.layers[conv].name}.weight"]
        channels = 1 if segment is None else len(weight)
        each = channels * weight[0].size
        if segment is not None and segment.pool is not None and not facts.averages(segment):
            each /= math.prod(facts.window(segment.pool).stride)
        work += math.prod(part.input.size) * each
    return work
