"""Damaged and lying Keras files: an ArchiveError that names the file, and little memory."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.errors import ArchiveError

h5py = pytest.importorskip("h5py")

Refused = Callable[..., str]


def conv(name: str = "c", *inputs: Any, **config: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"class_name": "Conv2D", "config": {
        "name": name, "filters": 2, "kernel_size": [1, 1], "use_bias": False, **config,
    }}
    return made | ({"name": name, "inbound_nodes": list(inputs)} if inputs else {})


def sequential(*layers: Any) -> dict[str, Any]:
    first = {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 4, 4, 2]}}
    return {"class_name": "Sequential", "config": {"name": "m", "layers": [first, *layers]}}


def functional(layers: list[Any], inputs: Any = "x", outputs: Any = "c") -> dict[str, Any]:
    first = {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
             "config": {"name": "x", "batch_shape": [None, 4, 4, 2]}}
    return {"class_name": "Functional", "config": {
        "name": "m", "layers": [first, *layers], "input_layers": [[inputs, 0, 0]],
        "output_layers": [[outputs, 0, 0]],
    }}


KERNEL = np.ones((1, 1, 2, 2), np.float32)


@pytest.fixture
def written(tmp_path: Any) -> Callable[..., Any]:
    """written(config, fill): the path of an ``.h5``; `fill` gets the group of the weights."""

    def write(config: Any, fill: Any = None) -> Any:
        path = tmp_path / "model.h5"
        with h5py.File(path, "w") as file:
            text = config if isinstance(config, str) else json.dumps(config)
            file.attrs["model_config"] = text.encode()
            file.attrs["backend"] = np.bytes_("tensorflow")
            group = file.create_group("model_weights")
            group.attrs["layer_names"] = np.array([b"c"])
            if fill is None:
                group["c/c/kernel:0"] = KERNEL
            else:
                fill(group)
        return path

    return write


@pytest.fixture
def refused(written: Callable[..., Any], tmp_path: Any) -> Refused:
    """refused(config, fill): the message of the ArchiveError, which names the file."""

    def load(config: Any, fill: Any = None) -> str:
        path = config if hasattr(config, "exists") else written(config, fill)
        with pytest.raises(ArchiveError) as error:
            fd.from_keras(path)
        message = str(error.value)
        assert path.name in message or str(path)[:40] in message
        assert message.isprintable() and len(message) <= 1100
        return message

    return load


def test_the_file_these_tests_damage_is_good(written: Callable[..., Any]) -> None:
    assert len(fd.from_keras(written(sequential(conv()))).layers) == 1
    assert len(fd.from_keras(written(functional([conv("c", [["x", 0, 0, {}]])]))).layers) == 1


# --- HDF5 --------------------------------------------------------------------------------


def put(value: Any, **options: Any) -> Callable[[Any], None]:
    return lambda group: group.create_dataset("c/c/kernel:0", data=value, **options)


FILLS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "nothing": (lambda g: None, "found the arrays none, wanted kernel"),
    "too many": (lambda g: (put(KERNEL)(g), put(KERNEL)(g["c"])), "wanted one"),
    "another": (
        lambda g: (put(KERNEL)(g), g["c"].create_dataset("bias:0", data=[1.0])),
        "found the arrays 'bias', 'kernel', wanted kernel",
    ),
    "text": (put(np.array([b"abc"])), "wanted float or int"),
    "objects": (
        lambda g: g.create_dataset("c/c/kernel:0", (1,), h5py.string_dtype()),
        "wanted float or int",
    ),
    "fields": (put(np.zeros(2, [("a", "f4"), ("b", "f4")])), "wanted float or int"),
    "complex": (put(np.zeros((1, 1, 2, 2), complex)), "wanted float or int"),
    "rank": (put(np.zeros((1,) * 9)), "wanted a tuple of at most 8"),
    "shape": (put(np.zeros((2, 2))), "found a kernel of shape"),
    "channels": (put(np.zeros((1, 1, 3, 2))), "is for 3 input channels, but the layer gets 2"),
    "empty": (put(np.zeros((1, 1, 0, 2))), "found shape"),
    "nan": (put(np.full((1, 1, 2, 2), np.nan)), "not finite"),
    "large": (put(np.full((1, 1, 2, 2), 1e300)), "overflows float32"),
    "a group": (lambda g: g.create_group("c/c/kernel:0/inner"), "found the arrays none"),
    "unwritten": (
        lambda g: g.create_dataset("c/c/kernel:0", (1, 1, 1 << 14, 1 << 13), "f4"),
        "found 0 bytes stored, too few",
    ),
    "beyond the limit": (
        lambda g: g.create_dataset("c/c/kernel:0", (1 << 14, 1 << 15, 2, 2), "f4", chunks=True),
        "over the limit",
    ),
    "sparse chunks": (
        lambda g: g.create_dataset(
            "c/c/kernel:0", (1, 1, 1 << 13, 1 << 13), "f4", chunks=(1, 1, 2, 2),
            compression="gzip",
        ).__setitem__((0, 0, 0, 0), 1.0),
        "too few for shape",
    ),
    "large chunks": (
        lambda g: g.create_dataset(
            "c/c/kernel:0", (1, 1, 2, 2), "f4", chunks=(1, 1, 1 << 12, 1 << 12),
            compression="gzip", maxshape=(1, 1, None, None), data=KERNEL,
        ),
        "found chunks of",
    ),
    "a plug-in": (put(KERNEL, chunks=(1, 1, 2, 2), compression="lzf"), "found the filters"),
    "elsewhere": (
        lambda g: g.create_dataset(
            "c/c/kernel:0", (1, 1, 2, 2), "f4", external=[("/etc/passwd", 0, 16)]
        ),
        "in another file",
    ),
    "soft link": (
        lambda g: (put(KERNEL)(g), g.__setitem__("c/c/bias:0", h5py.SoftLink("/x"))),
        "is a soft or external link",
    ),
    "external link": (
        lambda g: g.__setitem__("c", h5py.ExternalLink("/etc/passwd", "/")),
        "is a soft or external link",
    ),
    "virtual": (
        lambda g: g.create_virtual_dataset("c/c/kernel:0", virtual()), "in another file",
    ),
    "a group in itself": (
        lambda g: (g.create_group("c"), g["c"].__setitem__("c", g["c"])), "levels",
    ),
}


def virtual() -> Any:
    layout = h5py.VirtualLayout((1, 1, 2, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (1, 1, 2, 2))
    return layout


@pytest.mark.parametrize("case", FILLS)
def test_arrays_that_are_not_plain_are_refused(case: str, refused: Refused) -> None:
    fill, text = FILLS[case]
    tracemalloc.start()
    try:
        assert text in refused(sequential(conv()), fill)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [3, np.zeros(4), np.array([b"a", b"b"]), b"\xff\xfe", b"{"])
def test_a_config_that_is_no_text_is_refused(value: Any, refused: Refused, tmp_path: Any) -> None:
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = value
    refused(path)


def test_cut_and_damaged_files_are_refused(written: Callable[..., Any], refused: Refused) -> None:
    path = written(sequential(conv()))
    data = path.read_bytes()
    for size in (0, 4, 8, 100, 700, len(data) - 100):
        path.write_bytes(data[:size])
        refused(path)
    rng = random.Random(0)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(4):
            damaged[rng.randrange(8, len(data))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            fd.from_keras(path)
        except ValueError:  # of ours; any other error is a failure
            pass


def test_a_lying_length_of_a_text_takes_no_memory(
    written: Callable[..., Any], refused: Refused
) -> None:
    config = sequential(conv())
    path = written(config)
    length = len(json.dumps(config)).to_bytes(4, "little")
    data = path.read_bytes()
    assert length in data
    path.write_bytes(data.replace(length, b"\xff\xff\xff\xf0"))
    assert "found a text of 4043309055 bytes in a file of" in refused(path)


@pytest.mark.parametrize("version", ["earliest", "v108", "latest"])
def test_headers_of_every_version_are_read(version: str, tmp_path: Any) -> None:
    path = tmp_path / "model.h5"
    with h5py.File(path, "w", libver=(version, "latest"), track_order=True) as file:
        for i in range(5):
            file.attrs[f"attribute_{i}"] = "x" * 100
        file.attrs["model_config"] = json.dumps(sequential(conv()))
        file["model_weights/c/c/kernel:0"] = KERNEL
        file.attrs["backend"] = "tensorflow"
    assert len(fd.from_keras(path).layers) == 1


# --- zip ---------------------------------------------------------------------------------


def zipped(path: Any, members: dict[str, bytes]) -> Any:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def members(config: Any) -> dict[str, bytes]:
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        root["layers/conv2d/vars/0"] = KERNEL
        root["layers/conv2d/vars"].attrs["name"] = "c"
    return {
        "config.json": json.dumps(config).encode(), "model.weights.h5": file.getvalue(),
        "metadata.json": b'{"keras_version": "3.0.0"}',
    }


def test_archives_that_lack_or_exceed_are_refused(refused: Refused, tmp_path: Any) -> None:
    good = members(sequential(conv()))
    path = tmp_path / "model.keras"
    assert len(fd.from_keras(zipped(path, good)).layers) == 1
    for name in ("config.json", "model.weights.h5"):
        less = {key: value for key, value in good.items() if key != name}
        assert f"member {name!r} is missing" in refused(zipped(path, less))
    bomb = {**good, "config.json": b" " * (1 << 27)}
    tracemalloc.start()
    try:
        assert "over the limit" in refused(zipped(path, bomb))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert "damaged" in refused(zipped(path, {**good, "model.weights.h5": b"\x89HDF" * 9}))
    assert "config" in refused(zipped(path, {**good, "config.json": b"[]"}))
    assert "config" in refused(zipped(path, {**good, "metadata.json": b"\xff"}))
    data = zipped(path, good).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(path)


def test_arrays_of_another_layer_are_refused(refused: Refused, tmp_path: Any) -> None:
    path = zipped(tmp_path / "model.keras", members(sequential(conv("d"))))
    assert "the group 'conv2d' has the arrays of 'c'" in refused(path)
    path = zipped(tmp_path / "model.keras", members(sequential(conv("d"), conv("c"))))
    assert "has the arrays of" in refused(path)


# --- config ------------------------------------------------------------------------------


def named(name: Any) -> Any:
    return sequential(conv(name))


CONFIGS: dict[str, tuple[Any, str]] = {
    "no class": ({"config": {}}, "wanted 'class_name' and 'config'"),
    "a class": ({"class_name": "Mine", "config": {}}, "wanted Sequential or Functional"),
    "no layers": ({"class_name": "Sequential", "config": {}}, "wanted a list of layers"),
    "empty": ({"class_name": "Functional", "config": {"layers": []}}, "wanted a list of layers"),
    "a layer": (sequential(3), "wanted a layer with a class"),
    "its config": (sequential({"class_name": "Conv2D", "config": 3, "name": "c"}), "config 3"),
    "no name": (sequential({"class_name": "Conv2D", "config": {}}), "layer name None"),
    "newline": (named("a\nb"), "printable"),
    "escape": (named("a\x1b[2J"), "printable"),
    "dots": (named(".."), "characters without slashes"),
    "backslash": (named("a\\b"), "characters without slashes"),
    "long name": (sequential(conv("c" * 5000)), "found the arrays none"),
    "nan": ('{"class_name": "Sequential", "config": NaN}', "NaN"),
    "twice": ('{"class_name": "a", "class_name": "b"}', "twice"),
    "deep": ("[" * 10000, "nested deeper"),
    "same names": (sequential(conv(), conv()), "same name"),
    "same names in a graph": (
        functional([conv("c", [["x", 0, 0]]), conv("c", [["x", 0, 0]])]), "same name",
    ),
    "dangling": (functional([conv("c", [["y", 0, 0]])]), "no layer 'y'"),
    "no such call": (functional([conv("c", [["x", 7, 0]])]), "call 7 of the layer 'x'"),
    "negative call": (functional([conv("c", [["x", -1, 0]])]), "call -1"),
    "no output": (functional([conv("c", [["x", 0, 0]])], outputs="d"), "no layer 'd'"),
    "cycle": (
        functional([conv("c", [["d", 0, 0]]), conv("d", [["c", 0, 0]])]), "(a cycle)",
    ),
    "itself": (functional([conv("c", [["c", 0, 0]])]), "(a cycle)"),
    "two inputs": (functional([conv("c", [["x", 0, 0], ["x", 0, 0]])]), "has 2 inputs"),
    "constant": (
        functional([conv("c", {"args": [[3]], "kwargs": {}})]), "outputs of other layers: 3",
    ),
    "history": (functional([conv("c", {"args": [
        {"class_name": "__keras_tensor__", "config": {"keras_history": 3}}]})]), "keras_history"),
    "ordering": (sequential(conv(dim_ordering="xy")), "wanted 'th' or 'tf'"),
    "format": (sequential(conv(data_format="xy")), "wanted 'channels_last'"),
    "strides": (sequential(conv(strides=[1, 2, 3])), "wanted 2 ints"),
    "huge strides": (sequential(conv(strides=10**30)), "stride"),
    "groups": (sequential(conv(groups=[1])), "groups"),
    "padding": (sequential(conv(padding=[])), "padding"),
    "activation": (sequential(conv(activation=[1])), "its activation is"),
    "no such activation": (sequential(conv(activation={"class_name": "f"})), "its activation is"),
    "many layers": (sequential(*[conv(f"c{i}") for i in range(3000)]), "over the limit of 2048"),
    "many calls": (functional([conv("c", *[[["x", 0, 0]]] * 3000)]), "more than 2048"),
    "large input": (
        {"class_name": "Sequential", "config": [
            {"class_name": "Rescaling", "config": {
                "name": "r", "scale": 2.0, "batch_input_shape": [None, 2**31 - 1]}},
            conv(),
        ]},
        "has 2 axes",
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_that_are_wrong_are_refused(case: str, refused: Refused) -> None:
    config, text = CONFIGS[case]
    assert text in refused(config)


@pytest.mark.parametrize("empty", [False, True])
def test_models_in_models_in_models_are_counted(empty: bool, refused: Refused) -> None:
    model: Any = functional([], outputs="x") if empty else conv("leaf", [["x", 0, 0]])
    name = "leaf"
    model["name"] = name
    for level in range(9):
        twice = {**model, "inbound_nodes": [[["x", 0, 0]], [[name, 0, 0]], [[name, 1, 0]],
                                            [[name, 2, 0]], [[name, 3, 0]]]}
        new = functional([twice], outputs=name)
        new["config"]["output_layers"] = [[name, 4, 0]]
        name = f"m{level}"
        model = {**new, "name": name, "inbound_nodes": [[["x", 0, 0]]]}
    assert ("nested models give more than" if empty else "more than 2048 layers") in refused(model)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a config."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        yield value, key
        if isinstance(item, (dict, list)):
            yield from places(item)


def test_no_value_in_a_config_raises_another_error(written: Callable[..., Any]) -> None:
    kinds = [
        conv(activation="relu", strides=[1, 1], dilation_rate=1, groups=1, padding="same",
             data_format="channels_last"),
        {"class_name": "MaxPooling2D", "config": {"name": "p", "pool_size": 2, "strides": None}},
        {"class_name": "ZeroPadding2D", "config": {"name": "z", "padding": [[1, 0], [0, 1]]}},
        {"class_name": "Cropping2D", "config": {"name": "k", "cropping": 1}},
        {"class_name": "UpSampling2D", "config": {"name": "u", "size": [2, 2]}},
        {"class_name": "ReLU", "config": {"name": "r", "max_value": 6, "negative_slope": 0.5}},
        {"class_name": "Permute", "config": {"name": "q", "dims": [2, 1, 3]}},
        {"class_name": "Reshape", "config": {"name": "s", "target_shape": [2, 2, -1]}},
        {"class_name": "Softmax", "config": {"name": "x1", "axis": -1}},
        {"class_name": "Rescaling", "config": {"name": "y", "scale": 2, "offset": 1}},
        {"class_name": "Flatten", "config": {"name": "f"}},
        {"class_name": "LayerNormalization", "config": {
            "name": "ln", "axis": [1], "scale": False, "center": False, "epsilon": 0.1}},
    ]
    good = json.dumps(sequential(*kinds))
    fd.from_keras(written(json.loads(good)))
    rng = random.Random(1)
    wrong = [
        None, -1, 0, 3, 2**70, 0.5, "", "x", "same", [], [1], [[1]], {}, {"a": 1}, True, [None],
    ]
    for _ in range(400):
        config = json.loads(good)
        container, key = rng.choice(list(places(config)))
        container[key] = rng.choice(wrong)
        try:
            fd.from_keras(written(config))
        except fd.FastdeconvError as error:
            assert str(error).isprintable()
