"""Writes the card of the bundled network: data, split, figures, licence, limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .manifest import HERE
from .prepare import Prepared
from .settings import Settings

NOTICES = HERE / "notices.md"

_HEAD = """\
# {name}

A first version, made by a training run of minutes: good for trying fastdeconv out and
for hearing what a small network trained on music does. It is not a genre classifier to
rely on.

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

{clips:,} random clips of 4 s in {steps:,} steps of {batch}: {minutes:.0f} minutes on a shared
CPU, {threads} threads. Every class as often, within a class every artist as often. AdamW with
one cycle of the learning rate (peak {rate:g}, {factor:g} times that in the first layer),
weight decay {decay:g}, dropout {dropout:g}, label smoothing {smoothing:g}, bf16, seed {seed},
PyTorch {torch}. Clips were made brighter or duller at random (first-order filter,
|a| <= {tilt:g}). Settings were fixed before the test artists were measured, and nothing was
chosen by their results.

To make it again, from a checkout, on Debian 12 (about 610 MB of packages):

    python -m training all

The same machine, library versions and thread count give the same weights; other ones
give similar weights.
"""

_COSINES = """\
## Did the filters learn?

Median cosine between each filter and its random initialisation (1: never moved):

{table}

Networks of this kind easily keep a random first layer. Small first filters, a higher
rate for them, batch norm and weight decay were used against it. A low cosine only says
that filters moved, not that they became meaningful.
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
        Everything that was trained or tested on.
    report : dict
        What `training.train.train` wrote, and ``demo``: class probabilities.
    licence : str
        Licence of the weights.
    path : Path
    """
    parts = [
        _head(settings),
        _data(tracks, report, settings),
        _figures(settings, report),
        _training(settings, report),
        _COSINES.format(table=_cosine_table(report["cosines"])),
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
        steps=plan.steps,
        batch=plan.batch,
        minutes=report["seconds"] / 60,
        threads=plan.threads,
        rate=plan.learning_rate,
        seed=plan.seed,
        torch=report["torch"],
        tilt=plan.tilt,
        factor=plan.first_layer_rate_factor,
        decay=plan.weight_decay,
        dropout=settings.network.dropout,
        smoothing=plan.label_smoothing,
    )


def _cosine_table(cosines: Sequence[float]) -> str:
    header = ("layer", *(f"conv{number}" for number in range(1, len(cosines) + 1)))
    return table(header, [("cosine", *(f"{value:.2f}" for value in cosines))])
