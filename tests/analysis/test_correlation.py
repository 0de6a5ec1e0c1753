from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from fastdeconv.analysis.correlation import PairSums
from fastdeconv.analysis.design import Group

GROUPS = [Group("a", (0, 1, 2)), Group("a", (3, 5)), Group("b", (0, 3, 4, 5)), Group("b", (1, 2))]


@pytest.fixture
def maps():
    """Six stimuli, three features of 500: all alike in part."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal((3, 500))
    return [(5 + common + rng.standard_normal((3, 500))).astype(np.float32) for _ in range(6)]


def collect(maps, order=range(6), num_threads=1):
    sums = PairSums(GROUPS, 3)
    for stimulus in order:
        sums.add(stimulus, maps[stimulus].copy(), num_threads)
    return sums


def test_sums_are_those_of_numpy_over_all_pairs(maps):
    found = collect(maps)
    for k in range(3):
        for g, group in enumerate(GROUPS):
            wanted = [
                np.corrcoef(maps[i][k], maps[j][k])[0, 1]
                for i, j in combinations(group.members, 2)
            ]
            assert found.pairs[k, g] == len(wanted)
            assert found.sums[k, g] == pytest.approx(sum(wanted), abs=1e-5)


def test_the_order_of_stimuli_does_not_matter(maps):
    np.testing.assert_allclose(
        collect(maps, [5, 1, 3, 0, 4, 2]).sums, collect(maps).sums, atol=1e-5
    )


def test_threads_do_not_change_a_bit(maps):
    np.testing.assert_array_equal(collect(maps, num_threads=4).sums, collect(maps).sums)


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_a_flat_map_is_in_no_pair(maps, value):
    maps[0][1] = value
    found = collect(maps)
    assert found.pairs[1].tolist() == [1, 1, 3, 1]
    assert found.pairs[0].tolist() == [3, 1, 6, 1]
    wanted = np.corrcoef(maps[1][1], maps[2][1])[0, 1]
    assert found.sums[1, 0] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("exponent", [-120, -70, 70, 120])
def test_maps_of_any_size_correlate_alike(maps, exponent):
    """Also where the squares of their values do not exist in float32."""
    wanted = collect(maps).sums
    scaled = [np.ldexp(own, exponent) for own in maps]
    np.testing.assert_array_equal(collect(scaled).sums, wanted)


def test_equal_maps_correlate_fully_and_opposite_ones_not_at_all(maps):
    maps[1], maps[2] = maps[0], 10 - 2 * maps[0]
    assert collect(maps).sums[0, 0] == pytest.approx(1 - 1 - 1, abs=1e-5)
