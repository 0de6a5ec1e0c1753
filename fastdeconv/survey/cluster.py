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
    """An executor like that of `distributed.Client.get_executor`, but safe when workers die.

    Dask's own executor asks for the state of a task once more after it has received the result.
    If the worker that held the result has died in between, it reports an error.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on a worker."""
        ours: Future[Any] = Future()
        ours.set_running_or_notify_cancel()

        def copy_result(theirs: Any) -> None:
            try:
                ours.set_result(theirs.result())
            except BaseException as error:
                ours.set_exception(error)

        # Not pure: after the death of a worker the same job is submitted again and must run again.
        self._client.submit(function, *args, pure=False, **kwargs).add_done_callback(copy_result)
        return ours


@contextmanager
def cluster(scheduler: str) -> Iterator[tuple[Executor, int]]:
    """An executor on the Dask cluster with this scheduler, and the number of its threads.

    Parameters
    ----------
    scheduler : str
        Its address, such as ``"tcp://10.0.0.1:8786"``.

    Raises
    ------
    BackendError
        If the scheduler does not answer, or the cluster has no workers.
    ParameterError
        If the extra ``fastdeconv[dask]`` is not installed.
    """
    distributed = optional_module("distributed", "--scheduler", "dask")
    try:
        connect: Any = distributed.Client  # its package has no type annotations
        client = connect(scheduler, set_as_default=False)
    except (OSError, ValueError) as error:
        raise BackendError(f"the scheduler {shown(scheduler)} does not answer: {error}") from None
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise BackendError(f"the cluster of {shown(scheduler)} has no workers")
        yield _Cluster(client), threads
