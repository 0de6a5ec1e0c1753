"""The pages of the site that are made from the package itself.

- The reference: a page for every public name, grouped by the room of the package it lives in.
- The help of every command.
- The page of the demo, as ``fastdeconv explain --demo`` writes it, and that of an untrained
  network; the gallery plays sounds of both.

Everything is written to ``_made`` and ``reference``, which are no part of the repository.
"""

from __future__ import annotations

import shutil
import sys
from html import escape
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click

import fastdeconv as fd
from fastdeconv.cli import main as command_line

ROOMS = {
    "explanation": "Explain a clip or a song",
    "explaining": "What `explain` returns",
    "network": "Networks",
    "audio": "Sound and front ends",
    "deconvnet": "Forward and back",
    "studies": "Studies and decisions",
    "belief": "How far to trust it",
    "analysis": "What maps tell",
    "survey": "Collections",
    "report": "Pages",
    "kernels": "Arithmetic, threads and back ends",
    "errors": "Errors",
}
"""Title of the part of the reference that has the names of each room, in the order shown."""

SHOWN = 3
"""Features of each layer in the gallery: those to hear first."""
FRONT = ("pool3", "pool5")
"""Layers of which those that are believed are on the first page."""


def write(docs: Path) -> None:
    """Write everything. What a build made before is used again if no source has changed."""
    for folder in (docs / "_made", docs / "reference"):
        folder.mkdir(exist_ok=True)
    _write_if_new(docs / "reference" / "index.rst", reference())
    _write_if_new(docs / "_made" / "commands.md", commands())
    explain_the_demo(docs / "_made")


def _write_if_new(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def public_names() -> dict[str, list[str]]:
    """The public names of every room."""
    found: dict[str, list[str]] = {room: [] for room in ROOMS}
    for name, where in fd._EXPORTS.items():
        found[where.split(".")[1]].append(name)
    return found


def reference() -> str:
    """The index of the reference; autosummary writes the page of each name."""
    # A package and a function share this name, and the function is what users call.
    fd.survey = import_module("fastdeconv.survey.surveying").survey
    sys.modules["fastdeconv.ops"] = fd.ops  # autodoc imports what it reads by name
    lines = ["Reference", "=========", ""]
    lines += ["Every public name, as in ``import fastdeconv as fd``.", ""]
    for room, names in public_names().items():
        title = ROOMS[room].replace("`", "``")
        lines += [title, "-" * len(title), "", ".. currentmodule:: fastdeconv", ""]
        lines += [".. autosummary::", "   :toctree: .", ""]
        for name in names:
            value = getattr(fd, name)
            if isinstance(value, ModuleType):
                members = [f"{name}.{member}" for member in value.__all__]
                lines += [f"   {member}" for member in members]
            else:
                lines.append(f"   {name}")
        lines.append("")
    return "\n".join(lines)


def commands() -> str:
    """The help of every command, as the terminal shows it."""
    lines = []
    for name, command in sorted(command_line.commands.items()):
        context = click.Context(command, info_name=f"fastdeconv {name}", max_content_width=80)
        lines += [f"## fastdeconv {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def explain_the_demo(made: Path) -> None:
    """The pages of the demo clip in ``site``, and in the gallery what stands out of them."""
    stamp = made / "made-by.txt"
    package = Path(fd.__file__).parent
    sources = [Path(__file__), *package.rglob("*.py"), *package.glob("report/web/*")]
    made_by = "\n".join(f"{path} {path.stat().st_mtime_ns}" for path in sorted(sources))
    if stamp.exists() and stamp.read_text(encoding="utf-8") == made_by:
        return
    out = made / "site"
    shutil.rmtree(out, ignore_errors=True)
    clip = package / "data" / "demo.flac"
    trained = fd.explain(clip, fd.pretrained("choi5-genre"))
    verdicts = {(row["layer"], row["feature"]): row for row in trained.trust()}
    trained.save(out, "demo", audio_format="ogg", trust=True)
    original = figure("demo/original", "The original", "4 seconds of a song")
    lines = ["## The clip", "", *original, ""]
    front = list(original)
    for layer in trained.maps:
        lines += [f"## {layer}", ""]
        for row in trained.ranked(layer)[:SHOWN]:
            verdict = verdicts[layer, row["feature"]]
            text = f"Believe it? <b>{verdict['verdict']}</b>: {escape(verdict['reason'])}"
            stem, title = file_of(trained, "demo", row), title_of(row)
            lines += figure(stem, title, text)
            if verdict["verdict"] == "yes" and layer in FRONT:
                front += figure(stem, title, "Believe it? <b>yes</b>")
        lines.append("")
    untrained = fd.explain(clip, fd.pretrained("choi5-genre", trained=False), layers="pool5")
    untrained.save(out, "untrained", audio_format="ogg")
    lines += ["## pool5 before training", ""]
    for row in untrained.ranked("pool5")[:SHOWN]:
        lines += figure(file_of(untrained, "untrained", row), title_of(row), "Random weights")
    fd.decision(clip, "choi5-genre").save(out, "why")
    shutil.copy(clip.with_name("demo.LICENSE.txt"), out)
    (made / "gallery.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (made / "front.md").write_text("\n".join(front) + "\n", encoding="utf-8")
    stamp.write_text(made_by, encoding="utf-8")


def file_of(ex: fd.Explanation, folder: str, row: dict[str, Any]) -> str:
    """Picture and sound of a feature, without the suffix."""
    return f"{folder}/{ex.layer_folders()[row['layer']]}/feature_{row['feature']}"


def title_of(row: dict[str, Any]) -> str:
    label = f": {row['label']}" if row["label"] else ""
    return f"{row['layer']}, feature {row['feature']}{label}"


def figure(stem: str, title: str, text: str) -> list[str]:
    """A picture with its sound below; `text` is HTML."""
    return [
        '<figure class="heard">',
        f'<img src="{stem}.png" alt="Spectrogram of what is heard of {escape(title)}">',
        f'<audio controls preload="none" src="{stem}.ogg"></audio>',
        f"<figcaption><b>{escape(title)}</b><br>{text}</figcaption>",
        "</figure>",
    ]
