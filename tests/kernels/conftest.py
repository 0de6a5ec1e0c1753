"""What tests of calls on several threads share."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable

import pytest

from fastdeconv.kernels import schedule


class Interrupt(BaseException):
    """What the handler of a signal raises."""


class InterruptAt:
    """A trace function: raises before this bytecode of the calling thread in schedule.py."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame, event, arg):
        if frame.f_code.co_filename != schedule.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left < 0:
                raise Interrupt
        return self


@contextlib.contextmanager
def traced(function):
    before = sys.gettrace()
    sys.settrace(function)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.fixture
def interrupt_everywhere(monkeypatch):
    """Make a call again and again, each time with an exception at another place of it.

    After every call `check` is told whether it was one of them.
    """

    def interrupt(call: Callable[[], None], check: Callable[[bool], None]) -> None:
        helpers = schedule._Helpers()
        monkeypatch.setattr(schedule, "_helpers", helpers)
        for number in itertools.count():
            interrupt = InterruptAt(number)
            with contextlib.suppress(Interrupt), traced(interrupt):
                call()
            check(interrupt.left < 0)
            call()
            check(False)
            if interrupt.left >= 0:
                break
        assert number > 50
        give_up = time.monotonic() + 20
        while helpers._waiting < helpers._count:
            assert time.monotonic() < give_up, "a helper does not come back"
            time.sleep(1e-3)

    return interrupt
