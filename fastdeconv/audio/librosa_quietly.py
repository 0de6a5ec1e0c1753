"""Import librosa without its warnings."""

from __future__ import annotations

import warnings
from typing import Any

from ..optional import optional_module

__all__ = ["librosa_module"]


def librosa_module(name: str, purpose: str) -> Any:
    """Import a module of librosa, which only some front ends and figures need.

    Raises
    ------
    ParameterError
        If librosa is not installed. The message begins with `purpose`.
    """
    with warnings.catch_warnings():
        # In a notebook, tqdm (which librosa imports) warns that progress widgets are missing.
        warnings.filterwarnings("ignore", "IProgress not found")
        return optional_module(name, purpose, "librosa")
