"""What another process does: it computes one shard and writes it.

A job holds names and numbers alone, and what comes back are counts: no array goes from process to
process. The network is read once a process.
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

#: The error of a track that kills whoever reads it.
DIED = "the process that computed it died, again and again, and with this track alone"
#: In the folder of a survey.
NETWORK = "network.npz"


class Job(NamedTuple):
    """A shard to compute, in any process that sees the files."""

    out: str
    name: str
    """Of the shard."""
    root: str
    tracks: tuple[Track, ...]
    features: dict[str, int]
    """Layer -> number of its features."""
    network: str
    """Its hash: whoever computes reads it from the survey's folder, and checks it."""
    seconds: float
    """Length of a window where the front end leaves it open."""
    padded_to: float
    """Length of a window in seconds where the front end fixes it, else 0."""
    rows: bool
    backend: str
    isa: str | None
    deadly: frozenset[str] = frozenset()
    """Names of tracks that are not to be opened, because that ends the process."""


class Done(NamedTuple):
    """A shard that was written."""

    path: str
    tracks: int
    errors: int


def shard_name(digest: str, layers: Iterable[str]) -> str:
    """What the file of a shard is called that holds these layers, without its suffix."""
    text = json.dumps([digest, *layers])
    return hashlib.sha256(text.encode()).hexdigest()[: len(digest)]


def begin(alive: Any) -> None:
    """Prepare a process of our own. Called first in it.

    Parameters
    ----------
    alive : connection
        Its other end is open as long as there is work. The process ends with it, also when
        whoever began it was killed.
    """
    # Before NumPy and its libraries are loaded: processes are in parallel, not their threads.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    # Ctrl-C goes to all processes of a terminal; the one that was begun there tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=[alive], daemon=True).start()


def is_there() -> bool:
    """Whether a process answers."""
    return True


def run_shard(job: Job) -> Done:
    """Compute a shard and write it.

    A track that cannot be used is a row with its error.

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
    """Compute a shard, to see whether the process survives it."""
    for _ in _measured(job):
        pass
    return True


def _measured(job: Job) -> Iterator[tuple[Track, Measured | str]]:
    """Tracks, one at a time, or why they cannot be used."""
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
    """The network in the folder of a survey, which has this hash; read once a process.

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


def _end_with(alive: Any) -> None:
    with suppress(OSError, EOFError):
        alive.recv_bytes()
    os._exit(1)
