"""Splitting tracks by artist, and cutting clips out of them. Does not need PyTorch."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .prepare import Prepared
from .settings import Split

Samples = npt.NDArray[np.float32]


def split_tracks(tracks: Sequence[Prepared], split: Split) -> dict[str, list[Prepared]]:
    """Divide tracks into ``train``, ``validation`` and ``test``.

    All tracks of the test artists are test tracks, so that no test artist is heard in training.
    Validation tracks are whole tracks of the other artists, chosen by a hash of their names: adding
    a package does not change them.

    Raises
    ------
    ValueError
        If a test artist has no tracks, or a part has no track of some class.
    """
    artists = {track.artist for track in tracks}
    unknown = set(split.test_artists) - artists
    if unknown:
        raise ValueError(f"test artists without tracks: {sorted(unknown)}")
    parts: dict[str, list[Prepared]] = {"train": [], "validation": [], "test": []}
    for artist in sorted(artists):
        own = [track for track in tracks if track.artist == artist]
        if artist in split.test_artists:
            parts["test"] += own
            continue
        own.sort(key=lambda track: hashlib.sha256(f"{split.seed}:{track.id}".encode()).digest())
        kept = max(1, round(split.validation_share * len(own)))
        parts["validation"] += own[:kept]
        parts["train"] += own[kept:]
    for part, members in parts.items():
        lacking = {track.label for track in tracks} - {track.label for track in members}
        if lacking:
            raise ValueError(f"no {part} track of {sorted(lacking)}")
    return parts


def is_silent(clip: Samples, peak: float, share: float) -> bool:
    """Whether the RMS of `clip` is at most `share` of its track's peak."""
    return bool(np.sqrt(np.mean(np.square(clip), dtype=np.float64)) <= share * peak)


def tilted(clip: Samples, amount: float) -> Samples:
    """Filter with ``y[n] = x[n] + amount * x[n-1]``: duller if `amount` > 0, brighter if < 0."""
    out = clip.copy()
    out[1:] += np.float32(amount) * clip[:-1]
    return out


def grid_clips(samples: Samples, length: int, silence: float) -> Iterator[Samples]:
    """Yield the consecutive clips of a track, without silent ones."""
    peak = float(np.abs(samples).max(initial=0.0))
    for start in range(0, len(samples) - length + 1, length):
        clip = np.array(samples[start : start + length])
        if not is_silent(clip, peak, silence):
            yield clip


@dataclass
class RandomClips:
    """Draws random training clips.

    Every class is equally likely, and in a class every artist. A track of an artist is drawn with a
    probability in proportion to its length. All choices come from `rng`, so the same seed gives the
    same clips.

    Parameters
    ----------
    tracks : sequence of Prepared
    open_samples : callable
        Returns the samples of a track.
    classes : sequence of str
    length : int
        Samples in a clip.
    silence, tilt : float
        As in the settings.
    rng : numpy.random.Generator
    """

    tracks: Sequence[Prepared]
    open_samples: Callable[[Prepared], Samples]
    classes: Sequence[str]
    length: int
    silence: float
    tilt: float
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self._artists: dict[str, dict[str, list[Prepared]]] = defaultdict(dict)
        for track in self.tracks:
            if track.n_samples >= self.length:
                self._artists[track.label].setdefault(track.artist, []).append(track)
        self._opened = {track.id: self.open_samples(track) for track in self.tracks}
        self._peaks = {key: float(np.abs(value).max()) for key, value in self._opened.items()}

    def clips_per_epoch(self) -> float:
        """Return how many clips the tracks hold. Drawing that many is called an epoch."""
        return sum(track.n_samples for track in self.tracks) / self.length

    def draw(self) -> tuple[Samples, int]:
        """Return one clip and the index of its class."""
        label = int(self.rng.integers(len(self.classes)))
        artists = self._artists[self.classes[label]]
        own = artists[sorted(artists)[self.rng.integers(len(artists))]]
        lengths = np.array([track.n_samples for track in own], np.float64)
        track = own[self.rng.choice(len(own), p=lengths / lengths.sum())]
        amount = self.rng.uniform(-self.tilt, self.tilt)
        while True:
            start = int(self.rng.integers(track.n_samples - self.length + 1))
            clip = np.array(self._opened[track.id][start : start + self.length])
            if not is_silent(clip, self._peaks[track.id], self.silence):
                return tilted(clip, amount), label
