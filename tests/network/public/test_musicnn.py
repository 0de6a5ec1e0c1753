"""The networks of musicnn, beside its graph (models.py) written once more with PyTorch."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.network.public.finding import find_files
from fastdeconv.network.public.recipes import recipe
from fastdeconv.network.public.tensorflow import fields_of, read_checkpoint

NAMES = ["musicnn-msd", "musicnn-mtt", "musicnn-vgg-msd", "musicnn-vgg"]


def melspectrogram(samples):
    """extractor.py, without its rounding to float16: (frames, bands)."""
    power = librosa.feature.melspectrogram(
        y=samples, sr=16000, hop_length=256, n_fft=512, n_mels=96
    ).T
    return np.log10(10000 * power + 1)


# Sizes and strides of the pools: of models.py, and of the graph (.meta) that the checkpoint of
# MSD_vgg comes with, which models.py does not build.
POOLS = {
    "musicnn-vgg": [((4, 1), 2), (2, 2), (2, 2), (2, 2), (4, 4)],
    "musicnn-vgg-msd": [((4, 1), (4, 1)), ((1, 4), (1, 4)), (2, 2), (2, 2), (4, 4)],
}


class Graph:
    """The functions that models.py calls, on tensors (1, C, T, F)."""

    def __init__(self, name):
        self.torch = pytest.importorskip("torch")
        self.arrays = read_checkpoint(
            *(file.content for file in find_files(recipe(name)))
        )

    def get(self, key):
        return self.torch.tensor(np.array(self.arrays[key]))

    def bn(self, x, number):
        scope = "batch_normalization" + (f"_{number}" if number else "")
        mean, variance, gamma, beta = (
            self.get(f"{scope}/{key}")
            for key in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return self.torch.nn.functional.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)

    def conv(self, x, scope, same=False):
        kernel = self.get(f"{scope}/kernel").permute(3, 2, 0, 1)
        if same:
            h, w = kernel.shape[2:]
            sides = [(w - 1) // 2, w // 2, (h - 1) // 2, h // 2]
            x = self.torch.nn.functional.pad(x, sides)
        return self.torch.conv2d(x, kernel, self.get(f"{scope}/bias")).relu()

    def dense(self, x, scope):
        return x @ self.get(f"{scope}/kernel") + self.get(f"{scope}/bias")


def vgg(graph, x, windows):
    found = {}
    x = graph.bn(x, 0)
    for i, (size, stride) in enumerate(windows, start=1):
        x = graph.bn(graph.conv(x, f"{i}CNN", same=True), i)
        x = found[f"pool{i}"] = graph.torch.max_pool2d(x, size, stride)
    found["tags"] = graph.dense(x.permute(0, 2, 3, 1).flatten(), "dense")
    return found


def musicnn(graph, x):
    torch, found = graph.torch, {}
    pad = torch.nn.ConstantPad2d((0, 0, 3, 3), 0.0)
    normalized = graph.bn(x, 0)
    for i, name in enumerate(["f74", "f77", "s1", "s2", "s3"]):
        timbral = name.startswith("f")
        scope = f"conv2d_{i}" if i else "conv2d"
        y = graph.conv(pad(normalized) if timbral else normalized, scope, same=not timbral)
        found[name] = graph.bn(y, i + 1).amax(dim=3)
    # From here on features are columns: (1, 1, T, features).
    front = torch.cat([*found.values()], dim=1).transpose(1, 2)[:, None]
    dense = [front]
    for i in (1, 2, 3):
        y = graph.bn(graph.conv(pad(dense[-1]), f"conv2d_{i + 4}"), i + 5)
        y = y.permute(0, 3, 2, 1)
        dense.append(y if i == 1 else y + dense[-1])
        found[f"cnn{i}"] = dense[-1][0, 0].T
    features = torch.cat(dense, dim=3)[0, 0]
    found["max_pool"], found["mean_pool"] = features.amax(dim=0), features.mean(dim=0)
    flat = torch.stack([found["max_pool"], found["mean_pool"]], dim=1).flatten()[None]
    penultimate = graph.bn(graph.dense(graph.bn(flat, 9), "dense").relu(), 10)
    found["penultimate"] = penultimate
    found["tags"] = graph.dense(penultimate, "dense_1")
    return found


@pytest.mark.parametrize("name", POOLS)
def test_pools_are_those_of_the_graph_that_was_trained(opened, name):
    net = opened(name)
    meta = find_files(recipe(name))[0].place.with_name(".meta").read_bytes()
    # MetaGraphDef.graph_def.node, as tensorflow/core/protobuf/meta_graph.proto numbers them.
    (graph,) = fields_of(meta)[2]
    pools = []
    for node in map(fields_of, fields_of(graph)[1]):
        if node[2] != [b"MaxPool"]:
            continue
        found = {}
        for entry in map(fields_of, node[5]):
            values = fields_of(entry[2][0]).get(1, [b""])[0]
            found[entry[1][0]] = values
        sizes, strides = (
            tuple(fields_of(found[key])[3][0])[1:3] for key in (b"ksize", b"strides")
        )
        pools.append((sizes, strides))
    windows = [layer.window((64, 64), net.arrays) for layer in net.layers if "pool" in layer.name]
    assert pools == [(window.kernel, window.stride) for window in windows]


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_has_the_values_of_models_py(opened, demo, close, name):
    net = opened(name)
    graph = Graph(name)
    clip = fd.load_clip(demo, net.frontend)
    trace = net.forward(clip.x)
    x = graph.torch.tensor(clip.x)[None]
    wanted = vgg(graph, x, POOLS[name]) if name in POOLS else musicnn(graph, x)
    for layer, values in wanted.items():
        close(trace[layer], values.numpy())


def test_the_input_is_extractor_pys(opened, demo, samples, close):
    net = opened("musicnn-mtt")
    wanted = melspectrogram(samples(net))[:187]
    found = fd.load_clip(demo, net.frontend).x
    assert found.shape == (1, 187, 96)
    close(found, wanted)


def test_the_packages_half_precision_is_only_rounding(opened, demo, samples):
    """extractor.py computes in float16, where loud bands overflow: all others agree."""
    net = opened("musicnn-mtt")
    power = (10 ** melspectrogram(samples(net))[:187].astype(np.float64) - 1) / 10000
    with np.errstate(over="ignore"):
        rounded = np.log10(10000 * power.astype(np.float16) + 1)
    found = fd.load_clip(demo, net.frontend).x[0]
    fits = np.isfinite(rounded)
    assert fits.mean() > 0.9
    np.testing.assert_allclose(found[fits], rounded[fits], atol=5e-3)


def test_tags_are_sensible(opened, demo):
    net = opened("musicnn-mtt")
    scores = net.forward(fd.load_clip(demo, net.frontend).x)["tags"].ravel()
    assert net.classes[int(scores.argmax())] == "guitar"


@pytest.mark.parametrize("name", ["musicnn-mtt", "musicnn-vgg"])
def test_features_are_heard(opened, demo, name):
    net = opened(name)
    layer = "f74" if name == "musicnn-mtt" else "pool2"
    explained = fd.explain(demo, net, layers=layer, features=range(4))
    assert any(np.abs(explained.sound(layer, k)).max() > 1e-3 for k in range(4))
