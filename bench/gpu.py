"""The paper's network on a GPU: our CUDA back end and PyTorch on the same card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import fastdeconv as fd

from . import ours, peers, workload
from .measure import Contender, interleave
from .report import Report, times_table
from .sections import Options, cells
from .workload import DEPTH, Work

CUDA = f"{ours.NAME}, cuda"
"""The contender that others are compared with."""
TF32 = 3e-2
"""Tolerance for maps from products of 10-bit mantissas."""


def gpu(report: Report, options: Options) -> None:
    """Forward and every layer."""
    report.heading("On a GPU")
    if "cuda" not in fd.available_backends():
        report.paragraph("Skipped: no NVIDIA GPU here.")
        return
    work = workload.paper()
    report.paragraph(
        f"{_card()}. Maps begin and end on the host, activations of the forward pass stay on the "
        "card; what depends on the clip alone (masks, lists) is made once for everybody. PyTorch "
        "in float32 proper, unless it says TF32, with cuDNN's search for the fastest algorithm."
    )
    missing = _torch_missing()
    if missing:
        report.leave_out([f"PyTorch on a GPU: {missing}"])
    mine = _cpu_and_card(ours.forward(work))
    others = [] if missing else list(_forward_peers(work))
    for peer in others:
        with peer.around():
            report.note("Forward on a GPU", peer, peers.check_forward(peer, work))
    everybody = [*mine, *others]
    times_table(report, interleave(everybody, options.rounds), CUDA, everybody)
    rows = {}
    for depth in range(1, DEPTH + 1):
        others = [] if missing else list(_projection_peers(work, depth))
        everybody = [*_cpu_and_card(ours.project(work, depth)), *others]
        want = fd.deconvolve(work.trace, work.stages[depth - 1].top)
        for peer in everybody[1:]:
            with peer.around():
                agreement = peers.check_maps(peer, want)
            report.note(f"Projection of layer {depth} on a GPU", peer, agreement)
        rows[f"layer {depth}"] = interleave(everybody, options.rounds)
    report.table(
        ("ms, 64 features", *rows["layer 1"]),
        ((layer, *cells(times, CUDA)) for layer, times in rows.items()),
    )


def _cpu_and_card(mine: Iterable[Contender]) -> list[Contender]:
    """Of ours the default and the one on the GPU, in this order."""
    return [c for c in mine if c.name in (ours.NAME, CUDA)]


def _card() -> str:
    from numba import cuda

    name = cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)


def _torch_missing() -> str | None:
    """Why PyTorch cannot take part, or None when it can."""
    try:
        import torch
    except ImportError as error:
        return str(error)
    return None if torch.cuda.is_available() else "this build of it finds none"


def _forward_peers(work: Work) -> Iterator[Contender]:
    import torch

    from .peers.torch_forward import Forward, read

    for name, memory_format in (
        ("PyTorch plain", torch.contiguous_format), ("PyTorch tuned", torch.channels_last)
    ):
        run = Forward(work, memory_format, "cuda")

        def timed(run: Forward = run) -> Any:
            result = run()
            torch.cuda.synchronize()
            return result

        yield Contender(name, timed, str(memory_format), around=_float32, read=read)


def _projection_peers(work: Work, depth: int) -> Iterator[Contender]:
    import torch

    from .peers.torch_plain import TorchPlain
    from .peers.torch_tuned import tuned_for

    yield Contender("PyTorch plain", TorchPlain(work, depth, "cuda").project, around=_float32)
    with _float32():
        peer = tuned_for(work, depth, torch.float32, "cuda")
    yield Contender("PyTorch tuned", peer.project, str(peer.settings), around=_float32)
    yield Contender("PyTorch tuned, TF32", peer.project, around=_tf32, tolerance=TF32)


@contextmanager
def _precision(tf32: bool) -> Iterator[None]:
    import torch

    settings = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [s.allow_tf32 for s in settings]
    search = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    for s in settings:
        s.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = search
        for s, value in zip(settings, before):
            s.allow_tf32 = value


def _float32() -> Any:
    return _precision(False)


def _tf32() -> Any:
    return _precision(True)
