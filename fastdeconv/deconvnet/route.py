"""Which layers the way back takes in one step.

Where several layers take the output of a layer, the values that come back to it are added. From
there a `Segment` leads down to the next convolution, or to a layer with several inputs. It consists
of a few operations on whole lane tensors, and of the switches and gates that decide which values
exist at all. Where pooling windows overlap, the values that they send to the same place are added
up first; everything below the pool works on these sums.

Layers that are in no segment are computed one by one (see `fastdeconv.deconvnet.layerwise`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..network import layers as nn
from ..network.layers import Shape
from ..network.network import Network
from .plan import is_affine, rectifies

__all__ = [
    "Abilities", "Order", "Route", "Segment", "abilities_of", "has_slope",
    "is_plain_average", "is_spread", "route_of", "segment_from", "takers_of",
]


class Order(NamedTuple):
    """The layers whose scales multiply, and whether a rectifier comes before or after them."""

    scales: tuple[int, ...]
    relu_before: bool
    relu_after: bool


class Segment(NamedTuple):
    """The way from the output of layer `top` down to the output of layer `end`, as one step."""

    top: int
    end: int
    """A convolution, a layer of several inputs, a mean over all places, or a layer whose output
    several take, so that something else comes back there, too; -1 is the input."""
    order: Order
    gates: tuple[int, ...] = ()
    """Rectifiers that pass a value only where their activation was positive."""
    pool: int | None = None
    below: Order | None = None
    """What comes below a pool whose windows overlap; it applies to their sums."""
    slopes: tuple[int, ...] = ()
    """Activations that multiply by their derivative: a factor for each place and channel."""

    @property
    def only_scales(self) -> bool:
        """Whether it only multiplies each channel by a scale, and leaves some values out."""
        plain = Segment(self.top, self.end, Order(self.order.scales, False, False), self.gates)
        return self == plain


class Route(NamedTuple):
    """The way from some layers down to the input, all of it in lanes."""

    firsts: tuple[int, ...]
    """Convolutions that take one map for each feature."""
    segments: dict[int, Segment]
    """From top to bottom, by the layer at which each begins."""
    is_chain: bool
    """Whether the convolutions follow one another and nothing is added."""
    lane_bytes: int = 0
    """Bytes of all lane tensors that exist at the same time, for one lane."""
    needs_everything: bool = False
    """Whether every part of the input depends on the whole of a tensor above."""


class Abilities(NamedTuple):
    """What only some lane kernels can do."""

    adds: bool
    """Sum what overlapping windows of a pool send to the same place."""
    multiplies: bool
    """Multiply every value by a factor of its place and channel."""
    joins: bool
    """Add lane tensors, and sum one up over all places."""
    spreads: bool
    """Send a value to every place of a window that a gate leaves open."""


def abilities_of(backend: Any) -> Abilities:
    """What the lane kernels of a back end can do."""
    return Abilities(
        adds=hasattr(backend, "add_overlaps"),
        multiplies=getattr(backend, "multiplies", False),
        joins=getattr(backend, "joins", False),
        spreads=getattr(backend, "spreads", False),
    )


def has_slope(layer: nn.Layer, arrays: nn.Arrays) -> bool:
    """Whether a layer multiplies what comes back by its derivative, which is finite everywhere."""
    # Times an infinite slope, what is zero would not stay so.
    return (
        isinstance(layer, nn.Elementwise)
        and not rectifies(layer)
        and layer.steepest(arrays) < math.inf
    )


def is_plain_average(layer: nn.Layer, arrays: nn.Arrays) -> bool:
    """Whether a layer is an average pool of windows side by side, none of them over an edge."""
    if not isinstance(layer, nn.AvgPool2d) or layer.ceil_mode:
        return False
    kernel, stride, _, padding = layer.window((1, 1), arrays)
    return kernel == stride and padding == ((0, 0), (0, 0))


def is_spread(layer: nn.Layer) -> bool:
    """Whether a layer is the mean of each channel, which goes back to all places alike."""
    return isinstance(layer, nn.GlobalAvgPool2d) or (
        isinstance(layer, nn.ReduceMean) and layer.axes == "HW"
    )


def takers_of(net: Network) -> dict[int, int]:
    """For each layer, how many layers take its output; -1 is the network's input."""
    takers = dict.fromkeys(range(-1, len(net.layers)), 0)
    for sources in net.sources:
        for source in sources:
            takers[source] += 1
    return takers


def route_of(
    net: Network, starts: Mapping[int, bool], rule: str, overlapping: set[int],
    abilities: Abilities | None, shapes: Sequence[Shape],
) -> dict[int, Segment | None]:
    """The way from the outputs of some layers down to the input, from top to bottom.

    Parameters
    ----------
    net, rule
    starts : dict of int to bool
        Layers at whose output the way begins, and whether as lanes (or as planes).
    overlapping : set of int
        Pools whose windows overlap.
    abilities : Abilities or None
        None where there are no lane kernels.
    shapes : sequence of (C, H, W)
        Of the outputs of all layers.

    Returns
    -------
    dict of int to Segment or None
        For each layer at whose output something is added up the segment from there on; None
        where the layer has to be taken back by itself, as planes.
    """
    route: dict[int, Segment | None] = {}
    takers = takers_of(net)
    senders: dict[int, list[Segment | None]] = {}
    planes = {top for top, in_lanes in starts.items() if not in_lanes}
    while reached := {*senders, *starts} - {*route, -1}:
        top = max(reached)
        before = senders.get(top, [])
        is_convolution = isinstance(net.layers[top], nn.Conv2d)
        segment = None
        # From planes lanes begin at a convolution, or at a mean, which spreads few values.
        begins = is_convolution or (
            abilities is not None and abilities.joins and is_spread(net.layers[top])
        )
        if abilities is not None and (
            begins or not (top in planes or None in before)
        ) and (abilities.joins or is_convolution or len(before) + (top in starts) == 1):
            segment = segment_from(net, top, rule, overlapping, abilities, shapes, takers)
        # A layer that several take comes next itself, unless its turn is now.
        end = top if segment is None else segment.end
        is_fork = end != top and takers[end] > 1
        if segment is not None and not is_fork and len(before) == 1 and top not in starts:
            segment = _with_zeros_of(segment, before[0], net)
        route[top] = segment
        for source in (end,) if is_fork else net.sources[end]:
            senders.setdefault(source, []).append(segment)
    return route


def _with_zeros_of(segment: Segment, above: Segment | None, net: Network) -> Segment:
    """The segment, with those gates of the one above that still hold below a sum."""
    if above is None or not isinstance(net.layers[above.end], nn.Add):
        return segment
    if not isinstance(net.layers[segment.end], nn.Conv2d):
        return segment
    return segment._replace(gates=(*segment.gates, *above.gates))


def segment_from(
    net: Network, top: int, rule: str, overlapping: set[int], abilities: Abilities,
    shapes: Sequence[Shape], takers: dict[int, int],
) -> Segment | None:
    """The segment from the output of layer `top` on; None if lane kernels do not take it."""
    steps: list[int] = []
    slopes: list[int] = []
    above: list[int] | None = None
    gates: list[int] = []
    pool = averaged = None
    index = top
    while index >= 0:
        layer = net.layers[index]
        is_convolution = isinstance(layer, nn.Conv2d)
        is_fork = index != top and takers[index] > 1
        if is_convolution or is_fork or (abilities.joins and _joins(net, index, shapes)):
            if not is_convolution or is_fork:
                if pool is not None or ((gates or slopes) and not abilities.multiplies):
                    return None
                if is_fork and not abilities.joins:
                    return None
            return _made(net, top, index, rule, above, steps, gates, pool, slopes)
        if rectifies(layer):
            if rule != "gradient":
                steps.append(index)
            if rule != "deconvnet":
                gates.append(index)
        elif is_affine(layer):
            steps.append(index)
        elif has_slope(layer, net.arrays) and abilities.multiplies:
            if averaged is not None:
                return None  # another number at every place of a window
            slopes.append(index)
        elif isinstance(layer, nn.MaxPool2d):
            if pool is not None or (index in overlapping and (slopes or not abilities.adds)):
                return None
            if index in overlapping:
                above, steps = steps, []
            # Else every value goes to one place, so what follows a pool may precede it.
            pool = index
        elif abilities.spreads and pool is None and is_plain_average(layer, net.arrays):
            # What follows does the same to a value before it is spread as after.
            pool = averaged = index
        elif not (
            isinstance(layer, nn.Dropout)
            or (isinstance(layer, nn.LocalResponseNorm) and rule != "gradient")
        ):
            return None
        (index,) = net.sources[index]
    return None


def _joins(net: Network, index: int, shapes: Sequence[Shape]) -> bool:
    """Whether lane tensors take a layer of several inputs, or a mean over all places."""
    layer, taken = net.layers[index], [shapes[k] for k in net.sources[index]]
    if isinstance(layer, nn.Add):
        return all(shape == shapes[index] for shape in taken)
    if isinstance(layer, nn.Multiply):
        one_pixel = shapes[index][0], 1, 1
        return len(taken) == 2 and all(shape in (shapes[index], one_pixel) for shape in taken)
    if isinstance(layer, nn.Concat):
        return layer.axis == "C"
    return is_spread(layer)


def _made(
    net: Network, top: int, end: int, rule: str, above: list[int] | None, steps: list[int],
    gates: list[int], pool: int | None, slopes: list[int],
) -> Segment | None:
    if above is None:
        order, below = _order(net, steps), None
    else:
        order, below = _order(net, above), _order(net, steps)
        if below is None:
            return None
    rectified = any(rectifies(net.layers[i]) for i in (*steps, *(above or ())))
    if order is None or (slopes and rule != "gradient" and rectified):
        return None  # a slope may be negative, so it makes a difference which is first
    return Segment(top, end, order, tuple(gates), pool, below, tuple(slopes))


def _order(net: Network, steps: list[int]) -> Order | None:
    """ReLUs and scales as an `Order`; None when there are more turns than it has."""
    kinds = ["relu" if rectifies(net.layers[i]) else "scale" for i in steps]
    turns = [s for i, s in enumerate(kinds) if i == 0 or kinds[i - 1] != s]
    orders = {
        (): (False, False),
        ("relu",): (False, True),
        ("scale",): (False, False),
        ("relu", "scale"): (True, False),
        ("scale", "relu"): (False, True),
        ("relu", "scale", "relu"): (True, True),
    }
    relus = orders.get(tuple(turns))
    scales = tuple(i for i, kind in zip(steps, kinds) if kind == "scale")
    return relus and Order(scales, *relus)
