"""Arrays from outside: whatever NumPy can read, and a clear error for anything else.

A PyTorch tensor that requires a gradient, has a type of its own or lies on another device raises
an error of PyTorch when NumPy asks for its values, and other libraries raise their own errors.
Every argument that may be an array is therefore read here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import FastdeconvError, ParameterError

__all__ = ["as_array", "as_index"]


def as_array(
    value: ArrayLike, name: str, error: type[FastdeconvError] = ParameterError
) -> NDArray[Any]:
    """`value` as an array, without a copy where it is one.

    Raises
    ------
    FastdeconvError
        Of the class `error`, if NumPy cannot read `value`, or values of it are masked; begins with
        `name`.
    """
    # Not inside the `try`, which would also catch what the handler of a signal raises.
    parts = value if isinstance(value, (list, tuple)) else (value,)
    if any(isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part) for part in parts):
        # NumPy would take what lies behind the mask.
        raise error(f"{name} has masked values; fill them first, for instance .filled(0)")
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    try:
        return np.asarray(value)
    except MemoryError:
        raise
    except Exception as reason:  # conversion runs code of the library that made the value
        why = " ".join(str(reason).split()) or type(reason).__name__
        raise error(f"{name} cannot be read as an array: {why}") from None


def as_index(numbers: list[int] | NDArray[np.intp]) -> Any:
    """An index that selects these entries of an array: a slice, which does not copy, where the
    numbers are consecutive."""
    each = numbers if isinstance(numbers, list) else numbers.tolist()
    if each and each == list(range(each[0], each[0] + len(each))):
        return slice(each[0], each[-1] + 1)
    return numbers
