from __future__ import annotations

import numpy as np
from PIL import Image

from fastdeconv.report.colours import MAGMA
from fastdeconv.report.picture import (
    RANGE_DB,
    SHADES,
    SIGNED_STEPS,
    levels,
    shades,
    signed_levels,
    write_png,
)


def test_levels_are_decibels_below_the_reference():
    below = np.array([[0, RANGE_DB / 2, RANGE_DB, 2 * RANGE_DB]])
    magnitude = (3.0 * 10 ** (-below / 20)).astype(np.float32)
    np.testing.assert_array_equal(levels(magnitude, 3.0), [[SHADES - 1, 32, 0, 0]])


def test_zeros_are_darkest_without_a_warning():
    np.testing.assert_array_equal(levels(np.array([[0, 1]], np.float32), 1.0), [[0, SHADES - 1]])


def test_a_silent_picture_is_all_dark():
    assert not levels(np.zeros((3, 4), np.float32), 0.0).any()


def test_levels_leave_their_argument_alone():
    magnitude = np.ones((2, 2), np.float32)
    levels(magnitude, 2.0)
    assert (magnitude == 1).all()


def test_low_frequencies_are_at_the_bottom_and_time_runs_right(tmp_path):
    indices = np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)
    write_png(tmp_path / "a.png", indices)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (3, 2)
        np.testing.assert_array_equal(np.asarray(image), indices[::-1])


def test_the_palette_runs_from_black_to_light(tmp_path):
    write_png(tmp_path / "a.png", np.array([[0, SHADES - 1]], np.uint8))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        dark, light = np.asarray(image.convert("RGB"))[0]
    assert dark.max() < 10 and light.min() > 180
    assert len(MAGMA) == 768


def test_every_shade_of_a_map_is_half_of_the_next_and_signs_are_kept():
    halves = np.float32(0.9) * 0.5 ** np.arange(7, dtype=np.float32)
    values = np.stack([halves, -halves]).astype(np.float32)
    steps = [5, 5, 4, 3, 2, 1, 0]
    expected = [[SIGNED_STEPS + s for s in steps], [SIGNED_STEPS - s for s in steps]]
    # 0.9 is the largest: half of it and more is the outermost shade.
    np.testing.assert_array_equal(signed_levels(values), expected)


def test_a_map_of_zeros_has_the_colour_of_zero(tmp_path):
    indices = signed_levels(np.zeros((2, 3), np.float32))
    assert (indices == SIGNED_STEPS).all()
    write_png(tmp_path / "a.png", indices, signed=True)
    with Image.open(tmp_path / "a.png") as image:
        assert (np.asarray(image.convert("RGB")) == 255).all()


def test_negative_is_blue_and_positive_orange(tmp_path):
    write_png(tmp_path / "a.png", signed_levels(np.array([[-1, 1]], np.float32)), signed=True)
    with Image.open(tmp_path / "a.png") as image:
        (negative, positive), = np.asarray(image.convert("RGB")).astype(int)
    assert negative[2] - negative[0] > 80 and positive[0] - positive[2] > 80


def test_activations_run_from_their_smallest_to_their_largest_and_0_is_among_them():
    np.testing.assert_array_equal(
        shades(np.array([[-2, 0, 2]], np.float32)), [[0, 32, SHADES - 1]]
    )
    np.testing.assert_array_equal(shades(np.array([[7, 14]], np.float32)), [[32, SHADES - 1]])
    assert not shades(np.zeros((2, 2), np.float32)).any()
