"""``index.html`` of a song: a page to see, hear and compare its features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..belief.feature_maps import WITH_SIGN
from ..belief.trust import VERDICTS
from ..errors import printable
from ..textfiles import write_text
from .atlas_songs import atlas_of
from .axis import FrequencyAxis, time_step
from .numbers import NUMBERS, PLACES, TRUST, Number, rounded, with_minus
from .picture import RANGE_DB
from .tables import PLACE_COLUMNS
from .timeline import PICTURE as TIMELINE_PICTURE
from .web import render, url

__all__ = [
    "STAGE_FEATURES", "Heard", "Layer", "Song", "axis_of", "class_table", "covered", "facts_of",
    "feature_rms", "write_page",
]

_STARTS = {
    "map": "the whole map", "max": "the strongest unit", "one": "1 everywhere",
    "array": "values that were given for the map",
}
_MODES = {
    "mask": "the map masks the clip's STFT (mode mask)",
    "phase": "the map with the clip's phase (mode phase)",
    "wiener": "the map's absolute value, at most 1, masks the clip's STFT (mode wiener)",
}
_OTHER_MODES = {
    ("mask", "cqt"): "the map masks the clip's CQT (mode mask)",
    ("mask", "waveform"): "the map times the clip's samples (mode mask)",
    ("phase", "waveform"): "the map itself (mode phase)",
    ("wiener", "cqt"): "the map's absolute value, at most 1, masks the clip's CQT (mode wiener)",
    ("wiener", "waveform"):
        "the map's absolute value, at most 1, times the clip's samples (mode wiener)",
}
_SCRIPTS = (
    "page.js", "data.js", "player.js", "panel.js", "form.js", "versions.js", "cards.js",
    "detail.js", "keys.js", "start.js",
)

_HIGHER = "The higher the score, the more the network is for that class."
_OPINION = "This is the network's opinion, not the truth."
_SCORES = {
    "softmax": f"{_HIGHER} Softmax turns the scores into probabilities, which add up to 100 %. "
               f"{_OPINION}",
    "sigmoid": f"{_HIGHER} A sigmoid turns each score into a probability of its own. {_OPINION}",
    "probabilities": f"The probability that the network gives each class. {_OPINION}",
    "scores": f"{_HIGHER} Scores are not probabilities, and the network does not say how to turn "
              "them into probabilities.",
}

# What the page says of the windows of a song: whether the result is as in one pass over it, and
# whether there are several.
_WINDOWS = {
    (True, True): "What you see and hear is the same as in one pass of the network over the whole "
                  "song. Numbers are means over {count} pieces of the song, weighted by the energy "
                  "that is heard of the feature in each.",
    (True, False): None,
    (False, True): "The network takes {seconds:.2f} s at a time, so the song is explained in "
                   "{count} windows, each by itself, and their sounds fade into each other. "
                   "Numbers and scores are means over the windows.",
    (False, False): "The network takes {seconds:.2f} s at a time, and what was explained is no "
                    "longer: it is a single window.",
}

#: How many features of a layer show their activation beside the layer's mean.
STAGE_FEATURES = 6

_UNHEARD_DB = -60.0
_LEAST_PADDING = 0.005
"""Seconds of silence at the end of a clip that are said. Times are printed to 0.01 s."""
_MOST_CHANCE = 0.1
"""How large the share of "yes" of an untrained network may be, relative to that of the layer,
before the page says: be careful."""

#: For each rule or mode the ``gains`` and the ``rms`` of the sounds as written, by feature.
Heard = Mapping[str, Mapping[str, Mapping[str, float]]]


class Layer(NamedTuple):
    """What the page shows of a layer."""

    name: str
    folder: str
    rows: Sequence[Mapping[str, Any]]
    spectra: Sequence[str]
    """For each row the spectrum of what is heard, one character for each row of the pictures."""
    stage: Sequence[int] | None
    """Features with a picture of their activation; None if the layer has no such pictures."""
    in_all: int | None = None
    """If the layer has a time line: the number of features in it, with or without a sound."""
    versions: Heard | None = None
    """The features by other rules and modes; of a clip only."""


class Song(NamedTuple):
    """What the page shows of a song."""

    manifest: Mapping[str, Any]
    clip: Mapping[str, Any]
    """The numbers of the clip itself."""
    spectrum: str
    """The clip's spectrum, in the form of the features' spectra."""
    layers: Sequence[Layer]


def write_page(folder: Path, song: Song) -> None:
    """Write ``index.html`` beside the sounds and pictures of the song."""
    manifest, audio = song.manifest, song.manifest["audio"]
    network = manifest["network"]
    suffix = audio["format"]
    seconds = audio["samples"] / audio["sr"]
    axis = FrequencyAxis.of(manifest["frontend"])
    numbers = _numbers_of(song.layers)
    layers = [
        _layer(i, layer, suffix, audio["samples"], numbers, _Canvas(axis, seconds))
        for i, layer in enumerate(song.layers)
    ]
    versions = _versions(manifest)
    atlas = atlas_of(folder, manifest["settings"]["network"])
    content = {
        "song": printable(manifest["song"]),
        "notices": _notices(manifest),
        "scores": class_table(
            network["outputs"], network["probabilities"], network["output"]
        ),
        "has_scores": bool(manifest.get("windows") and network["outputs"]),
        "facts": facts_of(manifest),
        "atlas": atlas,
        "in_atlas": None if atlas is None else _in_atlas(atlas, manifest),
        "axis": axis_of(axis, seconds),
        "original": url(f"original.{suffix}"),
        "numbers": numbers,
        "trust": _trust_of(song.layers, layers),
        "verdicts": VERDICTS,
        "has_places": any(feature["box"] for layer in layers for feature in layer["features"]),
        "versions": versions,
        "pictures": versions[0]["captions"],
        "layers": layers,
        "range_db": round(RANGE_DB),
        "data": {
            "atlas": atlas,
            "seconds": seconds,
            "original": {
                "sound": url(f"original.{suffix}"),
                "rms": rounded(manifest["audio"]["original_rms"]),
                "numbers": _values(song.clip, numbers),
                "spectrum": song.spectrum,
            },
            "numbers": [number._asdict() for number in numbers],
            "versions": versions,
            "layers": [
                {key: layer[key] for key in ("name", "features", "said")} for layer in layers
            ],
        },
    }
    scripts = [*_SCRIPTS]
    if manifest.get("windows") is not None:
        scripts.insert(-1, "timeline.js")
    write_text(folder / "index.html", render("song.html", scripts, content))


def _notices(manifest: Mapping[str, Any]) -> list[str]:
    """Which part of the song and which features the page is about, and how windows are joined."""
    audio, taken = manifest["audio"], manifest.get("windows")
    seconds = audio["samples"] / audio["sr"]
    notices = [
        covered(audio["start"], seconds, is_cut=audio["is_cut"], padding=audio.get("padding", 0.0))
    ]
    if taken is not None:
        if manifest["left_out"] is not None:
            notices.append(
                f"{manifest['left_out']}. The time lines show all features; fastdeconv explain "
                "--features all makes sounds of all."
            )
        text = _WINDOWS[taken["exact"], taken["count"] > 1]
        notices.append(text and text.format(**taken))
    return [text for text in notices if text]


def _in_atlas(atlas: str, manifest: Mapping[str, Any]) -> str:
    """The address of the atlas with a search for this song."""
    return f"{atlas}#search={url(printable(manifest['source'] or manifest['song']))}"


def covered(start: float, seconds: float, *, is_cut: bool, padding: float = 0.0) -> str | None:
    """Which part of a song was explained, in words; None if all of it was, and nothing else.

    Parameters
    ----------
    start, seconds : float
        Where the clip begins in the song, and how long it is.
    is_cut : bool
        Whether the song goes on after the clip.
    padding : float
        Seconds of the clip, at its end, that are silence and not the song's.
    """
    end = start + seconds - padding
    if is_cut:
        part = f"{start:.2f} to {end:.2f}" if start else f"The first {end:.2f}"
        return (
            f"{part} s of the song were explained. The song is longer: another offset explains "
            "another part."
        )
    said = []
    if start:
        said.append(f"The song was explained from {start:.2f} s to its end at {end:.2f} s.")
    if padding >= _LEAST_PADDING:
        said.append(
            f"The network takes {seconds:.2f} s and was given silence after the {end - start:.2f} "
            "s of sound, so scores and numbers are of both."
        )
    return " ".join(said) or None


def class_table(
    outputs: Sequence[Sequence[Any]], probabilities: Sequence[Sequence[Any]], output: str | None
) -> dict[str, Any] | None:
    """The classes of a network with their scores, the highest first, and what the scores mean.

    Parameters
    ----------
    outputs, probabilities : sequence of (str, float)
        As in `fastdeconv.Explanation`.
    output : str or None
        Of the network: how scores become probabilities.

    Returns
    -------
    dict
        ``note``, a few sentences, and ``rows`` of texts (class, score, probability). A text is
        empty where there is no such number. None if the network names no classes.
    """
    if not outputs:
        return None
    known = [value for _, value in probabilities] or [None] * len(outputs)
    how = output or ("probabilities" if probabilities else "scores")
    rows = [
        (
            printable(name),
            "" if how == "probabilities" else with_minus(f"{score:.2f}"),
            "" if probability is None else f"{100 * probability:.1f} %",
        )
        for (name, score), probability in zip(outputs, known, strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda i: -outputs[i][1])
    return {"note": _SCORES[how], "rows": [rows[i] for i in order]}


def front_end_text(frontend: Mapping[str, Any]) -> str:
    """The record of a front end in one line."""
    kind, rate = frontend["kind"], f"{frontend['sr']:g} Hz"
    hop = f"n_fft {frontend['n_fft']}, hop {frontend['hop_length']}"
    if kind == "waveform":
        return f"waveform, {rate}"
    if kind == "mel":
        return f"mel, {frontend['n_mels']} bands, {rate}, {hop}"
    if kind == "filters":
        return f"filters, {frontend['filters']['shape'][0]} bands, {rate}, {hop}"
    if kind == "cqt":
        bins = f"{frontend['n_bins']} bins, {frontend['bins_per_octave']} an octave"
        return f"cqt, {bins} from {frontend['fmin']:g} Hz, {rate}, hop {frontend['hop_length']}"
    return f"{kind}, {rate}, {hop}"


def _round_trip(error: float | None) -> list[tuple[str, str]]:
    """The fact about what a map of ones loses, if that can be heard."""
    if error is None or error < _UNHEARD_DB:
        return []
    return [("a map of ones", f"gives the clip back with an error of {error:.1f} dB of its energy, "
                              "because the front end does not represent all of the clip")]


def axis_of(axis: FrequencyAxis, seconds: float) -> dict[str, Any]:
    """The positions of the ticks on both axes of a picture, in percent, with their names."""
    step = time_step(seconds)
    times = [i * step for i in range(1, int(seconds / step) + 1) if i * step < 0.97 * seconds]
    return {
        "unit": "as notes" if axis.notes else "in Hz",
        "hz": [(round(100 * axis.position(hz), 2), name) for hz, name in axis.ticks()],
        "seconds": [(round(100 * t / seconds, 2), f"{t:g}") for t in times],
    }


def _numbers_of(layers: Sequence[Layer]) -> list[Number]:
    """The numbers that the features of these layers have."""
    row = next((row for layer in layers for row in layer.rows), {})
    return [
        *NUMBERS,
        *(PLACES if PLACE_COLUMNS[0] in row else ()),
        *(TRUST if "verdict" in row else ()),
    ]


def _trust_of(
    layers: Sequence[Layer], shown: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """For each layer with verdicts how many features have which, beside an untrained network's.

    `shown` is what `_layer` says of `layers`.
    """
    found = []
    for layer, own in zip(layers, shown):
        if own["said"] is not None:
            words = [row["verdict"] for row in layer.rows]
            counts = [words.count(word) for word in VERDICTS]
            found.append({"name": own["shown"], "counts": counts, **own["said"]})
    return found


def _shares(row: Mapping[str, Any]) -> dict[str, Any]:
    """The share of "yes" in a feature's layer and in the control's, in words; what they mean."""
    own, control = row["yes_rate"], rounded(row["control_yes_rate"])
    if control is None:
        meaning = "there is no control, so no verdict is more than unsure"
    elif own <= control:
        meaning = "no more than by chance: do not believe this layer in this clip"
    elif control > _MOST_CHANCE * own:
        meaning = "more than in an untrained network, but less than ten times as many: be careful"
    else:
        meaning = "at least ten times as many as in an untrained network"
    return {
        "own": f"{100 * own:.0f} %",
        "control": "–" if control is None else f"{100 * control:.0f} %",
        "meaning": meaning,
    }


class _Canvas(NamedTuple):
    """The frequencies and seconds that a picture shows."""

    axis: FrequencyAxis
    seconds: float

    def box(self, row: Mapping[str, Any]) -> list[float] | None:
        """What the strongest unit of a feature can see: left, right, bottom, top, in percent."""
        start, end, low, high = (row.get(column) for column in PLACE_COLUMNS)
        if start is None and low is None:
            return None
        if start is None or end is None:
            start, end = 0.0, self.seconds
        if low is None or high is None:
            bottom, top = 0.0, 1.0
        else:
            bottom, top = self.axis.span(low, high)
        shares = start / self.seconds, end / self.seconds, bottom, top
        return [round(100 * min(1.0, max(0.0, share)), 2) for share in shares]


def _layer(
    index: int, layer: Layer, suffix: str, samples: int, numbers: Sequence[Number],
    canvas: _Canvas,
) -> dict[str, Any]:
    heard = [version["rms"] for version in (layer.versions or {}).values()]
    features = [
        {
            **_feature(layer.folder, row, spectrum, suffix, samples),
            "numbers": _values(row, numbers),
            "box": canvas.box(row),
            **({"versions": [rounded(rms[str(row["feature"])]) for rms in heard]} if heard else {}),
            **{key: row[key] for key in ("verdict", "reason") if key in row},
        }
        for row, spectrum in zip(layer.rows, layer.spectra, strict=True)
    ]
    features.sort(key=lambda feature: feature["rank"])
    mean = None if layer.stage is None else url(layer.folder, "activation_mean.png")
    return {
        "name": layer.name,
        "index": index,
        "line": None if layer.in_all is None else {
            "picture": url(layer.folder, TIMELINE_PICTURE),
            "count": layer.in_all,
            "marks": [round(100 * (row["feature"] + 0.5) / layer.in_all, 2) for row in layer.rows],
        },
        "shown": printable(layer.name),
        "said": _shares(layer.rows[0]) if layer.rows and "verdict" in layer.rows[0] else None,
        "features": features,
        "silent": sum(feature["silent"] for feature in features),
        "mean": mean,
        "activations": [
            (k, url(layer.folder, f"activation_{k}.png")) for k in layer.stage or ()
        ],
    }


def _feature(
    folder: str, row: Mapping[str, Any], spectrum: str, suffix: str, samples: int
) -> dict[str, Any]:
    k = row["feature"]
    return {
        "k": k,
        "rank": row["rank"],
        "label": row["label"],
        "twin": row["twin_of"],
        "silent": row["level"] is None,
        "picture": url(folder, f"feature_{k}.png"),
        "map": url(folder, f"map_{k}.png"),
        "sound": url(folder, f"feature_{k}.{suffix}"),
        "rms": feature_rms(row["energy"], row["gain"], samples),
        "spectrum": spectrum,
    }


def feature_rms(energy: float, gain: float, samples: int) -> float:
    """Root mean square of a sound in its file, from its energy before the gain."""
    return float(rounded(gain * (energy / max(1, samples)) ** 0.5))


def _values(row: Mapping[str, Any], numbers: Sequence[Number]) -> list[float | None]:
    return [rounded(row.get(number.key)) for number in numbers]


def _versions(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rule and mode that were explained, then the others by which there are sounds.

    ``key`` is the name of a folder, and "" for the first version; ``by`` says whether the rule or
    the mode differs from the first.
    """
    own, others = manifest["parameters"], manifest.get("versions", ())
    differing = [
        next(kind for kind in ("rule", "mode") if other[kind] != own[kind]) for other in others
    ]
    own_name = ", ".join(_shown(own[kind]) for kind in ("rule", "mode") if kind in differing)
    return [
        {"key": "", "name": own_name, "by": "", "captions": _captions(own["mode"])},
        *(
            {
                "key": other["key"], "name": _shown(other["key"]), "by": kind,
                "captions": _captions(other["mode"]),
            }
            for other, kind in zip(others, differing)
        ),
    ]


def _rule_text(rule: str, start: str) -> str:
    """A rule and where it starts, in words."""
    start = "one" if rule == WITH_SIGN and start == "map" else start
    return f"{_shown(rule)}, from {_STARTS[start]} of each feature"


def _shown(name: str) -> str:
    """The name of a rule or mode as the page shows it."""
    return name.replace("_x_", " × ")


def _captions(mode: str) -> list[tuple[str, str]]:
    """The pictures that show how a sound comes about: the id of each, and its caption."""
    shades = (
        "blue is negative, white is near zero, orange is positive; every shade stands for half the "
        "values of the next"
    )
    if mode == "phase":
        return [
            ("clip-picture", "the clip, abs(STFT); only its phase is used"),
            ("map-picture", f"the map: {shades}"),
            ("heard-picture", "what is heard: the positive part of the map, on the layer's scale"),
        ]
    return [
        ("clip-picture", "abs(STFT) of the clip"),
        ("map-picture", f"× the map: {shades}"),
        ("heard-picture", "= what is heard, on the layer's scale"),
    ]


def facts_of(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How a result was computed, as pairs of a name and a value."""
    parameters, computation = manifest["parameters"], manifest["computation"]
    network, frontend, mode = manifest["network"], manifest["frontend"], parameters["mode"]
    facts = [
        ("song", printable(manifest["source"] or manifest["song"])),
        ("network", printable(network["name"] or "without a name")),
    ]
    facts += [
        ("rule", _rule_text(parameters["rule"], parameters["start"])),
        ("sound", _OTHER_MODES.get((mode, frontend["kind"]), _MODES[mode])),
        ("front end", front_end_text(frontend)),
        *_round_trip(manifest["audio"].get("round_trip_db")),
        ("computed by", f"fastdeconv {manifest['fastdeconv']}, {computation['backend']}"
                        + (f" ({computation['instruction_set']})"
                           if computation["instruction_set"] else "")
                        + f", {parameters['precision']}"),
    ]
    return facts
