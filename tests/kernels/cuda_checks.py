"""What can be known of the CUDA kernels without a GPU; run by test_cuda.py in processes of its own.

``simulate``  runs them in Numba's simulator, which is chosen when numba is imported
``compile``   compiles them to PTX; needs the CUDA compiler of the extra ``cuda``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np


def simulate() -> None:
    """The operations and a way down a network, against the reference."""
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    import fastdeconv as fd
    from fastdeconv.kernels import numba_cuda, numba_cuda_kernels

    assert "cuda" in fd.available_backends()
    # A thread of the simulator is one of Python's: no more of them than have work.
    numba_cuda._LEAST_BLOCKS, numba_cuda_kernels.THREADS = 1, 32
    found, wanted = (dict(_results(fd, backend)) for backend in ("cuda", "reference"))
    assert found.keys() == wanted.keys()
    for what, want in wanted.items():
        if want.dtype.kind == "u":
            np.testing.assert_array_equal(found[what], want, what)
        else:
            np.testing.assert_allclose(
                found[what], want, rtol=0, atol=2e-6 * np.abs(want).max(), err_msg=what
            )


def _results(fd: Any, backend: str) -> Iterator[tuple[str, np.ndarray]]:
    rng, ops = np.random.default_rng(0), fd.ops
    x, weight = rng.normal(size=(1, 4, 6, 5)), rng.normal(size=(4, 2, 3, 2))
    for name, geometry in (
        ("plain", {}), ("strided", {"stride": (2, 1), "dilation": (1, 2), "padding": "same"}),
    ):
        y = ops.conv2d(x, weight, rng.normal(size=4), groups=2, backend=backend, **geometry)
        yield f"conv2d {name}", y
        yield f"conv_transpose2d {name}", ops.conv_transpose2d(
            y, weight, output_size=x.shape[2:], groups=2, backend=backend, **geometry
        )
    pool: dict[str, Any] = {
        "stride": (2, 1), "padding": 1, "dilation": (1, 2), "backend": backend,
    }
    values, switches = ops.max_pool2d(x, (3, 2), **pool)
    yield "max_pool2d", values
    yield "switches", switches
    yield "max_unpool2d", ops.max_unpool2d(values, switches, x.shape[2:], (3, 2), **pool)

    net = _network(fd, rng, (9, 8, 3), {"kernel_size": (2, 1)}, groups=1)
    with fd.config(backend=backend):
        trace = net.forward(rng.normal(size=(1, 9, 3)))
        yield "activation", trace["pool3"]
        yield "guided", fd.deconvolve(trace, "pool3", rule="guided")
        yield "deconvnet", fd.deconvolve(trace, "pool2", [7, 0])
        yield "lowest layer", fd.deconvolve(trace, "pool1", [5, 2, 3])
    gaps = {"kernel_size": (2, 1), "stride": (3, 1), "dilation": (2, 1)}
    net = _network(fd, rng, (4, 16, 16, 2), gaps, groups=2)
    with fd.config(backend=backend):
        trace = net.forward(rng.normal(size=(1, 81, 1)))
        yield "groups", fd.deconvolve(trace, "pool4")


def _network(
    fd: Any, rng: np.random.Generator, channels: tuple[int, ...], pool: dict[str, Any], groups: int
) -> Any:
    """Convolution, batch norm, ReLU and pool for each number of channels."""
    layers, arrays, below = [], {}, 1
    for i, above in enumerate(channels, 1):
        inner = below // groups if i > 1 else below
        layers += [
            {"type": "conv2d", "name": f"conv{i}", "padding": "same", "groups": below // inner},
            {"type": "affine", "name": f"norm{i}"},
            {"type": "relu", "name": f"relu{i}"},
            {"type": "max_pool2d", "name": f"pool{i}", **pool},
        ]
        arrays[f"conv{i}.weight"] = rng.normal(size=(above, inner, 3, 2)).astype(np.float32)
        for name in (f"conv{i}.bias", f"norm{i}.weight", f"norm{i}.bias"):
            arrays[name] = rng.normal(size=above).astype(np.float32)
        below = above
    return fd.Network(layers, arrays, input_shape=(1, None, None))


def compile_all() -> None:
    """Every kernel, for a card of compute capability 9."""
    from numba import types
    from numba.cuda import compile_ptx, dispatcher

    from fastdeconv.kernels import numba_cuda_kernels as kernels

    class Card:
        compute_capability = (9, 0)

    # Functions that kernels call are compiled for "the current device".
    dispatcher.get_current_device = Card
    floats, ints, switches = (
        types.Array(of, 1, "C") for of in (types.float32, types.int32, types.uint8)
    )
    number, lows = types.int64, types.UniTuple(types.float32, 2)
    two, four, window, pool = (types.UniTuple(number, n) for n in (2, 4, 8, 10))
    step = (
        floats, ints, ints, pool, two, floats, two, window, floats, lows, floats, four
    )
    for kernel, arguments in (
        (kernels.conv2d(4), (floats, four, floats, number, window, floats, types.float32, floats,
                             four)),
        (kernels.conv_transpose2d, (floats, four, floats, number, window, floats, floats, four)),
        (kernels.max_pool2d, (floats, four, window, floats, switches, four)),
        (kernels.max_unpool2d, (floats, switches, four, window, floats, four)),
        (kernels.from_planes, (floats, number, floats, four)),
        (kernels.to_planes, (floats, four, floats, four)),
        (kernels.list_channels, (ints, number, number, ints, ints)),
        (kernels.first, (floats, two, floats, window, floats, lows, floats, four)),
        (kernels.step(16, 16)[0], step),
        (kernels.step(64, 64)[0], step),
        (kernels.step_few(64), step),
    ):
        text, _ = compile_ptx(kernel.py_func, arguments, cc=Card.compute_capability)
        # Sums that are not in registers would be in "local" memory, and many times slower.
        assert ".local" not in text


if __name__ == "__main__":
    {"simulate": simulate, "compile": compile_all}[sys.argv[1]]()
