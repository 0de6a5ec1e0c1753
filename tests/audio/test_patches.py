"""Networks that take a piece of a sound at a time: from a file to what is heard of every piece."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import fastdeconv as fd
from fastdeconv import Clip, Frontend
from fastdeconv.audio.song import load_song

SR = 16000
LOG = {"type": "log", "offset": 1e-3}
MEL = {"kind": "mel", "sr": SR, "n_fft": 512, "hop_length": 160, "win_length": 400, "n_mels": 64}

# Front ends by what they are like, and how many columns a window goes on.
FRONTENDS = {
    "yamnet": (Frontend(**MEL, center=False, frames=96, layout="CTF", scale=LOG), 48),
    "centred patch": (Frontend(**MEL, frames=50, scale=LOG), 25),
    "crepe": (Frontend(kind="waveform", sr=SR, n_fft=512, frames=1024,
                       normalize={"type": "standardize"}), 160),
    "samples in a column": (Frontend(kind="waveform", sr=SR, frames=2000, layout="CTF"), 1000),
    "bands as channels": (Frontend(**MEL, frames=40, layout="FCT", scale=LOG), 20),
    "time as channels": (Frontend(**MEL, frames=30, layout="TCF", scale=LOG), 30),
    "bins as channels": (Frontend(sr=SR, n_fft=256, bins=(1, 128), frames=20, layout="FTC"), 10),
    "one frame": (Frontend(sr=SR, n_fft=512, hop_length=160, center=False, frames=1), 1),
    "own filters": (Frontend(kind="filters", sr=SR, n_fft=512, frames=20,
                             filters=np.repeat(np.eye(10), 26, axis=1)[:, :257]), 10),
    "three sizes": (Frontend(**MEL, frames=40, scale=LOG,
                             channels=[{"n_fft": 512}, {"n_fft": 1024}, {"n_fft": 2048}]), 20),
    "with deltas": (Frontend(**MEL, frames=40, scale=LOG, channels=[{}, {"delta": 1}]), 20),
    "cqt": (Frontend(kind="cqt", sr=SR, hop_length=256, n_bins=36, fmin=220.0, frames=30,
                     layout="TCF"), 15),
    "cqt of nnaudio": (Frontend(kind="cqt", sr=SR, hop_length=256, n_bins=36, fmin=220.0,
                                frames=30, method="nnaudio", pad_mode="reflect"), 15),
}


@pytest.fixture(scope="module")
def samples() -> NDArray[np.float32]:
    """Two seconds of notes with some noise."""
    t = np.arange(2 * SR) / SR
    notes = np.sin(2 * np.pi * 330 * t) + np.sin(2 * np.pi * 1250 * t)
    sound = notes * np.exp(-4 * (t % 0.4)) / 4
    return (sound + np.random.default_rng(0).normal(0, 1e-2, t.size)).astype(np.float32)


@pytest.fixture(scope="module")
def wav(samples: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "notes.wav"
    soundfile.write(path, samples, SR, subtype="FLOAT")
    return path


def network(frontend: Frontend, samples: NDArray[np.float32]) -> fd.Network:
    shape = Clip(samples, SR, frontend).x.shape
    kernel = tuple(min(3, n) for n in shape[1:])
    rng = np.random.default_rng(0)
    arrays = {"c.weight": rng.normal(size=(4, shape[0], *kernel)), "c.bias": np.zeros(4)}
    records = [{"type": "conv2d", "name": "c", "padding": "same"}, {"type": "relu", "name": "r"}]
    return fd.Network(records, arrays, shape, frontend=frontend, name="patches")


@pytest.mark.parametrize("like", FRONTENDS)
def test_from_a_file_to_the_sound_of_every_window(samples, wav, like, tmp_path):
    frontend, hop = FRONTENDS[like]
    network(frontend, samples).save(tmp_path / "net.npz")
    explanation = fd.explain(wav, tmp_path / "net.npz")
    assert explanation.clip.is_cut
    assert (explanation.save(tmp_path / "out") / "r" / "map_2.png").is_file()
    net = fd.Network.load(tmp_path / "net.npz")
    song = load_song(wav, frontend)
    windows = list(song.windows(hop))
    assert len(windows) > 2
    for clip in (windows[0], windows[len(windows) // 2], windows[-1]):
        found = fd.explain(clip, net)
        sounds, weights = found.sounds("r"), clip.to_stft(found.maps["r"])
        assert sounds.shape == (4, clip.samples.size)
        assert weights.shape == (4, *clip.stft.shape)
        assert np.isfinite(sounds).all() and np.isfinite(weights).all()
        assert np.abs(sounds).max() > 0


@pytest.mark.parametrize("like", [
    like for like in FRONTENDS if "cqt" not in like and like != "crepe"
])
def test_a_window_sees_what_the_whole_song_sees_there(samples, wav, like):
    """But where its frames, or what deltas look at, reach over its ends."""
    frontend, hop = FRONTENDS[like]
    record = {k: v for k, v in frontend.to_record().items() if k not in ("frames", "filters")}
    whole = Clip(samples, SR, Frontend.from_record(record, frontend.filters))
    axis = frontend.layout.index("T")
    reach = 4 if like == "with deltas" else 0
    if frontend.center and frontend.meaning.on_stft:
        widest = max(part.n_fft for part in frontend.parts)
        reach += math.ceil(widest / 2 / frontend.hop_length)
    windows = list(load_song(wav, frontend).windows(hop))
    for place in range(1, len(windows) - 3):
        inner = np.arange(reach, frontend.frames - reach)
        seen = windows[place].x.take(inner, axis)
        wanted = whole.x.take(inner + place * hop, axis)
        assert seen.size
        np.testing.assert_allclose(seen, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("like", FRONTENDS)
@pytest.mark.parametrize("mode", ["mask", "phase"])
def test_what_is_heard_of_a_window_has_the_weights_that_are_shown(samples, wav, like, mode):
    """The STFT of a map's sound is that of the clip, weighted, as far as a sound can have it."""
    frontend, _ = FRONTENDS[like]
    clip = load_song(wav, frontend).window(1600)
    ones = np.ones((1, *clip.x.shape), np.float32)
    sound = fd.auralise(clip, ones, mode=mode)
    own = np.abs(clip.stft)
    weights = clip.to_stft(ones, mode)[0]
    heard = own * weights if mode == "mask" else weights
    found = np.abs(Clip(sound[0], SR, frontend).stft)
    if mode == "mask" or not frontend.meaning.on_stft:
        off = np.square(found - heard).sum() / np.square(heard).sum()
        assert off < 0.05
    else:
        # With the phase alone frames do not agree with each other.
        assert np.abs(sound).max() > 0


def test_a_frame_without_centring_needs_one_frame_of_samples():
    frontend = Frontend(sr=SR, n_fft=512, hop_length=160, center=False, frames=1)
    assert Clip(np.ones(100), SR, frontend).samples.size == 512
    with pytest.raises(fd.ParameterError, match="frames = 1 with these sizes is a clip of 0"):
        Frontend(sr=SR, n_fft=512, frames=1)


def test_samples_shorter_than_the_window_of_their_pictures(samples):
    frontend = Frontend(kind="waveform", sr=SR, n_fft=2048, center=False, frames=1024)
    explanation = fd.explain((samples, SR), network(frontend, samples))
    assert explanation.clip.stft.shape == (1025, 1)
    assert explanation.table[0]["level"] is not None
