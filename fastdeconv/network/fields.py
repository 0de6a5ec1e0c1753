"""Receptive fields: the part of the input that one output of a layer depends on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import layers as nn

__all__ = ["Field", "receptive_fields"]

_Sizes = tuple[float, float]


class Field(NamedTuple):
    """The receptive field of an output that is not at an edge."""

    size: _Sizes
    """Rows and columns of the input that it depends on; infinite if it is all of them."""
    jump: _Sizes
    """Distance in the input, in rows and columns, between neighbouring outputs."""

    @property
    def texts(self) -> tuple[str, str]:
        """Size and jump as text, ``10 x 10`` and ``4 x 4``; "all" and "-" if infinite."""
        if min(self.size) == math.inf:
            return "all", "-"
        size = " x ".join("all" if n == math.inf else f"{n:g}" for n in self.size)
        jump = " x ".join(
            "-" if n == math.inf else f"{step:g}" for n, step in zip(self.size, self.jump)
        )
        return size, jump


_ALL = Field((math.inf, math.inf), (1.0, 1.0))


def receptive_fields(
    layers: Sequence[nn.Layer], sources: Sequence[tuple[int, ...]], arrays: nn.Arrays
) -> list[Field]:
    """The receptive field of every layer; of several inputs the largest counts."""
    fields = {-1: Field((1.0, 1.0), (1.0, 1.0))}
    for i, (layer, taken) in enumerate(zip(layers, sources)):
        fields[i] = _onward(layer, _joined([fields[k] for k in taken]), arrays)
    del fields[-1]
    return [*fields.values()]


def _joined(fields: Sequence[Field]) -> Field:
    size = max(f.size[0] for f in fields), max(f.size[1] for f in fields)
    jump = max(f.jump[0] for f in fields), max(f.jump[1] for f in fields)
    return Field(size, jump)


def _onward(layer: nn.Layer, field: Field, arrays: nn.Arrays) -> Field:
    """The receptive field after a layer, from that of its input."""
    if isinstance(layer, nn.SlidingLayer):
        # Kernel, stride and dilation do not depend on the size.
        window = layer.window((1, 1), arrays)
        size = tuple(
            n + (e - 1) * j for n, e, j in zip(field.size, window.extent, field.jump)
        )
        jump = tuple(j * s for j, s in zip(field.jump, window.stride))
        return Field((size[0], size[1]), (jump[0], jump[1]))
    if isinstance(layer, nn.ConvTranspose2d):
        window = layer.window((1, 1), arrays)
        size = tuple(
            n + (e - 1) // s * j
            for n, e, s, j in zip(field.size, window.extent, window.stride, field.jump)
        )
        jump = tuple(j / s for j, s in zip(field.jump, window.stride))
        return Field((size[0], size[1]), (jump[0], jump[1]))
    if isinstance(layer, nn.Upsample) and layer.scales is not None:
        # An interpolated value depends on two neighbours.
        more = 0 if layer.mode == "nearest" else 1
        size = tuple(
            n + more * j if s > 1 else n for n, s, j in zip(field.size, layer.scales, field.jump)
        )
        jump = tuple(j / s for j, s in zip(field.jump, layer.scales))
        return Field((size[0], size[1]), (jump[0], jump[1]))
    if isinstance(layer, nn.Permute) and 0 not in layer.order[1:]:
        h, w = (axis - 1 for axis in layer.order[1:])
        return Field((field.size[h], field.size[w]), (field.jump[h], field.jump[w]))
    if isinstance(layer, (nn.Flatten, nn.Reshape, nn.Permute)):
        return field if field.size == (1.0, 1.0) else _ALL
    seen = set(_seen_whole(layer))
    size = tuple(math.inf if axis in seen else n for axis, n in zip("HW", field.size))
    return field._replace(size=(size[0], size[1]))


def _seen_whole(layer: nn.Layer) -> Iterator[str]:
    """The axes along which an output depends on the whole input of the layer."""
    if isinstance(layer, (nn.Reduction, nn.LayerNorm)):
        yield from layer.axes
    elif isinstance(layer, (nn.Upsample, nn.AdaptivePool)):
        # The output size is fixed, so how much of the input each output sees depends on its size.
        yield from "HW"
    elif isinstance(layer, nn.Pad) and layer.mode == "circular":
        yield from (axis for axis, side in zip("HW", layer.padding) if any(side))
    elif isinstance(layer, (nn.GlobalAvgPool2d, nn.GlobalMaxPool2d, nn.GroupNorm,
                            nn.InstanceNorm)):
        yield from "HW"
