"""Activation functions, one row of one table each.

A row holds everything that this package knows about an activation: its name in archives, its
parameters, the function, its derivative, and how the rules treat it on the way back. Layer
records, the forward pass, the way back and the bounds against overflow all read this table and
keep no list of their own. To add an activation, add a row.

Functions take an array of floats of any shape and return an array of the same shape and type.
Derivatives are taken at the input of the activation. They are returned in float64 where float32
would lose digits. Where a function has a kink, its derivative there is PyTorch's: 0 at the kink
of a ReLU and at the bounds of a clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACTIVATIONS", "Activation", "InKernel", "Parameter", "sigmoid"]

Array = NDArray[Any]


class InKernel(NamedTuple):
    """How to ask csrc/activate.h for an activation: its name there, and its parameters a and b."""

    name: str
    a: float = 0.0
    b: float = 0.0


class Parameter(NamedTuple):
    """A parameter of an activation, as it stands in the record of a layer."""

    default: float | str | None
    above: float = -math.inf
    """A number has to be larger than this."""
    choices: tuple[str, ...] = ()
    """The words allowed, where the parameter is a word and not a number."""


def _always(**parameters: Any) -> bool:
    return True


def _never(**parameters: Any) -> bool:
    return False


@dataclass(frozen=True)
class Activation:
    """A row of the table.

    Attributes
    ----------
    name : str
        The type of the layer in archives.
    title : str
        The name of its class in PyTorch.
    formula : str
        What it computes, in one line.
    forward, derivative : callable
        ``forward(x, **parameters)``, and ``derivative(x, **parameters)`` at the same ``x``. Where
        `at_output` is true, ``derivative`` is given the output instead.
    steepest : callable
        ``steepest(**parameters)``: the largest absolute value of the derivative.
    parameters : mapping of str to Parameter
    rectifies : callable
        ``rectifies(**parameters)``: whether the rules treat it as a ReLU. Under every rule, all
        other activations are gone back through by their derivative.
    at_output : bool
        Whether the derivative can be told from the output. `derivative`
        then returns an array of bool: it is 0 or 1 everywhere.
    has_weight : bool
        Whether there is a parameter ``weight``: an array of the network, with one number for each
        channel or one for all channels.
    largest : callable
        ``largest(**parameters)``, without `weight`: the largest absolute value that the function
        can reach.
    in_kernel : callable
        ``in_kernel(**parameters)``, without `weight`: how to ask the C kernels to compute it
        together with the layer before it. None if they cannot; NumPy computes it then.
    """

    name: str
    title: str
    formula: str
    forward: Callable[..., Array]
    derivative: Callable[..., Array]
    steepest: Callable[..., float]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    rectifies: Callable[..., bool] = _never
    at_output: bool = False
    has_weight: bool = False
    largest: Callable[..., float] = lambda **parameters: math.inf
    in_kernel: Callable[..., InKernel | None] = lambda **parameters: None


def _typed(x: Array, number: float) -> Any:
    """A parameter, in the type of the values that it is compared with."""
    return x.dtype.type(number)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow, with all digits on both sides of 0."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype)


def _sigmoid_slope(x: Array) -> Array:
    # Not y (1 - y) from the output y: where y rounds to 1, no digit of 1 - y is left.
    decay = np.exp(-np.abs(x.astype(np.float64)))
    out: Array = decay / (1 + decay) ** 2
    return out


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def _relu_slope(y: Array) -> Array:
    return y > 0


def _clip(x: Array, min: float | None, max: float | None) -> Array:
    return np.clip(x, -math.inf if min is None else min, math.inf if max is None else max)


def _clip_slope(y: Array, min: float | None, max: float | None) -> Array:
    above = True if min is None else y > _typed(y, min)
    below = True if max is None else y < _typed(y, max)
    return np.broadcast_to(above & below, y.shape)


def _leaky(x: Array, negative_slope: Any) -> Array:
    return np.where(x > 0, x, x * np.asarray(negative_slope, x.dtype))


def _leaky_slope(x: Array, negative_slope: Any) -> Array:
    return np.where(x > 0, 1.0, negative_slope)


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, _typed(x, alpha) * np.expm1(np.minimum(x, 0)))


def _elu_slope(x: Array, alpha: float) -> Array:
    return np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0)))


# Klambauer et al., arXiv 1706.02515.
_SELU_ALPHA = 1.6732632423543772
_SELU_SCALE = 1.0507009873554805


def _selu(x: Array) -> Array:
    return _typed(x, _SELU_SCALE) * _elu(x, _SELU_ALPHA)


def _selu_slope(x: Array) -> Array:
    return _SELU_SCALE * _elu_slope(x, _SELU_ALPHA)


def _tanh_slope(x: Array) -> Array:
    return 4 * _sigmoid_slope(2 * x)  # tanh(x) = 2 sigmoid(2 x) - 1


def _silu(x: Array) -> Array:
    return x * sigmoid(x)


def _silu_slope(x: Array) -> Array:
    exact = x.astype(np.float64)
    return sigmoid(exact) + exact * _sigmoid_slope(exact)


# Hendrycks and Gimpel, arXiv 1606.08415: x / 2 (1 + tanh u), which is x sigmoid(2 u).
_GELU_SCALE = 2 * math.sqrt(2 / math.pi)
_GELU_CUBE = 0.044715
_GELU_ENDS = 30.0
"""For larger absolute values the sigmoid is 0 or 1, and the cube might overflow."""


def _gelu(x: Array, approximate: str) -> Array:
    if approximate == "tanh":
        return x * sigmoid(_gelu_argument(x))
    from scipy.special import ndtr

    return (x * ndtr(x)).astype(x.dtype)


def _gelu_argument(x: Array) -> Array:
    x = np.clip(x, -_GELU_ENDS, _GELU_ENDS)
    return _GELU_SCALE * (x + _GELU_CUBE * x**3)


def _gelu_slope(x: Array, approximate: str) -> Array:
    x = x.astype(np.float64)
    if approximate == "tanh":
        inner = _gelu_argument(x)
        rise = _GELU_SCALE * (1 + 3 * _GELU_CUBE * np.square(x))
        return sigmoid(inner) + x * _sigmoid_slope(inner) * rise
    from scipy.special import ndtr

    density = np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)
    out: Array = ndtr(x) + x * density
    return out


def _hardsigmoid(x: Array) -> Array:
    out: Array = np.clip(x + 3, 0, 6) / _typed(x, 6)
    return out


def _hardsigmoid_slope(x: Array) -> Array:
    return np.where(np.abs(x) < 3, 1 / 6, 0.0)


def _hardswish(x: Array) -> Array:
    return x * _hardsigmoid(x)


def _hardswish_slope(x: Array) -> Array:
    x = x.astype(np.float64)
    return np.where(np.abs(x) < 3, x / 3 + 0.5, (x > 0).astype(x.dtype))


def _softplus(x: Array, beta: float, threshold: float) -> Array:
    scaled = x * _typed(x, beta)
    # log(1 + exp(s)) = max(s, 0) + log(1 + exp(-|s|)), without overflow.
    smooth = np.maximum(scaled, 0) + np.log1p(np.exp(-np.abs(scaled)))
    return np.where(scaled > threshold, x, smooth / _typed(x, beta))


def _softplus_slope(x: Array, beta: float, threshold: float) -> Array:
    scaled = x.astype(np.float64) * beta
    return np.where(scaled > threshold, 1.0, sigmoid(scaled))


def _softsign(x: Array) -> Array:
    out: Array = x / (1 + np.abs(x))
    return out


def _softsign_slope(x: Array) -> Array:
    out: Array = (1 + np.abs(x.astype(np.float64))) ** -2.0
    return out


def _mish(x: Array) -> Array:
    return x * np.tanh(_softplus(x, 1.0, math.inf))


def _mish_slope(x: Array) -> Array:
    x = x.astype(np.float64)
    plus = _softplus(x, 1.0, math.inf)
    out: Array = np.tanh(plus) + x * _tanh_slope(plus) * sigmoid(x)
    return out


def _power(x: Array, exponent: float) -> Array:
    out: Array = x ** _typed(x, exponent)
    return out


def _power_slope(x: Array, exponent: float) -> Array:
    if exponent == 0:  # also where 0 to the power of -1 is infinite
        return np.zeros_like(x)
    out: Array = exponent * x.astype(np.float64) ** (exponent - 1)
    return out


def _sqrt_slope(x: Array) -> Array:
    out: Array = 0.5 / np.sqrt(x.astype(np.float64))
    return out


def _unbounded(**parameters: Any) -> float:
    return math.inf


def _at_most(slope: float) -> Callable[..., float]:
    return lambda **parameters: slope


def _named(name: str) -> Callable[..., InKernel]:
    return lambda **parameters: InKernel(name)


def _larger_end(min: float | None, max: float | None) -> float:
    return math.inf if min is None or max is None else float(np.abs([min, max]).max())


def _clip_in_kernel(min: float | None, max: float | None) -> InKernel:
    return InKernel("clip", -math.inf if min is None else min, math.inf if max is None else max)


def _gelu_in_kernel(approximate: str) -> InKernel:
    return InKernel("gelu_tanh" if approximate == "tanh" else "gelu")


def _largest_weight(weight: Array) -> float:
    return max(1.0, float(np.abs(weight).max()))


_TABLE = (
    Activation("relu", "ReLU", "max(0, x)", _relu, _relu_slope, _at_most(1),
               rectifies=_always, at_output=True, in_kernel=_named("relu")),
    Activation("leaky_relu", "LeakyReLU", "x where positive, `negative_slope` x elsewhere",
               _leaky, _leaky_slope, lambda negative_slope: max(1.0, abs(negative_slope)),
               {"negative_slope": Parameter(0.01)},
               in_kernel=lambda negative_slope: InKernel("leaky", negative_slope)),
    Activation("prelu", "PReLU", "x where positive, `weight` x elsewhere",
               lambda x, weight: _leaky(x, weight), lambda x, weight: _leaky_slope(x, weight),
               _largest_weight, has_weight=True, in_kernel=_named("leaky")),
    Activation("elu", "ELU", "x where positive, `alpha` (exp(x) - 1) elsewhere",
               _elu, _elu_slope, lambda alpha: max(1.0, abs(alpha)), {"alpha": Parameter(1.0)},
               in_kernel=lambda alpha: InKernel("elu", alpha, 1.0)),
    Activation("selu", "SELU", "1.0507 x where positive, 1.7581 (exp(x) - 1) elsewhere",
               _selu, _selu_slope, _at_most(1.7581),
               in_kernel=lambda: InKernel("elu", _SELU_ALPHA, _SELU_SCALE)),
    Activation("clip", "Clip", "not below `min` and not above `max`", _clip, _clip_slope,
               _at_most(1), {"min": Parameter(None), "max": Parameter(None)},
               rectifies=lambda min, max: min == 0, at_output=True, largest=_larger_end,
               in_kernel=_clip_in_kernel),
    Activation("tanh", "Tanh", "hyperbolic tangent", np.tanh, _tanh_slope, _at_most(1),
               largest=_at_most(1), in_kernel=_named("tanh")),
    Activation("sigmoid", "Sigmoid", "1 / (1 + exp(-x))", sigmoid, _sigmoid_slope, _at_most(0.25),
               largest=_at_most(1), in_kernel=_named("sigmoid")),
    Activation("silu", "SiLU", "x sigmoid(x)", _silu, _silu_slope, _at_most(1.1),
               in_kernel=_named("silu")),
    Activation("gelu", "GELU", "x times the standard normal distribution function",
               _gelu, _gelu_slope, _at_most(1.13),
               {"approximate": Parameter("none", choices=("none", "tanh"))},
               in_kernel=_gelu_in_kernel),
    Activation("hardsigmoid", "Hardsigmoid", "(x + 3) / 6, from 0 to 1",
               _hardsigmoid, _hardsigmoid_slope, _at_most(1 / 6), largest=_at_most(1),
               in_kernel=_named("hardsigmoid")),
    Activation("hardswish", "Hardswish", "x hardsigmoid(x)",
               _hardswish, _hardswish_slope, _at_most(1.5), in_kernel=_named("hardswish")),
    Activation("softplus", "Softplus", "log(1 + exp(`beta` x)) / `beta`; x above `threshold`",
               _softplus, _softplus_slope, _at_most(1),
               {"beta": Parameter(1.0, above=0.0), "threshold": Parameter(20.0)}),
    Activation("softsign", "Softsign", "x / (1 + abs(x))", _softsign, _softsign_slope, _at_most(1),
               largest=_at_most(1), in_kernel=_named("softsign")),
    Activation("mish", "Mish", "x tanh(softplus(x))", _mish, _mish_slope, _at_most(1.1),
               in_kernel=_named("mish")),
    Activation("sin", "Sin", "sine", np.sin, lambda x: np.cos(x.astype(np.float64)), _at_most(1),
               largest=_at_most(1)),
    Activation("exp", "Exp", "exp(x)", np.exp, np.exp, _unbounded),
    Activation("log", "Log", "natural logarithm", np.log, lambda x: 1 / x, _unbounded),
    Activation("power", "Power", "x to the power of `exponent`", _power, _power_slope, _unbounded,
               {"exponent": Parameter(2.0)}),
    Activation("abs", "Abs", "abs(x)", np.abs, np.sign, _at_most(1), in_kernel=_named("abs")),
    Activation("square", "Square", "x x", np.square, lambda x: 2 * x, _unbounded,
               in_kernel=_named("square")),
    Activation("sqrt", "Sqrt", "square root", np.sqrt, _sqrt_slope, _unbounded),
)

#: The rows by name.
ACTIVATIONS: dict[str, Activation] = {row.name: row for row in _TABLE}
