"""HDF5 files from unknown sources: bounded reading of groups, attributes and arrays.

h5py is imported when a file is opened. Only hard links inside the file are followed. An array
is read only after checks of its type, rank, declared size, filters and stored bytes, so a
small file cannot use much memory, and no other file is opened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArchiveError, FastdeconvError, shown
from ...optional import optional_module
from ..zipped import MAX_MEMBER_BYTES, MAX_MEMBERS
from .keras_attributes import text_of

__all__ = [
    "SIGNATURE", "arrays_below", "attribute", "child", "opened_hdf5", "read_array",
    "require_h5py",
]

#: The first bytes of an HDF5 file.
SIGNATURE = b"\x89HDF\r\n\x1a\n"

# Deepest nesting of groups.
_MOST_LEVELS = 32
_MOST_RANK = 8
# Deflate cannot compress by more than a factor of 1032.
_MOST_RATIO = 1100
# Deflate, shuffle and checksum. Other filters are plug-ins that HDF5 would load from outside.
_FILTERS = frozenset({1, 2, 3})


def require_h5py() -> None:
    """Check that h5py is installed.

    Raises
    ------
    ParameterError
        If it is not. The message says what to install.
    """
    optional_module("h5py", "a file of Keras weights, which is HDF5,", "keras")


@contextmanager
def opened_hdf5(file: IO[bytes]) -> Iterator[Any]:
    """The root group of an HDF5 file that is open as `file`.

    Raises
    ------
    ArchiveError
        If the file is damaged. It replaces every error that h5py raises in the context.
    """
    import h5py

    try:
        with h5py.File(file, "r") as root:
            yield root
    except FastdeconvError:
        raise
    # h5py raises all of these for damaged files.
    except (
        OSError, RuntimeError, KeyError, TypeError, AttributeError, OverflowError, ValueError,
    ) as exc:
        raise ArchiveError(f"the HDF5 file is damaged ({shown(str(exc))})") from exc


def child(group: Any, name: str) -> Any | None:
    """The group or dataset called `name` in a group; None if it does not exist."""
    import h5py

    # Not `in` and `get`, which treat a slash as a path and follow links.
    if "/" in name or name in ("", ".") or not group.id.links.exists(name.encode()):
        return None
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ArchiveError(
            f"{shown(f'{group.name}/{name}')} is a soft or external link, wanted the data itself"
        )
    return group[name]


def attribute(raw: IO[bytes], node: Any, name: str) -> str | None:
    """The text of an attribute, or None if it does not exist; `raw` is the file."""
    import h5py

    if name not in node.attrs:
        return None
    info = node.attrs.get_id(name)
    if math.prod(info.shape) != 1 or info.get_storage_size() > MAX_MEMBER_BYTES:
        raise ArchiveError(f"attribute {name!r}: found shape {info.shape}, wanted one text")
    string = h5py.check_string_dtype(info.dtype)
    if string is None:
        raise ArchiveError(f"attribute {name!r}: found {info.dtype}, wanted text")
    value = text_of(raw, node, name) if string.length is None else node.attrs[name]
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        try:
            value = value.rstrip(b"\0").decode("utf-8")
        except UnicodeDecodeError as exc:
            raise ArchiveError(f"attribute {name!r}: not UTF-8 ({exc.reason})") from exc
    if not isinstance(value, str):
        raise ArchiveError(f"attribute {name!r}: found {shown(value)}, wanted text")
    return str(value)


def arrays_below(group: Any) -> dict[tuple[str, ...], Any]:
    """All datasets in a group and the groups inside it, by path."""
    import h5py

    found: dict[tuple[str, ...], Any] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), group)]
    links = 0
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, h5py.Dataset):
            found[path] = node
            continue
        links += len(node)
        # Limited, because groups may contain themselves.
        if links > MAX_MEMBERS or len(path) > _MOST_LEVELS:
            raise ArchiveError(
                f"group {shown(group.name)}: found more than {MAX_MEMBERS} members or "
                f"{_MOST_LEVELS} levels"
            )
        waiting += [((*path, name), child(node, name)) for name in node]
    return found


def read_array(dataset: Any) -> NDArray[Any]:
    """The numbers of a dataset, after the checks that are described above."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise ArchiveError(f"{shown(dataset.name)} is a group, wanted an array")
    label = f"array {shown(dataset.name)}"
    dtype, shape = dataset.dtype, dataset.shape
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise ArchiveError(f"{label}: found dtype {shown(str(dtype))}, wanted float or int")
    if shape is None or len(shape) > _MOST_RANK:
        raise ArchiveError(
            f"{label}: found shape {shown(shape)}, wanted a tuple of at most {_MOST_RANK} sizes"
        )
    if dataset.is_virtual or dataset.external:
        raise ArchiveError(f"{label}: its data is in another file, wanted data in this file")
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_MEMBER_BYTES:
        raise ArchiveError(f"{label}: found {size} bytes, over the limit of {MAX_MEMBER_BYTES}")
    created = dataset.id.get_create_plist()
    filters = {created.get_filter(i)[0] for i in range(created.get_nfilters())}
    if not filters <= _FILTERS:
        raise ArchiveError(f"{label}: found the filters {sorted(filters)}, wanted deflate or none")
    stored = dataset.id.get_storage_size()
    if stored * (_MOST_RATIO if filters else 1) < size:
        raise ArchiveError(f"{label}: found {stored} bytes stored, too few for shape {shape}")
    chunk = math.prod(dataset.chunks or ()) * dtype.itemsize
    if chunk > 2 * size + (1 << 20):
        raise ArchiveError(f"{label}: found chunks of {chunk} bytes for {size} bytes of data")
    array: NDArray[Any] = dataset[()]
    return np.asarray(array)
