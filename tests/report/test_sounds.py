from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from fastdeconv import AudioError
from fastdeconv.report.ogg import set_serial
from fastdeconv.report.sounds import PEAK, encode, peak_gain, write_sound, write_stream


def read(path):
    samples, sr = soundfile.read(path, dtype="int16")
    return samples, sr


def test_a_16_bit_sound_comes_back_bit_for_bit(tmp_path):
    pcm = np.array([-32768, -1, 0, 1, 12345, 32767], dtype=np.int16)
    write_sound(tmp_path / "a.wav", (pcm / 32768).astype(np.float32), 11025)
    samples, sr = read(tmp_path / "a.wav")
    assert sr == 11025
    np.testing.assert_array_equal(samples, pcm)


def test_the_file_is_16_bit_mono_pcm(tmp_path):
    write_sound(tmp_path / "a.wav", np.zeros(7, np.float32), 8000)
    about = soundfile.info(tmp_path / "a.wav")
    assert (about.format, about.subtype, about.channels) == ("WAV", "PCM_16", 1)
    assert about.frames == 7


@pytest.mark.parametrize("scale", [1e-45, 1e-20, 1e-3, 1.0, 1e6, 1e38])
def test_the_gain_brings_any_peak_to_minus_one_decibel(tmp_path, scale):
    samples = (np.array([0.0, 1.0, -0.5]) * scale).astype(np.float32)
    write_sound(tmp_path / "a.wav", samples, 8000, peak_gain(float(samples.max())))
    assert read(tmp_path / "a.wav")[0].max() == round(PEAK * 32768)


def test_silence_has_gain_one_and_stays_exact_zeros(tmp_path):
    assert peak_gain(0.0) == 1.0
    write_sound(tmp_path / "a.wav", np.zeros(100, np.float32), 8000, peak_gain(0.0))
    assert not read(tmp_path / "a.wav")[0].any()


def test_values_beyond_full_scale_are_clipped_not_wrapped(tmp_path):
    write_sound(tmp_path / "a.wav", np.array([2.0, -2.0], np.float32), 8000)
    np.testing.assert_array_equal(read(tmp_path / "a.wav")[0], [32767, -32768])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sound_that_is_not_finite_is_refused_and_writes_nothing(tmp_path, bad):
    with pytest.raises(AudioError, match=r"a\.wav"):
        write_sound(tmp_path / "a.wav", np.array([0.0, bad], np.float32), 8000)
    assert not (tmp_path / "a.wav").exists()


def test_an_empty_sound_gives_a_valid_file(tmp_path):
    write_sound(tmp_path / "a.wav", np.zeros(0, np.float32), 8000)
    assert soundfile.info(tmp_path / "a.wav").frames == 0


def test_a_rate_beyond_vorbis_is_refused(tmp_path):
    silence = np.zeros(4000, np.float32)
    write_sound(tmp_path / "sound.ogg", silence, 200_000)
    with pytest.raises(AudioError, match=r"sound\.ogg: ogg at 400000 Hz"):
        write_sound(tmp_path / "sound.ogg", silence, 400_000)


@pytest.mark.parametrize("audio_format", ["wav", "flac", "ogg"])
def test_the_same_sound_gives_the_same_bytes_at_once_and_in_blocks(tmp_path, audio_format):
    sound = (0.1 * np.random.default_rng(0).standard_normal(150_000)).astype(np.float32)
    for name in ("one", "two"):
        blocks = np.split(sound, [7, 100_000] if name == "one" else [60_000])
        write_stream(tmp_path / f"{name}.{audio_format}", blocks, 8000)
    whole = encode(sound, 8000, audio_format=audio_format)
    assert (tmp_path / f"one.{audio_format}").read_bytes() == whole
    assert (tmp_path / f"two.{audio_format}").read_bytes() == whole


def test_a_serial_number_changes_no_sample():
    whole = encode(0.1 * np.ones(40_000, np.float32), 8000, audio_format="ogg")
    other = io.BytesIO(whole)
    set_serial(other, 12345)
    assert other.getvalue() != whole
    found = soundfile.read(io.BytesIO(other.getvalue()))[0]
    np.testing.assert_array_equal(found, soundfile.read(io.BytesIO(whole))[0])
    set_serial(other, 1)
    assert other.getvalue() == whole
