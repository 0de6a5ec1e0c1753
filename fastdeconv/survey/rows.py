"""The rows of a shard, one for each window, as tables and as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import ParameterError
from .collection import Track
from .measuring import Measured
from .schema import rows_schema

__all__ = ["TrackRows", "Windows", "matrix", "rows_table", "tracks_of", "windows_of"]


class TrackRows(NamedTuple):
    """A track of a shard, and which windows of the shard belong to it."""

    track: str
    windows: slice
    duration: float
    error: str | None


class Windows(NamedTuple):
    """All windows of a shard, without the rows of tracks that could not be used."""

    start: NDArray[np.float64]
    duration: NDArray[np.float64]
    label: NDArray[np.int32]
    """Index of the class with the highest score; -1 without classes."""


def rows_table(
    layers: Sequence[str], tracks: Sequence[tuple[Track, Measured | str]]
) -> pa.Table:
    """The table of a shard.

    Parameters
    ----------
    layers : sequence of str
    tracks : sequence of (Track, Measured or str)
        What was measured of each track, or why it cannot be used.
    """
    names: list[str] = []
    used: list[Measured | None] = []
    errors: list[str | None] = []
    for track, found in tracks:
        count = 1 if isinstance(found, str) else len(found.windows)
        names += [track.name] * count
        errors += [found if isinstance(found, str) else None] * count
        used.append(None if isinstance(found, str) else found)
    known = [found for found in used if found is not None]
    there = np.array([error is None for error in errors], bool)
    windows = [window for found in known for window in found.windows]
    columns: dict[str, Any] = {
        "track": names,
        "start": _spread(np.array([window.start for window in windows]), there),
        "duration": _spread(np.array([window.duration for window in windows]), there),
        "error": errors,
        "scores": _lists([found.scores for found in known], there),
    }
    for place, layer in enumerate(layers):
        own = [found.layers[place] for found in known]
        for what in ("mean", "max", "active", "at"):
            columns[f"{layer}.{what}"] = _lists([getattr(one, what) for one in own], there)
        sizes = np.concatenate([one.size for one in own]) if own else np.zeros(0, np.int32)
        columns[f"{layer}.size"] = _spread(sizes, there)
    schema = rows_schema(layers)
    return pa.table(
        [pa.array(columns[field.name], field.type) if isinstance(columns[field.name], list)
         else columns[field.name].cast(field.type) for field in schema],
        schema=schema,
    )


def tracks_of(table: pa.Table) -> list[TrackRows]:
    """The tracks of a shard, in order; their slices count only rows without an error.

    Raises
    ------
    ParameterError
        If a row has neither a window nor an error.
    """
    found: list[TrackRows] = []
    names, errors = table["track"].to_pylist(), table["error"].to_pylist()
    ends = pc.add(table["start"], table["duration"]).to_pylist()
    begin = row = 0
    for i, (name, error) in enumerate(zip(names, errors)):
        if error is None and ends[i] is None:
            raise ParameterError("a row has neither a window nor an error")
        row += error is None
        if i + 1 == len(names) or names[i + 1] != name:
            end = 0.0 if error is not None else ends[i]
            found.append(TrackRows(name, slice(begin, row), end, error))
            begin = row
    return found


def windows_of(table: pa.Table) -> Windows:
    """The windows of a shard, from its rows without an error."""
    count = len(table)
    lengths = pc.list_value_length(table["scores"]).unique().to_pylist()
    label = np.full(count, -1, np.int32)
    if count and lengths != [0]:
        label = matrix(table, "scores", lengths[0] or 0).argmax(axis=1).astype(np.int32)
    return Windows(table["start"].to_numpy(), table["duration"].to_numpy(), label)


def matrix(table: pa.Table, column: str, width: int) -> NDArray[Any]:
    """A column of lists as an array (rows, width).

    Raises
    ------
    ParameterError
        If the lists have another length.
    """
    lists = table[column].combine_chunks()
    if lists.null_count or any(n != width for n in lists.value_lengths().unique().to_pylist()):
        raise ParameterError(f"column {column!r} has lists of another length than {width}")
    values: NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(lists), width)


def _spread(values: NDArray[Any], there: NDArray[np.bool_]) -> pa.Array:
    """A column of numbers, null in rows that have none."""
    whole = np.zeros(len(there), values.dtype)
    whole[there] = values
    return pa.array(whole, mask=~there)


def _lists(parts: Sequence[NDArray[Any]], there: NDArray[np.bool_]) -> pa.Array:
    """A column of lists from arrays (windows, width), null in rows that have none."""
    flat = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
    offsets = np.concatenate([[0], np.cumsum(there)]) * flat.shape[1]
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(flat.ravel()), mask=pa.array(~there)
    )
