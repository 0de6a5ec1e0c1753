"""Convolution, max pooling, and their adjoints, on plain arrays (``fastdeconv.ops``).

Arrays are float32 of shape (N, C, H, W); other real dtypes are converted.
Every function takes ``backend=`` and ``num_threads=``; see
`fastdeconv.config` for their defaults. ``padding`` is an int, a pair,
``"same"``, ``"valid"`` or ``((top, bottom), (left, right))``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import as_array
from ..errors import ParameterError, enough_memory, shown
from .dispatch import get_backend, get_num_threads
from .interface import (
    FloatArray,
    PaddingLike,
    Pair,
    Window,
    as_pair,
    conv_output_size,
    conv_window,
    pool_output_size,
    pool_window,
    switch_dtype,
)

__all__ = ["conv2d", "conv_transpose2d", "max_pool2d", "max_unpool2d"]


def __dir__() -> list[str]:
    """What a notebook offers on tab: no names that are only used in here."""
    return __all__


@enough_memory("an operation of this size")
def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: int | Pair = 1,
    padding: PaddingLike = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    backend: str | None = None,
    num_threads: int | None = None,
) -> FloatArray:
    """Cross-correlate `x` with `weight`, zeros outside.

    Equal input patches give equal bits wherever they lie.

    Parameters
    ----------
    x : array, shape (N, C, H, W)
    weight : array, shape (O, C / groups, kh, kw)
    bias : array, shape (O,), optional
    stride, dilation : int or pair
    padding : int, pair, "same", "valid" or ((top, bottom), (left, right))
    groups : int
        Channels and outputs are split into this many independent groups.
    backend, num_threads
        See `fastdeconv.config`.

    Returns
    -------
    array of float32, shape (N, O, H', W')

    Raises
    ------
    ParameterError
        If shapes or parameters do not fit together.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    >>> fd.ops.conv2d(x, np.ones((1, 1, 2, 2)))[0, 0]
    array([[ 8., 12.],
           [20., 24.]], dtype=float32)
    """
    x, weight = _floats(x, "x", 4), _floats(weight, "weight", 4)
    groups = _check_groups(weight, groups)
    if x.shape[1] != weight.shape[1] * groups:
        raise ParameterError(
            f"x has {x.shape[1]} channels, but weight {weight.shape} with groups={groups} "
            f"wants {weight.shape[1] * groups}"
        )
    window = conv_window(
        weight.shape[2:], x.shape[2:], stride=stride, padding=padding, dilation=dilation
    )
    out_size = conv_output_size(x.shape[2:], window)
    return get_backend(backend).conv2d(
        x, weight, _bias(bias, weight.shape[0]), window, groups, out_size,
        get_num_threads(num_threads),
    )


@enough_memory("an operation of this size")
def max_pool2d(
    x: ArrayLike,
    kernel_size: int | Pair,
    *,
    stride: int | Pair | None = None,
    padding: PaddingLike = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
    backend: str | None = None,
    num_threads: int | None = None,
) -> tuple[FloatArray, NDArray[Any]]:
    """Maximum over sliding windows, and where in its window each one was.

    The first maximum in row-major order wins, the first NaN before it. Padding
    is minus infinity and never wins.

    Parameters
    ----------
    x : array, shape (N, C, H, W)
    kernel_size, dilation : int or pair
    stride : int or pair, optional
        Default: the kernel size.
    padding : int, pair, "same", "valid" or ((top, bottom), (left, right))
        No window may lie wholly in the padding.
    ceil_mode : bool
        Keep a last, partial window (PyTorch's rule).
    backend, num_threads
        See `fastdeconv.config`.

    Returns
    -------
    values : array of float32, shape (N, C, H', W')
    switches : array of uint8, uint16 or uint32, shape (N, C, H', W')
        Row-major index inside the padded window; the smallest type that counts it.

    Raises
    ------
    ParameterError
        If shapes or parameters do not fit together.

    Examples
    --------
    >>> import fastdeconv as fd
    >>> values, switches = fd.ops.max_pool2d([[[[1.0, 5.0], [7.0, 2.0]]]], 2)
    >>> float(values[0, 0, 0, 0]), int(switches[0, 0, 0, 0])
    (7.0, 2)
    """
    x = _floats(x, "x", 4)
    window = pool_window(
        kernel_size, x.shape[2:], stride=stride, padding=padding, dilation=dilation
    )
    if not isinstance(ceil_mode, (bool, np.bool_)):
        raise ParameterError(f"ceil_mode must be true or false, found {shown(ceil_mode)}")
    out_size = pool_output_size(x.shape[2:], window, ceil_mode=bool(ceil_mode))
    return get_backend(backend).max_pool2d(x, window, out_size, get_num_threads(num_threads))


@enough_memory("an operation of this size")
def max_unpool2d(
    values: ArrayLike,
    switches: ArrayLike,
    output_size: Pair,
    kernel_size: int | Pair,
    *,
    stride: int | Pair | None = None,
    padding: PaddingLike = 0,
    dilation: int | Pair = 1,
    backend: str | None = None,
    num_threads: int | None = None,
) -> FloatArray:
    """Adjoint of `max_pool2d`: put every value at its switch, zeros elsewhere.

    Where windows overlap, values add, in the windows' row-major order.

    Parameters
    ----------
    values : array, shape (N, C, H', W')
    switches : array of unsigned int, shape (N, C, H', W')
        As returned by `max_pool2d`.
    output_size : pair
        (H, W) of the pool's input; one for which the pool gives (H', W').
    kernel_size, stride, padding, dilation
        As in `max_pool2d`.
    backend, num_threads
        See `fastdeconv.config`.

    Returns
    -------
    array of float32, shape (N, C, H, W)

    Raises
    ------
    ParameterError
        If shapes do not fit, or a switch points outside its window or the input.

    Examples
    --------
    >>> import fastdeconv as fd
    >>> values, switches = fd.ops.max_pool2d([[[[1.0, 5.0], [7.0, 2.0]]]], 2)
    >>> fd.ops.max_unpool2d(values, switches, (2, 2), 2)[0, 0]
    array([[0., 0.],
           [7., 0.]], dtype=float32)
    """
    values = _floats(values, "values", 4)
    switches = as_array(switches, "switches")
    if switches.shape != values.shape or switches.dtype.kind not in "iu":
        raise ParameterError(
            f"switches must be integers of shape {values.shape}, "
            f"found {switches.dtype} of shape {switches.shape}"
        )
    out_size = as_pair(output_size, "output_size", minimum=1)
    window = pool_window(
        kernel_size, out_size, stride=stride, padding=padding, dilation=dilation
    )
    fits = _pool_output_sizes(out_size, window)
    if values.shape[2:] not in fits:
        raise ParameterError(
            f"a pool of an input of {out_size} gives {' or '.join(map(str, sorted(fits)))}, "
            f"but values are {values.shape[2:]}"
        )
    _check_switches(switches, window, out_size)
    switches = np.ascontiguousarray(switches, dtype=switch_dtype(window.kernel))
    return get_backend(backend).max_unpool2d(
        values, switches, window, out_size, get_num_threads(num_threads)
    )


@enough_memory("an operation of this size")
def conv_transpose2d(
    x: ArrayLike,
    weight: ArrayLike,
    output_size: Pair,
    bias: ArrayLike | None = None,
    *,
    stride: int | Pair = 1,
    padding: PaddingLike = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    backend: str | None = None,
    num_threads: int | None = None,
) -> FloatArray:
    """Adjoint of `conv2d` with the same weight, stride, padding, dilation and groups.

    Parameters
    ----------
    x : array, shape (N, O, H', W')
    weight : array, shape (O, C / groups, kh, kw)
        As for `conv2d`.
    output_size : pair
        (H, W) of the convolution's input; one for which it gives (H', W').
    bias : array, shape (C,), optional
        Added to the result.
    stride, padding, dilation, groups
        As in `conv2d`.
    backend, num_threads
        See `fastdeconv.config`.

    Returns
    -------
    array of float32, shape (N, C, H, W)

    Raises
    ------
    ParameterError
        If shapes or parameters do not fit together.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> fd.ops.conv_transpose2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), (3, 3))[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]], dtype=float32)
    """
    x, weight = _floats(x, "x", 4), _floats(weight, "weight", 4)
    groups = _check_groups(weight, groups)
    if x.shape[1] != weight.shape[0]:
        raise ParameterError(
            f"x has {x.shape[1]} channels, but weight {weight.shape} wants {weight.shape[0]}"
        )
    out_size = as_pair(output_size, "output_size", minimum=1)
    window = conv_window(
        weight.shape[2:], out_size, stride=stride, padding=padding, dilation=dilation
    )
    forward = conv_output_size(out_size, window)
    if forward != x.shape[2:]:
        raise ParameterError(
            f"a convolution of an input of {out_size} gives {forward}, but x is {x.shape[2:]}"
        )
    return get_backend(backend).conv_transpose2d(
        x, weight, _bias(bias, weight.shape[1] * groups), window, groups, out_size,
        get_num_threads(num_threads),
    )


def _floats(value: ArrayLike, name: str, ndim: int) -> FloatArray:
    array = as_array(value, name)
    if array.dtype.kind not in "fiub":
        raise ParameterError(f"{name} must be real numbers, found dtype {array.dtype}")
    if array.ndim != ndim or (0 in array.shape[1:]):
        raise ParameterError(
            f"{name} must have {ndim} axes, none of them empty, found shape {array.shape}"
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def _bias(bias: ArrayLike | None, size: int) -> FloatArray | None:
    if bias is None:
        return None
    array = as_array(bias, "bias")
    if array.shape != (size,) or array.dtype.kind not in "fiub":
        raise ParameterError(
            f"bias must be {size} real numbers, found {array.dtype} of shape {array.shape}"
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def _check_groups(weight: FloatArray, groups: int) -> int:
    if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ParameterError(f"groups must be a positive int, found {shown(groups)}")
    if weight.shape[0] % groups:
        raise ParameterError(f"groups={groups} does not divide the {weight.shape[0]} outputs")
    return int(groups)


def _pool_output_sizes(in_size: Pair, window: Window) -> set[Pair]:
    """What the pool gives, floor or ceil; one of the two alone may be refused."""
    sizes, refusal = set(), None
    for ceil_mode in (False, True):
        try:
            sizes.add(pool_output_size(in_size, window, ceil_mode=ceil_mode))
        except ParameterError as error:
            refusal = error
    if not sizes and refusal is not None:
        raise refusal
    return sizes


def _check_switches(switches: NDArray[Any], window: Window, out_size: Pair) -> None:
    """Refuse switches that a pool of this geometry cannot have recorded."""
    if switches.size == 0:
        return
    if switches.min() < 0 or switches.max() >= window.kernel[0] * window.kernel[1]:
        raise ParameterError(
            f"switches must lie in 0..{window.kernel[0] * window.kernel[1] - 1}, "
            f"found {switches.min()}..{switches.max()}"
        )
    rows, cols = np.divmod(switches.astype(np.int64), window.kernel[1])
    for axis, offset in ((2, rows), (3, cols)):
        n, a = switches.shape[axis], axis - 2
        start = np.arange(n) * window.stride[a] - window.padding[a][0]
        place = offset * window.dilation[a] + np.expand_dims(start, 0 if axis == 3 else 1)
        if place.min() < 0 or place.max() >= out_size[a]:
            raise ParameterError("a switch points into the padding, outside the pool's input")
