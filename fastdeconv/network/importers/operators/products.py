"""Products of two arrays that are summed over some axes: MatMul and Einsum.

A product with a constant becomes a linear layer or a 1 x 1 convolution, which may have groups.
A product of two computed arrays becomes a `multiply` layer with broadcasting, and a sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import shown
from ..building import Builder, CannotImportError
from ..graph import Node
from ..views import View
from .combining import joined
from .pooling import summed
from .scaling import scaled_by
from .windows import dense

__all__ = ["einsum", "matmul"]

# Most values of the product of two computed arrays before it is summed: 64 MB of float32.
_MOST_PRODUCTS = 1 << 24
_SPARE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def einsum(builder: Builder, node: Node) -> View:
    equation = str(node.attributes["equation"]).replace(" ", "")
    left, arrow, out = equation.partition("->")
    given = left.split(",")
    if len(given) != len(node.inputs):
        raise CannotImportError(
            f"its equation {shown(equation)} does not have {len(node.inputs)} inputs"
        )
    if not arrow:
        letters = "".join(given).replace(".", "")
        alone = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        out = ("..." if "..." in left else "") + "".join(alone)
    ranks = [len(builder.graph.shapes[name]) for name in node.inputs]
    more = max(rank - len(term.replace("...", "")) for rank, term in zip(ranks, given))
    terms = []
    for term, rank in zip(given, ranks):
        spare = rank - len(term.replace("...", ""))
        terms.append(term.replace("...", _SPARE[more - spare : more]))
    out = out.replace("...", _SPARE[:more])
    if any(len(term) != rank or len(set(term)) < len(term) for term, rank in zip(terms, ranks)):
        raise CannotImportError(f"its equation {shown(equation)} takes a diagonal")
    if len(terms) == 1:
        return _of_one(builder, builder.view(node, 0), terms[0], out)
    if len(terms) > 2:
        raise CannotImportError("it multiplies more than two arrays")
    return _of_two(builder, node, terms, out)


def matmul(builder: Builder, node: Node) -> View:
    ranks = [len(builder.graph.shapes[name]) for name in node.inputs]
    many = _SPARE[: max(0, *(rank - 2 for rank in ranks))]
    terms = [
        many[len(many) - max(0, rank - 2) :] + own[-rank:]
        for rank, own in zip(ranks, ("rk", "kc" if ranks[1] > 1 else "k"))
    ]
    if ranks[0] == 1:
        terms[0] = "k"
    out = many + "r" * (ranks[0] > 1) + "c" * (ranks[1] > 1)
    return replace(_of_two(builder, node, terms, out), shape=builder.shape(node))


def _of_two(builder: Builder, node: Node, terms: Sequence[str], out: str) -> View:
    constants = [builder.graph.constants.get(name) for name in node.inputs]
    if constants[0] is None and constants[1] is None:
        views = [builder.view(node, place) for place in (0, 1)]
        return _of_computed(builder, views, terms, out)
    place = 0 if constants[0] is not None else 1
    view, array = builder.view(node, 1 - place), builder.needed(node, place)
    return _with_constant(builder, view, terms[1 - place], array, terms[place], out)


def _of_one(builder: Builder, view: View, term: str, out: str) -> View:
    """Sum over the axes that are not in `out`, and put the others in its order."""
    gone = [axis for axis, letter in enumerate(term) if letter not in out]
    if gone:
        view = summed(builder, view, gone)
        kept = tuple(n for axis, n in enumerate(view.shape) if axis not in gone)
        view = replace(view, shape=kept)
    left = [letter for letter in term if letter in out]
    return builder.transposed(view, [left.index(letter) for letter in out])


def _with_constant(
    builder: Builder, view: View, term: str, array: NDArray[Any], other: str, out: str
) -> View:
    """A value times an array, summed over the axes that are not in `out`."""
    view, term, array, other = _fitted(builder, view, term, array, other, out)
    if any(letter not in out for letter in term) or any(letter not in term for letter in other):
        return _summed_up(builder, view, term, array, other, out)
    both = [letter for letter in term if letter in other]
    sizes = dict(zip(term, view.shape))
    table = array.transpose([other.index(letter) for letter in both])
    table = table.reshape([sizes[letter] if letter in both else 1 for letter in term])
    made = scaled_by(builder, view, table, np.zeros((), np.float32))
    return _of_one(builder, made, term, out)


def _fitted(
    builder: Builder, view: View, term: str, array: NDArray[Any], other: str, out: str
) -> tuple[View, str, NDArray[Any], str]:
    """Simplify the two factors without changing the result.

    Axes that only one of them has are summed, unless they are in `out`. Axes of size 1 that are
    broadcast are dropped.
    """
    sizes, own = dict(zip(term, view.shape)), dict(zip(other, array.shape))
    narrow = [x for x in term if x in own and sizes[x] == 1 < own[x]]
    kept = [x for x in term if x not in narrow]
    view = replace(view, shape=tuple(sizes[x] for x in kept))
    narrow = [x for x in other if x in sizes and own[x] == 1 < sizes[x]]
    array = array.reshape([own[x] for x in other if x not in narrow])
    other = "".join(x for x in other if x not in narrow)
    gone = tuple(axis for axis, x in enumerate(other) if x not in out and x not in kept)
    array = array.sum(gone) if gone else array
    other = "".join(x for x in other if x in out or x in kept)
    left = "".join(x for x in kept if x in out or x in other)
    if len(left) < len(kept):
        view = _of_one(builder, view, "".join(kept), left)
    return view, left, array, other


def _summed_up(
    builder: Builder, view: View, term: str, array: NDArray[Any], other: str, out: str
) -> View:
    """The product as a layer; axes of both factors that are in `out` become groups."""
    lengths = {**dict(zip(other, array.shape)), **dict(zip(term, view.shape))}

    def count(letters: Sequence[str]) -> int:
        return math.prod(lengths[letter] for letter in letters)

    groups = [x for x in term if x in other and x in out and lengths[x] > 1]
    summed_over = [x for x in term if x not in out]
    rest = [x for x in term if x in out and x not in groups]
    new = [x for x in out if x not in term]
    kept = [x for x in other if lengths[x] > 1 or x not in rest]
    weight = array.reshape([lengths[x] for x in kept])
    weight = weight.transpose([kept.index(x) for x in [*groups, *new, *summed_over]])
    weight = weight.reshape(count(groups) * count(new), count(summed_over))
    order = [*groups, *summed_over, *rest] if groups else [*rest, *summed_over]
    view = builder.transposed(view, [term.index(x) for x in order])
    if groups:
        axes = [*groups, *new, *rest]
        view = _grouped(builder, view, weight, count(groups), count(rest))
    else:
        axes = [*rest, *new]
        view = replace(view, shape=(*(lengths[x] for x in rest), count(summed_over)))
        view = dense(builder, view, weight, None)
    view = replace(view, shape=tuple(lengths[x] for x in axes))
    return builder.transposed(view, [axes.index(x) for x in out])


def _grouped(
    builder: Builder, view: View, weight: NDArray[Any], groups: int, places: int
) -> View:
    """A 1 x 1 convolution with groups: one matrix for each group of channels."""
    channels = groups * weight.shape[1]
    view = builder.settle(replace(view, shape=(1, channels, places)), (None, "C", "W"))
    draft = builder.put(
        "conv2d", view, {"weight": weight[:, :, None, None]}, groups=groups, bias=False
    )
    return builder.read(draft, "CHW", (1, len(weight), places))


def _of_computed(
    builder: Builder, views: Sequence[View], terms: Sequence[str], out: str
) -> View:
    """The product of two computed values, summed over the axes that are not in `out`."""
    lengths: dict[str, int] = {}
    for view, term in zip(views, terms):
        for letter, n in zip(term, view.shape):
            lengths[letter] = max(n, lengths.get(letter, 1))
    gone = [letter for letter in lengths if letter not in out]
    order = [*out, *gone]
    wide = [letter for letter in order if lengths[letter] > 1]
    count = math.prod(lengths.values())
    if len(wide) > 3 or count > _MOST_PRODUCTS:
        raise CannotImportError(
            "it multiplies two computed matrices, as attention does; that becomes layers only if "
            f"all products of their values have at most three axes and {_MOST_PRODUCTS} values, "
            f"and here they are {' x '.join(str(lengths[letter]) for letter in order)}"
        )
    spread = []
    for view, term in zip(views, terms):
        kept = [letter for letter in order if letter in term]
        moved = builder.transposed(view, [term.index(letter) for letter in kept])
        sizes = dict(zip(term, view.shape))
        spread.append(replace(moved, shape=tuple(sizes.get(letter, 1) for letter in order)))
    shape = tuple(lengths[letter] for letter in order)
    made = joined(builder, "multiply", spread, shape, "products" if gone else "")
    return _of_one(builder, made, "".join(order), out)
