"""Read the config of a Keras model and find its weights, in a file, two files or memory."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any

from ...errors import ArchiveError, ParameterError, shown
from ...untrusted_json import parse_json
from ..zipped import check_limits, inflate, list_zip, opened
from .keras_hdf5 import SIGNATURE, attribute, child, opened_hdf5, require_h5py
from .keras_weights import GroupsByName, GroupsByNumber, LiveModel, Weights

__all__ = ["ArgumentError", "Description", "is_live", "named_in_errors", "opened_model"]

_MOST_CHARS = 1 << 24
# Every level of nested models takes four levels of JSON.
_DEEPEST = 64
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


class ArgumentError(ParameterError):
    """An argument of the call is wrong, not the file."""


@dataclass(frozen=True)
class Description:
    """What an import needs from a model.

    Attributes
    ----------
    model : mapping
        ``{"class_name": ..., "config": ...}``.
    weights : Weights
    major : int or None
        The version of Keras: 1, 2 or 3.
    backend : str or None
        The back end of Keras, such as "tensorflow" or "theano"; "live" for a model in memory.
    """

    model: Mapping[str, Any]
    weights: Weights
    major: int | None = None
    backend: str | None = None


def is_live(source: Any) -> bool:
    """Whether `source` is a model in memory."""
    return all(hasattr(source, key) for key in ("get_config", "get_weights", "layers"))


@contextmanager
def named_in_errors(label: str, *, file: bool) -> Iterator[None]:
    """Put the name of the model in front of every error; for a file, make it an ArchiveError."""
    try:
        yield
    except (ArchiveError, ParameterError) as exc:
        of_file = file and not isinstance(exc, ArgumentError)
        error = ArchiveError if of_file else ParameterError
        raise error(f"{label}: {exc}") from exc.__cause__
    except MemoryError as exc:
        raise ArchiveError(f"{label}: too large for the memory there is") from exc
    except OSError as exc:
        raise ArchiveError(f"{label}: cannot be read ({exc})") from exc


@contextmanager
def opened_model(source: Any) -> Iterator[Description]:
    """The description of a model. In the context its file is open and named in every error."""
    if is_live(source):
        label = f"Keras model {shown(str(source.name))}"
        with named_in_errors(label, file=False):
            yield _live(source)
        return
    require_h5py()
    pair = isinstance(source, (tuple, list))
    if pair and len(source) != 2:
        raise ParameterError(
            f"model must be a path, a Keras model or (config, weights), found {shown(source)}"
        )
    with ExitStack() as stack:
        if not pair:
            file, label = stack.enter_context(opened(source))
            stack.enter_context(named_in_errors(label, file=True))
            yield _from_file(file, stack)
            return
        config, config_label = stack.enter_context(opened(source[0]))
        with named_in_errors(config_label, file=True):
            record = _json(_read(config, 4 * _MOST_CHARS), _record_of_model)
        file, label = stack.enter_context(opened(source[1]))
        stack.enter_context(named_in_errors(label, file=True))
        root = stack.enter_context(opened_hdf5(file))
        yield _described(record, file, root)


def _from_file(file: IO[bytes], stack: ExitStack) -> Description:
    head = file.read(len(SIGNATURE))
    file.seek(0)
    if head[:2] == b"PK":
        return _from_zip(file, stack)
    if head == SIGNATURE:
        root = stack.enter_context(opened_hdf5(file))
        text = attribute(file, root, "model_config")
        if text is None:
            raise ArchiveError(
                "the file has weights but no attribute 'model_config'; give the config as well: "
                "from_keras(('config.json', 'weights.h5'))"
            )
        return _described(_json(text.encode(), _record_of_model), file, root)
    if head.lstrip()[:1] == b"{":
        raise ArchiveError(
            "the file is a config without weights; give both: "
            "from_keras(('config.json', 'weights.h5'))"
        )
    raise ArchiveError("found neither a zip archive (.keras) nor an HDF5 file (.h5)")


def _from_zip(file: IO[bytes], stack: ExitStack) -> Description:
    """The model of a ``.keras`` archive."""
    infos, directory = list_zip(file)
    check_limits([info.file_size for info in infos])
    starts = sorted(info.header_offset for info in infos)
    ends = dict(zip(starts, [*starts[1:], directory]))
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if info.orig_filename in members:
            raise ArchiveError(f"member {shown(info.orig_filename)} is there twice")
        members[info.orig_filename] = info

    def content(name: str) -> bytearray:
        if name not in members:
            raise ArchiveError(f"member {name!r} is missing")
        info = members[name]
        try:
            # Bits 0, 5 and 6: encrypted, patch data, strongly encrypted.
            if info.flag_bits & 0x61 or info.compress_type not in (0, 8):
                raise ArchiveError("wanted a member that is stored or deflated, and not encrypted")
            if name != _WEIGHTS and info.file_size > 4 * _MOST_CHARS:
                raise ArchiveError(f"found {info.file_size} bytes, over the limit")
            return inflate(file, info, ends[info.header_offset])
        except ArchiveError as exc:
            raise ArchiveError(f"member {name!r}: {exc}") from exc.__cause__

    record = _json(content(_CONFIG), _record_of_model)
    if _METADATA in members:
        metadata = _json(content(_METADATA), dict)
        record = {**record, "keras_version": metadata.get("keras_version")}
    raw = io.BytesIO(content(_WEIGHTS))
    return _described(record, raw, stack.enter_context(opened_hdf5(raw)))


def _described(record: Mapping[str, Any], raw: IO[bytes], root: Any) -> Description:
    """The description made of a config and the root group of the weights."""
    groups = child(root, "model_weights")
    weights = root if groups is None else groups
    by_number = any(child(weights, key) is not None for key in ("vars", "layers")) and (
        "layer_names" not in weights.attrs
    )
    version, backend = (
        attribute(raw, root, key) or attribute(raw, weights, key) or record.get(key)
        for key in ("keras_version", "backend")
    )
    return Description(
        record,
        GroupsByNumber(raw, weights, record) if by_number else GroupsByName(weights),
        _major(version),
        backend if isinstance(backend, str) else None,
    )


def _major(version: Any) -> int | None:
    number = str(version).partition(".")[0]
    return int(number) if number in ("0", "1", "2", "3") else None


def _read(file: IO[bytes], most: int) -> bytes:
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    if size > most:
        raise ArchiveError(f"found {size} bytes, over the limit of {most}")
    return file.read(size)


def _json(data: bytes | bytearray, check: Any) -> Any:
    try:
        record = parse_json(data.decode("utf-8-sig"), most_chars=_MOST_CHARS, deepest=_DEEPEST)
    except UnicodeDecodeError as exc:
        raise ArchiveError(f"config: not UTF-8 ({exc.reason})") from exc
    except ValueError as exc:
        raise ArchiveError(f"config: {exc}") from None
    if not isinstance(record, dict):
        raise ArchiveError(f"config: found {shown(record)}, wanted a JSON object")
    return check(record)


def _record_of_model(record: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(record.get("class_name"), str) or "config" not in record:
        raise ArchiveError(
            f"config: found the keys {shown(list(record)[:8])}, wanted 'class_name' and 'config'"
        )
    return record


def _live(model: Any) -> Description:
    """The description of a model in memory, from its own methods."""
    if not model.built:
        raise ParameterError("the model has no weights yet; build it, or call it once")
    try:
        config = model.get_config()
    except Exception as exc:  # a custom class may raise anything
        raise ParameterError(f"its get_config fails ({shown(str(exc))})") from exc
    kind = "Sequential" if _has_base(model, "Sequential") else "Functional"
    entries = config.get("layers") if isinstance(config, dict) else config
    if not entries:
        raise ParameterError(
            f"get_config of its class {type(model).__name__} lists no layers, wanted a "
            "Sequential or functional model"
        )
    # Converted to JSON and back, so that it has the types that a file has.
    plain = json.loads(json.dumps({"class_name": kind, "config": config}, default=str))
    module = type(model).__module__.partition(".")[0]
    version = 2 if module in ("tf_keras", "tensorflow") else _live_major(model)
    return Description(plain, LiveModel(model), version, "live")


def _has_base(model: Any, name: str) -> bool:
    return any(cls.__name__ == name for cls in type(model).__mro__)


def _live_major(model: Any) -> int | None:
    for cls in type(model).__mro__:
        loaded = sys.modules.get(cls.__module__.partition(".")[0])
        if cls.__name__ == "Model" and loaded is not None:
            return _major(getattr(loaded, "__version__", None))
    return None
