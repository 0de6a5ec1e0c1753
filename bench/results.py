"""Results of several machines, kept apart: bench/results/MACHINE/ has a file for every section,
and RESULTS.md is put together from all of them.

A run replaces the sections that it measured on the machine where it ran, and nothing else. So
figures of two machines are never mixed, and every section says when and how it was measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from .report import Report, markdown_table

HOW = (
    "How fast fastdeconv is beside other libraries, on every machine where `python -m bench` was "
    "run. All contenders work on the same clip with the same weights, and before anything is timed "
    "their maps are compared with ours. They take turns in one process; a turn lasts at least 50 "
    "ms. Figures are medians over the rounds, with [quartiles]. A ratio is taken within a round; "
    "above 1 it says how many times as long as fastdeconv something takes. The C library is told "
    "to keep freed memory, so that nobody pays for page faults twice. Every section says when and "
    "how it was measured. Times of one machine say nothing about another one, nor about the same "
    "one with more cores."
)
MACHINE = "machine.md"


def folder_name(machine: str) -> str:
    """A folder for a machine, from what it is."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")


def keep_machine(folder: Path, machine: str, facts: Sequence[tuple[str, str]]) -> None:
    """Write down what a machine is."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"- {what}: {value}" for what, value in facts]
    _write(folder / MACHINE, [f"# {machine}", "\n".join(lines)])


def keep_section(folder: Path, name: str, report: Report, measured: str) -> None:
    """Write down a section; `measured`: when and how."""
    folder.mkdir(parents=True, exist_ok=True)
    heading, *rest = report.blocks
    _write(folder / f"{name}.md", [heading, f"*{measured}*", *rest])
    figures = folder / f"{name}.json"
    if report.figures:
        figures.write_text(json.dumps(report.figures, indent=1) + "\n", encoding="utf-8")
    else:
        figures.unlink(missing_ok=True)


def put_together(output: Path, results: Path, order: Sequence[str]) -> None:
    """Write `output` from the folders in `results`; sections in this order."""
    machines = sorted(path.parent for path in results.glob(f"*/{MACHINE}"))
    blocks = ["# Benchmark results", HOW]
    if machines:
        blocks += ["## Side by side", _side_by_side(machines, order)]
    for folder in machines:
        names = [MACHINE.removesuffix(".md"), *order]
        for path in (folder / f"{name}.md" for name in names):
            if path.exists():
                text = path.read_text(encoding="utf-8").strip()
                where = folder.relative_to(output.parent).as_posix()
                blocks.append(_lower(text).replace("](plots/", f"]({where}/plots/"))
    _write(output, blocks)


def _side_by_side(machines: Sequence[Path], order: Sequence[str]) -> str:
    figures = [_figures(folder, order) for folder in machines]
    rows = dict.fromkeys(name for one in figures for name in one)
    titles = [_title(folder) for folder in machines]
    return markdown_table(
        ("", *titles), [(name, *(one.get(name, "") for one in figures)) for name in rows]
    )


def _title(folder: Path) -> str:
    first, *_ = (folder / MACHINE).read_text(encoding="utf-8").splitlines()
    return first.removeprefix("# ")


def _figures(folder: Path, order: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in order:
        path = folder / f"{name}.json"
        if path.exists():
            found |= json.loads(path.read_text(encoding="utf-8"))
    return found


def _lower(text: str) -> str:
    """Headings one level lower."""
    return re.sub(r"^(#+ )", r"#\1", text, flags=re.MULTILINE)


def _write(path: Path, blocks: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
