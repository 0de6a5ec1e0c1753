"""Explanations for Quantus, and its numbers beside ours."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.belief.metrics import Trial, complexity, sparseness
from fastdeconv.belief.quantus import explain_func
from fastdeconv.belief.targets import Target
from fastdeconv.errors import ParameterError


def test_maps_are_those_of_decisions(clip: fd.Clip, net: fd.Network) -> None:
    found = explain_func(net, "cam")(None, np.stack([clip.x, clip.x]), np.array([2, 1]), foo=3)
    assert found.shape == (2, 1, 33, 24)
    for i, name in enumerate(("c2", "c1")):
        wanted = fd.decision(clip, net, [name], "cam").maps[name, "cam"]
        np.testing.assert_allclose(found[i, 0], wanted, rtol=1e-6)


def test_what_does_not_fit_is_refused(clip: fd.Clip, net: fd.Network) -> None:
    with pytest.raises(ParameterError, match="method must be one of integrated_gradients"):
        explain_func(net, "lime")
    explain = explain_func(net)
    with pytest.raises(ParameterError, match="one class for each input, found 2 for 1"):
        explain(None, clip.x[None], [0, 1])
    with pytest.raises(ParameterError, match="class numbers from 0 to 2, found 3"):
        explain(None, clip.x[None], [3])


@pytest.fixture(scope="module")
def libraries() -> tuple[Any, Any]:
    """PyTorch and Quantus, which warn of their own dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch"), pytest.importorskip("quantus")


@pytest.mark.filterwarnings("ignore")
def test_sparseness_and_complexity_are_quantus_own(
    clip: fd.Clip, net: fd.Network, libraries: tuple[Any, Any]
) -> None:
    torch, quantus = libraries
    module: Any = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(33 * 24, 3))
    for metric, ours in ((quantus.Sparseness, sparseness), (quantus.Complexity, complexity)):
        for method in ("gradient", "occlusion", "deconvnet"):
            (theirs,) = metric(abs=True, normalise=False, disable_warnings=True)(
                model=module, x_batch=clip.x[None], y_batch=np.array([1]),
                explain_func=explain_func(net, method), channel_first=True,
            )
            e = fd.decision(clip, net, ["c1"], method).maps["c1", method]
            assert theirs == pytest.approx(ours(e), abs=1e-3), method


@pytest.mark.filterwarnings("ignore")
def test_pixel_flipping_is_quantus_own(libraries: tuple[Any, Any]) -> None:
    """Its curve has a point for every patch, ours one for every tenth of them; with four patches of
    one size, each of one value, and silence for both, ours can be read off theirs."""
    torch, quantus = libraries
    frontend = fd.Frontend(
        sr=8000, n_fft=64, hop_length=32, bins=(1, 32), frames=32,
        scale={"type": "db", "ref": "max", "amin": 1e-5, "top_db": 80.0},
        normalize={"type": "range", "low": 0.0, "high": 1.0},
    )
    rng = np.random.default_rng(0)
    clip = fd.Clip((rng.normal(size=1000) * np.linspace(0, 1, 1000)).astype(np.float32),
                   8000, frontend)
    weight = rng.normal(size=(3, 1, 32, 32)) / 10
    net = fd.Network(
        [{"type": "conv2d", "name": "scores", "bias": False}], {"scores.weight": weight},
        clip.x.shape, frontend=frontend, classes=["a", "b", "c"], output="softmax",
    )
    module: Any = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(1024, 3, bias=False)
    ).eval()
    module[1].weight.data = torch.from_numpy(weight.reshape(3, -1).astype(np.float32))
    e = np.kron([[0.3, 0.9], [-0.2, 0.5]], np.ones((16, 16)))
    silence = float(clip.x.min())
    z = net.forward(clip.x)["scores"].astype(np.float64)
    target = Target("b", 1, "softmax")
    numbers = Trial(clip, net, z).tried(e).numbers(target, z)
    for name, order in (("morf_min", e), ("lerf_min", -e)):
        (theirs,) = quantus.PixelFlipping(
            features_in_step=256, perturb_baseline=silence, normalise=False,
            disable_warnings=True,
        )(
            model=module, x_batch=clip.x[None], y_batch=np.array([1]), softmax=True,
            a_batch=order[None, None].astype(np.float32), channel_first=True,
        )
        points = [target.probability(z), *np.ravel(theirs)]
        curve = [points[math.floor(4 * k / 10 + 0.5)] for k in range(11)]
        area = sum((a + b) / 20 for a, b in itertools.pairwise(curve))
        assert numbers[name] == pytest.approx(area, abs=1e-5), name
