"""Shards on any executor; workers that die, and what goes on from there.

An executor of `concurrent.futures` is all that is asked for: processes of this machine, or Dask's
on others. When a process of a pool dies, the pool is lost and everything under way with it, and
nobody says which shard it was. So a new pool is made, and these shards run one at a time. One
that ends its process when it is alone is halved until the tracks are found that do it; their rows
say so, and the others are computed.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future
from concurrent.futures import wait as wait_for
from concurrent.futures.process import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from ..errors import BackendError
from .collection import Track
from .worker import begin, is_there, run_shard, try_tracks

__all__ = ["Progress", "run_jobs"]

#: Called with (tracks done, tracks in all) after each shard; tracks that were done before count.
Progress = Callable[[int, int], None]


class Job(Protocol):
    """Some tracks to work on, in any process that sees the files; a named tuple."""

    @property
    def tracks(self) -> tuple[Track, ...]:
        """In order."""

    @property
    def deadly(self) -> frozenset[str]:
        """Names of tracks that are not to be opened, because that ends the process."""

    def _replace(self, *args: Any, **changes: Any) -> Any:
        """The same job with something changed."""


Work = Callable[[Any], Any]
Tell = Callable[[Any], None]

_IN_FLIGHT = 2
"""Shards for each worker that are handed out: one at work and one to go on with."""
_TRIES = 3


def run_jobs(
    jobs: Iterable[Job], executor: Executor | None, workers: int, tell: Tell, *,
    run: Work = run_shard, attempt: Work = try_tracks,
) -> None:
    """Run all jobs; each is done, or an error.

    Parameters
    ----------
    jobs : iterable of Job
        Asked for one at a time. Those of surveys are `worker.Job`.
    executor : Executor or None
        None makes processes of our own.
    workers : int
        How many of them.
    tell : callable
        Called here with what `run` returns, in the order in which jobs are done.
    run : callable
        Does a job, and leaves out tracks that are deadly.
    attempt : callable
        Does the same with some tracks of a job, to see whether the process survives them.

    Raises
    ------
    OSError
        If a shard cannot be written: the disk is full. Shards under way are given up.
    BackendError
        If there are no workers, or they die whatever they do.
    """
    if executor is not None:
        _Runner(_Foreign(executor), workers, tell, run, attempt).run(jobs)
        return
    with _own_pool(workers) as pool:
        _Runner(pool, workers, tell, run, attempt).run(jobs)


class _Foreign:
    """An executor of the user's, which is left as it is."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def renew(self) -> None:
        """After a process died. Dask replaces it; a pool of processes never works again."""
        for _ in range(_TRIES):
            try:
                self.executor.submit(is_there).result()
                return
            except BrokenExecutor as error:
                raise BackendError(
                    "a process of the executor died, and it does not make a new one: run the "
                    "survey again to go on, without an executor to have processes replaced"
                ) from error
            except Exception as error:
                if not _is_death(error):
                    raise
        raise BackendError("the workers of the cluster die as soon as they are asked anything")


class _Pool:
    """Processes of our own, in a pool that can be made anew."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.executor: Executor = self._start()

    def _start(self) -> Executor:
        # Threads of libraries do not survive a fork.
        context = multiprocessing.get_context("spawn")
        # The other end stays here, and is closed with this process, however that ends.
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
                "no process could be started to work in. A script that begins a survey does so "
                "behind `if __name__ == '__main__':`"
            ) from error
        return self._pool

    def renew(self) -> None:
        """A new pool for one of which a process died."""
        self.end()
        self.executor = self._start()

    def end(self) -> None:
        """End all processes, whatever they do."""
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
    """Hands out jobs, and goes on when a worker dies."""

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
                    # All that was under way has ended, well or not.
                    self._pool.renew()
                    while suspects:
                        self._run_alone(suspects.pop(0))
                else:
                    return
        finally:
            for future in running:
                future.cancel()

    def _took(self, future: Future[Any]) -> bool:
        """Take the result; False where its worker died."""
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
            # Found one by one: without any that kill, the process died of something else.
            job = job._replace(deadly=job.deadly | self._deadly_of(job, job.tracks))
        raise BackendError(
            f"processes die whatever they do; last with {len(job.tracks)} tracks from "
            f"{job.tracks[0].name!r} on. Is there too little memory for so many workers?"
        )

    def _deadly_of(self, job: Job, tracks: Sequence[Track]) -> frozenset[str]:
        """Which of these tracks end the process that computes them alone."""
        tracks = [track for track in tracks if track.name not in job.deadly]
        if not tracks:
            return frozenset()
        if len(tracks) == 1:
            own = job._replace(tracks=tuple(tracks))
            # Once may be chance: somebody ended it, or the system ran out of memory.
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
        """What `function` returns, which is not None; None if its process dies."""
        try:
            return self._pool.executor.submit(function, job).result()
        except Exception as error:
            if not _is_death(error):
                raise
            self._pool.renew()
            return None


def _is_death(error: Exception) -> bool:
    # Dask's error is known by its name, because Dask need not be there.
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"
