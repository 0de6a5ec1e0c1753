"""Every layer type, one at a time, forward and back: what the fast paths are tested against.

Activations are planes (C, H, W), projections (K, C, H, W). On the reference back end
everything stays in float64 from the input to the result; elsewhere in float32.

Rules of the way back (DeConvNet: Zeiler and Fergus, arXiv 1311.2901, section 2.1; guided
backpropagation: Springenberg et al., arXiv 1412.6806, section 3.4):

- ReLU: ``deconvnet`` max(0, R); ``guided`` max(0, R) where the activation was > 0, else 0;
  ``gradient`` R where the activation was > 0, else 0.
- Other activations: their true derivative under every rule.
- Batch norm and affine: times the scale. Biases are dropped.
- Max pool: to the switches; where windows overlap, values add.
- Convolution, linear layers, average pools: their adjoint.
- Local response norm: unchanged, except its true derivative under ``gradient``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ParameterError
from ..kernels import reference
from ..kernels.interface import Backend, Pair, Window, switch_dtype
from ..network import layers as nn
from ..network.network import Network

__all__ = [
    "Activations", "Arithmetic", "affine_of", "backward_layer", "forward_layer", "mixes",
    "probabilities",
]

Array = NDArray[Any]
RULES = ("deconvnet", "guided", "gradient")


class Activations(Protocol):
    """What the way back needs of a forward pass; layers by index, -1 is the input."""

    network: Network

    def activation(self, index: int) -> Array:
        """Output of a layer as planes (C, H, W)."""

    def switch_planes(self, index: int) -> Array:
        """Switches of a max-pooling layer as planes (C, H, W)."""


class Arithmetic:
    """A back end's operations, in float64 throughout when it is the reference."""

    def __init__(self, backend: Backend, num_threads: int) -> None:
        self._backend, self._threads = backend, num_threads
        self._exact = backend.name == "reference"
        self.dtype = np.float64 if self._exact else np.float32

    def _call(self, name: str, *args: Any) -> Any:
        if self._exact:
            return getattr(reference, name)(*args)
        arrays = [np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a for a in args]
        return getattr(self._backend, name)(*arrays, self._threads)

    def conv2d(self, x: Array, weight: Array, bias: Array | None, window: Window,
               groups: int, out_size: Pair) -> Array:
        return self._call("conv2d", x, weight, bias, window, groups, out_size)

    def conv_transpose2d(self, x: Array, weight: Array, window: Window, groups: int,
                         out_size: Pair) -> Array:
        return self._call("conv_transpose2d", x, weight, None, window, groups, out_size)

    def max_pool2d(self, x: Array, window: Window, out_size: Pair) -> tuple[Array, Array]:
        values, switches = self._call("max_pool2d", x, window, out_size)
        return values, switches.astype(switch_dtype(window.kernel), copy=False)

    def max_unpool2d(self, values: Array, switches: Array, window: Window,
                     out_size: Pair) -> Array:
        return self._call("max_unpool2d", values, switches, window, out_size)


# ---- forward ----


def forward_layer(
    net: Network, index: int, x: Array, arithmetic: Arithmetic
) -> tuple[Array, Array | None]:
    """Run one layer on planes (C, H, W).

    Returns
    -------
    (activation, switches), both planes; switches of a max pool only, else None
    """
    layer = net.layers[index]
    if isinstance(layer, nn.MaxPool2d):
        values, switches = arithmetic.max_pool2d(
            x[None], layer.window(_size(x), net.arrays), _out_size(net, index, x)
        )
        return values[0], switches[0]
    return _entry(_FORWARD, layer)(net, index, x, arithmetic), None


def _entry(table: Mapping[type[nn.Layer], Any], layer: nn.Layer) -> Any:
    """What a table says of a layer; one it does not know never gets the entry of another."""
    if type(layer) not in table:
        raise ParameterError(f"{layer.label}: layers of this type cannot be computed")
    return table[type(layer)]


def _size(x: Array) -> Pair:
    return x.shape[-2], x.shape[-1]


def _out_size(net: Network, index: int, x: Array) -> Pair:
    shape = net.layers[index].output_shape(x.shape, net.arrays)
    assert shape[1] is not None and shape[2] is not None
    return shape[1], shape[2]


def _params(net: Network, index: int) -> tuple[Array, Array | None]:
    name = net.layers[index].name
    return net.arrays[f"{name}.weight"], net.arrays.get(f"{name}.bias")


def _conv(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    layer: Any = net.layers[index]
    weight, bias = _params(net, index)
    window = layer.window(_size(x), net.arrays)
    out: Array = arithmetic.conv2d(
        x[None], weight, bias, window, layer.groups, _out_size(net, index, x)
    )[0]
    return out


def affine_of(net: Network, index: int) -> tuple[Array, Array]:
    """Scale and shift per channel, float64, of a batch norm or affine layer."""
    layer: Any = net.layers[index]
    get = net.arrays.__getitem__
    scale, shift = (get(f"{layer.name}.{k}").astype(np.float64) for k in ("weight", "bias"))
    if isinstance(layer, nn.BatchNorm2d):
        mean, var = get(f"{layer.name}.running_mean"), get(f"{layer.name}.running_var")
        scale = scale / np.sqrt(var.astype(np.float64) + layer.eps)
        shift = shift - mean * scale
    return scale, shift


def _affine(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    scale, shift = (a.astype(x.dtype)[:, None, None] for a in affine_of(net, index))
    return x * scale + shift


def _relu(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    return np.maximum(x, 0)


def _leaky_relu(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    layer: Any = net.layers[index]
    return np.where(x > 0, x, x * x.dtype.type(layer.negative_slope))


def _elu(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    layer: Any = net.layers[index]
    return np.where(x > 0, x, x.dtype.type(layer.alpha) * np.expm1(np.minimum(x, 0)))


def _tanh(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    out: Array = np.tanh(x)
    return out


def probabilities(kind: str, x: Array) -> Array:
    """Scores (C, H, W) as probabilities; `kind` is "softmax" (over the channels) or "sigmoid"."""
    return {"softmax": _softmax_of, "sigmoid": _sigmoid_of}[kind](x)


def _sigmoid_of(x: Array) -> Array:
    # exp of a non-positive number alone: no overflow, full precision on both sides.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype)


def _softmax_of(x: Array) -> Array:
    """Over the channels, float64."""
    shifted = np.exp(x.astype(np.float64) - x.max(axis=0))
    out: Array = shifted / shifted.sum(axis=0)
    return out


def _sigmoid(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    return _sigmoid_of(x)


def _softmax(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    return _softmax_of(x).astype(x.dtype)


def _neighbours(layer: Any, values: Array, *, adjoint: bool = False) -> Array:
    """Sums over the channels a local response norm looks at (or is looked at from)."""
    before, after = layer.size // 2, (layer.size - 1) // 2
    if adjoint:
        before, after = after, before
    total = np.zeros_like(values)
    for shift in range(-before, after + 1):
        lo, hi = max(0, -shift), values.shape[-3] - max(0, shift)
        if lo < hi:
            total[..., lo:hi, :, :] += values[..., lo + shift : hi + shift, :, :]
    return total


def _lrn_base(layer: Any, x: Array) -> Array:
    return layer.k + layer.alpha / layer.size * _neighbours(layer, x.astype(np.float64) ** 2)


def _lrn(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    layer: Any = net.layers[index]
    return (x * _lrn_base(layer, x) ** -layer.beta).astype(x.dtype)


def _pool_ends(start: Array, layer: Any, window: Window, axis: int, n: int) -> Array:
    """Where average-pool windows end: PyTorch counts padding, not what ceil_mode adds."""
    limit = n + window.padding[axis][1] if layer.count_include_pad else n
    return np.minimum(start + window.kernel[axis], limit)


def _avg_counts(layer: Any, window: Window, in_size: Pair, out_size: Pair) -> Array:
    """How many elements every average is taken over, (H', W')."""
    sides = []
    for axis in (0, 1):
        start = np.arange(out_size[axis]) * window.stride[axis] - window.padding[axis][0]
        end = _pool_ends(start, layer, window, axis, in_size[axis])
        sides.append(end - (start if layer.count_include_pad else np.maximum(start, 0)))
    return np.multiply.outer(*sides)


def _ones(channels: int, window: Window) -> Array:
    """Filters that sum every channel's windows.

    The reference's convolution adds in one fixed order; a matrix product would round
    equal windows differently.
    """
    return np.ones((channels, 1, *window.kernel))


def _avg_pool(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    layer: Any = net.layers[index]
    window, out_size = layer.window(_size(x), net.arrays), _out_size(net, index, x)
    sums = reference.conv2d(x[None], _ones(len(x), window), None, window, len(x), out_size)[0]
    return (sums / _avg_counts(layer, window, _size(x), out_size)).astype(x.dtype)


def _global_avg(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    mean = x.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    return mean.astype(x.dtype)


def _global_max(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    out: Array = x.max(axis=(1, 2), keepdims=True)
    return out


def _identity(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    return x


def _flatten(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    return x.reshape(-1, 1, 1)


def _linear(net: Network, index: int, x: Array, arithmetic: Arithmetic) -> Array:
    weight, bias = _params(net, index)
    # einsum: BLAS rounds differently with the number of its threads.
    out = np.einsum("oi,i->o", weight, x[:, 0, 0], dtype=np.float64)
    if bias is not None:
        out = out + bias
    return out.astype(x.dtype)[:, None, None]


_FORWARD: dict[type[nn.Layer], Callable[[Network, int, Array, Arithmetic], Array]] = {
    nn.Conv2d: _conv,
    nn.ReLU: _relu,
    nn.LeakyReLU: _leaky_relu,
    nn.ELU: _elu,
    nn.Tanh: _tanh,
    nn.Sigmoid: _sigmoid,
    nn.Softmax: _softmax,
    nn.BatchNorm2d: _affine,
    nn.Affine: _affine,
    nn.LocalResponseNorm: _lrn,
    nn.AvgPool2d: _avg_pool,
    nn.GlobalAvgPool2d: _global_avg,
    nn.GlobalMaxPool2d: _global_max,
    nn.Dropout: _identity,
    nn.Flatten: _flatten,
    nn.Linear: _linear,
}


# ---- back ----


def mixes(layer: nn.Layer, rule: str) -> bool:
    """Whether going back through a layer spreads one channel over several."""
    if isinstance(layer, nn.LocalResponseNorm):
        return rule == "gradient"
    return isinstance(layer, (nn.Conv2d, nn.Linear, nn.Flatten, nn.Softmax))


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
    """
    back = _entry(_BACKWARD, trace.network.layers[index])
    projected: Array = back(trace, index, R, rule, arithmetic, channels)
    return projected.astype(arithmetic.dtype, copy=False)


def _back_conv(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
               arithmetic: Arithmetic, channels: Any) -> Array:
    layer: Any = trace.network.layers[index]
    size = _size(trace.activation(index - 1))
    weight, _ = _params(trace.network, index)
    window = layer.window(size, trace.network.arrays)
    return arithmetic.conv_transpose2d(R, weight, window, layer.groups, size)


def _back_relu(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
               arithmetic: Arithmetic, channels: Any) -> Array:
    if rule != "gradient":
        R = np.maximum(R, 0)
    if rule != "deconvnet":
        R = np.where(trace.activation(index)[channels] > 0, R, 0)
    return R


def _leaky_relu_slope(layer: Any, x: Array) -> Array:
    return np.where(x > 0, 1.0, layer.negative_slope)


def _elu_slope(layer: Any, x: Array) -> Array:
    return np.where(x > 0, 1.0, layer.alpha * np.exp(np.minimum(x, 0)))


def _sigmoid_slope(layer: Any, x: Array) -> Array:
    # Not from the output: where that rounds to 1, 1 - y has no digit left.
    decay = np.exp(-np.abs(x.astype(np.float64)))
    out: Array = decay / (1 + decay) ** 2
    return out


def _tanh_slope(layer: Any, x: Array) -> Array:
    return 4 * _sigmoid_slope(layer, 2 * x)  # tanh(x) = 2 sigmoid(2 x) - 1


_SLOPES: dict[type[nn.Layer], Callable[[Any, Array], Array]] = {
    nn.LeakyReLU: _leaky_relu_slope,
    nn.ELU: _elu_slope,
    nn.Tanh: _tanh_slope,
    nn.Sigmoid: _sigmoid_slope,
}
"""Derivatives of the activations at their input; a ReLU goes by the rule instead."""


def _back_activation(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
                     arithmetic: Arithmetic, channels: Any) -> Array:
    layer, x = trace.network.layers[index], trace.activation(index - 1)[channels]
    return R * _entry(_SLOPES, layer)(layer, x).astype(arithmetic.dtype)


def _back_softmax(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
                  arithmetic: Arithmetic, channels: Any) -> Array:
    p = _softmax_of(trace.activation(index - 1))
    out: Array = p * (R - (p * R).sum(axis=1, keepdims=True))
    return out


def _back_affine(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
                 arithmetic: Arithmetic, channels: Any) -> Array:
    scale = affine_of(trace.network, index)[0].astype(arithmetic.dtype)
    return R * scale[channels][:, None, None]


def _back_lrn(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
              arithmetic: Arithmetic, channels: Any) -> Array:
    if rule != "gradient":
        return R
    layer: Any = trace.network.layers[index]
    x = trace.activation(index - 1).astype(np.float64)
    base = _lrn_base(layer, x)
    spread = _neighbours(layer, R * x * base ** (-layer.beta - 1), adjoint=True)
    out: Array = R * base**-layer.beta - 2 * layer.alpha * layer.beta / layer.size * x * spread
    return out


def _back_max_pool(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
                   arithmetic: Arithmetic, channels: Any) -> Array:
    layer: Any = trace.network.layers[index]
    size = _size(trace.activation(index - 1))
    switches = np.broadcast_to(trace.switch_planes(index)[channels], R.shape)
    window = layer.window(size, trace.network.arrays)
    return arithmetic.max_unpool2d(R, switches, window, size)


def _back_avg_pool(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
                   arithmetic: Arithmetic, channels: Any) -> Array:
    layer: Any = trace.network.layers[index]
    size = _size(trace.activation(index - 1))
    window = layer.window(size, trace.network.arrays)
    shares = R / _avg_counts(layer, window, size, _size(R))
    count = R.shape[1]
    return reference.conv_transpose2d(
        shares, _ones(count, window), None, window, count, size
    )


def _back_global_avg(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
                     arithmetic: Arithmetic, channels: Any) -> Array:
    h, w = _size(trace.activation(index - 1))
    return np.broadcast_to(R / (h * w), (*R.shape[:2], h, w))


def _back_global_max(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
                     arithmetic: Arithmetic, channels: Any) -> Array:
    x = trace.activation(index - 1)[channels]
    flat = x.reshape(len(x), -1)
    out = np.zeros((*R.shape[:2], flat.shape[1]), R.dtype)
    out[:, np.arange(len(x)), flat.argmax(axis=1)] = R[:, :, 0, 0]
    return out.reshape(*R.shape[:2], *_size(x))


def _back_identity(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
                   arithmetic: Arithmetic, channels: Any) -> Array:
    return R


def _back_flatten(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
                  arithmetic: Arithmetic, channels: Any) -> Array:
    return R.reshape(len(R), *trace.activation(index - 1).shape)


def _back_linear(trace: Activations, index: int, R: Array, rule: str,  # noqa: N803
                 arithmetic: Arithmetic, channels: Any) -> Array:
    weight, _ = _params(trace.network, index)
    # einsum, one feature at a time: BLAS rounds differently with the number of features.
    rows = [np.einsum("o,oi->i", r, weight, dtype=np.float64) for r in R[:, :, 0, 0]]
    return np.stack(rows)[:, :, None, None]


_BACKWARD: dict[type[nn.Layer], Callable[..., Array]] = {
    nn.Conv2d: _back_conv,
    nn.ReLU: _back_relu,
    nn.LeakyReLU: _back_activation,
    nn.ELU: _back_activation,
    nn.Tanh: _back_activation,
    nn.Sigmoid: _back_activation,
    nn.Softmax: _back_softmax,
    nn.BatchNorm2d: _back_affine,
    nn.Affine: _back_affine,
    nn.LocalResponseNorm: _back_lrn,
    nn.MaxPool2d: _back_max_pool,
    nn.AvgPool2d: _back_avg_pool,
    nn.GlobalAvgPool2d: _back_global_avg,
    nn.GlobalMaxPool2d: _back_global_max,
    nn.Dropout: _back_identity,
    nn.Flatten: _back_flatten,
    nn.Linear: _back_linear,
}
