"""Find the files of an installed package, and compare them with a recipe.

The package is not imported and none of its code is run; only its folder is looked up.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import sys
from pathlib import Path
from typing import NamedTuple

from ...errors import ArchiveError, ParameterError, shown
from ...files import open_regular
from .recipes import Installed, Recipe

__all__ = ["Found", "find_files", "is_installed"]


class Found(NamedTuple):
    """A file whose size and SHA-256 are those of the recipe."""

    place: Path
    content: bytes


def is_installed(recipe: Recipe) -> bool:
    """Whether all files of a recipe exist; their content is not checked."""
    return all(_place_of(file) is not None for file in recipe.files)


def find_files(recipe: Recipe) -> list[Found]:
    """The files of a recipe, in its order.

    Raises
    ------
    ParameterError
        If the package is not installed. The message says how to install it.
    ArchiveError
        If a file is not the one of the recipe.
    """
    return [_read(recipe, file) for file in recipe.files]


def _read(recipe: Recipe, file: Installed) -> Found:
    place = _place_of(file)
    if place is None:
        installed = _installed_version(recipe)
        found = f"version {installed} has no such file" if installed else "it is not installed"
        raise ParameterError(
            f"the weights of {recipe.name} are {file.path} of the package {recipe.package} "
            f"{recipe.version}, and {found}: {recipe.install}"
        )
    with open_regular(place) as opened:
        content = opened.read(file.size + 1)
    if len(content) != file.size or hashlib.sha256(content).hexdigest() != file.sha256:
        installed = _installed_version(recipe)
        found = f"version {installed} is installed" if installed else "it is of another version"
        raise ArchiveError(
            f"{shown(str(place))} is not the file of {recipe.package} {recipe.version} that "
            f"{recipe.name} was tested with ({found}): {recipe.install}"
        )
    return Found(place, content)


def _place_of(file: Installed) -> Path | None:
    """The path of a file; None if it does not exist."""
    top, *rest = file.path.split("/")
    # Only the standard finder is used, which looks for a folder: import hooks of other packages
    # might run code.
    spec = importlib.machinery.PathFinder.find_spec(top, sys.path)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        place = Path(folder, *rest)
        if place.is_file():
            return place
    return None


def _installed_version(recipe: Recipe) -> str | None:
    """The version in the package's metadata; None if the package is not installed."""
    # Imported inside the function, because only error messages need it and it is slow to import.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(recipe.package)
    except PackageNotFoundError:
        return None
