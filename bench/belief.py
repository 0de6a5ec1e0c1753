"""`python -m bench.belief`: the tables of docs/believe.md, measured again.

Not a timing: what the numbers of belief are for the bundled network, for what its training began
with, and for a third network with other random weights. Clips are the demo recording, changed in
several ways, and chords of the built-in synthesiser; no other recordings come with the package.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastdeconv as fd
from fastdeconv.analysis.stimuli import chord_stimuli
from fastdeconv.belief.rules import METHODS
from fastdeconv.belief.trust import Subject, trust

from . import workload
from .report import Report

_TRUST = ("where", "support", "input_where", "reactivation", "among_sounds", "nearest")
_DECISION = ("srg", "srg_min", "ad", "fid_in", "energy", "ad_top", "ff_top", "fid_in_top")
_KINDS = (*METHODS, "random", "input", "band_mean")
_OF_RUNNER_UP = ("integrated_gradients", "cam", "deconvnet")

Numbers = dict[str, list[float]]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.belief", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--decisions", type=int, default=16, help="how many clips (default 16)")
    parser.add_argument("--trust", type=int, default=8, help="how many clips (default 8)")
    parser.add_argument("--output", type=Path, default=Path(os.devnull))
    args = parser.parse_args()
    begin = time.perf_counter()
    report = Report()
    trained = fd.pretrained("choi5-genre")
    untrained = fd.pretrained("choi5-genre", trained=False)
    clips = dict(_clips(trained.frontend))
    _decisions(report, trained, "trained", _first(clips, args.decisions))
    _decisions(report, untrained, "untrained", _first(clips, args.decisions))
    _trust(report, trained, untrained, _first(clips, args.trust))
    args.output.write_text("\n\n".join(report.blocks) + "\n", encoding="utf-8")
    print(f"{time.perf_counter() - begin:.0f} s", file=sys.stderr)


def _clips(frontend: Any) -> Iterator[tuple[str, fd.Clip]]:
    """Recording and chords in turns, so that the first few are of both kinds."""
    recorded, chords = _recordings(frontend), _chords(frontend)
    for one, other in zip(recorded, chords):
        yield one
        yield other


def _recordings(frontend: Any) -> Iterator[tuple[str, fd.Clip]]:
    own = workload.clip()
    x, sr = own.samples.astype(np.float64), own.sr
    rng = np.random.default_rng(0)
    level = np.sqrt(np.mean(x**2))
    spectrum = np.fft.rfft(x)
    hertz = np.fft.rfftfreq(x.size, 1 / sr)
    slower = np.interp(np.arange(x.size) * 0.8, np.arange(x.size), x)
    variants = {
        "as it is": x,
        "1 s later, its end first": np.roll(x, sr),
        "backwards": x[::-1],
        "with noise 20 dB below": x + 0.1 * level * rng.normal(size=x.size),
        "below 1,500 Hz": np.fft.irfft(spectrum * (hertz < 1500), x.size),
        "above 500 Hz": np.fft.irfft(spectrum * (hertz > 500), x.size),
        "0.8 times as fast and as high": slower,
        "quarter seconds in another order": np.concatenate(
            [part for _, part in sorted(
                zip(rng.permutation(16).tolist(), np.array_split(x, 16)), key=lambda p: p[0]
            )]
        ),
    }
    for name, samples in variants.items():
        yield f"demo, {name}", fd.Clip(samples.astype(np.float32), sr, frontend)


def _chords(frontend: Any) -> Iterator[tuple[str, fd.Clip]]:
    kinds = (("C", "maj", 3), ("F#", "min", 4))
    for root, chord, octave in kinds:
        for one in chord_stimuli([root], [chord], [octave]):
            yield one.name, one.clip(frontend)


def _first(clips: dict[str, fd.Clip], count: int) -> dict[str, fd.Clip]:
    return dict(list(clips.items())[:count])


def _decisions(
    report: Report, net: fd.Network, which: str, clips: dict[str, fd.Clip]
) -> None:
    """Of the network's choice, clip by clip, smoothed as they are heard."""
    found: dict[str, Numbers] = defaultdict(lambda: defaultdict(list))
    best: list[str] = []
    chosen: list[str] = []
    for name, clip in clips.items():
        classes = fd.decision(clip, net, methods="cam").classes[:1]
        why = fd.decision(clip, net, classes, "all")
        chosen += classes
        best += [row["method"] for row in why.table if row["best"]] or ["none"]
        for row in why.table:
            kind = row["method"] if row["of"] is None else f"{row['of']} of the runner-up"
            for key in _DECISION:
                found[kind][key].append(row[key])
            found[kind]["both"].append(row["srg"] > 0 and row["srg_min"] > 0)
        print(f"{which}, {name}: {classes[0]}, {best[-1]}", file=sys.stderr, flush=True)
    report.heading(f"Decisions, {which}, {len(clips)} clips")
    kinds = [*_KINDS, *(f"{name} of the runner-up" for name in _OF_RUNNER_UP)]
    report.table(
        ("", "srg", "srg_min", "both > 0", *_DECISION[2:]),
        [
            (kind, _interval(found[kind]["srg"]), *(
                _mean(found[kind][key]) for key in ("srg_min", "both", *_DECISION[2:])
            ))
            for kind in kinds
        ],
    )
    report.paragraph(
        f"Classes: {_counts(chosen)}. Marked as best: {_counts(best)}. Means; of srg with 95 % "
        "intervals over clips, which are not independent of each other."
    )


def _trust(
    report: Report, trained: fd.Network, untrained: fd.Network, clips: dict[str, fd.Clip]
) -> None:
    """Trained against its start; its start against another seed."""
    found: dict[str, dict[str, Numbers]] = {"trained": {}, "untrained": {}}
    layers = trained.pooling_layers
    for name, clip in clips.items():
        other_seed = fd.randomised(untrained, 1, [clip.x])
        own, start, other = (Subject(clip, net) for net in (trained, untrained, other_seed))
        for layer in layers:
            for which, net, control, subject, opponent in (
                ("trained", trained, untrained, own, start),
                ("untrained", untrained, other_seed, start, other),
            ):
                subject.drops(layer, layers)
                rows = trust(clip, net, control, layer, subject.maps(layer), subject=subject,
                             opponent=opponent)
                numbers = found[which].setdefault(layer, defaultdict(list))
                for key in _TRUST:
                    numbers[key].append(float(np.nanmedian([row[key] for row in rows])))
                for word in ("yes", "no"):
                    numbers[word].append(float(np.mean([r["verdict"] == word for r in rows])))
            for subject in (own, start, other):
                subject.forget(layer)
        print(f"trust, {name}", file=sys.stderr, flush=True)
    report.heading(f"Features, {len(clips)} clips")
    report.table(
        ("", *layers, *(f"untrained {layer}" for layer in layers)),
        [
            (key, *(_mean(found[which][layer][key]) for which in found for layer in layers))
            for key in (*_TRUST, "yes", "no")
        ],
    )
    report.paragraph("Medians over features, means over clips; yes and no are shares.")


def _mean(values: Sequence[float | None]) -> str:
    known = [float(value) for value in values if value is not None]
    mean = float(np.mean(known))
    return f"{mean:.0f}" if abs(mean) >= 2 else f"{mean:.2f}"


def _interval(values: Sequence[float]) -> str:
    half = 1.96 * float(np.std(values, ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else 0
    return f"{np.mean(values):.2f} ± {half:.2f}"


def _counts(words: Sequence[str]) -> str:
    return ", ".join(f"{word} {words.count(word)}" for word in dict.fromkeys(words))


if __name__ == "__main__":
    main()
