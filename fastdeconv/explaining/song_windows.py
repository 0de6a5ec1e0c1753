"""Running the windows of a song through the network, short ones several at a time.

Networks such as pitch trackers take a thousand samples at a time. Each of these windows is little
work for the kernels and much for Python. Where the input of the network is a single row and no
layer joins rows, several windows therefore become the rows of one input. The results are the same
as those of each window by itself, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..audio.windows import windows as fixed_windows
from ..network.choosing import up_to
from ..network.locality import rows_apart

if TYPE_CHECKING:
    from ..audio.clip import Clip
    from ..audio.windows import Windows
    from ..deconvnet.scores import ClassScore
    from ..deconvnet.trace import Trace
    from ..network.network import Network
    from .song_planning import SongPlan

__all__ = ["WindowRun", "runs"]

FloatArray = NDArray[np.float32]

_SAMPLES = 1 << 14
"""Samples of the windows that run at a time: as much memory as one window of that length needs.

Sixteen windows of a thousand samples are enough for two threads; more save no time.
"""


class WindowRun:
    """A window of a song, and its way through the network.

    Attributes
    ----------
    number : int
    clip : Clip
    """

    def __init__(self, number: int, clip: Clip, trace: Trace) -> None:
        self.number, self.clip, self._trace = number, clip, trace

    def activation(self, layer: str) -> FloatArray:
        """The feature maps of a layer, (C, H, W)."""
        return self._trace[layer]

    def maps(
        self, layer: str, features: Sequence[int], start: Any, how: Mapping[str, Any]
    ) -> FloatArray:
        """What `deconvolve` finds for features of a layer with this start."""
        from ..deconvnet.projection import deconvolve

        return deconvolve(self._trace, layer, features=features, **{**how, "start": start})

    def scores(self) -> list[ClassScore]:
        """The scores of all classes."""
        from ..deconvnet.scores import class_scores

        return class_scores(self._trace)


class _Rows:
    """Several windows as the rows of one input, with the maps that were asked for."""

    def __init__(self, clips: Sequence[Clip], local: Network, cut: str, head: Network) -> None:
        self.trace = local.forward(np.concatenate([clip.x for clip in clips], axis=1))
        self.cut, self.head = cut, head
        self.maps: dict[tuple[str, tuple[int, ...]], FloatArray] = {}


class _RowRun(WindowRun):
    """A window that is a row of an input."""

    def __init__(self, number: int, clip: Clip, rows: _Rows, row: int) -> None:
        super().__init__(number, clip, rows.trace)
        self._rows, self._row = rows, row

    def _own(self, values: FloatArray) -> FloatArray:
        return np.ascontiguousarray(values[..., self._row : self._row + 1, :])

    def activation(self, layer: str) -> FloatArray:
        # Cut first: the trace would copy the rows of all windows.
        values = self._trace.activation(self._trace.network.layer_index(layer))
        return self._own(values).astype(np.float32)

    def maps(
        self, layer: str, features: Sequence[int], start: Any, how: Mapping[str, Any]
    ) -> FloatArray:
        found, key = self._rows.maps, (layer, tuple(features))
        if key not in found:
            found[key] = super().maps(layer, features, start, how)
        return self._own(found[key])

    def scores(self) -> list[ClassScore]:
        from ..deconvnet.scores import class_scores

        return class_scores(self._rows.head.forward(self.activation(self._rows.cut)))


def runs(
    plan: SongPlan,
    numbers: Sequence[int] | None = None,
    *,
    layers: Iterable[str] | None = None,
    of_fixed_frames: bool = False,
) -> Iterator[WindowRun]:
    """The windows of a song, or those with some numbers, one after another.

    Parameters
    ----------
    plan : SongPlan
    numbers : sequence of int, optional
    layers : iterable of str, optional
        The layers that are needed, with which the network may end. Default: all, and the scores.
    of_fixed_frames : bool, default False
        Windows for the whole network, where those of the plan are pieces for a part of it.
    """
    windows, network = plan.windows, plan.runs
    if of_fixed_frames:
        windows, network = fixed_windows(plan.given), plan.network
    left = list(range(len(windows)) if numbers is None else numbers)
    parts = _parts(plan, windows, network) if len(left) > 1 else None
    needed = [] if layers is None else list(layers)
    if parts is None:
        if needed:
            network = _up_to(network, max(map(network.layer_index, needed)))
        for number in left:
            clip = windows.clip(number)
            yield WindowRun(number, clip, network.forward(clip.x))
        return
    count = _SAMPLES // windows.clip(0).samples.size
    for begin in range(0, len(left), count):
        group = left[begin : begin + count]
        clips = [windows.clip(number) for number in group]
        rows = _Rows(clips, *parts)
        for row, (number, clip) in enumerate(zip(group, clips)):
            yield _RowRun(number, clip, rows, row)


def _up_to(network: Network, last: int) -> Network:
    """The network as far as layer `last`, and no branch cut off that leaves it further below.

    Where the output of a layer goes to several others it is computed apart, which rounds otherwise.
    """
    while beyond := [
        i for i, sources in enumerate(network.sources)
        if i > last and any(0 <= source < last for source in sources)
    ]:
        last = max(beyond)
    return up_to(network, network.layers[last].name)


def _parts(
    plan: SongPlan, windows: Windows, network: Network
) -> tuple[Network, str, Network] | None:
    """The parts of a network that takes windows as rows, see `rows_apart`; None if it does not."""
    # A single unit is that of a window, and 1 everywhere is so only where the window sounds.
    how = plan.how
    if windows.exact or how["start"] != "map" or how["precision"] != "float32":
        return None
    if 2 * windows.clip(0).samples.size > _SAMPLES:
        return None
    parts = rows_apart(network)
    if parts is None:
        return None
    last = network.layer_index(parts[1])
    return parts if all(network.layer_index(own) <= last for own in plan.chosen) else None
