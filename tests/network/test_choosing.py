"""Which layers are worked on where nobody names any."""

from __future__ import annotations

import numpy as np

from fastdeconv.kernels.activations import ACTIVATIONS
from fastdeconv.network.choosing import choose_layers
from fastdeconv.network.network import Network


def network(*kinds: str) -> Network:
    """Two convolutions, each with layers of these kinds behind it."""
    parameters = {
        "group_norm": {"groups": 1}, "layer_norm": {"axes": "HW", "affine": False},
        "local_response_norm": {"size": 3},
    }
    records, arrays = [], {}
    for i in range(2):
        for kind in ("conv2d", *kinds):
            name = f"{kind}{i}"
            records.append({"type": kind, "name": name, **parameters.get(kind, {})})
            arrays |= {f"{name}.weight": np.ones((2, 2, 1, 1))} if kind == "conv2d" else {}
            if kind in ("prelu", "group_norm", "affine"):
                arrays[f"{name}.weight"] = np.ones(2)
            if kind in ("conv2d", "group_norm", "affine"):
                arrays[f"{name}.bias"] = np.ones(2)
    return Network(records, arrays, (2, None, None))


def test_a_convolution_is_shown_behind_what_changes_its_values_only():
    kinds = [*ACTIVATIONS, "group_norm", "layer_norm", "instance_norm", "affine",
             "local_response_norm", "dropout"]
    for kind in kinds:
        assert choose_layers(network(kind), None) == [f"{kind}0", f"{kind}1"]
    both = network("group_norm", "silu", "softmax", "tanh")
    assert choose_layers(both, None) == ["silu0", "silu1"]


def test_branches_are_followed_not_the_order_of_the_list():
    records = [
        {"type": "conv2d", "name": "a", "bias": False, "inputs": ["input"]},
        {"type": "conv2d", "name": "b", "bias": False, "inputs": ["input"]},
        {"type": "relu", "name": "ra", "inputs": ["a"]},
        {"type": "affine", "name": "nb", "inputs": ["b"]},
        {"type": "add", "name": "sum", "inputs": ["ra", "nb"]},
        {"type": "relu", "name": "top", "inputs": ["sum"]},
    ]
    arrays = {f"{name}.weight": np.ones((2, 2, 1, 1)) for name in "ab"}
    arrays |= {"nb.weight": np.ones(2), "nb.bias": np.ones(2)}
    assert choose_layers(Network(records, arrays, (2, None, None)), None) == ["ra", "nb"]


def test_of_many_convolutions_six_from_the_first_to_the_last():
    records = [{"type": "conv2d", "name": f"c{i}", "bias": False} for i in range(11)]
    records[3]["groups"] = 2
    arrays = {f"c{i}.weight": np.ones((2, 2, 1, 1)) for i in range(11)}
    arrays["c3.weight"] = np.ones((2, 1, 1, 1))
    chosen = choose_layers(Network(records, arrays, (2, None, None)), None)
    assert chosen == ["c0", "c1", "c4", "c6", "c8", "c10"]
