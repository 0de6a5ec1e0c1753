"""Networks with branches in ONNX Runtime, forward: the output of the last layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import fastdeconv as fd
from fastdeconv.network import layers as nn

from ..measure import Contender
from .onnxruntime_peer import session

_PLAIN = {
    "relu": "Relu", "hardswish": "HardSwish", "sigmoid": "Sigmoid", "gelu": "Gelu", "add": "Add",
    "multiply": "Mul",
}
"""What has no parameters."""


def forward(trace: fd.Trace, num_threads: int) -> Contender:
    """All graph optimisations, so that batch norms are folded and layers fused."""
    run = session(_model(trace.network, trace.x.shape), num_threads)
    feed = {"input": trace.x[None]}
    return Contender(
        "ONNX Runtime", lambda: run.run(None, feed),
        "all graph optimisations, the last layer's output alone", read=lambda out: out[0][0],
    )


def _model(net: fd.Network, shape: tuple[int, ...]) -> bytes:
    nodes, constants = [], []

    def constant(name: str, values: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    for layer, sources in zip(net.layers, net.sources):
        inputs = ["input" if k < 0 else net.layers[k].name for k in sources]
        if layer.type == "silu":
            gate = f"sigmoid of {layer.name}"
            nodes.append(helper.make_node("Sigmoid", inputs, [gate]))
            nodes.append(helper.make_node("Mul", [*inputs, gate], [layer.name]))
            continue
        kind, more = _node(layer, net)
        inputs += [constant(key, net.arrays[key]) for key in layer.array_names]
        if isinstance(layer, nn.ReduceMean):
            inputs.append(constant(f"axes of {layer.name}", np.array([2, 3])))
        nodes.append(helper.make_node(kind, inputs, [layer.name], **more))
    given, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *sizes])
        for name, sizes in (("input", shape), (net.layers[-1].name, net.shapes(shape)[-1]))
    )
    graph = helper.make_graph(nodes, "network", [given], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _node(layer: Any, net: fd.Network) -> tuple[str, dict[str, Any]]:
    """The operator of a layer, and its attributes."""
    if layer.type in _PLAIN:
        return _PLAIN[layer.type], {}
    if isinstance(layer, nn.Conv2d):
        # None of these pads by the size of its input.
        window = layer.window((1, 1), net.arrays)
        (top, bottom), (left, right) = window.padding
        return "Conv", {
            "strides": window.stride, "pads": [top, left, bottom, right], "group": layer.groups,
        }
    if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
        window = layer.window((1, 1), net.arrays)
        kind = "MaxPool" if isinstance(layer, nn.MaxPool2d) else "AveragePool"
        return kind, {"kernel_shape": window.kernel, "strides": window.stride}
    if isinstance(layer, nn.BatchNorm2d):
        return "BatchNormalization", {"epsilon": layer.eps}
    if isinstance(layer, nn.ReduceMean):
        return "ReduceMean", {"keepdims": 1}
    if layer.type == "elu":
        return "Elu", {"alpha": layer.alpha}
    if layer.type == "leaky_relu":
        return "LeakyRelu", {"alpha": layer.negative_slope}
    if layer.type == "hardsigmoid":
        return "HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}
    raise NotImplementedError(layer.label)
