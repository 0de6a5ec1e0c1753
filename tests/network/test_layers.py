"""Layer records: defaults, checks, and shapes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fastdeconv.errors import ParameterError
from fastdeconv.kernels.interface import Window
from fastdeconv.network import layers as kinds

NO_ARRAYS: dict = {}


def test_every_type_of_the_format_has_a_layer_class():
    assert list(kinds.LAYER_TYPES) == [
        "conv2d", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softmax", "batch_norm2d",
        "local_response_norm", "max_pool2d", "avg_pool2d", "global_avg_pool2d",
        "global_max_pool2d", "dropout", "flatten", "linear", "affine",
    ]


@pytest.mark.parametrize(
    ("layer", "defaults"),
    [
        (kinds.Conv2d("x"), {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": True}),
        (kinds.MaxPool2d("x", 3), {
            "kernel_size": 3, "padding": 0, "dilation": 1, "ceil_mode": False}),
        (kinds.AvgPool2d("x", 3), {
            "kernel_size": 3, "padding": 0, "ceil_mode": False, "count_include_pad": True}),
        (kinds.AvgPool2d("x", 3, padding="same"), {
            "kernel_size": 3, "padding": "same", "ceil_mode": False, "count_include_pad": False}),
        (kinds.BatchNorm2d("x"), {"eps": 1e-5}),
        (kinds.LeakyReLU("x"), {"negative_slope": 0.01}),
        (kinds.ELU("x"), {"alpha": 1.0}),
        (kinds.LocalResponseNorm("x", 5), {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}),
        (kinds.Linear("x"), {"bias": True}),
        (kinds.ReLU("x"), {}),
    ],
)
def test_defaults_are_those_of_pytorch(layer, defaults):
    assert layer.to_record() == {"type": layer.type, "name": "x", **defaults}


@pytest.mark.parametrize("kind", kinds.LAYER_TYPES)
def test_records_come_back_as_the_same_layer(kind):
    record = {"type": kind, "name": "x"}
    if kind in ("max_pool2d", "avg_pool2d"):
        record.update(kernel_size=[2, 3], padding=[[0, 1], [1, 0]])
    if kind == "local_response_norm":
        record["size"] = 5
    layer = kinds.layer_from_record(record)
    assert isinstance(layer, kinds.LAYER_TYPES[kind])
    assert kinds.layer_from_record(layer.to_record()) == layer
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert hash(layer) == hash(kinds.layer_from_record(record))


def test_geometry_is_kept_as_written_with_lists_as_tuples():
    layer = kinds.Conv2d("c", stride=[2, 1], padding=[[1, 2], [3, 4]], dilation=np.int64(2))
    assert (layer.stride, layer.padding, layer.dilation) == ((2, 1), ((1, 2), (3, 4)), 2)
    assert type(layer.dilation) is int


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"type": "conv3d", "name": "c"}, ["'c'", "'conv3d'", "conv2d"]),
        ({"name": "c"}, ["'c'", "'type'", "missing"]),
        ({"type": ["conv2d"], "name": "c"}, ["unknown type"]),
        ({"type": "relu", "name": "r", "inplace": True}, ["'r'", "'inplace'"]),
        ({"type": "relu", "name": "r", 3: True}, ["'r'", "unknown key 3"]),
        ({"type": "max_pool2d", "name": "p"}, ["'p'", "'kernel_size'", "missing"]),
        ({"type": "local_response_norm", "name": "n"}, ["'size'", "missing"]),
        ({"type": "relu"}, ["'name'", "missing"]),
        ("relu", ["'relu'"]),
        (None, ["None"]),
    ],
)
def test_wrong_records_are_refused_by_name_and_key(record, words):
    with pytest.raises(ParameterError) as error:
        kinds.layer_from_record(record)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("cls", "key", "value"),
    [
        (kinds.Conv2d, "stride", 0),
        (kinds.Conv2d, "stride", True),
        (kinds.Conv2d, "stride", 1.0),
        (kinds.Conv2d, "stride", None),
        (kinds.Conv2d, "stride", [1, 2, 3]),
        (kinds.Conv2d, "stride", [1, "2"]),
        (kinds.Conv2d, "stride", 10**30),
        pytest.param(kinds.Conv2d, "stride", 10**5000, id="5001 digits"),
        (kinds.Conv2d, "dilation", [[1, 1], [1, 1]]),
        (kinds.Conv2d, "padding", "full"),
        (kinds.Conv2d, "padding", -1),
        (kinds.Conv2d, "padding", [[1, 2]]),
        (kinds.Conv2d, "padding", [[1, 2], [3, -4]]),
        (kinds.Conv2d, "padding", [[[1]], [[2]]]),
        (kinds.Conv2d, "groups", 0),
        (kinds.Conv2d, "groups", 1.5),
        (kinds.Conv2d, "bias", 1),
        (kinds.Conv2d, "bias", "false"),
        (kinds.BatchNorm2d, "eps", -1e-5),
        (kinds.BatchNorm2d, "eps", float("nan")),
        (kinds.BatchNorm2d, "eps", True),
        (kinds.ELU, "alpha", "1"),
        (kinds.ELU, "alpha", 10**400),
        (kinds.LeakyReLU, "negative_slope", float("inf")),
        (kinds.LeakyReLU, "negative_slope", None),
    ],
)
def test_wrong_values_are_refused_by_layer_and_key(cls, key, value):
    with pytest.raises(ParameterError) as error:
        cls("some", **{key: value})
    assert "'some'" in str(error.value) and f"{key} must be" in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "name", ["", None, 3, "a/b", "a\\b", "..", ".", "a\nb", "a\0b", "\ud800", "\x1b[31m"]
)
def test_names_that_could_be_a_trap_are_refused(name):
    with pytest.raises(ParameterError, match="name must be") as error:
        kinds.ReLU(name)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["conv1", "features.0", "été", "a b", "..a", "-x"])
def test_other_names_stay_as_they_are(name):
    assert kinds.ReLU(name).name == name


def test_layers_without_a_name_are_counted_per_type():
    records = [{"type": t} for t in ("conv2d", "relu", "conv2d", "relu", "linear")]
    records.insert(2, {"type": "max_pool2d", "kernel_size": 2})
    names = [layer.name for layer in kinds.layers_from_records(records)]
    assert names == ["conv1", "relu1", "pool1", "conv2", "relu2", "fc1"]


def test_two_layers_of_one_name_are_refused():
    with pytest.raises(ParameterError, match=r"layers\[0\] and layers\[1\].*'a'"):
        kinds.layers_from_records([kinds.ReLU("a"), {"type": "tanh", "name": "a"}])


def test_window_of_a_convolution_takes_its_kernel_from_the_weight():
    conv = kinds.Conv2d("c", stride=(2, 1), padding="same", dilation=(1, 2))
    window = conv.window((7, 8), {"c.weight": np.zeros((1, 1, 4, 3), np.float32)})
    assert window == Window((4, 3), (2, 1), (1, 2), ((1, 2), (2, 2)))


def test_window_of_a_pool_has_the_kernel_size_as_default_stride():
    assert kinds.MaxPool2d("p", (3, 2)).window((9, 9), NO_ARRAYS).stride == (3, 2)
    assert kinds.AvgPool2d("p", 3, stride=1).window((9, 9), NO_ARRAYS).stride == (1, 1)


@pytest.mark.parametrize(
    ("layer", "given", "wanted"),
    [
        (kinds.MaxPool2d("p", 2), (5, 7, 9), (5, 3, 4)),
        (kinds.MaxPool2d("p", 2, ceil_mode=True), (5, 7, 9), (5, 4, 5)),
        (kinds.AvgPool2d("p", (1, 3), padding=(0, 1)), (5, 7, 9), (5, 7, 3)),
        (kinds.MaxPool2d("p", 2, padding="same", stride=1), (5, 7, None), (5, 7, None)),
        (kinds.MaxPool2d("p", 2), (None, None, 9), (None, None, 4)),
        (kinds.GlobalAvgPool2d("g"), (5, None, None), (5, 1, 1)),
        (kinds.GlobalMaxPool2d("g"), (5, 2, 3), (5, 1, 1)),
        (kinds.Flatten("f"), (5, 2, 3), (30, 1, 1)),
        (kinds.Flatten("f"), (5, None, 3), (None, 1, 1)),
        (kinds.Softmax("s"), (5, 2, 3), (5, 2, 3)),
        (kinds.Dropout("d"), (None, 2, 3), (None, 2, 3)),
    ],
)
def test_output_shapes(layer, given, wanted):
    assert layer.output_shape(given, NO_ARRAYS) == wanted


def test_an_input_smaller_than_the_window_is_refused_also_when_one_side_is_unknown():
    with pytest.raises(ParameterError, match=r"'p' \(max_pool2d\).*3 x \?"):
        kinds.MaxPool2d("p", (4, 2)).output_shape((1, 3, None), NO_ARRAYS)


def test_messages_stay_short_whatever_the_value():
    assert len(kinds.shown("x" * 10**6)) < 200
    assert len(kinds.shown([[list(range(1000))] * 1000] * 10)) < 2000
    assert kinds.shown(10**5000) == "a int too long to print" or len(kinds.shown(10**5000)) < 200


def test_a_layer_class_of_somebody_s_own_is_refused_whatever_it_inherits():
    class Selu(kinds.ELU):
        pass

    with pytest.raises(ParameterError, match="layer"):
        kinds.layers_from_records([Selu("x")])
