"""Decide which sizes of an imported network's input may vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import ParameterError
from .. import layers as nn
from ..network import Network
from .inputs import Declared
from .views import View

__all__ = ["take_frames", "varying_shape"]


def varying_shape(
    layers: Sequence[Mapping[str, Any]], arrays: Mapping[str, Any], start: View,
    declared: Declared | None, *, fixed: bool = False, held: Sequence[str] = (),
) -> tuple[int | None, int | None, int | None]:
    """The shape of the input, with None for sizes that may vary.

    The file may say which sizes vary. Otherwise it is the width, which is time in most
    networks, or the height if that is the model's last axis. A size may vary only if every layer
    allows any size.

    Parameters
    ----------
    layers, arrays
        As for `Network`.
    start : View
        How the model's input is read from the network's.
    declared : tuple of int, str or None, optional
        The shape of the model's input in the file.
    fixed : bool
        Whether a number in the network depends on the size; then no size may vary.
    held : sequence of str
        For each layer, axes of its output that must keep their size.
    """
    c, h, w = start.sizes
    if fixed:
        return c, h, w
    letters = start.letters
    # Time is the last axis of the model's input. It is H if bands are channels and W has size 1.
    wanted = {"H"} if letters and letters[-1] == "H" else {"W"}
    if declared is not None and letters is not None and len(declared) == len(letters):
        said = {
            letter for letter, n in zip(letters, declared)
            if letter in ("H", "W") and not isinstance(n, int)
        }
        wanted = said or wanted
    for free in ({"H", "W"} & wanted, {"W"} & wanted, {"H"} & wanted):
        shape = (c, None if "H" in free else h, None if "W" in free else w)
        if free and _takes_any(layers, arrays, shape, held):
            return shape
    return c, h, w


def take_frames(network: Network) -> None:
    """Give a front end without `frames` as many as a network of fixed width takes.

    A front end whose rows or channels do not fit is left as it is: then its layout may be wrong.
    """
    frontend = network.frontend
    if frontend is None or frontend.frames is not None:
        return
    sizes = dict(zip(frontend.layout, network.input_shape))
    rows, channels = frontend.meaning.rows(frontend), frontend.num_channels
    if sizes["F"] in (None, rows) and sizes["C"] in (None, channels) and sizes["T"] is not None:
        network.frontend = replace(frontend, frames=sizes["T"])


def _takes_any(
    layers: Sequence[Mapping[str, Any]], arrays: Mapping[str, Any],
    shape: tuple[int | None, int | None, int | None], held: Sequence[str],
) -> bool:
    """Whether all layers allow any value for the sizes that are None."""
    try:
        network = Network(layers, arrays, shape)
    except ParameterError:
        return False
    shapes = {-1: shape, **dict(enumerate(network.known_shapes))}
    if any(found[0] is None for found in shapes.values()):
        return False
    if any(
        n is None and axis in letters
        for found, letters in zip([shape, *network.known_shapes], held)
        for axis, n in zip("CHW", found)
    ):
        return False
    return not any(
        _fixes(layer, [shapes[k] for k in taken])
        for layer, taken in zip(network.layers, network.sources)
    )


def _fixes(layer: nn.Layer, shapes: Sequence[nn.Shape]) -> bool:
    """Whether a layer works only for one value of a size that is None."""
    free = {axis for shape in shapes for axis, n in zip("CHW", shape) if n is None}
    if not free:
        return False
    if isinstance(layer, (nn.Flatten, nn.Reshape)):
        return True
    if isinstance(layer, nn.Scaling):
        return bool(free & set(layer.axis))
    if isinstance(layer, nn.Upsample):
        return layer.size is not None
    if isinstance(layer, nn.LayerNorm):
        return layer.affine and bool(free & set(layer.axes))
    if isinstance(layer, nn.Slice):
        return layer.axis in free and (layer.stop is not None or layer.start < 0)
    if isinstance(layer, nn.Joining):
        return any(
            {n for n in sizes if n != 1} > {None} for sizes in zip(*shapes)
        ) and not isinstance(layer, nn.Concat)
    return False
