"""The loader of the bundled networks."""

from __future__ import annotations

import pytest

import fastdeconv.network.pretrained as bundled
from fastdeconv.errors import ParameterError


def test_every_listed_network_loads():
    for name in bundled.list_pretrained():
        assert bundled.pretrained(name).layers


def test_archives_beside_the_module_are_listed_and_loaded(net, tmp_path, monkeypatch):
    net.save(tmp_path / "b.npz")
    net.save(tmp_path / "a.x.npz")
    (tmp_path / "b.md").write_text("card")
    monkeypatch.setattr(bundled.resources, "files", lambda package: tmp_path)
    assert bundled.list_pretrained() == ["a.x", "b"]
    assert bundled.pretrained("a.x").layers == net.layers


@pytest.mark.parametrize("name", ["nope", "../pretrained/nope", "", "a\0b", None, 3])
def test_an_unknown_name_is_refused_and_never_used_as_a_path(name):
    with pytest.raises(ParameterError, match="no bundled network"):
        bundled.pretrained(name)


def test_every_network_has_the_one_it_began_as():
    for name in bundled.list_pretrained():
        net, start = bundled.pretrained(name), bundled.pretrained(name, trained=False)
        assert start.layers == net.layers and start.frontend == net.frontend
        assert start.arrays["conv1.weight"].shape == net.arrays["conv1.weight"].shape
        assert abs(start.arrays["conv1.weight"] - net.arrays["conv1.weight"]).max() > 0.01
        # As they were drawn: within one by the root of the fan-in.
        assert abs(start.arrays["fc.weight"]).max() <= 64**-0.5 + 1e-3


def test_the_card_says_what_was_learned():
    for name in bundled.list_pretrained():
        card = bundled.resources.files(bundled.__name__).joinpath(name + ".md").read_text("utf-8")
        for heading in ("## Data", "## Accuracy", "## Did it learn?", "## Licence of the weights"):
            assert heading in card
