"""Make a network from a recipe and its files: one function for each reader."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArchiveError
from ...optional import optional_module
from ..network import Network
from .finding import Found
from .recipes import Recipe
from .renaming import named_by_type
from .tensorflow import read_checkpoint
from .weights import TENSORFLOW, TORCH, arrays_of

if TYPE_CHECKING:
    from ...audio.frontend import Frontend

__all__ = ["frontend_of", "read_network"]


def read_network(recipe: Recipe, files: list[Found]) -> Network:
    """The network of a recipe.

    Raises
    ------
    ParameterError
        If a package that is needed to read the files is not installed.
    ArchiveError
        If the files cannot be read.
    """
    return _READERS[recipe.reader](recipe, files)


def _tensorflow(recipe: Recipe, files: list[Found]) -> Network:
    found = read_checkpoint(*(file.content for file in files))
    return _network(recipe, arrays_of(recipe.layers, recipe.weights, found, TENSORFLOW))


def _torch(recipe: Recipe, files: list[Found]) -> Network:
    torch = optional_module("torch", f"{recipe.name}, a checkpoint of PyTorch,", "torch")
    try:
        state = torch.load(io.BytesIO(files[0].content), map_location="cpu", weights_only=True)
        found = {key: tensor.numpy() for key, tensor in state.items()}
    except Exception as error:
        raise ArchiveError(f"the checkpoint of {recipe.name}: {error}") from error
    return _network(recipe, arrays_of(recipe.layers, recipe.weights, found, TORCH))


def _onnx_arrays(recipe: Recipe, files: list[Found]) -> Network:
    """Use only the arrays of an ONNX file, because its graph cannot be imported."""
    # Imported inside the function, so that the other readers do not load the importers.
    from ..importers.reading import read_model

    model, _ = read_model(files[0].content)
    from onnx.numpy_helper import to_array

    found = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    return _network(recipe, arrays_of(recipe.layers, recipe.weights, found, TORCH))


def _keras(recipe: Recipe, files: list[Found]) -> Network:
    from ..importers.keras import from_keras

    return _imported(recipe, from_keras, files[0].place)


def _onnx(recipe: Recipe, files: list[Found]) -> Network:
    from ..importers.onnx import from_onnx

    return named_by_type(_imported(recipe, from_onnx, files[0].content), recipe.aliases)


def _imported(recipe: Recipe, importer: Callable[..., Network], source: Path | bytes) -> Network:
    """Import a file with an importer; the file itself gives the sizes of the input."""
    net = importer(
        source, frontend=frontend_of(recipe), classes=recipe.classes,
        name=recipe.name, **recipe.cut,
    )
    net.license, net.citation = recipe.license, recipe.citation
    return net


def _network(recipe: Recipe, arrays: dict[str, NDArray[Any]]) -> Network:
    return Network(
        recipe.layers, arrays, recipe.input_shape, frontend=frontend_of(recipe),
        classes=recipe.classes, output=recipe.output, name=recipe.name,
        license=recipe.license, citation=recipe.citation,
    )


def frontend_of(recipe: Recipe) -> Frontend:
    """The front end of a recipe.

    For kind "filters", the recipe has ``[first bin, values]`` for each band instead of the matrix,
    because most of the matrix is zeros.
    """
    # Imported inside the function, so that listing the networks does not load `audio`.
    from ...audio.frontend import Frontend

    record = dict(recipe.frontend)
    bands = record.pop("filters", None)
    if bands is None:
        return Frontend.from_record(record)
    filters = np.zeros((len(bands), 1 + record["n_fft"] // 2), np.float32)
    for row, (first, values) in zip(filters, bands):
        row[first : first + len(values)] = values
    return Frontend.from_record(record, filters)


_READERS: dict[str, Callable[[Recipe, list[Found]], Network]] = {
    "tensorflow": _tensorflow,
    "torch": _torch,
    "onnx-arrays": _onnx_arrays,
    "keras": _keras,
    "onnx": _onnx,
}
