"""How features develop during training.

Zeiler and Fergus (arXiv 1311.2901, section 4.1, figure 4) took some features of each layer at
several epochs, and showed the projection to the input of the feature's strongest activation in all
training examples. A picture changes suddenly when another example becomes the strongest one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..audio.clip import Clip
from ..audio.frontend import Frontend
from ..deconvnet.fields import boxes_seen
from ..deconvnet.projection import checked_features, deconvolve
from ..deconvnet.strongest import strongest_units
from ..deconvnet.trace import as_input
from ..errors import ParameterError, enough_memory, shown
from ..kernels.dispatch import config
from ..network.choosing import as_list, up_to
from ..network.layers import shape_text
from ..network.network import Network

__all__ = ["Evolution", "feature_evolution"]

Array = NDArray[Any]

_FOUND = ("activation", "clip", "row", "column", "top", "bottom", "left", "right")
_SHOWN = 8
"""Default number of features."""


@enough_memory("this study: take fewer features or checkpoints")
def feature_evolution(
    checkpoints: Mapping[str, Network],
    clips: Sequence[Clip | ArrayLike],
    layer: str,
    features: Sequence[int] | None = None,
    *,
    rule: Literal["deconvnet", "guided", "gradient"] = "deconvnet",
    progress: Callable[[str, int, int], None] | None = None,
    backend: str | None = None,
    num_threads: int | None = None,
) -> Evolution:
    """Project each feature's strongest activation in a set of clips, at several checkpoints.

    Parameters
    ----------
    checkpoints : dict of str to Network
        In the order of training. The keys are labels, such as "1", "5", "end".
    clips : sequence of Clip, or of arrays (C, H, W)
        All of one shape.
    layer : str
    features : sequence of int, optional
        Default: the eight with the strongest activation at the last checkpoint, the strongest
        first.
    rule, backend, num_threads
        See `deconvolve`.
    progress : callable, optional
        Called with (label of the checkpoint, clips done, clips in all), over all checkpoints.

    Returns
    -------
    Evolution

    Raises
    ------
    ParameterError
        If there are no checkpoints, clips or features; clips are of several shapes or do not fit
        the networks; a layer or feature does not exist; the layer has another shape at another
        checkpoint; or there is not enough memory.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> end = fd.pretrained("choi5-genre")
    >>> start = fd.pretrained("choi5-genre", trained=False)
    >>> clip = fd.Clip(np.sin(np.arange(44100)), 11025, end.frontend)
    >>> found = fd.feature_evolution({"0": start, "end": end}, [clip], "pool2", features=[3])
    >>> found.maps.shape
    (1, 2, 1, 257, 173)
    """
    _check_checkpoints(checkpoints)
    inputs = _inputs(clips)
    networks = {label: up_to(net, layer) for label, net in checkpoints.items()}
    shape = _common_shape(networks, layer, inputs[0].shape)
    wanted = None if features is None else checked_features(layer, shape[0], features).tolist()
    if wanted == []:
        raise ParameterError("features must not be empty; None shows the strongest")
    with config(backend=backend, num_threads=num_threads):
        found = {}
        for number, (label, net) in enumerate(networks.items()):
            def tell(done: int, label: str = label, before: int = number * len(inputs)) -> None:
                if progress is not None:
                    progress(label, before + done, len(networks) * len(inputs))

            found[label] = _strongest(net, layer, inputs, tell)
        if wanted is None:
            last = list(found.values())[-1].value
            wanted = [int(k) for k in np.argsort(-last, kind="stable")[:_SHOWN]]
        maps = [
            _project(net, layer, inputs, wanted, found[label], rule)
            for label, net in networks.items()
        ]
    position = np.stack([own.position[wanted] for own in found.values()], axis=1)
    return Evolution(
        layer=layer,
        features=wanted,
        labels=list(networks),
        maps=np.stack(maps, axis=1),
        value=np.stack([own.value[wanted] for own in found.values()], axis=1),
        clip=np.stack([own.clip[wanted] for own in found.values()], axis=1),
        position=position,
        box=np.stack([
            # By each network itself: maps of one size may come from kernels of other sizes.
            boxes_seen(net, len(net.layers) - 1, inputs[0].shape, position[:, t])
            for t, net in enumerate(networks.values())
        ], axis=1),
        frontend=list(networks.values())[-1].frontend,
    )


@dataclass(frozen=True, eq=False)
class Evolution:
    """The results of `feature_evolution`: K features at T checkpoints.

    Attributes
    ----------
    layer : str
    features : list of int
    labels : list of str
        Of the checkpoints.
    maps : array of float32, shape (K, T, C, H, W)
        Projections of the strongest activation; zero for a feature that fires nowhere.
    value : array of float32, shape (K, T)
        The strongest activation; 0 for a feature that fires nowhere.
    clip : array of int, shape (K, T)
        Index of the clip with this activation, the first of equal ones; -1 for a feature that
        fires nowhere.
    position : array of int, shape (K, T, 2)
        Row and column of this activation in the feature map; -1 for a feature that fires nowhere.
    box : array of int, shape (K, T, 4)
        Its receptive field in the input: the first row and the one after the last, and columns
        likewise; all 0 for a feature that fires nowhere.
    frontend : Frontend or None
    """

    layer: str
    features: list[int]
    labels: list[str]
    maps: Array
    value: Array
    clip: Array
    position: Array
    box: Array
    frontend: Frontend | None

    def __repr__(self) -> str:
        return (
            f"<Evolution of {self.layer}: {len(self.features)} features, "
            f"{len(self.labels)} checkpoints>"
        )

    def patch(self, k: int, t: int) -> Array:
        """The map of ``features[k]`` at ``labels[t]``, cropped to its receptive field.

        Parameters
        ----------
        k, t : int
            Indices into `features` and `labels`.

        Returns
        -------
        array of float32, shape (C, rows, columns)
        """
        top, bottom, left, right = self.box[k, t]
        patch: Array = self.maps[k, t, :, top:bottom, left:right]
        return patch

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row for each feature and checkpoint.

        It has ``layer``, ``feature`` and ``checkpoint``; the strongest ``activation`` with its
        ``clip``, ``row`` and ``column``; and its receptive field in the input: ``top``, ``bottom``,
        ``left`` and ``right``. All but the first three are None for a feature that fires nowhere.
        """
        rows = []
        for i, k in enumerate(self.features):
            for t, label in enumerate(self.labels):
                row: dict[str, Any] = {"layer": self.layer, "feature": k, "checkpoint": label}
                row |= dict.fromkeys(_FOUND)
                if self.clip[i, t] >= 0:
                    places = (self.clip[i, t], *self.position[i, t], *self.box[i, t])
                    row |= zip(_FOUND, (float(self.value[i, t]), *map(int, places)))
                rows.append(row)
        return rows


@dataclass
class _Strongest:
    """The strongest activation in all clips, for each feature of a layer."""

    value: Array
    clip: Array
    position: Array


def _strongest(
    net: Network, layer: str, inputs: Sequence[Array], tell: Callable[[int], None]
) -> _Strongest:
    count = net.shapes(inputs[0].shape)[-1][0]
    best = _Strongest(
        np.zeros(count, np.float32), np.full(count, -1), np.full((count, 2), -1)
    )
    for number, x in enumerate(inputs):
        maps = net.forward(x)[layer]
        values, rows, columns = strongest_units(maps)
        better = values > best.value
        best.value[better], best.clip[better] = values[better], number
        best.position[better] = np.stack([rows, columns], axis=1)[better]
        tell(number + 1)
    return best


def _project(
    net: Network, layer: str, inputs: Sequence[Array], features: Sequence[int],
    found: _Strongest, rule: Any,
) -> Array:
    out = np.zeros((len(features), *inputs[0].shape), np.float32)
    clips = found.clip[features].tolist()
    for clip in sorted(set(clips) - {-1}):
        rows = [i for i, own in enumerate(clips) if own == clip]
        chosen = [features[i] for i in rows]
        trace = net.forward(inputs[clip])
        out[rows] = deconvolve(trace, layer, chosen, rule=rule, start="max")
    return out


def _check_checkpoints(checkpoints: Any) -> None:
    if not isinstance(checkpoints, Mapping) or not checkpoints:
        raise ParameterError("checkpoints must be a dict of at least one network")
    for label, net in checkpoints.items():
        if not isinstance(label, str):
            raise ParameterError(f"checkpoints must be named by str, found {shown(label)}")
        if not isinstance(net, Network):
            raise ParameterError(
                f"checkpoint {shown(label)} must be a Network, found {type(net).__name__}"
            )


def _inputs(clips: Any) -> list[Array]:
    inputs: list[Array] = [
        clip.x if isinstance(clip, Clip) else as_input(clip, f"clips[{i}]")
        for i, clip in enumerate(as_list("clips", clips))
    ]
    shapes = {x.shape for x in inputs}
    if len(shapes) != 1:
        raise ParameterError(
            "clips must be at least one, all of one shape (C, H, W); found "
            f"{', '.join(sorted(map(str, shapes))) or 'none'}"
        )
    return inputs


def _common_shape(
    networks: Mapping[str, Network], layer: str, shape: Sequence[int]
) -> tuple[int, int, int]:
    found = {label: net.shapes(shape)[-1] for label, net in networks.items()}
    first = next(iter(found.values()))
    for label, own in found.items():
        if own != first:
            raise ParameterError(
                f"checkpoint {shown(label)}: layer {shown(layer)} has the shape "
                f"{shape_text(own)}, at the first checkpoint {shape_text(first)}"
            )
    return first
