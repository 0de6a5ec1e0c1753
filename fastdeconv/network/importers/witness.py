"""Compare an imported network with the modules that it was exported from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ArchiveError, shown
from ..network import Network
from .building import Builder
from .verifying import TOLERANCE, Witness, difference
from .views import View

__all__ = ["as_wide_as_shown", "witnessed"]


def as_wide_as_shown(
    network: Network, witness: Witness, start: View, last: str
) -> Network:
    """The network; its sizes are fixed if it differs from the modules for another input size.

    A size may be hidden in a number, such as n / (n - 1) in a variance.
    """
    letters = start.letters or ()
    # An axis of size 1 may not exist in the model.
    sizes = [
        m if n is not None or letter not in letters else m + max(2, m // 3)
        for letter, n, m in zip("CHW", network.input_shape, start.sizes)
    ]
    if tuple(sizes) == start.sizes:
        return network
    by_letter = dict(zip("CHW", sizes))
    shape = [by_letter[letter] if letter else 1 for letter in letters]
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    planes = x.reshape([by_letter[letter] for letter in start.order])
    planes = planes.transpose([start.order.index(letter) for letter in "CHW"])
    try:
        told = witness(x)
    except Exception:  # from the module's own code, which may need the old size
        same = False
    else:
        trace = network.forward(planes)
        pairs = [
            (trace[name].reshape(-1), np.asarray(arrays[0]).reshape(-1))
            for name, arrays in told.items()
            if any(layer.name == name for layer in network.layers)
        ]
        pairs += [(trace[last].reshape(-1), arrays[0].reshape(-1))
                  for name, arrays in told.items()
                  if not name and arrays[0].size == trace[last].size]
        # The order of the axes may differ, so only sums over all values are compared.
        same = all(
            found.size == wanted.size
            and abs(_size_of(found) - _size_of(wanted)) <= TOLERANCE * _size_of(wanted)
            for found, wanted in pairs
        )
    return network if same else _renewed(network, start.sizes, network.aliases)


def _size_of(values: Any) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).sum()))


def _renewed(
    network: Network, shape: Sequence[int | None], aliases: Mapping[str, str]
) -> Network:
    return Network(
        network.layers, network.arrays, shape, frontend=network.frontend,
        classes=network.classes, name=network.name, aliases=aliases,
    )


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
    outputs = builder.graph.outputs
    ends = [builder.views[name] for name in outputs if name in builder.views]
    whole = ends[0] if len(outputs) == 1 and ends and ends[0].draft == last else None
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
                    "its largest value: PyTorch exports it wrongly; the network is not imported"
                )
            else:
                count += 1
    if wrong:
        left = {a: name for a, name in network.aliases.items() if a not in wrong}
        network = _renewed(network, network.input_shape, left)
    return network, count
