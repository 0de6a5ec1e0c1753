"""The workers of a Dask cluster as an executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from ..errors import BackendError, shown
from ..optional import optional_module

__all__ = ["cluster"]


class _Cluster(Executor):
    """What `distributed.Client.get_executor` gives, for workers that die.

    That one asks for the state of a task once more after it has the result. When the worker that
    held the result died in between, it takes the result for an error.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on a worker."""
        ours: Future[Any] = Future()
        ours.set_running_or_notify_cancel()

        def hand_on(theirs: Any) -> None:
            try:
                ours.set_result(theirs.result())
            except BaseException as error:
                ours.set_exception(error)

        # Not pure: the same job may be asked for again, when its worker died.
        self._client.submit(function, *args, pure=False, **kwargs).add_done_callback(hand_on)
        return ours


@contextmanager
def cluster(scheduler: str) -> Iterator[tuple[Executor, int]]:
    """The executor of the cluster with this scheduler, and how many threads its workers have.

    Raises
    ------
    BackendError
        If it does not answer, or has no workers.
    ParameterError
        Without the extra ``fastdeconv[dask]``.
    """
    distributed = optional_module("distributed", "--scheduler", "dask")
    try:
        connect: Any = distributed.Client  # has no types
        client = connect(scheduler, set_as_default=False)
    except (OSError, ValueError) as error:
        raise BackendError(f"the scheduler {shown(scheduler)} does not answer: {error}") from None
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise BackendError(f"the cluster of {shown(scheduler)} has no workers")
        yield _Cluster(client), threads
