"""How work scales with threads: measured on the CPUs there are, predicted beyond."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import fastdeconv as fd

from . import machine, ours, schedule_model, workload
from .measure import Contender, interleave
from .report import Report, number, spread
from .schedule_model import Costs, Recorded
from .sections import Options

PREDICTED = (2, 4, 8, 16, 32, 64)
"""Cores that times are predicted for."""
SIDE_BY_SIDE = (8, 16, 64)
"""Those that stand beside other machines' in RESULTS.md."""
TOO_MANY = 16
"""Threads asked for on a machine with fewer CPUs."""
RECORDINGS = 7
"""Of every call; the shortest time of every band counts."""


class _Work(NamedTuple):
    name: str
    run: Callable[[], object]


def threads(report: Report, options: Options) -> None:
    """Speed-ups by the number of threads, and what more threads than CPUs cost."""
    report.heading("Threads")
    works = list(_works())
    costs = schedule_model.measured_costs()
    _predict(report, works, costs)
    _compare_with_measured(report, options, works, costs)
    _too_many(report, options, works)


def _works() -> list[_Work]:
    work = workload.paper()
    found = [_Work("forward", lambda: work.network.forward(work.x))]
    for depth in (1, 2, 3, workload.DEPTH):
        top = work.stages[depth - 1].top
        found.append(_Work(f"layer {depth}", lambda top=top: fd.deconvolve(work.trace, top)))
    return found


def _recorded(work: _Work, count: int) -> Recorded:
    """A call cut as for so many threads on as many CPUs."""
    with fd.config(num_threads=count):
        work.run()
        return schedule_model.record(work.run, count, RECORDINGS)


def _predict(report: Report, works: list[_Work], costs: Costs) -> None:
    report.paragraph(
        "**Predicted**, not measured: every band of work is timed on one thread, cut as for so "
        f"many (the shortest of {RECORDINGS} times), and the hand-out of csrc/schedule.c is "
        "simulated on those times "
        "(bench/schedule_model.py), with what a hand-over "
        f"({1e9 * costs.hand_over:.0f} ns), the first helper ({1e6 * costs.first_helper:.0f} us) "
        f"and every other one ({1e6 * costs.next_helper:.1f} us more) take on this machine. "
        "Speed-ups over one thread, and the milliseconds that come to. Serial: Python before, "
        "between and after. Endless: as many threads as there are bands, handed out for nothing. "
        "The model leaves out that cores share memory bandwidth and the last cache, that a band "
        "finds less in its cache when another core computed what it reads, and that the clock "
        "falls with the number of busy cores: what is measured will be slower, most of all where "
        "memory is the limit (layers 1 and 2, the forward pass)."
    )
    rows = []
    for work in works:
        one = schedule_model.total(_recorded(work, 1))
        row = [work.name, number(1e3 * one)]
        for cores in PREDICTED:
            recorded = _recorded(work, cores)
            took = schedule_model.predicted(recorded, cores, costs)
            row.append(f"{number(one / took)}x ({number(1e3 * took)})")
            if cores in SIDE_BY_SIDE:
                report.figures[f"{work.name}, {cores} cores, predicted speed-up"] = (
                    f"{number(one / took)}x"
                )
        row += [
            number(1e3 * recorded.serial),
            f"{number(one / schedule_model.longest(recorded))}x",
        ]
        rows.append(row)
    report.table(
        ("", "1 thread, ms", *(f"{n} cores" for n in PREDICTED), f"serial ms, {PREDICTED[-1]}",
         f"endless, cut for {PREDICTED[-1]}"),
        rows,
    )


def _compare_with_measured(
    report: Report, options: Options, works: list[_Work], costs: Costs
) -> None:
    """Predictions for as many threads as there are CPUs."""
    cpus = machine.usable_cpus()
    counts = [n for n in (1, *PREDICTED) if n <= cpus]
    report.paragraph(
        "The same where it can be measured: milliseconds that the model predicts, and that the "
        "call takes with so many threads, in turn with the other numbers of threads."
    )
    rows = []
    for work in works:
        times = interleave(
            [Contender(str(n), work.run, around=ours.settings(num_threads=n)) for n in counts],
            options.rounds,
        )
        for n in counts:
            took = 1e3 * schedule_model.predicted(_recorded(work, n), n, costs)
            measured = times.spread(str(n))
            rows.append((
                work.name, str(n), number(took), spread(measured),
                number(took / measured.middle),
                spread(times.ratio("1", str(n))),
            ))
            report.figures[f"{work.name}, {n} thread{'s' * (n > 1)}"] = (
                f"{number(measured.middle)} ms"
            )
    report.table(
        ("", "threads", "predicted ms", "measured ms", "predicted / measured", "speed-up"), rows
    )


def _too_many(report: Report, options: Options, works: list[_Work]) -> None:
    """What it costs to ask for more threads than there are CPUs."""
    cpus = machine.usable_cpus()
    if cpus >= TOO_MANY:
        return
    report.paragraph(
        f"{TOO_MANY} threads asked for on {cpus} CPU{'s' * (cpus > 1)}, and as many threads as "
        "CPUs, in turn:"
    )
    rows = []
    for work in works:
        times = interleave(
            [Contender(str(n), work.run, around=ours.settings(num_threads=n))
             for n in (cpus, TOO_MANY)],
            options.rounds,
        )
        ratio = times.ratio(str(TOO_MANY), str(cpus))
        rows.append((work.name, spread(times.spread(str(cpus))),
                     spread(times.spread(str(TOO_MANY))), spread(ratio)))
        report.figures[f"{work.name}, {TOO_MANY} threads over as many as CPUs"] = number(
            ratio.middle
        )
    report.table(("", f"{cpus} threads, ms", f"{TOO_MANY} threads, ms", "ratio"), rows)
