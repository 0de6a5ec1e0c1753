"""Memory, imports and the whole way to files."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

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
_MEMORY = "/dev/shm"
"""A file system in memory, on Linux."""


def footprint(report: Report, options: Options) -> None:
    """Memory above the inputs, import time, `explain`."""
    report.heading("Footprint")
    _memory(report, options)
    rounds = 3 if options.quick else 7
    runs = [fresh_process("fresh", "imports") for _ in range(rounds)]
    rows = [(name, spread(Spread.of(np.array([run[name] for run in runs])))) for name in runs[0]]
    rows += [(name, spread(times)) for name, times in _explain(rounds)]
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


def _explain(rounds: int) -> Iterator[tuple[str, Spread]]:
    """Warm and cold; warm in memory, too: creating the files may take longer than all else."""
    net = fd.pretrained(fd.list_pretrained()[0])
    demo = resources.files("fastdeconv") / "data" / "demo.flac"
    with resources.as_file(demo) as song:
        for where, name in ((None, "explain, warm"), (_MEMORY, "explain, warm, files in memory")):
            if where is not None and not Path(where).is_dir():
                continue
            # A folder for every run: ext4 is slow to create files where some were just deleted.
            with tempfile.TemporaryDirectory(dir=where) as folder:
                numbers = itertools.count()

                def run(folder: str = folder, numbers: Iterator[int] = numbers) -> None:
                    fd.explain(song, net).save(folder, str(next(numbers)))

                yield name, interleave([Contender(name, run)], rounds).spread(name)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fastdeconv", "explain", "--demo", "-o"]
        times = []
        for i in range(rounds):
            begin = time.perf_counter()
            subprocess.run([*command, f"{folder}/{i}"], check=True, capture_output=True)
            times.append(1e3 * (time.perf_counter() - begin))
    yield "fastdeconv explain --demo, cold", Spread.of(np.array(times))
