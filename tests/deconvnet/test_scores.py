"""What a network says of its classes, and the way back from one."""

from __future__ import annotations

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.deconvnet.scores import class_scores

CONV = {"type": "conv2d", "padding": "same", "out": 4, "kernel": (3, 3)}
HEAD = [CONV, {"type": "relu"}, {"type": "max_pool2d", "kernel_size": 2}, {"type": "flatten"},
        {"type": "linear", "out": 3, "name": "score"}]
FRAMES = [CONV, {"type": "relu"}, {"type": "conv2d", "out": 3, "kernel": (6, 1), "name": "score"}]
CLASSES = ["rock", "metal", "jazz"]


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def softmax(x):
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("records", [HEAD, FRAMES])
@pytest.mark.parametrize(("output", "function"), [("softmax", softmax), ("sigmoid", sigmoid)])
def test_scores_and_probabilities_are_means_over_places(build, records, output, function):
    x = noise((1, 6, 6))
    net = build(records, (1, 6, 6), classes=CLASSES, output=output)
    planes = net.forward(x)["score"].astype(float)
    found = class_scores(net.forward(x))
    assert [one.name for one in found] == CLASSES
    np.testing.assert_allclose([one.score for one in found], planes.mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(
        [one.probability for one in found], function(planes).mean(axis=(1, 2)), rtol=1e-6
    )


@pytest.mark.parametrize("tail", [[], [{"type": "dropout"}], [{"type": "flatten"}]])
def test_what_ends_in_a_softmax_puts_out_probabilities(build, tail):
    net = build([*HEAD, {"type": "softmax"}, *tail], (1, 6, 6), classes=CLASSES)
    found = class_scores(net.forward(noise((1, 6, 6))))
    assert [one.probability for one in found] == [one.score for one in found]
    assert sum(one.score for one in found) == pytest.approx(1)


def test_without_a_word_on_probabilities_there_are_only_scores(build):
    net = build(HEAD, (1, 6, 6), classes=CLASSES)
    assert {one.probability for one in class_scores(net.forward(noise((1, 6, 6))))} == {None}
    unnamed = build(HEAD, (1, 6, 6))
    assert class_scores(unnamed.forward(noise((1, 6, 6)))) == []


@pytest.mark.parametrize(("records", "tail"), [
    (FRAMES, []), (FRAMES, [{"type": "softmax"}]), (HEAD, [{"type": "softmax"}]),
    (FRAMES, [{"type": "sigmoid"}, {"type": "dropout"}]),
    (HEAD, [{"type": "softmax"}, {"type": "flatten"}, {"type": "dropout"}]),
])
def test_the_map_of_a_class_is_that_of_its_mean_score_whatever_closes_the_network(
    build, records, tail
):
    x = noise((1, 6, 6))
    plain = build(records, (1, 6, 6)).forward(x)
    places = plain["score"][0].size
    net = build([*records, *tail], (1, 6, 6))
    for rule in ("deconvnet", "guided", "gradient"):
        one = np.full((1, *plain["score"].shape[1:]), 1 / places)
        wanted = fd.deconvolve(plain, "score", [1], rule=rule, start=one)
        found = fd.deconvolve(net.forward(x), "class:1", rule=rule)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_class_of_one_place_of_a_flattened_output_starts_there_alone(build):
    x = noise((1, 6, 6))
    plain = build(FRAMES, (1, 6, 6)).forward(x)
    net = build([*FRAMES, {"type": "softmax"}, {"type": "flatten"}], (1, 6, 6))
    start = np.zeros((1, 1, 6))
    start[0, 0, 4] = 1
    wanted = fd.deconvolve(plain, "score", [2], rule="gradient", start=start)
    found = fd.deconvolve(net.forward(x), "class:16", rule="gradient")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_the_map_of_a_class_does_not_turn_over_with_the_sign_of_its_score(build, rule):
    net = build(HEAD, (1, 6, 6), classes=CLASSES)
    maps = []
    for shift in (50, -50):
        arrays = {**net.arrays, "score.bias": net.arrays["score.bias"] + shift}
        shifted = fd.Network(net.layers, arrays, net.input_shape, classes=CLASSES)
        maps.append(fd.deconvolve(shifted.forward(noise((1, 6, 6))), "class:jazz", rule=rule))
    assert maps[0].any()
    np.testing.assert_array_equal(*maps)


def test_the_strongest_place_of_a_class_can_be_asked_for(build):
    trace = build(FRAMES, (1, 6, 6)).forward(noise((1, 6, 6)))
    start = np.zeros((1, 1, 6))
    start[0, 0, trace["score"][1].argmax()] = 1
    wanted = fd.deconvolve(trace, "score", [1], start=start)
    np.testing.assert_array_equal(fd.deconvolve(trace, "class:1", start="max"), wanted)


def test_one_starts_every_place_from_1_and_leaves_silent_features_silent(build):
    net = build(HEAD[:3], (1, 6, 6))
    arrays = {**net.arrays, "l0.bias": np.array([0, -100, 0, 0], np.float32)}
    trace = fd.Network(net.layers, arrays, (1, 6, 6)).forward(noise((1, 6, 6)))
    ones = np.ones_like(trace["l2"])
    ones[1] = 0
    for rule in ("deconvnet", "gradient"):
        wanted = fd.deconvolve(trace, "l2", rule=rule, start=ones)
        np.testing.assert_array_equal(fd.deconvolve(trace, "l2", rule=rule, start="one"), wanted)
        assert not wanted[1].any()
