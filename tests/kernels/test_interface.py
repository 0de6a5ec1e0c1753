"""Geometry: windows, padding, sizes, switch types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastdeconv import ParameterError
from fastdeconv.kernels import interface
from fastdeconv.kernels.interface import Window

PROPERTY = settings(derandomize=True, max_examples=200, deadline=None)

SMALL = st.integers(1, 5)
PAIRS = st.tuples(SMALL, SMALL)
SIDES = st.tuples(st.integers(0, 6), st.integers(0, 6))
WINDOWS = st.builds(Window, PAIRS, PAIRS, PAIRS, st.tuples(SIDES, SIDES))
SIZES = st.tuples(st.integers(1, 14), st.integers(1, 14))


def row_taps(window: Window, start: int, axis: int) -> list[int]:
    """Positions one window sees along an axis, 0 being the first that is not padding."""
    first = start * window.stride[axis] - window.padding[axis][0]
    return [first + k * window.dilation[axis] for k in range(window.kernel[axis])]


def positions_inside(window: Window, n: int, axis: int) -> int:
    """How many windows fit into the padded input, found by trying."""
    last = n - 1 + window.padding[axis][1]
    count = 0
    while row_taps(window, count, axis)[-1] <= last:
        count += 1
    return count


@pytest.mark.parametrize(
    ("value", "pair"),
    [
        (3, (3, 3)),
        ((1, 2), (1, 2)),
        ([4, 5], (4, 5)),
        (np.int64(6), (6, 6)),
        (np.array([7, 8]), (7, 8)),
        (np.array(9), (9, 9)),
    ],
)
def test_ints_and_pairs_of_any_kind_become_pairs_of_ints(value: Any, pair: tuple[int, int]) -> None:
    got = interface.as_pair(value, "stride", minimum=1)
    assert got == pair
    assert [type(item) for item in got] == [int, int]


@pytest.mark.parametrize(
    "value", [True, (1, True), np.bool_(True), 1.0, "3", None, (), (1,), (1, 2, 3), ((1, 2), 3)]
)
def test_anything_else_is_refused_by_name_and_value(value: Any) -> None:
    with pytest.raises(ParameterError, match=r"stride must be an int or a pair of ints, found"):
        interface.as_pair(value, "stride", minimum=1)


def test_a_pair_below_the_minimum_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"stride must be at least 1, found \(2, 0\)"):
        interface.as_pair((2, 0), "stride", minimum=1)


@pytest.mark.parametrize(
    ("padding", "resolved"),
    [
        (2, ((2, 2), (2, 2))),
        ((1, 3), ((1, 1), (3, 3))),
        ([0, 1], ((0, 0), (1, 1))),
        ("valid", ((0, 0), (0, 0))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ([[1, 2], [3, 4]], ((1, 2), (3, 4))),
        (np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
        ("same", ((1, 1), (1, 2))),
    ],
)
def test_every_spelling_of_padding(padding: Any, resolved: Any) -> None:
    assert interface.resolve_padding(padding, (9, 9), (3, 4), (1, 1), (1, 1)) == resolved


@PROPERTY
@given(SIZES, PAIRS, PAIRS, PAIRS)
def test_same_padding_gives_size_over_stride_rounded_up_with_the_odd_one_last(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    window = interface.conv_window(kernel, size, stride=stride, padding="same", dilation=dilation)
    out = interface.conv_output_size(size, window)
    assert out == tuple(-(-n // s) for n, s in zip(size, stride, strict=True))
    for before, after in window.padding:
        assert after - before in (0, 1)


@PROPERTY
@given(SIZES, WINDOWS)
def test_convolutions_have_an_output_for_every_window_inside(
    size: tuple[int, int], window: Window
) -> None:
    want = tuple(positions_inside(window, n, axis) for axis, n in enumerate(size))
    if 0 in want:
        with pytest.raises(ParameterError, match="is smaller than the window"):
            interface.conv_output_size(size, window)
    else:
        assert interface.conv_output_size(size, window) == want


@PROPERTY
@given(SIZES, WINDOWS)
def test_pools_refuse_exactly_those_paddings_that_hide_a_window(
    size: tuple[int, int], window: Window
) -> None:
    counts = [positions_inside(window, n, axis) for axis, n in enumerate(size)]
    assume(all(counts))
    hidden = any(
        not any(0 <= tap < n for tap in row_taps(window, i, axis))
        for axis, n in enumerate(size)
        for i in range(counts[axis])
    )
    if hidden:
        with pytest.raises(ParameterError, match="wholly in the padding"):
            interface.pool_output_size(size, window)
    else:
        assert interface.pool_output_size(size, window) == tuple(counts)


@PROPERTY
@given(SIZES, st.integers(1, 5), SMALL, SMALL, st.integers(0, 2), st.booleans())
def test_pool_sizes_are_pytorchs(
    size: tuple[int, int], kernel: int, stride: int, dilation: int, padding: int, ceil_mode: bool
) -> None:
    torch = pytest.importorskip("torch")
    assume(padding <= kernel // 2)
    window = interface.pool_window(kernel, size, stride=stride, padding=padding, dilation=dilation)
    try:
        want = torch.nn.functional.max_pool2d(
            torch.zeros(1, 1, *size), kernel, stride, padding, dilation, ceil_mode
        ).shape[2:]
    except RuntimeError:  # too small
        want = None
    try:
        got = interface.pool_output_size(size, window, ceil_mode=ceil_mode)
    except ParameterError as error:
        # A dilated window can step over the whole input; PyTorch gives -inf there.
        assert want is None or (dilation > 1 and "wholly in the padding" in str(error))
    else:
        assert got == want


def test_the_stride_of_a_pool_is_its_kernel_unless_given() -> None:
    window = interface.pool_window((2, 3), (9, 9), stride=None, padding=0, dilation=1)
    assert window.stride == (2, 3)


@PROPERTY
@given(WINDOWS)
def test_windows_not_called_overlapping_share_no_element(window: Window) -> None:
    for axis in (0, 1):
        taps = [tap for i in range(20) for tap in row_taps(window, i, axis)]
        if not window.overlapping:
            assert len(set(taps)) == len(taps)
    plain = window._replace(dilation=(1, 1))
    assert plain.overlapping == any(k > s for k, s in zip(plain.kernel, plain.stride, strict=True))


def test_the_extent_counts_the_gaps_of_the_dilation() -> None:
    assert Window((3, 1), (1, 1), (4, 9), ((0, 0), (0, 0))).extent == (9, 1)


@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [
        ((1, 1), np.uint8),
        ((16, 16), np.uint8),
        ((1, 257), np.uint16),
        ((256, 256), np.uint16),
        ((1, 65537), np.uint32),
    ],
)
def test_switches_have_the_smallest_type_that_counts_the_window(
    kernel: tuple[int, int], dtype: type
) -> None:
    assert interface.switch_dtype(kernel) is dtype
