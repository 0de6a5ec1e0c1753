"""What a notebook shows of an explanation: self-contained fragments of HTML.

A notebook file keeps what it shows. To keep it small, a fragment shows only a few features of each
layer, pictures have at most `COLUMNS` columns, and the overview's players stop after `SECONDS`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError, printable
from .axis import FrequencyAxis
from .listening import axis_of, class_table
from .numbers import NUMBERS
from .picture import RANGE_DB, levels, png, signed_levels
from .song import heard, original_gain, weights
from .sounds import encode, peak_gain
from .timeline import timeline_indices
from .web import fragment

if TYPE_CHECKING:
    from ..audio.clip import Clip
    from ..audio.frontend import Frontend
    from ..network.network import Network

__all__ = [
    "CLASSES", "COLUMNS", "FEATURES", "SECONDS", "Explained", "FeatureView", "Heard", "Judged",
    "Listed", "SavedFeatureView", "decision_overview", "overview", "saved_overview",
    "song_overview",
]

#: Features of a layer in the overview.
FEATURES = 3
#: Classes of a decision that are shown.
CLASSES = 8
#: How many seconds of a longer clip the overview's players hold.
SECONDS = 30
#: Pixels of the widest picture.
COLUMNS = 600

# The numbers of a feature in the overview.
_SAID = ("level", "centroid", "onset")

FloatArray = NDArray[np.float32]


class Listed(Protocol):
    """What the overviews have in common: an explanation of a clip or a song, or a saved one."""

    name: str
    features: dict[str, list[int]]
    outputs: list[tuple[str, float]]
    probabilities: list[tuple[str, float]]

    @property
    def covered(self) -> str | None:
        """Which part of the song was explained, in words; None if all of it was."""

    def ranked(self, layer: str) -> list[dict[str, Any]]:
        """The rows of the table for a layer, the feature to hear first at the beginning."""

    def sound(self, layer: str, feature: int) -> FloatArray:
        """The sound of a feature."""


class Explained(Listed, Protocol):
    """An explanation of a clip; see `fastdeconv.Explanation`."""

    clip: Clip
    network: Network
    mode: str
    maps: dict[str, FloatArray]

    @property
    def clip_numbers(self) -> dict[str, Any]:
        """The numbers of the clip itself."""


class Judged(NamedTuple):
    """A class by one method: the weights of the bins of its STFT, and what spoke for it."""

    method: str
    weights: FloatArray
    sound: FloatArray


class Heard:
    """The spectrograms that become the sounds of one layer, and the scale they share.

    Parameters
    ----------
    explanation : Explained
    layer : str
        Must have been explained.

    Attributes
    ----------
    reference : float
        The largest magnitude of all of them, which is the brightest colour, 0 dB.
    """

    def __init__(self, explanation: Explained, layer: str) -> None:
        self._explanation, self._layer = explanation, layer
        self._stft = np.ascontiguousarray(np.abs(explanation.clip.stft))
        largest = (float(self[k].max(initial=0.0)) for k in explanation.features[layer])
        self.reference = max(largest, default=0.0)

    def __getitem__(self, feature: int) -> FloatArray:
        """Magnitude (F, T) of one feature."""
        explanation, layer = self._explanation, self._layer
        return heard(
            explanation.clip, self._stft, _map_of(explanation, layer, feature),
            explanation.mode, _sound_for_pictures(explanation, layer, feature),
        )


class FeatureView:
    """One feature beside the clip, as a notebook shows it. Made by `Explanation.show`.

    Attributes
    ----------
    row : dict
        The feature's row of the `Explanation.table`.
    """

    def __init__(self, explanation: Explained, row: Mapping[str, Any]) -> None:
        self.row = dict(row)
        self._explanation = explanation

    def __repr__(self) -> str:
        return _feature_text(self.row, self._explanation.name)

    def _repr_html_(self) -> str:
        explanation, row = self._explanation, self.row
        layer, k = row["layer"], row["feature"]
        clip, heard = explanation.clip, Heard(explanation, layer)
        axis = FrequencyAxis.of(clip.frontend)
        plane = weights(
            clip, _map_of(explanation, layer, k), explanation.mode,
            _sound_for_pictures(explanation, layer, k),
        )
        own = explanation.clip_numbers
        return fragment("notebook_feature.html", {
            "name": f"{printable(layer)}/{k}",
            "row": row,
            "count": len(set(explanation.features[layer])),
            "original": _original(clip, axis),
            "axis": _axis(explanation),
            "map": _picture(signed_levels(_narrow(axis.nearest(plane))), signed=True),
            "heard": _heard_picture(axis, heard[k], heard.reference),
            "sound": _sound(explanation.sound(layer, k), clip.sr, row["gain"]),
            "mode": explanation.mode,
            "range_db": round(RANGE_DB),
            "numbers": _numbers_of(row, own),
        })


class SavedFeatureView:
    """One feature of a saved result, as a notebook shows it. Made by `SavedExplanation.show`.

    Attributes
    ----------
    row : dict
        The feature's row of the table.
    """

    def __init__(
        self, row: Mapping[str, Any], song: str, frontend: Mapping[str, Any], mode: str,
        pictures: Sequence[bytes], sounds: tuple[FloatArray, FloatArray],
        gains: tuple[float, float], count: int,
    ) -> None:
        self.row = dict(row)
        self._song, self._frontend, self._mode, self._count = song, frontend, mode, count
        self._pictures, self._sounds, self._gains = pictures, sounds, gains

    def __repr__(self) -> str:
        return _feature_text(self.row, self._song)

    def _repr_html_(self) -> str:
        row, sr = self.row, self._frontend["sr"]
        original, plane, heard = (_data("image/png", picture) for picture in self._pictures)
        own, sound = (
            _sound(samples, sr, gain) for samples, gain in zip(self._sounds, self._gains)
        )
        axis = axis_of(FrequencyAxis.of(self._frontend), self._sounds[0].size / sr)
        return fragment("notebook_feature.html", {
            "name": f"{printable(row['layer'])}/{row['feature']}",
            "row": row,
            "count": self._count,
            "original": {"picture": original, "sound": own},
            "axis": axis, "map": plane, "heard": heard, "sound": sound, "mode": self._mode,
            "range_db": round(RANGE_DB),
            "numbers": _numbers_of(row, {}),
        })


def overview(explanation: Explained) -> str:
    """The clip, and of each layer the `FEATURES` features to listen to first, as HTML."""
    clip, network = explanation.clip, explanation.network
    axis = FrequencyAxis.of(clip.frontend)
    scales = {layer: Heard(explanation, layer) for layer in explanation.maps}

    def picture(layer: str, feature: int) -> str:
        return _heard_picture(axis, scales[layer][feature], scales[layer].reference)

    return fragment("notebook.html", {
        **_heading(explanation, network.name, network.output, clip.samples.size / clip.sr),
        "original": _original(clip, axis, SECONDS),
        "axis": _axis(explanation),
        "layers": [_layer(explanation, layer, clip.sr, picture) for layer in explanation.maps],
        "is_saved": False,
    })


def saved_overview(
    saved: Listed, network: Mapping[str, Any], frontend: Mapping[str, Any],
    original: tuple[bytes, FloatArray, float], picture: Callable[[str, int], bytes],
) -> str:
    """`overview` of a saved result, with its own pictures.

    Parameters
    ----------
    saved : Listed
    network, frontend : mapping
        As in the manifest.
    original : tuple of (bytes, array, float)
        Picture, samples and gain of the clip.
    picture : callable
        Takes a layer and a feature; returns the PNG.
    """
    image, samples, gain = original
    sr = frontend["sr"]
    seconds = samples.size / sr
    return fragment("notebook.html", {
        **_heading(saved, network["name"], network["output"], seconds),
        "original": {
            "picture": _data("image/png", image), "sound": _sound(samples, sr, gain, SECONDS),
        },
        "axis": axis_of(FrequencyAxis.of(frontend), seconds),
        "layers": [
            _layer(saved, layer, sr, lambda layer, k: _data("image/png", picture(layer, k)))
            for layer in saved.features
        ],
        "is_saved": True,
    })


def song_overview(
    song: Listed, network: Network, samples: FloatArray, frontend: Frontend,
    timeline: Mapping[str, FloatArray],
) -> str:
    """A song, and when the features of each layer fire, as HTML.

    Sounds of features are left out: they take as long as `SongExplanation.save`.
    """
    seconds = samples.size / frontend.sr
    return fragment("notebook_song.html", {
        **_heading(song, network.name, network.output, seconds),
        "sound": _sound(samples, frontend.sr, original_gain(samples), SECONDS),
        "axis": axis_of(FrequencyAxis.of(frontend), seconds) | {"hz": []},
        "layers": [
            {
                "name": printable(layer), "count": len(values),
                "explained": len(song.features[layer]),
                "picture": _data("image/png", png(timeline_indices(_narrow(values)))),
            }
            for layer, values in timeline.items() if layer in song.features
        ],
    })


def decision_overview(
    said: Mapping[str, Any], clip: Clip, classes: Sequence[tuple[str, Sequence[Judged]]], count: int
) -> str:
    """A decision: the clip, and the map and the sound of each class and method, as HTML.

    Parameters
    ----------
    said : mapping
        What the page says, too: explained, network, versus, scores and notes.
    clip : Clip
    classes : sequence of (str, sequence of Judged)
        At most `CLASSES` of those that were explained.
    count : int
        How many were.
    """
    axis = FrequencyAxis.of(clip.frontend)
    return fragment("notebook_decision.html", {
        **said,
        "seconds": clip.duration,
        "most_seconds": SECONDS,
        "axis": axis_of(axis, clip.duration),
        "original": _original(clip, axis, SECONDS),
        "classes": [
            {"name": name, "methods": [
                {
                    "name": one.method,
                    "picture": _picture(
                        signed_levels(_narrow(axis.nearest(one.weights))), signed=True
                    ),
                    "sound": _sound(
                        one.sound, clip.sr, peak_gain(float(np.abs(one.sound).max())), SECONDS
                    ) if one.sound.any() else None,
                }
                for one in methods
            ]}
            for name, methods in classes
        ],
        "left_out": count - len(classes),
    })


def _heading(
    explained: Listed, network: str | None, output: str | None, seconds: float
) -> dict[str, Any]:
    return {
        "song": printable(explained.name),
        "network": printable(network or "a network without a name"),
        "scores": class_table(explained.outputs, explained.probabilities, output),
        "covered": explained.covered,
        "seconds": seconds,
        "most_seconds": SECONDS,
        "range_db": round(RANGE_DB),
    }


def _feature_text(row: Mapping[str, Any], song: str) -> str:
    label = row["label"]
    return (
        f"<Feature {row['feature']} of {row['layer']!r}, "
        f"rank {row['rank']}{label and f', {label}'}, in {song!r}>"
    )


def _numbers_of(
    row: Mapping[str, Any], clip: Mapping[str, Any]
) -> list[tuple[str, str, str, str]]:
    """Name, meaning and value of every number, and the clip's own value."""
    return [
        (number.name, number.meaning, number.text(row[number.key]),
         number.text(clip.get(number.key)))
        for number in NUMBERS
    ]


def _layer(
    explained: Listed, layer: str, sr: float, picture: Callable[[str, int], str]
) -> dict[str, Any]:
    rows = explained.ranked(layer)
    audible = [row for row in rows if row["level"] is not None]
    return {
        "name": printable(layer),
        "count": len(rows),
        "silent": len(rows) - len(audible),
        "features": [
            {
                "name": f"{printable(layer)}/{row['feature']}",
                "label": row["label"],
                "twin": row["twin_of"],
                "numbers": [
                    (n.name, n.text(row[n.key])) for key in _SAID for n in NUMBERS if n.key == key
                ],
                "picture": picture(layer, row["feature"]),
                "sound": _sound(
                    explained.sound(layer, row["feature"]), sr, row["gain"], SECONDS
                ),
            }
            for row in audible[:FEATURES]
        ],
    }


def _original(
    clip: Clip, axis: FrequencyAxis, seconds: float | None = None
) -> dict[str, str]:
    stft = np.abs(clip.stft)
    return {
        "picture": _heard_picture(axis, stft, float(stft.max(initial=0.0))),
        "sound": _sound(clip.samples, clip.sr, original_gain(clip.samples), seconds),
    }


def _axis(explanation: Explained) -> dict[str, Any]:
    clip = explanation.clip
    return axis_of(FrequencyAxis.of(clip.frontend), clip.samples.size / clip.sr)


def _map_of(explanation: Explained, layer: str, feature: int) -> FloatArray:
    plane: FloatArray = explanation.maps[layer][explanation.features[layer].index(feature)]
    return plane


def _sound_for_pictures(explanation: Explained, layer: str, feature: int) -> FloatArray | None:
    """The sound of a feature, where its pictures are made from the sound; else None."""
    if explanation.clip.frontend.meaning.on_stft:
        return None
    return explanation.sound(layer, feature)


def _heard_picture(axis: FrequencyAxis, magnitude: FloatArray, reference: float) -> str:
    return _picture(levels(_narrow(axis.loudest(magnitude)), reference))


def _narrow(values: FloatArray) -> FloatArray:
    """(rows, T) with at most `COLUMNS` columns, each of the values of the largest size."""
    frames = values.shape[1]
    if frames <= COLUMNS:
        return values
    starts = np.arange(COLUMNS) * frames // COLUMNS
    most = np.maximum.reduceat(values, starts, axis=1)
    least = np.minimum.reduceat(values, starts, axis=1)
    narrow: FloatArray = np.where(most >= -least, most, least)
    return narrow


def _picture(indices: NDArray[np.uint8], *, signed: bool = False) -> str:
    return _data("image/png", png(indices, signed=signed))


def _sound(samples: FloatArray, sr: float, gain: float, seconds: float | None = None) -> str:
    if seconds is not None:
        samples = samples[: round(seconds * sr)]
    try:
        return _data("audio/ogg", encode(samples, sr, gain, "ogg"))
    except AudioError:  # Vorbis does not allow every rate
        return _data("audio/wav", encode(samples, sr, gain, "wav"))


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
