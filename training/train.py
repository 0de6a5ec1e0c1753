"""Training the network, and measuring it on tracks that it has not heard."""

from __future__ import annotations

import copy
import ctypes
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import fastdeconv

from .data import RandomClips, Samples, grid_clips, split_tracks
from .evaluate import Scores
from .model import Net, cosines
from .prepare import Prepared, load_prepared, open_samples
from .settings import Settings

_CALIBRATION_BATCHES = 8


def spectrogram(samples: Samples, frontend: fastdeconv.Frontend) -> Samples:
    """Return the network's input for a clip, made by the package itself."""
    return fastdeconv.Clip(samples, frontend.sr, frontend).x


def train(settings: Settings, cache: Path, run: Path) -> None:
    """Train as the settings say, or go on where an interrupted run stopped.

    Writes in `run`: ``last.pt`` (the state from which a run goes on), ``epoch-<n>.pt`` (the network
    after n epochs; n = 0 is before the first), ``epoch-end.pt``, and at the end ``report.json``.

    Raises
    ------
    ValueError
        If `run` holds a run with other settings.
    """
    _keep_memory()
    _fix_seeds(settings)
    frontend = fastdeconv.Frontend.from_record(settings.frontend)
    parts = split_tracks(load_prepared(cache), settings.split)
    job = _Job(settings, _clips(settings, parts["train"], cache, frontend), frontend, run)
    job.finish()
    net = job.net.eval()
    report: dict[str, Any] = {
        "torch": torch.__version__,
        "seconds": round(job.seconds),
        "steps": job.total_steps,
        "clips_seen": job.total_steps * settings.training.batch,
        "cosines": cosines(net, job.initial),
        "tracks": {part: [track.id for track in own] for part, own in parts.items()},
    }
    # Not the test artists: settings must not be chosen by their results.
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
    """Classify every clip of `tracks`, in float32."""
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
    # glibc returns large blocks to the system whenever they are freed. The page faults of the next
    # step would then double its time. -4 is M_MMAP_MAX, -1 is M_TRIM_THRESHOLD.
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


def _clips(
    settings: Settings, tracks: list[Prepared], cache: Path, frontend: fastdeconv.Frontend
) -> RandomClips:
    return RandomClips(
        tracks=tracks,
        open_samples=partial(open_samples, cache, sr=frontend.sr),
        classes=settings.classes,
        length=settings.clip_samples,
        silence=settings.training.silence,
        tilt=settings.training.tilt,
        rng=np.random.default_rng(settings.training.seed),
    )


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


class _Job:
    """A training run that can stop after any step and go on."""

    def __init__(
        self, settings: Settings, clips: RandomClips, frontend: fastdeconv.Frontend, run: Path
    ) -> None:
        self.settings, self.clips, self.frontend, self.run = settings, clips, frontend, run
        plan = settings.training
        self.net = _channels_last(Net(settings.network, len(settings.classes)))
        self.initial = {name: value.clone() for name, value in self.net.state_dict().items()}
        steps_per_epoch = clips.clips_per_epoch() / plan.batch
        self.total_steps = round(plan.epochs * steps_per_epoch)
        self.snapshots = {round(n * steps_per_epoch): f"epoch-{n:02d}" for n in plan.snapshots}
        self.snapshots[self.total_steps] = "epoch-end"
        self.optimiser = _optimiser(self.net, settings)
        rates = [group["lr"] for group in self.optimiser.param_groups]
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, rates, total_steps=self.total_steps, pct_start=0.15
        )
        self.step, self.seconds = 0, 0.0

    def finish(self) -> None:
        """Take the remaining steps."""
        self.run.mkdir(parents=True, exist_ok=True)
        if (self.run / "last.pt").exists():
            self._resume()
        else:
            self._keep_untrained()
        loss_of = nn.CrossEntropyLoss(label_smoothing=self.settings.training.label_smoothing)
        self.net.train()
        with tqdm(total=self.total_steps, initial=self.step, unit="step") as bar:
            while self.step < self.total_steps:
                started = time.monotonic()
                loss, accuracy = self._take_step(loss_of)
                self.seconds += time.monotonic() - started
                self.step += 1
                bar.set_postfix_str(f"loss {loss:.3f}, accuracy {accuracy:.2f}", refresh=False)
                bar.update()
                self._keep()

    def _take_step(self, loss_of: nn.Module) -> tuple[float, float]:
        x, labels = self._batch(self.clips)
        # bf16 halves the memory traffic, which limits the speed of these small layers.
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.net(x)
        loss = loss_of(logits.float(), labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        return float(loss.detach()), float((logits.argmax(1) == labels).float().mean())

    def _batch(self, clips: RandomClips) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = [clips.draw() for _ in range(self.settings.training.batch)]
        x = np.stack([spectrogram(samples, self.frontend) for samples, _ in drawn])
        labels = torch.tensor([label for _, label in drawn])
        return torch.from_numpy(x).contiguous(memory_format=torch.channels_last), labels

    def _keep_untrained(self) -> None:
        """Write ``epoch-00.pt``: the initial weights, with batch norms fitted to some clips.

        The clips come from another random generator, so that training clips stay the same.
        """
        net = copy.deepcopy(self.net).train()
        for _, norm in net.blocks():
            norm.momentum = None  # the plain average over batches
        own = replace(self.clips, rng=np.random.default_rng([self.settings.training.seed, 0]))
        with torch.inference_mode(), torch.random.fork_rng():
            for _ in range(_CALIBRATION_BATCHES):
                net(self._batch(own)[0])
        _save({"state": net.state_dict()}, self.run / "epoch-00.pt")

    def _keep(self) -> None:
        if self.step in self.snapshots:
            state = {"state": self.net.state_dict()}
            _save(state, self.run / f"{self.snapshots[self.step]}.pt")
        if self.step % self.settings.training.save_every == 0 or self.step == self.total_steps:
            _save(self._progress(), self.run / "last.pt")

    def _progress(self) -> dict[str, Any]:
        return {
            "settings": repr(self.settings),
            "state": self.net.state_dict(),
            "initial": self.initial,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "clips": json.dumps(self.clips.rng.bit_generator.state),
            "dropout": torch.get_rng_state(),
        }

    def _resume(self) -> None:
        saved = torch.load(self.run / "last.pt", weights_only=True)
        if saved["settings"] != repr(self.settings):
            raise ValueError(f"{self.run} is a run with other settings: choose another --run")
        self.net.load_state_dict(saved["state"])
        self.initial = saved["initial"]
        self.optimiser.load_state_dict(saved["optimiser"])
        self.schedule.load_state_dict(saved["schedule"])
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.clips.rng.bit_generator.state = json.loads(saved["clips"])
        torch.set_rng_state(saved["dropout"])


def _save(record: dict[str, Any], path: Path) -> None:
    partial_path = path.with_suffix(".partial")
    torch.save(record, partial_path)
    partial_path.replace(path)
