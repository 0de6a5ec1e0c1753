"""Check the arrays of ONNX files, load those in other files, and convert all to float32."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ArchiveError, shown
from ...files import open_regular
from .subgraphs import all_graphs

__all__ = ["MAX_BYTES", "check_tensors", "to_float32"]

#: Most bytes of a file and of an array; protobuf allows no more.
MAX_BYTES = 1 << 31

_FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16 = 1, 10, 11, 16
_OTHER_FLOATS = (_FLOAT16, _DOUBLE, _BFLOAT16)
# Types of which two values share a byte.
_HALF_BYTES = (21, 22, 23)


def check_tensors(onnx: Any, graph: Any, folder: str | None) -> None:
    """Check every array, and load those that are in other files of `folder`.

    Raises
    ------
    ArchiveError
        If the bytes of an array do not fit its shape, or it lies outside the folder.
    """
    for tensor in _tensors(graph):
        _check_tensor(onnx, tensor, folder)


def _tensors(graph: Any) -> Iterator[Any]:
    """All arrays: initializers, and those in attributes of nodes."""
    for one in all_graphs(graph):
        yield from one.initializer
        for node in one.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _check_tensor(onnx: Any, tensor: Any, folder: str | None) -> None:
    """Check that the bytes of a tensor fit its shape; load them if they are in another file."""
    if any(n < 0 for n in tensor.dims) or len(tensor.dims) > 16:
        raise ArchiveError(f"array {shown(tensor.name)}: found shape {shown(list(tensor.dims))}")
    count = math.prod(tensor.dims)
    try:
        each = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError, ValueError):
        raise ArchiveError(
            f"array {shown(tensor.name)}: found data type {tensor.data_type}, wanted numbers"
        ) from None
    if count * each > MAX_BYTES:
        raise ArchiveError(
            f"array {shown(tensor.name)}: found {count} elements, over the limit of "
            f"{MAX_BYTES} bytes"
        )
    if tensor.data_location == tensor.EXTERNAL:
        _fetch(tensor, count * each, folder)
    elif tensor.HasField("raw_data") and each >= 1 and tensor.data_type not in _HALF_BYTES:
        if len(tensor.raw_data) != count * each:
            raise ArchiveError(
                f"array {shown(tensor.name)}: found {len(tensor.raw_data)} bytes, wanted "
                f"{count * each} for shape {tuple(tensor.dims)}"
            )


def _fetch(tensor: Any, wanted: int, folder: str | None) -> None:
    """Read the bytes of a tensor from a file in the folder of the model."""
    label = f"array {shown(tensor.name)}"
    given = {entry.key: entry.value for entry in tensor.external_data}
    location = given.get("location", "")
    if folder is None:
        raise ArchiveError(
            f"{label}: its values are in the file {shown(location)}; give the path of the model"
        )
    inside = os.path.realpath(folder)
    place = os.path.realpath(os.path.join(inside, location)) if "\0" not in location else ""
    unsafe = os.path.isabs(location) or ".." in location.replace("\\", "/").split("/")
    # Compared as paths: os.path.commonpath raises an error for two drives of Windows.
    if not location or unsafe or not place or not Path(place).is_relative_to(inside):
        raise ArchiveError(
            f"{label}: its values are in {shown(location)}, wanted a file in the folder of the "
            "model"
        )
    try:
        offset, length = int(given.get("offset", "0")), int(given.get("length", str(wanted)))
    except ValueError:
        raise ArchiveError(f"{label}: found an offset or length that is no number") from None
    if length != wanted or offset < 0:
        raise ArchiveError(
            f"{label}: found {length} bytes at {offset} of {shown(location)}, wanted {wanted}"
        )
    try:
        with open_regular(place) as file:
            size = os.fstat(file.fileno()).st_size
            if offset + length > size:
                raise ArchiveError(
                    f"{label}: found {size} bytes in {shown(location)}, wanted {offset + length}"
                )
            file.seek(offset)
            tensor.raw_data = file.read(length)
    except OSError as error:
        raise ArchiveError(
            f"{label}: {shown(location)} cannot be read ({error.strerror})"
        ) from None
    del tensor.external_data[:]
    tensor.data_location = tensor.DEFAULT


def to_float32(onnx: Any, model: Any) -> None:
    """Change half and double precision to float32 everywhere: values, constants and casts."""
    graph = model.graph
    for tensor in _tensors(graph):
        if tensor.data_type in _OTHER_FLOATS:
            name = tensor.name
            try:
                with np.errstate(over="ignore"):
                    array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            except (ValueError, TypeError) as error:
                raise ArchiveError(f"array {shown(name)}: {error}") from None
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
    for one in all_graphs(graph):
        for value in [*one.input, *one.output]:
            if value.type.tensor_type.elem_type in _OTHER_FLOATS:
                value.type.tensor_type.elem_type = _FLOAT
        for node in one.node:
            for attribute in node.attribute:
                is_type = attribute.name in ("to", "dtype", "output_dtype")
                if is_type and attribute.i in _OTHER_FLOATS:
                    attribute.i = _FLOAT
        del one.value_info[:]
