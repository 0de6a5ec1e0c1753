"""A sound of any length, and its windows."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.audio.clip import load_clip
from fastdeconv.audio.song import load_song
from fastdeconv.audio.windows import windows

SR = 8000
FRONTEND = fd.Frontend(sr=SR, n_fft=256, hop_length=64, frames=20)


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).uniform(-0.5, 0.5, count).astype(np.float32)


@given(st.integers(2, 12_000), st.integers(1, 25), st.booleans())
@settings(max_examples=60, deadline=None)
def test_windows_reach_the_end_a_hop_apart(count: int, hop: int, center: bool) -> None:
    frontend = fd.Frontend(sr=SR, n_fft=256, hop_length=64, frames=20, center=center)
    song = load_song((noise(count), SR), frontend)
    starts = song.starts(hop)
    assert starts == [i * hop * 64 for i in range(len(starts))]
    last = song.window(starts[-1])
    assert not last.is_cut
    assert all(song.window(start).is_cut for start in starts[:-1])
    # No window more than it takes: without the last one the end would not be reached.
    if len(starts) > 1:
        assert starts[-2] + last.samples.size < count


def test_a_window_is_the_clip_that_is_loaded_from_there() -> None:
    samples = noise(10_000)
    song = load_song((samples, SR), FRONTEND)
    starts = song.starts()
    assert len(starts) == 15
    for start, clip in zip(starts, song.windows(), strict=True):
        alone = load_clip((samples, SR), FRONTEND, offset=start / SR)
        np.testing.assert_array_equal(clip.x, alone.x)
        np.testing.assert_array_equal(clip.samples, alone.samples)
        assert (clip.start, clip.is_cut) == (alone.start, alone.is_cut)


def test_a_waveform_goes_by_samples() -> None:
    frontend = fd.Frontend(kind="waveform", sr=SR, frames=1024)
    song = load_song((noise(3000), SR), frontend)
    assert song.starts() == [0, 512, 1024, 1536, 2048]
    assert song.starts(1024) == [0, 1024, 2048]


def test_without_frames_the_song_is_one_window() -> None:
    frontend = fd.Frontend(sr=SR, n_fft=256, hop_length=64)
    song = load_song((noise(5000), SR), frontend)
    assert [clip.samples.size for clip in song.windows()] == [5000]


def test_a_file_is_read_from_an_offset_for_a_duration() -> None:
    samples = noise(3 * SR)
    file = io.BytesIO()
    soundfile.write(file, samples, SR, format="WAV", subtype="FLOAT")
    song = load_song(file, FRONTEND, offset=0.5, duration=1.0)
    np.testing.assert_array_equal(song.samples, samples[SR // 2 : SR // 2 + SR])
    assert (song.start, song.duration, song.is_cut) == (0.5, 1.0, True)
    starts = [clip.start for clip in song.windows(20)]
    assert starts == pytest.approx([0.5, 0.66, 0.82, 0.98, 1.14, 1.3, 1.46])
    rest = load_song(file, FRONTEND, offset=0.5)
    assert (rest.samples.size, rest.is_cut) == (5 * SR // 2, False)


def test_a_song_is_brought_to_the_rate_of_the_front_end() -> None:
    song = load_song((noise(2 * SR), 2 * SR), FRONTEND, duration=0.25)
    assert (song.samples.size, song.sr, song.is_cut) == (SR // 4, SR, True)


@pytest.mark.parametrize("key, value", [("offset", -1), ("duration", 0), ("duration", np.nan)])
def test_impossible_times_are_refused(key: str, value: float) -> None:
    with pytest.raises(fd.ParameterError, match=key):
        load_song((noise(100), SR), FRONTEND, **{key: value})


@pytest.mark.parametrize("duration", [1e9, 1e300, 1.7e308])
def test_a_duration_may_be_longer_than_the_song(duration: float) -> None:
    song = load_song((noise(1000), 2 * SR), FRONTEND, duration=duration)
    assert (song.samples.size, song.is_cut) == (500, False)


def test_frames_longer_than_a_window_give_one_frame_a_window() -> None:
    frontend = fd.Frontend(sr=1000, n_fft=16384, center=False)
    assert len(windows(load_song((noise(20_000), 1000), frontend))) == 1


def test_an_error_names_the_file(tmp_path) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, noise(1), SR)
    with pytest.raises(fd.AudioError, match=r"short\.wav"):
        load_song(path, FRONTEND)
