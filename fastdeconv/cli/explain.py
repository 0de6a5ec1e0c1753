"""The command that explains songs: ``explain``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from ..audio._checks import MODES
from ..errors import FastdeconvError, ParameterError, printable, reason_of, shown
from ..report.names import safe_name, unique_names
from .shared import (
    DEFAULT_NETWORK,
    clean_exit,
    computing,
    demo_clip,
    parse_duration,
    parse_features,
    progress_bar,
    say,
)

if TYPE_CHECKING:
    from ..explaining.kept import Kept
    from ..explaining.planning import Plan, Progress
    from ..explaining.song_planning import SongPlan
    from ..network.network import Network

__all__ = ["explain"]


# As in `fastdeconv.belief.feature_maps`, which takes a while to import.
_RULES = ("deconvnet", "guided", "gradient", "gradient_x_deviation")


def _parse_names(
    choices: Sequence[str]
) -> Callable[[click.Context, click.Parameter, str | None], list[str]]:
    """A callback that takes some of these names, or all of them."""
    def parse(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str]:
        if value == "all":
            return [*choices]
        names = [name.strip() for name in value.split(",")] if value else []
        for name in names:
            if name not in choices:
                raise click.BadParameter(f"{shown(name)} is not one of {', '.join(choices)}")
        return names

    return parse


class _Song(NamedTuple):
    """One song: where it lies, what it is called in messages, the folder it gets."""

    path: str
    label: str
    folder: str


@click.command()
@click.argument("songs", metavar="SONG...", nargs=-1, type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(), metavar="OUT",
              help="Folder for the results; each song gets a folder of its own in it.")
@click.option("--demo", is_flag=True, help="Explain the bundled clip (beside any SONG).")
@click.option("--network", default=DEFAULT_NETWORK, metavar="NAME|PATH", show_default=True,
              help="A bundled or public network (fastdeconv networks), or the path of an "
                   "archive or of an ONNX or Keras model.")
@click.option("--layers", metavar="a,b",
              help="Layers to explain.  [default: every pooling layer; without any, up to six "
                   "convolutions]")
@click.option("--features", callback=parse_features, metavar="0-15,20|all",
              help="Features to explain.  [default: all; with --duration those to hear first]")
@click.option("--rule", type=click.Choice(_RULES), default="deconvnet", show_default=True,
              help="How activations are passed backwards.")
@click.option("--start", type=click.Choice(["map", "max", "one"]), default="map",
              show_default=True,
              help="Start from a feature's whole map, its strongest unit, or 1 everywhere.")
@click.option("--mode", type=click.Choice(MODES), default="mask", show_default=True,
              help="The map masks the clip's spectrogram, only borrows its phase, or masks it by "
                   "its size alone.")
@click.option("--trust", is_flag=True,
              help="How far to believe each feature: numbers, and a verdict beside that of an "
                   "untrained network. Takes seconds for each song.")
@click.option("--rules", callback=_parse_names(_RULES), metavar="a,b|all",
              help=f"Rules to see and hear beside --rule: {', '.join(_RULES)}. Each adds as many "
                   "sounds again.")
@click.option("--modes", callback=_parse_names(MODES), metavar="a,b|all",
              help=f"Modes to hear beside --mode: {', '.join(MODES)}. Each adds as many sounds "
                   "again.")
@click.option("--offset", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
              help="Skip the beginning of each song.")
@click.option("--duration", callback=parse_duration, metavar="SECONDS|all",
              help="How much of each song: in windows, with time lines.  [default: what the "
                   "network takes at once]")
@click.option("--precision", type=click.Choice(["float32", "bf16"]), default="float32",
              show_default=True, help="bf16: faster and less exact, see the documentation.")
@click.option("--audio-format", type=click.Choice(["wav", "flac", "ogg"]), default="wav",
              show_default=True, help="Of all sounds; ogg is lossy and a sixth of the size.")
@computing
@click.pass_context
def explain(
    ctx: click.Context,
    /,
    songs: tuple[str, ...],
    out: str,
    demo: bool,
    network: str,
    layers: str | None,
    features: list[int] | str | None,
    backend: str | None,
    isa: str | None,
    threads: int | None,
    audio_format: str,
    trust: bool,
    rules: list[str],
    modes: list[str],
    overwrite: bool,
    quiet: bool,
    **how: Any,
) -> None:
    """Write the sound and the picture of every feature of each SONG.

    OUT/<song>/ gets index.html, a page to look, listen and compare; original.wav,
    <layer>/feature_<k>.wav and .png, features.csv and manifest.json. With more than
    one song in it OUT gets an index.html of them all. A SONG is any file that
    libsndfile reads: wav, flac, ogg, mp3 and more. After -- a SONG may begin with a
    dash.

    A network that takes a fixed number of frames explains the first seconds of each SONG,
    or those from --offset on; --duration all explains all of it, window by window, and shows
    when every feature fires. A SONG that is there already, with the same settings, is left
    as it is. If only --layers ask for more, only the new layers are computed. If only
    --trust, --rules or --modes ask for more it is made anew with all of that. With other
    settings it is an error, unless --overwrite is given.
    """
    if not songs and not demo:
        raise click.UsageError("Give at least one SONG, or --demo.")
    if how["duration"] is not None and (trust or rules or modes):
        raise click.UsageError(
            "--trust, --rules and --modes are for a clip, and a song is many: leave --duration "
            "out, and choose the part with --offset."
        )
    with clean_exit(ctx), ExitStack() as stack:
        from ..kernels.dispatch import config
        from ..network.choosing import choose_layers, open_network
        from ..report.folder import check_writable

        stack.enter_context(config(backend=backend, num_threads=threads, isa=isa))
        net = open_network(network)
        how |= {
            "layers": choose_layers(net, None if layers is None else layers.split(",")),
            "features": features,
        }
        check_writable(Path(out))
        failures: list[str] = []
        # Also when interrupted: what failed before that was not reported yet.
        stack.callback(_report, failures)
        save = {"audio_format": audio_format, "overwrite": overwrite}
        if how["duration"] is None:
            save |= {"trust": trust, "rules": rules, "modes": modes}
        for song in _songs(songs, stack.enter_context(demo_clip()) if demo else None):
            try:
                _explain_song(song, net, Path(out), how, save, quiet=quiet)
            except (FastdeconvError, OSError, MemoryError) as error:
                failures.append(_failure(song, error))
        _overview(Path(out), quiet=quiet)
        if failures:
            ctx.exit(1)


def _failure(song: _Song, error: Exception) -> str:
    """The song and what happened to it."""
    label = printable(song.label)
    reason = getattr(error, "strerror", None) or reason_of(error)
    return reason if reason.startswith(f"{label}:") else f"{label}: {reason}"


def _report(failures: Sequence[str]) -> None:
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)


def _songs(paths: Sequence[str], demo: Path | None) -> list[_Song]:
    """The songs to explain, each with a folder name that no other has."""
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
    # Said before the work is done rather than after it.
    found, kept = _found(planned, out, song, save)
    if found == "whole":
        if not quiet:
            say(f"{out / song.folder}: already there, with the same settings.")
        return
    if found == "part":
        # What is kept is in the earlier result, which this one is the whole of.
        had_maps = any((out / song.folder).glob(f"*/{MAPS}"))
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
) -> tuple[Literal["whole", "part", "nothing"], Kept | None]:
    """What of the result is there, and what of that is kept; what is in its way is an error."""
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
        # What is no result is in the way.
        check_free(out, song.folder, EXPLANATION, overwrite=save["overwrite"])
        return "nothing", None
    if not there.differing:
        return "whole", None
    if not there.is_part:
        raise ParameterError(
            f"{printable(str(out / song.folder))} is already there and differs in "
            f"{', '.join(map(printable, there.differing))}: --overwrite replaces it"
        )
    check_free(out, song.folder, EXPLANATION, overwrite=True)
    return "part", there.kept


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
    """A bar over some passes: the callbacks of each."""
    with progress_bar(label, show=show) as bar:
        def progress_of(number: int) -> Progress | None:
            def told(layer: str, done: int, total: int) -> None:
                assert bar is not None
                bar.total = passes * total
                bar.update(number * total + done - bar.n)

            return None if bar is None else told

        yield [progress_of(number) for number in range(passes)]


@contextmanager
def _two_bars(label: str, *, show: bool) -> Iterator[list[Progress | None]]:
    """A bar for each of two passes over the windows of a song, with the time that is left."""
    with ExitStack() as stack:

        def bar_of() -> Progress | None:
            bar: Any = None

            def told(what: str, done: int, total: int) -> None:
                nonlocal bar
                if bar is None:
                    stack.close()  # one bar at a time
                    bar = stack.enter_context(
                        progress_bar(f"{label}, {what}", show=show, total=total, remaining=True)
                    )
                if bar is not None:
                    bar.update(done - bar.n)

            return told

        yield [bar_of(), bar_of()]


def _closing_line(explanation: Any, folder: Path, kept: Kept | None) -> str:
    rows = explanation.table
    count = f"{_count(len(rows), 'feature')} of {_count(len(explanation.features), 'layer')}"
    silent = sum(row["level"] is None for row in rows)
    if rows and silent == len(rows):
        count += ", all of them silent"
    elif silent:
        count += f", {silent} of them silent"
    said = [*_what_was_done(explanation, kept), explanation.covered, _left_out(explanation)]
    text = "".join(f" {one}" for one in said if one)
    return f"{folder}: {count}.{text} Open {folder / 'index.html'}"


def _what_was_done(explanation: Any, kept: Kept | None) -> Iterator[str]:
    """What was computed and what was not, where there was something already."""
    if kept is None:
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
    """Which features of a song have no sound, and how they get one."""
    text = getattr(explanation, "left_out", None)
    return None if text is None else f"{text}; --features all makes those of all."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
