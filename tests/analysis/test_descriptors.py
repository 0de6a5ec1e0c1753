"""Descriptors of signals whose answers are known, alone and as parts of a mixture."""

from __future__ import annotations

import subprocess
import sys

import librosa
import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.analysis import descriptors
from fastdeconv.analysis.descriptors import DESCRIPTORS, Listener
from fastdeconv.analysis.hpss import harmonic_mask
from fastdeconv.analysis.labels import LABELS, label
from fastdeconv.analysis.measures import cross_correlations

SR = 11025
SECONDS = 4
FRONTEND = fd.Frontend(
    sr=SR, n_fft=512, hop_length=256, scale="db", normalize={"type": "range"}
)
T = np.arange(SECONDS * SR) / SR


def click_train():
    samples = np.zeros(T.size)
    samples[1000 :: SR // 2] = 1
    return samples


def chord():
    return sum(0.1 * np.sin(2 * np.pi * hz * T) for hz in (440, 554.4, 659.3, 880, 1318.5))


def noise(scale=0.1):
    return scale * np.random.default_rng(0).standard_normal(T.size)


def bass():
    return 0.4 * np.sin(2 * np.pi * 60 * T)


PARTS = {"clicks": click_train, "chord": chord, "bass": bass}


def high_noise():
    spectrum = np.fft.rfft(noise(0.3))
    spectrum[: int(3000 * SECONDS)] = 0
    return np.fft.irfft(spectrum, T.size)


def clip_of(samples):
    return fd.Clip(samples.astype(np.float32), SR, FRONTEND)


def heard_alone(samples):
    """The clip's own numbers when it is nothing but this."""
    return Listener(clip_of(samples), "mask").clip


@pytest.fixture(scope="module")
def mixture():
    """A clip of four parts, and for each the map that lets through what is mostly its own."""
    parts = {**{name: make() for name, make in PARTS.items()}, "noise": high_noise()}
    clip = clip_of(sum(parts.values()))
    sizes = {name: np.abs(clip_of(part).stft) for name, part in parts.items()}
    total = np.sqrt(sum(np.square(size) for size in sizes.values())) + 1e-9
    return clip, {name: ((size / total) ** 4).astype(np.float32) for name, size in sizes.items()}


# Known answers, signal by signal


def test_a_click_train_is_onsets_without_sustain():
    numbers = heard_alone(click_train())
    assert numbers["onset"] > 0.6 and numbers["attack"] > 20
    assert numbers["harmonic"] < 0.1
    assert numbers["sustain"] < 0.05


def test_a_chord_is_harmonic_and_sustained():
    numbers = heard_alone(chord())
    assert numbers["harmonic"] > 0.95 and numbers["sustain"] > 0.95
    assert numbers["mid"] > 0.99
    assert numbers["centroid"] == pytest.approx(770, rel=0.02)  # mean of five equal tones
    assert numbers["flatness"] < 0.01


def test_white_noise_is_flat():
    numbers = heard_alone(noise())
    assert numbers["flatness"] > 0.95
    assert numbers["centroid"] == pytest.approx(SR / 4, rel=0.02)
    assert numbers["bandwidth"] == pytest.approx(SR / 2 / np.sqrt(12), rel=0.03)
    for share, width in (("low", 200), ("mid", 1800), ("high", SR / 2 - 2000)):
        assert numbers[share] == pytest.approx(width / (SR / 2), abs=0.02)


def test_60_hertz_is_low_end():
    numbers = heard_alone(bass())
    assert numbers["low"] > 0.99
    assert numbers["centroid"] == pytest.approx(60, abs=3)


# Labels, each earned by the part of a mixture that deserves it


@pytest.mark.parametrize(
    ("part", "expected"),
    # The mask of what goes on steps back where a click takes over.
    [("clicks", {"onsets"}), ("chord", {"avoids onsets", "sustained harmonics"}),
     ("bass", {"avoids onsets", "sustained harmonics", "low end"}),
     ("noise", {"avoids onsets", "high noise"})],
)
def test_each_part_of_a_mixture_gets_its_labels_and_no_other(mixture, part, expected):
    clip, masks = mixture
    (row,) = fd.describe(clip, masks[part][None])
    assert set(row["label"].split(", ")) == expected


def test_the_input_itself_copies_the_input(mixture):
    clip, _ = mixture
    (row,) = fd.describe(clip, clip.x)
    assert row["label"] == "copies the input"
    assert row["copy"] == pytest.approx(1, abs=1e-5)


def test_the_whole_clip_earns_no_label(mixture):
    clip, _ = mixture
    (row,) = fd.describe(clip, np.ones_like(clip.x))
    assert row["label"] == ""
    assert row["share"] == pytest.approx(1, abs=1e-5)
    for key in ("harmonic", "centroid", "flatness", "low", "mid", "high", "sustain"):
        assert row[key] == pytest.approx(Listener(clip, "mask").clip[key], rel=1e-5), key


def test_nothing_is_low_beside_a_clip_that_is():
    clip = clip_of(bass())
    (row,) = fd.describe(clip, np.ones_like(clip.x))
    assert row["low"] > 0.99 and row["label"] == ""


def test_what_falls_silent_at_attacks_avoids_onsets(mixture):
    clip, _ = mixture
    size = np.abs(clip.stft)
    flux = np.maximum(np.diff(size, axis=1, prepend=size[:, :1]), 0).sum(axis=0)
    quiet = np.where(flux > flux.mean() + flux.std(), 0.1, 1)
    (row,) = fd.describe(clip, np.broadcast_to(quiet, (1, *clip.x.shape[1:])))
    assert row["onset"] < -0.5
    assert row["attack"] == pytest.approx(-20, abs=1.5)
    assert "avoids onsets" in row["label"]


def test_every_label_given_is_in_the_list(mixture):
    clip, masks = mixture
    maps = np.stack([*masks.values(), clip.x[0], np.zeros_like(clip.x[0])])
    for row in fd.describe(clip, maps):
        assert set(row["label"].split(", ")) - {""} <= set(LABELS)


# Numbers against their definitions


def test_hpss_is_librosas():
    magnitude = np.abs(clip_of(click_train() + chord() + noise()).stft)
    harmonic, _ = librosa.decompose.hpss(magnitude, mask=True)
    np.testing.assert_allclose(harmonic_mask(magnitude, 2), harmonic, atol=1e-5)


def test_hpss_of_silence_is_undecided_and_of_short_clips_defined():
    assert (harmonic_mask(np.zeros((9, 4), np.float32), 1) == 0.5).all()
    harmonic, _ = librosa.decompose.hpss(np.eye(9, 4, dtype=np.float32), mask=True)
    np.testing.assert_allclose(harmonic_mask(np.eye(9, 4, dtype=np.float32), 1), harmonic)


def test_sign_is_the_balance_of_positive_and_negative(mixture):
    clip, _ = mixture
    plane = np.zeros_like(clip.x[0])
    plane[3, 5], plane[9, 9] = 3, -1
    rows = fd.describe(clip, np.stack([plane, np.abs(plane), -plane]))
    assert [row["sign"] for row in rows] == pytest.approx([0.5, 1, -0.5])


def test_selectivity_is_0_for_everything_and_near_1_for_one_bin(mixture):
    clip, _ = mixture
    rows = clip.x.shape[1]
    band = np.zeros_like(clip.x[0])
    band[40] = 1
    everything, one_band = fd.describe(clip, np.stack([np.ones_like(band), band]))
    assert everything["frequency_selectivity"] == pytest.approx(0, abs=1e-6)
    assert one_band["frequency_selectivity"] == pytest.approx(1 - 1 / rows)
    assert one_band["time_selectivity"] == pytest.approx(0, abs=1e-6)


def test_scaling_a_map_changes_its_level_and_nothing_else(mixture):
    clip, masks = mixture
    chord_map = masks["chord"] - 0.01
    for scale in (1e-20, 0.1, 1e15):
        one, other = fd.describe(clip, np.stack([chord_map, np.float32(scale) * chord_map]))
        assert one["level"] - other["level"] == pytest.approx(-20 * np.log10(scale), rel=1e-4)
        for key in set(DESCRIPTORS) - {"level"}:
            assert one[key] == pytest.approx(other[key], rel=1e-3, abs=1e-6), key


def test_phase_mode_hears_the_positive_part_of_the_map(mixture):
    clip, _ = mixture
    plane = np.zeros_like(clip.x[0])
    plane[10], plane[200] = 1, -5
    (row,) = fd.describe(clip, plane[None], mode="phase")
    assert row["centroid"] == pytest.approx(10 * SR / 512)
    (row,) = fd.describe(clip, np.minimum(plane, 0)[None], mode="phase")
    assert row["label"] == "silent"


# Twins, silence, order


def test_twins_are_represented_by_the_strongest(mixture):
    clip, masks = mixture
    wobble = np.random.default_rng(1).uniform(0.95, 1.05, clip.x.shape[1:]).astype(np.float32)
    maps = np.stack([masks["chord"], 2 * masks["chord"] * wobble, masks["bass"]])
    rows = fd.describe(clip, maps, features=[7, 3, 5])
    assert [row["feature"] for row in rows] == [7, 3, 5]
    assert [row["twin_of"] for row in rows] == [3, None, None]
    assert rows[0]["rank"] == 3


def test_a_map_and_its_negative_are_no_twins(mixture):
    clip, masks = mixture
    rows = fd.describe(clip, np.stack([masks["chord"], -masks["chord"]]))
    assert [row["twin_of"] for row in rows] == [None, None]


def test_silent_features_have_no_numbers_and_come_last(mixture):
    clip, masks = mixture
    maps = np.stack([np.zeros_like(masks["bass"]), masks["bass"], masks["chord"]])
    silent, *others = fd.describe(clip, maps)
    assert (silent["label"], silent["rank"], silent["twin_of"]) == ("silent", 3, None)
    assert all(silent[key] is None for key in DESCRIPTORS)
    assert all(row[key] is not None for row in others for key in DESCRIPTORS)


def test_a_silent_clip_has_silent_features_without_a_warning():
    clip = clip_of(np.zeros(T.size))
    rows = fd.describe(clip, np.ones((2, *clip.x.shape[1:]), np.float32))
    assert [row["label"] for row in rows] == ["silent", "silent"]
    assert Listener(clip, "mask").clip == dict.fromkeys(DESCRIPTORS)


def test_a_silent_clip_in_phase_mode_sounds_as_its_map_says():
    clip = clip_of(np.zeros(T.size))
    low = np.zeros(clip.x.shape, np.float32)
    low[:, :4] = 1
    (row,) = fd.describe(clip, low, mode="phase")
    assert row["low"] == 1 and "low end" in row["label"]
    assert row["share"] is None


def test_ranks_put_what_is_unlike_the_rest_before_more_of_the_same(mixture):
    clip, masks = mixture
    rng = np.random.default_rng(2)
    alike = [masks["chord"] * rng.uniform(0.2, 1, masks["chord"].shape) for _ in range(3)]
    rows = fd.describe(clip, np.stack([*alike, masks["noise"]]).astype(np.float32))
    assert sorted(row["rank"] for row in rows) == [1, 2, 3, 4]
    assert rows[3]["rank"] <= 2


def test_a_copy_of_the_input_is_the_last_to_hear_of_all_that_sound(mixture):
    clip, masks = mixture
    rows = fd.describe(clip, np.stack([clip.x[0], *masks.values()]))
    assert rows[0]["rank"] == len(rows)


@pytest.mark.parametrize("frames", [1, 2, 3, 8])
def test_few_frames_tell_nothing_about_time(frames):
    """Two frames always correlate with the onsets or not at all, one has no course of time."""
    clip = clip_of((np.linspace(0, 1, T.size) * chord())[: 256 * (frames - 1) + 2])
    assert clip.stft.shape[1] == frames
    rng = np.random.default_rng(0)
    rows = fd.describe(clip, rng.random((20, *clip.x.shape[1:])).astype(np.float32))
    about_time = {"onset", "attack", "harmonic", "sustain", "time_selectivity"}
    for row in [*rows, Listener(clip, "mask").clip]:
        if frames < 3:
            assert {row[key] for key in about_time} == {None}
        assert (row["sustain"] is None) == (frames <= 4)  # 0.1 s are four frames
    if frames <= 4:
        told = ", ".join(row["label"] for row in rows)
        assert "onsets" not in told and "sustained" not in told


def numbers(**changes):
    row = dict.fromkeys(DESCRIPTORS, 0.0)
    return row | {"onset": 0.5, "attack": 10.0} | changes


@pytest.mark.parametrize(("frames", "onset", "wanted"), [
    (173, 0.4, "onsets"), (173, -0.3, "avoids onsets"), (45, -0.3, "avoids onsets"),
    (26, 0.4, "onsets"), (24, 0.4, ""), (24, -0.4, ""), (24, -0.41, "avoids onsets"),
    (5, 0.97, ""), (5, 0.99, "onsets"), (4, 1.0, ""), (3, -1.0, ""),
])
def test_a_correlation_that_few_frames_reach_by_chance_earns_no_label(frames, onset, wanted):
    attack = 10.0 if onset > 0 else -10.0
    row = numbers(onset=onset, attack=attack)
    assert label(row, dict.fromkeys(DESCRIPTORS), frames) == wanted


@pytest.mark.parametrize("missing", ["onset", "attack", "sustain", "harmonic", "low", "high"])
def test_a_number_that_is_missing_earns_no_label(missing):
    row = numbers(**{missing: None})
    if missing in ("onset", "attack"):
        assert label(row, dict.fromkeys(DESCRIPTORS), 173) == ""
    calm = {"sustain": 0.9, "harmonic": 0.9, "onset": 0.0, "low": 0.9} | {missing: None}
    wanted = {"low": "sustained harmonics", "attack": "sustained harmonics, low end",
              "high": "sustained harmonics, low end"}.get(missing, "low end")
    assert label(numbers(**calm), dict.fromkeys(DESCRIPTORS), 173) == wanted


def test_no_maps_give_no_rows(mixture):
    clip, _ = mixture
    assert fd.describe(clip, np.zeros((0, *clip.x.shape[1:]), np.float32)) == []


def test_rows_that_are_time_give_the_same_numbers(mixture):
    clip, masks = mixture
    other = fd.Clip(
        clip.samples, SR, fd.Frontend.from_record({**FRONTEND.to_record(), "layout": "CTF"})
    )
    (one,) = fd.describe(clip, masks["bass"][None])
    (two,) = fd.describe(other, masks["bass"].T[None])
    for key in DESCRIPTORS:
        assert one[key] == pytest.approx(two[key], rel=1e-5, abs=1e-6), key


WITH_LITTLE_MEMORY = """
import resource
import numpy as np
import fastdeconv as fd
from fastdeconv.analysis.descriptors import Listener

clip = fd.Clip(np.sin(np.arange(44100, dtype=np.float32)), 11025, fd.Frontend(sr=11025))
listener = Listener(clip, "mask", num_threads=4)
maps = np.random.default_rng(0).random((40, *clip.stft.T.shape), np.float32)
with open("/proc/self/statm") as pages:
    used = int(pages.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (20 << 20),) * 2)
try:
    listener.measure(maps)
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_too_little_memory_for_products_is_an_error_and_not_the_end_of_the_process():
    done = subprocess.run(
        [sys.executable, "-c", WITH_LITTLE_MEMORY], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "MemoryError\n"), done.stderr


def test_memory_is_looked_for_only_for_threads_that_have_work(mixture, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(descriptors, "require_product_memory", asked.append)
    clip, _ = mixture
    Listener(clip, "mask", num_threads=1000).measure(np.ones((2, *clip.stft.T.shape), np.float32))
    assert 1 <= asked[0] <= 2 + clip.stft.size // descriptors._CHUNK


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_no_bit(mixture, threads):
    clip, masks = mixture
    maps = np.stack(list(masks.values()))
    assert fd.describe(clip, maps, num_threads=threads) == fd.describe(clip, maps, num_threads=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "loud"}, "mode"),
        ({"features": [1]}, "features must be 2"),
        ({"features": [1, 1]}, "features must be 2"),
        ({"features": 2}, "features must be a list, found 2"),
        ({"features": ["a", "b"]}, "features must be 2 different ints, .* found"),
        ({"features": [0.5, 1]}, "features must be 2 different ints"),
        ({"features": [[0], [1]]}, "features must be 2 different ints"),
        ({"features": [[0], [1, 2]]}, "features cannot be read as an array"),
        ({"maps": np.zeros((2, 3, 4))}, "maps must be"),
        ({"clip": "song.wav"}, "clip must be a Clip"),
    ],
)
def test_what_does_not_fit_is_named(mixture, change, message):
    clip, _ = mixture
    arguments = {"clip": clip, "maps": np.ones((2, *clip.x.shape[1:]), np.float32), **change}
    with pytest.raises(fd.ParameterError, match=message):
        fd.describe(**arguments)


def test_cross_correlations_are_numpys():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 5001)).astype(np.float32) + 7
    b = rng.normal(size=(4, 5001)).astype(np.float32) + a[0]
    b[2] = 3
    found = cross_correlations(a, b)
    with np.errstate(invalid="ignore"):
        wanted = np.corrcoef(np.concatenate([a, b]).astype(np.float64))[:3, 3:]
    np.testing.assert_allclose(found[:, [0, 1, 3]], wanted[:, [0, 1, 3]], atol=1e-9)
    assert np.isnan(found[:, 2]).all()
