"""Networks that others have published, by name.

Their weights are in packages on PyPI, under free licences; fastdeconv has none of them. It has
recipes: which file of which package, how to read it, and how sound becomes the network's input.
"""

from __future__ import annotations

from ..network import Network
from .finding import find_files, is_installed
from .reading import read_network
from .recipes import Recipe, all_recipes, recipe

__all__ = ["Recipe", "is_installed", "list_public", "open_public"]


def list_public() -> list[Recipe]:
    """The recipes of all public networks, installed or not, sorted by name.

    Returns
    -------
    list of Recipe
        ``recipe.name`` is what `open_public` takes; ``recipe.install`` is the command that
        installs its weights; `is_installed` tells whether they are there.
    """
    return list(all_recipes().values())


def open_public(name: str) -> Network:
    """A public network from the files of an installed package.

    No code of the package runs. Its files are compared with the recipe's SHA-256 before they are
    read.

    Parameters
    ----------
    name : str
        Of one of `list_public`.

    Returns
    -------
    Network

    Raises
    ------
    ParameterError
        If there is no such network, or its package is not installed: says how to install it.
    ArchiveError
        If the installed file is another one than the recipe's.
    """
    wanted = recipe(name)
    return read_network(wanted, find_files(wanted))
