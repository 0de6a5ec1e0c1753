"""The first pass over a song: time lines, scores, and which features to hear first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .planning import ALL, Progress
from .song_windows import runs

if TYPE_CHECKING:
    from ..audio.clip import Clip
    from ..deconvnet.scores import ClassScore
    from ..network.network import Network
    from .song_planning import SongPlan
    from .song_windows import WindowRun

__all__ = ["FIRST", "SongPass"]

FloatArray = NDArray[np.float32]

#: How many features of a layer are rendered where none are asked for.
FIRST = 8
_CANDIDATES = 32
"""They are chosen among so many of a layer, those that fire most strongly over the song."""
_LISTENED = 8
"""Windows, evenly spaced over the song, in which these are compared."""


class _Unit(NamedTuple):
    """The strongest unit of a feature so far."""

    value: float
    row: int
    column: int
    sounds: bool
    """Whether any unit of the feature is not zero."""

    def or_else(self, other: _Unit) -> _Unit:
        """The stronger of two; of equal ones the first in row-major order."""
        first = min(self, other, key=lambda one: (-one.value, one.row, one.column))
        return first._replace(sounds=self.sounds or other.sounds)


class SongPass:
    """What one pass over the windows of a song finds.

    Attributes
    ----------
    timeline, scores, outputs, probabilities, features
        As of `fastdeconv.SongExplanation`.
    """

    def __init__(self, plan: SongPlan, progress: Progress | None) -> None:
        from ..analysis.timeline import Timeline

        self._plan = plan
        size, sr = plan.given.samples.size, plan.given.sr
        lines = {layer: Timeline(count, size, sr) for layer, count in plan.counts.items()}
        self._units: dict[str, list[_Unit]] = {}
        self._scored: list[tuple[float, float, float, list[ClassScore]]] = []
        parts: list[FloatArray] = []
        shares = plan.windows.shares()
        for window in chain.from_iterable(runs(plan)):
            number = window.number
            if number == 0:
                self._check(window)
            for layer, line in lines.items():
                self._listen(number, window.clip, layer, line, window.activation(layer))
            if plan.head is not None:
                parts.append(self._kept(number, plan.head[0], window.activation(plan.head[0])))
            elif plan.local is None:
                self._score(shares[number], window)
            if progress is not None:
                progress("time lines", number + 1, len(plan.windows))
        self.timeline = {layer: line.values() for layer, line in lines.items()}
        if plan.head is not None:
            self._score_all(plan.head[1], np.concatenate(parts, axis=1 + "HW".index(plan.axis)))
        elif plan.local is not None and plan.network.classes:
            self._score_windows()
        self._tell_scores()
        self.features = self._chosen()

    def start(
        self, number: int, layer: str, features: Sequence[int], activation: FloatArray
    ) -> Any:
        """What the features of a layer start from in a window, see `deconvolve`.

        In an exact explanation the strongest unit is that of the song, and 1 everywhere is so
        also where a feature is silent for a while.
        """
        start = self._plan.how["start"]
        if layer not in self._units:
            return start
        plan, shape = self._plan, activation.shape[1:]
        values = np.zeros((len(features), *shape), np.float32)
        begin = plan.place_of(layer, plan.windows.rows[number].start)
        for i, k in enumerate(features):
            value, row, column, sounds = self._units[layer][k]
            row, column = (row - begin, column) if plan.axis == "H" else (row, column - begin)
            if start == "one":
                values[i] = float(sounds)
            elif 0 <= row < shape[0] and 0 <= column < shape[1]:
                values[i, row, column] = value
        return values

    def _check(self, window: WindowRun) -> None:
        """See that rule and precision are what the back end knows, before the work is done."""
        for layer in self._plan.chosen:
            window.maps(layer, [], self._plan.how["start"], self._plan.how)

    def _listen(
        self, number: int, clip: Clip, layer: str, line: Any, activation: FloatArray
    ) -> None:
        from ..analysis.timeline import strength

        plan = self._plan
        layout = clip.frontend.layout
        strengths = strength(activation, layout[1] == "T" or layout[2] == "F")
        line.add(plan.windows.rows[number], clip.samples.size, strengths, plan.unit(layer))
        if plan.local is None or plan.how["start"] == "map":
            return
        kept = self._kept(number, layer, activation)
        if not kept.size:
            return
        begin = plan.place_of(layer, plan.windows.rows[number].begin)
        known = self._units.get(layer)
        found = []
        for plane in kept:
            row, column = (int(at) for at in np.unravel_index(plane.argmax(), plane.shape))
            at = (row + begin, column) if plan.axis == "H" else (row, column + begin)
            found.append(_Unit(float(plane[row, column]), *at, bool(plane.any())))
        if known is not None:
            found = [before.or_else(here) for before, here in zip(known, found)]
        self._units[layer] = found

    def _kept(self, number: int, layer: str, activation: FloatArray) -> FloatArray:
        """What of a piece's activation is that of one pass, without the margins."""
        plan, window = self._plan, self._plan.windows.rows[number]
        begin, first, end = (
            plan.place_of(layer, at) for at in (window.start, window.begin, window.end)
        )
        is_last = number + 1 == len(plan.windows)
        kept = slice(first - begin, None if is_last else end - begin)
        return activation[:, kept] if plan.axis == "H" else activation[:, :, kept]

    def _score(self, share: float, window: WindowRun) -> None:
        clip = window.clip
        end = min(clip.start + clip.duration, self._plan.given.start + self._plan.given.duration)
        self._scored.append((clip.start, end, float(share), window.scores()))

    def _score_windows(self) -> None:
        """The scores of a network of fixed frames, of which a part takes any length."""
        from ..audio.windows import windows

        shares = windows(self._plan.given).shares()
        for window in chain.from_iterable(runs(self._plan, of_fixed_frames=True)):
            self._score(shares[window.number], window)

    def _score_all(self, head: Network, activation: FloatArray) -> None:
        from ..deconvnet.scores import class_scores

        given = self._plan.given
        scores = class_scores(head.forward(activation))
        self._scored.append((given.start, given.start + given.duration, 1.0, scores))

    def _tell_scores(self) -> None:
        self.scores: list[dict[str, Any]] = []
        self.outputs: list[tuple[str, float]] = []
        self.probabilities: list[tuple[str, float]] = []
        classes = self._plan.network.classes or ()
        if not classes or not self._scored:
            return
        for start, end, share, scores in self._scored:
            own = {one.name: one.score for one in scores}
            self.scores.append({"start": start, "end": end, "share": share, **own})
        shares = np.array([share for _, _, share, _ in self._scored])
        for i, name in enumerate(classes):
            column = [scores[i] for _, _, _, scores in self._scored]
            self.outputs.append((name, float(shares @ [one.score for one in column])))
            known = [one.probability for one in column if one.probability is not None]
            if len(known) == len(column):
                self.probabilities.append((name, float(shares @ known)))

    def _chosen(self) -> dict[str, list[int]]:
        """The features asked for; else the first by their mean rank in some windows."""
        plan = self._plan
        chosen = {
            layer: list(range(plan.counts[layer])) if wanted == ALL else wanted
            for layer, wanted in plan.chosen.items()
        }
        open_layers = [
            layer for layer, wanted in chosen.items()
            if wanted is None and plan.counts[layer] > FIRST
        ]
        candidates = {
            layer: np.sort(
                np.argsort(-self.timeline[layer].mean(axis=1, dtype=np.float64), kind="stable")
                [:_CANDIDATES]
            )
            for layer in open_layers
        }
        places = self._mean_places(candidates) if candidates else {}
        found = {}
        for layer, wanted in chosen.items():
            if isinstance(wanted, list):
                found[layer] = list(dict.fromkeys(wanted))
            elif layer in places:
                first = np.argsort(places[layer], kind="stable")[:FIRST]
                found[layer] = sorted(candidates[layer][first].tolist())
            else:
                found[layer] = list(range(plan.counts[layer]))
        return found

    def _mean_places(
        self, candidates: Mapping[str, NDArray[np.intp]]
    ) -> dict[str, NDArray[np.float64]]:
        """Sums over some windows of the ranks that features have there."""
        from ..analysis.descriptors import Listener

        plan = self._plan
        places = {layer: np.zeros(len(some)) for layer, some in candidates.items()}
        count = len(plan.windows)
        numbers = sorted({round(i * (count - 1) / (_LISTENED - 1)) for i in range(_LISTENED)})
        for group in runs(plan, numbers, layers=candidates):
            listeners = [Listener(window.clip, plan.mode) for window in group]
            for layer, some in candidates.items():
                features = some.tolist()
                for window, listener in zip(group, listeners):
                    start = self.start(window.number, layer, features, window.activation(layer))
                    maps = window.maps(layer, features, start, plan.how)
                    told = listener.describe(window.clip.weights(maps, plan.mode))
                    places[layer] += [row["rank"] for row in told]
        return places
