"""Reading ``settings.toml``, which has all settings of the recipe."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .manifest import HERE

SETTINGS = HERE / "settings.toml"


@dataclass(frozen=True)
class Split:
    """The test artists, and the share of other artists' tracks that is kept for validation."""

    test_artists: tuple[str, ...]
    validation_share: float
    seed: int


@dataclass(frozen=True)
class Shape:
    """The size of the network, its dropout before the last layer, its initial scale."""

    layers: int
    channels: int
    dropout: float
    first_layer_init_scale: float
    other_layers_init_scale: float


@dataclass(frozen=True)
class Training:
    """The settings of a training run; settings.toml explains each."""

    seed: int
    threads: int
    batch: int
    epochs: int
    snapshots: tuple[int, ...]
    learning_rate: float
    first_layer_rate_factor: float
    weight_decay: float
    label_smoothing: float
    tilt: float
    silence: float
    save_every: int


@dataclass(frozen=True)
class Settings:
    """All settings; `frontend` is a record for ``fastdeconv.Frontend``."""

    name: str
    classes: tuple[str, ...]
    clip_samples: int
    frontend: dict[str, Any]
    split: Split
    network: Shape
    training: Training


def load_settings(path: Path = SETTINGS) -> Settings:
    """Read the settings at `path`.

    Raises
    ------
    KeyError, TypeError
        If a key is missing or unknown.
    """
    record = tomllib.loads(path.read_text(encoding="utf-8"))
    split = {**record.pop("split")}
    split["test_artists"] = tuple(split["test_artists"])
    training = {**record.pop("training")}
    training["snapshots"] = tuple(training["snapshots"])
    return Settings(
        name=record.pop("name"),
        classes=tuple(record.pop("classes")),
        split=Split(**split),
        network=Shape(**record.pop("network")),
        training=Training(**training),
        **record,
    )
