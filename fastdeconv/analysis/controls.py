"""Untrained networks to compare with: the same layers with random weights.

Whatever an untrained network shows too was not learned (Adebayo et al., arXiv 1810.03292).
Deconvnet pictures need this control more than others, because going back restores much of the input
whatever the weights are (Nie et al., arXiv 1805.07039).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..deconvnet.trace import as_input
from ..errors import ParameterError, shown
from ..network.choosing import as_list, open_network, up_to
from ..network.layers import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Elementwise,
    Linear,
    Normalisation,
    Scaling,
)
from ..network.network import Network
from ..network.pretrained import list_pretrained, pretrained

__all__ = ["randomised", "start_of", "untrained"]

Arrays = dict[str, NDArray[Any]]

_PRELU_START = 0.25
"""Slope of an untrained PReLU, as in PyTorch."""
_LEAST_SPREAD = 1e-6
"""A channel with a smaller standard deviation is constant: it is shifted but not scaled."""


def randomised(
    net: Network | str | os.PathLike[str],
    seed: int = 0,
    inputs: Iterable[ArrayLike] | None = None,
) -> Network:
    """Make a copy of a network with random weights.

    Weights of convolutions and linear layers are drawn as PyTorch draws them, uniformly between -b
    and b with b = 1 / sqrt(fan-in). Biases are 0. Batch norms and affine layers pass everything
    unchanged. With such weights many channels fire everywhere or nowhere, since spectrograms are
    not centred. Therefore, with `inputs`, every channel of a convolution is brought to mean 0 and
    variance 1 over `inputs`, as a batch norm after it would do at the start of training: by scaling
    its filters and setting its bias. If a batch norm follows, its statistics are set instead. A
    convolution with neither is only scaled.

    Parameters
    ----------
    net : Network, str or path
        A network, its name, or the path of an archive or model.
    seed : int
        From 0. The same seed gives the same weights.
    inputs : iterable of array, shape (C, H, W), optional
        Some typical inputs of the network; a dozen is enough.

    Returns
    -------
    Network

    Raises
    ------
    ParameterError
        If `net` is not a network, `seed` is not an int from 0, or `inputs` is empty or one of them
        does not fit.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> net = fd.pretrained("choi5-genre")
    >>> clip = fd.Clip(np.sin(np.arange(44100)), 11025, net.frontend)
    >>> control = fd.randomised(net, seed=0, inputs=[clip.x])
    >>> control.layers == net.layers
    True
    """
    network = open_network(net)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ParameterError(f"seed must be an int from 0, found {shown(seed)}")
    arrays = _drawn(network, int(seed))
    if inputs is not None:
        given = as_list("inputs", inputs)
        samples = [as_input(x, f"inputs[{i}]") for i, x in enumerate(given)]
        if not samples:
            raise ParameterError("inputs must hold at least one input, found none")
        _centre(network, arrays, samples)
    return _with_arrays(network, arrays)


def untrained(net: Network, inputs: Iterable[ArrayLike]) -> Network:
    """The network before its training, as far as that is known.

    For a bundled network this is the network with which its training began,
    ``pretrained(name, trained=False)``. For any other it is `randomised` with seed 0, centred on
    `inputs`.
    """
    start = start_of(net)
    return randomised(net, 0, inputs) if start is None else start


def start_of(net: Network) -> Network | None:
    """The network with which the training of a bundled network began; None for other networks."""
    if net.name in list_pretrained():
        bundled = pretrained(net.name)
        if _same(net.arrays, bundled.arrays):
            return pretrained(net.name, trained=False)
    return None


def _same(found: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]) -> bool:
    return found.keys() == wanted.keys() and all(
        np.array_equal(found[key], array) for key, array in wanted.items()
    )


def _drawn(net: Network, seed: int) -> Arrays:
    arrays: Arrays = {}
    for number, layer in enumerate(net.layers):
        # A random stream for each layer: a network cut off at a layer has the same weights below.
        rng = np.random.default_rng([seed, number])
        for key in layer.array_names:
            shape = net.arrays[key].shape
            if isinstance(layer, (Conv2d, ConvTranspose2d, Linear)) and len(shape) > 1:
                bound = 1 / np.sqrt(np.prod(shape[1:]))
                arrays[key] = rng.uniform(-bound, bound, shape).astype(np.float32)
            else:
                ones = isinstance(layer, (Scaling, Normalisation)) and key.endswith(
                    (".weight", ".running_var")
                )
                start = _PRELU_START if isinstance(layer, Elementwise) else float(ones)
                arrays[key] = np.full(shape, start, np.float32)
    return arrays


def _centre(net: Network, arrays: Arrays, samples: Sequence[NDArray[Any]]) -> None:
    """Scale and shift every convolution, from the input up, in place."""
    for index, layer in enumerate(net.layers):
        if not isinstance(layer, Conv2d):
            continue
        norm = _norm_after(net, index)
        lower = up_to(_with_arrays(net, arrays), layer.name)
        mean, spread = _moments([lower.forward(x)[layer.name] for x in samples])
        spread = np.where(spread > _LEAST_SPREAD, spread, 1)
        if norm is not None:
            arrays[f"{norm.name}.running_mean"] = mean.astype(np.float32)
            arrays[f"{norm.name}.running_var"] = np.square(spread).astype(np.float32)
            continue
        scale = spread[:, np.newaxis, np.newaxis, np.newaxis]
        arrays[f"{layer.name}.weight"] = (arrays[f"{layer.name}.weight"] / scale).astype(np.float32)
        if f"{layer.name}.bias" in arrays:
            arrays[f"{layer.name}.bias"] = (-mean / spread).astype(np.float32)


def _norm_after(net: Network, index: int) -> BatchNorm2d | None:
    """The batch norm over channels that alone takes the output of a layer, if there is one."""
    takers = [layer for layer, taken in zip(net.layers, net.sources) if index in taken]
    norms = [layer for layer in takers if isinstance(layer, BatchNorm2d) and layer.axis == "C"]
    return norms[0] if len(takers) == 1 and norms else None


def _moments(maps: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of every channel over maps (C, H, W)."""
    count = sum(m[0].size for m in maps)
    mean = sum(m.sum(axis=(1, 2), dtype=np.float64) for m in maps) / count
    squares = sum(np.square(m - mean[:, None, None]).sum(axis=(1, 2)) for m in maps) / count
    return np.asarray(mean), np.sqrt(squares)


def _with_arrays(net: Network, arrays: Arrays) -> Network:
    return Network(
        net.layers,
        arrays,
        net.input_shape,
        frontend=net.frontend,
        classes=net.classes,
        output=net.output,
        name=None if net.name is None else f"{net.name}, untrained",
        aliases=net.aliases,
    )
