"""Open a model file of any kind, which is recognised by its content, not by its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...errors import ArchiveError, ParameterError, shown
from ..network import Network
from ..zipped import list_zip, opened
from .keras_hdf5 import SIGNATURE

__all__ = ["open_model", "refuse_options"]

_ZIP = b"PK"
_PICKLE = b"\x80"


def open_model(path: str | os.PathLike[str], **options: Any) -> Network:
    """Open an archive of fastdeconv, an ONNX file or a Keras file.

    Parameters
    ----------
    path : str or path
    **options
        Arguments of `from_onnx` or `from_keras`; an archive takes none of them.

    Returns
    -------
    Network

    Raises
    ------
    ArchiveError
        If the file is none of these, or is damaged or unsafe.
    ParameterError
        If an option does not belong to the kind of file.
    FileNotFoundError
        If there is no such file.
    """
    kind = _kind_of(Path(path))
    if kind == "archive":
        network = Network.load(path)
        refuse_options(os.fspath(path), options)
        return network
    if kind == "keras":
        from .keras import from_keras

        inputs = options.pop("inputs", None)
        if inputs is not None:
            raise ParameterError(
                f"{shown(os.fspath(path))}: inputs= is for ONNX models, and this is a Keras model"
            )
        return from_keras(path, **options)
    from .onnx import from_onnx

    return from_onnx(path, **options)


def refuse_options(name: str, options: dict[str, Any]) -> None:
    """Refuse arguments of importers for a network that needs no import."""
    given = [key for key, value in options.items() if value is not None]
    if given:
        raise ParameterError(
            f"{shown(name)} is a network already: {', '.join(given)} "
            f"{'is' if len(given) == 1 else 'are'} for models of other frameworks"
        )


def _kind_of(path: Path) -> str:
    """The kind of a file: "archive", "keras" or "onnx"."""
    with opened(path) as (file, _):
        begin = file.read(8)
    if begin == SIGNATURE:
        return "keras"
    if begin[:2] == _ZIP:
        return _kind_of_zip(path)
    if begin[:1] == _PICKLE:
        raise ArchiveError(f"{shown(str(path))}: {_CHECKPOINT}")
    # An ONNX file has no signature: it begins with the number of a field.
    if begin[:1] == b"\x08" or path.suffix.lower() == ".onnx":
        return "onnx"
    raise ArchiveError(
        f"{shown(str(path))}: neither an archive of a network (.npz) nor an ONNX or Keras model"
    )


_CHECKPOINT = (
    "the file is a pickle (a PyTorch checkpoint), which could run any code and is not opened: "
    "build the module, load its state_dict with weights_only=True and call fastdeconv.from_torch"
)


def _kind_of_zip(path: Path) -> str:
    try:
        with opened(path) as (file, _):
            names = [info.filename for info in list_zip(file)[0]]
    except ArchiveError:
        return "archive"  # reading it raises an error that says what is wrong
    if "config.json" in names and any(name.endswith(".weights.h5") for name in names):
        return "keras"
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        raise ArchiveError(f"{shown(str(path))}: {_CHECKPOINT}")
    return "archive"
