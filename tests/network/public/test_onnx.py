"""The networks that lie in ONNX files, beside what ONNX Runtime computes of these files."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.network.public.finding import find_files
from fastdeconv.network.public.recipes import recipe

NAMES = ["basic-pitch", "dnsmos", "dnsmos-p808", "speech-embedding"]
# What they put out lies in the middle of basic-pitch's file, behind its CQT.
OPERATORS = ("Conv", "Relu", "LeakyRelu", "MaxPool", "Sigmoid", "Gemm")


@pytest.fixture(scope="module")
def runtime():
    """Runs an ONNX file on one input and gives the values that are asked for by name."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")

    def runtime(path, feed, wanted):
        model = onnx.load(path)
        del model.graph.output[:]
        for name in wanted:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
        session = onnxruntime.InferenceSession(model.SerializeToString())
        return dict(zip(wanted, session.run(wanted, feed)))

    return runtime


def values_above(path, begin):
    """Names of the outputs of `OPERATORS` that depend on `begin`."""
    import onnx

    known, names = {begin}, []
    for node in onnx.load(path).graph.node:
        if known.intersection(node.input):
            known.update(node.output)
            if node.op_type in OPERATORS:
                names.append(node.output[0])
    return names


def the_input(name, net, demo, samples):
    """The input of a network, and what its file is fed: (x, feed, name of x in the file)."""
    if name == "basic-pitch":
        sound = samples(net)[:43844]
        return None, {"serving_default_input_2:0": sound[None, :, None]}, recipe(name).cut["inputs"]
    x = fd.load_clip(demo, net.frontend).x
    fed = {"dnsmos": x.reshape(1, -1), "dnsmos-p808": x, "speech-embedding": x[..., None]}
    return x, {"input_1": fed[name]}, "input_1"


@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_the_file_is_a_layers(opened, demo, samples, runtime, name):
    net = opened(name)
    path = find_files(recipe(name))[0].place
    x, feed, begin = the_input(name, net, demo, samples)
    wanted = runtime(path, feed, values_above(path, begin))
    if x is None:
        x = runtime(path, feed, [begin])[begin].reshape(net.input_shape)
    trace = net.forward(x)
    layers = [np.asarray(trace[layer.name]) for layer in net.layers]
    assert len(wanted) > 10
    for key, value in wanted.items():
        share = 1e-4 * np.abs(value).max()
        alike = (layer.reshape(value.shape) for layer in layers if layer.size == value.size)
        assert any(np.abs(layer - value).max() < share for layer in alike), key


@pytest.mark.parametrize("name, layer, output", [
    ("basic-pitch", "contours", "StatefulPartitionedCall:0"),
    ("basic-pitch", "notes", "StatefulPartitionedCall:1"),
    ("basic-pitch", "onsets", "StatefulPartitionedCall:2"),
    ("dnsmos", "fc3", "Identity:0"),
    ("dnsmos-p808", "fc3", "Identity:0"),
    ("speech-embedding", "conv20", "conv2d_19"),
])
def test_layers_are_the_outputs(opened, demo, samples, close, runtime, name, layer, output):
    net = opened(name)
    path = find_files(recipe(name))[0].place
    x, feed, begin = the_input(name, net, demo, samples)
    found = runtime(path, feed, [output] if x is not None else [output, begin])
    x = found[begin].reshape(net.input_shape) if x is None else x
    close(net.forward(x)[layer], found[output])
    assert "layers compared with" in net.receipt


def test_dnsmos_has_the_input_of_dnsmos_py(opened, samples, close):
    net = opened("dnsmos-p808")
    audio = samples(net)
    while len(audio) < 144160:
        audio = np.append(audio, audio)
    mel = librosa.feature.melspectrogram(
        y=audio[:144160][:-160], sr=16000, n_fft=321, hop_length=160, n_mels=120
    )
    wanted = ((librosa.power_to_db(mel, ref=np.max) + 40) / 40).T
    found = fd.Clip(audio[:144160], 16000, net.frontend).x
    assert found.shape == (1, 900, 120)
    # The package ends there, here the sound goes on for the last frame.
    close(found[0, :-1], wanted[:-1])


def test_dnsmos_is_given_the_samples(opened, samples):
    net = opened("dnsmos")
    audio = np.tile(samples(net), 3)
    found = fd.Clip(audio, 16000, net.frontend).x
    # dnsmos.py: audio[: int(9.01 * 16000)]
    np.testing.assert_array_equal(found.ravel(), audio[:144160])


def test_the_embedding_has_the_input_of_melspectrogram_onnx(opened, samples, close, runtime):
    net = opened("speech-embedding")
    audio = (samples(net)[8000 : 8000 + 75 * 160 + 512] * 32767).astype(np.int16)
    place = find_files(recipe("speech-embedding"))[0].place.parent / "melspectrogram.onnx"
    spec = runtime(place, {"input": audio[None].astype(np.float32)}, ["output"])["output"]
    found = fd.Clip(audio, 16000, net.frontend).x
    # utils.py, _get_melspectrogram
    close(found, np.squeeze(spec) / 10 + 2)


def test_basic_pitch_has_the_input_of_the_package(opened, samples, runtime):
    """The package has nnAudio's CQT, in float32: next to nothing is rounded there."""
    net = opened("basic-pitch")
    path = find_files(recipe("basic-pitch"))[0].place
    _, feed, begin = the_input("basic-pitch", net, None, samples)
    wanted = runtime(path, feed, [begin])[begin].reshape(172, 309)
    found = fd.Clip(samples(net)[:43844], 22050, net.frontend).x[0]
    assert found.shape == wanted.shape
    error = np.abs(found - wanted)
    assert np.median(error) < 1e-4 and np.percentile(error, 99) < 0.01
    ours, theirs = (net.forward(x[None])["notes"] for x in (found, wanted))
    np.testing.assert_allclose(ours, theirs, atol=0.01)


def test_basic_pitch_hears_a_note(opened):
    net = opened("basic-pitch")
    t = np.arange(43844) / 22050
    tone = sum(np.sin(2 * np.pi * 220 * k * t) / k for k in range(1, 6)).astype(np.float32) / 4
    notes = net.forward(fd.Clip(tone, 22050, net.frontend).x)["notes"][0]
    assert notes[86].argmax() == 12 * np.log2(220 / 27.5)


@pytest.mark.parametrize("name", NAMES)
def test_features_are_heard(opened, demo, name):
    net = opened(name)
    layer = "relu1" if name == "basic-pitch" else "pool1"
    explained = fd.explain(demo, net, layers=layer, features=range(8))
    assert max(np.abs(explained.sound(layer, k)).max() for k in range(8)) > 1e-3
