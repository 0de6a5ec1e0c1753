"""The definitions of belief once more: plain, slow, float64, and nothing of the package in them.

Every function takes `wrong`, the name of one way to get it wrong ("" for right). `WRONG` lists
them; the tests show that the package agrees with the right ones and with none of the others.
"""
# ruff: noqa: N803  (names as in the definitions)

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Spans = list[tuple[int, int]]

WRONG: dict[str, tuple[str, ...]] = {
    "spans": ("ceil", "floor", "half to even", "last one short"),
    "band mean": ("of everything", "over bands", "median"),
    "silence": ("of each band", "zero"),
    "log odds": (
        "score", "log probability", "probability", "best other", "of mean scores",
        "one output by softmax",
    ),
    "probability": ("of mean scores", "softmax for sigmoid", "largest place"),
    "slopes": ("of the score", "its own share kept", "summed over places"),
    "spread": ("sum", "last patch"),
    "agreement": (
        "all patches", "brightness alone is seen", "tiny drops kept", "ties in order", "no ranks",
        "signed for where", "size for support", "clip for map", "no root",
    ),
    "selectivity": (
        "ties lose", "ties win", "silent ones count", "itself counts", "rows for columns",
        "absolute answers",
    ),
    "distance": ("signed maps", "cosine", "least alike", "silent control counts"),
    "verdict": ("strictly above", "no first", "one is enough", "nan is no", "without nearest"),
    "integrated gradients": (
        "left ends", "right ends", "both ends", "from zero", "from band means", "of the score",
        "gradients alone", "at the input",
    ),
    "gradient x deviation": ("times input", "of the score", "signs lost"),
    "cam": ("no rectifier", "sums", "of the score"),
    "bilinear": ("nearest", "corners aligned"),
    "one at the class": ("its score", "log odds", "as a gradient"),
    "occlusion": (
        "of the score", "of the probability", "rises", "filled with silence", "sizes",
        "one channel at a time",
    ),
    "blur": ("half as wide", "edges repeated", "edges dark", "never rectified"),
    "flipping": (
        "ties backwards", "least is most turned round", "half to even", "ceil", "rectangles",
        "sums of patches", "sizes of values", "log odds", "minus",
    ),
    "own mask": ("sizes", "from the smallest", "cut at one"),
    "top mask": ("ceil", "last of ties", "all ties", "sizes", "of every frame"),
    "sound": (
        "not cut at zero", "share of what is left", "gain of the probability", "kept for left",
        "probabilities twice", "class stays",
    ),
    "energy": ("amplitudes", "of the mask"),
    "sps": ("signed", "from zero", "not by their number"),
    "comp": ("bits", "squares", "signed"),
}


# ---- 1. patches, fills, scores ----


def spans(n: int, patch: int, stride: int, wrong: str = "") -> Spans:
    p = min(patch, n)
    steps = (n - p) / stride
    count = {
        "ceil": math.ceil(steps), "floor": math.floor(steps), "half to even": round(steps)
    }.get(wrong, math.floor(steps + 0.5))
    count = max(1, count + 1)
    ends = [min(n, i * stride + p) for i in range(count)]
    if wrong != "last one short":
        ends[-1] = n
    return [(i * stride, end) for i, end in enumerate(ends)]


def boxes(shape: Sequence[int], patch: int = 16) -> list[tuple[slice, slice]]:
    rows, columns = (spans(n, patch, patch) for n in shape)
    return [(slice(*r), slice(*c)) for r in rows for c in columns]


def band_mean(x: Array, wrong: str = "") -> Array:
    if wrong == "median":
        return np.broadcast_to(np.median(x, axis=2, keepdims=True), x.shape)
    axis: Any = {"of everything": None, "over bands": 1}.get(wrong, 2)
    return np.broadcast_to(x.mean(axis=axis, keepdims=True), x.shape)


def silence(x: Array, wrong: str = "") -> Array:
    if wrong == "zero":
        return np.zeros(x.shape)
    axis: Any = 2 if wrong == "of each band" else None
    return np.broadcast_to(x.min(axis=axis, keepdims=True), x.shape)


def log_odds(kind: str, z: Array, c: int, wrong: str = "") -> float:
    """Of scores (classes, places)."""
    if wrong == "score":
        return float(z[c].mean())
    if wrong == "of mean scores":
        z = z.mean(axis=1, keepdims=True)
    if wrong == "one output by softmax" and len(z) == 1:
        return math.inf
    if wrong == "probability":
        return probability(kind, z, c)
    if kind == "sigmoid" or len(z) == 1:
        return float(z[c].mean())
    found = []
    for place in z.T:
        others = [place[j] for j in range(len(place)) if j != c or wrong == "log probability"]
        if wrong == "best other":
            found.append(place[c] - max(others))
        else:
            found.append(place[c] - math.log(sum(math.exp(v) for v in others)))
    return float(np.mean(found))


def probability(kind: str, z: Array, c: int, wrong: str = "") -> float:
    if wrong == "of mean scores":
        z = z.mean(axis=1, keepdims=True)
    if (kind == "sigmoid" or len(z) == 1) and not (wrong == "softmax for sigmoid" and len(z) > 1):
        found = [1 / (1 + math.exp(-v)) for v in z[c]]
    else:
        found = [math.exp(place[c]) / sum(math.exp(v) for v in place) for place in z.T]
    return max(found) if wrong == "largest place" else float(np.mean(found))


def slopes(kind: str, z: Array, c: int, wrong: str = "") -> Array:
    """The derivative of `log_odds`: (classes, places)."""
    found = np.zeros(z.shape)
    if kind != "sigmoid" and len(z) > 1 and wrong != "of the score":
        for i, place in enumerate(z.T):
            among = [j for j in range(len(z)) if j != c or wrong == "its own share kept"]
            total = sum(math.exp(place[j]) for j in among)
            for j in among:
                found[j, i] -= math.exp(place[j]) / total
    found[c] = found[c] + 1 if wrong == "its own share kept" else 1
    return found if wrong == "summed over places" else found / z.shape[1]


def spread(
    shape: tuple[int, int], rows: Spans, columns: Spans, drops: Array, wrong: str = ""
) -> Array:
    total, count = np.zeros(shape), np.zeros(shape)
    for i, (lo, hi) in enumerate(rows):
        for j, (begin, end) in enumerate(columns):
            if wrong == "last patch":
                total[lo:hi, begin:end], count[lo:hi, begin:end] = drops[i, j], 1
            else:
                total[lo:hi, begin:end] += drops[i, j]
                count[lo:hi, begin:end] += 1
    return total if wrong == "sum" else total / count


# ---- agreement ----


def pearson(a: Sequence[float] | Array, b: Sequence[float] | Array) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm else math.nan


def ranks(values: Sequence[float], wrong: str = "") -> list[float]:
    if wrong == "no ranks":
        return list(values)
    if wrong == "ties in order":
        order = sorted(range(len(values)), key=lambda i: (values[i], i))
        return [float(order.index(i)) for i in range(len(values))]
    return [sum(v < own for v in values) + (sum(v == own for v in values) + 1) / 2
            for own in values]


def agreement(P: Array, X: Array, d: Array, A: float, wrong: str = "") -> dict[str, float]:
    """Of one feature: sizes of its map, loudness and drops patch by patch; its activation."""
    names = "where", "support", "input_where", "beyond_input"
    nothing = dict.fromkeys(names, math.nan)
    counts = [abs(v) > max(1e-6 * abs(A), 1e-9 * max(abs(d))) for v in d]
    if wrong == "tiny drops kept":
        counts = [v != 0 for v in d]
    drop = [float(v) if is_one else 0.0 for v, is_one in zip(d, counts)]
    seen = [i for i in range(len(P)) if P[i] > 0 or counts[i]]
    if wrong == "all patches":
        seen = list(range(len(P)))
    elif wrong == "brightness alone is seen":
        seen = [i for i in range(len(P)) if P[i] > 0]
    if len(seen) < 3 or not any(P) or not any(counts):
        return nothing
    size, loud = [float(P[i]) for i in seen], [float(X[i]) for i in seen]
    if wrong == "clip for map":
        size = loud
    signed = [drop[i] for i in seen]
    plain = signed if wrong == "signed for where" else [abs(v) for v in signed]

    def rho(a: Sequence[float], b: Sequence[float]) -> float:
        return pearson(ranks(a, wrong), ranks(b, wrong))

    where, of_input, between = rho(size, plain), rho(loud, plain), rho(size, loud)
    left = (1 - between**2) * (1 - of_input**2)
    norm = left if wrong == "no root" else math.sqrt(max(0.0, left))
    return {
        "where": where,
        "support": rho(size, [abs(v) for v in signed] if wrong == "size for support" else signed),
        "input_where": of_input,
        "beyond_input": (where - between * of_input) / norm if norm > 1e-6 else math.nan,
    }


# ---- 2. selectivity ----


def selectivity(Q: Array, silent: Array, k: int, wrong: str = "") -> dict[str, float]:
    if silent[k]:
        return dict.fromkeys(("reactivation", "among_sounds", "among_features"), math.nan)
    others = [
        j for j in range(len(Q))
        if (j != k or wrong == "itself counts") and (not silent[j] or wrong == "silent ones count")
    ]
    tie = {"ties lose": 0.0, "ties win": 1.0}.get(wrong, 0.5)

    def share(values: list[float], own: float) -> float:
        wins = [
            tie if abs(v - own) <= 1e-5 * max(abs(v), abs(own)) else float(v < own)
            for v in values
        ]
        return float(np.mean(wins)) if wins else math.nan

    sounds, features = [Q[j, k] for j in others], [Q[k, j] for j in others]
    if wrong == "rows for columns":
        sounds, features = features, sounds
    own = float(Q[k, k])
    return {
        "reactivation": 1 / own if wrong == "absolute answers" and own else own,
        "among_sounds": share(sounds, own), "among_features": share(features, own),
    }


# ---- 3. the distance from a control ----


def distance(maps: Array, others: Array, A: Array, B: Array, wrong: str = "") -> Array:
    """`same` and `nearest` of every feature: (K, 2). A, B: activations of both networks."""
    if wrong != "signed maps":
        maps, others = abs(maps), abs(others)
    alive = [j for j in range(len(B)) if B[j] > 1e-6 * B.max() or wrong == "silent control counts"]
    found = np.full((len(maps), 2), math.nan)

    def alike(a: Array, b: Array) -> float:
        if wrong == "cosine":
            norm = math.sqrt((a**2).sum() * (b**2).sum())
            return float((a * b).sum() / norm) if norm else math.nan
        return pearson(a.ravel(), b.ravel())

    for k in range(len(maps)):
        if not A[k] > 1e-6 * A.max():
            continue
        every = {j: alike(maps[k], others[j]) for j in alive}
        every = {j: 0.0 if math.isnan(r) else r for j, r in every.items()}
        if k in every:
            found[k, 0] = 1 - every[k]
        if every:
            best = min(every.values()) if wrong == "least alike" else max(every.values())
            found[k, 1] = 1 - best
    return found


# ---- 4. the word ----


def verdict(row: Mapping[str, float], *, silent: bool, wrong: str = "") -> str:
    names = ["nearest", "where", "reactivation", "among_sounds"]
    high = dict(zip(names, (0.5, 0.5, 0.8, 0.75)))
    low = dict(zip(names, (0.4, 0.3, 0.5, 0.5)))
    if silent:
        return "silent"
    if wrong == "without nearest":
        names = names[1:]
    if any(math.isnan(row[name]) for name in names):
        return "no" if wrong == "nan is no" else "unsure"
    is_high = [
        row[name] > high[name] if wrong == "strictly above" else row[name] >= high[name]
        for name in names
    ]
    is_low = any(row[name] < low[name] for name in names)
    if wrong == "no first" and any(row[name] < high[name] for name in names):
        return "no"
    if any(is_high) if wrong == "one is enough" else all(is_high):
        return "yes"
    return "no" if is_low else "unsure"


# ---- 5. rules: a network of two convolutions, float64 ----


class Net(NamedTuple):
    """Two times [convolution 3 x 3, ReLU, pool of 2], the mean over places, a linear layer."""

    weight1: Array
    bias1: Array
    weight2: Array
    bias2: Array
    weight: Array
    bias: Array

    def forward(self, x: Array) -> dict[str, Any]:
        """All layers for an input (C, H, W); scores (classes, 1) are "z"."""
        t: dict[str, Any] = {"x": x}
        t["relu1"] = np.maximum(convolved(x, self.weight1) + self.bias1[:, None, None], 0)
        t["pool1"], t["at1"] = pooled(t["relu1"])
        t["relu2"] = np.maximum(convolved(t["pool1"], self.weight2) + self.bias2[:, None, None], 0)
        t["pool2"], t["at2"] = pooled(t["relu2"])
        t["z"] = (self.weight @ t["pool2"].mean(axis=(1, 2)) + self.bias)[:, None]
        return t

    def scores(self, x: Array) -> Array:
        return np.asarray(self.forward(x)["z"])

    def back(self, t: Mapping[str, Any], start: Array, rule: str, to: str = "x") -> Array:
        """From the scores to the input, or to "relu1"."""
        size = t["pool2"].shape
        R = np.broadcast_to((self.weight.T @ start)[:, None, None], size) / (size[1] * size[2])
        R = rectified(unpooled(R, t["at2"], t["relu2"].shape), t["relu2"], rule)
        R = unpooled(convolved_back(R, self.weight2), t["at1"], t["relu1"].shape)
        if to == "relu1":
            return R
        return convolved_back(rectified(R, t["relu1"], rule), self.weight1)


def convolved(x: Array, weight: Array) -> Array:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    h, w = x.shape[1:]
    return sum(
        (np.einsum("oc,chw->ohw", weight[:, :, i, j], padded[:, i : i + h, j : j + w])
         for i in range(3) for j in range(3)),
        np.zeros((len(weight), h, w)),
    )


def convolved_back(R: Array, weight: Array) -> Array:
    h, w = R.shape[1:]
    found = np.zeros((weight.shape[1], h + 2, w + 2))
    for i in range(3):
        for j in range(3):
            found[:, i : i + h, j : j + w] += np.einsum("oc,ohw->chw", weight[:, :, i, j], R)
    return found[:, 1:-1, 1:-1]


def pooled(a: Array) -> tuple[Array, Array]:
    c, h, w = a.shape[0], a.shape[1] // 2, a.shape[2] // 2
    cells = a[:, : 2 * h, : 2 * w].reshape(c, h, 2, w, 2).transpose(0, 1, 3, 2, 4)
    cells = cells.reshape(c, h, w, 4)
    return cells.max(axis=3), cells.argmax(axis=3)  # the first of equal ones


def unpooled(R: Array, at: Array, shape: tuple[int, ...]) -> Array:
    found = np.zeros(shape)
    for c, i, j in np.ndindex(*R.shape):
        row, column = divmod(int(at[c, i, j]), 2)
        found[c, 2 * i + row, 2 * j + column] = R[c, i, j]
    return found


def rectified(R: Array, a: Array, rule: str) -> Array:
    if rule != "gradient":
        R = np.maximum(R, 0)
    return R if rule == "deconvnet" else np.where(a > 0, R, 0)


def gradient(net: Net, kind: str, x: Array, c: int, wrong: str = "") -> Array:
    t = net.forward(x)
    return net.back(t, slopes(kind, t["z"], c, wrong)[:, 0], "gradient")


def integrated_gradients(
    net: Net, kind: str, x: Array, c: int, n: int, wrong: str = ""
) -> Array:
    base = silence(x)
    if wrong == "from zero":
        base = np.zeros(x.shape)
    elif wrong == "from band means":
        base = band_mean(x)
    shares = {
        "left ends": [k / n for k in range(n)], "right ends": [(k + 1) / n for k in range(n)],
        "both ends": [k / (n - 1) for k in range(n)], "at the input": [1.0],
    }.get(wrong, [(k + 0.5) / n for k in range(n)])
    mean = np.mean([gradient(net, kind, base + s * (x - base), c, wrong) for s in shares], axis=0)
    return np.asarray((mean if wrong == "gradients alone" else mean * (x - base)).sum(axis=0))


def gradient_x_deviation(net: Net, kind: str, x: Array, c: int, wrong: str = "") -> Array:
    by = x if wrong == "times input" else x - band_mean(x)
    g = gradient(net, kind, x, c, wrong)
    return np.asarray(((abs(g) if wrong == "signs lost" else g) * by).sum(axis=0))


def cam(net: Net, kind: str, x: Array, c: int, wrong: str = "") -> Array:
    t = net.forward(x)
    g = net.back(t, slopes(kind, t["z"], c, wrong)[:, 0], "gradient", "relu1")
    weights = g.sum(axis=(1, 2)) if wrong == "sums" else g.mean(axis=(1, 2))
    coarse = np.einsum("c,chw->hw", weights, t["relu1"])
    return bilinear(coarse if wrong == "no rectifier" else np.maximum(coarse, 0), x.shape[1:])


def bilinear(a: Array, size: Sequence[int], wrong: str = "") -> Array:
    found = np.zeros(size)
    for place in np.ndindex(*size):
        at = []
        for i, n, m in zip(place, a.shape, size):
            if wrong == "corners aligned":
                at.append(i * (n - 1) / (m - 1))
            else:
                at.append(min(max((i + 0.5) * n / m - 0.5, 0), n - 1))
        if wrong == "nearest":
            at = [float(math.floor(v + 0.5)) for v in at]
        for (i, p), (j, q) in itertools.product(*(
            ((math.floor(v), 1 - v % 1), (math.floor(v) + 1, v % 1)) for v in at
        )):
            if p * q > 0:
                found[place] += p * q * a[i, j]
    return found


def one_at_the_class(net: Net, kind: str, x: Array, c: int, rule: str, wrong: str = "") -> Array:
    t = net.forward(x)
    start = np.zeros(len(t["z"]))
    start[c] = t["z"][c, 0] if wrong == "its score" else 1
    if wrong == "log odds":
        start = slopes(kind, t["z"], c)[:, 0]
    return net.back(t, start, "gradient" if wrong == "as a gradient" else rule).sum(axis=0)


def occlusion(net: Net, kind: str, x: Array, c: int, wrong: str = "") -> Array:
    shape = x.shape[1], x.shape[2]
    rows, columns = (spans(n, 16, 16) for n in shape)
    filled = silence(x) if wrong == "filled with silence" else band_mean(x)
    judge: Any = probability if wrong == "of the probability" else log_odds
    name = "score" if wrong == "of the score" else ""

    def score(values: Array) -> float:
        return float(judge(kind, net.scores(values), c, name))

    drops = np.zeros((len(rows), len(columns)))
    for i, j in np.ndindex(*drops.shape):
        now = np.array(x)
        every = slice(1) if wrong == "one channel at a time" else slice(None)
        place = every, slice(*rows[i]), slice(*columns[j])
        now[place] = filled[place]
        drops[i, j] = score(x) - score(now)
    if wrong == "rises":
        drops = -drops
    return spread(shape, rows, columns, abs(drops) if wrong == "sizes" else drops)


def blurred(e: Array, method: str, wrong: str = "") -> Array:
    """Gaussian of sigma 8 up to 4 sigma, edges reflected."""
    if method in ("cam", "occlusion"):
        return e
    if method in ("guided", "deconvnet") and wrong != "never rectified":
        e = np.maximum(e, 0)
    sigma = 4 if wrong == "half as wide" else 8
    offsets = np.arange(-4 * sigma, 4 * sigma + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        n = e.shape[axis]
        lines = []
        for i in range(n):
            total = np.zeros(e.shape[1 - axis])
            for offset, weight in zip(offsets, weights):
                at = i + offset
                if wrong == "edges dark" and not 0 <= at < n:
                    continue
                if wrong == "edges repeated":
                    at = min(max(at, 0), n - 1)
                at %= 2 * n
                total += weight * e.take(at if at < n else 2 * n - 1 - at, axis)
            lines.append(total)
        e = np.stack(lines, axis)
    return e


# ---- numbers of a map ----


def flipping(
    scores: Any, kind: str, x: Array, e: Array, c: int, fill: str, wrong: str = ""
) -> dict[str, float]:
    """`scores(x)` are (classes, places)."""
    places = boxes(e.shape)
    values = abs(e) if wrong == "sizes of values" else e
    mean = np.sum if wrong == "sums of patches" else np.mean
    size = [float(mean(values[place])) for place in places]
    last = -1 if wrong == "ties backwards" else 1
    largest = sorted(range(len(size)), key=lambda i: (-size[i], last * i))
    smallest = sorted(range(len(size)), key=lambda i: (size[i], last * i))
    if wrong == "least is most turned round":
        smallest = largest[::-1]
    filled = band_mean(x) if fill == "band_mean" else silence(x)
    rounding: Any = {"half to even": round, "ceil": math.ceil}.get(
        wrong, lambda v: math.floor(v + 0.5)
    )
    judge: Any = log_odds if wrong == "log odds" else probability

    def area(order: list[int]) -> float:
        curve = []
        for k in range(11):
            now = np.array(x)
            for i in order[: rounding(k * len(order) / 10)]:
                place = (slice(None), *places[i])
                now[place] = filled[place]
            curve.append(judge(kind, scores(now), c))
        if wrong == "rectangles":
            return sum(curve[:-1]) / 10
        return sum((a + b) / 2 / 10 for a, b in itertools.pairwise(curve))

    morf, lerf = area(largest), area(smallest)
    return {"srg": morf - lerf if wrong == "minus" else lerf - morf, "morf": morf, "lerf": lerf}


def own_mask(e: Array, wrong: str = "") -> Array:
    if wrong == "sizes":
        e = abs(e)
    if wrong == "from the smallest":
        e = e - e.min()
    if wrong == "cut at one":
        return np.clip(e, 0, 1)
    largest = e.max()
    return np.maximum(e, 0) / largest if largest > 0 else np.zeros(e.shape)


def top_mask(e: Array, wrong: str = "") -> Array:
    values = abs(e) if wrong == "sizes" else e
    count = math.floor(0.2 * e.size + 0.5)
    if wrong == "ceil":
        count = math.ceil(0.2 * e.size)
    if wrong == "of every frame":
        return np.stack([top_mask(column[None])[0] for column in values.T], axis=1)
    last = -1 if wrong == "last of ties" else 1
    order = sorted(range(e.size), key=lambda i: (-values.flat[i], last * i))
    mask = np.zeros(e.size)
    mask[order[:count]] = 1
    if wrong == "all ties" and count:
        mask[:] = values.ravel() >= values.flat[order[count - 1]]
    return mask.reshape(e.shape)


def of_the_sound(
    kind: str, z: Array, kept: Array, left: Array, c: int, wrong: str = ""
) -> dict[str, float]:
    """From scores of the clip, of the sound of what a map keeps, and of what it leaves."""
    def p_of(scores: Array) -> Array:
        if wrong == "probabilities twice":
            once = [probability(kind, scores, i) for i in range(len(scores))]
            scores = np.array(once)[:, None]
        return np.array([probability(kind, scores, i) for i in range(len(scores))])

    def winner(p: Array) -> int:
        return int(p[0] < 0.5) if len(p) == 1 else int(np.argmax(p))

    p, p_in, p_out = p_of(z), p_of(kept), p_of(left)
    drop, gain = p[c] - p_in[c], p_in[c] - p[c]
    if wrong != "not cut at zero":
        drop, gain = max(0.0, drop), max(0.0, gain)
    by = p_in[c] if wrong == "share of what is left" else p[c]
    rest = p[c] if wrong == "gain of the probability" else 1 - p[c]
    return {
        "ad": 100 * drop / by, "ai": 100.0 if p_in[c] > p[c] else 0.0, "ag": 100 * gain / rest,
        "ff": p[c] - (p_in if wrong == "kept for left" else p_out)[c],
        "fid_in": float(winner(p_in) == (c if wrong == "class stays" else winner(p))),
    }


def energy(S: Array, mask: Array, wrong: str = "") -> float:
    power = abs(S) ** (1 if wrong == "amplitudes" else 2)
    weights = mask ** (1 if wrong == "amplitudes" else 2)
    if wrong == "of the mask":
        return float(weights.mean())
    return float((power * weights).sum() / power.sum()) if power.any() else math.nan


def sps(e: Array, wrong: str = "") -> float:
    v = sorted(float(value) if wrong == "signed" else abs(float(value)) for value in e.flat)
    n, first = len(v), 0 if wrong == "from zero" else 1
    if not any(v):
        return math.nan
    total = sum((2 * i - n - 1) * value for i, value in enumerate(v, first))
    return total / ((1 if wrong == "not by their number" else n) * sum(v))


def comp(e: Array, wrong: str = "") -> float:
    v = [abs(float(value)) for value in e.flat]
    if wrong == "squares":
        v = [value**2 for value in v]
    if wrong == "signed":
        v = [max(0.0, float(value)) for value in e.flat]
    if not any(v):
        return math.nan
    log = math.log2 if wrong == "bits" else math.log
    total = sum(v)
    shares = [value / total for value in v]
    return -sum(q * log(q) for q in shares if q > 0)
