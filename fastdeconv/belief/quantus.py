"""Explanations for Quantus (Hedström et al., JMLR 2023), a package that evaluates explanations."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio._checks import as_choice
from ..deconvnet.trace import as_input
from ..errors import ParameterError
from ..network.choosing import open_network
from ..network.network import Network
from .grid import Grid
from .rules import METHODS, Rules
from .targets import Target, class_names, decision_kind

__all__ = ["explain_func"]

Array = NDArray[Any]


def explain_func(
    net: Network | str | os.PathLike[str], method: str = METHODS[0]
) -> Callable[..., NDArray[np.float32]]:
    """Make the function that a metric of Quantus calls to explain a batch.

    Parameters
    ----------
    net : Network, str or path
        The same network as the one (in PyTorch or Keras) with which Quantus makes predictions.
    method : str
        As in `fastdeconv.decision`.

    Returns
    -------
    callable
        ``explain(model, inputs, targets, **ignored)``, to be passed to metrics as `explain_func`:
        from inputs (N, C, H, W) and N class numbers to maps (N, C, H, W) of float32, not smoothed.

    Raises
    ------
    ParameterError
        If there is no such method. When the function is called: if inputs or targets do not fit.

    Examples
    --------
    >>> import quantus  # doctest: +SKIP
    >>> metric = quantus.Sparseness()  # doctest: +SKIP
    >>> metric(module, x, y, explain_func=explain_func("model.onnx", "cam"))  # doctest: +SKIP
    """
    network = open_network(net)
    as_choice("method", method, METHODS)
    layout = "CFT" if network.frontend is None else network.frontend.layout
    kind = decision_kind(network)

    def explain(model: Any, inputs: Any, targets: Any, **ignored: Any) -> NDArray[np.float32]:
        numbers = np.asarray(targets).ravel()
        if len(numbers) != len(inputs):
            raise ParameterError(
                f"targets must have one class for each input, found {len(numbers)} for "
                f"{len(inputs)} inputs"
            )
        found = []
        for i, (x, number) in enumerate(zip(inputs, numbers.tolist())):
            trace = network.forward(as_input(x, f"inputs[{i}]"))
            names = class_names(trace)
            if number not in range(len(names)):
                raise ParameterError(
                    f"targets must be class numbers from 0 to {len(names) - 1}, found {number}"
                )
            grid = Grid(trace.x, layout)
            target = Target(names[int(number)], int(number), kind)
            found.append(grid.inputs(Rules(trace, grid, [target]).maps(method))[0])
        return np.stack(found).astype(np.float32)

    return explain
