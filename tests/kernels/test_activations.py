"""Every row of the table of activations, against PyTorch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastdeconv.kernels.activations import ACTIVATIONS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

F = torch.nn.functional
WEIGHT = np.float32(0.3)

# Parameters that are tried, and the same function in PyTorch.
SAME: dict[str, tuple[list[dict[str, Any]], Callable[..., Any]]] = {
    "relu": ([{}], F.relu),
    "leaky_relu": ([{"negative_slope": s} for s in (0.01, 3.0, -1.5)], F.leaky_relu),
    "prelu": ([{"weight": np.array([WEIGHT])}],
              lambda x, weight: F.leaky_relu(x, float(weight[0]))),
    "elu": ([{"alpha": a} for a in (1.0, 0.3, 2.5, -0.5)], F.elu),
    "selu": ([{}], F.selu),
    "clip": ([{"min": a, "max": b} for a, b in (
        (0.0, 6.0), (-1.0, 2.5), (0.1, 0.1), (3.0, -3.0), (None, 1.0), (0.5, None), (None, None),
    )], lambda x, min, max: clip(x, min, max)),
    "tanh": ([{}], torch.tanh),
    "sigmoid": ([{}], torch.sigmoid),
    "silu": ([{}], F.silu),
    "gelu": ([{"approximate": a} for a in ("none", "tanh")], F.gelu),
    "hardsigmoid": ([{}], F.hardsigmoid),
    "hardswish": ([{}], F.hardswish),
    "softplus": ([{"beta": b, "threshold": t} for b, t in ((1.0, 20.0), (0.3, 5.0), (4.0, -2.0))],
                 F.softplus),
    "softsign": ([{}], F.softsign),
    "mish": ([{}], F.mish),
    "sin": ([{}], torch.sin),
    "exp": ([{}], torch.exp),
    "log": ([{}], torch.log),
    "power": ([{"exponent": e} for e in (2.0, 3.0, 1.0, 0.0, 0.5, -1.0, 0.3)], torch.pow),
    "abs": ([{}], torch.abs),
    "square": ([{}], torch.square),
    "sqrt": ([{}], torch.sqrt),
}
ROWS = [
    pytest.param(ACTIVATIONS[name], parameters, function, id=f"{name}{[*parameters.values()]}")
    for name, (tried, function) in SAME.items()
    for parameters in tried
]
EACH = pytest.mark.parametrize(("row", "parameters", "function"), ROWS)


def clip(x: Any, low: float | None, high: float | None) -> Any:
    """PyTorch's clamp, but flat at its bounds, as its hardtanh is."""
    bounds = -math.inf if low is None else low, math.inf if high is None else high
    inside = (x > bounds[0]) & (x < bounds[1])
    return torch.where(inside, x, x.detach().clamp(*bounds))


def places(row: Any, parameters: dict[str, Any], dtype: Any) -> np.ndarray:
    """Where it is looked at: densely near 0, at kinks, and far away."""
    kinks = [0.0, -0.0, 1, 3, 6, 0.1, 0.5, 2.5]
    far = [12.5, 20, 30, 80, 100, 1e4, 1e10, 1e30, 1e-6, 1e-20]
    x = np.array([*kinks, *far, *np.linspace(0, 12, 1501)], dtype)
    x = np.concatenate([x, -x])
    exponent = parameters.get("exponent")
    if row.name in ("log", "sqrt") or exponent in (0.5, 0.3, -1.0):
        x = x[x > 1e-15]
    if row.name == "exp":
        x = x[x < 88]
    return x[np.abs(x) < 1e12] if row.name in ("square", "power") else x


def close(found: np.ndarray, wanted: np.ndarray, digits: float) -> None:
    """Relative to 1, or to what is wanted where that is larger."""
    error = np.abs(found.astype(np.float64) - wanted) / np.maximum(1, np.abs(wanted))
    assert error.max() < digits


def test_every_row_is_compared_with_all_its_parameters():
    assert set(SAME) == set(ACTIVATIONS)
    for name, row in ACTIVATIONS.items():
        for parameters in SAME[name][0]:
            assert set(parameters) - {"weight"} == set(row.parameters)
            assert ("weight" in parameters) == row.has_weight


@EACH
@pytest.mark.parametrize(("dtype", "digits"), [(np.float64, 2e-14), (np.float32, 1e-6)])
def test_function_and_derivative_are_those_of_pytorch(row, parameters, function, dtype, digits):
    x = places(row, parameters, dtype)
    given = torch.tensor(x.astype(np.float64), requires_grad=True)
    value = function(given, **parameters)
    (slope,) = torch.autograd.grad(value.sum(), given)
    found = row.forward(x, **parameters)
    assert found.dtype == dtype and found.shape == x.shape
    close(found, value.detach().numpy(), digits)
    derivative = row.derivative(found if row.at_output else x, **parameters)
    kinds = (bool,) if row.at_output else (np.float32, np.float64)
    assert derivative.dtype in kinds and derivative.shape == x.shape
    if row.name == "hardsigmoid":  # whose 1 / 6 is a float32 in PyTorch
        digits = max(digits, 1e-7)
    close(derivative, slope.numpy(), digits)


@EACH
def test_nothing_is_steeper_than_the_steepest(row, parameters, function):
    x = places(row, parameters, np.float64)
    values = row.forward(x, **parameters) if row.at_output else x
    slope = np.abs(row.derivative(values, **parameters)).max()
    steepest = row.steepest(**parameters)
    assert slope <= steepest
    # Nor is the bound much larger, where there is one.
    assert steepest <= max(1.02 * slope, 1) or steepest == math.inf


@EACH
def test_arrays_of_any_shape_come_back_in_it(row, parameters, function):
    x = np.random.default_rng(0).uniform(0.1, 2, (2, 3, 4)).astype(np.float32)
    flat = row.forward(x.ravel(), **parameters)
    for given in (x, np.asfortranarray(x)):
        found = row.forward(given, **parameters)
        np.testing.assert_array_equal(found.ravel(), flat)


@EACH
def test_a_derivative_at_the_output_is_0_or_1(row, parameters, function):
    if row.at_output:
        x = places(row, parameters, np.float32)
        slope = row.derivative(row.forward(x, **parameters), **parameters)
        assert set(np.unique(slope)) <= {0, 1}


def test_relu_and_clip_from_0_go_by_the_rule_and_no_others():
    rectifying = [
        (row.values[0].name, *row.values[1].values())
        for row in ROWS
        if row.values[0].rectifies(**row.values[1])
    ]
    assert rectifying == [("relu",), ("clip", 0.0, 6.0)]
    assert ACTIVATIONS["clip"].rectifies(min=0.0, max=None)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "silu", "mish", "softplus", "elu"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_small_derivatives_keep_their_digits(name, dtype):
    """Where they are made from 1 minus what rounds to 1, none is left."""
    row = ACTIVATIONS[name]
    x = np.array([-25, -18, -9.5], dtype)
    slopes = row.derivative(x, **{key: p.default for key, p in row.parameters.items()})
    e, z = np.exp(x.astype(np.float64)), x.astype(np.float64)
    # The first terms of their series in exp(x); those left out are 1e-4 of them.
    wanted = {
        "sigmoid": e, "tanh": 4 * np.exp(2 * z), "silu": e * (1 + z), "mish": e * (1 + z),
        "softplus": e, "elu": e,
    }[name]
    np.testing.assert_allclose(slopes, wanted, rtol=1e-3)


def test_a_slope_for_each_channel():
    row = ACTIVATIONS["prelu"]
    x = np.array([[-2.0, 4.0], [-3.0, 0.0]], np.float32)[:, None]
    weight = np.array([0.5, -1.0], np.float32)[:, None, None]
    assert row.forward(x, weight=weight).tolist() == [[[-1, 4]], [[3, 0]]]
    assert row.derivative(x, weight=weight).tolist() == [[[0.5, 1]], [[-1, -1]]]
    assert row.steepest(weight=weight) == 1
    assert row.steepest(weight=3 * weight) == 3
