"""Results of several machines side by side."""

from __future__ import annotations

import pytest

from bench import results
from bench.report import Report


@pytest.fixture
def keep(tmp_path):
    """``keep(machine, section, figure)``: a section of one figure, measured on a machine."""

    def call(machine: str, section: str, figure: str) -> None:
        folder = tmp_path / "results" / results.folder_name(machine)
        results.keep_machine(folder, machine, [("CPU", machine)])
        report = Report()
        report.heading(section)
        report.paragraph(f"It took {figure}. ![picture](plots/a.svg)")
        report.figures["forward"] = figure
        results.keep_section(folder, section, report, f"measured on {machine}")

    return call


@pytest.fixture
def text(tmp_path):
    """``text()``: RESULTS.md, put together anew."""

    def call() -> str:
        output = tmp_path / "RESULTS.md"
        results.put_together(output, tmp_path / "results", ["forward", "ties"])
        return output.read_text(encoding="utf-8")

    return call


def test_every_machine_has_a_column_and_a_part_of_its_own(keep, text):
    keep("CPU A (1 core)", "forward", "1 ms")
    keep("CPU B", "forward", "2 ms")
    found = text()
    assert "|         | CPU A (1 core) | CPU B |" in found
    assert "| forward |           1 ms |  2 ms |" in found
    first, second = found.index("\n## CPU A (1 core)"), found.index("\n## CPU B")
    assert first < found.index("It took 1 ms") < second < found.index("It took 2 ms")
    assert "\n### forward\n" in found
    assert "](results/cpu-b/plots/a.svg)" in found


def test_a_run_replaces_what_it_measured_and_nothing_else(keep, text):
    keep("CPU A", "forward", "1 ms")
    keep("CPU A", "ties", "3 ms")
    keep("CPU B", "forward", "2 ms")
    keep("CPU A", "forward", "0.5 ms")
    found = text()
    assert "It took 1 ms" not in found
    assert all(f"It took {t} ms" in found for t in ("0.5", "3", "2"))
    assert found.index("### forward") < found.index("### ties")
