"""Sound of maps against librosa.istft."""

from __future__ import annotations

import warnings

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdeconv import Clip, Frontend, ParameterError, auralise, config

WINDOWS = ["hann", "hamming", "blackman", "boxcar", ("kaiser", 8.6)]
FE = Frontend(sr=8000, n_fft=256, hop_length=128)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def istft(spectra, clip):
    fe = clip.frontend
    return librosa.istft(
        spectra.astype(np.complex64),
        n_fft=fe.n_fft,
        hop_length=fe.hop_length,
        win_length=fe.win_length,
        window=fe.window,
        center=fe.center,
        length=clip.samples.size,
    )


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(400, 3000),
    n_fft=st.integers(4, 400),
    hop=st.integers(1, 450),
    window=st.sampled_from(WINDOWS),
    center=st.booleans(),
    mode=st.sampled_from(["mask", "phase"]),
    data=st.data(),
)
def test_auralise_is_librosa_istft(n, n_fft, hop, window, center, mode, data):
    win_length = data.draw(st.integers(max(2, n_fft // 2), n_fft))
    fe = Frontend(
        sr=8000, n_fft=n_fft, hop_length=hop, win_length=win_length, window=window, center=center
    )
    clip = Clip(normal(n), 8000, fe)
    maps = normal(2, 1, *clip.stft.shape, seed=1)
    if mode == "mask":
        expected = istft(clip.stft * maps[:, 0], clip)
    else:
        phase = np.exp(1j * np.angle(clip.stft.astype(np.complex128)))
        expected = istft(np.maximum(maps[:, 0], 0) * phase, clip)
    sounds = auralise(clip, maps, mode=mode)
    assert sounds.dtype == np.float32
    assert sounds.shape == (2, n)
    covered = window_sum(clip) >= 0.081 * fe.transform.window_values.max() ** 2
    peak = np.abs(expected[:, covered]).max(initial=0)
    error = np.abs(sounds - expected)[:, covered].max(initial=0)
    assert error <= 1e-6 * peak


def window_sum(clip):
    """What librosa divides by at each sample of the clip, one frame after the other."""
    fe = clip.frontend
    squares = fe.transform.window_values ** 2
    start = fe.n_fft // 2 if fe.center else 0
    total = np.zeros(start + max(clip.samples.size, clip.stft.shape[1] * fe.hop_length) + fe.n_fft)
    for t in range(clip.stft.shape[1]):
        total[t * fe.hop_length : t * fe.hop_length + fe.n_fft] += squares
    return total[start : start + clip.samples.size]


@pytest.mark.parametrize("center", [True, False])
def test_a_map_of_ones_gives_the_clip_back_but_for_its_ends(center):
    fe = Frontend(sr=8000, n_fft=256, hop_length=64, center=center, window="hamming")
    clip = Clip(normal(64 * 30), 8000, fe)
    sound = auralise(clip, np.ones((1, *clip.x.shape), np.float32))[0]
    inside = slice(None) if center else slice(64, -64)
    np.testing.assert_allclose(sound[inside], clip.samples[inside], rtol=0, atol=1e-5)
    assert (np.abs(sound) <= np.abs(clip.samples) + 1e-5).all()


@pytest.mark.parametrize("mode", ["mask", "phase"])
@pytest.mark.parametrize(
    ("n_fft", "hop", "win_length", "window"),
    [(512, 256, 512, "hann"), (400, 160, 400, "hann"), (256, 256, 256, "hann"),
     (256, 300, 256, "hamming"), (400, 100, 301, "blackman"), (256, 128, 256, ("kaiser", 14.0)),
     (255, 60, 255, "hann"), (256, 128, 256, "boxcar")],
)
@pytest.mark.parametrize("center", [True, False])
def test_ends_are_no_louder_than_frames_there_can_carry(n_fft, hop, win_length, window, center,
                                                        mode):
    fe = Frontend(sr=8000, n_fft=n_fft, hop_length=hop, win_length=win_length, window=window,
                  center=center)
    for extra in {0, 1, hop // 3, hop // 2, hop - 2, hop - 1}:
        n = 24 * hop + n_fft + extra
        clip = Clip(np.sin(np.arange(n) * 0.3) + 0.1 * normal(n), 8000, fe)
        for maps in (np.maximum(normal(4, *clip.x.shape), 0), normal(4, *clip.x.shape)):
            sounds = np.abs(auralise(clip, maps, mode=mode))
            inside = sounds[:, n_fft:-n_fft].max()
            assert sounds.max() <= 4 * inside


def test_the_middle_of_a_frame_is_used_as_it_is_whatever_the_window():
    """Between the middles of the outer frames a narrow window with a wide hop is divided by."""
    fe = Frontend(sr=8000, n_fft=256, hop_length=128, window=("kaiser", 14.0))
    clip = Clip(normal(128 * 30), 8000, fe)
    sound = auralise(clip, np.ones((1, *clip.x.shape), np.float32))[0]
    np.testing.assert_allclose(sound, clip.samples, rtol=0, atol=1e-4)


def test_negative_maps_flip_a_mask_and_silence_a_phase():
    clip = Clip(normal(2000), 8000, FE)
    ones = np.ones((1, *clip.x.shape), np.float32)
    np.testing.assert_array_equal(auralise(clip, -ones), -auralise(clip, ones))
    assert not auralise(clip, -ones, mode="phase").any()


def test_phase_is_zero_where_the_stft_is_zero():
    clip = Clip(np.zeros(2000, np.float32), 8000, FE)
    maps = np.abs(normal(1, *clip.x.shape))
    expected = istft(maps[:, 0], clip)
    np.testing.assert_allclose(auralise(clip, maps, mode="phase"), expected, atol=1e-6)
    assert not auralise(clip, maps, mode="mask").any()


@pytest.mark.parametrize("mode", ["mask", "phase"])
def test_a_silent_feature_gives_exact_zeros_without_a_warning(mode):
    clip = Clip(normal(2000), 8000, FE)
    maps = normal(3, *clip.x.shape)
    maps[1] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sounds = auralise(clip, maps, mode=mode)
    assert not sounds[1].any()
    assert not np.signbit(sounds[1]).any()
    assert sounds[0].any()


@pytest.mark.parametrize("mode", ["mask", "phase"])
def test_bits_depend_neither_on_threads_nor_on_the_other_maps(mode):
    clip = Clip(normal(44100), 11025, Frontend(sr=11025, n_fft=512, hop_length=256))
    maps = normal(13, *clip.x.shape)
    sounds = auralise(clip, maps, mode=mode, num_threads=1)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(auralise(clip, maps, mode=mode, num_threads=threads), sounds)
    with config(num_threads=2):
        np.testing.assert_array_equal(auralise(clip, maps, mode=mode), sounds)
    for k in range(len(maps)):
        np.testing.assert_array_equal(auralise(clip, maps[k : k + 1], mode=mode)[0], sounds[k])
    order = [5, 5, 0, 12]
    np.testing.assert_array_equal(auralise(clip, maps[order], mode=mode), sounds[order])


@pytest.mark.parametrize("mode", ["mask", "phase"])
def test_layout_ctf_takes_transposed_maps_to_the_same_sound(mode):
    clip = Clip(normal(2000), 8000, FE)
    turned = Clip(normal(2000), 8000, Frontend(sr=8000, n_fft=256, hop_length=128, layout="CTF"))
    maps = normal(3, *clip.x.shape)
    np.testing.assert_array_equal(
        auralise(turned, maps.transpose(0, 1, 3, 2), mode=mode), auralise(clip, maps, mode=mode)
    )


def test_maps_may_leave_out_the_channel_and_be_of_any_real_dtype_and_order():
    clip = Clip(normal(2000), 8000, FE)
    maps = np.round(normal(2, *clip.x.shape) * 4)
    sounds = auralise(clip, maps)
    np.testing.assert_array_equal(auralise(clip, maps[:, 0]), sounds)
    for other in (maps.astype(np.float64), maps.astype(np.int8), np.asfortranarray(maps)):
        np.testing.assert_array_equal(auralise(clip, other), sounds)


def test_no_maps_give_no_sounds():
    clip = Clip(normal(2000), 8000, FE)
    assert auralise(clip, np.zeros((0, *clip.x.shape), np.float32)).shape == (0, 2000)


def test_bad_maps_and_modes_are_refused():
    clip = Clip(normal(2000), 8000, FE)
    good = normal(3, *clip.x.shape)
    bad = good.copy()
    bad[1, 0, 3, 4] = np.nan
    cases = [
        (good[:, :, :-1], r"maps must be \(K, 1, 129, 16\) for this clip, found \(3, 1, 128, 16\)"),
        (good[0, 0], r"found \(129, 16\)"),
        (np.float32(3), r"found \(\)"),
        (np.concatenate([good, good], axis=1), r"found \(3, 2, 129, 16\)"),
        (good.transpose(0, 1, 3, 2), r"found \(3, 1, 16, 129\)"),
        (good.astype(complex), "maps must be real numbers, found dtype complex128"),
        (good.astype(object), "maps must be real numbers, found dtype object"),
        ([[1], [1, 2]], "maps cannot be read as an array"),
        (bad, "map 1 is not finite"),
        (np.where(np.isnan(bad), np.inf, bad), "map 1 is not finite"),
        (good.astype(np.float64) * 1e300, "map 0 is not finite in float32"),
        (np.full_like(good, 3e38), "the sound of map 0 is not finite in float32"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for maps, message in cases:
            with pytest.raises(ParameterError, match=message):
                auralise(clip, maps)
    wanted = "mode must be one of mask, phase, wiener, found 'magnitude'"
    with pytest.raises(ParameterError, match=wanted):
        auralise(clip, good, mode="magnitude")
    with pytest.raises(ParameterError, match="num_threads must be a positive int, found 0"):
        auralise(clip, good, num_threads=0)
    with pytest.raises(ParameterError, match="clip must be a Clip, found ndarray"):
        auralise(clip.samples, good)


def test_wiener_masks_by_the_size_of_the_map_alone() -> None:
    frontend = Frontend(sr=8000, n_fft=64, hop_length=32)
    clip = Clip(np.random.default_rng(0).normal(size=500).astype(np.float32), 8000, frontend)
    maps = np.random.default_rng(1).normal(size=(2, *clip.x.shape)).astype(np.float32)
    maps[1] = 0
    wanted = auralise(clip, np.abs(maps[:1]) / np.abs(maps[0]).max())
    found = auralise(clip, maps, mode="wiener")
    np.testing.assert_allclose(found[:1], wanted, rtol=1e-5, atol=1e-6)
    assert not found[1].any()
    np.testing.assert_array_equal(auralise(clip, -3 * maps, mode="wiener")[1], found[1])
    weights = clip.to_stft(maps, "wiener")
    assert weights.min() == 0 and weights.max() == 1
