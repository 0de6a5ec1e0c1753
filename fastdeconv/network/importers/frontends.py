"""Recognise a front end inside a model, by the structure of the graph and by numbers.

A model that takes samples computes its spectrogram with an STFT: the operator of that name, or
convolutions whose filters are a window times cosines and sines. A constant matrix (bins x
bands) after it becomes the filter matrix. Power, scale and affine are found by trial: those with
which our front end gives the values that the model computes for noise and a chirp.
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
from ...audio.frontend import MAX_N_FFT, Frontend
from ...audio.scaling import check_scale, scaled
from ...audio.stft import get_window
from ...errors import AudioError, ParameterError, shown
from .graph import Graph, Node
from .views import Letters, View

__all__ = ["Recognised", "begins_with_stft", "recognise", "sample_rate"]

Array = NDArray[Any]
Evaluate = Callable[[Array, Sequence[str]], list[Array]]
"""Takes an input and names of values of the model; returns these values."""

_AGREES = 1e-3
"""Largest accepted difference, as a share of the largest value."""
_EXACT = 1e-4
"""The same, for a difference by rounding alone."""
_HOPELESS = 0.02
"""Share of the largest value. If the model's values fall by more than this where the spectrogram
rises, no scale fits, and none is tried."""
_DFT = 1e-4
_LEAST_TAPS = 64
_MOST_FRAMING = 50
"""Convolutions among which pairs are tried: an STFT is at the beginning of a model."""
_AROUND_SAMPLES = ("Pad", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten")
"""Operators that leave samples what they are."""
_WINDOWS = ("hann", "hamming", "boxcar", "blackman", "bartlett", "blackmanharris")
_FLOORS = (1e-10, 1e-12, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
_TOP_DB = (80.0, 100.0, 60.0, 120.0)


class _Stft(NamedTuple):
    """An STFT that was found in a model."""

    n_fft: int
    hop: int
    window: Array
    values: tuple[str, ...]
    """Names of its outputs."""


def begins_with_stft(graph: Graph) -> bool:
    """Whether the model computes a spectrogram of samples."""
    return _find_stft(graph) is not None


class Recognised(NamedTuple):
    """A front end that was found in a model."""

    value: str
    """The name of its output in the model."""
    letters: Letters
    """For each axis of the output its letter, C, F or T; None for an axis of size 1."""
    frontend: Frontend
    samples: Array
    """A sound in the shape of the model's input."""

    def in_layout(self, view: View) -> Frontend:
        """The front end with the layout for a network that reads the output by `view`."""
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
    """How well, and by which scale and affine, a spectrogram gives a value of the model."""

    off: float
    """The largest difference divided by the largest value."""
    scale: Any
    normalize: dict[str, Any] | None
    letters: Letters
    value: str

    @property
    def agrees(self) -> bool:
        """Whether they agree; stricter with an affine, which may fit by chance."""
        return self.off <= (_AGREES if self.normalize is None else 3 * _EXACT)


def recognise(graph: Graph, sr: float, evaluate: Evaluate) -> Recognised:
    """The front end of a model that takes samples.

    Parameters
    ----------
    graph : Graph
    sr : float
        Sample rate in Hz.
    evaluate : callable
        Computes values of the model.

    Raises
    ------
    ParameterError
        If none is found, or no `Frontend` computes the same. The message says what was found and
        what to do.
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
    # Where there is none, the import below names what lies beside the beginning.
    values = [value for value in values if _is_only_way(graph, value)] or values
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
    """Whether a fit is better than another: first that agrees, then without affine, then closer."""
    keys = [
        (not fit.agrees, fit.agrees and fit.normalize is not None, fit.off)
        for fit in (one, other)
    ]
    return keys[0] < keys[1]


def _not_said(
    graph: Graph, stft: _Stft, window: tuple[str, int], matrix: tuple[str, Array] | None,
    closest: tuple[_Fit, dict[str, Any]] | None, sr: float,
) -> str:
    """The message about a front end that no `Frontend` can express."""
    text = (
        f"frontend: the model has an STFT (n_fft {stft.n_fft}, hop_length {stft.hop}, win_length "
        f"{window[1]}, window {window[0]!r})"
    )
    if matrix is not None:
        text += f" and a matrix of {matrix[1].shape[0]} bands ({shown(matrix[0])})"
    text += ", but no power, scale, affine, padding and pre-emphasis give the values it computes"
    changed = _changed_samples(graph, stft)
    resampled = "" if changed is None else (
        ". If what stands before the STFT only resamples, begin after it with the new rate: "
        f"inputs={changed!r}, frontend={{'sr': ...}}"
    )
    if closest is None:
        return f"{text}; {_what_to_give(graph, stft.values)}{resampled}"
    fit, fields = closest
    known = {"sr": sr} | {k: v for k, v in fields.items() if k not in ("sr", "filters")}
    known |= {"scale": fit.scale}
    if "filters" in fields:
        known["filters"] = _Written("MATRIX")
    said = ", ".join(f"{key}={value!r}" for key, value in known.items())
    return (
        f"{text}: the closest differs by {fit.off:.1e} of the largest value of "
        f"{shown(fit.value)}, wanted at most {_AGREES:.0e}. Give the front end that is nearest to "
        f"your own code and begin after it: inputs={fit.value!r}, frontend=Frontend({said})"
        f"{resampled}"
    )


def _changed_samples(graph: Graph, stft: _Stft) -> str | None:
    """The samples that the STFT is given, before their padding; None if they are the input."""
    node = graph.producer(stft.values[0])
    value = "" if node is None else node.input(0)
    while (before := graph.made_by(value, *_AROUND_SAMPLES)) is not None:
        value = before.input(0)
    return value if graph.producer(value) is not None else None


class _Written(str):
    """A text that appears in a call without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _what_to_give(graph: Graph, spectra: Sequence[str] | None = None) -> str:
    """The advice to give a front end, and the value after the spectrogram at which to begin."""
    if spectra is None:
        spectra = [
            name for node in graph.nodes if _is_framing(graph, node) for name in node.outputs
        ]
    behind = [
        name for node in _reached(graph, spectra) for name in node.outputs
        if len(graph.shapes.get(name, ())) >= 3
    ]
    advice = "give the whole front end, frontend=Frontend(...)"
    if behind:
        shape = " x ".join(map(str, graph.shapes[behind[-1]]))
        advice = (
            "give the front end of your own code, frontend=Frontend(...), and begin after it "
            f"with inputs={behind[-1]!r}, which is {shape}"
        )
    if not any(node.op in ("STFT", "DFT") for node in graph.nodes):
        advice += (
            "; or let its convolutions be layers and explain the samples, "
            "frontend=Frontend(kind='waveform', sr=...)"
        )
    return advice


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
    if not 2 <= n_fft <= MAX_N_FFT or hop < 1:
        return None
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
    """An STFT by one convolution (real parts, then imaginary parts), or by one for each."""
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
    """The name and the length of a window, which is centred in n_fft values."""
    window = stft.window
    inside = np.flatnonzero(np.abs(window) > 1e-9 * np.abs(window).max())
    longest = len(window)
    span = int(inside[-1] - inside[0]) + 1 if inside.size else longest
    # Zeros at the ends may belong to the window: a periodic window begins with one.
    spans = dict.fromkeys(n for n in range(span, span + 4) if n <= longest)
    for length, name in itertools.product([longest, *spans], _WINDOWS):
        values = np.zeros(longest)
        left = (longest - length) // 2
        values[left : left + length] = get_window(name, length)
        if np.abs(values - window).max() <= 1e-4 * np.abs(window).max():
            return name, length
    raise ParameterError(
        f"frontend: the window of the model's STFT is not one of {', '.join(_WINDOWS)}; "
        f"{_what_to_give(graph)}"
    )


# ---- what follows the STFT ----


def _reached(graph: Graph, values: Sequence[str]) -> list[Node]:
    """The nodes that depend on an STFT, up to the first with learned weights."""
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


def _is_only_way(graph: Graph, value: str) -> bool:
    """Whether an output is computed from a value and from nothing that lies beside it."""
    behind, beside = {value}, {graph.input}
    for node in graph.nodes:
        if value in node.outputs:
            continue
        for known in (behind, beside):
            if known.intersection(node.inputs):
                known.update(node.outputs)
    return any(name in behind and name not in beside for name in graph.outputs)


def _filters(
    graph: Graph, reached: Sequence[Node], stft: _Stft
) -> tuple[str, Array] | None:
    """The name and the matrix (bands, bins) that a MatMul multiplies the spectrum by."""
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
    """The scales to try; those with constants of the graph come first.

    `gains` are factors by which the spectrogram may be multiplied before its logarithm.
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
    # Decibels and logarithms differ only by an affine; the constants 10 and 20 mean decibels.
    yield from decibels + logs if {10.0, 20.0}.intersection(numbers) else logs + decibels
    for gain in dict.fromkeys(within):
        yield {"type": "log", "gain": gain, "offset": 1.0}


def _written(value: float) -> float:
    """A number of float32 as a person writes it: 1e-10, not 1.000000013351432e-10."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value))) if np.isfinite(np.float32(value)) else value


# ---- numbers ----


def _gains(
    values: Sequence[str], found: Sequence[Sequence[Array]],
    settings: Sequence[tuple[dict[str, Any], list[Array]]],
) -> list[float]:
    """The factors by which spectrograms are multiplied before their logarithm is taken."""
    gains = []
    for place, value in enumerate(values):
        wanted = [arrays[place] for arrays in found]
        for fields, spectrograms in settings:
            fit = _fitted(value, wanted, spectrograms, ["linear"], fields["power"])
            if fit is not None and fit.off <= _EXACT and fit.normalize is not None:
                gains.append(fit.normalize["scale"])
    return list(dict.fromkeys(float(f"{gain:.6g}") for gain in gains))


def _sounds(shape: Sequence[int]) -> list[Array]:
    """Test sounds in the shape of the input.

    They are noise, a chirp, noise so soft that it shows floors, and fading noise that shows
    `top_db`. All begin with silence, so that what comes before the first sample does not matter.
    """
    count = int(np.prod(shape))
    if count != max(shape):
        raise ParameterError(
            f"frontend: the model's input has the shape {shown(tuple(shape))}, wanted one row of "
            "samples"
        )
    time = np.arange(count) / count
    noise = np.random.default_rng(0).normal(0, 0.1, count)
    noise[:2] = 0
    # With some noise: where there is nothing, only the rounding of float32 would be compared.
    chirp = 0.3 * np.sin(np.pi * 0.45 * count * time**2) * (noise != 0) + noise / 5
    sounds = (noise, chirp, 1e-4 * noise, noise * 10 ** (-7 * time))
    return [x.astype(np.float32).reshape(shape) for x in sounds]


def _settings(
    graph: Graph, stft: _Stft, sr: float, window: str, win_length: int,
    filters: Array | None, samples: Sequence[Array],
) -> Iterator[tuple[dict[str, Any], list[Array]]]:
    """The fields of front ends to try, without scale, and the spectrograms (rows, T) they give."""
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
        except (AudioError, ValueError):  # for instance too short for this padding
            continue
        planes = [clip.x[0].astype(np.float64) for clip in clips]
        yield fields, planes
        frames = planes[0].shape[1]
        if frames > 1:  # Whisper and others drop the last one
            yield {**fields, "frames": frames - 1}, [plane[:, :-1] for plane in planes]


def _preemphases(graph: Graph, stft: _Stft) -> list[float]:
    """Possible pre-emphases: 0, and factors of samples before the STFT."""
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
    """The letters of the axes of a value for a plane (F, T); (F, T) if both are equally long."""
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
    """The best scale and affine to get a value from spectrograms (F, T); None if none fits."""
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
    # With every scale, a larger value of the spectrogram gives a larger or equal value.
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
    """By how much values fall where those of the spectrogram rise."""
    rising = plane.ravel()[np.argsort(spectrogram, axis=None, kind="stable")].astype(np.float64)
    return float((np.maximum.accumulate(rising) - rising).max())


def _scaled_planes(spectrograms: Sequence[Array], scale: Any, power: float) -> Array:
    with np.errstate(all="ignore"):
        checked = check_scale(scale, power)
        return np.concatenate([
            scaled(s.T, power, checked, None).T.astype(np.float64).ravel() for s in spectrograms
        ])


def _affine(y: Array, x: Array, largest: float) -> tuple[float, dict[str, Any] | None]:
    """The difference of x and y with the best scale and shift, and these; None if not needed."""
    if not np.isfinite(x).all() or np.ptp(x) == 0:
        return np.inf, None
    slope, shift = np.polyfit(x, y, 1)
    if slope <= 0:
        return np.inf, None
    # The simplest affine that is as good as the best one, except for rounding.
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
