"""The errors fastdeconv raises on purpose.

Every one is a `FastdeconvError`; the three that report bad input are also
`ValueError`, so code that does not know this package still catches them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "ArchiveError",
    "AudioError",
    "BackendError",
    "FastdeconvError",
    "ParameterError",
    "enough_memory",
]


class FastdeconvError(Exception):
    """Base of all errors of this package."""


class ParameterError(FastdeconvError, ValueError):
    """An argument is outside what the function accepts."""


class ArchiveError(FastdeconvError, ValueError):
    """A weight archive is damaged, unsafe, or does not fit its network."""


class AudioError(FastdeconvError, ValueError):
    """A sound file or signal cannot be used."""


class BackendError(FastdeconvError, RuntimeError):
    """A requested back end or instruction set is not available here."""


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Turn a MemoryError inside into a ParameterError; also a decorator."""
    try:
        yield
    except MemoryError:
        raise ParameterError(f"not enough memory for {what}") from None
