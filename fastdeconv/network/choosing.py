"""Find the network and the layers that a user names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ParameterError, shown
from . import layers as nn
from .importers.opening import open_model, refuse_options
from .network import Network
from .pretrained import list_pretrained, pretrained
from .public import open_public
from .public.recipes import all_recipes

__all__ = ["as_list", "choose_layers", "open_network", "up_to"]

_MOST_BY_DEFAULT = 6
# Layers that keep the features of the convolution before them, and change only their values.
_POINTWISE = (nn.Elementwise, nn.Scaling, nn.Normalisation, nn.LocalResponseNorm, nn.Dropout)


def open_network(net: Network | str | os.PathLike[str], **options: Any) -> Network:
    """Open a network, whichever way the user names it.

    Parameters
    ----------
    net : Network, str or path
        A network is returned unchanged. Otherwise the name of a bundled or public network, or
        the path of an archive, an ONNX file or a Keras file.
    **options
        Arguments of `from_onnx` or `from_keras`, for a file of these kinds. None is no argument.

    Returns
    -------
    Network

    Raises
    ------
    ParameterError
        If `net` is none of these, or a name that is neither known nor a file, or if there are
        options and it is a network already.
    ArchiveError
        If the file is damaged, unsafe, or not a network.
    FileNotFoundError
        If there is no such file.
    """
    if isinstance(net, Network):
        refuse_options(net.name or "net", options)
        return net
    if isinstance(net, str) and net in list_pretrained():
        refuse_options(net, options)
        return pretrained(net)
    if isinstance(net, str) and net in all_recipes():
        refuse_options(net, options)
        return open_public(net)
    if not isinstance(net, (str, os.PathLike)):
        raise ParameterError(f"net must be a Network, a name or a path, found {shown(net)}")
    path = Path(net)
    looks_like_path = not isinstance(net, str) or path.suffix or path.name != net
    if not looks_like_path and not path.exists():
        raise ParameterError(
            f"there is no network {shown(net)}: no file has that name, and the known names are "
            f"{', '.join([*list_pretrained(), *all_recipes()])}"
        )
    return open_model(path, **options)


def choose_layers(network: Network, layers: str | Iterable[str] | None) -> list[str]:
    """The layers to work on: those asked for, or every max-pooling layer.

    If the network has no max pooling, it is the end of each convolution's block: the last layer
    that still has the features of this convolution alone. If there are more than
    `_MOST_BY_DEFAULT` convolutions, they are chosen evenly from the first to the last.

    Parameters
    ----------
    network : Network
    layers : str, iterable of str, or None

    Returns
    -------
    list of str
        Each layer once.

    Raises
    ------
    ParameterError
        If a layer does not exist, or there is no default for this network.
    """
    if layers is not None:
        asked = [layers] if isinstance(layers, str) else as_list("layers", layers)
        for layer in asked:
            network.layer_index(layer)
        return list(dict.fromkeys(asked))
    default = network.pooling_layers or _block_ends(network)
    if not default:
        names = ", ".join(layer.name for layer in network.layers)
        raise ParameterError(
            f"the network has no max-pooling and no convolution layer; choose layers from {names}"
        )
    return default


def _block_ends(network: Network) -> list[str]:
    """For each convolution, the last layer that still has its features alone."""
    takers: dict[int, list[int]] = {}
    for place, sources in enumerate(network.sources):
        for source in sources:
            takers.setdefault(source, []).append(place)
    ends = []
    for place, layer in enumerate(network.layers):
        # A depthwise convolution makes no new features.
        if not isinstance(layer, nn.Conv2d) or _is_depthwise(network, layer):
            continue
        end = place
        while len(above := takers.get(end, [])) == 1 and isinstance(
            network.layers[above[0]], _POINTWISE
        ):
            end = above[0]
        ends.append(network.layers[end].name)
    steps = min(len(ends), _MOST_BY_DEFAULT) - 1
    return [ends[i * (len(ends) - 1) // max(1, steps)] for i in range(steps + 1)]


def _is_depthwise(network: Network, layer: nn.Conv2d) -> bool:
    return 1 < layer.groups == len(network.arrays[f"{layer.name}.weight"])


def up_to(network: Network, layer: str) -> Network:
    """The network up to and including `layer`."""
    layers = network.layers[: network.layer_index(layer) + 1]
    arrays = {key: network.arrays[key] for own in layers for key in own.array_names}
    names = {own.name for own in layers}
    aliases = {alias: name for alias, name in network.aliases.items() if name in names}
    return Network(
        layers, arrays, network.input_shape, frontend=network.frontend, name=network.name,
        aliases=aliases,
    )


def as_list(key: str, values: Iterable[Any]) -> list[Any]:
    """`values` as a list.

    Raises
    ------
    ParameterError
        If `values` is not iterable. The message names `key`.
    """
    try:
        return list(values)
    except TypeError:
        raise ParameterError(f"{key} must be a list, found {shown(values)}") from None
