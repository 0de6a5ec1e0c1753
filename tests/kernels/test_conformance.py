"""One suite for every back end and instruction set of this machine.

The oracle is `fastdeconv.kernels.reference` in float64, itself held against
PyTorch, SciPy, nested loops and the adjoint identity. Float results must lie
within the rounding bound that any order of summation obeys; results that are
exact in float32 (small integers, maxima, switches) must be equal.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdeconv
from fastdeconv.kernels import interface, reference

ops = fastdeconv.ops

PROPERTY = settings(derandomize=True, max_examples=40, deadline=None)

IMPLEMENTATIONS = [("native", isa) for isa in fastdeconv.available_isas()] + [
    (name, None) for name in fastdeconv.available_backends() if name != "native"
]


@pytest.fixture(
    scope="module",
    params=IMPLEMENTATIONS,
    ids=["-".join(filter(None, pair)) for pair in IMPLEMENTATIONS],
)
def on(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings that choose one implementation: ``with fastdeconv.config(**on)``."""
    backend, isa = request.param
    return {"backend": backend, "isa": isa}


# Cases


class Case(NamedTuple):
    """Input, filters and geometry, and what they resolve to."""

    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None
    geometry: dict[str, Any]
    window: interface.Window
    out_size: tuple[int, int]

    @property
    def groups(self) -> int:
        return self.geometry["groups"]

    @property
    def in_size(self) -> tuple[int, int]:
        return self.x.shape[2:]


class Pool(NamedTuple):
    x: np.ndarray
    kernel: tuple[int, int]
    geometry: dict[str, Any]
    window: interface.Window
    out_size: tuple[int, int]


def integers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(-3, 4, shape).astype(np.float32)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def flat(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, rng.choice([0.0, -0.1, 7.3]), np.float32)


def extreme(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = np.array([np.nan, -np.inf, np.inf, -0.0, 0.0, 1.0, -1.0], np.float32)
    return rng.choice(values, shape, p=[0.08, 0.3, 0.04, 0.2, 0.2, 0.09, 0.09])


PAIRS_3 = st.tuples(st.integers(1, 3), st.integers(1, 3))
SIDES = st.tuples(st.integers(0, 3), st.integers(0, 3))
PADDINGS = st.one_of(
    st.sampled_from(["same", "valid"]), st.integers(0, 3), SIDES, st.tuples(SIDES, SIDES)
)


@st.composite
def windows(draw: st.DrawFn, padding: st.SearchStrategy[Any]) -> tuple[Any, ...]:
    """Kernel, stride, dilation, padding, and an input size that is large enough."""
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride, dilation, pad = draw(PAIRS_3), draw(PAIRS_3), draw(padding)
    extent = interface.Window(kernel, stride, dilation, ((0, 0), (0, 0))).extent
    smallest = [1, 1]
    if pad != "same":
        sides = interface.resolve_padding(pad, (1, 1), kernel, stride, dilation)
        smallest = [max(1, e - sum(p)) for e, p in zip(extent, sides, strict=True)]
    size = tuple(n + draw(st.integers(0, 9)) for n in smallest)
    return kernel, size, {"stride": stride, "dilation": dilation, "padding": pad}


@st.composite
def conv_cases(draw: st.DrawFn, values: Any = None, padding: Any = PADDINGS) -> Case:
    kernel, size, geometry = draw(windows(padding))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 5), (5, 4)]))
    batch = draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    fill = values or draw(st.sampled_from([normal, integers, flat]))
    x = fill(rng, (batch, groups * inputs, *size))
    weight = (values or normal)(rng, (groups * outputs, inputs, *kernel))
    bias = (values or normal)(rng, (groups * outputs,)) if draw(st.booleans()) else None
    return conv_case(x, weight, bias, groups=groups, **geometry)


def conv_case(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    padding: Any = 0,
    groups: int = 1,
) -> Case:
    geometry = {"stride": stride, "dilation": dilation, "padding": padding}
    window = interface.conv_window(weight.shape[2:], x.shape[2:], **geometry)
    out_size = interface.conv_output_size(x.shape[2:], window)
    return Case(x, weight, bias, {**geometry, "groups": groups}, window, out_size)


@st.composite
def pool_cases(draw: st.DrawFn, values: Any = None) -> Pool:
    kernel, size, geometry = draw(windows(PADDINGS))
    geometry["ceil_mode"] = draw(st.booleans())
    if draw(st.booleans()):
        geometry["stride"] = None
    ceil_mode = geometry.pop("ceil_mode")
    window = interface.pool_window(kernel, size, **geometry)
    try:
        out_size = interface.pool_output_size(size, window, ceil_mode=ceil_mode)
    except fastdeconv.ParameterError:  # a window wholly in the padding
        geometry["padding"] = 0
        size = tuple(max(n, e) for n, e in zip(size, window.extent, strict=True))
        window = interface.pool_window(kernel, size, **geometry)
        out_size = interface.pool_output_size(size, window)
        ceil_mode = False
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 3)), *size)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    fill = values or draw(st.sampled_from([normal, integers, flat, extreme]))
    return Pool(fill(rng, shape), kernel, {**geometry, "ceil_mode": ceil_mode}, window, out_size)


def run_pool(case: Pool) -> tuple[np.ndarray, np.ndarray]:
    return ops.max_pool2d(case.x, case.kernel, **case.geometry)


def run_unpool(values: np.ndarray, switches: np.ndarray, case: Pool) -> np.ndarray:
    geometry = {key: case.geometry[key] for key in ("stride", "padding", "dilation")}
    return ops.max_unpool2d(values, switches, case.x.shape[2:], case.kernel, **geometry)


# Comparisons


def bits(array: np.ndarray) -> np.ndarray:
    """Float32 as its bits; every NaN as the same one, its payload means nothing."""
    array = np.where(np.isnan(array), np.float32(np.nan), array)
    return np.ascontiguousarray(array, np.float32).view(np.uint32)


def assert_within_rounding(got: np.ndarray, want: np.ndarray, size: np.ndarray, n: int) -> None:
    """|got - want| <= n eps size, with `size` the sum of the absolute values of n terms."""
    assert got.dtype == np.float32
    assert got.shape == want.shape
    bound = n * 2.0**-23 * size + np.finfo(np.float32).tiny
    worst = np.max(np.abs(got - want) / bound, initial=0)
    assert worst <= 1, f"error is {worst:.3g} times the rounding bound"


def check_conv(case: Case) -> None:
    got = ops.conv2d(case.x, case.weight, case.bias, **case.geometry)
    rest = case.window, case.groups, case.out_size
    want = reference.conv2d(case.x, case.weight, case.bias, *rest)
    bias = None if case.bias is None else np.abs(case.bias)
    size = reference.conv2d(np.abs(case.x), np.abs(case.weight), bias, *rest)
    assert_within_rounding(got, want, size, case.weight[0].size + 1)


def check_conv_transpose(case: Case, y: np.ndarray, bias: np.ndarray | None) -> None:
    got = ops.conv_transpose2d(y, case.weight, case.in_size, bias, **case.geometry)
    rest = case.window, case.groups, case.in_size
    want = reference.conv_transpose2d(y, case.weight, bias, *rest)
    absolute = None if bias is None else np.abs(bias)
    size = reference.conv_transpose2d(np.abs(y), np.abs(case.weight), absolute, *rest)
    assert_within_rounding(got, want, size, case.weight[:, 0].size // case.groups + 1)


def output_like(case: Case, values: Any = normal) -> np.ndarray:
    """A signal of the shape of the convolution's output."""
    return values(np.random.default_rng(7), (len(case.x), len(case.weight), *case.out_size))


# The oracle against independent ground truth


@PROPERTY
@given(conv_cases())
def test_oracle_convolves_as_pytorch_in_float64(case: Case) -> None:
    torch = pytest.importorskip("torch")
    got = reference.conv2d(case.x, case.weight, case.bias, case.window, case.groups, case.out_size)
    (top, bottom), (left, right) = case.window.padding
    x = torch.nn.functional.pad(torch.from_numpy(case.x).double(), (left, right, top, bottom))
    want = torch.nn.functional.conv2d(
        x,
        torch.from_numpy(case.weight).double(),
        None if case.bias is None else torch.from_numpy(case.bias).double(),
        stride=case.window.stride,
        dilation=case.window.dilation,
        groups=case.groups,
    )
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-12, atol=1e-12)


@PROPERTY
@given(conv_cases(padding=st.integers(0, 3)))
def test_oracle_transposed_convolution_is_pytorchs_gradient(case: Case) -> None:
    torch = pytest.importorskip("torch")
    y = output_like(case)
    got = reference.conv_transpose2d(y, case.weight, None, case.window, case.groups, case.in_size)
    x = torch.zeros(case.x.shape, dtype=torch.float64, requires_grad=True)
    out = torch.nn.functional.conv2d(x, torch.from_numpy(case.weight).double(), **case.geometry)
    out.backward(torch.from_numpy(y).double())
    np.testing.assert_allclose(got, x.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 5)])
def test_oracle_transposed_convolution_is_pytorchs(stride: int, kernel: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    y, weight = normal(rng, (2, 4, 5, 6)), normal(rng, (4, 3, *kernel))
    want = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(y).double(), torch.from_numpy(weight).double(), stride=stride
    ).numpy()
    window = interface.conv_window(kernel, want.shape[2:], stride=stride, padding=0, dilation=1)
    got = reference.conv_transpose2d(y, weight, None, window, 1, want.shape[2:])
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@PROPERTY
@given(pool_cases(values=integers))
def test_oracle_pools_as_pytorch_ties_included(case: Pool) -> None:
    torch = pytest.importorskip("torch")
    (top, bottom), (left, right) = case.window.padding
    x = torch.nn.functional.pad(
        torch.from_numpy(case.x).double(), (left, right, top, bottom), value=-torch.inf
    )
    if 0 in x.shape:
        return
    values, places = torch.nn.functional.max_pool2d(
        x, case.kernel, case.window.stride, 0, case.window.dilation, return_indices=True
    )
    rows, cols = values.shape[2:]
    if (rows, cols) != case.out_size:  # ceil_mode: PyTorch has no padding of its own to add
        assert case.geometry["ceil_mode"]
        return
    got, switches = reference.max_pool2d(case.x, case.window, case.out_size)
    y, x_ = np.divmod(places.numpy(), x.shape[3])
    ky = (y - np.arange(rows)[:, None] * case.window.stride[0]) // case.window.dilation[0]
    kx = (x_ - np.arange(cols) * case.window.stride[1]) // case.window.dilation[1]
    np.testing.assert_array_equal(got, values.numpy())
    np.testing.assert_array_equal(switches, ky * case.kernel[1] + kx)


@pytest.mark.parametrize("padding", [0, 1])
def test_oracle_pools_with_ceil_mode_as_pytorch(padding: int) -> None:
    torch = pytest.importorskip("torch")
    x = normal(np.random.default_rng(2), (1, 2, 8, 9))
    for stride in (2, 3, 4):
        want = torch.nn.functional.max_pool2d(
            torch.from_numpy(x), 3, stride, padding, ceil_mode=True
        )
        window = interface.pool_window(3, (8, 9), stride=stride, padding=padding, dilation=1)
        size = interface.pool_output_size((8, 9), window, ceil_mode=True)
        np.testing.assert_array_equal(reference.max_pool2d(x, window, size)[0], want.numpy())


@pytest.mark.parametrize("kernel", [(3, 3), (2, 5), (4, 1)])
def test_oracle_convolves_as_scipy(kernel: tuple[int, int]) -> None:
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(3)
    x, weight = normal(rng, (1, 1, 7, 8)), normal(rng, (1, 1, *kernel))
    case = conv_case(x, weight)
    got = reference.conv2d(x, weight, None, case.window, 1, case.out_size)
    want = signal.correlate2d(x[0, 0].astype(float), weight[0, 0].astype(float), mode="valid")
    np.testing.assert_allclose(got[0, 0], want, rtol=1e-12, atol=1e-12)
    back = reference.conv_transpose2d(got, weight, None, case.window, 1, case.in_size)
    full = signal.convolve2d(got[0, 0], weight[0, 0].astype(float), mode="full")
    np.testing.assert_allclose(back[0, 0], full, rtol=1e-12, atol=1e-12)


@PROPERTY
@given(conv_cases(values=integers))
def test_oracle_transposed_convolution_is_the_adjoint(case: Case) -> None:
    y = output_like(case, integers)
    geometry = case.window, case.groups
    forward = reference.conv2d(case.x, case.weight, None, *geometry, case.out_size)
    back = reference.conv_transpose2d(y, case.weight, None, *geometry, case.in_size)
    assert np.sum(forward * y) == np.sum(case.x * back)


def pool_by_loops(
    x: np.ndarray, window: interface.Window, out_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    values, switches = np.empty(out_size), np.empty(out_size, int)
    for i, j in np.ndindex(*out_size):
        seen = []
        for ky, kx in np.ndindex(*window.kernel):
            y = i * window.stride[0] + ky * window.dilation[0] - window.padding[0][0]
            z = j * window.stride[1] + kx * window.dilation[1] - window.padding[1][0]
            if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
                seen.append((x[y, z], ky * window.kernel[1] + kx))
        nans = [pair for pair in seen if np.isnan(pair[0])]
        # max() keeps the first of equals.
        values[i, j], switches[i, j] = nans[0] if nans else max(seen, key=lambda pair: pair[0])
    return values, switches


@PROPERTY
@given(pool_cases(values=extreme))
def test_oracle_pools_as_nested_loops_ties_nans_and_infinities_included(case: Pool) -> None:
    values, switches = reference.max_pool2d(case.x, case.window, case.out_size)
    for n, c in np.ndindex(*case.x.shape[:2]):
        want = pool_by_loops(case.x[n, c], case.window, case.out_size)
        np.testing.assert_array_equal(values[n, c], want[0])
        np.testing.assert_array_equal(switches[n, c], want[1])


@PROPERTY
@given(pool_cases(values=integers))
def test_oracle_unpooling_is_the_adjoint_of_picking_the_maxima(case: Pool) -> None:
    pooled, switches = reference.max_pool2d(case.x, case.window, case.out_size)
    signal = integers(np.random.default_rng(4), pooled.shape)
    back = reference.max_unpool2d(signal, switches, case.window, case.x.shape[2:])
    assert np.sum(back * case.x) == np.sum(signal * pooled)


# Convolution


@PROPERTY
@given(conv_cases())
def test_conv2d_is_the_oracles_up_to_rounding(on: dict[str, Any], case: Case) -> None:
    with fastdeconv.config(**on):
        check_conv(case)


@PROPERTY
@given(conv_cases(), st.booleans())
def test_conv_transpose2d_is_the_oracles_up_to_rounding(
    on: dict[str, Any], case: Case, with_bias: bool
) -> None:
    bias = normal(np.random.default_rng(5), (case.x.shape[1],)) if with_bias else None
    with fastdeconv.config(**on):
        check_conv_transpose(case, output_like(case), bias)


@PROPERTY
@given(conv_cases(values=integers))
def test_convolutions_of_small_integers_are_exact_and_adjoint(
    on: dict[str, Any], case: Case
) -> None:
    y = output_like(case, integers)
    with fastdeconv.config(**on):
        forward = ops.conv2d(case.x, case.weight, **case.geometry)
        back = ops.conv_transpose2d(y, case.weight, case.in_size, **case.geometry)
    want = reference.conv2d(case.x, case.weight, None, case.window, case.groups, case.out_size)
    np.testing.assert_array_equal(forward, want)
    assert np.sum(forward.astype(float) * y) == np.sum(back.astype(float) * case.x)


CHANNELS = [(1, 1), (1, 64), (64, 1), (3, 16), (15, 17), (16, 15), (17, 33), (33, 3), (65, 64)]


@pytest.mark.parametrize(("inputs", "outputs"), CHANNELS)
@pytest.mark.parametrize("size", [(5, 37), (9, 16)])
def test_any_number_of_channels(
    on: dict[str, Any], inputs: int, outputs: int, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(inputs * 100 + outputs)
    weight, bias = normal(rng, (outputs, inputs, 3, 3)), normal(rng, (outputs,))
    case = conv_case(normal(rng, (1, inputs, *size)), weight, bias, padding=1)
    with fastdeconv.config(**on):
        check_conv(case)
        check_conv_transpose(case, output_like(case), normal(rng, (inputs,)))


SHAPES = [
    # input size, kernel, geometry
    ((1, 100), (1, 9), {"padding": "same"}),
    ((1, 100), (1, 8), {"padding": "same", "stride": (1, 4)}),
    ((100, 1), (7, 1), {"padding": (3, 0), "dilation": (2, 1)}),
    ((1, 1), (3, 3), {"padding": 1}),
    ((2, 3), (9, 11), {"padding": "same"}),
    ((3, 3), (8, 8), {"padding": ((5, 0), (0, 7))}),
    ((5, 5), (1, 1), {"stride": 3}),
    ((5, 5), (1, 1), {"padding": 4, "stride": (2, 3)}),
    ((4, 300), (2, 31), {"padding": "same"}),
    ((300, 4), (31, 2), {}),
    ((20, 21), (17, 16), {"stride": 2}),
    ((11, 13), (3, 3), {"dilation": (5, 6)}),
    ((6, 6), (2, 2), {"stride": (5, 1), "padding": ((0, 3), (2, 0))}),
]


@pytest.mark.parametrize(("size", "kernel", "geometry"), SHAPES)
def test_any_shape_of_map_and_kernel(
    on: dict[str, Any], size: tuple[int, int], kernel: tuple[int, int], geometry: dict[str, Any]
) -> None:
    rng = np.random.default_rng(6)
    case = conv_case(normal(rng, (2, 3, *size)), normal(rng, (5, 3, *kernel)), **geometry)
    with fastdeconv.config(**on):
        check_conv(case)
        check_conv_transpose(case, output_like(case), None)


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("channels", [3, 17, 64])
def test_depthwise_convolution(on: dict[str, Any], channels: int, multiplier: int) -> None:
    rng = np.random.default_rng(channels)
    weight = normal(rng, (channels * multiplier, 1, 3, 4))
    x = normal(rng, (2, channels, 6, 21))
    case = conv_case(x, weight, padding="same", groups=channels)
    with fastdeconv.config(**on):
        check_conv(case)
        check_conv_transpose(case, output_like(case), None)


# Pooling


@PROPERTY
@given(pool_cases())
def test_max_pool2d_is_the_oracles_exactly(on: dict[str, Any], case: Pool) -> None:
    with fastdeconv.config(**on):
        values, switches = run_pool(case)
    want, want_switches = reference.max_pool2d(case.x, case.window, case.out_size)
    assert values.dtype == np.float32
    assert switches.dtype == np.uint8
    # Bits, because the first of -0.0 and 0.0 must win.
    np.testing.assert_array_equal(bits(values), bits(want))
    np.testing.assert_array_equal(switches, want_switches)


@PROPERTY
@given(pool_cases(values=normal))
def test_max_unpool2d_is_the_oracles_up_to_rounding(on: dict[str, Any], case: Pool) -> None:
    with fastdeconv.config(**on):
        values, switches = run_pool(case)
        got = run_unpool(values, switches, case)
    place = switches, case.window, case.x.shape[2:]
    want = reference.max_unpool2d(values, *place)
    size = reference.max_unpool2d(np.abs(values), *place)
    assert_within_rounding(got, want, size, case.kernel[0] * case.kernel[1])


@PROPERTY
@given(pool_cases(values=integers))
def test_max_unpool2d_is_the_adjoint_of_max_pool2d(on: dict[str, Any], case: Pool) -> None:
    with fastdeconv.config(**on):
        pooled, switches = run_pool(case)
        signal = integers(np.random.default_rng(8), pooled.shape)
        back = run_unpool(signal, switches, case)
    assert np.sum(back.astype(float) * case.x) == np.sum(signal.astype(float) * pooled)


def test_flat_input_switches_to_the_first_position_inside(on: dict[str, Any]) -> None:
    with fastdeconv.config(**on):
        _, switches = ops.max_pool2d(np.zeros((1, 1, 4, 4)), 3, stride=2, padding=1)
    np.testing.assert_array_equal(switches[0, 0], [[4, 3], [1, 0]])


def test_first_nan_wins_over_everything(on: dict[str, Any]) -> None:
    x = np.array([[5, np.nan, np.inf, np.nan]], np.float32).reshape(1, 1, 1, 4)
    with fastdeconv.config(**on):
        values, switches = ops.max_pool2d(x, (1, 4))
    assert np.isnan(values).all()
    assert switches.item() == 1


def test_padding_never_wins_over_minus_infinity(on: dict[str, Any]) -> None:
    x = np.full((1, 1, 2, 40), -np.inf, np.float32)
    with fastdeconv.config(**on):
        values, switches = ops.max_pool2d(x, 2, stride=2, padding=1)
    assert (values == -np.inf).all()
    np.testing.assert_array_equal(switches[0, 0, :, 0], [3, 1])
    np.testing.assert_array_equal(switches[0, 0, :, 1], [2, 0])


def test_overlapping_windows_add_when_unpooled(on: dict[str, Any]) -> None:
    x = np.zeros((1, 1, 3, 3), np.float32)
    x[0, 0, 1, 1] = 1
    with fastdeconv.config(**on):
        _, switches = ops.max_pool2d(x, 2, stride=1)
        back = ops.max_unpool2d(np.array([[[[1, 2], [4, 8]]]]), switches, (3, 3), 2, stride=1)
    np.testing.assert_array_equal(back, 15 * x)


def test_odd_borders_that_no_window_covers_get_zero(on: dict[str, Any]) -> None:
    x = normal(np.random.default_rng(9), (1, 2, 5, 7))
    with fastdeconv.config(**on):
        values, switches = ops.max_pool2d(x, 2)
        back = ops.max_unpool2d(values, switches, (5, 7), 2)
    assert values.shape == (1, 2, 2, 3)
    assert not back[:, :, 4].any()
    assert not back[..., 6].any()
    np.testing.assert_array_equal(np.sort(back[back != 0]), np.sort(values.ravel()))


@pytest.mark.parametrize(
    ("kernel", "dtype"), [((16, 16), np.uint8), ((1, 257), np.uint16), ((257, 256), np.uint32)]
)
def test_switches_count_huge_windows(
    on: dict[str, Any], kernel: tuple[int, int], dtype: type
) -> None:
    x = np.zeros((1, 1, kernel[0], kernel[1]), np.float32)
    last = kernel[0] * kernel[1] - 1
    x[..., -1, -1] = 2
    with fastdeconv.config(**on):
        values, switches = ops.max_pool2d(x, kernel)
        back = ops.max_unpool2d(values, switches, x.shape[2:], kernel)
    assert switches.dtype == dtype
    assert switches.item() == last
    np.testing.assert_array_equal(back, x)


# Ties, determinism


def patches(x: np.ndarray, kernel: tuple[int, int]) -> np.ndarray:
    """(1, C, H, W) -> number of each position's patch, equal for equal patches."""
    views = np.lib.stride_tricks.sliding_window_view(x[0], kernel, axis=(1, 2))
    rows = np.moveaxis(views, 0, 2).reshape(views.shape[1] * views.shape[2], -1)
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel()


def assert_equal_bits_within(kinds: np.ndarray, out: np.ndarray) -> None:
    """Every output channel has the same bits at all positions of one kind."""
    first = np.unique(kinds, return_index=True)[1]
    assert len(first) < len(kinds) / 2, "the input has few equal patches: the test shows nothing"
    found = bits(out[0]).reshape(out.shape[1], -1)
    np.testing.assert_array_equal(found, found[:, first[kinds]])


def tiled(channels: int, period: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    patch = normal(np.random.default_rng(10), (channels, *period))
    patch[:, 0] = 0  # so that patches at the border equal patches inside
    repeats = [-(-n // p) for n, p in zip(size, period, strict=True)]
    return np.tile(patch, (1, *repeats))[None, :, : size[0], : size[1]].copy()


@pytest.mark.parametrize("period", [(1, 1), (3, 5), (4, 7)])
@pytest.mark.parametrize("outputs", [1, 6, 64])
@pytest.mark.parametrize("channels", [1, 17])
def test_equal_patches_give_equal_bits(
    on: dict[str, Any], channels: int, outputs: int, period: tuple[int, int]
) -> None:
    x = tiled(channels, period, (23, 61))
    rng = np.random.default_rng(11)
    weight, bias = normal(rng, (outputs, channels, 3, 3)), normal(rng, (outputs,))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    with fastdeconv.config(**on, num_threads=3):
        out = ops.conv2d(x, weight, bias, padding=1)
        back = ops.conv_transpose2d(x, weight.swapaxes(0, 1), (23, 61), padding=1)
    assert_equal_bits_within(patches(padded, (3, 3)), out)
    assert_equal_bits_within(patches(padded, (3, 3)), back)


def test_equal_patches_give_equal_bits_with_stride_and_dilation(on: dict[str, Any]) -> None:
    x = tiled(5, (6, 6), (48, 90))
    weight = normal(np.random.default_rng(12), (7, 5, 3, 3))
    with fastdeconv.config(**on):
        out = bits(ops.conv2d(x, weight, stride=(2, 3), dilation=2))
        back = bits(
            ops.conv_transpose2d(
                x, weight.swapaxes(0, 1), (99, 275), stride=(2, 3), dilation=(2, 3)
            )
        )
    np.testing.assert_array_equal(
        out, np.tile(out[:, :, :3, :2], (1, 1, 8, 15))[:, :, : out.shape[2], : out.shape[3]]
    )
    inside = back[:, :, 12:96, 18:270]
    np.testing.assert_array_equal(inside, np.tile(inside[:, :, :12, :18], (1, 1, 7, 14)))


def test_a_flat_region_is_one_tie(on: dict[str, Any]) -> None:
    x = np.full((1, 33, 40, 50), -0.1, np.float32)
    weight = normal(np.random.default_rng(13), (64, 33, 3, 3))
    with fastdeconv.config(**on):
        _, switches = ops.max_pool2d(ops.conv2d(x, weight, padding=1)[:, :, 1:-1, 1:-1], 2)
    assert not switches.any()


@pytest.fixture(scope="module")
def work() -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(14)
    x, weight = normal(rng, (2, 17, 30, 70)), normal(rng, (19, 17, 3, 3))
    yield {"x": x, "weight": weight, "bias": normal(rng, (19,))}


def everything(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
    """All four ops, in a chain: pools overlap, the convolution is strided."""
    conv = ops.conv2d(x, weight, bias, padding=1, stride=(1, 2))
    values, switches = ops.max_pool2d(conv, 3, stride=2, padding=1)
    back = ops.max_unpool2d(values, switches, conv.shape[2:], 3, stride=2, padding=1)
    signal = ops.conv_transpose2d(back, weight, np.shape(x)[2:], padding=1, stride=(1, 2))
    return [conv, values, switches, back, signal]


def assert_same_bits(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    for a, b in zip(first, second, strict=True):
        assert a.tobytes() == b.tobytes()


def test_bits_do_not_depend_on_the_number_of_threads(
    on: dict[str, Any], work: dict[str, Any]
) -> None:
    results = []
    for threads in (1, 2, 5):
        with fastdeconv.config(**on, num_threads=threads):
            results.append(everything(**work))
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


def test_bits_do_not_depend_on_the_batch(on: dict[str, Any], work: dict[str, Any]) -> None:
    with fastdeconv.config(**on):
        together = everything(**work)
        alone = everything(work["x"][1:], work["weight"], work["bias"])
    assert_same_bits([array[1:] for array in together], alone)


def test_many_python_threads_may_call_at_once(on: dict[str, Any], work: dict[str, Any]) -> None:
    results: list[list[np.ndarray]] = []

    def call() -> None:
        with fastdeconv.config(**on, num_threads=2):
            results.append(everything(**work))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for other in results[1:]:
        assert_same_bits(results[0], other)


# Inputs as they come


def spaced(array: np.ndarray) -> np.ndarray:
    """The same values, not contiguous along any axis."""
    wide = np.empty([2 * n for n in array.shape], array.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "change",
    [
        spaced,
        read_only,
        np.asfortranarray,
        lambda a: a.astype(np.float64),
        lambda a: a.astype(np.float16),
        lambda a: a.astype(np.int8),
        lambda a: a.astype(">f4"),
        lambda a: a.tolist(),
    ],
    ids=["spaced", "read-only", "fortran", "float64", "float16", "int8", "big-endian", "list"],
)
def test_arrays_of_any_real_kind_are_accepted_and_left_alone(
    on: dict[str, Any], change: Any
) -> None:
    rng = np.random.default_rng(15)
    plain = [integers(rng, shape) for shape in ((1, 3, 6, 7), (2, 3, 3, 3), (2,))]
    given_ = [change(array) for array in plain]
    with fastdeconv.config(**on):
        want, got = everything(*plain), everything(*given_)
    assert_same_bits(want, got)
    for array, original in zip(given_, plain, strict=True):
        np.testing.assert_array_equal(array, original)


def test_unpooling_takes_switches_of_any_integer_type(on: dict[str, Any]) -> None:
    x = normal(np.random.default_rng(16), (1, 2, 6, 8))
    with fastdeconv.config(**on):
        values, switches = ops.max_pool2d(x, 2)
        want = ops.max_unpool2d(values, switches, (6, 8), 2)
        for dtype in (np.int64, np.uint32, ">i2"):
            got = ops.max_unpool2d(values, spaced(switches.astype(dtype)), (6, 8), 2)
            np.testing.assert_array_equal(got, want)


def test_empty_batches_give_empty_results(on: dict[str, Any]) -> None:
    weight = np.ones((4, 3, 3, 3), np.float32)
    with fastdeconv.config(**on):
        results = everything(np.ones((0, 3, 8, 8)), weight, np.ones(4))
    assert [array.shape for array in results] == [
        (0, 4, 8, 4),
        (0, 4, 4, 2),
        (0, 4, 4, 2),
        (0, 4, 8, 4),
        (0, 3, 8, 8),
    ]
