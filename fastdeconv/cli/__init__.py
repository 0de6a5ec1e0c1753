"""The command ``fastdeconv``, a file for each command.

Only click is imported at the top of these files, because ``--help`` and usage errors must not wait
for numpy. Each command imports what it needs when it runs.
"""

from __future__ import annotations

import click

from ..version import __version__
from .explain import explain
from .networks import import_model, networks
from .process import print_out
from .shared import clean_exit
from .studies import attributes, evolution, invariance
from .survey import survey
from .why import why

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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
