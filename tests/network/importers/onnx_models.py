"""Small ONNX models, and how an import is compared with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def node(op: str, inputs: Sequence[str], outputs: Sequence[str] | str, **attributes: Any) -> Any:
    name = attributes.pop("name", "")
    domain = attributes.pop("domain", "")
    outputs = [outputs] if isinstance(outputs, str) else list(outputs)
    return helper.make_node(op, list(inputs), outputs, name, domain=domain, **attributes)


def model(
    nodes: Sequence[Any], constants: dict[str, Any], shape: Sequence[int | str] | None,
    outputs: Sequence[str] = ("y",), opset: int = 20, inputs: Sequence[str] = ("x",),
    kind: int = TensorProto.FLOAT,
) -> Any:
    graph = helper.make_graph(
        list(nodes), "test",
        [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets)
    made.ir_version = 8
    return made


def floats(seed: int, *shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def evaluated(made: Any, x: np.ndarray) -> list[np.ndarray]:
    """The outputs by the reference of ONNX."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(made).run(None, {made.graph.input[0].name: x})


assert onnx.__version__
