"""precision="bf16": how far from float32, and that its bits depend on nothing but the input."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.deconvnet import cost

RULES = ("deconvnet", "guided", "gradient")
ROUNDING = 2.0**-9
"""Of a number, what bfloat16 may add or take away."""
ORDINARY = 3e-3
"""Of a map's maximum, the error that is allowed with pools and many channels."""
ANY = 3e-2
"""On other networks of random weights, where more cancels."""


def conv(out: int, kernel: int | tuple[int, int] = 3, **parameters: Any) -> dict[str, Any]:
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    return {"type": "conv2d", "out": out, "kernel": size, "padding": "same", **parameters}


RELU: dict[str, Any] = {"type": "relu"}
POOL: dict[str, Any] = {"type": "max_pool2d", "kernel_size": 2}


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def traced(build: Any, records: list[dict[str, Any]], shape: tuple[int, int, int]) -> fd.Trace:
    return build(records, shape, 2).forward(noise(shape))


def errors(trace: fd.Trace, layer: str, *arguments: Any, **keywords: Any) -> np.ndarray:
    """Of every map in bf16, relative to the map's maximum in float32; they do differ."""
    exact = fd.deconvolve(trace, layer, *arguments, **keywords)
    rounded = fd.deconvolve(trace, layer, *arguments, precision="bf16", **keywords)
    assert rounded.dtype == np.float32
    sounding = exact.any(axis=(1, 2, 3))
    assert not rounded[~sounding].any(), "a silent feature is no longer silent"
    worst = np.abs(rounded - exact).max(axis=(1, 2, 3))[sounding]
    assert len(worst)
    return worst / np.abs(exact).max(axis=(1, 2, 3))[sounding]


# How far from float32


@pytest.fixture(scope="module")
def demo() -> fd.Trace:
    """The demo clip through the bundled network."""
    (name,) = fd.list_pretrained()
    net = fd.pretrained(name)
    with resources.as_file(resources.files(fd) / "data" / "demo.flac") as path:
        return net.forward(fd.load_clip(path, net.frontend).x)


@pytest.mark.parametrize("rule", RULES)
def test_the_demo_clip_stays_within_the_error_that_is_allowed(bf16, demo, rule):
    found = errors(demo, demo.network.pooling_layers[-1], rule=rule)
    assert 0 < found.max() <= ORDINARY


@pytest.mark.parametrize("rule", RULES)
def test_five_layers_of_64_random_channels_stay_within_it(bf16, build, rule):
    trace = traced(build, [conv(64), RELU, POOL] * 5, (1, 64, 96))
    found = errors(trace, "l14", rule=rule)
    assert 0 < found.max() <= (ANY if rule == "gradient" else ORDINARY)


@pytest.mark.parametrize("channels", [1, 3, 33, 48])
def test_channels_may_fill_no_vector(bf16, build, channels):
    trace = traced(build, [conv(channels), RELU, POOL, conv(channels + 1), RELU] * 2, (3, 20, 26))
    assert errors(trace, "l9", rule="gradient").max() <= ANY


@pytest.mark.parametrize("kernel", [1, 5, 6])
def test_pixels_of_many_entries_are_summed_in_panels(bf16, build, kernel):
    """Without a pool up to 36 x 70 entries reach a pixel, and 192 fit a panel; kernel 1: 70."""
    trace = traced(build, [conv(37), RELU, conv(70, kernel), RELU, conv(70, kernel)], (1, 11, 15))
    assert 0 < errors(trace, "l4", rule="gradient").max() <= ANY
    assert 0 < errors(trace, "l4", rule="guided").max() <= ANY


def test_groups_are_multiplied_in_float32(bf16, build):
    records = [conv(8), RELU, POOL, conv(12, groups=4), RELU, conv(6, groups=2), RELU]
    trace = traced(build, records, (1, 20, 26))
    exact = fd.deconvolve(trace, "l6")
    np.testing.assert_array_equal(fd.deconvolve(trace, "l6", precision="bf16"), exact)


def test_strides_dilations_and_what_lanes_cannot_do_go_down_in_bf16_too(bf16, build):
    records = [
        conv(40), RELU, {"type": "max_pool2d", "kernel_size": 3, "stride": 2},
        conv(33, stride=(1, 2)), {"type": "batch_norm2d"}, RELU,
        conv(17, 2, dilation=2), {"type": "elu", "alpha": 0.7},
        {"type": "flatten"}, {"type": "linear", "out": 5},
    ]
    trace = traced(build, records, (2, 20, 26))
    for layer in ("l6", "l9"):
        assert 0 < errors(trace, layer).max() <= ANY


def of_absolutes(trace: fd.Trace) -> fd.Trace:
    """The trace, with absolute weights for the way back: nothing cancels in its maps."""
    net, other = trace.network, copy.copy(trace)
    other.network = fd.Network(
        net.layers, {name: np.abs(array) for name, array in net.arrays.items()}, net.input_shape
    )
    other._derived = {}
    return other


@st.composite
def chains(draw: st.DrawFn) -> list[dict[str, Any]]:
    records = []
    for _ in range(draw(st.integers(2, 5))):
        records += [conv(draw(st.integers(1, 40)), draw(st.integers(1, 3)))]
        records += draw(st.sampled_from([[], [{"type": "batch_norm2d"}]]))
        records += draw(st.sampled_from([[RELU], [RELU, POOL], []]))
    return records


@settings(max_examples=40, deadline=None, derandomize=True)
@given(chains(), st.integers(0, 2**32), st.sampled_from(RULES))
def test_no_error_exceeds_what_rounding_every_product_can_do(
    bf16_settings, build, records, seed, rule
):
    """Of the map in which nothing cancels; of the map itself no share would be enough."""
    net = build(records, (2, 34, 37), seed)
    layer = net.layers[-1].name
    with fd.config(**bf16_settings):
        trace = net.forward(noise((2, 34, 37)))
        exact = fd.deconvolve(trace, layer, rule=rule)
        rounded = fd.deconvolve(trace, layer, rule=rule, precision="bf16")
        largest = fd.deconvolve(
            of_absolutes(trace), layer, rule=rule, start=np.abs(trace[layer])
        )
    convolutions = sum(record["type"] == "conv2d" for record in records)
    share = (1 + ROUNDING) ** (2 * convolutions) - 1
    assert (np.abs(rounded - exact) <= (share + 1e-5) * largest).all()


# What the bits depend on


@contextmanager
def in_pieces(columns: int) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "LEAST_COLUMNS", columns)
        patch.setattr(cost, "LANE_BYTES", 0)
        yield


class Case(NamedTuple):
    """A trace, and a rule by which all steps multiply every value or leave out zeros."""

    trace: fd.Trace
    rule: str


@pytest.fixture(params=[(49, "gradient"), (49, "deconvnet"), (67, "deconvnet")], ids=str)
def case(build, request) -> Case:
    """Pixels of more entries than a panel holds, odd numbers of them, and 70 features."""
    channels, rule = request.param
    records = [conv(33), RELU, POOL, conv(channels, 4), RELU, conv(70, 3), RELU, POOL]
    return Case(traced(build, records, (1, 24, 37)), rule)


def maps(case: Case, features: Any = None, **arguments: Any) -> np.ndarray:
    return fd.deconvolve(
        case.trace, "l7", features, case.rule, precision="bf16", **arguments
    )


def test_the_number_of_threads_changes_no_bit(bf16, case):
    one = maps(case, num_threads=1)
    for threads in (2, 3, 5):
        np.testing.assert_array_equal(maps(case, num_threads=threads), one)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9, 64, 70])
def test_features_that_share_a_call_change_no_bit(bf16, case, count):
    whole = maps(case)
    features = np.random.default_rng(count).permutation(70)[:count]
    np.testing.assert_array_equal(maps(case, features), whole[features])


@pytest.mark.parametrize("columns", [1, 6, 13])
def test_pieces_change_no_bit(bf16, case, columns):
    whole = maps(case)
    with in_pieces(columns):
        np.testing.assert_array_equal(maps(case), whole)


@pytest.mark.parametrize("start", ["max", "unit"])
def test_a_sparse_start_gives_the_same_bits_on_its_own_and_among_others(bf16, case, start):
    values: Any = start
    if start == "unit":
        values = np.zeros_like(case.trace["l7"])
        values[:, 2, 4] = 1
    np.testing.assert_array_equal(
        maps(case, [3], start=values[3:4] if start == "unit" else start),
        maps(case, start=values)[3:4],
    )


def one_unit(maps: np.ndarray, row: int, column: int) -> np.ndarray:
    start = np.zeros_like(maps)
    start[:, row, column] = 1
    return start


@pytest.mark.parametrize("kernel", [(3, 3), (5, 2), (2, 7)])
@pytest.mark.parametrize("rule", RULES)
def test_the_part_that_a_start_reaches_has_the_bits_of_the_whole(bf16, build, rule, kernel):
    records = [conv(40), RELU, POOL, conv(35, kernel), RELU, conv(70, kernel), RELU]
    trace = traced(build, records, (1, 24, 37))
    for start in ("max", one_unit(trace["l6"], 0, 0), one_unit(trace["l6"], 5, 17)):
        arguments: dict[str, Any] = {"rule": rule, "start": start, "precision": "bf16"}
        found = fd.deconvolve(trace, "l6", **arguments)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cost, "pays", lambda *_: False)
            whole = fd.deconvolve(trace, "l6", **arguments)
        np.testing.assert_array_equal(found, whole)


def test_silent_features_are_exact_zeros_and_change_no_other_bit(bf16, case):
    loud = maps(case)
    start = case.trace["l7"].copy()
    start[::3] = 0
    found = maps(case, start=start)
    assert not found[::3].any()
    np.testing.assert_array_equal(found[1::3], loud[1::3])
    np.testing.assert_array_equal(found[2::3], loud[2::3])
    assert not maps(case, start=0 * start).any()
    assert maps(case, []).shape == (0, 1, 24, 37)


def test_without_a_step_between_the_first_and_the_last_nothing_is_rounded(bf16, case):
    for features in (None, [3], [5, 2, 9]):
        exact = fd.deconvolve(case.trace, "l3", features)
        found = fd.deconvolve(case.trace, "l3", features, precision="bf16")
        np.testing.assert_array_equal(found, exact)


def test_where_bfloat16_is_no_faster_the_maps_are_those_of_float32(build, monkeypatch, capsys):
    native = pytest.importorskip("fastdeconv.kernels.native_cpu")
    monkeypatch.setattr(native.NativeBackend, "bf16", lambda backend: "slow")
    trace = traced(build, [conv(6), RELU, POOL, conv(5), RELU, conv(4)], (1, 12, 9))
    with fd.config(backend="native"):
        exact = fd.deconvolve(trace, "l5")
        np.testing.assert_array_equal(fd.deconvolve(trace, "l5", precision="bf16"), exact)
        fd.show_config()
    assert "accepted, but computed in float32" in capsys.readouterr().out


# What it is refused for

OTHERS = [{"backend": name} for name in fd.available_backends() if name != "native"] + [
    {"backend": "native", "isa": isa} for isa in fd.available_isas() if isa != "avx512"
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda i: "-".join(i.values()))
def test_other_back_ends_say_what_bf16_needs(build, other):
    trace = traced(build, [conv(4), RELU, conv(3)], (1, 8, 9))
    with fd.config(**other), pytest.raises(fd.BackendError) as refused:
        fd.deconvolve(trace, "l2", precision="bf16")
    text = str(refused.value)
    assert "native" in text
    assert "AVX512_BF16" in text
    assert "avx512" in text
    assert repr(other["backend"]) in text


def test_a_back_end_named_in_the_call_is_the_one_that_is_asked(build):
    trace = traced(build, [conv(4), RELU, conv(3)], (1, 8, 9))
    with pytest.raises(fd.BackendError, match="'reference'"):
        fd.deconvolve(trace, "l2", precision="bf16", backend="reference")


@pytest.mark.parametrize("precision", ["half", "BF16", "", None, 16])
def test_an_unknown_precision_is_refused_with_the_choices(on, build, precision):
    trace = traced(build, [conv(4), RELU, conv(3)], (1, 8, 9))
    with pytest.raises(fd.ParameterError, match=r"float32, bf16, found") as refused:
        fd.deconvolve(trace, "l2", precision=precision)
    assert repr(precision) in str(refused.value)


def test_float32_is_what_comes_unasked(on, build):
    trace = traced(build, [conv(4), RELU, POOL, conv(3)], (1, 8, 9))
    asked = fd.deconvolve(trace, "l3", precision="float32")
    np.testing.assert_array_equal(fd.deconvolve(trace, "l3"), asked)
