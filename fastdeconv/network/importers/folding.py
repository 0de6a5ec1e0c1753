"""From an ONNX model to a `Graph` in which shapes are known and constants are computed.

Once the shape of the input is fixed, everything that a file computes about shapes is constant.
Nodes are visited once, in order. A node whose inputs are all constant is computed; `Shape` of a
known shape is a constant; for all other nodes the shapes of the outputs are inferred. Nothing is
computed before its size is known and within the limits.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArchiveError, FastdeconvError, shown
from .graph import MALFORMED, Graph, Node
from .ordering import said
from .reading import onnx_module
from .subgraphs import branch_nodes, copied, inner_graphs, taken_by

__all__ = ["MAX_ELEMENTS", "fold", "opset_of"]

#: Most elements of one value; 1 GB of float32.
MAX_ELEMENTS = 1 << 28
#: Most elements of all computed constants together.
MAX_COMPUTED = 1 << 28
# Constants up to this size are passed to shape inference, because shapes may depend on them.
_TOLD = 4096
# Operators whose output is not larger than their inputs, although ONNX does not infer its size.
_NO_LARGER = ("NonZero", "Compress", "Unique")
# Operators whose output has the shape of the input, although ONNX does not infer it.
_SAME_SHAPE = ("GroupNormalization", "MeanVarianceNormalization")
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
           "Multinomial", "Bernoulli")
_COPIES = ("Identity", "Dropout")
_FLOAT = 1
_LONGEST_SCOPES = 10_000
_SCOPES = "pkg.torch.onnx.name_scopes"


def opset_of(model: Any) -> int:
    """The version of ONNX's own operators."""
    return max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def fold(
    model: Any, inputs: Mapping[str, tuple[int, ...]], start: str, label: str
) -> Graph:
    """The graph that follows the given inputs.

    Parameters
    ----------
    model : ModelProto
        As `read_model` returns it.
    inputs : mapping of str to tuple of int
        Names and shapes of the values that are given. Nodes that compute them are left out.
    start : str
        The one of them that becomes the input of the network.
    label : str
        The name of the file in messages.

    Returns
    -------
    Graph

    Raises
    ------
    ArchiveError
        If a node does not fit its operator, or a size is over a limit.
    """
    return _Folding(model, inputs, start, label).run()


class _Folding:
    def __init__(
        self, model: Any, inputs: Mapping[str, tuple[int, ...]], start: str, label: str
    ) -> None:
        self.onnx = onnx_module()
        self.reference = onnx_module("onnx.reference")
        self.model = model
        self.opset = opset_of(model)
        self.types: dict[str, int] = {}
        self.given = dict(inputs)
        self.computed = 0
        self.renamed: dict[str, str] = {}
        self.sized: set[str] = set()
        """Constants that depend on the sizes of values."""
        self.made = {value.name for value in [*model.graph.input, *model.graph.initializer]}
        self.made.update(name for node in model.graph.node for name in node.output)
        self.sequences: dict[str, tuple[str, int, list[int]]] = {}
        self.graph = Graph(
            [], {}, {}, {}, start, tuple(v.name for v in model.graph.output), self.opset, label
        )

    def run(self) -> Graph:
        graph = self.graph
        # With the types of all inputs, those of values before the given ones are known, too.
        declared = {v.name: v.type.tensor_type.elem_type for v in self.model.graph.input}
        self.types.update({name: kind or _FLOAT for name, kind in declared.items()})
        for name, shape in self.given.items():
            _check_size(f"the input {shown(name)}", shape)
            graph.shapes[name] = shape
            self.types.setdefault(name, _FLOAT)
        for tensor in self.model.graph.initializer:
            if tensor.name not in self.given:
                self.keep(tensor.name, self.array(tensor), tensor.name)
        self.visit_all()
        graph.outputs = tuple(self.renamed.get(name, name) for name in graph.outputs)
        return graph

    def visit_all(self) -> None:
        """Visit every node, and write some of them in a simpler way in the model itself.

        An If with a constant condition is replaced by its branch, and a CastLike by a Cast, which
        does not depend on a value that may lie before the given ones.
        """
        nodes = self.model.graph.node
        waiting, kept, changed = list(nodes)[::-1], [], False
        while waiting:
            node = waiting.pop()
            if node.op_type == "If" and node.domain == "" and node.input:
                condition = self.renamed.get(node.input[0], node.input[0])
                array = self.graph.constants.get(condition)
                if array is not None and array.size == 1:
                    inside = self.branch(node, bool(array.reshape(-1)[0]))
                    self.graph.sized |= condition in self.sized
                    waiting += inside[::-1]
                    changed = True
                    continue
            if node.op_type == "CastLike" and node.domain == "" and len(node.input) == 2:
                kind = self.types.get(self.renamed.get(node.input[1], node.input[1]))
                if kind is not None:
                    node, changed = self.cast(node, kind), True
            kept.append(node)
            self.made.update(node.output)
            if not self.given.keys() & set(node.output):
                self.visit(node)
        if changed:
            kept = [copied(node) for node in kept]
            del nodes[:]
            nodes.extend(kept)

    def cast(self, node: Any, kind: int) -> Any:
        """The Cast to a type that a CastLike is."""
        made = copied(node)
        made.op_type = "Cast"
        del made.input[1:]
        made.attribute.append(self.onnx.helper.make_attribute("to", kind))
        return made

    def branch(self, node: Any, condition: bool) -> list[Any]:
        """The nodes of a branch of an If; its initializers are added to the graph's."""
        nodes, tensors = branch_nodes(self.onnx, node, condition, self.made)
        self.made.update(tensor.name for tensor in tensors)
        self.made.update(name for inner in nodes for name in inner.output)
        for tensor in tensors:
            self.model.graph.initializer.append(tensor)
            self.keep(tensor.name, self.array(tensor), tensor.name)
        return nodes

    def array(self, tensor: Any) -> NDArray[Any]:
        try:
            array: NDArray[Any] = self.onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise ArchiveError(f"array {shown(tensor.name)}: {shown(str(error))}") from None
        return array

    def keep(self, name: str, array: NDArray[Any], origin: str) -> None:
        self.graph.constants[name] = array
        self.graph.shapes[name] = array.shape
        self.graph.origins[name] = origin
        if array.dtype.kind not in "USO":
            self.types[name] = int(self.onnx.helper.np_dtype_to_tensor_dtype(array.dtype))

    def visit(self, proto: Any) -> None:
        """Fold a node, or keep it; one that is not what its operator says is refused."""
        try:
            self.visited(proto)
        except FastdeconvError:
            raise
        except MALFORMED as error:
            why = shown(str(error) or type(error).__name__)
            raise ArchiveError(
                f"{said(proto)}: its inputs or attributes are not those of {proto.op_type} ({why})"
            ) from None

    def visited(self, proto: Any) -> None:
        graph = self.graph
        inputs = [self.renamed.get(name, name) for name in taken_by(proto)]
        op, outputs = proto.op_type, list(proto.output)
        if op == "Constant":
            if outputs:
                self.constant(proto)
            return
        first = inputs[0] if inputs else ""
        if first and first not in graph.constants and self.is_copy(proto, first):
            self.renamed[outputs[0]] = first
            return
        if op in ("Shape", "Size") and first in graph.shapes:
            self.keep(outputs[0], _shape_value(proto, graph.shapes[first]), first)
            self.sized.add(outputs[0])
            return
        if op in ("SplitToSequence", "SequenceAt") and self.part(proto, inputs):
            return
        shapes = self.infer(proto, inputs)
        for name, shape in shapes.items():
            _check_size(f"{said(proto)}: its output {shown(name)}", shape)
        used = [name for name in inputs if name]
        if all(name in graph.constants for name in used) and self.compute(proto, inputs, shapes):
            return
        graph.shapes.update(shapes)
        graph.nodes.append(
            Node(op, inputs, outputs, self.attributes(proto), proto.name, _scopes(proto),
                 proto.domain)
        )

    def part(self, proto: Any, inputs: list[str]) -> bool:
        """Write SplitToSequence and SequenceAt, as PyTorch exports `chunk`, as slices."""
        graph, out = self.graph, proto.output[0]
        if proto.op_type == "SplitToSequence":
            shape, given = graph.shapes.get(inputs[0]), self.attributes(proto)
            axis = given.get("axis", 0)
            sizes = graph.constants.get(inputs[1]) if len(inputs) > 1 else None
            if shape is None or sizes is None or not -len(shape) <= axis < len(shape):
                return False
            n, axis = shape[axis], axis % len(shape)
            if sizes.ndim == 0:
                if not 1 <= int(sizes) or n // int(sizes) > _TOLD:
                    return False
                ends = [*range(int(sizes), n, int(sizes)), n]
            else:
                ends = [int(end) for end in np.cumsum(sizes)]
            self.sequences[out] = inputs[0], axis, [0, *ends]
            return True
        place = graph.scalar(inputs[1])
        if inputs[0] not in self.sequences or place is None:
            return False
        value, axis, bounds = self.sequences[inputs[0]]
        count = len(bounds) - 1
        if not -count <= place < count:
            raise ArchiveError(f"{said(proto)}: there is no part {place:g} of {count}")
        start, stop = bounds[int(place) % count], bounds[int(place) % count + 1]
        shape = graph.shapes[value]
        graph.shapes[out] = (*shape[:axis], stop - start, *shape[axis + 1 :])
        self.types[out] = self.types[value]
        given = {"starts": [start], "ends": [stop], "axes": [axis]}
        graph.nodes.append(Node("Slice", [value], [out], given, proto.name, _scopes(proto)))
        return True

    def is_copy(self, proto: Any, first: str) -> bool:
        """Whether a node returns its first input unchanged."""
        if proto.op_type == "Cast":
            to = [a.i for a in proto.attribute if a.name == "to"]
            return to == [self.types.get(first)]
        if proto.op_type == "Dropout" and len(proto.input) > 2 and proto.input[2]:
            training = self.graph.scalar(self.renamed.get(proto.input[2], proto.input[2]))
            return training == 0
        return proto.op_type in _COPIES

    def constant(self, proto: Any) -> None:
        for attribute in proto.attribute:
            value = self.onnx.helper.get_attribute_value(attribute)
            if attribute.name == "value":
                value = self.array(attribute.t)
            elif attribute.name in ("value_float", "value_floats"):
                value = np.asarray(value, np.float32)
            elif attribute.name in ("value_int", "value_ints"):
                value = np.asarray(value, np.int64)
            else:
                continue
            self.keep(proto.output[0], value, attribute.t.name or proto.output[0])

    def attributes(self, proto: Any) -> dict[str, Any]:
        values = {}
        for attribute in proto.attribute:
            if attribute.type in (5, 10):  # graphs, of operators that cannot become layers
                continue
            value = self.onnx.helper.get_attribute_value(attribute)
            if attribute.type == 4:
                value = self.array(attribute.t)
            values[attribute.name] = value.decode("utf-8", "replace") if isinstance(
                value, bytes) else list(value) if attribute.type in (6, 7) else value
        return values

    def infer(self, proto: Any, inputs: list[str]) -> dict[str, tuple[int, ...]]:
        """Shapes of those outputs for which they can be inferred."""
        onnx, graph = self.onnx, self.graph
        try:
            schema = onnx.defs.get_schema(proto.op_type, self.opset, proto.domain)
        except onnx.defs.SchemaError:
            return {}
        if any(inner_graphs(proto)):
            return {}
        types, data = {}, {}
        for name, known in zip(proto.input, inputs):
            if not name or known not in self.types:
                continue
            shape = graph.shapes.get(known)
            types[name] = onnx.helper.make_tensor_type_proto(self.types[known], shape)
            array = graph.constants.get(known)
            if array is not None and array.size <= _TOLD and array.dtype.kind in "fiub":
                data[name] = onnx.numpy_helper.from_array(array, name)
        if any(name and name not in types for name in proto.input):
            return {}
        try:
            found = {} if schema.deprecated else onnx.shape_inference.infer_node_outputs(
                schema, proto, types, data, opset_imports=list(self.model.opset_import),
                ir_version=self.model.ir_version,
            )
        except Exception as error:  # InferenceError, and others from C++
            text = str(error).replace("[ShapeInferenceError]", "").strip()
            raise ArchiveError(f"{said(proto)}: {shown(text)}") from None
        shapes = {}
        if proto.op_type in _SAME_SHAPE and inputs[0] in graph.shapes:
            shapes[proto.output[0]] = graph.shapes[inputs[0]]
            self.types[proto.output[0]] = self.types[inputs[0]]
        for name, kind in found.items():
            tensor = kind.tensor_type
            if not name or not tensor.elem_type:
                continue
            self.types[name] = tensor.elem_type
            sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
            if tensor.HasField("shape") and -1 not in sizes:
                shapes[name] = tuple(sizes)
        return shapes

    def compute(
        self, proto: Any, inputs: list[str], shapes: Mapping[str, tuple[int, ...]]
    ) -> bool:
        """Compute a node with constant inputs; returns whether that was possible."""
        if proto.op_type in _RANDOM or any(a.type in (5, 10) for a in proto.attribute):
            return False
        bounded = proto.op_type in _NO_LARGER or all(
            name in shapes for name in proto.output if name
        )
        if not bounded:
            return False
        onnx, constants = self.onnx, self.graph.constants
        self.computed += sum(math.prod(shape) for shape in shapes.values())
        if self.computed > MAX_COMPUTED:
            raise ArchiveError(
                f"{said(proto)}: its constants would have over {MAX_COMPUTED} elements"
            )
        names = [name for name in proto.output if name]
        used = dict(zip(proto.input, inputs))
        used.pop("", None)
        anything = onnx.TypeProto()
        graph = onnx.helper.make_graph(
            [proto], "constant",
            [onnx.helper.make_value_info(name, anything) for name in used],
            [onnx.helper.make_value_info(name, anything) for name in names],
        )
        model = onnx.helper.make_model(graph, opset_imports=self.model.opset_import)
        try:
            with np.errstate(all="ignore"):
                found = self.reference.ReferenceEvaluator(model).run(
                    None, {name: constants[known] for name, known in used.items()}
                )
        except Exception:  # an operator that the reference lacks: the node is kept
            return False
        origin = next((self.graph.origins.get(known, known) for known in used.values()), "")
        if self.sized.intersection(used.values()):
            self.sized.update(names)
        for name, array in zip(names, found):
            if not isinstance(array, (np.ndarray, np.generic)):
                return False
            self.keep(name, np.asarray(array), origin or name)
        return True


def _shape_value(proto: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
    if proto.op_type == "Size":
        return np.asarray(math.prod(shape), np.int64)
    given = {attribute.name: attribute.i for attribute in proto.attribute}
    return np.asarray(shape[given.get("start", 0) : given.get("end", len(shape))], np.int64)


def _check_size(what: str, shape: tuple[int, ...]) -> None:
    if math.prod(shape) > MAX_ELEMENTS:
        raise ArchiveError(
            f"{what} would have the shape {shown(shape)}, over the limit of {MAX_ELEMENTS} elements"
        )


def _scopes(proto: Any) -> tuple[str, ...]:
    """The modules of a node, which PyTorch's newer exporter writes down."""
    for entry in proto.metadata_props:
        text = isinstance(entry.value, str) and len(entry.value) < _LONGEST_SCOPES
        if entry.key == _SCOPES and text:
            try:
                found = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                return ()
            if isinstance(found, list) and all(
                isinstance(name, str) and name.isprintable() for name in found
            ):
                return tuple(found)
    return ()
