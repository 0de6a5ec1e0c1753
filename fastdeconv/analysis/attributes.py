"""Which attributes of the music features respond to and which they ignore, with controls.

Choi, Fazekas and Sandler (arXiv 1607.02444, section 4) used chords that vary in key, chord type and
instrument, and compared the deconvolved maps of each layer by their correlation. The higher the
correlation of the maps of stimuli that differ in one attribute only, the less does the layer depend
on that attribute. Here the same is measured for every feature, and always for the input spectrogram
and for an untrained network as well. Without these the figures mean little: spectrograms of the
same notes are alike before any network sees them, and deep maps are alike because deconvolution
blurs them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio._checks import as_choice, as_int, as_number
from ..deconvnet.projection import checked_features, deconvolve
from ..errors import ParameterError, enough_memory, shown
from ..kernels.dispatch import config, get_num_threads
from ..network.choosing import as_list, choose_layers, open_network, up_to
from ..network.layers import shape_text
from ..network.network import Network
from .controls import untrained
from .correlation import PairSums, open_at_most
from .design import Design

if TYPE_CHECKING:

    from .stimuli import Stimulus

__all__ = [
    "CONFIDENCE", "RESOLUTION", "SUBJECTS", "VIEWS", "AttributeStudy", "Correlations", "Estimate",
    "attribute_study", "least_groups", "least_resamplings",
]

Array = NDArray[Any]

SUBJECTS = ("network", "control", "input")
VIEWS = ("map", "activation")
#: Confidence level of every interval, before it is widened for a choice among attributes.
CONFIDENCE = 0.95
#: Error of correlations: two that differ by less are equal.
RESOLUTION = 1e-5

_LANES = 64
"""Largest number of features that are projected together; larger blocks are not faster."""
_SUMS_BYTES = 1 << 30
"""Largest size of the running sums of one pass."""
_INPUT_BYTES = 1 << 28
"""Inputs are kept for the next layer if all of them fit in this; otherwise they are made again."""
_CALIBRATION_INPUTS = 16
"""Stimuli on which the channels of a randomised control are centred."""
_MOST_RESAMPLINGS = 1 << 20


class Correlations(NamedTuple):
    """Correlations between the maps of each feature of a layer, group by group.

    Attributes
    ----------
    sums : array of float64, shape (features, groups)
        Sum of the correlations of all pairs of stimuli in a group.
    pairs : array of int64, shape (features, groups)
        Number of these pairs, without pairs with a silent map.
    """

    sums: Array
    pairs: Array


class Estimate(NamedTuple):
    """A figure with its 95 % interval.

    Attributes
    ----------
    value : float
        NaN if everything that was to be compared is silent.
    low, high : float
        NaN if there is no interval, because there are fewer groups of stimuli than `least_groups`
        (without silent ones) or fewer resamplings than `least_resamplings`.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.text("")

    def text(self, sign: Literal["", "+"]) -> str:
        """The figure for people. With `sign` "+", numbers that are not negative have a plus."""
        if math.isnan(self.value):
            return "silent"
        value, low, high = (f"{number:{sign}.2f}" for number in self)
        return f"{value} [{low}, {high}]" if self.has_interval else value

    @property
    def has_interval(self) -> bool:
        """Whether `low` and `high` are numbers."""
        return not math.isnan(self.low)


def least_groups(confidence: float = CONFIDENCE) -> int:
    """The number of groups of stimuli that an interval needs: six at 95 %.

    The differences in n groups all have the same sign by chance once in 2 ** (n - 1) times. If that
    is more often than an interval may be wrong, no method can tell it from chance.
    """
    return 1 + math.ceil(-math.log2(1 - confidence))


def least_resamplings(confidence: float = CONFIDENCE) -> int:
    """The number of resamplings that an interval needs to have one beyond each end: 40 at 95 %."""
    return math.ceil(round(2 / (1 - confidence), 6))


@enough_memory("this study: take fewer features or shorter stimuli")
def attribute_study(
    net: Network | str | os.PathLike[str],
    stimuli: Sequence[Stimulus] | str | os.PathLike[str] | None = None,
    *,
    layers: str | Sequence[str] | None = None,
    features: Sequence[int] | None = None,
    control: Network | str | os.PathLike[str] | None = None,
    rule: Literal["deconvnet", "guided", "gradient"] = "deconvnet",
    start: Literal["map", "max"] = "map",
    precision: Literal["float32", "bf16"] = "float32",
    resamplings: int = 1000,
    progress: Callable[[str, int, int], None] | None = None,
    backend: str | None = None,
    num_threads: int | None = None,
) -> AttributeStudy:
    """Measure how much the features of each layer depend on each attribute of the stimuli.

    For every feature of every layer this is the mean Pearson correlation of its maps over all pairs
    of stimuli that differ in one attribute only. If it is near 1, the feature shows the same
    whatever the attribute is; if it is near 0, it shows something else. Maps are never kept: 500
    stimuli give 160,000 maps of the paper's network and as many of the control.

    Parameters
    ----------
    net : Network, str or path
        A network with a front end, its name, or the path of an archive or model.
    stimuli : sequence of Stimulus, or path, optional
        Those of `chord_stimuli` (the default) or `read_stimuli`, or the path for the latter.
    layers : str or sequence of str, optional
        Default: as in `explain`.
    features : sequence of int, optional
        The features of each layer. Default: all.
    control : Network, str or path, optional
        A network with the same layers to compare with. Default: a bundled network before its
        training; for others `randomised` with seed 0, with its channels centred on some stimuli.
    rule, precision, backend, num_threads
        See `deconvolve`.
    start : {"map", "max"}
        See `deconvolve`.
    resamplings : int
        Bootstrap resamplings for every interval. With fewer than 40 there are no intervals.
    progress : callable, optional
        Called with (what is being done, steps done, steps in all).

    Returns
    -------
    AttributeStudy

    Raises
    ------
    ParameterError
        If the network has no front end, stimuli give inputs of different shapes, no two of them
        differ in one attribute only, the control has other layers, an option is not as described,
        or there is not enough memory.

    Examples
    --------
    >>> import fastdeconv as fd
    >>> stimuli = fd.chord_stimuli(roots=["C", "F"], chords=["maj"], octaves=[4])
    >>> study = fd.attribute_study("choi5-genre", stimuli, layers="pool2", features=[0, 1])
    >>> study.attributes
    ['root', 'instrument']
    """
    network = open_network(net)
    if network.frontend is None:
        raise ParameterError("the network has no front end: Network(..., frontend=Frontend(...))")
    resamplings = as_int("resamplings", resamplings, minimum=1, maximum=_MOST_RESAMPLINGS)
    as_choice("start", start, ("map", "max"))
    chosen = _chosen_stimuli(stimuli)
    names = choose_layers(network, layers)
    design = Design([stimulus.attributes for stimulus in chosen])
    inputs = _Inputs(chosen, network)
    if control is None:
        step = -(-len(chosen) // _CALIBRATION_INPUTS)
        control = untrained(network, [inputs[i] for i in range(0, len(chosen), step)])
    else:
        control = open_network(control)
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
    """The results of `attribute_study`.

    Attributes
    ----------
    network, control : str
        Names of the networks.
    features : dict of str to list of int
        The layers and their features that were studied.
    stimuli : tuple of Stimulus
    design : Design
        ``design.groups`` says which stimuli were compared.
    parameters : dict
        ``rule``, ``start``, ``precision`` and ``resamplings``.
    found : dict
        ``found["network", "pool3"]["map"]`` are the `Correlations` of the maps. The subjects
        "network" and "control" have the views "map" and "activation" (the feature map itself);
        ``found["input", "input"]`` has "map".
    """

    network: str
    control: str
    features: dict[str, list[int]]
    stimuli: tuple[Stimulus, ...]
    design: Design
    parameters: dict[str, Any]
    found: dict[tuple[str, str], dict[str, Correlations]]

    def __repr__(self) -> str:
        counts = ", ".join(f"{layer}: {len(ks)}" for layer, ks in self.features.items())
        return f"<AttributeStudy of {self.network!r}: {len(self.stimuli)} stimuli; {counts}>"

    @property
    def layers(self) -> list[str]:
        """The layers studied."""
        return list(self.features)

    @property
    def attributes(self) -> list[str]:
        """The attributes for which there are stimuli that differ in nothing else."""
        return [name for name in self.design.attributes if self.design.of(name)]

    @property
    def margin_confidence(self) -> float:
        """Confidence level of the interval of a margin, widened for the choice of attributes.

        Two of four attributes are one of six pairs, so each pair may be wrong only a sixth as often
        (Bonferroni).
        """
        return 1 - (1 - CONFIDENCE) / max(1, math.comb(len(self.attributes), 2))

    def correlation(
        self, attribute: str, layer: str = "input", subject: str = "network",
        view: str = "map",
    ) -> Array:
        """The mean correlation of each feature over pairs that differ in `attribute` only.

        Parameters
        ----------
        attribute : str
        layer : str
            "input" for the input spectrogram.
        subject : {"network", "control", "input"}
        view : {"map", "activation"}

        Returns
        -------
        array of float64, shape (features,)
            NaN for a feature that is silent in all pairs. For the input, shape (1,).

        Raises
        ------
        ParameterError
            If there is no such attribute, layer, subject or view.
        """
        return self._point(attribute, self._of(layer, subject, view))

    def mean(
        self, attribute: str, layer: str = "input", subject: str = "network",
        view: str = "map",
    ) -> Estimate:
        """The mean of `correlation` over features.

        The interval is a bootstrap over stimuli: the groups of stimuli that share all other
        attributes are drawn with replacement. It says how much the figure would change with other
        stimuli of the same kind, not with another network. There is no interval if there are too
        few groups, see `Estimate`.

        Parameters
        ----------
        attribute : str
        layer : str
            "input" for the input spectrogram.
        subject : {"network", "control", "input"}
        view : {"map", "activation"}

        Returns
        -------
        Estimate

        Raises
        ------
        ParameterError
            If there is no such attribute, layer, subject or view.
        """
        own = self._of(layer, subject, view)
        draws = _over_features(self._draws(attribute, own))
        point = _over_features(self._point(attribute, own))
        return _estimate(point, draws, self._heard_groups(attribute, own))

    def difference(
        self, attribute: str, layer: str, to: str = "control", view: str = "map"
    ) -> Estimate:
        """By how much the network's `mean` exceeds that of the control or of the input.

        Both are resampled with the same groups of stimuli, so that common variation cancels out.

        Parameters
        ----------
        attribute, layer : str
        to : {"control", "input"}
        view : {"map", "activation"}

        Returns
        -------
        Estimate

        Raises
        ------
        ParameterError
            If there is no such attribute, layer or view, or `to` is something else.
        """
        as_choice("to", to, ("control", "input"))
        own = self._of(layer, "network", view)
        other = self._of(layer, to, view if to == "control" else "map")
        points, draws = (
            _over_features(of(attribute, own)) - _over_features(of(attribute, other))
            for of in (self._point, self._draws)
        )
        groups = min(self._heard_groups(attribute, one) for one in (own, other))
        return _estimate(points, draws, groups)

    @cached_property
    def table(self) -> list[dict[str, Any]]:
        """A row for each attribute, layer, subject and view: `mean` with its interval."""
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
        """A row for each feature of the network and of the control, from its maps.

        ``correlation_<attribute>`` is as in `correlation`. From it the input's correlation is
        subtracted: ``ignores`` and ``follows`` are the attributes with the highest and the lowest
        difference, and ``margin`` is the distance between the two, with the interval ``low`` to
        ``high``, which is widened for the choice among attributes (Bonferroni). ``ignores`` and
        ``follows`` are empty if the interval includes 0 or does not exist.
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
        """Find features that ignore one attribute and follow another, the largest margin first.

        Ask for those of the control as well: what it has as often was not learned.

        Parameters
        ----------
        ignores, follows : str, optional
            Attributes. Default: any.
        layer : str, optional
            Default: any.
        subject : {"network", "control"}
        margin : float
            Smallest margin.

        Returns
        -------
        list of dict
            Rows of `feature_table`.

        Raises
        ------
        ParameterError
            If there is no such attribute, layer or subject, or `margin` is not a number.
        """
        for name in (ignores, follows):
            if name is not None:
                self._require(name)
        as_choice("subject", subject, SUBJECTS[:2])
        margin = as_number("margin", margin)
        if layer is not None and not (isinstance(layer, str) and layer in self.features):
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

    def _require(self, attribute: str) -> list[int]:
        groups = self.design.of(attribute) if isinstance(attribute, str) else []
        if not groups:
            raise ParameterError(
                f"no two stimuli differ in {shown(attribute)} only; attributes: "
                f"{', '.join(self.attributes)}"
            )
        return groups

    def _of(self, layer: str, subject: str, view: str) -> Correlations:
        if all(isinstance(name, str) for name in (layer, subject, view)):
            # A network may have a layer of that name.
            is_input = subject == "input" or (layer == "input" and layer not in self.features)
            views = self.found.get(("input", "input") if is_input else (subject, layer), {})
            if view in views:
                return views[view]
        raise ParameterError(
            f"the study has no view {shown(view)} of layer {shown(layer)} and subject "
            f"{shown(subject)}; layers: {', '.join(self.features)}; subjects: "
            f"{', '.join(SUBJECTS)}; views: {', '.join(VIEWS)} (of the input: map)"
        )

    def _point(self, attribute: str, own: Correlations) -> Array:
        groups = self._require(attribute)
        return _ratio(own.sums[:, groups].sum(axis=1), own.pairs[:, groups].sum(axis=1))

    def _draws(self, attribute: str, own: Correlations) -> Array:
        """The correlation of each feature in each resampling, (resamplings, features)."""
        groups = self._require(attribute)
        counts = self._counts(attribute, len(groups))
        return _ratio(counts @ own.sums[:, groups].T, counts @ own.pairs[:, groups].T)

    def _heard_groups(self, attribute: str, own: Correlations) -> int:
        """The number of groups with a pair in which some feature is not silent."""
        pairs = own.pairs[:, self._require(attribute)]
        return int((pairs > 0).any(axis=0).sum())

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
        heard = np.stack([
            np.minimum(*((one.pairs[:, self._require(a)] > 0).sum(axis=1) for one in (own, blank)))
            for a in names
        ])
        for i, k in enumerate(numbers):
            row: dict[str, Any] = {"layer": layer, "feature": k, "subject": subject}
            row |= {f"correlation_{a}": float(points[j, i]) for j, a in enumerate(names)}
            row |= _most_and_least(
                names, above[:, i], draws[:, :, i], heard[:, i], self.margin_confidence
            )
            yield row


# Cached: tables, sentences and figures ask for the same few again and again.
@lru_cache(maxsize=16)
def _resampled(seed: int, n: int, resamplings: int) -> Array:
    """How often each of n groups is drawn when n are drawn with replacement: (resamplings, n)."""
    rng = np.random.default_rng([0, seed])
    counts = rng.multinomial(n, np.full(n, 1 / n), resamplings).astype(np.float64)
    counts.flags.writeable = False
    return counts


def _most_and_least(
    names: Sequence[str], above: Array, draws: Array, heard: Array, confidence: float
) -> dict[str, Any]:
    if len(names) < 2 or not np.isfinite(above).all():
        return {"ignores": "", "follows": "", "margin": np.nan, "low": np.nan, "high": np.nan}
    most, least = int(above.argmax()), int(above.argmin())
    value, low, high = _estimate(
        above[most] - above[least], draws[most] - draws[least], min(heard[most], heard[least]),
        confidence,
    )
    told = low > RESOLUTION
    return {
        "ignores": names[most] if told else "", "follows": names[least] if told else "",
        "margin": value, "low": low, "high": high,
    }


def _ratio(sums: Array, pairs: Array) -> Array:
    return np.divide(sums, pairs, out=np.full(np.shape(sums), np.nan), where=pairs > 0)


def _over_features(values: Array) -> Array:
    """The mean over the last axis without NaN values; NaN if all are NaN."""
    there = np.isfinite(values)
    return _ratio(np.where(there, values, 0).sum(axis=-1), there.sum(axis=-1))


def _estimate(
    value: Any, draws: Array, groups: int, confidence: float = CONFIDENCE
) -> Estimate:
    # A draw that consists of silent groups only is NaN; with enough other groups this is rare.
    known = draws[np.isfinite(draws)]
    if groups < least_groups(confidence) or known.size < least_resamplings(confidence):
        return Estimate(float(value), np.nan, np.nan)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(known, [tail, 100 - tail])
    return Estimate(float(value), float(low), float(high))


def _chosen_stimuli(stimuli: Any) -> list[Stimulus]:
    from .stimuli import Stimulus, chord_stimuli, read_stimuli

    if stimuli is None:
        return chord_stimuli()
    if isinstance(stimuli, (str, os.PathLike)):
        return read_stimuli(stimuli)
    chosen = as_list("stimuli", stimuli)
    for i, stimulus in enumerate(chosen):
        if not isinstance(stimulus, Stimulus):
            raise ParameterError(
                f"stimuli[{i}] must be a Stimulus, as read_stimuli and chord_stimuli give them; "
                f"found {shown(stimulus)}"
            )
    return chosen


def _check_control(net: Network, control: Network) -> None:
    if control.layers != net.layers or control.input_shape != net.input_shape:
        raise ParameterError("the control must have the same layers and input shape as the network")


class _Inputs:
    """Network inputs of the stimuli, made on request, and kept if all of them fit in memory."""

    def __init__(self, stimuli: Sequence[Stimulus], net: Network) -> None:
        self._stimuli, self._net = stimuli, net
        first = self._made(0)
        self._shape, self._kept = first.shape, {0: first}
        self._is_kept = first.nbytes * len(stimuli) <= _INPUT_BYTES

    def __len__(self) -> int:
        return len(self._stimuli)

    def __getitem__(self, index: int) -> Array:
        x = self._kept.get(index)
        if x is None:
            x = self._made(index)
            if x.shape != self._shape:
                raise ParameterError(
                    f"stimulus {shown(self._stimuli[index].name)} gives an input of "
                    f"{shape_text(x.shape)}, the first one an input of {shape_text(self._shape)}: "
                    "stimuli must be equally long, or the front end must fix the number of frames"
                )
            if self._is_kept:
                self._kept[index] = x
        return x

    def _made(self, index: int) -> Array:
        assert self._net.frontend is not None
        return self._stimuli[index].clip(self._net.frontend).x


@dataclass
class _Work:
    """Goes through all stimuli, once for each network, layer and block of features."""

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
