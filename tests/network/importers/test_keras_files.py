"""Files of Keras 1 and 2, written here as those versions wrote them, without Keras."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.signal import convolve2d, correlate2d

import fastdeconv as fd
from fastdeconv.errors import ArchiveError, ParameterError

h5py = pytest.importorskip("h5py")


def write(
    path: Any, model: dict[str, Any] | None, weights: dict[str, dict[str, np.ndarray]],
    **attributes: str,
) -> Any:
    """An ``.h5`` as Keras 1 and 2 wrote it; returns its path."""
    with h5py.File(path, "w") as file:
        root = file
        if model is not None:
            file.attrs["model_config"] = json.dumps(model).encode()
            root = file.create_group("model_weights")
        for key, text in attributes.items():
            file.attrs[key] = np.bytes_(text)
        root.attrs["layer_names"] = np.array([name.encode() for name in weights])
        for layer, arrays in weights.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name in arrays])
            for name, array in arrays.items():
                group[name] = array
    return path


def entry(kind: str, name: str, *inputs: Any, **config: Any) -> dict[str, Any]:
    """A layer of a config; `inputs` are what each application takes."""
    made: dict[str, Any] = {"class_name": kind, "config": {"name": name, **config}}
    if inputs:
        made |= {"name": name, "inbound_nodes": list(inputs)}
    return made


def source(name: str, *shape: int | None) -> dict[str, Any]:
    """An InputLayer."""
    return {
        "class_name": "InputLayer", "name": name, "inbound_nodes": [],
        "config": {"name": name, "batch_input_shape": [None, *shape], "dtype": "float32"},
    }


def functional(name: str, layers: list[Any], inputs: Any, outputs: Any) -> dict[str, Any]:
    config = {"name": name, "layers": layers, "input_layers": inputs, "output_layers": outputs}
    return {"class_name": "Model", "config": config}


def values(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    return rng.normal(size=shape).astype(np.float32)


def last(net: fd.Network, x: np.ndarray) -> np.ndarray:
    return net.forward(x)[net.layers[-1].name]


def convolved(x: np.ndarray, kernel: np.ndarray, *, true: bool, mode: str = "same") -> np.ndarray:
    """(C, H, W) with a kernel (out, in, kh, kw), one plane after another."""
    plane = convolve2d if true else correlate2d
    return np.stack([
        np.sum([plane(x[i], k[i], mode) for i in range(len(x))], axis=0) for k in kernel
    ])


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


# --- Keras 2 -----------------------------------------------------------------------------


def keras_2(path: Any, **attributes: str) -> tuple[Any, dict[str, dict[str, np.ndarray]]]:
    model = {"class_name": "Sequential", "config": {"name": "tags", "layers": [
        entry("Conv2D", "block1/conv", filters=4, kernel_size=[3, 3], strides=[1, 1],
              padding="same", data_format="channels_last", dilation_rate=[1, 1],
              activation="relu", use_bias=True, batch_input_shape=[None, 6, 8, 2]),
        entry("BatchNormalization", "bn", axis=[3], epsilon=0.001, scale=True, center=True),
        entry("MaxPooling2D", "pool", pool_size=[2, 2], strides=[2, 2], padding="valid",
              data_format="channels_last"),
        entry("Dropout", "drop", rate=0.5),
        entry("Flatten", "flat", data_format="channels_last"),
        entry("Dense", "fc", units=3, activation="softmax", use_bias=True),
    ]}}
    weights = {
        "block1/conv": {"block1/conv/kernel:0": values(3, 3, 2, 4),
                        "block1/conv/bias:0": values(4)},
        "bn": {"bn/gamma:0": values(4), "bn/beta:0": values(4) / 2,
               "bn/moving_mean:0": values(4) / 3, "bn/moving_variance:0": values(4) ** 2 + 1},
        "pool": {}, "drop": {}, "flat": {},
        "fc": {"fc/kernel:0": values(48, 3), "fc/bias:0": values(3)},
    }
    return write(path, model, weights, **attributes), weights


def test_a_file_of_keras_2_is_computed_as_its_numbers_say(tmp_path: Any) -> None:
    path, weights = keras_2(tmp_path / "a.h5", keras_version="2.2.4", backend="tensorflow")
    net = fd.from_keras(path)
    assert [layer.name for layer in net.layers] == [
        "block1.conv", "block1.conv.activation", "bn", "pool", "drop", "flat", "fc",
        "fc.activation",
    ]
    assert net.name == "tags" and net.input_shape == (2, 6, 8) and net.receipt is None
    assert net.layer_index("block1/conv") == 0
    x = values(2, 6, 8)
    conv, bn, fc = (list(weights[key].values()) for key in ("block1/conv", "bn", "fc"))
    y = convolved(x, conv[0].transpose(3, 2, 0, 1), true=False) + conv[1][:, None, None]
    gamma, beta, mean, variance = (array[:, None, None] for array in bn)
    y = (np.maximum(y, 0) - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    y = y.reshape(4, 3, 2, 4, 2).max((2, 4))
    close(last(net, x)[:, 0, 0], softmax(y.transpose(1, 2, 0).ravel() @ fc[0] + fc[1]))
    assert fd.from_keras(path, outputs="block1/conv").layers[-1].name == "block1.conv.activation"


def test_weights_and_config_can_be_two_files(tmp_path: Any) -> None:
    path, weights = keras_2(tmp_path / "a.h5", keras_version="2.2.4", backend="tensorflow")
    whole = fd.from_keras(path)
    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])
    (tmp_path / "c.json").write_text(json.dumps({**config, "keras_version": "2.2.4"}))
    alone = write(tmp_path / "w.h5", None, weights, keras_version="2.2.4", backend="tensorflow")
    net = fd.from_keras((tmp_path / "c.json", alone))
    assert net.layers == whole.layers
    assert all(np.array_equal(net.arrays[key], array) for key, array in whole.arrays.items())
    with pytest.raises(ArchiveError, match=r"no attribute 'model_config'; give the config"):
        fd.from_keras(alone)
    with pytest.raises(ArchiveError, match="a config without weights; give both"):
        fd.from_keras(tmp_path / "c.json")


def test_nested_models_of_keras_2_count_their_calls_from_1(tmp_path: Any) -> None:
    inner = functional("inner", [
        source("in2", 6, 8, 2),
        entry("Conv2D", "c", [["in2", 0, 0, {}]], filters=2, kernel_size=[1, 1],
              use_bias=False),
    ], [["in2", 0, 0]], [["c", 0, 0]])
    layers = [
        source("in1", 6, 8, 2),
        {**inner, "name": "inner", "inbound_nodes": [[["in1", 0, 0, {}]]]},
        entry("Add", "sum", [["inner", 1, 0, {}], ["in1", 0, 0, {}]]),
        entry("Conv2D", "d", [["sum", 0, 0, {}]], filters=2, kernel_size=[1, 1],
              use_bias=False, activation={"class_name": "LeakyReLU", "config": {
                  "name": "l", "alpha": {"class_name": "__numpy__", "value": 0.5}}}),
    ]
    path = write(
        tmp_path / "a.h5", functional("outer", layers, [["in1", 0, 0]], [["d", 0, 0]]),
        {"inner": {"c/kernel:0": values(1, 1, 2, 2)}, "d": {"d_1/kernel:0": values(1, 1, 2, 2)}},
        keras_version="2.1.0", backend="tensorflow",
    )
    net = fd.from_keras(path)
    assert [layer.name for layer in net.layers] == ["inner.c", "sum", "d", "d.activation"]
    kernel, x = values(1, 1, 2, 2)[0, 0], values(2, 6, 8)
    y = np.einsum("io,ihw->ohw", kernel, np.einsum("io,ihw->ohw", kernel, x) + x)
    close(last(net, x), np.where(y > 0, y, y / 2))


def test_theano_s_filters_are_flipped_once(tmp_path: Any) -> None:
    def model(**config: Any) -> dict[str, Any]:
        layer = entry("Conv2D", "c", filters=3, padding="same", use_bias=False,
                      data_format="channels_first", batch_input_shape=[None, 2, 9, 8], **config)
        return {"class_name": "Sequential", "config": [layer]}

    x = values(2, 9, 8)
    for size, stride in ((3, 1), (3, 2), (4, 1), (4, 2), (5, 3)):
        kernel = values(size, size, 2, 3)
        path = write(
            tmp_path / "a.h5", model(kernel_size=[size, size], strides=[stride, stride]),
            {"c": {"c/kernel": kernel}}, keras_version="2.0.8", backend="theano",
        )
        planes = kernel.transpose(3, 2, 0, 1)
        # "half": size // 2 zeros on both sides, of which an even kernel leaves the last out.
        half = np.pad(x, [(0, 0)] + [(size // 2, size // 2)] * 2)
        wanted = convolved(half, planes, true=True, mode="valid")[:, :9, :8]
        close(last(fd.from_keras(path), x), wanted[:, ::stride, ::stride])
        if (size, stride) == (3, 1):
            other = fd.from_keras(path, true_convolution=False)
            close(last(other, x), convolved(x, planes, true=False))


# --- Keras 1 -----------------------------------------------------------------------------


def keras_1(path: Any, suffix: str, ordering: str = "th") -> tuple[Any, list[np.ndarray]]:
    """A network of 2016: Theano's names have no suffix, TensorFlow's ":0"."""
    shape = [None, 2, 6, 8] if ordering == "th" else [None, 6, 8, 2]
    model = {"class_name": "Sequential", "keras_version": "1.2.2", "config": [
        entry("Convolution2D", "conv_1", nb_filter=4, nb_row=3, nb_col=3, subsample=[1, 1],
              border_mode="same", dim_ordering=ordering, activation="linear", bias=True,
              batch_input_shape=shape),
        entry("BatchNormalization", "bn_1", mode=0, axis=1 if ordering == "th" else -1,
              epsilon=1e-5),
        entry("ELU", "elu_1", alpha=1.0),
        entry("MaxPooling2D", "pool_1", pool_size=[2, 2], strides=[2, 2], border_mode="valid",
              dim_ordering=ordering),
        entry("Dropout", "drop_1", p=0.5),
        entry("Flatten", "flat_1"),
        entry("Dense", "fc_1", output_dim=3, activation="hard_sigmoid", bias=True),
    ]}
    kernel = values(4, 2, 3, 3)
    stored = kernel if ordering == "th" else kernel.transpose(2, 3, 1, 0)
    bn = [values(4), values(4) / 2, values(4) / 3, values(4) ** 2 + 1]
    names = ("gamma", "beta", "running_mean", "running_std")
    weights = {
        "conv_1": {f"conv_1_W{suffix}": stored, f"conv_1_b{suffix}": values(4)},
        "bn_1": {f"bn_1_{key}{suffix}": array for key, array in zip(names, bn)},
        "elu_1": {}, "pool_1": {}, "drop_1": {}, "flat_1": {},
        "fc_1": {f"fc_1_W{suffix}": values(48, 3), f"fc_1_b{suffix}": values(3)},
    }
    path = write(path, model, weights, keras_version="1.2.2")
    return path, [kernel, values(4), *bn, values(48, 3), values(3)]


@pytest.mark.parametrize("ordering", ["th", "tf"])
@pytest.mark.parametrize("theano", [True, False])
def test_files_of_keras_1_are_computed_as_their_numbers_say(
    tmp_path: Any, theano: bool, ordering: str
) -> None:
    path, arrays = keras_1(tmp_path / "a.h5", "" if theano else ":0", ordering)
    if theano:
        with pytest.raises(ParameterError, match="give true_convolution=True for Theano"):
            fd.from_keras(path)
    net = fd.from_keras(path, true_convolution=True if theano else None)
    kernel, bias, gamma, beta, mean, variance, dense, shift = arrays
    x = values(2, 6, 8)
    y = convolved(x, kernel, true=theano) + bias[:, None, None]
    y = (y - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    y = y * gamma[:, None, None] + beta[:, None, None]
    y = np.where(y > 0, y, np.expm1(y)).reshape(4, 3, 2, 4, 2).max((2, 4))
    flat = y.ravel() if ordering == "th" else y.transpose(1, 2, 0).ravel()
    close(last(net, x)[:, 0, 0], np.clip(0.2 * (flat @ dense + shift) + 0.5, 0, 1))
    assert [layer.name for layer in net.layers][-2:] == ["fc_1.activation.line", "fc_1.activation"]


@pytest.mark.parametrize("layout", ["1.1", "1.0"])
def test_both_layouts_of_convolutions_over_steps_are_read(tmp_path: Any, layout: str) -> None:
    model = {"class_name": "Sequential", "config": [
        entry("Convolution1D", "c", nb_filter=4, filter_length=3, subsample_length=2,
              border_mode="valid", activation="linear", bias=False,
              batch_input_shape=[None, None, 2]),
        entry("MaxPooling1D", "p", pool_length=2, stride=2, border_mode="valid"),
    ]}
    kernel = values(3, 1, 2, 4)
    stored = kernel if layout == "1.1" else kernel.transpose(3, 2, 0, 1)
    path = write(tmp_path / "a.h5", model, {"c": {"c_W:0": stored}, "p": {}})
    net = fd.from_keras(path)
    x = values(2, 1, 13)
    y = sum(np.einsum("io,iw->ow", kernel[k, 0], x[:, 0, k:k + 11:2]) for k in range(3))
    close(last(net, x)[:, 0], y.reshape(4, 3, 2).max(2))
    assert net.input_shape == (2, 1, None)


def test_merges_of_keras_1_are_joins(tmp_path: Any) -> None:
    layers = [
        source("x", 2, 6, 8),
        entry("Merge", "sum", [["x", 0, 0], ["x", 0, 0]], mode="sum", mode_type="raw"),
        entry("Merge", "both", [["sum", 0, 0], ["x", 0, 0]], mode="concat", concat_axis=1,
              mode_type="raw"),
        entry("MaxPooling2D", "p", [["both", 0, 0]], pool_size=[2, 2], dim_ordering="th"),
        entry("Merge", "odd", [["p", 0, 0], ["p", 0, 0]], mode="cos", mode_type="raw"),
    ]
    model = functional("m", layers, [["x", 0, 0]], [["odd", 0, 0]])
    path = write(tmp_path / "a.h5", model, {})
    with pytest.raises(ArchiveError, match=r"'odd' \(Merge\) cannot .*outputs='p'\)"):
        fd.from_keras(path)
    x = values(2, 6, 8)
    wanted = np.concatenate([2 * x, x]).reshape(4, 3, 2, 4, 2).max((2, 4))
    close(last(fd.from_keras(path, outputs="p"), x), wanted)


def test_statistics_of_the_batch_are_refused(tmp_path: Any) -> None:
    model = {"class_name": "Sequential", "config": [
        entry("BatchNormalization", "bn", mode=2, axis=-1, batch_input_shape=[None, 6, 8, 2]),
    ]}
    path = write(tmp_path / "a.h5", model, {})
    with pytest.raises(ArchiveError, match=r"'bn' .*its mode is 2"):
        fd.from_keras(path)


def test_a_hard_sigmoid_of_an_unknown_version_is_refused(tmp_path: Any) -> None:
    model = {"class_name": "Sequential", "config": [
        entry("Activation", "a", activation="hard_sigmoid", batch_input_shape=[None, 6]),
    ]}
    with pytest.raises(ArchiveError, match="hard_sigmoid changed with Keras 3"):
        fd.from_keras(write(tmp_path / "a.h5", model, {}))
    net = fd.from_keras(write(tmp_path / "b.h5", model, {}, keras_version="3.1.0"))
    assert net.layers[-1].type == "hardsigmoid"


def test_arrays_without_names_go_by_their_order(tmp_path: Any) -> None:
    model = {"class_name": "Sequential", "config": [
        entry("Dense", "d", output_dim=3, activation="linear", batch_input_shape=[None, 6]),
    ]}
    weights = {"d": {"param_0": values(6, 3), "param_1": values(3)}}
    net = fd.from_keras(write(tmp_path / "a.h5", model, weights))
    x = values(6, 1, 1)
    close(last(net, x)[:, 0, 0], x[:, 0, 0] @ values(6, 3) + values(3))


def test_a_file_without_a_shape_asks_for_it(tmp_path: Any) -> None:
    model = {"class_name": "Sequential", "config": {"name": "m", "layers": [
        entry("Conv2D", "c", filters=3, kernel_size=[1, 1], use_bias=False),
    ]}}
    path = write(tmp_path / "a.h5", model, {"c": {"c/kernel:0": values(1, 1, 2, 3)}})
    with pytest.raises(ParameterError, match=r"how large its input is; give input_shape"):
        fd.from_keras(path)
    assert fd.from_keras(path, (2, 6, None)).input_shape == (2, 6, None)


def test_what_is_no_model_is_said(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError):
        fd.from_keras(tmp_path / "none.h5")
    with pytest.raises(ArchiveError, match="a folder, not a regular file"):
        fd.from_keras(tmp_path)
    with pytest.raises(ParameterError, match="path must be"):
        fd.from_keras(3)
    with pytest.raises(ParameterError, match="true_convolution must be"):
        fd.from_keras("a.h5", true_convolution="yes")
    with pytest.raises(ParameterError, match=r"wanted|must be"):
        fd.from_keras(("a", "b", "c"))


def test_a_missing_h5py_says_what_to_install(tmp_path: Any, monkeypatch: Any) -> None:
    import sys

    path, _ = keras_2(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ParameterError, match=r"pip install 'fastdeconv\[keras\]'"):
        fd.from_keras(path)
