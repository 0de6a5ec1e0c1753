"""The record of a front end: how a network's input is made from samples.

Its fields have librosa's names. `fastdeconv.audio.kinds` implements each kind.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ParameterError, shown
from ._checks import as_bool, as_choice, as_int, as_number, check_keys
from .kinds import KINDS, Framing, Kind
from .reading import MAX_SAMPLES
from .scaling import (
    DeltaLike,
    NormalizeLike,
    ScaleLike,
    check_delta,
    check_normalize,
    check_scale,
)
from .stft import PAD_MODES, Stft, WindowLike, get_window

__all__ = ["MAX_N_FFT", "Frontend", "plain_record"]

#: The largest n_fft of a front end.
MAX_N_FFT = 1 << 20
_MAX_COUNT = 1 << 24
_MOST_CHANNELS = 64
_LAYOUTS = tuple("".join(axes) for axes in itertools.permutations("CFT"))
_NOT_BY_DEFAULT = ("bins", "channels", "preemphasis", "delta", "method")
"""Newer fields, which are written into a record only if they differ from the default."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frontend:
    """How the input of a network is made from samples; field names as in librosa.

    It is checked when it is made and never changes. The steps are, in this order: STFT,
    magnitude to the `power`, the bands of the kind, `scale`, `delta`, `normalize`, `layout`.

    Parameters
    ----------
    kind : {"stft", "mel", "filters", "cqt", "waveform"}
        - "stft": the magnitude of the STFT, or of some of its `bins`
        - "mel": mel bands of that magnitude
        - "filters": bands of it by a matrix of your own, `filters`
        - "cqt": the magnitude of ``librosa.cqt``, or of nnAudio's CQT, see `method`
        - "waveform": the samples, as one row of the input. The STFT is then only for pictures.
    sr : float
        Sample rate in Hz. Sounds at other rates are resampled (soxr, HQ).
    n_fft, hop_length, win_length : int
        As in ``librosa.stft``; by default win_length = n_fft and
        hop_length = win_length // 4.
    window : str or tuple
        A periodic window of ``scipy.signal.get_window``.
    center : bool
        Whether frame t is centred at sample t * hop_length.
    pad_mode : {"constant", "edge", "linear_ramp", "reflect", "symmetric"}
        How a centred STFT pads the ends.
    power : float
        Exponent of the magnitude: 1 amplitude, 2 power. At most 10.
    scale : str or dict
        With x = abs(STFT) ** power:

        - "linear": x
        - "power": abs(STFT) ** 2
        - "db", or {"type": "db", "ref", "amin", "top_db"}: decibels, as
          ``librosa.amplitude_to_db`` (power 1) and ``power_to_db`` (power 2):
          20 / power * log10(max(x, amin) / max(ref, amin)), but at least its
          own maximum minus top_db. ref is a number or "max", the maximum of the clip (the
          default, also of "db" alone). By default amin is 1e-5 ** power and top_db is 80;
          with top_db None there is no lower limit.
        - "log1p": log(1 + x)
        - {"type": "log", "base", "gain", "offset", "floor"}:
          log_base(max(offset + gain * x, floor)), by default base e, gain 1,
          offset 0, floor 1e-10.
    normalize : dict, optional
        - {"type": "affine", "scale", "shift"}: x * scale + shift. Each is a number (1 and 0 by
          default), or a list with one number for each frequency band.
        - {"type": "range", "low", "high"}: the clip's minimum becomes low and its maximum high
          (0 and 1 by default); a constant clip becomes low.
        - {"type": "standardize", "ddof", "per"}: mean 0 and standard deviation 1 (ddof 0 by
          default), per "clip" (default) or for each frequency "band" separately. A constant
          becomes 0.
    layout : {"CFT", "CTF", "FCT", "FTC", "TCF", "TFC"}
        Which of channel, frequency and time is the input's channel, row and column.
    preemphasis : float
        From 0 to below 1. The input is made from x[n] - preemphasis * x[n - 1], where x[-1]
        is x[0]. Sounds are made from the samples without pre-emphasis.
    delta : int or dict, optional
        {"order", "width", "mode"}: how the values change over time, as in
        ``librosa.feature.delta``. order is 1 or 2 (that number may also be given alone); width is
        9 frames and mode "interp" by default.
        torchaudio's ``compute_deltas`` is {"order": 1, "width": 5, "mode": "nearest"}.
    channels : int or list of dict
        - A number: so many channels of the input hold the same values, for networks that were
          made for colour images.
        - A list: different inputs from the same sound, one channel for each dict. Fields that a
          dict does not give are those of the front end: ``[{}, {"delta": 1}]`` or
          ``[{"n_fft": 1024}, {"n_fft": 2048}, {"n_fft": 4096}]``. A dict may hold `power`,
          `scale`, `normalize`, `delta`, the fields of its kind except `filters`, and, for kinds
          "stft", "mel" and "filters", `n_fft`, `win_length` (by default the dict's n_fft) and
          `window`. All channels must have the same number of rows and columns.
    frames : int, optional
        Number of frames of every clip (with a waveform, of samples); None keeps the length of
        the clip. A clip with exactly this number of frames is kept whole. A longer one is cut to
        its first frames, a shorter one is padded with silence at its end. In both cases samples
        and sounds have the shortest length that gives this number (with an
        even n_fft and center, ``hop_length * (frames - 1)``), and sounds fade out after the
        middle of the last frame.
    bins : (first, last), optional
        The bins that the network is given, including the last. Kind "stft" only.
    filters : array, shape (bands, 1 + n_fft // 2)
        Values of 0 or more. Kind "filters" only.
    n_mels, fmin, fmax, htk, norm
        As in ``librosa.filters.mel``. Kind "mel" only.
    fmin, n_bins, bins_per_octave
        As in ``librosa.cqt``. Kind "cqt" only.
    method : {"librosa", "nnaudio"}
        The library whose CQT the network was trained on. Kind "cqt" only. "nnaudio" is CQT2010v2
        of nnAudio, with `pad_mode` at both ends ("reflect" is its default); hop_length must then
        be a multiple of 2 ** (octaves - 1). Sounds are made with librosa in both cases.

    Raises
    ------
    ParameterError
        If a field is not as described. The message names the field, what was found and wanted.

    Examples
    --------
    >>> import fastdeconv as fd
    >>> fd.Frontend(kind="mel", sr=16000, n_fft=512, n_mels=96, scale="db").num_frames(16000)
    126
    """

    kind: str = "stft"
    sr: float = 22050
    n_fft: int = 2048
    # Not None after __post_init__, so the annotation says int.
    hop_length: int = cast(int, None)
    win_length: int = cast(int, None)
    window: WindowLike = "hann"
    center: bool = True
    pad_mode: str = "constant"
    power: float = 1.0
    scale: ScaleLike = "linear"
    normalize: NormalizeLike = None
    layout: str = "CFT"
    frames: int | None = None
    n_mels: int = 128
    fmin: float | None = None
    fmax: float | None = None
    htk: bool = False
    norm: str | float | None = "slaney"
    n_bins: int = 84
    bins_per_octave: int = 12
    method: str = "librosa"
    bins: tuple[int, int] | None = None
    filters: NDArray[np.float32] | None = None
    channels: int | Sequence[Mapping[str, Any]] = 1
    preemphasis: float = 0.0
    delta: DeltaLike = None

    def __post_init__(self) -> None:
        for name, value in _checked(self).items():
            object.__setattr__(self, name, value)
        if not isinstance(self.channels, int):
            parts = _parts(self, self.channels)
            object.__setattr__(self, "channels", tuple(
                {name: _plain(getattr(part, name)) for name in given}
                for part, given in zip(parts, self.channels)
            ))
            self.__dict__["_parts_of_channels"] = parts

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frontend):
            return NotImplemented
        return self.to_record() == other.to_record()

    def __hash__(self) -> int:
        return hash(self._text)

    @classmethod
    def from_record(
        cls, record: Mapping[str, Any], filters: ArrayLike | None = None
    ) -> Frontend:
        """Make a front end from the record in an archive (a dict of JSON values).

        Parameters
        ----------
        record : mapping
        filters : array, optional
            For kind "filters": the record has only the shape and checksum of its `filters`.

        Returns
        -------
        Frontend

        Raises
        ------
        ParameterError
            If a key is unknown or belongs to another kind, if a value is wrong, or if `filters`
            do not match the record.
        """
        if not isinstance(record, Mapping):
            raise ParameterError(f"the front end must be a mapping, found {shown(record)}")
        kind = as_choice("kind", record.get("kind", "stft"), KINDS)
        check_keys(f"front end of kind {kind!r}", record, _fields_of(kind))
        given = dict(record)
        described = given.get("filters")
        if filters is not None:
            given["filters"] = filters
        elif isinstance(described, Mapping):
            raise ParameterError(
                "the filters of the front end are missing: the record has only their shape and "
                "checksum"
            )
        made = cls(**given)
        if isinstance(described, Mapping) and made.to_record()["filters"] != dict(described):
            raise ParameterError(
                f"the filters of the front end are not those of its record: found "
                f"{made.to_record()['filters']}, wanted {shown(dict(described))}"
            )
        return made

    def to_record(self) -> dict[str, Any]:
        """All fields of this kind as a dict of JSON values; `from_record` reads it back.

        It holds the shape and checksum of `filters`, not the numbers.

        Returns
        -------
        dict
        """
        record = {name: _plain(getattr(self, name)) for name in _fields_of(self.kind)}
        for name in _NOT_BY_DEFAULT:
            if name in record and getattr(self, name) == getattr(Frontend, name):
                del record[name]
        if self.filters is not None:
            record["filters"] = dict(self._described)
        return record

    def num_frames(self, n_samples: int) -> int:
        """Number of columns of the input for a sound, before it is cut or padded to `frames`.

        Parameters
        ----------
        n_samples : int
            Samples at the rate `sr`.

        Returns
        -------
        int
        """
        count = as_int("n_samples", n_samples, minimum=0, maximum=MAX_SAMPLES)
        return self.framing.num_frames(count)

    @property
    def is_new(self) -> bool:
        """Whether the front end needs version 2 of the archive."""
        affine = self.normalize is not None and self.normalize["type"] == "affine"
        record = self.to_record()
        known = self.layout in ("CFT", "CTF") and record.keys().isdisjoint(_NOT_BY_DEFAULT)
        return affine or not known or self.filters is not None

    @property
    def parts(self) -> tuple[Frontend, ...]:
        """One front end for each channel; only this one if all channels hold the same values."""
        found: tuple[Frontend, ...] = self.__dict__.get("_parts_of_channels", (self,))
        return found

    @property
    def num_channels(self) -> int:
        """Number of channels of the input."""
        return self.channels if isinstance(self.channels, int) else len(self.channels)

    @property
    def meaning(self) -> Kind:
        """The implementation of its kind."""
        return KINDS[self.kind]

    @functools.cached_property
    def framing(self) -> Framing:
        """How samples become columns of the input."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return self.meaning.framing(own)

    @functools.cached_property
    def transform(self) -> Stft:
        """The STFT, from which the pictures of all kinds and the sounds of most are made."""
        return Stft(**{field.name: getattr(self, field.name) for field in fields(Stft)})

    @functools.cached_property
    def _text(self) -> str:
        # Not its hash: hashes of texts differ from process to process, and front ends are pickled.
        return json.dumps(self.to_record())

    @functools.cached_property
    def _described(self) -> dict[str, Any]:
        """The description of the filters in a record."""
        assert self.filters is not None
        digest = hashlib.sha256(self.filters.tobytes()).hexdigest()
        return {"shape": list(self.filters.shape), "sha256": digest}


def plain_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A front end's record from outside, checked and completed with defaults.

    The filters of kind "filters" need not be there: their description is kept unchecked.
    """
    described = record.get("filters") if isinstance(record, Mapping) else None
    if not isinstance(described, Mapping):
        return Frontend.from_record(record).to_record()
    n_fft = as_int("n_fft", record.get("n_fft", 2048), minimum=2, maximum=MAX_N_FFT)
    stand_in = np.ones((1, 1 + n_fft // 2), np.float32)
    return Frontend.from_record({**record, "filters": stand_in}).to_record() | {
        "filters": dict(described)
    }


def _fields_of(kind: str) -> list[str]:
    """Names of the fields in a record of this kind, in order."""
    foreign = {name for other in KINDS.values() for name in other.own} - {*KINDS[kind].own}
    return [field.name for field in fields(Frontend) if field.name not in foreign]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, dict) else value


def _checked(fe: Frontend) -> dict[str, Any]:
    """All fields of `fe`, checked and completed."""
    kind = as_choice("kind", fe.kind, KINDS)
    _check_foreign(fe, kind)
    sr = as_number("sr", fe.sr, above=0)
    power = as_number("power", fe.power, above=0)
    if power > 10:
        raise ParameterError(f"power must be at most 10, found {power:g}")
    sizes = _checked_sizes(fe)
    checked = {
        "kind": kind,
        # A whole number stays an int, as in soundfile and in wav headers.
        "sr": int(sr) if sr.is_integer() else sr,
        "pad_mode": as_choice("pad_mode", fe.pad_mode, PAD_MODES),
        "center": as_bool("center", fe.center),
        "power": power,
        "scale": check_scale(fe.scale, power),
        "normalize": check_normalize(fe.normalize),
        "layout": as_choice("layout", fe.layout, _LAYOUTS),
        "channels": _check_channels(fe.channels),
        "delta": check_delta(fe.delta),
        "preemphasis": _check_preemphasis(fe.preemphasis),
        **sizes,
        **KINDS[kind].check(fe, sr, sizes["n_fft"]),
    }
    checked["window"] = _check_window(fe.window, checked["win_length"])
    checked["frames"] = _check_frames(fe.frames, KINDS[kind].framing(checked))
    return checked


def _check_channels(channels: Any) -> int | tuple[Mapping[str, Any], ...]:
    """A number, or dicts whose fields are not checked yet."""
    if not isinstance(channels, (list, tuple)):
        return as_int("channels", channels, minimum=1, maximum=_MOST_CHANNELS)
    if not 1 <= len(channels) <= _MOST_CHANNELS:
        raise ParameterError(
            f"channels must be from 1 to {_MOST_CHANNELS}, found a list of {len(channels)}"
        )
    for i, channel in enumerate(channels):
        if not isinstance(channel, Mapping):
            raise ParameterError(
                f"channels[{i}] must be a dict of the fields that differ there, "
                f"found {shown(channel)}"
            )
    return tuple(channels)


def _parts(fe: Frontend, channels: Sequence[Mapping[str, Any]]) -> tuple[Frontend, ...]:
    """The front end of each channel; ParameterError if their inputs differ in size."""
    common = {name: getattr(fe, name) for name in _fields_of(fe.kind) if name != "channels"}
    allowed = [name for name in fe.meaning.of_a_channel if name != "filters"]
    parts = []
    for i, channel in enumerate(channels):
        check_keys(f"channels[{i}]", channel, allowed)
        own = {"win_length": None} if "n_fft" in channel else {}
        try:
            part = Frontend(**{**common, **own, **channel})
        except ParameterError as error:
            raise ParameterError(f"channels[{i}]: {error}") from None
        for found, wanted, what, how in (
            (part.meaning.rows(part), fe.meaning.rows(fe), "rows", "as the front end itself"),
            (part.framing.shortest(1), fe.framing.shortest(1), "samples in the first column",
             "as the front end itself: another n_fft needs center=True, and must be even or odd "
             "like the front end's"),
        ):
            if found != wanted:
                raise ParameterError(f"channels[{i}] has {found} {what}, wanted {wanted}, {how}")
        # Share one copy of the matrix.
        object.__setattr__(part, "filters", fe.filters)
        parts.append(part)
    return tuple(parts)


def _check_preemphasis(value: Any) -> float:
    number = as_number("preemphasis", value)
    if not 0 <= number < 1:
        raise ParameterError(f"preemphasis must be from 0 to below 1, found {number:g}")
    return number


def _check_foreign(fe: Frontend, kind: str) -> None:
    own = _fields_of(kind)
    for field in fields(fe):
        value = getattr(fe, field.name)
        if field.name not in own and value is not field.default and value != field.default:
            raise ParameterError(
                f"{field.name} does not belong to a front end of kind {kind!r}, "
                f"found {shown(value)}"
            )


def _checked_sizes(fe: Frontend) -> dict[str, int]:
    n_fft = as_int("n_fft", fe.n_fft, minimum=2, maximum=MAX_N_FFT)
    win = n_fft if fe.win_length is None else fe.win_length
    win = as_int("win_length", win, minimum=1, maximum=n_fft)
    hop = max(1, win // 4) if fe.hop_length is None else fe.hop_length
    hop = as_int("hop_length", hop, minimum=1, maximum=_MAX_COUNT)
    return {"n_fft": n_fft, "win_length": win, "hop_length": hop}


def _check_window(window: Any, win_length: int) -> WindowLike:
    spec = tuple(window) if isinstance(window, (list, tuple)) else window
    if isinstance(spec, tuple) and spec and isinstance(spec[0], str):
        spec = (spec[0], *(as_number("window parameter", value) for value in spec[1:]))
    elif not isinstance(spec, str):
        raise ParameterError(
            f"window must be a name or (name, parameter, ...), found {shown(window)}"
        )
    values = get_window(spec, win_length)
    if not np.isfinite(values).all() or not values.any():
        raise ParameterError(f"window {shown(window)} has no finite, non-zero values")
    return cast(WindowLike, spec)


def _check_frames(frames: Any, framing: Framing) -> int | None:
    if frames is None:
        return None
    count = as_int("frames", frames, minimum=1, maximum=MAX_SAMPLES)
    n_samples = framing.shortest(count)
    if not 2 <= n_samples <= MAX_SAMPLES:
        raise ParameterError(
            f"frames = {count} with these sizes is a clip of {n_samples} samples; "
            f"wanted from 2 to {MAX_SAMPLES}"
        )
    return count
