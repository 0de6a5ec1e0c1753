"""Why a network decided as it did: our rules beside Captum's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastdeconv as fd
from fastdeconv.belief.grid import Grid
from fastdeconv.belief.rules import STEPS, Rules, cam_layer
from fastdeconv.belief.targets import Target, decision_kind
from fastdeconv.deconvnet.scores import scores_of

from . import ours, peers, workload
from .measure import Contender, interleave
from .report import Report, number, spread
from .sections import Options

_PATCHES = 16, 16


class _Case(NamedTuple):
    name: str
    work: Callable[[], Any]
    peer: str
    """the function of `peers.captum_decisions` that does the same"""
    part: Callable[[np.ndarray], np.ndarray] = lambda maps: maps
    """what of our map is compared"""


def decisions(report: Report, options: Options) -> None:
    """Integrated gradients, class activation maps and occlusion of the bundled network."""
    report.heading("Decisions")
    report.paragraph(
        "The bundled network on the demo clip, one class, log odds; each figure with the forward "
        f"passes that it needs. Integrated gradients: {STEPS} steps from silence, whose scores "
        "the network keeps and Captum does not compute. Occlusion: "
        "patches of 16 x 16, band means; ours gives all classes in the same time, Captum has a "
        "17th row of patches, one bin high."
    )
    network, clip = fd.pretrained("choi5-genre"), workload.clip()
    clip = fd.Clip(clip.samples, clip.sr, network.frontend)
    trace = network.forward(clip.x)
    kind, classes = decision_kind(network), len(network.classes or ())
    scores = scores_of(trace)
    chosen = max(range(classes), key=lambda i: Target("", i, kind).probability(scores))

    def run(method: str, count: int = 1) -> Callable[[], np.ndarray]:
        numbers = [chosen, *(i for i in range(classes) if i != chosen)][:count]
        targets = [Target(str(i), i, kind) for i in numbers]
        return lambda: Rules(network.forward(clip.x), Grid.of(clip), targets).maps(method)[0]

    def whole(maps: np.ndarray) -> np.ndarray:
        return maps[: 15 * _PATCHES[0], : 10 * _PATCHES[1]]

    cases = [
        _Case("integrated gradients", run("integrated_gradients"), "integrated_gradients"),
        _Case("class activation map", run("cam"), "cam"),
        _Case("occlusion", run("occlusion"), "occlusion", whole),
    ]
    more = [
        Contender("forward pass", lambda: network.forward(clip.x)),
        Contender(f"integrated gradients, {classes} classes",
                  run("integrated_gradients", classes)),
        Contender("occlusion, all features of all layers too", lambda: fd.occlude(clip, network)),
    ]
    try:
        captum = importlib.import_module(".captum_decisions", peers.__name__)
        asked = captum.Asked(network, clip.x, chosen, STEPS, cam_layer(trace), _PATCHES)
    except ImportError as error:
        report.leave_out([f"captum decisions: {error}"])
        captum = None
    rows = []
    for case in cases:
        mine = Contender(f"{ours.NAME}, {case.name}", case.work)
        others = [] if captum is None else [*getattr(captum, case.peer)(asked)]
        want = case.part(case.work())
        for other in others:
            agreement = _agreement(other, case, want)
            report.note(case.name, other, agreement)
        times = interleave([mine, *others], options.rounds)
        ratios = [spread(times.ratio(other.name, mine.name)) for other in others]
        rows.append((case.name, number(times.spread(mine.name).middle), *(ratios or ["", ""])))
    times = interleave(more, options.rounds)
    rows += [(one.name, number(times.spread(one.name).middle), "", "") for one in more]
    report.table(
        ("", "fastdeconv ms", "Captum, contiguous, ratio", "Captum, channels_last, ratio"), rows
    )


def _agreement(peer: Contender, case: _Case, want: np.ndarray) -> str:
    """How far a map is from ours; SystemExit where too far. Of norms: a switch that rounding
    turns over moves single bins."""
    got = case.part(peer.work())
    error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
    if error > peer.tolerance:
        raise SystemExit(f"{peer.name}: the map differs from ours by {error:.1e} of its norm")
    return f"map within {error:.0e} of its norm"
