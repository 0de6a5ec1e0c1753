"""Maps of features by every rule: the rules of `deconvolve`, and gradient times deviation."""

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

#: The rule "gradient times deviation": its sign says whether the input raises the activation.
WITH_SIGN = "gradient_x_deviation"
#: All rules for features.
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
        The order of the input's axes, as in the front end: "CFT", "CTF", ...
    layer : str
    features : sequence of int, optional
        Default: all.
    rule : {"deconvnet", "guided", "gradient", "gradient_x_deviation"}
        "gradient_x_deviation" is the gradient times the deviation of the input from its mean over
        time in every band. It is positive where the input raises the activation, and negative where
        it lowers it.
    start : {"map", "max", "one"} or array
        As in `deconvolve`. "gradient_x_deviation" takes "map" as "one": the derivative of the sum
        of a feature's map starts from 1 everywhere.
    precision : {"float32", "bf16"}
        As in `deconvolve`.

    Returns
    -------
    array of float32, shape (K, C, H, W)

    Raises
    ------
    ParameterError
        If there is no such rule, or `deconvolve` refuses the other parameters.
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
    """The input minus its mean over time in every band, (C, H, W)."""
    return trace.x - grid.as_input(as_fill(grid, "band_mean"))
