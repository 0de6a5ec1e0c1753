"""How faithful a map is to a decision: metrics of the literature, under their usual names.

For each map (F, T) the network runs once on the clip with more and more of the map's patches
replaced, and on the sounds that the map keeps and takes away. The numbers of every class follow
from the scores of these runs.

The area of pixel flipping is of Samek et al. (2017); SRG, the symmetric relevance gain, of
Bluecher, Vielhaben and Strodthoff (TMLR 2024); AD and AI of Chattopadhay et al., Grad-CAM++ (2018).
AG, FF and Fid-In are as in Paissan et al., L-MAC (2024). SPS and COMP are `Sparseness` and
`Complexity` of Quantus.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ..audio.auralise import auralise
from ..audio.clip import Clip
from ..deconvnet.scores import scores_of
from ..network.network import Network
from .grid import Grid, Patches, as_fill
from .passes import scores_of_constant, side_by_side
from .targets import Target

__all__ = ["FILLS", "NUMBERS", "Trial", "Tried", "complexity", "own_mask", "sparseness", "top_mask"]

Array = NDArray[Any]
Numbers = NDArray[np.float64]

#: What replaces patches -> the suffix of the numbers' names.
FILLS = {"band_mean": "", "min": "_min"}
_CUTS = 10
"""Points of a flipping curve after its first."""
_TOP = 5
"""A `_top` mask keeps one bin in this many."""
_SOUND = ("ad", "ai", "ag", "ff", "fid_in", "energy")

#: The numbers of a map, in the order of tables.
NUMBERS = (
    *(f"{name}{fill}" for fill in FILLS.values() for name in ("srg", "morf", "lerf")),
    *(f"{name}_top" for name in _SOUND), *_SOUND, "sps", "comp",
)


class _Heard(NamedTuple):
    """What the network makes of the two sounds into which a mask divides the clip."""

    kept: Numbers
    """Scores of the sound that the mask keeps."""
    left: Numbers
    """Scores of the sound that it takes away."""
    energy: float
    """Share of the clip's energy in the first."""


class Tried(NamedTuple):
    """The scores of all runs for a map, from which the numbers of every class follow."""

    curves: dict[str, tuple[list[Numbers], list[Numbers]]]
    """For each fill the scores while patches are replaced, the largest and the smallest first."""
    own: _Heard
    """Of `own_mask`."""
    top: _Heard
    """Of `top_mask`."""
    sps: float
    comp: float

    def numbers(self, target: Target, scores: Numbers) -> dict[str, float]:
        """The numbers of this map for a class; `scores` are those of the clip itself."""
        found: dict[str, float] = {}
        for fill, curves in self.curves.items():
            morf, lerf = (_area([target.probability(s) for s in curve]) for curve in curves)
            end = FILLS[fill]
            found |= {f"srg{end}": lerf - morf, f"morf{end}": morf, f"lerf{end}": lerf}
        for heard, end in ((self.top, "_top"), (self.own, "")):
            for name, value in _of_sound(target, scores, heard).items():
                found[f"{name}{end}"] = value
        found |= {"sps": self.sps, "comp": self.comp}
        return {name: found[name] for name in NUMBERS}


class Trial:
    """Measures maps of one clip; what they have in common is computed once.

    Parameters
    ----------
    clip : Clip
    net : Network
    scores : array of float64, shape (classes, H, W)
        Scores of the clip.
    """

    def __init__(self, clip: Clip, net: Network, scores: Numbers) -> None:
        self.clip, self.net, self.scores = clip, net, scores
        self.grid = Grid.of(clip)
        self._patches = Patches.of(self.grid.shape)
        self._ends: dict[str, tuple[Array, Numbers]] = {}
        """For each fill what replaces the input, and the scores of nothing but that."""
        for fill in FILLS:
            filled = as_fill(self.grid, fill)
            self._ends[fill] = filled, (
                scores_of_constant(net, clip.x.shape, clip.x.min()) if fill == "min"
                else self._run(filled)
            )
        self._energies = np.square(np.abs(clip.stft), dtype=np.float64)

    def _run(self, x: Array) -> Numbers:
        """The scores of an input (C, F, T)."""
        return scores_of(self.net.forward(self.grid.as_input(x)))

    def tried(self, e: Numbers) -> Tried:
        """Run the network for a map (F, T)."""
        means = self._patches.means(e)
        # Equal patches are in row-major order in both.
        orders = np.argsort(-means, kind="stable"), np.argsort(means, kind="stable")
        gone = [self._cuts(order) for order in orders]
        masks = own_mask(e), top_mask(e)
        curves = [*itertools.product(FILLS, gone)]

        def answers(i: int) -> _Heard | Numbers:
            """What the network makes of the sounds, then of the points of all curves."""
            if i < len(masks):
                return self._heard(masks[i])
            curve, k = divmod(i - len(masks), _CUTS - 1)
            fill, cuts = curves[curve]
            return self._run(np.where(cuts <= k, self._ends[fill][0], self.grid.x))

        found = side_by_side(answers, len(masks) + len(curves) * (_CUTS - 1))
        own, top = (cast(_Heard, next(found)) for _ in masks)
        whole = [
            [self.scores, *cast("list[Numbers]", [*itertools.islice(found, _CUTS - 1)]),
             self._ends[fill][1]]
            for fill, _ in curves
        ]
        by_fill = dict(zip(FILLS, zip(whole[::2], whole[1::2])))
        return Tried(by_fill, own, top, sparseness(e), complexity(e))

    def _cuts(self, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """For each bin (F, T), at which point after its first a curve has it replaced, from 0."""
        cuts, patches = np.empty(self.grid.shape, np.intp), [*self._patches]
        # floor(k N / n + 1 / 2) in whole numbers.
        upto = [(2 * k * len(patches) + _CUTS) // (2 * _CUTS) for k in range(1, _CUTS)]
        for i, k in zip(order, np.searchsorted(upto, np.arange(len(order)), side="right")):
            bins, frames = patches[i]
            cuts[slice(*bins), slice(*frames)] = k
        return cuts

    def _heard(self, mask: Numbers) -> _Heard:
        both = np.stack([mask, 1 - mask]).astype(np.float32)
        maps = self.grid.inputs(both)
        sounds = auralise(self.clip, maps)
        frontend = self.clip.frontend
        kept, left = (
            scores_of(self.net.forward(Clip(sound, self.clip.sr, frontend).x)) for sound in sounds
        )
        weights = np.square(self.clip.to_stft(maps[:1])[0], dtype=np.float64)
        whole = float(self._energies.sum())
        energy = float((weights * self._energies).sum()) / whole if whole > 0 else math.nan
        return _Heard(kept, left, energy)


def _area(values: Sequence[float]) -> float:
    """The area under a curve over 0 to 1, by trapezoids."""
    return (sum(values) - (values[0] + values[-1]) / 2) / (len(values) - 1)


def _of_sound(target: Target, scores: Numbers, heard: _Heard) -> dict[str, float]:
    p, own = target.probabilities(scores)
    kept, _ = target.probabilities(heard.kept)
    left, _ = target.probabilities(heard.left)
    before, after = float(p[own]), float(kept[own])
    return {
        "ad": 100 * max(0.0, before - after) / before if before > 0 else 0.0,
        "ai": 100.0 if after > before else 0.0,
        "ag": 100 * max(0.0, after - before) / (1 - before) if before < 1 else 0.0,
        "ff": before - float(left[own]),
        "fid_in": float(kept.argmax() == p.argmax()),
        "energy": heard.energy,
    }


def own_mask(e: Numbers) -> Numbers:
    """The mask of a map: its positive part, scaled to a maximum of 1; 0 if nothing is positive."""
    largest = float(e.max())
    return np.maximum(e, 0) / largest if largest > 0 else np.zeros(e.shape)


def top_mask(e: Numbers) -> Numbers:
    """1 in the fifth of the bins with the largest values, else 0; ties in row-major order."""
    count = (2 * e.size + _TOP) // (2 * _TOP)  # floor(size / 5 + 1 / 2)
    mask = np.zeros(e.size)
    mask[np.argsort(-e.ravel(), kind="stable")[:count]] = 1
    return mask.reshape(e.shape)


def sparseness(e: Numbers) -> float:
    """The Gini coefficient of a map's absolute values; nan for a map of zeros."""
    sizes = np.sort(np.abs(e).ravel())
    total, n = float(sizes.sum()), sizes.size
    if total == 0:
        return math.nan
    return float(((2 * np.arange(1, n + 1) - n - 1) * sizes).sum()) / (n * total)


def complexity(e: Numbers) -> float:
    """The entropy, in nats, of a map's absolute values as shares; nan for a map of zeros."""
    sizes = np.abs(e).ravel()
    total = float(sizes.sum())
    if total == 0:
        return math.nan
    shares = sizes[sizes > 0] / total
    return float(-(shares * np.log(shares)).sum())
