"""What the commands share: options, errors, progress. Only click is imported at the top."""

from __future__ import annotations

import functools
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

from ..errors import FastdeconvError, ParameterError, printable, reason_of, shown
from .process import EndedError, ending_on_signals, print_out

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..network.network import Network

__all__ = [
    "DEFAULT_NETWORK", "FEATURE_RULES", "METHODS", "PATH", "RULES", "Backend", "NetworkChoice",
    "audio_format_option", "clean_exit", "computing", "control_option", "demo_clip",
    "frontend_option", "layers_option", "network_option", "offset_option", "out_option",
    "parse_duration", "parse_features", "parse_names", "parse_numbers", "precision_option",
    "progress_bar", "quiet_option", "read_frontend", "read_text", "rule_option", "say",
]

#: The bundled network that every command uses if it is given none.
DEFAULT_NETWORK = "choi5-genre"

# The same tuples as in the modules that compute with them, which take a while to import.
#: The rules of a deconvnet: how activations are treated on the way back.
RULES = ("deconvnet", "guided", "gradient")
#: The rules of `fastdeconv.belief.feature_maps`.
FEATURE_RULES = (*RULES, "gradient_x_deviation")
#: The methods of `fastdeconv.belief.rules`, which explain a decision.
METHODS = (
    "integrated_gradients", "cam", "occlusion", "gradient_x_deviation", "gradient", "guided",
    "deconvnet",
)
#: A path. Whether it can be read is found out where it is opened: the message and the exit status
#: are then the same as for a file that is missing or damaged.
PATH = click.Path(readable=False)
_FORMATS = ("wav", "flac", "ogg")

_MOST_FEATURES = 1_000_000
_MOST_TEXT = 1 << 22
"""Bytes of a file of text."""
_LONGEST_LABEL = 40
"""Characters before a progress bar. A longer label, such as a path, would leave no room for it."""

Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Command], Command]


class Backend(NamedTuple):
    """What --backend, --isa and --threads ask for."""

    name: str | None
    isa: str | None
    threads: int | None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Everything inside is computed by it, or by what the environment asks for.

        Raises
        ------
        BackendError
            If it is not available here.
        ParameterError
            If a variable of the environment has no such value.
        """
        from ..kernels.dispatch import config, get_implementation, get_num_threads

        with config(backend=self.name, isa=self.isa, num_threads=self.threads):
            # Checked before the work: otherwise the error is taken for one of every song.
            get_implementation()
            get_num_threads()
            yield


class NetworkChoice(NamedTuple):
    """What --network and --frontend ask for."""

    name: str
    frontend: str | None

    def open(self) -> Network:
        """The network; errors as `fastdeconv.network.choosing.open_network` raises them."""
        from ..network.choosing import open_network

        return open_network(self.name, frontend=read_frontend(self.frontend))


# --- options of several commands -----------------------------------------------------------

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")


def computing(command: Command) -> Command:
    """Add the options of every command that computes and writes a folder.

    The command gets `overwrite`, `quiet` and `backend`, a `Backend`.
    """

    @functools.wraps(command)
    def run(
        *args: Any, backend: str | None, isa: str | None, threads: int | None, **options: Any
    ) -> Any:
        return command(*args, backend=Backend(backend, isa, threads), **options)

    made: Any = run
    for option in (
        quiet_option,
        click.option("--overwrite", is_flag=True, help="Replace earlier results of the same name."),
        click.option("--threads", type=click.IntRange(min=1), metavar="N",
                     help="Number of threads.  [default: the CPUs this process may use]"),
        click.option("--isa", metavar="NAME",
                     help="Instruction set of the native back end.  [default: the best there is]"),
        click.option("--backend", metavar="NAME",
                     help="native, numba, cuda or reference.  [default: the best there is]"),
    ):
        made = option(made)
    return cast(Command, made)


def out_option(text: str, metavar: str = "OUT") -> Option[Any]:
    """The folder or file to write to; `text` says what goes where."""
    return click.option(
        "-o", "--out", required=True, type=PATH, metavar=metavar, callback=_not_empty, help=text,
    )


def _not_empty(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuse an empty path, which would mean the working folder."""
    if not value:
        raise click.BadParameter("the path is empty; is a variable of the shell not set?")
    return value


def layers_option(text: str) -> Option[Any]:
    """Names of layers; `text` says what for."""
    return click.option("--layers", callback=parse_names(), metavar="a,b", help=text)


frontend_option = click.option(
    "--frontend", metavar="JSON|FILE",
    help="How the input of an ONNX or Keras model is made from sound: a JSON object with fields of "
         "fastdeconv.Frontend, or a file that holds one.",
)


def network_option(command: Command) -> Command:
    """Add --network and --frontend. The command gets `network`, a `NetworkChoice`."""

    @functools.wraps(command)
    def run(*args: Any, network: str, frontend: str | None, **options: Any) -> Any:
        return command(*args, network=NetworkChoice(network, frontend), **options)

    made: Any = frontend_option(run)
    return cast(Command, click.option(
        "--network", default=DEFAULT_NETWORK, metavar="NAME|PATH", show_default=True,
        help="A bundled or public network (the command networks lists them), or the path of an "
             "archive or of an ONNX or Keras model; these need --frontend.",
    )(made))


control_option = click.option(
    "--control", metavar="NAME|PATH",
    help="The network to compare with; it has the same layers.  [default: one with random weights]",
)
offset_option = click.option(
    "--offset", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
    help="Seconds to skip at the beginning of SONG.",
)
precision_option = click.option(
    "--precision", type=click.Choice(["float32", "bf16"]), default="float32", show_default=True,
    help="bf16 is faster and less exact; the documentation says by how much.",
)
audio_format_option = click.option(
    "--audio-format", type=click.Choice(_FORMATS), default="wav", show_default=True,
    help="Format of all sounds. ogg is lossy, and a sixth of the size of wav.",
)


def rule_option(choices: Sequence[str] = RULES) -> Option[Any]:
    """How to go back, by one of these rules."""
    return click.option(
        "--rule", type=click.Choice(choices), default="deconvnet", show_default=True,
        help="How the backward pass treats activations.",
    )


def parse_names(choices: Sequence[str] | None = None) -> Callable[..., list[str] | None]:
    """A callback of click that reads names separated by commas.

    Parameters
    ----------
    choices : sequence of str, optional
        The names there are; ``all`` then means all of them. Default: any name.
    """

    def parse(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
        if value is None:
            return None
        if choices is not None and value.strip() == "all":
            return [*choices]
        names = [name.strip() for name in value.split(",")]
        for name in names:
            if choices is not None and name not in choices:
                raise click.BadParameter(f"{shown(name)} is not one of {', '.join(choices)}")
            if not name:
                raise click.BadParameter(f"wanted names between commas, found {shown(value)}")
        return names

    return parse


def parse_features(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Read what `parse_numbers` reads, or all."""
    return value if value == "all" else parse_numbers(ctx, param, value)


def parse_numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> list[int] | None:
    """Read feature numbers and ranges of them, both ends included: 0-15,20."""
    if value is None:
        return None
    numbers: list[int] = []
    for part in value.split(","):
        # At most six digits: a mistyped range must not fill the memory.
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
    """Read seconds, or all."""
    if value is None or value == "all":
        return value
    try:
        seconds = float(value)
    except ValueError:
        raise click.BadParameter(f"{shown(value)} is neither seconds nor 'all'") from None
    if not 0 < seconds < float("inf"):
        raise click.BadParameter(f"must be above 0 and finite, found {shown(value)}")
    return seconds


def read_frontend(given: str | None, sr: float | None = None) -> dict[str, Any] | None:
    """Read what --frontend says; `sr` goes before the rate in it."""
    if given is None:
        if sr is not None:
            raise click.UsageError("--sr goes with --frontend.")
        return None
    from ..untrusted_json import parse_json

    try:
        text = given if given.lstrip().startswith("{") else read_text(given)
    except FileNotFoundError:
        raise ParameterError(
            f"{shown(given)}: No such file; --frontend takes a JSON object, such as "
            "'{\"kind\": \"mel\", \"sr\": 16000}', or a file that holds one"
        ) from None
    try:
        record = parse_json(text, most_chars=_MOST_TEXT, deepest=8)
    except ValueError as error:
        raise ParameterError(f"--frontend is no JSON object: {error}") from None
    if not isinstance(record, dict):
        raise ParameterError(f"--frontend must be a JSON object, found {shown(record)}")
    return record if sr is None else {**record, "sr": sr}


def read_text(path: str) -> str:
    """The text of a small file; raises as `fastdeconv.files.read_text`."""
    from ..files import read_text

    return read_text(path, _MOST_TEXT)


@contextmanager
def clean_exit(ctx: click.Context) -> Iterator[None]:
    """Turn whatever ends a command into one line and an exit status, never a traceback.

    The status is 1 for our own errors, errors of the system and too little memory. For Ctrl-C and
    other signals to end it is 128 plus the number of the signal.
    """
    with ending_on_signals():
        try:
            yield
        except KeyboardInterrupt as error:
            ended = error if isinstance(error, EndedError) else EndedError(signal.SIGINT)
            click.echo(f"\n{ended.said}", err=True)
            ctx.exit(ended.status)
        except BrokenPipeError:
            ctx.exit(1)  # the reader of the output has closed it, as head does
        except (FastdeconvError, OSError, ImportError, MemoryError) as error:
            raise click.ClickException(reason_of(error)) from None


@contextmanager
def progress_bar(
    label: str, *, show: bool, total: int | None = None, remaining: bool = False
) -> Iterator[tqdm[Any] | None]:
    """A progress bar on stderr; None if it is not to be shown, or stderr is not a terminal.

    With `remaining` the bar also shows the time that is left.
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
    """Print text that may contain names from outside, line by line.

    For commands that write files: it is not an error if the text cannot be printed.
    """
    with suppress(OSError):
        print_out("\n".join(map(printable, text.split("\n"))))


@contextmanager
def demo_clip() -> Iterator[Path]:
    """The path of the clip that comes with the package."""
    from importlib import resources

    with resources.as_file(resources.files("fastdeconv") / "data" / "demo.flac") as path:
        yield path
