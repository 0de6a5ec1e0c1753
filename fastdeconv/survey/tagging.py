"""The user's table of tags, and how features go with its attributes.

The user's table has a column of tracks, and a column for each attribute: numbers or classes. For
every feature and attribute one statistic is computed. It is computed over tracks, since the windows
of a track are not independent of each other. The value of a feature in a track is the mean of its
mean activations in the track's windows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import ParameterError, printable, shown
from .collection import track_of
from .lists import TRACK_COLUMNS, header_text, read_table_rows
from .schema import ATTRIBUTES, TAGS

__all__ = ["attribute_table", "read_tags"]

_Z = 1.959963984540054
"""Half the width of the 95 % interval of a normal distribution, in standard deviations."""
_TAIL = 0.025
"""Probability on either side of a 95 % interval."""
_HALVINGS = 60
_EXAMPLES = 3
_MOST_CLASSES = 50
_LEAST_TRACKS = 3

Values = NDArray[np.float64]


class _Found(NamedTuple):
    """An attribute's statistics for the features of a layer; see `schema.ATTRIBUTES`."""

    kind: str
    value: Values
    low: Values
    high: Values
    p: Values
    label: list[str | None]


def read_tags(path: str | os.PathLike[str], root: str, tracks: Sequence[str]) -> pa.Table:
    """Read the user's table as `schema.TAGS`: the cells of the survey's tracks that are not empty.

    A column has numbers if all its cells are numbers and more than two of them differ; every
    other column has classes. A cell "nan" counts as empty. A column that is empty for all these
    tracks has one row without a value, so that it is named among what is left out.

    Parameters
    ----------
    path : path
        A CSV file with a header, one of whose columns is called track, file or path.
    root : str
        The folder that names of tracks are relative to, in the table and in the survey.
    tracks : sequence of str
        The tracks of the survey.

    Raises
    ------
    ParameterError
        If it is not such a table, a track is in it twice, or fewer than half of its tracks (or of
        the survey's, if those are fewer) are in both.
    FileNotFoundError
        If there is no such file.
    """
    where = printable(os.fspath(path))
    header, place, rows = _read(path, where)
    named = _by_track(rows, place, track_of(root), set(tracks), where)
    matching = [track for track in sorted(set(tracks)) if track in named]
    if 2 * len(matching) < min(len(named), len(set(tracks))) or not matching:
        raise ParameterError(_mismatch(where, header[place], matching, named, tracks))
    columns: dict[str, list[Any]] = {name: [] for name in TAGS.names}
    for i, attribute in enumerate(header):
        if i == place:
            continue
        cells = {track: cell for track in matching if (cell := _cell(named[track][i]))}
        numbers = {track: _number(cell) for track, cell in cells.items()}
        is_classes = None in numbers.values() or len(set(numbers.values())) <= 2
        if None not in numbers.values():
            # "1" and "1.0" are one class, which has the name that comes first.
            names: dict[Any, str] = {}
            cells = {track: names.setdefault(numbers[track], cell) for track, cell in cells.items()}
        found: list[tuple[str, str | None]] = [*cells.items()] or [(matching[0], None)]
        for track, text in found:
            columns["track"].append(track)
            columns["attribute"].append(attribute)
            columns["number"].append(None if is_classes else numbers[track])
            columns["label"].append(text if is_classes else None)
    return pa.table(columns, schema=TAGS)


def attribute_table(
    tags: pa.Table, tracks: Sequence[str], layers: Mapping[str, NDArray[Any]]
) -> tuple[pa.Table, list[str]]:
    """How features go with attributes.

    Parameters
    ----------
    tags : pyarrow.Table
        See `read_tags`.
    tracks : sequence of str
        The tracks that could be used, in the order of the rows of the values.
    layers : mapping
        Layer -> values (tracks, features).

    Returns
    -------
    table : pyarrow.Table
        See `schema.ATTRIBUTES`.
    left_out : list of str
        The attributes that are not in it, each with the reason.
    """
    places = {track: i for i, track in enumerate(tracks)}
    attributes, left_out = _attributes(tags, places)
    rows: dict[str, list[Any]] = {name: [] for name in (*ATTRIBUTES.names, "p")}
    for layer, found_values in layers.items():
        values = found_values.astype(float)
        for attribute, (where, cells) in attributes.items():
            found = _compare(values[where], cells)
            features = values.shape[1]
            rows["layer"] += [layer] * features
            rows["feature"] += range(features)
            rows["attribute"] += [attribute] * features
            rows["kind"] += [found.kind] * features
            rows["n"] += [len(where)] * features
            rows["label"] += found.label
            for name in ("value", "low", "high", "p"):
                rows[name] += getattr(found, name).tolist()
    rows["q"] = _q_values(np.array(rows.pop("p"), float)).tolist()
    for name in ("value", "low", "high", "q"):
        rows[name] = [None if math.isnan(value) else value for value in rows[name]]
    return pa.table({name: rows[name] for name in ATTRIBUTES.names}, schema=ATTRIBUTES), left_out


# --- the user's table ----------------------------------------------------------------------


def _read(
    path: str | os.PathLike[str], where: str
) -> tuple[list[str], int, list[tuple[int, list[str]]]]:
    """Its header, the place of the column of tracks, and its rows with their lines."""
    lines = read_table_rows(path)
    _, header = next(lines)
    there = [name for name in TRACK_COLUMNS if name in header]
    if not there or len(set(header)) < len(header) or "" in header or len(header) < 2:
        raise ParameterError(
            f"{where}: the header must have a column track (or file, or path) and at least one "
            f"attribute, all with different names; found {header_text(header)}"
        )
    rows = []
    for line, row in lines:
        if len(row) != len(header):
            raise ParameterError(
                f"{where}, line {line}: found {len(row)} columns, the header has {len(header)}"
            )
        rows.append((line, [track_of(cell) for cell in row]))
    return [track_of(name) for name in header], header.index(there[0]), rows


def _by_track(
    rows: Iterable[tuple[int, list[str]]], place: int, root: str, known: set[str], where: str
) -> dict[str, list[str]]:
    """The rows by the name of their track."""
    found: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        if not row[place].strip():
            continue  # spreadsheets leave rows of empty cells at the end
        track = _name(row[place], root, known)
        if track in found and track in known:
            raise ParameterError(
                f"{where}, line {line}: the track {shown(track)} is in line {lines[track]} already"
            )
        found[track], lines[track] = row, line
    return found


def _name(cell: str, root: str, known: set[str]) -> str:
    """The track that a cell names, by a path relative to `root` or by an absolute one."""
    path = os.path.normpath(cell)
    # A survey of a list has tracks as they stand in the list: relative or absolute.
    other = os.path.relpath(path, root) if os.path.isabs(path) else os.path.join(root, path)
    names = [own.replace(os.sep, "/") for own in (path, os.path.normpath(other))]
    return next((name for name in names if name in known), names[0])


def _cell(cell: str) -> str:
    """The text of a cell, empty where there is no value."""
    text = cell.strip()
    return "" if text.lower() == "nan" else text


def _number(cell: str) -> float | None:
    # Python reads 4_4 as 44. Here it is more likely a class, such as a metre.
    if "_" in cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _mismatch(
    where: str, column: str, matching: Sequence[str], named: Iterable[str], tracks: Sequence[str]
) -> str:
    known, there = set(tracks), set(named)
    theirs = [shown(track) for track in there if track not in known]
    ours = [shown(track) for track in tracks if track not in there]
    return (
        f"{where}: {len(matching)} of its {len(there)} tracks are among the {len(tracks)} of the "
        f"survey. Its column {column!r} has "
        f"{', '.join(sorted(theirs)[:_EXAMPLES]) or 'no others'}; the survey has "
        f"{', '.join(ours[:_EXAMPLES]) or 'no others'}"
    )


# --- statistics ----------------------------------------------------------------------------


def _attributes(
    tags: pa.Table, places: Mapping[str, int]
) -> tuple[dict[str, tuple[NDArray[np.int64], list[Any]]], list[str]]:
    """Attribute -> indices of its tracks and their cells; and the attributes that are left out."""
    cells: dict[str, list[tuple[int, Any]]] = {}
    for row in tags.to_pylist():
        own = cells.setdefault(row["attribute"], [])
        value = row["label"] if row["number"] is None else row["number"]
        if value is not None and row["track"] in places:
            own.append((places[row["track"]], value))
    found, left_out = {}, []
    for attribute, pairs in cells.items():
        values = [value for _, value in sorted(pairs, key=lambda pair: pair[0])]
        where = np.array(sorted(place for place, _ in pairs), np.int64)
        classes = len(set(values))
        reason = None
        if len(values) < _LEAST_TRACKS:
            reason = f"tracks with a value: {len(values)}, of {_LEAST_TRACKS} needed"
        elif classes < 2:
            reason = "all tracks have the same value"
        elif isinstance(values[0], str) and (
            classes > _MOST_CLASSES or (classes > 2 and 2 * classes > len(values))
        ):
            reason = f"{classes} classes are too many for {len(values)} tracks"
        if reason is None:
            found[attribute] = where, values
        else:
            left_out.append(f"{attribute} ({reason})")
    return found, left_out


def _compare(values: Values, cells: Sequence[Any]) -> _Found:
    if not isinstance(cells[0], str):
        return _correlate(values, np.array(cells, float))
    names = sorted(set(cells))
    groups = np.searchsorted(names, cells)
    return (_auc if len(names) == 2 else _eta_squared)(values, groups, names)


def _correlate(values: Values, numbers: Values) -> _Found:
    from scipy import special

    count = len(numbers)
    values, numbers = values - values.mean(axis=0), numbers - numbers.mean()
    scale = np.sqrt(np.square(values).sum(axis=0) * np.square(numbers).sum())
    r = _ratio((values * numbers[:, np.newaxis]).sum(axis=0), scale).clip(-1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = r * np.sqrt((count - 2) / (1 - r * r))
        reach = _Z / np.sqrt(count - 3) if count > 3 else np.nan
        low, high = np.tanh(np.arctanh(r) - reach), np.tanh(np.arctanh(r) + reach)
    p = 2 * special.stdtr(count - 2, -np.abs(t))
    return _Found("r", r, low, high, p, [None] * len(r))


def _auc(values: Values, groups: NDArray[Any], names: Sequence[str]) -> _Found:
    from scipy import stats

    ours, others = values[groups == 1], values[groups == 0]
    test = stats.mannwhitneyu(ours, others, axis=0, method="asymptotic")
    constant = values.max(axis=0) == values.min(axis=0)
    auc = np.where(constant, np.nan, test.statistic / (len(ours) * len(others)))
    low, high = _auc_interval(auc, len(ours), len(others))
    return _Found(
        "auc", auc, low, high, np.where(constant, np.nan, test.pvalue), [names[1]] * len(auc)
    )


def _auc_interval(auc: Values, ours: int, others: int) -> tuple[Values, Values]:
    """The 95 % interval by Newcombe's method 5 (Statistics in Medicine 25, 559, 2006).

    Its ends are the values that a test just does not reject, each with its own standard error. So
    an AUC of 1 has an interval too.
    """
    extra = (ours + others) / 2 - 1

    def is_refused(theta: Values) -> NDArray[np.bool_]:
        spread = theta * (1 - theta) * (
            1 + extra * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        ) / (ours * others)
        refused: NDArray[np.bool_] = np.square(auc - theta) > _Z * _Z * spread
        return refused

    return (
        _bisect(is_refused, np.zeros_like(auc), auc), _bisect(is_refused, np.ones_like(auc), auc)
    )


def _eta_squared(values: Values, groups: NDArray[Any], names: Sequence[str]) -> _Found:
    from scipy import special

    count, classes = len(values), len(names)
    whole = values.mean(axis=0)
    means = np.stack([values[groups == g].mean(axis=0) for g in range(classes)])
    sizes = np.bincount(groups, minlength=classes)[:, np.newaxis]
    between = (sizes * np.square(means - whole)).sum(axis=0)
    within = np.square(values - means[groups]).sum(axis=0)
    eta = _ratio(between, between + within)
    above, below = classes - 1, count - classes
    f = _ratio(eta / above, (1 - eta) / below)
    p = special.fdtrc(above, below, f)

    # Classes that differ less than chance would have it say little about how much they really
    # differ. By the rule for the upper end alone they would have the shortest intervals, without
    # the value in them. So this end is not below that of the median F under no difference (a
    # power-constrained limit: Cowan, Cranmer, Gross and Vitells, arXiv 1105.3166).
    f_above = np.maximum(f, special.fdtri(above, below, 0.5))

    def end(tail: float, f: Values) -> Values:
        # An end is the share e under which an F as large as the one found, or smaller, has the
        # probability `tail`. F is then noncentral, with noncentrality count * e / (1 - e).
        def is_below(share: Values) -> NDArray[np.bool_]:
            found: NDArray[np.bool_] = special.ncfdtr(
                above, below, count * share / (1 - share), f
            ) > tail
            return found

        return _bisect(is_below, np.zeros_like(eta), np.where(np.isnan(f), np.nan, 1.0))

    label = [names[place] for place in means.argmax(axis=0)]
    return _Found("eta2", eta, end(1 - _TAIL, f), end(_TAIL, f_above), p, list(label))


def _bisect(
    holds: Callable[[Values], NDArray[np.bool_]], begin: Values, end: Values
) -> Values:
    """Where `holds`, which is true at `begin`, stops being true on the way to `end`."""
    inside, outside = begin.astype(float), end.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            true = holds(middle)
            inside, outside = np.where(true, middle, inside), np.where(true, outside, middle)
    return np.where(np.isnan(end), np.nan, inside)


def _ratio(above: Values, below: Values) -> Values:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _q_values(p: Values) -> Values:
    from scipy import stats

    q = np.full_like(p, np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return q
