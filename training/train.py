"""Trains the network and measures it on tracks and artists it has not heard."""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import fastdeconv

from .data import RandomClips, Samples, grid_clips, split_tracks
from .evaluate import Scores
from .model import Net, cosines
from .prepare import Prepared, load_prepared, open_samples
from .settings import Settings


def spectrogram(samples: Samples, frontend: fastdeconv.Frontend) -> Samples:
    """Return what the network is shown for a clip, made by the package itself."""
    return fastdeconv.Clip(samples, frontend.sr, frontend).x


def train(settings: Settings, cache: Path, run: Path) -> None:
    """Train as the settings say; write ``checkpoint.pt`` and ``report.json`` in `run`."""
    _keep_memory()
    _fix_seeds(settings)
    frontend = fastdeconv.Frontend.from_record(settings.frontend)
    parts = split_tracks(load_prepared(cache), settings.split)
    net = _channels_last(Net(settings.network, len(settings.classes)))
    initial = {name: value.clone() for name, value in net.state_dict().items()}
    started = time.monotonic()
    _fit(net, settings, _batches(settings, parts["train"], cache, frontend))
    seconds = time.monotonic() - started
    run.mkdir(parents=True, exist_ok=True)
    torch.save({"state": net.state_dict(), "initial": initial}, run / "checkpoint.pt")
    net.eval()
    report: dict[str, Any] = {
        "torch": torch.__version__,
        "seconds": round(seconds),
        "clips_seen": settings.training.steps * settings.training.batch,
        "cosines": cosines(net, initial),
        "tracks": {part: [track.id for track in own] for part, own in parts.items()},
    }
    # Not the test artists: whoever tries settings out must not see how they do.
    scores = measure(net, settings, parts["validation"], cache, frontend)
    report["validation"] = scores.summary()
    print(f"validation: balanced accuracy {scores.balanced_accuracy():.3f}, {scores.recalls()}")
    print("median cosine to the initial filters:", [f"{c:.2f}" for c in report["cosines"]])
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (run / "report.json").write_text(text + "\n", encoding="utf-8")


def measure(
    net: nn.Module,
    settings: Settings,
    tracks: list[Prepared],
    cache: Path,
    frontend: fastdeconv.Frontend,
) -> Scores:
    """Classify every clip of `tracks`, one after the other, in float32."""
    scores = Scores(settings.classes)
    for track in tracks:
        samples = open_samples(cache, track, frontend.sr)
        clips = grid_clips(samples, settings.clip_samples, settings.training.silence)
        for batch in _in_batches(clips, settings.training.batch):
            x = torch.from_numpy(np.stack([spectrogram(clip, frontend) for clip in batch]))
            with torch.inference_mode():
                probabilities = net(x.contiguous(memory_format=torch.channels_last)).softmax(1)
            scores.add(track.artist, track.id, track.label, probabilities.numpy())
    return scores


def _channels_last(net: Net) -> Net:
    moved: Net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def _keep_memory() -> None:
    # glibc hands big blocks back to the system at every free, and the page faults of
    # the next step double its time. -4 is M_MMAP_MAX, -1 is M_TRIM_THRESHOLD.
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(-4, 0)
            mallopt(-1, 2**31 - 1)


def _fix_seeds(settings: Settings) -> None:
    torch.manual_seed(settings.training.seed)
    torch.set_num_threads(settings.training.threads)
    torch.use_deterministic_algorithms(True)


def _in_batches(clips: Iterator[Samples], size: int) -> Iterator[list[Samples]]:
    batch: list[Samples] = []
    for clip in clips:
        batch.append(clip)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _batches(
    settings: Settings, tracks: list[Prepared], cache: Path, frontend: fastdeconv.Frontend
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    clips = RandomClips(
        tracks=tracks,
        open_samples=partial(open_samples, cache, sr=frontend.sr),
        classes=settings.classes,
        length=settings.clip_samples,
        silence=settings.training.silence,
        tilt=settings.training.tilt,
        rng=np.random.default_rng(settings.training.seed),
    )
    for _ in range(settings.training.steps):
        drawn = [clips.draw() for _ in range(settings.training.batch)]
        x = np.stack([spectrogram(samples, frontend) for samples, _ in drawn])
        labels = torch.tensor([label for _, label in drawn])
        yield torch.from_numpy(x).contiguous(memory_format=torch.channels_last), labels


def _optimiser(net: Net, settings: Settings) -> torch.optim.Optimizer:
    plan = settings.training
    first = [net.blocks()[0][0].weight]
    weights = [p for p in net.parameters() if p.ndim > 1 and p is not first[0]]
    rest = [p for p in net.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [
        {"params": first, "lr": plan.learning_rate * plan.first_layer_rate_factor},
        {"params": weights},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, weight_decay=plan.weight_decay)


def _fit(
    net: Net, settings: Settings, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    plan = settings.training
    optimiser = _optimiser(net, settings)
    rates = [group["lr"] for group in optimiser.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=plan.steps, pct_start=0.15
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=plan.label_smoothing)
    net.train()
    started, losses, right = time.monotonic(), 0.0, 0
    for step, (x, labels) in enumerate(batches, 1):
        # bf16 halves the memory traffic, which is what these small layers wait for.
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x)
        loss = loss_of(logits.float(), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses += float(loss.detach())
        right += int((logits.argmax(1) == labels).sum())
        if step % plan.report_every == 0 or step == plan.steps:
            seen = (step - 1) % plan.report_every + 1
            print(
                f"step {step}/{plan.steps}  loss {losses / seen:.3f}  "
                f"accuracy {right / (seen * plan.batch):.3f}  "
                f"{step * plan.batch / (time.monotonic() - started):.0f} clips/s",
                file=sys.stderr,
                flush=True,
            )
            losses, right = 0.0, 0
