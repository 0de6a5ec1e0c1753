"""The command that explains a decision: ``why``."""

from __future__ import annotations

from pathlib import Path

import click

from .shared import (
    METHODS,
    PATH,
    Backend,
    NetworkChoice,
    audio_format_option,
    clean_exit,
    computing,
    network_option,
    offset_option,
    out_option,
    parse_names,
    say,
)

__all__ = ["why"]


@click.command(short_help="Explain why a network chose a class.")
@click.argument("song", type=PATH)
@out_option("Folder for the result, which goes to OUT/<song> why.")
@network_option
@click.option("--class", "classes", multiple=True, metavar="NAME",
              help="A class to explain; may be given several times.  [default: up to three of the "
                   "classes to which the network gives more than chance]")
@click.option("--versus", metavar="NAME",
              help="Explain why the class was chosen rather than this one.")
@click.option("--methods", callback=parse_names(METHODS), metavar="a,b|all",
              help=f"Methods that explain: {', '.join(METHODS)}.  [default: {METHODS[0]}]")
@offset_option
@audio_format_option
@computing
@click.pass_context
def why(
    ctx: click.Context,
    /,
    song: str,
    out: str,
    network: NetworkChoice,
    classes: tuple[str, ...],
    versus: str | None,
    methods: list[str] | None,
    offset: float,
    audio_format: str,
    overwrite: bool,
    quiet: bool,
    backend: Backend,
) -> None:
    """Explain why a network decided as it did for SONG, and how far to believe the explanation.

    For each class the page has a picture and sounds of what spoke for it and against it, and
    numbers that say how faithful they are. The same numbers of noise, of loudness and of another
    class stand beside them.
    """
    with clean_exit(ctx):
        from ..report.decision import check_place, class_label
        from ..report.folder import check_writable
        from ..studies import decision

        with backend.in_use():
            check_writable(Path(out))
            check_place(out, song, overwrite=overwrite)
            found = decision(song, network.open(), classes or None, methods, versus, offset=offset)
            folder = found.save(out, overwrite=overwrite, audio_format=audio_format)
        if not quiet:
            for name in found.classes:
                score = found.scores[name]
                label = class_label(found, name)
                say(f"{label} ({100 * score.probability:.1f} %): {found.verdict(name)}")
            for note in found.notes:
                say(note)
            say(f"{folder}: index.html, decision.csv")
