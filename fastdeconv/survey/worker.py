"""The work of another process: it computes one shard and writes it.

A job consists of names and numbers only, and its result is a path and counts: no array is sent from
process to process. Every process reads the network once.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..network.network import Network
    from .collection import Track
    from .measuring import Measured

__all__ = [
    "DIED", "NETWORK", "Done", "Job", "begin", "is_there", "network_of", "run_shard", "shard_name",
    "try_tracks",
]

#: The error of a track that ends every process that reads it.
DIED = "the process that computed it died, again and again, and with this track alone"
#: Name of the network's file in the folder of a survey.
NETWORK = "network.npz"


class Job(NamedTuple):
    """A shard to compute, in any process that sees the files."""

    out: str
    """The folder of the survey."""
    name: str
    """Name of the shard's file, see `shard_name`."""
    root: str
    """The folder that tracks are relative to."""
    tracks: tuple[Track, ...]
    features: dict[str, int]
    """Layer -> number of its features."""
    network: str
    """Hash of the network, which is read from the survey's folder and checked against it."""
    seconds: float
    """Length of a window if the front end does not fix it."""
    padded_to: float
    """Length of a window in seconds if the front end fixes it, else 0."""
    rows: bool
    backend: str
    isa: str | None
    deadly: frozenset[str] = frozenset()
    """Names of tracks that must not be opened, because they end the process."""


class Done(NamedTuple):
    """A shard that was written."""

    path: str
    tracks: int
    errors: int


def shard_name(digest: str, layers: Iterable[str]) -> str:
    """The name, without its suffix, of the file with these layers of a shard."""
    text = json.dumps([digest, *layers])
    return hashlib.sha256(text.encode()).hexdigest()[: len(digest)]


def begin(alive: Any) -> None:
    """Prepare a worker process. Called in it before anything else.

    Parameters
    ----------
    alive : connection
        The other end stays open as long as there is work. When it closes, also because the main
        process was killed, this process ends.
    """
    # Before NumPy and its libraries are loaded: one thread each, since processes run in parallel.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    # Ctrl-C reaches all processes of a terminal. The main process ends the workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_when_closed, args=[alive], daemon=True).start()


def is_there() -> bool:
    """Answer, which shows that this process runs."""
    return True


def run_shard(job: Job) -> Done:
    """Compute a shard and write it.

    A track that cannot be used becomes a row with its error.

    Raises
    ------
    OSError
        If the shard cannot be written.
    FastdeconvError
        If the network is not the one of the survey, or the back end is not there.
    """
    from .rows import rows_table
    from .store import shard_path, write_table
    from .summaries import summarise, summary_table

    tracks = list(_measured(job))
    table = rows_table([*job.features], tracks)
    if not job.rows:
        table = summary_table(summarise(table, job.features, job.padded_to))
    path = shard_path(Path(job.out), job.name)
    write_table(path, table)
    return Done(str(path), len(tracks), sum(isinstance(found, str) for _, found in tracks))


def try_tracks(job: Job) -> bool:
    """Compute a shard without writing it, to see whether the process survives."""
    for _ in _measured(job):
        pass
    return True


def _measured(job: Job) -> Iterator[tuple[Track, Measured | str]]:
    """Measure tracks one after the other; the second value is the error of an unusable one."""
    from ..errors import FastdeconvError
    from ..kernels.dispatch import config
    from .collection import path_of, reason_without_path
    from .measuring import measure

    with config(backend=job.backend, isa=job.isa, num_threads=1):
        network = network_of(job.out, job.network)
        for track in job.tracks:
            if track.name in job.deadly:
                yield track, DIED
                continue
            try:
                yield track, measure(network, [*job.features], job.root, track, job.seconds)
            except (FastdeconvError, OSError, MemoryError, ValueError, ArithmeticError) as error:
                yield track, reason_without_path(error, path_of(track.name, job.root))


@functools.lru_cache(maxsize=1)
def network_of(out: str, wanted: str) -> Network:
    """The network in the folder of a survey, checked against its hash; read once by a process.

    Raises
    ------
    ParameterError
        If it has another hash.
    """
    from ..errors import ParameterError, printable
    from ..network.fingerprint import network_hash
    from ..network.network import Network

    path = Path(out) / NETWORK
    network = Network.load(path)
    if network_hash(network) != wanted:
        raise ParameterError(f"{printable(str(path))} is not the network of this survey")
    return network


def _exit_when_closed(alive: Any) -> None:
    with suppress(OSError, EOFError):
        alive.recv_bytes()
    os._exit(1)
