"""JSON from files that anybody may have written."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .errors import shown

__all__ = ["parse_json"]

# A string in one match, closed or not, so that no text makes the scan slow.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


class _RefusedError(ValueError):
    """Valid JSON that is not taken; the text says why."""


def parse_json(text: str, *, most_chars: int, deepest: int) -> Any:
    """JSON of bounded size and depth, without NaN, Infinity or repeated keys.

    Raises
    ------
    ValueError
        If it is anything else; the text says what was found.
    """
    if len(text) > most_chars:
        raise ValueError(f"found {len(text)} characters, over the limit of {most_chars}")
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token.group()[0]
        depth += (first in "[{") - (first in "]}")
        if depth > deepest:
            raise ValueError(f"nested deeper than {deepest}")
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            object_pairs_hook=_unique_keys,
        )
    except _RefusedError:
        raise
    except (ValueError, RecursionError) as exc:  # also ints of thousands of digits
        raise ValueError(f"not valid JSON ({exc})") from exc


def _refuse_constant(text: str) -> Any:
    raise _RefusedError(f"found {text}, wanted a finite number")


def _finite_float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(shown(text))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record:
            raise _RefusedError(f"the key {shown(key)} is there twice in one object")
        record[key] = value
    return record
