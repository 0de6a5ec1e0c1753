"""The command that runs a network on a collection: ``survey``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import printable, shown
from ..report.numbers import length_text
from .shared import (
    PATH,
    NetworkChoice,
    clean_exit,
    demo_clip,
    layers_option,
    network_option,
    out_option,
    progress_bar,
    quiet_option,
    say,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from tqdm import tqdm

    from ..network.network import Network
    from ..survey.surveying import Survey

__all__ = ["survey"]


def _parse_part(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", value)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(f"{shown(value)} is not i/n with i from 1 to n, such as 3/64")
    return int(match[1]), int(match[2])


@click.command(short_help="Record what every feature responds to in a collection.")
@click.argument("files", metavar="FOLDER|LIST|CSV", type=PATH)
@out_option("Folder for the survey. A survey that was begun there is continued.")
@network_option
@layers_option("Layers to survey, or to add to a survey.  [default: every pooling layer; in a "
               "network without one, up to six convolutions]")
@click.option("--tags", type=PATH, metavar="CSV",
              help="What is known about the tracks: a column track, and columns of numbers or "
                   "classes.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N",
              help="Number of processes.  [default: the CPUs this process may use]")
@click.option("--scheduler", metavar="tcp://...",
              help="Compute on the Dask cluster of this scheduler.")
@click.option("--part", callback=_parse_part, metavar="I/N",
              help="Compute only every N-th shard, beginning with the I-th: for job arrays. The "
                   "part that ends last writes the tables.")
@click.option("--no-rows", is_flag=True,
              help="Keep no row for each window. Saves space with a million tracks.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=10.0,
              metavar="SECONDS", show_default=True,
              help="Length of the windows, where the network takes any length.")
@click.option("--retry", is_flag=True,
              help="Try tracks again that could not be used before. (Tracks that have changed "
                   "since then are always read again.)")
@click.option("--control", is_flag=True,
              help="Survey an untrained network as well, in OUT/control. What it responds to in "
                   "the same way was not learned.")
@click.option("--trust", is_flag=True,
              help="Also measure how far to believe each excerpt of the page. Takes seconds for "
                   "each window and layer; what is there already is kept.")
@click.option("--no-atlas", is_flag=True,
              help="Write only the tables, not the page with its excerpts.")
@quiet_option
@click.pass_context
def survey(
    ctx: click.Context,
    /,
    files: str,
    out: str,
    network: NetworkChoice,
    layers: list[str] | None,
    tags: str | None,
    workers: int | None,
    scheduler: str | None,
    part: tuple[int, int] | None,
    no_rows: bool,
    seconds: float,
    retry: bool,
    control: bool,
    trust: bool,
    no_atlas: bool,
    quiet: bool,
) -> None:
    """Record what every feature of a network responds to in a collection of tracks.

    The collection is a FOLDER; a LIST, which is a file with one path per line; or a CSV with a
    column track. OUT gets tables in Parquet: features.parquet (how strongly and how often each
    feature fires), exemplars.parquet (the windows in which it fires most), together.parquet (the
    features that fire with it), attributes.parquet (how it relates to --tags) and tracks.parquet.
    errors.csv names the tracks that could not be used. index.html is made of the tables: a page to
    see and hear what each feature responds to most.

    The same command, run again, continues where it stopped and computes only what is new. The exit
    status is 1 if there are tracks that could not be used.
    """
    if scheduler is not None and workers is not None:
        raise click.UsageError("--workers is for processes of this machine, not for --scheduler.")
    if trust and no_atlas:
        raise click.UsageError("--trust is about the excerpts of the page: leave --no-atlas out.")
    with clean_exit(ctx):
        from ..survey.surveying import survey as run

        place, net = Path(out), network.open()
        with _executor(scheduler) as (executor, count):

            def surveyed(net: Network, folder: Path, label: str) -> Survey:
                with progress_bar(label, show=not quiet, remaining=True) as bar:
                    return run(
                        files, net, folder, layers, executor=executor, workers=count or workers,
                        part=part, tags=tags, rows=not no_rows, seconds=seconds, retry=retry,
                        progress=_advance(bar),
                    )

            found = surveyed(net, place, "survey")
            lines = _closing_lines(found, place)
            if control:
                other = surveyed(_untrained(net), place / "control", "control")
                lines += _closing_lines(other, place / "control")[:1]
            if found.is_complete and not no_atlas:
                lines += _write_atlas(
                    place, trust=trust, executor=executor, workers=count or workers,
                    show=not quiet,
                )
        if not quiet:
            say("\n".join(lines))
        if found.counts.get("errors"):
            ctx.exit(1)


def _untrained(net: Network) -> Network:
    """The control of a network. Windows of the demo clip give its inputs their size."""
    from ..analysis.controls import untrained
    from ..audio.song import load_song

    with demo_clip() as path:
        song = load_song(path, net.frontend)
    return untrained(net, [clip.x for clip in song.windows()])


@contextmanager
def _executor(scheduler: str | None) -> Iterator[tuple[Executor | None, int | None]]:
    """The executor of a Dask cluster, and how many workers it has; None without one."""
    if scheduler is None:
        yield None, None
        return
    from ..survey.cluster import cluster

    with cluster(scheduler) as found:
        yield found


def _advance(bar: tqdm[Any] | None) -> Callable[[int, int], None]:
    """A callback that shows on a bar how much is done."""

    def advance(done: int, total: int) -> None:
        if bar is not None:
            if bar.n == 0 and bar.initial == 0:
                bar.reset(total)  # time that passed before the first call does not count
                bar.initial = bar.n = done  # what was there already says nothing about the speed
            bar.total = total
            bar.update(done - bar.n)

    return advance


def _write_atlas(
    out: Path, *, trust: bool, executor: Executor | None, workers: int | None, show: bool
) -> list[str]:
    """Write the page of a survey whose tables are complete; returns what to say about it."""
    from ..report.atlas import write_atlas
    from ..survey.surveying import tracks_text

    with progress_bar("atlas", show=show, remaining=True) as bar, progress_bar(
        "trust", show=show and trust, remaining=True
    ) as trust_bar:
        # Tracks may lie anywhere, because the user named them in this command.
        found = write_atlas(
            out, outside=True, progress=_advance(bar), trust=trust, executor=executor,
            workers=workers, trust_progress=_advance(trust_bar),
        )
    judged = f", {found.judged:,} with a verdict" if found.judged else ""
    lines = [f"Open {found.page} ({found.excerpts:,} excerpts{judged})"]
    if found.unjudged:
        track, reason = next(iter(found.unjudged.items()))
        lines.append(
            f"Excerpts of {tracks_text(len(found.unjudged))} could not be judged; the first: "
            f"{printable(track)}: {reason}"
        )
    if found.missing:
        track, reason = next(iter(found.missing.items()))
        lines.append(
            f"No excerpt could be made of {tracks_text(len(found.missing))}; the first: "
            f"{printable(track)}: {reason}"
        )
    return lines


def _closing_lines(found: Survey, out: Path) -> list[str]:
    from ..survey.surveying import tracks_text

    if not found.is_complete:
        return [f"{out}: this part is done, others are not yet. The last one writes the tables."]
    counts = found.counts
    line = (
        f"{out}: {tracks_text(counts['tracks'], counts['errors'])}, {counts['windows']:,} windows, "
        f"{length_text(counts['seconds'])}; {sum(found.layers.values()):,} features of "
        f"{', '.join(found.layers)}."
    )
    lines = [line]
    if counts["errors"]:
        first = found.errors[0]
        lines.append(
            f"{tracks_text(counts['errors'])} could not be used, see errors.csv; the first: "
            f"{printable(first['track'])}: {first['error']}"
        )
    if found.left_aside:
        files = "file with another suffix was" if found.left_aside == 1 else (
            "files with other suffixes were"
        )
        lines.append(f"{found.left_aside:,} {files} not read.")
    lines += [f"Nothing is said about the attribute {reason}" for reason in found.left_out]
    return lines
