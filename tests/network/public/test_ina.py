"""The networks of inaSpeechSegmenter, beside their Keras files computed with PyTorch."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.network.public.finding import find_files
from fastdeconv.network.public.recipes import recipe

NAMES = ["ina-speech-music", "ina-speech-music-noise", "ina-gender"]


def keras_layers(name):
    """The layers of the file with their arrays."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(find_files(recipe(name))[0].place) as file:
        config = json.loads(file.attrs["model_config"])["config"]["layers"]
        for layer in config:
            own = layer["config"]
            group = file["model_weights"][own["name"]]
            names = [n.decode() if isinstance(n, bytes) else n for n in group.attrs["weight_names"]]
            yield layer["class_name"], own, [np.array(group[n]) for n in names]


def run_keras(name, patch):
    """The value of every layer for a patch (rows, bands), axes as in Keras."""
    torch = pytest.importorskip("torch")
    x = torch.tensor(patch)[None]
    for kind, own, arrays in keras_layers(name):
        arrays = [torch.tensor(array) for array in arrays]
        if kind == "Reshape":
            x = x[..., None]
        elif kind == "Conv2D":
            assert own["padding"] == "valid" and own["strides"] == [1, 1]
            kernel, bias = arrays
            x = torch.conv2d(x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), bias)
            x = x.permute(0, 2, 3, 1)
        elif kind == "BatchNormalization":
            gamma, beta, mean, variance = arrays
            x = (x - mean) / torch.sqrt(variance + own["epsilon"]) * gamma + beta
        elif kind == "MaxPooling2D":
            assert own["pool_size"] == own["strides"]
            sizes = own["pool_size"]
            x = x.permute(0, 3, 1, 2)
            if own["padding"] == "same":
                short = [-n % size for n, size in zip(x.shape[2:], sizes)]
                sides = [n for axis in (1, 0) for n in (short[axis] // 2, -(-short[axis] // 2))]
                x = torch.nn.functional.pad(x, sides, value=-torch.inf)
            x = torch.max_pool2d(x, sizes, sizes).permute(0, 2, 3, 1)
        elif kind == "Flatten":
            x = x.flatten(1)
        elif kind == "Dense":
            x = x @ arrays[0] + arrays[1]
        elif kind != "Dropout":
            assert (kind, own["activation"]) == ("Activation", "relu")
            x = x.relu()
        if kind == "Dense" and own["activation"] == "softmax":
            x = torch.softmax(x, dim=1)
        yield own["name"], x[0].numpy()


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_has_the_values_of_the_keras_file(opened, demo, close, name):
    net = opened(name)
    clip = fd.load_clip(demo, net.frontend, offset=3.0)
    trace = net.forward(clip.x)
    compared = 0
    for layer, wanted in run_keras(name, clip.x[0]):
        if wanted.ndim == 3:
            close(trace[layer], wanted.transpose(2, 0, 1))
        elif not layer.startswith("flatten"):
            last = f"{layer}.activation"
            known = [other.name for other in net.layers]
            close(trace[last if last in known else layer], wanted)
        compared += 1
    assert compared > 30


def sidekit_patch(samples, bands):
    """The patch of the package: sidekit_mfcc.py with its defaults, segmenter.py, _get_patches."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160][:68].astype(np.float64)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(frames * np.hanning(400), 512)) ** 2
    mel = np.log(power @ sidekit_bands().T)[:, :bands]
    return (mel - mel.mean()) / mel.std()


def sidekit_bands():
    """trfbank(16000, 512, 100, 8000, 0, 24)"""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (100, 8000))
    edges = 700 * (10 ** (np.linspace(low, high, 26) / 2595) - 1)
    bank = np.zeros((24, 257))
    hz = np.arange(512) / 512 * 16000
    for row, low, middle, high in zip(bank, edges, edges[1:], edges[2:]):
        height = 2 / (high - low)
        first, centre, end = (int(f * 512 // 16000) + 1 for f in (low, middle, high))
        rising, falling = np.arange(first, centre), np.arange(centre, min(end, 512) - 1)
        row[rising] = height / (middle - low) * (hz[rising] - low)
        row[falling] = height / (high - middle) * (high - hz[falling])
    return bank


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_the_packages(opened, samples, close, name):
    net = opened(name)
    heard = samples(net)[48000:]
    found = fd.Clip(heard, 16000, net.frontend).x[0]
    # Its windows lie at the beginning of a transform, ours in the middle of it.
    wanted = sidekit_patch(heard[56:], found.shape[1])
    # The demo has nothing in the uppermost bands but what float32 rounds.
    close(found, wanted, 4e-3)
    assert np.median(np.abs(found - wanted)) < 2e-5 * np.abs(wanted).max()


def test_music_is_music(opened, demo):
    for name in ("ina-speech-music", "ina-speech-music-noise"):
        net = opened(name)
        scores = net.forward(fd.load_clip(demo, net.frontend, offset=3.0).x)
        assert net.classes[int(scores[net.layers[-1].name].argmax())] == "music"


def test_features_are_heard(opened, demo):
    net = opened("ina-speech-music")
    explained = fd.explain(demo, net, layers="max_pooling2d_2", features=range(8), offset=3.0)
    assert max(np.abs(explained.sound("max_pooling2d_2", k)).max() for k in range(8)) > 1e-3
