"""How the axes of an array in a file correspond to the axes of a layer.

Arrays in files have any rank, with a batch; outputs of layers are (C, H, W). A `View` says how
the array is read from the output of a layer. Squeeze, transpose, reshape and flatten change only
the view, so they cost nothing, and opposite ones cancel each other. If an operator needs its axes
at certain positions, `building` adds a permute or a reshape, but only if the view differs.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

__all__ = [
    "Letters", "View", "completed", "default_letters", "group_sizes", "joined_axes",
    "steps_of_three", "transposed_groups",
]

#: For every axis of an array its letter, C, H or W; None for an axis of size 1 without a letter.
Letters = tuple[str | None, ...]

_BY_RANK: dict[int, Letters] = {
    0: (), 1: ("C",), 2: (None, "C"), 3: (None, "C", "W"), 4: (None, "C", "H", "W"),
}


@dataclass(frozen=True)
class View:
    """How an array of the file is read from the output of a layer.

    The axes of the output are put in the order `order`, and the result is reshaped to `shape`
    in row-major order.

    Attributes
    ----------
    draft : int
        The position of the layer; -1 is the input of the network.
    sizes : (C, H, W)
        Shape of the layer's output.
    order : str
        The letters C, H and W in some order.
    shape : tuple of int
        Shape of the array.
    """

    draft: int
    sizes: tuple[int, int, int]
    order: str
    shape: tuple[int, ...]

    def size(self, letter: str) -> int:
        """Size of the layer's output along an axis."""
        return self.sizes["CHW".index(letter)]

    @property
    def letters(self) -> Letters | None:
        """The letters of the axes, None for those of size 1; None if axes were joined or split."""
        left = [letter for letter in self.order if self.size(letter) > 1]
        found: list[str | None] = []
        for n in self.shape:
            if n == 1:
                found.append(None)
            elif left and self.size(left[0]) == n:
                found.append(left.pop(0))
            else:
                return None
        return tuple(found)

    @property
    def in_order(self) -> bool:
        """Whether the array has the values of the layer's output in row-major order."""
        letters = [letter for letter in self.order if self.size(letter) > 1]
        return letters == sorted(letters)

    def joined(self, letters: Letters) -> str | None:
        """The order of the layer's axes which, after a reshape, gives axes called `letters`.

        None unless each axis of the array is one axis of the layer or several joined.
        """
        left = [letter for letter in self.order if self.size(letter) > 1]
        parts = {letter: "" for letter in "CHW"}
        for n, name in zip(self.shape, letters):
            product = 1
            while n > 1 and left and product < n:
                product *= self.size(left[0])
                parts[str(name)] += left.pop(0)
            if product != n:
                return None
        found = "".join(parts.values())
        # Axes of size 1 are not moved if that is possible.
        kept = [found.find(letter) for letter in "CHW" if letter in found]
        if kept == sorted(kept):
            return "CHW"
        return found + "".join(letter for letter in "CHW" if letter not in found)

    def of_layer(self, array: NDArray[Any]) -> NDArray[Any]:
        """The layer's output from the array."""
        planes = array.reshape([self.size(letter) for letter in self.order])
        return planes.transpose([self.order.index(letter) for letter in "CHW"])


def default_letters(shape: Sequence[int]) -> Letters | None:
    """The usual letters for an array of this shape; None if it has more than three long axes."""
    rank = len(shape)
    usual = _BY_RANK.get(rank)
    if usual is not None and all(n == 1 for n, letter in zip(shape, usual) if letter is None):
        return usual
    places = [i for i, n in enumerate(shape) if n > 1]
    if len(places) > 3:
        return None
    # The last long axis is columns, the one before it rows: the T of (T, F) is not a batch.
    names = {1: "C", 2: "CW", 3: "CHW"}.get(len(places), "")
    found: list[str | None] = [None] * rank
    for place, letter in zip(places, names):
        found[place] = letter
    return tuple(found)


def completed(view: View, letters: Letters) -> Letters:
    """Give the unused letters to axes of size 1, at their usual positions."""
    found = list(letters)
    free = [letter for letter in "CHW" if letter not in found]
    rank = len(found)
    usual = {rank - 1: "W", rank - 2: "H", rank - 3: "C"} if rank > 3 else {1: "C", rank - 1: "W"}
    for place, letter in usual.items():
        if 0 <= place < rank and found[place] is None and letter in free:
            found[place] = letter
            free.remove(letter)
    for place in range(rank - 1, -1, -1):
        if found[place] is None and free and (place > 0 or rank <= 3):
            found[place] = free.pop()
    return tuple(found)


def transposed_groups(shape: Sequence[int], order: Sequence[int]) -> list[list[int]]:
    """Groups of axes that stay neighbours when `shape` is transposed, in the new order.

    Axes of size 1 are left out.
    """
    places = [i for i in range(len(shape)) if shape[i] > 1]
    after = {place: places[k + 1] for k, place in enumerate(places[:-1])}
    groups: list[list[int]] = []
    for place in (p for p in order if shape[p] > 1):
        if groups and after.get(groups[-1][-1]) == place:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def group_sizes(shape: Sequence[int], groups: Sequence[Sequence[int]]) -> list[int]:
    """The product of the sizes of each group of axes."""
    return [math.prod(shape[i] for i in group) for group in groups]


def joined_axes(
    shape: Sequence[int], marks: Sequence[Any], alone: Sequence[int] = ()
) -> list[list[int]]:
    """Groups of neighbouring axes with the same mark; axes of size 1 are left out.

    Axes in `alone` are neither left out nor joined with others.
    """
    groups: list[list[int]] = []
    for axis, n in enumerate(shape):
        if n == 1 and axis not in alone:
            continue
        before = groups[-1] if groups else [axis]
        joins = groups and before[-1] not in alone and axis not in alone
        if joins and marks[axis] == marks[before[-1]]:
            before.append(axis)
        else:
            groups.append([axis])
    return groups


# Most groups, because all orders of them are searched: 720 of six.
_MOST_GROUPS = 6
# The (begin, end) of two or three neighbouring blocks, and their new order.
_Step = tuple[tuple[tuple[int, int], ...], tuple[int, ...]]


def steps_of_three(wanted: Sequence[int]) -> list[_Step] | None:
    """Split a permutation into steps that each exchange at most three neighbouring blocks.

    The blocks of a step together are the whole, so each step is a transposition of three axes.

    Returns
    -------
    list or None
        The fewest steps that bring 0, 1, 2, ... into the order `wanted`; None if there are more
        than `_MOST_GROUPS` numbers.
    """
    count = len(wanted)
    if count > _MOST_GROUPS:
        return None
    steps: list[_Step] = []
    for a, b in itertools.combinations_with_replacement(range(1, count), 2):
        parts: tuple[tuple[int, int], ...] = ((0, a), (a, b), (b, count))
        parts = parts if a < b else ((0, a), (a, count))
        orders = itertools.permutations(range(len(parts)))
        steps += [(parts, order) for order in orders if order != tuple(range(len(parts)))]
    start = tuple(range(count))
    came: dict[tuple[int, ...], tuple[tuple[int, ...], _Step]] = {}
    waiting = deque([start])
    while waiting:
        now = waiting.popleft()
        if now == tuple(wanted):
            break
        for parts, order in steps:
            after = tuple(k for i in order for k in now[slice(*parts[i])])
            if after != start and after not in came:
                came[after] = now, (parts, order)
                waiting.append(after)
    path: list[_Step] = []
    now = tuple(wanted)
    while now != start:
        now, step = came[now]
        path.append(step)
    return path[::-1]
