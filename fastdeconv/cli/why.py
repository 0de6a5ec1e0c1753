"""The command that explains a decision: ``why``."""

from __future__ import annotations

from pathlib import Path

import click

from .shared import DEFAULT_NETWORK, clean_exit, computing, say

__all__ = ["why"]


@click.command()
@click.argument("song", type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(), metavar="OUT",
              help="Folder for the results, which go to OUT/SONG why.")
@click.option("--network", default=DEFAULT_NETWORK, metavar="NAME|PATH", show_default=True,
              help="A bundled network, or the path of an archive or of an ONNX or Keras model.")
@click.option("--class", "classes", multiple=True, metavar="NAME",
              help="A class to explain; may be repeated.  [default: up to three of those that "
                   "the network gives more than chance]")
@click.option("--versus", metavar="NAME", help="Explain the difference to this class.")
@click.option("--methods", metavar="a,b|all",
              help="How to explain: integrated_gradients, cam, occlusion, gradient_x_deviation, "
                   "gradient, guided, deconvnet, or all.  [default: integrated_gradients]")
@click.option("--offset", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
              help="Skip the beginning of the song.")
@click.option("--audio-format", type=click.Choice(["wav", "flac", "ogg"]), default="wav",
              show_default=True, help="Of all sounds.")
@computing
@click.pass_context
def why(
    ctx: click.Context,
    /,
    song: str,
    out: str,
    network: str,
    classes: tuple[str, ...],
    versus: str | None,
    methods: str | None,
    offset: float,
    audio_format: str,
    overwrite: bool,
    quiet: bool,
    backend: str | None,
    isa: str | None,
    threads: int | None,
) -> None:
    """Explain why a network decided as it did, and how far to believe that.

    For each class a picture and sounds of what spoke for it and against it, and how faithful they
    are beside noise, loudness and another class.
    """
    with clean_exit(ctx):
        from ..kernels.dispatch import config
        from ..report.folder import check_writable
        from ..studies import decision

        with config(backend=backend, num_threads=threads, isa=isa):
            check_writable(Path(out))
            asked = methods if methods in (None, "all") else methods.split(",")
            found = decision(song, network, classes or None, asked, versus, offset=offset)
            folder = found.save(out, overwrite=overwrite, audio_format=audio_format)
        if not quiet:
            for name in found.classes:
                score = found.scores[name]
                say(f"{name} ({100 * score.probability:.1f} %): {found.verdict(name)}")
            for note in found.notes:
                say(note)
            say(f"{folder}: index.html, decision.csv")
