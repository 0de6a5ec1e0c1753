"""Networks from ONNX files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ParameterError, shown
from ..network import Network
from .advising import Call
from .assembling import import_model
from .ends import Wishes
from .reading import named_in_errors, read_model

if TYPE_CHECKING:
    from ...audio.frontend import Frontend

__all__ = ["from_onnx", "sizes", "wanted_name"]


def from_onnx(
    path: str | os.PathLike[str] | bytes | Any,
    input_shape: Sequence[int | None] | None = None,
    *,
    inputs: str | None = None,
    outputs: str | None = None,
    frontend: Frontend | dict[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
) -> Network:
    """Import a network from an ONNX model.

    Every layer is compared with the values that ONNX Runtime (or else the reference of the
    package onnx) computes for a random input. ``network.receipt`` says how well they agree.

    Parameters
    ----------
    path : str, path, bytes or onnx.ModelProto
        The file is not trusted: everything is checked before it is used. Weights in other
        files are read only from the folder of the model.
    input_shape : sequence of int, optional
        Shape of the model's input, with or without the batch, if the file leaves sizes open.
        None for a size that is taken from the file.
    inputs : str, optional
        The input to take, if the model has several. Or the name of a value or node inside the
        model: the network then begins after it.
    outputs : str, optional
        The last layer of the network: its name in the network, the path of its module, or the
        name of a value or node. Only the part between has to be importable.
    frontend : Frontend or dict, optional
        How a clip becomes an input. If the model takes samples and computes a spectrogram itself,
        give only their rate, ``{"sr": 16000}``: the spectrogram becomes the front end, and the
        network begins after it.
    classes : sequence of str, optional
        Names of the outputs.
    name : str, optional
        By default the name of the file.

    Returns
    -------
    Network
        Layers are named after the modules that they come from, ``features.3``.

        Its input is (C, H, W) in the order of the first convolution:

        - (1, C, H, W) becomes (C, H, W).
        - (1, H, W, C) becomes (C, H, W) if the model itself moves the channels.
        - (1, bins, frames) stays (1, bins, frames) before a 2-D convolution, and becomes
          (bins, 1, frames) before a 1-D convolution.
        - (1, samples) becomes (1, 1, samples), or (samples, 1, 1) before a linear layer.

        The width may vary if every layer allows it.

    Raises
    ------
    ParameterError
        If an argument does not fit, or there is no layer for an operator. The message names the
        node and its module, and says what can be imported below it.
    ArchiveError
        If the file is damaged, unsafe or over a limit, or the comparison fails.
    FileNotFoundError
        If there is no such file.

    See Also
    --------
    from_torch : the same from a module in memory

    Examples
    --------
    >>> import fastdeconv as fd
    >>> net = fd.from_onnx("tagger.onnx", (1, 96, 1366))  # doctest: +SKIP
    >>> net.receipt  # doctest: +SKIP
    '18 of 18 layers compared with ONNX Runtime: equal to 3e-07 of their largest value ...'
    >>> fd.from_onnx("crnn.onnx", outputs="features.12")  # doctest: +SKIP
    <Network 'crnn': 13 layers, input 1 x 96 x ?, output 128 x 6 x ?>
    """
    shape = None if input_shape is None else sizes(input_shape, may_be_open=True)
    if name is None and isinstance(path, (str, os.PathLike)):
        name = wanted_name(Path(path).stem)
    wishes = Wishes(
        Call("from_onnx(..., ", has_command=True), shape, inputs, outputs, frontend, classes, name
    )
    model, label = read_model(path)
    with named_in_errors(label), np.errstate(all="ignore"):
        return import_model(model, label, wishes)


def sizes(value: Any, *, may_be_open: bool = False) -> tuple[int | None, ...]:
    """Check a shape.

    Raises
    ------
    ParameterError
        If it is not a sequence of positive ints.
    """
    given = value if isinstance(value, (list, tuple)) else ()
    found = [
        int(n) if isinstance(n, (int, np.integer)) and not isinstance(n, bool) else
        None if n is None and may_be_open else 0
        for n in given
    ]
    if not found or any(n is not None and not 1 <= n < 2**31 for n in found):
        raise ParameterError(
            f"input_shape must be a sequence of positive ints, found {shown(value)}"
        )
    return tuple(found)


def wanted_name(text: str) -> str | None:
    """`text` if a network may have that name, else None."""
    return text if text and text.isprintable() else None
