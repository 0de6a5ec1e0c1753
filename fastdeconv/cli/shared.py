"""What the commands share. Only click is imported here, as in `fastdeconv.cli`."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import FastdeconvError, printable, reason_of, shown
from .process import EndedError, ending_on_signals, print_out

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = [
    "DEFAULT_NETWORK", "clean_exit", "computing", "demo_clip", "parse_duration", "parse_features",
    "progress_bar", "say",
]

#: The bundled network of every command that is given none.
DEFAULT_NETWORK = "choi5-genre"

_MOST_FEATURES = 1_000_000
_LONGEST_LABEL = 40
"""Characters before a bar: a longer one, such as a path, would leave no room for it."""

Command = TypeVar("Command", bound=Callable[..., Any])


def computing(command: Command) -> Command:
    """Add the options of every command that computes and writes a folder."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
        click.option("--overwrite", is_flag=True, help="Replace earlier results of the same name."),
        click.option("--threads", type=click.IntRange(min=1), metavar="N",
                     help="Threads to use.  [default: the CPUs this process may use]"),
        click.option("--isa", metavar="NAME",
                     help="Instruction set of the native back end.  [default: the best there is]"),
        click.option("--backend", metavar="NAME",
                     help="native, numba, cuda or reference.  [default: the best there is]"),
    ):
        command = option(command)
    return command


def parse_features(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Feature numbers and ranges of them, both ends included: 0-15,20; or all."""
    if value is None or value == "all":
        return value
    numbers: list[int] = []
    for part in value.split(","):
        # Six digits: a mistyped range must not fill the memory.
        match = re.fullmatch(r"\s*([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?\s*", part)
        if match is None:
            raise click.BadParameter(
                f"{shown(part)} is neither a number nor a range such as 0-15"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise click.BadParameter(f"the range {first}-{last} runs backwards")
        if len(numbers) + last - first >= _MOST_FEATURES:
            raise click.BadParameter(f"more than {_MOST_FEATURES} numbers")
        numbers.extend(range(first, last + 1))
    return list(dict.fromkeys(numbers))


def parse_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Seconds, or all."""
    if value is None or value == "all":
        return value
    try:
        seconds = float(value)
    except ValueError:
        raise click.BadParameter(f"{shown(value)} is neither seconds nor 'all'") from None
    if not 0 < seconds < float("inf"):
        raise click.BadParameter(f"must be above 0 and finite, found {shown(value)}")
    return seconds


@contextmanager
def clean_exit(ctx: click.Context) -> Iterator[None]:
    """Whatever ends a command is one line and a status, never a traceback.

    Errors of ours, of the system and of too little memory: status 1. Ctrl-C and other signals
    to end: 128 and the number of the signal.
    """
    with ending_on_signals():
        try:
            yield
        except KeyboardInterrupt as error:
            ended = error if isinstance(error, EndedError) else EndedError(signal.SIGINT)
            click.echo(f"\n{ended.said}", err=True)
            ctx.exit(ended.status)
        except BrokenPipeError:
            ctx.exit(1)  # whoever read the output wants no more of it
        except (FastdeconvError, OSError, ImportError, MemoryError) as error:
            raise click.ClickException(reason_of(error)) from None


@contextmanager
def progress_bar(
    label: str, *, show: bool, total: int | None = None, remaining: bool = False
) -> Iterator[tqdm[Any] | None]:
    """A bar on stderr, or None where it is not to be shown or nobody looks.

    `remaining` shows the time left as well.
    """
    if not show or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    label = printable(label)
    with tqdm(
        desc=label if len(label) <= _LONGEST_LABEL else f"...{label[3 - _LONGEST_LABEL:]}",
        total=total,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}" + ", {remaining} left" * remaining,
        leave=False,
        file=sys.stderr,
    ) as bar:
        yield bar


def say(text: str) -> None:
    """Print text that may hold names from outside, line by line.

    For commands that write files: a line that cannot be printed is lost, and no error.
    """
    with suppress(OSError):
        print_out("\n".join(map(printable, text.split("\n"))))


@contextmanager
def demo_clip() -> Iterator[Path]:
    """The path of the clip that comes with the package."""
    from importlib import resources

    with resources.as_file(resources.files("fastdeconv") / "data" / "demo.flac") as path:
        yield path
