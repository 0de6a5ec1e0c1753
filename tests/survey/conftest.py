"""A small network, and collections of short sounds."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

import fastdeconv as fd

RATE = 8000
DEADLY_RATE = 12345
ONCE = "SOUNDFILE_SHIM_ONCE"
DEADLY = ["sound03a.wav", "sound08a.wav"]
FRAMES = 20


@functools.cache
def network(*, frames: int | None = FRAMES, seed: int = 0) -> fd.Network:
    """Two convolutions, a pool, two classes; windows of 0.076 s."""
    rng = np.random.default_rng(seed)
    return fd.Network(
        [
            {"type": "conv2d", "name": "conv1", "padding": 1}, {"type": "relu", "name": "relu1"},
            {"type": "max_pool2d", "name": "pool1", "kernel_size": 2},
            {"type": "conv2d", "name": "conv2"},
        ],
        {
            "conv1.weight": rng.standard_normal((4, 1, 3, 3)) + 0.5, "conv1.bias": np.zeros(4),
            "conv2.weight": rng.standard_normal((2, 4, 3, 3)), "conv2.bias": np.zeros(2),
        },
        input_shape=(1, 17, frames),
        frontend=fd.Frontend(sr=RATE, n_fft=32, hop_length=32, frames=frames),
        classes=["calm", "loud"],
    )


def write_sounds(folder: Path, count: int, *, windows: float = 3.4) -> list[str]:
    """Noise with bursts, of slightly different lengths; returns their names, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number in range(count):
        rng = np.random.default_rng(number)
        size = int(windows * FRAMES * 32) + 37 * number
        sound = rng.standard_normal(size) * rng.uniform(0.02, 0.3)
        sound[size // 3 : size // 2] *= 3
        names.append(f"sound{number:02}.wav")
        soundfile.write(folder / names[-1], sound, RATE)
    return names


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder of twelve tracks, which are several shards."""
    write_sounds(tmp_path / "sounds", 12)
    return tmp_path / "sounds"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., fd.Survey]:
    """`fd.survey` in threads of this process, which takes no time to begin."""

    def run(files: object, out: str = "out", net: fd.Network | None = None, **how) -> fd.Survey:
        with ThreadPoolExecutor(2) as executor:
            how = {"executor": executor, "workers": 2, **how}
            return fd.survey(files, net or network(), tmp_path / out, **how)

    return run


def use_shims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that are started find the soundfile that ends them, see there."""
    shims = str(Path(__file__).parent / "shims")
    monkeypatch.syspath_prepend(shims)
    monkeypatch.setenv("PYTHONPATH", shims, prepend=os.pathsep)


@pytest.fixture
def deadly(sounds: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A collection with two tracks that kill; processes that are started find them deadly."""
    for name in DEADLY:
        soundfile.write(sounds / name, np.zeros(2000), DEADLY_RATE)
    use_shims(monkeypatch)
    return sounds


def tables(folder: Path) -> dict[str, bytes]:
    """The files of a survey that do not depend on where it is and how it was made."""
    names = ["errors.csv", *sorted(path.name for path in folder.glob("*.parquet"))]
    found = {name: (folder / name).read_bytes() for name in names}
    return found | {path.name: path.read_bytes() for path in sorted(folder.glob("shards/*"))}
