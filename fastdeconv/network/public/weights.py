"""Turns the arrays of a checkpoint into those of our layers.

A recipe says for every layer that has arrays where they are:

- ``"conv1": "1CNN"``: their names in the checkpoint begin with ``1CNN``, and go on as the
  framework calls its arrays.
- ``{"from": "conv2d_5", "axes": "OWHI"}``: which axes of the checkpoint's weight become ours
  (out, in, height, width). Here its columns become input channels.
- ``{"from": "rnn", "arrays": {"bias": ["bias_ih", "bias_hh"]}}``: the arrays have names of their
  own. Where a list has several, their sum is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ArchiveError, shown

__all__ = ["TENSORFLOW", "TORCH", "Naming", "arrays_of"]

Arrays = Mapping[str, NDArray[Any]]


class Naming(NamedTuple):
    """How a framework names the arrays of a layer, and in which order it has their axes."""

    between: str
    """Between the name of a layer and that of its array."""
    names: Mapping[str, Mapping[str, str]]
    """Its names by type of layer and by ours."""
    convolution: str
    """The axes of a convolution's weight, of O, I, H and W."""
    linear: str


_PLAIN = {"weight": "weight", "bias": "bias"}

TENSORFLOW = Naming(
    "/",
    {
        "conv2d": {"weight": "kernel", "bias": "bias"},
        "linear": {"weight": "kernel", "bias": "bias"},
        "batch_norm2d": {
            "weight": "gamma", "bias": "beta", "running_mean": "moving_mean",
            "running_var": "moving_variance",
        },
    },
    "HWIO",
    "IO",
)
TORCH = Naming(
    ".",
    {
        "conv2d": _PLAIN,
        "linear": _PLAIN,
        "batch_norm2d": _PLAIN | {"running_mean": "running_mean", "running_var": "running_var"},
    },
    "OIHW",
    "OI",
)


def arrays_of(
    layers: tuple[Mapping[str, Any], ...],
    weights: Mapping[str, Any],
    found: Arrays,
    naming: Naming,
) -> dict[str, NDArray[Any]]:
    """The arrays of layer records.

    Parameters
    ----------
    layers : tuple of mapping
    weights : mapping
        Of the recipe.
    found : mapping of str to array
        What is in the checkpoint.
    naming : Naming

    Raises
    ------
    ArchiveError
        If the checkpoint does not have one.
    """
    arrays = {}
    for layer in layers:
        source = weights.get(layer["name"])
        if source is None:
            continue
        where: Mapping[str, Any] = {"from": source} if isinstance(source, str) else source
        names: Mapping[str, list[str]] = where.get("arrays") or {
            ours: [theirs] for ours, theirs in naming.names[layer["type"]].items()
        }
        for ours, theirs in names.items():
            if ours == "bias" and layer.get("bias") is False:
                continue
            array = _sum_of(found, where["from"] + naming.between, theirs)
            arrays[f"{layer['name']}.{ours}"] = _turned(array, where.get("axes"), naming)
    return arrays


def _sum_of(found: Arrays, begin: str, names: list[str]) -> NDArray[Any]:
    """The sum of the arrays whose names begin in the same way; mostly there is one."""
    for name in names:
        if begin + name in found:
            continue
        if name == "gamma" and f"{begin}beta" in found:
            # TensorFlow's batch norm with scale=False: it has no such array.
            return np.ones_like(found[f"{begin}beta"])
        raise ArchiveError(f"the checkpoint has no array {shown(begin + name)}")
    total = found[begin + names[0]]
    for name in names[1:]:
        total = total + found[begin + name]
    return total


def _turned(array: NDArray[Any], axes: str | None, naming: Naming) -> NDArray[Any]:
    """An array with its axes in our order."""
    if array.ndim == 4:
        return np.transpose(array, [naming.convolution.index(a) for a in axes or "OIHW"])
    if array.ndim == 3:  # a convolution along a line
        return array[:, :, np.newaxis]
    if array.ndim == 2:
        return np.transpose(array, [naming.linear.index(a) for a in "OI"])
    return array
