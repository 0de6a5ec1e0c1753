"""librosa, without what it warns of while it is imported."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

__all__ = ["librosa_module"]


def librosa_module(name: str) -> Any:
    """A module of librosa; imported here, because only some front ends and figures need it."""
    with warnings.catch_warnings():
        # In a notebook tqdm, which librosa imports, misses widgets that nobody here asks for.
        warnings.filterwarnings("ignore", "IProgress not found")
        return importlib.import_module(name)
