from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdeconv.analysis.correlation import open_at_most
from fastdeconv.analysis.design import Design
from fastdeconv.errors import ParameterError


def rows(*values):
    return [dict(zip("abc", own)) for own in product(*values)]


def differing(one, other):
    return [name for name in one if one[name] != other[name]]


@given(st.sets(st.tuples(*[st.sampled_from("xyz")] * 3), min_size=2))
def test_groups_hold_exactly_the_pairs_that_differ_in_one_attribute_alone(values):
    stimuli = [dict(zip("abc", own)) for own in sorted(values)]
    wanted = {
        (attributes[0], i, j)
        for i, j in combinations(range(len(stimuli)), 2)
        if len(attributes := differing(stimuli[i], stimuli[j])) == 1
    }
    if not wanted:
        with pytest.raises(ParameterError, match="nothing to compare"):
            Design(stimuli)
        return
    design = Design(stimuli)
    assert wanted == {
        (group.attribute, *pair) for group in design.groups
        for pair in combinations(group.members, 2)
    }
    assert sorted(design.order) == list(range(len(stimuli)))


def test_few_groups_are_open_at_a_time():
    stimuli = rows("01", "0123", "01234567")
    design = Design(stimuli)
    # One of c, and those of a and b that go on.
    assert open_at_most(design.groups, design.order) <= 2 * 4 + 2 + 1


@pytest.mark.parametrize(
    ("stimuli", "message"),
    [
        ([], "there are no stimuli"),
        ([{"a": "1"}, {"b": "1"}], "stimulus 1 has the attributes 'b', stimulus 0 has 'a'"),
        ([{"a": "1"}, {"a": "2"}, {"a": "1"}], "stimuli 0 and 2 agree in every attribute"),
        ([{"a": "1", "b": "1"}, {"a": "2", "b": "2"}], "nothing to compare"),
        ([{}, {}], "agree in every attribute|nothing to compare"),
    ],
)
def test_what_cannot_be_compared_is_refused(stimuli, message):
    with pytest.raises(ParameterError, match=message):
        Design(stimuli)
