"""What has to be measured in a process of its own: ``python -m bench.fresh WHAT ...``.

The answer is printed as JSON. Nothing is imported before it is needed: ``imports`` times
the imports, and ``memory`` watches a process that does one thing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def imports() -> dict[str, float]:
    """Milliseconds of `import numpy`, of ours beyond it, and of the first use."""
    marks = [time.perf_counter()]
    import numpy  # noqa: F401

    marks.append(time.perf_counter())
    import fastdeconv as fd

    marks.append(time.perf_counter())
    fd.deconvolve  # noqa: B018  (public names load on first use)
    fd.available_backends()
    marks.append(time.perf_counter())
    names = ("numpy", "fastdeconv", "first use")
    return {name: 1e3 * (b - a) for name, a, b in zip(names, marks, marks[1:])}


def memory(who: str, channels: str, features: str) -> float:
    """MB at the peak of one projection above what was resident before it, result included.

    The deepest of five layers with `channels` channels.
    """
    from . import workload
    from .workload import Work

    net = workload.network((int(channels),) * workload.DEPTH)
    work = Work.of(net, workload.clip().x)
    run = _MEMORY_OF[who](work, int(features))
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # forget the peak so far
    before = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before) * 1024 / 1e6


def _fastdeconv(work: Any, features: int) -> Callable[[], object]:
    import fastdeconv as fd

    fd.deconvolve(work.trace, "pool1", [0])
    return lambda: fd.deconvolve(work.trace, "pool5", range(features))


def _torch_plain(work: Any, features: int) -> Callable[[], object]:
    from .peers.torch_plain import project

    run = next(project(work, 1)).work
    run()
    peer = next(project(work, 5)).work.__self__
    peer.start = peer.start[:features]
    return peer.project


def _torch_tuned(work: Any, features: int) -> Callable[[], object]:
    import numpy as np

    from .peers.torch_tuned import TorchTuned

    chosen = np.arange(features)

    def peer(depth: int) -> TorchTuned:
        values = work.given[depth - 1].activation[:features]
        return TorchTuned(work.stages[:depth], work.given[:depth], chosen, values)

    peer(1).project()
    return peer(5).project


_MEMORY_OF = {
    "fastdeconv": _fastdeconv, "PyTorch tuned": _torch_tuned, "PyTorch plain": _torch_plain,
}


def _resident(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


def held(rounds: str, threads: str) -> dict[str, dict[str, list[float]]]:
    """See `bench.sections.held`."""
    from . import sections
    from .measure import keep_freed_memory

    keep_freed_memory()
    return sections.held(int(rounds), int(threads))


if __name__ == "__main__":
    what = {f.__name__: f for f in (imports, memory, held)}[sys.argv[1]]
    print(json.dumps(what(*sys.argv[2:])))
