"""Checks of layers' parameters.

Each returns the value with plain Python types, or raises `WantedError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "LARGEST_SIZE", "LARGEST_STEP", "Check", "WantedError", "axes", "choice", "flag", "is_int",
    "is_pair", "name", "number", "optional", "padding", "pair", "plain", "sides", "whole",
]

Check = Callable[[Any], Any]

#: The kernels store sizes as 32-bit ints.
LARGEST_SIZE = 2**31 - 1
#: Limit of kernels, strides, dilations and paddings: far above any use, and small enough
#: that checks which visit every window stay quick for a hostile archive.
LARGEST_STEP = 2**16


class WantedError(Exception):
    """A check failed; the text says what was wanted."""


def is_int(value: Any) -> bool:
    """Whether `value` is an int of Python or NumPy; a bool is not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def plain(value: Any, levels: int = 2) -> Any:
    """Convert lists to tuples and NumPy ints to ints, down to the pairs of a padding."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and levels:
        return tuple(plain(item, levels - 1) for item in value)
    return int(value) if isinstance(value, np.integer) else value


def whole(minimum: int, maximum: int = LARGEST_SIZE) -> Check:
    """An int from `minimum` to `maximum`."""

    def check(value: Any) -> int:
        if not is_int(value) or not minimum <= value <= maximum:
            raise WantedError(f"an int from {minimum} to {maximum}")
        return int(value)

    return check


def is_pair(value: Any, minimum: int) -> bool:
    """Whether `value` is a tuple of two ints from `minimum` to `LARGEST_STEP`."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(is_int(n) and minimum <= n <= LARGEST_STEP for n in value)
    )


def pair(minimum: int) -> Check:
    """An int or a pair of ints from `minimum` to `LARGEST_STEP`."""
    def check(value: Any) -> Any:
        value = plain(value)
        if not is_pair(value if isinstance(value, tuple) else (value, value), minimum):
            raise WantedError(f"an int or a pair of ints, from {minimum} to {LARGEST_STEP}")
        return value

    return check


def optional(check: Check) -> Check:
    """The same check, but None is allowed too."""
    return lambda value: None if value is None else check(value)


def padding(value: Any) -> Any:
    """An int, a pair, "same", "valid" or ((top, bottom), (left, right))."""
    value = plain(value)
    sides = value if isinstance(value, tuple) else (value, value)
    if value in ("same", "valid") or is_pair(sides, 0):
        return value
    if len(sides) == 2 and all(is_pair(side, 0) for side in sides):
        return value
    raise WantedError(
        f"an int or a pair of ints from 0 to {LARGEST_STEP}, 'same', 'valid' or "
        "((top, bottom), (left, right))"
    )


def flag(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise WantedError("true or false")
    return bool(value)


def number(minimum: float = -math.inf, *, above: float = -math.inf) -> Check:
    """A finite number of at least `minimum` and greater than `above`."""
    limits = f" of at least {minimum:g}" if minimum > -math.inf else ""
    limits += f" above {above:g}" if above > -math.inf else ""

    def check(value: Any) -> float:
        if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number) and number >= minimum and number > above:
                return number
        raise WantedError(f"a finite number{limits}")

    return check


def name(value: Any) -> str:
    """A name of a layer."""
    # Archives allow no slashes and control characters, and they would be dangerous
    # in a folder that is named after the layer.
    if (
        not isinstance(value, str)
        or not value
        or not value.isprintable()
        or value in (".", "..")
        or "/" in value
        or "\\" in value
    ):
        raise WantedError("a non-empty string of printable characters without slashes")
    return str(value)


def choice(*words: str) -> Check:
    """One of `words`."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise WantedError(" or ".join(map(repr, words)))
        return value

    return check


def axes(*, every: bool = False) -> Check:
    """Letters of C, H and W, each once: some of them or, if `every`, all, in any order."""

    def check(value: Any) -> str:
        letters = value if isinstance(value, str) else ""
        if (
            not letters or len(set(letters)) < len(letters) or not set(letters) <= set("CHW")
            or (every and len(letters) < 3)
        ):
            wanted = "the letters C, H and W in some order" if every else "letters of CHW"
            raise WantedError(f"{wanted}, each once")
        return letters

    return check


def sides(value: Any) -> Any:
    """((top, bottom), (left, right)), each 0 or more."""
    value = plain(value)
    if isinstance(value, tuple) and len(value) == 2 and all(is_pair(side, 0) for side in value):
        return value
    raise WantedError(f"((top, bottom), (left, right)), ints from 0 to {LARGEST_STEP}")
