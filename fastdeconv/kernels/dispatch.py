"""Which back end, instruction set and number of threads a call uses.

One rule for all three, the first that says something decides: the argument of the
call, the innermost ``with fastdeconv.config(...)``, the environment
(``FASTDECONV_BACKEND``, ``FASTDECONV_NUM_THREADS``, ``FASTDECONV_ISA``), and then the
best that this machine has.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from ..errors import BackendError, ParameterError, shown
from ..version import __version__
from .interface import Backend
from .lanes import Bf16

__all__ = [
    "available_backends",
    "available_isas",
    "config",
    "get_backend",
    "get_num_threads",
    "show_config",
]

BACKENDS = ("native", "numba", "cuda", "reference")

# The reference back end is there to be read and to be tested against. It is much slower than the
# others, so it is used only on request.
_ONLY_ON_REQUEST = "reference"


class _Settings(NamedTuple):
    backend: str | None = None
    num_threads: int | None = None
    isa: str | None = None


_DEFAULTS = _Settings()
_settings: ContextVar[_Settings] = ContextVar("fastdeconv_settings", default=_DEFAULTS)


@contextmanager
def config(
    *, backend: str | None = None, num_threads: int | None = None, isa: str | None = None
) -> Iterator[None]:
    """Choose back end, threads and instruction set inside a ``with`` block.

    A setting that is None keeps the value it has outside the block. The choice holds
    for the current thread (or asyncio task) only.

    Parameters
    ----------
    backend : {"native", "numba", "cuda", "reference"}, optional
    num_threads : int, optional
        At least 1.
    isa : {"avx512", "avx2", "neon", "baseline", "amx", "amx_emulated"}, optional
        Instruction set of the native back end. ``"amx"`` is avx512, with ``precision="bf16"``
        computed in tiles. It is used only on request, since nobody has timed it yet.
        ``"amx_emulated"`` gives the same bits on every machine, thousands of times more slowly.

    Raises
    ------
    BackendError
        If the back end or instruction set is not available here.
    ParameterError
        If `num_threads` is not a positive int.

    Examples
    --------
    >>> import fastdeconv as fd
    >>> with fd.config(backend="reference"):
    ...     values, switches = fd.ops.max_pool2d([[[[1.0, 5.0], [7.0, 2.0]]]], 2)
    >>> float(values[0, 0, 0, 0])
    7.0
    """
    outer = _settings.get()
    if backend is not None:
        _load(backend)
    if isa is not None:
        _check_isa(isa)
    if num_threads is not None:
        _check_threads(num_threads, "num_threads")
    token = _settings.set(
        _Settings(
            backend if backend is not None else outer.backend,
            num_threads if num_threads is not None else outer.num_threads,
            isa if isa is not None else outer.isa,
        )
    )
    try:
        yield
    finally:
        _settings.reset(token)


def get_backend(name: str | None = None) -> Backend:
    """The back end that a call with ``backend=name`` uses.

    Raises
    ------
    BackendError
        If it is not available here, or if none is named and only the reference is available.
    """
    if name is None:
        name = _settings.get().backend or os.environ.get("FASTDECONV_BACKEND") or None
    if name is not None:
        return _load(name)
    best = _best()
    if best == _ONLY_ON_REQUEST:
        raise BackendError(
            "there is no fast back end here: the native extension was not built, and Numba, which "
            "would stand in for it, is not installed: pip install 'fastdeconv[numba]' (or install "
            "a C compiler and reinstall fastdeconv). backend='reference' runs without either, but "
            "much slower"
        )
    return _imported(best)


def get_isa() -> str:
    """The instruction set that the native back end uses now."""
    isa = _settings.get().isa or os.environ.get("FASTDECONV_ISA") or None
    if isa is None:
        return _isas()[0]
    return _check_isa(isa)


def get_implementation() -> tuple[str, str | None]:
    """The name of the back end in use, and its instruction set; None if it has none to choose."""
    name = get_backend().name
    return name, get_isa() if name == "native" else None


def get_num_threads(num_threads: int | None = None) -> int:
    """The number of threads that a call with ``num_threads=num_threads`` uses."""
    if num_threads is not None:
        return _check_threads(num_threads, "num_threads")
    configured = _settings.get().num_threads
    if configured is not None:
        return configured
    text = os.environ.get("FASTDECONV_NUM_THREADS")
    if text:
        try:
            value = int(text)
        except ValueError:
            value = 0
        if value < 1:
            raise ParameterError(
                f"FASTDECONV_NUM_THREADS must be a positive number, found {shown(text)}"
            )
        return value
    return usable_cpus()


def available_backends() -> list[str]:
    """Back ends that work here, best first.

    Returns
    -------
    list of str
        Some of "native", "numba", "cuda" and "reference". "cuda" comes after the fast ones for
        the CPU, so that a GPU is used only on request.

    Examples
    --------
    >>> import fastdeconv as fd
    >>> "reference" in fd.available_backends()
    True
    """
    return [name for name in BACKENDS if _missing(name) is None]


def available_isas() -> list[str]:
    """Instruction sets of the native back end that this CPU has, best first.

    "amx" and "amx_emulated" are never among them; see `config`.

    Returns
    -------
    list of str
        Some of "avx512", "avx2", "baseline" and "neon"; empty without the compiled extension.

    Examples
    --------
    >>> import fastdeconv as fd
    >>> fd.available_isas()  # doctest: +SKIP
    ['avx2', 'baseline']
    """
    return list(_isas())


def _best() -> str:
    return next(known for known in BACKENDS if _missing(known) is None)


def show_config() -> None:
    """Print versions, back ends, instruction sets and threads (``fastdeconv info``).

    Examples
    --------
    >>> import fastdeconv as fd
    >>> fd.show_config()  # doctest: +ELLIPSIS
    fastdeconv:...
    """
    print(describe_config())


def describe_config() -> str:
    """The text of `show_config`."""
    backends = available_backends()
    isas = available_isas()
    try:
        backend: Any = get_backend()
        chosen = backend.name
    except BackendError:
        if backends != [_ONLY_ON_REQUEST]:
            raise
        backend, chosen = None, "none"
    rows = [
        ("fastdeconv", __version__),
        ("python", f"{platform.python_version()} ({platform.machine()}, {platform.system()})"),
    ]
    rows += [(name, _version(name)) for name in ("numpy", "numba", "librosa", "soundfile")]
    rows += [
        ("back end", f"{chosen} (available: {', '.join(backends)})"),
        ("instruction set", f"{get_isa()} (available: {', '.join(isas)})" if isas else "none"),
        ("bf16", _BF16[bf16_of(backend)]),
        ("amx", _describe_amx()),
        ("threads", str(get_num_threads())),
    ]
    lines = [f"{key + ':':<17}{value}" for key, value in rows]
    if "native" not in backends:
        lines += [
            "",
            f"The native back end is missing: {_missing('native')}.",
            "To get it, install a C compiler (Debian, Ubuntu: apt install gcc python3-dev;",
            "macOS: xcode-select --install) and reinstall:",
            "    pip install --force-reinstall --no-cache-dir --no-deps fastdeconv",
        ]
    if chosen == "none":
        lines += ["", "Without it fastdeconv needs Numba:", "    pip install 'fastdeconv[numba]'"]
    return "\n".join(lines)


def bf16_of(backend: Any) -> Bf16:
    """How a back end multiplies for ``precision="bf16"`` with the current instruction set."""
    how: Bf16 = backend.bf16() if hasattr(backend, "bf16") else "none"
    return how


_BF16: dict[Bf16, str] = {
    "none": "no",
    "slow": "accepted, but computed in float32: bfloat16 is no faster on this CPU without amx",
    "vectors": "yes (AVX512_BF16)",
    "tiles": "yes (tiles)",
}


def _describe_amx() -> str:
    """Whether this CPU has the tiles of AMX, and whether they are in use."""
    native = _native_module()
    if native is None or not native.cpu_has_tiles():
        return "no"
    if native.amx_table() is None:
        return "in the CPU, but not in this build"
    used = "in use" if get_isa() == "amx" else "off; FASTDECONV_ISA=amx turns it on, for bf16"
    return f"{used} (nobody has timed it yet)"


def _version(distribution: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _isas() -> tuple[str, ...]:
    return _isas_of(_native_module())


@functools.cache
def _isas_of(native: Any) -> tuple[str, ...]:
    return () if native is None else tuple(native.tables())


@functools.cache
def _tables(native: Any) -> dict[str, Any]:
    """The tables of `available_isas`, and those used only on request, by name."""
    return {} if native is None else native.tables() | native.tables_on_request()


@functools.cache
def _native_module() -> Any:
    try:
        return importlib.import_module(".native", __package__)
    except ImportError:
        return None


def _missing(name: str) -> str | None:
    """Why a known back end cannot be used, or None if it can."""
    if name == "native" and _native_module() is None:
        return "its extension module was not built (no C compiler at install time?)"
    if name in ("numba", "cuda") and not _numba_installed():
        return "the numba package is not installed"
    if name == "cuda":
        return _cuda_missing()
    return None


@functools.cache
def _numba_installed() -> bool:
    return importlib.util.find_spec("numba") is not None


@functools.cache
def _cuda_missing() -> str | None:
    """Why no GPU can be used, or None. Asks the driver, so that Numba need not be imported."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        return None
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver"
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the NVIDIA driver finds no GPU"
    return None


_MODULES = {
    "native": ".native_cpu", "numba": ".numba_cpu", "cuda": ".numba_cuda",
    "reference": ".reference",
}


def _load(name: str) -> Backend:
    if not isinstance(name, str) or name not in BACKENDS:
        raise BackendError(f"unknown back end {shown(name)}; there are {', '.join(BACKENDS)}")
    reason = _missing(name)
    if reason is not None:
        raise BackendError(
            f"back end {name!r} is not available: {reason}; "
            f"available: {', '.join(available_backends())}"
        )
    return _imported(name)


@functools.cache
def _imported(name: str) -> Backend:
    try:
        backend: Backend = importlib.import_module(_MODULES[name], __package__).BACKEND
    except ImportError as error:
        # Numba raises it when NumPy is newer than the versions it knows.
        raise BackendError(f"back end {name!r} cannot be loaded: {error}") from error
    return backend


def _check_isa(isa: str) -> str:
    tables = _tables(_native_module())
    if not isinstance(isa, str) or isa not in tables:
        raise BackendError(
            f"instruction set {shown(isa)} is not available; "
            f"available: {', '.join(_isas()) or 'none (no native back end)'}"
        )
    if not tables[isa].prepare():
        raise BackendError(
            f"instruction set {isa!r} is not available: the system does not let this process use "
            "tiles (arch_prctl ARCH_REQ_XCOMP_PERM)"
        )
    return isa


def _check_threads(value: Any, name: str) -> int:
    # Not by operator.index: tensors have it, and raise errors of their own.
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ParameterError(f"{name} must be a positive int, found {shown(value)}")
    return int(value)


@functools.cache
def usable_cpus() -> int:
    """The number of CPUs that this process may use, by its affinity and its cgroup's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    return max(1, min(count, _cgroup_quota() or count))


def _cgroup_quota() -> int | None:
    """The quota of the cgroup (v2, else v1) in CPUs, rounded up; None if there is none."""
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        try:
            with open("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", encoding="ascii") as file:
                quota = file.read().strip()
            with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us", encoding="ascii") as file:
                period = file.read().strip()
        except (OSError, ValueError):
            return None
    # "max" or -1: there is no limit.
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return None
    return -(-int(quota) // int(period))
