"""The commands that study a network: ``attributes``, ``evolution`` and ``invariance``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shared import (
    PATH,
    Backend,
    NetworkChoice,
    clean_exit,
    computing,
    control_option,
    layers_option,
    network_option,
    offset_option,
    out_option,
    parse_numbers,
    precision_option,
    progress_bar,
    rule_option,
    say,
)

if TYPE_CHECKING:
    from ..audio.clip import Clip
    from ..audio.frontend import Frontend

__all__ = ["attributes", "evolution", "invariance"]

_NO_FIGURES = "No figures: pip install 'fastdeconv[figures]' draws them."


@click.command(short_help="Measure which attributes of the music features respond to.")
@out_option("Folder for the result, which goes to OUT/attributes.")
@network_option
@control_option
@click.option("--stimuli", type=PATH, metavar="CSV|FOLDER",
              help="Sounds of your own: a CSV with a column file and a column for each attribute, "
                   "or a folder that holds such a CSV as attributes.csv.  [default: 480 rendered "
                   "chords]")
@click.option("--renderer", type=click.Choice(["numpy", "fluidsynth"]), default="numpy",
              show_default=True, help="What renders the chords.")
@click.option("--soundfont", type=PATH, metavar="SF2",
              help="The sound font that fluidsynth plays.")
@layers_option("Layers to study.  [default: every pooling layer]")
@click.option("--features", callback=parse_numbers, metavar="0-15,20",
              help="Features to study.  [default: all]")
@rule_option()
@precision_option
@computing
@click.pass_context
def attributes(
    ctx: click.Context,
    /,
    out: str,
    network: NetworkChoice,
    control: str | None,
    stimuli: str | None,
    renderer: str,
    soundfont: str | None,
    overwrite: bool,
    quiet: bool,
    backend: Backend,
    **how: Any,
) -> None:
    """Measure which attributes of the music the features of a network respond to.

    The attributes are the key, chord, octave and instrument of rendered chords, or those of sounds
    of your own. For every layer and feature the table says how similar the deconvolved maps of
    sounds are that differ in one attribute only. The same is measured for an untrained network and
    for the network's input. OUT/attributes gets findings.txt, layers.csv, features.csv,
    stimuli.csv, study.npz and, with matplotlib, a figure for each attribute.
    """
    with clean_exit(ctx):
        from ..analysis.stimuli import chord_stimuli, read_stimuli
        from ..network.choosing import open_network
        from ..report.folder import ATTRIBUTES, check_free, check_writable
        from ..report.study import has_figures
        from ..studies import attribute_study

        if stimuli is not None and (renderer != "numpy" or soundfont is not None):
            raise click.UsageError(
                "--renderer and --soundfont are for the rendered chords: leave --stimuli out."
            )
        with backend.in_use():
            check_writable(Path(out))
            check_free(Path(out), "attributes", ATTRIBUTES, overwrite=overwrite)
            sounds = (
                chord_stimuli(renderer=renderer, soundfont=soundfont)  # type: ignore[arg-type]
                if stimuli is None else read_stimuli(stimuli)
            )
            with progress_bar("attributes", show=not quiet) as bar:
                study = attribute_study(
                    network.open(),
                    sounds,
                    control=None if control is None else open_network(control),
                    progress=_advance(bar),
                    **how,
                )
            folder = study.save(out, overwrite=overwrite)
        if not quiet:
            say(study.findings())
            say(f"{folder}: findings.txt, tables" + (", figures." if has_figures() else "."))
            if not has_figures():
                say(_NO_FIGURES)


@click.command(short_help="Show how features develop during training.")
@click.argument("checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True)
@out_option("Folder for the result, which goes to OUT/evolution-LAYER.")
@click.option("--layer", required=True, metavar="NAME", help="The layer of the features.")
@click.option("--features", callback=parse_numbers, metavar="0-15,20",
              help="Features to show.  [default: the eight strongest at the last checkpoint]")
@click.option("--clip", "clips", multiple=True, type=PATH, metavar="SONG",
              help="A sound, which is cut into consecutive clips; may be given several times.  "
                   "[default: 480 rendered chords]")
@rule_option()
@computing
@click.pass_context
def evolution(
    ctx: click.Context,
    /,
    checkpoints: tuple[str, ...],
    out: str,
    layer: str,
    features: list[int] | None,
    clips: tuple[str, ...],
    rule: Any,
    overwrite: bool,
    quiet: bool,
    backend: Backend,
) -> None:
    """Show how features develop during training.

    Each CHECKPOINT is an archive of the network; give them in the order of training. For each
    feature and checkpoint, the strongest activation over all clips is projected back to the input.
    The projections are drawn as a grid of pictures (Zeiler and Fergus 2013, figure 4).
    """
    with clean_exit(ctx):
        from ..network.choosing import open_network
        from ..report.folder import EVOLUTION, check_free, check_writable
        from ..report.names import safe_name, unique_names
        from ..report.study import has_figures
        from ..studies import feature_evolution

        with backend.in_use():
            networks = [open_network(name) for name in checkpoints]
            labels = unique_names([Path(name).stem for name in checkpoints])
            folder_name = safe_name(f"evolution-{layer}", "evolution")
            check_writable(Path(out))
            check_free(Path(out), folder_name, EVOLUTION, overwrite=overwrite)
            with progress_bar("evolution", show=not quiet) as bar:
                found = feature_evolution(
                    dict(zip(labels, networks)),
                    _clips(clips, networks[-1].frontend),
                    layer,
                    features,
                    rule=rule,
                    progress=_advance(bar),
                )
            folder = found.save(out, folder_name, overwrite=overwrite)
        if not quiet:
            say(f"{folder}: {len(found.features)} features at {len(labels)} checkpoints.")
            if not has_figures():
                say(_NO_FIGURES)


@click.command(short_help="Show how much each layer changes when a song is altered.")
@click.argument("song", type=PATH)
@out_option("Folder for the result, which goes to OUT/invariance.")
@network_option
@control_option
@layers_option("Layers to study.  [default: every pooling layer]")
@offset_option
@computing
@click.pass_context
def invariance(
    ctx: click.Context,
    /,
    song: str,
    out: str,
    network: NetworkChoice,
    control: str | None,
    layers: list[str] | None,
    offset: float,
    overwrite: bool,
    quiet: bool,
    backend: Backend,
) -> None:
    """Show how much each layer changes when SONG is made louder, later, higher or faster.

    The same is measured for an untrained network: what both do was not learned (Zeiler and Fergus
    2013, figure 5). OUT/invariance gets invariance.csv and, with matplotlib, a figure. librosa
    changes pitch and tempo: pip install 'fastdeconv[librosa]'.
    """
    with clean_exit(ctx):
        from ..analysis.controls import untrained
        from ..audio.clip import load_clip
        from ..report.folder import INVARIANCE, check_free, check_writable
        from ..report.study import has_figures
        from ..studies import invariance as study

        with backend.in_use():
            check_writable(Path(out))
            check_free(Path(out), "invariance", INVARIANCE, overwrite=overwrite)
            net = network.open()
            clip = load_clip(song, net.frontend, offset=offset)
            found = study(
                clip, net, layers,
                control=untrained(net, [clip.x]) if control is None else control,
            )
            folder = found.save(out, overwrite=overwrite)
        if not quiet:
            part = f" of {clip.duration:.2f} s from {clip.start:g} s on" if clip.is_cut else ""
            say(f"{folder}: how far layers move{part}.")
            if not has_figures():
                say(_NO_FIGURES)


def _advance(bar: Any) -> Callable[[str, int, int], None] | None:
    if bar is None:
        return None

    def advance(what: str, done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return advance


def _clips(songs: tuple[str, ...], frontend: Frontend | None) -> list[Clip]:
    from ..analysis.stimuli import chord_stimuli, cut_clips
    from ..errors import ParameterError

    if frontend is None:
        raise ParameterError("the last checkpoint has no front end: clips cannot be made")
    if not songs:
        return [stimulus.clip(frontend) for stimulus in chord_stimuli()]
    return [clip for song in songs for clip in cut_clips(song, frontend)]
