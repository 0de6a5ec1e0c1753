"""librosa, without what it warns of while it is imported."""

from __future__ import annotations

import warnings
from typing import Any

from ..optional import optional_module

__all__ = ["librosa_module"]


def librosa_module(name: str, purpose: str) -> Any:
    """A module of librosa; imported here, because only some front ends and figures need it.

    Raises
    ------
    ParameterError
        If it is not installed; says what `purpose` needs.
    """
    with warnings.catch_warnings():
        # In a notebook tqdm, which librosa imports, misses widgets that nobody here asks for.
        warnings.filterwarnings("ignore", "IProgress not found")
        return optional_module(name, purpose, "librosa")
