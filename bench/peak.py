"""The machine's own multiply-add rate, by the loops of peak.c on as many threads as asked."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

SETS = ("avx512", "avx2", "baseline", "neon", "bf16")
_SECONDS = 0.1


@functools.cache
def _library() -> ctypes.CDLL | None:
    """peak.c compiled by the system's compiler; None without one."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        source = Path(__file__).with_name("peak.c")
        build = subprocess.run(
            [*compiler.split(), "-O2", "-shared", "-fPIC", "-o", str(library), str(source)],
            capture_output=True, check=False,
        )
        return ctypes.CDLL(str(library)) if build.returncode == 0 else None


def peaks(num_threads: int, rounds: int = 5) -> dict[str, float]:
    """Multiply-adds a second by set, on `num_threads` threads; the best of a few goes.

    Empty without a C compiler.
    """
    found = {}
    for name in SETS:
        loop = getattr(_library(), f"peak_{name}", None)
        if loop is None:
            continue
        loop.restype, loop.argtypes = ctypes.c_int64, [ctypes.c_int64]
        if loop(1):
            turns = _turns(loop)
            found[name] = max(_rate(loop, turns, num_threads) for _ in range(rounds))
    return found


def _turns(loop: ctypes._FuncPointer) -> int:
    """Turns of `loop` that take about _SECONDS."""
    turns = 1 << 16
    while True:
        begin = time.perf_counter()
        loop(turns)
        took = time.perf_counter() - begin
        if took > _SECONDS / 4:
            return int(turns * _SECONDS / took)
        turns *= 4


def _rate(loop: ctypes._FuncPointer, turns: int, num_threads: int) -> float:
    done = [0] * num_threads

    def run(i: int) -> None:
        done[i] = loop(turns)  # ctypes lets go of the GIL

    threads = [threading.Thread(target=run, args=(i,)) for i in range(num_threads)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - begin)
