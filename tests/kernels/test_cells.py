"""Cells sorted by switch, and tensors moved from one layout to another, against plain loops."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdeconv.kernels.interface import Window
from fastdeconv.kernels.lanes import NO_POOL, Source

native = pytest.importorskip("fastdeconv.kernels.native")

PROPERTY = settings(derandomize=True, deadline=None)
TABLES = native.tables()
UNTOUCHED = -7


@pytest.fixture(params=list(TABLES))
def table(request: pytest.FixtureRequest) -> Any:
    """The kernels of every instruction set in turn."""
    return TABLES[request.param]


# Cells


def sorted_cells(
    switches: np.ndarray | None, gate: np.ndarray | None, size: Any, channels: int, places: int
) -> list[list[list[int]]]:
    """Cell by cell and place by place: the channels that are there, ascending."""
    found = []
    for y, x in np.ndindex(*size):
        cell: list[list[int]] = [[] for _ in range(places)]
        for c in range(channels):
            if gate is None or gate[y, x, c]:
                cell[0 if switches is None else switches[y, x, c]].append(c)
        found.append(cell)
    return found


def room(size: Any, channels: int, places: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.full(size[0] * size[1] * channels + native.LIST_ROOM, UNTOUCHED, np.int32)
    return order, np.full((*size, places + 1), UNTOUCHED, np.int32)


def listed(order: np.ndarray, first: np.ndarray, channels: int) -> list[list[list[int]]]:
    """What `order` and `first` say, in the form of `sorted_cells`."""
    cells = first.reshape(-1, first.shape[2])
    assert not cells[:, 0].any()
    # What is left over is read, too: it must be a channel.
    assert not any(order[i * channels + row[-1] : (i + 1) * channels].any()
                   for i, row in enumerate(cells))
    return [
        [order[i * channels + a : i * channels + b].tolist() for a, b in pairwise(row)]
        for i, row in enumerate(cells)
    ]


@st.composite
def cells(draw: st.DrawFn) -> tuple[Any, ...]:
    """(switches or None, gate or None, (H, W), channels, places)."""
    size = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    channels = draw(st.one_of(st.integers(1, 20), st.sampled_from([63, 64, 65, 130])))
    places = draw(st.sampled_from([1, 2, 4, 9, 300, 70000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    kinds = [d for d in (np.uint8, np.uint16, np.uint32) if places - 1 <= np.iinfo(d).max]
    switches = gate = None
    if draw(st.booleans()) or places > 1:
        # Stored channels beyond the last one hold anything.
        stored = channels + draw(st.integers(0, 5))
        dtype = draw(st.sampled_from(kinds))
        switches = np.full((*size, stored), np.iinfo(dtype).max, dtype)
        switches[..., :channels] = rng.integers(0, places, (*size, channels))
    if draw(st.booleans()):
        gate = rng.integers(0, 2, (*size, channels)).astype(np.uint8)
    return switches, gate, size, channels, places


@settings(PROPERTY, max_examples=25)
@given(cells())
def test_cells_are_sorted_by_place_and_then_by_channel(case: Any) -> None:
    switches, gate, size, channels, places = case
    for table in TABLES.values():
        order, first = room(size, channels, places)
        sort = native.SortCells(table, switches, gate, channels, places, order, first)
        sort(0, size[0] * size[1])
        assert listed(order, first, channels) == sorted_cells(*case)
        assert (order[len(order) - native.LIST_ROOM :] == UNTOUCHED).all()


@settings(PROPERTY, max_examples=10)
@given(cells(), st.data())
def test_a_range_of_cells_leaves_all_others_alone(case: Any, data: st.DataObject) -> None:
    switches, gate, size, channels, places = case
    count = size[0] * size[1]
    begin = data.draw(st.integers(0, count))
    end = data.draw(st.integers(begin, count))
    for table in TABLES.values():
        order, first = room(size, channels, places)
        native.SortCells(table, switches, gate, channels, places, order, first)(begin, end)
        rows = order[: count * channels].reshape(count, channels)
        outside = [i for i in range(count) if not begin <= i < end]
        assert (rows[outside] == UNTOUCHED).all()
        assert (first.reshape(count, -1)[outside] == UNTOUCHED).all()
        inside = slice(begin, end)
        part = first.reshape(1, count, -1)[:, inside]
        assert listed(order[begin * channels :], part, channels) == sorted_cells(*case)[inside]


@settings(PROPERTY, max_examples=25)
@given(cells(), st.data())
def test_a_lone_features_zeros_are_left_out_of_its_cells(case: Any, data: st.DataObject) -> None:
    """Of any part of the map; a negative zero is one, NaN is not."""
    switches, gate, size, channels, places = case
    order, first = room(size, channels, places)
    table = next(iter(TABLES.values()))
    sort = native.SortCells(table, switches, gate, channels, places, order, first)
    sort(0, size[0] * size[1])
    origin = tuple(data.draw(st.integers(0, n - 1)) for n in size)
    part = tuple(data.draw(st.integers(1, n - o)) for n, o in zip(size, origin))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    values = np.array([0, -0.0, 1e-45, -2, np.nan], np.float32)
    v = rng.choice(values, (*part, 1, channels))

    pool = Window((1, places), (1, places), (1, 1), ((0, 0), (0, 0)))
    source = Source(switches, gate, pool, origin, part, (0, 0), channels, {})
    kept, begins = room(part, channels, places)
    native.FilterCells(source, (order, first, origin), v, kept, begins)(0, part[0])

    whole = sorted_cells(*case)
    expected = [
        [[c for c in at if v[y, x, 0, c] != 0]
         for at in whole[(origin[0] + y) * size[1] + origin[1] + x]]
        for y, x in np.ndindex(*part)
    ]
    assert listed(kept, begins, channels) == expected
    # Kernels read it as channels.
    assert (kept[-native.LIST_ROOM :] == 0).all()


def test_without_switches_or_gate_one_list_serves_all_cells() -> None:
    channels, size = 5, (3, 4)
    every = np.arange(channels + native.LIST_ROOM, dtype=np.int32), np.array([0, channels], "i4")
    source = Source(None, None, NO_POOL, (0, 0), size, size, channels, {})
    v = np.random.default_rng(0).integers(-1, 2, (*size, 1, channels)).astype(np.float32)
    kept, begins = room(size, channels, 1)
    native.FilterCells(source, (*every, (0, 0)), v, kept, begins)(0, 3)
    expected = [[np.flatnonzero(row).tolist()] for row in v.reshape(-1, channels)]
    assert listed(kept, begins, channels) == expected


# Layouts

SIZES = [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33]
GUARD = np.float32(1e30)


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("channels", SIZES)
def test_planes_become_channels_wherever_they_belong(table, channels, width):
    h, row, col = 3, 2, 1
    planes = np.arange(channels * h * width, dtype=np.float32).reshape(channels, h, width)
    for stored in (channels, channels + 3):
        out = np.full((h + 5, width + 3, stored), GUARD)
        native.ToChannels(table, planes, out, row, col)(0, h)
        expected = np.full_like(out, GUARD)
        expected[row : row + h, col : col + width] = 0
        expected[row : row + h, col : col + width, :channels] = planes.transpose(1, 2, 0)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("features", SIZES)
def test_lanes_become_planes_of_every_feature(table, features, width):
    h, channels = 3, 2
    for lanes in {features, -(-features // 16) * 16}:
        v = np.arange(h * width * channels * lanes, dtype=np.float32)
        v = v.reshape(h, width, channels, lanes)
        planes = np.full((features + 1, channels, h, width), GUARD)
        native.ToPlanes(table, v, planes[:features])(0, h)
        expected = v[..., :features].transpose(3, 2, 0, 1)
        np.testing.assert_array_equal(planes[:features], expected)
        assert (planes[features] == GUARD).all()


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("channels", SIZES)
def test_an_activation_becomes_planes_without_its_padding(table, channels, width):
    h, row, col = 3, 2, 1
    padded = np.full((h + 5, width + 3, 1, channels + 3), GUARD)
    inside = np.arange(h * width * channels, dtype=np.float32).reshape(h, width, channels)
    padded[row : row + h, col : col + width, 0, :channels] = inside
    planes = np.full((channels, 1, h, width), np.nan, np.float32)
    native.ToPlanes(table, padded, planes, row, col)(0, h)
    np.testing.assert_array_equal(planes[:, 0], inside.transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("channels", SIZES)
def test_switches_become_planes(channels, width, dtype):
    h, rng = 3, np.random.default_rng(0)
    for stored in (channels, channels + 5):
        switches = rng.integers(0, np.iinfo(dtype).max, (h, width, stored), dtype, endpoint=True)
        planes = np.zeros((channels, h, width), dtype)
        native.SwitchPlanes(switches, planes)(0, 2)
        assert not planes[:, 2].any()
        native.SwitchPlanes(switches, planes)(2, h)
        np.testing.assert_array_equal(planes, switches[:, :, :channels].transpose(2, 0, 1))


def test_rows_that_are_not_asked_for_are_left_alone(table):
    planes = np.random.default_rng(0).random((17, 5, 19), np.float32)
    out = np.full((5, 19, 17), GUARD)
    native.ToChannels(table, planes, out, 0, 0)(2, 4)
    assert (out[[0, 1, 4]] == GUARD).all()
    np.testing.assert_array_equal(out[2:4], planes[:, 2:4].transpose(1, 2, 0))

    back = np.full((17, 1, 5, 19), GUARD)
    lanes = np.ascontiguousarray(planes.transpose(1, 2, 0))[:, :, None]
    native.ToPlanes(table, lanes, back)(2, 4)
    assert (back[:, :, [0, 1, 4]] == GUARD).all()
    np.testing.assert_array_equal(back[:, 0, 2:4], planes[:, 2:4])
