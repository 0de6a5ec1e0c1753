"""The forward pass, with what the way back needs: activations and switches."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import as_array
from ..audio._checks import as_choice, as_int
from ..errors import ParameterError, enough_memory
from ..kernels.blocks import (
    BlockBackend,
    ConvBlock,
    Epilogue,
    ForwardBlock,
    JoinBlock,
    Pool,
    PoolBlock,
)
from ..kernels.dispatch import get_backend, get_num_threads
from ..kernels.interface import Backend, switches_as_planes
from ..kernels.lanes import cached
from ..network import layers as nn
from ..network.network import Network
from .fields import Place, boxes_seen, place_of
from .joins import forward_join
from .layerwise import Arithmetic, affine_of, forward_layer, mean_window
from .overflow import bounds_forward, check_overflow, largest_safe, without_warnings
from .plan import Block, forward_plan, in_kernel, kept_layers, layer_cache, room_around

__all__ = ["Runner", "Trace", "as_input", "forward", "make_runner"]

ALGORITHMS = ("auto", "direct", "winograd")


class Trace:
    """A clip's way through a network; made by `Network.forward`.

    ``trace["pool3"]`` is the output of that layer. Only the outputs of fused blocks
    (convolution to pool) are kept; other layers are computed when asked for, directly
    whatever the algorithm: what a block by Winograd's algorithm has pooled may differ
    from them by rounding, by "auto" never in which value is largest or positive.

    Attributes
    ----------
    network : Network
    input_shape : (C, H, W)
    """

    # A pass goes through the caches, so that all that Python does right after it takes several
    # times as long as otherwise. What may wait until it is asked for therefore waits.
    def __init__(self, network: Network, x: NDArray[Any], runner: Runner) -> None:
        self.network = network
        self.input_shape = x.shape
        self._runner = runner
        self._blocks = forward_plan(network, runner.fuses_all)
        self._numbers = kept_layers(network, self._blocks)
        done = runner.run_all(self._blocks, x)
        self._results, self._largest_input = done.results, done.largest
        self._kept: dict[int, Any] = {} if done.x is None else {-1: done.x}
        self._switches: dict[int, NDArray[Any]] = {}
        self._planes: dict[int, NDArray[Any]] = {}
        self._derived: dict[Any, dict[Any, Any]] = {}
        self._bounds: list[float] | None = None
        if done.largest > largest_safe(network):
            self._bounds = bounds_forward(network, done.largest, self._largest, self._checked)

    @functools.cached_property
    def x(self) -> NDArray[np.float32]:
        """The input.

        Returns
        -------
        array of float32, shape (C, H, W), read-only
        """
        kept = self._value(-1)
        if not isinstance(kept, np.ndarray):
            kept = kept.planes(self._runner.num_threads)
            kept.flags.writeable = False
        return kept

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

        Parameters
        ----------
        layer : str

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

    def place(self, layer: str, row: int, column: int) -> Place:
        """Where in the input a unit looks, edges included.

        Parameters
        ----------
        layer : str
        row, column : int
            Of the unit in the layer's output.

        Returns
        -------
        Place
            ``rows``, ``columns``, ``seconds`` and ``hertz``.

        Raises
        ------
        ParameterError
            If there is no such layer or unit.
        """
        index = self.network.layer_index(layer)
        _, height, width = self.activation(index).shape
        at = [
            as_int(name, value, minimum=0, maximum=size - 1)
            for name, value, size in (("row", row, height), ("column", column, width))
        ]
        ((top, bottom, left, right),) = boxes_seen(
            self.network, index, self.input_shape, np.array([at])
        ).tolist()
        return place_of(self.network.frontend, (top, bottom), (left, right))

    def __repr__(self) -> str:
        return f"Trace(network={self.network.name!r}, x={self.input_shape})"

    def __getstate__(self) -> dict[str, Any]:
        # What the way back derives refers to the packed weights and jobs of this process, and so
        # may the results as long as nobody has asked for them.
        return {
            **self.__dict__, "_derived": {}, "_results": list(self._results),
            "_kept": {-1: self._value(-1)}, "_switches": {},
        }

    # ---- for the way back: layers by index, -1 is the input ----

    def activation(self, index: int) -> NDArray[Any]:
        """Output of layer `index` as planes; float64 if the reference back end made it.

        Parameters
        ----------
        index : int
            Of a layer, from 0; -1 is the input.

        Returns
        -------
        array, shape (C, H, W)
        """
        planes = self._planes.get(index)
        if planes is None:
            kept = self._value(index)
            if kept is None:
                kept = self._recompute(index)
            planes = self._runner.planes(kept)
            self._planes[index] = planes
        return planes

    def cells(self, index: int) -> NDArray[Any]:
        """Output of layer `index` as (H, W, C): as the back end keeps it, if it does so.

        Parameters
        ----------
        index : int
            Of a layer.

        Returns
        -------
        array, shape (H, W, C)
        """
        kept = self._value(index)
        found = None if kept is None else self._runner.cells(kept)
        return self.activation(index).transpose(1, 2, 0) if found is None else found

    def bound(self, index: int) -> float:
        """No absolute value at the output of layer `index` is larger.

        Parameters
        ----------
        index : int
            Of a layer.

        Returns
        -------
        float
        """
        if self._bounds is None:
            self._bounds = bounds_forward(self.network, self._largest_input)
        return self._bounds[index]

    def _value(self, index: int) -> Any:
        """An activation as the runner keeps it; None if it is not kept."""
        value = self._kept.get(index)
        if value is None and index == -1:
            results: Any = self._results
            self._kept[index] = value = results.copy_of(index)
        elif value is None and index in self._numbers:
            value, switches = self._results[self._numbers[index]]
            if switches is not None:
                self._switches[index] = switches
            self._kept[index] = value  # last: to other threads it says that the switches are there
        return value

    def _largest(self, index: int) -> float | None:
        """The largest absolute value of an activation that is kept."""
        kept = self._value(index)
        return None if kept is None else self._runner.largest(kept)

    def _checked(self, index: int) -> float:
        """The same of any layer; raises where values are not finite."""
        planes = self.activation(index)
        check_overflow([planes], f"the output of {self.network.layers[index].label}")
        return float(np.abs(planes).max(initial=0))

    def switch_cells(self, index: int) -> NDArray[Any]:
        """Switches of max pool `index`, channels last, Cs >= C.

        Parameters
        ----------
        index : int
            Of a max pool.

        Returns
        -------
        array, shape (H, W, Cs)
        """
        self._value(index)
        return self._switches[index]

    def switch_planes(self, index: int) -> NDArray[Any]:
        """Switches of max pool `index` as planes.

        Parameters
        ----------
        index : int
            Of a max pool.

        Returns
        -------
        array, shape (C, H, W)
        """
        return cached(
            self.derived("switch planes"), index,
            lambda: self._runner.switch_planes(
                self.switch_cells(index), self.activation(index).shape[0]
            ),
        )

    def derived(self, key: Any) -> dict[Any, Any]:
        """Where to keep what the way back derives from this trace, for the next time.

        Parameters
        ----------
        key : hashable
            Whose it is.

        Returns
        -------
        dict
        """
        return self._derived.setdefault(key, {})

    def _recompute(self, index: int) -> Any:
        block = next(b for b in self._blocks if index in b.layers)
        taken = {source: self._value(source) for source in block.sources}
        with without_warnings():
            ((value, _),) = self._runner.run([block.cut(index)], taken)
        return value


@enough_memory("the activations of this input: take a shorter clip")
def forward(net: Network, x: ArrayLike, algorithm: str) -> Trace:
    """Run `net` on one input; see `Network.forward`."""
    as_choice("algorithm", algorithm, ALGORITHMS)
    array = _as_planes(x, "x")
    net.shapes(array.shape)
    return Trace(net, array, make_runner(net, algorithm))


def make_runner(net: Network, algorithm: str = "auto") -> Runner:
    """What runs blocks of `net` on the back end and threads of now."""
    backend: Any = get_backend()
    threads = get_num_threads()
    if hasattr(backend, "forward_blocks"):
        return _FusedRunner(net, backend, threads, algorithm)
    return Runner(net, backend, threads)


def as_input(value: ArrayLike, name: str) -> NDArray[np.float32]:
    """A network input as float32, (C, H, W), in a copy that nobody else can change.

    Raises
    ------
    ParameterError
        If it is not finite real numbers of three axes; begins with `name`.
    """
    return _copy_and_largest(_as_planes(value, name), name)[0]


def _as_planes(value: ArrayLike, name: str) -> NDArray[np.float32]:
    """A network input as float32, (C, H, W), contiguous; `value` itself if it is that."""
    array = as_array(value, name)
    if array.dtype.kind not in "fiub" or array.ndim != 3:
        raise ParameterError(
            f"{name} must be real numbers of shape (C, H, W), found {array.dtype} of shape "
            f"{array.shape}"
        )
    if array.dtype == np.float32 and array.flags.c_contiguous and array.flags.aligned:
        return array
    with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
        return np.array(array, np.float32, order="C")


def _copy_and_largest(array: NDArray[np.float32], name: str) -> tuple[NDArray[np.float32], float]:
    """A copy that nobody else can change, and the largest absolute value in it."""
    copy = _read_only(array, np.float32)
    # NaN is the maximum of everything among which it is.
    largest = max(float(copy.max(initial=0)), -float(copy.min(initial=0)))
    return copy, _finite(largest, name)


def _finite(largest: float, name: str) -> float:
    if not math.isfinite(largest):
        raise ParameterError(f"{name} has NaN or infinite values (as float32)")
    return largest


def _read_only(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """A contiguous copy that nobody else can change."""
    copy = np.array(array, dtype=dtype, order="C")
    copy.flags.writeable = False
    return copy


_Result = tuple[Any, "NDArray[Any] | None"]


class _Pass(NamedTuple):
    """What a pass through a whole network has made."""

    results: Sequence[_Result]
    """One for each block."""
    largest: float
    """The largest absolute value of the input."""
    x: NDArray[Any] | None = None
    """A copy of the input. None: the results, which are `BlockResults`, have it."""


class Runner:
    """Runs blocks layer by layer; values are planes."""

    fuses_all = False

    def __init__(self, net: Network, backend: Backend, num_threads: int) -> None:
        self.net, self.num_threads = net, num_threads
        self.arithmetic = Arithmetic(backend, num_threads)

    def run_all(self, blocks: Sequence[Block], x: NDArray[np.float32]) -> _Pass:
        """Run all blocks of the network.

        Raises
        ------
        ParameterError
            If `x` is not finite.
        """
        copy, largest = _copy_and_largest(x, "x")
        with without_warnings():
            return _Pass(self.run(blocks, {-1: copy}), largest, copy)

    def run(self, blocks: Sequence[Block], kept: Mapping[int, Any]) -> Sequence[_Result]:
        """(value, switches (H, W, C)) after every block.

        `kept` has what the blocks take, as far as no other block here gives it.
        """
        results: list[_Result] = []
        values = dict(kept)
        for block in blocks:
            results.append(self._run_layers(block, [values[i] for i in block.sources]))
            values[block.last] = results[-1][0]
        return results

    def _run_layers(self, block: Block, given: Sequence[Any]) -> _Result:
        taken, switches = [self.planes(value) for value in given], None
        for index in block.layers:
            layer = self.net.layers[index]
            if isinstance(layer, nn.Joining):
                taken = [forward_join(layer, taken)]
                continue
            planes, found = forward_layer(self.net, index, taken[0], self.arithmetic)
            if found is not None:
                switches = np.ascontiguousarray(found.transpose(1, 2, 0))
            taken = [planes]
        return taken[0], switches

    def planes(self, value: Any) -> NDArray[Any]:
        """A kept value as planes (C, H, W)."""
        return np.asarray(value, self.arithmetic.dtype)

    def switch_planes(self, switches: NDArray[Any], channels: int) -> NDArray[Any]:
        """Switches (H, W, Cs) as planes (C, H, W)."""
        return switches_as_planes(switches, channels)

    def cells(self, value: Any) -> NDArray[Any] | None:
        """A kept value as (H, W, C), if it is kept like that."""
        return None

    def largest(self, value: Any) -> float:
        """The largest absolute value of a kept one."""
        values = self.planes(value)
        return float(max(values.max(), -values.min()))


class _FusedRunner(Runner):
    """Runs blocks as a kernel each; values are of the back end's own or planes."""

    def __init__(
        self, net: Network, backend: BlockBackend, num_threads: int, algorithm: str
    ) -> None:
        super().__init__(net, backend, num_threads)
        self.backend, self.algorithm = backend, algorithm
        self.fuses_all = backend.runs_joins

    def run_all(self, blocks: Sequence[Block], x: NDArray[np.float32]) -> _Pass:
        together = self._known(blocks, {-1: x})
        if together is None or not self.backend.copies_given:
            return super().run_all(blocks, x)
        results: Any = self._run_together(together, {-1: x})
        return _Pass(results, _finite(results.largest_of(-1), "x"))

    def _known(
        self, blocks: Sequence[Block], kept: Mapping[int, Any]
    ) -> Sequence[ForwardBlock] | None:
        """What the back end is told of these blocks, if it was told the same the last time and
        runs them all in one go: often an input has the size of the last one."""
        known, together = layer_cache(self.net, -1).get("forward blocks", (None, None))
        return together if known == self._key(blocks, kept) else None

    def _key(self, blocks: Sequence[Block], kept: Mapping[int, Any]) -> Any:
        return self.fuses_all, blocks, [(index, value.shape) for index, value in kept.items()]

    def _run_together(
        self, blocks: Sequence[ForwardBlock], given: Mapping[int, Any]
    ) -> Sequence[_Result]:
        return self.backend.forward_blocks(given, blocks, self.algorithm, self.num_threads)

    def run(self, blocks: Sequence[Block], kept: Mapping[int, Any]) -> Sequence[_Result]:
        together = self._known(blocks, kept)
        if together is not None:
            return self._run_together(together, kept)
        results: list[_Result] = []
        values = dict(kept)

        def finish(block: Block, result: _Result) -> None:
            results.append(result)
            values[block.last] = result[0]

        waiting: dict[Block, ForwardBlock] = {}
        """Blocks that are handed over together."""

        def run_waiting() -> None:
            found = self._run_together([*waiting.values()], values)
            for block, result in zip(waiting, found):
                finish(block, result)
            waiting.clear()

        shapes = {key: value.shape for key, value in values.items()}
        for block in blocks:
            prepared = self._prepare(block, tuple(shapes[i] for i in block.sources))
            if prepared is None:
                if waiting:
                    run_waiting()
                finish(block, self._run_layers(block, [values[i] for i in block.sources]))
                shapes[block.last] = values[block.last].shape
            else:
                waiting[block] = prepared
                shapes[block.last] = prepared.shape
        if len(waiting) == len(blocks) > 1:
            layer_cache(self.net, -1)["forward blocks"] = (
                self._key(blocks, kept), [*waiting.values()]
            )
        if waiting:
            run_waiting()
        return results

    def _prepare(self, block: Block, shapes: tuple[_Shape, ...]) -> ForwardBlock | None:
        """What the kernel is told of a block; kept, as the next input often has the same size."""
        cache = layer_cache(self.net, block.first)
        key = self.fuses_all, block, shapes
        # A part of a block, which is computed when asked for, does not replace the block: the plan
        # of the whole pass is for this very one.
        place = "forward block", block.layers
        known, prepared = cache.get(place, (None, None))
        if known != key:
            prepared = self._make_prepared(block, shapes)
            cache[place] = key, prepared
        return prepared

    def _make_prepared(self, block: Block, shapes: tuple[_Shape, ...]) -> ForwardBlock | None:
        """None for what the back end cannot do."""
        net, layer = self.net, self.net.layers[block.first]
        out: Any = layer.joined_shape(shapes, net.arrays)

        def whole(shape: Any) -> Any:
            """What every block has."""
            return {
                "sources": block.sources, "key": block.last, "shape": shape,
                "room": room_around(net, block.last, shape[1:]),
                "cache": layer_cache(net, block.first),
            }

        if isinstance(layer, nn.Conv2d):
            def made(
                block: Block, shape: _Shape, pool: Pool | None, cut_from: ConvBlock | None = None
            ) -> ConvBlock:
                return ConvBlock(
                    **whole(shape), weight=net.arrays[f"{layer.name}.weight"],
                    bias=net.arrays.get(f"{layer.name}.bias"),
                    window=layer.window(shapes[0][1:], net.arrays), groups=layer.groups,
                    out_size=out[1:], epilogue=self._epilogue(block, out[0]), pool=pool,
                    cut_from=cut_from,
                )

            result, pool, cut_from = out, None, None
            if block.pool is not None:
                result = net.layers[block.pool].output_shape(out, net.arrays)
                pool = self._pool(net.layers[block.pool], out)
            if block.cut_from is not None:
                # Nothing computes it: its pool may be too large for these shapes.
                last: Any = None if block.cut_from.pool is None else net.layers[block.cut_from.pool]
                window = last and Pool(last.window(out[1:], net.arrays))
                cut_from = made(block.cut_from, out, window)
            return made(block, result, pool, cut_from)
        if not self.fuses_all or None in out:
            return None
        pool = self._pool(layer, shapes[0])
        if pool is not None:
            return PoolBlock(**whole(out), pool=pool)
        if isinstance(layer, nn.Concat) and layer.axis != "C":
            return None
        if isinstance(layer, nn.Joining) and type(layer) not in _JOINS:
            return None
        if block.first in block[2:] or isinstance(layer, (nn.Joining, nn.Dropout)):
            epilogue = self._epilogue(block, out[0])
            kind = _JOINS.get(type(layer), "sum")
            return JoinBlock(**whole(out), kind=kind, epilogue=epilogue)
        return None

    def _pool(self, layer: nn.Layer, shape: _Shape) -> Pool | None:
        """The pool that a layer is, of an input of this shape."""
        if isinstance(layer, nn.MaxPool2d):
            return Pool(layer.window(shape[1:], self.net.arrays))
        means = mean_window(layer, self.net.arrays, shape)
        return None if means is None else Pool(*means)

    def _epilogue(self, block: Block, channels: int) -> Epilogue:
        def affine(index: int | None) -> Any:
            if index is None:
                return None
            return tuple(a.astype(np.float32) for a in affine_of(self.net, index))

        function, weight = None, None
        if block.activation is not None:
            layer = self.net.layers[block.activation]
            function = in_kernel(layer)
            for key in layer.array_names:
                weight = np.resize(self.net.arrays[key], channels)
        return Epilogue(affine(block.affine1), function, weight, affine(block.affine2))

    def planes(self, value: Any) -> NDArray[Any]:
        return value if isinstance(value, np.ndarray) else value.planes(self.num_threads)

    def switch_planes(self, switches: NDArray[Any], channels: int) -> NDArray[Any]:
        return self.backend.switch_planes(switches, channels, self.num_threads)

    def cells(self, value: Any) -> NDArray[Any] | None:
        return None if isinstance(value, np.ndarray) else value.cells()

    def largest(self, value: Any) -> float:
        return super().largest(value) if isinstance(value, np.ndarray) else value.largest()


_JOINS: dict[type[nn.Layer], str] = {
    nn.Add: "sum", nn.Multiply: "product", nn.Concat: "concat",
}
_Shape = tuple[int, int, int]
