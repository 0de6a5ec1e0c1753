"""Records what a call hands out, band by band: for predicting how it scales (bench/threads.py).

While a recording goes on, bands run one after the other on the calling thread, cut as for as many
CPUs as the recording pretends to have, and each is timed. Otherwise all that it costs is that
`recording` is asked for once a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple

from .dispatch import usable_cpus

__all__ = ["BandTimes", "Recording", "cpus", "recording", "started"]


class BandTimes(NamedTuple):
    """The bands of one queue, in the order in which they are handed out."""

    begin: float
    """When it began, and ..."""
    end: float
    """... ended: seconds of `time.perf_counter`."""
    seconds: list[float]
    """Of every band."""
    needs: list[int]
    """How many bands, counted from the first, must be done before each begins."""
    most: int
    """Threads that it may have."""


class Recording:
    """What one thread hands out."""

    def __init__(self, pretended_cpus: int) -> None:
        self.cpus = pretended_cpus
        self.queues: list[BandTimes] = []

    def run(
        self, bands: Sequence[Callable[[], Any]], needs: list[int], most: int, begin: float
    ) -> None:
        """Run the bands of a queue, which began at `begin`, one after the other and time them."""
        seconds = []
        for band in bands:
            start = perf_counter()
            band()
            seconds.append(perf_counter() - start)
        self.queues.append(BandTimes(begin, perf_counter(), seconds, needs, most))


_recording: Recording | None = None


def recording() -> Recording | None:
    """The one that goes on."""
    return _recording


def cpus() -> int:
    """CPUs that work is cut for."""
    return usable_cpus() if _recording is None else _recording.cpus


@contextmanager
def started(pretended_cpus: int) -> Iterator[Recording]:
    """Record what this thread calls; other threads must not call meanwhile."""
    global _recording
    _recording = Recording(pretended_cpus)
    try:
        yield _recording
    finally:
        _recording = None
