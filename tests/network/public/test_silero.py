"""Silero VAD, beside what ONNX Runtime computes of the ONNX file."""

from __future__ import annotations

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.network.public.finding import find_files
from fastdeconv.network.public.recipes import recipe


@pytest.fixture
def theirs(opened):
    """What the package's file computes of 576 samples: STFT, encoder and probability."""
    opened("silero-vad")
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    place = find_files(recipe("silero-vad"))[0].place.parent / "silero_vad_openvino_16k.onnx"
    model = onnx.load(place)
    made = [name for node in model.graph.node for name in node.output]
    inner = [name for name in made if name.endswith(("Sqrt_output_0", "Relu_output_0"))]
    names = ["output", *inner]
    for name in names[1:]:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def theirs(samples):
        state = np.zeros((2, 1, 128), np.float32)
        output, stft, *relus = session.run(names, {"input": samples[None], "state": state})
        return stft, relus, output

    return theirs


@pytest.mark.parametrize("start", [0, 8000, 30000])
def test_every_layer_has_the_values_of_the_package(opened, samples, close, theirs, start):
    net = opened("silero-vad")
    chunk = samples(net)[start : start + 576]
    stft, relus, output = theirs(chunk)
    # The package mirrors the end of what it hears; here that follows in the sound.
    clip = fd.Clip(np.concatenate([chunk, chunk[-2:-66:-1]]), 16000, net.frontend)
    close(clip.x, stft)
    trace = net.forward(clip.x)
    for i, values in enumerate(relus[:4], start=1):
        close(trace[f"relu{i}"], values)
    close(1 / (1 + np.exp(-trace["speech"])), output)


def test_features_are_heard(opened, demo):
    net = opened("silero-vad")
    explained = fd.explain(demo, net, layers="relu1", offset=1.0)
    assert max(np.abs(explained.sound("relu1", k)).max() for k in range(128)) > 1e-3
