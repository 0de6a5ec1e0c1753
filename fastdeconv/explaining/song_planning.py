"""A whole song before it is explained: how it is cut, and what is computed of each window."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio._checks import MODES, as_choice
from ..errors import ParameterError, shown
from ..network.choosing import open_network
from ..network.fields import receptive_fields
from .planning import (
    ALL,
    Features,
    choose_features,
    layer_counts,
    parameters_of,
    settings_of,
)

if TYPE_CHECKING:
    from ..audio.song import Song
    from ..audio.windows import Windows
    from ..network.locality import Reach
    from ..network.network import Network

__all__ = ["SongPlan", "plan_song"]

FloatArray = NDArray[np.float32]

_FAR_SECONDS = 8.0
"""How far a layer may see if it makes pieces longer though it was not asked for."""


class SongPlan(NamedTuple):
    """An explanation of a song before it is computed."""

    windows: Windows
    network: Network
    """As it was given."""
    local: Network | None
    """Of an exact explanation, what of the network takes any length."""
    head: tuple[str, Network] | None
    """The layer behind which that is no longer so, and what goes on there: one score for all."""
    chosen: dict[str, list[int] | str | None]
    """For each layer the features asked for; None for those to hear first."""
    counts: dict[str, int]
    """How many features each of these layers has."""
    how: dict[str, Any]
    """What `deconvolve` is told besides the layer and the features."""
    mode: str
    source: str | None
    given: Song
    """With the front end of the network."""
    duration: str

    @property
    def asked(self) -> Mapping[str, Sequence[int] | str | None]:
        """As `Plan.asked`."""
        return self.chosen

    def without(self, layers: Container[str]) -> SongPlan:
        """The same without some of the layers; the song is taken as with them."""
        chosen = {layer: ks for layer, ks in self.chosen.items() if layer not in layers}
        return self._replace(
            chosen=chosen, counts={layer: self.counts[layer] for layer in chosen}
        )

    @property
    def runs(self) -> Network:
        """What is run on a window."""
        return self.network if self.local is None else self.local

    @property
    def axis(self) -> str:
        """Along which axis of the input time goes."""
        return _time_axis(self.given.frontend.layout)

    def unit(self, layer: str) -> float | None:
        """Samples from one place of a layer to the next; None where windows are independent."""
        if self.local is None:
            return None
        fields = receptive_fields(self.local.layers, self.local.sources, self.local.arrays)
        jump = fields[self.local.layer_index(layer)].jump["HW".index(self.axis)]
        framing = self.windows.song.frontend.framing
        return jump * (framing.seen(2) - framing.seen(1))

    def place_of(self, layer: str, sample: int) -> int:
        """The place of an exact explanation's layer that begins at a sample."""
        unit = self.unit(layer)
        assert unit is not None
        return round(sample / unit)

    @property
    def parameters(self) -> dict[str, Any]:
        """How it is computed, in words and numbers."""
        return {
            **parameters_of(self.how, self.mode, self.given.start), "duration": self.duration
        }

    @property
    def taken(self) -> dict[str, Any]:
        """How the song is taken, in words and numbers."""
        rows, sr = self.windows.rows, self.given.sr
        step = rows[1].start - rows[0].start if len(rows) > 1 else None
        return {
            "count": len(rows),
            "exact": self.windows.exact,
            "seconds": self.windows.clip(0).duration,
            "hop_seconds": None if step is None else step / sr,
        }

    def settings(self, audio_format: str) -> dict[str, str]:
        """See `Plan.settings`."""
        found = settings_of(
            self.given.samples, self.network, self.given.frontend, self.asked, self.how,
            self.mode, audio_format,
        )
        # A song is taken in windows however long it is.
        return found | {"duration": "all of it" if self.duration == ALL else "a part"}


def plan_song(
    source: Any,
    net: Network | str | os.PathLike[str],
    layers: str | Iterable[str] | None,
    features: Features | None,
    rule: str,
    start: Any,
    mode: str,
    *,
    offset: float,
    duration: float | str,
    precision: str,
) -> SongPlan:
    """What `explain` is asked for, with the song read and cut into windows."""
    from ..audio._checks import as_number
    from ..audio.clip import Clip, file_name
    from ..audio.song import load_song
    from ..audio.windows import windows
    from ..belief.feature_maps import WITH_SIGN
    from ..deconvnet.projection import checked_features

    if as_choice("mode", mode, MODES) == "wiener":
        raise ParameterError(
            "mode 'wiener' is for a clip: it takes values as shares of the largest of a map, which "
            "a window of a song does not know; a song takes 'mask' or 'phase'"
        )
    if rule == WITH_SIGN:
        raise ParameterError(
            f"rule {WITH_SIGN!r} is for a clip: it takes the input less its mean over time, which "
            "a window of a song does not know"
        )
    if isinstance(duration, str) and duration != ALL:
        raise ParameterError(f"duration must be seconds or 'all', found {shown(duration)}")
    seconds = None if isinstance(duration, str) else as_number("duration", duration, above=0)
    if isinstance(source, Clip):
        raise ParameterError("duration is for files: a Clip is explained as it is")
    if not isinstance(start, str):
        raise ParameterError(
            "start must be 'map', 'max' or 'one' for a song: values of one's own are for a clip"
        )
    network = open_network(net)
    chosen = choose_features(network, layers, features)
    song = load_song(source, network.frontend, offset=offset, duration=seconds)
    local, head, cut = _exact(network, list(chosen), song) or (None, None, windows(song))
    counts = layer_counts(network if local is None else local, cut.clip(0))
    for layer, wanted in chosen.items():
        if isinstance(wanted, list):
            chosen[layer] = checked_features(layer, counts[layer], wanted).tolist()
    as_choice("start", start, ("map", "max", "one"))
    how = {"rule": rule, "start": start, "precision": precision}
    return SongPlan(
        cut, network, local, head, chosen, {layer: counts[layer] for layer in chosen}, how, mode,
        file_name(source), song, ALL if seconds is None else f"{seconds:g} s",
    )


def _exact(
    network: Network, layers: list[str], song: Song
) -> tuple[Network, tuple[str, Network] | None, Windows] | None:
    """What runs on pieces of the song so that all is as in one pass over it, if that can be."""
    from ..audio.windows import depends_on_the_whole, pieces
    from ..network.locality import head_after

    axis = _time_axis(song.frontend.layout)
    frames, size = song.frontend.frames, song.samples.size
    if frames is not None and size <= song.frontend.framing.longest(frames):
        return None  # one window, padded as a clip is
    if not layers or axis == "C" or depends_on_the_whole(song.frontend):
        return None
    deepest, head = max(layers, key=network.layer_index), None
    if network.classes and song.frontend.frames is None:
        head = head_after(network, axis)
    if head is not None and network.layer_index(head[0]) > network.layer_index(deepest):
        deepest = head[0]
    found = _local_part(network, deepest, song)
    if found is None:
        return None
    local, reach = found
    return local, head, pieces(song, reach.margin, reach.step)


def _local_part(network: Network, deepest: str, song: Song) -> tuple[Network, Reach] | None:
    """What of a network takes any length, at least as far as the deepest layer that is needed.

    As far as it goes, so that the pieces of a song do not depend on the layers asked for, and
    more layers can be added to what was saved. Only where layers that are not needed see very
    far, which would make pieces long, it ends at the deepest that is.
    """
    from ..network.locality import local_layers, of_any_length

    axis = _time_axis(song.frontend.layout)
    count = local_layers(network, axis)
    if network.layer_index(deepest) >= count:
        return None
    framing = song.frontend.framing
    column = (framing.seen(2) - framing.seen(1)) / song.sr
    found = of_any_length(network, network.layers[count - 1].name, axis)
    if found is not None and found[1].margin * column <= _FAR_SECONDS:
        return found
    return of_any_length(network, deepest, axis)


def _time_axis(layout: str) -> str:
    """The axis of the input that is time."""
    return "CHW"[layout.index("T")]
