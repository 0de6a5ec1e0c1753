"""What the page of an atlas says of a feature, from numbers alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdeconv.report.atlas_content import histogram_of, twins_of
from fastdeconv.report.atlas_tables import Companion, FeatureRow, Tables
from fastdeconv.report.numbers import length_text

pytest.importorskip("pyarrow")
from fastdeconv.survey.schema import EDGES


def row_of(maxima):
    counts = np.bincount(
        np.searchsorted(EDGES, maxima, side="right"), minlength=EDGES.size + 1
    )
    numbers = [0.0] * 6
    return FeatureRow("pool1", 0, len(maxima), *numbers, 0.0, False, counts)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200))
def test_every_window_is_in_one_bar_or_among_the_silent(maxima):
    found = histogram_of(EDGES, row_of(maxima))
    fires = sum(value >= 2.0**-16 for value in maxima)
    assert sum(found["counts"]) == fires and found["silent"] == len(maxima) - fires
    assert len(found["counts"]) <= 40
    if fires:
        edges = found["edges"]
        assert len(edges) == len(found["counts"]) + 1
        firing = [value for value in maxima if value >= 2.0**-16]
        assert edges[0] <= min(firing) * 1.001
        assert max(firing) <= max(edges[-1] * 1.001, EDGES[-1]) or edges[-1] == EDGES[-1]


def test_a_feature_without_windows_has_no_histogram():
    assert histogram_of(EDGES, row_of([])) is None


def tables_of(pairs):
    """Tables of five features of a layer and one of another, and who fires with whom."""
    keys = [("a", k) for k in range(5)] + [("b", 0)]
    together = {}
    for one, other, r in pairs:
        together.setdefault(keys[one], []).append(Companion(*keys[other], r))
    fields = {field.name: None for field in dataclasses.fields(Tables)}
    return Tables(**fields | {"features": dict.fromkeys(keys), "together": together})


def test_twins_of_twins_are_twins_of_the_first():
    found = twins_of(tables_of([(3, 1, 0.995), (1, 4, 0.999), (0, 2, 0.9)]))
    assert found == {("a", 3): ("a", 1), ("a", 4): ("a", 1)}


def test_features_of_different_layers_are_no_twins():
    assert twins_of(tables_of([(0, 5, 1.0)])) == {}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(0.9, 1)), max_size=12))
def test_whoever_stands_for_others_is_no_twin(pairs):
    found = twins_of(tables_of([(a, b, r) for a, b, r in pairs if a != b]))
    assert not set(found.values()) & set(found)
    assert all(head[1] < key[1] for key, head in found.items())


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0.0 minutes"), (48, "0.8 minutes"), (3599, "60.0 minutes"), (3600, "1.0 hours"),
    (9_000_000, "2,500.0 hours"),
])
def test_the_length_of_a_collection_is_never_rounded_to_no_hours(seconds, text):
    assert length_text(seconds) == text
