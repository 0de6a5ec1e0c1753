"""A clip with a planted tone and click, and networks whose weights say what they listen to.

The clip has 129 bins and 96 frames: a loud tone of 2,500 Hz in the beginning, a softer one of
1,000 Hz that begins during it, a click later, and noise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import fastdeconv as fd

SR, N_FFT, HOP, FRAMES = 8000, 256, 64, 96
BIN = SR / N_FFT


class Cue(NamedTuple):
    """Where something planted lies in the spectrogram."""

    bins: slice
    frames: slice


#: The cues, with the reach of the window and of the filters (4 bins or frames).
CUES = {
    "tone": Cue(slice(32 - 4, 32 + 5), slice(24 - 4, 56 + 5)),
    "click": Cue(slice(0, 129), slice(80 - 4, 80 + 5)),
    "loud": Cue(slice(80 - 4, 80 + 5), slice(0, 36 + 5)),
}


def clip() -> fd.Clip:
    """With everything in it."""
    frontend = fd.Frontend(
        sr=SR, n_fft=N_FFT, hop_length=HOP, frames=FRAMES,
        scale={"type": "db", "ref": "max", "amin": 1e-5, "top_db": 80.0},
        normalize={"type": "range", "low": 0.0, "high": 1.0},
    )
    t = np.arange((FRAMES - 1) * HOP)

    def tone(bin_: int, level: float, begin: int, end: int) -> np.ndarray:
        """Fading in and out over 8 frames, as an edge would be a click."""
        rise = np.clip(np.minimum(t / HOP - begin, end - t / HOP) / 8, 0, 1)
        return level * np.sin(np.pi / 2 * rise) ** 2 * np.sin(2 * np.pi * bin_ * BIN / SR * t)

    samples = tone(80, 0.3, 2, 38) + tone(32, 0.1, 22, 58)
    samples[80 * HOP] += 0.9
    samples += 0.001 * np.random.default_rng(0).normal(size=t.size)
    return fd.Clip(samples.astype(np.float32), SR, frontend)


def network(clip: fd.Clip, listens_to: str | None, output: str, *, per_frame: bool) -> fd.Network:
    """Classes "cue", "loud" and "neither": scores, or scores of frames.

    Channel 0 of the first convolution answers to ridges along time (tones), channel 1 to ridges
    along frequency (clicks). "cue" adds up channel 0 at the bins of the "tone", or where there is
    nothing ("elsewhere"); or channel 1 at all bins ("click"); or it listens to nothing (None).
    "loud" adds up a little of channel 0 at the loudest tone.
    """
    first = np.zeros((2, 1, 5, 5))
    first[0, 0, :, 2] = first[1, 0, 2, :] = -0.5, 0, 1, 0, -0.5
    second = np.zeros((2, 2, 1, 1))
    second[0, 0] = second[1, 1] = 1
    rows = 129 // 2 // 2
    scores = np.zeros((3, 2, rows, 1))
    if listens_to == "click":
        scores[0, 1] = 200 / rows
    elif listens_to is not None:
        scores[0, 0, {"tone": 32, "elsewhere": 104}[listens_to] // 4] = 40
    scores[1, 0, 80 // 4] = 4
    layers: list[dict[str, Any]] = []
    for name, padding in (("1", 2), ("2", 0)):
        layers += [
            {"type": "conv2d", "name": f"conv{name}", "padding": padding},
            {"type": "relu", "name": f"relu{name}"},
            {"type": "max_pool2d", "name": f"pool{name}", "kernel_size": 2},
        ]
    layers.append({"type": "conv2d", "name": "scores"})
    if not per_frame:
        layers += [
            {"type": "global_avg_pool2d", "name": "mean"}, {"type": "flatten", "name": "flat"}
        ]
    arrays = {
        "conv1.weight": first, "conv1.bias": np.full(2, -0.3),
        "conv2.weight": second, "conv2.bias": np.zeros(2),
        "scores.weight": scores, "scores.bias": np.array([-1.0, -1.0, 0.0]),
    }
    return fd.Network(
        layers, arrays, clip.x.shape, frontend=clip.frontend, classes=["cue", "loud", "neither"],
        output=output,
    )
