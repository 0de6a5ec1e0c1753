"""Calls after an interruption are timed right after it, each after one of its own."""

from __future__ import annotations

from bench import interruptions
from bench.interruptions import CALLS, LOOP


def test_an_interruption_comes_before_every_call(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    happened: list[str] = []
    work = interruptions._Work("work", lambda: happened.append("work"))
    other = interruptions._Interruption("other", lambda: happened.append("other"))

    times = interruptions._timed(work, [other], rounds=2)

    a_round = ["work"] * (1 + CALLS) + ["other", "work"] * (1 + CALLS)
    assert happened == 2 * a_round
    assert {name: len(seconds) for name, seconds in times.items()} == {LOOP: 2, "other": 2}
