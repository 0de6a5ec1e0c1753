"""Other names of layers."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.network.choosing import up_to


def network(**more: object) -> fd.Network:
    return fd.Network(
        [{"type": "conv2d", "name": "features.0", "bias": False},
         {"type": "relu", "name": "features.2"}],
        {"features.0.weight": np.ones((2, 1, 1, 1))}, (1, 4, None), **more,
    )


def test_an_alias_is_understood_wherever_a_layer_is_named() -> None:
    net = network(aliases={"features.1": "features.0", "features": "features.2"})
    assert net.layer_index("features.1") == 0 and net.layer_index("features") == 1
    trace = net.forward(np.ones((1, 4, 5)))
    assert trace["features"].tobytes() == trace["features.2"].tobytes()
    assert fd.deconvolve(trace, "features").shape == (2, 1, 4, 5)
    with pytest.raises(fd.ParameterError, match=r"no layer 'features\.3'; there are features\.0, "):
        net.layer_index("features.3")


def test_parts_of_a_network_keep_the_aliases_of_their_layers() -> None:
    net = network(aliases={"features.1": "features.0", "features": "features.2"})
    assert up_to(net, "features.1").aliases == {"features.1": "features.0"}
    assert up_to(net, "features").aliases == net.aliases


def test_archives_and_copies_keep_aliases(tmp_path: Path) -> None:
    net = network(aliases={"features": "features.2"})
    net.save(tmp_path / "net.npz")
    for again in (fd.Network.load(tmp_path / "net.npz"), copy.copy(net),
                  pickle.loads(pickle.dumps(net))):
        assert again.aliases == {"features": "features.2"}
    network().save(tmp_path / "old.npz")
    assert '"version": 1' in str(np.load(tmp_path / "old.npz")["network"])
    assert '"version": 2' in str(np.load(tmp_path / "net.npz")["network"])


@pytest.mark.parametrize(
    ("aliases", "match"),
    [
        ({"features.0": "features.2"}, "'features.0' is a layer; an alias must be new"),
        ({"a": "b"}, "'a' stands for 'b', which is not a layer"),
        ({3: "features.0"}, "found the name 3, wanted a string"),
        ({"": "features.0"}, "found the name '', wanted a string"),
        (["a"], r"aliases must be a dict or None \(null\)"),
    ],
)
def test_aliases_that_are_wrong(aliases: object, match: str) -> None:
    with pytest.raises(fd.ParameterError, match=match):
        network(aliases=aliases)
