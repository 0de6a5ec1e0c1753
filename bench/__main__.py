"""`python -m bench`: the same work by fastdeconv and by its peers, into bench/RESULTS.md, in the
part of the machine that it runs on (see bench/results.py).

Every peer's maps are compared with ours before anything is timed. Contenders then run in
turn, round after round, in one process; tables give the median of the rounds and its
quartiles, ratios are taken within a round. A peer that is not installed (extra `bench`) or
does not work is named and left out.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from pathlib import Path

import fastdeconv as fd

from . import (
    compare,
    decisions,
    footprint,
    gpu,
    graphs,
    growth,
    interruptions,
    machine,
    ours,
    results,
    sections,
    survey,
    sweep,
    threads,
    ties,
)
from .measure import keep_freed_memory
from .report import Report
from .sections import Options

SECTIONS = {
    "forward": sections.forward,
    "layers": sections.layers,
    "deepest": sections.deepest,
    "threads": threads.threads,
    "interruptions": interruptions.interruptions,
    "avx2": sections.avx2,
    "peak": sections.peak,
    "sweep": sweep.sweep,
    "graphs": graphs.graphs,
    "decisions": decisions.decisions,
    "ties": ties.ties,
    "footprint": footprint.footprint,
    "growth": growth.growth,
    "survey": survey.survey,
    "gpu": gpu.gpu,
}
NOT_WHEN_QUICK = ("layers", "threads", "interruptions", "avx2", "graphs", "growth", "survey", "gpu")


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true",
                        help="about 2 minutes: 3 rounds, fewer sections, cases and peers")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="may be repeated")
    parser.add_argument("--rounds", type=int, help="default 9; with --quick 3")
    parser.add_argument("--threads", type=int, default=machine.usable_cpus())
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "RESULTS.md")
    parser.add_argument("--compare", metavar="REV",
                        help="time this git revision against the working tree instead; "
                        "exit status 1 if the working tree is slower anywhere; with --quick "
                        "some 2 minutes, fewer cases")
    args = parser.parse_args()
    rounds = args.rounds or (3 if args.quick else 9)
    if args.compare:
        return compare.compare(args.compare, rounds, args.threads, args.quick)

    _check_extension()
    keep_freed_memory()
    facts = dict(machine.facts())
    folder = args.output.parent / "results" / results.folder_name(facts["CPU"])
    options = Options(rounds, args.threads, args.quick, folder / "plots")
    measured = (
        f"{datetime.date.today():%-d %B %Y}: {rounds} rounds, {args.threads} threads, fastdeconv "
        f"on its default back end ({ours.default()}) unless a row says otherwise; "
        f"{facts.pop('packages')}"
    )
    results.keep_machine(folder, facts["CPU"], [*facts.items(), ("last measured", measured)])
    begin = time.perf_counter()
    for name, section in SECTIONS.items():
        if name in args.only if args.only else not (args.quick and name in NOT_WHEN_QUICK):
            report = Report()
            with sections.all_threads(args.threads):
                section(report, options)
            report.how_used()
            results.keep_section(folder, name, report, measured)
    results.put_together(args.output, folder.parent, list(SECTIONS))
    print(f"{time.perf_counter() - begin:.0f} s; written to {args.output}")
    return 0


def _check_extension() -> None:
    """Stop where another back end than the native one would be timed without being asked for."""
    if "native" in fd.available_backends() or os.environ.get("FASTDECONV_BACKEND"):
        return
    folder = Path(fd.__file__).parent
    raise SystemExit(
        f"python -m bench: {folder} has no native extension, so Numba would be timed. "
        f"That folder is imported even where fastdeconv is installed elsewhere. Build the "
        f"extension there (pip install -e {folder.parent}), or ask for the other back end "
        "(FASTDECONV_BACKEND=numba)."
    )


if __name__ == "__main__":
    sys.exit(main())
