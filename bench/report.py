"""Results of a section as markdown, printed as they come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .measure import Contender, Spread, Times


class Report:
    """Blocks of markdown in order."""

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self.used: dict[str, dict[str, str]] = {}
        self.left_out: list[str] = []
        self.figures: dict[str, str] = {}
        """Those that stand side by side with the ones of other machines."""

    def heading(self, text: str) -> None:
        """A section."""
        self._add(f"## {text}")

    def paragraph(self, text: str) -> None:
        """Text; a line break in the source is a blank."""
        self._add(" ".join(text.split()))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table; the first column is text, the others are flush right."""
        self._add(markdown_table(header, rows))

    def list(self, lines: Iterable[str]) -> None:
        """A bulleted list."""
        self._add("\n".join(f"- {line}" for line in lines))

    def note(self, work: str, contender: Contender, agreement: str = "") -> None:
        """Remember how a contender does `work`, and how well it agrees with us."""
        line = "; ".join(part for part in (contender.how, agreement) if part)
        self.used.setdefault(work, {})[contender.name] = line

    def leave_out(self, lines: Iterable[str]) -> None:
        """Remember who cannot take part, and say so at once."""
        for line in lines:
            if line not in self.left_out:
                self.left_out.append(line)
                print(f"left out: {line}\n", flush=True)

    def how_used(self) -> None:
        """The closing section."""
        if not self.used and not self.left_out:
            return
        self._add("### How each was used, and how far it is from us")
        for work, lines in self.used.items():
            self.paragraph(f"**{work}**")
            self.list(f"{name}: {line}" for name, line in lines.items())
        if self.left_out:
            self.paragraph("**Left out**")
            self.list(self.left_out)

    def _add(self, block: str) -> None:
        self.blocks.append(block)
        print(block + "\n", flush=True)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns also line up as plain text."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ) + " |"
        for row in cells
    ]
    rule = "|" + "|".join(
        "-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)
    ) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def number(value: float) -> str:
    """Three digits that count, none fewer before the point."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(value: Spread) -> str:
    """Median [quartiles]."""
    return f"{number(value.middle)} [{number(value.low)} .. {number(value.high)}]"


def times_table(
    report: Report, times: Times, reference: str, contenders: Iterable[Contender],
    figure: str | None = None,
) -> None:
    """Milliseconds of everybody, and the ratio to `reference`; ~ marks what was extrapolated.

    `figure` is what this was, where it is to stand side by side with other machines.
    """
    whole = {c.name: c.whole for c in contenders}
    rows = [
        (
            name + (" ~" if whole[name] != 1 else ""),
            spread(times.spread(name)),
            "1" if name == reference else spread(times.ratio(name, reference)),
        )
        for name in times
    ]
    report.table(("", "ms [quartiles]", f"ratio to {reference} [quartiles]"), rows)
    if figure is not None:
        for name in times:
            ms, ratio = times.spread(name).middle, times.ratio(name, reference).middle
            report.figures[f"{figure}: {name}"] = f"{number(ms)} ms ({number(ratio)}x)"
