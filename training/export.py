"""Making the archive in the package, and its card, from the checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

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

CHECKPOINTS = HERE / "checkpoints"
PRETRAINED = HERE.parent / "fastdeconv" / "network" / "pretrained"
LICENCE = "CC-BY-SA-4.0"
MAX_BYTES = 700_000
FOLDING_TOLERANCE = 1e-3
FORWARD_TOLERANCE = 1e-4
CHECKED_CLIPS = 24


def export(settings: Settings, cache: Path, run: Path, target: Path = PRETRAINED) -> None:
    """Write the archives, and measure the test artists.

    The trained network goes to `target`, the network before training to ``untrained`` in it, the
    other checkpoints to `CHECKPOINTS`, and the figures of the test artists to ``test.json`` in
    `run`.

    Raises
    ------
    ValueError
        If folding the batch norms changed the logits, or the archive is too large.
    """
    frontend = fastdeconv.Frontend.from_record(settings.frontend)
    x = _inputs(settings, cache, frontend)
    parts = split_tracks(load_prepared(cache), settings.split)
    artists = ", ".join(sorted({track.artist for track in parts["train"]}))
    credit = f"{settings.name}: a network of the fastdeconv package, trained on music by {artists}"

    def network(checkpoint: Path, name: str, citation: str | None) -> fastdeconv.Network:
        return fastdeconv.Network(
            layer_records(settings.network.layers),
            _folded_and_checked(settings, checkpoint, x),
            input_shape=tuple(x.shape[1:]),
            frontend=frontend,
            classes=settings.classes,
            output="softmax",
            name=name,
            license=LICENCE,
            citation=citation,
        )

    trained = network(run / "epoch-end.pt", settings.name, credit)
    archive = target / f"{settings.name}.npz"
    trained.save(archive)
    if archive.stat().st_size > MAX_BYTES:
        raise ValueError(f"{archive}: {archive.stat().st_size} bytes, the limit is {MAX_BYTES}")
    start = network(run / "epoch-00.pt", f"{settings.name}, untrained", None)
    (target / "untrained").mkdir(exist_ok=True)
    start.save(target / "untrained" / f"{settings.name}.npz", dtype="float16")
    CHECKPOINTS.mkdir(exist_ok=True)
    for number in (0, *settings.training.snapshots):
        name = f"epoch-{number:02d}"
        one = network(run / f"{name}.pt", f"{settings.name}, {name}", credit)
        one.save(CHECKPOINTS / f"{name}.npz", dtype="float16")
    net = _loaded(settings, run / "epoch-end.pt")
    scores = measure(net, settings, parts["test"], cache, frontend)
    demo = logits_from_arrays(trained.arrays, torch.tensor(_demo(frontend)[None])).softmax(1)
    report = {
        "test": scores.summary(),
        "demo": dict(zip(settings.classes, demo[0].tolist(), strict=True)),
    }
    (run / "test.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{archive.name}: {archive.stat().st_size} bytes")
    print(f"test: balanced accuracy {scores.balanced_accuracy():.3f}, {scores.recalls()}")


def card(settings: Settings, cache: Path, run: Path, target: Path = PRETRAINED) -> None:
    """Write the card from the files that `train`, `export` and `learned` wrote in `run`."""
    report: dict[str, Any] = {}
    for name in ("report", "test", "learned"):
        report |= json.loads((run / f"{name}.json").read_text(encoding="utf-8"))
    write_card(settings, load_prepared(cache), report, LICENCE, target / f"{settings.name}.md")


def _loaded(settings: Settings, checkpoint: Path) -> Net:
    net = Net(settings.network, len(settings.classes))
    net.load_state_dict(torch.load(checkpoint, weights_only=True)["state"])
    return net.eval()


def _folded_and_checked(
    settings: Settings, checkpoint: Path, x: torch.Tensor
) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint with folded batch norms, checked to give its logits for `x`."""
    net = _loaded(settings, checkpoint)
    arrays = folded(net)
    with torch.inference_mode():
        change = _largest(net(x).numpy() - logits_from_arrays(arrays, x).numpy())
    if not change < FOLDING_TOLERANCE:
        raise ValueError(f"{checkpoint}: folding the batch norms changed a logit by {change:.2g}")
    return arrays


def check(settings: Settings, cache: Path, target: Path = PRETRAINED) -> None:
    """Compare the package's own forward pass over the archive with PyTorch's.

    Raises
    ------
    ValueError
        If the archive has no front end, or a logit differs by more than rounding.
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
    """Network inputs of the demo clip and of the first clip of some test tracks, stacked."""
    test = split_tracks(load_prepared(cache), settings.split)["test"]

    def clips() -> Iterator[np.ndarray]:
        yield _demo(frontend)
        for track in test:
            samples = open_samples(cache, track, frontend.sr)
            for clip in grid_clips(samples, settings.clip_samples, settings.training.silence):
                yield spectrogram(clip, frontend)
                break

    return torch.from_numpy(np.stack(list(islice(clips(), CHECKED_CLIPS))))
