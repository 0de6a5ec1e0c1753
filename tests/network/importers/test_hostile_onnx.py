"""ONNX files that are damaged, or made to do harm: one clear error, and no memory taken."""

from __future__ import annotations

import os
import pickle
import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from fastdeconv.network.importers.graph import Graph, Node  # noqa: E402
from fastdeconv.network.importers.passes.activations import product  # noqa: E402

from .onnx_models import floats, model, node  # noqa: E402

SHAPE = (1, 3, 6, 8)
W = {"w": floats(0, 4, 3, 1, 1)}
i64 = np.int64


def small(**more: Any) -> Any:
    nodes = [node("Conv", ["x", "w"], "c", name="conv", pads=[0, 0, 0, 0]),
             node("Relu", ["c"], "r", name="relu"),
             node("MaxPool", ["r"], "p", kernel_shape=[2, 2]),
             node("Reshape", ["p", "s"], "f"), node("Gemm", ["f", "k"], "y", name="fc")]
    return model(nodes, {**W, "s": i64([1, -1]), "k": floats(1, 140, 2)}, SHAPE, **more)


def refused(made: Any, match: str, error: type[Exception] = fd.ArchiveError, **more: Any) -> None:
    with pytest.raises(error, match=match):
        fd.from_onnx(made, **more)


# --- files -------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"PK\x03\x04", pickle.dumps({"a": 1}),
                                  b"\x08\x08", b"not a model"])
def test_what_is_not_onnx(data: bytes, tmp_path: Path) -> None:
    refused(data, "<bytes>: not an ONNX model")
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    refused(path, r"a\.onnx'?: not an ONNX model")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fd.from_onnx(tmp_path / "none.onnx")
    refused(tmp_path, "a folder, not a regular file")
    os.mkfifo(tmp_path / "pipe.onnx")
    refused(tmp_path / "pipe.onnx", "a pipe, not a regular file")
    refused(3, "must be a path, bytes or a ModelProto, found 3", fd.ParameterError)


def test_damaged_files_give_an_error_of_ours_or_a_network() -> None:
    data = small().SerializeToString()
    fd.from_onnx(data)
    rng = random.Random(0)
    refusals = 0
    for _ in range(400):
        copy = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 5])):
            place = rng.randrange(len(copy))
            kind = rng.randrange(3)
            if kind == 0:
                copy[place] = rng.randrange(256)
            elif kind == 1:
                del copy[place : place + rng.randrange(1, 9)]
            else:
                copy[place:place] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        try:
            fd.from_onnx(bytes(copy))
        except fd.FastdeconvError as error:
            assert str(error).isprintable()
            refusals += 1
    assert refusals > 100
    for count in range(0, len(data), 37):
        with pytest.raises(fd.FastdeconvError):
            fd.from_onnx(data[:count])


# --- graphs ------------------------------------------------------------------------------


def test_cycles() -> None:
    made = model([node("Add", ["x", "b"], "a", name="one"), node("Relu", ["a"], "b"),
                  node("Relu", ["b"], "y")], {}, SHAPE)
    refused(made, r"node 'one' \(Add\): its input depends on its own output")


def test_inputs_that_nothing_makes() -> None:
    made = model([node("Conv", ["x", "nothing"], "y", name="conv")], W, SHAPE)
    refused(made, r"node 'conv' \(Conv\): no node computes its input 'nothing'")
    made = model([node("Relu", ["x"], "z")], {}, SHAPE)
    refused(made, "no node computes the output 'y'")


def test_values_made_twice() -> None:
    made = model([node("Relu", ["x"], "y"), node("Abs", ["x"], "y")], {}, SHAPE)
    refused(made, r"\(Abs\): its output 'y' exists already")


def test_nodes_out_of_order_are_put_in_order() -> None:
    made = model([node("Relu", ["c"], "y"), node("Conv", ["x", "w"], "c")], W, SHAPE)
    assert [layer.type for layer in fd.from_onnx(made).layers] == ["conv2d", "relu"]


def test_names_with_control_characters() -> None:
    made = model([node("Relu", ["x"], "y", name="a\x1b[2Jb")], {}, SHAPE)
    refused(made, r"found the name 'a\\x1b\[2Jb', wanted printable characters")


def test_wrong_ranks_and_shapes() -> None:
    for weight in (floats(0, 4, 3), floats(0, 4, 3, 1, 1, 1), floats(0, 4, 5, 1, 1)):
        made = model([node("Conv", ["x", "w"], "y", name="conv")], {"w": weight}, SHAPE)
        refused(made, "node 'conv'", fd.FastdeconvError)
    made = model([node("Reshape", ["x", "s"], "y", name="r")], {"s": i64([7, 7])}, SHAPE)
    refused(made, r"node 'r' \(Reshape\)", fd.ParameterError)
    refused(small(), "input_shape", fd.ParameterError, input_shape=(3, 6))


def test_batch_norm_in_training() -> None:
    ones = np.ones(3, np.float32)
    made = model([node("BatchNormalization", ["x", "a", "a", "a", "a"], ["y", "m", "v"],
                       name="bn", training_mode=1)], {"a": ones}, SHAPE)
    refused(made, r"batch norm in training; export the network after module\.eval\(\)",
            fd.ParameterError)


def test_quantised_networks() -> None:
    made = model(
        [node("QuantizeLinear", ["x", "s", "z"], "q", name="quantise"),
         node("DequantizeLinear", ["q", "s", "z"], "d"), node("Conv", ["d", "w"], "y")],
        {**W, "s": np.float32(0.1), "z": np.int8(0)}, SHAPE,
    )
    refused(made, r"node 'quantise' \(QuantizeLinear\).*8-bit integers; export the network in "
            "float32", fd.ParameterError)


def test_operators_of_others_and_graphs_inside() -> None:
    made = model([node("Magic", ["x"], "y", name="m", domain="com.evil")], {}, SHAPE)
    refused(made, r"node 'm' \(Magic\) cannot be a layer: there is no layer for the operator "
            r"com\.evil\.Magic", fd.ParameterError)
    body = helper.make_graph([node("Constant", [], "z", value_float=1.0)], "body", [],
                             [helper.make_tensor_value_info("z", 1, [])])
    made = model([node("If", ["c"], "y", name="if", then_branch=body, else_branch=body)],
                 {"c": np.bool_(True)}, SHAPE)
    refused(made, r"the output 'y' is not computed from the input by a layer")


def test_graphs_inside_are_checked_like_the_outer_one() -> None:
    def branch(nodes: list[Any], constants: dict[str, Any]) -> Any:
        tensors = [numpy_helper.from_array(np.asarray(a), key) for key, a in constants.items()]
        return helper.make_graph(
            nodes, "b", [], [helper.make_tensor_value_info("z", 1, [])], tensors
        )

    def holding(graph: Any) -> Any:
        return model([node("If", ["c"], "y", then_branch=graph, else_branch=graph)],
                     {"c": np.bool_(True)}, SHAPE)

    refused(holding(branch([node("ConstantOfShape", ["h"], "z")], {"h": HUGE})), "over the limit")
    refused(holding(branch([node("Relu", ["x"], "z\n")], {})), "printable")
    refused(holding(branch([node("Relu", ["gone"], "z")], {})), "no node computes its input 'gone'")
    refused(holding(branch([node("Relu", ["x"], "z"), node("Exp", ["x"], "z")], {})), "twice")
    made = holding(branch([node("Add", ["x", "a"], "z")], {"a": np.ones(3, np.float32)}))
    made.graph.node[0].attribute[0].g.initializer[0].dims[0] = 1 << 20
    refused(made, r"array 'a': found 12 bytes, wanted 4194304")
    graph = branch([node("Relu", ["x"], "z")], {})
    for _ in range(25):
        graph = branch([node("If", ["c"], "z", then_branch=graph, else_branch=graph)], {})
        del graph.node[0].attribute[1]
    refused(holding(graph), "more than 20 deep")


# --- memory ------------------------------------------------------------------------------

HUGE = i64([1 << 20, 1 << 20])


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("ConstantOfShape", ["h"], "k", name="bomb")], {"h": HUGE}),
        ([node("Expand", ["o", "h"], "k", name="bomb")], {"o": np.float32([1]), "h": HUGE}),
        ([node("Tile", ["o", "h"], "k", name="bomb")], {"o": np.float32([[1]]), "h": HUGE}),
        ([node("Range", ["a", "b", "c"], "k", name="bomb")],
         {"a": i64(0), "b": i64(1 << 40), "c": i64(1)}),
        ([node("Pad", ["o", "h"], "k", name="bomb")],
         {"o": np.float32([1]), "h": i64([1 << 40, 0])}),
        ([node("Resize", ["x", "", "h"], "k", name="bomb")],
         {"h": np.float32([1, 1, 1e5, 1e5])}),
        ([node("Pad", ["x", "h"], "k", name="bomb")],
         {"h": i64([0, 0, 1 << 20, 1 << 20, 0, 0, 0, 0])}),
        ([node("ConvTranspose", ["x", "w"], "k", name="bomb", strides=[50_000, 50_000])],
         {"w": floats(0, 3, 4, 1, 1)}),
    ],
)
def test_nodes_that_ask_for_terabytes(nodes: list[Any], constants: dict[str, Any]) -> None:
    last = node("Mul", ["x", "k"], "y") if "x" not in nodes[0].input else node("Relu", ["k"], "y")
    tracemalloc.start()
    try:
        refused(model([*nodes, last], constants, SHAPE),
                r"node 'bomb' \(\w+\): its output 'k' would have the shape")
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()


def test_many_large_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastdeconv.network.importers.folding.MAX_COMPUTED", 1 << 22)
    nodes = [node("ConstantOfShape", ["h"], f"k{i}", name=f"k{i}") for i in range(40)]
    made = model([*nodes, node("Relu", ["x"], "y")], {"h": i64([1 << 18])}, SHAPE)
    refused(made, r"node 'k1\d' \(ConstantOfShape\): its constants would have over")


def test_functions_that_explode_or_call_themselves() -> None:
    def with_functions(functions: list[Any]) -> Any:
        made = model([node("F0", ["x"], "y", domain="f")], {}, SHAPE)
        made.functions.extend(functions)
        made.opset_import.extend([helper.make_opsetid("f", 1)])
        return made

    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    bodies = []
    for i in range(12):
        names = ["a", *(f"b{k}" for k in range(9)), "z"]
        calls = [node(f"F{i + 1}" if i < 11 else "Relu", [names[k]], names[k + 1],
                      domain="f" if i < 11 else "") for k in range(10)]
        bodies.append(helper.make_function("f", f"F{i}", ["a"], ["z"], calls, opsets))
    refused(with_functions(bodies), "nodes in functions, over the limit")
    itself = helper.make_function("f", "F0", ["a"], ["z"], [node("F0", ["a"], "z", domain="f")],
                                  opsets)
    refused(with_functions([itself]), "the function 'F0' calls itself")
    fine = helper.make_function("f", "F0", ["a"], ["z"], [node("Relu", ["a"], "z")], opsets)
    assert fd.from_onnx(with_functions([fine])).layers[0].type == "relu"


def test_arrays_that_are_not_as_large_as_they_say() -> None:
    for dims in ([4, 3, 1, 2], [1 << 40, 1 << 20], [-4, 3, 1, 1]):
        made = model([node("Conv", ["x", "w"], "y")], W, SHAPE)
        del made.graph.initializer[0].dims[:]
        made.graph.initializer[0].dims.extend(dims)
        refused(made, "array 'w': found ")
    made = model([node("Conv", ["x", "w"], "y")], W, SHAPE)
    made.graph.initializer[0].data_type = 99
    refused(made, "array 'w': found data type 99")
    made = model([node("Conv", ["x", "w"], "y")], {"w": W["w"] * np.nan}, SHAPE)
    refused(made, "nan", fd.FastdeconvError)


# --- weights outside the file ------------------------------------------------------------


def outside(location: str, **keys: str) -> bytes:
    made = model([node("Conv", ["x", "w"], "y")], W, SHAPE)
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **keys}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return bytes(made.SerializeToString())


def test_weights_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 8 + W["w"].tobytes())
    (tmp_path / "a.onnx").write_bytes(outside("w.bin", offset="8", length="48"))
    net = fd.from_onnx(tmp_path / "a.onnx")
    np.testing.assert_array_equal(next(iter(net.arrays.values())), W["w"])
    refused((tmp_path / "a.onnx").read_bytes(), "give the path of the model")


@pytest.mark.parametrize(
    ("location", "keys", "match"),
    [
        ("/etc/passwd", {}, "wanted a file in the folder"),
        ("../secret.bin", {}, "wanted a file in the folder"),
        ("sub/../../secret.bin", {}, "wanted a file in the folder"),
        ("link.bin", {}, "wanted a file in the folder"),
        ("dir/secret.bin", {}, "wanted a file in the folder"),
        ("", {}, "wanted a file in the folder"),
        ("a\0b", {}, "wanted a file in the folder"),
        ("short.bin", {}, "found 8 bytes in 'short.bin', wanted 48"),
        ("w.bin", {"length": "99999999999999"}, "found 99999999999999 bytes"),
        ("w.bin", {"offset": "-4"}, "found 48 bytes at -4"),
        ("w.bin", {"offset": "four"}, "no number"),
        ("pipe", {}, "a pipe, not a regular file"),
        ("none.bin", {}, "cannot be read"),
    ],
)
def test_weights_that_lie_elsewhere(
    location: str, keys: dict[str, str], match: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (tmp_path / "secret.bin", folder / "w.bin"):
        path.write_bytes(W["w"].tobytes())
    (folder / "short.bin").write_bytes(b"\0" * 8)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "dir").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    (folder / "a.onnx").write_bytes(outside(location, **keys))
    refused(folder / "a.onnx", match)


def test_nothing_is_unpickled_or_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "trapped"),)

    refused(pickle.dumps(Trap()), "not an ONNX model")
    scopes = f"[__import__('os').mkdir({str(tmp_path / 'trapped')!r})]"
    relu = node("Relu", ["x"], "y", name="relu")
    entry = relu.metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", scopes
    fd.from_onnx(model([relu], {}, SHAPE))
    assert not (tmp_path / "trapped").exists()
    assert numpy_helper is not None


# --- time and memory that grow with more than the file ------------------------------------


def test_a_constant_that_would_take_a_million_copies_of_the_input() -> None:
    nodes = [node("ConstantOfShape", ["s"], "zeros"), node("Conv", ["x", "w"], "c", name="conv"),
             node("ReduceMean", ["c", "a"], "m"), node("Concat", ["m", "zeros"], "y", axis=1)]
    made = model(nodes, {**W, "s": i64([1, 1 << 20, 1, 1]), "a": i64([1, 2, 3])}, SHAPE)
    refused(made, "repeats a value 1048576 times along an axis", fd.ParameterError)
    tiled = model([node("Conv", ["x", "w"], "c", name="conv"), node("Tile", ["c", "r"], "y")],
                  {**W, "r": i64([1, 1000, 1, 1])}, SHAPE)
    refused(tiled, "repeats a value 1000 times along an axis", fd.ParameterError)


def test_products_of_products_take_no_exponential_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    made_by = Graph.made_by
    monkeypatch.setattr(
        Graph, "made_by", lambda graph, value, *ops: asked.append(value) or made_by(
            graph, value, *ops
        ),
    )
    squares = [Node("Mul", [f"v{i}", f"v{i}"], [f"v{i + 1}"]) for i in range(12)]
    graph = Graph(squares, {}, {}, {}, "v0", ("v12",), 20, "<graph>")
    number, factors = product(graph, "v12")
    assert (number, set(factors), len(factors)) == (1.0, {"v0"}, 2**12)
    assert len(asked) < 20


def test_names_with_thousands_of_dots_take_little_memory() -> None:
    made = small()
    for i, one in enumerate(made.graph.node):
        one.name = f"/n{i}" + ".a" * 20_000 + "/x"
    tracemalloc.start()
    net = fd.from_onnx(made)
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()
    assert all(len(layer.name) < 130 for layer in net.layers)


# --- operators whose attributes or constants are not theirs -------------------------------


def stft_model(window: str, **arrays: Any) -> Any:
    nodes = [node("STFT", ["x", "step", window, "n"], "s"),
             node("ReduceSumSquare", ["s", "last"], "p", keepdims=0),
             node("Unsqueeze", ["p", "one"], "q"), node("Conv", ["q", "k"], "y")]
    common = {"last": i64([-1]), "one": i64([1]), "k": floats(0, 2, 1, 3, 3)}
    return model(nodes, common | arrays, (1, 4000, 1))


@pytest.mark.parametrize("window", [np.zeros(64), np.full(64, np.nan), np.zeros(63)])
@pytest.mark.parametrize("step", [i64(16), i64(0), i64(-5)])
def test_a_front_end_with_an_impossible_stft(window: Any, step: Any) -> None:
    made = stft_model("win", step=step, win=window.astype(np.float32), n=i64(64))
    refused(made, ".", fd.FastdeconvError, frontend={"sr": 16000})


@pytest.mark.parametrize("length", [-5, 0, 10**11])
@pytest.mark.parametrize("frontend", [None, {"sr": 16000}])
def test_an_stft_of_an_impossible_length(length: int, frontend: Any) -> None:
    made = stft_model("", step=i64(16), n=i64(length))
    refused(made, ".", fd.FastdeconvError, frontend=frontend)


@pytest.mark.parametrize("sr", ["fast", None, -1, float("nan")])
def test_the_rate_of_a_front_end_is_a_number(sr: Any) -> None:
    refused(small(), "frontend: sr must be a finite number above 0", fd.ParameterError,
            frontend={"sr": sr})


@pytest.mark.parametrize("nodes", [
    [node("SplitToSequence", ["x", "n"], "s", axis="channels"),
     node("SequenceAt", ["s", "i"], "y")],
    [node("SplitToSequence", ["x", "text"], "s"), node("SequenceAt", ["s", "i"], "y")],
    [node("Shape", ["x"], []), node("Relu", ["x"], "y")],
])
def test_nodes_that_are_not_what_their_operator_says(nodes: list[Any]) -> None:
    arrays = {"n": i64(1), "i": i64(0), "text": np.array(["a"], object)}
    refused(model(nodes, arrays, SHAPE), ".", fd.FastdeconvError)
