"""Channels that hold the same sound in different ways, and the way back from them."""

from __future__ import annotations

import pickle

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv import AudioError, Clip, Frontend, ParameterError
from fastdeconv.audio.kinds.bands import from_bands, on_bins_of

from .conftest import SR, close

THREE_SIZES = [{"n_fft": 512}, {"n_fft": 1024}, {"n_fft": 2048}]


def mel(**more: object) -> Frontend:
    own = {"kind": "mel", "sr": SR, "n_fft": 1024, "hop_length": 160, "n_mels": 40, **more}
    return Frontend(**own)


# What the network is given


@pytest.mark.parametrize("channels", [
    [{"scale": "db"}, {"power": 2.0}],
    [{}, {"normalize": {"type": "affine", "scale": 2.0, "shift": 1.0}}],
    [{"n_fft": 512}, {"n_fft": 1024, "win_length": 400}, {"n_fft": 4096, "window": "hamming"}],
    [{"fmin": 100.0, "fmax": 4000.0}, {"htk": True, "norm": None}],
])
@pytest.mark.parametrize("layout", ["CFT", "FTC"])
def test_every_channel_is_what_its_own_front_end_gives(samples, channels, layout):
    clip = Clip(samples, SR, mel(channels=channels, layout=layout))
    wanted = np.stack([Clip(samples, SR, mel(**channel)).x[0] for channel in channels])
    np.testing.assert_array_equal(
        clip.x, wanted.transpose(["CFT".index(axis) for axis in layout])
    )


def test_deltas_are_librosas(samples):
    scale = {"type": "log", "offset": 1e-6}
    clip = Clip(samples, SR, mel(scale=scale, channels=[{}, {"delta": 1}, {"delta": 2}]))
    values = clip.x[0].astype(np.float64)
    close(clip.x[1], librosa.feature.delta(values), 1e-4)
    close(clip.x[2], librosa.feature.delta(values, order=2), 1e-4)


def test_deltas_of_torchaudio(samples):
    """Sums of differences over 5 frames, the ends repeated."""
    clip = Clip(samples, SR, mel(delta={"order": 1, "width": 5, "mode": "nearest"}))
    x = np.pad(Clip(samples, SR, mel()).x[0], ((0, 0), (2, 2)), "edge").astype(np.float64)
    wanted = (2 * (x[:, 4:] - x[:, :-4]) + x[:, 3:-1] - x[:, 1:-3]) / 10
    close(clip.x[0], wanted)


def test_deltas_come_before_normalisation(samples):
    affine = {"type": "affine", "scale": 2.0, "shift": 1.0}
    plain = Clip(samples, SR, mel(delta=1)).x
    close(Clip(samples, SR, mel(delta=1, normalize=affine)).x, 2 * plain + 1)


@pytest.mark.parametrize("seconds", [0.4, 0.99, 3.0])
def test_fixed_frames_are_the_first_of_the_whole_in_every_channel(samples, seconds):
    sound = np.resize(samples, int(seconds * SR))
    clip = Clip(sound, SR, mel(channels=THREE_SIZES, frames=50))
    assert clip.x.shape == (3, 40, 50)
    if clip.is_cut:
        whole = Clip(sound, SR, mel(channels=THREE_SIZES))
        np.testing.assert_array_equal(clip.x, whole.x[:, :, :50])


def test_a_file_is_read_as_far_as_the_longest_window_reaches(samples):
    """Reading no more than needed gives what reading all gives."""
    sound = np.resize(samples, 3 * SR)
    fe = mel(n_fft=256, channels=[{}, {"n_fft": 4096}], frames=50)
    np.testing.assert_array_equal(
        fd.load_clip((sound, SR), fe).x, Clip(sound, SR, mel(n_fft=256, channels=[
            {}, {"n_fft": 4096}])).x[:, :, :50]
    )


def test_harmonics_of_a_cqt(samples):
    own = {"kind": "cqt", "sr": SR, "hop_length": 256, "n_bins": 36, "fmin": 110.0}
    clip = Clip(samples, SR, Frontend(**own, channels=[{}, {"fmin": 220.0}]))
    second = Clip(samples, SR, Frontend(**{**own, "fmin": 220.0}))
    np.testing.assert_array_equal(clip.x[1], second.x[0])
    maps = np.random.default_rng(0).random((1, *clip.x.shape)).astype(np.float32)
    first = Clip(samples, SR, Frontend(**own))
    wanted = fd.auralise(first, maps[:, 0]) + fd.auralise(second, maps[:, 1])
    close(fd.auralise(clip, maps), wanted)


# The way back


def test_maps_of_channels_on_one_stft_are_added_up(samples):
    clip = Clip(samples, SR, mel(channels=[{"scale": "db"}, {"power": 2.0}, {"fmax": 4000.0}]))
    maps = np.random.default_rng(0).normal(size=(2, *clip.x.shape)).astype(np.float32)
    alone = [Clip(samples, SR, mel()), Clip(samples, SR, mel()), Clip(samples, SR, mel(fmax=4e3))]
    wanted = sum(one.to_stft(maps[:, i]) for i, one in enumerate(alone))
    close(clip.to_stft(maps), wanted)
    close(fd.auralise(clip, maps), sum(
        fd.auralise(one, maps[:, i]) for i, one in enumerate(alone)
    ))


@pytest.mark.parametrize("kind", ["stft", "mel"])
def test_equal_channels_are_equal_colours(samples, kind):
    """A list of empty dicts is the same as a number."""
    own = {"kind": kind, "sr": SR, "n_fft": 512}
    listed = Clip(samples, SR, Frontend(**own, channels=[{}, {}]))
    counted = Clip(samples, SR, Frontend(**own, channels=2))
    np.testing.assert_array_equal(listed.x, counted.x)
    maps = np.random.default_rng(0).normal(size=(2, *listed.x.shape)).astype(np.float32)
    close(fd.auralise(listed, maps), fd.auralise(counted, maps))


@pytest.mark.parametrize("n_fft", [256, 512, 4096])
def test_a_band_of_another_stft_is_heard_at_its_own_frequency(samples, n_fft):
    clip = Clip(samples, SR, mel(channels=[{}, {"n_fft": n_fft}]))
    hz = librosa.mel_frequencies(42, fmin=0, fmax=SR / 2)[1:-1]
    for band in range(5, 40, 6):
        maps = np.zeros((1, *clip.x.shape), np.float32)
        maps[0, 1, band] = 1
        weights = clip.to_stft(maps)[0, :, 50]
        middle = (weights * np.arange(513)).sum() / weights.sum() * SR / 1024
        assert abs(middle - hz[band]) < max(SR / n_fft, SR / 1024, 0.1 * hz[band])


@given(st.integers(4, 1200), st.integers(4, 1200))
@settings(max_examples=60, deadline=None)
def test_ones_on_bins_of_another_size_are_ones(own: int, other: int) -> None:
    back = from_bands(on_bins_of(other, np.ones((3, 1 + own // 2)), own))
    np.testing.assert_allclose(back @ np.ones(3), np.ones(1 + other // 2), rtol=1e-6)


@pytest.mark.parametrize(("fe", "limit"), [
    (Frontend(sr=SR, n_fft=1024, channels=[{}, {"power": 2.0}]), -100),
    (mel(channels=[{"scale": "db"}, {}]), -15),
    (mel(channels=THREE_SIZES), -15),
], ids=["stft", "scales", "sizes"])
def test_ones_give_the_clip_back(samples, fe, limit):
    clip = Clip(samples, SR, fe)
    assert clip.round_trip < limit
    ones = np.ones((1, *clip.x.shape), np.float32)
    sound = fd.auralise(clip, ones)[0] / clip.x.shape[0]
    off = np.square(sound - clip.samples).sum() / np.square(clip.samples).sum()
    assert 10 * np.log10(off + 1e-20) == pytest.approx(clip.round_trip, abs=0.5)


@pytest.mark.parametrize("fe", [
    mel(channels=[{"scale": "db"}, {"delta": 1}, {"n_fft": 2048}]),
    Frontend(sr=SR, n_fft=512, channels=[{"power": 2.0}, {"scale": "log1p"}], layout="FTC"),
    Frontend(kind="filters", sr=SR, n_fft=512, filters=np.eye(9, 257) + 0.01,
             channels=[{}, {"scale": "db"}]),
    Frontend(kind="waveform", sr=SR, n_fft=512,
             channels=[{}, {"normalize": {"type": "standardize"}}]),
], ids=["mel", "stft", "filters", "waveform"])
def test_from_an_archive_to_files(samples, fe, tmp_path):
    shape = Clip(samples, SR, fe).x.shape
    kernel = tuple(min(3, n) for n in shape[1:])
    rng = np.random.default_rng(0)
    arrays = {"c.weight": rng.normal(size=(4, shape[0], *kernel)) / 3, "c.bias": np.zeros(4)}
    records = [{"type": "conv2d", "name": "c", "padding": "same"}, {"type": "relu", "name": "r"}]
    free = tuple(None if axis == "T" else n for n, axis in zip(shape, fe.layout))
    fd.Network(records, arrays, free, frontend=fe, name="any").save(tmp_path / "net.npz")
    net = fd.Network.load(tmp_path / "net.npz")
    assert net.frontend == fe and hash(net.frontend) == hash(fe)
    assert net.frontend.to_record() == fe.to_record()
    explanation = fd.explain((samples, SR), net)
    assert (explanation.save(tmp_path / "out") / "r" / "map_0.png").is_file()
    assert any(row["level"] is not None for row in explanation.table)


# Records


def test_records_say_what_is_different_with_its_defaults():
    record = mel(channels=[{}, {"scale": {"type": "db"}, "n_fft": 2048}]).to_record()
    assert record["channels"] == [
        {}, {"scale": {"type": "db", "ref": "max", "amin": 1e-5, "top_db": 80.0}, "n_fft": 2048},
    ]
    assert "channels" not in mel().to_record()
    assert mel(channels=3).to_record()["channels"] == 3
    assert mel(channels=[{}, {}]) != mel(channels=2)


def test_they_go_to_other_processes(samples):
    fe = mel(channels=[{}, {"n_fft": 2048}])
    again = pickle.loads(pickle.dumps(fe))
    assert again == fe and hash(again) == hash(fe)
    np.testing.assert_array_equal(Clip(samples, SR, again).x, Clip(samples, SR, fe).x)


@pytest.mark.parametrize(("own", "message"), [
    ({"channels": []}, "from 1 to 64, found a list of 0"),
    ({"channels": [{}] * 65}, "from 1 to 64, found a list of 65"),
    ({"channels": [{}, 3]}, r"channels\[1\] must be a dict of .* differ there, found 3"),
    ({"channels": [{"hop_length": 80}]}, r"channels\[0\]: unknown key 'hop_length'; it takes"),
    ({"channels": [{"bins": (1, 2)}]}, r"channels\[0\]: unknown key 'bins'"),
    ({"channels": [{}, {"n_mels": 64}]}, r"channels\[1\] has 64 rows, wanted 40"),
    ({"channels": [{}, {"power": -1}]}, r"channels\[1\]: power must be a finite number above 0"),
    ({"channels": [{"n_fft": 512}], "center": False}, "another n_fft needs center=True"),
    ({"channels": [{"n_fft": 513}]}, "must be even or odd like"),
    ({"channels": "3"}, "channels must be an int from 1 to 64"),
    ({"delta": 3}, "delta order must be an int from 1 to 2, found 3"),
    ({"delta": {"order": 1, "width": 4}}, "delta width must be odd, found 4"),
    ({"delta": {"order": 1, "mode": "wrap"}}, "delta mode must be one of interp, nearest"),
])
def test_what_does_not_go_together_is_refused(own, message):
    with pytest.raises(ParameterError, match=message):
        mel(**own)


def test_deltas_need_frames(samples):
    with pytest.raises(AudioError, match="deltas of width 9 need at least 9 frames, found 7"):
        Clip(samples[:1000], SR, mel(delta=1))
