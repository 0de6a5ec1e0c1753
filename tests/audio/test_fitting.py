"""What to change where a network does not take what a front end gives."""

from __future__ import annotations

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv import Clip, Frontend
from fastdeconv.audio.fitting import advice

FILTERS = np.ones((9, 257))


@pytest.mark.parametrize(("fields", "wanted", "said"), [
    ({"kind": "mel", "n_mels": 40}, (1, 64, 96), "n_mels=64, frames=96"),
    ({"kind": "mel", "n_mels": 40}, (3, 64, None), "channels=3, n_mels=64"),
    ({}, (1, 129, None), "n_fft=256"), ({}, (1, 256, None), "bins=(1, 256)"),
    ({}, (1, 255, None), "bins=(1, 255)"), ({}, (1, None, 257), "layout='CTF'"),
    ({}, (257, 1, None), "layout='FCT'"), ({"kind": "cqt"}, (1, 60, 50), "n_bins=60, frames=50"),
    ({"kind": "filters", "filters": FILTERS}, (1, 12, None), "filters with 12 bands"),
    ({"kind": "waveform"}, (1, 64, None), "kind='mel', n_mels=64"),
    ({"kind": "mel", "channels": [{}, {}]}, (3, 128, None), "channels, a list with 3 dicts"),
    ({"kind": "waveform"}, (1, 1, 59049), "frames=59049"),
    ({"kind": "mel"}, (None, 128, None), None),
    ({"kind": "mel", "layout": "FTC"}, (1, 128, 187), "layout='CFT', frames=187"),
    ({"kind": "mel", "n_mels": 64}, (1, 64, 64), "frames=64"),
])
def test_the_nearest_setting_that_fits(fields, wanted, said):
    frontend = Frontend(sr=16000, n_fft=512, hop_length=256, **fields)
    x = Clip(np.zeros(16000), 16000, frontend).x
    assert advice(frontend, x.shape, wanted) == said
    if said is not None and "with" not in said:
        changed = eval(f"dict({said})")  # fields, as they are written
        own = {**fields, **changed}
        changed = {"sr": 16000, "n_fft": 512, "hop_length": 256, **own}
        shape = Clip(np.zeros(16000), 16000, Frontend(**changed)).x.shape
        assert all(want in (None, n) for n, want in zip(shape, wanted))


def test_explain_says_both_shapes_and_what_would_fit():
    frontend = Frontend(kind="mel", sr=16000, n_fft=512, n_mels=40)
    net = fd.Network(
        [{"type": "conv2d", "name": "c", "bias": False}], {"c.weight": np.ones((2, 1, 3, 3))},
        (1, 64, None), frontend=frontend,
    )
    with pytest.raises(fd.ParameterError, match=r"takes an input of 1 x 64 x \?, found 1 x 40 x "
                                                r".* would fit with n_mels=64"):
        fd.explain((np.ones(16000, np.float32), 16000), net)
