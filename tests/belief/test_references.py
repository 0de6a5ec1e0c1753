"""The package beside plain float64 implementations of all definitions, on many random cases, and
beside ways to get them wrong, each of which must show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.belief import metrics, trust
from fastdeconv.belief.grid import Grid, Patches, as_fill
from fastdeconv.belief.rules import Rules, _bilinear, blurred
from fastdeconv.belief.targets import Target
from fastdeconv.deconvnet.scores import log_odds_slopes

from . import reference
from .reference import WRONG, Net

Array = np.ndarray[Any, Any]
Case = dict[str, Any]
Random = np.random.Generator


class Definition(NamedTuple):
    """What is compared: cases, the package, and the reference, right or wrong."""

    make: Callable[[Random], Case]
    ours: Callable[[Case], Any]
    reference: Callable[[Case, str], Any]
    cases: int = 40
    tolerance: float = 1e-9
    """Of the largest value of the reference."""


def flat(value: Any) -> Array:
    if isinstance(value, Mapping):
        value = [value[name] for name in sorted(value)]
    if isinstance(value, str):
        value = [ord(letter) for letter in value.ljust(8)]
    return np.asarray(value, np.float64).ravel()


def agree(definition: Definition, case: Case, ours: Any, wrong: str) -> bool:
    with np.errstate(all="ignore"):
        theirs = flat(definition.reference(case, wrong))
    mine = flat(ours)
    if mine.shape != theirs.shape:
        return False
    largest = float(np.abs(theirs[np.isfinite(theirs)]).max(initial=1.0))
    limit = definition.tolerance * largest
    return np.allclose(mine, theirs, rtol=0, atol=limit, equal_nan=True)


# ---- cases ----


def kinds(rng: Random) -> Case:
    kind = str(rng.choice(["softmax", "sigmoid"]))
    classes, places = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    z = rng.normal(size=(classes, places)) * 3
    return {"kind": kind, "z": z, "c": int(rng.integers(classes))}


def target(case: Case) -> Target:
    return Target("c", case["c"], case["kind"])


def scores(case: Case) -> Array:
    return np.asarray(case["z"])[:, :, None]


def spans_case(rng: Random) -> Case:
    patch = int(rng.integers(1, 20))
    return {
        "n": int(rng.integers(1, 70)), "patch": patch, "stride": int(rng.integers(1, patch + 1))
    }


def inputs(rng: Random) -> Case:
    return {"x": rng.integers(-8, 9, size=(int(rng.integers(1, 3)), 7, 9)) / 4}


def fill(name: str) -> Callable[[Case], Array]:
    return lambda case: as_fill(Grid(case["x"].astype(np.float32), "CFT"), name)


def spread_case(rng: Random) -> Case:
    shape = int(rng.integers(5, 30)), int(rng.integers(5, 30))
    patch = int(rng.integers(2, 9)), int(rng.integers(2, 9))
    stride = tuple(int(rng.integers(1, p + 1)) for p in patch)
    patches = Patches.of(shape, patch, stride)
    return {"shape": shape, "patches": patches, "drops": rng.normal(size=patches.shape)}


def agreement_case(rng: Random) -> Case:
    n = int(rng.integers(3, 20))
    P = rng.integers(0, 5, size=n) * (rng.random(n) < 0.7) * 1.0
    d = rng.integers(-3, 4, size=n) * (rng.random(n) < 0.7) + 1e-8 * rng.normal(size=n)
    return {"P": P, "d": d, "X": rng.integers(0, 6, size=n) / 2, "A": float(rng.random() * 5)}


def selectivity_case(rng: Random) -> Case:
    n = int(rng.integers(1, 7))
    Q = rng.integers(0, 4, size=(n, n)) * (1 + 1e-6 * rng.random((n, n)))
    return {"Q": Q, "silent": rng.random(n) < 0.2}


def distance_case(rng: Random) -> Case:
    K, shape = int(rng.integers(1, 6)), (6, 5)
    maps, others = (
        rng.normal(size=(K, *shape)) * (rng.random((K, *shape)) < 0.5) for _ in range(2)
    )
    A, B = (rng.random(K) * (rng.random(K) < 0.8) for _ in range(2))
    maps[A == 0], others[B == 0] = 0, rng.normal(size=shape)
    return {"maps": maps, "others": others, "A": A, "B": B}


class _Control(NamedTuple):
    """As much of a `trust.Subject` as distances take."""

    others: Array
    B: Array

    @property
    def grid(self) -> Grid:
        return Grid(np.zeros((1, 6, 5), np.float32), "CFT")

    def maps(self, layer: str) -> Array:
        return self.others[:, None]

    def activations(self, layer: str) -> Array:
        return self.B


def distances(case: Case) -> Array:
    A = case["A"]
    found = trust._distances(
        _Control(case["others"], case["B"]), "",  # type: ignore[arg-type]
        case["maps"], A <= 1e-6 * A.max(),
    )
    return np.stack(found, axis=1)


def verdict_case(rng: Random) -> Case:
    names = "nearest", "where", "reactivation", "among_sounds"
    steps = [0.1, 0.3, 0.35, 0.4, 0.45, 0.5, 0.75, 0.8, 0.9, 1.2]
    row = {
        name: math.nan if rng.random() < 0.05 else float(rng.choice(steps[rng.integers(4) :]))
        for name in names
    }
    return {"row": row, "silent": bool(rng.random() < 0.1)}


# Whole numbers over powers of two: exact in float32 too, so that what is largest, or positive,
# is the same in both.


def network_case(rng: Random) -> Case:
    channels, classes = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    shape = channels, int(rng.integers(8, 30)), int(rng.integers(8, 30))

    def eighths(*size: int) -> Array:
        return rng.integers(-8, 9, size=size) / 8

    net = Net(
        eighths(3, channels, 3, 3), eighths(3) / 4, eighths(4, 3, 3, 3), eighths(4) / 4,
        eighths(classes, 4), eighths(classes),
    )
    x = rng.integers(0, 17, size=shape) / 16
    x[0, 0, 0] = 0
    layers: list[dict[str, Any]] = []
    for name in "12":
        layers += [
            {"type": "conv2d", "name": f"conv{name}", "padding": 1},
            {"type": "relu", "name": f"relu{name}"},
            {"type": "max_pool2d", "name": f"pool{name}", "kernel_size": 2},
        ]
    layers += [
        {"type": "global_avg_pool2d", "name": "mean"}, {"type": "flatten", "name": "flat"},
        {"type": "linear", "name": "fc"},
    ]
    arrays = {
        "conv1.weight": net.weight1, "conv1.bias": net.bias1, "conv2.weight": net.weight2,
        "conv2.bias": net.bias2, "fc.weight": net.weight, "fc.bias": net.bias,
    }
    return {
        "net": net, "network": fd.Network(layers, arrays, shape), "x": x + 0.25,
        "kind": str(rng.choice(["softmax", "sigmoid"])), "c": int(rng.integers(classes)),
        "rule": str(rng.choice(["guided", "deconvnet"])),
    }


_STEPS = 8  # a power of two


def rule(method: str) -> Callable[[Case], Array]:
    def ours(case: Case) -> Array:
        trace = case["network"].forward(case["x"])
        rules = Rules(trace, Grid(trace.x, "CFT"), [target(case)], _STEPS)
        return rules.maps(case["rule"] if method == "rule" else method)[0]

    return ours


def given(case: Case) -> tuple[Net, str, Array, int]:
    return case["net"], case["kind"], case["x"], case["c"]


def bilinear_case(rng: Random) -> Case:
    h, w = (int(n) for n in rng.integers(1, 9, size=2))
    return {
        "a": rng.normal(size=(h, w)),
        "size": (h * int(rng.integers(1, 4)) + 1, w * int(rng.integers(1, 4)) + 1),
    }


def blur_case(rng: Random) -> Case:
    shape = int(rng.integers(1, 40)), int(rng.integers(1, 40))
    return {
        "e": rng.normal(size=shape),
        "method": str(rng.choice(["integrated_gradients", "guided", "deconvnet", "cam"])),
    }


def map_case(rng: Random) -> Case:
    """With ties, and now and then without anything positive."""
    shape = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    e = rng.integers(-3, 4, size=shape) * float(rng.choice([0.5, 1, 2]))
    return {"e": e - 9 if rng.random() < 0.1 else e * (rng.random() < 0.95)}


def sound_case(rng: Random) -> Case:
    case = kinds(rng)
    shape = case["z"].shape
    z, near = case["z"], rng.random() < 0.1
    kept = z if near else z + rng.normal(size=shape)
    return {**case, "kept": kept, "left": z + rng.normal(size=shape)}


@cache
def clip() -> fd.Clip:
    """113 bins and 48 frames: 21 patches, of which the last ones reach further."""
    frontend = fd.Frontend(
        sr=8000, n_fft=224, hop_length=32, frames=48,
        scale={"type": "db", "ref": "max", "amin": 1e-5, "top_db": 80.0},
        normalize={"type": "range", "low": 0.0, "high": 1.0},
    )
    rng = np.random.default_rng(1)
    t = np.arange(1500)
    samples = np.sin(2 * np.pi * 900 / 8000 * t) * (t < 700) + 0.05 * rng.normal(size=t.size)
    return fd.Clip(samples.astype(np.float32), 8000, frontend)


def flipping_case(rng: Random) -> Case:
    case = network_case(rng)
    while case["x"].shape[0] > 1:
        case = network_case(rng)
    net, sound = case["net"], clip()
    network = fd.Network(
        case["network"].layers, case["network"].arrays, sound.x.shape, frontend=sound.frontend
    )
    # The values of patches are small and whole, so that many are equal.
    e = np.zeros(sound.x.shape[1:])
    for place in reference.boxes(e.shape):
        e[place] = rng.integers(-2, 3)
    x = sound.x.astype(np.float64)
    z = net.scores(x)
    tried = metrics.Trial(sound, network, z[:, :, None]).tried(e)
    known: dict[bytes, Array] = {}

    def scores_of(values: Array) -> Array:
        key = values.tobytes()
        if key not in known:
            known[key] = net.scores(values)
        return known[key]

    return {**case, "z": z, "e": e, "x": x, "tried": tried, "scores": scores_of}


def flipping_ours(case: Case) -> dict[str, float]:
    numbers = case["tried"].numbers(target(case), scores(case))
    return {f"{name}{end}": numbers[f"{name}{end}"] for name in ("srg", "morf", "lerf")
            for end in ("", "_min")}


def flipping_theirs(case: Case, wrong: str) -> dict[str, float]:
    found = {}
    for how, end in (("band_mean", ""), ("min", "_min")):
        numbers = reference.flipping(
            case["scores"], case["kind"], case["x"], case["e"], case["c"], how, wrong
        )
        found |= {f"{name}{end}": value for name, value in numbers.items()}
    return found


def energy_case(rng: Random) -> Case:
    return {"e": rng.normal(size=clip().stft.shape)}


def energy_ours(case: Case) -> float:
    sound = clip()
    network = fd.Network(
        [{"type": "global_avg_pool2d", "name": "mean"}], {}, sound.x.shape,
        frontend=sound.frontend,
    )
    trial = metrics.Trial(sound, network, np.zeros((1, 1, 1)))
    return trial.tried(case["e"]).own.energy


DEFINITIONS: dict[str, Definition] = {
    "spans": Definition(
        spans_case,
        lambda c: Patches.of((c["n"], 9), (c["patch"], 9), (c["stride"], 9)).bins,
        lambda c, wrong: reference.spans(c["n"], c["patch"], c["stride"], wrong), cases=200,
    ),
    "band mean": Definition(
        inputs, fill("band_mean"), lambda c, wrong: reference.band_mean(c["x"], wrong),
        tolerance=1e-6,
    ),
    "silence": Definition(
        inputs, fill("min"), lambda c, wrong: reference.silence(c["x"], wrong), tolerance=1e-6,
    ),
    "log odds": Definition(
        kinds, lambda c: target(c).score(scores(c)),
        lambda c, wrong: reference.log_odds(c["kind"], c["z"], c["c"], wrong), cases=100,
    ),
    "probability": Definition(
        kinds, lambda c: target(c).probability(scores(c)),
        lambda c, wrong: reference.probability(c["kind"], c["z"], c["c"], wrong), cases=100,
    ),
    "slopes": Definition(
        kinds, lambda c: log_odds_slopes(c["kind"], scores(c), [c["c"]])[0],
        lambda c, wrong: reference.slopes(c["kind"], c["z"], c["c"], wrong), cases=100,
    ),
    "spread": Definition(
        spread_case, lambda c: c["patches"].spread(c["drops"].ravel()),
        lambda c, wrong: reference.spread(
            c["shape"], c["patches"].bins, c["patches"].frames, c["drops"], wrong
        ),
    ),
    "agreement": Definition(
        agreement_case,
        lambda c: trust.agreement(c["P"][None], c["X"], c["d"][None], np.array([c["A"]])),
        lambda c, wrong: reference.agreement(c["P"], c["X"], c["d"], c["A"], wrong), cases=150,
    ),
    "selectivity": Definition(
        selectivity_case, lambda c: trust.selectivity(c["Q"], c["silent"]),
        lambda c, wrong: _columns(
            reference.selectivity(c["Q"], c["silent"], k, wrong) for k in range(len(c["Q"]))
        ),
        cases=60,
    ),
    "distance": Definition(
        distance_case, distances,
        lambda c, wrong: reference.distance(c["maps"], c["others"], c["A"], c["B"], wrong),
        tolerance=1e-5,
    ),
    "verdict": Definition(
        verdict_case, lambda c: trust.verdict(c["row"], silent=c["silent"])[0],
        lambda c, wrong: reference.verdict(c["row"], silent=c["silent"], wrong=wrong), cases=300,
    ),
    "integrated gradients": Definition(
        network_case, rule("integrated_gradients"),
        lambda c, wrong: reference.integrated_gradients(*given(c), _STEPS, wrong),
        cases=10, tolerance=1e-5,
    ),
    "gradient x deviation": Definition(
        network_case, rule("gradient_x_deviation"),
        lambda c, wrong: reference.gradient_x_deviation(*given(c), wrong), cases=20,
        tolerance=1e-5,
    ),
    "cam": Definition(
        network_case, rule("cam"), lambda c, wrong: reference.cam(*given(c), wrong), cases=20,
        tolerance=1e-5,
    ),
    "bilinear": Definition(
        bilinear_case, lambda c: _bilinear(c["a"][None], c["size"])[0],
        lambda c, wrong: reference.bilinear(c["a"], c["size"], wrong), cases=20,
    ),
    "one at the class": Definition(
        network_case, rule("rule"),
        lambda c, wrong: reference.one_at_the_class(*given(c), c["rule"], wrong), cases=20,
        tolerance=1e-5,
    ),
    "occlusion": Definition(
        network_case, rule("occlusion"), lambda c, wrong: reference.occlusion(*given(c), wrong),
        tolerance=1e-5,
    ),
    "blur": Definition(
        blur_case, lambda c: blurred(c["method"], c["e"]),
        lambda c, wrong: reference.blurred(c["e"], c["method"], wrong), cases=12,
    ),
    "flipping": Definition(
        flipping_case, flipping_ours, flipping_theirs, cases=4, tolerance=1e-4
    ),
    "own mask": Definition(
        map_case, lambda c: metrics.own_mask(c["e"]),
        lambda c, wrong: reference.own_mask(c["e"], wrong),
    ),
    "top mask": Definition(
        map_case, lambda c: metrics.top_mask(c["e"]),
        lambda c, wrong: reference.top_mask(c["e"], wrong), cases=100,
    ),
    "sound": Definition(
        sound_case,
        lambda c: {
            name: value for name, value in metrics._of_sound(
                target(c), scores(c),
                metrics._Heard(c["kept"][:, :, None], c["left"][:, :, None], 0.0),
            ).items() if name != "energy"
        },
        lambda c, wrong: reference.of_the_sound(
            c["kind"], c["z"], c["kept"], c["left"], c["c"], wrong
        ),
        cases=100,
    ),
    "energy": Definition(
        energy_case, energy_ours,
        lambda c, wrong: reference.energy(clip().stft, reference.own_mask(c["e"]), wrong),
        cases=3, tolerance=1e-5,
    ),
    "sps": Definition(
        map_case, lambda c: metrics.sparseness(c["e"]),
        lambda c, wrong: reference.sps(c["e"], wrong),
    ),
    "comp": Definition(
        map_case, lambda c: metrics.complexity(c["e"]),
        lambda c, wrong: reference.comp(c["e"], wrong),
    ),
}


def _columns(rows: Iterator[dict[str, float]]) -> dict[str, list[float]]:
    every = list(rows)
    return {name: [row[name] for row in every] for name in every[0]}


@cache
def known(name: str) -> list[tuple[Case, Any]]:
    """Cases, with what the package says of them."""
    definition, rng = DEFINITIONS[name], np.random.default_rng(0)
    cases = [definition.make(rng) for _ in range(definition.cases)]
    return [(case, definition.ours(case)) for case in cases]


def test_every_definition_is_here() -> None:
    assert DEFINITIONS.keys() == WRONG.keys()


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_package_follows_the_definition(name: str) -> None:
    for i, (case, ours) in enumerate(known(name)):
        assert agree(DEFINITIONS[name], case, ours, ""), (i, ours, case)


@pytest.mark.parametrize("name, wrong", [(n, w) for n, wrongs in WRONG.items() for w in wrongs])
def test_a_wrong_variant_would_show(name: str, wrong: str) -> None:
    assert not all(agree(DEFINITIONS[name], case, ours, wrong) for case, ours in known(name))
