"""What the ops refuse, and how they say it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastdeconv

ops = fastdeconv.ops

X = np.zeros((1, 4, 6, 8), np.float32)
WEIGHT = np.zeros((6, 4, 3, 3), np.float32)
BAD_NUMBERS = [0, -1, (1, 0), (1, 2, 3), 1.5, True, "2", None, (1, None)]


@pytest.fixture(autouse=True)
def reference_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation is common to all back ends, so the cheapest one serves."""
    monkeypatch.setenv("FASTDECONV_BACKEND", "reference")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 6, 8)), "x must have 4 axes, none of them empty, found shape"),
        (np.zeros((1, 0, 6, 8)), "x must have 4 axes, none of them empty, found shape"),
        (np.zeros((1, 4, 6, 8), complex), "x must be real numbers, found dtype complex"),
        (np.full((1, 4, 6, 8), "a"), "x must be real numbers, found dtype"),
        ([[[[1.0, 2.0], [3.0]]]], "x cannot be read as an array"),
    ],
)
def test_inputs_that_are_no_batch_of_maps(x: Any, message: str) -> None:
    with pytest.raises(fastdeconv.ParameterError, match=message):
        ops.conv2d(x, WEIGHT)
    with pytest.raises(fastdeconv.ParameterError, match=message):
        ops.max_pool2d(x, 2)
    with pytest.raises(fastdeconv.ParameterError, match=message):
        ops.conv_transpose2d(x, WEIGHT, (8, 10))
    with pytest.raises(fastdeconv.ParameterError, match=message.replace("x", "values", 1)):
        ops.max_unpool2d(x, np.zeros((1, 4, 6, 8), int), (12, 16), 2)


def test_weights_that_are_no_filters() -> None:
    with pytest.raises(fastdeconv.ParameterError, match="weight must have 4 axes"):
        ops.conv2d(X, WEIGHT[0])
    with pytest.raises(fastdeconv.ParameterError, match="weight must have 4 axes"):
        ops.conv_transpose2d(X, WEIGHT[:0].reshape(4, 0, 3, 3), (8, 10))


def test_channels_that_do_not_fit() -> None:
    with pytest.raises(fastdeconv.ParameterError, match=r"x has 4 channels, but weight .* wants 3"):
        ops.conv2d(X, WEIGHT[:, :3])
    with pytest.raises(fastdeconv.ParameterError, match=r"groups=2 wants 8"):
        ops.conv2d(X, WEIGHT, groups=2)
    with pytest.raises(fastdeconv.ParameterError, match=r"x has 4 channels, but weight .* wants 6"):
        ops.conv_transpose2d(X, WEIGHT, (8, 10))


@pytest.mark.parametrize("groups", [0, -1, 1.0, True, "1", None])
def test_groups_that_are_no_positive_int(groups: Any) -> None:
    with pytest.raises(fastdeconv.ParameterError, match="groups must be a positive int, found"):
        ops.conv2d(X, WEIGHT, groups=groups)
    with pytest.raises(fastdeconv.ParameterError, match="groups must be a positive int, found"):
        ops.conv_transpose2d(X, WEIGHT, (8, 10), groups=groups)


def test_groups_that_do_not_divide_the_outputs() -> None:
    with pytest.raises(fastdeconv.ParameterError, match="groups=4 does not divide the 6 outputs"):
        ops.conv2d(X, WEIGHT[:, :1], groups=4)


@pytest.mark.parametrize("bias", [np.zeros(5), np.zeros((6, 1)), 0.0, ["a"] * 6])
def test_a_bias_of_the_wrong_size_or_kind(bias: Any) -> None:
    with pytest.raises(fastdeconv.ParameterError, match="bias must be 6 real numbers, found"):
        ops.conv2d(X, WEIGHT, bias)


def test_a_bias_of_the_transposed_convolution_has_the_inputs_channels() -> None:
    x = np.zeros((1, 6, 6, 8))
    with pytest.raises(fastdeconv.ParameterError, match="bias must be 4 real numbers"):
        ops.conv_transpose2d(x, WEIGHT, (8, 10), np.zeros(6))


@pytest.mark.parametrize("value", BAD_NUMBERS)
@pytest.mark.parametrize("name", ["stride", "dilation"])
def test_strides_and_dilations_that_are_no_positive_pairs(name: str, value: Any) -> None:
    with pytest.raises(fastdeconv.ParameterError, match=f"{name} must be"):
        ops.conv2d(X, WEIGHT, **{name: value})
    if (name, value) != ("stride", None):  # a pool's default
        with pytest.raises(fastdeconv.ParameterError, match=f"{name} must be"):
            ops.max_pool2d(X, 2, **{name: value})


@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_kernel_and_output_sizes_that_are_no_positive_pairs(value: Any) -> None:
    with pytest.raises(fastdeconv.ParameterError, match="kernel_size must be"):
        ops.max_pool2d(X, value, stride=1)
    with pytest.raises(fastdeconv.ParameterError, match="output_size must be"):
        ops.conv_transpose2d(np.zeros((1, 6, 6, 8)), WEIGHT, value)
    with pytest.raises(fastdeconv.ParameterError, match="output_size must be"):
        ops.max_unpool2d(X, np.zeros(X.shape, int), value, 2)


@pytest.mark.parametrize("padding", [-1, (0, -1), "full", 0.5, ((1, 1), (1, -1)), ((1, 1),), None])
def test_paddings_of_no_known_spelling(padding: Any) -> None:
    with pytest.raises(fastdeconv.ParameterError, match="padding must be"):
        ops.conv2d(X, WEIGHT, padding=padding)
    with pytest.raises(fastdeconv.ParameterError, match="padding must be"):
        ops.max_pool2d(X, 2, padding=padding)


def test_windows_larger_than_the_input() -> None:
    with pytest.raises(fastdeconv.ParameterError, match="6 x 8 is smaller than the window"):
        ops.conv2d(X, np.zeros((1, 4, 7, 1)))
    with pytest.raises(fastdeconv.ParameterError, match="6 x 8 is smaller than the window"):
        ops.max_pool2d(X, (1, 9))


@pytest.mark.parametrize(
    ("kernel", "geometry"),
    [(2, {"padding": 2}), ((1, 2), {"padding": ((0, 0), (0, 2)), "stride": (1, 2)}),
     (2, {"padding": (3, 0), "dilation": (8, 1)})],
)  # fmt: skip
def test_pool_windows_wholly_in_the_padding(kernel: Any, geometry: dict[str, Any]) -> None:
    with pytest.raises(fastdeconv.ParameterError, match="a pool window wholly in the padding"):
        ops.max_pool2d(X, kernel, **geometry)


def test_output_sizes_from_which_the_forward_op_does_not_give_the_input() -> None:
    with pytest.raises(fastdeconv.ParameterError, match=r"of \(9, 10\) gives \(7, 8\), but x is"):
        ops.conv_transpose2d(np.zeros((1, 6, 6, 8)), WEIGHT, (9, 10))
    switches = np.zeros(X.shape, int)
    message = r"of \(14, 16\) gives \(7, 8\), but values are \(6, 8\)"
    with pytest.raises(fastdeconv.ParameterError, match=message):
        ops.max_unpool2d(X, switches, (14, 16), 2)


def test_both_sizes_are_named_where_floor_and_ceil_differ() -> None:
    message = r"gives \(4, 8\) or \(5, 8\), but values are \(6, 8\)"
    with pytest.raises(fastdeconv.ParameterError, match=message):
        ops.max_unpool2d(X, np.zeros(X.shape, int), (9, 16), 2)


def test_an_output_size_that_only_ceil_mode_accepts_can_be_unpooled() -> None:
    # Under floor the last window would lie wholly in the padding.
    padding = ((0, 0), (0, 2))
    values, switches = ops.max_pool2d(X, 2, padding=padding, ceil_mode=True)
    back = ops.max_unpool2d(values, switches, X.shape[2:], 2, padding=padding)
    assert back.shape == X.shape


@pytest.mark.parametrize(
    "switches",
    [np.zeros((1, 4, 6, 7), int), np.zeros((1, 4, 6, 8)), np.zeros((1, 4, 6, 8), bool)],
)
def test_switches_of_another_shape_or_kind(switches: Any) -> None:
    with pytest.raises(fastdeconv.ParameterError, match="switches must be integers of shape"):
        ops.max_unpool2d(X, switches, (12, 16), 2)


@pytest.mark.parametrize("switch", [-1, 4, 300])
def test_switches_outside_their_window(switch: int) -> None:
    switches = np.zeros(X.shape, int)
    switches[0, 1, 2, 3] = switch
    with pytest.raises(fastdeconv.ParameterError, match=r"switches must lie in 0\.\.3, found"):
        ops.max_unpool2d(X, switches, (12, 16), 2)


@pytest.mark.parametrize(("place", "switch"), [((0, 3), 0), ((3, 0), 0), ((3, 4), 3), ((2, 4), 1)])
def test_switches_into_the_padding(place: tuple[int, int], switch: int) -> None:
    values = np.ones((1, 1, 4, 5), np.float32)
    switches = np.full(values.shape, 3)
    switches[..., 3, :], switches[..., 4], switches[..., 3, 4] = 1, 2, 0
    geometry = {"output_size": (6, 8), "kernel_size": 2, "padding": 1}
    assert ops.max_unpool2d(values, switches, **geometry).sum() == values.sum()
    switches[(0, 0, *place)] = switch
    with pytest.raises(fastdeconv.ParameterError, match="a switch points into the padding"):
        ops.max_unpool2d(values, switches, **geometry)


@pytest.mark.parametrize("threads", [0, -2, 1.5, True, "2"])
def test_thread_counts_that_are_no_positive_int(threads: Any) -> None:
    with pytest.raises(fastdeconv.ParameterError, match="num_threads must be a positive int"):
        ops.conv2d(X, WEIGHT, num_threads=threads)


def test_an_unknown_back_end() -> None:
    with pytest.raises(fastdeconv.BackendError, match="unknown back end 'mkl'; there are native"):
        ops.conv2d(X, WEIGHT, backend="mkl")


@pytest.mark.parametrize("padding", [10**9, (1 << 31, 0)])
def test_what_is_too_large_to_compute_is_refused(padding: Any) -> None:
    with pytest.raises(fastdeconv.ParameterError, match="larger than what can be computed"):
        fastdeconv.ops.conv2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), padding=padding)


def test_what_does_not_fit_into_memory_is_a_parameter_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(fastdeconv.kernels.ops, "conv_output_size", full)
    with pytest.raises(fastdeconv.ParameterError, match="not enough memory"):
        fastdeconv.ops.conv2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)))
