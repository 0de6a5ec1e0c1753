"""How far to believe the map and the sound of a feature: numbers and a verdict.

The verdict depends on four numbers. None of them says anything alone: untrained networks reach
three of them too. docs/believe.md says what each number does not prove.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..analysis.controls import randomised, start_of
from ..analysis.measures import cross_correlations
from ..arrays import as_array
from ..audio._checks import MODES, as_choice
from ..audio.auralise import auralise
from ..audio.clip import Clip, as_clip
from ..deconvnet.trace import Trace
from ..errors import ParameterError, shown
from ..kernels.lanes import cached
from ..network.choosing import up_to
from ..network.network import Network
from .feature_maps import feature_maps
from .grid import Grid, Patches, as_fill
from .occlusion import Occlusion, occlude_trace
from .passes import side_by_side

__all__ = [
    "COLUMNS", "NUMBERS", "VERDICTS", "Subject", "agreement", "controls_of", "selectivity", "trust",
    "trust_features", "verdict", "yes_rate",
]

Array = NDArray[Any]
Numbers = NDArray[np.float64]

#: The numbers of a feature, in the order of tables.
NUMBERS = (
    "where", "support", "input_where", "beyond_input", "reactivation", "among_sounds",
    "among_features", "same", "nearest", "steadiness",
)
VERDICTS = ("yes", "unsure", "no", "silent")
#: What `trust_features` says of a feature, in the order of tables.
COLUMNS = (*NUMBERS, "verdict", "reason", "yes_rate", "control_yes_rate")
_YES = {"nearest": 0.5, "where": 0.5, "reactivation": 0.8, "among_sounds": 0.75}
"""The verdict is "yes" if no number is below these."""
_NO = {"nearest": 0.4, "where": 0.3, "reactivation": 0.5, "among_sounds": 0.5}
"""It is "no" if it is not "yes" and some number is below these."""
_SILENT = 1e-6
"""A feature is silent if its activation is at most this share of the layer's largest one."""
_ROUNDING = 1e-6, 1e-9
"""Smaller drops count as none, as shares of the feature's activation and of its largest drop."""
_TIE = 1e-5
"""Responses that differ by at most this share of the larger one are equal."""
_FULL = 1e-6
"""Denominators of partial correlations below this are rounding errors of 0."""
_LEAST_PATCHES = 3
"""Patches that a rank correlation needs."""
_NOISE = 1e-3
"""Level of the noise for `steadiness`, relative to the clip: 60 dB below it."""
_PATCH = 16
"""Size of patches, in bins and frames."""


class Subject:
    """A network and a clip, with everything that is computed once for several layers.

    Parameters
    ----------
    clip : Clip
    net : Network
    how : mapping, optional
        Parameters of `feature_maps`: rule, start, precision.
    """

    def __init__(self, clip: Clip, net: Network, how: Mapping[str, Any] | None = None) -> None:
        self.clip, self.net, self.how = clip, net, dict(how or {})
        self.grid = Grid.of(clip)
        # A waveform has one bin, and each frame is one sample.
        waveform = clip.frontend.kind == "waveform"
        step = clip.frontend.transform.hop_length if waveform else 1
        self.patches = Patches.of(self.grid.shape, (_PATCH, _PATCH * step))
        self.trace = net.forward(clip.x)
        self._occlusions: dict[str, Occlusion] = {}
        self._noisy: dict[str, Trace] = {}
        self._maps: dict[str, Array] = {}

    def maps(self, layer: str) -> Array:
        """The maps of all features of a layer."""
        return cached(self._maps, layer, lambda: self._projected(self.trace, layer))

    def _projected(self, trace: Trace, layer: str) -> Array:
        return feature_maps(trace, self.clip.frontend.layout, layer, **self.how)

    def forget(self, layer: str) -> None:
        """Free the maps of a layer."""
        self._maps.pop(layer, None)

    def activations(self, layer: str) -> Numbers:
        """The activation of each feature: the sum of its feature map, (K,)."""
        return np.asarray(self.trace[layer].sum(axis=(1, 2), dtype=np.float64))

    def drops(self, layer: str, layers: Sequence[str] = ()) -> Numbers:
        """By how much activations fall when patches are replaced, (K, patches).

        The drops of all of `layers` are computed together, and kept.
        """
        def occluded() -> Occlusion:
            filled = as_fill(self.grid, "band_mean")
            wanted = list(dict.fromkeys([layer, *layers]))
            return occlude_trace(self.trace, self.grid, self.patches, filled, wanted, [])

        if layer not in self._occlusions:
            found = occluded()
            self._occlusions.update(dict.fromkeys(found.drops, found))
        drops = self._occlusions[layer].drops[layer]
        return drops.reshape(len(drops), -1)

    def noisy_maps(self, layer: str) -> Array:
        """The maps of the clip with white noise added, 60 dB below it."""
        def traced() -> Trace:
            samples = self.clip.samples
            noise = np.random.default_rng(0).normal(size=samples.size)
            level = _NOISE * np.sqrt(np.square(samples, dtype=np.float64).mean())
            heard = (samples + level * noise).astype(np.float32)
            return self.net.forward(Clip(heard, self.clip.sr, self.clip.frontend).x)

        trace = cached(self._noisy, "trace", traced)
        return self._projected(trace, layer)


def trust(
    clip: Clip,
    net: Network,
    control: Network | None,
    layer: str,
    maps: ArrayLike,
    mode: str = "mask",
    *,
    subject: Subject | None = None,
    opponent: Subject | None = None,
) -> list[dict[str, Any]]:
    """How far to believe the maps and sounds of the features of a layer.

    Parameters
    ----------
    clip : Clip
    net : Network
    control : Network or None
        An untrained network with the same layers. Without one every verdict is "unsure" or
        "silent".
    layer : str
    maps : array, shape (K, C, H, W)
        The maps of all features of the layer, as `deconvolve` gives them.
    mode : {"mask", "phase", "wiener"}
        How maps become sounds.
    subject, opponent : Subject, optional
        The network and the control with the clip. Pass them if several layers are asked about.

    Returns
    -------
    list of dict
        One for each feature, with ``layer``, ``feature``, and these numbers, each nan if it does
        not exist:

        ``where``
            Rank correlation over patches: of the mean absolute value of the map with the absolute
            drop of the activation when the patch is replaced by band means.
        ``support``
            The same with the drop and its sign.
        ``input_where``
            What the spectrogram scores for ``where``.
        ``beyond_input``
            ``where`` without what the spectrogram explains (a partial correlation).
        ``reactivation``
            The activation of the feature in its own sound, as a share of that in the clip.
        ``among_sounds``, ``among_features``
            The share of the other features' sounds that excite the feature less than its own
            sound, and the share of the other features that its sound excites less. Activations are
            divided by those in the clip before they are compared. Chance is 0.5.
        ``same``, ``nearest``
            1 minus the correlation of the absolute values of its map with those of the control:
            with the feature of the same number, and with the feature that is most alike.
        ``steadiness``
            The same correlation with its map of the clip with noise added, 60 dB below the clip.

        and ``verdict`` ("yes", "unsure", "no" or "silent") with its ``reason``.

    Raises
    ------
    ParameterError
        If the maps are not of all features of the layer, or the control has other layers.
    """
    as_choice("mode", mode, MODES)
    own = subject or Subject(as_clip(clip), net)
    activations = own.activations(layer)
    planes = _planes(own, layer, maps, len(activations))
    is_silent = activations <= _SILENT * max(activations.max(initial=0.0), 0.0)
    found: dict[str, Numbers] = dict(
        agreement(
            # One map after the other, since each becomes float64.
            np.stack([own.patches.means(np.abs(plane)) for plane in planes]),
            own.patches.means(own.grid.x.sum(axis=0)), own.drops(layer), activations,
        )
    )
    Q = _responses(own, layer, planes, mode, activations)
    found |= selectivity(Q, is_silent)
    noisy = own.grid.planes(own.noisy_maps(layer))
    found["steadiness"] = np.diag(_alike(planes, noisy)).copy()
    found["same"] = found["nearest"] = np.full(len(planes), math.nan)
    if control is not None:
        other = opponent or Subject(own.clip, _checked_control(net, control), own.how)
        found["same"], found["nearest"] = _distances(other, layer, planes, is_silent)
    rows = []
    for k in range(len(planes)):
        row: dict[str, Any] = {"layer": layer, "feature": k}
        row |= {name: float(found[name][k]) for name in NUMBERS}
        word, reason = verdict(row, silent=bool(is_silent[k]), has_control=control is not None)
        rows.append({**row, "verdict": word, "reason": reason})
    return rows


def _planes(subject: Subject, layer: str, maps: ArrayLike, count: int) -> Array:
    array = as_array(maps, "maps")
    wanted = (count, *subject.clip.x.shape)
    if array.shape != wanted:
        raise ParameterError(
            f"maps must be of all features of layer {shown(layer)}, {wanted}, found {array.shape}"
        )
    return subject.grid.planes(array)


def _checked_control(net: Network, control: Network) -> Network:
    if [type(layer) for layer in control.layers] != [type(layer) for layer in net.layers] or any(
        control.arrays[key].shape != array.shape for key, array in net.arrays.items()
        if key in control.arrays
    ) or control.arrays.keys() != net.arrays.keys():
        raise ParameterError(
            f"the control ({shown(control.name or 'without a name')}) must have the same layers "
            "and arrays of the same shapes as the network"
        )
    return control


_Controls = tuple[Network, Network] | None
_controls: weakref.WeakKeyDictionary[Network, _Controls] = weakref.WeakKeyDictionary()


def controls_of(net: Network, x: Array) -> _Controls:
    """The control of a network, and a second one, against which the control itself is judged.

    The control of a bundled network is the network with which its training began. The batch norms
    of that one had seen music, so the second control is centred on the input `x`. For any other
    network both are `randomised`, with seeds 0 and 1, and kept. None for a network that has no
    weights to draw.
    """
    start = start_of(net)
    if start is not None:
        return start, randomised(net, 1, [x])
    if net not in _controls:
        made = randomised(net), randomised(net, 1)
        is_other = any(
            not np.array_equal(made[0].arrays[key], array) for key, array in net.arrays.items()
        )
        _controls[net] = made if is_other else None
    return _controls[net]


# ---- where the map is large, and where the feature is sensitive ----


def agreement(
    sizes: Numbers, loudness: Numbers, drops: Numbers, activations: Numbers
) -> dict[str, Numbers]:
    """``where``, ``support``, ``input_where`` and ``beyond_input``; see `trust`.

    Parameters
    ----------
    sizes : array, shape (K, n)
        The mean absolute value of each map in each patch.
    loudness : array, shape (n,)
        The mean of the input in each patch.
    drops : array, shape (K, n)
    activations : array, shape (K,)

    Returns
    -------
    dict of str to array of float64, shape (K,)
    """
    names = "where", "support", "input_where", "beyond_input"
    found = {name: np.full(len(sizes), math.nan) for name in names}
    for k, (size, drop) in enumerate(zip(sizes, drops)):
        largest = float(np.abs(drop).max(initial=0.0))
        least = max(_ROUNDING[0] * abs(float(activations[k])), _ROUNDING[1] * largest)
        counts = np.abs(drop) > least
        seen = (size > 0) | counts
        if seen.sum() < _LEAST_PATCHES or not size.any() or not counts.any():
            continue
        P, X = size[seen], loudness[seen]
        d = np.where(counts, drop, 0.0)[seen]
        where, of_input = _rho(P, np.abs(d)), _rho(X, np.abs(d))
        between = _rho(P, X)
        left = math.sqrt(max(0.0, (1 - between**2) * (1 - of_input**2)))
        found["where"][k], found["support"][k] = where, _rho(P, d)
        found["input_where"][k] = of_input
        if left > _FULL:  # otherwise loudness explains everything
            found["beyond_input"][k] = (where - between * of_input) / left
    return found


def _rho(a: Numbers, b: Numbers) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; nan if one side is constant."""
    ranks = np.stack([_ranks(a), _ranks(b)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = math.sqrt(float(np.square(ranks[0]).sum() * np.square(ranks[1]).sum()))
    return float((ranks[0] * ranks[1]).sum()) / norms if norms > 0 else math.nan


def _ranks(values: Numbers) -> Numbers:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place.reshape(-1)]


# ---- what the sound of a feature excites ----


def _responses(
    subject: Subject, layer: str, planes: Array, mode: str, activations: Numbers
) -> Numbers:
    """Q[k, j]: activation of feature j in the sound of feature k, relative to that in the clip."""
    clip, net = subject.clip, up_to(subject.net, layer)
    sounds = auralise(clip, subject.grid.inputs(planes), mode)
    level = math.sqrt(float(np.square(clip.samples, dtype=np.float64).mean()))

    def answers(k: int) -> Numbers:
        own = math.sqrt(float(np.square(sounds[k], dtype=np.float64).mean()))
        if own == 0:
            return np.zeros(len(activations))
        heard = (sounds[k] * (level / own)).astype(np.float32)
        trace = net.forward(Clip(heard, clip.sr, clip.frontend).x)
        return np.asarray(trace[layer].sum(axis=(1, 2), dtype=np.float64))

    found = np.stack([*side_by_side(answers, len(sounds))])
    with np.errstate(divide="ignore", invalid="ignore"):
        return found / activations


def selectivity(Q: Numbers, is_silent: NDArray[np.bool_]) -> dict[str, Numbers]:  # noqa: N803
    """``reactivation``, ``among_sounds`` and ``among_features``; see `trust`.

    Parameters
    ----------
    Q : array, shape (K, K)
        ``Q[k, j]`` is the activation of feature j in the sound of feature k, as a share of that in
        the clip.
    is_silent : array of bool, shape (K,)
        Silent features are left out of all comparisons, and their own numbers are nan.

    Returns
    -------
    dict of str to array of float64, shape (K,)
    """
    names = "reactivation", "among_sounds", "among_features"
    found = {name: np.full(len(Q), math.nan) for name in names}
    for k in np.flatnonzero(~is_silent):
        others = ~is_silent
        others[k] = False
        own = Q[k, k]
        found["reactivation"][k] = own
        found["among_sounds"][k] = _share_below(Q[others, k], own)
        found["among_features"][k] = _share_below(Q[k, others], own)
    return found


def _share_below(values: Numbers, own: float) -> float:
    """The share of values below `own`, where equal ones count half; nan if there are none."""
    if not len(values):
        return math.nan
    is_tie = np.abs(values - own) <= _TIE * np.maximum(np.abs(values), abs(own))
    return float(((values < own) & ~is_tie).mean() + is_tie.mean() / 2)


# ---- the maps of a control ----


def _alike(planes: Array, others: Array) -> Numbers:
    """Correlations of the absolute values of maps (K, F, T) with those of others (J, F, T)."""
    return cross_correlations(
        np.abs(planes).reshape(len(planes), -1), np.abs(others).reshape(len(others), -1)
    )


def _distances(
    control: Subject, layer: str, planes: Array, is_silent: NDArray[np.bool_]
) -> tuple[Numbers, Numbers]:
    """``same`` and ``nearest``; see `trust`."""
    alike = _alike(planes, control.grid.planes(control.maps(layer)))
    activations = control.activations(layer)
    alike[:, activations <= _SILENT * max(activations.max(initial=0.0), 0.0)] = math.nan
    alike[is_silent] = math.nan
    closest = np.where(np.isnan(alike), -np.inf, alike).max(axis=1, initial=-np.inf)
    nearest = np.where(np.isfinite(closest), 1 - closest, math.nan)
    return 1 - np.diag(alike), nearest


# ---- the verdict ----


def verdict(
    row: Mapping[str, float], *, silent: bool = False, has_control: bool = True
) -> tuple[str, str]:
    """The verdict on a feature, and the reason.

    "silent" for a silent feature. Otherwise "unsure" without a control, or if one of the four
    numbers is nan; "yes" if all four reach the thresholds of `_YES`; "no" if one of them is below
    that of `_NO`; else "unsure".
    """
    if silent:
        return "silent", "the feature does not answer to this clip"
    if not has_control:
        return "unsure", "no control"
    missing = [name for name in _YES if math.isnan(row[name])]
    if missing:
        return "unsure", f"no number for {', '.join(missing)}"
    short = [name for name, least in _YES.items() if row[name] < least]
    if not short:
        return "yes", "; ".join(f"{name} {row[name]:.2f}" for name in _YES)
    low = [name for name, least in _NO.items() if row[name] < least]
    if low:
        return "no", _below(low, row, _NO)
    return "unsure", _below(short, row, _YES)


def _below(names: list[str], row: Mapping[str, Any], least: Mapping[str, float]) -> str:
    def two_digits(value: float) -> float:
        # Rounded down: 0.7496 would read as 0.75, which is not below 0.75. But 100 * 0.29 is
        # 28.999...
        return math.floor(round(100 * value, 6)) / 100

    return "; ".join(
        f"{name} {two_digits(row[name]):.2f} is below {least[name]}" for name in names
    )


def trust_features(
    clip: Clip, net: Network, layers: Sequence[str], how: Mapping[str, Any], mode: str,
    known: Mapping[str, Array], progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """The rows of `trust` for all features of some layers, with a control made for them.

    Parameters
    ----------
    clip : Clip
    net : Network
    layers : sequence of str
    how : mapping
        Parameters of `feature_maps`: rule, start, precision.
    mode : {"mask", "phase", "wiener"}
        How maps become sounds.
    known : mapping of str to array
        Layer -> the maps of all its features, for layers whose maps were computed before.
    progress : callable, optional
        Called with (layer, features done, features in all) after each layer.

    Returns
    -------
    list of dict
        As `trust`, with two more numbers: ``yes_rate``, the share of "yes" among the features of
        the layer, and ``control_yes_rate``, the same share when the control is judged against a
        second control; nan if there is no control.
    """
    controls = controls_of(net, clip.x)
    own, *others = (Subject(clip, each, how) for each in (net, *(controls or ())))
    counts = {layer: len(own.trace[layer]) for layer in layers}
    rows: list[dict[str, Any]] = []
    for layer in layers:
        for subject in (own, *others[:1]):
            subject.drops(layer, layers)
        maps = known[layer] if layer in known else own.maps(layer)
        if controls is None:
            found, of_control = trust(clip, net, None, layer, maps, mode, subject=own), math.nan
        else:
            (control, second), (other, third) = controls, others
            found = trust(clip, net, control, layer, maps, mode, subject=own, opponent=other)
            of_control = yes_rate(trust(
                clip, control, second, layer, other.maps(layer), mode, subject=other,
                opponent=third,
            ))
        shares = {"yes_rate": yes_rate(found), "control_yes_rate": of_control}
        rows += [row | shares for row in found]
        for subject in (own, *others):
            subject.forget(layer)
        if progress is not None:
            progress(layer, len(rows), sum(counts.values()))
    return rows


def yes_rate(rows: Iterable[Mapping[str, Any]]) -> float:
    """The share of "yes" among features."""
    words = [row["verdict"] for row in rows]
    return words.count("yes") / len(words) if words else 0.0
