"""What is asked for: which features of which layers, of which sound, and how."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio._checks import MODES, as_choice
from ..deconvnet.projection import checked_features
from ..errors import ParameterError, shown
from ..network.choosing import as_list, choose_layers, open_network
from ..network.fingerprint import hash_of, network_hash
from ..version import __version__

if TYPE_CHECKING:
    from ..audio.clip import Clip
    from ..audio.frontend import Frontend
    from ..deconvnet.trace import Trace
    from ..network.network import Network

__all__ = [
    "ALL", "LAYERS_SETTING", "MEMORY_ADVICE", "Features", "Plan", "Progress", "choose_features",
    "features_hash", "layer_counts", "parameters_of", "plan", "settings_of",
]

#: Called with (layer, features done, features in all) each time a layer is done.
Progress = Callable[[str, int, int], None]

#: Feature numbers for all layers or for each layer; `ALL` instead of numbers means all features.
Features = Sequence[int] | str | Mapping[str, Sequence[int] | str]
FloatArray = NDArray[np.float32]

ALL = "all"
"""All features of a layer."""

LAYERS_SETTING = "layers and features"
"""The name of the setting that says which layers and features were explained."""

MEMORY_ADVICE = "this: explain a shorter clip, fewer layers or fewer features"
"""What to do where the memory is too small for a clip; for `enough_memory`."""


def plan(
    source: Any,
    net: Network | str | os.PathLike[str],
    layers: str | Iterable[str] | None,
    features: Features | None,
    rule: str,
    start: Any,
    mode: str,
    *,
    offset: float,
    precision: str,
) -> Plan:
    """Read the clip and choose the features that `explain` is asked for."""
    from ..audio.clip import file_name, open_clip
    from ..belief.feature_maps import FEATURE_RULES

    as_choice("mode", mode, MODES)
    as_choice("rule", rule, FEATURE_RULES)
    network = open_network(net)
    chosen = choose_features(network, layers, features)
    clip = open_clip(source, network.frontend, offset)
    counts = layer_counts(network, clip)
    numbers = {
        layer: wanted if isinstance(wanted, list) else list(range(counts[layer]))
        for layer, wanted in chosen.items()
    }
    how = {"rule": rule, "start": start, "precision": precision}
    return Plan(clip, network, numbers, how, mode, file_name(source))


def layer_counts(network: Network, clip: Clip) -> dict[str, int]:
    """How many features every layer has.

    Raises
    ------
    ParameterError
        If the network does not take the clip. Says which front end would fit.
    """
    counts = [shape[0] for shape in _shapes(network, clip)]
    return {layer.name: count for layer, count in zip(network.layers, counts)} | {
        alias: counts[network.layer_index(alias)] for alias in network.aliases
    }


def _shapes(network: Network, clip: Clip) -> list[tuple[int, int, int]]:
    """The shapes of the layers' outputs; see `layer_counts`."""
    try:
        return network.shapes(clip.x.shape)
    except ParameterError as error:
        from ..audio.fitting import advice

        change = advice(clip.frontend, clip.x.shape, network.input_shape)
        if change is None:
            raise
        raise ParameterError(f"{error}; the front end would fit with {change}") from None


class Plan(NamedTuple):
    """An explanation before it is computed."""

    clip: Clip
    network: Network
    features: dict[str, list[int]]
    how: dict[str, Any]
    """The arguments of `feature_maps` other than the layer and the features."""
    mode: str
    source: str | None

    def project(
        self, trace: Trace, progress: Progress | None = None
    ) -> dict[str, FloatArray]:
        """For each layer the maps of its features, (K, C, H, W)."""
        from ..belief.feature_maps import feature_maps

        layout = self.clip.frontend.layout
        done, total = 0, sum(map(len, self.features.values()))
        maps = {}
        for layer, wanted in self.features.items():
            maps[layer] = feature_maps(trace, layout, layer, wanted, **self.how)
            done += len(wanted)
            if progress is not None:
                progress(layer, done, total)
        return maps

    @property
    def asked(self) -> Mapping[str, Sequence[int] | str | None]:
        """The layers and features as they go into the settings."""
        return self.features

    @property
    def parameters(self) -> dict[str, Any]:
        """How it is computed, for the manifest."""
        return parameters_of(self.how, self.mode, self.clip.start)

    def settings(self, audio_format: str) -> dict[str, str]:
        """Everything that decides what is saved, each as a word or as a hash.

        Two results with the same settings hold the same, except that back ends round differently.
        """
        return settings_of(
            self.clip.samples, self.network, self.clip.frontend, self.asked, self.how,
            self.mode, audio_format,
        )


def parameters_of(how: Mapping[str, Any], mode: str, offset: float) -> dict[str, Any]:
    """How something is computed, for the manifest."""
    start = how["start"]
    return {
        "rule": how["rule"],
        "start": start if isinstance(start, str) else "array",
        "mode": mode,
        "offset": offset,
        "precision": how["precision"],
    }


def settings_of(
    samples: FloatArray, network: Network, frontend: Frontend,
    features: Mapping[str, Sequence[int] | str | None], how: Mapping[str, Any], mode: str,
    audio_format: str,
) -> dict[str, str]:
    """Everything that decides what is saved; see `Plan.settings`."""
    start = how["start"]
    return {
        "version of fastdeconv": __version__,
        "song": hash_of(samples),
        "network": network_hash(network),
        "front end": hash_of(frontend.to_record()),
        LAYERS_SETTING: features_hash(features),
        "rule": how["rule"],
        "start": start if isinstance(start, str) else hash_of(np.asarray(start)),
        "mode": mode,
        "precision": how["precision"],
        "audio format": audio_format,
    }


def features_hash(features: Mapping[str, Sequence[int] | str | None]) -> str:
    """The value of `LAYERS_SETTING` for these layers and features."""
    return hash_of(
        {
            layer: ks if ks is None or isinstance(ks, str) else [int(k) for k in ks]
            for layer, ks in features.items()
        }
    )


def choose_features(
    network: Network, layers: str | Iterable[str] | None, features: Features | None
) -> dict[str, list[int] | str | None]:
    """For each layer the features asked for, `ALL`, or None where none are named.

    Raises
    ------
    ParameterError
        If there is no such layer, features are given for a layer that is not among `layers`,
        they are neither numbers nor "all", or the layer has no such feature. The last cannot be
        found out here where the number of features depends on the input.
    """
    found: dict[str, list[int] | str | None]
    if not isinstance(features, Mapping):
        found = dict.fromkeys(choose_layers(network, layers), _as_wanted(features))
    else:
        chosen = choose_layers(network, list(features) if layers is None else layers)
        strangers = [layer for layer in features if layer not in chosen]
        if strangers:
            raise ParameterError(
                f"features are given for {shown(strangers[0])}, which is not among the layers "
                f"{', '.join(chosen)}"
            )
        numbers = {layer: _as_wanted(wanted) for layer, wanted in features.items()}
        found = {layer: numbers.get(layer) for layer in chosen}
    shapes = network.known_shapes
    for layer, wanted in found.items():
        count = shapes[network.layer_index(layer)][0]
        if isinstance(wanted, list) and count is not None:
            checked_features(layer, count, wanted)
    return found


def _as_wanted(features: Any) -> list[int] | str | None:
    if features is None or (isinstance(features, str) and features == ALL):
        return features
    if isinstance(features, str):
        raise ParameterError(f"features must be numbers or 'all', found {shown(features)}")
    return as_list("features", features)

