"""The forward pass, with what the way back needs: activations and switches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import as_array
from ..audio._checks import as_choice
from ..errors import ParameterError, enough_memory
from ..kernels.blocks import BlockBackend, Epilogue, ForwardBlock
from ..kernels.dispatch import get_backend, get_num_threads
from ..kernels.interface import Backend, Padding
from ..kernels.lanes import cached
from ..network import layers as nn
from ..network.network import Network
from .graph import parts_of
from .joins import forward_join
from .layerwise import Arithmetic, affine_of, forward_layer
from .overflow import bounds_forward, check_overflow, is_safe, without_warnings
from .plan import Block, forward_plan, layer_cache

__all__ = ["GraphTrace", "Trace", "as_input", "forward"]

ALGORITHMS = ("auto", "direct", "winograd")

_NO_PADDING: Padding = ((0, 0), (0, 0))


class Trace:
    """A clip's way through a network; made by `Network.forward`.

    ``trace["pool3"]`` is the output of that layer. Only the outputs of fused blocks
    (convolution to pool) are kept; other layers are computed when asked for, directly
    whatever the algorithm: what a block by Winograd's algorithm has pooled may differ
    from them by rounding, by "auto" never in which value is largest or positive.

    Attributes
    ----------
    network : Network
    x : array of float32, shape (C, H, W)
        The input, read-only.
    """

    def __init__(
        self, network: Network, x: NDArray[Any], runner: _Runner,
        bounds: Sequence[float] | None = None,
    ) -> None:
        self.network = network
        self.x = x
        self._runner = runner
        self._kept: dict[int, Any] = {-1: x}
        self._switches: dict[int, NDArray[Any]] = {}
        self._planes: dict[int, NDArray[Any]] = {}
        self._derived: dict[Any, dict[Any, Any]] = {}
        self._bounds = bounds or bounds_forward(network, float(np.abs(x).max()))
        self._blocks = forward_plan(network)
        with without_warnings():
            results = list(runner.run(self._blocks, x))
        for block, (value, switches) in zip(self._blocks, results):
            for index in range(block.end, block.last + 1):
                self._kept[index] = value
            if switches is not None:
                # A pool that follows no convolution is a block of its own.
                self._switches[block.last if block.pool is None else block.pool] = switches
        if not is_safe(self._bounds[-1]):
            for block in self._blocks:
                self.activation(block.end)

    def __getitem__(self, layer: str) -> NDArray[np.float32]:
        """Activation of a named layer.

        Returns
        -------
        array of float32, shape (C, H, W), read-only
            Of a flat layer (C, 1, 1).

        Raises
        ------
        ParameterError
            If there is no such layer.
        """
        return _read_only(self.activation(self.network.layer_index(layer)), np.float32)

    def switches(self, layer: str) -> NDArray[Any]:
        """Where each maximum of a max-pooling layer was in its window.

        Among equal values, zeros too, the first in row-major order counts. The back end
        compares the values that it computed. The reference back end computes in float64: two
        values that differ there can be the same float32 number in ``trace[...]``, and the
        switch may point to the second of them.

        Returns
        -------
        array of uint8, uint16 or uint32, shape (C, H, W), read-only
            Row-major index inside the padded window.

        Raises
        ------
        ParameterError
            If there is no such layer or it is no max pool.
        """
        index = self.network.layer_index(layer)
        if not isinstance(self.network.layers[index], nn.MaxPool2d):
            raise ParameterError(
                f"{layer!r} has no switches; max-pooling layers: "
                f"{', '.join(self.network.pooling_layers) or 'none'}"
            )
        planes = self.switch_planes(index)
        return _read_only(planes, planes.dtype)

    def __repr__(self) -> str:
        return f"Trace(network={self.network.name!r}, x={self.x.shape})"

    # ---- for the way back: layers by index, -1 is the input ----

    def activation(self, index: int) -> NDArray[Any]:
        """Output of layer `index` as planes; float64 if the reference back end made it."""
        planes = self._planes.get(index)
        if planes is None:
            kept = self._kept.get(index)
            if kept is None:
                kept = self._recompute(index)
            planes = self._runner.planes(kept)
            if not is_safe(self.bound(index)):
                check_overflow([planes], f"the output of {self.network.layers[index].label}")
            self._planes[index] = planes
        return planes

    def bound(self, index: int) -> float:
        """No absolute value at the output of layer `index`, or below it, is larger."""
        return self._bounds[index]

    def switch_cells(self, index: int) -> NDArray[Any]:
        """Switches of max pool `index`, channels last (H, W, Cs), Cs >= C."""
        return self._switches[index]

    def switch_planes(self, index: int) -> NDArray[Any]:
        """Switches of max pool `index` as planes (C, H, W)."""
        channels = self.activation(index).shape[0]
        return cached(
            self.derived("switch planes"), index,
            lambda: np.ascontiguousarray(
                self._switches[index][:, :, :channels].transpose(2, 0, 1)
            ),
        )

    def derived(self, key: Any) -> dict[Any, Any]:
        """Where to keep what the way back derives from this trace, for the next time."""
        return self._derived.setdefault(key, {})

    def _recompute(self, index: int) -> Any:
        block = next(b for b in self._blocks if b.first <= index <= b.last)
        with without_warnings():
            ((value, _),) = self._runner.run([block.cut(index)], self._kept[block.first - 1])
        return value


class GraphTrace(Trace):
    """A clip's way through a network with branches: one trace a chain, and what joins put out."""

    def __init__(self, network: Network, x: NDArray[np.float32], make: _MakeRunner) -> None:
        self.network = network
        self.x = x
        self._derived = {}
        self._bounds = bounds_forward(network, float(np.abs(x).max()))
        self._joined: dict[int, NDArray[Any]] = {}
        self._chains: dict[int, tuple[Trace, int]] = {}
        for part in parts_of(network):
            inputs = [self.activation(source) for source in part.sources]
            if part.chain is None:
                self._join(part.places[0], inputs)
                continue
            bounds = [self._bounds[place] for place in part.places]
            chain = Trace(part.chain, inputs[0], make(part.chain), bounds)
            for local, place in enumerate(part.places):
                self._chains[place] = chain, local

    def _join(self, index: int, inputs: Sequence[NDArray[Any]]) -> None:
        layer = self.network.layers[index]
        with without_warnings():
            joined = forward_join(layer, inputs)
        if not is_safe(self.bound(index)):
            check_overflow([joined], f"the output of {layer.label}")
        self._joined[index] = joined

    def activation(self, index: int) -> NDArray[Any]:
        if index < 0:
            return self.x
        if index in self._joined:
            return self._joined[index]
        chain, local = self._chains[index]
        return chain.activation(local)

    def switch_cells(self, index: int) -> NDArray[Any]:
        chain, local = self._chains[index]
        return chain.switch_cells(local)

    def switch_planes(self, index: int) -> NDArray[Any]:
        chain, local = self._chains[index]
        return chain.switch_planes(local)


@enough_memory("the activations of this input: take a shorter clip")
def forward(net: Network, x: ArrayLike, algorithm: str) -> Trace:
    """Run `net` on one input; see `Network.forward`."""
    as_choice("algorithm", algorithm, ALGORITHMS)
    array = as_input(x, "x")
    net.shapes(array.shape)
    backend: Any = get_backend()
    threads = get_num_threads()

    def make_runner(chain: Network) -> _Runner:
        if hasattr(backend, "forward_blocks"):
            return _FusedRunner(chain, backend, threads, algorithm)
        return _Runner(chain, backend, threads)

    if net.is_chain:
        return Trace(net, array, make_runner(net))
    return GraphTrace(net, array, make_runner)


def as_input(value: ArrayLike, name: str) -> NDArray[np.float32]:
    """A network input as float32, (C, H, W), in a copy that nobody else can change.

    Raises
    ------
    ParameterError
        If it is not finite real numbers of three axes; begins with `name`.
    """
    array = as_array(value, name)
    if array.dtype.kind not in "fiub" or array.ndim != 3:
        raise ParameterError(
            f"{name} must be real numbers of shape (C, H, W), found {array.dtype} of shape "
            f"{array.shape}"
        )
    with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
        copy = _read_only(array, np.float32)
    if not np.isfinite(copy).all():
        raise ParameterError(f"{name} has NaN or infinite values (as float32)")
    return copy


def _read_only(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """A contiguous copy that nobody else can change."""
    copy = np.array(array, dtype=dtype, order="C")
    copy.flags.writeable = False
    return copy


_Result = tuple[Any, "NDArray[Any] | None"]
_MakeRunner = Callable[[Network], "_Runner"]


class _Runner:
    """Runs blocks layer by layer; values are planes."""

    def __init__(self, net: Network, backend: Backend, num_threads: int) -> None:
        self.net, self.num_threads = net, num_threads
        self.arithmetic = Arithmetic(backend, num_threads)

    def run(self, blocks: Sequence[Block], value: Any) -> Iterator[_Result]:
        """(value, switches (H, W, C)) after every block, each run on what the last one gave."""
        planes = self.planes(value)
        for block in blocks:
            switches = None
            for index in range(block.first, block.last + 1):
                planes, found = forward_layer(self.net, index, planes, self.arithmetic)
                if found is not None:
                    switches = np.ascontiguousarray(found.transpose(1, 2, 0))
            yield planes, switches

    def planes(self, value: Any) -> NDArray[Any]:
        """A kept value as planes (C, H, W)."""
        return np.asarray(value, self.arithmetic.dtype)


class _FusedRunner(_Runner):
    """Runs convolutions' blocks as a kernel each; values are of the back end's own or planes."""

    def __init__(
        self, net: Network, backend: BlockBackend, num_threads: int, algorithm: str
    ) -> None:
        super().__init__(net, backend, num_threads)
        self.backend, self.algorithm = backend, algorithm

    def run(self, blocks: Sequence[Block], value: Any) -> Iterator[_Result]:
        def fuses(block: Block) -> bool:
            return isinstance(self.net.layers[block.first], nn.Conv2d)

        for fused, some in itertools.groupby(blocks, fuses):
            run = self._run_fused if fused else super().run
            for result in run(list(some), value):
                yield result
                value = result[0]

    def _run_fused(self, blocks: Sequence[Block], value: Any) -> list[_Result]:
        prepared, shape = [], value.shape
        for block, following in zip(blocks, [*blocks[1:], None]):
            prepared.append(self._prepare(block, shape, following))
            shape = prepared[-1].shape
        return self.backend.forward_blocks(value, prepared, self.algorithm, self.num_threads)

    def _prepare(self, block: Block, shape: Any, following: Block | None) -> ForwardBlock:
        """What the kernel is told of a block; kept, as the next input often has the same size."""
        cache = layer_cache(self.net, block.first)
        key = block, shape, following
        known, prepared = cache.get("forward block", (None, None))
        if known != key:
            prepared = self._make_prepared(block, shape, following)
            cache["forward block"] = key, prepared
        return prepared

    def _make_prepared(self, block: Block, shape: Any, following: Block | None) -> ForwardBlock:
        net, layer = self.net, self.net.layers[block.first]
        assert isinstance(layer, nn.Conv2d)
        out_shape: Any = layer.output_shape(shape, net.arrays)
        pool, result = None, out_shape
        if block.pool is not None:
            pooling: Any = net.layers[block.pool]
            result = pooling.output_shape(out_shape, net.arrays)
            pool = pooling.window(out_shape[1:], net.arrays), result[1:]
        return ForwardBlock(
            weight=net.arrays[f"{layer.name}.weight"],
            bias=net.arrays.get(f"{layer.name}.bias"),
            window=layer.window(shape[1:], net.arrays),
            groups=layer.groups,
            out_size=out_shape[1:],
            epilogue=self._epilogue(block),
            pool=pool,
            room=self._room(following, result),
            cache=layer_cache(net, block.first),
        )

    def _epilogue(self, block: Block) -> Epilogue:
        def affine(index: int | None) -> Any:
            if index is None:
                return None
            return tuple(a.astype(np.float32) for a in affine_of(self.net, index))

        return Epilogue(affine(block.affine1), block.relu is not None, affine(block.affine2))

    def _room(self, following: Block | None, shape: Any) -> Padding:
        """The padding the next block's convolution wants around its input."""
        layer = self.net.layers[following.first] if following else None
        if not isinstance(layer, nn.Conv2d):
            return _NO_PADDING
        return layer.window(shape[1:], self.net.arrays).padding

    def planes(self, value: Any) -> NDArray[Any]:
        return value if isinstance(value, np.ndarray) else value.planes()
