"""Inputs that are rows of one give the bits that each gives alone, with every back end."""

from __future__ import annotations

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.deconvnet.together import run_inputs, together

FRAME = 40


def network(rng, poolings, head):
    """Convolutions along a single row, and a head that takes that row."""
    layers, arrays, channels = [], {}, 1
    for i, pool in enumerate(poolings):
        size = int(rng.choice([1, 2, 3, 5, 8]))
        layers += [
            {"type": "conv2d", "name": f"conv{i}", "padding": [[0, 0], [size // 2, size // 3]]},
            {"type": "relu", "name": f"relu{i}"},
            *([] if pool is None else [{"type": pool, "name": f"pool{i}", "kernel_size": [1, 2]}]),
        ]
        outputs = int(rng.choice([1, 7, 16, 33]))
        arrays[f"conv{i}.weight"] = rng.standard_normal((outputs, channels, 1, size))
        arrays[f"conv{i}.bias"] = rng.standard_normal(outputs)
        channels = outputs
    body = fd.Network(layers, arrays, (1, 1, FRAME))
    width = body.known_shapes[-1][2] if head is None else 1
    layers += [*([] if head is None else [head]), {"type": "flatten", "name": "flat"}]
    arrays["fc.weight"] = rng.standard_normal((3, channels * width))
    arrays["fc.bias"] = rng.standard_normal(3)
    layers.append({"type": "linear", "name": "fc"})
    return fd.Network(
        layers, arrays, (1, 1, FRAME), classes=["a", "b", "c"],
        frontend=fd.Frontend(kind="waveform", sr=8000, n_fft=16, hop_length=4, frames=FRAME),
    )


@pytest.mark.parametrize("head", [
    None, {"type": "global_avg_pool2d", "name": "mean"},
    {"type": "reduce_max", "name": "max", "axes": "HW"},
], ids=["flat", "mean", "max"])
def test_rows_have_the_bits_of_each_input_alone(on, head):
    rng = np.random.default_rng(3)
    for poolings in (["max_pool2d"], [None, "avg_pool2d"], ["max_pool2d", None, "max_pool2d"]):
        net = network(rng, poolings, head)
        clips = [fd.Clip(rng.standard_normal(FRAME), 8000, net.frontend) for _ in range(11)]
        how = together(net, FRAME)
        if on["backend"] == "reference":
            assert how is None
            return
        groups = list(run_inputs(net, enumerate(clips), how._replace(most=4)))
        assert [len(group) for group in groups] == [4, 4, 3]
        for number, clip, run in (one for group in groups for one in group):
            alone = net.forward(clip.x)
            assert clip is clips[number]
            for index, layer in enumerate(net.layers):
                np.testing.assert_array_equal(
                    run.activation(index), alone.activation(index), err_msg=layer.name
                )
            np.testing.assert_array_equal(
                run.maps("conv0", [0], {"rule": "gradient"}),
                fd.deconvolve(alone, "conv0", features=[0], rule="gradient"),
            )


def test_the_parts_of_a_network_are_made_once():
    net = network(np.random.default_rng(0), ["max_pool2d"], None)
    with fd.config(backend="numba"):
        first, second = together(net, FRAME), together(net, 2 * FRAME)
    assert first is not None and second is not None
    assert first.part is second.part and first.head is second.head
