"""fastdeconv as a contender: every back end, instruction set, algorithm and precision here."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import fastdeconv as fd
from fastdeconv.kernels import dispatch
from fastdeconv.kernels.dispatch import get_backend, get_isa

from .measure import Contender
from .peers import BFLOAT16
from .workload import Work

NAME = "fastdeconv"
"""The contender that others are compared with: all defaults."""


def variants() -> dict[str, dict[str, str]]:
    """Settings other than the default: instruction sets, then back ends."""
    sets = {f"{NAME}, {isa}": {"backend": "native", "isa": isa} for isa in fd.available_isas()[1:]}
    others = {
        f"{NAME}, {name}": {"backend": name}
        for name in fd.available_backends()
        if name not in ("native", "reference")
    }
    return sets | others


def default() -> str:
    """What the default is here."""
    name = get_backend().name
    return f"native, {get_isa()}" if name == "native" else name


def settings(**chosen: Any) -> Callable[[], AbstractContextManager[None]]:
    """`fd.config` to be entered for a turn."""
    return lambda: fd.config(**chosen)


def _text(chosen: dict[str, str]) -> str:
    return f"fd.config({', '.join(f'{key}={value!r}' for key, value in chosen.items())})"


def forward(work: Work) -> Iterator[Contender]:
    """The default, every algorithm of the default back end, the other variants."""
    def run(**options: str) -> Callable[[], object]:
        return lambda: work.network.forward(work.x, **options)

    yield Contender(NAME, run(), f"net.forward(x), {default()}")
    if "algorithm" in inspect.signature(work.network.forward).parameters:
        for algorithm in ("direct", "winograd"):
            yield Contender(
                f"{NAME}, {algorithm}", run(algorithm=algorithm), f"algorithm={algorithm!r}"
            )
    for name, chosen in variants().items():
        yield Contender(name, run(), _text(chosen), around=settings(**chosen))


def project(work: Work, depth: int) -> Iterator[Contender]:
    """The default, bf16 where there is one, the other variants."""
    layer = work.stages[depth - 1].top
    yield Contender(
        NAME, lambda: fd.deconvolve(work.trace, layer), f"fd.deconvolve(trace, layer), {default()}"
    )
    if has_bf16(work):
        yield bf16(work, depth)
    if has_amx():
        yield in_tiles(work, depth)
    for name, chosen in variants().items():
        yield Contender(
            name, lambda: fd.deconvolve(work.trace, layer), _text(chosen),
            around=settings(**chosen),
        )


def bf16(work: Work, depth: int) -> Contender:
    """With products of bfloat16."""
    layer = work.stages[depth - 1].top
    return Contender(
        f"{NAME}, bf16", lambda: fd.deconvolve(work.trace, layer, precision="bf16"),
        'precision="bf16"', tolerance=BFLOAT16,
    )


def in_tiles(work: Work, depth: int) -> Contender:
    """The same by AMX."""
    return dataclasses.replace(
        bf16(work, depth), name=f"{NAME}, AMX", how='precision="bf16", isa="amx"',
        around=settings(backend="native", isa="amx"),
    )


def has_amx() -> bool:
    """Whether this version, build and CPU multiply bfloat16 in tiles."""
    try:
        with fd.config(backend="native", isa="amx"):
            return True
    except fd.FastdeconvError:
        return False


def has_bf16(work: Work) -> bool:
    """Whether this version, build and CPU offer it, and not float32 in its place."""
    if "precision" not in inspect.signature(fd.deconvolve).parameters:
        return False
    how = getattr(dispatch, "bf16_of", None)
    if how is not None and how(get_backend()) == "slow":
        return False
    try:
        bf16(work, 1).work()
    except fd.FastdeconvError:
        return False
    return True
