"""Arrays that come in blocks and are read row by row later; meanwhile they are kept on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blocks"]

FloatArray = NDArray[np.float32]


class Blocks:
    """Blocks (K, ...) of float32 in a file, which is removed at the end of a ``with`` block.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("x+b")
        self._known: list[tuple[int, tuple[int, ...]]] = []

    def __enter__(self) -> Blocks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def append(self, block: FloatArray) -> None:
        """Add a block."""
        self._known.append((self._file.tell(), block.shape))
        self._file.write(np.ascontiguousarray(block, np.float32).data)

    def row(self, number: int) -> Iterator[FloatArray]:
        """Row `number` of every block, one after another."""
        for begin, (_, *shape) in self._known:
            count = int(np.prod(shape, dtype=np.int64))
            self._file.seek(begin + 4 * count * number)
            data = self._file.read(4 * count)
            yield np.frombuffer(data, np.float32).reshape(shape)
