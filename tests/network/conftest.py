"""A small network with a layer of every kind that has arrays or a window."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastdeconv.network.network import Network

RECORD: dict[str, Any] = {
    "format": "fastdeconv-network",
    "version": 1,
    "name": "small",
    "input_shape": [1, 12, None],
    "layers": [
        {"type": "conv2d", "name": "conv1", "padding": "same"},
        {"type": "batch_norm2d", "name": "bn1"},
        {"type": "relu", "name": "relu1"},
        {"type": "max_pool2d", "name": "pool1", "kernel_size": [2, 2]},
        {"type": "conv2d", "name": "conv2", "padding": [[0, 1], [1, 0]], "groups": 2,
         "bias": False},
        {"type": "affine", "name": "affine1"},
        {"type": "global_avg_pool2d", "name": "gap"},
        {"type": "linear", "name": "fc1"},
    ],
    "classes": ["blues", "metal", "jazz"],
}


def make_arrays() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "conv1.weight": rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
        "conv1.bias": rng.normal(size=4).astype(np.float32),
        "bn1.weight": rng.normal(size=4).astype(np.float32),
        "bn1.bias": rng.normal(size=4).astype(np.float32),
        "bn1.running_mean": rng.normal(size=4).astype(np.float32),
        "bn1.running_var": rng.random(4).astype(np.float32),
        "conv2.weight": rng.normal(size=(6, 2, 2, 2)).astype(np.float32),
        "affine1.weight": rng.normal(size=6).astype(np.float32),
        "affine1.bias": rng.normal(size=6).astype(np.float32),
        "fc1.weight": rng.normal(size=(3, 6)).astype(np.float32),
        "fc1.bias": rng.normal(size=3).astype(np.float32),
    }


@pytest.fixture
def record() -> dict[str, Any]:
    """The archive record of the small network; a fresh copy."""
    copy: dict[str, Any] = json.loads(json.dumps(RECORD))
    return copy


@pytest.fixture
def arrays() -> dict[str, Any]:
    """The arrays of the small network; a fresh copy."""
    return make_arrays()


@pytest.fixture
def net(record: dict[str, Any], arrays: dict[str, Any]) -> Network:
    """The small network."""
    return Network(
        record["layers"], arrays, record["input_shape"], classes=record["classes"], name="small"
    )


@pytest.fixture
def npz() -> Callable[..., io.BytesIO]:
    """npz(arrays, record=None): an archive in memory, as numpy writes it."""

    def build(arrays: dict[str, Any], record: Any = None) -> io.BytesIO:
        members = dict(arrays)
        if record is not None:
            text = record if isinstance(record, str) else json.dumps(record)
            members["network"] = np.array(text)
        file = io.BytesIO()
        np.savez_compressed(file, **members)
        file.seek(0)
        return file

    return build
