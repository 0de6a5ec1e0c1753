"""`python -m bench --compare REV`: a revision against the working tree.

REV is checked out into a temporary git worktree and built there, the working tree is built
in place; then processes of both take turns, each running the same work. Anything slower by
more than 5 % (median of the ratios, and the lower quartile above 1) makes the exit status 1.

With ``--quick`` the cases in QUICK, in 3 rounds: some 2 minutes, most of them building. Run it
before you propose a change to a kernel; what it does not show, the long form may.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .measure import ROOT, Contender, Times, interleave
from .report import markdown_table, number, spread

SLOWER = 1.05
TURNS = 3
"""of everything, in each process"""
HERE = "working tree"
SHAPES = (
    "16 channels", "kernel 5x5, 2 s", "kernel 1x9", "pool 4x4", "pool 3x3 stride 2, 20 features",
    "1 feature", "8 features", "tiny map, 16 x 16", 'rule "guided"', 'start "max"',
)
"""Cases of the sweep that are compared."""
QUICK = (
    "forward", "layer 1", "layer 2", "layer 5", "layer 5, 1 feature", "layer 5, 20 features",
    "sweep: 16 channels", "sweep: tiny map, 16 x 16", 'sweep: start "max"',
)
"""What the short form compares."""


def compare(revision: str, rounds: int, threads: int, quick: bool = False) -> int:
    """Print the table; 1 if the working tree is slower anywhere."""
    with _checked_out(revision) as tree:
        for where in (tree, ROOT):
            _build(where)
        sides = [tree, ROOT]
        for side in sides:
            _run(side, threads, quick)  # brings its files into memory
        runs: dict[Path, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side in sides:
                runs[side].append(_run(side, threads, quick))
            sides.reverse()
        before, after = runs[tree], runs[ROOT]
    rows, slower = [], []
    for name in before[0]:
        times = Times({
            revision: np.array([run[name] for run in before]),
            HERE: np.array([run[name] for run in after]),
        })
        ratio = times.ratio(HERE, revision)
        if ratio.middle > SLOWER and ratio.low > 1:
            slower.append(name)
        rows.append((
            name, number(times.spread(revision).middle), number(times.spread(HERE).middle),
            spread(ratio), "slower" if name in slower else "",
        ))
    print(markdown_table(
        ("", f"{revision} ms", f"{HERE} ms", "ratio [quartiles]", ""), rows
    ))
    print(f"\n{len(slower)} of {len(rows)} slower by more than {SLOWER - 1:.0%}")
    return 1 if slower else 0


@contextmanager
def _checked_out(revision: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        added = subprocess.run(
            [*git, "add", "--detach", str(tree), revision], capture_output=True, text=True,
            check=False,
        )
        if added.returncode:
            raise SystemExit(f"cannot check out {revision}: {added.stderr.strip()}")
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def _build(tree: Path) -> None:
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tree, env=os.environ | {"FASTDECONV_REQUIRE_NATIVE": "1"},
        capture_output=True, text=True, check=False,
    )
    if built.returncode:
        raise SystemExit(f"cannot build {tree}:\n{built.stderr}")


# The package of one tree, timed by the benchmark of this one.
_CHILD = """
import sys
sys.path[0] = sys.argv[1]
import fastdeconv
assert fastdeconv.__file__.startswith(sys.argv[1]), fastdeconv.__file__
sys.path[0] = sys.argv[2]
from bench import compare
compare.child(int(sys.argv[3]), sys.argv[4] == "quick")
"""


def _run(tree: Path, threads: int, quick: bool) -> dict[str, float]:
    """Seconds of every piece of work by the package in `tree`."""
    run = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tree), str(ROOT), str(threads),
         "quick" if quick else "all"],
        capture_output=True, text=True, check=False, cwd=tree,
    )
    if run.returncode:
        raise SystemExit(f"{tree} failed:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def child(threads: int, quick: bool) -> None:
    """Time everything in this process and print the medians as JSON."""
    import fastdeconv as fd

    with fd.config(num_threads=threads):
        times = interleave(_contenders(QUICK if quick else None), TURNS)
    print(json.dumps({name: float(np.median(t)) for name, t in times.items()}))


def _contenders(names: tuple[str, ...] | None) -> Iterator[Contender]:
    """Those of these names, or all."""
    import fastdeconv as fd

    from . import ours, sweep, workload

    work = workload.paper()
    contenders = [Contender("forward", next(ours.forward(work)).work)]
    for depth in range(1, workload.DEPTH + 1):
        contenders.append(Contender(f"layer {depth}", next(ours.project(work, depth)).work))
    for features in (1, 8, 20):
        contenders.append(Contender(
            f"layer 5, {features} feature{'s' * (features > 1)}",
            lambda n=features: fd.deconvolve(work.trace, "pool5", range(n)),
        ))
    yield from (c for c in contenders if names is None or c.name in names)
    for case in sweep.CASES:
        name = f"sweep: {case.name}"
        if name in names if names is not None else case.name in SHAPES:
            yield Contender(name, sweep.ours_on(case).work)
