"""Which stimuli are compared: those that differ in one attribute only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import ParameterError, shown

__all__ = ["Design", "Group"]


class Group(NamedTuple):
    """Stimuli that agree in every attribute but one; any two of them are a pair."""

    attribute: str
    """The attribute in which they differ."""
    members: tuple[int, ...]
    """Indices of the stimuli."""


class Design:
    """The groups of a list of stimuli, and the order in which to go through them.

    Parameters
    ----------
    attributes : sequence of dict
        One for each stimulus, all with the same names; no two of them equal.

    Attributes
    ----------
    attributes : tuple of str
        In the order of the first stimulus.
    groups : list of Group
        All groups of at least two stimuli.
    order : list of int
        All stimuli in an order in which few groups are incomplete at a time: the attribute with
        the most values changes most slowly.

    Raises
    ------
    ParameterError
        If there are no stimuli, names of attributes differ, two stimuli agree in all attributes,
        or no two differ in one only.
    """

    def __init__(self, attributes: Sequence[Mapping[str, str]]) -> None:
        if not attributes:
            raise ParameterError("there are no stimuli")
        self.attributes = tuple(attributes[0])
        rows = [self._row(i, own) for i, own in enumerate(attributes)]
        self.groups = [
            Group(name, members)
            for place, name in enumerate(self.attributes)
            for members in _groups(rows, place)
        ]
        if not self.groups:
            raise ParameterError(
                f"no two of the {len(rows)} stimuli differ in only one of the attributes "
                f"{', '.join(self.attributes) or '(none)'}: there is nothing to compare"
            )
        self.order = _order(rows)

    def of(self, attribute: str) -> list[int]:
        """Indices of the groups of an attribute; empty if no two stimuli differ in it only."""
        return [g for g, group in enumerate(self.groups) if group.attribute == attribute]

    def _row(self, number: int, own: Mapping[str, str]) -> tuple[str, ...]:
        if set(own) != set(self.attributes):
            raise ParameterError(
                f"stimulus {number} has the attributes {', '.join(map(shown, own)) or '(none)'}, "
                f"stimulus 0 has {', '.join(map(shown, self.attributes)) or '(none)'}"
            )
        return tuple(str(own[name]) for name in self.attributes)


def _groups(rows: Sequence[tuple[str, ...]], place: int) -> list[tuple[int, ...]]:
    """Stimuli that agree in everything but the attribute at `place`."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(rows):
        alike.setdefault(row[:place] + row[place + 1 :], []).append(i)
    for members in alike.values():
        seen: dict[str, int] = {}
        for i in members:
            if rows[i][place] in seen:
                raise ParameterError(
                    f"stimuli {seen[rows[i][place]]} and {i} agree in every attribute: add an "
                    'attribute that tells them apart, such as "take"'
                )
            seen[rows[i][place]] = i
    return [tuple(members) for members in alike.values() if len(members) > 1]


def _order(rows: Sequence[tuple[str, ...]]) -> list[int]:
    # Values are ranked in the order in which they appear, so that lists keep their order.
    ranks = [{value: i for i, value in enumerate(dict.fromkeys(column))} for column in zip(*rows)]
    slowest_first = sorted(range(len(ranks)), key=lambda place: -len(ranks[place]))
    return sorted(
        range(len(rows)), key=lambda i: [ranks[p][rows[i][p]] for p in slowest_first]
    )
