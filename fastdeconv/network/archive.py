"""Networks on disk: the reader trusts nothing, the writer leaves no half-written file.

An archive is an ``.npz``: a zip of ``.npy`` members. ``network.npy`` is a 0-d
unicode array with the JSON record of the layers; the other members are the weights.

Why a reader may open files from anybody
----------------------------------------
Nothing that a file says about itself is used before it is checked. `zipfile`
only lists the members, through a reader that refuses large reads, and the limits
below are checked on that list. Each member is then inflated here, not by
`zipfile`, which would silently cut off what exceeds the declared size. Memory
grows with the real bytes, never with a declared number, and the bytes must match the
directory's size and checksum and the shape in the ``.npy`` header exactly. Headers
are read as plain literals of bounded length, so nothing is ever unpickled. No
name from a file is used as a path.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import json
import math
import os
import re
import secrets
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ArchiveError, ParameterError, shown
from ..untrusted_json import parse_json
from .layers import Layer, layer_records, layers_from_records
from .network import Network, as_float32, check_array_names
from .zipped import MAX_MEMBER_BYTES, check_limits, inflate, list_zip, opened

if TYPE_CHECKING:
    from ..audio.frontend import Frontend

__all__ = [
    "FORMAT",
    "MAX_JSON_CHARS",
    "MAX_JSON_DEPTH",
    "MAX_LAYERS",
    "VERSION",
    "read_archive",
    "write_archive",
]

FORMAT = "fastdeconv-network"
#: The newest version of the format. A network is written in the oldest version that can hold it.
VERSION = 2

#: Most characters of the JSON record.
MAX_JSON_CHARS = 1 << 22
#: Deepest nesting of the JSON record; a layer's padding is at depth 5.
MAX_JSON_DEPTH = 16
#: Most layers.
MAX_LAYERS = 2048

# Version 1 is a chain of layers of these types.
_TYPES_OF_VERSION_1 = frozenset({
    "conv2d", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softmax", "batch_norm2d",
    "local_response_norm", "max_pool2d", "avg_pool2d", "global_avg_pool2d", "global_max_pool2d",
    "dropout", "flatten", "linear", "affine",
})
_KEYS_SINCE_2 = frozenset({"inputs", "axis"})

_RECORD = "network"
_FILTERS = "frontend.filters"
_SUFFIX = ".npy"
# Longer than the header of any plain array. Structured arrays are refused anyway.
_MAX_NPY_HEADER = 4096
_MAX_RANK = 8
_MAX_COMMENT = 1 << 16


# --- reading -----------------------------------------------------------------------------


def read_archive(
    source: str | os.PathLike[str] | IO[bytes],
    architecture: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    true_convolution: bool = False,
) -> Network:
    """Read a network; see `Network.load`, which is this function.

    Parameters
    ----------
    source : str, path or seekable binary file object
    architecture : dict, path of a JSON file or "choi2016", optional
        For an archive without the key ``network``.
    true_convolution : bool
        Flip every rank-4 array along its last two axes.

    Returns
    -------
    Network

    Raises
    ------
    ArchiveError
        If the archive is damaged, unsafe, over a limit, or does not make a network.
    ParameterError
        If an argument has a wrong type, or `architecture` is given for an archive with its own
        record.
    FileNotFoundError
        If there is no such file.
    """
    if not isinstance(true_convolution, (bool, np.bool_)):
        raise ParameterError(
            f"true_convolution must be True or False, found {shown(true_convolution)}"
        )
    if isinstance(architecture, os.PathLike):
        architecture = os.fspath(architecture)
    if not isinstance(architecture, (Mapping, str, type(None))):
        raise ParameterError(
            "architecture must be a dict, the path of a JSON file or 'choi2016', "
            f"found {shown(architecture)}"
        )
    if isinstance(architecture, str) and architecture != "choi2016":
        architecture = _read_architecture(architecture)
    with opened(source) as (file, label), _named_in_errors(label):
        archive = _Archive.listed(file)
        if _RECORD not in archive.members:
            return _read_plain(archive, architecture, bool(true_convolution))
        if architecture is None:
            return _read_own(archive, bool(true_convolution))
    raise ParameterError(
        f"{label}: the archive describes its own network (key {_RECORD!r}); "
        "architecture is only for archives without that key"
    )


@contextlib.contextmanager
def _named_in_errors(label: str) -> Iterator[None]:
    """Put the file's name in front of every error, and make it an ArchiveError."""
    try:
        yield
    except (ArchiveError, ParameterError) as exc:
        raise ArchiveError(f"{label}: {exc}") from exc.__cause__
    except MemoryError as exc:
        raise ArchiveError(f"{label}: too large for the memory there is") from exc
    except OSError as exc:
        raise ArchiveError(f"{label}: cannot be read ({exc})") from exc


class _Archive(NamedTuple):
    """An open archive and its members by key. The zip directory has been checked."""

    file: IO[bytes]
    members: dict[str, zipfile.ZipInfo]
    #: For the offset of each member, the offset of what follows it in the file.
    ends: dict[int, int]

    @classmethod
    def listed(cls, file: IO[bytes]) -> _Archive:
        """List the members and check names, methods, counts and declared sizes."""
        infos, directory = list_zip(file)
        check_limits([info.file_size for info in infos])
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            key = _member_key(info)
            if key in members:
                raise ArchiveError(f"member {shown(info.orig_filename)} is there twice")
            members[key] = info
        starts = sorted(info.header_offset for info in infos)
        return cls(file, members, dict(zip(starts, [*starts[1:], directory])))

    def array(self, key: str) -> NDArray[Any]:
        """The array of a member as it was stored, with any plain dtype."""
        try:
            info = self.members[key]
            data = inflate(self.file, info, self.ends[info.header_offset])
            return _parse_npy(data)
        except ArchiveError as exc:
            raise ArchiveError(f"array {shown(key)}: {exc}") from exc.__cause__

    def weight(self, key: str, flip: bool) -> NDArray[np.float32]:
        """The array of a member as float32; with `flip`, arrays of rank 4 are flipped."""
        array = as_float32(key, self.array(key))
        return array[:, :, ::-1, ::-1] if flip and array.ndim == 4 else array


def _member_key(info: zipfile.ZipInfo) -> str:
    """The name of a member's array, after checks of the member's name and compression."""
    # Not `filename`, which zipfile cuts at a NUL and whose separators it changes.
    name = info.orig_filename
    key = name[: -len(_SUFFIX)]
    if (
        not name.endswith(_SUFFIX)
        or not key
        or not key.isprintable()
        or any(part in key for part in ("/", "\\", ".."))
    ):
        raise ArchiveError(
            f"found a member called {shown(name)}, wanted printable names without slashes "
            f"or '..' that end in {_SUFFIX}"
        )
    # Bits 0, 5 and 6: encrypted, patch data, strongly encrypted.
    if info.flag_bits & 0x61:
        raise ArchiveError(f"array {shown(key)}: found an encrypted member, wanted a plain one")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(
            f"array {shown(key)}: found compression method {info.compress_type}, "
            "wanted 0 (stored) or 8 (deflated)"
        )
    return key


def _parse_npy(data: bytearray) -> NDArray[Any]:
    """The array of a whole ``.npy`` file of format 1, 2 or 3, without a copy."""
    descr, fortran, shape, offset = _npy_header(data)
    dtype = _plain_dtype(descr)
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) - offset != wanted:
        raise ArchiveError(
            f"found {len(data) - offset} bytes of data, wanted {wanted} for shape {shape} "
            f"of {dtype}"
        )
    try:
        flat = np.frombuffer(data, dtype, count=math.prod(shape), offset=offset)
        return flat.reshape(shape, order="F" if fortran else "C")
    except ValueError as exc:  # text of no characters; empty arrays with huge axes
        raise ArchiveError(f"found {dtype} of shape {shape}, which numpy refuses: {exc}") from exc


def _npy_header(data: bytearray) -> tuple[Any, bool, tuple[int, ...], int]:
    """The header's descr, fortran_order and shape, and the position of the data."""
    version = data[6] if len(data) >= 12 and data[:6] == b"\x93NUMPY" and data[7] == 0 else 0
    if version not in (1, 2, 3):
        raise ArchiveError("not an .npy array of format 1.0, 2.0 or 3.0")
    start = 10 if version == 1 else 12
    (size,) = struct.unpack("<H" if version == 1 else "<I", data[8:start])
    if size > min(_MAX_NPY_HEADER, len(data) - start):
        raise ArchiveError(f"found a header of {size} bytes, cut short or over {_MAX_NPY_HEADER}")
    try:
        text = data[start : start + size].decode("utf-8" if version == 3 else "latin-1")
        # Python 2 wrote long integers: (4L, 1L).
        header = ast.literal_eval(re.sub(r"(?<=[0-9])L(?=[,)])", "", text.strip()))
    # Deep nesting raises one of the last three.
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as exc:
        raise ArchiveError("the header is not a plain literal") from exc
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise ArchiveError(
            f"found the header {shown(header)}, wanted descr, fortran_order and shape only"
        )
    fortran, shape = header["fortran_order"], header["shape"]
    if not isinstance(fortran, bool):
        raise ArchiveError(f"found fortran_order {shown(fortran)}, wanted True or False")
    if (
        not isinstance(shape, tuple)
        or len(shape) > _MAX_RANK
        or not all(type(n) is int and 0 <= n <= MAX_MEMBER_BYTES for n in shape)
    ):
        raise ArchiveError(
            f"found shape {shown(shape)}, wanted a tuple of at most {_MAX_RANK} sizes"
        )
    return header["descr"], fortran, shape, start + size


def _plain_dtype(descr: Any) -> np.dtype[Any]:
    """The dtype of a header: only numbers and text, no objects and no fields."""
    if not isinstance(descr, str) or not re.fullmatch(r"[<>=|]?[fiuU][0-9]{1,8}", descr):
        raise ArchiveError(f"found dtype {shown(descr)}, wanted float or int")
    try:
        return np.dtype(descr)
    except (TypeError, ValueError) as exc:
        raise ArchiveError(f"found dtype {shown(descr)}, which numpy does not have here") from exc


# --- the record --------------------------------------------------------------------------


def _read_own(archive: _Archive, flip: bool) -> Network:
    """The network of an archive with its own record."""
    size, limit = archive.members[_RECORD].file_size, 4 * MAX_JSON_CHARS + _MAX_NPY_HEADER
    if size > limit:
        raise ArchiveError(f"array {_RECORD!r}: found {size} bytes, over the limit of {limit}")
    text = archive.array(_RECORD)
    if text.dtype.kind != "U" or text.ndim != 0:
        raise ArchiveError(
            f"array {_RECORD!r}: found {text.dtype} of shape {text.shape}, wanted a 0-d unicode "
            "array with JSON"
        )
    codec = "utf-32-be" if text.dtype.str[0] == ">" else "utf-32-le"
    try:
        with _key_in_errors(_RECORD):
            record = _checked_record(_parse_json(text.tobytes().decode(codec).rstrip("\0")))
            layers = layers_from_records(record["layers"], named=True)
    except UnicodeDecodeError as exc:
        raise ArchiveError(f"array {_RECORD!r}: not valid unicode ({exc.reason})") from exc
    names = [key for key in archive.members if key != _RECORD]
    if _has_filters(record.get("frontend")) and _FILTERS in names:
        names.remove(_FILTERS)
        record = {**record, "frontend": _with_filters(record["frontend"], archive)}
    check_array_names(layers, names)
    return _make(record, layers, {key: archive.weight(key, flip) for key in names})


def _has_filters(frontend: Any) -> bool:
    return isinstance(frontend, Mapping) and frontend.get("kind") == "filters"


def _with_filters(frontend: Mapping[str, Any], archive: _Archive) -> Frontend:
    from ..audio.frontend import Frontend

    with _key_in_errors("frontend"):
        return Frontend.from_record(frontend, archive.weight(_FILTERS, flip=False))


def _make(
    record: Mapping[str, Any], layers: tuple[Layer, ...], arrays: dict[str, NDArray[np.float32]]
) -> Network:
    return Network(
        layers,
        arrays,
        record["input_shape"],
        frontend=record.get("frontend"),
        classes=record.get("classes"),
        output=record.get("output"),
        name=record.get("name"),
        license=record.get("license"),
        citation=record.get("citation"),
        aliases=record.get("aliases"),
    )


@contextlib.contextmanager
def _key_in_errors(key: str) -> Iterator[None]:
    try:
        yield
    except (ArchiveError, ParameterError) as exc:
        raise ArchiveError(f"{key}: {exc}") from exc.__cause__


_REQUIRED = ("format", "version", "input_shape", "layers")
_OPTIONAL = ("name", "frontend", "classes", "output", "license", "citation", "aliases")


def _checked_record(record: Any, required: tuple[str, ...] = _REQUIRED) -> Mapping[str, Any]:
    """The record, after checks of its keys, format and version."""
    if not isinstance(record, Mapping):
        raise ArchiveError(f"found {shown(record)}, wanted a JSON object")
    for key, wanted in (("format", (FORMAT,)), ("version", tuple(range(1, VERSION + 1)))):
        if key in required or key in record:
            _check_mark(record, key, wanted)
    for key in required:
        if key not in record:
            raise ArchiveError(f"the key {key!r} is missing")
    for key in record:
        if key not in _REQUIRED + _OPTIONAL:
            raise ArchiveError(
                f"unknown key {shown(key)}; there are {', '.join(_REQUIRED + _OPTIONAL)}"
            )
    layers = record["layers"]
    if isinstance(layers, (list, tuple)) and len(layers) > MAX_LAYERS:
        raise ArchiveError(f"found {len(layers)} layers, over the limit of {MAX_LAYERS}")
    return record


def _check_mark(record: Mapping[str, Any], key: str, wanted: tuple[str | int, ...]) -> None:
    found = record.get(key)
    if type(found) is type(wanted[0]) and found in wanted:
        return
    if key == "version" and type(found) is int and found > VERSION:
        raise ArchiveError(
            f"version {shown(found)} was written by a newer fastdeconv; this one reads "
            f"versions up to {VERSION}"
        )
    what = f"found {shown(found)}" if key in record else "the key is missing"
    raise ArchiveError(f"{key}: {what}, wanted {' or '.join(map(repr, wanted))}")


def _parse_json(text: str) -> Any:
    try:
        return parse_json(text, most_chars=MAX_JSON_CHARS, deepest=MAX_JSON_DEPTH)
    except ValueError as exc:
        raise ArchiveError(str(exc)) from None


# --- plain archives ----------------------------------------------------------------------


def _read_architecture(path: str) -> Mapping[str, Any]:
    """The record in a JSON file."""
    with opened(path) as (file, label), _named_in_errors(label):
        data = file.read(4 * MAX_JSON_CHARS + 1)
        try:
            record = _parse_json(data.decode("utf-8-sig"))
        except UnicodeDecodeError as exc:
            raise ArchiveError(f"not UTF-8 ({exc.reason})") from exc
        if not isinstance(record, Mapping):
            raise ArchiveError(f"found {shown(record)}, wanted a JSON object")
        return record


def _read_plain(archive: _Archive, architecture: Any, flip: bool) -> Network:
    """The network of an archive without a record."""
    if architecture is None:
        raise ArchiveError(
            f"the key {_RECORD!r} is missing; for a plain archive of weights give "
            "architecture=... (a dict, a JSON file or 'choi2016')"
        )
    arrays = {key: archive.weight(key, flip) for key in archive.members}
    if isinstance(architecture, str):
        return _choi2016(arrays)
    with _key_in_errors("architecture"):
        record = _checked_record(architecture, required=("input_shape", "layers"))
        layers = layers_from_records(record["layers"])
    if arrays and all(_numbered(key) is not None for key in arrays):
        arrays = _match_numbered(layers, arrays)
    return _make(record, layers, arrays)


def _numbered(key: str, pattern: str = r"W(0|[1-9][0-9]{0,8})") -> int | None:
    """The number in a name like ``W10``, or None."""
    match = re.fullmatch(pattern, key)
    return int(match.group(1)) if match else None


def _match_numbered(
    layers: tuple[Layer, ...], arrays: dict[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Assign ``W0``, ``W1``, ... ``W10`` in numeric order to the layers with weights."""
    keys = sorted(arrays, key=lambda key: _numbered(key) or 0)
    owners = [layer for layer in layers if layer.array_names]
    if len(keys) != len(owners):
        raise ArchiveError(
            f"found {len(keys)} arrays ({shown(keys)}), wanted {len(owners)}: one for each "
            "layer with weights"
        )
    _check_no_gap({key: _numbered(key) or 0 for key in keys})
    for key, layer in zip(keys, owners):
        if len(layer.array_names) > 1:
            raise ArchiveError(
                f"array {layer.array_names[1]!r} of {layer.label} is missing: arrays called "
                f"W0, W1, ... hold one weight for each layer (here {key!r}); if the layer has no "
                'bias, give it "bias": false'
            )
    return {layer.array_names[0]: arrays[key] for key, layer in zip(keys, owners)}


def _check_no_gap(numbers: Mapping[str, int]) -> None:
    """Refuse numbered arrays if one is missing: those after it would go to wrong layers."""
    found = sorted(numbers.values())
    for number, following in itertools.pairwise(found):
        if following != number + 1:
            raise ArchiveError(
                f"the array with number {number + 1} is missing: found {shown(sorted(numbers))}"
            )


#: The front end of the 2015 script. librosa padded STFTs by reflection at that time.
_CHOI2016_FRONTEND = {
    "kind": "stft", "sr": 11025, "n_fft": 512, "hop_length": 256, "scale": "linear",
    "frames": 173, "pad_mode": "reflect",
}


def _choi2016(arrays: dict[str, NDArray[np.float32]]) -> Network:
    """[conv same, ReLU, 2 x 2 max pool] for each rank-4 array, in numeric order."""
    numbers = {key: n + 1 for key in arrays if (n := _numbered(key)) is not None}
    if not numbers:
        pattern = r"conv(0|[1-9][0-9]{0,8})\.weight"
        numbers = {key: n for key in arrays if (n := _numbered(key, pattern)) is not None}
    left = [key for key in arrays if key not in numbers or arrays[key].ndim != 4]
    if left or not numbers:
        found = f"{shown(left[0])} of shape {arrays[left[0]].shape}" if left else "no array"
        raise ArchiveError(
            f"found {found}, wanted for 'choi2016' only arrays of rank 4, called W0, W1, ... "
            "or conv1.weight, conv2.weight, ..."
        )
    _check_no_gap(numbers)
    keys = sorted(numbers, key=numbers.__getitem__)
    layers: list[dict[str, Any]] = []
    for key in keys:
        n = numbers[key]
        layers += [
            {"type": "conv2d", "name": f"conv{n}", "padding": "same", "bias": False},
            {"type": "relu", "name": f"relu{n}"},
            {"type": "max_pool2d", "name": f"pool{n}", "kernel_size": (2, 2)},
        ]
    channels = int(arrays[keys[0]].shape[1])
    return Network(
        layers,
        {f"conv{numbers[key]}.weight": arrays[key] for key in keys},
        (channels, None, None),
        frontend=_CHOI2016_FRONTEND if channels == 1 else None,
    )


# --- writing -----------------------------------------------------------------------------


def write_archive(
    network: Network, path: str | os.PathLike[str], dtype: str = "float32"
) -> None:
    """Write a network; see `Network.save`.

    Parameters
    ----------
    network : Network
    path : str or path
        The file to write. No suffix is added, unlike `numpy.savez`.
    dtype : {"float32", "float16"}

    Raises
    ------
    ArchiveError
        If the file cannot be written, or would exceed the limits of the reader.
    ParameterError
        If `path` or `dtype` is not as described.
    FileNotFoundError
        If the folder does not exist.
    """
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    if not isinstance(path, str) or not path:
        raise ParameterError(f"path must be a str or a path, found {shown(path)}")
    if dtype not in ("float32", "float16"):
        raise ParameterError(f"dtype must be 'float32' or 'float16', found {shown(dtype)}")
    with _named_in_errors(shown(path)):
        arrays = {_RECORD: _record_array(network), **_stored(network.arrays, dtype)}
        if network.frontend is not None and network.frontend.filters is not None:
            # Never rounded to float16, because the record has their checksum.
            arrays[_FILTERS] = network.frontend.filters.astype("<f4", copy=False)
        check_limits([array.nbytes for array in arrays.values()])
    try:
        _replace(path, lambda file: _write_zip(file, arrays))
    except FileNotFoundError as exc:
        # The error of the system names the temporary file.
        raise FileNotFoundError(exc.errno, exc.strerror, path) from None
    except (OSError, ValueError) as exc:
        # The error of the system names the temporary file, so only its reason is shown.
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise ArchiveError(f"{shown(path)}: cannot be written ({why})") from exc


def _stored(arrays: Mapping[str, NDArray[np.float32]], dtype: str) -> dict[str, NDArray[Any]]:
    """The weights in `dtype`, little-endian."""
    stored = {}
    for key, array in arrays.items():
        with np.errstate(over="ignore"):  # reported below, with the array's name
            stored[key] = array.astype("<f4" if dtype == "float32" else "<f2", copy=False)
        if not np.isfinite(stored[key]).all():
            largest = float(np.abs(array).max())
            raise ArchiveError(f"array {key!r}: found {largest:.6g}, which overflows {dtype}")
    return stored


def _replace(path: str, write: Callable[[IO[bytes]], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`."""
    temporary = os.path.join(os.path.dirname(path), f".fastdeconv-{secrets.token_hex(8)}.tmp")
    # Not with `tempfile`, because only the owner could read the result.
    file = open(temporary, "xb")
    try:
        with file:
            write(file)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _record_array(network: Network) -> NDArray[np.str_]:
    """The JSON record as the 0-d unicode array of the archive."""
    if len(network.layers) > MAX_LAYERS:
        raise ArchiveError(f"found {len(network.layers)} layers, over the limit of {MAX_LAYERS}")
    layers = layer_records(network.layers)
    record = {
        "format": FORMAT,
        "version": _version(layers, network),
        "name": network.name,
        "input_shape": network.input_shape,
        "frontend": None if network.frontend is None else network.frontend.to_record(),
        "layers": layers,
        "classes": network.classes,
        "output": network.output,
        "license": network.license,
        "citation": network.citation,
        "aliases": network.aliases or None,
    }
    text = json.dumps({k: v for k, v in record.items() if v is not None}, allow_nan=False)
    if len(text) > MAX_JSON_CHARS:
        raise ArchiveError(
            f"the record has {len(text)} characters, over the limit of {MAX_JSON_CHARS}"
        )
    return np.array(text, dtype=f"<U{len(text)}")


def _version(layers: list[dict[str, Any]], network: Network) -> int:
    """The oldest version of the format that can hold the network."""
    frontend = network.frontend
    new = network.output is not None or bool(network.aliases)
    new = new or (frontend is not None and frontend.is_new) or any(
        record["type"] not in _TYPES_OF_VERSION_1 or not _KEYS_SINCE_2.isdisjoint(record)
        for record in layers
    )
    return 2 if new else 1


def _write_zip(file: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as an .npz whose bytes depend neither on the time nor on the machine."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, array, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(key + _SUFFIX, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, data.getbuffer())
