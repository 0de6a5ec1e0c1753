"""`python -m bench`: the same work by us and by PyTorch, in turn, in one process.

Every contender's maps are compared with ours before anything is timed. Contenders then
run in turn, round after round, so that a noisy machine disturbs all alike; a turn lasts at
least 50 ms, and the median of its runs counts. A ratio is taken within a round, and the
table gives its median and quartiles.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import fastdeconv as fd

from . import workload

Work = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--script", action="store_true", help="also one feature of the 2015 script")
    args = parser.parse_args()

    import torch

    from . import peers

    peers.keep_freed_memory()
    torch.set_num_threads(args.threads)
    net, x = workload.network(), workload.clip().x
    plain, tuned = peers.TorchPlain(net, x), peers.TorchTuned(net, x)
    print(f"{platform.machine()}, {args.threads} threads, Python {platform.python_version()}, "
          f"NumPy {np.__version__}, PyTorch {torch.__version__} "
          f"({torch.backends.cpu.get_cpu_capability()}); ours: {', '.join(_variants())}")
    print(f"medians of {args.rounds} rounds; ratio = peer / ours within a round, "
          "[quartiles]\n")
    with fd.config(num_threads=args.threads):
        state = peers.state_of(workload.trace())
        _check(state, plain, tuned)
        _forward(plain, tuned, args.rounds)
        _projections(state, plain, tuned, rounds=args.rounds)
        if args.script:
            _script(peers.Script2015(net))
    print(f"\nmemory above the inputs, deepest layer, 64 features: {_memory()}")


def _variants() -> dict[str, dict[str, str]]:
    """Our back ends and instruction sets, as settings."""
    native = {f"native {isa}": {"backend": "native", "isa": isa} for isa in fd.available_isas()}
    others = {
        name: {"backend": name}
        for name in fd.available_backends()
        if name not in ("native", "reference")
    }
    return native | others


def _check(state: list, *contenders: object) -> None:
    """Every contender computes the same activations, and from one state the same maps."""
    trace = workload.trace()
    for peer in contenders:
        for i, (value, _, _) in enumerate(peer.forward(), 1):
            _compare(f"{peer.name}, forward, layer {i}", value[0].numpy(), trace[f"pool{i}"])
        for depth in range(1, workload.DEPTH + 1):
            want = fd.deconvolve(trace, f"pool{depth}")
            _compare(f"{peer.name}, maps of layer {depth}", peer.project(state, depth), want)


def _compare(what: str, got: np.ndarray, want: np.ndarray) -> None:
    error = np.abs(got - want).max() / np.abs(want).max()
    if error > 1e-5:
        raise SystemExit(f"{what}: differs from ours by {error:.1e} of the largest value")


def _interleave(contenders: dict[str, Work], rounds: int) -> dict[str, np.ndarray]:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for work in contenders.values():
        work()
    for _ in range(rounds):
        for name, work in contenders.items():
            times[name].append(_turn(work))
    return {name: np.array(t) for name, t in times.items()}


def _turn(work: Work) -> float:
    """Median time of a run within one turn of at least 50 ms.

    A short run alone would tell who came before it: PyTorch's idle threads go on spinning
    for some 5 ms, on the processors of whoever comes next.
    """
    times: list[float] = []
    while sum(times) < 0.05:
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def _configured(work: Work, settings: dict[str, str]) -> Work:
    def run() -> object:
        with fd.config(**settings):
            return work()

    return run


def _table(title: str, times: dict[str, np.ndarray], peers: list[str]) -> None:
    print(f"{title}")
    print(f"  {'':<16}{'ms':>9}" + "".join(f"{'vs ' + p:>28}" for p in peers))
    for name, mine in times.items():
        cells = ""
        for peer in peers:
            if name in peers:
                break
            low, mid, high = np.percentile(times[peer] / mine, [25, 50, 75])
            cells += f"{mid:>12.2f} [{low:>5.2f} ..{high:>6.2f}]"
        print(f"  {name:<16}{1e3 * np.median(mine):>9.2f}{cells}")
    print()


def _forward(plain: object, tuned: object, rounds: int) -> None:
    net, x = workload.network(), workload.clip().x
    work: dict[str, Work] = {
        name: _configured(lambda: net.forward(x), settings)
        for name, settings in _variants().items()
    }
    work |= {plain.name: plain.forward, tuned.name: tuned.forward}
    _table("forward, 5 layers, with switches", _interleave(work, rounds),
           [plain.name, tuned.name])


def _projections(state: list, *contenders: object, rounds: int) -> None:
    trace = workload.trace()
    everything: dict[str, float] = {}
    for depth in range(1, workload.DEPTH + 1):
        work: dict[str, Work] = {
            name: _configured(lambda d=depth: fd.deconvolve(trace, f"pool{d}"), settings)
            for name, settings in _variants().items()
            if name != "native baseline" or depth == workload.DEPTH
        }
        for peer in contenders:
            work[peer.name] = lambda p=peer, d=depth: p.project(state, d)
        times = _interleave(work, rounds if depth < 3 else max(5, rounds // 3))
        _table(f"layer {depth} to the input, 64 features", times,
               [peer.name for peer in contenders])
        for name, t in times.items():
            everything[name] = everything.get(name, 0) + float(np.median(t))
    print("all 320 features (sum of medians): "
          + ", ".join(f"{n} {1e3 * t:.0f} ms" for n, t in everything.items()
                      if n != "native baseline"))


def _script(script: object) -> None:
    trace = workload.trace()
    begin = time.perf_counter()
    got = script.project(trace, workload.DEPTH, 0)
    one = time.perf_counter() - begin
    want = fd.deconvolve(trace, f"pool{workload.DEPTH}", [0])[0]
    error = np.abs(got - want).max() / np.abs(want).max()
    print(f"\n{script.name}: one feature of layer {workload.DEPTH} in {one:.2f} s, so 64 in about "
          f"{64 * one:.0f} s (extrapolated); its map differs from ours by {error:.1e}")


_MEMORY = """
import fastdeconv as fd
from bench import workload

def resident(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))

trace = workload.trace()
fd.deconvolve(trace, "pool1", [0])
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forget the peak so far
before = resident("VmRSS")
fd.deconvolve(trace, "pool5")
print(resident("VmHWM") - before)
"""


def _memory() -> str:
    """Peak growth of a fresh process's memory, the result (11 MB) included."""
    if not sys.platform.startswith("linux"):
        return "not measured here"
    run = subprocess.run(
        [sys.executable, "-c", _MEMORY], check=True, capture_output=True, text=True
    )
    return f"{int(run.stdout) * 1024 / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
