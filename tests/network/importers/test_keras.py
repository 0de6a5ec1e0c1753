"""Keras models as networks: every layer against Keras itself, from memory and from files."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.errors import ArchiveError, ParameterError

os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("h5py")
keras = pytest.importorskip("keras", minversion="3")
L = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore")
T = 12


def randomised(model: Any) -> Any:
    """The model with weights of every sign, and statistics that are not 0 and 1."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if hasattr(layer, "layers"):
            randomised(layer)
            continue
        new = []
        for weight in layer.weights:
            values = rng.normal(size=weight.shape) / np.sqrt(max(1, np.prod(weight.shape[:-1])))
            if "variance" in weight.name:
                values = rng.uniform(0.5, 2, weight.shape)
            elif "gamma" in weight.name:
                values = rng.uniform(0.5, 1.5, weight.shape) * rng.choice([-1, 1], weight.shape)
            new.append(values.astype(np.float32))
        layer.set_weights(new)
    return model


def sequential(shape: tuple[int | None, ...], *layers: Any) -> Any:
    return randomised(keras.Sequential([keras.Input(shape), *layers]))


def output(model: Any, x: np.ndarray) -> np.ndarray:
    value = model(x[None])
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)[0]


def last(net: fd.Network, x: np.ndarray) -> np.ndarray:
    return net.forward(x)[net.layers[-1].name]


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-4 * max(np.abs(wanted).max(), 1e-6)


def same_from_files(model: Any, tmp_path: Any, **options: Any) -> fd.Network:
    """The network of the model; that of its files must be the same, bit by bit."""
    net = fd.from_keras(model, **options)
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"model.{suffix}")
        other = fd.from_keras(tmp_path / f"model.{suffix}", **options)
        assert other.layers == net.layers and other.input_shape == net.input_shape
        assert other.name == net.name
        for key, array in net.arrays.items():
            assert np.array_equal(other.arrays[key], array), key
    model.save_weights(tmp_path / "model.weights.h5")
    (tmp_path / "config.json").write_text(model.to_json())
    pair = (tmp_path / "config.json", tmp_path / "model.weights.h5")
    other = fd.from_keras(pair, **options)
    assert other.layers == net.layers
    assert all(np.array_equal(other.arrays[key], array) for key, array in net.arrays.items())
    return net


MAP = (10, T, 3)
STEPS = (14, 3)

# `from_keras` compares every layer of a model in memory with Keras.
LAYERS: list[tuple[tuple[int, ...], Any]] = [
    (MAP, lambda: L.Conv2D(4, (3, 2))),
    (MAP, lambda: L.Conv2D(4, (3, 2), strides=(2, 1), padding="same", use_bias=False)),
    (MAP, lambda: L.Conv2D(4, 4, strides=3, padding="same", activation="elu")),
    (MAP, lambda: L.Conv2D(4, (2, 3), dilation_rate=(2, 3), padding="same")),
    (MAP, lambda: L.Conv2D(6, 3, groups=3)),
    (STEPS, lambda: L.Conv1D(4, 3)),
    (STEPS, lambda: L.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu")),
    (STEPS, lambda: L.Conv1D(4, 4, padding="same", strides=2)),
    (MAP, lambda: L.DepthwiseConv2D((3, 2), depth_multiplier=2, padding="same")),
    (MAP, lambda: L.DepthwiseConv2D(3, strides=2, activation="tanh")),
    (STEPS, lambda: L.DepthwiseConv1D(3, depth_multiplier=2)),
    (MAP, lambda: L.SeparableConv2D(5, (3, 2), depth_multiplier=2, padding="same")),
    (STEPS, lambda: L.SeparableConv1D(5, 3, use_bias=False, activation="relu")),
    (MAP, lambda: L.Conv2DTranspose(4, 3, strides=2)),
    (MAP, lambda: L.Conv2DTranspose(4, (3, 2), strides=2, padding="same")),
    (MAP, lambda: L.Conv2DTranspose(4, 4, strides=2, padding="same", use_bias=False)),
    (MAP, lambda: L.Conv2DTranspose(4, 2, strides=3)),
    (MAP, lambda: L.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1)),
    (STEPS, lambda: L.Conv1DTranspose(4, 3, strides=2)),
    (MAP, lambda: L.Dense(5, activation="relu")),
    (STEPS, lambda: L.Dense(5, use_bias=False)),
    ((7,), lambda: L.Dense(5, activation="softmax")),
    (MAP, lambda: L.BatchNormalization()),
    (MAP, lambda: L.BatchNormalization(scale=False)),
    (MAP, lambda: L.BatchNormalization(center=False, scale=False)),
    (MAP, lambda: L.BatchNormalization(axis=1)),
    (MAP, lambda: L.BatchNormalization(axis=2, center=False)),
    (STEPS, lambda: L.BatchNormalization()),
    (MAP, lambda: L.LayerNormalization()),
    (MAP, lambda: L.LayerNormalization(axis=(1, 3), center=False)),
    (MAP, lambda: L.LayerNormalization(axis=(1, 2, 3))),
    (MAP, lambda: L.LayerNormalization(scale=False, center=False)),
    ((4, 6, 6), lambda: L.GroupNormalization(3)),
    ((4, 6, 6), lambda: L.GroupNormalization(-1, scale=False)),
    (MAP, lambda: L.MaxPooling2D((2, 3))),
    (MAP, lambda: L.MaxPooling2D(3, strides=(2, 1), padding="same")),
    (MAP, lambda: L.AveragePooling2D((2, 3))),
    (MAP, lambda: L.AveragePooling2D(3, strides=1, padding="same")),
    (STEPS, lambda: L.MaxPooling1D(3)),
    (STEPS, lambda: L.AveragePooling1D(3, strides=1, padding="same")),
    (MAP, lambda: L.GlobalAveragePooling2D()),
    (MAP, lambda: L.GlobalMaxPooling2D(keepdims=True)),
    (STEPS, lambda: L.GlobalAveragePooling1D(keepdims=True)),
    (STEPS, lambda: L.GlobalMaxPooling1D()),
    (MAP, lambda: L.ReLU()),
    (MAP, lambda: L.ReLU(max_value=1.5)),
    (MAP, lambda: L.ReLU(negative_slope=0.1)),
    (MAP, lambda: L.ReLU(max_value=1.0, negative_slope=0.1)),
    (MAP, lambda: L.LeakyReLU(0.2)),
    (MAP, lambda: L.PReLU(shared_axes=[1, 2])),
    (MAP, lambda: L.PReLU(shared_axes=[1, 2, 3])),
    (MAP, lambda: L.ELU(0.7)),
    (MAP, lambda: L.Softmax()),
    (MAP, lambda: L.Softmax(axis=1)),
    (MAP, lambda: L.Dropout(0.5)),
    (MAP, lambda: L.SpatialDropout2D(0.5)),
    (STEPS, lambda: L.SpatialDropout1D(0.5)),
    (MAP, lambda: L.GaussianNoise(0.5)),
    (MAP, lambda: L.GaussianDropout(0.5)),
    (MAP, lambda: L.Rescaling(2.0, -1.0)),
    (MAP, lambda: L.Normalization(mean=0.5, variance=4.0)),
    (MAP, lambda: L.ZeroPadding2D(((1, 2), (0, 3)))),
    (MAP, lambda: L.ZeroPadding2D(2)),
    (STEPS, lambda: L.ZeroPadding1D((1, 2))),
    (MAP, lambda: L.Cropping2D(((1, 2), (0, 3)))),
    (MAP, lambda: L.Cropping2D(0)),
    (STEPS, lambda: L.Cropping1D((2, 1))),
    (MAP, lambda: L.UpSampling2D((2, 3))),
    (STEPS, lambda: L.UpSampling1D(2)),
    (MAP, lambda: L.Flatten()),
    (STEPS, lambda: L.Flatten()),
    (MAP, lambda: L.Permute((2, 1, 3))),
    (MAP, lambda: L.Permute((3, 1, 2))),
    (MAP, lambda: L.Reshape((1, 10, T * 3))),
    (MAP, lambda: L.Reshape((T, -1))),
    (MAP, lambda: L.Reshape((-1,))),
    ((24,), lambda: L.Reshape((2, 3, 4))),
    ((6, 4), lambda: L.Reshape((6, 4, 1))),
    (MAP, lambda: L.PReLU()),
    (STEPS, lambda: L.PReLU()),
    (MAP, lambda: L.UpSampling2D((2, 3), interpolation="bilinear")),
    (MAP, lambda: L.Resizing(7, 20)),
    ((5,), lambda: L.RepeatVector(4)),
    (STEPS, lambda: L.TimeDistributed(L.Dense(5, activation="relu"))),
    (MAP, lambda: L.TimeDistributed(L.Dense(4))),
    (MAP, lambda: L.TimeDistributed(L.Flatten())),
    (STEPS, lambda: L.TimeDistributed(L.BatchNormalization())),
    (STEPS, lambda: L.TimeDistributed(L.Softmax())),
    (STEPS, lambda: L.TimeDistributed(L.LeakyReLU(0.2))),
]


@pytest.mark.parametrize("case", range(len(LAYERS)))
def test_every_layer_puts_out_what_keras_does(case: int) -> None:
    shape, layer = LAYERS[case]
    model = sequential(shape, layer())
    net = fd.from_keras(model)
    assert [net.layers[-1].name.partition(".")[0]] == [model.layers[-1].name]


@pytest.mark.parametrize(
    "function",
    [
        "relu", "elu", "selu", "gelu", "sigmoid", "hard_sigmoid", "tanh", "silu", "swish",
        "softplus", "softsign", "mish", "softmax", "relu6", "exponential", "linear",
        "leaky_relu", "hard_silu", "log_softmax", "celu", "hard_tanh",
    ],
)
def test_every_activation_is_keras_s_by_that_name(function: str) -> None:
    model = sequential(MAP, L.Conv2D(4, 3, activation=function), L.Activation(function))
    net = fd.from_keras(model)
    conv, layer = (layer.name for layer in model.layers)
    own = [] if function == "linear" else [f"{conv}.activation"]
    assert [layer.name for layer in net.layers] == [conv, *own, layer]


def test_layers_among_activations_are_imported() -> None:
    model = sequential(MAP, L.Conv2D(4, 3, activation=L.LeakyReLU(0.3)))
    assert fd.from_keras(model).layers[-1].negative_slope == pytest.approx(0.3)


JOINS = [
    (L.Add, {}), (L.Multiply, {}), (L.Average, {}), (L.Subtract, {}),
    (L.Maximum, {}), (L.Minimum, {}), (L.Concatenate, {}), (L.Concatenate, {"axis": 1}),
]


@pytest.mark.parametrize("number", range(len(JOINS)))
def test_joins_put_out_what_keras_does(number: int, tmp_path: Any) -> None:
    kind, options = JOINS[number]
    x = keras.Input((8, None, 2))
    a, b = L.Conv2D(4, 3, name="a")(x), L.Conv2D(4, 3, name="b")(x)
    model = randomised(keras.Model(x, kind(name="both", **options)([a, b])))
    net = same_from_files(model, tmp_path)
    assert net.layers[-1].name == "both"


def test_sums_written_with_a_plus_are_imported(tmp_path: Any) -> None:
    x = keras.Input((8, 9, 2))
    model = randomised(keras.Model(x, L.Conv2D(2, 3, padding="same")(x) + x))
    net = same_from_files(model, tmp_path)
    assert net.layers[-1].type == "add"


def test_a_sum_with_a_number_is_refused() -> None:
    x = keras.Input((8, 9, 2))
    model = keras.Model(x, L.Conv2D(2, 3, name="c")(x) * 2.0)
    with pytest.raises(ParameterError, match=r"outputs of other layers: 2\.0.*outputs='c'\)"):
        fd.from_keras(model)


OPERATIONS = [
    "relu", "relu6", "sigmoid", "tanh", "silu", "softplus", "softsign", "elu", "selu", "gelu",
    "leaky_relu", "hard_sigmoid", "hard_silu", "hard_tanh", "log_softmax", "softmax", "exp",
    "square", "absolute",
]


@pytest.mark.parametrize("name", OPERATIONS)
def test_functions_of_keras_are_those_of_its_layers(name: str) -> None:
    x = keras.Input(MAP)
    model = randomised(keras.Model(x, getattr(keras.ops, name)(L.Conv2D(4, 3)(x))))
    assert len(fd.from_keras(model).layers) == 2


@pytest.mark.parametrize("axis", [1, [1, 2], -1, [2, 3]])
@pytest.mark.parametrize("keepdims", [False, True])
def test_means_and_maxima_over_axes_are_imported(
    axis: Any, keepdims: bool, tmp_path: Any
) -> None:
    x = keras.Input(MAP)
    c = L.Conv2D(4, 3, padding="same")(x)
    mean, largest = (f(c, axis=axis, keepdims=keepdims) for f in (keras.ops.mean, keras.ops.max))
    net = same_from_files(randomised(keras.Model(x, L.Maximum()([mean, largest]))), tmp_path)
    assert [layer.type for layer in net.layers] == [
        "conv2d", "reduce_mean", "reduce_max", "maximum"]


def test_a_flattened_map_can_be_a_map_again(tmp_path: Any) -> None:
    model = sequential(
        MAP, L.Conv2D(6, 3, padding="same"), L.Permute((2, 1, 3)), L.Flatten(), L.Dropout(0.5),
        L.ReLU(), L.Reshape((10, T, 6)), L.Conv2D(4, 3),
    )
    same_from_files(model, tmp_path)
    # And bands and channels together as the channels of steps.
    model = sequential(
        MAP, L.Conv2D(6, 3, padding="same"), L.Permute((2, 1, 3)), L.Flatten(),
        L.Reshape((T, -1)), L.Conv1D(4, 3),
    )
    same_from_files(model, tmp_path)


def test_wrapped_layers_have_the_wrapper_s_name_and_arrays(tmp_path: Any) -> None:
    model = sequential(
        MAP, L.Permute((2, 1, 3)), L.TimeDistributed(L.Flatten()),
        L.TimeDistributed(L.Dense(5, activation="tanh", name="own"), name="steps"),
        L.TimeDistributed(L.BatchNormalization(name="norm"), name="normal"), L.Conv1D(4, 3),
    )
    net = same_from_files(model, tmp_path)
    assert [layer.name for layer in net.layers][-4:-1] == ["steps", "steps.activation", "normal"]


@pytest.mark.parametrize("layer", [lambda: L.TimeDistributed(L.Conv1D(4, 3), name="each"),
                                   lambda: L.TimeDistributed(L.LayerNormalization(axis=1),
                                                             name="each")])
def test_what_a_step_alone_does_otherwise_is_refused(layer: Any) -> None:
    model = sequential(MAP, L.Conv2D(4, 3, name="c"), layer())
    with pytest.raises(ParameterError, match=r"'each' \(TimeDistributed\).*to each step of a "
                                             r"sequence.*outputs='c'\)"):
        fd.from_keras(model)


def test_sequences_of_pictures_are_refused_with_what_to_do() -> None:
    model = sequential((6, 8, 9, 1), L.TimeDistributed(L.Conv2D(4, 3)))
    with pytest.raises(ParameterError, match=r"has 4 axes after the batch, \[6, 8, 9, 1\].*"
                                             "import the model of a single picture"):
        fd.from_keras(model)


def mel_cnn() -> Any:
    return sequential(
        (48, None, 1),
        L.BatchNormalization(axis=1, name="norm"),
        L.Conv2D(6, 3, padding="same", name="conv1"), L.BatchNormalization(name="bn1"),
        L.ELU(name="elu1"), L.MaxPooling2D((2, 4), name="pool1"), L.Dropout(0.2, name="drop1"),
        L.Conv2D(8, 3, padding="same", activation="relu", name="conv2"),
        L.MaxPooling2D((2, 2), name="pool2"),
        L.GlobalAveragePooling2D(name="mean"), L.Dense(5, activation="sigmoid", name="tags"),
    )


def test_a_mel_network_keeps_its_names_and_its_open_time(tmp_path: Any) -> None:
    model = mel_cnn()
    net = same_from_files(model, tmp_path, classes=list("abcde"), name="tagger")
    assert net.input_shape == (1, 48, None)
    assert [layer.name for layer in net.layers][:4] == ["norm", "conv1", "bn1", "elu1"]
    assert net.layers[0].axis == "H"
    assert net.layers[-1].type == "sigmoid"
    x = np.random.default_rng(1).normal(size=(1, 48, 40)).astype(np.float32)
    close(last(net, x)[:, 0, 0], output(model, x.transpose(1, 2, 0)))
    maps = fd.deconvolve(net.forward(x), "pool2", features=[0, 3])
    assert maps.shape == (2, 1, 48, 40)


def test_maps_are_flattened_in_keras_s_order(tmp_path: Any) -> None:
    model = sequential(
        MAP, L.Conv2D(4, 3), L.Flatten(), L.Dropout(0.5), L.BatchNormalization(),
        L.PReLU(), L.LayerNormalization(), L.Dense(6, activation="relu"), L.Dense(3),
    )
    net = same_from_files(model, tmp_path)
    x = np.random.default_rng(2).normal(size=MAP).astype(np.float32)
    close(last(net, x.transpose(2, 0, 1))[:, 0, 0], output(model, x))


def test_flattened_branches_are_joined_in_keras_s_order(tmp_path: Any) -> None:
    x = keras.Input(MAP)
    a, b = L.Flatten()(L.Conv2D(3, 3)(x)), L.Flatten()(L.MaxPooling2D(2)(x))
    c = L.GlobalMaxPooling2D()(x)
    model = randomised(keras.Model(x, L.Dense(4)(L.Concatenate()([a, c, b]))))
    same_from_files(model, tmp_path)


def test_a_residual_network_is_imported(tmp_path: Any) -> None:
    x = keras.Input((16, None, 2))
    y = L.Conv2D(6, 3, padding="same", name="stem")(x)
    for i in range(2):
        z = L.BatchNormalization()(y)
        z = L.Conv2D(6, 3, padding="same", activation="relu", name=f"block{i}_a")(z)
        z = L.Conv2D(6, 3, padding="same", name=f"block{i}_b")(z)
        y = L.ReLU()(L.Add()([y, z]))
    gate = L.GlobalAveragePooling2D()(y)
    gate = L.Dense(2, activation="relu")(gate)
    gate = L.Reshape((1, 1, 6))(L.Dense(6, activation="sigmoid")(gate))
    y = L.Multiply()([y, gate])
    model = randomised(keras.Model(x, L.Dense(4)(L.GlobalMaxPooling2D()(y))))
    net = same_from_files(model, tmp_path)
    assert net.input_shape == (2, 16, None) and not net.is_chain


def test_a_network_of_waveforms_has_one_row(tmp_path: Any) -> None:
    model = sequential(
        (None, 1), L.Conv1D(8, 5, strides=3), L.BatchNormalization(), L.ReLU(),
        L.Conv1D(6, 3, padding="same"), L.LeakyReLU(), L.MaxPooling1D(3),
        L.GlobalMaxPooling1D(), L.Dense(3, activation="softmax"),
    )
    net = same_from_files(model, tmp_path)
    assert net.input_shape == (1, 1, None)
    x = np.random.default_rng(3).normal(size=(1, 1, 300)).astype(np.float32)
    close(last(net, x)[:, 0, 0], output(model, x[0].T))


def test_nested_models_are_taken_apart(tmp_path: Any) -> None:
    inner = keras.Sequential(
        [keras.Input((10, T, 4)), L.Conv2D(4, 3, padding="same", name="c"),
         L.BatchNormalization(name="n")], name="inner",
    )
    x = keras.Input((10, T, 4))
    middle = keras.Model(x, L.Add(name="sum")([inner(x), x]), name="middle")
    y = keras.Input(MAP)
    z = middle(L.Conv2D(4, 1, name="first")(y))
    model = randomised(keras.Model(y, L.Dense(2)(L.GlobalAveragePooling2D()(z))))
    net = same_from_files(model, tmp_path)
    names = [layer.name for layer in net.layers]
    assert names[:4] == ["first", "middle.inner.c", "middle.inner.n", "middle.sum"]
    cut = fd.from_keras(model, outputs="middle")
    assert cut.layers[-1].name == "middle.sum"
    assert net.aliases == {"middle": "middle.sum", "middle.inner": "middle.inner.n"}
    assert str(net.receipt).startswith("6 layers compared with Keras: equal to ")


def test_a_sequential_of_models_is_imported(tmp_path: Any) -> None:
    base = keras.Sequential([keras.Input(MAP), L.Conv2D(4, 3, name="c")], name="base")
    model = randomised(keras.Sequential([base, L.GlobalMaxPooling2D(), L.Dense(2)]))
    model.build((None, *MAP))
    net = same_from_files(model, tmp_path)
    assert net.layers[0].name == "base.c"


def test_layers_used_twice_are_there_twice(tmp_path: Any) -> None:
    shared = L.Conv2D(3, 3, padding="same", activation="relu", name="c")
    part = keras.Sequential([keras.Input(MAP), L.Conv2D(3, 1, name="d")], name="part")
    x = keras.Input(MAP)
    y = part(shared(part(shared(x))))
    model = randomised(keras.Model(x, y))
    net = same_from_files(model, tmp_path)
    assert [layer.name for layer in net.layers] == [
        "c", "c.activation", "part.d", "c:1", "c:1.activation", "part:1.d",
    ]
    assert np.array_equal(net.arrays["c.weight"], net.arrays["c:1.weight"])


def test_the_end_can_be_any_layer(tmp_path: Any) -> None:
    model = mel_cnn()
    net = same_from_files(model, tmp_path, outputs="conv2")
    assert net.layers[-1].name == "conv2.activation"
    with pytest.raises(ParameterError, match=r"outputs: there is no layer 'conv9'; there are nor"):
        fd.from_keras(model, outputs="conv9")


def test_what_cannot_be_imported_is_named_with_the_call_that_can(tmp_path: Any) -> None:
    x = keras.Input((16, 20, 1))
    y = L.MaxPooling2D((16, 2), name="pool5")(L.Conv2D(4, 3, padding="same", name="conv5")(x))
    y = L.Reshape((10, 4), name="frames")(y)
    model = randomised(keras.Model(x, L.Dense(3)(L.GRU(5, name="gru")(y))))
    model.save(tmp_path / "crnn.keras")
    with pytest.raises(ArchiveError) as error:
        fd.from_keras(tmp_path / "crnn.keras")
    message = str(error.value)
    assert "layer 'gru' (GRU) cannot be imported" in message
    assert "conv5, pool5, frames" in message
    assert message.endswith(
        "crnn.keras', outputs='frames'), or fastdeconv import ... --outputs frames"
    )
    net = same_from_files(model, tmp_path, outputs="frames")
    assert net.layers[-1].name == "frames"


def test_functions_and_classes_of_somebody_s_own_are_never_run(tmp_path: Any) -> None:
    @keras.saving.register_keras_serializable("mine")
    class Conv2D(L.Conv2D):
        pass

    for layer, why in ((L.Lambda(lambda x: x), "never executed"), (Conv2D(3, 3), "mine>Conv2D")):
        model = sequential(MAP, L.Conv2D(4, 3, name="c"), layer)
        model.save(tmp_path / "m.keras")
        for source in (model, tmp_path / "m.keras"):
            with pytest.raises(ValueError, match=rf"{why}.*outputs='c'\)"):
                fd.from_keras(source)


def test_a_function_as_activation_is_refused() -> None:
    def mine(x: Any) -> Any:
        return x

    with pytest.raises(ParameterError, match="its activation is"):
        fd.from_keras(sequential(MAP, L.Conv2D(4, 3, activation=mine)))


def test_a_subclassed_model_is_refused() -> None:
    class Mine(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.conv = L.Conv2D(2, 3)

        def call(self, x: Any) -> Any:
            return self.conv(x)

    model = Mine()
    model(np.zeros((1, 8, 8, 1), np.float32))
    with pytest.raises(ParameterError, match="Sequential or functional"):
        fd.from_keras(model)


def test_a_model_that_computes_something_else_is_found_out() -> None:
    class Doubled(L.Conv2D):
        def call(self, x: Any) -> Any:
            return 2 * super().call(x)

    Doubled.__name__, Doubled.__module__ = "Conv2D", "keras.layers"
    model = sequential(MAP, L.Conv2D(3, 1), Doubled(4, 3, name="second"), L.ReLU())
    config = model.get_config()
    config["layers"][2]["registered_name"] = None
    model.get_config = lambda: config
    with pytest.raises(ParameterError, match=r"layer 'second' .*differs from that of Keras"):
        fd.from_keras(model)


def test_a_model_that_was_built_without_an_input_layer_is_imported(tmp_path: Any) -> None:
    model = keras.Sequential([L.Conv2D(3, 3, name="c"), L.ReLU()])
    with pytest.raises(ParameterError, match="no weights yet; build it"):
        fd.from_keras(model)
    model.build((None, 8, None, 2))
    assert same_from_files(randomised(model), tmp_path).input_shape == (2, 8, None)


def test_several_inputs_or_outputs_are_for_the_caller_to_choose() -> None:
    x, other = keras.Input(MAP, name="x"), keras.Input(MAP, name="other")
    a = L.Conv2D(3, 1, name="a")(x)
    both = keras.Model([x, other], L.Add(name="both")([a, other]))
    with pytest.raises(ParameterError, match=r"found 2 inputs \(x, other\).*outputs='a'\)"):
        fd.from_keras(both)
    assert fd.from_keras(both, outputs="a").layers[-1].name == "a"
    two = keras.Model(x, [a, L.ReLU(name="r")(a)])
    with pytest.raises(ParameterError, match=(
            r"2 outputs \(a, r\); choose one with from_keras\(model, outputs='a'\)"
    )):
        fd.from_keras(two)


def test_sizes_that_matter_are_asked_for() -> None:
    x = keras.Input((8, None, 2))
    model = keras.Model(x, L.Flatten(name="flat")(L.Conv2D(3, 3)(x)))
    with pytest.raises(ParameterError, match=r"'flat' .*give input_shape=\(C, H, W\)"):
        fd.from_keras(model)
    assert fd.from_keras(model, (2, 8, 9)).input_shape == (2, 8, 9)
    with pytest.raises(ParameterError, match="found 2 x 9 x 9, but the model takes 2 x 8 x"):
        fd.from_keras(model, (2, 9, 9))
    with pytest.raises(ParameterError, match="input_shape must be"):
        fd.from_keras(model, (2, 9))


@pytest.mark.parametrize("axis", [-1, 1, None])
def test_statistics_adapted_to_data_are_read(axis: int | None, tmp_path: Any) -> None:
    norm = L.Normalization(axis=axis, name="norm")
    norm.adapt(np.random.default_rng(5).normal(2, 3, size=(8, *MAP)))
    model = keras.Sequential([keras.Input(MAP), norm, L.Conv2D(4, 3)])
    net = same_from_files(model, tmp_path)
    assert net.layers[0].name == "norm"


def test_channels_first_is_read_as_it_stands(tmp_path: Any) -> None:
    first = {"data_format": "channels_first"}
    model = sequential(
        (2, 12, 14), L.ZeroPadding2D(1, **first), L.Conv2D(4, (3, 2), **first),
        L.BatchNormalization(axis=1), L.MaxPooling2D(2, **first), L.Flatten(**first), L.Dense(3),
    )
    net = same_from_files(model, tmp_path)
    assert net.input_shape == (2, 12, 14)
    assert "permute" not in {layer.type for layer in net.layers}
    x = np.random.default_rng(4).normal(size=(2, 12, 14)).astype(np.float32)
    close(last(net, x)[:, 0, 0], output(model, x))


@pytest.mark.parametrize(
    ("shape", "before", "wanted"),
    [
        ((12, 14), lambda: L.Reshape((12, 14, 1)), (1, 12, 14)),
        ((2, 12, 14), lambda: L.Permute((2, 3, 1)), (2, 12, 14)),
        ((12, 14, 2), lambda: L.Permute((2, 1, 3)), (2, 12, 14)),
        ((1, 12, 14), lambda: L.Permute((2, 3, 1)), (1, 12, 14)),
    ],
)
def test_axes_that_are_only_called_otherwise_move_nothing(
    shape: tuple[int, ...], before: Any, wanted: tuple[int, ...], tmp_path: Any
) -> None:
    model = sequential(shape, before(), L.Conv2D(4, (3, 2)), L.MaxPooling2D((2, 1)), L.Flatten(),
                       L.Dense(3))
    net = same_from_files(model, tmp_path)
    assert net.input_shape == wanted
    assert "permute" not in {layer.type for layer in net.layers}


def test_mixed_orders_of_axes_are_moved_where_they_must(tmp_path: Any) -> None:
    model = sequential(
        (2, 12, 14), L.Conv2D(4, (3, 2), data_format="channels_first"), L.Conv2D(5, (2, 3)),
        L.Softmax(axis=2), L.Dense(3),
    )
    net = same_from_files(model, tmp_path)
    assert net.input_shape == (2, 12, 14)
    assert any(layer.name.endswith(".layout") for layer in net.layers)


def test_half_precision_is_read(tmp_path: Any) -> None:
    import h5py

    model = mel_cnn()
    model.save(tmp_path / "m.h5")
    whole = fd.from_keras(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        found: list[Any] = []
        file["model_weights/conv1"].visititems(
            lambda name, item: found.append(item.parent) if name.endswith("kernel") else None
        )
        (group,) = found
        kernel = group["kernel"][()]
        del group["kernel"]
        group["kernel"] = kernel.astype(np.float16)
    half = fd.from_keras(tmp_path / "m.h5")
    assert half.arrays["conv1.weight"].dtype == np.float32
    assert np.allclose(half.arrays["conv1.weight"], whole.arrays["conv1.weight"], atol=1e-3)


def test_average_pools_leave_the_padding_out_whatever_keras_on_torch_does(tmp_path: Any) -> None:
    # There, uneven padding repeats the last row; with TensorFlow and JAX it never counts.
    model = sequential((8,), L.Reshape((8, 1)), L.AveragePooling1D(3, strides=2, padding="same"))
    if keras.backend.backend() == "torch":
        with pytest.raises(ParameterError, match=r"AveragePooling1D.*differs from that of Keras"):
            fd.from_keras(model)
    model.save(tmp_path / "m.keras")
    net = fd.from_keras(tmp_path / "m.keras")
    x = np.arange(8, dtype=np.float32).reshape(1, 1, 8)
    assert last(net, x).ravel().tolist() == [1.0, 3.0, 5.0, 6.5]
