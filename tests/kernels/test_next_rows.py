"""How many rows a step that leaves out zeros computes together: `next_rows` of csrc/project.c."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CSRC = Path(__file__).parents[2] / "csrc"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
FLAGS = ["-std=gnu11", "-O1", "-DFD_ISA=baseline", f"-I{CSRC}", "-shared", "-fPIC"]

TWO, ONE = 70, 40
"""Nanoseconds that two rows together and a single row take, where two together are faster."""


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The function, with a clock and with votes of other threads that the test chooses."""
    if COMPILER is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("rows") / "rows_check.so"
    source = Path(__file__).with_name("rows_check.c")
    subprocess.run([COMPILER, *FLAGS, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def rows_of_band(unit: ctypes.CDLL, rows: int, two: int, one: int) -> list[int]:
    """What a thread alone computes, one call after the other."""
    found: list[int] = []
    passed = 0
    while count := unit.check_next(passed, 0, rows - sum(found)):
        found.append(count)
        passed = two if count == 2 else one
    return found


@pytest.mark.parametrize(("two", "decided"), [(TWO, 2), (2 * ONE, 1)])
def test_the_faster_way_is_found_and_kept(unit: ctypes.CDLL, two: int, decided: int) -> None:
    unit.check_begin(0)
    tried = rows_of_band(unit, 2000, two, ONE)
    assert tried[:5] == [2, 2, 1, 1, 1]
    assert sum(tried) == 2000
    assert abs(unit.check_lead()) == unit.check_sure()
    assert rows_of_band(unit, 20, two, ONE) == [decided] * (20 // decided)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_votes_of_other_threads_never_lead_beyond_the_end_of_a_band(
    unit: ctypes.CDLL, data: st.DataObject
) -> None:
    sure = unit.check_sure()
    lead = data.draw(st.integers(-sure, sure))
    unit.check_begin(lead)
    for rows in data.draw(st.lists(st.integers(1, 12), max_size=6)):  # bands of one thread
        left = rows
        while left:
            # Of threads that had begun a trial before the lead was sure.
            votes = data.draw(st.sampled_from([0, 0, 1, -1, sure, -sure]))
            count = unit.check_next(data.draw(st.integers(0, 2)), votes, left)
            assert 1 <= count <= min(2, left)
            left -= count
        assert unit.check_next(0, 0, 0) == 0
