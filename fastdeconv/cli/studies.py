"""The commands that study a network rather than a song: ``attributes``, ``evolution``, and
``invariance``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shared import (
    DEFAULT_NETWORK,
    clean_exit,
    computing,
    parse_features,
    progress_bar,
    say,
)

if TYPE_CHECKING:
    from ..audio.clip import Clip
    from ..audio.frontend import Frontend

__all__ = ["attributes", "evolution", "invariance"]

_NO_FIGURES = "No figures: pip install 'fastdeconv[figures]' draws them."


@click.command()
@click.option("-o", "--out", required=True, type=click.Path(), metavar="OUT",
              help="Folder for the results, which go to OUT/attributes.")
@click.option("--network", default=DEFAULT_NETWORK, metavar="NAME|PATH", show_default=True,
              help="A bundled network or the path of an archive.")
@click.option("--control", metavar="NAME|PATH",
              help="A network of the same layers to compare with.  [default: untrained]")
@click.option("--stimuli", type=click.Path(), metavar="CSV|FOLDER",
              help="Sounds of your own: a CSV with the column file and one per attribute, or a "
                   "folder with attributes.csv.  [default: 480 rendered chords]")
@click.option("--renderer", type=click.Choice(["numpy", "fluidsynth"]), default="numpy",
              show_default=True, help="What plays the chords.")
@click.option("--soundfont", type=click.Path(), metavar="SF2", help="For fluidsynth.")
@click.option("--layers", metavar="a,b", help="Layers to study.  [default: every pooling layer]")
@click.option("--features", callback=parse_features, metavar="0-15,20",
              help="Features to study.  [default: all]")
@click.option("--rule", type=click.Choice(["deconvnet", "guided", "gradient"]),
              default="deconvnet", show_default=True, help="How activations are passed backwards.")
@click.option("--precision", type=click.Choice(["float32", "bf16"]), default="float32",
              show_default=True, help="bf16: faster and less exact, see the documentation.")
@computing
@click.pass_context
def attributes(
    ctx: click.Context,
    /,
    out: str,
    network: str,
    control: str | None,
    stimuli: str | None,
    renderer: str,
    soundfont: str | None,
    layers: str | None,
    overwrite: bool,
    quiet: bool,
    backend: str | None,
    isa: str | None,
    threads: int | None,
    **how: Any,
) -> None:
    """Measure what features mind: key, chord, octave, instrument, or attributes of your own.

    For every layer and feature, how alike the deconvolved maps of sounds are that differ in
    one attribute alone, beside an untrained network and the input itself. OUT/attributes gets
    findings.txt, layers.csv, features.csv, stimuli.csv, study.npz and a figure per attribute.
    """
    with clean_exit(ctx):
        from ..analysis.stimuli import chord_stimuli, read_stimuli
        from ..kernels.dispatch import config
        from ..network.choosing import open_network
        from ..report.folder import ATTRIBUTES, check_free, check_writable
        from ..report.study import has_figures
        from ..studies import attribute_study

        if stimuli is not None and (renderer != "numpy" or soundfont is not None):
            raise click.UsageError("--renderer and --soundfont are for the rendered chords.")
        with config(backend=backend, num_threads=threads, isa=isa):
            check_writable(Path(out))
            check_free(Path(out), "attributes", ATTRIBUTES, overwrite=overwrite)
            sounds = (
                chord_stimuli(renderer=renderer, soundfont=soundfont)  # type: ignore[arg-type]
                if stimuli is None else read_stimuli(stimuli)
            )
            with progress_bar("attributes", show=not quiet) as bar:
                study = attribute_study(
                    open_network(network),
                    sounds,
                    control=None if control is None else open_network(control),
                    layers=None if layers is None else layers.split(","),
                    progress=_advance(bar),
                    **how,
                )
            folder = study.save(out, overwrite=overwrite)
        if not quiet:
            say(study.findings())
            say(f"{folder}: findings.txt, tables" + (", figures." if has_figures() else "."))
            if not has_figures():
                say(_NO_FIGURES)


@click.command()
@click.argument("checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True)
@click.option("-o", "--out", required=True, type=click.Path(), metavar="OUT",
              help="Folder for the results, which go to OUT/evolution-LAYER.")
@click.option("--layer", required=True, metavar="NAME", help="The layer of the features.")
@click.option("--features", callback=parse_features, metavar="0-15,20",
              help="Features to show.  [default: the eight strongest at the last checkpoint]")
@click.option("--clip", "clips", multiple=True, type=click.Path(), metavar="SONG",
              help="A sound, cut into consecutive clips; may be repeated.  [default: 480 chords]")
@click.option("--rule", type=click.Choice(["deconvnet", "guided", "gradient"]),
              default="deconvnet", show_default=True, help="How activations are passed backwards.")
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
    backend: str | None,
    isa: str | None,
    threads: int | None,
) -> None:
    """Show how features came about: CHECKPOINT... are archives in the order of training.

    For each feature and checkpoint, the strongest activation over all clips projected down to
    the input, as a grid of pictures (Zeiler and Fergus 2013, figure 4).
    """
    with clean_exit(ctx):
        from ..kernels.dispatch import config
        from ..network.choosing import open_network
        from ..report.folder import EVOLUTION, check_free, check_writable
        from ..report.names import safe_name, unique_names
        from ..report.study import has_figures
        from ..studies import feature_evolution

        with config(backend=backend, num_threads=threads, isa=isa):
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


@click.command()
@click.argument("song", type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(), metavar="OUT",
              help="Folder for the results, which go to OUT/invariance.")
@click.option("--network", default=DEFAULT_NETWORK, metavar="NAME|PATH", show_default=True,
              help="A bundled network, or the path of an archive or of an ONNX or Keras model.")
@click.option("--control", metavar="NAME|PATH",
              help="A network of the same layers to compare with.  [default: untrained]")
@click.option("--layers", metavar="a,b", help="Layers to study.  [default: every pooling layer]")
@click.option("--offset", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
              help="Skip the beginning of the song.")
@computing
@click.pass_context
def invariance(
    ctx: click.Context,
    /,
    song: str,
    out: str,
    network: str,
    control: str | None,
    layers: str | None,
    offset: float,
    overwrite: bool,
    quiet: bool,
    backend: str | None,
    isa: str | None,
    threads: int | None,
) -> None:
    """Show how far layers move when SONG is louder, later, higher or faster.

    Beside an untrained network: what that does too was not learned (Zeiler and Fergus 2013, figure
    5). OUT/invariance gets invariance.csv and a figure. Pitch and tempo are changed by librosa:
    pip install 'fastdeconv[librosa]'.
    """
    with clean_exit(ctx):
        from ..analysis.controls import untrained
        from ..audio.clip import load_clip, needed_frontend
        from ..kernels.dispatch import config
        from ..network.choosing import open_network
        from ..report.folder import INVARIANCE, check_free, check_writable
        from ..report.study import has_figures
        from ..studies import invariance as study

        with config(backend=backend, num_threads=threads, isa=isa):
            check_writable(Path(out))
            check_free(Path(out), "invariance", INVARIANCE, overwrite=overwrite)
            net = open_network(network)
            clip = load_clip(song, needed_frontend(net.frontend), offset=offset)
            found = study(
                clip, net, None if layers is None else layers.split(","),
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
