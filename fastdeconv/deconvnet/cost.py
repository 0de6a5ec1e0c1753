"""Which parts of the maps are computed together, for which features, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from ..kernels.interface import Pair
from ..kernels.lanes import last_bands
from ..network import layers as nn
from .facts import Facts
from .region import Part, Region, covering_cells, reached_by
from .route import Route, Segment, is_spread

__all__ = [
    "at_once", "boxes", "few_apart", "is_convolution", "part_whole", "parts_above",
    "parts_below", "pays", "pieces_of", "route_in_lanes", "side_by_side", "sources_of",
    "together", "whole_parts", "whole_start",
]

Array = NDArray[Any]

LANES = 64
"""Most features in one pass."""
FEW_LANES = 16
"""Lanes come in this many."""
LANE_BYTES = 1 << 26
"""Two consecutive lane tensors stay below this; longer clips are projected in pieces."""
BRANCHED_BYTES = 1 << 28
"""The same for all that exist at a time where the network has branches."""
LEAST_COLUMNS = 128
"""Input columns of such a piece: pieces overlap by what a few of them reach."""
PIECE_WORK = 2e7
"""What it costs to look after a piece, as multiply-adds: some 0.2 ms."""
PASS_WORK = 4e7
"""The same for a pass among several that run together: some 0.4 ms of Python."""


def sources_of(facts: Facts, segment: Segment) -> tuple[int, ...]:
    """Where what comes out of a segment, and through the layer at its end, is sent."""
    if segment.end != segment.top and facts.takers[segment.end] > 1:
        return (segment.end,)
    return facts.net.sources[segment.end]


def is_convolution(facts: Facts, segment: Segment) -> bool:
    """Whether a segment ends at a convolution that takes what comes out of it."""
    to_itself = sources_of(facts, segment) == (segment.end,)
    return isinstance(facts.net.layers[segment.end], nn.Conv2d) and not to_itself


def _needs_everything(facts: Facts, segment: Segment) -> bool:
    """Whether a part of what is sent depends on all of the tensor above."""
    layer = facts.net.layers[segment.end]
    if sources_of(facts, segment) == (segment.end,):
        return False
    if isinstance(layer, nn.Multiply):
        return any(facts.size(k) != facts.size(segment.end) for k in facts.net.sources[segment.end])
    return is_spread(layer)


# ---- parts ----


def part_whole(facts: Facts, segment: Segment) -> Part:
    """All of the maps of a segment."""
    return _part(facts, segment, Region.of(facts.size(segment.top)))


def _part(facts: Facts, segment: Segment, cells: Region) -> Part:
    if is_convolution(facts, segment):
        return facts.whole(segment.end, cells)
    return Part(cells, cells, cells)


def whole_parts(facts: Facts, route: Route) -> list[Part]:
    """All of the maps of a chain: of its first convolution and of its segments."""
    segments = [part_whole(facts, segment) for segment in route.segments.values()]
    return [facts.whole(route.firsts[0]), *segments]


def parts_above(facts: Facts, route: Route, inputs: Region) -> dict[int, Part]:
    """What these input places need of the tensor at the top of every segment."""
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
            parts[top] = Part(output, below, cells)
        elif _needs_everything(facts, segment):
            parts[top] = part_whole(facts, segment)
        else:
            cells = needed[sources[0]]
            for source in sources[1:]:
                cells = cells.around(needed[source])
            parts[top] = Part(cells, cells, cells)
        needed[top] = parts[top].cells
    return parts


def whole_start(facts: Facts, conv: int, parts: dict[int, Part], inputs: Region) -> Part:
    """The part of a first convolution, of which these parts come below."""
    below = facts.below(conv)
    needed = inputs if below < 0 else parts[below].cells
    output = _covering(facts, conv, needed)
    return Part(output, needed, output)


def parts_below(facts: Facts, route: Route, start: Region) -> tuple[Part, dict[int, Part]]:
    """What is reached from `start` at the output of a chain's first convolution."""
    (conv,) = route.firsts
    first = Part(start, _reached(facts, conv, start), start)
    parts: dict[int, Part] = {}
    above = first.input
    for top, segment in route.segments.items():
        cells = output = above
        if segment.pool is not None:
            if segment.below is not None:
                # Sums are kept at the first window that points to a place, even if that sends
                # nothing.
                cells = _covering(facts, segment.pool, _unpooled(facts, segment, above))
            output = _unpooled(facts, segment, cells)
        above = _reached(facts, segment.end, output)
        parts[top] = Part(output, above, cells)
    return first, parts


def _covering(facts: Facts, index: int, inputs: Region) -> Region:
    return covering_cells(facts.window(index), inputs, facts.size(index))


def _reached(facts: Facts, index: int, output: Region) -> Region:
    return reached_by(facts.window(index), output, facts.size(facts.below(index)))


def _unpooled(facts: Facts, segment: Segment, cells: Region) -> Region:
    """What cells of the tensor above a segment become at its lower end."""
    return cells if segment.pool is None else _reached(facts, segment.pool, cells)


# ---- features and columns that go together ----


def boxes(maps: Array) -> dict[Region, list[int]]:
    """Which of the maps (K, H, W), none of them silent, are zero outside the same rectangle."""
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
    """So many features that are left over are faster by themselves."""
    if bf16 or not route.is_chain:
        return 0
    # Behind a rectifier native kernels leave out zeros, padding among them.
    return FEW_LANES // (2 if rule == "gradient" else 4)


def together(features: list[int], few: int, most: int) -> Iterator[list[int]]:
    """As many features as share a pass."""
    for at in range(0, len(features), most):
        some = features[at : at + most]
        left_over = len(some) % FEW_LANES
        if len(some) > left_over and 0 < left_over <= few:
            # Padded to whole vectors they would cost more than by themselves.
            yield some[:-left_over]
            some = some[-left_over:]
        yield some


def pieces_of(size: Pair, columns: int) -> list[Region]:
    """Inputs of this size, so many columns at a time."""
    height, width = size
    return [
        Region((0, height), (column, min(width, column + columns)))
        for column in range(0, width, columns)
    ]


def route_in_lanes(
    facts: Facts, firsts: tuple[int, ...], segments: dict[int, Segment]
) -> Route:
    """The way from some convolutions down to the input."""
    below = [facts.below(conv) for conv in firsts]
    for segment in segments.values():
        below += sources_of(facts, segment)
    is_chain = below == [*segments, -1] and all(
        is_convolution(facts, segment) for segment in segments.values()
    )
    route = Route(firsts, segments, is_chain)
    return route._replace(
        lane_bytes=_lane_bytes(facts, route),
        needs_everything=any(_needs_everything(facts, s) for s in segments.values()),
    )


def at_once(facts: Facts, route: Route) -> tuple[int, int]:
    """How many features, and columns of the input, are projected together."""
    _, width = facts.size(-1)
    each = max(1, route.lane_bytes)
    if route.is_chain:
        return LANES, max(LEAST_COLUMNS, LANE_BYTES * width // (LANES * each))
    fits = BRANCHED_BYTES // each
    if fits >= LANES // 2 or route.needs_everything:
        return max(FEW_LANES, min(LANES, fits // FEW_LANES * FEW_LANES)), width
    return LANES // 2, max(LEAST_COLUMNS, fits * width // (LANES // 2))


def side_by_side(
    facts: Facts, route: Route, count: int, most: int, threads: int
) -> tuple[int, int]:
    """How many features are projected together where there are many threads, and how many such
    passes run at a time.

    The last step has a fixed number of bands, one thread each. Where there are more threads than
    that, fewer features at a time make more passes, as far as it pays: every pass has to be looked
    after, and a feature takes about a tenth longer among 16 than among 64.
    """
    if not route.is_chain or not route.segments:
        return most, 1
    height, _ = facts.size(list(route.segments)[-1])
    bands = last_bands(height)
    if threads <= bands:
        return most, 1
    # Of p passes a thread does work / p, and all of them wait until p have been looked after.
    work = count * _work(facts, route, whole_parts(facts, route)) / bands
    passes = min(-(-threads // bands), max(1, round(math.sqrt(work / PASS_WORK))))
    each = -(-count // (passes * FEW_LANES)) * FEW_LANES
    return min(most, max(FEW_LANES, each)), passes


def _lane_bytes(facts: Facts, route: Route) -> int:
    """Bytes a lane of all tensors that exist at a time."""
    tops = list(route.segments)
    place = {top: i for i, top in enumerate([*tops, -1])}
    alive = [0] * (len(tops) + 1)
    last = _fused_last(facts, route)
    passed_on = _passed_on(facts, route)
    for i, top in enumerate(tops):
        if top == last or top in passed_on:
            continue  # it stays in cache, or is another one's
        until = max(place[source] for source in sources_of(facts, route.segments[top]))
        for at in range(i, until + 1):
            if at < len(tops):
                alive[at] += math.prod(facts.shape(top))
    if last is None:
        alive[-1] += math.prod(facts.shape(-1))
    return 4 * max(alive)


def _passed_on(facts: Facts, route: Route) -> set[int]:
    """Where nothing is summed: what comes is a sum that others get, too, but for scales."""
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


def _fused_last(facts: Facts, route: Route) -> int | None:
    """Where the last segment begins, if its tensor is scattered to the input as it is summed."""
    top, segment = list(route.segments.items())[-1] if route.segments else (None, None)
    if segment is None or not route.is_chain or segment.below is not None:
        return None
    layer: Any = facts.net.layers[segment.end]
    return top if layer.groups == 1 else None


def pays(
    facts: Facts, route: Route, parts: Sequence[Part], whole: Sequence[Part], count: int
) -> bool:
    """Whether `count` features are cheaper on these parts than among others on the whole."""
    alone, all_of_it = _work(facts, route, parts), _work(facts, route, whole)
    # Measured on 64 channels: one feature alone does the work of 4 in full lanes, 8 of 12.
    few = count <= FEW_LANES // 2
    in_lanes = 3 + 1.1 * count if few else -(-count // FEW_LANES) * FEW_LANES
    return alone * in_lanes + PIECE_WORK < all_of_it * count


def _work(facts: Facts, route: Route, parts: Sequence[Part]) -> float:
    """Multiply-adds of one feature through a chain: its first convolution and its segments."""
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
