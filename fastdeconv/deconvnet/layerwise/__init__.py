"""Layers of one input, one at a time, forward and back: what the fast paths are tested against.

Activations are planes (C, H, W), projections (K, C, H, W). On the reference back end
everything stays in float64 from the input to the result; elsewhere in float32. No bit
depends on the number of threads, or on how many projections share a call.

Rules of the way back (DeConvNet: Zeiler and Fergus, arXiv 1311.2901, section 2.1; guided
backpropagation: Springenberg et al., arXiv 1412.6806, section 3.4):

- ReLU: ``deconvnet`` max(0, R); ``guided`` max(0, R) where the activation was > 0, else 0;
  ``gradient`` R where the activation was > 0, else 0. So does clip from 0 (ReLU6), which is
  active strictly between its bounds.
- Other activations, and norms by the input's own statistics: their true derivative under
  every rule.
- Batch norm and affine: times the scale. Biases are dropped.
- Max pool: to the switches; where windows overlap, values add. Maxima over whole axes: to
  the first one.
- Convolutions, linear layers, means, and layers that only move values: their adjoint.
- Local response norm: unchanged, except its true derivative under ``gradient``.

There is one file a family of layers. Each has a table that says what its types do; here the
tables become one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...network import layers as nn
from ...network.network import Network
from . import activations, convolution, normalisation, pooling, shaping
from .activations import activation_slope, probabilities
from .base import RULES, Activations, Arithmetic, Array, Back, Passes, entry
from .normalisation import scale_and_shift
from .pooling import mean_window

__all__ = [
    "RULES", "Activations", "Arithmetic", "activation_slope", "affine_of", "backward_layer",
    "forward_layer", "mean_window", "mixes", "probabilities",
]

_PASSES: dict[type[nn.Layer], Passes] = {
    **convolution.PASSES, **activations.PASSES, **normalisation.PASSES, **pooling.PASSES,
    **shaping.PASSES,
}


def forward_layer(
    net: Network, index: int, x: Array, arithmetic: Arithmetic
) -> tuple[Array, Array | None]:
    """Run one layer of one input on planes (C, H, W).

    Returns
    -------
    (activation, switches), both planes; switches of a max pool only, else None
    """
    layer = net.layers[index]
    result = entry(_PASSES, layer).forward(layer, net.arrays, x, arithmetic)
    values, switches = result if isinstance(result, tuple) else (result, None)
    return np.ascontiguousarray(values, arithmetic.dtype), switches


def affine_of(net: Network, index: int) -> tuple[Array, Array]:
    """Scale and shift per channel (or row, or column), float64, of a batch norm or affine layer."""
    layer = net.layers[index]
    assert isinstance(layer, nn.Scaling)
    return scale_and_shift(layer, net.arrays)


def mixes(layer: nn.Layer, rule: str) -> bool:
    """Whether going back through a layer spreads one channel over several, or renumbers them."""
    return isinstance(layer, nn.Joining) or entry(_PASSES, layer).mixes(layer, rule)


def backward_layer(
    trace: Activations,
    index: int,
    R: Array,  # noqa: N803  (the literature's letter)
    rule: str,
    arithmetic: Arithmetic,
    channels: Any = slice(None),
) -> Array:
    """Take a projection from a layer's output to its input.

    Parameters
    ----------
    trace : Activations
    index : int
        Of a layer of one input.
    R : array, shape (K, C, H, W)
        Projections at the layer's output.
    rule : {"deconvnet", "guided", "gradient"}
    arithmetic : Arithmetic
    channels : index array or slice
        Which of the layer's channels axis 1 of `R` holds; all, unless the layer
        does not mix channels.

    Returns
    -------
    array, shape (K, C', H', W')
        Not to be written to: it may be `R`, or have one value in several places.
    """
    back = entry(_PASSES, trace.network.layers[index]).back
    projected = back(Back(trace, index, rule, arithmetic, channels), R)
    return projected.astype(arithmetic.dtype, copy=False)
