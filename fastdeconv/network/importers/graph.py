"""A network as its file describes it: operators, constants and shapes in plain Python.

This module does not use ONNX's protobuf classes. Shapes are those of the file, with the batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MALFORMED", "Graph", "Node", "as_floats"]

#: Errors that come up when the inputs or attributes of a node do not fit its operator.
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass
class Node:
    """One application of an operator.

    Attributes
    ----------
    op : str
        ONNX's name of the operator, or the name of an operator that `passes` introduce.
    inputs, outputs : list of str
        Names of values; "" for an optional value that is left out.
    attributes : dict
        Numbers, strings, lists of them, and arrays.
    name : str
        The node's name in the file; may be empty.
    scopes : tuple of str
        The modules that it was exported from, outermost first, then its own name; empty
        if the file does not say.
    domain : str
        "" for the operators of ONNX itself.
    """

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    scopes: tuple[str, ...] = ()
    domain: str = ""

    def input(self, place: int) -> str:
        """The name of an input, "" if it is left out."""
        return self.inputs[place] if place < len(self.inputs) else ""


@dataclass
class Graph:
    """Nodes in an order in which they can be computed, and what is known about their values.

    Attributes
    ----------
    nodes : list of Node
    constants : dict of str to array
        Values that do not depend on the input.
    shapes : dict of str to tuple of int
        Shapes of all values for which they are known.
    origins : dict of str to str
        For each constant, the name in the file of the constant from which it was computed.
    input : str
        The value that is the network's input.
    outputs : tuple of str
    opset : int
        The version of ONNX's operators.
    label : str
        The name of the file in messages.
    sized : bool
        Whether the file has other nodes for another size of the input.
    """

    nodes: list[Node]
    constants: dict[str, NDArray[Any]]
    shapes: dict[str, tuple[int, ...]]
    origins: dict[str, str]
    input: str
    outputs: tuple[str, ...]
    opset: int
    label: str
    sized: bool = False
    _producers: dict[str, Node] | None = field(default=None, repr=False)

    def producer(self, value: str) -> Node | None:
        """The node whose output a value is; None for constants and the input."""
        if self._producers is None:
            self._producers = {name: node for node in self.nodes for name in node.outputs if name}
        return self._producers.get(value)

    def made_by(self, value: str, *ops: str) -> Node | None:
        """The node whose output a value is, if its operator is one of `ops`; else None."""
        node = self.producer(value)
        return node if node is not None and node.op in ops else None

    def scalar(self, value: str) -> float | None:
        """The value of a constant with a single number; None for anything else."""
        array = self.constants.get(value)
        if array is None or array.size != 1 or array.dtype.kind not in "fiub":
            return None
        return float(array.reshape(-1)[0])

    def add_constant(self, near: str, array: NDArray[Any]) -> str:
        """Add an array under a new name that begins with `near`, and return the name."""
        number = 0
        while f"{near}#{number}" in self.constants:
            number += 1
        name = f"{near}#{number}"
        self.constants[name] = array
        self.shapes[name] = array.shape
        return name

    def drop_dead(self, kept: Iterable[str] | None = None) -> None:
        """Drop the nodes that no output (or no value in `kept`) depends on."""
        needed = set(self.outputs if kept is None else kept)
        alive = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                alive.append(node)
                needed.update(name for name in node.inputs if name)
        self.nodes = alive[::-1]
        self._producers = None


def as_floats(array: NDArray[Any]) -> NDArray[np.float32]:
    """A constant as float32."""
    return np.asarray(array, np.float32)
