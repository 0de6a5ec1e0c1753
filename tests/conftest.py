"""For all tests: no verdict depends on how busy the machine is, how they were begun, or chance."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# Background jobs of a shell ignore Ctrl-C, nohup a hang-up; so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


SURVEY_SR = 8000


def _survey_network():
    """Six features: 0 and 1 fire as one, 2 never fires."""
    import numpy as np

    import fastdeconv as fd

    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 1, 3, 3))
    weight[1] = weight[0]
    weight[2] = 0
    return fd.Network(
        [
            {"type": "conv2d", "name": "conv1", "padding": "same"},
            {"type": "relu", "name": "relu1"},
            {"type": "max_pool2d", "name": "pool1", "kernel_size": 2},
            {"type": "global_avg_pool2d", "name": "mean"}, {"type": "flatten", "name": "flat"},
            {"type": "linear", "name": "fc"},
        ],
        {"conv1.weight": weight, "conv1.bias": np.zeros(6),
         "fc.weight": rng.standard_normal((2, 6)), "fc.bias": np.zeros(2)},
        (1, None, None),
        frontend=fd.Frontend(sr=SURVEY_SR, n_fft=256, hop_length=128, frames=126),
        name="tiny", classes=["rock", "jazz"],
    )


@pytest.fixture(scope="session")
def make_survey():
    """A function that surveys seven short songs: (folder, names of the songs) -> the survey."""
    pytest.importorskip("pyarrow")
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import soundfile

    import fastdeconv as fd

    def make(folder, names=tuple(f"song {i}.wav" for i in range(7)), network=None, **how):
        music = folder / "music"
        for i, name in enumerate(names):
            rng = np.random.default_rng(i)
            t = np.arange(3 * SURVEY_SR) / SURVEY_SR
            sound = 0.02 * rng.standard_normal(t.size)
            sound += 0.2 * np.sin(2 * np.pi * rng.uniform(100, 2000) * t) * (np.sin(9 * t) > 0)
            sound[rng.integers(500, 1500) :: SURVEY_SR // 3] += 0.7
            path = music / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, sound.astype(np.float32), SURVEY_SR)
        with ThreadPoolExecutor(1) as executor:
            return fd.survey(
                music, network or _survey_network(), folder / "out", "pool1", executor=executor,
                **how,
            )

    return make


@pytest.fixture(scope="session")
def pitch_tracker():
    """A network of frames of 256 samples, each normalised by itself."""
    import numpy as np

    import fastdeconv as fd

    rng = np.random.default_rng(3)
    layers, arrays, inputs = [], {}, 1
    for i, (outputs, stride) in enumerate(((12, 2), (10, 1)), start=1):
        layers += [
            {"type": "pad", "name": f"pad{i}", "padding": [[0, 0], [7, 8]]},
            {"type": "conv2d", "name": f"conv{i}", "stride": [1, stride]},
            {"type": "relu", "name": f"relu{i}"},
            {"type": "batch_norm2d", "name": f"norm{i}"},
            {"type": "max_pool2d", "name": f"pool{i}", "kernel_size": [1, 2]},
        ]
        arrays[f"conv{i}.weight"] = 0.3 * rng.standard_normal((outputs, inputs, 1, 16))
        arrays[f"conv{i}.bias"] = 0.1 * rng.standard_normal(outputs)
        for name in ("weight", "running_var"):
            arrays[f"norm{i}.{name}"] = rng.uniform(0.5, 2, outputs)
        for name in ("bias", "running_mean"):
            arrays[f"norm{i}.{name}"] = 0.1 * rng.standard_normal(outputs)
        inputs = outputs
    layers += [{"type": "flatten", "name": "flat"}, {"type": "linear", "name": "fc"}]
    arrays["fc.weight"] = rng.standard_normal((3, inputs * 32))
    arrays["fc.bias"] = np.zeros(3)
    return fd.Network(
        layers, arrays, (1, 1, 256), name="pitch", classes=["low", "middle", "high"],
        output="sigmoid",
        frontend=fd.Frontend(
            kind="waveform", sr=SURVEY_SR, n_fft=64, hop_length=16, frames=256,
            normalize={"type": "standardize", "per": "clip"},
        ),
    )


@pytest.fixture
def forward_shapes(monkeypatch):
    """The shapes of what networks are run on, from now on."""
    import fastdeconv as fd

    shapes, real = [], fd.Network.forward

    def forward(net, x):
        shapes.append(x.shape)
        return real(net, x)

    monkeypatch.setattr(fd.Network, "forward", forward)
    return shapes
