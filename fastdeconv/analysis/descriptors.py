"""Descriptors of every feature's map and sound: numbers, a label, and an order to listen in.

`describe` takes the maps of one layer. docs/listening.md has every definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import as_array
from ..audio._checks import MODES, as_choice
from ..audio.auralise import heard_magnitude
from ..audio.clip import Clip, as_clip
from ..errors import ParameterError, shown
from ..kernels.dispatch import get_num_threads
from ..kernels.schedule import run_bands
from ..network.choosing import as_list
from .hpss import harmonic_mask
from .labels import label
from .measures import (
    PRODUCT,
    correlation,
    require_product_memory,
    selectivity,
    spectral_flux,
)

__all__ = ["DESCRIPTORS", "TWINS", "Listener", "Measured", "describe"]

FloatArray = NDArray[np.float32]

#: The numbers of a feature, in the order of the table.
DESCRIPTORS = (
    "level", "share", "onset", "attack", "harmonic", "centroid", "bandwidth", "flatness",
    "low", "mid", "high", "sustain", "frequency_selectivity", "time_selectivity", "sign", "copy",
)
_OF_TIME = ("onset", "attack", "harmonic", "sustain", "time_selectivity")

#: Maps that correlate more than this are twins.
TWINS = 0.95

_LOW_HZ, _HIGH_HZ = 200.0, 2000.0
_SUSTAIN_SECONDS = 0.1
_LEAST_FRAMES = 3  # the correlation of two frames is always 1 or -1
_ATTACK_LIMIT = 60.0  # dB: instead of infinity where all other frames are silent
_FLOOR = 1e-8  # energy relative to the strongest band: the 80 dB of the pictures
_RANK_RANGE = 60.0  # dB below the strongest feature of the layer at which strength is 0
_CHUNK = 1 << 13  # bins of all maps that a thread takes at a time
_BLOCK_VALUES = 1 << 18  # values of maps that a thread takes at a time: they stay in its cache


def describe(
    clip: Clip,
    maps: ArrayLike,
    mode: str = "mask",
    *,
    features: Iterable[int] | None = None,
    num_threads: int | None = None,
) -> list[dict[str, Any]]:
    """Describe the features of one layer: their maps and their sounds.

    The "spectrogram heard" is the magnitude that becomes the sound: abs(STFT) * abs(map) with mode
    "mask", the positive part of the map with "phase". The "energy heard" is its square.

    Parameters
    ----------
    clip : Clip
    maps : array, shape (K, 1, H, W) or (K, H, W), real
        The maps of one layer, as `deconvolve` gives them.
    mode : {"mask", "phase", "wiener"}
        As in `auralise`.
    features : sequence of int, optional
        The numbers of the K features, all different. Default: 0 to K - 1.
    num_threads : int, optional
        Default: that of `fastdeconv.config`.

    Returns
    -------
    list of dict
        One for each map, in their order, with

        ``feature``
            Its number.
        ``rank``
            Position in the order to listen in, from 1. First come features that are strong,
            unlike those before them and unlike the input; then twins; then silent features.
        ``label``
            Words that the numbers justify: "onsets", "avoids onsets", "sustained harmonics",
            "low end", "high noise", several of them joined by ", ", or one of "copies the input"
            and "silent". Empty if there are none.
        ``twin_of``
            A stronger feature whose map has a correlation above 0.95 with this one, or None.
        ``level``
            Energy heard, in dB relative to the strongest feature of the layer.
        ``share``
            Share of the clip's energy that the map, scaled to a maximum of 1, lets through.
        ``onset``
            Correlation over frames of the map's size (sum of absolute values) with the clip's
            spectral flux (sum of the rises of abs(STFT)), -1 to 1. For a clip of one or two
            frames this and all other descriptors of time are None.
        ``attack``
            Mean size of the map in frames of strong flux (more than a standard deviation above
            its mean) relative to all other frames, in dB, -60 to 60. Negative if the map
            suppresses attacks; None if no frame has strong flux.
        ``harmonic``
            Share of the energy heard in the harmonic part of the clip
            (`librosa.decompose.hpss`); the rest is percussive.
        ``centroid``, ``bandwidth``
            Mean frequency of the energy heard, and its standard deviation, in Hz.
        ``flatness``
            Geometric mean divided by arithmetic mean of the energy heard in each band, 0 to 1.
        ``low``, ``mid``, ``high``
            Shares of the energy heard below 200 Hz, from 200 to 2000 Hz, and above.
        ``sustain``
            Autocorrelation of the spectrogram heard at a lag of 0.1 s, 0 to 1; None if the clip
            is shorter.
        ``frequency_selectivity``, ``time_selectivity``
            0 if the map's energy is the same in all bands (frames), near 1 if it is all in one.
        ``sign``
            Sum of the map divided by the sum of its absolute values, -1 to 1.
        ``copy``
            Correlation of the map with the network's input, -1 to 1.

        For a silent feature ``level`` and all numbers after it are None.

    Raises
    ------
    ParameterError
        If maps, mode or features are not as described.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> net = fd.pretrained("choi5-genre")
    >>> clip = fd.Clip(np.sin(np.arange(44100)), 11025, net.frontend)
    >>> maps = fd.deconvolve(net.forward(clip.x), "pool2", features=[0, 1])
    >>> sorted(row["rank"] for row in fd.describe(clip, maps))
    [1, 2]
    """
    as_choice("mode", mode, MODES)
    weights = as_clip(clip).weights(maps, mode)
    return Listener(clip, mode, num_threads).describe(weights, features)


class Measured(NamedTuple):
    """What was measured of the maps of a clip."""

    rows: list[dict[str, Any]]
    """The descriptors of each map, except its level; all None for a silent map."""
    energies: NDArray[np.float64]
    """Energy heard of each map."""
    alike: NDArray[np.float64]
    """Correlations of the maps with each other."""
    copies: NDArray[np.float64]
    """Correlations of the maps with the network's input."""
    frames: int
    """Number of frames of the clip."""
    scale: float
    """Factor that makes the energies comparable with those of another clip."""

    def described(
        self, numbers: Sequence[int], clip: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """What `describe` returns.

        Parameters
        ----------
        numbers : sequence of int
            The numbers of the features.
        clip : mapping
            The descriptors of the clip itself, see `Listener.clip`.
        """
        strongest = self.energies.max(initial=0.0)
        rows = []
        for row, energy in zip(self.rows, self.energies):
            level = float(10 * np.log10(energy / strongest)) if energy > 0 else None
            rows.append({**row, "level": level})
        twin_of = _find_twins(self.alike, self.energies)
        rank = _rank(self.alike, self.copies, self.energies, twin_of)
        return [
            {
                "feature": number,
                "rank": int(rank[i]),
                "label": label(row, clip, self.frames),
                "twin_of": None if twin_of[i] < 0 else numbers[twin_of[i]],
                **row,
            }
            for i, (number, row) in enumerate(zip(numbers, rows))
        ]


class Listener:
    """Describes layers of one clip; what depends only on the clip is computed once.

    Parameters
    ----------
    clip : Clip
    mode : {"mask", "phase", "wiener"}
    num_threads : int, optional
    """

    def __init__(self, clip: Clip, mode: str, num_threads: int | None = None) -> None:
        self._mode = mode
        self._threads = get_num_threads(num_threads)
        # All arrays here are (T, F), with their values in the memory order of maps.
        self._order = clip.map_order
        stft: FloatArray = np.asarray(np.abs(clip.stft.T), np.float32, order=self._order)
        largest = float(stft.max(initial=0.0))
        self._stft: FloatArray = stft / np.float32(largest) if largest > 0 else stft
        self._energy = float(np.square(self._stft, dtype=np.float64).sum())
        # Energies are measured with the clip scaled to a largest magnitude of 1.
        self._scale = largest**2 if mode == "mask" and largest > 0 else 1.0
        self._input: FloatArray = np.asarray(clip.seen.T, order=self._order)
        self._harmonic = np.asarray(
            harmonic_mask(np.ascontiguousarray(self._stft.T), self._threads).T, order=self._order
        )
        self._flux = spectral_flux(self._stft.T)
        self._strong = self._flux > self._flux.mean() + self._flux.std()
        self._hz = clip.frontend.transform.frequencies(clip.sr)
        self._frames = len(stft)
        self._lag = max(1, round(_SUSTAIN_SECONDS * clip.sr / clip.frontend.transform.hop_length))
        #: The descriptors of the clip itself, with the network's input in place of a map. Its
        #: level is None, because a level is relative to other features.
        self.clip: dict[str, Any] = self._own()

    def describe(
        self, planes: NDArray[np.float32], features: Iterable[int] | None = None
    ) -> list[dict[str, Any]]:
        """Like the function `describe`, for maps (K, T, F) as `Clip.weights` gives them."""
        numbers = list(range(len(planes)))
        if features is not None:
            numbers = _checked_numbers(features, len(planes))
        return self.measure(planes).described(numbers, self.clip)

    def measure(self, planes: NDArray[np.float32]) -> Measured:
        """Measure each map, and how much maps are alike."""
        rows: list[dict[str, Any]] = [dict.fromkeys(DESCRIPTORS) for _ in planes]
        energies = np.zeros(len(planes))
        size = max(1, _BLOCK_VALUES // self._stft.size)
        blocks, chunks = -(-len(planes) // size), -(-self._stft.size // _CHUNK)
        require_product_memory(min(self._threads, max(1, blocks, chunks)))

        def work(block: int) -> None:
            part = slice(block * size, (block + 1) * size)
            found, energies[part] = self._measure(planes[part])
            for row, own in zip(rows[part], found):
                row.update(own)

        run_bands(blocks, work, self._threads)
        # Correlations do not depend on the order of bins, so take the order in memory.
        alike, copies = _correlations(
            [plane.ravel(self._order) for plane in planes], self._input.ravel(self._order),
            self._threads,
        )
        for row, energy, copy in zip(rows, energies, copies):
            if energy > 0:
                row["copy"] = float(copy)
        return Measured(rows, energies, alike, copies, self._frames, self._scale)

    def _own(self) -> dict[str, Any]:
        numbers: dict[str, Any] = dict.fromkeys(DESCRIPTORS)
        if self._energy > 0:
            heard = self._stft[None]
            found = self._numbers(self._input[None], heard, _energy(heard, "f"))
            numbers |= {"share": 1.0, "copy": 1.0, **_rows(found, 1)[0]}
        return numbers

    def _measure(self, planes: FloatArray) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
        """Descriptors of some maps (none for silent ones), and their energies heard."""
        largest: FloatArray = np.maximum(planes.max(axis=(1, 2)), -planes.min(axis=(1, 2)))
        largest[largest == 0] = 1
        unit = planes / largest[:, None, None]
        masked = heard_magnitude(unit, self._stft, "mask")
        heard = masked if self._mode != "phase" else heard_magnitude(unit, self._stft, self._mode)
        bands = _energy(heard, "f")
        energy = bands.sum(axis=1)
        passed = energy if self._mode == "mask" else _energy(masked, "f").sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {"share": passed / self._energy, **self._numbers(unit, heard, bands)}
        rows = [
            row if own > 0 else {} for row, own in zip(_rows(found, len(planes)), energy.tolist())
        ]
        return rows, energy * largest.astype(np.float64) ** 2

    def _numbers(
        self, unit: FloatArray, heard: FloatArray, bands: NDArray[np.float64]
    ) -> dict[str, NDArray[np.float64]]:
        found = self._of_map(unit) | self._of_sound(heard, bands)
        if self._frames < _LEAST_FRAMES:
            found |= dict.fromkeys(_OF_TIME, np.full(len(unit), np.nan))
        return found

    def _of_map(self, unit: FloatArray) -> dict[str, NDArray[np.float64]]:
        frames = np.abs(unit).sum(axis=2, dtype=np.float64)
        total = frames.sum(axis=1)
        return {
            "onset": correlation(frames, self._flux),
            "attack": self._attack(frames),
            "frequency_selectivity": selectivity(_energy(unit, "f")),
            "time_selectivity": selectivity(_energy(unit, "t")),
            "sign": unit.sum(axis=(1, 2), dtype=np.float64) / np.where(total > 0, total, 1),
        }

    def _attack(self, frames: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self._strong.any():
            return np.full(len(frames), np.nan)
        strong = frames[:, self._strong].mean(axis=1)
        other = frames[:, ~self._strong].mean(axis=1)
        limit = 10 ** (_ATTACK_LIMIT / 20)
        ratio = np.divide(strong, other, out=np.full(len(frames), limit), where=other > 0)
        return 20 * np.log10(np.clip(ratio, 1 / limit, limit))

    def _of_sound(
        self, heard: FloatArray, bands: NDArray[np.float64]
    ) -> dict[str, NDArray[np.float64]]:
        total = bands.sum(axis=1)
        centroid = np.einsum("kf,f->k", bands, self._hz) / total  # @ may depend on BLAS's threads
        distance = np.square(self._hz - centroid[:, None])
        low, high = self._hz < _LOW_HZ, self._hz >= _HIGH_HZ
        floored = np.maximum(bands / bands.max(axis=1, keepdims=True), _FLOOR)
        return {
            "harmonic": np.einsum("ktf,tf->k", np.square(heard), self._harmonic) / total,
            "centroid": centroid,
            "bandwidth": np.sqrt((bands * distance).sum(axis=1) / total),
            "flatness": np.exp(np.log(floored).mean(axis=1)) / floored.mean(axis=1),
            "low": bands[:, low].sum(axis=1) / total,
            "mid": bands[:, ~low & ~high].sum(axis=1) / total,
            "high": bands[:, high].sum(axis=1) / total,
            "sustain": self._sustain(heard),
        }

    def _sustain(self, heard: FloatArray) -> NDArray[np.float64]:
        if self._lag >= self._frames:
            return np.full(len(heard), np.nan)
        early, late = heard[:, : -self._lag], heard[:, self._lag :]
        norm = _dot(early, early) * _dot(late, late)
        return _dot(early, late) / np.sqrt(np.where(norm > 0, norm, 1))


def _checked_numbers(features: Iterable[int], count: int) -> list[int]:
    array = as_array(as_list("features", features), "features")
    numbers: list[int] = array.tolist()
    is_ints = array.ndim == 1 and (not array.size or array.dtype.kind in "iu")
    if not is_ints or not count == len(numbers) == len(set(numbers)):
        raise ParameterError(
            f"features must be {count} different ints, one for each map, found {shown(numbers)}"
        )
    return numbers


def _rows(found: Mapping[str, NDArray[np.float64]], count: int) -> list[dict[str, Any]]:
    """Rows of plain numbers from columns; NaN becomes None."""
    columns = {key: values.tolist() for key, values in found.items()}
    return [
        {key: None if values[i] != values[i] else values[i] for key, values in columns.items()}
        for i in range(count)
    ]


def _energy(values: FloatArray, axis: str) -> NDArray[np.float64]:
    """Sums of squares of every map of (K, T, F) for each frame ("t") or each bin ("f").

    Summed by einsum in float32, which takes half the time of squaring and summing.
    """
    return np.einsum(f"ktf,ktf->k{axis}", values, values).astype(np.float64)


def _dot(a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    return np.einsum("ktf,ktf->kf", a, b).sum(axis=1, dtype=np.float64)


def _correlations(
    maps: Sequence[FloatArray], x: FloatArray, num_threads: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlations of flat maps with each other, (K, K), and with the input, (K,)."""
    count = len(maps)
    subjects = [*maps, x]
    scale = np.array([max(float(np.abs(s).max(initial=0.0)), 1e-30) for s in subjects])
    means = np.array([float(s.mean(dtype=np.float64)) for s in subjects])
    centre, unit = (s.astype(np.float32)[:, None] for s in (means, scale))
    grams = np.zeros((-(-x.size // _CHUNK), count + 1, count + 1))
    step = max(1, PRODUCT // (count + 2) ** 2)

    def work(i: int) -> None:
        part = np.stack([s[i * _CHUNK : (i + 1) * _CHUNK] for s in subjects])
        part -= centre
        part /= unit
        for at in range(0, part.shape[1], step):
            columns = part[:, at : at + step]
            grams[i] += columns @ columns.T

    run_bands(len(grams), work, num_threads)
    gram = grams.sum(axis=0)
    # A map that is the same everywhere has correlation 0 with everything.
    norms = np.sqrt(np.diag(gram))
    flat = norms <= 1e-6 * np.sqrt(x.size)
    gram /= np.where(flat, np.inf, norms)[:, None] * np.where(flat, np.inf, norms)
    return gram[:count, :count], gram[:count, count]


def _find_twins(alike: NDArray[np.float64], energies: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each map the index of the map it is a twin of, or -1.

    The strongest remaining map represents all remaining maps that are like it; and so on.
    """
    twin_of = np.full(len(energies), -1)
    free = energies > 0
    for i in np.argsort(-energies, kind="stable"):
        if not free[i]:
            continue
        free[i] = False
        group = free & (alike[i] > TWINS)
        twin_of[group] = i
        free &= ~group
    return twin_of


def _rank(
    alike: NDArray[np.float64],
    copies: NDArray[np.float64],
    energies: NDArray[np.float64],
    twin_of: NDArray[np.int64],
) -> Sequence[int]:
    """The position of each map in the order to listen in, from 1.

    The next map is always that with the largest product strength * (1 - |copy|) * (1 - its largest
    correlation with the maps before it). Twins follow by strength, then silent maps.
    """
    count = len(energies)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = 10 * np.log10(energies / energies.max(initial=0.0))
    strength = np.where(energies > 0, np.clip(1 + level / _RANK_RANGE, 1e-3, 1), 0)
    merit = strength * (1 - np.clip(np.abs(copies), 0, 1))
    order = []
    left = np.flatnonzero((energies > 0) & (twin_of < 0))
    nearest = np.zeros(count)
    while left.size:
        best = left[np.argmax((merit * (1 - nearest))[left])]
        order.append(best)
        nearest = np.maximum(nearest, np.clip(alike[best], 0, 1))
        left = left[left != best]
    others = np.setdiff1d(np.arange(count), order)
    order.extend(sorted(others, key=lambda i: (-energies[i], i)))
    rank = np.empty(count, int)
    rank[np.array(order, int)] = np.arange(1, count + 1)
    return rank.tolist()
