"""Explanations for Quantus, and its numbers beside ours."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.belief.metrics import complexity, sparseness
from fastdeconv.belief.quantus import explain_func
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
    with pytest.raises(ParameterError, match="a class for each input, found 2 for 1"):
        explain(None, clip.x[None], [0, 1])
    with pytest.raises(ParameterError, match="numbers of classes from 0 to 2, found 3"):
        explain(None, clip.x[None], [3])


def test_sparseness_and_complexity_are_quantus_own(clip: fd.Clip, net: fd.Network) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
        quantus = pytest.importorskip("quantus")
        module: Any = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(33 * 24, 3))
        for metric, ours in ((quantus.Sparseness, sparseness), (quantus.Complexity, complexity)):
            (theirs,) = metric(abs=True, normalise=False, disable_warnings=True)(
                model=module, x_batch=clip.x[None], y_batch=np.array([1]),
                explain_func=explain_func(net, "gradient"), channel_first=True,
            )
            e = fd.decision(clip, net, ["c1"], "gradient").maps["c1", "gradient"]
            assert theirs == pytest.approx(ours(e), abs=1e-3)
