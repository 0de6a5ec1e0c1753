"""Off the beaten path: other shapes, rules and starts, ours against tuned PyTorch.

Three stages each, the features of the last one. PyTorch's settings (see
`bench.peers.torch_tuned`) are searched for every case anew.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

import fastdeconv as fd

from . import ours, peers, workload
from .measure import Contender, Times, interleave
from .report import Report, number, spread
from .sections import Options
from .workload import FRAMES_PER_SECOND, Pair, Pool, Work

TARGET = 3.0
"""Ratios below this are marked."""


@dataclass(frozen=True)
class Case:
    """A network, a clip, and what is projected from the last stage."""

    name: str
    channels: int = 64
    kernel: Pair = (3, 3)
    pools: tuple[Pool, ...] = ((2, 2),) * 3
    """as many as stages"""
    features: int = 64
    size: Pair = (257, 173)
    rule: str = "deconvnet"
    start: str = "map"
    activation: str = "relu"
    pool_type: str = "max_pool2d"
    peer_size: Pair | None = None
    """a smaller clip for the peer, extrapolated by area"""

    @property
    def top(self) -> int:
        """Channels of the last stage: as many as features are asked for, if those are more."""
        return max(self.channels, self.features)

    def work(self, size: Pair | None = None) -> Work:
        """The forward pass, on the clip or one of another size."""
        return _work(
            self.channels, self.top, self.kernel, self.pools, size or self.size,
            self.activation, self.pool_type,
        )


@functools.lru_cache(maxsize=1)
def _work(
    channels: int, top: int, kernel: Pair, pools: tuple[Pool, ...], size: Pair, activation: str,
    pool_type: str,
) -> Work:
    depth = len(pools)
    widths = (channels,) * (depth - 1) + (top,)
    net = workload.network(
        widths, (kernel,) * depth, pools, size[0], activation=activation, pool_type=pool_type
    )
    return Work.of(net, workload.spectrogram(*size))


def _seconds(seconds: float) -> Pair:
    return 257, round(seconds * FRAMES_PER_SECOND) + 1


def _all_pools(pool: Pool) -> tuple[Pool, ...]:
    return (pool,) * 3


_BASE = Case("64 channels, 3x3, pool 2x2, 64 features, 4 s")
_TWO_SECONDS = _seconds(2)

CASES = [
    _BASE,
    *(replace(_BASE, name=f"{n} channels", channels=n) for n in (16, 32, 48, 128)),
    replace(_BASE, name="256 channels, 2 s", channels=256, size=_TWO_SECONDS),
    replace(_BASE, name="kernel 1x1", kernel=(1, 1)),
    replace(_BASE, name="kernel 5x5, 32 channels", kernel=(5, 5), channels=32),
    replace(_BASE, name="kernel 5x5, 2 s", kernel=(5, 5), size=_TWO_SECONDS),
    replace(_BASE, name="kernel 7x4, 2 s", kernel=(7, 4), size=_TWO_SECONDS),
    replace(_BASE, name="kernel 1x9", kernel=(1, 9)),
    replace(_BASE, name="pool 2x1", pools=_all_pools((2, 1)), size=_TWO_SECONDS),
    replace(_BASE, name="pool 4x2", pools=_all_pools((4, 2))),
    replace(_BASE, name="pool 4x4", pools=_all_pools((4, 4))),
    replace(_BASE, name="pool 3x3 stride 2, 20 features", pools=_all_pools(((3, 3), (2, 2))),
            features=20),
    replace(_BASE, name="pool 3x3 stride 2, 32 channels, 2 s",
            pools=_all_pools(((3, 3), (2, 2))), channels=32, size=_TWO_SECONDS),
    replace(_BASE, name="no pool after the second convolution",
            pools=((2, 2), None, (2, 2))),
    replace(_BASE, name="no pools, 32 channels, 20 features, 2 s", pools=_all_pools(None),
            channels=32, features=20, size=_TWO_SECONDS),
    *(replace(_BASE, name=f"{n} feature{'s' * (n > 1)}", features=n) for n in (1, 8, 20, 100)),
    replace(_BASE, name="1 feature, 16 channels", channels=16, features=1),
    replace(_BASE, name="1 feature, 256 channels", channels=256, features=1),
    replace(_BASE, name="1 feature, kernel 1x9, 32 channels", channels=32, kernel=(1, 9),
            features=1),
    replace(_BASE, name="8 features, kernel 5x5, 48 channels, pool 4x2", channels=48,
            kernel=(5, 5), pools=_all_pools((4, 2)), features=8),
    replace(_BASE, name="20 features, 16 channels, pool 2x1", channels=16,
            pools=_all_pools((2, 1)), features=20),
    replace(_BASE, name="2 s", size=_TWO_SECONDS),
    replace(_BASE, name="30 s, 20 features", size=_seconds(30), features=20),
    replace(_BASE, name="3 min, 8 features", size=_seconds(180), features=8,
            peer_size=_seconds(15)),
    replace(_BASE, name="wide map, 16 x 2048", size=(16, 2048)),
    replace(_BASE, name="high map, 2048 x 16", size=(2048, 16)),
    replace(_BASE, name="tiny map, 16 x 16", size=(16, 16)),
    replace(_BASE, name="tiny map, 16 x 16, 1 feature", size=(16, 16), features=1),
    replace(_BASE, name="tiny map, 32 x 32, 256 channels", size=(32, 32), channels=256),
    replace(_BASE, name='rule "guided"', rule="guided"),
    replace(_BASE, name='rule "gradient"', rule="gradient"),
    replace(_BASE, name='rule "guided", 8 features', rule="guided", features=8),
    replace(_BASE, name='start "max"', start="max"),
    replace(_BASE, name='start "max", 8 features', start="max", features=8),
    replace(_BASE, name='start "max", rule "gradient", 20 features', start="max",
            rule="gradient", features=20),
    *(
        replace(_BASE, name=f"five stages, {name}", pools=((2, 2),) * 5, activation=kind)
        for name, kind in {
            "ReLU": "relu", "leaky ReLU": "leaky_relu", "ELU": "elu", "SiLU": "silu",
            "GELU": "gelu",
        }.items()
    ),
    replace(_BASE, name="five stages, average pools", pools=((2, 2),) * 5,
            pool_type="avg_pool2d"),
    *(
        replace(_BASE, name=f"one stage: {name}", pools=((2, 2),), **more)
        for name, more in {
            "64 features": {}, "kernel 5x5": {"kernel": (5, 5)},
            "30 s": {"size": _seconds(30)}, "1 feature": {"features": 1},
        }.items()
    ),
]
QUICK = ("64 channels, 3x3, pool 2x2, 64 features, 4 s", "16 channels", "kernel 5x5, 2 s",
         "pool 3x3 stride 2, 32 channels, 2 s", "1 feature", "tiny map, 16 x 16",
         "five stages, ELU", 'rule "guided"', "one stage: 64 features")


def sweep(report: Report, options: Options) -> None:
    """The table."""
    report.heading("Off the beaten path")
    report.paragraph(
        "Projections from the last of three stages (where it does not say one) to the input; "
        "whatever is not named is as in the first row. PyTorch tuned has the fastest of its "
        "settings for each case. "
        f"Ratios below {TARGET:g} are marked with <, ~ marks what is extrapolated from a "
        "shorter clip."
    )
    try:
        from .peers import torch_tuned  # noqa: F401
    except ImportError as error:
        report.paragraph(f"Skipped: {error}.")
        return
    cases = [case for case in CASES if not options.quick or case.name in QUICK]
    rounds = max(3, options.rounds * 5 // 9)
    rows = []
    for case in cases:
        times, peer = _time(case, rounds)
        report.note("Off the beaten path, PyTorch tuned", replace(peer, name=case.name))
        rows.append(_row(case, times, peer))
        print("  " + " | ".join(rows[-1]), flush=True)
    report.table(("case", "fastdeconv ms", "PyTorch tuned ms", "ratio [quartiles]", ""), rows)


def ours_on(case: Case) -> Contender:
    """What we are timed at."""
    work = case.work()
    features, layer = range(case.features), work.stages[-1].top
    return Contender(
        ours.NAME,
        lambda: fd.deconvolve(work.trace, layer, features, case.rule, case.start),
    )


def _time(case: Case, rounds: int) -> tuple[Times, Contender]:
    from .peers.torch_tuned import tuned

    mine = ours_on(case)
    size = case.peer_size or case.size
    work = case.work(size)
    values = _start(work.given[-1].activation[: case.features], case.start)
    peer = tuned(work.stages, work.given, np.arange(case.features), values, case.rule)
    contender = Contender(
        "PyTorch tuned", peer.project, str(peer.settings),
        whole=np.prod(case.size) / np.prod(size),
    )
    layer = work.stages[-1].top
    want = fd.deconvolve(work.trace, layer, range(case.features), case.rule, case.start)
    peers.check_maps(contender, want)
    return interleave([mine, contender], rounds), contender


def _start(maps: np.ndarray, start: str) -> np.ndarray:
    """What ``start`` means: the maps, or the strongest value of each alone."""
    if start == "map":
        return maps
    flat = maps.reshape(len(maps), -1)
    alone = np.zeros_like(flat)
    rows, at = np.arange(len(flat)), flat.argmax(1)
    alone[rows, at] = flat[rows, at]
    return alone.reshape(maps.shape)


def _row(case: Case, times: Times, peer: Contender) -> tuple[str, ...]:
    ratio = times.ratio(peer.name, ours.NAME)
    return (
        case.name,
        number(times.spread(ours.NAME).middle),
        ("~ " if peer.whole != 1 else "") + number(times.spread(peer.name).middle),
        spread(ratio),
        "<" if ratio.middle < TARGET else "",
    )
