"""The commands about networks: list them, import them. Only click is imported here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import shown
from .process import print_out
from .shared import (
    PATH,
    clean_exit,
    frontend_option,
    out_option,
    read_frontend,
    read_text,
    say,
)

if TYPE_CHECKING:
    from ..network.network import Network

__all__ = ["import_model", "networks"]


@click.command(short_help="List the networks that --network knows by name.")
@click.pass_context
def networks(ctx: click.Context) -> None:
    """List the networks that --network knows by name.

    These are the bundled networks, and public networks whose weights come with packages of other
    people. The list says what to install where such a package is missing, and where the network or
    its input differs from the original. No code of those packages is run.
    """
    with clean_exit(ctx):
        from ..network.pretrained import list_pretrained, pretrained
        from ..network.public import is_installed, list_public

        for name in list_pretrained():
            print_out(f"{name}  bundled; {_one_line(pretrained(name))}")
        for recipe in list_public():
            there = "" if is_installed(recipe) else f"; {recipe.install}"
            print_out(f"{recipe.name}  {recipe.about} ({recipe.license}){there}")
            if recipe.remark is not None:
                print_out(f"    {recipe.remark}")


@click.command("import", short_help="Turn an ONNX or Keras model into an archive.")
@click.argument("model", metavar="MODEL", type=PATH)
@out_option("The archive to write.", "NET.npz")
@click.option("--input-shape", metavar="C,H,W",
              help="Shape of one input without the batch axis, needed where the file leaves sizes "
                   "open; ? stands for a size that may vary.")
@frontend_option
@click.option("--sr", type=float, metavar="HZ",
              help="Sample rate of the front end; goes before that in --frontend.")
@click.option("--inputs", metavar="NAME",
              help="Take this value of an ONNX graph as the network's input.")
@click.option("--outputs", metavar="NAME", help="Take this layer as the network's output.")
@click.option("--classes", metavar="FILE", help="A text file with one class name per line.")
@click.option("--name", metavar="TEXT", help="Name of the network.  [default: that of the file]")
@click.pass_context
def import_model(
    ctx: click.Context, /, model: str, out: str, input_shape: str | None, frontend: str | None,
    sr: float | None, classes: str | None, name: str | None, **more: Any,
) -> None:
    """Turn an ONNX or Keras MODEL into an archive that needs no framework.

    MODEL is an .onnx, .keras, .h5 or .hdf5 file; its content counts, not its name. No code in it
    is run. Layers keep their names. Every layer of an ONNX model is compared with what ONNX Runtime
    computes (or, without it, the reference in onnx), and a model that differs is refused. A Keras
    model is not compared: that would run it.
    """
    with clean_exit(ctx):
        from ..network.importers.opening import open_model

        network = open_model(
            model, input_shape=_shape(input_shape), frontend=read_frontend(frontend, sr),
            classes=_lines(classes), name=name or Path(model).stem, **more,
        )
        network.save(out)
        say(f"{out}: {_one_line(network)}")
        say(network.receipt or "Not compared: nothing of this kind of file is run.")


def _shape(text: str | None) -> tuple[int | None, ...] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(re.fullmatch("[0-9]{1,9}|[?]", part) for part in parts):
        raise click.UsageError(f"--input-shape must be C,H,W such as 1,96,?, found {shown(text)}")
    return tuple(None if part == "?" else int(part) for part in parts)


def _lines(path: str | None) -> list[str] | None:
    if path is None:
        return None
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _one_line(net: Network) -> str:
    parts = [f"{len(net.layers)} layers, {len(net.pooling_layers)} of them pooling"]
    if net.frontend is not None:
        parts.append(f"{net.frontend.kind} at {net.frontend.sr} Hz")
    if net.classes:
        parts.append(f"{len(net.classes)} classes")
    return "; ".join(parts)
