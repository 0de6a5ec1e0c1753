"""Every kind of front end: what the network is given, and what is heard of its maps."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import librosa
import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv import Clip, Frontend, ParameterError

from .conftest import SR, close


def mel(**more: object) -> Frontend:
    return Frontend(kind="mel", sr=SR, n_fft=512, hop_length=160, n_mels=40, **more)


# What the network is given


@pytest.mark.parametrize("more", [
    {}, {"htk": True, "norm": None, "fmin": 60.0, "fmax": 7000.0}, {"power": 2.0},
    {"win_length": 400}, {"center": False},
])
def test_mel_is_librosas(samples, more):
    clip = Clip(samples, SR, mel(**more))
    wanted = librosa.feature.melspectrogram(
        y=samples, sr=SR, n_fft=512, hop_length=160, n_mels=40, power=more.get("power", 1.0),
        win_length=more.get("win_length"), center=more.get("center", True),
        **{key: more[key] for key in ("htk", "norm", "fmin", "fmax") if key in more},
    )
    close(clip.x[0], wanted)


def test_mel_in_decibels_is_librosas(samples):
    scale = {"type": "db", "ref": 1.0, "amin": 1e-10, "top_db": None}
    clip = Clip(samples, SR, mel(power=2.0, scale=scale))
    power = librosa.feature.melspectrogram(y=samples, sr=SR, n_fft=512, hop_length=160, n_mels=40)
    np.testing.assert_allclose(
        clip.x[0], librosa.power_to_db(power, top_db=None), atol=2e-3
    )


def test_filters_of_ones_own_are_a_product(samples):
    rng = np.random.default_rng(0)
    matrix = rng.random((7, 257))
    clip = Clip(samples, SR, Frontend(kind="filters", sr=SR, n_fft=512, filters=matrix))
    close(clip.x[0], (matrix @ np.abs(clip.stft)).astype(np.float32))


def test_cqt_is_librosas(samples):
    fe = Frontend(kind="cqt", sr=SR, hop_length=256, n_bins=60, bins_per_octave=12, fmin=55.0)
    wanted = np.abs(librosa.cqt(samples, sr=SR, hop_length=256, n_bins=60, fmin=55.0))
    close(Clip(samples, SR, fe).x[0], wanted)


def test_a_waveform_is_a_row_of_samples(samples):
    clip = Clip(samples, SR, Frontend(kind="waveform", sr=SR))
    assert clip.x.shape == (1, 1, SR)
    np.testing.assert_array_equal(clip.x[0, 0], samples)


@pytest.mark.parametrize("kind", ["stft", "mel", "cqt", "waveform"])
@pytest.mark.parametrize("seconds", [0.4, 3.0])
def test_frames_are_columns_of_the_input(samples, kind, seconds):
    fe = Frontend(kind=kind, sr=SR, hop_length=256, frames=50)
    clip = Clip(np.resize(samples, int(seconds * SR)), SR, fe)
    assert clip.x.shape[-1] == 50


@pytest.mark.parametrize("layout", ["".join(axes) for axes in itertools.permutations("CFT")])
@pytest.mark.parametrize("channels", [1, 3])
def test_layouts_and_channels(samples, layout, channels):
    plain = Clip(samples, SR, mel())
    clip = Clip(samples, SR, mel(layout=layout, channels=channels))
    values = np.broadcast_to(plain.x, (channels, *plain.x.shape[1:]))
    np.testing.assert_array_equal(
        clip.x, values.transpose(["CFT".index(axis) for axis in layout])
    )
    maps = np.random.default_rng(0).normal(size=(2, *clip.x.shape)).astype(np.float32)
    axes = [1 + layout.index(axis) for axis in "CFT"]
    wanted = plain.to_stft(maps.transpose(0, *axes).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(clip.to_stft(maps), wanted, atol=1e-6)
    close(fd.auralise(clip, maps), fd.auralise(plain, maps.transpose(0, *axes).sum(axis=1)))


def test_a_range_of_bins(samples):
    whole = Clip(samples, SR, Frontend(sr=SR, n_fft=512))
    clip = Clip(samples, SR, Frontend(sr=SR, n_fft=512, bins=(1, 200)))
    np.testing.assert_array_equal(clip.x, whole.x[:, 1:201])
    weights = clip.to_stft(np.ones((1, *clip.x.shape)))[0]
    assert weights[1:201].all() and not weights[0].any() and not weights[201:].any()


@pytest.mark.parametrize("kind", ["stft", "mel", "waveform"])
def test_preemphasis_is_in_the_input_and_not_in_the_sound(samples, kind):
    own = {"kind": kind, "sr": SR, "n_fft": 512, "frames": 40}
    clip = Clip(samples, SR, Frontend(**own, preemphasis=0.97))
    before = np.concatenate([samples[:1], samples[:-1]])
    wanted = Clip(samples - np.float32(0.97) * before, SR, Frontend(**own))
    close(clip.x, wanted.x)
    plain = Clip(samples, SR, Frontend(**own))
    np.testing.assert_array_equal(clip.samples, plain.samples)
    ones = np.ones((1, *clip.x.shape))
    np.testing.assert_array_equal(fd.auralise(clip, ones), fd.auralise(plain, ones))
    assert Frontend.from_record(clip.frontend.to_record()) == clip.frontend
    with pytest.raises(ParameterError, match="preemphasis must be from 0 to below 1, found 1"):
        Frontend(**own, preemphasis=1)


def test_a_number_for_each_band(samples):
    scale, shift = np.linspace(1, 2, 40), np.linspace(-1, 1, 40)
    affine = {"type": "affine", "scale": scale, "shift": shift}
    clip = Clip(samples, SR, mel(normalize=affine))
    plain = Clip(samples, SR, mel())
    close(clip.x, (plain.x * scale[:, None] + shift[:, None]).astype(np.float32))
    with pytest.raises(ParameterError, match="must have 40 numbers, one for each band, found 3"):
        Clip(samples, SR, mel(normalize={"type": "affine", "scale": [1, 2, 3]}))


# What is heard


@pytest.mark.parametrize("matrix", ["mel", "dense"])
def test_bins_get_the_mean_of_the_bands_that_hear_them(samples, matrix):
    if matrix == "mel":
        fe = mel()
        filters = librosa.filters.mel(sr=SR, n_fft=512, n_mels=40)
    else:
        filters = np.random.default_rng(1).random((20, 257))
        filters[:, 250:] = 0
        fe = Frontend(kind="filters", sr=SR, n_fft=512, hop_length=160, filters=filters)
    clip = Clip(samples, SR, fe)
    maps = np.random.default_rng(0).normal(size=(3, *clip.x.shape)).astype(np.float32)
    total = filters.sum(axis=0)
    shares = filters / np.where(total > 0, total, 1)
    wanted = np.einsum("bf,kbt->kft", shares, maps[:, 0])
    close(clip.to_stft(maps), wanted)
    sounds = fd.auralise(clip, maps)
    expected = librosa.istft(clip.stft * wanted[1], hop_length=160, n_fft=512, length=SR)
    np.testing.assert_allclose(sounds[1, 512:-512], expected[512:-512], atol=1e-5)
    # No bit depends on the other maps.
    assert fd.auralise(clip, maps[1:2]).tobytes() == sounds[1].tobytes()


def test_maps_of_ones_give_back_what_the_front_end_hears(samples):
    whole = Clip(samples, SR, Frontend(sr=SR, n_fft=512))
    bands = Clip(samples, SR, mel(fmin=300.0))
    assert whole.round_trip < -100
    outside = librosa.filters.mel(sr=SR, n_fft=512, n_mels=40, fmin=300.0).sum(axis=0) == 0
    lost = np.square(np.abs(bands.stft[outside])).sum() / np.square(np.abs(bands.stft)).sum()
    assert bands.round_trip == pytest.approx(10 * np.log10(lost), abs=3)
    assert Clip(np.zeros(SR), SR, mel()).round_trip is None
    cqt = Clip(samples, SR, Frontend(kind="cqt", sr=SR, hop_length=128, n_bins=84, fmin=55.0))
    assert -30 < cqt.round_trip < 0
    assert Clip(samples, SR, Frontend(kind="waveform", sr=SR)).round_trip < -190


def test_maps_of_a_waveform(samples):
    clip = Clip(samples, SR, Frontend(kind="waveform", sr=SR))
    maps = np.random.default_rng(0).normal(size=(2, 1, 1, SR)).astype(np.float32)
    np.testing.assert_array_equal(fd.auralise(clip, maps), samples * maps[:, 0, 0])
    np.testing.assert_array_equal(fd.auralise(clip, maps, mode="phase"), maps[:, 0, 0])


def test_maps_of_a_cqt_keep_what_they_cover(samples):
    fe = Frontend(kind="cqt", sr=SR, hop_length=128, n_bins=72, fmin=55.0)
    clip = Clip(samples, SR, fe)
    low, high = np.zeros((2, *clip.x.shape), np.float32)
    low[0, :30], high[0, 48:] = 1, 1
    for one, (below, above) in zip((low, high), ((0, 400), (900, 8000))):
        sound = fd.auralise(clip, one[np.newaxis])[0]
        power = np.square(np.abs(np.fft.rfft(sound)))
        hz = np.fft.rfftfreq(SR, 1 / SR)
        assert power[(hz > below) & (hz < above)].sum() > 0.9 * power.sum()


@pytest.mark.filterwarnings("ignore:n_fft=")
def test_a_cqt_of_less_than_whole_octaves_gives_the_clip_back(samples):
    """Where librosa's inverse alone gives noise that is louder than the clip."""
    own = {"sr": SR, "hop_length": 128, "n_bins": 253, "bins_per_octave": 36, "fmin": 57.8125}
    clip = Clip(samples, SR, Frontend(kind="cqt", **own))
    transform = librosa.cqt(samples, **own)
    del own["n_bins"]
    alone = librosa.icqt(transform, length=samples.size, **own)
    assert np.square(alone - samples).sum() > 2 * np.square(samples).sum()
    assert clip.round_trip < -8


def test_pictures_have_every_band_at_its_frequency():
    t = np.arange(SR) / SR
    sound = np.sin(2 * np.pi * 880 * t).astype(np.float32)
    for kind, own in (("stft", {}), ("mel", {"n_mels": 80}), ("cqt", {"fmin": 55.0})):
        clip = Clip(sound, SR, Frontend(kind=kind, sr=SR, n_fft=1024, **own))
        for picture in (clip.seen, clip.stretched(clip.x[0])):
            assert picture.shape == clip.stft.shape
            loudest = picture[:, 20].argmax() * SR / 1024
            assert abs(12 * np.log2(loudest / 880)) < 1
    clip = Clip(sound, SR, Frontend(kind="waveform", sr=SR, n_fft=1024))
    plane = np.repeat(np.array([[0.0, 1.0]]), 8000, axis=1)
    drawn = clip.stretched(plane)
    assert not drawn[:, :25].any() and drawn[:, 40:].all()


@pytest.mark.parametrize("own", [
    {"kind": "mel", "fmin": 500.0}, {"kind": "stft", "bins": (20, 200)},
])
def test_what_the_network_is_not_given_is_dark_in_pictures(samples, own):
    clip = Clip(samples, SR, Frontend(**own, sr=SR, n_fft=512, scale={"type": "log"}))
    assert clip.x.max() < 10 and clip.x.min() < 0
    np.testing.assert_array_equal(clip.seen[:5], clip.x.min())
    assert clip.seen[100].max() > clip.x.min()


@pytest.mark.parametrize("kind", ["cqt", "waveform"])
@pytest.mark.parametrize("mode", ["mask", "phase"])
def test_weights_of_other_kinds_are_what_is_heard(samples, kind, mode):
    own = {"n_bins": 48} if kind == "cqt" else {}
    clip = Clip(samples, SR, Frontend(kind=kind, sr=SR, n_fft=512, hop_length=128, **own))
    maps = np.abs(np.random.default_rng(0).normal(size=(2, *clip.x.shape))).astype(np.float32)
    weights = clip.to_stft(maps, mode)
    heard = np.abs(clip.stft) * weights if mode == "mask" else weights
    sound = fd.auralise(clip, maps, mode=mode)[1]
    wanted = np.abs(librosa.stft(sound, n_fft=512, hop_length=128))
    np.testing.assert_allclose(heard[1], wanted, atol=1e-3 * wanted.max())


@pytest.mark.parametrize("fe", [
    mel(), Frontend(kind="filters", sr=SR, n_fft=512, filters=np.ones((4, 257))),
    Frontend(kind="cqt", sr=SR, n_fft=512, hop_length=128, n_bins=48),
    Frontend(kind="waveform", sr=SR, n_fft=512), Frontend(sr=SR, n_fft=512, layout="FCT"),
    Frontend(sr=SR, n_fft=512, layout="TCF", bins=(1, 128)),
], ids=["mel", "filters", "cqt", "waveform", "FCT", "TCF"])
def test_a_network_of_any_kind_from_sound_to_files(samples, fe, tmp_path):
    """The whole way: network in an archive, features, sounds, pictures, page."""
    shape = Clip(samples, SR, fe).x.shape
    rng = np.random.default_rng(0)
    kernel = tuple(min(3, n) for n in shape[1:])
    arrays = {
        "c1.weight": rng.normal(size=(5, shape[0], *kernel)) / 3, "c1.bias": np.zeros(5),
    }
    conv = {"type": "conv2d", "name": "c1", "padding": "same"}
    records = [conv, {"type": "relu", "name": "r1"}]
    free = tuple(n if axis != "T" else None for n, axis in zip(shape, fe.layout))
    net = fd.Network(records, arrays, free, frontend=fe, name="any")
    net.save(tmp_path / "net.npz")
    net = fd.Network.load(tmp_path / "net.npz")
    assert net.frontend == fe
    explanation = fd.explain((samples, SR), net)
    folder = explanation.save(tmp_path / "out")
    rows = explanation.table
    assert any(row["level"] is not None for row in rows)
    for name in ("original.png", "input.png", "index.html"):
        assert (folder / name).stat().st_size > 0
    assert (folder / "r1" / "map_0.png").is_file()
    assert (folder / "r1" / "activation_mean.png").is_file()
    assert explanation.show("r1", 0)._repr_html_()


def test_maps_of_a_cqt_from_several_threads(samples):
    """Clips shorter than a window, of which librosa would warn."""
    fe = Frontend(kind="cqt", sr=SR, n_fft=512, hop_length=128, n_bins=48)
    clip = Clip(samples[:4000], SR, fe)
    maps = np.random.default_rng(0).random((6, *clip.x.shape)).astype(np.float32)
    wanted = [fd.auralise(clip, one[np.newaxis])[0] for one in maps]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda one: fd.auralise(clip, one[np.newaxis])[0], maps)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_filters_are_checked(samples, tmp_path):
    with pytest.raises(ParameterError, match="needs filters"):
        Frontend(kind="filters", sr=SR)
    with pytest.raises(ParameterError, match=r"shape \(bands, 257\) with n_fft 512, found float64"):
        Frontend(kind="filters", n_fft=512, filters=np.ones((4, 256)))
    with pytest.raises(ParameterError, match="finite and not negative"):
        Frontend(kind="filters", n_fft=512, filters=-np.ones((4, 257)))
    with pytest.raises(ParameterError, match="scale 'power'"):
        mel(scale="power")
    with pytest.raises(ParameterError, match="scale 'linear' and power 1"):
        Frontend(kind="waveform", scale="db")
    with pytest.raises(ParameterError, match=r"bins must be \(first, last\)"):
        Frontend(bins=(5, 2))
    fe = Frontend(kind="filters", sr=SR, n_fft=512, filters=np.ones((4, 257)))
    with pytest.raises(ParameterError, match="not those of its record"):
        Frontend.from_record(fe.to_record(), np.zeros((4, 257)))
    with pytest.raises(ParameterError, match="the filters of the front end are missing"):
        Frontend.from_record(fe.to_record())
    assert Frontend.from_record(fe.to_record(), fe.filters) == fe
