"""Clips of arrays: frames policy, rates, channels, dtypes, refusals, inverse."""

from __future__ import annotations

import warnings

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdeconv import AudioError, Clip, Frontend, ParameterError, auralise, load_clip

PAPER = Frontend(sr=11025, n_fft=512, hop_length=256, frames=173)
ANY_LENGTH = Frontend(sr=11025, n_fft=512, hop_length=256)


def noise(n, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


@pytest.mark.parametrize(
    ("n", "kept"),
    [(44100, 44100), (44032, 44032), (44287, 44287), (44288, 44032), (90000, 44032)],
)
def test_a_clip_of_the_right_number_of_frames_is_kept_whole_and_a_longer_one_cut(n, kept):
    clip = Clip(noise(n), 11025, PAPER)
    np.testing.assert_array_equal(clip.samples, noise(n)[:kept])
    assert clip.x.shape == (1, 257, 173)
    assert clip.duration == kept / 11025


@pytest.mark.parametrize("n", [2, 1000, 44031])
def test_a_short_clip_is_padded_with_silence_and_keeps_its_phase(n):
    clip = Clip(noise(n), 11025, PAPER)
    np.testing.assert_array_equal(clip.samples[:n], noise(n))
    assert clip.samples.size == 44032
    assert not clip.samples[n:].any()
    expected = librosa.stft(clip.samples, n_fft=512, hop_length=256)
    np.testing.assert_allclose(clip.stft, expected, rtol=0, atol=1e-6)
    assert np.abs(clip.stft.imag).max() > 0.01


# librosa warns of clips shorter than n_fft.
@pytest.mark.filterwarnings("ignore:n_fft=.* is too large:UserWarning")
@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(2, 3000),
    n_fft=st.integers(4, 200),
    hop=st.integers(1, 100),
    frames=st.integers(3, 40),
    center=st.booleans(),
)
def test_frames_always_holds_and_frames_are_the_first_ones_of_the_sound(
    n, n_fft, hop, frames, center
):
    fe = Frontend(sr=8000, n_fft=n_fft, hop_length=hop, frames=frames, center=center)
    clip = Clip(noise(n), 8000, fe)
    assert clip.stft.shape == (1 + n_fft // 2, frames)
    assert fe.num_frames(clip.samples.size) == frames
    whole = noise(n) if n > clip.samples.size else clip.samples
    expected = librosa.stft(whole, n_fft=n_fft, hop_length=hop, center=center)[:, :frames]
    np.testing.assert_allclose(clip.stft, expected, rtol=0, atol=1e-5)
    assert auralise(clip, clip.x[np.newaxis]).shape == (1, clip.samples.size)


def test_a_cut_clip_sounds_like_its_samples_when_nothing_is_masked():
    clip = Clip(noise(90000), 11025, PAPER)
    sound = auralise(clip, np.ones((1, *clip.x.shape)))[0]
    np.testing.assert_allclose(sound, clip.samples, rtol=0, atol=1e-6)


def test_a_cut_clip_does_not_end_in_a_click():
    clip = Clip(noise(90000), 11025, PAPER)
    maps = np.random.default_rng(1).standard_normal((4, *clip.x.shape))
    sounds = np.abs(auralise(clip, maps))
    assert sounds[:, -256:].max() < 2 * sounds[:, :-256].max()


def test_arrays_are_read_only_and_do_not_alias_the_input():
    samples = noise(44100)
    clip = Clip(samples, 11025, PAPER)
    for array in (clip.samples, clip.stft, clip.x):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    samples[:] = 0
    assert clip.samples.any()
    assert (clip.samples.dtype, clip.stft.dtype) == (np.float32, np.complex64)
    assert clip.sr == 11025
    assert clip.frontend is PAPER
    assert repr(clip) == "<Clip: 4.000 s, 44100 samples at 11025 Hz, stft 257 x 173>"


@pytest.mark.parametrize("sr", [8000, 11024, 16000, 22050, 44100, 48000, 44100.5])
def test_other_rates_are_resampled_as_by_librosa(sr):
    samples = noise(int(sr) * 2)
    clip = Clip(samples, sr, ANY_LENGTH)
    expected = librosa.resample(samples, orig_sr=sr, target_sr=11025)
    np.testing.assert_array_equal(clip.samples, expected)


@pytest.mark.parametrize("sr", [8000, 11025, 22050, 48000])
def test_only_the_needed_part_is_resampled_and_its_end_is_right(sr):
    samples = noise(sr * 8)
    whole = Clip(samples, sr, ANY_LENGTH)
    clip = Clip(samples, sr, PAPER)
    np.testing.assert_allclose(clip.samples, whole.samples[:44032], rtol=0, atol=1e-6)


def test_channels_are_averaged_as_by_librosa():
    for channels in (1, 2, 6):
        samples = np.stack([noise(4000, seed) for seed in range(channels)])
        np.testing.assert_array_equal(
            Clip(samples, 11025, ANY_LENGTH).samples, librosa.to_mono(samples)
        )


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.int16, [-32768, 0, 16384], [-1, 0, 0.5]),
        (np.int32, [-(2**31), 0, 2**30], [-1, 0, 0.5]),
        (np.int8, [-128, 0, 64], [-1, 0, 0.5]),
        (np.uint8, [0, 128, 192], [-1, 0, 0.5]),
        (np.float16, [-1, 0, 2.5], [-1, 0, 2.5]),
        (np.float64, [-1, 0, 2.5], [-1, 0, 2.5]),
        (">f4", [-1, 0, 2.5], [-1, 0, 2.5]),
        (">i2", [-32768, 0, 16384], [-1, 0, 0.5]),
    ],
)
def test_integers_are_scaled_and_floats_kept(dtype, values, expected):
    clip = Clip(np.array(values, dtype), 11025, ANY_LENGTH)
    np.testing.assert_array_equal(clip.samples, np.array(expected, np.float32))


def with_value(value, at, n=2000):
    samples = noise(n)
    samples[at] = value
    return samples


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "samples are empty"),
        (np.zeros((2, 0)), r"samples must be \(n,\) or \(channels, n\), found shape \(2, 0\)"),
        (np.zeros((0, 5)), "samples are empty"),
        ([0.5], "at least 2 samples are needed, found 1"),
        (0.5, r"samples must be \(n,\) or \(channels, n\), found shape \(\)"),
        (np.zeros((1, 2, 300)), r"found shape \(1, 2, 300\)"),
        (np.zeros((300, 2)), r"samples must be \(n,\) or \(channels, n\), found shape \(300, 2\)"),
        (np.zeros(300, complex), "found dtype complex128"),
        (np.zeros(300, object), "found dtype object"),
        (np.zeros(300, bool), "found dtype bool"),
        (np.zeros(300, np.int64), "samples must be floats or int8, uint8, .* found dtype int64"),
        (["a", "b"], "found dtype <U1"),
        ([[1.0, 2.0], [1.0]], "samples cannot be read as an array"),
        (None, "found shape"),
        (with_value(np.nan, 1102), r"samples: sample 1102 \(at 0.100 s\) is nan"),
        (with_value(-np.inf, 7), r"samples: sample 7 \(at 0.001 s\) is -inf"),
        (np.full(300, 1e300), r"samples: sample 0 .* is inf"),
        (np.stack([with_value(np.inf, 9), with_value(-np.inf, 9)]), r"sample 9 .* is nan"),
    ],
)
def test_arrays_that_are_not_audio_are_refused(samples, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AudioError, match=message):
            Clip(samples, 11025, ANY_LENGTH)


@pytest.mark.parametrize("sr", [0, -1, float("nan"), float("inf"), "11025", None])
def test_bad_rates_are_refused(sr):
    with pytest.raises(ParameterError, match="sr must be a finite number above 0"):
        Clip(noise(300), sr, ANY_LENGTH)


def test_absurd_rates_are_refused_before_anything_is_allocated():
    message = "sound at 1 Hz cannot be resampled to 11025 Hz: the limits are 256 times"
    with pytest.raises(AudioError, match=message):
        Clip(noise(300), 1, ANY_LENGTH)
    for frames in (None, 100):
        frontend = Frontend(sr=1e-5, frames=frames)
        for sr in (1.0, 1e10, 1e308):
            with pytest.raises(AudioError, match="times the rate and a 65536th of it"):
                Clip(noise(300), sr, frontend)
    with pytest.raises(AudioError, match="2 samples at 48000 Hz are 1 at 11025 Hz"):
        Clip(noise(2), 48000, ANY_LENGTH)


def test_less_than_a_frame_without_center_is_refused():
    fe = Frontend(sr=8000, n_fft=256, center=False)
    with pytest.raises(AudioError, match="255 samples are less than one frame of 256"):
        Clip(noise(255), 8000, fe)
    assert Clip(noise(256), 8000, fe).stft.shape == (129, 1)


def test_silence_stays_exact_zeros_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip = Clip(np.zeros(96000, np.int16), 48000, PAPER)
    assert not clip.samples.any()
    assert not clip.stft.any()
    assert not clip.x.any()


@pytest.mark.parametrize("center", [True, False])
def test_from_stft_gives_the_sound_back(center):
    fe = Frontend(sr=8000, n_fft=256, hop_length=64, center=center, window="hamming")
    clip = Clip(noise(64 * 40), 8000, fe)
    again = Clip.from_stft(clip.stft, fe)
    np.testing.assert_array_equal(again.stft, clip.stft)
    np.testing.assert_array_equal(again.x, clip.x)
    # Without centring hardly a window reaches the first and the last samples.
    inside = slice(None) if center else slice(64, -64)
    np.testing.assert_allclose(again.samples[inside], clip.samples[inside], atol=1e-6)
    assert not again.samples.flags.writeable


def test_from_stft_keeps_an_stft_that_no_sound_has():
    stft = np.random.default_rng(0).standard_normal((257, 173, 2)) @ [1, 1j]
    clip = Clip.from_stft(stft, PAPER)
    np.testing.assert_array_equal(clip.stft, stft.astype(np.complex64))
    expected = librosa.istft(clip.stft, n_fft=512, hop_length=256)
    np.testing.assert_allclose(clip.samples, expected, atol=1e-6)
    assert clip.samples.size == 44032


@pytest.mark.parametrize(
    ("stft", "message"),
    [
        (np.zeros((256, 173), complex), r"must be \(257, 173\), found \(256, 173\)"),
        (np.zeros((257, 172), complex), r"must be \(257, 173\), found \(257, 172\)"),
        (np.zeros((1, 257, 173), complex), r"found \(1, 257, 173\)"),
        (np.zeros((257, 173), int), "the STFT must be complex, found dtype int64"),
        (np.full((257, 173), np.nan + 0j), "not finite in float32 at bin 0, frame 0"),
        (np.full((257, 173), 1e300 + 0j), "not finite in float32"),
        (np.full((257, 173), 3e38 + 3e38j), "sound of the STFT|overflows"),
    ],
)
def test_bad_stfts_are_refused(stft, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AudioError, match=message):
            Clip.from_stft(stft, PAPER)


def test_an_stft_of_one_centred_frame_has_no_sound():
    with pytest.raises(AudioError, match="1 frames of STFT are too few"):
        Clip.from_stft(np.zeros((257, 1), complex), ANY_LENGTH)


def test_load_clip_takes_arrays_and_cuts_at_the_offset():
    samples = noise(90000)
    clip = load_clip((samples, 11025), PAPER, offset=1.5)
    np.testing.assert_array_equal(clip.samples, samples[int(1.5 * 11025) :][:44032])
    clip = load_clip((samples.tolist(), 11025), ANY_LENGTH)
    np.testing.assert_array_equal(clip.samples, samples)


@pytest.mark.parametrize(
    ("source", "offset", "error", "message"),
    [
        ((noise(11025), 11025), 1.0, AudioError, "offset 1 s is beyond the end, at 1.000 s"),
        ((noise(11025), 11025), 1e308, AudioError, "is beyond the end"),
        ((noise(11025), 11025), 1 - 0.5 / 11025, AudioError, "at least 2 samples are needed"),
        ((noise(11025), 11025), -1, ParameterError, "offset must not be negative, found -1"),
        ((noise(11025), 11025), float("nan"), ParameterError, "offset must be a finite number"),
        ((noise(11025), 11025), None, ParameterError, "offset must be a finite number"),
        ((noise(11025), 0), 0, ParameterError, "sr must be a finite number above 0"),
        ((noise(11025), 11025, 1), 0, ParameterError, r"must be \(samples, sr\), found 3 items"),
        (noise(11025), 0, ParameterError, "a path, a binary file object or .* found ndarray"),
        (None, 0, ParameterError, "found NoneType"),
        (5, 0, ParameterError, "found int"),
        ((with_value(np.nan, 1500), 1000), 1.0, AudioError, r"sample 1500 \(at 1.500 s\) is nan"),
    ],
)
def test_bad_sources_and_offsets_are_refused(source, offset, error, message):
    with pytest.raises(error, match=message):
        load_clip(source, ANY_LENGTH, offset=offset)


@pytest.mark.parametrize("frontend", [
    Frontend(sr=8000, n_fft=256, hop_length=64, frames=50),
    Frontend(sr=8000, n_fft=256, hop_length=64, kind="mel", n_mels=12, layout="CTF"),
    Frontend(sr=8000, n_fft=256, hop_length=64, kind="waveform"),
], ids=["stft", "mel", "waveform"])
def test_a_part_of_a_clip_is_taken_as_it_is(frontend):
    samples = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    clip = Clip(samples, 8000, frontend)
    part = clip.part(10, 30)
    np.testing.assert_array_equal(part.stft, clip.stft[:, 10:30])
    np.testing.assert_array_equal(part.seen, clip.seen[:, 10:30])
    np.testing.assert_array_equal(part.samples, clip.samples[640:1920])
    assert part.start == 640 / 8000 and part.is_cut


def test_a_clip_knows_the_silence_behind_its_sound():
    frontend = Frontend(sr=8000, n_fft=256, hop_length=64, frames=50)
    assert Clip(np.ones(4000), 8000, frontend).padding == 0
    clip = Clip(np.ones(2000), 8000, frontend)
    silence = clip.samples.size - 2000
    assert clip.padding == silence / 8000 and not clip.samples[2000:].any()
    for begin, end, padding, is_cut in [
        (0, 20, 0, True), (20, 35, 35 * 64 - 2000, False), (40, 45, 5 * 64, False),
    ]:
        part = clip.part(begin, end)
        assert (part.padding, part.is_cut) == (padding / 8000, is_cut)


@pytest.mark.parametrize("frames", [(-1, 5), (5, 5), (0, 1000)])
def test_frames_that_are_not_there_are_no_part(frames):
    frontend = Frontend(sr=8000, n_fft=256, hop_length=64)
    with pytest.raises(ParameterError, match="a part must lie within frames 0 to"):
        Clip(np.zeros(4000, np.float32), 8000, frontend).part(*frames)
