"""Other kinds of networks: branches, depthwise convolutions, one dimension."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

import fastdeconv as fd

from . import networks, ours, peers, workload
from .measure import Contender, interleave
from .report import Report, number, spread
from .sections import Options

RULES = ("deconvnet", "guided", "gradient")


class Case(NamedTuple):
    """A network, and what goes in."""

    name: str
    network: fd.Network
    x: np.ndarray


def cases() -> Iterator[Case]:
    """Two networks of spectrograms, and some of a waveform."""
    clip = workload.clip().x
    yield Case("residual", networks.residual(), clip)
    yield Case("MobileNet-like", networks.mobile(), clip)
    for first, hop, kernel, seconds in ((3, 1, 3, 1), (512, 128, 3, 6), (64, 4, 64, 1)):
        noise = np.random.default_rng(0).normal(size=(1, 1, 22050 * seconds))
        yield Case(
            f"1-D, kernels {first} (stride {hop}) and {kernel}, {seconds} s",
            networks.one_dimensional(first, hop, kernel), noise.astype(np.float32),
        )


def exchanged() -> Iterator[Case]:
    """The paper's network, and with other layers than ReLU and max pools."""
    clip = workload.clip().x
    yield Case("the paper's network", workload.network(), clip)
    for name, kind in (
        ("leaky ReLU", "leaky_relu"), ("ELU", "elu"), ("SiLU", "silu"), ("GELU", "gelu")
    ):
        yield Case(f"with {name}", workload.network(activation=kind), clip)
    yield Case("with average pools", workload.network(pool_type="avg_pool2d"), clip)


def _forward(case: Case, options: Options) -> tuple[str, str, str, str]:
    """The row of a forward pass beside ONNX Runtime."""
    from .peers import onnx_graph

    trace = case.network.forward(case.x)
    layer = case.network.layers[-1].name
    onnx = onnx_graph.forward(trace, options.threads)
    error = np.abs(onnx.read(onnx.work()) - trace[layer]).max() / np.abs(trace[layer]).max()
    if error > onnx.tolerance:
        raise SystemExit(f"{onnx.name}, {case.name}: activations differ by {error:.1e}")
    mine = Contender(ours.NAME, lambda: case.network.forward(case.x))
    times = interleave([mine, onnx], options.rounds)
    return (
        f"{case.name}, forward", number(times.spread(ours.NAME).middle),
        f"ONNX Runtime {spread(times.ratio(onnx.name, ours.NAME))}", "",
    )


def graphs(report: Report, options: Options) -> None:
    """Forward, and all features of the last layer back."""
    report.heading("Other networks")
    report.paragraph(
        "Residual: four blocks of two 3x3 convolutions, 64 channels and stride 2, each with a 3x3 "
        "shortcut. MobileNet-like: a stem and four inverted bottlenecks, depthwise convolutions, "
        "squeeze-and-excite, hardswish. 1-D: four convolutions of 64 channels on a waveform. All "
        "with batch norms. All features of the last layer to the input; PyTorch tuned has the "
        "fastest of its settings for each case, batch norms folded. Forward beside ONNX Runtime, "
        "which puts out the last layer alone."
    )
    try:
        from .peers import captum_peer, torch_graph
    except ImportError as error:
        report.paragraph(f"Skipped: {error}.")
        return
    rows = [_forward(case, options) for case in exchanged()]
    for case in cases():
        trace = case.network.forward(case.x)
        layer = case.network.layers[-1].name
        rows.append(_forward(case, options))
        count = len(trace[layer])
        for rule in RULES[: 1 if options.quick else 3]:
            mine = Contender(
                ours.NAME, lambda t=trace, n=layer, r=rule: fd.deconvolve(t, n, rule=r)
            )
            peer = torch_graph.tuned(trace, count, rule)
            others = [Contender("PyTorch tuned", peer.project, str(peer.settings))]
            if rule == "deconvnet":
                module = torch_graph.GraphModule
                others += [
                    one for one in captum_peer.attributing(
                        lambda c=case, m=module: m(c.network), case.x, count
                    ) if one.whole != count
                ]
            want = fd.deconvolve(trace, layer, rule=rule)
            for other in others:
                agreement = peers.check_maps(other, want)
                report.note(f"{case.name}, {rule}", replace(other), agreement)
            times = interleave([mine, *others], max(3, options.rounds // 2))
            ratios = [spread(times.ratio(other.name, ours.NAME)) for other in others]
            rows.append((
                f"{case.name}, {rule}", number(times.spread(ours.NAME).middle), ratios[0],
                *(ratios[1:] or [""]),
            ))
            print("  " + " | ".join(rows[-1]), flush=True)
    report.table(("", "fastdeconv ms", "PyTorch tuned, ratio", "Captum batched, ratio"), rows)
