"""The same work done by others, each as well as we know how; one module a peer.

A module offers contenders by one or both of

``forward(work)``         every stage's activations, with switches where the peer has them;
                          ``read`` gives [(activation (C, h, w), places or None), ...]
``project(work, depth)``  the maps of the first features of stage `depth`, as many as one run
                          does; ``read`` gives (K, C, H, W)

and raises ImportError where its library is missing, `UnavailableError` where it does not work.
"""

from __future__ import annotations

import importlib

import numpy as np

from ..measure import Contender
from ..stages import places
from ..workload import Work

FORWARD = ("torch_forward", "torch_compiled", "jax_peer", "onnxruntime_peer")
EVERY_LAYER = ("torch_plain", "torch_tuned")
DEEPEST = ("torch_compiled", "jax_peer", "captum_peer", "zennit_peer", "script2015")

OWN_SWITCHES = 5e-2
"""Tolerance for maps of peers that run forward themselves: a near tie in a pool falls to the
other side with the rounding of the day, and takes the value elsewhere."""
BFLOAT16 = 3e-2
"""Tolerance for maps from products of 8-bit mantissas."""


class UnavailableError(Exception):
    """A peer is installed but does not work here; the text says why."""


def contenders(
    names: tuple[str, ...], kind: str, *arguments: object
) -> tuple[list[Contender], list[str]]:
    """Contenders of the modules `names`, and a line for each that is left out."""
    found: list[Contender] = []
    left_out: list[str] = []
    for name in names:
        try:
            module = importlib.import_module(f".{name}", __package__)
            found += getattr(module, kind)(*arguments)
        except (ImportError, UnavailableError) as error:
            left_out.append(f"{name.removesuffix('_peer').replace('_', ' ')}: {error}")
    return found, left_out


def check_forward(peer: Contender, work: Work) -> str:
    """How far a peer's activations and switches are from ours; SystemExit where too far."""
    worst, differing, count = 0.0, 0, 0
    for stage, mine, (value, where) in zip(work.stages, work.given, peer.read(peer.work())):
        worst = max(worst, _error(value.reshape(mine.activation.shape), mine.activation))
        if where is not None:
            ours = places(mine.switches, stage)
            differing += int((where.reshape(ours.shape) != ours).sum())
            count += ours.size
    if worst > peer.tolerance or differing > 1e-3 * count:
        raise SystemExit(
            f"{peer.name}, forward: activations differ by {worst:.1e} of the largest value, "
            f"{differing} of {count} switches differ"
        )
    switches = f"{differing} of {count} switches differ" if count else "no switches"
    return f"activations {_within(worst)}, {switches}"


def check_maps(peer: Contender, want: np.ndarray) -> str:
    """How far a peer's maps are from ours (those of the features it did); SystemExit if far."""
    got = peer.read(peer.work())
    error = _error(got, want[: len(got)])
    if error > peer.tolerance:
        raise SystemExit(f"{peer.name}: maps differ from ours by {error:.1e} of the largest value")
    return f"maps {_within(error)}"


def _within(error: float) -> str:
    return f"within {error:.0e} of the largest value" if error else "the same to the last bit"


def _error(got: np.ndarray, want: np.ndarray) -> float:
    assert got.shape == want.shape, (got.shape, want.shape)
    return float(np.abs(got - want).max() / np.abs(want).max())
