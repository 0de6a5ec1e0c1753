"""The errors fastdeconv raises on purpose.

Every one is a `FastdeconvError`; the three that report bad input are also
`ValueError`, so code that does not know this package still catches them.
"""

from __future__ import annotations

import reprlib
from contextlib import ContextDecorator
from typing import Any

__all__ = [
    "ArchiveError",
    "AudioError",
    "BackendError",
    "FastdeconvError",
    "ParameterError",
    "enough_memory",
    "printable",
    "reason_of",
    "shortened",
    "shown",
]

_LONGEST_MESSAGE = 1000
_KEPT_AT_THE_END = 300
_LONGEST_VALUE = 120


class FastdeconvError(Exception):
    """Base of all errors of this package.

    A message that quotes something very long from outside, such as the names of two thousand
    layers, loses its middle.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(message))


class ParameterError(FastdeconvError, ValueError):
    """An argument is outside what the function accepts."""


class ArchiveError(FastdeconvError, ValueError):
    """A weight archive is damaged, unsafe, or does not fit its network."""


class AudioError(FastdeconvError, ValueError):
    """A sound file or signal cannot be used."""


class BackendError(FastdeconvError, RuntimeError):
    """A requested back end or instruction set is not available here."""


class enough_memory(ContextDecorator):  # noqa: N801, as it is used like a function
    """Turn a MemoryError inside into a ParameterError; also a decorator.

    Not made by `contextlib.contextmanager`, which takes 12 us after a forward pass.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, MemoryError):
            raise ParameterError(f"not enough memory for {self._what}") from None


def printable(text: str) -> str:
    """`text` on one line, control characters and terminal codes as Python escapes.

    The only way in which a name from outside reaches a terminal, a page or a sentence.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def reason_of(error: Exception) -> str:
    """What went wrong, on one line and without the number an OSError begins with."""
    if isinstance(error, MemoryError):
        text = "not enough memory"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = " ".join(str(error).split())
    return shortened(printable(text))


def shortened(text: str) -> str:
    """`text` if it has no more than a thousand characters, else its two ends."""
    if len(text) <= _LONGEST_MESSAGE:
        return text
    middle = f" ... ({len(text)} characters in all) ... "
    begin = _LONGEST_MESSAGE - _KEPT_AT_THE_END - len(middle)
    return text[:begin] + middle + text[-_KEPT_AT_THE_END:]


def shown(value: Any) -> str:
    """`value` as an error message shows it: on one line, escaped and of bounded length."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = _LONGEST_VALUE
    try:
        return short.repr(value).replace("\n", " ")
    except ValueError:  # an int of more digits than Python prints
        return f"a {type(value).__name__} too long to print"
