"""The clips that excite a feature most (Zeiler and Fergus, arXiv 1311.2901, figure 2)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio._checks import MODES, as_choice, as_int
from ..audio.auralise import auralise
from ..audio.clip import Clip, as_clip
from ..audio.excerpts import around, faded
from ..deconvnet.fields import Place, boxes_seen
from ..deconvnet.projection import checked_features, deconvolve
from ..deconvnet.strongest import ABSENT, Units, best_first, firing_scores, strongest_units
from ..deconvnet.trace import Trace
from ..errors import ParameterError, printable, shown
from ..network.choosing import as_list, choose_layers, open_network
from ..network.network import Network
from .grid import Grid

__all__ = ["Excerpt", "NetworkLike", "TopClips", "clips_of_one_size", "top_clips"]

Array = NDArray[Any]
NetworkLike = Network | str | os.PathLike[str]

_FOUND = ("value", "clip", "row", "column", "top", "bottom", "left", "right")
_AT_ONCE = 64
"""Number of features that are projected together."""


@dataclass(frozen=True, eq=False)
class Excerpt:
    """The place of a clip that excites a feature most. Made by `TopClips.excerpts`.

    Attributes
    ----------
    row : dict
        The row of `TopClips.table`.
    place : Place
        The receptive field of the strongest unit, also in seconds and hertz.
    input, projection : array of float32, shape (F, T)
        The network's input there, and the projection of the unit down to it; channels are added up.
    original, heard : array of float32, shape (n,)
        The sound of the clip at that time and a little before and after, at least a second, and
        the sound of the projection in it. Not normalised.
    begin : float
        Where in the clip these sounds begin, in seconds.
    """

    row: dict[str, Any]
    place: Place
    input: NDArray[np.float32]
    projection: NDArray[np.float32]
    original: NDArray[np.float32]
    heard: NDArray[np.float32]
    begin: float

    def __repr__(self) -> str:
        layer, feature, rank = (self.row[key] for key in ("layer", "feature", "rank"))
        return f"<Excerpt: {layer}/{feature}, rank {rank}, from {self.begin:.2f} s>"


@dataclass(frozen=True, eq=False)
class TopClips:
    """The strongest clips of every feature. Made by `top_clips`.

    Attributes
    ----------
    table : list of dict
        A row for each feature and rank: ``layer``, ``feature``, ``rank`` from 1, ``value`` (the
        activation of the strongest unit), ``clip`` (its index in `clips`), ``row`` and
        ``column`` of the unit in the feature map, and ``top``, ``bottom``, ``left``, ``right``: its
        receptive field, rows top to bottom - 1 and columns left to right - 1 of the input. A
        feature that fires nowhere has no row.
    clips : list of Clip
    network : Network
    layers : list of str
        The layers that were searched.
    """

    table: list[dict[str, Any]]
    clips: list[Clip]
    network: Network
    layers: list[str]

    def __repr__(self) -> str:
        return (
            f"<TopClips of {self.network.name!r}: {len(self.clips)} clips, "
            f"layers {', '.join(self.layers)}>"
        )

    def maps(self, layer: str, feature: int) -> NDArray[np.float32]:
        """For each of a feature's clips, the projection of the strongest unit to the input.

        Parameters
        ----------
        layer : str
        feature : int

        Returns
        -------
        array of float32, shape (n, C, H, W)

        Raises
        ------
        ParameterError
            If the layer was not searched, or has no such feature.
        """
        rows = self._rows(layer, feature)
        found = np.zeros((len(rows), *self.clips[0].x.shape), np.float32)
        for out, row in zip(found, rows):
            trace = self.network.forward(self.clips[row["clip"]].x)
            out[...] = deconvolve(trace, layer, [feature], start="max")[0]
        return found

    def excerpts(self, layer: str, feature: int, mode: str = "mask") -> list[Excerpt]:
        """Pictures and sounds of each of a feature's clips, the strongest first.

        Parameters
        ----------
        layer : str
        feature : int
        mode : {"mask", "phase", "wiener"}
            How a projection becomes a sound, as in `explain`.

        Returns
        -------
        list of Excerpt
            Empty for a feature that fires nowhere.

        Raises
        ------
        ParameterError
            If the layer was not searched, has no such feature, or there is no such mode.
        """
        rows = self._rows(layer, feature)
        found = {excerpt.row["rank"]: excerpt for excerpt in self.all_excerpts(rows, mode)}
        return [found[rank] for rank in sorted(found)]

    def all_excerpts(
        self, rows: Iterable[Mapping[str, Any]] | None = None, mode: str = "mask"
    ) -> Iterator[Excerpt]:
        """The excerpts of rows of the table, clip by clip: each clip needs one forward pass.

        Parameters
        ----------
        rows : iterable of dict, optional
            Rows of `table`. Default: all.
        mode : {"mask", "phase", "wiener"}
            As in `auralise`.
        """
        as_choice("mode", mode, MODES)
        wanted: dict[int, dict[str, list[dict[str, Any]]]] = {}
        for row in self.table if rows is None else rows:
            wanted.setdefault(row["clip"], {}).setdefault(row["layer"], []).append(dict(row))
        for number, layers in sorted(wanted.items()):
            clip = self.clips[number]
            trace = self.network.forward(clip.x)
            for layer, own in layers.items():
                for at in range(0, len(own), _AT_ONCE):
                    some = own[at : at + _AT_ONCE]
                    maps = deconvolve(trace, layer, [r["feature"] for r in some], start="max")
                    for row, plane, sound in zip(some, maps, auralise(clip, maps, mode)):
                        yield _excerpt(trace, clip, row, plane, sound)

    def _rows(self, layer: str, feature: int) -> list[dict[str, Any]]:
        index = self.network.layer_index(layer)
        if layer not in self.layers:
            known = printable(", ".join(self.layers))
            raise ParameterError(f"layer {shown(layer)} was not searched; there are {known}")
        checked_features(layer, self.network.shapes(self.clips[0].x.shape)[index][0], [feature])
        return [row for row in self.table if (row["layer"], row["feature"]) == (layer, feature)]


def _excerpt(
    trace: Trace, clip: Clip, row: dict[str, Any], plane: Array, sound: NDArray[np.float32]
) -> Excerpt:
    place = trace.place(row["layer"], row["row"], row["column"])
    box = np.s_[:, slice(*place.rows), slice(*place.columns)]
    # A network whose channels are time sees the whole clip.
    begin, end = place.seconds or (0.0, clip.duration)
    cut = slice(*around(begin * clip.sr, end * clip.sr, clip.sr, clip.samples.size))
    layout = clip.frontend.layout
    seen, projected = (Grid(values[box], layout).x.sum(axis=0) for values in (clip.x, plane))
    original, heard = (faded(samples[cut], clip.sr) for samples in (clip.samples, sound))
    return Excerpt(row, place, seen, projected, original, heard, cut.start / clip.sr)


def top_clips(
    clips: Iterable[Clip], net: NetworkLike, layers: str | Iterable[str] | None = None,
    k: int = 9,
) -> TopClips:
    """Find the clips that excite each feature most, each with the place of its strongest unit.

    A clip is in the list once, with its strongest unit; otherwise neighbouring units of one clip
    would fill the list. One forward pass of each clip serves all features of all layers.

    Parameters
    ----------
    clips : iterable of Clip
        All of one size.
    net : Network, str or path
    layers : iterable of str, optional
        Default: as in `explain`.
    k : int
        Largest number of clips for each feature.

    Returns
    -------
    TopClips

    Raises
    ------
    ParameterError
        If a layer does not exist, there are no clips, or clips are of several sizes.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> net = fd.pretrained("choi5-genre")
    >>> clips = [fd.Clip(np.sin(step * np.arange(44100)), 11025, net.frontend) for step in (1, 2)]
    >>> top = fd.top_clips(clips, net, ["pool5"], k=1)
    >>> top.maps("pool5", 12).shape
    (1, 1, 257, 173)
    """
    network, given = open_network(net), clips_of_one_size(clips)
    count = as_int("k", k, minimum=1, maximum=1_000_000)
    names = choose_layers(network, layers)
    units: dict[str, list[Units]] = {layer: [] for layer in names}
    for clip in given:
        trace = network.forward(clip.x)
        for layer, own in units.items():
            own.append(strongest_units(trace[layer]))
    table = []
    for layer, own in units.items():
        # Arrays of shape (features, clips).
        value, row, column = (np.stack(part, axis=1) for part in zip(*own))
        scores = firing_scores(value)
        for feature, order in enumerate(best_first(scores, count)):
            places = [clip for clip in order.tolist() if scores[feature, clip] > ABSENT]
            position = np.stack([row[feature, places], column[feature, places]], axis=1)
            index = network.layer_index(layer)
            boxes = boxes_seen(network, index, given[0].x.shape, position)
            for rank, (clip, at, box) in enumerate(zip(places, position, boxes), start=1):
                numbers = float(value[feature, clip]), clip, *at.tolist(), *box.tolist()
                table.append({
                    "layer": layer, "feature": feature, "rank": rank, **dict(zip(_FOUND, numbers)),
                })
    return TopClips(table, given, network, names)


def clips_of_one_size(clips: Iterable[Clip]) -> list[Clip]:
    """The clips that a user gave, checked to be of one size.

    Raises
    ------
    ParameterError
        If one of them is not a clip, there are none, or they are of several sizes.
    """
    found = [as_clip(clip) for clip in as_list("clips", clips)]
    shapes = {clip.x.shape for clip in found}
    if len(shapes) != 1:
        raise ParameterError(
            "clips must be at least one, of one size; found "
            f"{', '.join(sorted(map(str, shapes))) or 'none'}"
        )
    return found
