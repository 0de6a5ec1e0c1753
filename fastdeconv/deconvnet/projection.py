"""The backward pass: what in the input a feature responds to.

Features are projected down together. Until the first convolution every feature is a
single map, handled layer by layer; from there on, back ends with lane kernels (see
`fastdeconv.kernels.lanes`) take one convolution per job, and whatever no job covers
(overlapping pools, linear layers, other activations) is again done layer by layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import BackendError, ParameterError, enough_memory
from ..kernels.dispatch import get_backend, get_num_threads
from ..kernels.lanes import (
    NO_POOL,
    Convolution,
    First,
    LaneBackend,
    Last,
    Post,
    Source,
    Step,
    cached,
)
from ..network import layers as nn
from ..network.network import Network
from .layerwise import RULES, Arithmetic, affine_of, backward_layer, mixes
from .plan import Segment, layer_cache, segment_below
from .trace import Trace, as_array

__all__ = ["deconvolve"]

Array = NDArray[Any]

_CLASS_DIGITS = 9
"""More digits are no index of a class; Python refuses to read thousands of them."""

_LANES = 64
"""Most features in one pass."""
_FEW_LANES = 16
_LANE_BYTES = 1 << 27
"""Two consecutive lane tensors stay below this where fewer lanes can manage it."""
_PLANE_BYTES = 1 << 28
"""The same for features that are projected layer by layer."""


@enough_memory("these maps: take a shorter clip or fewer features at a time")
def deconvolve(
    trace: Trace,
    layer: str,
    features: Sequence[int] | None = None,
    rule: Literal["deconvnet", "guided", "gradient"] = "deconvnet",
    start: Literal["map", "max"] | ArrayLike = "map",
    *,
    precision: Literal["float32", "bf16"] = "float32",
    backend: str | None = None,
    num_threads: int | None = None,
) -> NDArray[np.float32]:
    """Project features of a layer down to the network's input.

    For each feature all others are set to zero and the way back is taken layer by
    layer: max pools by their switches, convolutions by their transpose, ReLUs by the
    rule (Zeiler and Fergus, arXiv 1311.2901, section 2.1). Biases are dropped. Nothing
    is rectified after the last transposed convolution, so maps are signed.

    A map shows what the feature's *input pattern* looked like, not why the network
    decided: deconvnet and guided backpropagation partly recover the image whatever the
    weights (Nie et al., arXiv 1805.07039).

    Parameters
    ----------
    trace : Trace
        From ``net.forward(x)``.
    layer : str
        Any layer, by name. ``"class:NAME"`` or ``"class:INDEX"`` stands for that class's
        score: the last layer's feature, before a closing softmax or sigmoid.
    features : sequence of int, optional
        Numbers from 0, any order, repeats allowed; default all. Not with ``"class:..."``.
    rule : {"deconvnet", "guided", "gradient"}
        What a ReLU does on the way back: max(0, R); max(0, R) where its activation was
        positive; R where its activation was positive.
    start : {"map", "max"} or array, shape (K, H, W)
        The feature's whole activation map; its strongest unit alone (the first in
        row-major order); or your own values at the layer's output.
    precision : {"float32", "bf16"}
        ``"bf16"`` rounds what is multiplied to bfloat16 (8 bits) and adds in float32: about
        1.5 times as fast, with an error of up to 3e-3 of a map's maximum. For listening,
        not for comparing numbers. It needs the native back end and a CPU with AVX512_BF16.
    backend, num_threads
        See `fastdeconv.config`.

    Returns
    -------
    array of float32, shape (K, C, H, W)
        Map k is of features[k]. A silent feature gives exact zeros. The bits do not
        depend on `num_threads` or on which features share a call.

    Raises
    ------
    ParameterError
        If layer, feature, rule, start or precision do not exist or do not fit.
    BackendError
        If the back end, or this CPU, cannot multiply in bfloat16.
    """
    net = trace.network
    if rule not in RULES:
        raise ParameterError(f"rule must be one of {', '.join(RULES)}, found {rule!r}")
    index, features = _resolve_layer(net, layer, features)
    activation = trace.activation(index)
    chosen = _resolve_features(layer, activation.shape[0], features)
    values = _start_values(activation, chosen, start)
    chosen_backend: Any = get_backend(backend)
    bf16 = _wants_bf16(precision, chosen_backend)
    walk = _Walk(trace, rule, chosen_backend, get_num_threads(num_threads), bf16)
    out = np.empty((len(chosen), *trace.x.shape), np.float32)
    size = walk.features_at_once(index)
    for part in (slice(at, at + size) for at in range(0, len(chosen), size)):
        walk.project(index, chosen[part], values[part], out[part])
    return out


def _wants_bf16(precision: str, backend: Any) -> bool:
    if precision not in ("float32", "bf16"):
        raise ParameterError(f"precision must be 'float32' or 'bf16', found {precision!r}")
    if precision == "bf16" and not (hasattr(backend, "has_bf16") and backend.has_bf16()):
        raise BackendError(
            "precision 'bf16' needs the native back end on a CPU with AVX512_BF16 "
            f"(instruction set avx512); this is back end {backend.name!r}"
        )
    return precision == "bf16"


def _resolve_layer(
    net: Network, layer: str, features: Sequence[int] | None
) -> tuple[int, Sequence[int] | None]:
    if not (isinstance(layer, str) and layer.startswith("class:")):
        return net.layer_index(layer), features
    if features is not None:
        raise ParameterError(f"{layer!r} is one feature already: leave features out")
    index = len(net.layers) - 1
    if index > 0 and isinstance(net.layers[index], (nn.Softmax, nn.Sigmoid)):
        # Its derivative vanishes exactly where the network is sure of itself.
        index -= 1
    name = layer[len("class:") :]
    classes = net.classes or ()
    if name in classes:
        return index, [classes.index(name)]
    if name.isascii() and name.isdigit() and len(name) <= _CLASS_DIGITS:
        return index, [int(name)]
    known = ", ".join(map(repr, classes)) or "none named (use class:INDEX)"
    raise ParameterError(f"there is no class {nn.shown(name)}; classes: {known}")


def _resolve_features(layer: str, count: int, features: Sequence[int] | None) -> NDArray[np.intp]:
    if features is None:
        return np.arange(count)
    array = as_array(features, "features")
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ParameterError(f"features must be a sequence of ints, found {features!r}")
    if any(isinstance(f, (bool, np.bool_)) for f in features):
        raise ParameterError(f"features must be ints, found a bool in {features!r}")
    if array.size and (array.min() < 0 or array.max() >= count):
        raise ParameterError(
            f"layer {layer!r} has features 0..{count - 1}, found {array.min()}..{array.max()}"
        )
    return array.astype(np.intp)


def _start_values(activation: Array, features: NDArray[np.intp], start: Any) -> Array:
    """(K, H, W): the values each feature starts from."""
    maps = activation[features]
    if isinstance(start, str):
        if start == "map":
            return maps
        if start == "max":
            flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
            strongest = np.zeros_like(flat)
            rows = np.arange(len(flat))
            places = flat.argmax(axis=1)
            strongest[rows, places] = flat[rows, places]
            return strongest.reshape(maps.shape)
        raise ParameterError(f"start must be 'map', 'max' or an array, found {start!r}")
    array = as_array(start, "start")
    if array.dtype.kind not in "fiub" or array.shape != maps.shape:
        raise ParameterError(
            f"start must be real numbers of shape {maps.shape} (features, height, width), "
            f"found {array.dtype} of shape {array.shape}"
        )
    with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
        finite = np.isfinite(array.astype(np.float32)).all()
    if not finite:
        raise ParameterError("start has NaN or infinite values (as float32)")
    return array.astype(maps.dtype)


class _Walk:
    """The way down a network for one trace, rule and back end."""

    def __init__(
        self, trace: Trace, rule: str, backend: Any, num_threads: int, bf16: bool
    ) -> None:
        self.bf16 = bf16
        self.trace, self.rule, self.num_threads = trace, rule, num_threads
        self.net = trace.network
        self.arithmetic = Arithmetic(backend, num_threads)
        self.lanes: LaneBackend | None = backend if hasattr(backend, "project_last") else None
        self.shapes = [trace.x.shape, *self.net.shapes(trace.x.shape)]
        self.overlapping = {
            i
            for i, layer in enumerate(self.net.layers)
            if isinstance(layer, nn.MaxPool2d)
            and layer.window(self.shapes[i][1:], self.net.arrays).overlapping
        }

    def features_at_once(self, index: int) -> int:
        """Features of layer `index` whose projections fit in bounded memory."""
        sizes = [int(np.prod(s)) for s in self.shapes[: index + 2]]
        if self.lanes is None:
            return max(1, _PLANE_BYTES // (2 * self.arithmetic.dtype().itemsize * max(sizes)))
        tensors = [*self._lane_tensors(index), 0, 0]
        pairs = max(a + b for a, b in itertools.pairwise(tensors))
        fits = _LANE_BYTES // (4 * max(pairs, 1))
        return max(_FEW_LANES, min(_LANES, fits // _FEW_LANES * _FEW_LANES))

    def _lane_tensors(self, index: int) -> Iterator[int]:
        """Floats per feature of every lane tensor between layer `index` and the input."""
        convs = [i for i in range(index + 1) if isinstance(self.net.layers[i], nn.Conv2d)]
        # The lowest convolution's input is the result, and the tensor above it stays in
        # cache where the two lowest steps are fused.
        for conv in reversed(convs[1:]):
            below = segment_below(self.net, conv, self.rule, self.overlapping)
            if below is None:
                yield max(int(np.prod(s)) for s in self.shapes[: conv + 1])
            elif below.conv != convs[0] or self._groups(below.conv) > 1:
                yield int(np.prod(self.shapes[conv]))

    def project(
        self, index: int, features: NDArray[np.intp], values: Array, out: Array
    ) -> None:
        """Project `values` (K, H, W) of layer `index` into `out` (K, C, H, W)."""
        R: Array = values.astype(self.arithmetic.dtype)[None]
        while index >= 0 and not mixes(self.net.layers[index], self.rule):
            R = self._layer(index, R, features)
            index -= 1
        if index >= 0 and self.lanes and isinstance(self.net.layers[index], nn.Conv2d):
            self._lanes_down(index, self._first(index, R[0], features), out)
            return
        spread = np.zeros((len(features), *self.shapes[index + 1]), R.dtype)
        spread[np.arange(len(features)), features] = R[0]
        self._planes_down(index, spread, out)

    def _layer(self, index: int, R: Array, channels: Any = slice(None)) -> Array:  # noqa: N803
        return backward_layer(self.trace, index, R, self.rule, self.arithmetic, channels)

    def _planes_down(self, index: int, R: Array, out: Array) -> None:  # noqa: N803
        """From projections (K, C, H, W) at the output of layer `index` to the input."""
        while index >= 0:
            if self.lanes and isinstance(self.net.layers[index], nn.Conv2d):
                self._lanes_down(index, self._dense(index, R), out)
                return
            R = self._layer(index, R)
            index -= 1
        out[:] = R

    def _lanes_down(self, index: int, job: First | Step, out: Array) -> None:
        """From a job for convolution `index` to the input."""
        assert self.lanes is not None
        while True:
            segment = segment_below(self.net, index, self.rule, self.overlapping)
            if segment is None:
                v = self.lanes.project(job, self.num_threads)
                planes = np.empty((len(out), *self.shapes[index]), np.float32) if index else out
                self.lanes.to_planes(v, planes, self.num_threads)
                if index:
                    self._planes_down(index - 1, planes, out)
                return
            job = job._replace(post=self._post(segment))
            source, conv = self._source(index, segment), self._convolution(segment.conv)
            if segment.conv == 0 and conv.groups == 1:
                self.lanes.project_last(Last(job, source, conv), out, self.num_threads)
                return
            v = self.lanes.project(job, self.num_threads)
            job, index = Step(v, source, conv, Post(), self.bf16), segment.conv

    # ---- jobs ----

    def _groups(self, index: int) -> int:
        layer = self.net.layers[index]
        assert isinstance(layer, nn.Conv2d)
        return layer.groups

    def _convolution(self, index: int) -> Convolution:
        layer = self.net.layers[index]
        assert isinstance(layer, nn.Conv2d)
        size = self.shapes[index][1:]
        return Convolution(
            self.net.arrays[f"{layer.name}.weight"],
            layer.window(size, self.net.arrays),
            layer.groups,
            size,
            layer_cache(self.net, index),
        )

    def _first(self, index: int, values: Array, features: NDArray[np.intp]) -> First:
        return First(values, features, self._convolution(index), Post(), self.bf16)

    def _dense(self, index: int, R: Array) -> Step:  # noqa: N803
        assert self.lanes is not None
        _, channels, h, w = R.shape
        source = Source(None, None, NO_POOL, (h, w), (h, w), channels, {})
        v = self.lanes.from_planes(R, self.bf16)
        return Step(v, source, self._convolution(index), Post(), self.bf16)

    def _post(self, segment: Segment) -> Post:
        scale = None
        for index in segment.scales:
            factor = affine_of(self.net, index)[0]
            scale = factor if scale is None else scale * factor
        return Post(
            segment.relu_before,
            None if scale is None else scale.astype(np.float32),
            segment.relu_after,
        )

    def _source(self, index: int, segment: Segment) -> Source:
        """What the convolution below `index` is fed from: the lane tensor at `index`'s input."""
        channels, *cells = self.shapes[index]
        size = self.shapes[segment.conv + 1][1:]
        pool, switches = NO_POOL, None
        if segment.pool is not None:
            layer: Any = self.net.layers[segment.pool]
            pool = layer.window(self.shapes[segment.pool][1:], self.net.arrays)
            switches = self.trace.switch_cells(segment.pool)
        cache = self.trace.derived(("source", index, segment.pool, segment.gates))
        gate = cached(cache, "gate", lambda: self._gate(segment))
        return Source(switches, gate, pool, (cells[0], cells[1]), size, channels, cache)

    def _gate(self, segment: Segment) -> NDArray[np.uint8] | None:
        """1 where every gating ReLU was active, in the places of the pooled tensor."""
        gate: Array | None = None
        for index in segment.gates:
            active = self._active(index, segment.pool)
            gate = active if gate is None else gate & active
        if gate is None:
            return None
        return np.ascontiguousarray(gate.transpose(1, 2, 0)).view(np.uint8)

    def _active(self, index: int, pool: int | None) -> Array:
        """Where ReLU `index` was active, in the places of the tensor pooled by `pool`."""
        if pool is None or index > pool:
            return self.trace.activation(index) > 0
        if all(isinstance(layer, nn.Dropout) for layer in self.net.layers[index + 1 : pool]):
            # The pool kept the ReLU's own values, and those are at hand.
            return self.trace.activation(pool) > 0
        return self._pooled(self.trace.activation(index) > 0, pool)

    def _pooled(self, values: Array, pool: int) -> Array:
        """Planes at a pool's input, read where its switches point."""
        layer: Any = self.net.layers[pool]
        window = layer.window(self.shapes[pool][1:], self.net.arrays)
        switches = self.trace.switch_planes(pool).astype(np.intp)
        c, h, w = switches.shape
        rows = switches // window.kernel[1] * window.dilation[0]
        rows += (np.arange(h) * window.stride[0] - window.padding[0][0])[:, None]
        cols = switches % window.kernel[1] * window.dilation[1]
        cols += np.arange(w) * window.stride[1] - window.padding[1][0]
        picked: Array = values[np.arange(c)[:, None, None], rows, cols]
        return picked
