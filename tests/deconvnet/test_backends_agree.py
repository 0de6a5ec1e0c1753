"""Projections are the same on every back end and instruction set.

The oracle is the reference back end, float64 from the start to the map. Its forward
pass also makes the trace that all others project, so switches and gates are equal and
only rounding may differ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.deconvnet import cost

PROPERTY = settings(derandomize=True, deadline=None)

IMPLEMENTATIONS = [{"backend": "native", "isa": isa} for isa in fd.available_isas()] + [
    {"backend": name} for name in fd.available_backends() if name not in ("native", "reference")
]
RULES = ("deconvnet", "guided", "gradient")


class Draft:
    """A network in the making: random weights for every layer that is added."""

    def __init__(self, shape: tuple[int, int, int], seed: int) -> None:
        self.input_shape, self.seed = shape, seed
        self.rng = np.random.default_rng(seed)
        self.layers: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.network().shapes(self.input_shape)[-1] if self.layers else self.input_shape

    def network(self) -> fd.Network:
        return fd.Network(self.layers, self.arrays, self.input_shape)

    def add(self, kind: str, **parameters: Any) -> Draft:
        """Append a layer; one that does not fit its input is left out."""
        shape, name = self.shape, f"layer{len(self.layers)}"
        arrays = {f"{name}.{key}": a for key, a in self._arrays(kind, shape, parameters)}
        layers = [*self.layers, {"type": kind, "name": name, **parameters}]
        try:
            fd.Network(layers, {**self.arrays, **arrays}, self.input_shape)
        except fd.ParameterError:
            return self
        self.layers = layers
        self.arrays.update(arrays)
        return self

    def _arrays(self, kind: str, shape: Any, parameters: dict[str, Any]) -> Any:
        channels = shape[0]
        if kind == "conv2d":
            groups = parameters.get("groups", 1)
            size = parameters.pop("out"), channels // groups, *parameters.pop("kernel", (3, 3))
            yield "weight", self._normal(size) / np.sqrt(np.prod(size[1:]))
            yield "bias", self._normal(size[:1]) / 4
        elif kind == "linear":
            size = parameters.pop("out"), channels
            yield "weight", self._normal(size) / np.sqrt(channels)
            yield "bias", self._normal(size[:1])
        elif kind in ("batch_norm2d", "affine"):
            # Scales of both signs.
            yield "weight", self._normal((channels,))
            yield "bias", self._normal((channels,)) / 4
            if kind == "batch_norm2d":
                yield "running_mean", self._normal((channels,)) / 4
                yield "running_var", self.rng.uniform(0.5, 2, channels)

    def _normal(self, size: tuple[int, ...]) -> np.ndarray:
        return self.rng.standard_normal(size)

    def case(self, rule: str = "deconvnet", start: str = "map") -> Case:
        net = self.network()
        x = np.random.default_rng(self.seed + 1).standard_normal(self.input_shape)
        with fd.config(backend="reference"):
            return Case(net.forward(x), net.layers[-1].name, rule, start)


class Case(NamedTuple):
    trace: fd.Trace
    layer: str
    rule: str = "deconvnet"
    start: str = "map"

    def maps(self, features: Any = None, **configuration: Any) -> np.ndarray:
        with fd.config(**configuration):
            return fd.deconvolve(self.trace, self.layer, features, self.rule, self.start)


def assert_agreement(case: Case) -> None:
    oracle = case.maps(backend="reference")
    zero = ~oracle.any(axis=(1, 2, 3))
    for implementation in IMPLEMENTATIONS:
        maps = case.maps(**implementation)
        error = np.abs(maps - oracle).max(initial=0)
        assert error <= 2e-6 * np.abs(oracle).max(initial=0), (implementation, error)
        assert not maps[zero].any(), implementation


def assert_the_same_bits_alone(case: Case) -> None:
    """Five features, each alone and among others."""
    for implementation in IMPLEMENTATIONS:
        together = case.maps([0, 1, 2, 3, 4] * 4, **implementation)
        for feature in range(5):
            alone = case.maps([feature], **implementation)[0]
            np.testing.assert_array_equal(alone, together[feature])


# Random networks


def sides(smallest: int, largest: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(smallest, largest), st.integers(smallest, largest))


# Mostly what the lane kernels take in one step, sometimes what they do not.
NOTHING: tuple[str, dict[str, Any]] = ("dropout", {})
SCALES = st.sampled_from([NOTHING, NOTHING, ("batch_norm2d", {}), ("affine", {})])
ACTIVATIONS = st.sampled_from(
    [("relu", {})] * 12
    + [
        NOTHING,
        ("leaky_relu", {"negative_slope": 0.2}),
        ("elu", {"alpha": 0.7}),
        ("tanh", {}),
        ("sigmoid", {}),
        ("softmax", {}),
    ]
)
NORMS = st.sampled_from(
    [NOTHING] * 5 + [("local_response_norm", {"size": 3, "alpha": 0.1, "k": 1.0})]
)
PADDINGS = st.one_of(
    st.sampled_from(["same", "valid"]), st.integers(0, 2), st.tuples(sides(0, 2), sides(0, 2))
)


@st.composite
def convolutions(draw: st.DrawFn, channels: int) -> tuple[str, dict[str, Any]]:
    groups = draw(st.sampled_from([g for g in (1, 1, 2, 3) if channels % g == 0]))
    return "conv2d", {
        "out": groups * draw(st.integers(1, 5)),
        "kernel": draw(st.one_of(st.just((3, 3)), sides(1, 4))),
        "stride": draw(st.sampled_from([(1, 1), (1, 1), (1, 2), (2, 1), (2, 2), (3, 2)])),
        "dilation": draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2), (2, 3)])),
        "padding": draw(PADDINGS),
        "groups": groups,
    }


@st.composite
def pools(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    kernel = draw(st.one_of(st.just((2, 2)), sides(1, 3)))
    parameters = {"kernel_size": kernel, "ceil_mode": draw(st.booleans())}
    if draw(st.integers(0, 2)) == 0:
        parameters["stride"] = draw(sides(1, 4))
    if draw(st.booleans()):
        parameters["padding"] = (draw(st.integers(0, kernel[0] // 2)), kernel[1] // 2)
    if draw(st.integers(0, 5)) == 0:
        return "avg_pool2d", parameters
    parameters["dilation"] = draw(st.sampled_from([(1, 1), (1, 1), (1, 2), (2, 1)]))
    return "max_pool2d", parameters


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    shape = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(4, 40)), draw(st.integers(1, 20))
    draft = Draft(shape, draw(st.integers(0, 2**16)))
    for _ in range(draw(st.integers(2, 4))):
        kind, parameters = draw(convolutions(draft.shape[0]))
        draft.add(kind, **parameters)
        for part in (SCALES, ACTIVATIONS, SCALES, NORMS, st.one_of(pools(), st.just(NOTHING))):
            kind, parameters = draw(part)
            draft.add(kind, **parameters)
    if draw(st.integers(0, 3)) == 0:
        draft.add(draw(st.sampled_from(["global_avg_pool2d", "global_max_pool2d", "dropout"])))
        draft.add("flatten").add("linear", out=4)
    return draft


@st.composite
def cases(draw: st.DrawFn) -> Case:
    draft = draw(drafts())
    assume(draft.layers)
    rule, start = draw(st.sampled_from(RULES)), draw(st.sampled_from(["map", "map", "max"]))
    case = draft.case(rule, start)
    return case._replace(layer=draw(st.sampled_from(draft.layers))["name"])


@settings(PROPERTY, max_examples=150)
@given(cases())
def test_any_network_projects_as_on_the_reference_back_end(case: Case) -> None:
    assert_agreement(case)


@settings(PROPERTY, max_examples=30)
@given(cases())
def test_the_number_of_threads_does_not_change_a_bit(case: Case) -> None:
    for implementation in IMPLEMENTATIONS:
        one, *others = (case.maps(num_threads=n, **implementation) for n in (1, 2, 3))
        for other in others:
            np.testing.assert_array_equal(one, other, strict=True)


@settings(PROPERTY, max_examples=30)
@given(cases(), st.data())
def test_a_feature_alone_gives_the_bits_it_gives_among_others(case: Case, data: Any) -> None:
    count = len(case.trace[case.layer])
    features = data.draw(st.lists(st.integers(0, count - 1), max_size=20))
    for implementation in IMPLEMENTATIONS:
        together = case.maps(features, **implementation)
        assert together.shape == (len(features), *case.trace.x.shape)
        for feature, among in zip(features, together):
            np.testing.assert_array_equal(case.maps([feature], **implementation)[0], among)


@settings(PROPERTY, max_examples=60)
@given(cases())
def test_pieces_of_a_map_give_the_bits_of_the_whole(case: Case) -> None:
    # Small maps are projected whole; here columns are few and features never too cheap.
    for implementation in IMPLEMENTATIONS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cost, "PIECE_WORK", np.inf)
            whole = case.maps(**implementation)
            patch.setattr(cost, "LANE_BYTES", 1)
            patch.setattr(cost, "LEAST_COLUMNS", 3)
            np.testing.assert_array_equal(case.maps(**implementation), whole)
            patch.setattr(cost, "PIECE_WORK", -np.inf)
            np.testing.assert_array_equal(case.maps(**implementation), whole)


# Networks of known kinds


def plain(
    widths: tuple[int, ...], pool: dict[str, Any] | None, shape: tuple[int, int, int] = (1, 40, 22)
) -> Draft:
    """[Convolution, ReLU, pool] for every width."""
    draft = Draft(shape, seed=len(widths))
    for width in widths:
        draft.add("conv2d", out=width, padding="same").add("relu")
        if pool is not None:
            draft.add("max_pool2d", **pool)
    return draft


def published() -> Draft:
    return plain((8, 7, 6), {"kernel_size": 2})


def unpooled() -> Draft:
    return plain((5, 6, 5), None)


def overlapping() -> Draft:
    return plain((5, 6, 5), {"kernel_size": 3, "stride": 2, "padding": 1})


def with_gaps_between_windows() -> Draft:
    return plain((5, 6, 5), {"kernel_size": (2, 1), "stride": (3, 2), "dilation": (2, 1)})


def with_pools_of_more_than_256_places() -> Draft:
    return plain((5, 6, 4), {"kernel_size": (18, 19), "padding": (4, 5)}, (1, 90, 70))


def of_three_input_channels() -> Draft:
    return plain((5, 9), {"kernel_size": 2}, (3, 40, 22))


def one_row_high() -> Draft:
    draft = Draft((2, 1, 61), seed=3)
    for width in (6, 7):
        draft.add("conv2d", out=width, kernel=(1, 5), padding="same").add("relu")
        draft.add("max_pool2d", kernel_size=(1, 3))
    return draft


def grouped() -> Draft:
    draft = Draft((4, 30, 17), seed=4)
    for width in (8, 12):
        draft.add("conv2d", out=width, padding="same", groups=4).add("relu")
        draft.add("max_pool2d", kernel_size=2)
    return draft


def normed_around_the_relu() -> Draft:
    draft = Draft((1, 33, 20), seed=5)
    for width in (6, 7, 5):
        draft.add("conv2d", out=width, padding=1).add("batch_norm2d").add("relu").add("affine")
        draft.add("max_pool2d", kernel_size=2).add("dropout")
    return draft


def with_local_response_norm() -> Draft:
    draft = Draft((3, 40, 30), seed=6)
    for width in (7, 6):
        draft.add("conv2d", out=width, kernel=(5, 5), stride=2, padding=2).add("relu")
        draft.add("local_response_norm", size=5, alpha=0.5).add("max_pool2d", kernel_size=2)
    return draft


def with_other_activations() -> Draft:
    draft = Draft((1, 30, 20), seed=7)
    for kind in ("leaky_relu", "elu", "tanh"):
        draft.add("conv2d", out=6, padding="same").add(kind).add("avg_pool2d", kernel_size=2)
    return draft


def with_large_strides_and_dilations() -> Draft:
    draft = Draft((2, 60, 45), seed=8)
    draft.add("conv2d", out=5, kernel=(4, 3), stride=(3, 2), dilation=(1, 3)).add("relu")
    draft.add("max_pool2d", kernel_size=(1, 2), ceil_mode=True)
    uneven = ((2, 0), (1, 3))
    draft.add("conv2d", out=6, kernel=(2, 5), stride=(2, 1), dilation=(3, 1), padding=uneven)
    return draft.add("relu")


def classifier() -> Draft:
    draft = plain((6, 7), {"kernel_size": 2})
    return draft.add("flatten").add("linear", out=8).add("relu").add("linear", out=5).add("softmax")


def with_global_average() -> Draft:
    return plain((6, 7), {"kernel_size": 2}).add("global_avg_pool2d").add("linear", out=5)


def with_global_maximum() -> Draft:
    draft = plain((6, 7), {"kernel_size": 2}).add("conv2d", out=5).add("global_max_pool2d")
    return draft.add("flatten").add("linear", out=4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "draft",
    [
        published, unpooled, overlapping, with_gaps_between_windows,
        with_pools_of_more_than_256_places, of_three_input_channels, one_row_high, grouped,
        normed_around_the_relu, with_local_response_norm, with_other_activations,
        with_large_strides_and_dilations, classifier, with_global_average, with_global_maximum,
    ],
)  # fmt: skip
def test_every_layer_projects_as_on_the_reference_back_end(draft: Any, rule: str) -> None:
    case = draft().case(rule)
    for layer in case.trace.network.layers:
        assert_agreement(case._replace(layer=layer.name))


@pytest.mark.parametrize("count", [17, 40, 70])
def test_many_features_share_a_call_without_changing_a_bit(count: int) -> None:
    case = plain((9, count), {"kernel_size": 2}).case()
    assert_agreement(case)
    for implementation in IMPLEMENTATIONS:
        together = case.maps(**implementation)
        for feature in (0, 5, count - 1):
            alone = case.maps([feature], **implementation)[0]
            np.testing.assert_array_equal(alone, together[feature])


@pytest.mark.parametrize("rule", ["deconvnet", "gradient"])
@pytest.mark.parametrize(
    "pool", [None, {"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}]
)
def test_a_feature_alone_in_a_wide_map_gives_the_bits_it_gives_among_others(
    pool: dict[str, Any] | None, rule: str
) -> None:
    """Neighbouring pixels of a lone feature are summed together, here in several groups; its
    channels fill more than one block of vectors."""
    draft = Draft((1, 9, 150), seed=3)
    for out, kernel, dilation in ((70, (3, 3), (1, 1)), (66, (2, 5), (2, 3)), (5, (3, 3), (1, 1))):
        draft.add("conv2d", out=out, kernel=kernel, dilation=dilation, padding="same").add("relu")
        if pool is not None:
            draft.add("max_pool2d", **pool)
    case = draft.case(rule)
    assert_agreement(case)
    assert_the_same_bits_alone(case)


@pytest.mark.parametrize("channels", [3, 8, 9, 16, 17])
def test_a_feature_alone_gives_the_same_bits_where_all_channels_have_one_switch(
    channels: int
) -> None:
    """All weights are positive and the input does not change along the windows: the first place of
    each has every channel, the others have none."""
    draft = Draft((1, 8, 10), seed=5)
    draft.add("conv2d", out=channels, kernel=(3, 3), padding="same").add("relu")
    draft.add("max_pool2d", kernel_size=2)
    draft.add("conv2d", out=5, kernel=(3, 3), padding="same").add("relu")
    draft.arrays["layer0.weight"] = np.abs(draft.arrays["layer0.weight"])
    case = draft.case("gradient")
    with fd.config(backend="reference"):
        case = case._replace(trace=draft.network().forward(np.ones(draft.input_shape)))
    inside = case.trace.switches("layer2")[:, 1:-1, 1:-1]
    assert (inside == inside[0]).all()
    assert_agreement(case)
    assert_the_same_bits_alone(case)


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("pool", [{}, {"ceil_mode": True}, {"padding": 1}], ids=str)
@pytest.mark.parametrize("size", [(8, 10), (11, 67), (5, 5)])
def test_a_feature_alone_gives_the_same_bits_at_every_edge_of_the_input(
    size: tuple[int, int], pool: dict[str, Any], padding: int
) -> None:
    """Of a lone feature, four places of a window are added to the input's map together, if it has
    them all."""
    draft = Draft((1, *size), seed=5)
    for out in (7, 5):
        draft.add("conv2d", out=out, kernel=(3, 3), padding=padding).add("relu")
        draft.add("max_pool2d", kernel_size=2, **pool)
    case = draft.case("gradient")
    assert_agreement(case)
    assert_the_same_bits_alone(case)


@pytest.mark.parametrize("silent", [[4], [0, 1, 2, 3, 5, 6]])
def test_silent_features_of_the_lowest_layer_change_no_bit_of_others(silent: list[int]) -> None:
    """Few are projected with the others, many are left out."""
    case = plain((12,), {"kernel_size": 2}).case()
    layer = case.trace.network.layers[-1].name
    values = case.trace[layer].copy()
    for implementation in IMPLEMENTATIONS:
        with fd.config(**implementation):
            loud = fd.deconvolve(case.trace, layer, start=values)
            quiet = values.copy()
            quiet[silent] = 0
            found = fd.deconvolve(case.trace, layer, start=quiet)
        assert not found[silent].any()
        others = np.setdiff1d(np.arange(len(values)), silent)
        np.testing.assert_array_equal(found[others], loud[others])
        assert found[others].any()


@pytest.mark.parametrize("kind", ["add", "multiply", "concat"])
def test_a_few_silent_features_above_a_layer_of_several_inputs(kind: str) -> None:
    draft = Draft((1, 9, 11), seed=3)
    draft.add("conv2d", out=12, padding=1).add("relu").add("conv2d", out=12, padding=1)
    draft.add(kind, inputs=["layer1", "layer2"]).add("relu")
    case = draft.case()
    layer = "layer4"
    values = case.trace[layer].copy()
    values[4] = 0
    with fd.config(backend="reference"):
        wanted = fd.deconvolve(case.trace, layer, start=values)
    for implementation in IMPLEMENTATIONS:
        with fd.config(**implementation):
            found = fd.deconvolve(case.trace, layer, start=values)
        assert not found[4].any()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_convolution_of_one_channel_and_place_below_another() -> None:
    """It is depthwise, and takes its values from the step above while they are in cache."""
    draft = Draft((1, 12, 22), seed=3)
    draft.add("conv2d", out=3, padding=1)
    for _ in range(2):
        draft.add("conv2d", out=1, kernel=(1, 1)).add("elu")
    draft.add("conv2d", out=32, padding=1).add("conv2d", out=16, padding=1)
    assert_agreement(draft.case())


@pytest.mark.parametrize("rule", ["deconvnet", "gradient"])
def test_the_strongest_unit_of_a_block_that_begins_at_an_overlapping_pool(rule: str) -> None:
    draft = Draft((1, 60, 90), seed=3)
    draft.add("conv2d", out=18, padding=1)
    draft.add("max_pool2d", kernel_size=3, stride=2, padding=1)
    draft.add("conv2d", out=18, padding=1).add("conv2d", out=18, padding=1)
    draft.add("add", inputs=["layer1", "layer3"]).add("relu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "pays", lambda *_: True)
        assert_agreement(draft.case(rule, "max"))


@pytest.mark.parametrize("maker", IMPLEMENTATIONS, ids=lambda i: "-".join(i.values()))
def test_every_implementation_projects_any_others_trace(maker: dict[str, str]) -> None:
    draft = published()
    with fd.config(**maker):
        trace = draft.network().forward(np.ones(draft.input_shape))
    assert_agreement(Case(trace, draft.layers[-1]["name"]))


def test_silent_features_give_exact_zeros() -> None:
    draft = published()
    draft.arrays["layer0.bias"][:] = -100
    draft.arrays["layer3.bias"][:] = [-100, 1, -100, 1, -100, -100, 1]
    case = draft.case()._replace(layer="layer5")
    silent = [0, 2, 4, 5]
    for implementation in IMPLEMENTATIONS:
        maps = case.maps(**implementation)
        assert not maps[silent].any()
        assert maps[[1, 3, 6]].any(axis=(1, 2, 3)).all()


@pytest.mark.skipif("numba" not in fd.available_backends(), reason="without Numba")
def test_the_size_of_numbas_vectors_does_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastdeconv.kernels import numba_lanes

    case = plain((9, 7, 40), {"kernel_size": 2}).case()
    maps = case.maps(backend="numba")
    monkeypatch.setattr(numba_lanes, "_vector_sizes", lambda: (16,))
    assert numba_lanes.lanes(40) == 48
    np.testing.assert_array_equal(case.maps(backend="numba"), maps)
