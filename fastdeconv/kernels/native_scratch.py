"""Memory of lane tensors that nobody uses any more, kept for the next ones."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from .interface import FloatArray
from .lanes import aligned, aligned_empty

__all__ = ["SCRATCH"]

_KEPT, _KEPT_MEANWHILE = 1 << 26, 1 << 28
"""Bytes of lane tensors that are kept for the next one, for good and while jobs go on."""


class _Scratch:
    """Takes and gives lane tensors.

    New memory from the system costs page faults: 10 to 20 ms of the 90 that the 64 features of the
    deepest layer take.
    """

    def __init__(self) -> None:
        # No lock, as in schedule.py: an interrupted caller would not let go of it.
        self._free: deque[FloatArray] = deque()

    def take(self, shape: tuple[int, ...]) -> FloatArray:
        size = math.prod(shape)
        found: FloatArray | None = None
        for _ in range(len(self._free)):
            memory = self._take_any()
            if memory is None:
                break
            # The smallest that is large enough, but none of which most would not be used.
            if size <= memory.size <= 4 * size and (found is None or memory.size < found.size):
                memory, found = found, memory
            if memory is not None:
                self._free.append(memory)
        flat = aligned_empty((size,)) if found is None else found[:size]
        return flat.reshape(shape)

    def give(self, tensor: FloatArray) -> None:
        """Take a tensor that nobody uses any more."""
        memory = tensor.base
        assert isinstance(memory, np.ndarray)
        self._free.append(aligned(memory))
        self._keep(_KEPT_MEANWHILE)

    def end(self) -> None:
        """Told when no job follows for now."""
        self._keep(_KEPT)

    def _keep(self, most: int) -> None:
        """Free the tensors beyond `most` bytes."""
        while sum(a.nbytes for a in self._free.copy()) > most:
            self._take_any()

    def _take_any(self) -> FloatArray | None:
        try:
            return self._free.popleft()
        except IndexError:  # another thread has taken the last one
            return None


SCRATCH = _Scratch()
