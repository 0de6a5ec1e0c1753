"""Figures of a classifier: balanced accuracy, confusion, per artist. Does not need PyTorch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass
class Scores:
    """Collects predictions clip by clip.

    Parameters
    ----------
    classes : sequence of str
    rows : list of (str, str, int, array), optional
        Artist, track, index of the true class, and probabilities of each clip.
    """

    classes: Sequence[str]
    rows: list[tuple[str, str, int, npt.NDArray[np.float64]]] = field(default_factory=list)

    def add(self, artist: str, track: str, label: str, probabilities: npt.NDArray[Any]) -> None:
        """Add the probabilities (n_clips, n_classes) of the clips of a track."""
        index = list(self.classes).index(label)
        self.rows += [(artist, track, index, np.asarray(p, np.float64)) for p in probabilities]

    def confusion(self, per_track: bool = False) -> npt.NDArray[np.int64]:
        """Return counts: rows are true classes, columns predicted ones.

        With `per_track` each track counts once, with the mean of its clips' probabilities.
        """
        counts = np.zeros((len(self.classes), len(self.classes)), np.int64)
        for truth, probabilities in self._units(per_track):
            counts[truth, int(probabilities.argmax())] += 1
        return counts

    def recalls(self, per_track: bool = False) -> dict[str, float]:
        """Return the share of each class that is recognised; NaN for a class without clips."""
        counts = self.confusion(per_track)
        totals = counts.sum(axis=1)
        return {
            name: float(counts[k, k] / totals[k]) if totals[k] else float("nan")
            for k, name in enumerate(self.classes)
        }

    def balanced_accuracy(self, per_track: bool = False) -> float:
        """Return the mean of the recalls, without classes that have no clips."""
        return float(np.nanmean(list(self.recalls(per_track).values())))

    def by_artist(self) -> dict[str, dict[str, Any]]:
        """Return the class, the number of clips and the share recognised of each artist."""
        hits: dict[str, list[bool]] = defaultdict(list)
        labels = {}
        for artist, _, truth, probabilities in self.rows:
            hits[artist].append(int(probabilities.argmax()) == truth)
            labels[artist] = self.classes[truth]
        return {
            artist: {"class": labels[artist], "clips": len(own), "accuracy": float(np.mean(own))}
            for artist, own in sorted(hits.items())
        }

    def summary(self) -> dict[str, Any]:
        """Return all figures as plain values for JSON."""
        return {
            "clips": len(self.rows),
            "balanced_accuracy": self.balanced_accuracy(),
            "recalls": self.recalls(),
            "confusion": self.confusion().tolist(),
            "tracks": int(self.confusion(per_track=True).sum()),
            "balanced_accuracy_per_track": self.balanced_accuracy(per_track=True),
            "confusion_per_track": self.confusion(per_track=True).tolist(),
            "artists": self.by_artist(),
        }

    def _units(self, per_track: bool) -> list[tuple[int, npt.NDArray[np.float64]]]:
        if not per_track:
            return [(truth, probabilities) for _, _, truth, probabilities in self.rows]
        tracks: dict[str, list[npt.NDArray[np.float64]]] = defaultdict(list)
        truths = {}
        for _, track, truth, probabilities in self.rows:
            tracks[track].append(probabilities)
            truths[track] = truth
        return [(truths[track], np.mean(own, axis=0)) for track, own in tracks.items()]
