"""The maps of features by any rule: those of `deconvolve`, and one that says for or against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio._checks import as_choice
from ..deconvnet.layerwise import RULES
from ..deconvnet.projection import deconvolve
from ..deconvnet.trace import Trace
from .grid import Grid, as_fill

__all__ = ["FEATURE_RULES", "WITH_SIGN", "deviation", "feature_maps"]

#: The gradient times how far the input is from its mean over time.
WITH_SIGN = "gradient_x_deviation"
#: The rules there are for features.
FEATURE_RULES = (*RULES, WITH_SIGN)


def feature_maps(
    trace: Trace, layout: str, layer: str, features: Sequence[int] | None = None, *,
    rule: str = "deconvnet", start: Any = "map", precision: Any = "float32",
) -> NDArray[np.float32]:
    """The maps of features of a layer.

    Parameters
    ----------
    trace : Trace
    layout : str
        Which axis of the input is which, as the front end says.
    layer : str
    features : sequence of int, optional
        Default: all.
    rule : {"deconvnet", "guided", "gradient", "gradient_x_deviation"}
        The last is the gradient, times the input less its mean over time in every band. It is
        positive where what is there raises the activation, and negative where it lowers it.
    start : {"map", "max", "one"} or array
        As in `deconvolve`. The derivative of what a feature puts out in all starts from 1
        everywhere; so does "gradient_x_deviation" where the whole map is asked for.
    precision : {"float32", "bf16"}

    Returns
    -------
    array of float32, shape (K, C, H, W)
    """
    as_choice("rule", rule, FEATURE_RULES)
    how: Any = {"features": features, "precision": precision}
    if rule != WITH_SIGN:
        return deconvolve(trace, layer, rule=rule, start=start, **how)  # type: ignore[arg-type]
    if isinstance(start, str) and start == "map":
        start = "one"
    maps = deconvolve(trace, layer, rule="gradient", start=start, **how)
    return maps * deviation(trace, Grid(trace.x, layout))


def deviation(trace: Trace, grid: Grid) -> NDArray[np.float32]:
    """The input less its mean over time in every band, (C, H, W)."""
    return trace.x - grid.as_input(as_fill(grid, "band_mean"))
