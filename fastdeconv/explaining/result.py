"""What the results of a clip and of a whole song share: names and the manifest."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..files import open_regular
from ..kernels.dispatch import config, get_implementation, get_num_threads
from ..report.citations import AURALISATION, DECONVNET
from ..report.folder import EXPLANATION, MANIFEST, manifest_head
from ..report.names import safe_name, unique_names
from ..report.sounds import FORMATS, PEAK
from ..report.tables import columns_of
from ..report.timeline import NUMBERS_FILE as TIMELINE_NUMBERS
from ..report.timeline import PICTURE as TIMELINE_PICTURE
from ..textfiles import as_bytes, table_text

if TYPE_CHECKING:
    from ..network.network import Network
    from ..report.listening import Layer

__all__ = [
    "MAPS", "TABLE", "as_computed", "audio_record", "computation", "layer_files", "layer_folders",
    "layer_record", "manifest", "result_name",
]

#: The table with one row per feature.
TABLE = "features.csv"
#: The array with the maps of a layer, where they are saved.
MAPS = "maps.npy"
_BLOCK = 1 << 18
"""How many bytes of a file are read at a time."""
# The names of a result's own files, which the folder of no layer may have.
_FILES = (
    *(f"original.{suffix}" for suffix in ("png", *FORMATS)),
    "input.png", TABLE, "index.html", MANIFEST,
)


def result_name(source: str | None) -> str:
    """The default name of a result, from the name of its file."""
    return "clip" if source is None else safe_name(Path(source).stem, "clip")


def layer_folders(layers: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """The name of the folder of each layer; never one of the result's own files or of `taken`."""
    safe = [safe_name(layer, "layer") for layer in layers]
    return dict(zip(layers, unique_names(safe, taken=(*_FILES, *taken)), strict=True))


def layer_files(folder: Path, page: Layer, audio_format: str) -> Iterator[str]:
    """The files of a layer by their names in its folder, whether they are there or not.

    Maps alone are looked for: nothing else says whether a layer has them.
    """
    for inner in ("", *(f"{version}/" for version in page.versions or ())):
        for row in page.rows:
            k = row["feature"]
            yield f"{inner}feature_{k}.{audio_format}"
            yield f"{inner}feature_{k}.png"
            yield f"{inner}map_{k}.png"
    if page.stage is not None:
        yield from (f"activation_{k}.png" for k in ("mean", *page.stage))
    if page.in_all is not None:
        yield from (TIMELINE_NUMBERS, TIMELINE_PICTURE)
    if os.path.lexists(folder / MAPS):
        yield MAPS


def layer_record(
    folder: Path, page: Layer, audio_format: str, more: Mapping[str, Any]
) -> dict[str, Any]:
    """What a manifest says of a layer whose files are in this folder.

    Raises
    ------
    OSError
        If one of its files is not there.
    """
    return {
        "name": page.name,
        "folder": page.folder,
        **more,
        "gains": {str(row["feature"]): row["gain"] for row in page.rows},
        "content": _content(folder, page, audio_format),
    }


def _content(folder: Path, page: Layer, audio_format: str) -> str:
    """A hash of the files of a layer, of its rows of the table and of its spectra."""
    rows = table_text(columns_of(page.rows[0] if page.rows else {}), page.rows)
    found = hashlib.sha256(as_bytes("\n".join([rows, *page.spectra, ""])))
    block = memoryview(bytearray(_BLOCK))
    for name in layer_files(folder, page, audio_format):
        own = hashlib.sha256()
        with open_regular(folder / name) as file:
            while size := file.readinto(block):  # type: ignore[attr-defined]
                own.update(block[:size])
        found.update(f"{name} {own.hexdigest()}\n".encode())
    return found.hexdigest()


def computation() -> dict[str, Any]:
    """Which back end, instruction set and number of threads are in use now."""
    backend, isa = get_implementation()
    return {"backend": backend, "instruction_set": isa, "threads": get_num_threads()}


def as_computed(found: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Compute inside with what `computation` found earlier."""
    return config(
        backend=found["backend"], num_threads=found["threads"], isa=found["instruction_set"]
    )


def audio_record(
    samples: NDArray[np.float32], *, sr: float, start: float, is_cut: bool, padding: float,
    audio_format: str, gain: float, round_trip: float | None,
) -> dict[str, Any]:
    """What a manifest says about the sound."""
    energy = np.square(samples, dtype=np.float64).sum()
    return {
        "sr": sr,
        "samples": int(samples.size),
        "start": start,
        "is_cut": is_cut,
        "padding": padding,
        "format": audio_format,
        "original_gain": gain,
        "original_rms": gain * float(np.sqrt(energy / max(1, samples.size))),
        "feature_peak": PEAK,
        "round_trip_db": round_trip,
    }


def manifest(
    name: str, source: str | None, network: Network, *, audio: Mapping[str, Any],
    outputs: Sequence[tuple[str, float]], probabilities: Sequence[tuple[str, float]],
    frontend: Mapping[str, Any], parameters: Mapping[str, Any], settings: Mapping[str, Any],
    computed: Mapping[str, Any], layers: Sequence[Mapping[str, Any]],
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest of a result, without the list of its files; `more` is put before the layers."""
    return {
        **manifest_head(EXPLANATION),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "song": name,
        "source": source,
        "audio": dict(audio),
        "network": {
            "name": network.name,
            "license": network.license,
            "citation": network.citation,
            "output": network.output,
            "outputs": [list(pair) for pair in outputs],
            "probabilities": [list(pair) for pair in probabilities],
        },
        "frontend": dict(frontend),
        "citation": [AURALISATION, DECONVNET],
        "parameters": dict(parameters),
        "settings": dict(settings),
        "computation": dict(computed),
        **(more or {}),
        "layers": [dict(layer) for layer in layers],
    }
