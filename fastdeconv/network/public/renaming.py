"""Short names for the layers of an imported network."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

from ..network import Network

__all__ = ["named_by_type"]


def named_by_type(net: Network, aliases: Mapping[str, str]) -> Network:
    """The same network with layers named ``conv1``, ``relu1``, ``pool1``, ``conv2`` ...

    Converters write names of a hundred characters. These names remain as aliases.

    Parameters
    ----------
    net : Network
    aliases : mapping of str to str
        More aliases, each for the new name of a layer.

    Returns
    -------
    Network
    """
    count: Counter[str] = Counter()
    names: dict[str, str] = {}
    for layer in net.layers:
        count[layer.prefix] += 1
        names[layer.name] = f"{layer.prefix}{count[layer.prefix]}"
    layers = [
        dataclasses.replace(
            layer, name=names[layer.name],
            inputs=tuple(names.get(name, name) for name in layer.inputs),
        )
        for layer in net.layers
    ]
    arrays = {}
    for old, new in zip(net.layers, layers):
        for key, other in zip(old.array_names, new.array_names):
            arrays[other] = net.arrays[key]
    also = {alias: names[name] for alias, name in net.aliases.items()} | names
    renamed = Network(
        layers, arrays, net.input_shape, frontend=net.frontend, classes=net.classes,
        output=net.output, name=net.name, license=net.license, citation=net.citation,
        aliases={alias: name for alias, name in also.items() if alias not in names.values()}
        | dict(aliases),
    )
    renamed.receipt = net.receipt
    return renamed
