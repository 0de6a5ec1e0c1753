"""Networks: what is checked when one is made, and what it tells."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdeconv
from fastdeconv.errors import ParameterError
from fastdeconv.network import layers as kinds
from fastdeconv.network.network import Network

CONV = {"type": "conv2d", "name": "conv1", "bias": False}


def small(**arrays):
    return Network([CONV], arrays or {"conv1.weight": np.ones((2, 1, 3, 3))}, (1, 9, 9))


def test_dicts_and_dataclasses_make_the_same_network(record, arrays):
    records = record["layers"]
    mixed = [kinds.layer_from_record(r) if i % 2 else r for i, r in enumerate(records)]
    assert Network(mixed, arrays, (1, 12, None)).layers == Network(
        records, arrays, (1, 12, None)
    ).layers


def test_shapes_chain_through_all_layers(net):
    assert net.shapes((1, 12, 20)) == [
        (4, 12, 20), (4, 12, 20), (4, 12, 20), (4, 6, 10), (6, 6, 10), (6, 6, 10), (6, 1, 1),
        (3, 1, 1),
    ]


@pytest.mark.parametrize(
    "dtype",
    ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "i1", "u1", ">i2", "<u4", ">i8", "longdouble"],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_any_real_dtype_and_order_become_read_only_float32(dtype, order):
    values = np.arange(36).reshape(2, 2, 3, 3)
    weight = np.array(values, dtype=dtype, order=order)
    weight = weight[::-1] if order == "F" else weight
    before = weight.copy()
    array = Network([CONV], {"conv1.weight": weight}, (2, 9, 9)).arrays["conv1.weight"]
    assert array.dtype == np.float32 and array.dtype.isnative
    assert array.flags.c_contiguous and not array.flags.writeable
    assert np.array_equal(array, weight)
    assert weight.flags.writeable and weight.dtype == np.dtype(dtype)
    weight[...] = 99
    assert np.array_equal(array, before)


@pytest.mark.parametrize("dtype", [bool, complex, object, "U3", "M8[s]", "V4", "f4,i4"])
def test_arrays_of_other_dtypes_are_refused(dtype):
    with pytest.raises(ParameterError, match=r"'conv1\.weight'.*dtype"):
        small(**{"conv1.weight": np.zeros((2, 1, 3, 3), dtype)})


@pytest.mark.parametrize(
    ("value", "word"),
    [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf"), (1e300, "overflows float32")],
)
def test_numbers_that_are_not_finite_as_float32_are_refused_with_their_place(value, word):
    weight = np.ones((2, 1, 3, 3))
    weight[1, 0, 2, 0] = value
    with pytest.raises(ParameterError, match=r"'conv1\.weight'.*\(1, 0, 2, 0\)") as error:
        small(**{"conv1.weight": weight})
    assert word in str(error.value)


def test_ragged_and_strange_arrays_are_refused():
    for value in ([[1], [1, 2]], None, "weights", {}):
        with pytest.raises(ParameterError, match=r"conv1\.weight"):
            small(**{"conv1.weight": value})


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("conv1.weight", (4, 1, 3)),
        ("conv1.weight", (4, 1, 0, 3)),
        ("conv1.weight", (4, 2, 3, 3)),
        ("conv1.bias", (3,)),
        ("conv1.bias", (4, 1)),
        ("bn1.weight", (5,)),
        ("bn1.running_var", (3,)),
        ("conv2.weight", (6, 4, 2, 2)),
        ("conv2.weight", (5, 2, 2, 2)),
        ("affine1.weight", (5,)),
        ("affine1.bias", ()),
        ("fc1.weight", (3, 7)),
        ("fc1.weight", (3, 6, 1)),
        ("fc1.bias", (4,)),
    ],
)
def test_wrong_shapes_are_refused_by_array(record, arrays, key, shape):
    arrays[key] = np.ones(shape)
    layer = key.partition(".")[0]
    with pytest.raises(ParameterError, match=rf"'{layer}\."):
        Network(record["layers"], arrays, record["input_shape"])


@pytest.mark.parametrize("key", ["conv1.weight", "conv1.bias", "bn1.running_mean", "fc1.bias"])
def test_a_missing_array_is_named(record, arrays, key):
    del arrays[key]
    with pytest.raises(ParameterError, match=f"'{key}'.*missing"):
        Network(record["layers"], arrays, record["input_shape"])


@pytest.mark.parametrize("key", ["conv2.bias", "bn1.num_batches_tracked", "relu1.weight", 3])
def test_a_left_over_array_is_named(record, arrays, key):
    arrays[key] = np.ones(6)
    with pytest.raises(ParameterError, match=f"no layer uses the array.*{key!r}"):
        Network(record["layers"], arrays, record["input_shape"])


def test_a_negative_variance_is_refused(record, arrays):
    arrays["bn1.running_var"][2] = -0.5
    with pytest.raises(ParameterError, match=r"'bn1\.running_var'.*negative"):
        Network(record["layers"], arrays, record["input_shape"])


def test_a_variance_that_makes_the_scale_infinite_is_refused(record, arrays):
    arrays["bn1.running_var"][2] = 0
    Network(record["layers"], arrays, record["input_shape"])
    record["layers"][1]["eps"] = 0
    with pytest.raises(ParameterError, match=r"'bn1\.running_var'.*infinite"):
        Network(record["layers"], arrays, record["input_shape"])


@pytest.mark.parametrize(
    "shape",
    [(1, 9), (1, 9, 9, 9), None, 3, "abc", (1, 0, 9), (1, -1, 9), (1, 9.0, 9), (1, True, 9)],
)
def test_input_shapes_that_are_none_are_refused(shape):
    with pytest.raises(ParameterError, match="input_shape must be"):
        Network([CONV], {"conv1.weight": np.ones((2, 1, 3, 3))}, shape)


def test_unknown_input_channels_are_told_by_the_first_array():
    layers = [{"type": "relu"}, {"type": "max_pool2d", "kernel_size": 2}, {**CONV, "groups": 3}]
    net = Network(layers, {"conv1.weight": np.ones((6, 2, 3, 3))}, (None, None, None))
    assert net.input_shape == (6, None, None)
    bare = Network([{"type": "relu"}], {}, (None, None, None))
    assert bare.shapes((7, 2, 3)) == [(7, 2, 3)]


def test_linear_after_a_map_asks_for_a_flatten():
    layers = [CONV, {"type": "linear", "name": "fc1", "bias": False}]
    arrays = {"conv1.weight": np.ones((2, 1, 3, 3)), "fc1.weight": np.ones((5, 2))}
    for shape in ((1, 9, 9), (1, None, None), (1, 3, None)):
        with pytest.raises(ParameterError, match=r"'fc1' \(linear\).*flatten"):
            Network(layers, arrays, shape)
    assert Network(layers, arrays, (1, 3, 3)).shapes((1, 3, 3))[-1] == (5, 1, 1)


def test_linear_after_a_flatten_of_unknown_size_is_checked_when_the_size_is_known():
    layers = [{"type": "flatten"}, {"type": "linear", "bias": False}]
    net = Network(layers, {"fc1.weight": np.ones((5, 12))}, (2, 3, None))
    assert net.shapes((2, 3, 2)) == [(12, 1, 1), (5, 1, 1)]
    with pytest.raises(ParameterError, match=r"'fc1'.*12 input channels.*gets 18"):
        net.shapes((2, 3, 3))


def test_layers_that_do_not_fit_an_input_are_found_when_the_network_is_made():
    layers = [CONV, {"type": "max_pool2d", "name": "pool1", "kernel_size": 4}]
    with pytest.raises(ParameterError, match=r"'pool1' \(max_pool2d\).*3 x \?"):
        Network(layers, {"conv1.weight": np.ones((2, 1, 3, 3))}, (1, 5, None))


@pytest.mark.parametrize("shape", [(1, 13, 20), (2, 12, 20), (1, 12), (1, 12, None), "abc"])
def test_shapes_refuses_other_inputs(net, shape):
    with pytest.raises(ParameterError):
        net.shapes(shape)


def test_shapes_names_the_layer_that_an_input_is_too_small_for(net):
    with pytest.raises(ParameterError, match=r"'pool1'.*12 x 1"):
        net.shapes((1, 12, 1))


def test_layers_are_found_by_name(net):
    assert net.layers[net.layer_index("pool1")].name == "pool1"
    assert net.pooling_layers == ["pool1"]
    with pytest.raises(ParameterError, match="'pool9'; there are conv1, bn1, relu1, pool1"):
        net.layer_index("pool9")


@pytest.mark.parametrize(
    "classes", ["abc", ["a", "b"], ["a", "b", 3], ["a", "b", "\ud800"], {"a": 1}, 3]
)
def test_classes_must_be_one_string_for_each_output(record, arrays, classes):
    with pytest.raises(ParameterError, match="classes"):
        Network(record["layers"], arrays, record["input_shape"], classes=classes)


@pytest.mark.parametrize("key", ["name", "license", "citation"])
@pytest.mark.parametrize("value", [3, ["a"], "\ud800"])
def test_texts_must_be_strings(record, arrays, key, value):
    with pytest.raises(ParameterError, match=f"{key} must be a string"):
        Network(record["layers"], arrays, record["input_shape"], **{key: value})


def test_hostile_texts_are_kept_and_shown_escaped(record, arrays):
    name = "../../etc/passwd\n\x1b[31m"
    net = Network(record["layers"], arrays, record["input_shape"], name=name, classes=[name] * 3)
    assert net.name == name and net.classes == (name,) * 3
    assert "\x1b" not in net.describe() + repr(net)


def test_a_front_end_may_be_given_as_a_record(record, arrays):
    front = {"kind": "stft", "sr": 8000, "n_fft": 256, "hop_length": 128}
    net = Network(record["layers"], arrays, record["input_shape"], frontend=front)
    assert (net.frontend.sr, net.frontend.n_fft) == (8000, 256)
    same = Network(record["layers"], arrays, record["input_shape"], frontend=net.frontend)
    assert same.frontend is net.frontend
    for wrong in ({**front, "wheels": 4}, 3, "stft"):
        with pytest.raises(ParameterError, match="frontend"):
            Network(record["layers"], arrays, record["input_shape"], frontend=wrong)


def test_summary_prints_a_table_with_a_line_for_each_layer(net, capsys):
    net.summary()
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if line.split()}
    assert all(layer.name in rows and layer.type in rows[layer.name] for layer in net.layers)
    assert "4 x 6 x ?" in rows["pool1"] and "4 x 4" in rows["pool1"] and "2 x 2" in rows["pool1"]
    assert rows["conv1"].split()[-8] == "40" and rows["conv1"].endswith("  lanes")
    assert rows["fc1"].endswith("layer by layer")
    assert "all" in rows["gap"] and "all" in rows["fc1"]
    total = 40 + 8 + 48 + 12 + 21
    assert rows["parameters:"].split()[1] == str(total)
    assert "blues, metal, jazz" in rows["classes:"]


window = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))


@settings(max_examples=40, deadline=None)
@given(st.lists(window, min_size=1, max_size=5))
def test_receptive_field_is_the_span_of_input_that_one_output_sees(windows):
    layers = [
        kinds.MaxPool2d(f"p{i}", kernel_size=(k, 1), stride=(s, 1), dilation=(d, 1))
        for i, (k, s, d) in enumerate(windows)
    ]
    last = 0
    for k, s, d in reversed(windows):
        last = last * s + (k - 1) * d
    row = Network(layers, {}, (1, None, None)).describe().splitlines()[3 + len(layers)]
    jump = math.prod(s for _, s, _ in windows)
    assert f"  {jump} x 1  " in row and f"  {last + 1} x 1  " in row


@pytest.mark.parametrize("activation, told", [("relu", "lanes"), ("elu", "layer by layer")])
def test_the_table_says_where_an_average_pool_is_fast(activation, told):
    if "native" not in fastdeconv.available_backends():
        pytest.skip("only the native back end spreads values over windows")
    conv = {"type": "conv2d", "padding": "same", "bias": False}
    net = Network(
        [{**conv, "name": "below"}, {"type": activation, "name": "act"},
         {"type": "avg_pool2d", "name": "pool", "kernel_size": 2}, {**conv, "name": "above"}],
        {"below.weight": np.ones((2, 1, 3, 3)), "above.weight": np.ones((2, 2, 3, 3))},
        (1, None, None),
    )
    with fastdeconv.config(backend="native"):
        rows = {line.split()[0]: line for line in net.describe().splitlines() if line.split()}
    assert rows["pool"].endswith(f"  {told}")
    assert rows["above"].endswith("  lanes") and rows["below"].endswith("  lanes")


def test_a_network_survives_pickling_with_read_only_arrays(net):
    copy = pickle.loads(pickle.dumps(net))
    assert copy.layers == net.layers and copy.input_shape == net.input_shape
    assert copy.classes == net.classes and copy.name == net.name
    for key, array in net.arrays.items():
        assert np.array_equal(copy.arrays[key], array)
        assert not copy.arrays[key].flags.writeable


def test_layers_must_be_a_list_of_layers():
    for layers in ([], {}, None, "relu", [kinds.Layer("x")]):
        with pytest.raises(ParameterError, match="layer"):
            Network(layers, {}, (1, 9, 9))
    with pytest.raises(ParameterError, match="arrays must be a dict"):
        Network([kinds.ReLU("r")], [], (1, 9, 9))
