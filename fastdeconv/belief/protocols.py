"""Zeiler and Fergus's protocols beside the deconvnet (arXiv 1311.2901, sections 4.1 to 4.4).

The clips that excite a feature most (figure 2), how little changes of a sound move what layers
put out (figure 5), and whether the same part of several clips means the same to a layer
(table 1).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio._checks import as_int, as_number
from ..audio.clip import Clip, as_clip
from ..audio.librosa_quietly import librosa_module
from ..deconvnet.fields import boxes_seen
from ..deconvnet.projection import deconvolve
from ..deconvnet.scores import score_probabilities, scores_of
from ..errors import ParameterError, shown
from ..network.choosing import as_list, choose_layers, open_network
from ..network.network import Network
from .grid import Grid, as_fill
from .targets import class_names, decision_kind

__all__ = ["CHANGES", "TopClips", "correspondence", "invariance", "top_clips"]

Array = NDArray[Any]
NetworkLike = Network | str | os.PathLike[str]
Box = tuple[tuple[int, int], tuple[int, int]]

#: How `invariance` changes a sound by default: decibels, seconds, semitones, times as fast.
CHANGES: dict[str, tuple[float, ...]] = {
    "gain": (-20.0, -10.0, 10.0), "shift": (0.01, 0.023, 0.1, 0.5),
    "pitch": (-2.0, -1.0, 1.0, 2.0), "tempo": (0.8, 0.9, 1.1, 1.25),
}
_FOUND = ("value", "clip", "row", "column", "top", "bottom", "left", "right")
_SAME = 1e-4
"""Of the range of an input: what rounding may do to soft sounds."""
_NO_CHANGE = 1e-9
"""Of the largest change: less is none."""


# ---- the clips that excite a feature most ----


@dataclass(frozen=True, eq=False)
class TopClips:
    """The strongest clips of every feature. Made by `top_clips`.

    Attributes
    ----------
    table : list of dict
        A row for each feature and rank: ``layer``, ``feature``, ``rank`` from 1, ``value`` (the
        activation of the strongest unit), ``clip`` (its place in `clips`), ``row`` and
        ``column`` of the unit, and ``top``, ``bottom``, ``left``, ``right``: the rows and columns
        of the input that it sees. A feature that fires nowhere has no row.
    clips : list of Clip
    network : Network
    """

    table: list[dict[str, Any]]
    clips: list[Clip]
    network: Network

    def maps(self, layer: str, feature: int) -> NDArray[np.float32]:
        """For each of a feature's clips, the strongest unit projected down: (n, C, H, W)."""
        rows = [r for r in self.table if (r["layer"], r["feature"]) == (layer, feature)]
        found = np.zeros((len(rows), *self.clips[0].x.shape), np.float32)
        for out, row in zip(found, rows):
            trace = self.network.forward(self.clips[row["clip"]].x)
            out[...] = deconvolve(trace, layer, [feature], start="max")[0]
        return found


def top_clips(
    clips: Iterable[Clip], net: NetworkLike, layers: str | Iterable[str] | None = None,
    k: int = 9,
) -> TopClips:
    """The clips that excite each feature most, each with the place of its strongest unit.

    Every clip counts once, with its strongest unit, so that no neighbours of one unit fill the
    list. One forward pass a clip serves all features of all layers.

    Parameters
    ----------
    clips : iterable of Clip
        Of one size.
    net : Network, str or path
    layers : iterable of str, optional
        Default: as in `explain`.
    k : int
        How many at most.

    Returns
    -------
    TopClips

    Raises
    ------
    ParameterError
        If a layer does not exist, or clips are none, or of several sizes.
    """
    network, given = open_network(net), _clips(clips)
    count = as_int("k", k, minimum=1, maximum=1_000_000)
    names = choose_layers(network, layers)
    best: dict[str, list[list[tuple[float, int, int, int]]]] = {}
    for number, clip in enumerate(given):
        trace = network.forward(clip.x)
        for layer in names:
            maps = trace[layer]
            flat = maps.reshape(len(maps), -1)
            places = flat.argmax(axis=1)
            lists = best.setdefault(layer, [[] for _ in maps])
            for own, values, place in zip(lists, flat, places.tolist()):
                value = float(values[place])
                if value > 0:
                    own.append((-value, number, *divmod(place, maps.shape[2])))
                    own.sort()
                    del own[count:]
    table = []
    for layer, lists in best.items():
        units = np.array([unit[2:] for own in lists for unit in own]).reshape(-1, 2)
        boxes = iter(
            boxes_seen(network, network.layer_index(layer), given[0].x.shape, units).tolist()
        )
        for feature, own in enumerate(lists):
            for rank, (value, *rest) in enumerate(own, start=1):
                found = zip(_FOUND, (-value, *rest, *next(boxes)))
                table.append({"layer": layer, "feature": feature, "rank": rank, **dict(found)})
    return TopClips(table, given, network)


# ---- what changes of the sound change ----


def invariance(
    clip: Clip, net: NetworkLike, layers: str | Iterable[str] | None = None,
    changes: Mapping[str, Sequence[float]] | None = None,
) -> list[dict[str, Any]]:
    """How far what layers put out moves when the sound is changed.

    Parameters
    ----------
    clip : Clip
    net : Network, str or path
    layers : iterable of str, optional
        Default: as in `explain`.
    changes : mapping of str to sequence of float, optional
        Of ``"gain"`` (dB), ``"shift"`` (seconds of silence before the sound), ``"pitch"``
        (semitones) and ``"tempo"`` (times as fast); default `CHANGES`.

    Returns
    -------
    list of dict
        For each change and layer ``change``, ``amount``, ``layer``, ``distance`` (Euclidean, of
        all that the layer puts out, as a share of its length; 0 where both are 0), and
        ``class`` and ``probability``: the class that the network gives the unchanged clip most,
        and what it gives it now. ``note`` says where the front end leaves nothing to see: a gain
        is no change at all for one that measures decibels below the clip's maximum, and that
        says nothing of the network.

    Raises
    ------
    ParameterError
        If a layer or a change does not exist.
    """
    network, own = open_network(net), as_clip(clip)
    names = choose_layers(network, layers)
    asked = CHANGES if changes is None else _checked_changes(changes)
    before = network.forward(own.x)
    kind, classes = decision_kind(network), class_names(before)
    probabilities = score_probabilities(kind, scores_of(before)).mean(axis=(1, 2))
    chosen = int(probabilities.argmax())
    rows = []
    for change, amounts in asked.items():
        for amount in amounts:
            changed = Clip(_changed(own, change, amount), own.sr, own.frontend)
            after = network.forward(changed.x)
            p = score_probabilities(kind, scores_of(after)).mean(axis=(1, 2))[chosen]
            is_same = float(np.abs(changed.x - own.x).max()) <= _SAME * float(np.ptp(own.x))
            note = "the front end gives the network the same input" if is_same else ""
            for layer in names:
                rows.append({
                    "change": change, "amount": float(amount), "layer": layer,
                    "distance": _distance(before[layer], after[layer]),
                    "class": classes[chosen], "probability": float(p), "note": note,
                })
    return rows


def _checked_changes(changes: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    if not isinstance(changes, Mapping):
        raise ParameterError(f"changes must be a dict, found {shown(changes)}")
    found = {}
    for name, amounts in changes.items():
        if name not in CHANGES:
            raise ParameterError(
                f"there is no change {shown(name)}; changes: {', '.join(CHANGES)}"
            )
        above = 0 if name == "tempo" else None
        found[name] = [as_number(name, a, above=above) for a in as_list(name, amounts)]
    return found


def _changed(clip: Clip, change: str, amount: float) -> NDArray[np.float32]:
    """The samples changed, as many as there were."""
    samples = clip.samples
    if change == "gain":
        return samples * np.float32(10 ** (amount / 20))
    if change == "shift":
        count = round(amount * clip.sr)
        moved = np.zeros_like(samples)
        if count >= 0:
            moved[count:] = samples[: max(0, samples.size - count)]
        else:
            moved[:count] = samples[-count:]
        return moved
    if change == "pitch":
        rate = 2.0 ** (-amount / 12)
        resample = librosa_module("librosa.core.audio").resample
        found = resample(_stretched(samples, rate), orig_sr=clip.sr / rate, target_sr=clip.sr)
    else:
        found = _stretched(samples, amount)
    fitted = np.zeros_like(samples)
    fitted[: found.size] = found[: samples.size]
    return fitted


def _stretched(samples: NDArray[np.float32], rate: float) -> NDArray[np.float32]:
    """`rate` times as fast at the same pitch, by a phase vocoder.

    As ``librosa.effects.time_stretch``, which warns in librosa 1.0 of a parameter that it gives
    the phase vocoder itself.
    """
    spectrum = librosa_module("librosa.core.spectrum")
    # Its compiled part casts memory that nobody has written yet, which may look like no number.
    with np.errstate(invalid="ignore"):
        stretched = spectrum.phase_vocoder(spectrum.stft(samples), rate=rate)
    return spectrum.istft(stretched, dtype=samples.dtype, length=round(samples.size / rate))


def _distance(before: Array, after: Array) -> float:
    length = math.sqrt(float(np.square(before, dtype=np.float64).sum()))
    moved = np.subtract(before, after, dtype=np.float64)
    distance = math.sqrt(float(np.square(moved).sum()))
    if distance == 0:
        return 0.0
    return distance / length if length else math.inf


# ---- the same part of several clips ----


def correspondence(
    clips: Iterable[Clip], boxes: Iterable[Box], net: NetworkLike,
    layers: str | Iterable[str] | None = None, *, fill: str | float = "band_mean",
    draws: int = 20, seed: int = 0,
) -> list[dict[str, Any]]:
    """Whether the same part of several clips means the same to a layer.

    In each clip a box with that part (a drum hit, a vowel) is replaced, and the signs of what
    changes in a layer are compared between clips: the fewer differ, the more the layer takes
    the parts for the same. Boxes of the same size at random places stand beside it.

    Parameters
    ----------
    clips : iterable of Clip
        At least two, of one size.
    boxes : iterable of ((int, int), (int, int))
        One a clip: its bins and its frames, each from the first up to, and without, the second.
    net : Network, str or path
    layers : iterable of str, optional
        Default: as in `explain`.
    fill : {"band_mean", "min"} or float
        As in `occlude`.
    draws : int
        How often random boxes are drawn.
    seed : int

    Returns
    -------
    list of dict
        For each layer ``moved``, the mean over pairs of clips of the share of values whose
        changes differ in sign (of those that change in one clip at least), and ``all`` (of all
        values: most do not change at all, which makes it small for nothing), and the means of
        both over random boxes, ``random_moved`` and ``random_all``, with ``random_lower``: the
        share of the draws whose ``moved`` is below that of the boxes. nan where nothing changes.

    Raises
    ------
    ParameterError
        If there are fewer than two clips, not as many boxes, or a box is outside the clip.
    """
    network, given = open_network(net), _clips(clips)
    names = choose_layers(network, layers)
    asked = as_list("boxes", boxes)
    if len(given) < 2 or len(asked) != len(given):
        raise ParameterError(
            "correspondence needs two or more clips, and a box for each; found "
            f"{len(given)} and {len(asked)}"
        )
    times = as_int("draws", draws, minimum=0, maximum=10_000)
    rng = np.random.default_rng(as_int("seed", seed, minimum=0, maximum=2**63 - 1))
    grids = [Grid.of(clip) for clip in given]
    places = [_box(box, grid.shape) for box, grid in zip(asked, grids)]
    filled = [as_fill(grid, fill) for grid in grids]
    traces = [network.forward(clip.x) for clip in given]
    before = [{layer: trace[layer] for layer in names} for trace in traces]

    def differences(places: Sequence[Box]) -> dict[str, tuple[float, float]]:
        signs: dict[str, list[Array]] = {layer: [] for layer in names}
        for grid, place, fills, known in zip(grids, places, filled, before):
            x = grid.x.copy()
            bins, frames = (slice(*span) for span in place)
            x[:, bins, frames] = fills[:, bins, frames]
            after = network.forward(grid.as_input(x))
            for layer in names:
                signs[layer].append(_signs(known[layer], after[layer]))
        return {layer: _differing(found) for layer, found in signs.items()}

    own = differences(places)
    others = [
        differences([_random_box(rng, box, grid.shape) for box, grid in zip(places, grids)])
        for _ in range(times)
    ]
    rows = []
    for layer in names:
        everything, moved = own[layer]
        random_all = [found[layer][0] for found in others]
        random_moved = [found[layer][1] for found in others if not math.isnan(found[layer][1])]
        rows.append({
            "layer": layer, "moved": moved, "all": everything,
            "random_moved": _mean(random_moved), "random_all": _mean(random_all),
            "random_lower": _mean([float(value < moved) for value in random_moved]),
        })
    return rows


def _signs(before: Array, after: Array) -> Array:
    change = np.subtract(before, after, dtype=np.float64)
    largest = float(np.abs(change).max(initial=0.0))
    return np.where(np.abs(change) <= _NO_CHANGE * largest, 0, np.sign(change)).astype(np.int8)


def _differing(signs: Sequence[Array]) -> tuple[float, float]:
    """Of all values, and of those that change in one of two clips."""
    everything, moved = [], []
    for a, b in combinations(signs, 2):
        differs, changes = a != b, (a != 0) | (b != 0)
        everything.append(float(differs.mean()))
        if changes.any():
            moved.append(float(differs[changes].mean()))
    return _mean(everything), _mean(moved)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _box(box: Any, shape: tuple[int, int]) -> Box:
    wanted = f"((first, last), (first, last)) of {shape[0]} bins and {shape[1]} frames"
    spans = as_list("boxes", box)
    if len(spans) != 2 or any(len(as_list("boxes", span)) != 2 for span in spans):
        raise ParameterError(f"boxes must be {wanted}, found {shown(box)}")
    found = []
    for span, size in zip(spans, shape):
        lo, hi = (as_int("a box", n, minimum=0, maximum=size) for n in span)
        if lo >= hi:
            raise ParameterError(f"boxes must be {wanted}, found {shown(box)}")
        found.append((lo, hi))
    return found[0], found[1]


def _random_box(rng: np.random.Generator, box: Box, shape: tuple[int, int]) -> Box:
    spans = []
    for (lo, hi), size in zip(box, shape):
        begin = int(rng.integers(0, size - (hi - lo) + 1))
        spans.append((begin, begin + hi - lo))
    return spans[0], spans[1]


def _clips(clips: Iterable[Clip]) -> list[Clip]:
    found = [as_clip(clip) for clip in as_list("clips", clips)]
    shapes = {clip.x.shape for clip in found}
    if len(shapes) != 1:
        raise ParameterError(
            "clips must be at least one, of one size; found "
            f"{', '.join(sorted(map(str, shapes))) or 'none'}"
        )
    return found
