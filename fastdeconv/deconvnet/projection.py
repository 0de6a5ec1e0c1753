"""Maps of features: what in the input each responds to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import as_array, as_index
from ..audio._checks import as_choice
from ..errors import BackendError, ParameterError, enough_memory, shown
from ..kernels.dispatch import bf16_of, get_backend, get_num_threads
from ..network import layers as nn
from .joins import backward_join
from .layerwise import RULES, Arithmetic, backward_layer
from .overflow import bounds_back, check_overflow, is_safe, without_warnings
from .run import Run
from .scores import class_number, class_start
from .trace import Trace

__all__ = ["checked_features", "deconvolve", "deconvolve_from", "gradient_at"]

Array = NDArray[Any]

_STARTS = ("map", "max", "one")
_CLASS = "class:"
_BOOLS = {bool, np.bool_}


@enough_memory("these maps: take a shorter clip or fewer features at a time")
def deconvolve(
    trace: Trace,
    layer: str,
    features: Sequence[int] | None = None,
    rule: Literal["deconvnet", "guided", "gradient"] = "deconvnet",
    start: Literal["map", "max", "one"] | ArrayLike = "map",
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
        score: the last layer's feature, before a closing softmax or sigmoid, the mean over
        its places where there are several.
    features : sequence of int, optional
        Numbers from 0, any order, repeats allowed; default all. Not with ``"class:..."``.
    rule : {"deconvnet", "guided", "gradient"}
        What a ReLU does on the way back: max(0, R); max(0, R) where its activation was
        positive; R where its activation was positive.
    start : {"map", "max", "one"} or array, shape (K, H, W)
        ``"map"``: the feature's whole activation map. ``"max"``: its strongest unit alone (the
        first in row-major order). ``"one"``: 1 everywhere, so that under ``"gradient"`` the map
        is the derivative of the feature's sum. Or your own values at the layer's output.

        A class starts from 1, divided by the number of its places (with ``"max"`` from 1 at the
        strongest of them): the map shows what raises its score, whether the score is positive
        or negative. The score itself as the start would turn the map over where it is negative.
    precision : {"float32", "bf16"}
        ``"bf16"`` allows every value and weight that is multiplied to be rounded to bfloat16, by
        up to 1/512 of itself, where that is faster; sums are float32. With AVX512_BF16 on AMD's
        CPUs it is 1.1 to 1.5 times as fast. Convolutions from fewer than 32 channels are computed
        in float32, which is as fast there. On Intel's CPUs with AVX512_BF16 it would be
        slower, so there the maps are those of float32, unless `fastdeconv.config` asks for AMX.
        `fastdeconv.show_config` says which. Through
        n convolutions, what is added up for a place of a map is then off by up to some n/256 of the
        sum of its absolute values. What share of the map's maximum that is depends on how much
        cancels out. On the bundled network it is 2e-3. Of 2,500 random networks (3 to 5
        convolutions, ReLUs, with and without pools) half stayed below 5e-3, and the worst came
        to 2e-2. A map that cancels out nearly altogether may be wrong. For listening, not for
        comparing numbers. It needs the native back end and a CPU with AVX512_BF16.
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
        If layer, feature, rule, start or precision do not exist or do not fit, or maps
        overflow float32.
    BackendError
        If the back end, or this CPU, cannot multiply in bfloat16.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> net = fd.pretrained("choi5-genre")
    >>> clip = fd.Clip(np.sin(np.arange(44100)), 11025, net.frontend)
    >>> trace = net.forward(clip.x)
    >>> fd.deconvolve(trace, "pool5", features=[12, 40], rule="guided", start="max").shape
    (2, 1, 257, 173)
    >>> fd.deconvolve(trace, "class:metal").shape
    (1, 1, 257, 173)
    """
    if not isinstance(trace, Trace):
        raise ParameterError(f"trace must be a Trace, from net.forward(x), found {shown(trace)}")
    net = trace.network
    as_choice("rule", rule, RULES)
    named = isinstance(start, str)
    own = named
    if isinstance(layer, str) and layer.startswith(_CLASS):
        if features is not None:
            raise ParameterError(f"{shown(layer)} is one feature already: leave features out")
        count = trace.activation(len(net.layers) - 1).shape[0]
        number = class_number(net, count, layer[len(_CLASS) :])
        index, feature, values = class_start(trace, number, strongest=_is_max(start))
        chosen, own = np.array([feature]), False
        if not named or start not in _STARTS:
            values = _start_values(trace.activation(index), chosen, start)
    else:
        index = net.layer_index(layer)
        chosen = checked_features(layer, trace.activation(index).shape[0], features)
        values = _start_values(trace.activation(index), chosen, start)
    chosen_backend: Any = get_backend(backend)
    bf16 = _wants_bf16(precision, chosen_backend)
    threads = get_num_threads(num_threads)

    run = Run(trace, rule, chosen_backend, threads, bf16)
    out = np.empty((len(chosen), *trace.input_shape), np.float32)
    with without_warnings():
        run.project(index, chosen, values, out, sparse=not named or _is_max(start), own=own)
    # Values of one's own may be as large as they like; others are not larger than the map's.
    largest = trace.bound(index) if named else float(np.abs(values).max(initial=0))
    if not is_safe(bounds_back(net, index, largest, trace.bound)):
        check_overflow(out, f"a map of {net.layers[index].label}")
    return out


def deconvolve_from(
    trace: Trace, index: int, values: Array, rule: str
) -> NDArray[np.float32]:
    """Values at the output of layer `index`, in all of its channels, projected to the input.

    Parameters
    ----------
    trace : Trace
    index : int
        Of the layer.
    values : array, shape (K, C, h, w)
        What each of K projections starts from.
    rule : {"deconvnet", "guided", "gradient"}

    Returns
    -------
    array of float32, shape (K, C, H, W)

    Raises
    ------
    ParameterError
        If maps overflow float32.
    """
    run = Run(trace, rule, get_backend(), get_num_threads(), False)
    out = np.empty((len(values), *trace.input_shape), np.float32)
    with without_warnings():
        run.project(index, np.arange(len(values)), values, out, sparse=False)
    largest = float(np.abs(values).max(initial=0))
    if not is_safe(bounds_back(trace.network, index, largest, trace.bound)):
        check_overflow(out, f"a map of {trace.network.layers[index].label}")
    return out


def gradient_at(trace: Trace, index: int, values: Array, layer: int) -> Array:
    """Values at the output of layer `index`, taken back by their gradient to that of a layer
    below it, and no further.

    Parameters
    ----------
    trace : Trace
    index, layer : int
    values : array, shape (K, C, h, w)

    Returns
    -------
    array, shape (K, C', h', w')
    """
    net, arithmetic = trace.network, Arithmetic(get_backend(), get_num_threads())
    sent: dict[int, Array] = {index: values.astype(arithmetic.dtype)}
    with without_warnings():
        for at in range(index, layer, -1):
            R = sent.pop(at, None)
            if R is None:
                continue
            sources = net.sources[at]
            if isinstance(net.layers[at], nn.Joining):
                each = backward_join(
                    net.layers[at], [trace.activation(source) for source in sources], R
                )
            else:
                each = [backward_layer(trace, at, R, "gradient", arithmetic)]
            for source, part in zip(sources, each):
                sent[source] = sent[source] + part if source in sent else part
    shape = len(values), *trace.activation(layer).shape
    return sent.get(layer, np.zeros(shape, arithmetic.dtype))


def _is_max(start: Any) -> bool:
    return isinstance(start, str) and start == "max"


def _wants_bf16(precision: str, backend: Any) -> bool:
    as_choice("precision", precision, ("float32", "bf16"))
    if precision == "float32":
        return False
    how = bf16_of(backend)
    if how == "none":
        raise BackendError(
            "precision 'bf16' needs the native back end on a CPU with AVX512_BF16 "
            f"(instruction set avx512 or amx); this is back end {backend.name!r}"
        )
    # Who allows bfloat16 wants speed: where it brings none, float32 is as fast and exact.
    return how != "slow"


def checked_features(layer: str, count: int, features: Sequence[int] | None) -> NDArray[np.intp]:
    """The features asked for, of a layer that has `count`; None for all.

    Raises
    ------
    ParameterError
        If they are not ints from 0 below `count`.
    """
    if features is None:
        return np.arange(count)
    array = as_array(features, "features")
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ParameterError(f"features must be a sequence of ints, found {shown(features)}")
    if not isinstance(features, (range, np.ndarray)) and not _BOOLS.isdisjoint(map(type, features)):
        raise ParameterError(f"features must be ints, found a bool in {features!r}")
    chosen = array.astype(np.int64)
    # As unsigned numbers, negative ones are too large, too.
    if np.count_nonzero(chosen.view(np.uint64) >= count):
        outside = array[(array < 0) | (array >= count)]
        raise ParameterError(
            f"layer {shown(layer)} has features 0..{count - 1}, found {outside[0]}"
        )
    return chosen.astype(np.intp, copy=False)


def _start_values(activation: Array, features: NDArray[np.intp], start: Any) -> Array:
    """(K, H, W): the values each feature starts from."""
    maps = activation[as_index(features)]
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
        if start == "one":
            # A silent feature stays silent, whatever the rule would make of it.
            return np.broadcast_to(maps.any(axis=(1, 2), keepdims=True), maps.shape).astype(
                maps.dtype
            )
        raise ParameterError(
            f"start must be 'map', 'max', 'one' or an array, found {shown(start)}"
        )
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
