"""Two experiments of Zeiler and Fergus (arXiv 1311.2901, sections 4.2 and 4.4).

`invariance`: how much the outputs of layers change when the sound is changed a little (figure 5).
`correspondence`: whether the same part of several clips means the same to a layer (table 1). Their
figure 2, the clips that excite a feature most, is in `top_clips`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio._checks import as_int, as_number
from ..audio.clip import Clip, as_clip
from ..audio.librosa_quietly import librosa_module
from ..deconvnet.scores import score_probabilities, scores_of
from ..errors import ParameterError, enough_memory, shown
from ..network.choosing import as_list, choose_layers, open_network
from ..network.network import Network
from .grid import Grid, as_fill
from .targets import class_names, decision_kind
from .top_clips import NetworkLike, clips_of_one_size

__all__ = ["CHANGES", "Correspondence", "Invariance", "correspondence", "invariance"]

Array = NDArray[Any]
Box = tuple[tuple[int, int], tuple[int, int]]

#: The changes that `invariance` makes by default: decibels, seconds, semitones, times as fast.
CHANGES: dict[str, tuple[float, ...]] = {
    "gain": (-20.0, -10.0, 10.0), "shift": (0.01, 0.023, 0.1, 0.5),
    "pitch": (-2.0, -1.0, 1.0, 2.0), "tempo": (0.8, 0.9, 1.1, 1.25),
}
_BOUNDS: dict[str, tuple[float, float]] = {
    "gain": (-200.0, 200.0), "shift": (-3600.0, 3600.0), "pitch": (-60.0, 60.0),
    "tempo": (1 / 16, 16.0),
}
"""The smallest and the largest amount, in the units of `CHANGES`."""
_PURPOSE = "a change of pitch or tempo"
_BY_VOCODER = {"pitch", "tempo"}
_SAME = 1e-4
"""Inputs that differ by less, as a share of their range, are the same: soft sounds are rounded."""
_LONGEST_FFT = 2048
"""Length of the phase vocoder's FFT in samples, as in librosa."""
_NO_CHANGE = 1e-9
"""A smaller change, as a share of a layer's largest change, counts as none."""


# ---- what changes of the sound change ----


class Invariance(list[dict[str, Any]]):
    """The rows that `invariance` returns: a list of dicts.

    Attributes
    ----------
    network, control : str or None
        Names of the networks. A control without a name is called "control".
    """

    def __init__(
        self, rows: Iterable[dict[str, Any]], network: str | None = None,
        control: str | None = None,
    ) -> None:
        super().__init__(rows)
        self.network, self.control = network, control

    @property
    def table(self) -> list[dict[str, Any]]:
        """The rows as a plain list."""
        return list(self)


@enough_memory("this comparison: take a shorter clip or smaller changes")
def invariance(
    clip: Clip, net: NetworkLike, layers: str | Iterable[str] | None = None,
    changes: Mapping[str, Sequence[float]] | None = None, *, control: NetworkLike | None = None,
) -> Invariance:
    """Measure how much the outputs of layers change when the sound is changed.

    Parameters
    ----------
    clip : Clip
    net : Network, str or path
    layers : iterable of str, optional
        Default: as in `explain`.
    changes : mapping of str to sequence of float, optional
        Amounts of ``"gain"`` (dB), ``"shift"`` (seconds of silence before the sound), ``"pitch"``
        (semitones) and ``"tempo"`` (times as fast); default `CHANGES`. At most 200 dB, an hour
        and 60 semitones up or down, and 16 times as fast or slow.
    control : Network, str or path, optional
        A network with the same layers to compare with, such as the untrained one. An invariance
        that it has too was not learned.

    Returns
    -------
    Invariance
        A list of dicts, one for each change, amount and layer:

        ``change``, ``amount``, ``layer``
            What the row is about.
        ``distance``
            Euclidean distance between the layer's outputs before and after, divided by the
            Euclidean norm of the output before. 0 if both outputs are all 0, inf if only the first
            is.
        ``control_distance``
            The same for the control; nan without one.
        ``class``, ``probability``
            The class that is likeliest for the unchanged clip, and its probability now.
        ``note``
            Says so if the front end gives the network the same input as before. For instance, a
            front end that measures decibels below the clip's maximum removes any gain, which proves
            no invariance of the network.

    Raises
    ------
    ParameterError
        If a layer or a change does not exist, an amount is out of its bounds, or the control
        lacks a layer.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> net = fd.pretrained("choi5-genre")
    >>> clip = fd.Clip(np.sin(np.arange(44100)), 11025, net.frontend)
    >>> rows = fd.invariance(clip, net, ["pool1", "pool5"], {"shift": [0.1, 0.5]})
    >>> [(row["amount"], row["layer"]) for row in rows]
    [(0.1, 'pool1'), (0.1, 'pool5'), (0.5, 'pool1'), (0.5, 'pool5')]
    """
    network, own = open_network(net), as_clip(clip)
    names = choose_layers(network, layers)
    other = None if control is None else open_network(control)
    if other is not None:
        choose_layers(other, names)
    asked = CHANGES if changes is None else _checked_changes(changes)
    if {*asked} & _BY_VOCODER:
        librosa_module("librosa.core.spectrum", _PURPOSE)  # fails now if it is not installed
    before = network.forward(own.x)
    of_control = None if other is None else other.forward(own.x)
    kind, classes = decision_kind(network), class_names(before)
    probabilities = score_probabilities(kind, scores_of(before)).mean(axis=(1, 2))
    chosen = int(probabilities.argmax())
    rows = []
    for change, amounts in asked.items():
        for amount in amounts:
            changed = Clip(_changed(own, change, amount), own.sr, own.frontend)
            after = network.forward(changed.x)
            beside = None if other is None else other.forward(changed.x)
            p = score_probabilities(kind, scores_of(after)).mean(axis=(1, 2))[chosen]
            is_same = float(np.abs(changed.x - own.x).max()) <= _SAME * float(np.ptp(own.x))
            note = "the front end gives the network the same input" if is_same else ""
            for layer in names:
                rows.append({
                    "change": change, "amount": float(amount), "layer": layer,
                    "distance": _distance(before[layer], after[layer]),
                    "control_distance": math.nan if of_control is None or beside is None
                    else _distance(of_control[layer], beside[layer]),
                    "class": classes[chosen], "probability": float(p), "note": note,
                })
    named = None if other is None else other.name or "control"
    return Invariance(rows, network.name, named)


def _checked_changes(changes: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    if not isinstance(changes, Mapping):
        raise ParameterError(f"changes must be a dict, found {shown(changes)}")
    found = {}
    for name, amounts in changes.items():
        if name not in CHANGES:
            raise ParameterError(
                f"there is no change {shown(name)}; changes: {', '.join(CHANGES)}"
            )
        found[name] = [_amount(name, amount) for amount in as_list(name, amounts)]
    return found


def _amount(change: str, amount: Any) -> float:
    low, high = _BOUNDS[change]
    number = as_number(change, amount)
    if not low <= number <= high:
        raise ParameterError(f"{change} must be from {low:g} to {high:g}, found {number:g}")
    return number


def _changed(clip: Clip, change: str, amount: float) -> NDArray[np.float32]:
    """The changed samples, as many as before."""
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
        resample = librosa_module("librosa.core.audio", _PURPOSE).resample
        found = resample(_stretched(samples, rate), orig_sr=clip.sr / rate, target_sr=clip.sr)
    else:
        found = _stretched(samples, amount)
    fitted = np.zeros_like(samples)
    fitted[: found.size] = found[: samples.size]
    return fitted


def _stretched(samples: NDArray[np.float32], rate: float) -> NDArray[np.float32]:
    """Samples played `rate` times as fast at the same pitch, by a phase vocoder.

    This is ``librosa.effects.time_stretch`` without the warning that librosa 1.0 gives about a
    parameter of its own.
    """
    spectrum = librosa_module("librosa.core.spectrum", _PURPOSE)
    # The largest power of two that is not longer than the sound.
    n_fft = min(_LONGEST_FFT, 1 << (samples.size.bit_length() - 1))
    before = spectrum.stft(samples, n_fft=n_fft)
    # Its compiled part reads memory that was not written yet, which may hold invalid numbers.
    with np.errstate(invalid="ignore"):
        stretched = spectrum.phase_vocoder(before, rate=rate)
    return spectrum.istft(stretched, dtype=samples.dtype, length=round(samples.size / rate))


def _distance(before: Array, after: Array) -> float:
    length = math.sqrt(float(np.square(before, dtype=np.float64).sum()))
    moved = np.subtract(before, after, dtype=np.float64)
    distance = math.sqrt(float(np.square(moved).sum()))
    if distance == 0:
        return 0.0
    return distance / length if length else math.inf


# ---- the same part of several clips ----


class Correspondence(list[dict[str, Any]]):
    """The rows that `correspondence` returns: a list of dicts.

    Attributes
    ----------
    clips : list of Clip
    boxes : list of ((int, int), (int, int))
        Bins and frames of the part in each clip.
    random_boxes : list of list of ((int, int), (int, int))
        For each draw a box for each clip.
    draws : dict of str to array of float64, shape (draws,)
        For each layer ``moved`` of each draw.
    network : str or None
        Name of the network.
    """

    def __init__(
        self, rows: Iterable[dict[str, Any]], clips: Sequence[Clip], boxes: Sequence[Box],
        random_boxes: Sequence[Sequence[Box]], draws: Mapping[str, NDArray[np.float64]],
        network: str | None = None,
    ) -> None:
        super().__init__(rows)
        self.clips, self.boxes = list(clips), list(boxes)
        self.random_boxes = [*map(list, random_boxes)]
        self.draws = dict(draws)
        self.network = network

    @property
    def table(self) -> list[dict[str, Any]]:
        """The rows as a plain list."""
        return list(self)


def correspondence(
    clips: Iterable[Clip], boxes: Iterable[Box], net: NetworkLike,
    layers: str | Iterable[str] | None = None, *, fill: str | float = "band_mean",
    draws: int = 20, seed: int = 0,
) -> Correspondence:
    """Measure whether the same part of several clips means the same to a layer.

    In each clip a box with this part (a drum hit, a vowel) is replaced. The signs of the changes
    in a layer's outputs are compared between clips: the fewer of them differ, the more the layer
    treats the parts alike. For comparison, the same is done with boxes of the same size at random
    places.

    Parameters
    ----------
    clips : iterable of Clip
        At least two, all of one size.
    boxes : iterable of ((int, int), (int, int))
        A box for each clip: its first bin and the one after its last, and its frames likewise.
    net : Network, str or path
    layers : iterable of str, optional
        Default: as in `explain`.
    fill : {"band_mean", "min"} or float
        As in `occlude`.
    draws : int
        How often random boxes are drawn, 0 to 10,000.
    seed : int
        Of the random boxes.

    Returns
    -------
    Correspondence
        A list of dicts, one for each layer:

        ``layer``
            Its name.
        ``moved``
            Of the values that change in at least one of two clips, the share of those whose changes
            differ in sign; the mean over all pairs of clips.
        ``all``
            The same share of all values. Most values do not change in either clip, so it is small
            whatever the layer does.
        ``random_moved``, ``random_all``
            Means of both over the random boxes.
        ``random_lower``
            The share of the draws whose ``moved`` is below that of the given boxes.

        A number is nan where nothing changes, and the last three without draws.

    Raises
    ------
    ParameterError
        If there are fewer than two clips, another number of boxes, clips of several sizes, or a
        box that is empty or reaches outside its clip.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> net = fd.pretrained("choi5-genre")
    >>> clips = [fd.Clip(np.sin(step * np.arange(44100)), 11025, net.frontend) for step in (1, 2)]
    >>> boxes = [((80, 96), (0, 16)), ((160, 176), (0, 16))]  # the sine of each
    >>> rows = fd.correspondence(clips, boxes, net, ["pool5"], draws=2)
    >>> sorted(rows[0])
    ['all', 'layer', 'moved', 'random_all', 'random_lower', 'random_moved']
    """
    network, given = open_network(net), clips_of_one_size(clips)
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
        return _differences(network, grids, places, filled, before)

    own = differences(places)
    drawn = [
        [_random_box(rng, box, grid.shape) for box, grid in zip(places, grids)]
        for _ in range(times)
    ]
    others = [differences(boxes) for boxes in drawn]
    rows = []
    for layer in names:
        everything, moved = own[layer]
        random_all = [found[layer][0] for found in others]
        random_moved = [found[layer][1] for found in others if not math.isnan(found[layer][1])]
        rows.append({
            "layer": layer, "moved": moved, "all": everything,
            "random_moved": _mean(random_moved), "random_all": _mean(random_all),
            "random_lower": math.nan if math.isnan(moved)
            else _mean([float(value < moved) for value in random_moved]),
        })
    moved_by_draw = {
        layer: np.array([found[layer][1] for found in others]) for layer in names
    }
    return Correspondence(rows, given, places, drawn, moved_by_draw, network.name)


def _differences(
    network: Network, grids: Sequence[Grid], places: Sequence[Box], filled: Sequence[Array],
    before: Sequence[Mapping[str, Array]],
) -> dict[str, tuple[float, float]]:
    """`all` and `moved` of each layer, when the box of each clip is replaced.

    `before` has the outputs of the layers for each clip.
    """
    signs: dict[str, list[Array]] = {layer: [] for layer in before[0]}
    for grid, place, fills, known in zip(grids, places, filled, before):
        x = grid.x.copy()
        bins, frames = (slice(*span) for span in place)
        x[:, bins, frames] = fills[:, bins, frames]
        after = network.forward(grid.as_input(x))
        for layer, own in signs.items():
            own.append(_signs(known[layer], after[layer]))
    return {layer: _differing(found) for layer, found in signs.items()}


def _signs(before: Array, after: Array) -> Array:
    """The sign of each change, 0 where it is negligible."""
    change = np.subtract(before, after, dtype=np.float64)
    largest = float(np.abs(change).max(initial=0.0))
    return np.where(np.abs(change) <= _NO_CHANGE * largest, 0, np.sign(change)).astype(np.int8)


def _differing(signs: Sequence[Array]) -> tuple[float, float]:
    """`all` and `moved` of `correspondence`, from the signs in each clip."""
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
    wanted = (
        f"((begin, end), (begin, end)) in {shape[0]} bins and {shape[1]} frames, each begin below "
        "its end"
    )
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
