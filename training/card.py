"""Writing the card of the bundled network: data, split, figures, licence, limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .learned import ORIENTATIONS
from .manifest import HERE
from .prepare import Prepared
from .settings import Settings

NOTICES = HERE / "notices.md"

_HEAD = """\
# {name}

A small network for trying fastdeconv out and for hearing what training on music does. It is
not a genre classifier to rely on.

- **Network**: the five-layer one of Choi, Fazekas and Sandler (arXiv 1607.02444):
  {layers} x [3x3 convolution, {channels} channels, ReLU, 2x2 max-pooling], mean over time and
  frequency, one linear layer. Batch norm, used in training between convolution and
  ReLU, is folded into the convolutions.
- **Input**: {seconds:.0f} s of mono sound at {sr:,} Hz, STFT magnitude (n_fft {n_fft}, hop
  {hop}, Hann), in dB below the clip's maximum down to -80 dB, scaled to 0-1 within the
  clip: 1 x 257 x 173. The archive's front end record says exactly this, and training
  was fed by the same class.
- **Classes**: {classes}.
- **File**: `{name}.npz`, float32.
"""

_TRAINING = """\
## Training

{epochs} epochs, {clips:,} random clips of 4 s in {steps:,} steps of {batch}: {minutes:.0f} minutes
on a shared CPU, {threads} threads. Every class as often, within a class every artist as often.
AdamW with one cycle of the learning rate (peak {rate:g}, {factor:g} times that in the first layer),
filters that begin at {first:g} (first layer) and {others:g} of the usual size, weight decay
{decay:g}, dropout {dropout:g}, label smoothing {smoothing:g}, bf16, seed {seed}, PyTorch {torch}.
Clips were made brighter or duller at random (first-order filter, |a| <= {tilt:g}).

Settings were chosen by the validation tracks. The test artists are not wholly untouched all the
same: two earlier runs had been measured on them (.83 after 800 steps with larger first filters,
.745 after 24 epochs with two more packages) before these settings were chosen.

To make it again, from a checkout, on Debian 12 (about 610 MB of packages):

    python -m training all

The same machine, library versions and thread count give the same weights; other ones
give similar weights. What else was tried is in `training/NOTES.md`.
"""

_LEARNED = """\
## Did it learn?

Networks of this kind easily keep random filters and classify well all the same. So beside
everything below stand the network its training began with (`fastdeconv.pretrained("{name}",
trained=False)`) and ten untrained ones of other seeds, their channels centred on training clips.

Median cosine between each filter and its random initialisation (1: never moved), and features
that are silent on every validation and test clip:

{cosines}

How the energy of the filters divides into what is constant, varies along time only, along
frequency only, or along both (cosine transform of each filter, mean over the filters of a
layer):

{orientations}

How narrow the deconvolved maps are in frequency (0: all bins alike, near 1: one bin; median
over features and {test} clips of unseen artists):

{selectivity}

Onsets: correlation, over frames, of the size of a feature's deconvolved map with the spectral
flux of the clip. In each network the best feature of a layer is chosen on {validation} validation
clips and measured on the {test} clips of unseen artists; "best untrained" is the best of the
eleven. Intervals are 95 %, by bootstrap over clips. The input spectrogram itself reaches
{input:.2f}.

{onsets}

A filter that moved is not yet a meaningful one, and a narrow map is not yet a pitch detector.
"""

_LICENCE = """\
## Licence of the weights

{licence}, with credit to the artists trained on, as the table above gives it. Reasoning:
whether weights are an adaptation of the music they were trained on is unsettled. To be
safe they are treated as one. Most of that music is CC-BY-SA 3.0, whose adaptations may be
passed on under a later version of the same licence; the rest is under a BSD licence, which
allows that and asks that its notice stays, see the end. The code of fastdeconv is not
affected.

## Limits

- Few artists a class, so genre cannot be told from artist, studio or game engine with
  certainty; the per-artist lines above are the honest figures.
- All of it is video-game or hobbyist music; "orchestral" is mostly sampled instruments.
- Labels are ours, one per artist, not per track.
- Silence, speech or any other music is put into one of the classes all the same.
"""


def write_card(
    settings: Settings,
    tracks: Sequence[Prepared],
    report: dict[str, Any],
    licence: str,
    path: Path,
) -> None:
    """Write the card to `path`.

    Parameters
    ----------
    settings : Settings
    tracks : sequence of Prepared
        All tracks of training, validation and test.
    report : dict
        What the steps `train`, `export` and `learned` wrote, in one dict.
    licence : str
        Licence of the weights.
    path : Path
        The file to write.
    """
    parts = [
        _head(settings),
        _data(tracks, report, settings),
        _figures(settings, report),
        _training(settings, report),
        _learned(settings, report),
        _LICENCE.format(licence=licence),
        NOTICES.read_text(encoding="utf-8"),
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _head(settings: Settings) -> str:
    frontend = settings.frontend
    return _HEAD.format(
        name=settings.name,
        layers=settings.network.layers,
        channels=settings.network.channels,
        seconds=settings.clip_samples / frontend["sr"],
        sr=frontend["sr"],
        n_fft=frontend["n_fft"],
        hop=frontend["hop_length"],
        classes=", ".join(settings.classes),
    )


def _data(tracks: Sequence[Prepared], report: dict[str, Any], settings: Settings) -> str:
    keys = dict.fromkeys((t.label, t.artist, t.package, t.licence, t.credit) for t in tracks)
    rows = []
    for key in sorted(keys):
        label, artist, package, licence, credit = key
        own = [t for t in tracks if (t.label, t.artist, t.package) == key[:3]]
        minutes = sum(t.n_samples for t in own) / settings.frontend["sr"] / 60
        use = "test" if artist in settings.split.test_artists else "training, validation"
        rows.append((label, artist, package, len(own), f"{minutes:.1f}", use, licence, credit))
    header = ("class", "artist", "package", "tracks", "minutes", "use", "licence", "credit")
    counts = {part: len(ids) for part, ids in report["tracks"].items()}
    return (
        "## Data\n\n" + table(header, rows) + "\n\n"
        "The packages are Debian 12's; exact versions and checksums are in\n"
        "`training/sources.toml`. Left out: a recording in unknown-horizons that has an origin\n"
        "of its own, and the song of fastdeconv's demo clip.\n\n"
        f"Split: the test artists ({counts['test']} tracks) are in no other part. Of every other\n"
        f"artist {settings.split.validation_share:.0%} of the tracks (at least one) are kept for "
        f"validation ({counts['validation']} tracks);\n"
        f"the rest ({counts['train']} tracks) is trained on.\n"
    )


def _figures(settings: Settings, report: dict[str, Any]) -> str:
    sections = [f"## Accuracy\n\nChance is {1 / len(settings.classes):.2f} throughout.\n"]
    titles = {
        "test": "Unseen artists (test)",
        "validation": "Unseen tracks of artists trained on (validation)",
    }
    for part, title in titles.items():
        sections.append(_part(title, settings.classes, report[part]))
    demo = ", ".join(f"{name} {value:.2f}" for name, value in report["demo"].items())
    sections.append(
        "The demo clip, from an unseen song of an artist of the class metal, is given\n"
        f"{demo}.\n"
    )
    return "\n".join(sections)


def _part(title: str, classes: Sequence[str], figures: dict[str, Any]) -> str:
    recalls = [(name, f"{figures['recalls'][name]:.3f}") for name in classes]
    confusion = [(name, *row) for name, row in zip(classes, figures["confusion"], strict=True)]
    artists = [
        (artist, row["class"], row["clips"], f"{row['accuracy']:.3f}")
        for artist, row in figures["artists"].items()
    ]
    return (
        f"### {title}\n\n"
        f"Balanced accuracy **{figures['balanced_accuracy']:.3f}** on {figures['clips']:,} clips "
        f"of 4 s; {figures['balanced_accuracy_per_track']:.3f} on {figures['tracks']} tracks, "
        "each by its mean probability.\n\n"
        + table(("class", "accuracy"), recalls)
        + "\n\nClips, rows true, columns predicted:\n\n"
        + table(("", *classes), confusion)
        + "\n\n"
        + table(("artist", "class", "clips", "accuracy"), artists)
        + "\n"
    )


def _training(settings: Settings, report: dict[str, Any]) -> str:
    plan = settings.training
    return _TRAINING.format(
        clips=report["clips_seen"],
        steps=report["steps"],
        epochs=plan.epochs,
        batch=plan.batch,
        minutes=report["seconds"] / 60,
        threads=plan.threads,
        rate=plan.learning_rate,
        seed=plan.seed,
        torch=report["torch"],
        tilt=plan.tilt,
        factor=plan.first_layer_rate_factor,
        first=settings.network.first_layer_init_scale,
        others=settings.network.other_layers_init_scale,
        decay=plan.weight_decay,
        dropout=settings.network.dropout,
        smoothing=plan.label_smoothing,
    )


def _learned(settings: Settings, report: dict[str, Any]) -> str:
    return _LEARNED.format(
        name=settings.name,
        cosines=_cosine_table(report["cosines"], report["dead"]),
        orientations=_orientation_table(report["orientations"]),
        selectivity=_selectivity_table(report["selectivity"]),
        onsets=_onset_table(report["onsets"]),
        input=report["input_onset"],
        **report["learned_clips"],
    )


def _cosine_table(cosines: Sequence[float], dead: dict[str, int]) -> str:
    header = ("layer", *(f"conv{number}" for number in range(1, len(cosines) + 1)))
    return table(header, [
        ("median cosine", *(f"{value:.2f}" for value in cosines)),
        ("dead features", *dead.values()),
    ])


def _orientation_table(found: dict[str, Any]) -> str:
    header = ("layer", "direction", "network", "untrained", "ten other seeds")
    return table(header, [
        (key.removesuffix(".weight"), direction, f"{net:.2f}", f"{start:.2f}",
         f"{low:.2f}-{high:.2f}")
        for key, one in found.items()
        for direction, net, start, low, high in zip(
            ORIENTATIONS, one["network"], one["untrained"], *one["other_seeds"], strict=True
        )
    ])


def _selectivity_table(found: dict[str, Any]) -> str:
    header = ("layer", "network", "untrained", "ten other seeds")
    return table(header, [
        (layer, f"{one['network'][0]:.2f}", f"{one['untrained'][0]:.2f}",
         f"{one['other_seeds'][0][0]:.2f}-{one['other_seeds'][1][0]:.2f}")
        for layer, one in found.items()
    ])


def _onset_table(found: dict[str, Any]) -> str:
    header = ("layers", "feature", "network", "best untrained", "difference")
    return table(header, [
        (layer, one["feature"], *(
            "{:.2f} [{:.2f}, {:.2f}]".format(*one[key])
            for key in ("network", "best_untrained", "difference")
        ))
        for layer, one in found.items()
    ])
