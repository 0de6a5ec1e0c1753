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
