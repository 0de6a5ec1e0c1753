"""How often a pooling switch differs from what float64 says, by the algorithm of the forward pass.

Not a timing: what the fast algorithms cost in exactness, on the clip as it is and on the two
kinds of input that have ties, a floor under the level and silent passages.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import fastdeconv as fd

from . import workload
from .report import Report
from .sections import Options

ALGORITHMS = ("auto", "direct", "winograd")
FLOOR = 40  # dB below the maximum


def ties(report: Report, options: Options) -> None:
    """Switches of every algorithm against float64's."""
    report.heading("Ties")
    work = workload.paper()
    rows = [
        (name, algorithm, *cells)
        for name, x in _inputs(work.x)
        for algorithm, cells in _against_float64(work.network, x)
    ]
    report.table(("input", "algorithm", "switches", "differ from float64", "largest gap"), rows)
    report.paragraph(
        "All five layers. The gap is by how much float64 prefers its own choice, of the layer's "
        "largest value: 0 is an exact tie that was broken otherwise. Differences travel, since "
        "each layer's input is what the same algorithm made of the layer below."
    )


def _inputs(clip: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "the clip", clip
    level = 20 * np.log10(np.maximum(clip, 1e-10))
    yield f"{FLOOR} dB floor", np.maximum(level, level.max() - FLOOR).astype(np.float32)
    passages = clip.copy()
    passages[..., 20:51] = passages[..., 101:122] = 0
    yield "silent passages", passages


def _against_float64(net: fd.Network, x: np.ndarray) -> Iterator[tuple[str, tuple[str, ...]]]:
    with fd.config(backend="reference"):
        exact = net.forward(x)
    for algorithm in ALGORITHMS:
        trace = net.forward(x, algorithm=algorithm)
        found = [_compare(trace, exact, i + 1) for i in range(workload.DEPTH)]
        total, differing, gap = (np.array(column) for column in zip(*found))
        yield algorithm, (str(total.sum()), str(differing.sum()), f"{gap.max():.1e}")


def _compare(trace: fd.Trace, exact: fd.Trace, depth: int) -> tuple[int, int, float]:
    """(switches, how many differ, the largest float64 gap between the two choices)."""
    mine, theirs = trace.switches(f"pool{depth}"), exact.switches(f"pool{depth}")
    below = exact.activation(exact.network.layer_index(f"relu{depth}"))
    c, h, w = mine.shape
    windows = below[:, : 2 * h, : 2 * w].reshape(c, h, 2, w, 2).swapaxes(2, 3).reshape(c, h, w, 4)
    gaps = _picked(windows, theirs) - _picked(windows, mine)
    return mine.size, int((mine != theirs).sum()), float(gaps.max() / np.abs(below).max())


def _picked(windows: np.ndarray, switches: np.ndarray) -> np.ndarray:
    return np.take_along_axis(windows, switches[..., None].astype(np.intp), axis=3)
