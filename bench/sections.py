"""The paper's network, by us and by everybody: forward, layer by layer, the deepest layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastdeconv as fd

from . import ours, peers, workload
from .measure import Contender, Spread, Times, fresh_process, interleave
from .operations import forward_operations, projection_operations
from .peak import peaks
from .report import Report, number, spread, times_table
from .workload import DEPTH, Work


class Options(NamedTuple):
    """What the command line asks for."""

    rounds: int
    threads: int
    quick: bool
    plots: Path
    """folder for pictures"""


HELD_TO_AVX2 = {
    "FASTDECONV_ISA": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def forward(report: Report, options: Options) -> None:
    """Forward pass of the paper's network."""
    work = workload.paper()
    report.heading("Forward pass")
    report.paragraph(
        "Five times [3x3 convolution, ReLU, 2x2 max pool] with 64 channels on a 257 x 173 "
        "spectrogram (4 s); activations of all layers and switches, unless it says otherwise."
    )
    others, left_out = _peers(peers.FORWARD, "forward", options, work)
    mine = list(ours.forward(work))
    report.leave_out(left_out)
    for contender in mine:
        report.note("Forward", contender)
    for peer in others:
        report.note("Forward", peer, peers.check_forward(peer, work))
    times_table(
        report, interleave([*mine, *others], options.rounds), ours.NAME, [*mine, *others],
        "forward",
    )


def layers(report: Report, options: Options) -> None:
    """All 64 features of every layer."""
    work = workload.paper()
    report.heading("Projections, layer by layer")
    report.paragraph(
        "All 64 features of a layer to the input; in brackets the ratio to fastdeconv within a "
        "round. The last row adds the medians."
    )
    totals: dict[str, float] = {}
    rows = []
    for depth in range(1, DEPTH + 1):
        others, left_out = peers.contenders(peers.EVERY_LAYER, "project", work, depth)
        others = [peer for peer in others if "bf16" not in peer.name]  # see the deepest layer
        mine = [c for c in ours.project(work, depth) if "baseline" not in c.name]
        report.leave_out(left_out)
        _check(report, others, work, depth)
        times = interleave([*mine, *others], max(3, options.rounds // 2))
        for name in times:
            totals[name] = totals.get(name, 0) + times.spread(name).middle
        rows.append((f"layer {depth}", *cells(times, ours.NAME)))
    mine_total = totals[ours.NAME]
    rows.append((
        "all 320",
        *(
            number(t) + ("" if name == ours.NAME else f" ({number(t / mine_total)}x)")
            for name, t in totals.items()
        ),
    ))
    report.table(("ms", *totals), rows)


def cells(times: Times, reference: str) -> Iterator[str]:
    """Milliseconds of everybody, in brackets the ratio to `reference`."""
    for name in times:
        cell = number(times.spread(name).middle)
        if name != reference:
            cell += f" ({number(times.ratio(name, reference).middle)}x)"
        yield cell


def deepest(report: Report, options: Options) -> None:
    """All 64 features of the deepest layer, by everybody."""
    work = workload.paper()
    report.heading("Deepest layer, everybody")
    report.paragraph(
        f"All 64 features of layer {DEPTH} to the input. ~ marks what is extrapolated from a "
        "few features (see the end)."
    )
    mine = list(ours.project(work, DEPTH))
    others, left_out = peers.contenders(peers.EVERY_LAYER, "project", work, DEPTH)
    tuned = [peer for peer in others if peer.name == "PyTorch tuned"]
    more, more_left_out = _peers(peers.DEEPEST, "project", options, work, DEPTH)
    others += more
    report.leave_out([*left_out, *more_left_out])
    for contender in mine:
        report.note(f"Projection of layer {DEPTH}", contender)
    _check(report, others, work, DEPTH)
    one = [_on_one_thread(mine[0], ours.settings(num_threads=1))]
    one += [_on_one_thread(peer, _torch_on_one_thread) for peer in tuned]
    everybody = [*mine, *one, *others]
    times = interleave(everybody, max(3, options.rounds // 2))
    times_table(report, times, ours.NAME, everybody, f"layer {DEPTH}")
    if tuned:
        alone = times.ratio(one[1].name, one[0].name)
        report.paragraph(
            f"On one thread each, PyTorch tuned takes {spread(alone)} times as long as fastdeconv."
        )


def avx2(report: Report, options: Options) -> None:
    """Both sides held to AVX2, in a process of its own."""
    report.heading("Held to AVX2")
    if "avx2" not in fd.available_isas():
        report.paragraph("Skipped: no AVX2 here.")
        return
    report.paragraph(
        "The same in a process with " + ", ".join(f"`{k}={v}`" for k, v in HELD_TO_AVX2.items())
        + ", so that no side has wider vectors than the other."
    )
    found = fresh_process("fresh", "held", options.rounds, options.threads, **HELD_TO_AVX2)
    for title, measured in found.items():
        report.paragraph(f"**{title}**")
        times = Times({name: np.array(t) for name, t in measured.items()})
        rows = [
            (
                name, spread(times.spread(name)),
                "1" if name == ours.NAME else spread(times.ratio(name, ours.NAME)),
            )
            for name in times
        ]
        report.table(("", "ms [quartiles]", "ratio to fastdeconv [quartiles]"), rows)


def held(rounds: int, threads: int) -> dict[str, dict[str, list[float]]]:
    """What `avx2` measures, in this process."""
    work = workload.paper()
    found = {}
    with all_threads(threads):
        mine = next(ours.forward(work))
        others, _ = peers.contenders(("torch_forward",), "forward", work)
        for peer in others:
            peers.check_forward(peer, work)
        found["Forward"] = interleave([mine, *others], rounds)
        mine = next(ours.project(work, DEPTH))
        others, _ = peers.contenders(peers.EVERY_LAYER, "project", work, DEPTH)
        others = [peer for peer in others if "bf16" not in peer.name]
        want = fd.deconvolve(work.trace, work.stages[-1].top)
        for peer in others:
            peers.check_maps(peer, want)
        found[f"Layer {DEPTH}, 64 features"] = interleave([mine, *others], max(3, rounds // 2))
    return {
        title: {name: t.tolist() for name, t in times.items()} for title, times in found.items()
    }


def peak(report: Report, options: Options) -> None:
    """How much of the machine's multiply-add rate the kernels reach."""
    work = workload.paper()
    report.heading("Fraction of peak")
    report.paragraph(
        "Multiply-adds that the work needs, counted on this network and clip (after a 2x2 pool "
        "2.25 taps per place and channel, not 9; less what falls over the edge), against the "
        "rate of independent multiply-adds in registers, measured by bench/peak.c on the same "
        "cores before and after. A multiply-add is two operations. The zeros that a ReLU "
        "leaves count as needed: where they are left out, more than 100 % can be reached."
    )
    threads = sorted({1, options.threads})
    before = {n: peaks(n) for n in threads}
    if not before[1]:
        report.paragraph("Skipped: bench/peak.c needs a C compiler.")
        return
    tasks = _peak_tasks(work)
    contenders = [
        replace(task.contender, name=f"{task.contender.name} {n}",
                around=_both(task.contender.around, ours.settings(num_threads=n)))
        for task in tasks for n in threads
    ]
    times = interleave(contenders, options.rounds)
    after = {n: peaks(n) for n in threads}
    rows = []
    for task in tasks:
        for n in threads:
            top = 2e-9 * max(before[n].get(task.set, 0), after[n].get(task.set, 0))
            ms = times.spread(f"{task.contender.name} {n}")
            rate = Spread(*(2e-6 * task.operations / t for t in (ms.high, ms.middle, ms.low)))
            rows.append((
                task.contender.name, str(n), f"{task.operations / 1e9:.2f}", number(ms.middle),
                number(rate.middle), number(top), f"{100 * rate.middle / top:.0f} %",
            ))
    report.table(
        ("", "threads", "10^9 multiply-adds", "ms", "GFLOP/s", "peak GFLOP/s", "of peak"), rows
    )


class _PeakTask(NamedTuple):
    contender: Contender
    set: str
    operations: int


def _peak_tasks(work: Work) -> list[_PeakTask]:
    everything = np.arange(workload.CHANNELS)
    tasks = []
    for isa in fd.available_isas():
        around = ours.settings(isa=isa)
        algorithm = next(
            (c for c in ours.forward(work) if c.name.endswith("direct")), next(ours.forward(work))
        )
        tasks.append(_PeakTask(
            Contender(f"forward, {isa}", algorithm.work, around=around), isa,
            forward_operations(work.stages),
        ))
        for depth in (2, DEPTH):  # at layer 1 memory is the limit
            needed = projection_operations(work.stages[:depth], work.given, everything)
            tasks.append(_PeakTask(
                Contender(f"layer {depth}, {isa}", next(ours.project(work, depth)).work,
                          around=around),
                isa, needed,
            ))
    if ours.has_bf16(work):
        needed = projection_operations(work.stages, work.given, everything)
        tasks.append(_PeakTask(
            Contender(f"layer {DEPTH}, bf16", ours.bf16(work, DEPTH).work), "bf16", needed
        ))
    return tasks
    return tasks


def _peers(
    names: tuple[str, ...], kind: str, options: Options, *arguments: object
) -> tuple[list[Contender], list[str]]:
    """Peers; when in a hurry, without the one that takes longest to get ready."""
    if options.quick:
        names = tuple(name for name in names if name not in ("torch_compiled", "script2015"))
    return peers.contenders(names, kind, *arguments)


def _check(report: Report, others: list[Contender], work: Work, depth: int) -> None:
    want = fd.deconvolve(work.trace, work.stages[depth - 1].top)
    for peer in others:
        report.note(f"Projection of layer {depth}", peer, peers.check_maps(peer, want))


def _on_one_thread(
    contender: Contender, around: Callable[[], AbstractContextManager[None]]
) -> Contender:
    return replace(contender, name=f"{contender.name}, 1 thread", around=around)


@contextmanager
def _torch_on_one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _both(
    outer: Callable[[], AbstractContextManager[None]],
    inner: Callable[[], AbstractContextManager[None]],
) -> Callable[[], AbstractContextManager[None]]:
    @contextmanager
    def around() -> Iterator[None]:
        with outer(), inner():
            yield

    return around


@contextmanager
def all_threads(count: int) -> Iterator[None]:
    """Ours and PyTorch's number of threads."""
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(count)
    with fd.config(num_threads=count):
        yield
