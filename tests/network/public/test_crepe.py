"""The networks of torchcrepe, beside the module of the package itself."""

from __future__ import annotations

import importlib.util
import sys
import types

import numpy as np
import pytest

import fastdeconv as fd

# The full network takes seconds and differs in its widths alone.
NAMES = ["crepe-tiny", "crepe-full"]


@pytest.fixture
def module(monkeypatch):
    """torchcrepe/model.py, without the package around it, which wants torchaudio."""
    torch = pytest.importorskip("torch")
    stub = types.ModuleType("torchcrepe")
    stub.PITCH_BINS = 360
    monkeypatch.setitem(sys.modules, "torchcrepe", stub)

    def module(capacity):
        folder = importlib.machinery.PathFinder.find_spec("torchcrepe", sys.path)
        place = f"{folder.submodule_search_locations[0]}/model.py"
        spec = importlib.util.spec_from_file_location("crepe_model", place)
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        made = loaded.Crepe(capacity)
        file = f"{folder.submodule_search_locations[0]}/assets/{capacity}.pth"
        made.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        return made.eval()

    return module


@pytest.mark.parametrize("name", NAMES)
def test_every_pool_has_the_values_of_the_module(opened, demo, close, module, name):
    net = opened(name)
    import torch

    theirs = module(name.removeprefix("crepe-"))
    clip = fd.load_clip(demo, net.frontend, offset=2.0)
    trace = net.forward(clip.x)
    with torch.no_grad():
        x = torch.tensor(clip.x[0])
        y = x[:, None, :, None]
        for i in range(1, 7):
            padding = (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32)
            conv, bn = getattr(theirs, f"conv{i}"), getattr(theirs, f"conv{i}_BN")
            y = theirs.layer(y, conv, bn, padding)
            close(trace[f"pool{i}"], y.numpy())
        wanted = theirs(x).numpy()
    close(1 / (1 + np.exp(-trace["pitch"])), wanted)


def test_the_input_is_core_pys(opened, demo, samples, close):
    net = opened("crepe-tiny")
    import torch

    whole = torch.tensor(samples(net))
    for start in (0, 32000):
        frame = whole[start : start + 1024].clone()
        # core.py, preprocess
        frame -= frame.mean()
        frame /= torch.max(torch.tensor(1e-10), frame.std())
        close(fd.Clip(whole.numpy()[start:], 16000, net.frontend).x, frame.numpy())


def test_a_tone_has_its_pitch(opened):
    net = opened("crepe-tiny")
    tone = np.sin(2 * np.pi * 440 * np.arange(1024) / 16000).astype(np.float32)
    pitch = net.forward(fd.Clip(tone, 16000, net.frontend).x)["pitch"].ravel()
    hz = float(net.classes[int(pitch.argmax())].removesuffix(" Hz"))
    assert abs(1200 * np.log2(hz / 440)) < 30


def test_features_are_heard(opened, demo):
    net = opened("crepe-tiny")
    explained = fd.explain(demo, net, layers="pool2", offset=2.0)
    assert max(np.abs(explained.sound("pool2", k)).max() for k in range(16)) > 1e-3
