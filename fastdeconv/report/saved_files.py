"""The files of a saved result, read back. They may come from anybody."""

from __future__ import annotations

import ast
import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio._checks import as_choice, as_int
from ..belief.trust import VERDICTS
from ..files import read_regular
from ..textfiles import read_rows
from ..untrusted_json import parse_json
from .names import safe_name
from .tables import columns_of

__all__ = ["DAMAGED", "layer_place", "page_data", "read_array", "read_table", "typed_row"]

#: The errors that reading records and numbers of unknown content raises, our own included.
DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError)

_MOST_TABLE_BYTES = 1 << 28
_MOST_PAGE_BYTES = 1 << 28
_MOST_ARRAY_BYTES = 1 << 34
_MOST_FEATURES = 1 << 24
_DEEPEST_PAGE = 16
_TEXTS = ("layer", "label", "reason")
_COUNTS = ("feature", "rank", "twin_of")
_DATA = re.compile(rb'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
# The header of an array: a dict of literals, of these versions of the format.
_NPY = re.compile(rb"\x93NUMPY(?:\x01\x00(..)|[\x02\x03]\x00(....))", re.DOTALL)
_MOST_HEADER_BYTES = 4096


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table that `table_text` made, as strings."""
    data = read_regular(path, _MOST_TABLE_BYTES)
    return read_rows(io.StringIO(data.decode("utf-8"), newline=""))


def typed_row(row: Mapping[str, str]) -> dict[str, Any]:
    """A row of ``features.csv`` with values of the types that `Explanation.table` has.

    Raises
    ------
    ValueError, KeyError
        If a column is missing or holds something else.
    """
    found: dict[str, Any] = {}
    for key in columns_of(row):
        text = row[key]
        if key in _TEXTS:
            found[key] = text
        elif key == "verdict":
            found[key] = as_choice(key, text, VERDICTS)
        elif text == "":
            found[key] = None
        elif key in _COUNTS:
            found[key] = as_int(key, int(text), minimum=0, maximum=_MOST_FEATURES)
        else:
            found[key] = float(text)
            if not math.isfinite(found[key]):
                raise ValueError(f"found {text} for {key}")
    return found


def layer_place(folder: Path, inner: Any) -> Path:
    """The folder of a layer.

    Raises
    ------
    ValueError
        If `inner` is not the name of a folder that a result of ours can have.
    TypeError
        If `inner` is not a string.
    """
    if not isinstance(inner, str):
        raise TypeError(f"{inner!r} is not the folder of a layer")
    if not inner or safe_name(inner, "") != inner:
        raise ValueError(f"{inner!r} is not the folder of a layer")
    place = folder / inner
    if place.is_symlink():
        raise ValueError(f"{inner!r} is a link")
    return place


def page_data(folder: Path) -> dict[str, Any]:
    """The data in the page of a result.

    Raises
    ------
    ValueError, OSError
        If there is no such page, or it is not a page of a song.
    """
    text = read_regular(folder / "index.html", _MOST_PAGE_BYTES)
    found = _DATA.search(text)
    if found is None:
        raise ValueError("index.html is not the page of a song")
    data = parse_json(
        found[1].decode("utf-8"), most_chars=len(found[1]), deepest=_DEEPEST_PAGE
    )
    if not isinstance(data, dict):
        raise ValueError("index.html is not the page of a song")
    return data


def read_array(path: Path) -> NDArray[np.float32]:
    """A float32 array in NumPy's format. Nothing is unpickled, and every size is checked.

    Raises
    ------
    ValueError, OSError
        If the file is anything else.
    """
    data = read_regular(path, _MOST_ARRAY_BYTES)
    start = _NPY.match(data)
    if start is None:
        raise ValueError("not an array in NumPy's format")
    length = int.from_bytes(start[1] or start[2], "little")
    if length > _MOST_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    end = start.end() + length
    header = ast.literal_eval(data[start.end() : end].decode("latin-1").strip())
    shape = tuple(as_int("size", n, minimum=0, maximum=1 << 40) for n in header["shape"])
    if header["descr"] != "<f4" or header["fortran_order"] is not False:
        raise ValueError(f"values of {header['descr']!r}, wanted '<f4'")
    if 4 * math.prod(shape) != len(data) - end:
        raise ValueError(f"{len(data) - end} bytes for an array of shape {shape}")
    return np.frombuffer(data, "<f4", offset=end).reshape(shape).astype(np.float32, copy=False)
