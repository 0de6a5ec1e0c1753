"""A run that is stopped and goes on is the run that was not stopped; needs PyTorch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fastdeconv  # noqa: E402
from training.data import RandomClips  # noqa: E402
from training.prepare import Prepared  # noqa: E402
from training.settings import Shape, load_settings  # noqa: E402
from training.train import _Job  # noqa: E402

FRONTEND = fastdeconv.Frontend(sr=8000, n_fft=64, hop_length=32, frames=20)


@pytest.fixture
def settings():
    settings = load_settings()
    plan = replace(settings.training, epochs=3, batch=2, snapshots=(1,), save_every=4)
    return replace(
        settings, clip_samples=640, network=Shape(2, 4, 0.3, 0.1, 0.2), training=plan
    )


def job(settings, run):
    torch.manual_seed(0)
    sounds = {label: np.random.default_rng(k).standard_normal(2560).astype(np.float32)
              for k, label in enumerate(settings.classes)}
    clips = RandomClips(
        tracks=[Prepared(label, "p", label, label, "MIT", label, 2560, "") for label in sounds],
        open_samples=lambda track: sounds[track.label],
        classes=settings.classes, length=640, silence=0, tilt=0.5, rng=np.random.default_rng(1),
    )
    return _Job(settings, clips, FRONTEND, run)


def test_a_resumed_run_gives_the_same_weights(settings, tmp_path):
    whole = job(settings, tmp_path / "whole")
    whole.finish()
    assert whole.total_steps == 18 and whole.step == 18

    stopped = job(settings, tmp_path / "stopped")
    take = stopped._take_step

    def stop_after_seven(loss_of):
        if stopped.step == 7:
            raise KeyboardInterrupt
        return take(loss_of)

    stopped._take_step = stop_after_seven
    with pytest.raises(KeyboardInterrupt):
        stopped.finish()
    resumed = job(settings, tmp_path / "stopped")
    resumed.finish()
    for key, value in whole.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[key], value), key


def test_the_network_is_kept_before_the_first_step_and_after_epochs(settings, tmp_path):
    one = job(settings, tmp_path)
    one.finish()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["epoch-00.pt", "epoch-01.pt", "epoch-end.pt", "last.pt"]
    start = torch.load(tmp_path / "epoch-00.pt", weights_only=True)["state"]
    assert torch.equal(start["convs.0.weight"], one.initial["convs.0.weight"])
    assert not torch.equal(start["norms.0.running_mean"], one.initial["norms.0.running_mean"])


def test_a_run_with_other_settings_is_not_gone_on_with(settings, tmp_path):
    job(settings, tmp_path).finish()
    other = replace(settings, training=replace(settings.training, learning_rate=1.0))
    with pytest.raises(ValueError, match="other settings"):
        job(other, tmp_path).finish()
