"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "numpy", "numba", "torch", "captum", "zennit", "jax", "jaxlib", "onnxruntime", "scipy",
)


def facts() -> list[tuple[str, str]]:
    """(what, value) rows."""
    cpus = usable_cpus()
    return [
        ("CPU", f"{_model()}, {cpus} core{'s' * (cpus != 1)} available"),
        ("caches", ", ".join(_caches()) or "unknown"),
        ("memory", _memory()),
        ("kernel", f"{platform.system()} {platform.release().split('-')[0]}"),
        ("Python", f"{platform.python_version()} ({platform.machine()})"),
        ("packages", ", ".join(_versions())),
    ]


def usable_cpus() -> int:
    """CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _model() -> str:
    """Name, and family and model, as virtual machines often hide the number."""
    known = _lscpu()
    name = known.get("Model name") or platform.processor() or platform.machine()
    if "CPU family" in known:
        name += f" (family {known['CPU family']}, model {known['Model']})"
    return name


def _caches() -> Iterator[str]:
    known = _lscpu()
    for key in ("L1d cache", "L2 cache", "L3 cache"):
        if key in known:
            yield f"{key.split()[0]} {known[key]}"


def _lscpu() -> dict[str, str]:
    try:
        text = subprocess.run(
            ["lscpu"], capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C"}
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory() -> str:
    try:
        total = int(Path("/proc/meminfo").read_text().split()[1])
    except (OSError, ValueError):
        return "unknown"
    return f"{total / 2**20:.0f} GiB"


def _versions() -> Iterator[str]:
    from fastdeconv import __version__

    yield f"fastdeconv {__version__}"
    for name in PACKAGES:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"no {name}"
