"""Compare an imported network with the modules that it was exported from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ArchiveError, ParameterError, shown
from ..network import Network
from .building import Builder
from .verifying import TOLERANCE, Witness, difference
from .views import View

__all__ = ["as_wide_as_shown", "whole_output", "witnessed"]


def as_wide_as_shown(
    network: Network, witness: Witness, start: View, last: str, *, may_fail: bool = False
) -> Network:
    """The network; its sizes are fixed if it differs from the original for another input size.

    A size may be hidden in a number, such as n / (n - 1) in a variance.

    Parameters
    ----------
    network : Network
    witness : callable
        Its "" is compared with the layer `last`, and its other names with the layers so called.
    start : View
    last : str
    may_fail : bool
        Whether sizes stay open if the original cannot be computed for another size.
    """
    # Twice is a size that U-Nets take, too. One more shows what was computed for even sizes; many
    # networks do not take odd ones. Half shows numbers such as n / (n - 1), which hardly change
    # above a long n.
    for more, fails in (
        (lambda m: max(2, m), may_fail), (lambda m: 1, True), (lambda m: -(m // 2), True),
    ):
        # An axis of size 1 may not exist in the model.
        sizes = [
            m if n is not None or letter not in (start.letters or ()) else m + more(m)
            for letter, n, m in zip("CHW", network.input_shape, start.sizes)
        ]
        if tuple(sizes) == start.sizes:
            return network
        if not _alike(network, witness, start, last, dict(zip("CHW", sizes)), fails):
            return _renewed(network, start.sizes, network.aliases)
    return network


def _alike(
    network: Network, witness: Witness, start: View, last: str, sizes: Mapping[str, int],
    may_fail: bool,
) -> bool:
    """Whether a network gives what its original gives, for a random input of these sizes."""
    try:
        # Before the original runs: to refuse a size, it may take long.
        network.shapes([sizes[letter] for letter in "CHW"])
    except ParameterError:
        return may_fail
    shape = [sizes[letter] if letter else 1 for letter in start.letters or ()]
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    try:
        told, x = next(
            (values, given) for given in (x, np.abs(x) + np.float32(0.01))
            for values in [{name: np.asarray(arrays[0]) for name, arrays in witness(given).items()}]
            if all(np.isfinite(array).all() for array in values.values())
        )
    except Exception:  # from the original's own code, which may need the old size
        return may_fail
    planes = x.reshape([sizes[letter] for letter in start.order])
    planes = planes.transpose([start.order.index(letter) for letter in "CHW"])
    try:
        trace = network.forward(planes)
    except ParameterError:  # values that overflow
        return may_fail
    names = {layer.name for layer in network.layers}
    # The order of the axes may differ, so only sums over all values are compared.
    return all(
        trace[name or last].size == array.size
        and abs(_size_of(trace[name or last]) - _size_of(array)) <= TOLERANCE * _size_of(array)
        for name, array in told.items() if name in names or not name
    )


def _size_of(values: Any) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).sum()))


def _renewed(
    network: Network, shape: Sequence[int | None], aliases: Mapping[str, str]
) -> Network:
    return Network(
        network.layers, network.arrays, shape, frontend=network.frontend,
        classes=network.classes, name=network.name, aliases=aliases,
    )


def whole_output(builder: Builder, last: int) -> View | None:
    """How the output of the original is read from the layer `last`; None if it is another's."""
    outputs = builder.graph.outputs
    ends = [builder.views[name] for name in outputs if name in builder.views]
    return ends[0] if len(outputs) == 1 and ends and ends[0].draft == last else None


def witnessed(
    network: Network, told: Mapping[str, list[Any]], found: Mapping[str, Any], builder: Builder,
    names: Sequence[str], aliases: Mapping[str, tuple[int, View]], last: int,
) -> tuple[Network, int]:
    """Compare layers with the outputs of modules; aliases whose module differs are removed.

    Returns
    -------
    Network
    int
        How many outputs of modules were compared.

    Raises
    ------
    ArchiveError
        If a layer differs from the module of the same name.
    """
    count, wrong = 0, set()
    whole = whole_output(builder, last)
    for module, arrays in told.items():
        for number, array in enumerate(arrays):
            name = f"{module}:{number}" if number else module
            view = None
            if not module:
                name, view = names[last], whole
            elif name in found:
                view = builder.drafts[names.index(name)].view
            elif name in network.aliases:
                name, view = network.aliases[module], aliases[module][1]
            if view is None or name not in found or array.shape != view.shape:
                continue
            off = difference(found[name], view.of_layer(array))
            if off > TOLERANCE and module in network.aliases:
                wrong.add(module)
            elif off > TOLERANCE:
                raise ArchiveError(
                    f"layer {shown(name)} differs from the output of the module by {off:.1e} of "
                    "its largest value; the network is not imported. PyTorch exports it wrongly: "
                    "this happens where a forward decides by values of its input (an `if`), "
                    "computes in half precision (torch.autocast), or draws at random"
                )
            else:
                count += 1
    if wrong:
        left = {a: name for a, name in network.aliases.items() if a not in wrong}
        network = _renewed(network, network.input_shape, left)
    return network, count
