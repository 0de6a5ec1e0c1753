"""Memory, imports and the whole way to files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from importlib import resources

import numpy as np

import fastdeconv as fd

from .measure import Contender, Spread, fresh_process, interleave
from .report import Report, number, spread
from .sections import Options

MEMORY = [
    ("fastdeconv", 64, 64), ("fastdeconv", 128, 128), ("fastdeconv", 256, 64),
    ("fastdeconv", 256, 256), ("PyTorch tuned", 64, 64), ("PyTorch plain", 64, 64),
]
"""(who, channels of the network, features)"""


def footprint(report: Report, options: Options) -> None:
    """Memory above the inputs, import time, `explain`."""
    report.heading("Footprint")
    _memory(report, options)
    rounds = 3 if options.quick else 7
    runs = [fresh_process("fresh", "imports") for _ in range(rounds)]
    rows = [(name, spread(Spread.of(np.array([run[name] for run in runs])))) for name in runs[0]]
    warm, cold = _explain(rounds)
    rows += [("explain, warm", spread(warm)), ("fastdeconv explain --demo, cold", spread(cold))]
    report.table(("", "ms [quartiles]"), rows)
    report.paragraph(
        "`numpy` and `fastdeconv`: importing one after the other in a fresh process, "
        "`first use`: loading `fd.deconvolve` and the native back end. `explain`: the demo clip to "
        "320 sounds, 640 pictures, tables and the page, warm from Python and cold from the shell."
    )


def _memory(report: Report, options: Options) -> None:
    if not sys.platform.startswith("linux"):
        report.paragraph("Memory is measured on Linux only.")
        return
    cases = MEMORY[:1] if options.quick else MEMORY
    rows = []
    for who, channels, features in cases:
        try:
            found = fresh_process("fresh", "memory", who, channels, features)
        except subprocess.CalledProcessError:
            continue  # not installed
        result = features * 257 * 173 * 4 / 1e6
        rows.append((who, str(channels), str(features), number(found), number(result)))
    report.table(("layer 5", "channels", "features", "MB above the inputs", "of it result"), rows)


def _explain(rounds: int) -> tuple[Spread, Spread]:
    """(warm, cold)"""
    net = fd.pretrained(fd.list_pretrained()[0])
    demo = resources.files("fastdeconv") / "data" / "demo.flac"
    with tempfile.TemporaryDirectory() as folder, resources.as_file(demo) as song:

        def run() -> None:
            fd.explain(song, net).save(folder, "demo", overwrite=True)

        warm = interleave([Contender("warm", run)], rounds).spread("warm")
        command = [sys.executable, "-m", "fastdeconv", "explain", "--demo", "-o", folder,
                   "--overwrite"]
        times = []
        for _ in range(rounds):
            begin = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times.append(1e3 * (time.perf_counter() - begin))
    return warm, Spread.of(np.array(times))
