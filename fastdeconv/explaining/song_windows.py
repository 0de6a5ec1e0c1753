"""Running the windows of a song through the network, short ones several at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..audio.windows import windows as fixed_windows
from ..network.choosing import up_to

if TYPE_CHECKING:
    from ..audio.clip import Clip
    from ..audio.windows import Windows
    from ..deconvnet.scores import ClassScore
    from ..deconvnet.together import InputRun, Together
    from ..network.network import Network
    from .song_planning import SongPlan

__all__ = ["WindowRun", "runs"]

FloatArray = NDArray[np.float32]


class WindowRun:
    """A window of a song, and its way through the network.

    Attributes
    ----------
    number : int
    clip : Clip
    """

    def __init__(self, number: int, clip: Clip, network: Network, run: InputRun) -> None:
        self.number, self.clip, self._network, self._run = number, clip, network, run

    def activation(self, layer: str) -> FloatArray:
        """The feature maps of a layer, (C, H, W)."""
        return np.asarray(self._run.activation(self._network.layer_index(layer)), np.float32)

    def maps(
        self, layer: str, features: Sequence[int], start: Any, how: Mapping[str, Any]
    ) -> FloatArray:
        """What `deconvolve` finds for features of a layer with this start."""
        return self._run.maps(layer, features, {**how, "start": start})

    def scores(self) -> list[ClassScore]:
        """The scores of all classes."""
        from ..deconvnet.scores import class_scores

        return class_scores(self._run.output)


def runs(
    plan: SongPlan,
    numbers: Sequence[int] | None = None,
    *,
    layers: Iterable[str] | None = None,
    of_fixed_frames: bool = False,
) -> Iterator[list[WindowRun]]:
    """The windows of a song, or those with some numbers; those that run at a time, in order.

    The maps of a layer are computed for all of these together, and kept until another is asked for.
    So ask every one of them for a layer before you ask for the next layer.

    Parameters
    ----------
    plan : SongPlan
    numbers : sequence of int, optional
    layers : iterable of str, optional
        The layers that are needed, with which the network may end. Default: all, and the scores.
    of_fixed_frames : bool, default False
        Windows for the whole network, where those of the plan are pieces for a part of it.
    """
    from ..deconvnet.together import run_inputs

    windows, network = plan.windows, plan.runs
    if of_fixed_frames:
        windows, network = fixed_windows(plan.given), plan.network
    left = list(range(len(windows)) if numbers is None else numbers)
    how = _together(plan, windows, network) if len(left) > 1 else None
    needed = [] if layers is None else list(layers)
    if how is None and needed:
        network = _up_to(network, max(map(network.layer_index, needed)))
    inputs = ((number, windows.clip(number)) for number in left)
    for group in run_inputs(network, inputs, how):
        yield [WindowRun(number, clip, network, run) for number, clip, run in group]


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


def _together(plan: SongPlan, windows: Windows, network: Network) -> Together | None:
    """How windows run together; None if they have to run one at a time."""
    from ..deconvnet.together import together

    # A single unit is that of a window, and 1 everywhere is so only where the window sounds.
    how = plan.how
    if windows.exact or how["start"] != "map" or how["precision"] != "float32":
        return None
    found = together(network, windows.clip(0).samples.size)
    if found is None:
        return None
    # What goes back from a layer after the first part does not come through rows.
    count = len(found.part.layers)
    return found if all(network.layer_index(own) < count for own in plan.chosen) else None
