"""Compiling the kernels of the Numba back end so that Ctrl-C is not lost."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba

from .schedule import run_undisturbed

__all__ = ["kernel"]


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function compiled on first use, which releases the GIL.

    LLVM takes seconds for a kernel and then calls Python back. What the handler of a signal
    raises meanwhile would be raised in that call, where ctypes drops it; elsewhere it would
    leave Numba's tables half filled.
    """
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    # Numba calls this attribute for every new combination of types, and for what a kernel calls.
    compiled.compile = functools.partial(run_undisturbed, compiled.compile)
    return compiled
