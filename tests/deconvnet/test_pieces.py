"""Projecting a clip in pieces, or only where a start reaches, changes no bit of any map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.deconvnet import cost
from fastdeconv.deconvnet.region import Region, covering_cells, reached_by, within
from fastdeconv.deconvnet.run import Run
from fastdeconv.deconvnet.ways import Ways
from fastdeconv.kernels.interface import Window

PROPERTY = settings(derandomize=True, deadline=None)
RULES = ("deconvnet", "guided", "gradient")

IMPLEMENTATIONS = [{"backend": "native", "isa": isa} for isa in fd.available_isas()] + [
    {"backend": name} for name in fd.available_backends() if name not in ("native", "reference")
]
IDS = ["-".join(i.values()) for i in IMPLEMENTATIONS]


@pytest.fixture(params=IMPLEMENTATIONS, ids=IDS)
def on(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Every back end with lanes and every instruction set in turn."""
    with fd.config(**request.param):
        yield request.param


@contextmanager
def ways_gone() -> Iterator[list[Any]]:
    """Yields the ways that are gone, each with the features that go it."""
    seen: list[Any] = []
    passes, plans = Ways.passes, Run._plans

    def noting(*arguments: Any) -> Iterator[Any]:
        seen.clear()  # a pass that cannot be planned asks twice
        for some in passes(*arguments):
            seen.extend(some)
            yield some

    def planning_anew(run: Any, *arguments: Any) -> Any:
        run.facts.of_shape("plans").clear()
        return plans(run, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ways, "passes", noting)
        patch.setattr(Run, "_plans", planning_anew)
        yield seen


@contextmanager
def in_pieces(columns: int) -> Iterator[list[Any]]:
    """Pieces of this many input columns; yields what `ways_gone` does."""
    with pytest.MonkeyPatch.context() as patch, ways_gone() as ways:
        patch.setattr(cost, "LEAST_COLUMNS", columns)
        patch.setattr(cost, "LANE_BYTES", 0)
        yield ways


@contextmanager
def parts_pay(answer: bool) -> Iterator[None]:
    """Whether sparse starts are projected on their own part of every layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "pays", lambda *_: answer)
        yield


# Random networks


class Case(NamedTuple):
    """A network's records, the input they take, and a way down from some layer of it."""

    records: list[dict[str, Any]]
    shape: tuple[int, int, int]
    seed: int
    rule: str

    def trace(self, build: Any) -> fd.Trace:
        try:
            net = build(self.records, self.shape, self.seed)
            x = np.random.default_rng(self.seed + 1).standard_normal(self.shape)
            with fd.config(backend="reference"):
                return net.forward(x)
        except fd.ParameterError:
            assume(False)
        raise AssertionError


STRIDES = st.sampled_from([(1, 1)] * 4 + [(1, 2), (2, 1), (2, 3)])
DILATIONS = st.sampled_from([(1, 1)] * 3 + [(1, 2), (2, 1), (2, 2)])
PADDINGS = st.one_of(
    st.sampled_from(["same", "same", "valid"]), st.integers(0, 3),
    st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
)


@st.composite
def pools(draw: st.DrawFn) -> dict[str, Any]:
    kernel = draw(st.sampled_from([(2, 2), (2, 1), (3, 2)]))
    record: dict[str, Any] = {"type": "max_pool2d", "kernel_size": kernel}
    record["padding"] = draw(st.sampled_from([(0, 0), (kernel[0] // 2, kernel[1] // 2)]))
    record["ceil_mode"] = draw(st.booleans())
    if draw(st.integers(0, 2)) == 0:  # windows overlap, or have gaps between them
        record["stride"] = tuple(max(1, k + draw(st.integers(-1, 2))) for k in kernel)
    return record


@st.composite
def cases(draw: st.DrawFn) -> Case:
    channels = draw(st.sampled_from([1, 1, 2, 3]))
    shape = channels, draw(st.integers(6, 24)), draw(st.integers(8, 60))
    records: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 3))):
        groups = draw(st.sampled_from([g for g in (1, 1, 1, 2, 3) if channels % g == 0]))
        channels = groups * draw(st.sampled_from([1, 2, 5, 9]))
        records.append({
            "type": "conv2d", "out": channels, "groups": groups,
            "kernel": (draw(st.integers(1, 5)), draw(st.integers(1, 5))),
            "stride": draw(STRIDES),
            "dilation": draw(DILATIONS), "padding": draw(PADDINGS),
        })
        if draw(st.integers(0, 2)) == 0:
            records.append({"type": "batch_norm2d"})
        records.append({"type": "relu"})
        if draw(st.integers(0, 2)):
            records.append(draw(pools()))
    return Case(records, shape, draw(st.integers(0, 2**16)), draw(st.sampled_from(RULES)))


def some_features(trace: fd.Trace, layer: str, count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, len(trace[layer]), count)


# Pieces of columns


@settings(PROPERTY, max_examples=40)
@given(case=cases(), count=st.sampled_from([1, 5, 20, 70]), columns=st.integers(1, 17))
def test_pieces_give_the_bits_of_the_whole(
    build: Any, case: Case, count: int, columns: int
) -> None:
    trace = case.trace(build)
    layer = trace.network.layers[-1].name
    features = some_features(trace, layer, count)
    for implementation in IMPLEMENTATIONS:
        with fd.config(**implementation):
            whole = fd.deconvolve(trace, layer, features, case.rule)
            with in_pieces(columns):
                found = fd.deconvolve(trace, layer, features, case.rule)
        np.testing.assert_array_equal(found, whole, strict=True, err_msg=f"{implementation}")


# Passes of few features that run together


@contextmanager
def many_threads(count: int) -> Iterator[list[Any]]:
    """As on a machine with so many CPUs, where another pass always pays."""
    with pytest.MonkeyPatch.context() as patch, ways_gone() as ways:
        patch.setattr("fastdeconv.kernels.recording.usable_cpus", lambda: count)
        patch.setattr(cost, "PASS_WORK", 1e-9)
        with fd.config(num_threads=count):
            yield ways


@settings(PROPERTY, max_examples=30)
@given(case=cases(), count=st.sampled_from([1, 20, 70]), columns=st.sampled_from([9, 10**6]))
def test_passes_that_run_together_give_the_bits_of_one(
    build: Any, case: Case, count: int, columns: int
) -> None:
    trace = case.trace(build)
    layer = trace.network.layers[-1].name
    features = some_features(trace, layer, count)
    for implementation in IMPLEMENTATIONS:
        with fd.config(num_threads=1, **implementation):
            whole = fd.deconvolve(trace, layer, features, case.rule)
        with fd.config(**implementation), in_pieces(columns), many_threads(16):
            found = fd.deconvolve(trace, layer, features, case.rule)
        np.testing.assert_array_equal(found, whole, strict=True, err_msg=f"{implementation}")


def test_more_threads_than_bands_get_passes_of_fewer_features(build):
    trace = published(build)
    features = some_features(trace, "l8", 64)
    for threads, most in ((1, 64), (2, 64), (16, 32), (32, 16)):
        with many_threads(threads) as passes:
            fd.deconvolve(trace, "l8", features)
        assert max(len(some) for _, some in passes) <= most
        assert len(passes) == 1 or threads >= 16


def strided(build: Any) -> fd.Trace:
    """A stride in the columns of the convolution above the first one."""
    records = [
        {"type": "conv2d", "out": 8, "kernel": (3, 4), "padding": "same"}, {"type": "relu"},
        {"type": "conv2d", "out": 20, "kernel": (3, 4), "padding": "same", "stride": (1, 2)},
    ]
    x = np.random.default_rng(5).standard_normal((1, 12, 41))
    return build(records, x.shape, 3).forward(x)


def test_pieces_of_a_strided_convolution_give_the_bits_of_the_whole(on, build):
    trace = strided(build)
    whole = fd.deconvolve(trace, "l2")
    with in_pieces(columns=7):
        np.testing.assert_array_equal(fd.deconvolve(trace, "l2"), whole)


def test_one_feature_of_a_strided_convolution_gives_the_bits_it_gives_among_others(on, build):
    trace = strided(build)
    whole = fd.deconvolve(trace, "l2")
    np.testing.assert_array_equal(fd.deconvolve(trace, "l2", [3])[0], whole[3])


def published(build: Any, width: int = 61) -> fd.Trace:
    """[convolution, ReLU, pool], three times over."""
    records: list[dict[str, Any]] = []
    for out in (8, 19, 24):
        records += [
            {"type": "conv2d", "out": out, "kernel": (3, 3), "padding": "same"},
            {"type": "relu"},
            {"type": "max_pool2d", "kernel_size": 2},
        ]
    x = np.random.default_rng(5).standard_normal((1, 30, width))
    return build(records, x.shape, 3).forward(x)


@pytest.mark.parametrize("count", [1, 5, 20, 70])
def test_every_column_is_projected_once_for_every_feature(on, build, count):
    trace = published(build)
    with in_pieces(columns=7) as pieces:
        fd.deconvolve(trace, "l8", some_features(trace, "l8", count))
    columns = np.zeros((count, 61), int)
    for way, some in pieces:
        assert len(some) <= 64
        columns[np.ix_(some, range(*way.inputs.cols))] += 1
    sounding = [k for _, some in pieces for k in some]
    np.testing.assert_array_equal(columns[sounding], 1)
    assert len({way.inputs for way, _ in pieces}) == 9


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_pieces_on_any_number_of_threads_give_the_same_bits(on, build, threads):
    trace = published(build)
    whole = fd.deconvolve(trace, "l8", num_threads=1)
    with in_pieces(columns=7):
        found = fd.deconvolve(trace, "l8", num_threads=threads)
    np.testing.assert_array_equal(found, whole)


def test_a_clip_long_enough_comes_in_pieces_unasked(build):
    """Nothing is patched here: 64 lanes of its first tensors need more than the bound."""
    records = [
        {"type": "conv2d", "out": 64, "kernel": (3, 3), "padding": "same"}, {"type": "relu"},
        {"type": "conv2d", "out": 64, "kernel": (3, 3), "padding": "same"}, {"type": "relu"},
        {"type": "conv2d", "out": 4, "kernel": (1, 1)},
    ]
    trace = build(records, (1, 6, 1200)).forward(np.ones((1, 6, 1200)))
    with ways_gone() as gone:
        fd.deconvolve(trace, "l4")
    ways = [way for way, _ in gone]
    assert len(ways) > 1
    assert [w.inputs.cols[0] for w in ways[1:]] == [w.inputs.cols[1] for w in ways[:-1]]
    assert ways[-1].inputs.cols[1] == 1200


# Sparse starts


@st.composite
def sparse_starts(draw: st.DrawFn, maps: np.ndarray) -> np.ndarray:
    """Few values, of either sign, anywhere; some of the maps silent."""
    start = np.zeros_like(maps)
    for plane in start:
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
            place = tuple(draw(st.integers(0, n - 1)) for n in plane.shape)
            plane[place] = draw(st.sampled_from([1.5, -0.7, 0.3]))
    return start


@settings(PROPERTY, max_examples=40)
@given(case=cases(), count=st.sampled_from([1, 5, 20, 70]), data=st.data())
def test_sparse_starts_give_the_bits_of_the_whole(
    build: Any, case: Case, count: int, data: st.DataObject
) -> None:
    trace = case.trace(build)
    layer = trace.network.layers[-1].name
    features = some_features(trace, layer, count)
    start: Any = "max"
    if data.draw(st.booleans()):
        start = data.draw(sparse_starts(trace[layer][features]))
    oracle = fd.deconvolve(trace, layer, features, case.rule, start, backend="reference")
    bound = 2e-6 * np.abs(oracle).max(initial=0)
    for implementation in IMPLEMENTATIONS:
        with fd.config(**implementation):
            with parts_pay(False):
                whole = fd.deconvolve(trace, layer, features, case.rule, start)
            with parts_pay(True):
                alone = fd.deconvolve(trace, layer, features, case.rule, start)
            as_it_comes = fd.deconvolve(trace, layer, features, case.rule, start)
        np.testing.assert_array_equal(alone, whole, strict=True, err_msg=f"{implementation}")
        np.testing.assert_array_equal(as_it_comes, whole, strict=True)
        assert np.abs(whole - oracle).max(initial=0) <= bound, implementation


@pytest.mark.parametrize("rule", RULES)
def test_parts_and_pieces_in_one_call_give_the_bits_of_the_whole(on, build, rule):
    """Units alone beside whole maps: the first go on their own, the others in pieces."""
    trace = published(build)
    start = trace["l8"].copy()
    for k in range(0, len(start), 2):
        start[k] = 0
        start[k, k % 3, k % 7] = 1
    start[4:6] = 0
    with parts_pay(False):
        whole = fd.deconvolve(trace, "l8", rule=rule, start=start)
    with pytest.MonkeyPatch.context() as patch, in_pieces(columns=9) as pieces:
        patch.setattr(
            cost, "pays", lambda facts, route, parts, *_: parts[0].output.size == (1, 1)
        )
        found = fd.deconvolve(trace, "l8", rule=rule, start=start)
    assert {way.alone for way, _ in pieces} == {False, True}
    np.testing.assert_array_equal(found, whole)
    assert not found[4:6].any()


@pytest.mark.parametrize("rule", RULES)
def test_units_alone_where_pools_overlap(on, build, rule):
    """The sum for a place may lie in a window that the layer above sends nothing to."""
    records = [
        {"type": "conv2d", "out": 5, "kernel": (3, 3), "padding": "same"}, {"type": "relu"},
        {"type": "max_pool2d", "kernel_size": 3, "stride": 1, "padding": 1},
        {"type": "conv2d", "out": 6, "kernel": (1, 3)}, {"type": "relu"},
        {"type": "max_pool2d", "kernel_size": 3, "stride": 2, "padding": 1},
        {"type": "conv2d", "out": 7, "kernel": (1, 1), "name": "top"},
    ]
    trace = build(records, (1, 12, 30)).forward(
        np.random.default_rng(0).standard_normal((1, 12, 30))
    )
    start = np.zeros_like(trace["top"])
    for k in range(len(start)):
        start[k, 1 + k % 3, 4 + k] = 1
    wanted = fd.deconvolve(trace, "top", rule=rule, start=start, backend="reference")
    with parts_pay(True):
        found = fd.deconvolve(trace, "top", rule=rule, start=start)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_the_strongest_unit_of_a_large_layer_is_projected_alone(build):
    """Here the estimate itself finds that a part is cheaper, and how far it reaches."""
    trace = published(build, width=9001)
    with in_pieces(columns=9001) as pieces:
        maps = fd.deconvolve(trace, "l8", [3, 9], start="max")
    assert [way.alone for way, _ in pieces] == [True, True]
    for k, (way, _) in enumerate(pieces):
        part = maps[k][(slice(None), *way.inputs.slices)]
        assert part.size < maps[k].size / 20
        assert np.count_nonzero(part) == np.count_nonzero(maps[k]) > 0


@pytest.mark.parametrize("count", [3, 20])
def test_a_unit_that_sees_nothing_but_padding_gives_zeros(on, build, count):
    """Beside others that are projected on their own; the last rows and columns are padding."""
    records = [
        {"type": "conv2d", "out": 6, "kernel": (3, 3), "padding": 1}, {"type": "relu"},
        {"type": "conv2d", "out": 5, "kernel": (1, 1), "padding": ((1, 2), (1, 2))},
        {"type": "relu"},
        {"type": "conv2d", "out": 5, "kernel": (1, 1)},
    ]
    trace = build(records, (1, 9, 12)).forward(np.ones((1, 9, 12)))
    features = some_features(trace, "l4", count)
    for unseen in ((0, 5), (11, 5), (5, 0), (5, 14), (0, 0), (11, 14)):
        start = np.zeros((count, 12, 15))
        start[::2, 4, 6] = start[(slice(1, None, 2), *unseen)] = 1
        with parts_pay(True):
            found = fd.deconvolve(trace, "l4", features, "gradient", start)
        assert not found[1::2].any()
        assert found[::2].any(axis=(1, 2, 3)).all()


# Silent features


@pytest.mark.parametrize("start", ["map", "max"])
def test_silent_features_are_exact_zeros_and_change_no_other_bit(on, build, start):
    trace = published(build)
    values = trace["l8"].copy()
    if start == "max":
        strongest = values.max(axis=(1, 2), keepdims=True)
        values[values < strongest] = 0
    loud = fd.deconvolve(trace, "l8", start=values)
    silent = np.random.default_rng(0).random(len(values)) < 0.6
    values[silent] = 0
    for columns in (9, 61):
        with in_pieces(columns):
            found = fd.deconvolve(trace, "l8", start=values)
        np.testing.assert_array_equal(found[~silent], loud[~silent])
        np.testing.assert_array_equal(found[silent], 0)
        assert found[~silent].any()


def test_when_all_features_are_silent_all_maps_are_zero(on, build):
    trace = published(build)
    with in_pieces(columns=9) as pieces:
        found = fd.deconvolve(trace, "l8", start=np.zeros_like(trace["l8"]))
    assert found.shape == (24, 1, 30, 61)
    assert not found.any()
    assert pieces == []


@pytest.mark.parametrize("start", ["map", "max", np.zeros((0, 3, 7))])
def test_no_features_give_no_maps(on, build, start):
    with in_pieces(columns=9):
        found = fd.deconvolve(published(build), "l8", [], start=start)
    assert found.shape == (0, 1, 30, 61)
    assert found.dtype == np.float32


@pytest.mark.parametrize("rule", RULES)
def test_a_start_that_the_first_relu_silences_gives_zeros_or_its_gradient(on, build, rule):
    trace = published(build)
    start = -np.ones_like(trace["l7"])
    found = fd.deconvolve(trace, "l7", rule=rule, start=start)
    assert found.any() == (rule == "gradient")


# Regions against brute force


@st.composite
def geometries(draw: st.DrawFn) -> tuple[Window, tuple[int, int], tuple[int, int]]:
    """A window, the size of its input, and of its output."""
    pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, stride, dilation = draw(pairs), draw(pairs), draw(pairs)
    sides = st.tuples(st.integers(0, 4), st.integers(0, 4))
    window = Window(kernel, stride, dilation, (draw(sides), draw(sides)))
    inputs, outputs = [], []
    for extent, step, (before, after) in zip(window.extent, stride, window.padding):
        n = max(1, extent - before - after) + draw(st.integers(0, 12))
        inputs.append(n)
        outputs.append((n + before + after - extent) // step + 1)
    return window, (inputs[0], inputs[1]), (outputs[0], outputs[1])


@st.composite
def regions(draw: st.DrawFn, size: tuple[int, int]) -> Region:
    sides = []
    for n in size:
        begin = draw(st.integers(0, n - 1))
        sides.append((begin, draw(st.integers(begin + 1, n))))
    return Region(sides[0], sides[1])


def places(window: Window, axis: int, output: int) -> list[int]:
    """Input places of one output along an axis, those in the padding included."""
    first = output * window.stride[axis] - window.padding[axis][0]
    return [first + i * window.dilation[axis] for i in range(window.kernel[axis])]


@PROPERTY
@given(geometry=geometries(), data=st.data())
def test_every_place_that_windows_cover_is_reached(geometry: Any, data: st.DataObject) -> None:
    window, in_size, out_size = geometry
    output = data.draw(regions(out_size))
    reached = reached_by(window, output, in_size)
    for axis in (0, 1):
        covered = {
            p
            for o in range(*output[axis])
            for p in places(window, axis, o)
            if 0 <= p < in_size[axis]
        }
        windows = [p for o in range(*output[axis]) for p in places(window, axis, o)]
        assert covered <= set(range(*reached[axis]))
        assert reached[axis] == (max(0, min(windows)), min(in_size[axis], max(windows) + 1))


@PROPERTY
@given(geometry=geometries(), data=st.data())
def test_covering_cells_are_all_that_cover_a_place(geometry: Any, data: st.DataObject) -> None:
    window, in_size, out_size = geometry
    inputs = data.draw(regions(in_size))
    cells = covering_cells(window, inputs, out_size)
    for axis in (0, 1):
        begin, end = cells[axis]
        assert 0 <= begin < end <= out_size[axis], "a part is never empty"
        wanted = set(range(*inputs[axis]))
        for o in range(out_size[axis]):
            if wanted & set(places(window, axis, o)):
                assert begin <= o < end


@PROPERTY
@given(geometry=geometries(), data=st.data())
def test_seen_from_the_parts_every_output_covers_the_same_places(
    geometry: Any, data: st.DataObject
) -> None:
    window, in_size, out_size = geometry
    inputs, outputs = data.draw(regions(in_size)), data.draw(regions(out_size))
    part = within(window, inputs, outputs)
    assert part[:3] == window[:3]
    for axis in (0, 1):
        for o in range(*outputs[axis]):
            seen = places(part, axis, o - outputs[axis][0])
            assert [p + inputs[axis][0] for p in seen] == places(window, axis, o)


@given(regions((9, 7)))
def test_a_region_cuts_what_it_says_out_of_a_map(region: Region) -> None:
    whole = np.arange(63).reshape(9, 7)
    part = whole[region.slices]
    assert part.shape == region.size
    assert part[0, 0] == whole[region.begin]
    assert whole[Region.of(whole.shape).slices].shape == whole.shape


@pytest.mark.skipif("native" not in fd.available_backends(), reason="the native back end fuses")
def test_a_tensor_that_is_made_row_by_row_counts_as_few_rows(build: Any) -> None:
    conv = {"type": "conv2d", "out": 16, "kernel": (3, 3), "padding": 1}
    shape = 1, 2 * cost.ROWS_MADE, 40
    net = build([conv, {"type": "relu"}] * 3, shape)

    def pieces(rule: str) -> int:
        trace = net.forward(np.ones(shape))
        with ways_gone() as ways, pytest.MonkeyPatch.context() as patch:
            patch.setattr(cost, "LEAST_COLUMNS", 1)
            patch.setattr(cost, "LANE_BYTES", 4 * 16 * cost.ROWS_MADE * 40 * cost.LANES)
            fd.deconvolve(trace, "l5", [0], rule=rule, start=np.ones((1, *shape[1:])))
            return len(ways)

    with fd.config(backend="native"):
        assert pieces("deconvnet") == 1
        # Gates stand between the first convolution and the next one, which then wants the whole.
        assert pieces("gradient") == 2
