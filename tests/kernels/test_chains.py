"""Chains of native jobs: prepared one by one, run together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastdeconv.kernels.native")
from fastdeconv.kernels import native_shared
from fastdeconv.kernels.native_shared import Chain, Stage, run_chains


@pytest.fixture
def ran(monkeypatch):
    """Stages that would have run, a list a call."""
    calls: list[list[Stage]] = []
    monkeypatch.setattr(native_shared, "run_stages", lambda stages, *how: calls.append(stages))
    return calls


def chain(name: str, *bands: int) -> Chain:
    """Jobs with so many bands, called NAME and their number."""
    made = Chain()
    for number, count in enumerate(bands):
        made.add(f"{name}{number}", range(count + 1), 1)
    return made


def jobs(stages: list[Stage]) -> list[str]:
    return [stage.job for stage in stages]


def test_a_job_waits_for_all_bands_before_it(ran):
    chain("a", 2, 3, 1).run()
    assert [stage.needs.tolist() for stage in ran[0]] == [[0, 0], [2, 2, 2], [5]]


def test_what_ran_does_not_run_again(ran):
    made = chain("a", 1)
    made.run()
    made.run()
    made.add("b", [0, 1], 1)
    made.run()
    assert [jobs(stages) for stages in ran] == [["a0"], ["b"]]
    assert ran[1][0].needs.tolist() == [0]


def test_what_follows_is_called_after_the_jobs_or_at_once_if_there_are_none(ran):
    called = []
    made = Chain()
    made.then(lambda: called.append("at once"))
    assert called == ["at once"]
    made.add("a", [0, 1], 1)
    made.then(lambda: called.append(len(ran)))
    assert called == ["at once"]
    made.run()
    assert called == ["at once", 1]


@given(st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=1, max_size=4))
def test_together_every_job_waits_for_its_own_chain_and_for_nothing_later(bands):
    chains = [chain("abcd"[i], *counts) for i, counts in enumerate(bands)]
    found: list[Stage] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_shared, "run_stages", lambda stages, *how: found.extend(stages))
        run_chains(chains)
    in_turn = [
        f"{'abcd'[i]}{turn}"
        for turn in range(4) for i, counts in enumerate(bands) if turn < len(counts)
    ]
    assert jobs(found) == in_turn
    ends = dict(zip(jobs(found), itertools.accumulate(len(s.edges) - 1 for s in found)))
    for stage in found:
        assert stage.needs is not None
        own, number = stage.job[0], int(stage.job[1])
        before = ends[f"{own}{number - 1}"] if number else 0
        assert stage.needs.tolist() == [before] * (len(stage.edges) - 1)


def test_a_part_of_the_job_before_is_waited_for_where_that_is_enough(ran):
    made = [chain("a", 2, 3), chain("b", 1)]
    made[0].add_after("seams", np.arange(3, dtype=np.int32), np.array([2, 3]))
    run_chains(made)
    assert jobs(ran[0]) == ["a0", "b0", "a1", "seams"]
    assert ran[0][3].needs.tolist() == [2 + 1 + 2, 2 + 1 + 3]


def test_together_as_many_threads_work_as_the_chains_have_bands_at_a_time(monkeypatch):
    found = []
    monkeypatch.setattr(native_shared, "run_stages", lambda stages, *how: found.append(how))
    run_chains([chain("a", 3), chain("b", 2, 4), Chain()])
    assert found == [(1, 3 + 4)]
