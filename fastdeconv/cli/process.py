"""How a command ends when a signal tells it to, and how it prints."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = ["EndedError", "ending_on_signals", "print_out"]

_ENDINGS = {
    number: said
    for name, said in (
        ("SIGINT", "Interrupted"), ("SIGTERM", "Ended by SIGTERM"), ("SIGHUP", "Ended by SIGHUP"),
    )
    if (number := getattr(signal, name, None)) is not None
}
_GRACE_SECONDS = 1.0
"""How long removing a half-written folder may take before the process ends all the same."""


class EndedError(KeyboardInterrupt):
    """A signal told this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number
        """The exit status, as shells report it."""
        self.said = f"{_ENDINGS[number]}; nothing half-written was left."


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Raise `EndedError` in the code that runs when Ctrl-C or another signal to end arrives.

    If that code is a callback from C, such as libsndfile's while it reads, Python only reports the
    exception and continues. Then it is raised again after the call. Other code may swallow the
    exception, such as a library that is being imported. So a second later the process ends,
    whatever it is doing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    timers: list[threading.Timer] = []

    def end(number: int, frame: Any) -> None:
        # Cleaning up, which follows, must not be interrupted.
        for other in _ENDINGS:
            signal.signal(other, signal.SIG_IGN)
        timer = threading.Timer(_GRACE_SECONDS, _leave, [EndedError(number)])
        timer.daemon = True
        timers.append(timer)
        with suppress(RuntimeError):  # where no thread can be started
            timer.start()
        raise EndedError(number)

    def report(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, EndedError):
            _raise_in(sys._getframe(1), unraisable.exc_value)
        else:
            report_before(unraisable)

    report_before, sys.unraisablehook = sys.unraisablehook, report
    # Signals that are ignored stay ignored: nohup and the background jobs of a shell ask for that.
    before = {
        number: signal.signal(number, end)
        for number in _ENDINGS if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = report_before
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_in(frame: FrameType, error: BaseException) -> None:
    """Raise `error` in a frame that waits for a call, as soon as the call is over."""

    def trace(frame: FrameType, event: str, argument: Any) -> None:
        sys.settrace(None)
        raise error

    frame.f_trace = trace
    # This traces none of the frames that follow, but without a trace function `frame` would not be
    # traced either.
    sys.settrace(lambda frame, event, argument: None)


def _leave(error: EndedError) -> None:
    # A half-written folder that this leaves is removed by the next run that writes beside it.
    with suppress(OSError):
        os.write(2, b"\n" + error.said.split(";")[0].encode() + b".\n")
    os._exit(error.status)


def print_out(text: str) -> None:
    """Print to standard output. Characters that its encoding lacks are escaped.

    Raises
    ------
    OSError
        If nothing can be printed there: it is closed or full, or nobody reads it.
    """
    if sys.stdout is None:
        raise OSError("standard output is closed")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()
    except OSError:
        # Writing what is still in the buffer would fail again when Python ends.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
