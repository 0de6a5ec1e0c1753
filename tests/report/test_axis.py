from __future__ import annotations

import numpy as np
import pytest

from fastdeconv.report.axis import ROWS_PER_OCTAVE, FrequencyAxis, time_step


def tone(axis, sr, n_fft, hz):
    """The rows that show a tone in one bin."""
    bins = np.zeros((n_fft // 2 + 1, 1), np.float32)
    bins[round(hz * n_fft / sr)] = 1
    return np.flatnonzero(axis.loudest(bins)[:, 0])


@pytest.mark.parametrize(("sr", "n_fft"), [(11025, 512), (22050, 2048), (44100, 4096), (8000, 64)])
def test_a_tone_lies_where_the_axis_says(sr, n_fft):
    axis = FrequencyAxis(sr, n_fft)
    for hz in np.geomspace(2 * axis.low, 0.9 * axis.high, 9):
        exact = round(hz * n_fft / sr) * sr / n_fft
        rows = tone(axis, sr, n_fft, exact)
        assert rows.min() - 1 <= axis.position(exact) * axis.rows <= rows.max() + 2


@pytest.mark.parametrize(("sr", "n_fft"), [(11025, 512), (22050, 2048), (48000, 1024), (8000, 64)])
def test_no_bin_above_the_lowest_is_left_out(sr, n_fft):
    axis = FrequencyAxis(sr, n_fft)
    width = sr / n_fft
    for b in range(int(np.ceil(axis.low / width)) + 1, n_fft // 2):
        assert tone(axis, sr, n_fft, b * width).size, b


def test_an_octave_has_as_many_rows_anywhere():
    axis = FrequencyAxis(22050, 2048)
    for hz in (50, 400, 3000):
        rows = (axis.position(2 * hz) - axis.position(hz)) * axis.rows
        assert rows == pytest.approx(ROWS_PER_OCTAVE, abs=0.1)


def test_ticks_are_round_frequencies_inside_the_picture():
    names = [name for _, name in FrequencyAxis(11025, 512).ticks()]
    assert names == ["50", "100", "200", "500", "1k", "2k", "5k"]


@pytest.mark.parametrize("n_fft", [2, 4, 16])
def test_the_smallest_transforms_have_an_axis(n_fft):
    axis = FrequencyAxis(8000, n_fft)
    values = np.ones((n_fft // 2 + 1, 3), np.float32)
    assert (axis.loudest(values) == 1).all() and axis.loudest(values).shape == (axis.rows, 3)


@pytest.mark.parametrize(("seconds", "step"), [(4, 1), (30, 5), (0.08, 0.02), (3.99, 0.5)])
def test_ticks_of_time_are_round_numbers(seconds, step):
    assert time_step(seconds) == pytest.approx(step)
