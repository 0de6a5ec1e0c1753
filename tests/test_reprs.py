"""What a notebook prints of a result that ends a cell: a line that says what it is of."""

from __future__ import annotations

import numpy as np
import pytest

import fastdeconv as fd


@pytest.fixture(scope="module")
def net():
    rng = np.random.default_rng(0)
    layers = [
        {"type": "conv2d", "name": "conv1", "padding": 1, "bias": False},
        {"type": "relu", "name": "relu1"},
        {"type": "max_pool2d", "name": "pool1", "kernel_size": 2},
        {"type": "global_avg_pool2d", "name": "mean"},
    ]
    return fd.Network(
        layers, {"conv1.weight": rng.normal(size=(6, 1, 3, 3))}, input_shape=(1, 33, 24),
        classes=list("abcdef"), output="softmax", name="six",
        frontend=fd.Frontend(sr=8000, n_fft=64, hop_length=32, frames=24),
    )


@pytest.fixture(scope="module")
def clips(net):
    rng = np.random.default_rng(1)
    return [fd.Clip(rng.normal(size=760), 8000, net.frontend) for _ in range(2)]


def occlusion(net, clips):
    return fd.occlude(clips[0], net)


def top_clips(net, clips):
    return fd.top_clips(clips, net)


def excerpt(net, clips):
    return fd.top_clips(clips, net).excerpts("pool1", 2)[0]


def evolution(net, clips):
    return fd.feature_evolution({"begin": fd.randomised(net), "end": net}, clips, "pool1", [0, 3])


def attribute_study(net, clips):
    stimuli = fd.chord_stimuli(["C", "E"], ["maj"], [3], ["piano", "organ"], seconds=0.5)
    return fd.attribute_study(net, stimuli, resamplings=10)


@pytest.mark.parametrize(("made", "said"), [
    (occlusion, "<Occlusion by 2 x 2 patches: pool1: 6, classes: 6>"),
    (top_clips, "<TopClips of 'six': 2 clips, layers pool1>"),
    (excerpt, "<Excerpt: pool1/2, rank 1, from 0.00 s>"),
    (evolution, "<Evolution of pool1: 2 features, 2 checkpoints>"),
    (attribute_study, "<AttributeStudy of 'six': 4 stimuli; pool1: 6>"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_a_result_is_one_line(net, clips, made, said):
    assert repr(made(net, clips)) == said
