"""Small networks and clips for questions of belief."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd

FRAMES = 24


def _clip(layout: str) -> fd.Clip:
    frontend = fd.Frontend(
        sr=8000, n_fft=64, hop_length=32, frames=FRAMES, layout=layout,
        scale={"type": "db", "ref": "max", "amin": 1e-5, "top_db": 80.0},
        normalize={"type": "range", "low": 0.0, "high": 1.0},
    )
    rng = np.random.default_rng(0)
    t = np.arange(760)
    samples = 0.5 * np.sin(2 * np.pi * 1000 / 8000 * t) + 0.02 * rng.normal(size=t.size)
    samples[200:210] += 1
    samples[500:505] -= 1
    return fd.Clip(samples.astype(np.float32), 8000, frontend)


def _net(
    frontend: fd.Frontend, shape: tuple[int, ...], *, classes: int = 3, seed: int = 0,
    ends: str = "mean", output: str | None = "softmax",
) -> fd.Network:
    """Two convolutions with pools, and scores of classes: `ends` "mean", or "frames"."""
    rng = np.random.default_rng(seed)
    arrays = {
        "conv1.weight": rng.normal(size=(6, shape[0], 3, 3)) / 2,
        "conv1.bias": rng.normal(size=6) / 10,
        "conv2.weight": rng.normal(size=(8, 6, 3, 3)) / 5,
        "conv2.bias": rng.normal(size=8) / 10,
    }
    layers: list[dict[str, Any]] = []
    for name in "12":
        layers += [
            {"type": "conv2d", "name": f"conv{name}", "padding": 1},
            {"type": "relu", "name": f"relu{name}"},
            {"type": "max_pool2d", "name": f"pool{name}", "kernel_size": 2},
        ]
    if ends == "frames":
        layers.append({"type": "conv2d", "name": "scores"})
        arrays["scores.weight"] = rng.normal(size=(classes, 8, 1, 1))
        arrays["scores.bias"] = rng.normal(size=classes) / 2
    else:
        layers += [
            {"type": "global_avg_pool2d", "name": "mean"}, {"type": "flatten", "name": "flat"},
            {"type": "linear", "name": "fc"},
        ]
        arrays["fc.weight"] = rng.normal(size=(classes, 8))
        arrays["fc.bias"] = rng.normal(size=classes) / 2
    return fd.Network(
        layers, arrays, shape, frontend=frontend, classes=[f"c{i}" for i in range(classes)],
        output=output,
    )


@pytest.fixture(scope="session")
def make_clip() -> Callable[[str], fd.Clip]:
    """``make_clip(layout)``: a tone with clicks, 33 bins and 24 frames."""
    return _clip


@pytest.fixture(scope="session")
def make_net() -> Callable[..., fd.Network]:
    """``make_net(frontend, shape, classes=3, seed=0, ends="mean", output="softmax")``"""
    return _net


@pytest.fixture(scope="session")
def clip() -> fd.Clip:
    return _clip("CFT")


@pytest.fixture(scope="session")
def net(clip: fd.Clip) -> fd.Network:
    return _net(clip.frontend, clip.x.shape)


@pytest.fixture(scope="session")
def bundled() -> fd.Network:
    return fd.pretrained("choi5-genre")


@pytest.fixture(scope="session")
def song(bundled: fd.Network) -> fd.Clip:
    assert bundled.frontend is not None
    path = importlib.resources.files("fastdeconv") / "data" / "demo.flac"
    return fd.load_clip(str(path), bundled.frontend)
