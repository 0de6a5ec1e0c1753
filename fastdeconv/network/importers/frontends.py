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
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...audio._checks import as_number
from ...audio.clip import Clip
from ...audio.frontend import Frontend
from ...audio.scaling import check_scale, scaled
from ...audio.stft import get_window
from ...errors import AudioError, ParameterError, shown
from .graph import Graph, Node
from .views import Letters, View

__all__ = ["Recognised", "begins_with_stft", "recognise", "sample_rate"]

Array = NDArray[Any]
Evaluate = Callable[[Array, Sequence[str]], list[Array]]
"""The values of some names for an input of the model."""

_AGREES = 1e-3
"""Of the largest value."""
_EXACT = 1e-4
"""The same, where nothing but rounding is left."""
_HOPELESS = 0.02
"""How far values may fall where they should rise, for scales to be tried at all."""
_DFT = 1e-4
_LEAST_TAPS = 64
_MOST_FRAMING = 50
"""Convolutions among which pairs are tried: an STFT is at the beginning of a model."""
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
    letters: Letters
    """Which axis of that is channel, frequency and time; None for one of a single place."""
    frontend: Frontend
    samples: Array
    """A sound, as the model takes it."""

    def in_layout(self, view: View) -> Frontend:
        """The front end for a network that reads what it makes as `view` says."""
        sizes = dict(zip("CFT", (self.frontend.num_channels, *self._plane)))
        order = [
            letter for letter, n in zip(self.letters, view.shape) if letter is not None and n > 1
        ]
        layout = {
            axis: letter for axis, letter in zip(
                (axis for axis in view.order if view.size(axis) > 1), order, strict=True
            )
        }
        free = [letter for letter in "CFT" if letter not in layout.values()]
        letters = [layout[axis] if axis in layout else free.pop(0) for axis in "CHW"]
        assert all(sizes[letter] == n for letter, n in zip(letters, view.sizes))
        return replace(self.frontend, layout="".join(letters))

    @property
    def _plane(self) -> tuple[int, int]:
        clip = Clip(self.samples.ravel(), self.frontend.sr, self.frontend)
        return clip.x.shape[1], clip.x.shape[2]


class _Fit(NamedTuple):
    """How a model's values are made of a spectrogram."""

    off: float
    """The largest difference, of the largest value."""
    scale: Any
    normalize: dict[str, Any] | None
    letters: Letters
    value: str

    @property
    def agrees(self) -> bool:
        """Whether it is the same; an affine that fits by chance is not."""
        return self.off <= (_AGREES if self.normalize is None else 3 * _EXACT)


def recognise(graph: Graph, sr: float, evaluate: Evaluate) -> Recognised:
    """The front end of a model that takes samples.

    Raises
    ------
    ParameterError
        If none is found, or it is none that a `Frontend` can say; tells what was found, and what
        to give.
    """
    stft = _find_stft(graph)
    if stft is None:
        raise ParameterError(
            "frontend: the model has no STFT whose front end could be recognised (an STFT node, "
            f"or convolutions by windowed cosines and sines); {_what_to_give(graph)}"
        )
    name, win_length = _named_window(graph, stft)
    reached = _reached(graph, stft.values)
    values = _values_up_to_learning(graph, reached)
    if not values:
        raise ParameterError("frontend: nothing follows the model's STFT")
    samples = _sounds(graph.shapes[graph.input])
    found = [evaluate(x, values) for x in samples]
    matrix = _filters(graph, reached, stft)
    filters = None if matrix is None else matrix[1]
    settings = list(_settings(graph, stft, sr, name, win_length, filters, samples))
    gains = _gains(values, found, settings)
    scales = list(_scales(graph, reached, gains))
    closest: tuple[_Fit, dict[str, Any]] | None = None
    for place in reversed(range(len(values))):
        wanted = [arrays[place] for arrays in found]
        best: tuple[_Fit, dict[str, Any]] | None = None
        for fields, spectrograms in settings:
            fit = _fitted(values[place], wanted, spectrograms, scales, fields["power"])
            if fit is None:
                continue
            if best is None or _preferred(fit, best[0]):
                best = fit, fields
            if closest is None or fit.off < closest[0].off:
                closest = fit, fields
        if best is not None and best[0].agrees:
            fit, fields = best
            frontend = Frontend(**fields, scale=fit.scale, normalize=fit.normalize)
            return Recognised(fit.value, fit.letters, frontend, samples[1])
    raise ParameterError(_not_said(graph, stft, (name, win_length), matrix, closest, sr))


def _preferred(one: _Fit, other: _Fit) -> bool:
    """Whether a fit is better: it agrees, without an affine, or else it is closer."""
    keys = [
        (not fit.agrees, fit.agrees and fit.normalize is not None, fit.off)
        for fit in (one, other)
    ]
    return keys[0] < keys[1]


def _not_said(
    graph: Graph, stft: _Stft, window: tuple[str, int], matrix: tuple[str, Array] | None,
    closest: tuple[_Fit, dict[str, Any]] | None, sr: float,
) -> str:
    """What was found of a front end that none of ours is, and what to give."""
    text = (
        f"frontend: the model has an STFT (n_fft {stft.n_fft}, hop_length {stft.hop}, win_length "
        f"{window[1]}, window {window[0]!r})"
    )
    if matrix is not None:
        text += f" and a matrix of {matrix[1].shape[0]} bands ({shown(matrix[0])})"
    text += ", but no power, scale, affine, padding and pre-emphasis of ours give what it computes"
    if closest is None:
        return f"{text}; {_what_to_give(graph, stft.values)}"
    fit, fields = closest
    known = {"sr": sr} | {k: v for k, v in fields.items() if k not in ("sr", "filters")}
    known |= {"scale": fit.scale}
    if "filters" in fields:
        known["filters"] = _Written("MATRIX")
    said = ", ".join(f"{key}={value!r}" for key, value in known.items())
    return (
        f"{text}: the closest is off by {fit.off:.1e} of the largest value of {shown(fit.value)}, "
        f"wanted {_AGREES:.0e}. Give the front end that is nearest to your own code and begin "
        f"behind it: inputs={fit.value!r}, frontend=Frontend({said})"
    )


class _Written(str):
    """A name in a call that is written out."""

    def __repr__(self) -> str:
        return str(self)


def _what_to_give(graph: Graph, spectra: Sequence[str] | None = None) -> str:
    """Where to begin behind what makes a spectrogram."""
    if spectra is None:
        spectra = [
            name for node in graph.nodes if _is_framing(graph, node) for name in node.outputs
        ]
    behind = [
        name for node in _reached(graph, spectra) for name in node.outputs
        if len(graph.shapes.get(name, ())) >= 3
    ]
    if not behind:
        return "give the whole front end, frontend=Frontend(...)"
    shape = " x ".join(map(str, graph.shapes[behind[-1]]))
    return (
        "give the front end that your own code has, frontend=Frontend(...), and begin behind it "
        f"with inputs={behind[-1]!r}, which is {shape}"
    )


# ---- the STFT ----


def _find_stft(graph: Graph) -> _Stft | None:
    for node in graph.nodes:
        if node.op == "STFT":
            found = _of_operator(graph, node)
            if found is not None:
                return found
    convolutions = [node for node in graph.nodes if _is_framing(graph, node)][:_MOST_FRAMING]
    for count in (1, 2):
        for nodes in itertools.combinations(convolutions, count):
            found = _of_convolutions(graph, nodes)
            if found is not None:
                return found
    return None


def _of_operator(graph: Graph, node: Node) -> _Stft | None:
    hop, window = graph.scalar(node.input(1)), graph.constants.get(node.input(2))
    length = graph.scalar(node.input(3))
    if length is None and window is not None:
        length = float(window.size)
    if hop is None or length is None or not (hop.is_integer() and length.is_integer()):
        return None
    n_fft = int(length)
    if window is None:
        values = np.ones(n_fft)
    elif window.size == n_fft and window.dtype.kind in "fiu":
        values = window.astype(np.float64).ravel()
    else:
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


def _named_window(graph: Graph, stft: _Stft) -> tuple[str, int]:
    """The name and the length of a window, which is centred."""
    window = stft.window
    inside = np.flatnonzero(np.abs(window) > 1e-9 * np.abs(window).max())
    longest = len(window)
    span = int(inside[-1] - inside[0]) + 1 if inside.size else longest
    # A periodic window may begin with a zero that belongs to it.
    spans = dict.fromkeys(n for n in range(span, span + 4) if n <= longest)
    for length, name in itertools.product([longest, *spans], _WINDOWS):
        values = np.zeros(longest)
        left = (longest - length) // 2
        values[left : left + length] = get_window(name, length)
        if np.abs(values - window).max() <= 1e-4 * np.abs(window).max():
            return name, length
    raise ParameterError(
        f"frontend: the window of the model's STFT is none of {', '.join(_WINDOWS)}; "
        f"{_what_to_give(graph)}"
    )


# ---- what lies behind it ----


def _reached(graph: Graph, values: Sequence[str]) -> list[Node]:
    """The nodes that work on an STFT, up to the first with a learned kernel."""
    known, nodes = set(values), list[Node]()
    for node in graph.nodes:
        if not known.intersection(node.inputs) or known.issuperset(node.outputs):
            continue
        if node.op in ("Conv", "Gemm", "ConvTranspose", "GRU", "LSTM"):
            break
        nodes.append(node)
        known.update(node.outputs)
    return nodes


def _values_up_to_learning(graph: Graph, reached: Sequence[Node]) -> list[str]:
    return [
        name for node in reached for name in node.outputs
        if len(graph.shapes.get(name, ())) >= 2 and np.prod(graph.shapes[name]) > 1
    ]


def _filters(
    graph: Graph, reached: Sequence[Node], stft: _Stft
) -> tuple[str, Array] | None:
    """The constant matrix that a MatMul multiplies the spectrum by, (bands, bins)."""
    bins = stft.n_fft // 2 + 1
    for node in reached:
        for name in node.inputs if node.op == "MatMul" else ():
            matrix = graph.constants.get(name)
            if matrix is None:
                continue
            plain = matrix.reshape([n for n in matrix.shape if n > 1] or [1])
            if plain.ndim == 2 and bins in plain.shape and plain.min() >= 0:
                return name, plain if plain.shape[1] == bins else plain.T
    return None


def _scales(
    graph: Graph, reached: Sequence[Node], gains: Sequence[float]
) -> Iterator[Any]:
    """Scales to be tried, those with constants of the graph first.

    `gains` are those by which the spectrogram is multiplied before.
    """
    numbers = [
        _written(value) for node in reached for name in node.inputs
        if (value := graph.scalar(name)) is not None and 0 < value < np.inf
    ]
    numbers += [
        _written(value) for node in reached
        if isinstance(value := node.attributes.get("min"), (int, float)) and 0 < value < np.inf
    ]
    small = list(dict.fromkeys([*(n for n in numbers if n < 0.5), *_FLOORS]))
    within = [*dict.fromkeys(n for n in numbers if n >= 1), 1.0, 10000.0]
    tops = [*dict.fromkeys(n for n in numbers if n >= 20), *_TOP_DB]
    logs = [
        record for floor in small for record in (
            {"type": "log", "floor": floor},
            {"type": "log", "offset": floor, "floor": min(floor, 1e-10)},
        )
    ]
    logs += [{**record, "gain": gain} for gain in gains for record in logs]
    decibels = [
        {"type": "db", "ref": 1.0, "amin": floor, "top_db": top}
        for floor, top in itertools.product(small, (None, *dict.fromkeys(tops)))
    ]
    yield "linear"
    # Up to an affine they are the same; the model's own constants say which it means.
    yield from decibels + logs if {10.0, 20.0}.intersection(numbers) else logs + decibels
    for gain in dict.fromkeys(within):
        yield {"type": "log", "gain": gain, "offset": 1.0}


def _written(value: float) -> float:
    """A number of float32 as somebody wrote it, 1e-10 and not 1.000000013351432e-10."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value))) if np.isfinite(np.float32(value)) else value


# ---- numbers ----


def _gains(
    values: Sequence[str], found: Sequence[Sequence[Array]],
    settings: Sequence[tuple[dict[str, Any], list[Array]]],
) -> list[float]:
    """By what spectrograms are multiplied before their logarithm is taken."""
    gains = []
    for place, value in enumerate(values):
        wanted = [arrays[place] for arrays in found]
        for fields, spectrograms in settings:
            fit = _fitted(value, wanted, spectrograms, ["linear"], fields["power"])
            if fit is not None and fit.off <= _EXACT and fit.normalize is not None:
                gains.append(fit.normalize["scale"])
    return list(dict.fromkeys(float(f"{gain:.6g}") for gain in gains))


def _sounds(shape: Sequence[int]) -> list[Array]:
    """Noise, a chirp, noise so soft that floors show, and one that fades until cuts show.

    In the shape of the input. They begin with silence, so that it does not matter what comes
    before the first sample.
    """
    count = int(np.prod(shape))
    if count != max(shape):
        raise ParameterError(
            f"frontend: the model's input {shown(tuple(shape))} is no row of samples"
        )
    time = np.arange(count) / count
    noise = np.random.default_rng(0).normal(0, 0.1, count)
    noise[:2] = 0
    # Not alone: where nothing is, only the rounding of float32 would be compared.
    chirp = 0.3 * np.sin(np.pi * 0.45 * count * time**2) * (noise != 0) + noise / 5
    sounds = (noise, chirp, 1e-4 * noise, noise * 10 ** (-7 * time))
    return [x.astype(np.float32).reshape(shape) for x in sounds]


def _settings(
    graph: Graph, stft: _Stft, sr: float, window: str, win_length: int,
    filters: Array | None, samples: Sequence[Array],
) -> Iterator[tuple[dict[str, Any], list[Array]]]:
    """Fields of front ends without scale, and the spectrograms (rows, T) they give."""
    kinds: list[dict[str, Any]] = [{"kind": "stft"}]
    if filters is not None:
        kinds.insert(0, {"kind": "filters", "filters": filters})
    bins = stft.n_fft // 2 + 1
    kinds += [{"kind": "stft", "bins": part} for part in ((1, bins - 1), (0, bins - 2))]
    ends = [("reflect", True), ("constant", True), ("constant", False)]
    for preemphasis, kind, power, (pad_mode, center) in itertools.product(
        _preemphases(graph, stft), kinds, (2.0, 1.0), ends
    ):
        fields = {
            **kind, "sr": sr, "n_fft": stft.n_fft, "hop_length": stft.hop, "window": window,
            "win_length": win_length, "power": power, "pad_mode": pad_mode, "center": center,
            **({"preemphasis": preemphasis} if preemphasis else {}),
        }
        try:
            clips = [Clip(x.ravel(), sr, Frontend(**fields)) for x in samples]
        except (AudioError, ValueError):  # too short to be padded so
            continue
        yield fields, [clip.x[0].astype(np.float64) for clip in clips]


def _preemphases(graph: Graph, stft: _Stft) -> list[float]:
    """0, and numbers by which samples before the STFT may be multiplied."""
    needed, found = set(stft.values), [0.0]
    for node in reversed(graph.nodes):
        if not needed.intersection(node.outputs):
            continue
        needed.update(node.inputs)
        kernel = graph.constants.get(node.input(1)) if node.op == "Conv" else None
        if kernel is not None and kernel.size == 2 and kernel.reshape(-1)[1] != 0:
            before, now = kernel.reshape(-1).astype(float)
            found.append(-before / now)
        elif node.op == "Mul":
            found += [abs(n) for name in node.inputs if (n := graph.scalar(name)) is not None]
    return list(dict.fromkeys(_written(n) for n in found if 0 <= n < 1))


def _letters(shape: Sequence[int], plane: Sequence[int]) -> Letters | None:
    """What the axes of a value are, for a plane (F, T); the likely ones where both are as long."""
    long = [n for n in shape if n > 1]
    orders = [order for order in ("FT", "TF") if long == [
        n for letter in order if (n := plane["FT".index(letter)]) > 1
    ]]
    if not orders or len(shape) < 2:
        return None
    order = [letter for letter in orders[0] if plane["FT".index(letter)] > 1]
    return tuple(order.pop(0) if n > 1 else None for n in shape)


def _fitted(
    value: str, wanted: Sequence[Array], spectrograms: Sequence[Array], scales: Sequence[Any],
    power: float,
) -> _Fit | None:
    """The best scale and affine with which spectrograms (F, T) give a value; None if none can."""
    letters = _letters(wanted[0].shape, spectrograms[0].shape)
    if letters is None:
        return None
    order = "".join(letter for letter in letters if letter)
    shape = spectrograms[0].shape
    planes = [
        x.reshape(shape) if order != "TF" else x.reshape(shape[::-1]).T for x in wanted
    ]
    y = np.concatenate([plane.ravel() for plane in planes]).astype(np.float64)
    if not np.isfinite(y).all() or np.ptp(y) == 0:
        return None
    # Whatever the scale, a larger value of the spectrogram gives no smaller one.
    largest = float(np.abs(y).max())
    if any(_falls(p, s) > _HOPELESS * largest for p, s in zip(planes, spectrograms)):
        return None
    best: _Fit | None = None
    for scale in scales:
        off, normalize = _affine(y, _scaled_planes(spectrograms, scale, power), largest)
        fit = _Fit(off, scale, normalize, letters, value)
        if best is None or (_preferred(fit, best) and (off < best.off / 2 or normalize is None)):
            best = fit
        if off <= _EXACT and normalize is None:
            break
    return best if best is not None and np.isfinite(best.off) else None


def _falls(plane: Array, spectrogram: Array) -> float:
    """How far values fall where those of the spectrogram rise."""
    rising = plane.ravel()[np.argsort(spectrogram, axis=None, kind="stable")].astype(np.float64)
    return float((np.maximum.accumulate(rising) - rising).max())


def _scaled_planes(spectrograms: Sequence[Array], scale: Any, power: float) -> Array:
    with np.errstate(all="ignore"):
        checked = check_scale(scale, power)
        return np.concatenate([
            scaled(s.T, power, checked, None).T.astype(np.float64).ravel() for s in spectrograms
        ])


def _affine(y: Array, x: Array, largest: float) -> tuple[float, dict[str, Any] | None]:
    """How far off x is with the best scale and shift, and these; None where it needs none."""
    if not np.isfinite(x).all() or np.ptp(x) == 0:
        return np.inf, None
    slope, shift = np.polyfit(x, y, 1)
    if slope <= 0:
        return np.inf, None
    # The simplest that is as good as the best, but for rounding.
    affines = [
        (1.0, 0.0), (float(x @ y / (x @ x)), 0.0), (1.0, float(np.mean(y - x))),
        (float(slope), float(shift)),
    ]
    offs = [float(np.abs(a * x + b - y).max()) / largest for a, b in affines]
    best = next(i for i, off in enumerate(offs) if off <= max(_EXACT, 1.5 * offs[-1]))
    scale, shift = affines[best]
    return offs[best], None if best == 0 else {"type": "affine", "scale": scale, "shift": shift}


def sample_rate(frontend: Any) -> float | None:
    """The rate in Hz, if a record says nothing else: the front end is then in the model.

    Raises
    ------
    ParameterError
        If the rate is not a number above 0.
    """
    if isinstance(frontend, Mapping) and set(frontend) == {"sr"}:
        return as_number("frontend: sr", frontend["sr"], above=0)
    return None
