from __future__ import annotations

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.analysis.controls import untrained
from fastdeconv.errors import ParameterError


@pytest.fixture(scope="module")
def inputs(net):
    rng = np.random.default_rng(1)
    return [rng.random((1, 33, 20)).astype(np.float32) for _ in range(5)]


def test_the_same_seed_gives_the_same_weights_and_another_others(net):
    one, again, other = (fd.randomised(net, seed).arrays for seed in (3, 3, 4))
    assert all(np.array_equal(one[key], again[key]) for key in one)
    assert not np.array_equal(one["conv1.weight"], other["conv1.weight"])
    assert not np.array_equal(one["conv1.weight"], net.arrays["conv1.weight"])


def test_weights_are_within_the_bound_of_their_fan_in_and_biases_zero(net):
    arrays = fd.randomised(net).arrays
    largest = np.abs(arrays["conv2.weight"]).max()
    assert 0.9 / 6 < largest <= 1 / 6  # fan-in 4 x 3 x 3
    assert not arrays["conv2.bias"].any()


def test_layers_are_drawn_apart(net):
    short = fd.Network(
        [layer.to_record() for layer in net.layers[:3]],
        {key: net.arrays[key] for key in ("conv1.weight", "conv1.bias")}, (1, 33, 20),
    )
    np.testing.assert_array_equal(
        fd.randomised(short).arrays["conv1.weight"], fd.randomised(net).arrays["conv1.weight"]
    )


def test_inputs_centre_every_channel_of_every_convolution(net, inputs):
    control = fd.randomised(net, 0, inputs)
    for layer in ("conv1", "conv2"):
        maps = np.stack([control.forward(x)[layer] for x in inputs]).astype(np.float64)
        np.testing.assert_allclose(maps.mean(axis=(0, 2, 3)), 0, atol=1e-4)
        np.testing.assert_allclose(maps.std(axis=(0, 2, 3)), 1, atol=1e-4)


def test_a_batch_norm_behind_a_convolution_takes_the_statistics(inputs):
    net = fd.Network(
        [
            {"type": "conv2d", "name": "conv1", "bias": False},
            {"type": "batch_norm2d", "name": "bn1"},
        ],
        {
            "conv1.weight": np.ones((3, 1, 3, 3)), "bn1.weight": np.full(3, -2.0),
            "bn1.bias": np.ones(3), "bn1.running_mean": np.ones(3), "bn1.running_var": np.ones(3),
        },
        (1, 33, 20),
    )
    control = fd.randomised(net, 0, inputs)
    maps = np.stack([control.forward(x)["bn1"] for x in inputs]).astype(np.float64)
    np.testing.assert_allclose(maps.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(maps.std(axis=(0, 2, 3)), 1, atol=1e-3)


@pytest.mark.parametrize("seed", [-1, True, 1.0, "0"])
def test_a_seed_that_is_none_is_refused(net, seed):
    with pytest.raises(ParameterError, match="seed must be an int from 0"):
        fd.randomised(net, seed)


def test_no_inputs_to_centre_on_are_refused(net):
    with pytest.raises(ParameterError, match="at least one input"):
        fd.randomised(net, 0, [])


def test_the_control_of_a_bundled_network_is_the_one_it_began_as():
    for name in fd.list_pretrained():
        found = untrained(fd.pretrained(name), [])
        wanted = fd.pretrained(name, trained=False)
        assert all(np.array_equal(found.arrays[k], v) for k, v in wanted.arrays.items())


def test_the_control_of_any_other_network_is_random(net, inputs):
    found, wanted = untrained(net, inputs), fd.randomised(net, 0, inputs)
    assert all(np.array_equal(found.arrays[k], v) for k, v in wanted.arrays.items())
