"""`from_onnx`: every operator, names, choices and errors."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.network.importers.torch_pools import mean_matrix

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from .onnx_models import floats, model, node  # noqa: E402

SHAPE = (1, 3, 6, 8)


def imported(nodes: Any, constants: dict[str, Any], shape: Any = SHAPE, **more: Any) -> fd.Network:
    """The network, compared once more with ONNX's reference where both have 3 axes."""
    made = model(nodes, constants, shape, **more)
    net = fd.from_onnx(made)
    assert net.receipt is not None
    return net


def unary(op: str, **attributes: Any) -> Any:
    return [node("Conv", ["x", "w"], "c", name="conv"), node(op, ["c"], "y", **attributes)]


W = {"w": floats(0, 4, 3, 1, 1)}

UNARY = [
    ("Relu", {}, ["relu"]),
    ("Sigmoid", {}, ["sigmoid"]),
    ("Tanh", {}, ["tanh"]),
    ("HardSwish", {}, ["hardswish"]),
    ("Mish", {}, ["mish"]),
    ("Softplus", {}, ["softplus"]),
    ("Softsign", {}, ["softsign"]),
    ("Exp", {}, ["exp"]),
    ("Abs", {}, ["abs"]),
    ("Gelu", {}, ["gelu"]),
    ("Gelu", {"approximate": "tanh"}, ["gelu"]),
    ("LeakyRelu", {"alpha": 0.1}, ["leaky_relu"]),
    ("Elu", {"alpha": 0.5}, ["elu"]),
    ("Celu", {"alpha": 0.5}, ["affine", "elu", "affine"]),
    ("Celu", {}, ["elu"]),
    ("Selu", {}, ["selu"]),
    ("Selu", {"alpha": 1.5, "gamma": 1.2}, ["elu", "affine"]),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, ["hardsigmoid"]),
    ("HardSigmoid", {}, ["affine", "clip"]),
    ("Neg", {}, ["affine"]),
    ("Softmax", {"axis": 1}, ["softmax"]),
    ("LogSoftmax", {"axis": 1}, ["log_softmax"]),
    ("Softmax", {"axis": 3}, ["permute", "softmax"]),
    ("LRN", {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 2.0}, ["local_response_norm"]),
    ("GlobalAveragePool", {}, ["global_avg_pool2d"]),
    ("GlobalMaxPool", {}, ["global_max_pool2d"]),
    ("ReduceMean", {"keepdims": 0}, ["reduce_mean"]),
    ("ReduceSum", {"keepdims": 0}, ["reduce_mean", "affine"]),
    ("Identity", {}, []),
    ("Flatten", {}, []),
    ("Transpose", {"perm": [0, 2, 3, 1]}, []),
    ("MaxPool", {"kernel_shape": [2, 3], "strides": [2, 2]}, ["max_pool2d"]),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1],
                 "ceil_mode": 1}, ["max_pool2d"]),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
     ["max_pool2d"]),
    ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}, ["max_pool2d"]),
    ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, ["max_pool2d"]),
    ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}, ["avg_pool2d"]),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 1]},
     ["avg_pool2d"]),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
     ["avg_pool2d"]),
    ("Softmax", {"axis": 2}, ["permute", "softmax"]),
]


@pytest.mark.parametrize(("op", "attributes", "kinds"), UNARY)
def test_an_operator_of_one_input(op: str, attributes: dict[str, Any], kinds: list[str]) -> None:
    net = imported(unary(op, **attributes), W)
    assert [layer.type for layer in net.layers] == ["conv2d", *kinds]
    assert net.layers[0].name == "conv"


i64 = np.int64
#: Operators with constants: nodes from "c" (1, 4, 6, 8) to "y", constants, layers.
WITH_CONSTANTS: list[tuple[list[Any], dict[str, Any], list[str]]] = [
    ([node("Clip", ["c", "a", "b"], "y")], {"a": np.float32(0), "b": np.float32(0.5)}, ["clip"]),
    ([node("Clip", ["c", "a"], "y")], {"a": np.float32(0)}, ["relu"]),
    ([node("Clip", ["c", "", "a"], "y")], {"a": np.float32(0.25)}, ["clip"]),
    ([node("Max", ["c", "a"], "y")], {"a": np.float32(0)}, ["relu"]),
    ([node("Max", ["a", "c"], "y")], {"a": np.float32(0.1)}, ["clip"]),
    ([node("Min", ["c", "a"], "y")], {"a": np.float32(0.1)}, ["clip"]),
    ([node("PRelu", ["c", "a"], "y")], {"a": floats(1, 4, 1, 1)}, ["prelu"]),
    ([node("PRelu", ["c", "a"], "y")], {"a": floats(1, 1)}, ["prelu"]),
    ([node("Pow", ["c", "a"], "y")], {"a": np.float32(2)}, ["square"]),
    ([node("Pow", ["c", "a"], "y")], {"a": np.float32(3)}, ["power"]),
    ([node("Mul", ["c", "a"], "y")], {"a": floats(1, 4, 1, 1)}, ["affine"]),
    ([node("Add", ["a", "c"], "y")], {"a": floats(1, 6, 1)}, ["affine"]),
    ([node("Sub", ["c", "a"], "y")], {"a": floats(1, 8)}, ["affine"]),
    ([node("Sub", ["a", "c"], "y")], {"a": np.float32(3)}, ["affine"]),
    ([node("Div", ["c", "a"], "y")], {"a": floats(1, 1, 4, 1, 1)}, ["affine"]),
    ([node("Sub", ["c", "a"], "s"), node("Div", ["s", "b"], "y")],
     {"a": floats(1, 4, 1, 1), "b": floats(2, 4, 1, 1, low=0.5)}, ["affine"]),
    ([node("Exp", ["c"], "e"), node("Div", ["a", "e"], "y")], {"a": np.float32(2)},
     ["exp", "power", "affine"]),
    ([node("Exp", ["c"], "e"), node("Reciprocal", ["e"], "y")], {}, ["exp", "power"]),
    ([node("Abs", ["c"], "e"), node("Sqrt", ["e"], "y")], {}, ["abs", "sqrt"]),
    ([node("Exp", ["c"], "e"), node("Log", ["e"], "y")], {}, ["exp", "log"]),
    ([node("Mul", ["c", "c"], "y")], {}, ["square"]),
    ([node("Sigmoid", ["c"], "s"), node("Mul", ["c", "s"], "y")], {}, ["silu"]),
    ([node("HardSigmoid", ["c"], "s", alpha=1 / 6), node("Mul", ["s", "c"], "y")], {},
     ["hardswish"]),
    ([node("Add", ["c", "3"], "a"), node("Clip", ["a", "0", "6"], "k"),
      node("Mul", ["c", "k"], "m"), node("Div", ["m", "6"], "y")],
     {"0": np.float32(0), "3": np.float32(3), "6": np.float32(6)}, ["hardswish"]),
    ([node("Add", ["c", "3"], "a"), node("Clip", ["a", "0", "6"], "k"),
      node("Div", ["k", "6"], "y")],
     {"0": np.float32(0), "3": np.float32(3), "6": np.float32(6)}, ["hardsigmoid"]),
    ([node("Softplus", ["c"], "p"), node("Tanh", ["p"], "t"), node("Mul", ["c", "t"], "y")], {},
     ["mish"]),
    ([node("Div", ["c", "r"], "d"), node("Erf", ["d"], "e"), node("Add", ["e", "1"], "a"),
      node("Mul", ["c", "a"], "m"), node("Mul", ["m", "h"], "y")],
     {"r": np.float32(2**0.5), "1": np.float32(1), "h": np.float32(0.5)}, ["gelu"]),
    ([node("Mul", ["c", "h"], "m"), node("Pow", ["c", "3"], "q"), node("Mul", ["q", "k"], "qk"),
      node("Add", ["c", "qk"], "a"), node("Mul", ["a", "s"], "u"), node("Tanh", ["u"], "t"),
      node("Add", ["1", "t"], "p"), node("Mul", ["m", "p"], "y")],
     {"h": np.float32(0.5), "3": np.float32(3), "k": np.float32(0.044715), "1": np.float32(1),
      "s": np.float32((2 / np.pi) ** 0.5)}, ["gelu"]),
    ([node("BatchNormalization", ["c", "g", "b", "m", "v"], "y", epsilon=1e-3)],
     {"g": floats(1, 4), "b": floats(2, 4), "m": floats(3, 4), "v": floats(4, 4, low=0.1)},
     ["batch_norm2d"]),
    ([node("Transpose", ["c"], "t", perm=[0, 2, 1, 3]),
      node("BatchNormalization", ["t", "g", "b", "m", "v"], "n"),
      node("Transpose", ["n"], "y", perm=[0, 2, 1, 3])],
     {"g": floats(1, 6), "b": floats(2, 6), "m": floats(3, 6), "v": floats(4, 6, low=0.1)},
     ["batch_norm2d"]),
    ([node("InstanceNormalization", ["c", "g", "b"], "y")],
     {"g": floats(1, 4), "b": floats(2, 4)}, ["instance_norm"]),
    ([node("Reshape", ["c", "s"], "r"), node("InstanceNormalization", ["r", "g", "b"], "i"),
      node("Reshape", ["i", "t"], "n"), node("Mul", ["n", "m"], "u"), node("Add", ["u", "a"], "y")],
     {"s": i64([0, 2, -1]), "g": np.ones(2, "f"), "b": np.zeros(2, "f"), "t": i64([1, 4, 6, 8]),
      "m": floats(1, 4, 1, 1), "a": floats(2, 4, 1, 1)}, ["group_norm"]),
    ([node("LayerNormalization", ["c", "g", "b"], "y", axis=2)],
     {"g": floats(1, 6, 8), "b": floats(2, 6, 8)}, ["layer_norm"]),
    ([node("Transpose", ["c"], "t", perm=[0, 2, 3, 1]),
      node("LayerNormalization", ["t", "g", "b"], "n", axis=-1),
      node("Transpose", ["n"], "y", perm=[0, 3, 1, 2])],
     {"g": floats(1, 4), "b": floats(2, 4)}, ["layer_norm"]),
    ([node("ReduceMean", ["c", "ax"], "m"), node("Sub", ["c", "m"], "d"),
      node("Pow", ["d", "2"], "q"), node("ReduceMean", ["q", "ax"], "v"),
      node("Add", ["v", "e"], "p"), node("Sqrt", ["p"], "r"), node("Div", ["d", "r"], "n"),
      node("Mul", ["n", "g"], "u"), node("Add", ["u", "b"], "y")],
     {"ax": i64([1]), "2": np.float32(2), "e": np.float32(1e-6), "g": floats(1, 4, 1, 1),
      "b": floats(2, 4, 1, 1)}, ["layer_norm"]),
    ([node("Concat", ["c", "x"], "y", axis=1)], {}, ["concat"]),
    ([node("Slice", ["c", "s", "e", "a", "t"], "y")],
     {"s": i64([1, 0]), "e": i64([-1, 99]), "a": i64([2, 3]), "t": i64([1, 2])},
     ["slice", "slice"]),
    ([node("Gather", ["c", "k"], "y", axis=1)], {"k": i64(2)}, ["slice"]),
    ([node("Split", ["c"], ["l", "r"], axis=1, num_outputs=2), node("Mul", ["l", "r"], "y")], {},
     ["slice", "slice", "multiply"]),
    ([node("Pad", ["c", "p", "v"], "y")],
     {"p": i64([0, 0, 1, 2, 0, 0, 0, 3]), "v": np.float32(0.5)}, ["pad"]),
    ([node("Pad", ["c", "p"], "y")], {"p": i64([0, 0, -1, 0, 0, 0, 0, -2])}, ["slice", "slice"]),
    ([node("Pad", ["c", "p"], "q"), node("Conv", ["q", "k"], "y", pads=[1, 0, 1, 0])],
     {"p": i64([0, 0, 0, 2, 0, 0, 1, 0]), "k": floats(1, 2, 4, 3, 3)}, ["conv2d"]),
    ([node("Pad", ["c", "p"], "q"), node("MaxPool", ["q"], "y", kernel_shape=[2, 2])],
     {"p": i64([0, 0, 0, 1, 0, 0, 1, 0])}, ["pad", "max_pool2d"]),
    ([node("Pad", ["c", "p"], "q"), node("AveragePool", ["q"], "y", kernel_shape=[2, 2])],
     {"p": i64([0, 0, 0, 1, 0, 0, 1, 0])}, ["avg_pool2d"]),
    ([node("Resize", ["c", "", "s"], "y", mode="nearest", nearest_mode="floor",
           coordinate_transformation_mode="asymmetric")],
     {"s": np.float32([1, 1, 2, 3])}, ["upsample"]),
    ([node("ReduceMean", ["c", "a"], "m"), node("Mul", ["c", "m"], "y")], {"a": i64([2, 3])},
     ["global_avg_pool2d", "multiply"]),
    ([node("ReduceMax", ["c", "a"], "y", keepdims=0)], {"a": i64([-1])}, ["reduce_max"]),
    ([node("ReduceSum", ["c", "a"], "y", keepdims=0)], {"a": i64([1, 3])},
     ["reduce_mean", "affine"]),
    ([node("ReduceL2", ["c", "a"], "y", keepdims=0)], {"a": i64([2])},
     ["square", "reduce_mean", "affine", "sqrt"]),
    ([node("GlobalAveragePool", ["c"], "m"), node("Sub", ["c", "m"], "y")], {},
     ["global_avg_pool2d", "affine", "add"]),
    ([node("Exp", ["c"], "e"), node("Div", ["c", "e"], "y")], {}, ["exp", "power", "multiply"]),
    ([node("Relu", ["c"], "r"), node("Sum", ["c", "r", "c"], "y")], {}, ["relu", "add"]),
    ([node("Relu", ["c"], "r"), node("Mean", ["c", "r"], "y")], {}, ["relu", "add", "affine"]),
    ([node("Flatten", ["c"], "f"), node("Gemm", ["f", "k", "b"], "y", transB=1)],
     {"k": floats(1, 5, 192), "b": floats(2, 5)}, ["flatten", "linear"]),
    ([node("Transpose", ["c"], "t", perm=[0, 2, 3, 1]), node("Flatten", ["t"], "f"),
      node("MatMul", ["f", "k"], "m"), node("Add", ["m", "b"], "y")],
     {"k": floats(1, 192, 5), "b": floats(2, 5)}, ["flatten", "linear"]),
    ([node("MatMul", ["c", "k"], "y")], {"k": floats(1, 8, 5)}, ["permute", "conv2d"]),
    ([node("MatMul", ["k", "c"], "y")], {"k": floats(1, 5, 6)}, ["permute", "conv2d"]),
    ([node("Transpose", ["c"], "t", perm=[0, 2, 3, 1]), node("MatMul", ["t", "k"], "m"),
      node("Add", ["b", "m"], "y")], {"k": floats(1, 4, 5), "b": floats(2, 5)}, ["conv2d"]),
    ([node("Reshape", ["c", "s"], "r"), node("Transpose", ["r"], "t", perm=[0, 2, 1, 3, 4]),
      node("Reshape", ["t", "u"], "v"), node("Conv", ["v", "k"], "y")],
     {"s": i64([1, 2, 2, 6, 8]), "u": i64([1, 4, 6, 8]), "k": floats(1, 2, 4, 1, 1)},
     ["reshape", "permute", "reshape", "conv2d"]),
    ([node("Transpose", ["c"], "t", perm=[0, 3, 1, 2]), node("Reshape", ["t", "s"], "r"),
      node("MatMul", ["r", "k"], "y")], {"s": i64([8, 24]), "k": floats(1, 24, 5)},
     ["reshape", "conv2d"]),
    ([node("ConvTranspose", ["c", "k"], "y", strides=[2, 3], output_padding=[1, 0],
           pads=[1, 0, 0, 1], group=2)], {"k": floats(1, 4, 3, 3, 3)}, ["conv_transpose2d"]),
    ([node("ConvTranspose", ["c", "k"], "y", strides=[2, 2], auto_pad="SAME_UPPER")],
     {"k": floats(1, 4, 3, 3, 3)}, ["conv_transpose2d"]),
    ([node("Relu", ["c"], "r"), node("Max", ["c", "r", "c"], "y")], {}, ["relu", "maximum"]),
    ([node("GlobalMaxPool", ["c"], "m"), node("Min", ["m", "c"], "y")], {},
     ["global_max_pool2d", "minimum"]),
    ([node("ReduceMin", ["c", "a"], "y", keepdims=0)], {"a": i64([1, 2])},
     ["affine", "reduce_max", "affine"]),
    ([node("ReduceL1", ["c", "a"], "y")], {"a": i64([2])}, ["abs", "reduce_mean", "affine"]),
    ([node("ReduceSumSquare", ["c", "a"], "y")], {"a": i64([2])},
     ["square", "reduce_mean", "affine"]),
    ([node("ReduceLogSumExp", ["c", "a"], "y")], {"a": i64([1])},
     ["exp", "reduce_mean", "affine", "log"]),
    ([node("Abs", ["c"], "a"), node("Pow", ["a", "e"], "y")], {"e": floats(1, 6, 1, low=0.2)},
     ["abs", "log", "affine", "exp"]),
    ([node("Pow", ["two", "c"], "y")], {"two": np.float32(2)}, ["affine", "exp"]),
    ([node("Mul", ["c", "m"], "u"), node("Add", ["u", "a"], "y")],
     {"m": floats(1, 4, 6, 1), "a": floats(2, 4, 1, 8)}, ["affine", "affine"]),
    ([node("Add", ["c", "a"], "y")], {"a": floats(1, 4, 6, 8)}, ["affine"]),
    ([node("Einsum", ["c", "k"], "y", equation="bcft,fk->bckt")], {"k": floats(1, 6, 5)},
     ["permute", "conv2d"]),
    ([node("Einsum", ["k", "c"], "y", equation="cfk,bcft->btkc")], {"k": floats(1, 4, 6, 5)},
     ["reshape", "conv2d", "reshape"]),
    ([node("Einsum", ["c", "k"], "y", equation="bcft,cf")], {"k": floats(1, 4, 6)},
     ["reshape", "conv2d"]),
    ([node("Reshape", ["c", "s"], "r"), node("MatMul", ["r", "k"], "y")],
     {"s": i64([1, 1, 24, 8]), "k": floats(1, 1, 3, 8, 5)},
     ["permute", "reshape", "conv2d", "permute", "reshape"]),
    ([node("MatMul", ["c", "k"], "y")], {"k": floats(1, 1, 1, 8, 5)}, ["permute", "conv2d"]),
    ([node("Einsum", ["c", "k"], "y", equation="bcft,bk->cfk")], {"k": floats(1, 3, 5)},
     ["reduce_mean", "affine", "permute", "conv2d"]),
    ([node("Einsum", ["c"], "y", equation="...ft->...t")], {}, ["reduce_mean", "affine"]),
    ([node("Einsum", ["c", "k"], "y", equation="bcft,cf->tfcb")], {"k": floats(1, 4, 6)},
     ["affine"]),
    ([node("MatMul", ["c", "k"], "y")], {"k": floats(1, 4, 8, 5)},
     ["permute", "reshape", "conv2d", "reshape"]),
    ([node("ReduceMean", ["c", "a"], "m", keepdims=0),
      node("Transpose", ["m"], "t", perm=[0, 2, 1]), node("MatMul", ["t", "m"], "y")],
     {"a": i64([1])}, ["reduce_mean", "permute", "multiply", "reduce_mean", "affine"]),
    ([node("DepthToSpace", ["c"], "d", blocksize=2), node("Relu", ["d"], "y")], {},
     ["reshape", "permute", "reshape", "relu"]),
    ([node("DepthToSpace", ["c"], "d", blocksize=2, mode="CRD"), node("Relu", ["d"], "y")], {},
     ["reshape", "permute", "reshape", "relu"]),
    ([node("SpaceToDepth", ["c"], "d", blocksize=2), node("Conv", ["d", "k"], "y")],
     {"k": floats(1, 3, 16, 1, 1)},
     ["reshape", "permute", "reshape", "permute", "reshape", "conv2d"]),
    ([node("Pad", ["c", "p"], "y", mode="reflect")], {"p": i64([0, 0, 1, 2, 0, 0, 0, 3])}, ["pad"]),
    ([node("Pad", ["c", "p"], "y", mode="edge")], {"p": i64([0, 2, 0, 0, 0, 0, 0, 9])},
     ["permute", "pad"]),
    ([node("Pad", ["c", "p"], "y", mode="wrap")], {"p": i64([0, 0, 0, -2, 0, 0, 0, 3])},
     ["slice", "pad"]),
    ([node("Resize", ["c", "", "s"], "y", mode="linear")], {"s": np.float32([1, 1, 2, 3])},
     ["upsample"]),
    ([node("Resize", ["c", "", "", "s"], "y", mode="linear",
           coordinate_transformation_mode="align_corners")], {"s": i64([1, 4, 9, 5])},
     ["upsample"]),
    ([node("Resize", ["c", "", "", "s"], "y", mode="nearest", nearest_mode="floor",
           coordinate_transformation_mode="asymmetric")], {"s": i64([1, 4, 5, 13])},
     ["upsample"]),
    ([node("Gather", ["c", "k"], "y", axis=1)], {"k": i64([3, 0, 0])}, ["conv2d"]),
    ([node("GatherND", ["c", "k"], "y")], {"k": i64([[0, 2, 5], [0, 1, 3]])},
     ["reshape", "conv2d"]),
    ([node("Slice", ["c", "s", "e", "a", "t"], "y")],
     {"s": i64([-1]), "e": i64([-(2**63)]), "a": i64([3]), "t": i64([-1])}, ["permute", "conv2d"]),
    ([node("ReduceMean", ["c", "a"], "m"), node("Tile", ["m", "t"], "r"),
      node("Concat", ["c", "r"], "y", axis=1)], {"a": i64([3]), "t": i64([1, 1, 1, 8])},
     ["reduce_mean", "upsample", "concat"]),
    ([node("Tile", ["c", "t"], "y")], {"t": i64([1, 2, 1, 3])}, ["concat", "concat"]),
    ([node("MatMul", ["c", "k"], "m"), node("MatMul", ["h", "m"], "y")],
     {"k": mean_matrix(8, 5), "h": mean_matrix(6, 4).T}, ["adaptive_avg_pool2d"]),
    ([node("Max", ["c", "k"], "y")], {"k": floats(1, 4, 1, 1)}, ["affine", "maximum"]),
    ([node("Concat", ["k", "c"], "y", axis=1)], {"k": floats(1, 1, 6, 6, 8)},
     ["concat", "slice", "affine", "concat"]),
    ([node("Concat", ["c", "k"], "y", axis=3)], {"k": floats(1, 1, 4, 6, 2)},
     ["slice", "affine", "concat"]),
    ([node("CumSum", ["c", "a"], "y", exclusive=1, reverse=1)], {"a": i64(3)},
     ["permute", "conv2d"]),
    ([node("CumSum", ["c", "a"], "y")], {"a": i64(1)}, ["conv2d"]),
    ([node("Where", ["q", "c", "k"], "y")],
     {"q": floats(1, 6, 1) > 0, "k": np.float32(-1)}, ["affine"]),
    ([node("Where", ["q", "k", "c"], "y")], {"q": floats(1, 6, 1) > 0, "k": floats(2, 8)},
     ["affine"]),
    ([node("Sin", ["c"], "s"), node("Cos", ["s"], "y")], {}, ["sin", "affine", "sin"]),
    ([node("FusedConv", ["c", "k", "b"], "y", domain="com.microsoft", activation="LeakyRelu",
           activation_params=[0.2])], {"k": floats(1, 2, 4, 1, 1), "b": floats(2, 2)},
     ["conv2d", "leaky_relu"]),
    ([node("FusedConv", ["c", "k", "b", "c"], "y", domain="com.microsoft", activation="Clip",
           activation_params=[0.0, 0.3])], {"k": floats(1, 4, 4, 1, 1), "b": floats(2, 4)},
     ["conv2d", "add", "clip"]),
]


@pytest.mark.parametrize(("nodes", "constants", "kinds"), WITH_CONSTANTS)
def test_operators_with_constants(
    nodes: list[Any], constants: dict[str, Any], kinds: list[str]
) -> None:
    net = imported([node("Conv", ["x", "w"], "c"), *nodes], {**W, **constants})
    assert [layer.type for layer in net.layers] == ["conv2d", *kinds]


@pytest.mark.parametrize(("opset", "count"), [(18, 2), (21, 4)])
def test_group_normalisation_of_both_kinds(opset: int, count: int) -> None:
    nodes = [node("Conv", ["x", "w"], "c"),
             node("GroupNormalization", ["c", "g", "b"], "y", num_groups=2)]
    net = imported(nodes, {**W, "g": floats(1, count), "b": floats(2, count)}, opset=opset)
    assert [layer.type for layer in net.layers] == ["conv2d", "group_norm"]


def test_values_repeated_by_expand() -> None:
    nodes = [node("Conv", ["x", "w"], "c"), node("ReduceMean", ["c", "a"], "m"),
             node("Expand", ["m", "s"], "e")]
    constants = {**W, "a": i64([3]), "s": i64([1, 4, 6, 8])}
    net = imported([*nodes, node("Concat", ["c", "e"], "y", axis=1)], constants)
    assert [layer.type for layer in net.layers] == ["conv2d", "reduce_mean", "upsample", "concat"]
    assert net.input_shape == (3, 6, 8)
    net = imported([*nodes, node("Mul", ["e", "c"], "y")], constants)
    assert [layer.type for layer in net.layers] == ["conv2d", "reduce_mean", "multiply"]
    assert net.input_shape == (3, 6, None)


def test_what_computes_shapes_is_folded() -> None:
    nodes = [
        node("Conv", ["x", "w"], "c"), node("Shape", ["c"], "s"), node("Gather", ["s", "i"], "g"),
        node("ReduceProd", ["g"], "p", keepdims=1), node("Concat", ["o", "p"], "n", axis=0),
        node("Dropout", ["c"], "d"), node("Cast", ["d"], "f", to=1),
        node("Reshape", ["f", "n"], "r"), node("Gemm", ["r", "k"], "y"),
    ]
    constants = {**W, "i": i64([1, 2, 3]), "o": i64([1]), "k": floats(1, 192, 2)}
    net = imported(nodes, constants)
    assert [layer.type for layer in net.layers] == ["conv2d", "flatten", "linear"]
    assert net.input_shape == (3, 6, 8)


def _conv_cases() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({
        "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "strides": st.lists(st.integers(1, 2), min_size=2, max_size=2),
        "dilations": st.lists(st.integers(1, 2), min_size=2, max_size=2),
        "pads": st.lists(st.integers(0, 2), min_size=4, max_size=4),
        "auto_pad": st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
        "group": st.sampled_from([1, 3]),
        "bias": st.booleans(),
    })


@settings(max_examples=30)
@given(_conv_cases())
def test_convolutions_of_every_kind(case: dict[str, Any]) -> None:
    kernel, bias, group = case.pop("kernel"), case.pop("bias"), case["group"]
    if case["auto_pad"] != "NOTSET":
        del case["pads"]
        if case["auto_pad"] != "VALID":
            case["dilations"] = [1, 1]  # ONNX Runtime pads dilated ones differently
    constants = {"w": floats(1, 6, 3 // group, *kernel), "b": floats(2, 6)}
    inputs = ["x", "w", "b"] if bias else ["x", "w"]
    net = imported([node("Conv", inputs, "y", **case)], constants, (1, 3, 9, 8))
    assert [layer.type for layer in net.layers] == ["conv2d"]
    # The pads of SAME_LOWER depend on the size, unless every place is taken.
    fixed = case["auto_pad"] == "SAME_LOWER" and case["strides"] != [1, 1]
    assert net.input_shape == (3, 9, 8 if fixed else None)


def numbers(*values: int) -> Any:
    return i64(values)


#: Nodes from (1, 3, 6, 8) whose numbers hold for that width alone, or for every width.
OTHER_WIDTHS: list[tuple[list[Any], dict[str, Any], bool]] = [
    ([node("AveragePool", ["x"], "y", kernel_shape=[2, 2], strides=[1, 3],
           auto_pad="SAME_LOWER")], {}, False),
    ([node("Slice", ["x", "a", "b", "c"], "y")],
     {"a": numbers(1), "b": numbers(8), "c": numbers(3)}, False),
    ([node("Slice", ["x", "a", "b", "c"], "y")],
     {"a": numbers(-3), "b": numbers(2**63 - 1), "c": numbers(3)}, False),
    ([node("Slice", ["x", "a", "b", "c"], "y")],
     {"a": numbers(3), "b": numbers(2**63 - 1), "c": numbers(3)}, True),
    ([node("Gather", ["x", "a"], "y", axis=3)], {"a": numbers(7)}, False),
    ([node("Gather", ["x", "a"], "y", axis=3)], {"a": numbers(-1)}, False),
    ([node("AveragePool", ["x"], "p", kernel_shape=[1, 1], strides=[1, 5]),
      node("Gather", ["p", "a"], "y", axis=3)], {"a": numbers(0, 1)}, False),
    ([node("MaxPool", ["x"], "p", kernel_shape=[1, 6], strides=[1, 6]),
      node("GlobalAveragePool", ["p"], "y")], {}, True),
    ([node("MaxPool", ["x"], "p", kernel_shape=[2, 6], strides=[1, 6]),
      node("ReduceMean", ["p"], "y", axes=[3])], {}, False),
    ([node("Pad", ["x", "a"], "y")], {"a": numbers(0, 0, 0, -1, 0, 0, 0, -2)}, False),
    ([node("Resize", ["x", "", "", "a"], "y", mode="linear")], {"a": numbers(1, 3, 6, 16)}, False),
    ([node("ConvTranspose", ["x", "w"], "y", output_shape=[6, 8])], {"w": floats(0, 3, 2, 3, 3)},
     False),
    ([node("MaxPool", ["x"], "p", kernel_shape=[1, 8], strides=[1, 8]),
      node("ReduceMean", ["p"], "y", axes=[2, 3], keepdims=0)], {}, True),
    ([node("Slice", ["x", "a", "b", "c"], "p"), node("Relu", ["p"], "y")],
     {"a": numbers(0), "b": numbers(100), "c": numbers(3)}, False),
    ([node("Relu", ["x"], "p"), node("Slice", ["p", "a", "b", "c"], "y")],
     {"a": numbers(-100), "b": numbers(2**63 - 1), "c": numbers(3)}, False),
]


@pytest.mark.parametrize(("nodes", "constants", "free"), OTHER_WIDTHS)
@pytest.mark.parametrize("declared", ["time", 8])
def test_a_width_varies_only_if_the_model_gives_the_same_for_others(
    nodes: Any, constants: dict[str, Any], free: bool, declared: Any
) -> None:
    made = model(nodes, constants, (1, 3, 6, declared), opset=13)
    net = fd.from_onnx(made, (1, 3, 6, 8))
    assert (net.input_shape[2] is None) == free


def test_a_long_width_in_a_number_is_found() -> None:
    corrected = [
        node("Shape", ["x"], "shape"), node("Gather", ["shape", "last"], "found"),
        node("Cast", ["found"], "n", to=1), node("Sub", ["n", "one"], "fewer"),
        node("Div", ["n", "fewer"], "ratio"), node("ReduceMean", ["x"], "mean", axes=[3]),
        node("Mul", ["mean", "ratio"], "y"),
    ]
    constants = {"last": numbers(3)[0], "one": np.float32(1)}
    made = model(corrected, constants, (1, 3, 6, "time"), opset=13)
    assert fd.from_onnx(made, (1, 3, 6, 7000)).input_shape == (3, 6, 7000)


@settings(max_examples=30)
@given(st.permutations([0, 1, 2, 3]), st.permutations([0, 1, 2, 3]), st.booleans())
def test_axes_that_move_and_come_back_cost_nothing(
    first: list[int], second: list[int], back: bool
) -> None:
    order = [first[k] for k in second]
    undo = [order.index(k) for k in range(4)]
    nodes = [
        node("Conv", ["x", "w"], "c"), node("Transpose", ["c"], "p", perm=first),
        node("Relu", ["p"], "r"), node("Transpose", ["r"], "q", perm=second),
        node("Transpose", ["q"], "u", perm=undo) if back else node("Identity", ["q"], "u"),
        node("Mul", ["u", "two"], "y"),
    ]
    net = imported(nodes, {**W, "two": np.float32(2)})
    assert [layer.type for layer in net.layers] == ["conv2d", "relu", "affine"]


@st.composite
def _chains(draw: Any) -> tuple[list[Any], dict[str, Any]]:
    """Nodes that reshape and transpose (1, 4, 6, 8), and then want an axis of its own."""
    shape, nodes, constants, last = [1, 4, 6, 8], [], {}, "c"
    for i in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            order = draw(st.permutations(range(len(shape))))
            nodes.append(node("Transpose", [last], f"v{i}", perm=order))
            shape = [shape[k] for k in order]
        else:
            left, sizes = 192, []
            for _ in range(draw(st.integers(0, 4))):
                sizes.append(draw(st.sampled_from([n for n in (1, 2, 3, 4, 6, 8) if not left % n])))
                left //= sizes[-1]
            shape = [*draw(st.sampled_from([[], [1]])), *sizes, left]
            constants[f"s{i}"] = i64(shape)
            nodes.append(node("Reshape", [last, f"s{i}"], f"v{i}"))
        last = f"v{i}"
    axis = draw(st.integers(0, len(shape) - 1))
    kinds = ["softmax", "max", "affine", "matrix", "slice", "gather", "join", "norm", "product"]
    kind = draw(st.sampled_from(kinds))
    if kind == "slice":
        nodes.append(node("Slice", [last, "a", "b", "d"], "y"))
        constants |= {"a": i64([shape[axis] // 2]), "b": i64([99]), "d": i64([axis])}
    elif kind == "gather":
        nodes.append(node("Gather", [last, "a"], "y", axis=axis))
        constants["a"] = i64([shape[axis] - 1, 0])
    elif kind == "join":
        nodes.append(node("Concat", [last, last], "y", axis=axis))
    elif kind == "norm":
        nodes.append(node("LayerNormalization", [last, "a"], "y", axis=axis))
        constants["a"] = floats(1, *shape[axis:])
    elif kind == "product":
        nodes.append(node("ReduceMean", [last, "a"], "m"))
        nodes.append(node("Mul", ["m", last], "y"))
        constants["a"] = i64([axis, 0])
    elif kind == "softmax":
        nodes.append(node("Softmax", [last], "y", axis=axis))
    elif kind == "max":
        nodes.append(node("ReduceMax", [last, "a"], "y", keepdims=0))
        constants["a"] = i64([axis])
    elif kind == "affine":
        constants["a"] = floats(1, shape[axis], *[1] * (len(shape) - axis - 1))
        nodes.append(node("Mul", [last, "a"], "y"))
    else:
        constants["a"] = floats(1, shape[-1], 3)
        nodes.append(node("MatMul", [last, "a"], "y"))
    return nodes, constants


@settings(max_examples=150)
@given(_chains())
def test_axes_that_are_joined_cut_and_moved(case: tuple[list[Any], dict[str, Any]]) -> None:
    nodes, constants = case
    try:
        # Compared with ONNX Runtime by the import itself.
        imported([node("Conv", ["x", "w"], "c"), *nodes], {**W, **constants})
    except fd.ParameterError as error:
        known = ("more than three axes", "over one value", "normalises single values")
        assert any(words in str(error) for words in known)


def test_operators_as_older_files_have_them() -> None:
    nodes = [
        node("Pad", ["x"], "p", pads=[0, 0, 1, 1, 0, 0, 1, 1]), node("Conv", ["p", "k"], "c"),
        node("Clip", ["c"], "r", min=0.0, max=6.0), node("Upsample", ["r", "u"], "i"),
        node("Slice", ["i"], "s", starts=[1], ends=[9], axes=[2]),
        node("ReduceMean", ["s"], "m", axes=[2], keepdims=1), node("Squeeze", ["m"], "q", axes=[2]),
        node("Unsqueeze", ["q"], "e", axes=[3]),
        node("Flatten", ["e"], "f"), node("Gemm", ["f", "g", "b"], "d", transB=1),
        node("Dropout", ["d"], "o", ratio=0.5), node("Softmax", ["o"], "y"),
    ]
    constants = {"k": floats(1, 4, 3, 3, 3), "u": np.float32([1, 1, 2, 1]),
                 "g": floats(2, 5, 32), "b": floats(3, 5)}
    net = imported(nodes, constants, opset=9)
    assert [layer.type for layer in net.layers] == [
        "conv2d", "clip", "upsample", "slice", "reduce_mean", "flatten", "linear", "softmax",
    ]
    assert net.layers[0].padding == 1


# --- the input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "nodes", "constants", "wanted"),
    [
        ((1, 3, 6, 8), [node("Conv", ["x", "k"], "y")], {"k": floats(1, 2, 3, 3, 3)},
         (3, 6, None)),
        ((1, 6, 8, 3), [node("Transpose", ["x"], "t", perm=[0, 3, 1, 2]),
                        node("Conv", ["t", "k"], "y")], {"k": floats(1, 2, 3, 3, 3)},
         (3, 6, None)),
        ((1, 6, 8, 1), [node("Reshape", ["x", "s"], "t"), node("Conv", ["t", "k"], "y")],
         {"k": floats(1, 2, 1, 3, 3), "s": i64([1, 1, 6, 8])}, (1, 6, None)),
        ((1, 6, 8), [node("Conv", ["x", "k"], "y")], {"k": floats(1, 2, 6, 3)}, (6, 1, None)),
        ((1, 6, 8), [node("Unsqueeze", ["x", "a"], "t"), node("Conv", ["t", "k"], "y")],
         {"k": floats(1, 2, 1, 3, 3), "a": i64([1])}, (1, 6, None)),
        ((1, 8), [node("Unsqueeze", ["x", "a"], "t"), node("Conv", ["t", "k"], "y")],
         {"k": floats(1, 2, 1, 3), "a": i64([1])}, (1, 1, None)),
        ((1, 8), [node("Gemm", ["x", "k"], "y")], {"k": floats(1, 8, 3)}, (8, 1, None)),
        ((6, 8), [node("Unsqueeze", ["x", "a"], "t"), node("Conv", ["t", "k"], "y")],
         {"k": floats(1, 2, 1, 3, 3), "a": i64([0, 1])}, (1, 6, None)),
        ((1, 6, 8), [node("MatMul", ["x", "k"], "y")], {"k": floats(1, 8, 3)}, (8, 1, None)),
    ],
)
def test_which_axis_of_the_input_is_which(
    shape: Any, nodes: list[Any], constants: dict[str, Any], wanted: Any
) -> None:
    net = imported(nodes, constants, shape)
    assert [layer.type for layer in net.layers][-1] in ("conv2d", "linear")
    assert len(net.layers) == 1
    if net.layers[0].type == "linear":
        assert net.input_shape[0] == 8
    else:
        assert net.input_shape == wanted


def test_the_width_is_kept_where_a_layer_wants_it() -> None:
    fixed = imported([node("Conv", ["x", "w"], "c"), node("Flatten", ["c"], "f"),
                      node("Gemm", ["f", "k"], "y")], {**W, "k": floats(1, 192, 2)})
    assert fixed.input_shape == (3, 6, 8)
    pooled = imported([node("Conv", ["x", "w"], "c"), node("GlobalAveragePool", ["c"], "g"),
                       node("Flatten", ["g"], "f"), node("Gemm", ["f", "k"], "y")],
                      {**W, "k": floats(1, 4, 2)})
    assert pooled.input_shape == (3, 6, None)
    cropped = imported([node("Conv", ["x", "w"], "c"), node("Slice", ["c", "s", "e", "a"], "y")],
                       {**W, "s": i64([0]), "e": i64([5]), "a": i64([3])})
    assert cropped.input_shape == (3, 6, 8)
    summed = imported([node("Conv", ["x", "w"], "c"), node("ReduceSum", ["c", "a"], "y")],
                      {**W, "a": i64([3])})
    assert summed.input_shape == (3, 6, 8)


def test_sizes_that_a_file_leaves_open() -> None:
    made = model([node("Conv", ["x", "w"], "y")], W, ("batch", 3, "bins", "frames"))
    with pytest.raises(fd.ParameterError, match=r"'x' is batch x 3 x bins x frames, where bins and "
                       r"frames may vary; give input_shape=\(1, 3, bins, frames\) with numbers"):
        fd.from_onnx(made)
    assert fd.from_onnx(made, (3, 6, 8)).input_shape == (3, None, None)
    assert fd.from_onnx(made, (1, 3, 6, 8)).input_shape == (3, None, None)
    with pytest.raises(fd.ParameterError, match=r"input_shape: found \(6, 8\), wanted 4 sizes"):
        fd.from_onnx(made, (6, 8))
    with pytest.raises(fd.ParameterError, match="sequence of positive ints"):
        fd.from_onnx(made, (3, 6, 0))
    batched = model([node("Conv", ["x", "w"], "y")], W, (4, 3, 6, 8))
    with pytest.raises(fd.ParameterError, match="batch of 1"):
        fd.from_onnx(batched)
    assert fd.from_onnx(batched, (1, 3, 6, 8)).input_shape == (3, 6, None)


def test_a_size_that_a_number_depends_on_is_kept() -> None:
    nodes = [node("Conv", ["x", "w"], "c"), node("Shape", ["c"], "s", start=3),
             node("Cast", ["s"], "n", to=1), node("Div", ["c", "n"], "y")]
    made = model(nodes, W, (1, 3, 6, "frames"))
    assert fd.from_onnx(made, (3, 6, 8)).input_shape == (3, 6, 8)
    other = model(nodes[:1], W, (1, 3, 6, "frames"), ("c",))
    assert fd.from_onnx(other, (3, 6, 8)).input_shape == (3, 6, None)


# --- choosing ----------------------------------------------------------------------------


def two_inputs() -> Any:
    return model(
        [node("Conv", ["x", "w"], "c", name="left"), node("Relu", ["other"], "r", name="right"),
         node("Relu", ["c"], "y", name="out")],
        W, SHAPE, inputs=("x", "other"),
    )


def test_one_of_several_inputs_is_chosen() -> None:
    with pytest.raises(fd.ParameterError, match=r"the inputs 'x', 'other'.*inputs='x'\)"):
        fd.from_onnx(two_inputs())
    net = fd.from_onnx(two_inputs(), inputs="x")
    assert [layer.name for layer in net.layers] == ["left", "out"]


def test_a_network_may_begin_inside() -> None:
    nodes = [node("STFT", ["x", "hop", "win"], "s", name="stft"),
             node("ReduceMax", ["x", "one"], "m", name="reduced"),
             node("Conv", ["m", "w"], "c", name="conv"), node("Relu", ["c"], "y", name="relu")]
    constants = {**W, "hop": i64(4), "win": floats(1, 8), "one": i64([3])}
    made = model(nodes[1:], constants, SHAPE)
    net = fd.from_onnx(made, inputs="reduced")
    assert [layer.name for layer in net.layers] == ["conv", "relu"]
    assert net.input_shape == (3, 6, None)
    assert fd.from_onnx(made, (1, 3, 5, 7), inputs="m").input_shape == (3, 5, None)
    with pytest.raises(fd.ParameterError, match=r"no input, node or value 'nothing'.*m, c, y"):
        fd.from_onnx(made, inputs="nothing")


def recurrent() -> Any:
    return model(
        [node("Conv", ["x", "w"], "c", name="/features/features.0/Conv"),
         node("Relu", ["c"], "r", name="/features/features.1/Relu"),
         node("ReduceMean", ["r", "two"], "m", name="/ReduceMean", keepdims=0),
         node("Transpose", ["m"], "t", name="/Transpose", perm=[2, 0, 1]),
         node("GRU", ["t", "gw", "gr"], ["g", ""], name="/rnn/GRU", hidden_size=2),
         node("ReduceMean", ["g", "zero"], "y", name="/ReduceMean_1", keepdims=0)],
        {**W, "two": i64([2]), "zero": i64([0]), "gw": floats(1, 1, 6, 4),
         "gr": floats(2, 1, 6, 2)},
        SHAPE,
    )


def test_what_cannot_be_imported_is_said_with_what_can() -> None:
    with pytest.raises(fd.ParameterError) as error:
        fd.from_onnx(recurrent())
    text = str(error.value)
    assert "node '/rnn/GRU' (GRU) in the module 'rnn' cannot be a layer" in text
    assert "no layer for recurrent networks" in text
    assert "from_onnx(..., outputs='mean1')" in text
    assert "features.0, features.1, mean1" in text


@pytest.mark.parametrize("wanted", ["features.1", "features", "r", "/features/features.1/Relu"])
def test_a_network_may_end_inside(wanted: str) -> None:
    net = fd.from_onnx(recurrent(), outputs=wanted)
    assert [layer.name for layer in net.layers] == ["features.0", "features.1"]
    assert net.layer_index("features") == 1


def test_ends_that_are_not_there_or_beyond_reach() -> None:
    with pytest.raises(fd.ParameterError, match=r"no layer 'x9'; there are features\.0"):
        fd.from_onnx(recurrent(), outputs="x9")
    with pytest.raises(fd.ParameterError, match=r"\(GRU\) in the module 'rnn'"):
        fd.from_onnx(recurrent(), outputs="rnn")
    two = model([node("Relu", ["x"], "y"), node("Abs", ["x"], "z")], {}, SHAPE, outputs=("y", "z"))
    with pytest.raises(fd.ParameterError, match=r"the outputs 'y', 'z'.*outputs='y'\)"):
        fd.from_onnx(two)
    assert fd.from_onnx(two, outputs="z").layers[0].type == "abs"


# --- names -------------------------------------------------------------------------------


def test_names_are_those_of_modules() -> None:
    scopes = {"bn": "['', 'net', 'net.1', 'batch_norm']", "act": "['', 'net', 'net.2', 'relu']",
              "add": "['', 'net', 'add']"}
    nodes = [
        node("Conv", ["x", "net.0.weight"], "c", name="bn"),
        node("Relu", ["c"], "r", name="act"), node("Add", ["r", "c"], "s", name="add"),
        node("Relu", ["s"], "y", name="act"),
    ]
    for made in nodes:
        entry = made.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", scopes[made.name]
    net = imported(nodes, {"net.0.weight": floats(0, 4, 3, 1, 1)})
    assert [layer.name for layer in net.layers] == ["net.0", "net.2", "net.add", "net.2:1"]
    assert net.aliases["net.1"] == "net.0"
    assert net.layer_index("net") == 3


def test_names_that_no_archive_could_hold_are_changed(tmp_path: Any) -> None:
    nodes = [node("Conv", ["x", "w"], "a", name="model/conv;1/Conv2D"),
             node("Relu", ["a"], "b", name="..\\up/../Relu"), node("Relu", ["b"], "c"),
             node("Relu", ["c"], "y", name="input")]
    net = imported(nodes, W)
    assert [layer.name for layer in net.layers] == ["model.conv_1", "up", "relu1", "input_layer"]
    net.save(tmp_path / "net.npz")
    again = fd.Network.load(tmp_path / "net.npz")
    assert again.layers == net.layers and again.aliases == net.aliases


def test_keywords_go_to_the_network(tmp_path: Any) -> None:
    made = model([node("Conv", ["x", "w"], "y")], W, SHAPE)
    path = tmp_path / "tagger.onnx"
    path.write_bytes(made.SerializeToString())
    net = fd.from_onnx(path, classes=["a", "b", "c", "d"])
    assert (net.name, net.classes) == ("tagger", ("a", "b", "c", "d"))
    assert fd.from_onnx(path.read_bytes(), name="mine").name == "mine"
    with pytest.raises(fd.ParameterError, match="found 1 names, wanted 4"):
        fd.from_onnx(path, classes=["a"])


def test_other_float_types_become_float32() -> None:
    for kind, dtype in ((10, np.float16), (11, np.float64)):
        made = model([node("Conv", ["x", "w"], "c"), node("Cast", ["c"], "y", to=kind)],
                     {"w": W["w"].astype(dtype)}, SHAPE, kind=kind)
        assert [layer.type for layer in fd.from_onnx(made).layers] == ["conv2d"]


def test_a_difference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastdeconv.network.importers.operators import OPERATORS, activations

    monkeypatch.setitem(OPERATORS, "Tanh", activations.same("sigmoid"))
    with pytest.raises(fd.ArchiveError, match=r"'tanh' \(sigmoid, from node 'tanh'\) differs"):
        imported([node("Conv", ["x", "w"], "c", name="conv"),
                  node("Tanh", ["c"], "t", name="tanh"), node("Relu", ["t"], "y")], W)


def test_without_onnx_runtime_the_reference_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    net = imported(unary("Relu"), W)
    assert "the reference of ONNX" in str(net.receipt)


def test_nothing_heavy_is_loaded_before_a_model_is_read() -> None:
    code = (
        "import sys, fastdeconv as fd; fd.from_onnx, fd.from_torch; "
        "print(sorted({'onnx', 'torch', 'onnxruntime'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_without_onnx_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(fd.ParameterError, match=r"pip install 'fastdeconv\[onnx\]'"):
        fd.from_onnx(b"")

# Graphs inside nodes


def _branch(name: str, nodes: list[Any], output: str, **constants: Any) -> Any:
    return helper.make_graph(
        nodes, name, [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), key) for key, array in constants.items()],
    )


def _either(condition: str, out: str) -> Any:
    """Of `c` a ReLU, or the maximum with a constant, in values of the same name."""
    return node(
        "If", [condition], out,
        then_branch=_branch("yes", [node("Relu", ["c"], "in")], "in"),
        else_branch=_branch("no", [node("Mul", ["c", "k"], "h"), node("Tanh", ["h"], "in")], "in",
                            k=np.float32(2)),
    )


@pytest.mark.parametrize(("condition", "kinds"), [(True, ["relu"]), (False, ["affine", "tanh"])])
def test_the_branch_that_runs_takes_the_place_of_an_if(condition: bool, kinds: list[str]) -> None:
    nodes = [node("Conv", ["x", "w"], "c"), _either("q", "y")]
    net = imported(nodes, {**W, "q": np.array(condition)})
    assert [layer.type for layer in net.layers] == ["conv2d", *kinds]
    assert net.input_shape == (3, 6, None)


def test_branches_may_use_the_same_names_and_hold_each_other() -> None:
    outer = node(
        "If", ["q"], "y",
        then_branch=_branch("yes", [_either("no", "i"), node("Add", ["i", "a"], "o")], "o",
                            no=np.array(False)),
        else_branch=_branch("no", [], "c"),
    )
    nodes = [node("Conv", ["x", "w"], "c"), _either("q", "a"), outer]
    net = imported(nodes, {**W, "q": np.array([True])})
    assert [layer.type for layer in net.layers] == ["conv2d", "relu", "affine", "tanh", "add"]
    net = imported([*nodes, node("Exp", ["y"], "z")], {**W, "q": np.array([False])}, outputs=("z",))
    assert [layer.type for layer in net.layers] == ["conv2d", "exp"]


def test_a_branch_that_sizes_choose_holds_for_these_sizes_only() -> None:
    nodes = [node("Conv", ["x", "w"], "c"), node("Shape", ["c"], "s"),
             node("Gather", ["s", "3"], "n"), node("Greater", ["n", "3"], "q"), _either("q", "y")]
    net = imported(nodes, {**W, "3": i64(3)})
    assert [layer.type for layer in net.layers] == ["conv2d", "relu"]
    assert net.input_shape == (3, 6, 8)


def test_what_depends_on_values_or_repeats_is_refused_with_what_is_below() -> None:
    body = helper.make_graph(
        [node("Identity", ["more"], "again"), node("Add", ["r", "was"], "now")], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("more", TensorProto.BOOL, []),
         helper.make_tensor_value_info("was", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, []),
         helper.make_tensor_value_info("now", TensorProto.FLOAT, None)],
    )
    conv = [node("Conv", ["x", "w"], "c"), node("Relu", ["c"], "r")]
    loop = node("Loop", ["3", "", "c"], "y", body=body, name="steps")
    with pytest.raises(fd.ParameterError, match=r"'steps' \(Loop\).*repeats a part of the graph.*"
                                                r"outputs='relu1'\).*; the layers are conv1, re"):
        fd.from_onnx(model([*conv, loop], {**W, "3": i64(3)}, (1, 3, 6, 8)))
    asked = [node("ReduceMax", ["r"], "m", keepdims=0), node("Cast", ["m"], "q", to=9)]
    with pytest.raises(fd.ParameterError, match=r"\(Cast\).*integers or booleans"):
        fd.from_onnx(model([*conv, *asked, _either("q", "y")], W, (1, 3, 6, 8)))
    with pytest.raises(fd.ParameterError, match=r"\(If\).*which of its branches runs depends on "
                                                r"computed values.*outputs='relu1'\).*conv1"):
        fd.from_onnx(model([*conv, _either("r", "y")], W, (1, 3, 6, 8)))


def test_a_branch_that_does_not_fit_its_if_is_refused() -> None:
    short = helper.make_graph([], "no", [], [])
    nodes = [node("Conv", ["x", "w"], "c"),
             node("If", ["q"], "y", name="odd", then_branch=short, else_branch=short)]
    with pytest.raises(fd.ArchiveError, match=r"'odd' \(If\): found no then_branch that fits"):
        fd.from_onnx(model(nodes, {**W, "q": np.array(True)}, (1, 3, 6, 8)))
