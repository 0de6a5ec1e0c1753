"""Running shards on any executor, and going on when a worker dies.

Any executor of `concurrent.futures` will do: processes of this machine, or those of a Dask cluster.
When a process of a pool dies, the pool is lost together with all shards that were running, and
nothing tells which of them was the cause. So a new pool is made, and these shards run one at a
time. A shard that ends its process when it runs alone is halved again and again until the tracks
are found that do it. They become rows with an error, and the others are computed.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future
from concurrent.futures import wait as wait_for
from concurrent.futures.process import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from ..errors import BackendError, shown
from .collection import Track
from .worker import begin, is_there, run_shard, try_tracks

__all__ = ["Progress", "run_jobs"]

#: Called with (tracks done, tracks in all) after each shard. Tracks of earlier runs count as done.
Progress = Callable[[int, int], None]


class Job(Protocol):
    """Tracks to work on in any process that sees the files; a named tuple."""

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The tracks, in order."""

    @property
    def deadly(self) -> frozenset[str]:
        """Names of tracks that must not be opened, because they end the process."""

    def _replace(self, *args: Any, **changes: Any) -> Any:
        """The same job with something changed."""


Work = Callable[[Any], Any]
Tell = Callable[[Any], None]

_IN_FLIGHT = 2
"""Shards that are submitted at a time, for each worker: the one it computes and the next one."""
_TRIES = 3
"""How often work is tried again after the death of a process."""


def run_jobs(
    jobs: Iterable[Job], executor: Executor | None, workers: int, tell: Tell, *,
    run: Work = run_shard, attempt: Work = try_tracks,
) -> None:
    """Run all jobs.

    Parameters
    ----------
    jobs : iterable of Job
        Taken one at a time, when a worker is free.
    executor : Executor or None
        None starts processes on this machine.
    workers : int
        How many workers it has, or how many processes to start.
    tell : callable
        Called in this process with the result of each job, in the order in which they end.
    run : callable
        Does a job, without opening its deadly tracks.
    attempt : callable
        Computes some tracks of a job, to see whether the process survives them. Returns
        something other than None.

    Raises
    ------
    OSError
        If a shard cannot be written, for instance on a full disk. Jobs that have not begun are
        cancelled.
    BackendError
        If no process can be started, if the executor was shut down, or if processes die whatever
        they do.
    """
    if executor is not None:
        _Runner(_Foreign(executor), workers, tell, run, attempt).run(jobs)
        return
    with _own_pool(workers) as pool:
        _Runner(pool, workers, tell, run, attempt).run(jobs)


class _Foreign:
    """The user's executor, which is never shut down here."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def renew(self) -> None:
        """Wait until work goes on after a process died.

        Dask replaces the process. A broken `ProcessPoolExecutor` never works again.
        """
        for _ in range(_TRIES):
            try:
                self.executor.submit(is_there).result()
                return
            except BrokenExecutor as error:
                raise BackendError(
                    "a process of the executor died, and the executor does not replace it: run the "
                    "survey again to go on. Without an executor, processes that die are replaced"
                ) from error
            except Exception as error:
                if not _is_death(error):
                    raise
        raise BackendError("the workers of the cluster die before they answer")


class _Pool:
    """A pool of processes on this machine that can be replaced."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.executor: Executor = self._start()

    def _start(self) -> Executor:
        # Not "fork": the threads of libraries do not survive it.
        context = multiprocessing.get_context("spawn")
        # Our end closes with this process, however it ends, and then the workers end too.
        theirs, self._alive = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(
            self._workers, context, initializer=begin, initargs=(theirs,)
        )
        self._theirs = theirs
        try:
            self._pool.submit(is_there).result()
        except BrokenExecutor as error:
            self.end()
            raise BackendError(
                "no worker process could be started. A script must call survey() inside of "
                "`if __name__ == '__main__':`"
            ) from error
        return self._pool

    def renew(self) -> None:
        """Replace the pool, of which a process died."""
        self.end()
        self.executor = self._start()

    def end(self) -> None:
        """End all processes, whatever they are doing."""
        self._alive.close()
        self._theirs.close()
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _own_pool(workers: int) -> Iterator[_Pool]:
    pool = _Pool(workers)
    try:
        yield pool
    finally:
        pool.end()


class _Runner:
    """Submits jobs, and goes on when a worker dies."""

    def __init__(
        self, pool: _Pool | _Foreign, workers: int, tell: Tell, work: Work, attempt: Work
    ) -> None:
        self._pool, self._tell = pool, tell
        self._work, self._try = work, attempt
        self._most = _IN_FLIGHT * workers

    def run(self, jobs: Iterable[Job]) -> None:
        waiting = iter(jobs)
        running: dict[Future[Any], Job] = {}
        suspects: list[Job] = []
        try:
            while True:
                while not suspects and len(running) < self._most:
                    job = next(waiting, None)
                    if job is None:
                        break
                    try:
                        running[self._pool.executor.submit(self._work, job)] = job
                    except BrokenExecutor:
                        suspects.append(job)
                    except RuntimeError as error:
                        # What concurrent.futures raises after `shutdown`.
                        raise BackendError(f"the executor takes no more work: {error}") from None
                if running:
                    ended, _ = wait_for(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        job = running.pop(future)
                        if not self._took(future):
                            suspects.append(job)
                elif suspects:
                    # Everything that was running has ended, with a result or without.
                    self._pool.renew()
                    while suspects:
                        self._run_alone(suspects.pop(0))
                else:
                    return
        finally:
            for future in running:
                future.cancel()

    def _took(self, future: Future[Any]) -> bool:
        """Pass on the result of a job; False if its worker died."""
        try:
            done = future.result()
        except Exception as error:
            if _is_death(error):
                return False
            raise
        self._tell(done)
        return True

    def _run_alone(self, job: Job) -> None:
        for _ in range(_TRIES):
            done = self._attempt(self._work, job)
            if done is not None:
                self._tell(done)
                return
            # If no single track ends the process, it died for another reason: try again.
            job = job._replace(deadly=job.deadly | self._deadly_of(job, job.tracks))
        raise BackendError(
            f"worker processes die whatever they do; the last ones with {len(job.tracks)} tracks "
            f"from {shown(job.tracks[0].name)} on. Is there too little memory for so many workers?"
        )

    def _deadly_of(self, job: Job, tracks: Sequence[Track]) -> frozenset[str]:
        """Which of these tracks end a process that computes nothing else."""
        tracks = [track for track in tracks if track.name not in job.deadly]
        if not tracks:
            return frozenset()
        if len(tracks) == 1:
            own = job._replace(tracks=tuple(tracks))
            # One death may be chance: a user ended the process, or the system ran out of memory.
            dies = self._attempt(self._try, own) is None and (
                self._attempt(self._try, own) is None
            )
            return frozenset([tracks[0].name]) if dies else frozenset()
        found: frozenset[str] = frozenset()
        middle = len(tracks) // 2
        for half in (tracks[:middle], tracks[middle:]):
            if len(half) == 1 or self._attempt(
                self._try, job._replace(tracks=tuple(half))
            ) is None:
                found |= self._deadly_of(job, half)
        return found

    def _attempt(self, function: Work, job: Job) -> Any:
        """The result of `function`, which is not None; None if its process dies."""
        try:
            return self._pool.executor.submit(function, job).result()
        except Exception as error:
            if not _is_death(error):
                raise
            self._pool.renew()
            return None


def _is_death(error: Exception) -> bool:
    # Dask's error is recognised by its name, because Dask need not be installed.
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"
