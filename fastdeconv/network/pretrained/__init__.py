"""The bundled networks: for each an archive ``<name>.npz`` and a card ``<name>.md``.

``untrained/<name>.npz`` is the same network before training, in half precision.
"""

from __future__ import annotations

from importlib import resources

from ...errors import ParameterError, shown
from ..network import Network

__all__ = ["list_pretrained", "pretrained"]

_SUFFIX = ".npz"
_UNTRAINED = "untrained"


def list_pretrained() -> list[str]:
    """Names of the bundled networks.

    Returns
    -------
    list of str
        Names for `pretrained`, sorted.

    Examples
    --------
    >>> import fastdeconv as fd
    >>> fd.list_pretrained()
    ['choi5-genre']
    """
    entries = resources.files(__name__).iterdir()
    return sorted(e.name[: -len(_SUFFIX)] for e in entries if e.name.endswith(_SUFFIX))


def pretrained(name: str, *, trained: bool = True) -> Network:
    """Open a bundled network.

    Parameters
    ----------
    name : str
        A name from `list_pretrained`.
    trained : bool
        False for the network before its training, as a control: random weights of the same seed,
        and batch norms whose mean and variance were measured on music before the first step.
        What this network shows too was not learned.

    Returns
    -------
    Network

    Raises
    ------
    ParameterError
        If there is no such network. The message lists all names.

    Examples
    --------
    >>> import fastdeconv as fd
    >>> fd.pretrained("choi5-genre").classes
    ('electronic', 'metal', 'orchestral')
    >>> control = fd.pretrained("choi5-genre", trained=False)
    """
    names = list_pretrained()
    # Looked up in the list, so that the name is never a path.
    if not isinstance(name, str) or name not in names:
        raise ParameterError(
            f"no bundled network {shown(name)}; there are {', '.join(names) or 'none'}"
        )
    folder = resources.files(__name__)
    if not trained:
        folder = folder.joinpath(_UNTRAINED)
    with folder.joinpath(name + _SUFFIX).open("rb") as file:
        return Network.load(file)
