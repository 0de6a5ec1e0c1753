"""ONNX Runtime, forward only."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ..measure import Contender
from ..workload import Work


def forward(work: Work, num_threads: int | None = None) -> Iterator[Contender]:
    """With switches; and activations alone, which lets it keep its blocked layout."""
    threads = num_threads or len(os.sched_getaffinity(0))
    for switches in (True, False):
        run = session(_model(work, switches), threads)
        feed = {"x": work.x[None]}
        name = "ONNX Runtime" if switches else "ONNX Runtime, no switches"
        yield Contender(
            name, lambda s=run, f=feed: s.run(None, f),
            "Conv, Relu, MaxPool, all graph optimisations"
            + (", indices" if switches else ", activations only"),
            read=lambda out, w=work, s=switches: _read(out, w, s),
        )


def _model(work: Work, switches: bool) -> bytes:
    nodes, initialisers, outputs, below = [], [], [], "x"
    for i, stage in enumerate(work.stages):
        weight, bias = f"weight{i}", f"bias{i}"
        initialisers += [
            numpy_helper.from_array(stage.weight, weight), numpy_helper.from_array(stage.bias, bias)
        ]
        (top, bottom), (left, right) = stage.conv.padding
        outs = [f"pool{i}", f"places{i}"][: 1 + switches]
        nodes += [
            helper.make_node("Conv", [below, weight, bias], [f"conv{i}"],
                             pads=[top, left, bottom, right]),
            helper.make_node("Relu", [f"conv{i}"], [f"relu{i}"]),
            helper.make_node("MaxPool", [f"relu{i}"], outs, kernel_shape=stage.pool.kernel,
                             strides=stage.pool.stride),
        ]
        types = (TensorProto.FLOAT, TensorProto.INT64)
        shape = [1, len(stage.weight), "height", "width"]
        outputs += [helper.make_tensor_value_info(n, t, shape) for n, t in zip(outs, types)]
        below = f"pool{i}"
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *work.x.shape])
    graph = helper.make_graph(nodes, "stages", [source], outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def activations(work: Work, threads: int, *, spinning: bool) -> onnxruntime.InferenceSession:
    """The forward pass without switches."""
    return session(_model(work, switches=False), threads, spinning=spinning)


def session(
    model: bytes, threads: int, *, spinning: bool = False
) -> onnxruntime.InferenceSession:
    """A model, ready to run; `spinning`: whether its threads go on spinning after a run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    if not spinning:
        # Its threads would go on spinning on the processors of whoever comes next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _read(
    out: list[np.ndarray], work: Work, switches: bool
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    if not switches:
        return [(value, None) for value in out]
    # Its indices count through all channels; ours within a plane.
    return [
        (value, where % (stage.above[0] * stage.above[1]))
        for value, where, stage in zip(out[::2], out[1::2], work.stages)
    ]
