"""Packages that only some functions need: the extras of pyproject.toml."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import ParameterError

__all__ = ["optional_module"]


def optional_module(name: str, purpose: str, extra: str) -> Any:
    """Import a module of an optional package.

    Parameters
    ----------
    name : str
        Of the module, such as ``"librosa.display"``.
    purpose : str
        What needs it, as the beginning of a sentence: ``"the front end of kind 'cqt'"``.
    extra : str
        The extra of fastdeconv that installs the package.

    Returns
    -------
    module

    Raises
    ------
    ParameterError
        If it cannot be imported. The message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ParameterError(
            f"{purpose} needs {package}, which cannot be imported here ({error}): "
            f"pip install 'fastdeconv[{extra}]'"
        ) from None
