"""Tables and spreads of the benchmark."""

from __future__ import annotations

import numpy as np
import pytest

from bench import measure
from bench.measure import Contender, Spread, Times, interleave
from bench.report import Report, markdown_table, number, spread, times_table


def test_columns_line_up():
    assert markdown_table(("", "ms"), [("a", "1"), ("longer", "12.5")]).splitlines() == [
        "|        |   ms |",
        "|--------|-----:|",
        "| a      |    1 |",
        "| longer | 12.5 |",
    ]


@pytest.mark.parametrize(
    "value, text", [(0.1234, "0.12"), (1.5, "1.50"), (12.34, "12.3"), (123.4, "123")]
)
def test_three_digits(value, text):
    assert number(value) == text


def test_ratios_are_taken_within_a_round():
    times = Times({"us": np.array([1.0, 2.0, 4.0]), "them": np.array([3.0, 6.0, 12.0])})
    assert times.ratio("them", "us") == Spread(3, 3, 3)
    assert spread(times.spread("us")) == "2000 [1500 .. 3000]"


def test_a_share_of_the_work_counts_for_all_of_it(monkeypatch):
    monkeypatch.setattr(measure, "_seconds", lambda work: 0.03)
    times = interleave([Contender("all", int), Contender("share", int, whole=64)], rounds=2)
    assert times["all"].tolist() == [0.03, 0.03]
    assert times["share"].tolist() == [64 * 0.03, 64 * 0.03]


def test_extrapolated_times_are_marked():
    report = Report()
    times = Times({"us": np.array([1.0]), "them": np.array([2.0])})
    times_table(report, times, "us", [Contender("us", int), Contender("them", int, whole=64)])
    lines = report.blocks[0].splitlines()
    assert lines[2].split("|")[1].strip() == "us"
    assert lines[3].split("|")[1].strip() == "them ~"
