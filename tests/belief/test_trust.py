"""Trust of features against its definitions, in loops and float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.belief.trust import (
    NUMBERS,
    VERDICTS,
    agreement,
    controls_of,
    selectivity,
    trust,
    verdict,
    yes_rate,
)
from fastdeconv.errors import ParameterError

# ---- the definitions ----


def ranks(values: list[float]) -> list[float]:
    return [
        sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2
        for value in values
    ]


def pearson(a: Any, b: Any) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm else math.nan


def rho(a: Any, b: Any) -> float:
    return pearson(ranks(list(a)), ranks(list(b)))


def spans(n: int, patch: int = 16) -> list[tuple[int, int]]:
    p = min(patch, n)
    count = max(1, math.floor((n - p) / p + 0.5) + 1)
    return [(i * p, n if i == count - 1 else i * p + p) for i in range(count)]


def by_definition(
    clip: fd.Clip, net: fd.Network, control: fd.Network, layer: str, mode: str
) -> list[dict[str, float]]:
    trace, other = net.forward(clip.x), control.forward(clip.x)
    maps = fd.deconvolve(trace, layer)[:, 0].astype(np.float64)
    theirs = fd.deconvolve(other, layer)[:, 0].astype(np.float64)
    A = trace[layer].sum(axis=(1, 2), dtype=np.float64)
    B = other[layer].sum(axis=(1, 2), dtype=np.float64)
    x = clip.x[0].astype(np.float64)
    boxes = [(slice(*r), slice(*c)) for r in spans(x.shape[0]) for c in spans(x.shape[1])]

    drops = []
    for rows, cols in boxes:
        filled = clip.x.copy()
        filled[0, rows, cols] = clip.x[0].mean(axis=1, keepdims=True)[rows]
        drops.append(A - net.forward(filled)[layer].sum(axis=(1, 2), dtype=np.float64))
    d = np.array(drops).T

    level = math.sqrt((clip.samples.astype(np.float64) ** 2).mean())
    Q = np.zeros((len(A), len(A)))
    for k, sound in enumerate(fd.auralise(clip, maps[:, None].astype(np.float32), mode)):
        own = math.sqrt((sound.astype(np.float64) ** 2).mean())
        if own > 0:
            heard = fd.Clip(sound * (level / own), clip.sr, clip.frontend)
            Q[k] = net.forward(heard.x)[layer].sum(axis=(1, 2), dtype=np.float64)
    Q /= np.where(A == 0, math.nan, A)

    alive = [j for j in range(len(A)) if A[j] > 1e-6 * A.max()]
    found = []
    for k in range(len(A)):
        row = dict.fromkeys(NUMBERS, math.nan)
        P = [np.abs(maps[k])[box].mean() for box in boxes]
        X = [x[box].mean() for box in boxes]
        counts = [abs(v) > max(1e-6 * abs(A[k]), 1e-9 * abs(d[k]).max()) for v in d[k]]
        seen = [i for i in range(len(boxes)) if P[i] > 0 or counts[i]]
        if len(seen) >= 3 and any(P) and any(counts):
            size, loud = [P[i] for i in seen], [X[i] for i in seen]
            drop = [d[k][i] if counts[i] else 0.0 for i in seen]
            a, b, c = rho(size, np.abs(drop)), rho(loud, np.abs(drop)), rho(size, loud)
            row |= {"where": a, "support": rho(size, drop), "input_where": b}
            left = math.sqrt(max(0, (1 - c**2) * (1 - b**2)))
            row["beyond_input"] = (a - c * b) / left if left > 1e-6 else math.nan
        if k in alive:
            row["reactivation"] = Q[k, k]
            for name, line in (("among_sounds", Q[:, k]), ("among_features", Q[k])):
                others = [line[j] for j in alive if j != k]
                own = Q[k, k]
                row[name] = np.mean([
                    0.5 if abs(v - own) <= 1e-5 * max(abs(v), abs(own)) else float(v < own)
                    for v in others
                ])
            alike = [
                pearson(np.abs(maps[k]).ravel(), np.abs(theirs[j]).ravel())
                for j in range(len(B)) if B[j] > 1e-6 * B.max()
            ]
            row["nearest"] = 1 - max(alike)
            row["same"] = 1 - pearson(np.abs(maps[k]).ravel(), np.abs(theirs[k]).ravel())
        found.append(row)
    return found


@pytest.fixture(scope="module")
def longer(make_clip: Any) -> fd.Clip:
    """65 bins and 48 frames, which make 12 patches."""
    frontend = fd.Frontend(
        sr=8000, n_fft=128, hop_length=32, frames=48,
        scale={"type": "db", "ref": "max", "amin": 1e-5, "top_db": 80.0},
        normalize={"type": "range", "low": 0.0, "high": 1.0},
    )
    rng = np.random.default_rng(1)
    t = np.arange(1500)
    samples = np.sin(2 * np.pi * 900 / 8000 * t) * (t < 700) + 0.05 * rng.normal(size=t.size)
    samples[900:906] += 2
    return fd.Clip(samples.astype(np.float32), 8000, frontend)


@pytest.mark.parametrize("layer, mode", [
    ("pool1", "mask"), ("pool2", "wiener"), ("relu2", "phase")
])
def test_the_numbers_follow_their_definitions(
    longer: fd.Clip, make_net: Any, layer: str, mode: str
) -> None:
    net = make_net(longer.frontend, longer.x.shape)
    control = fd.randomised(net)
    wanted = by_definition(longer, net, control, layer, mode)
    maps = fd.deconvolve(net.forward(longer.x), layer)
    rows = trust(longer, net, control, layer, maps, mode)
    assert [row["feature"] for row in rows] == list(range(len(wanted)))
    for row, numbers in zip(rows, wanted):
        for name, value in numbers.items():
            if name != "steadiness":
                assert row[name] == pytest.approx(value, abs=1e-3, nan_ok=True), (row, name)
        silent = math.isnan(numbers["reactivation"])
        assert row["verdict"] == verdict(numbers, silent=silent)[0]
        assert row["verdict"] in VERDICTS and row["reason"]


def test_a_silent_feature_gets_no_number_and_no_verdict(clip: fd.Clip, make_net: Any) -> None:
    net = make_net(clip.frontend, clip.x.shape)
    arrays = {key: array.copy() for key, array in net.arrays.items()}
    arrays["conv1.weight"][2] = 0
    arrays["conv1.bias"][2] = -1
    dead = fd.Network(net.layers, arrays, net.input_shape, frontend=net.frontend)
    maps = fd.deconvolve(dead.forward(clip.x), "pool1")
    rows = trust(clip, dead, fd.randomised(dead), "pool1", maps)
    assert rows[2]["verdict"] == "silent"
    assert all(math.isnan(rows[2][name]) for name in NUMBERS)
    assert not any(math.isnan(rows[3][name]) for name in ("reactivation", "nearest"))


def test_agreement_counts_only_patches_that_are_seen() -> None:
    nan = [math.nan]
    loud = np.arange(5.0)

    def where(sizes: list[float], drops: list[float]) -> float:
        found = agreement(np.array([sizes]), loud, np.array([drops]), np.ones(1))
        return float(found["where"][0])

    # One unit: map and drop are 0 in the same places, and that is no agreement.
    np.testing.assert_equal([where([0, 0, 7, 0, 0], [0, 0, 3, 0, 0])], nan)
    np.testing.assert_equal([where([0, 0, 0, 0, 0], [1, 2, 3, 0, 0])], nan)
    np.testing.assert_equal([where([1, 2, 3, 0, 0], [0, 0, 1e-7, 0, 0])], nan)
    assert where([1, 2, 3, 0, 0], [-1, -2, -3, 0, 0]) == pytest.approx(1)
    assert where([1, 2, 3, 0, 0], [-1, -2, -3, -4, 0]) == pytest.approx(-0.2)


def test_ties_of_responses_count_half_and_silent_sounds_least() -> None:
    Q = np.array([[1.0, 3.0, 9.0], [1.0, 2.0, 9.0], [0.0, 0.0, 0.0]])
    found = selectivity(Q, np.array([False, False, False]))
    np.testing.assert_allclose(found["reactivation"], [1, 2, 0])
    np.testing.assert_allclose(found["among_sounds"], [0.75, 0.5, 0])
    np.testing.assert_allclose(found["among_features"], [0, 0.5, 0.5])
    found = selectivity(Q, np.array([False, True, True]))
    assert math.isnan(found["among_sounds"][0]) and math.isnan(found["reactivation"][1])


@pytest.mark.parametrize("numbers, word", [
    ((0.5, 0.5, 0.8, 0.75), "yes"),
    ((0.49, 0.9, 9.0, 1.0), "unsure"),
    ((0.39, 0.9, 9.0, 1.0), "no"),
    ((0.9, 0.29, 9.0, 1.0), "no"),
    ((0.9, 0.9, 0.49, 1.0), "no"),
    ((0.9, 0.9, 0.79, 1.0), "unsure"),
    ((0.9, 0.9, 9.0, 0.49), "no"),
    ((0.1, math.nan, 9.0, 1.0), "unsure"),
])
def test_the_verdict(numbers: tuple[float, ...], word: str) -> None:
    row = dict(zip(("nearest", "where", "reactivation", "among_sounds"), numbers))
    assert verdict(row)[0] == word
    assert verdict(row, silent=True)[0] == "silent"
    assert verdict(row, has_control=False) == ("unsure", "no control")


def test_an_explanation_says_how_far_to_trust_it(clip: fd.Clip, net: fd.Network) -> None:
    ex = fd.explain(clip, net, features={"pool1": [4, 1], "pool2": [0]})
    rows = ex.trust()
    assert [(row["layer"], row["feature"]) for row in rows] == [
        ("pool1", 1), ("pool1", 4), ("pool2", 0)
    ]
    control, _ = controls_of(net, clip.x)
    whole = trust(clip, net, control, "pool1", fd.explain(clip, net, "pool1").maps["pool1"])
    for name in (*NUMBERS, "verdict"):
        np.testing.assert_equal(rows[0][name], whole[1][name])
    assert rows[0]["yes_rate"] == yes_rate(whole)
    assert 0 <= rows[0]["control_yes_rate"] <= 1
    assert [row["feature"] for row in ex.trust("pool1", [4])] == [4]
    with pytest.raises(ParameterError, match="layer 'conv1' was not explained"):
        ex.trust("conv1")
    with pytest.raises(ParameterError, match="feature 3 of layer 'pool1' was not explained"):
        ex.trust("pool1", [3])


def test_the_control_of_a_bundled_network_is_its_start(
    bundled: fd.Network, song: fd.Clip, net: fd.Network, clip: fd.Clip
) -> None:
    control, other = controls_of(bundled, song.x)
    start = fd.pretrained("choi5-genre", trained=False)
    np.testing.assert_array_equal(control.arrays["conv3.weight"], start.arrays["conv3.weight"])
    assert not np.array_equal(other.arrays["conv3.weight"], start.arrays["conv3.weight"])
    assert controls_of(net, clip.x)[0] is controls_of(net, clip.x)[0]


def test_the_trained_network_is_believed_more_than_its_start(
    bundled: fd.Network, song: fd.Clip
) -> None:
    rows = fd.explain(song, bundled, "pool5").trust()
    assert rows[0]["yes_rate"] > 0.3
    assert rows[0]["control_yes_rate"] < 0.1


def test_controls_and_maps_that_do_not_fit_are_refused(
    clip: fd.Clip, net: fd.Network, make_net: Any
) -> None:
    maps = fd.deconvolve(net.forward(clip.x), "pool1")
    other = make_net(clip.frontend, clip.x.shape, classes=5)
    with pytest.raises(ParameterError, match="must have the same layers"):
        trust(clip, net, other, "pool1", maps)
    with pytest.raises(ParameterError, match="maps must be of all features of layer 'pool1'"):
        trust(clip, net, None, "pool1", maps[:2])
    start = np.ones((6, 16, 12), np.float32)
    with pytest.raises(ParameterError, match="started from an array"):
        fd.explain(clip, net, "pool1", start=start).trust()
    rows = trust(clip, net, None, "pool1", maps)
    assert {row["reason"] for row in rows if row["verdict"] != "silent"} == {"no control"}
