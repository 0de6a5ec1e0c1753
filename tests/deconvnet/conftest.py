"""Every back end, and networks with random weights, for every test of this room."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import fastdeconv
from fastdeconv.kernels.dispatch import get_backend, has_bf16
from fastdeconv.network.layers import layer_from_record

Build = Callable[..., fastdeconv.Network]

IMPLEMENTATIONS = [
    {"backend": "native", "isa": isa} for isa in fastdeconv.available_isas()
] + [{"backend": name} for name in fastdeconv.available_backends() if name != "native"]


@pytest.fixture(scope="session")
def implementations() -> list[dict[str, str]]:
    """Settings for every back end and instruction set."""
    return IMPLEMENTATIONS


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda i: "-".join(i.values()))
def on(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Every back end and instruction set in turn."""
    with fastdeconv.config(**request.param):
        yield request.param


@pytest.fixture(scope="session")
def bf16_settings() -> dict[str, str]:
    """Settings with which precision="bf16" works, where there are any."""
    settings = {"backend": "native", "isa": "avx512"}
    if settings in IMPLEMENTATIONS:
        with fastdeconv.config(**settings):
            if has_bf16(get_backend()):
                return settings
    pytest.skip("this CPU, or the build, has no AVX512_BF16")


@pytest.fixture
def bf16(bf16_settings: dict[str, str]) -> Iterator[None]:
    with fastdeconv.config(**bf16_settings):
        yield


WEIGHTLESS = {"out", "kernel"}


def _arrays(record: dict[str, Any], channels: int, rng: np.random.Generator) -> dict[str, Any]:
    """Random arrays of a layer; He's scale, so that deep activations stay near 1."""
    kind, name, out = record["type"], record["name"], record.get("out")
    if kind == "conv2d":
        inner = channels // record.get("groups", 1)
        shape = (out, inner, *record["kernel"])
    elif kind == "linear":
        shape = (out, channels)
    elif kind == "batch_norm2d":
        return {
            f"{name}.weight": rng.normal(size=channels),
            f"{name}.bias": rng.normal(size=channels),
            f"{name}.running_mean": rng.normal(size=channels),
            f"{name}.running_var": rng.uniform(0.5, 2, channels),
        }
    elif kind == "affine":
        return {f"{name}.{key}": rng.normal(size=channels) for key in ("weight", "bias")}
    else:
        return {}
    arrays = {f"{name}.weight": rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))}
    if record.get("bias", True):
        arrays[f"{name}.bias"] = rng.normal(size=out) / 4
    return arrays


@pytest.fixture(scope="session")
def build() -> Build:
    """``build(records, (C, H, W), seed=0)``: a network with random weights.

    Records are those of the archive; a convolution says its ``out`` channels and
    ``kernel``, a linear layer its ``out``.
    """

    def make(
        records: Sequence[dict[str, Any]], shape: tuple[int, int, int], seed: int = 0,
        **arguments: Any,
    ) -> fastdeconv.Network:
        rng = np.random.default_rng(seed)
        layers, arrays, size = [], {}, shape
        for i, record in enumerate(records):
            record = {"name": f"l{i}", **record}
            arrays |= _arrays(record, size[0], rng)
            kept = {k: v for k, v in record.items() if k not in WEIGHTLESS}
            layers.append(layer_from_record(kept))
            loaded = {k: np.asarray(v, np.float32) for k, v in arrays.items()}
            size = layers[-1].output_shape(size, loaded)
        # Only a linear layer ties a network to one size.
        fixed = any(layer.type == "linear" for layer in layers)
        return fastdeconv.Network(
            layers, arrays, shape if fixed else (shape[0], None, None), **arguments
        )

    return make
