"""Write PyTorch's adaptive pools so that its exporters to ONNX can handle them.

ONNX has no adaptive pools. If the size of the output does not divide that of the input, one
exporter refuses them and the other writes hundreds of sums. So while a module is exported, an
adaptive mean is written as a matrix product along each axis, and an adaptive maximum as maxima
over slices. `passes.pooling` recognises both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import layers as nn

__all__ = ["as_products", "mean_matrix"]


def mean_matrix(size: int, count: int) -> NDArray[np.float32]:
    """The matrix (size, count) that turns a row of values into the means of `count` windows."""
    matrix = np.zeros((size, count), np.float32)
    for column, (begin, end) in enumerate(nn.adaptive_windows(size, count)):
        matrix[begin:end, column] = 1 / (end - begin)
    return matrix


def as_products(torch: Any) -> Any:
    """A context in which adaptive pools are written in this way."""
    functional = torch.nn.functional
    pools = {
        functional.adaptive_avg_pool1d: (1, _means),
        functional.adaptive_avg_pool2d: (2, _means),
        functional.adaptive_max_pool1d: (1, _maxima),
        functional.adaptive_max_pool2d: (2, _maxima),
    }

    class Written(torch.overrides.TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            rank, write = pools.get(function, (0, None))
            if write is not None:
                made = _written(torch, rank, write, *args, **(kwargs or {}))
                if made is not None:
                    return made
            return function(*args, **(kwargs or {}))

    return Written()


def _written(
    torch: Any, rank: int, write: Any, x: Any, output_size: Any, return_indices: bool = False
) -> Any:
    """The pool as products or slices; None if it can be exported unchanged."""
    wanted = list(output_size) if isinstance(output_size, (tuple, list)) else [output_size] * rank
    sizes = list(x.shape[-rank:])
    pairs = [(n, n if m is None else m) for n, m in zip(sizes, wanted)]
    if return_indices or all(n % m == 0 for n, m in pairs):
        return None
    # Columns first, so that of equal maxima the first in row-major order wins.
    for axis, (n, m) in reversed(list(enumerate(pairs, start=-rank))):
        if n != m:
            x = write(torch, x, axis, n, m)
    return x


def _means(torch: Any, x: Any, axis: int, size: int, count: int) -> Any:
    matrix = torch.from_numpy(mean_matrix(size, count)).to(x.device, x.dtype)
    return torch.matmul(x, matrix) if axis == -1 else torch.matmul(matrix.T.contiguous(), x)


def _maxima(torch: Any, x: Any, axis: int, size: int, count: int) -> Any:
    return torch.cat([
        x.narrow(axis, begin, end - begin).amax(axis, keepdim=True)
        for begin, end in nn.adaptive_windows(size, count)
    ], axis)
