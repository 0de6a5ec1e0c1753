"""Read and check an ONNX model, from a path, from bytes or from memory.

Nothing is run or unpickled. Weights in other files are read only from the folder of the model,
and sizes are compared with the real bytes before memory is allocated. A checked model has one
float type, printable names, and nodes in an order in which they can be computed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...errors import ArchiveError, ParameterError, shown
from ...files import read_regular
from ...optional import optional_module
from .ordering import sort, take_apart
from .subgraphs import all_graphs
from .tensors import MAX_BYTES, check_tensors, to_float32

__all__ = ["MAX_NODES", "named_in_errors", "onnx_module", "read_model"]

#: Most nodes, after functions are inlined.
MAX_NODES = 50_000

_OWN_DOMAINS = ("", "ai.onnx")


def onnx_module(name: str = "onnx") -> Any:
    """Import a module of the package onnx.

    Raises
    ------
    ParameterError
        If it is not installed. The message says how to install it.
    """
    return optional_module(name, "an ONNX model", "onnx")


@contextmanager
def named_in_errors(label: str) -> Iterator[None]:
    """Put the file's name in front of every error; a MemoryError becomes an ArchiveError."""
    try:
        yield
    except ArchiveError as error:
        raise ArchiveError(f"{label}: {error}") from error.__cause__
    except ParameterError as error:
        raise ParameterError(f"{label}: {error}") from error.__cause__
    except MemoryError:
        raise ArchiveError(f"{label}: too large for the memory there is") from None


def read_model(source: Any) -> tuple[Any, str]:
    """Read and check a model.

    Parameters
    ----------
    source : str, path, bytes or onnx.ModelProto
        A ModelProto is copied.

    Returns
    -------
    ModelProto
    str
        The name of the model in messages.

    Raises
    ------
    ArchiveError
        If it is not ONNX, is damaged or unsafe.
    ParameterError
        If `source` is none of these.
    FileNotFoundError
        If there is no such file.
    """
    onnx = onnx_module()
    folder: str | None = None
    if isinstance(source, onnx.ModelProto):
        label, model = "<model>", onnx.ModelProto()
        model.CopyFrom(source)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        label, model = "<bytes>", None
        data = bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        label, model = shown(path), None
        data = _read_file(path, label)
        folder = os.path.dirname(os.path.abspath(path))
    else:
        raise ParameterError(
            f"an ONNX model must be a path, bytes or a ModelProto, found {shown(source)}"
        )
    with named_in_errors(label):
        if model is None:
            model = _parse(onnx, data)
        _check_model(model)
        model = _without_functions(onnx, model)
        _check_names(model.graph)
        check_tensors(onnx, model.graph, folder)
        to_float32(onnx, model)
        take_apart(onnx, model)
        sort(model.graph)
    return model, label


def _read_file(path: str | bytes, label: str) -> bytes:
    try:
        return read_regular(os.fsdecode(path), MAX_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ArchiveError(f"{label}: cannot be read ({error.strerror})") from None


def _parse(onnx: Any, data: bytes) -> Any:
    try:
        return onnx.load_model_from_string(data)
    except MemoryError:
        raise
    except Exception as error:  # from google.protobuf, whose classes differ between versions
        raise ArchiveError(f"not an ONNX model ({shown(str(error))})") from None


def _check_model(model: Any) -> None:
    opsets = [entry.version for entry in model.opset_import if entry.domain in _OWN_DOMAINS]
    if not model.graph.node or not opsets:
        found = "no nodes" if opsets else "no version of ONNX's operators"
        raise ArchiveError(f"not an ONNX model: found {found}")
    if not model.graph.output:
        raise ArchiveError("the model has no output")
    count = sum(len(graph.node) for graph in all_graphs(model.graph))
    if count > MAX_NODES:
        raise ArchiveError(f"found {count} nodes, over the limit of {MAX_NODES}")


def _without_functions(onnx: Any, model: Any) -> Any:
    """The model with its own functions inlined, if that does not give too many nodes."""
    if not model.functions:
        return model
    bodies = {(f.domain, f.name): [(n.domain, n.op_type) for n in f.node] for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(key: tuple[str, str], above: tuple[tuple[str, str], ...]) -> int:
        if key in above:
            raise ArchiveError(f"the function {shown(key[1])} calls itself")
        if len(above) > 50:
            raise ArchiveError("functions call each other more than 50 deep")
        if key not in bodies:
            return 1
        if key not in sizes:
            sizes[key] = sum(size(called, (*above, key)) for called in bodies[key])
        return sizes[key]

    total = sum(size((node.domain, node.op_type), ()) for node in model.graph.node)
    if total > MAX_NODES:
        raise ArchiveError(f"found {total} nodes in functions, over the limit of {MAX_NODES}")
    try:
        return onnx_module("onnx.inliner").inline_local_functions(model)
    except Exception as error:  # raised by C++ under several names
        raise ArchiveError(f"its functions cannot be inlined ({shown(str(error))})") from None


def _check_names(whole: Any) -> None:
    names = []
    for graph in all_graphs(whole):
        names += [value.name for value in [*graph.input, *graph.output, *graph.initializer]]
        for node in graph.node:
            names += [node.name, node.op_type, node.domain, *node.input, *node.output]
            names += [attribute.name for attribute in node.attribute]
    for name in names:
        # protobuf gives bytes where a name is not UTF-8.
        if not isinstance(name, str) or not name.isprintable():
            raise ArchiveError(f"found the name {shown(name)}, wanted printable characters")
