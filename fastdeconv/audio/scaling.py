"""From STFT to network input: magnitude, scale, normalisation.

Everything is computed in float64 and rounded once to float32, so that equal
magnitudes stay equal and sums over a clip are exact enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError, ParameterError, shown
from ._checks import as_choice, as_int, as_number, check_keys

__all__ = [
    "DeltaLike", "NormalizeLike", "ScaleLike", "check_delta", "check_normalize", "check_scale",
    "magnitude", "scaled",
]

FloatArray = NDArray[np.float32]
Float64Array = NDArray[np.float64]
ScaleLike = str | dict[str, Any]
NormalizeLike = dict[str, Any] | None
DeltaLike = int | dict[str, Any] | None

_SCALES = ("linear", "power", "db", "log1p")
_MOST_BANDS = 1 << 20
_MOST_DELTA_WIDTH = 1001


def check_scale(scale: Any, power: float) -> ScaleLike:
    """Check the `scale` field and complete it with defaults.

    Parameters
    ----------
    scale : str or mapping
        See `fastdeconv.Frontend`.
    power : float
        Exponent of the magnitude; the default of ``amin`` depends on it.

    Raises
    ------
    ParameterError
        If the scale is wrong.
    """
    if isinstance(scale, str):
        if scale not in _SCALES:
            raise ParameterError(
                f"scale must be one of {', '.join(_SCALES)}, or a mapping with the type db or log, "
                f"found {shown(scale)}"
            )
        if scale == "power" and power not in (1.0, 2.0):
            raise ParameterError(
                f"scale 'power' is |S|^2 and goes with power 1 or 2, found power {power:g}"
            )
        return scale
    record = _typed_record("scale", scale, ("db", "log"))
    return _check_db(record, power) if record["type"] == "db" else _check_log(record)


def _typed_record(name: str, value: Any, types: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ParameterError(
            f"{name} must be a mapping with the type {' or '.join(types)}, found {shown(value)}"
        )
    as_choice(f"{name} type", value.get("type"), types)
    return dict(value)


def _check_db(record: dict[str, Any], power: float) -> dict[str, Any]:
    check_keys("scale db", record, ("type", "ref", "amin", "top_db"))
    ref, top_db = record.get("ref", "max"), record.get("top_db", 80.0)
    return {
        "type": "db",
        "ref": ref if isinstance(ref, str) and ref == "max" else _reference(ref),
        "amin": as_number("scale amin", record.get("amin", 1e-5**power), above=0),
        "top_db": None if top_db is None else as_number("scale top_db", top_db, above=0),
    }


def _reference(ref: Any) -> float:
    if isinstance(ref, str):
        raise ParameterError(f"scale ref must be 'max' or a number above 0, found {shown(ref)}")
    return as_number("scale ref", ref, above=0)


def _check_log(record: dict[str, Any]) -> dict[str, Any]:
    check_keys("scale log", record, ("type", "base", "gain", "offset", "floor"))
    base = as_number("scale base", record.get("base", math.e), above=0)
    if base == 1.0:
        raise ParameterError("scale base must not be 1, found 1")
    return {
        "type": "log",
        "base": base,
        "gain": as_number("scale gain", record.get("gain", 1.0), above=0),
        "offset": as_number("scale offset", record.get("offset", 0.0)),
        "floor": as_number("scale floor", record.get("floor", 1e-10), above=0),
    }


def check_normalize(normalize: Any) -> NormalizeLike:
    """Check the `normalize` field and complete it with defaults, or raise ParameterError."""
    if normalize is None:
        return None
    record = _typed_record("normalize", normalize, ("range", "standardize", "affine"))
    if record["type"] == "affine":
        check_keys("normalize affine", record, ("type", "scale", "shift"))
        scale, shift = (
            _numbers(f"normalize {key}", record.get(key, default))
            for key, default in (("scale", 1.0), ("shift", 0.0))
        )
        lists = [v for v in (scale, shift) if isinstance(v, list)]
        if len(lists) == 2 and len(lists[0]) != len(lists[1]):
            raise ParameterError(
                f"normalize scale and shift must both have one number for each band, found "
                f"{len(lists[0])} and {len(lists[1])} numbers"
            )
        return {"type": "affine", "scale": scale, "shift": shift}
    if record["type"] == "range":
        check_keys("normalize range", record, ("type", "low", "high"))
        low = as_number("normalize low", record.get("low", 0.0))
        high = as_number("normalize high", record.get("high", 1.0))
        if not low < high:
            raise ParameterError(f"normalize low must be below high, found {low:g} and {high:g}")
        return {"type": "range", "low": low, "high": high}
    check_keys("normalize standardize", record, ("type", "ddof", "per"))
    return {
        "type": "standardize",
        "ddof": as_int("normalize ddof", record.get("ddof", 0), minimum=0, maximum=1),
        "per": as_choice("normalize per", record.get("per", "clip"), ("clip", "band")),
    }


def check_delta(delta: Any) -> dict[str, Any] | None:
    """Check the `delta` field and complete it with defaults, or raise ParameterError."""
    if delta is None:
        return None
    record = dict(delta) if isinstance(delta, Mapping) else {"order": delta}
    check_keys("delta", record, ("order", "width", "mode"))
    order = as_int("delta order", record.get("order"), minimum=1, maximum=2)
    width = as_int(
        "delta width", record.get("width", 9), minimum=order + 1, maximum=_MOST_DELTA_WIDTH
    )
    if width % 2 == 0:
        raise ParameterError(f"delta width must be odd, found {width}")
    mode = as_choice("delta mode", record.get("mode", "interp"), ("interp", "nearest"))
    return {"order": order, "width": width, "mode": mode}


def _numbers(name: str, value: Any) -> float | list[float]:
    """Check a number, or a list with one number for each band."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        if not 0 < len(value) <= _MOST_BANDS:
            raise ParameterError(
                f"{name} must have one number for each band, found {len(value)} numbers"
            )
        return [as_number(name, item) for item in value]
    return as_number(name, value)


def magnitude(spectra: NDArray[np.complex64], power: float) -> Float64Array:
    """abs(spectra) ** power in float64; infinite where it overflows."""
    real = spectra.real.astype(np.float64)
    imag = spectra.imag.astype(np.float64)
    values: Float64Array = np.sqrt(real * real + imag * imag)
    if power != 1.0:
        with np.errstate(over="ignore"):
            values **= power
    return values


def scaled(
    values: Float64Array, power: float, scale: ScaleLike, normalize: NormalizeLike,
    delta: DeltaLike = None,
) -> FloatArray:
    """Scale and normalise values (T, rows), and round them to float32.

    Values that overflow float32 become infinite or NaN; the caller must refuse them.

    Raises
    ------
    AudioError
        If deltas need more columns than there are.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        values = _apply_scale(values, power, scale)
        if delta is not None and np.isfinite(values).all():
            values = _apply_delta(values, check_delta(delta))
        return _apply_normalize(values, normalize).astype(np.float32)


def _apply_scale(x: Float64Array, power: float, scale: ScaleLike) -> Float64Array:
    if isinstance(scale, dict):
        return _decibel(x, power, scale) if scale["type"] == "db" else _logarithm(x, scale)
    if scale == "db":
        return _decibel(x, power, _check_db({"type": "db"}, power))
    if scale == "log1p":
        return np.log1p(x)
    return x * x if scale == "power" and power == 1.0 else x


def _decibel(x: Float64Array, power: float, scale: dict[str, Any]) -> Float64Array:
    amin = scale["amin"]
    ref = x.max() if scale["ref"] == "max" else scale["ref"]
    level = np.log10(np.maximum(x, amin)) - np.log10(np.maximum(ref, amin))
    level *= 20.0 / power
    if scale["top_db"] is not None:
        np.maximum(level, level.max() - scale["top_db"], out=level)
    return np.asarray(level)


def _logarithm(x: Float64Array, scale: dict[str, Any]) -> Float64Array:
    argument = np.maximum(scale["offset"] + scale["gain"] * x, scale["floor"])
    if scale["base"] == 10.0:
        return np.asarray(np.log10(argument))
    return np.asarray(np.log(argument) / math.log(scale["base"]))


def _apply_delta(x: Float64Array, delta: Any) -> Float64Array:
    # Imported inside the function: it takes a second, and few front ends have deltas.
    from scipy.signal import savgol_filter

    order, width = delta["order"], delta["width"]
    if delta["mode"] == "interp" and len(x) < width:
        raise AudioError(f"deltas of width {width} need at least {width} frames, found {len(x)}")
    found = savgol_filter(x, width, order, deriv=order, axis=0, mode=delta["mode"])
    return np.asarray(found, np.float64)


def _apply_normalize(x: Float64Array, normalize: NormalizeLike) -> Float64Array:
    if normalize is None or not np.isfinite(x).all():
        return x
    if normalize["type"] == "affine":
        return np.asarray(x * np.asarray(normalize["scale"]) + np.asarray(normalize["shift"]))
    if normalize["type"] == "range":
        return _to_range(x, normalize["low"], normalize["high"])
    return _standardize(x, normalize["ddof"], axis=0 if normalize["per"] == "band" else None)


def _to_range(x: Float64Array, low: float, high: float) -> Float64Array:
    bottom, top = x.min(), x.max()
    if bottom == top:
        return np.full_like(x, low)
    return np.asarray(np.clip(low + (x - bottom) / (top - bottom) * (high - low), low, high))


def _standardize(x: Float64Array, ddof: int, axis: int | None) -> Float64Array:
    # Constants are found by comparing values: because the mean is rounded, their standard
    # deviation is often not 0 but tiny.
    constant = x.min(axis=axis, keepdims=True) == x.max(axis=axis, keepdims=True)
    count = x.size if axis is None else x.shape[axis]
    centred = x - x.mean(axis=axis, keepdims=True)
    squares = (centred * centred).sum(axis=axis, keepdims=True)
    deviation = np.sqrt(squares / max(count - ddof, 1))
    # So is what varies so little that the squares underflow.
    constant |= deviation == 0
    deviation[constant] = 1.0
    return np.asarray(np.where(constant, 0.0, centred / deviation))
