"""Public networks, opened where their packages are installed, and real sound to run them on."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import fastdeconv as fd
from fastdeconv.network.public import is_installed, list_public, open_public

# What other packages the readers need.
READERS = {"torch": ["torch"], "onnx": ["onnx"], "onnx-arrays": ["onnx"], "keras": ["h5py"]}
RECIPES = {recipe.name: recipe for recipe in list_public()}


@pytest.fixture(scope="session")
def demo() -> Path:
    """Four seconds of music."""
    with importlib.resources.as_file(importlib.resources.files("fastdeconv")) as folder:
        return folder / "data" / "demo.flac"


@pytest.fixture(scope="session")
def opened() -> Callable[[str], fd.Network]:
    """Opens a public network, or skips the test."""

    known: dict[str, fd.Network] = {}

    def opened(name: str) -> fd.Network:
        recipe = RECIPES[name]
        if not is_installed(recipe):
            pytest.skip(f"not installed: {recipe.install}")
        for reader in READERS.get(recipe.reader, ()):
            pytest.importorskip(reader)
        if name not in known:
            known[name] = open_public(name)
        return known[name]

    return opened


@pytest.fixture(scope="session")
def samples(demo) -> Callable[[fd.Network], NDArray[np.float32]]:
    """The whole of the demo at the rate of a network."""

    def samples(net: fd.Network) -> NDArray[np.float32]:
        return fd.load_clip(demo, replace(net.frontend, frames=None)).samples

    return samples


@pytest.fixture(scope="session")
def close() -> Callable[..., None]:
    """Compares with a share of the largest value that is wanted."""

    def close(found: np.ndarray, wanted: np.ndarray, share: float = 1e-4) -> None:
        found = np.asarray(found)
        assert found.size == wanted.size, (found.shape, wanted.shape)
        largest = float(np.abs(wanted).max())
        assert largest > 0
        np.testing.assert_allclose(found.ravel(), wanted.ravel(), rtol=0, atol=share * largest)

    return close
