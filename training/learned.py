"""Did it learn? The exported network compared with untrained ones. Does not need PyTorch.

Everything is measured on the archives, with the package that users have:

- the shares of the filters' energy that vary along time only, along frequency only, along both, or
  not at all (see `orientation_shares`);
- how narrow the deconvolved maps are in frequency (see `selectivity`);
- how closely the maps follow onsets (see `onset_correlation`): in each network the best feature of
  each layer is chosen on validation clips and measured on test clips;
- dead features, which are silent on every validation and test clip.

The untrained networks are the one with which training began and ten with other seeds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import fastdeconv as fd
from fastdeconv.analysis import measures
from fastdeconv.analysis.measures import spectral_flux

from .data import Samples, grid_clips, split_tracks
from .prepare import Prepared, load_prepared, open_samples
from .settings import Settings

Array = npt.NDArray[Any]

ORIENTATIONS = ("constant", "time", "frequency", "both")
CLIPS_PER_ARTIST = {"train": 6, "validation": 10, "test": 20}
DEEP = 3
"""For onsets, this many of the deepest layers are also taken together."""
OTHER_SEEDS = 10
CALIBRATION_CLIPS = 16
RESAMPLINGS = 2000


def orientation_shares(weight: Array) -> Array:
    """Split the energy of filters by the direction in which they vary.

    The basis functions of the two-dimensional discrete cosine transform are constant, vary along
    time (columns) only, along frequency (rows) only, or along both. The shares of random filters of
    k x k are in proportion to the numbers of these functions: 1, k - 1, k - 1 and (k - 1)^2.

    Parameters
    ----------
    weight : array, shape (out, in, rows, columns)

    Returns
    -------
    array, shape (4,)
        In the order of `ORIENTATIONS`: means over output channels, which all count the same.
    """
    rows, columns = (_cosines(n) for n in weight.shape[2:])
    energy = np.square(np.einsum("oirc,ur,vc->oiuv", weight.astype(np.float64), rows, columns))
    energy = energy.sum(axis=1)
    parts = (
        energy[:, 0, 0],
        energy[:, 0, 1:].sum(axis=-1),
        energy[:, 1:, 0].sum(axis=-1),
        energy[:, 1:, 1:].sum(axis=(1, 2)),
    )
    total = energy.sum(axis=(1, 2))
    return np.array([(part / total).mean() for part in parts])


def selectivity(maps: Array) -> Array:
    """How much of the frequency axis a map leaves out; NaN for a silent map.

    See `fastdeconv.analysis.measures.selectivity`.

    Parameters
    ----------
    maps : array, shape (K, F, T)

    Returns
    -------
    array, shape (K,)
    """
    energy = np.square(maps, dtype=np.float64).sum(axis=2)
    return np.where(energy.any(axis=1), measures.selectivity(energy), np.nan)


def onset_correlation(maps: Array, flux: Array) -> Array:
    """Correlate the size of maps (sum of |map|) in each frame with the spectral flux of the clip.

    Parameters
    ----------
    maps : array, shape (K, F, T)
    flux : array, shape (T,)

    Returns
    -------
    array, shape (K,)
        0 if a map is silent, or has the same size in every frame.
    """
    return measures.correlation(np.abs(maps).sum(axis=1, dtype=np.float64), flux)


class Measured(NamedTuple):
    """What was measured of one network, layer by layer: arrays (clips, features)."""

    onsets: dict[str, Array]
    selectivity: dict[str, Array]


def measure_maps(net: fd.Network, inputs: Iterable[Array]) -> Measured:
    """Measure the maps of every feature of every pooling layer on every input."""
    found = Measured({layer: [] for layer in net.pooling_layers},
                     {layer: [] for layer in net.pooling_layers})
    for x in inputs:
        trace = net.forward(x)
        flux = spectral_flux(x[0])
        for layer in net.pooling_layers:
            maps = fd.deconvolve(trace, layer)[:, 0]
            found.onsets[layer].append(onset_correlation(maps, flux))
            found.selectivity[layer].append(selectivity(maps))
    return Measured(*({k: np.stack(v) for k, v in one.items()} for one in found))


def dead_features(net: fd.Network, inputs: Iterable[Array]) -> dict[str, int]:
    """Count, per pooling layer, the features that are silent on every input."""
    alive: dict[str, Array] = {}
    for x in inputs:
        trace = net.forward(x)
        for layer in net.pooling_layers:
            fires = (trace[layer] > 0).any(axis=(1, 2))
            alive[layer] = alive.get(layer, False) | fires
    return {layer: int((~fires).sum()) for layer, fires in alive.items()}


def best_onset_feature(chosen_on: Array, measured_on: Array) -> tuple[int, Array]:
    """Choose the feature with the highest mean on some clips, and take its values on others.

    Parameters
    ----------
    chosen_on, measured_on : array, shape (clips, features)

    Returns
    -------
    feature : int
    values : array, shape (clips,)
        Its values in `measured_on`.
    """
    feature = int(chosen_on.mean(axis=0).argmax())
    return feature, measured_on[:, feature]


def interval(values: Array, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of `values`, by bootstrap."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(values), size=(RESAMPLINGS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def learned(settings: Settings, cache: Path, run: Path) -> None:
    """Measure the exported network and its controls, and write ``learned.json`` in `run`."""
    net = fd.pretrained(settings.name)
    start = fd.pretrained(settings.name, trained=False)
    parts = split_tracks(load_prepared(cache), settings.split)
    inputs = {
        part: _few_inputs(settings, cache, parts[part], net, count)
        for part, count in CLIPS_PER_ARTIST.items()
    }
    controls = [start] + [
        fd.randomised(net, seed, inputs["train"][:CALIBRATION_CLIPS])
        for seed in range(1, OTHER_SEEDS + 1)
    ]
    found = {}
    for part in ("validation", "test"):
        label = f"maps, {part}"
        found[part] = [
            measure_maps(one, inputs[part])
            for one in tqdm([net, *controls], desc=label, file=sys.stderr)
        ]
    everything = _all_inputs(settings, cache, [*parts["validation"], *parts["test"]], net)
    report = {
        "learned_clips": {part: len(inputs[part]) for part in found},
        "dead": dead_features(net, everything),
        "orientations": _orientations(net, controls),
        "selectivity": _selectivities(found["test"]),
        "onsets": _onsets(net.pooling_layers, found["validation"], found["test"]),
        "input_onset": float(np.mean([
            onset_correlation(x, spectral_flux(x[0]))[0] for x in inputs["test"]
        ])),
    }
    text = json.dumps(report, indent=1)
    (run / "learned.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def _orientations(net: fd.Network, controls: Sequence[fd.Network]) -> dict[str, Any]:
    layers = [key for key, array in net.arrays.items() if array.ndim == 4]
    return {
        key: _beside([orientation_shares(one.arrays[key]) for one in (net, *controls)])
        for key in layers
    }


def _selectivities(found: Sequence[Measured]) -> dict[str, Any]:
    medians = {
        layer: [np.nanmedian(one.selectivity[layer], keepdims=True)[0] for one in found]
        for layer in found[0].selectivity
    }
    return {layer: _beside(values) for layer, values in medians.items()}


def _beside(values: Sequence[Array]) -> dict[str, Any]:
    """The values of the network, of its start, and their range in networks with other seeds."""
    others = np.array(values[2:])
    return {
        "network": values[0].tolist(),
        "untrained": values[1].tolist(),
        "other_seeds": [others.min(axis=0).tolist(), others.max(axis=0).tolist()],
    }


def _onsets(
    layers: Sequence[str], validation: Sequence[Measured], test: Sequence[Measured]
) -> dict[str, Any]:
    deep = list(layers[-DEEP:])
    groups = {f"{deep[0]} to {deep[-1]}": deep} | {layer: [layer] for layer in layers}
    return {name: _onset(own, validation, test) for name, own in groups.items()}


def _onset(
    layers: Sequence[str], validation: Sequence[Measured], test: Sequence[Measured]
) -> dict[str, Any]:
    """The best feature of some layers, in the network and in the best control."""
    def joined(one: Measured) -> Array:
        return np.concatenate([one.onsets[layer] for layer in layers], axis=1)

    names = [
        f"{layer}/{k}" for layer in layers for k in range(test[0].onsets[layer].shape[1])
    ]
    best = [
        best_onset_feature(joined(a), joined(b)) for a, b in zip(validation, test, strict=True)
    ]
    feature, values = best[0]
    rival = max((own for _, own in best[1:]), key=lambda own: float(own.mean()))
    return {
        "feature": names[feature],
        "network": [float(values.mean()), *interval(values)],
        "best_untrained": [float(rival.mean()), *interval(rival)],
        "difference": [float((values - rival).mean()), *interval(values - rival)],
    }


def _few_inputs(
    settings: Settings, cache: Path, tracks: Sequence[Prepared], net: fd.Network, count: int
) -> list[Array]:
    """A few clips of every artist, drawn with a fixed seed."""
    rng = np.random.default_rng(settings.training.seed)
    by_artist: dict[str, list[Samples]] = {}
    for track in tracks:
        by_artist.setdefault(track.artist, []).extend(_grid(settings, cache, track))
    inputs = []
    for _, clips in sorted(by_artist.items()):
        picked = rng.choice(len(clips), min(count, len(clips)), replace=False)
        inputs += [_input(clips[i], net) for i in picked]
    return inputs


def _all_inputs(
    settings: Settings, cache: Path, tracks: Sequence[Prepared], net: fd.Network
) -> Iterable[Array]:
    for track in tracks:
        yield from (_input(clip, net) for clip in _grid(settings, cache, track))


def _grid(settings: Settings, cache: Path, track: Prepared) -> Iterable[Samples]:
    samples = open_samples(cache, track, settings.frontend["sr"])
    return grid_clips(samples, settings.clip_samples, settings.training.silence)


def _input(clip: Samples, net: fd.Network) -> Array:
    assert net.frontend is not None
    return fd.Clip(clip, net.frontend.sr, net.frontend).x


def _cosines(n: int) -> Array:
    """The orthonormal cosine basis of length n: row k is basis function k."""
    k, i = np.mgrid[:n, :n]
    basis = np.cos(np.pi * k * (i + 0.5) / n)
    return basis / np.sqrt(np.square(basis).sum(axis=1, keepdims=True))
