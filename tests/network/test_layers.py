"""Layer records: defaults, checks, and shapes."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from fastdeconv.errors import ParameterError, shown
from fastdeconv.kernels.activations import ACTIVATIONS
from fastdeconv.kernels.interface import Window
from fastdeconv.network import layers as kinds

NO_ARRAYS: dict = {}


def test_every_type_that_archives_may_hold_has_a_layer_class():
    """New types may come, but none of these may go: saved archives have them."""
    assert set(kinds.LAYER_TYPES) >= {
        "conv2d", "conv_transpose2d", "linear",
        "relu", "leaky_relu", "prelu", "elu", "selu", "clip", "tanh", "sigmoid", "silu", "gelu",
        "hardsigmoid", "hardswish", "softplus", "softsign", "mish", "sin", "exp", "log", "power",
        "abs", "square", "sqrt", "softmax", "log_softmax",
        "batch_norm2d", "affine", "local_response_norm", "layer_norm", "group_norm",
        "instance_norm",
        "max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d",
        "global_avg_pool2d", "global_max_pool2d", "reduce_mean", "reduce_max",
        "dropout", "flatten", "slice", "pad", "permute", "reshape", "upsample",
        "add", "multiply", "maximum", "minimum", "concat",
    }


def test_activations_are_the_rows_of_their_table():
    assert list(kinds.ACTIVATION_TYPES) == list(ACTIVATIONS)
    for name, row in ACTIVATIONS.items():
        cls = getattr(kinds, row.title)
        assert cls is kinds.LAYER_TYPES[name] and cls.row is row
        assert cls("x").parameters == {key: p.default for key, p in row.parameters.items()}
        assert cls("x").array_names == (("x.weight",) if row.has_weight else ())


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
        (kinds.ConvTranspose2d("x"), {
            "stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1,
            "bias": True}),
        (kinds.LayerNorm("x", "HW"), {"axes": "HW", "eps": 1e-5, "affine": True}),
        (kinds.GroupNorm("x", 2), {"groups": 2, "eps": 1e-5, "affine": True}),
        (kinds.InstanceNorm("x"), {"eps": 1e-5, "affine": False}),
        (kinds.Affine("x"), {}),
        (kinds.Affine("x", axis="H"), {"axis": "H"}),
        (kinds.Affine("x", axis="CH"), {"axis": "CH"}),
        (kinds.BatchNorm2d("x", axis="W"), {"eps": 1e-5, "axis": "W"}),
        (kinds.ReduceMean("x", "HW"), {"axes": "HW"}),
        (kinds.ReduceMax("x", "W"), {"axes": "W"}),
        (kinds.Slice("x", "W"), {"axis": "W", "start": 0, "step": 1}),
        (kinds.Pad("x", ((1, 0), (0, 2))), {"padding": ((1, 0), (0, 2)), "value": 0.0}),
        (kinds.Permute("x", "CWH"), {"axes": "CWH"}),
        (kinds.Reshape("x", (2, -1, 3)), {"shape": (2, -1, 3)}),
        (kinds.Pad("x", ((1, 0), (0, 2)), mode="reflect"), {
            "padding": ((1, 0), (0, 2)), "value": 0.0, "mode": "reflect"}),
        (kinds.Upsample("x", 2), {"scale": 2, "mode": "nearest"}),
        (kinds.Upsample("x", size=(4, 9), mode="bilinear", align_corners=True), {
            "size": (4, 9), "mode": "bilinear", "align_corners": True}),
        (kinds.AdaptiveAvgPool2d("x", (7, None)), {"output_size": (7, None)}),
        (kinds.AdaptiveMaxPool2d("x", 7), {"output_size": 7}),
        (kinds.GELU("x"), {"approximate": "none"}),
        (kinds.Softplus("x"), {"beta": 1.0, "threshold": 20.0}),
        (kinds.Clip("x"), {}),
        (kinds.Clip("x", min=0.0), {"min": 0.0}),
        (kinds.Power("x"), {"exponent": 2.0}),
        (kinds.PReLU("x"), {}),
        (kinds.Softmax("x"), {}),
        (kinds.LogSoftmax("x"), {}),
        (kinds.Add("x"), {}),
        (kinds.Multiply("x"), {}),
        (kinds.Maximum("x"), {}),
        (kinds.Minimum("x"), {}),
        (kinds.Concat("x"), {"axis": "C"}),
    ],
)
def test_defaults_are_those_of_pytorch(layer, defaults):
    assert layer.to_record() == {"type": layer.type, "name": "x", **defaults}


#: What has no default, and of pools more.
GIVEN = {
    "max_pool2d": {"kernel_size": [2, 3], "padding": [[0, 1], [1, 0]]},
    "avg_pool2d": {"kernel_size": [2, 3], "padding": [[0, 1], [1, 0]]},
    "adaptive_avg_pool2d": {"output_size": [7, None]},
    "adaptive_max_pool2d": {"output_size": [7, None]},
    "local_response_norm": {"size": 5},
    "layer_norm": {"axes": "CW"},
    "group_norm": {"groups": 2},
    "reduce_mean": {"axes": "HW"},
    "reduce_max": {"axes": "C"},
    "slice": {"axis": "H"},
    "pad": {"padding": [[0, 1], [1, 0]]},
    "permute": {"axes": "WHC"},
    "reshape": {"shape": [4, -1, 2]},
    "upsample": {"scale": [1, 2]},
}


@pytest.mark.parametrize("kind", kinds.LAYER_TYPES)
def test_what_has_no_default_is_missed_by_name(kind):
    for field in dataclasses.fields(kinds.LAYER_TYPES[kind]):
        if field.default is dataclasses.MISSING:
            record = {"type": kind, "name": "x", **GIVEN.get(kind, {})}
            del record[field.name]
            with pytest.raises(ParameterError, match=f"the key '{field.name}' is missing"):
                kinds.layer_from_record(record)


@pytest.mark.parametrize("kind", kinds.LAYER_TYPES)
def test_records_come_back_as_the_same_layer(kind):
    record = {"type": kind, "name": "x", **GIVEN.get(kind, {})}
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
        # The time of this layer grows with its size, whatever the channels are.
        ({"type": "local_response_norm", "name": "n", "size": 10**9}, ["size", "1 to 65536"]),
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
        (kinds.Clip, "min", float("nan")),
        (kinds.GELU, "approximate", "erf"),
        (kinds.Softplus, "beta", 0.0),
        (kinds.Affine, "axis", "K"),
        (kinds.Affine, "axis", "CC"),
        (kinds.BatchNorm2d, "axis", "CH"),
        (kinds.LayerNorm, "axes", ""),
        (kinds.LayerNorm, "axes", "HH"),
        (kinds.LayerNorm, "axes", ["H"]),
        (kinds.GroupNorm, "groups", 0),
        (kinds.InstanceNorm, "eps", -1.0),
        (kinds.ReduceMean, "axes", "HX"),
        (kinds.ConvTranspose2d, "padding", "same"),
        (kinds.ConvTranspose2d, "output_padding", -1),
        (kinds.Slice, "axis", "D"),
        (kinds.Pad, "padding", 1),
        (kinds.Pad, "padding", ((1, -1), (0, 0))),
        (kinds.Permute, "axes", "CW"),
        (kinds.Permute, "axes", "CCW"),
        (kinds.Reshape, "shape", (-1, -1, 1)),
        (kinds.Reshape, "shape", (0, 1, 1)),
        (kinds.Upsample, "scale", 0),
        (kinds.Upsample, "mode", "linear"),
        (kinds.Upsample, "size", (3, None)),
        (kinds.Upsample, "align_corners", 1),
        (kinds.Pad, "mode", "edge"),
        (kinds.AdaptiveAvgPool2d, "output_size", 0),
        (kinds.AdaptiveMaxPool2d, "output_size", (1, 2, 3)),
        (kinds.Concat, "axis", 0),
        (kinds.ReLU, "inputs", "conv1"),
        (kinds.ReLU, "inputs", []),
        (kinds.ReLU, "inputs", [3]),
    ],
)
def test_wrong_values_are_refused_by_layer_and_key(cls, key, value):
    with pytest.raises(ParameterError) as error:
        cls(**{"name": "some", **GIVEN.get(cls.type, {}), key: value})
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
        (kinds.LogSoftmax("s"), (5, 2, None), (5, 2, None)),
        (kinds.ReduceMean("m", "HC"), (5, 2, 3), (1, 1, 3)),
        (kinds.ReduceMax("m", "W"), (None, 2, None), (None, 2, 1)),
        (kinds.Slice("s", "W", 1, -1, 2), (5, 2, 7), (5, 2, 3)),
        (kinds.Slice("s", "C", -2), (5, 2, 7), (2, 2, 7)),
        (kinds.Slice("s", "H", 0, 99), (5, None, 7), (5, None, 7)),
        (kinds.Pad("p", ((1, 0), (2, 3))), (5, 2, None), (5, 3, None)),
        (kinds.Permute("p", "WCH"), (5, 2, None), (None, 5, 2)),
        (kinds.Reshape("r", (2, -1, 3)), (6, 2, 2), (2, 4, 3)),
        (kinds.Reshape("r", (2, -1, 3)), (6, 2, None), (2, None, 3)),
        (kinds.Upsample("u", (2, 3)), (5, 2, None), (5, 4, None)),
        (kinds.LayerNorm("n", "HW", affine=False), (5, 2, 3), (5, 2, 3)),
        (kinds.InstanceNorm("n"), (5, None, 3), (5, None, 3)),
        (kinds.GroupNorm("n", 5, affine=False), (10, 2, 3), (10, 2, 3)),
    ],
)
def test_output_shapes(layer, given, wanted):
    assert layer.output_shape(given, NO_ARRAYS) == wanted


def test_an_input_smaller_than_the_window_is_refused_also_when_one_side_is_unknown():
    with pytest.raises(ParameterError, match=r"'p' \(max_pool2d\).*3 x \?"):
        kinds.MaxPool2d("p", (4, 2)).output_shape((1, 3, None), NO_ARRAYS)


def arrays(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {f"x.{key}": np.ones(shape, np.float32) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("layer", "given", "wanted"),
    [
        ({}, (4, 5, None), (6, 7, None)),
        ({"stride": (2, 3)}, (4, 5, 6), (6, 11, 18)),
        ({"stride": 3, "padding": ((1, 0), (0, 2)), "output_padding": (2, 0)}, (4, 5, 6),
         (6, 16, 16)),
        ({"dilation": (2, 1), "padding": 1}, (4, 5, 6), (6, 7, 6)),
    ],
)
def test_output_shapes_of_transposed_convolutions_are_those_of_pytorch(layer, given, wanted):
    conv = kinds.ConvTranspose2d("x", **layer)
    assert conv.output_shape(given, arrays(weight=(4, 6, 3, 3), bias=(6,))) == wanted


@pytest.mark.parametrize(
    ("shapes", "wanted"),
    [
        ([(5, 2, 3), (5, 2, 3)], (5, 2, 3)),
        ([(5, 1, 1), (5, 2, 3), (1, 2, 1)], (5, 2, 3)),
        ([(5, None, 3), (1, 1, 3)], (5, None, 3)),
        ([(1, 2, 3), (None, 2, 3)], (None, 2, 3)),
        ([(5, None, 1), (5, 4, None)], (5, 4, None)),
    ],
)
def test_sums_and_products_repeat_axes_of_size_1(shapes, wanted):
    for layer in (kinds.Add("j"), kinds.Multiply("j")):
        assert layer.joined_shape(shapes, NO_ARRAYS) == wanted
        assert layer.joined_shape(shapes[::-1], NO_ARRAYS) == wanted


@pytest.mark.parametrize(
    ("axis", "shapes", "wanted"),
    [
        ("C", [(5, 2, 3), (1, 2, 3), (4, 2, 3)], (10, 2, 3)),
        ("H", [(5, 2, None), (5, 7, 3)], (5, 9, 3)),
        ("W", [(5, 2, 3), (None, 2, None)], (5, 2, None)),
    ],
)
def test_concatenation_adds_sizes_along_its_axis(axis, shapes, wanted):
    assert kinds.Concat("j", axis).joined_shape(shapes, NO_ARRAYS) == wanted


@pytest.mark.parametrize(
    ("layer", "shapes", "words"),
    [
        (kinds.Add("j"), [(5, 2, 3), (5, 4, 3)], ["'j'", "5 x 2 x 3", "5 x 4 x 3"]),
        (kinds.Multiply("j", inputs=("a", "b")), [(5, 2, 3), (4, 2, 3)], ["'a'", "'b'"]),
        (kinds.Concat("j"), [(5, 2, 3), (5, 1, 3)], ["'j'", "5 x 1 x 3"]),
        (kinds.Slice("j", "W", 3), [(5, 2, 3)], ["'j'", "5 x 2 x 3", "empty"]),
        (kinds.Reshape("j", (2, -1, 4)), [(5, 2, 3)], ["'j'", "5 x 2 x 3", "(2, -1, 4)"]),
        (kinds.Reshape("j", (2, 3, 4)), [(5, 2, 3)], ["'j'", "5 x 2 x 3", "(2, 3, 4)"]),
        (kinds.GroupNorm("j", 2, affine=False), [(5, 2, 3)], ["'j'", "5 input", "groups=2"]),
        (kinds.Upsample("j", 2**16), [(1, 2**16, 1)], ["'j'", "4294967296"]),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_layer_and_size(layer, shapes, words):
    with pytest.raises(ParameterError) as error:
        layer.joined_shape(shapes, NO_ARRAYS)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("layer", "found", "shape", "words"),
    [
        (kinds.Affine("x", axis="H"), arrays(weight=(4,), bias=(4,)), (2, 5, 3),
         ["'x.weight'", "4 rows", "5"]),
        (kinds.BatchNorm2d("x", axis="W"),
         arrays(weight=(4,), bias=(4,), running_mean=(4,), running_var=(4,)), (2, 4, 3),
         ["'x.weight'", "4 columns", "3"]),
        (kinds.LayerNorm("x", "WC"), arrays(weight=(2, 4), bias=(2, 4)), (2, 5, 3),
         ["'x.weight'", "2 x 4", "2 x 3"]),
        (kinds.InstanceNorm("x", affine=True), arrays(weight=(4,), bias=(4,)), (3, 5, 5),
         ["'x.weight'", "4 input channels", "3"]),
        (kinds.PReLU("x"), arrays(weight=(4,)), (3, 5, 5), ["'x.weight'", "4 input channels", "3"]),
        (kinds.ConvTranspose2d("x"), arrays(weight=(4, 2, 3, 3), bias=(2,)), (3, 5, 5),
         ["'x.weight'", "4 input channels", "3"]),
        (kinds.ConvTranspose2d("x", padding=4), arrays(weight=(3, 2, 3, 3), bias=(2,)), (3, 5, 5),
         ["'x'", "5 x 5", "-1 rows"]),
    ],
)
def test_arrays_that_do_not_fit_the_input_are_refused_by_name_and_size(layer, found, shape, words):
    layer.check_arrays(found)
    with pytest.raises(ParameterError) as error:
        layer.output_shape(shape, found)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("layer", "found", "words"),
    [
        (kinds.ConvTranspose2d("x", groups=2), arrays(weight=(4, 3, 2, 2), bias=(3,)),
         ["'x.bias'", "(3,)", "(6,)"]),
        (kinds.ConvTranspose2d("x", groups=3), arrays(weight=(4, 3, 2, 2), bias=(9,)),
         ["'x.weight'", "4 input channels", "groups=3"]),
        (kinds.LayerNorm("x", "HW"), arrays(weight=(4,), bias=(4,)), ["'x.weight'", "(H, W)"]),
        (kinds.GroupNorm("x", 2), arrays(weight=(4,), bias=(3,)), ["'x.bias'", "(3,)", "(4,)"]),
        (kinds.PReLU("x"), arrays(weight=(4, 1)), ["'x.weight'", "(4, 1)"]),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused_by_name_and_shape(layer, found, words):
    with pytest.raises(ParameterError) as error:
        layer.check_arrays(found)
    assert all(word in str(error.value) for word in words)


def test_output_padding_is_smaller_than_the_stride():
    with pytest.raises(ParameterError, match=r"'x' .*output_padding.*stride \(2, 1\).*\(1, 1\)"):
        kinds.ConvTranspose2d("x", stride=(2, 1), output_padding=1)


def test_messages_stay_short_whatever_the_value():
    assert len(shown("x" * 10**6)) < 200
    assert len(shown([[list(range(1000))] * 1000] * 10)) < 2000
    assert shown(10**5000) == "a int too long to print" or len(shown(10**5000)) < 200


def test_a_layer_class_of_somebody_s_own_is_refused_whatever_it_inherits():
    class Selu(kinds.ELU):
        pass

    with pytest.raises(ParameterError, match="layer"):
        kinds.layers_from_records([Selu("x")])


@pytest.mark.parametrize("given", [{}, {"scale": 2, "size": 4}])
def test_upsampling_is_told_either_a_scale_or_a_size(given):
    with pytest.raises(ParameterError, match=r"'u'.*scale .* and size .*, wanted exactly one"):
        kinds.Upsample("u", **given)


@pytest.mark.parametrize(("mode", "most"), [("reflect", 3), ("circular", 4)])
def test_padding_with_the_input_s_own_values_cannot_be_larger_than_it(mode, most):
    layer = kinds.Pad("p", ((0, 0), (most, 0)), mode=mode)
    assert layer.output_shape((1, 2, 4), {}) == (1, 2, 4 + most)
    assert layer.output_shape((1, 2, None), {}) == (1, 2, None)
    with pytest.raises(ParameterError, match=rf"'p'.*at most {most - 1} of 3, found \({most}, 0\)"):
        layer.output_shape((1, 2, 3), {})


def test_an_affine_layer_along_two_axes_wants_a_number_for_each_place():
    layer = kinds.Affine("a", axis="HC")
    arrays = {"a.weight": np.ones((2, 3)), "a.bias": np.ones((2, 3))}
    layer.check_arrays(arrays)
    assert layer.output_shape((2, 3, None), arrays) == (2, 3, None)
    with pytest.raises(ParameterError, match=r"'a.weight' is for 3 rows, but the layer gets 4"):
        layer.output_shape((2, 4, None), arrays)
    with pytest.raises(ParameterError, match=r"'a.bias'.*wanted \(2, 3\)"):
        layer.check_arrays({**arrays, "a.bias": np.ones(2)})
