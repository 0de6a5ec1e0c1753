"""How the time grows, as pictures: bench/results/MACHINE/plots/*.svg."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastdeconv as fd

from . import ours, workload
from .measure import Contender, Times, interleave
from .report import Report
from .sections import Options
from .workload import DEPTH, FRAMES_PER_SECOND, Work


class Line(NamedTuple):
    """A contender's times at some of the places along x."""

    name: str
    at: list[float]
    times: list[np.ndarray]


class Plot(NamedTuple):
    """What one picture shows."""

    file: str
    title: str
    xlabel: str
    places: Sequence[float]
    work: Callable[[float], Work]
    features: Callable[[float], int]
    peer_up_to: float
    power: int = 1
    """of x that the amount of work is in proportion to"""


def growth(report: Report, options: Options) -> None:
    """The pictures."""
    report.heading("Growth")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        report.paragraph(f"Skipped: {error}.")
        return
    rounds = max(3, options.rounds // 3)
    options.plots.mkdir(parents=True, exist_ok=True)
    for plot in _PLOTS:
        lines = _measure(plot, rounds)
        _draw(options.plots / plot.file, plot.title, plot.xlabel, lines, plot.power)
    threads = _threads(options.threads, rounds)
    _draw(options.plots / "threads.svg", "64 features of layer 5", "threads", threads, -1)
    report.paragraph(
        f"Medians of {rounds} rounds, the band from the fastest to the slowest round; dashed "
        "grey: in proportion to the work, or to the threads. PyTorch tuned with its fastest "
        "settings for each point, where that takes a few seconds at most."
    )
    names = [*(plot.file for plot in _PLOTS), "threads.svg"]
    report.paragraph("\n".join(f"![{n.removesuffix('.svg')}](plots/{n})" for n in names))


def _wide_top(_: float) -> Work:
    """The paper's network with 128 features in the deepest layer."""
    return Work.of(workload.network((64,) * (DEPTH - 1) + (128,)), workload.clip().x)


def _of_seconds(seconds: float) -> Work:
    frames = round(seconds * FRAMES_PER_SECOND) + 1
    return Work.of(workload.network(), workload.spectrogram(257, frames))


def _of_channels(channels: float) -> Work:
    return Work.of(workload.network((int(channels),) * DEPTH), workload.clip().x)


_PLOTS = [
    Plot("features.svg", "Layer 5, 4 s, 64 channels", "features", (1, 2, 4, 8, 16, 32, 64, 128),
         _wide_top, int, 64),
    Plot("clip.svg", "16 features of layer 5, 64 channels", "length of the clip in s",
         (2, 4, 8, 15, 30, 60, 120, 180), _of_seconds, lambda _: 16, 30),
    Plot("channels.svg", "16 features of layer 5, 4 s", "channels of every layer",
         (16, 32, 64, 128, 256), _of_channels, lambda _: 16, 128, power=2),
]


def _measure(plot: Plot, rounds: int) -> list[Line]:
    mine, peers = Line(ours.NAME, [], []), Line("PyTorch tuned", [], [])
    for place in plot.places:
        work, count = plot.work(place), plot.features(place)
        contenders = [_ours(work, count)]
        if place <= plot.peer_up_to:
            contenders += _tuned(work, count)
        times = interleave(contenders, rounds)
        for line in (mine, peers):
            if line.name in times:
                line.at.append(place)
                line.times.append(times[line.name])
    return [line for line in (mine, peers) if line.at]


def _ours(work: Work, count: int) -> Contender:
    layer = work.stages[-1].top
    return Contender(ours.NAME, lambda: fd.deconvolve(work.trace, layer, range(count)))


def _tuned(work: Work, count: int) -> list[Contender]:
    try:
        from .peers.torch_tuned import tuned
    except ImportError:
        return []
    values = work.given[-1].activation[:count]
    peer = tuned(work.stages, work.given, np.arange(count), values)
    return [Contender("PyTorch tuned", peer.project)]


def _threads(most: int, rounds: int) -> list[Line]:
    work = workload.paper()
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n < most] + [most]
    lines = []
    for contender in [_ours(work, workload.CHANNELS), *_tuned(work, workload.CHANNELS)]:
        line = Line(contender.name, [], [])
        for n in counts:
            line.at.append(n)
            line.times.append(_on_threads(contender, n, rounds)[contender.name])
        lines.append(line)
    return lines


def _on_threads(contender: Contender, count: int, rounds: int) -> Times:
    from .sections import all_threads

    with all_threads(count):
        return interleave([contender], rounds)


# Okabe and Ito's palette: told apart by every kind of colour vision.
_STYLES = {ours.NAME: ("#0072B2", "o"), "PyTorch tuned": ("#D55E00", "s")}


def _draw(path: Path, title: str, xlabel: str, lines: list[Line], power: int) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    # Text as text, and no ids or dates that change from run to run: small files, small diffs.
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "fastdeconv", "font.size": 9}
    figure, axes = plt.subplots(figsize=(4.2, 3.0), layout="constrained")
    for line in lines:
        colour, marker = _STYLES[line.name]
        times = 1e3 * np.array(line.times)
        middle = np.median(times, axis=1)
        axes.fill_between(line.at, times.min(1), times.max(1), color=colour, alpha=0.2, lw=0)
        axes.plot(line.at, middle, color=colour, marker=marker, ms=4, lw=1.2, label=line.name)
        anchor = -1 if power > 0 else 0
        proportional = middle[anchor] * (np.array(line.at) / line.at[anchor]) ** power
        axes.plot(line.at, proportional, color="0.6", ls="--", lw=0.8)
    axes.set(xscale="log", yscale="log", title=title, xlabel=xlabel, ylabel="time in ms")
    ticks = sorted({place for line in lines for place in line.at})
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.grid(alpha=0.3, lw=0.5)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
