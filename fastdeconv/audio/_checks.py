"""Checks of a front end's fields.

Each returns the value as a plain Python type, or raises ParameterError.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import ParameterError, shown

__all__ = ["MODES", "as_bool", "as_choice", "as_int", "as_number", "check_keys"]


#: How a map becomes sound.
MODES = ("mask", "phase", "wiener")


def as_int(name: str, value: Any, *, minimum: int, maximum: int) -> int:
    """An int (numpy's too, bool not) in [minimum, maximum]."""
    wanted = f"{name} must be an int from {minimum} to {maximum}, found {shown(value)}"
    if isinstance(value, bool):
        raise ParameterError(wanted)
    try:
        number = operator.index(value)
    except Exception:  # conversion runs code of whoever made the value, such as a tensor's
        raise ParameterError(wanted) from None
    if not minimum <= number <= maximum:
        raise ParameterError(wanted)
    return number


def as_number(name: str, value: Any, *, above: float | None = None) -> float:
    """A finite real number, greater than `above` if that is given."""
    wanted = f"{name} must be a finite number" + ("" if above is None else f" above {above:g}")
    wanted += f", found {shown(value)}"
    if isinstance(value, (bool, str, bytes)):
        raise ParameterError(wanted)
    try:
        number = float(value)
    except Exception:
        raise ParameterError(wanted) from None
    if not math.isfinite(number) or (above is not None and number <= above):
        raise ParameterError(wanted)
    return number


def as_bool(name: str, value: Any) -> bool:
    """True or False; 0, 1 and other values that only behave like them are refused."""
    if not isinstance(value, bool):
        raise ParameterError(f"{name} must be true or false, found {shown(value)}")
    return value


def as_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """One of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ParameterError(f"{name} must be one of {', '.join(choices)}, found {shown(value)}")
    return value


def check_keys(name: str, record: Mapping[Any, Any], allowed: Collection[str]) -> None:
    """Refuse keys that are not `allowed`."""
    unknown = [key for key in record if key not in allowed]
    if unknown:
        raise ParameterError(
            f"{name}: unknown key {shown(unknown[0])}; it takes {', '.join(sorted(allowed))}"
        )
