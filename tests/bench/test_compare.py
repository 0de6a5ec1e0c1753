"""What `python -m bench --compare` times."""

from __future__ import annotations

from bench import compare


def test_the_short_form_times_all_it_names_and_the_long_one_more():
    short = [contender.name for contender in compare._contenders(compare.QUICK)]
    assert sorted(short) == sorted(compare.QUICK)
    long = [contender.name for contender in compare._contenders(None)]
    assert set(short) < set(long)
    assert {f"sweep: {name}" for name in compare.SHAPES} <= set(long)
