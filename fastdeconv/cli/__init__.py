"""The command ``fastdeconv``, a file for each command.

Only click is imported at the top of these files, because ``--help`` and usage errors must not wait
for numpy. Each command imports what it needs when it runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click

from ..errors import printable
from ..version import __version__
from .explain import explain
from .networks import import_model, networks
from .process import print_out
from .shared import clean_exit
from .studies import attributes, evolution, invariance
from .survey import survey
from .why import why

__all__ = ["main"]


class _Commands(click.Group):
    """Commands whose usage errors explain a file that was taken for options."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        # The parser of the command changes the list.
        ctx.meta[__name__] = [*args]
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            file = _file_like_options(ctx.meta.get(__name__, ()))
            if file is None:
                raise
            raise click.UsageError(
                f"{error.format_message()} The file {printable(file)} was taken for options: write "
                f"{printable(os.path.join(os.curdir, file))}, or put -- before it.", error.ctx,
            ) from None


def _file_like_options(arguments: Sequence[str]) -> str | None:
    """The first argument that looks like options, and is the name of a file."""
    for argument in arguments:
        if argument == "--":
            return None
        if argument.startswith("-") and os.path.isfile(argument):
            return argument
    return None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fastdeconv")
def main() -> None:
    """Hear and see what the features of an audio CNN respond to.

    To begin: fastdeconv explain --demo -o demo-out
    """


@main.command()
@click.pass_context
def info(ctx: click.Context) -> None:
    """Print versions, back ends, instruction sets and threads."""
    with clean_exit(ctx):
        from ..kernels.dispatch import describe_config

        print_out(describe_config())


for command in (attributes, evolution, explain, import_model, invariance, networks, survey, why):
    main.add_command(command)
