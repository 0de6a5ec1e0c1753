"""What features respond to when one attribute of the music varies, with controls.

Choi, Fazekas and Sandler (arXiv 1607.02444, section 4) fed chords that vary in key, chord type
and instrument and compared the deconvolved maps of each layer by their correlation: the higher
it is among stimuli that differ in one attribute alone, the less the layer minds that attribute.
Here the same is asked of every feature, and beside it, always, of the input spectrogram and of
an untrained network, without which the figures mean little: spectrograms of the same notes are
alike before any network sees them, and deep maps are alike because deconvolution blurs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..deconvnet.projection import checked_features, deconvolve
from ..errors import ParameterError, enough_memory, shown
from ..kernels.dispatch import config, get_num_threads
from ..network.choosing import choose_layers, open_network, up_to
from ..network.layers import shape_text
from ..network.network import Network
from .controls import untrained
from .correlation import PairSums, open_at_most
from .design import Design

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from .stimuli import Stimulus

__all__ = ["SUBJECTS", "VIEWS", "AttributeStudy", "Correlations", "Estimate", "attribute_study"]

Array = NDArray[Any]

SUBJECTS = ("network", "control", "input")
VIEWS = ("map", "activation")

_LANES = 64
"""Most features that are projected at a time; more take no longer apart than together."""
_SUMS_BYTES = 1 << 30
"""What the running sums of one pass may take."""
_INPUT_BYTES = 1 << 28
"""Inputs are kept for the next layer up to this; beyond it they are made again."""
_CALIBRATION_INPUTS = 16
_CONFIDENCE = 0.95


class Correlations(NamedTuple):
    """Correlations of one network's features in one layer, group by group.

    Attributes
    ----------
    sums : array of float64, shape (features, groups)
        Sum of the correlations of all pairs of a group of stimuli.
    pairs : array of int64, shape (features, groups)
        How many pairs that are; pairs with a silent map do not count.
    """

    sums: Array
    pairs: Array


class Estimate(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@enough_memory("this study: take fewer features or shorter stimuli")
def attribute_study(
    net: Network | str | os.PathLike[str],
    stimuli: Sequence[Stimulus] | None = None,
    *,
    layers: str | Sequence[str] | None = None,
    features: Sequence[int] | None = None,
    control: Network | None = None,
    rule: Literal["deconvnet", "guided", "gradient"] = "deconvnet",
    start: Literal["map", "max"] = "map",
    precision: Literal["float32", "bf16"] = "float32",
    resamplings: int = 1000,
    progress: Callable[[str, int, int], None] | None = None,
    backend: str | None = None,
    num_threads: int | None = None,
) -> AttributeStudy:
    """Measure how much the features of each layer mind each attribute of the stimuli.

    For every feature of every layer: the mean Pearson correlation of its maps over all pairs
    of stimuli that differ in one attribute alone. Near 1, the feature shows the same whatever
    the attribute; near 0, it shows something else. Maps are streamed, never kept: a study of
    500 stimuli is 160,000 maps of the paper's network and as many of the control.

    Parameters
    ----------
    net : Network, str or path
        A network with a front end, the name of a bundled one, or an archive.
    stimuli : sequence of Stimulus, optional
        From `chord_stimuli` (the default) or `read_stimuli`.
    layers : str or sequence of str, optional
        Default: every pooling layer.
    features : sequence of int, optional
        Of each layer; default all.
    control : Network, optional
        What to compare with, of the same layers. Default: the bundled network before its
        training; for others `randomised` with seed 0, its channels centred on some stimuli.
    rule, start, precision, backend, num_threads
        See `deconvolve`.
    resamplings : int
        Bootstrap resamplings behind every interval.
    progress : callable, optional
        Called with (what is being done, steps done, steps in all).

    Returns
    -------
    AttributeStudy

    Raises
    ------
    ParameterError
        If the network has no front end, stimuli give inputs of different shapes or do not
        differ in single attributes, the control has other layers, or an option does not fit.
    """
    network = open_network(net)
    if network.frontend is None:
        raise ParameterError("the network has no front end: Network(..., frontend=Frontend(...))")
    if isinstance(resamplings, bool) or not isinstance(resamplings, int) or resamplings < 1:
        raise ParameterError(f"resamplings must be an int from 1, found {resamplings!r}")
    if stimuli is None:
        from .stimuli import chord_stimuli

        stimuli = chord_stimuli()
    chosen = list(stimuli)
    names = choose_layers(network, layers)
    design = Design([stimulus.attributes for stimulus in chosen])
    inputs = _Inputs(chosen, network)
    if control is None:
        step = -(-len(chosen) // _CALIBRATION_INPUTS)
        control = untrained(network, [inputs[i] for i in range(0, len(chosen), step)])
    _check_control(network, control)
    shapes = network.shapes(inputs[0].shape)
    numbers = {
        name: checked_features(name, shapes[network.layer_index(name)][0], features).tolist()
        for name in names
    }
    if not all(numbers.values()):
        raise ParameterError("features must be at least one, found none")
    how = {"rule": rule, "start": start, "precision": precision}
    work = _Work(design, inputs, how, progress, 2 * len(names) * len(chosen))
    with config(backend=backend, num_threads=num_threads):
        found = {
            (subject, name): work.measure(subject, own, name, numbers[name])
            for name in names
            for subject, own in (("network", network), ("control", control))
        }
        found["input", "input"] = {"map": work.measure_inputs()}
    return AttributeStudy(
        network=network.name or "network",
        control=control.name or "control",
        features=numbers,
        stimuli=tuple(chosen),
        design=design,
        parameters={**how, "resamplings": resamplings},
        found=found,
    )


@dataclass(frozen=True)
class AttributeStudy:
    """What `attribute_study` found.

    Attributes
    ----------
    network, control : str
        Their names.
    features : dict of str to list of int
        Layers and the features studied.
    stimuli : tuple of Stimulus
    design : Design
        Which stimuli were compared: ``design.groups``.
    parameters : dict
    found : dict
        ``found["network", "pool3"]["map"]`` are `Correlations`; subjects are "network" and
        "control" with the views "map" and "activation", and ("input", "input") with "map".
    """

    network: str
    control: str
    features: dict[str, list[int]]
    stimuli: tuple[Stimulus, ...]
    design: Design
    parameters: dict[str, Any]
    found: dict[tuple[str, str], dict[str, Correlations]] = field(repr=False)

    @property
    def layers(self) -> list[str]:
        """The layers studied."""
        return list(self.features)

    @property
    def attributes(self) -> list[str]:
        """The attributes in which alone some stimuli differ."""
        return [name for name in self.design.attributes if self.design.of(name)]

    def correlation(
        self, attribute: str, layer: str = "input", subject: str = "network",
        view: str = "map",
    ) -> Array:
        """Mean correlation of each feature over pairs that differ in `attribute` alone.

        Returns
        -------
        array of float64, shape (features,)
            NaN for a feature that is silent in all pairs. One value for the input.
        """
        return self._point(attribute, self._of(layer, subject, view))

    def mean(
        self, attribute: str, layer: str = "input", subject: str = "network",
        view: str = "map",
    ) -> Estimate:
        """The mean of `correlation` over features.

        The interval is by bootstrap over stimuli: the groups of stimuli that share all other
        attributes are drawn anew, with replacement. It says how far the figure would move with
        other stimuli of the kind, not with another network.
        """
        own = self._of(layer, subject, view)
        draws = _over_features(self._draws(attribute, own))
        return _estimate(_over_features(self._point(attribute, own)), draws)

    def difference(
        self, attribute: str, layer: str, to: str = "control", view: str = "map"
    ) -> Estimate:
        """How much higher the network's `mean` is than the control's or the input's.

        Both are drawn with the same groups of stimuli, so that what is common cancels out.
        """
        own = self._of(layer, "network", view)
        other = self._of(layer, to, view if to == "control" else "map")
        points, draws = (
            _over_features(of(attribute, own)) - _over_features(of(attribute, other))
            for of in (self._point, self._draws)
        )
        return _estimate(points, draws)

    @cached_property
    def table(self) -> list[dict[str, Any]]:
        """One row per attribute, layer, subject and view: mean correlation and interval."""
        rows = []
        for attribute in self.attributes:
            for subject, layer in self.found:
                for view in self.found[subject, layer]:
                    value, low, high = self.mean(attribute, layer, subject, view)
                    rows.append({
                        "attribute": attribute, "layer": layer, "subject": subject, "view": view,
                        "correlation": value, "low": low, "high": high,
                    })
        return rows

    @cached_property
    def feature_table(self) -> list[dict[str, Any]]:
        """One row per feature of network and control, from its maps.

        ``correlation_<attribute>`` as in `correlation`; ``ignores`` and ``follows`` the
        attributes with the highest and the lowest correlation above the input's; ``margin``
        between those two with its interval, which is widened for the choice among attributes
        (Bonferroni). ``ignores`` and ``follows`` are empty where the interval includes 0.
        """
        rows: list[dict[str, Any]] = []
        for layer, numbers in self.features.items():
            for subject in ("network", "control"):
                rows += self._feature_rows(subject, layer, numbers)
        return rows

    def find(
        self, *, ignores: str | None = None, follows: str | None = None,
        layer: str | None = None, subject: str = "network", margin: float = 0.0,
    ) -> list[dict[str, Any]]:
        """Features that ignore one attribute and follow another, widest margin first.

        Ask the control as well: what it has as often was not learned.

        Parameters
        ----------
        ignores, follows : str, optional
            Attributes.
        layer : str, optional
        subject : {"network", "control"}
        margin : float
            Least margin.

        Returns
        -------
        list of dict
            Rows of `feature_table`.
        """
        for name in (ignores, follows):
            if name is not None:
                self._require(name)
        if subject not in SUBJECTS[:2]:
            raise ParameterError(f"subject must be 'network' or 'control', found {shown(subject)}")
        if layer is not None and layer not in self.features:
            raise ParameterError(
                f"layer {shown(layer)} was not studied; there are {', '.join(self.features)}"
            )
        rows = [
            row for row in self.feature_table
            if row["subject"] == subject
            and row["ignores"] and row["margin"] >= margin
            and layer in (None, row["layer"])
            and ignores in (None, row["ignores"])
            and follows in (None, row["follows"])
        ]
        return sorted(rows, key=lambda row: -row["margin"])

    def findings(self) -> str:
        """What the numbers say, in words, controls first."""
        from .findings import findings

        return findings(self)

    def save(
        self, out: str | os.PathLike[str], name: str = "attributes", *, overwrite: bool = False
    ) -> Path:
        """Write tables, arrays, findings and (with matplotlib) figures to ``out / name``.

        Returns
        -------
        Path
            The folder, which appears whole or not at all.

        Raises
        ------
        ParameterError
            If it cannot be written or is there already.
        """
        from ..report.study import write_study

        return write_study(self, out, name, overwrite=overwrite)

    def _require(self, attribute: str) -> list[int]:
        groups = self.design.of(attribute)
        if not groups:
            raise ParameterError(
                f"no stimuli differ in {shown(attribute)} alone; attributes: "
                f"{', '.join(self.attributes)}"
            )
        return groups

    def _of(self, layer: str, subject: str, view: str) -> Correlations:
        key = ("input", "input") if "input" in (subject, layer) else (subject, layer)
        try:
            return self.found[key][view]
        except KeyError:
            raise ParameterError(
                f"there is no {shown(view)} of {shown(layer)} for {shown(subject)}; layers: "
                f"{', '.join(self.features)}; subjects: {', '.join(SUBJECTS)}; views: "
                f"{', '.join(VIEWS)} (of the input: map)"
            ) from None

    def _point(self, attribute: str, own: Correlations) -> Array:
        groups = self._require(attribute)
        return _ratio(own.sums[:, groups].sum(axis=1), own.pairs[:, groups].sum(axis=1))

    def _draws(self, attribute: str, own: Correlations) -> Array:
        """(resamplings, features)"""
        groups = self._require(attribute)
        counts = self._counts(attribute, len(groups))
        return _ratio(counts @ own.sums[:, groups].T, counts @ own.pairs[:, groups].T)

    def _counts(self, attribute: str, n: int) -> Array:
        """How often each group is drawn in each resampling; the same for all subjects."""
        number = self.design.attributes.index(attribute)
        return _resampled(number, n, self.parameters["resamplings"])

    def _feature_rows(
        self, subject: str, layer: str, numbers: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
        own, blank = self._of(layer, subject, "map"), self._of("input", "input", "map")
        names = self.attributes
        points = np.stack([self._point(a, own) for a in names])
        above = points - np.stack([self._point(a, blank) for a in names])
        draws = np.stack([self._draws(a, own) - self._draws(a, blank) for a in names])
        comparisons = max(1, len(list(combinations(names, 2))))
        for i, k in enumerate(numbers):
            row: dict[str, Any] = {"layer": layer, "feature": k, "subject": subject}
            row |= {f"correlation_{a}": float(points[j, i]) for j, a in enumerate(names)}
            row |= _most_and_least(names, above[:, i], draws[:, :, i], comparisons)
            yield row


# Tables, words and figures all ask for the same few.
@lru_cache(maxsize=16)
def _resampled(seed: int, n: int, resamplings: int) -> Array:
    """(resamplings, n): how often each of n groups is drawn when n are drawn anew."""
    rng = np.random.default_rng([0, seed])
    counts = rng.multinomial(n, np.full(n, 1 / n), resamplings).astype(np.float64)
    counts.flags.writeable = False
    return counts


def _most_and_least(
    names: Sequence[str], above: Array, draws: Array, comparisons: int
) -> dict[str, Any]:
    if len(names) < 2 or not np.isfinite(above).all():
        return {"ignores": "", "follows": "", "margin": np.nan, "low": np.nan, "high": np.nan}
    most, least = int(above.argmax()), int(above.argmin())
    value, low, high = _estimate(
        above[most] - above[least], draws[most] - draws[least], 1 - (1 - _CONFIDENCE) / comparisons
    )
    told = low > 0
    return {
        "ignores": names[most] if told else "", "follows": names[least] if told else "",
        "margin": value, "low": low, "high": high,
    }


def _ratio(sums: Array, pairs: Array) -> Array:
    return np.divide(sums, pairs, out=np.full(np.shape(sums), np.nan), where=pairs > 0)


def _over_features(values: Array) -> Array:
    """The mean over the last axis of what is not NaN; NaN where all is."""
    there = np.isfinite(values)
    return _ratio(np.where(there, values, 0).sum(axis=-1), there.sum(axis=-1))


def _estimate(value: Any, draws: Array, confidence: float = _CONFIDENCE) -> Estimate:
    known = draws[np.isfinite(draws)]
    if not known.size:
        return Estimate(float(value), np.nan, np.nan)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(known, [tail, 100 - tail])
    return Estimate(float(value), float(low), float(high))


def _check_control(net: Network, control: Network) -> None:
    if control.layers != net.layers or control.input_shape != net.input_shape:
        raise ParameterError("the control must have the layers and the input of the network")


class _Inputs:
    """Network inputs of the stimuli: made when asked for, kept if they are not too many."""

    def __init__(self, stimuli: Sequence[Stimulus], net: Network) -> None:
        self._stimuli, self._net = stimuli, net
        self._kept: dict[int, Array] = {}
        self.shape = self[0].shape
        self.keep = self[0].nbytes * len(stimuli) <= _INPUT_BYTES

    def __len__(self) -> int:
        return len(self._stimuli)

    def __getitem__(self, index: int) -> Array:
        x = self._kept.get(index)
        if x is None:
            assert self._net.frontend is not None
            x = self._stimuli[index].clip(self._net.frontend).x
            shape = getattr(self, "shape", x.shape)
            if x.shape != shape:
                raise ParameterError(
                    f"stimulus {shown(self._stimuli[index].name)} gives an input of "
                    f"{shape_text(x.shape)}, the first one of {shape_text(shape)}: stimuli must "
                    "be equally long, or the front end fix the number of frames"
                )
            if getattr(self, "keep", False):
                self._kept[index] = x
        return x


@dataclass
class _Work:
    """Goes through all stimuli, once per network, layer and block of features."""

    design: Design
    inputs: _Inputs
    how: dict[str, Any]
    progress: Callable[[str, int, int], None] | None
    total: int
    done: int = 0

    def measure(
        self, subject: str, net: Network, layer: str, features: Sequence[int]
    ) -> dict[str, Correlations]:
        lower = up_to(net, layer)
        found: dict[str, list[Correlations]] = {view: [] for view in VIEWS}
        blocks = self._blocks(features)
        for number, block in enumerate(blocks):
            sums = {view: PairSums(self.design.groups, len(block)) for view in VIEWS}
            for place, stimulus in enumerate(self.design.order):
                trace = lower.forward(self.inputs[stimulus])
                maps = {
                    "map": deconvolve(trace, layer, block, **self.how),
                    "activation": np.array(trace[layer][block]),
                }
                for view, own in maps.items():
                    flat = own.reshape(len(block), -1)
                    sums[view].add(stimulus, flat, get_num_threads(None))
                share = (number + (place + 1) / len(self.inputs)) / len(blocks)
                self._tell(f"{layer}, {subject}", share)
            for view, one in sums.items():
                found[view].append(Correlations(one.sums, one.pairs))
        self.done += len(self.inputs)
        return {view: _joined(parts) for view, parts in found.items()}

    def measure_inputs(self) -> Correlations:
        sums = PairSums(self.design.groups, 1)
        for stimulus in self.design.order:
            sums.add(stimulus, np.array(self.inputs[stimulus]).reshape(1, -1), 1)
        return Correlations(sums.sums, sums.pairs)

    def _blocks(self, features: Sequence[int]) -> list[list[int]]:
        size = self.inputs[0].nbytes * open_at_most(self.design.groups, self.design.order)
        count = max(1, min(_LANES, _SUMS_BYTES // size))
        return [list(features[i : i + count]) for i in range(0, len(features), count)]

    def _tell(self, what: str, share: float) -> None:
        if self.progress is not None:
            self.progress(what, self.done + round(share * len(self.inputs)), self.total)


def _joined(parts: Sequence[Correlations]) -> Correlations:
    return Correlations(*(np.concatenate(own) for own in zip(*parts)))
