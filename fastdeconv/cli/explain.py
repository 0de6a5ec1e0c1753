"""The command that explains songs: ``explain``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from ..audio._checks import MODES
from ..errors import FastdeconvError, ParameterError, printable, reason_of
from ..report.names import safe_name, unique_names
from .shared import (
    FEATURE_RULES,
    PATH,
    Backend,
    NetworkChoice,
    audio_format_option,
    clean_exit,
    computing,
    demo_clip,
    layers_option,
    network_option,
    offset_option,
    out_option,
    parse_duration,
    parse_features,
    parse_names,
    precision_option,
    progress_bar,
    rule_option,
    say,
)

if TYPE_CHECKING:
    from ..explaining.kept import Kept
    from ..explaining.planning import Plan, Progress
    from ..explaining.song_planning import SongPlan
    from ..network.network import Network

__all__ = ["explain"]


class _Song(NamedTuple):
    """One song: its path, its name in messages, and the name of its folder."""

    path: str
    label: str
    folder: str


@click.command(short_help="Write the sound and the picture of every feature for each song.")
@click.argument("songs", metavar="SONG...", nargs=-1, type=PATH)
@out_option("Folder for the results; each song gets a folder of its own in it.")
@click.option("--demo", is_flag=True, help="Explain the bundled clip, beside any SONG.")
@network_option
@layers_option("Layers to explain.  [default: every pooling layer; in a network without one, up to "
               "six convolutions]")
@click.option("--features", callback=parse_features, metavar="0-15,20|all",
              help="Features to explain.  [default: all; with --duration those to hear first]")
@rule_option(FEATURE_RULES)
@click.option("--start", type=click.Choice(["map", "max", "one"]), default="map",
              show_default=True,
              help="Start the backward pass from a feature's whole map, from its strongest unit, "
                   "or from 1 everywhere.")
@click.option("--mode", type=click.Choice(MODES), default="mask", show_default=True,
              help="How a map becomes sound. mask: it masks the clip's spectrogram; phase: it gets "
                   "the clip's phase; wiener: its absolute value masks the spectrogram.")
@click.option("--trust", is_flag=True,
              help="Also measure how far to believe each feature: numbers and a verdict, with the "
                   "share of such verdicts for an untrained network. Takes seconds for each song.")
@click.option("--rules", callback=parse_names(FEATURE_RULES), metavar="a,b|all",
              help=f"Other rules to see and hear beside --rule: {', '.join(FEATURE_RULES)}. Each "
                   "adds as many sounds again.")
@click.option("--modes", callback=parse_names(MODES), metavar="a,b|all",
              help=f"Other modes to hear beside --mode: {', '.join(MODES)}. Each adds as many "
                   "sounds again.")
@offset_option
@click.option("--duration", callback=parse_duration, metavar="SECONDS|all",
              help="How much of each SONG to explain, in windows and with time lines.  [default: "
                   "as much as the network takes at once]")
@precision_option
@audio_format_option
@computing
@click.pass_context
def explain(
    ctx: click.Context,
    /,
    songs: tuple[str, ...],
    out: str,
    demo: bool,
    network: NetworkChoice,
    layers: list[str] | None,
    features: list[int] | str | None,
    audio_format: str,
    trust: bool,
    rules: list[str] | None,
    modes: list[str] | None,
    overwrite: bool,
    quiet: bool,
    backend: Backend,
    **how: Any,
) -> None:
    """Write the sound and the picture of every feature for each SONG.

    Each SONG gets a folder OUT/<song>/ with index.html, a page to look, listen and compare;
    original.wav; <layer>/feature_<k>.wav and .png; features.csv and manifest.json. If OUT holds
    several songs, it also gets an index.html of all of them. A SONG is any file that libsndfile can
    read: wav, flac, ogg, mp3 and more. Put -- before a SONG whose name begins with a dash.

    If the network takes a fixed number of frames, the first seconds of each SONG are explained, or
    those from --offset on. With --duration all the whole SONG is explained, window by window, and
    the page shows when each feature fires.

    A SONG that was explained before, with the same settings, is left as it is, also if it was with
    --trust or with more --rules or --modes. If only --layers ask for more, only the new layers are
    computed. If only --trust, --rules or --modes ask for more, the result is made again with
    everything. Other differences are an error unless --overwrite is given.
    """
    if not songs and not demo:
        raise click.UsageError("Give at least one SONG, or --demo.")
    if how["duration"] is not None and (trust or rules or modes):
        raise click.UsageError(
            "--trust, --rules and --modes are for one clip, not for a song of many windows: leave "
            "--duration out, and choose the part of the song with --offset."
        )
    with clean_exit(ctx), ExitStack() as stack:
        from ..explaining.planning import choose_features
        from ..report.folder import check_writable

        stack.enter_context(backend.in_use())
        net = network.open()
        # Checked before the work: otherwise the error is taken for one of every song.
        how |= {"layers": [*choose_features(net, layers, features)], "features": features}
        check_writable(Path(out))
        failures: list[str] = []
        # Reported at the end, also if this run is interrupted.
        stack.callback(_report, failures)
        save = {"audio_format": audio_format, "overwrite": overwrite}
        if how["duration"] is None:
            save |= {"trust": trust, "rules": rules or (), "modes": modes or ()}
        for song in _songs(songs, stack.enter_context(demo_clip()) if demo else None):
            try:
                _explain_song(song, net, Path(out), how, save, quiet=quiet)
            except (FastdeconvError, OSError, MemoryError) as error:
                failures.append(_failure(song, error))
        _overview(Path(out), quiet=quiet)
        if failures:
            ctx.exit(1)


def _failure(song: _Song, error: Exception) -> str:
    """The message for a song that could not be explained."""
    label = printable(song.label)
    reason = getattr(error, "strerror", None) or reason_of(error)
    return reason if reason.startswith(f"{label}:") else f"{label}: {reason}"


def _report(failures: Sequence[str]) -> None:
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)


def _songs(paths: Sequence[str], demo: Path | None) -> list[_Song]:
    """The songs to explain, each with a folder name of its own."""
    entries = [] if demo is None else [(str(demo), "demo", "demo")]
    entries += [(path, path, safe_name(Path(path).stem, "song")) for path in paths]
    folders = unique_names([name for _, _, name in entries], taken=("index.html",))
    return [
        _Song(path, label, folder)
        for (path, label, _), folder in zip(entries, folders, strict=True)
    ]


def _explain_song(
    song: _Song,
    net: Network,
    out: Path,
    how: dict[str, Any],
    save: dict[str, Any],
    *,
    quiet: bool,
) -> None:
    from ..explaining.result import MAPS
    from ..explanation import Explanation, compute, prepare

    planned = prepare(song.path, net, **how)
    # Checked before the work and not after it.
    found, kept, beyond = _found(planned, out, song, save)
    if found == "whole":
        if not quiet:
            say(f"{out / song.folder}: already there, with the same settings{beyond}.")
        return
    if found == "part":
        # The earlier result is replaced by one that contains all of it, also its arrays of maps.
        had_maps = how["duration"] is None and any((out / song.folder).glob(f"*/{MAPS}"))
        save = {**save, "overwrite": True} | ({"maps": True} if had_maps else {})
    if how["duration"] is None:
        passes = _one_bar(song.label, 3 if save["trust"] else 2, show=not quiet)
    else:
        passes = _two_bars(song.label, show=not quiet)
    with passes as (computed, *trusted, written):
        explanation = compute(planned, computed, kept)
        if isinstance(explanation, Explanation):
            for progress in trusted:
                explanation.trust(progress=progress)
        folder = explanation.save(out, song.folder, progress=written, **save)
    if not quiet:
        say(_closing_line(explanation, folder, kept))


def _found(
    planned: Plan | SongPlan, out: Path, song: _Song, save: dict[str, Any]
) -> tuple[Literal["whole", "part", "nothing"], Kept | None, str]:
    """How much of the result is there already, what of it is kept, and what else is there.

    Raises
    ------
    ParameterError
        If something else has the result's name, or a result with other settings.
    """
    from ..explaining.additions import NONE, additions_of
    from ..explaining.kept import what_is_there
    from ..explaining.planning import Plan
    from ..report.folder import EXPLANATION, check_free

    there = None
    if not save["overwrite"]:
        additions = NONE
        if isinstance(planned, Plan):
            asked = {key: save[key] for key in ("trust", "rules", "modes")}
            additions = additions_of(planned.how, planned.mode, **asked)
        there = what_is_there(planned, out / song.folder, save["audio_format"], additions)
    if there is None:
        # Anything that is not a result of ours is an error here.
        check_free(out, song.folder, EXPLANATION, overwrite=save["overwrite"])
        return "nothing", None, ""
    if not there.differing:
        return "whole", None, _beyond(there.beyond)
    if not there.is_part:
        raise ParameterError(
            f"{printable(str(out / song.folder))} is already there and differs in "
            f"{', '.join(map(printable, there.differing))}: --overwrite replaces it"
        )
    check_free(out, song.folder, EXPLANATION, overwrite=True)
    return "part", there.kept, ""


def _beyond(additions: Mapping[str, Sequence[str]]) -> str:
    """What a result that is there has besides what is asked for, as the end of a sentence."""
    parts = [
        f"{name} ({', '.join(ones)})" if name != "trust" else "verdicts (--trust)"
        for name, ones in additions.items()
    ]
    return f", and more: {'; '.join(parts)}" if parts else ""


def _overview(out: Path, *, quiet: bool) -> None:
    from ..report.overview import write_overview

    written = write_overview(out, least=2)
    if written is None or quiet:
        return
    say(f"All songs: open {written.page}")
    for name, reason in written.left_out:
        say(f"Not on that page: {name} ({reason})")


@contextmanager
def _one_bar(label: str, passes: int, *, show: bool) -> Iterator[list[Progress | None]]:
    """One progress bar for several passes over the layers: a callback for each pass."""
    with progress_bar(label, show=show) as bar:
        def progress_of(number: int) -> Progress | None:
            def advance(layer: str, done: int, total: int) -> None:
                assert bar is not None
                bar.total = passes * total
                bar.update(number * total + done - bar.n)

            return None if bar is None else advance

        yield [progress_of(number) for number in range(passes)]


@contextmanager
def _two_bars(label: str, *, show: bool) -> Iterator[list[Progress | None]]:
    """A progress bar for each of two passes over the windows of a song: a callback for each."""
    with ExitStack() as stack:

        def bar_of() -> Progress | None:
            bar: Any = None

            def advance(what: str, done: int, total: int) -> None:
                nonlocal bar
                if bar is None:
                    stack.close()  # one bar at a time
                    bar = stack.enter_context(
                        progress_bar(f"{label}, {what}", show=show, total=total, remaining=True)
                    )
                if bar is not None:
                    bar.update(done - bar.n)

            return advance

        yield [bar_of(), bar_of()]


def _closing_line(explanation: Any, folder: Path, kept: Kept | None) -> str:
    rows = explanation.table
    count = f"{_count(len(rows), 'feature')} of {_count(len(explanation.features), 'layer')}"
    silent = sum(row["level"] is None for row in rows)
    if rows and silent == len(rows):
        count += ", all of them silent"
    elif silent:
        count += f", {silent} of them silent"
    done = [*_what_was_done(explanation, kept), explanation.covered, _left_out(explanation)]
    notices = [text for text in done if text]
    return " ".join([f"{folder}: {count}.", *notices, f"Open {folder / 'index.html'}"])


def _what_was_done(explanation: Any, kept: Kept | None) -> Iterator[str]:
    """Which layers were computed and which were not, where some were there already."""
    if kept is None or not (kept.pages or kept.damaged):
        return
    yield f"Computed: {', '.join(explanation.features)}."
    if kept.pages:
        yield f"Taken over from before: {', '.join(kept.pages)}."
    if kept.damaged:
        yield (
            f"Not taken over, because its files are not as they were written: "
            f"{', '.join(kept.damaged)}."
        )


def _left_out(explanation: Any) -> str | None:
    """Which features of a song have a sound, and how to get sounds of all."""
    text = getattr(explanation, "left_out", None)
    return None if text is None else f"{text}; --features all makes those of all."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
