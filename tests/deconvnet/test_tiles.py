"""precision="bf16" in tiles of AMX, emulated in C: what its bits depend on, and its errors.

The maps are small, because a multiply-add takes a nanosecond here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.deconvnet import cost
from fastdeconv.kernels.dispatch import bf16_of, get_backend

native = pytest.importorskip("fastdeconv.kernels.native")

ISAS = [name for name, table in native.tables_on_request().items() if table.prepare()]
ROUNDING = 2.0**-9
"""Of a number, what bfloat16 may add or take away."""

pytestmark = pytest.mark.skipif(not ISAS, reason="this CPU has no multiply-add that rounds once")


@pytest.fixture(params=ISAS)
def tiles(request: pytest.FixtureRequest) -> Iterator[str]:
    """Tiles, emulated and, where there are some, real."""
    with fd.config(backend="native", isa=request.param):
        yield request.param


def conv(out: int, kernel: int = 3, **parameters: Any) -> dict[str, Any]:
    return {
        "type": "conv2d", "out": out, "kernel": (kernel, kernel), "padding": "same", **parameters
    }


RELU: dict[str, Any] = {"type": "relu"}
POOL: dict[str, Any] = {"type": "max_pool2d", "kernel_size": 2}


def traced(build: Any, records: list[dict[str, Any]], shape: tuple[int, int, int]) -> fd.Trace:
    noise = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return build(records, shape, 2).forward(noise)


@pytest.fixture(scope="module")
def trace(build: Any) -> fd.Trace:
    """Pixels of more entries than are multiplied at once, odd numbers of them, 21 features."""
    records = [conv(17), RELU, POOL, conv(35, 4), RELU, conv(21), RELU, POOL]
    return traced(build, records, (1, 12, 19))


def maps(trace: fd.Trace, features: Any = None, **arguments: Any) -> np.ndarray:
    return fd.deconvolve(trace, "l7", features, precision="bf16", **arguments)


def test_config_says_what_multiplies(tiles: str) -> None:
    assert bf16_of(get_backend()) == "tiles"
    fd.show_config()


def test_the_number_of_threads_changes_no_bit(tiles: str, trace: fd.Trace) -> None:
    one = maps(trace, num_threads=1)
    for threads in (2, 5):
        np.testing.assert_array_equal(maps(trace, num_threads=threads), one)


@pytest.mark.parametrize("count", [1, 7, 16])
def test_features_that_share_a_call_change_no_bit(
    tiles: str, trace: fd.Trace, count: int
) -> None:
    features = np.random.default_rng(count).permutation(21)[:count]
    np.testing.assert_array_equal(maps(trace, features), maps(trace)[features])


@contextmanager
def in_pieces(columns: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "LEAST_COLUMNS", columns)
        patch.setattr(cost, "LANE_BYTES", 0)
        yield


@pytest.mark.parametrize("columns", [1, 3])
def test_pieces_change_no_bit(tiles: str, trace: fd.Trace, columns: int) -> None:
    whole = maps(trace)
    with in_pieces(columns):
        np.testing.assert_array_equal(maps(trace), whole)


@pytest.mark.parametrize("column", [0, 8, 20])
def test_whether_only_the_rectangle_that_a_start_reaches_is_computed_changes_no_bit(
    tiles: str, build: Any, column: int
) -> None:
    wide = [conv(48) | {"kernel": (1, width)} for width in (2, 5, 4)]
    trace = traced(build, wide, (2, 1, 49))
    start = np.zeros((4, 1, 49), np.float32)
    start[:, 0, column] = 1
    found = []
    for pays in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cost, "pays", lambda *_, pays=pays: pays)
            arguments = {"start": start, "precision": "bf16"}
            found.append(fd.deconvolve(trace, "l2", range(4), **arguments))
    np.testing.assert_array_equal(*found)


def test_silent_features_are_exact_zeros_and_change_no_other_bit(
    tiles: str, trace: fd.Trace
) -> None:
    loud, start = maps(trace), trace["l7"].copy()
    start[::3] = 0
    found = maps(trace, start=start)
    assert not found[::3].any()
    np.testing.assert_array_equal(found[1::3], loud[1::3])


def test_real_tiles_give_the_bits_of_emulated_ones(trace: fd.Trace) -> None:
    if "amx" not in ISAS:
        pytest.skip("this CPU, or this build, has no AMX")
    each = []
    for isa in ISAS:
        with fd.config(backend="native", isa=isa):
            each.append(maps(trace))
    np.testing.assert_array_equal(*each)


def test_groups_are_multiplied_in_float32(tiles: str, build: Any) -> None:
    trace = traced(build, [conv(8), RELU, conv(12, groups=4), RELU, conv(8, groups=4)], (1, 9, 8))
    exact = fd.deconvolve(trace, "l4")
    np.testing.assert_array_equal(fd.deconvolve(trace, "l4", precision="bf16"), exact)


@st.composite
def chains(draw: st.DrawFn) -> list[dict[str, Any]]:
    records = []
    for _ in range(draw(st.integers(3, 4))):
        stride = draw(st.sampled_from([1, 1, 2]))
        padding = "same" if stride == 1 else 1
        records += [conv(draw(st.integers(1, 20)), draw(st.integers(1, 3)), stride=stride)
                    | {"padding": padding}]
        records += draw(st.sampled_from([[], [{"type": "batch_norm2d"}]]))
        records += draw(st.sampled_from([[RELU], [RELU, POOL], []]))
    return records


@settings(max_examples=25, deadline=None, derandomize=True)
@given(chains(), st.integers(0, 2**32), st.sampled_from(["deconvnet", "guided", "gradient"]))
def test_no_error_exceeds_what_rounding_every_product_can_do(
    build: Any, records: list[dict[str, Any]], seed: int, rule: str
) -> None:
    """Of the map in which nothing cancels."""
    shape = (2, 21, 18)
    net = build(records, shape, seed)
    layer = net.layers[-1].name
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    with fd.config(backend="native", isa=ISAS[0]):
        trace = net.forward(x)
        exact = fd.deconvolve(trace, layer, rule=rule)
        rounded = fd.deconvolve(trace, layer, rule=rule, precision="bf16")
        absolute = {name: np.abs(array) for name, array in net.arrays.items()}
        other = fd.Network(net.layers, absolute, net.input_shape)
        trace.network, trace._derived = other, {}
        largest = fd.deconvolve(trace, layer, rule=rule, start=np.abs(trace[layer]))
    convolutions = sum(record["type"] == "conv2d" for record in records)
    share = (1 + ROUNDING) ** (2 * convolutions) - 1
    assert (np.abs(rounded - exact) <= (share + 1e-5) * largest).all()
