"""By how much features and classes fall when a patch of the input is replaced."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio.clip import Clip, as_clip
from ..deconvnet.boxes import Boxes, forward_changed
from ..deconvnet.scores import score_layer, scores_of
from ..deconvnet.trace import Trace
from ..errors import ParameterError, enough_memory, shown
from ..network.choosing import choose_layers, open_network
from ..network.network import Network
from .grid import Grid, Patches, as_fill
from .targets import Target, chosen_classes, decision_kind, target_scores

__all__ = ["Occlusion", "occlude", "occlude_trace"]

Array = NDArray[Any]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Occlusion:
    """The drops of features and classes, patch by patch. Made by `occlude`.

    Attributes
    ----------
    bins, frames : list of (int, int)
        The patches: the first bin of each and the one after its last, and frames likewise.
    activations : dict of str to array of float64, shape (K,)
        For each layer the activations of its features: the sum of each feature map.
    drops : dict of str to array of float64, shape (K, len(bins), len(frames))
        For each layer by how much the activation of each feature falls when the patch is
        replaced. Positive: the patch spoke for the feature.
    log_odds : dict of str to float
        For each class log(p / (1 - p)), p being its probability.
    class_drops : dict of str to array of float64, shape (len(bins), len(frames))
        For each class by how much its log odds fall when the patch is replaced.
    """

    bins: list[tuple[int, int]]
    frames: list[tuple[int, int]]
    activations: dict[str, Numbers]
    drops: dict[str, Numbers]
    log_odds: dict[str, float]
    class_drops: dict[str, Numbers]

    def __repr__(self) -> str:
        counts = [f"{layer}: {len(each)}" for layer, each in self.activations.items()]
        counts += [f"classes: {len(self.log_odds)}"] if self.log_odds else []
        patches = f"{len(self.bins)} x {len(self.frames)} patches"
        return f"<Occlusion by {patches}: {', '.join(counts)}>"

    @property
    def patches(self) -> Patches:
        """All patches."""
        return Patches(self.bins, self.frames)

    def map(self, layer: str, feature: int) -> Numbers:
        """The drops of a feature as a map.

        A bin has the mean of the drops of the patches that cover it.

        Parameters
        ----------
        layer : str
        feature : int

        Returns
        -------
        array of float64, shape (F, T)

        Raises
        ------
        ParameterError
            If the layer was not occluded, or has no such feature.
        """
        if layer not in self.drops:
            raise ParameterError(
                f"layer {shown(layer)} was not occluded; there are "
                f"{', '.join(self.drops) or 'none'}"
            )
        drops = self.drops[layer]
        is_int = isinstance(feature, (int, np.integer)) and not isinstance(feature, bool)
        if not is_int or not 0 <= feature < len(drops):
            raise ParameterError(
                f"layer {shown(layer)} has features 0..{len(drops) - 1}, found {shown(feature)}"
            )
        return self.patches.spread(drops[feature].ravel())

    def class_map(self, name: str) -> Numbers:
        """The drops of a class as a map; see `map`.

        Parameters
        ----------
        name : str
            The class.

        Returns
        -------
        array of float64, shape (F, T)

        Raises
        ------
        ParameterError
            If the class was not occluded.
        """
        if name not in self.class_drops:
            raise ParameterError(
                f"class {shown(name)} was not occluded; there are "
                f"{', '.join(map(shown, self.class_drops)) or 'none'}"
            )
        return self.patches.spread(self.class_drops[name].ravel())


def occlude(
    clip: Clip,
    net: Network | str | os.PathLike[str],
    layers: str | Iterable[str] | None = None,
    classes: str | Iterable[str] | None = None,
    *,
    patch: int | tuple[int, int] = (16, 16),
    stride: int | tuple[int, int] | None = None,
    fill: str | float = "band_mean",
) -> Occlusion:
    """Replace patches of the input, one at a time, and measure by how much activations fall.

    The drops of all features of all layers and of all classes are computed together. A patch
    changes only the units that see a part of it, and only those are computed again. With the
    default patches and the bundled network this costs as much as three forward passes, instead of
    one for each of 176 patches.

    Parameters
    ----------
    clip : Clip
    net : Network, str or path
    layers : iterable of str, optional
        Default: as in `explain`.
    classes : iterable of str, optional
        Names, or numbers as text ("0"). Default: all.
    patch : int or (int, int)
        Bins and frames of a patch.
    stride : int or (int, int), optional
        Bins and frames from one patch to the next; default: `patch`. The last patch along each
        axis reaches to the end of the input.
    fill : {"band_mean", "min"} or float
        What replaces the network's input in a patch: the mean of each band over time, the smallest
        value of the input (silence, for a decibel front end), or a number.

    Returns
    -------
    Occlusion

    Raises
    ------
    ParameterError
        If a layer or class does not exist, the network cannot take the clip, patch, stride or
        fill is not as described, or there is not enough memory.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> net = fd.pretrained("choi5-genre")
    >>> clip = fd.Clip(np.sin(np.arange(44100)), 11025, net.frontend)
    >>> found = fd.occlude(clip, net)
    >>> found.drops["pool5"].shape
    (64, 16, 11)
    >>> sorted(found.class_drops)
    ['electronic', 'metal', 'orchestral']
    """
    network = open_network(net)
    grid = Grid.of(as_clip(clip))
    patches = Patches.of(grid.shape, patch, stride)
    filled = as_fill(grid, fill)
    names = choose_layers(network, layers)
    network.shapes(clip.x.shape)
    with enough_memory("this occlusion: take larger patches, fewer layers or a shorter clip"):
        trace = network.forward(clip.x)
        kind = decision_kind(network)
        targets = [
            Target(name, number, kind)
            for name, number in chosen_classes(trace, classes).items()
        ]
        return occlude_trace(trace, grid, patches, filled, names, targets)


def occlude_trace(
    trace: Trace, grid: Grid, patches: Patches, filled: Array, layers: list[str],
    targets: Sequence[Target],
) -> Occlusion:
    """Like `occlude`, for a forward pass that was made before.

    Parameters
    ----------
    trace : Trace
    grid : Grid
        Of the input of `trace`.
    patches : Patches
    filled : array of float32, shape (C, F, T)
        What replaces the input, see `as_fill`.
    layers : list of str
    targets : sequence of Target
        Their score takes the place of the log odds of a class.
    """
    net, count = trace.network, len(patches.bins) * len(patches.frames)
    places = {name: net.layer_index(name) for name in layers}
    sums = {name: _sums(trace.activation(i)) for name, i in places.items()}
    drops = {name: np.zeros((len(own), count)) for name, own in sums.items()}
    scores = scores_of(trace)
    before = target_scores(targets, scores)
    lost = np.zeros((len(targets), count))
    wanted = {*places.values()} | ({score_layer(net)} if targets else set())
    for part, boxes in _changed(trace, grid, patches, filled, wanted):
        for name, index in places.items():
            found = boxes[index]
            # Subtract before adding up: units that did not change then add exactly 0.
            less = np.subtract(
                found.of(trace.activation(index)), found.values, dtype=np.float64
            )
            drops[name][:, part] = less.sum(axis=(2, 3))
        if targets:
            changed = _with_boxes(trace, score_layer(net), boxes[score_layer(net)])
            for p, values in enumerate(changed):
                now = target_scores(targets, values.reshape(scores.shape))
                lost[:, part.start + p] = before - now
    return Occlusion(
        patches.bins, patches.frames, sums,
        {name: found.reshape(-1, *patches.shape) for name, found in drops.items()},
        {target.name: float(score) for target, score in zip(targets, before)},
        {target.name: found.reshape(patches.shape) for target, found in zip(targets, lost)},
    )


def _changed(
    trace: Trace, grid: Grid, patches: Patches, filled: Array, wanted: set[int]
) -> Iterator[tuple[slice, dict[int, Boxes]]]:
    """The units of the wanted layers that patches change.

    Yields
    ------
    slice
        Which patches.
    dict of int to Boxes
        For each layer the changed boxes, one for each of these patches.
    """
    if not wanted:
        return
    if grid.is_local:
        regions = [grid.region(bins, frames) for bins, frames in patches]
        yield from forward_changed(trace, regions, grid.as_input(filled), wanted)
        return
    # Bins lie along the channels of the input: a patch changes every unit.
    for i, (bins, frames) in enumerate(patches):
        x = grid.x.copy()
        x[:, slice(*bins), slice(*frames)] = filled[:, slice(*bins), slice(*frames)]
        now = trace.network.forward(grid.as_input(x))
        begin = np.zeros((1, 2), np.intp)
        yield slice(i, i + 1), {
            index: Boxes(begin, now.activation(index)[:, None]) for index in wanted
        }


def _with_boxes(trace: Trace, index: int, boxes: Boxes) -> Iterator[Array]:
    """The whole output of a layer, float64, for one box after the other."""
    h, w = boxes.size
    for p, (row, column) in enumerate(boxes.begin.tolist()):
        values = trace.activation(index).astype(np.float64)
        values[:, row : row + h, column : column + w] = boxes.values[:, p]
        yield values


def _sums(planes: Array) -> Numbers:
    return np.asarray(planes.sum(axis=(1, 2), dtype=np.float64))
