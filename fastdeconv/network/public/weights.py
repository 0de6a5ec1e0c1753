"""Convert the arrays of a checkpoint to those of layers.

For every layer with arrays, a recipe says where they are:

- ``"conv1": "1CNN"``: their names in the checkpoint begin with ``1CNN`` and end with the
  framework's names of arrays.
- ``{"from": "conv2d_5", "axes": "OWHI"}``: the axes of the checkpoint's weight that become out,
  in, height and width. Here its columns become input channels.
- ``{"from": "rnn", "arrays": {"bias": ["bias_ih", "bias_hh"]}}``: the arrays have other names.
  If a list has several names, the arrays are added up.
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
    """A framework's names of arrays, and the order of their axes."""

    between: str
    """Text between the name of a layer and the name of its array."""
    names: Mapping[str, Mapping[str, str]]
    """For each type of layer, the framework's name of each array."""
    convolution: str
    """The order of the axes O, I, H and W in the weight of a convolution."""
    linear: str
    """The order of the axes O and I in the weight of a linear layer."""


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
        The field of the recipe.
    found : mapping of str to array
        The arrays of the checkpoint.
    naming : Naming

    Returns
    -------
    dict of str to array
        The arrays with the names and axes of `Network`.

    Raises
    ------
    ArchiveError
        If the checkpoint lacks one of them.
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
    """The sum of the arrays called `begin` + each name; usually there is only one."""
    for name in names:
        if begin + name in found:
            continue
        if name == "gamma" and f"{begin}beta" in found:
            # TensorFlow's batch norm with scale=False has no such array.
            return np.ones_like(found[f"{begin}beta"])
        raise ArchiveError(f"the checkpoint has no array {shown(begin + name)}")
    total = found[begin + names[0]]
    for name in names[1:]:
        total = total + found[begin + name]
    return total


def _turned(array: NDArray[Any], axes: str | None, naming: Naming) -> NDArray[Any]:
    """An array with its axes in the order of `Network`."""
    if array.ndim == 4:
        return np.transpose(array, [naming.convolution.index(a) for a in axes or "OIHW"])
    if array.ndim == 3:  # a convolution along a line
        return array[:, :, np.newaxis]
    if array.ndim == 2:
        return np.transpose(array, [naming.linear.index(a) for a in "OI"])
    return array
