"""From the checkpoint to the archive in the package and its card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import fastdeconv

from .card import write_card
from .data import grid_clips, split_tracks
from .make_demo import TARGET as DEMO
from .manifest import HERE
from .model import Net, folded, layer_records, logits_from_arrays
from .prepare import load_prepared, open_samples
from .settings import Settings
from .train import measure, spectrogram

PRETRAINED = HERE.parent / "fastdeconv" / "network" / "pretrained"
LICENCE = "CC-BY-SA-4.0"
MAX_BYTES = 700_000
FOLDING_TOLERANCE = 1e-3
FORWARD_TOLERANCE = 1e-4
CHECKED_CLIPS = 24


def export(settings: Settings, cache: Path, run: Path, target: Path = PRETRAINED) -> None:
    """Write archive and card to `target`, and measure the test artists for the card.

    Raises
    ------
    ValueError
        If folding the batch norms changed the logits, or the archive is too big.
    """
    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    net = Net(settings.network, len(settings.classes))
    net.load_state_dict(saved["state"])
    net.eval()
    arrays = folded(net)
    frontend = fastdeconv.Frontend.from_record(settings.frontend)
    x = _inputs(settings, cache, frontend)
    with torch.inference_mode():
        change = _largest(net(x).numpy() - logits_from_arrays(arrays, x).numpy())
    if not change < FOLDING_TOLERANCE:
        raise ValueError(f"folding the batch norms changed a logit by {change:.2g}")
    tracks = load_prepared(cache)
    parts = split_tracks(tracks, settings.split)
    network = fastdeconv.Network(
        layer_records(settings.network.layers),
        arrays,
        input_shape=tuple(x.shape[1:]),
        frontend=frontend,
        classes=settings.classes,
        name=settings.name,
        license=LICENCE,
        citation=f"{settings.name}: a network of the fastdeconv package, trained on music by "
        + ", ".join(sorted({track.artist for track in parts["train"]})),
    )
    archive = target / f"{settings.name}.npz"
    network.save(archive)
    if archive.stat().st_size > MAX_BYTES:
        raise ValueError(f"{archive}: {archive.stat().st_size} bytes, more than {MAX_BYTES}")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    report["test"] = measure(net, settings, parts["test"], cache, frontend).summary()
    demo = logits_from_arrays(network.arrays, torch.tensor(_demo(frontend)[None])).softmax(1)
    report["demo"] = dict(zip(settings.classes, demo[0].tolist(), strict=True))
    write_card(settings, tracks, report, LICENCE, target / f"{settings.name}.md")
    print(f"{archive.name}: {archive.stat().st_size} bytes; folding moved a logit by {change:.1g}")


def check(settings: Settings, cache: Path, target: Path = PRETRAINED) -> None:
    """Compare the package's own forward pass over the archive with PyTorch's.

    Raises
    ------
    ValueError
        If a logit differs by more than rounding.
    """
    network = fastdeconv.Network.load(target / f"{settings.name}.npz")
    if network.frontend is None:
        raise ValueError(f"{settings.name}.npz has no front end")
    x = _inputs(settings, cache, network.frontend)
    with torch.inference_mode():
        wanted = logits_from_arrays(network.arrays, x).numpy()
    found = np.stack([network.forward(clip)["fc"].ravel() for clip in x.numpy()])
    off = _largest(found - wanted)
    if not off < FORWARD_TOLERANCE * max(1.0, _largest(wanted)):
        raise ValueError(f"the archive's logits differ from PyTorch's by {off:.2g}")
    print(f"{len(x)} clips: largest difference of a logit {off:.2g}, of {_largest(wanted):.3g}")


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def _demo(frontend: fastdeconv.Frontend) -> np.ndarray:
    return fastdeconv.load_clip(DEMO, frontend).x


def _inputs(settings: Settings, cache: Path, frontend: fastdeconv.Frontend) -> torch.Tensor:
    """Stack the demo clip and one clip of each of some test tracks."""
    test = split_tracks(load_prepared(cache), settings.split)["test"]

    def clips() -> Iterator[np.ndarray]:
        yield _demo(frontend)
        for track in test:
            samples = open_samples(cache, track, frontend.sr)
            for clip in grid_clips(samples, settings.clip_samples, settings.training.silence):
                yield spectrogram(clip, frontend)
                break

    return torch.from_numpy(np.stack(list(islice(clips(), CHECKED_CLIPS))))
