"""A front end that lies inside a model: found by its structure, decided by numbers.

A model that takes samples makes its spectrogram by an STFT: the operator of that name, or
convolutions whose filters are a window times cosines and sines. A constant matrix (bins x
bands) behind it is the filter matrix, which is taken as it is. Power, scale and an affine
after it are those with which our front end gives what the model computes for noise and a
chirp.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...audio.clip import Clip
from ...audio.frontend import Frontend
from ...audio.scaling import check_scale, scaled
from ...audio.stft import get_window
from ...errors import AudioError, ParameterError, shown
from .graph import Graph, Node

__all__ = ["Recognised", "begins_with_stft", "recognise", "sample_rate"]

Array = NDArray[Any]
Evaluate = Callable[[Array, Sequence[str]], list[Array]]
"""The values of some names for an input of the model."""

_AGREES = 1e-3
"""Of the largest value."""
_DFT = 1e-4
_LEAST_TAPS = 64
_WINDOWS = ("hann", "hamming", "boxcar", "blackman", "bartlett", "blackmanharris")
_FLOORS = (1e-10, 1e-12, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
_TOP_DB = (80.0, 100.0, 60.0, 120.0)


class _Stft(NamedTuple):
    """An STFT that was found."""

    n_fft: int
    hop: int
    window: Array
    values: tuple[str, ...]
    """What it puts out."""


def begins_with_stft(graph: Graph) -> bool:
    """Whether the model makes its input from samples."""
    return _find_stft(graph) is not None


class Recognised(NamedTuple):
    """A front end that was found in a model."""

    value: str
    """What it makes."""
    frontend: Frontend
    samples: Array
    """A sound, as the model takes it ..."""
    clip: Clip
    """... and through the front end."""


def recognise(graph: Graph, sr: float, evaluate: Evaluate) -> Recognised:
    """The front end of a model that takes samples.

    Raises
    ------
    ParameterError
        If none is found, or it is none that a `Frontend` can say; tells what was tried.
    """
    stft = _find_stft(graph)
    if stft is None:
        raise ParameterError(
            "frontend: the model has no STFT whose front end could be recognised (an STFT node, "
            "or convolutions by windowed cosines and sines); give the whole front end"
        )
    name, win_length = _named_window(stft)
    reached = _reached(graph, stft)
    values = _values_up_to_learning(graph, reached)
    samples = _sounds(graph.shapes[graph.input])
    found = [evaluate(x, values) for x in samples]
    filters = _filters(graph, reached, stft)
    clips = list(_settings(stft, sr, name, win_length, filters, samples))
    closest = np.inf
    for place in reversed(range(len(values))):
        wanted = [arrays[place] for arrays in found]
        for fields, spectrograms in clips:
            for layout in _layouts(wanted[0].shape, spectrograms[0].shape)[:1]:
                planes = [_as_planes(x, layout, s.shape) for x, s in zip(wanted, spectrograms)]
                for scale in _scales(graph, reached):
                    off, normalize = _fit(planes, spectrograms, scale, fields["power"])
                    closest = min(closest, off)
                    if off <= _AGREES:
                        frontend = Frontend(
                            **fields, scale=scale, normalize=normalize, layout=layout
                        )
                        clip = Clip(samples[1].ravel(), sr, frontend)
                        return Recognised(values[place], frontend, samples[1], clip)
    raise ParameterError(
        f"frontend: the model has an STFT (n_fft {stft.n_fft}, hop {stft.hop}), but no power, "
        f"scale and affine give what it computes: the closest is off by {closest:.1e} of the "
        f"largest value, wanted {_AGREES:.0e}. Give the front end with frontend=, and begin "
        f"behind it with inputs={values[-1]!r}"
    )


# ---- the STFT ----


def _find_stft(graph: Graph) -> _Stft | None:
    for node in graph.nodes:
        if node.op == "STFT":
            found = _of_operator(graph, node)
            if found is not None:
                return found
    convolutions = [node for node in graph.nodes if _is_framing(graph, node)]
    for count in (1, 2):
        for nodes in itertools.combinations(convolutions, count):
            found = _of_convolutions(graph, nodes)
            if found is not None:
                return found
    return None


def _of_operator(graph: Graph, node: Node) -> _Stft | None:
    hop, window = graph.scalar(node.input(1)), graph.constants.get(node.input(2))
    length = graph.scalar(node.input(3))
    if hop is None or (window is None and length is None):
        return None
    n_fft = int(length) if length is not None else np.asarray(window).size
    values = np.ones(n_fft) if window is None else np.asarray(window, np.float64).ravel()
    if values.size != n_fft:
        return None
    return _Stft(n_fft, int(hop), values, tuple(node.outputs[:1]))


def _is_framing(graph: Graph, node: Node) -> bool:
    weight = graph.constants.get(node.input(1)) if node.op == "Conv" else None
    if weight is None or weight.ndim != 3 or weight.shape[1] != 1 or weight.shape[2] < _LEAST_TAPS:
        return False
    bias = graph.constants.get(node.input(2))
    return not node.input(2) or (bias is not None and not bias.any())


def _of_convolutions(graph: Graph, nodes: Sequence[Node]) -> _Stft | None:
    """An STFT by one convolution, real parts then imaginary ones, or by one for each."""
    rows = np.concatenate([graph.constants[node.input(1)][:, 0] for node in nodes])
    strides = {tuple(node.attributes.get("strides", [1])) for node in nodes}
    taps = rows.shape[1]
    bins = taps // 2 + 1
    if len({node.input(0) for node in nodes}) > 1 or len(strides) > 1 or len(rows) != 2 * bins:
        return None
    angle = 2 * np.pi * np.outer(np.arange(bins), np.arange(taps)) / taps
    first, second = rows[:bins].astype(np.float64), rows[bins:].astype(np.float64)
    for real, imaginary in ((first, second), (second, first)):
        window = real[0]
        largest = float(np.abs(window).max())
        if largest == 0:
            continue
        cosines = np.abs(real - window * np.cos(angle)).max() <= _DFT * largest
        sines = window * np.sin(angle)
        off = min(np.abs(imaginary + sines).max(), np.abs(imaginary - sines).max())
        if cosines and off <= _DFT * largest:
            (stride,) = strides
            return _Stft(taps, int(stride[0]), window, tuple(n.outputs[0] for n in nodes))
    return None


def _named_window(stft: _Stft) -> tuple[str, int]:
    """The name and the length of a window, which is centred."""
    window = stft.window
    inside = np.flatnonzero(np.abs(window) > 1e-9 * np.abs(window).max())
    longest = len(window)
    # A periodic window may begin with a zero that belongs to it.
    spans = dict.fromkeys(
        n for extra in range(4) if (n := int(inside[-1] - inside[0] + 1 + extra)) <= longest
    )
    for length, name in itertools.product([longest, *spans], _WINDOWS):
        values = np.zeros(longest)
        left = (longest - length) // 2
        values[left : left + length] = get_window(name, length)
        if np.abs(values - window).max() <= 1e-4 * np.abs(window).max():
            return name, length
    raise ParameterError(
        f"frontend: the window of the model's STFT is none of {', '.join(_WINDOWS)}"
    )


# ---- what lies behind it ----


def _reached(graph: Graph, stft: _Stft) -> list[Node]:
    """The nodes that work on the STFT, up to the first with a learned kernel."""
    known, nodes = set(stft.values), list[Node]()
    for node in graph.nodes:
        if not known.intersection(node.inputs) or known.issuperset(node.outputs):
            continue
        if node.op in ("Conv", "Gemm", "ConvTranspose", "GRU", "LSTM"):
            break
        nodes.append(node)
        known.update(node.outputs)
    return nodes


def _values_up_to_learning(graph: Graph, reached: Sequence[Node]) -> list[str]:
    values = [
        name for node in reached for name in node.outputs
        if len(graph.shapes.get(name, ())) >= 2 and np.prod(graph.shapes[name]) > 1
    ]
    if not values:
        raise ParameterError("frontend: nothing follows the model's STFT")
    return values


def _filters(graph: Graph, reached: Sequence[Node], stft: _Stft) -> Array | None:
    """The constant matrix that a MatMul multiplies the spectrum by, (bands, bins)."""
    bins = stft.n_fft // 2 + 1
    for node in reached:
        for name in node.inputs if node.op == "MatMul" else ():
            matrix = graph.constants.get(name)
            if matrix is None:
                continue
            plain = matrix.reshape([n for n in matrix.shape if n > 1] or [1])
            if plain.ndim == 2 and bins in plain.shape and plain.min() >= 0:
                return plain if plain.shape[1] == bins else plain.T
    return None


def _scales(graph: Graph, reached: Sequence[Node]) -> Iterator[Any]:
    """Scales to be tried, those with constants of the graph first."""
    numbers = [
        value for node in reached for name in node.inputs
        if (value := graph.scalar(name)) is not None and value > 0
    ]
    numbers += [
        float(value) for node in reached
        if isinstance(value := node.attributes.get("min"), (int, float)) and value > 0
    ]
    small = [*dict.fromkeys(n for n in numbers if n < 0.5), *_FLOORS]
    gains = [*dict.fromkeys(n for n in numbers if n >= 1), 1.0, 10000.0]
    yield "linear"
    for floor in dict.fromkeys(small):
        yield {"type": "log", "floor": floor}
        yield {"type": "log", "offset": floor, "floor": min(floor, 1e-10)}
    for gain in dict.fromkeys(gains):
        yield {"type": "log", "gain": gain, "offset": 1.0}
    for floor, top in itertools.product(dict.fromkeys(small[:3]), _TOP_DB):
        yield {"type": "db", "ref": 1.0, "amin": floor, "top_db": top}


# ---- numbers ----


def _sounds(shape: Sequence[int]) -> list[Array]:
    """Noise, a chirp, and noise that is so soft that floors show, in the shape of the input."""
    count = int(np.prod(shape))
    if count != max(shape):
        raise ParameterError(
            f"frontend: the model's input {shown(tuple(shape))} is no row of samples"
        )
    time = np.arange(count) / count
    noise = np.random.default_rng(0).normal(0, 0.1, count)
    # Not alone: where nothing is, only the rounding of float32 would be compared.
    chirp = 0.3 * np.sin(np.pi * 0.45 * count * time**2) + noise / 5
    sounds = (noise, chirp, 1e-4 * noise)
    return [x.astype(np.float32).reshape(shape) for x in sounds]


def _settings(
    stft: _Stft, sr: float, window: str, win_length: int, filters: Array | None,
    samples: Sequence[Array],
) -> Iterator[tuple[dict[str, Any], list[Array]]]:
    """Fields of front ends without scale, and the spectrograms (rows, T) they give."""
    kinds: list[dict[str, Any]] = [{"kind": "stft"}]
    if filters is not None:
        kinds.insert(0, {"kind": "filters", "filters": filters})
    bins = stft.n_fft // 2 + 1
    kinds += [{"kind": "stft", "bins": part} for part in ((1, bins - 1), (0, bins - 2))]
    ends = [("reflect", True), ("constant", True), ("constant", False)]
    for kind, power, (pad_mode, center) in itertools.product(kinds, (2.0, 1.0), ends):
        fields = {
            **kind, "sr": sr, "n_fft": stft.n_fft, "hop_length": stft.hop, "window": window,
            "win_length": win_length, "power": power, "pad_mode": pad_mode, "center": center,
        }
        try:
            clips = [Clip(x.ravel(), sr, Frontend(**fields)) for x in samples]
        except (AudioError, ValueError):  # too short to be padded so
            continue
        yield fields, [clip.x[0].astype(np.float64) for clip in clips]


def _layouts(shape: Sequence[int], plane: Sequence[int]) -> list[str]:
    """What the axes of a value (with the batch) may be, for a plane (F, T); the likely first.

    Three axes are channels and a row, as 1-D convolutions take them.
    """
    bands, frames = plane
    if len(shape) == 3:
        layouts = {(bands, frames): "FCT", (frames, bands): "TCF"}
        return [layouts[found]] if (found := (shape[1], shape[2])) in layouts else []
    sizes = {"C": 1, "F": bands, "T": frames}
    orders = ("CFT", "CTF", "FCT", "TCF", "FTC", "TFC")
    return [order for order in orders if tuple(shape[1:]) == tuple(sizes[x] for x in order)]


def _as_planes(x: Array, layout: str, plane: Sequence[int]) -> Array:
    """A value as (F, T)."""
    sizes = {"C": 1, "F": plane[0], "T": plane[1]}
    whole = x.reshape([sizes[letter] for letter in layout])
    return whole.transpose([layout.index(letter) for letter in "CFT"])[0].astype(np.float64)


def _fit(
    wanted: Sequence[Array], spectrograms: Sequence[Array], scale: Any, power: float
) -> tuple[float, dict[str, Any] | None]:
    """How far off a scale is with the best scale and shift, and these."""
    with np.errstate(all="ignore"):
        given = [
            scaled(s.T, power, check_scale(scale, power), None).T.astype(np.float64)
            for s in spectrograms
        ]
    x, y = (np.concatenate([a.ravel() for a in arrays]) for arrays in (given, wanted))
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.inf, None
    slope, shift = np.polyfit(x, y, 1)
    largest = float(np.abs(y).max())
    if slope <= 0:
        return np.inf, None
    off = float(np.abs(slope * x + shift - y).max()) / largest
    plain = float(np.abs(x - y).max()) / largest
    if plain <= max(_AGREES / 10, off):
        return plain, None
    return off, {"type": "affine", "scale": float(slope), "shift": float(shift)}


def sample_rate(frontend: Any) -> float | None:
    """The rate, where a record says nothing else: the front end is then in the model."""
    if isinstance(frontend, Mapping) and set(frontend) == {"sr"}:
        return float(frontend["sr"])
    return None
