"""Networks that others have published, by name.

Their weights are in packages on PyPI, under free licences. fastdeconv contains only recipes: which
file of which package to read, how to read it, and how sound becomes the network's input.
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
        ``recipe.name`` is the name for `open_public`; ``recipe.install`` is the command that
        installs its weights; `is_installed` tells whether they are installed.
    """
    return list(all_recipes().values())


def open_public(name: str) -> Network:
    """Open a public network from the files of an installed package.

    No code of the package is run. Before its files are read, their SHA-256 is compared with the
    recipe's.

    Parameters
    ----------
    name : str
        A name from `list_public`.

    Returns
    -------
    Network

    Raises
    ------
    ParameterError
        If there is no such network, or its package is not installed. The message says how to
        install it.
    ArchiveError
        If an installed file is not the one of the recipe.
    """
    wanted = recipe(name)
    return read_network(wanted, find_files(wanted))
