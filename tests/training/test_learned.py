"""The figures that say whether a network learned, on answers that are known."""

from __future__ import annotations

import numpy as np
import pytest

from training.learned import (
    best_onset_feature,
    interval,
    onset_correlation,
    orientation_shares,
    selectivity,
    spectral_flux,
)

VERTICAL = np.array([[-1, 0, 1]] * 3, np.float32)


@pytest.mark.parametrize(
    ("kernel", "shares"),
    [
        (np.ones((3, 3)), [1, 0, 0, 0]),
        (VERTICAL, [0, 1, 0, 0]),
        (VERTICAL.T, [0, 0, 1, 0]),
        (np.outer([-1, 0, 1], [-1, 0, 1]), [0, 0, 0, 1]),
    ],
)
def test_a_filter_of_one_direction_has_all_its_energy_there(kernel, shares):
    np.testing.assert_allclose(orientation_shares(kernel[None, None]), shares, atol=1e-12)


def test_shares_of_random_filters_are_as_the_numbers_of_functions():
    weight = np.random.default_rng(0).standard_normal((500, 4, 3, 3))
    np.testing.assert_allclose(orientation_shares(weight), np.array([1, 2, 2, 4]) / 9, atol=0.01)


def test_shares_do_not_depend_on_the_scale_of_a_filter():
    weight = np.random.default_rng(0).standard_normal((3, 2, 3, 3))
    scaled = weight * np.array([1, 10, 100])[:, None, None, None]
    np.testing.assert_allclose(orientation_shares(scaled), orientation_shares(weight))


def test_selectivity_is_nought_for_all_bins_and_near_one_for_a_single_one():
    everywhere, single, silent = np.ones((10, 4)), np.zeros((10, 4)), np.zeros((10, 4))
    single[3] = 2
    found = selectivity(np.stack([everywhere, single, silent]))
    np.testing.assert_allclose(found[:2], [0, 0.9])
    assert np.isnan(found[2])


def test_flux_is_the_sum_of_rises():
    x = np.array([[0, 1, 1, 0], [2, 2, 5, 5]], np.float32)
    assert spectral_flux(x).tolist() == [0, 1, 3, 0]


def test_a_map_that_follows_the_flux_correlates_whatever_its_sign():
    flux = np.array([0, 5, 0, 0, 3, 0], float)
    maps = np.stack([np.outer([1, 2], flux), -np.outer([1, 2], flux), np.ones((2, 6))])
    np.testing.assert_allclose(onset_correlation(maps, flux), [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(onset_correlation(np.outer([1], 9 - flux)[None], flux), [-1])


def test_the_best_feature_is_chosen_on_other_clips_than_it_is_measured_on():
    chosen_on, measured_on = np.array([[0.1, 0.9], [0.3, 0.7]]), np.array([[0.8, 0.2]])
    feature, values = best_onset_feature(chosen_on, measured_on)
    assert feature == 1 and values.tolist() == [0.2]


def test_the_interval_holds_the_mean_and_narrows_with_more_values():
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=20), rng.normal(size=2000)
    assert interval(few)[0] < few.mean() < interval(few)[1]
    assert np.diff(interval(many)) < np.diff(interval(few)) / 5
