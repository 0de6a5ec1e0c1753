"""The bundled networks: one archive ``<name>.npz`` each, with its card ``<name>.md``."""

from __future__ import annotations

from importlib import resources

from ...errors import ParameterError
from ..layers import shown
from ..network import Network

__all__ = ["list_pretrained", "pretrained"]

_SUFFIX = ".npz"


def list_pretrained() -> list[str]:
    """Names of the bundled networks.

    Returns
    -------
    list of str
        Sorted; each is one that `pretrained` takes.
    """
    entries = resources.files(__name__).iterdir()
    return sorted(e.name[: -len(_SUFFIX)] for e in entries if e.name.endswith(_SUFFIX))


def pretrained(name: str) -> Network:
    """A bundled network.

    Parameters
    ----------
    name : str
        One of `list_pretrained`.

    Returns
    -------
    Network

    Raises
    ------
    ParameterError
        If there is no such network; lists those there are.
    """
    names = list_pretrained()
    # Looked up in the list, so that the name is never a path.
    if name not in names:
        raise ParameterError(
            f"no bundled network {shown(name)}; there are {', '.join(names) or 'none'}"
        )
    with resources.files(__name__).joinpath(name + _SUFFIX).open("rb") as file:
        return Network.load(file)
