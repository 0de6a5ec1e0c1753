"""Compare an imported network with the original model."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArchiveError, shown
from ..network import Network
from .building import Draft
from .reading import onnx_module
from .subgraphs import copied
from .views import View

__all__ = [
    "TOLERANCE", "Original", "Witness", "difference", "value_of", "values_of", "verify",
    "with_exact_stft",
]

#: Largest accepted difference, as a share of the largest value of a layer.
TOLERANCE = 1e-4
_REFERENCE = "the reference of ONNX"

Array = NDArray[Any]
#: Takes an input; returns the outputs of modules by name, one for each call. "" is the whole model.
Witness = Callable[[Array], Mapping[str, list[Array]]]


@dataclass(frozen=True)
class Original:
    """The model that a network was made from.

    Attributes
    ----------
    model : ModelProto
    name : str
        The value that is the network's input.
    shapes : mapping of str to tuple of int
        Shapes of the model's values.
    """

    model: Any
    name: str
    shapes: Mapping[str, tuple[int, ...]]
    start: View | None = None
    """How the input `name` is read from the network's."""


def verify(
    network: Network, drafts: Sequence[Draft], names: Sequence[str], original: Original
) -> tuple[str, Array, Mapping[str, Array]]:
    """Compare every layer with the value of the model that it stands for, on a random input.

    Returns
    -------
    str
        The result in one line.
    array
        The input, in the shape of the model's input.
    dict of str to array
        The activations of the layers by name.

    Raises
    ------
    ArchiveError
        If a layer differs. The message names the first one and the difference.
    """
    pairs = [(name, draft) for name, draft in zip(names, drafts) if draft.view is not None]
    values = [draft.value for _, draft in pairs]
    x, reference, teller = _reference(original, values)
    assert original.start is not None
    trace = network.forward(original.start.of_layer(x))
    largest, where = 0.0, ""
    activations = {}
    for name, draft in pairs:
        assert draft.view is not None
        if reference[draft.value].shape != draft.view.shape:
            raise ArchiveError(
                f"{teller} computes {shown(draft.value)} of shape {reference[draft.value].shape}, "
                f"wanted {draft.view.shape}"
            )
        wanted = draft.view.of_layer(reference[draft.value])
        activations[name] = trace[name]
        off = difference(activations[name], wanted)
        if off > TOLERANCE:
            raise ArchiveError(
                f"layer {shown(name)} ({draft.kind}, from node {shown(draft.node.name)}) differs "
                f"from what {teller} computes by {off:.1e} of its largest value, and no layer "
                f"before it does; the network is not imported{_advice(teller)}"
            )
        if off >= largest:
            largest, where = off, name
    receipt = (
        f"{len(pairs)} of {len(network.layers)} layers compared with {teller}: "
        f"equal to {largest:.0e} of their largest value (worst: {where})"
    )
    return receipt, x, activations


def _advice(teller: str) -> str:
    """Advice for the case that the comparison itself may be wrong."""
    if teller != _REFERENCE or importlib.util.find_spec("onnxruntime") is not None:
        return ""
    return (
        ". The reference of onnx is wrong for some operators: with onnxruntime installed the "
        "comparison is made with that"
    )


def difference(found: Array, wanted: Array) -> float:
    """The largest difference divided by the largest value; infinite if the shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    scale = max(float(np.abs(wanted).max()), 1e-30)
    off = float(np.abs(found.astype(np.float64) - wanted).max()) / scale
    return off if np.isfinite(off) else float("inf")


def _reference(
    original: Original, values: Iterable[str]
) -> tuple[Array, dict[str, Array], str]:
    """An input, the model's values for it, and the name of the library that computed them."""
    names = list(dict.fromkeys(values))
    model = _only(original, names)
    x = np.random.default_rng(0).normal(size=original.shapes[original.name]).astype(np.float32)
    for attempt in (x, np.abs(x) + np.float32(0.01)):
        found, teller = _run(model, original.name, attempt, names)
        if all(np.isfinite(array).all() for array in found):
            return attempt, dict(zip(names, found)), teller
    bad = next(n for n, array in zip(names, found) if not np.isfinite(array).all())
    raise ArchiveError(f"for a random input the value {shown(bad)} of the model is not finite")


def value_of(original: Original, name: str, x: Array) -> Array:
    """A value of the model for an input, which may have any size that the model accepts."""
    return values_of(original, [name], x)[0]


def values_of(original: Original, names: Sequence[str], x: Array) -> list[Array]:
    """Several values of the model for an input."""
    found, _ = _run(_only(original, names, x.shape), original.name, x, list(names))
    return found


def with_exact_stft(model: Any) -> Any:
    """A copy of a model whose STFTs are computed in float64, and rounded.

    In float32 ONNX Runtime's STFT is off by 1e-6 of the loudest bin for sizes that are no powers
    of two. The logarithm of a soft bin beside it can be off by 1 %.
    """
    onnx = onnx_module()
    float32, float64 = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
    made, nodes = copied(model), []
    for node in model.graph.node:
        if node.op_type != "STFT" or node.domain:
            nodes.append(node)
            continue
        exact = copied(node)
        for place in (0, 2):  # the samples and the window
            if place < len(node.input) and node.input[place]:
                exact.input[place] = f"{node.output[0]}#{place}"
                nodes.append(onnx.helper.make_node(
                    "Cast", [node.input[place]], [exact.input[place]], to=float64
                ))
        exact.output[0] = f"{node.output[0]}#exact"
        nodes += [exact, onnx.helper.make_node(
            "Cast", [exact.output[0]], [node.output[0]], to=float32
        )]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def _only(
    original: Original, names: Sequence[str], shape: tuple[int, ...] | None = None
) -> Any:
    """The model with other values as its outputs, and only the nodes that these need."""
    shapes = original.shapes if shape is None else {original.name: shape}
    onnx = onnx_module()
    graph = original.model.graph
    needed, nodes = set(names), []
    for node in reversed(graph.node):
        if needed.intersection(node.output) and original.name not in node.output:
            nodes.append(node)
            needed.update(node.input)
    float32 = onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(
        nodes[::-1], "compared",
        [onnx.helper.make_tensor_value_info(original.name, float32,
                                            shapes[original.name])],
        [onnx.helper.make_tensor_value_info(name, float32, shapes.get(name))
         for name in names],
        [tensor for tensor in graph.initializer
         if tensor.name in needed and tensor.name != original.name],
    )
    return onnx.helper.make_model(
        made, opset_imports=original.model.opset_import, ir_version=original.model.ir_version
    )


def _run(model: Any, name: str, x: Array, names: list[str]) -> tuple[list[Array], str]:
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError:
        runtime = None
    if runtime is not None:
        try:
            options = runtime.SessionOptions()
            level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
            options.log_severity_level = 4
            options.intra_op_num_threads = min(4, os.cpu_count() or 1)
            session = runtime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            return session.run(names, {name: x}), "ONNX Runtime"
        except Exception:  # a version or an operator that this ONNX Runtime does not know
            pass
    try:
        with np.errstate(all="ignore"):
            evaluator = onnx_module("onnx.reference").ReferenceEvaluator(model)
            return evaluator.run(names, {name: x}), _REFERENCE
    except MemoryError:
        raise
    except Exception as error:
        raise ArchiveError(
            f"the model cannot be run to compare with ({shown(str(error))}){_advice(_REFERENCE)}"
        ) from None
