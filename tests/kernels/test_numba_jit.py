"""Kernels of the Numba back end: where they are compiled."""

from __future__ import annotations

import _thread
import threading

import numpy as np
import pytest

numba = pytest.importorskip("numba")


@pytest.fixture
def kernel():
    """Adds 1 to an array; compiling it calls the function ``kernel.compiling``."""
    from fastdeconv.kernels import numba_jit

    def one():
        pass

    @numba.extending.overload(one)
    def _compile_one():
        add_one.compiling()
        return lambda: np.float32(1)

    @numba_jit.kernel
    def add_one(values):
        values += one()

    return add_one


def test_an_exception_while_a_kernel_is_compiled_reaches_the_caller(kernel):
    may_end = threading.Event()

    def compiling() -> None:
        _thread.interrupt_main()
        may_end.wait(20)  # the caller does not

    kernel.compiling = compiling
    values = np.zeros(3, np.float32)
    with pytest.raises(KeyboardInterrupt):
        kernel(values)
    assert not may_end.is_set()
    may_end.set()
    np.testing.assert_array_equal(values, 0)
    kernel(values)
    np.testing.assert_array_equal(values, 1)


def test_errors_of_compiling_reach_the_caller(kernel):
    kernel.compiling = lambda: None
    with pytest.raises(numba.TypingError):
        kernel("no array")
