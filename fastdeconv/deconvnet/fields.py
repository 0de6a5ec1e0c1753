"""Receptive fields: the part of the input that a unit sees, also in seconds and hertz."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio.frontend import Frontend
from ..network.network import Network
from .region import seen_by
from .strongest import ABSENT, firing_scores, strongest_units

__all__ = ["Place", "boxes_seen", "place_of", "strongest_places"]

Array = NDArray[Any]
Pair = tuple[int, int]


class Place(NamedTuple):
    """The part of the input that a unit sees.

    Attributes
    ----------
    rows, columns : (int, int)
        Of the input, from the first number up to, but without, the second one.
    seconds : (float, float) or None
        The beginning of its first frame and the end of its last one; a frame counts as one hop.
    hertz : (float, float) or None
        The lowest and the highest bin of the STFT that contribute to its bands.

    `seconds` and `hertz` are None if the network has no front end; `hertz` is None for a waveform.
    """

    rows: Pair
    columns: Pair
    seconds: tuple[float, float] | None
    hertz: tuple[float, float] | None

    def texts(self) -> list[str]:
        """Seconds and hertz as texts, those that are known."""
        found = []
        if self.seconds is not None:
            found.append("{:.2f} to {:.2f} s".format(*self.seconds))
        if self.hertz is not None:
            found.append("{:.0f} to {:.0f} Hz".format(*self.hertz))
        return found


def place_of(frontend: Frontend | None, rows: Pair, columns: Pair) -> Place:
    """The place of a rectangle of the input of a network with this front end."""
    if frontend is None:
        return Place(rows, columns, None, None)
    spans = dict(zip(frontend.layout[1:], (rows, columns)))
    kind, transform = frontend.meaning, frontend.transform
    seconds = hertz = None
    if "T" in spans:
        step = (1 if frontend.kind == "waveform" else transform.hop_length) / frontend.sr
        seconds = spans["T"][0] * step, spans["T"][1] * step
    if "F" in spans and frontend.kind != "waveform":
        bands = np.zeros((1, 1, kind.rows(frontend)), np.float32)
        bands[..., slice(*spans["F"])] = 1
        is_heard = kind.drawn(frontend, bands, frontend.n_fft)[0, 0] > 0
        heard = transform.frequencies(frontend.sr)[is_heard]
        if heard.size:
            hertz = float(heard[0]), float(heard[-1])
    return Place(rows, columns, seconds, hertz)


def strongest_places(
    net: Network, layer: int, shape: Sequence[int], activation: Array
) -> list[Place | None]:
    """The part of the input that the strongest unit of each feature sees; of equal units the first.

    Parameters
    ----------
    net : Network
    layer : int
    shape : (C, H, W)
        Shape of the input.
    activation : array, shape (K, h, w)
        Activations of any features of the layer.

    Returns
    -------
    list of Place or None
        None for a feature that is never above 0.
    """
    if not activation.size:
        return [None] * len(activation)
    units = strongest_units(activation)
    position = np.stack([units.row, units.column], axis=1)
    distinct, number = np.unique(position, axis=0, return_inverse=True)
    places = [
        place_of(net.frontend, (top, bottom), (left, right))
        for top, bottom, left, right in boxes_seen(net, layer, shape, distinct).tolist()
    ]
    return [
        places[n] if score > ABSENT else None
        for n, score in zip(number.reshape(-1).tolist(), firing_scores(units.value).tolist())
    ]


def boxes_seen(net: Network, layer: int, shape: Sequence[int], position: Array) -> Array:
    """The parts of the input that units of a layer see.

    Parameters
    ----------
    net : Network
    layer : int
    shape : (C, H, W)
        Shape of the input.
    position : array of int, shape (K, 2)
        Row and column of each unit; negative where there is none.

    Returns
    -------
    array of int, shape (K, 4)
        First row and the row behind the last, the same for columns; zeros where there is no unit.
    """
    sizes = [(rows, columns) for _, rows, columns in (shape, *net.shapes(shape))]
    boxes = np.zeros((len(position), 4), int)
    for box, (row, column) in zip(boxes, position.tolist()):
        if row < 0:
            continue  # the feature does not fire
        seen = seen_by(net, layer, (row, column), sizes)
        box[:] = (*seen.rows, *seen.cols)
    return boxes
