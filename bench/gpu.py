"""The paper's network on a GPU: our CUDA back end and PyTorch on the same card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fastdeconv as fd

from . import ours, peers, workload
from .measure import Contender, interleave
from .report import Report, number, times_table
from .sections import Options
from .workload import DEPTH, Work

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
    mine = [
        Contender(ours.NAME, lambda: work.network.forward(work.x)),
        Contender(f"{ours.NAME}, cuda", lambda: work.network.forward(work.x), around=_on_card),
    ]
    others = list(_forward_peers(work))
    for peer in others:
        with peer.around():
            report.note("Forward on a GPU", peer, peers.check_forward(peer, work))
    everybody = [*mine, *others]
    times_table(report, interleave(everybody, options.rounds), f"{ours.NAME}, cuda", everybody)
    report.table(("ms, 64 features", *_names(work)), _rows(report, work, options.rounds))


def _names(work: Work) -> list[str]:
    return [c.name for c in _everybody(work, 1)]


def _rows(report: Report, work: Work, rounds: int) -> Iterator[tuple[str, ...]]:
    mine = f"{ours.NAME}, cuda"
    for depth in range(1, DEPTH + 1):
        want = fd.deconvolve(work.trace, work.stages[depth - 1].top)
        everybody = list(_everybody(work, depth))
        for peer in everybody[1:]:
            with peer.around():
                agreement = peers.check_maps(peer, want)
            report.note(f"Projection of layer {depth} on a GPU", peer, agreement)
        times = interleave(everybody, rounds)
        yield (
            f"layer {depth}",
            *(
                number(times.spread(name).middle)
                + ("" if name == mine else f" ({number(times.ratio(name, mine).middle)}x)")
                for name in times
            ),
        )


def _everybody(work: Work, depth: int) -> Iterator[Contender]:
    layer = work.stages[depth - 1].top
    yield Contender(ours.NAME, lambda: fd.deconvolve(work.trace, layer))
    yield Contender(
        f"{ours.NAME}, cuda", lambda: fd.deconvolve(work.trace, layer),
        "fd.config(backend='cuda')", around=_on_card,
    )
    yield from _projection_peers(work, depth)


def _on_card() -> Any:
    return fd.config(backend="cuda")


def _card() -> str:
    from numba import cuda

    name = cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)


def _has_torch() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def _forward_peers(work: Work) -> Iterator[Contender]:
    if not _has_torch():
        return
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
    if not _has_torch():
        return
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
