"""What the two passes through a layer are given, and what a family says of its types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import ParameterError
from ...kernels import reference
from ...kernels.interface import Backend, Pair, Window, switch_dtype
from ...network import layers as nn
from ...network.network import Network

__all__ = [
    "RULES", "Activations", "Arithmetic", "Array", "Back", "Passes", "always", "double",
    "each_feature", "entry", "never", "out_size", "size_of", "weight_and_bias",
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

    def conv_transpose2d(self, x: Array, weight: Array, bias: Array | None, window: Window,
                         groups: int, out_size: Pair) -> Array:
        return self._call("conv_transpose2d", x, weight, bias, window, groups, out_size)

    def max_pool2d(self, x: Array, window: Window, out_size: Pair) -> tuple[Array, Array]:
        values, switches = self._call("max_pool2d", x, window, out_size)
        return values, switches.astype(switch_dtype(window.kernel), copy=False)

    def max_unpool2d(self, values: Array, switches: Array, window: Window,
                     out_size: Pair) -> Array:
        return self._call("max_unpool2d", values, switches, window, out_size)


@dataclass(frozen=True)
class Back:
    """The way back through one layer, as `backward_layer` is asked for it."""

    trace: Activations
    index: int
    rule: str
    arithmetic: Arithmetic
    channels: Any

    @property
    def layer(self) -> Any:
        return self.trace.network.layers[self.index]

    @property
    def arrays(self) -> nn.Arrays:
        return self.trace.network.arrays

    @property
    def input(self) -> Array:
        """What the layer took going forward, (C, H, W), as far as its channels count here."""
        (below,) = self.trace.network.sources[self.index]
        x: Array = self.trace.activation(below)[self.channels]
        return x

    @property
    def input_size(self) -> Pair:
        """Height and width of that, without asking for the values, which may not be there."""
        (below,) = self.trace.network.sources[self.index]
        shape = self.trace.activation(-1).shape
        _, h, w = shape if below < 0 else self.trace.network.shapes(shape)[below]
        return h, w

    @property
    def output(self) -> Array:
        """What it made of it."""
        y: Array = self.trace.activation(self.index)[self.channels]
        return y


class Passes(NamedTuple):
    """What a type of layer does.

    Attributes
    ----------
    forward : callable
        ``forward(layer, arrays, x, arithmetic)``: the output for planes `x`, of a max pool
        with its switches. It may be of any dtype and memory order.
    back : callable
        ``back(at, R)``: from projections (K, C, H, W) at the output to those at the input.
    mixes : callable
        ``mixes(layer, rule)``: whether going back spreads one channel over several, or
        changes its number.
    """

    forward: Callable[[Any, nn.Arrays, Array, Arithmetic], Array | tuple[Array, Array]]
    back: Callable[[Back, Array], Array]
    mixes: Callable[[Any, str], bool]


_Entry = TypeVar("_Entry")


def entry(table: Mapping[type[nn.Layer], _Entry], layer: nn.Layer) -> _Entry:
    """What a table says of a layer; one it does not know never gets the entry of another."""
    if type(layer) not in table:
        raise ParameterError(f"{layer.label}: layers of this type cannot be computed")
    return table[type(layer)]


def always(layer: nn.Layer, rule: str) -> bool:
    return True


def never(layer: nn.Layer, rule: str) -> bool:
    return False


def double(x: Array) -> Array:
    """`x` in float64 and C order, in which NumPy's sums add in an order that the shape decides.

    Were they to convert while they add, they would do so in blocks of a fixed size, and equal
    rows could be rounded differently.
    """
    return np.ascontiguousarray(x, np.float64)


def each_feature(
    at: Back, R: Array, back: Callable[[Array], Array]  # noqa: N803
) -> Array:
    """`back` of one projection (C, H, W) after another, in float64.

    So no bit depends on how many there are, and few float64 values exist at a time.
    """
    out = np.empty((len(R), *at.input.shape), at.arithmetic.dtype)
    for projected, r in zip(out, R):
        projected[...] = back(double(r))
    return out


def size_of(x: Array) -> Pair:
    """(height, width) of planes."""
    return x.shape[-2], x.shape[-1]


def out_size(layer: nn.Layer, arrays: nn.Arrays, x: Array) -> Pair:
    """(height, width) of the layer's output for planes `x`."""
    _, height, width = layer.output_shape(x.shape, arrays)
    assert height is not None and width is not None
    return height, width


def weight_and_bias(layer: nn.Layer, arrays: nn.Arrays) -> tuple[Array, Array | None]:
    return arrays[f"{layer.name}.weight"], arrays.get(f"{layer.name}.bias")
