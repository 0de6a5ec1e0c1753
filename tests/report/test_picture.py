from __future__ import annotations

import numpy as np
from PIL import Image

from fastdeconv.report.colours import MAGMA
from fastdeconv.report.picture import RANGE_DB, levels, write_png


def test_levels_are_decibels_below_the_reference():
    below = np.array([[0, RANGE_DB / 2, RANGE_DB, 2 * RANGE_DB]])
    magnitude = (3.0 * 10 ** (-below / 20)).astype(np.float32)
    np.testing.assert_array_equal(levels(magnitude, 3.0), [[255, 128, 0, 0]])


def test_zeros_are_darkest_without_a_warning():
    np.testing.assert_array_equal(levels(np.array([[0, 1]], np.float32), 1.0), [[0, 255]])


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
    write_png(tmp_path / "a.png", np.array([[0, 255]], np.uint8))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        dark, light = np.asarray(image.convert("RGB"))[0]
    assert dark.max() < 10 and light.min() > 180
    assert len(MAGMA) == 768
