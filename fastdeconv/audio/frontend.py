"""The front end: from sound to what a network sees.

`Frontend` says how a network's input is made from samples, with librosa's
names; `Clip` is a piece of sound with that input and its complex STFT;
`load_clip` reads one from a file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import as_array
from ..errors import AudioError, ParameterError, shown
from ._checks import as_bool, as_choice, as_int, as_number, check_keys
from .reading import (
    MAX_SAMPLES,
    SourceLike,
    check_samples,
    mono_samples,
    read_file,
    resample,
    source_name,
)
from .scaling import (
    NormalizeLike,
    ScaleLike,
    check_normalize,
    check_scale,
    scaled_magnitude,
)
from .stft import PAD_MODES, Stft, WindowLike, get_window

__all__ = ["Clip", "Frontend", "load_clip"]

FloatArray = NDArray[np.float32]
ComplexArray = NDArray[np.complex64]

_KINDS = ("stft", "mel", "cqt", "waveform")
# Fields that only one or two kinds have; all others belong to every kind.
_OWN_FIELDS = {
    "stft": (),
    "mel": ("n_mels", "fmin", "fmax", "htk", "norm"),
    "cqt": ("fmin", "n_bins", "bins_per_octave"),
    "waveform": (),
}
_MAX_N_FFT = 1 << 20
_MAX_COUNT = 1 << 24
_C1_HZ = 32.70319566257483  # librosa's lowest note of a CQT


@dataclass(frozen=True, kw_only=True)
class Frontend:
    """How the input of a network is made from samples; field names as in librosa.

    A record: it is checked when made and never changes. Steps, in this order:
    STFT, magnitude to the `power`, `scale`, `normalize`, `layout`.

    Parameters
    ----------
    kind : {"stft", "mel", "cqt", "waveform"}
        This version computes "stft". The others are kept and written, so that
        networks with them load, but no clip can be made.
    sr : float
        Sample rate in Hz. Other sounds are resampled (soxr, HQ).
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
          20 / power * log10(max(x, amin) / max(ref, amin)), not lower than its
          own maximum minus top_db. ref is "max", the maximum of the clip (the
          default, also of "db" alone), or a number; amin 1e-5 ** power and
          top_db 80 by default; top_db None does not cut.
        - "log1p": log(1 + x)
        - {"type": "log", "base", "gain", "offset", "floor"}:
          log_base(max(offset + gain * x, floor)), by default base e, gain 1,
          offset 0, floor 1e-10.
    normalize : dict, optional
        {"type": "range", "low", "high"} maps the clip's minimum and maximum to
        low and high (0 and 1 by default), a constant clip to low.
        {"type": "standardize", "ddof", "per"} gives mean 0 and standard
        deviation 1 (ddof 0 by default), over the "clip" (default) or for every
        frequency "band" on its own; what is constant becomes 0.
    layout : {"CFT", "CTF"}
        Whether rows of the input are frequency or time.
    frames : int, optional
        Number of STFT frames of every clip; None leaves the clip as it is. A
        clip that gives exactly this number is kept whole. A longer one is cut to
        its first frames, a shorter one padded with silence at its end. Samples
        and sounds then have the shortest length that gives this number (with an
        even n_fft and center, ``hop_length * (frames - 1)``): behind the middle
        of the last frame sounds fade out.
    n_mels, fmin, fmax, htk, norm
        As in ``librosa.filters.mel``; of kind "mel" only.
    fmin, n_bins, bins_per_octave
        As in ``librosa.cqt``; of kind "cqt" only.

    Raises
    ------
    ParameterError
        If a field is not as described; names it, what was found and wanted.
    """

    kind: str = "stft"
    sr: float = 22050
    n_fft: int = 2048
    # Never None once made; the annotation says what a reader gets.
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

    def __post_init__(self) -> None:
        for name, value in _checked(self).items():
            object.__setattr__(self, name, value)

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_record()))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Frontend:
        """The front end of an archive's record (a dict of JSON values).

        Raises
        ------
        ParameterError
            If a key is unknown or belongs to another kind, or a value is refused.
        """
        if not isinstance(record, Mapping):
            raise ParameterError(f"the front end must be a mapping, found {shown(record)}")
        kind = as_choice("kind", record.get("kind", "stft"), _KINDS)
        check_keys(f"front end of kind {kind!r}", record, _fields_of(kind))
        return cls(**record)

    def to_record(self) -> dict[str, Any]:
        """All fields of this kind as a dict of JSON values; `from_record` reads it back."""
        return {name: _plain(getattr(self, name)) for name in _fields_of(self.kind)}

    def num_frames(self, n_samples: int) -> int:
        """Frames of the STFT of `n_samples` samples (at `sr`, before `frames` applies)."""
        count = as_int("n_samples", n_samples, minimum=0, maximum=MAX_SAMPLES)
        return self._stft().num_frames(count)

    def _stft(self) -> Stft:
        return Stft(**{field.name: getattr(self, field.name) for field in fields(Stft)})

    def _require_stft(self) -> None:
        if self.kind != "stft":
            raise ParameterError(
                f"front end kind {self.kind!r} cannot be computed: "
                "only 'stft' is implemented in this version"
            )


def _fields_of(kind: str) -> list[str]:
    """Names of the fields a record of this kind has, in order."""
    foreign = {name for own in _OWN_FIELDS.values() for name in own} - {*_OWN_FIELDS[kind]}
    return [field.name for field in fields(Frontend) if field.name not in foreign]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, dict) else value


def _checked(fe: Frontend) -> dict[str, Any]:
    """All fields of `fe`, checked and completed."""
    kind = as_choice("kind", fe.kind, _KINDS)
    _check_foreign(fe, kind)
    sr = as_number("sr", fe.sr, above=0)
    power = as_number("power", fe.power, above=0)
    if power > 10:
        raise ParameterError(f"power must be at most 10, found {power:g}")
    checked = {
        "kind": kind,
        # A whole number stays one, as soundfile and wav headers have it.
        "sr": int(sr) if sr.is_integer() else sr,
        "pad_mode": as_choice("pad_mode", fe.pad_mode, PAD_MODES),
        "center": as_bool("center", fe.center),
        "power": power,
        "scale": check_scale(fe.scale, power),
        "normalize": check_normalize(fe.normalize),
        "layout": as_choice("layout", fe.layout, ("CFT", "CTF")),
        **_checked_sizes(fe),
        **_CHECK_OWN[kind](fe, sr),
    }
    checked["window"] = _check_window(fe.window, checked["win_length"])
    checked["frames"] = _check_frames(fe.frames, checked)
    return checked


def _check_foreign(fe: Frontend, kind: str) -> None:
    own = _fields_of(kind)
    for field in fields(fe):
        if field.name not in own and getattr(fe, field.name) != field.default:
            raise ParameterError(
                f"{field.name} does not belong to a front end of kind {kind!r}, "
                f"found {shown(getattr(fe, field.name))}"
            )


def _checked_sizes(fe: Frontend) -> dict[str, int]:
    n_fft = as_int("n_fft", fe.n_fft, minimum=2, maximum=_MAX_N_FFT)
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


def _check_frames(frames: Any, checked: dict[str, Any]) -> int | None:
    if frames is None:
        return None
    count = as_int("frames", frames, minimum=1, maximum=_MAX_COUNT)
    transform = Stft(**{field.name: checked[field.name] for field in fields(Stft)})
    n_samples = transform.shortest(count)
    if not 2 <= n_samples <= MAX_SAMPLES:
        raise ParameterError(
            f"frames = {count} with these sizes is a clip of {n_samples} samples; "
            f"wanted from 2 to {MAX_SAMPLES}"
        )
    return count


def _check_mel(fe: Frontend, sr: float) -> dict[str, Any]:
    fmin = as_number("fmin", 0.0 if fe.fmin is None else fe.fmin)
    fmax = as_number("fmax", sr / 2 if fe.fmax is None else fe.fmax)
    if not 0 <= fmin < fmax:
        raise ParameterError(f"fmin must be from 0 to below fmax, found {fmin:g} and {fmax:g}")
    named = fe.norm is None or isinstance(fe.norm, str)
    if isinstance(fe.norm, str):
        as_choice("norm", fe.norm, ("slaney",))
    return {
        "n_mels": as_int("n_mels", fe.n_mels, minimum=1, maximum=_MAX_N_FFT),
        "fmin": fmin,
        "fmax": fmax,
        "htk": as_bool("htk", fe.htk),
        "norm": fe.norm if named else as_number("norm", fe.norm, above=0),
    }


def _check_cqt(fe: Frontend, sr: float) -> dict[str, Any]:
    fmin = as_number("fmin", _C1_HZ if fe.fmin is None else fe.fmin, above=0)
    if fmin >= sr / 2:
        raise ParameterError(f"fmin must be below sr / 2 = {sr / 2:g}, found {fmin:g}")
    return {
        "fmin": fmin,
        "n_bins": as_int("n_bins", fe.n_bins, minimum=1, maximum=_MAX_N_FFT),
        "bins_per_octave": as_int(
            "bins_per_octave", fe.bins_per_octave, minimum=1, maximum=_MAX_N_FFT
        ),
    }


def _check_no_own(fe: Frontend, sr: float) -> dict[str, Any]:
    return {}


_CHECK_OWN = {
    "stft": _check_no_own,
    "mel": _check_mel,
    "cqt": _check_cqt,
    "waveform": _check_no_own,
}


class Clip:
    """A piece of sound as a network sees it. All arrays are read-only.

    Parameters
    ----------
    samples : array, shape (n,) or (channels, n)
        Floats as they are; int8, int16 and int32 are divided by 2^7, 2^15 and
        2^31, uint8 is (x - 128) / 2^7. Channels are averaged.
    sr : float
        Rate of `samples` in Hz; if it is not the front end's, they are resampled.
    frontend : Frontend
        Of kind "stft".

    Attributes
    ----------
    samples : array, shape (n,), float32
        Mono, at the front end's rate, cut or padded as its `frames` says.
    sr : float
        The front end's rate.
    stft : array, shape (F, T), complex64
        Equal to ``librosa.stft``; of a sound that was cut, the first `frames`
        frames of the whole.
    x : array, shape (1, F, T), or (1, T, F) with layout "CTF", float32
        The input of the network.
    frontend : Frontend
    start : float
        Where in its source the clip begins, in seconds: the `offset` of `load_clip`.
    is_cut : bool
        Whether the source goes on behind the clip.

    Raises
    ------
    AudioError
        If the samples are not finite, real audio of at least 2 samples (and one
        frame, without `center`), or so large that `x` overflows.
    ParameterError
        If `sr` or `frontend` is not as described.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> fe = fd.Frontend(sr=11025, n_fft=512, hop_length=256, frames=173)
    >>> clip = fd.Clip(np.zeros(44100, np.float32), 11025, fe)
    >>> clip.x.shape, clip.duration
    ((1, 257, 173), 4.0)
    """

    samples: FloatArray
    stft: ComplexArray
    x: FloatArray
    frontend: Frontend
    start: float
    is_cut: bool

    def __init__(self, samples: ArrayLike, sr: float, frontend: Frontend) -> None:
        _check_frontend(frontend)
        rate = as_number("sr", sr, above=0)
        given = _at_rate(mono_samples(samples, rate), rate, frontend)
        fitted = _fit(given, frontend)
        is_cut = fitted.size < given.size
        # The frames of a sound that was cut are the first ones of the whole.
        heard = given if is_cut else fitted
        try:
            with np.errstate(over="ignore"):
                spectra = frontend._stft().forward(heard, frontend.frames)
        except MemoryError as error:
            raise AudioError(f"the STFT of {heard.size} samples: {error}") from error
        self._set(fitted, spectra, frontend, is_cut=is_cut)

    def _set(
        self, samples: FloatArray, spectra: ComplexArray, frontend: Frontend, *,
        is_cut: bool = False,
    ) -> None:
        x = _network_input(spectra, frontend)
        for array in (samples, spectra, x):
            array.flags.writeable = False
        self.samples, self.stft, self.x = samples, spectra.T, x
        self.frontend = frontend
        self.start, self.is_cut = 0.0, is_cut

    @classmethod
    def from_stft(cls, stft: ArrayLike, frontend: Frontend) -> Clip:
        """A clip of a given complex STFT.

        The samples are its inverse as in `auralise`, of the shortest length that
        gives its number of frames. `stft` and `x` are of the STFT as given, also when it
        is not the STFT of any sound.

        Parameters
        ----------
        stft : array, shape (F, T), complex
            F = 1 + n_fft // 2; T = `frames` where the front end fixes it.
        frontend : Frontend
            Of kind "stft".

        Raises
        ------
        AudioError
            If the shape is not the front end's, or a value is NaN or Inf.
        ParameterError
            If `frontend` is not as described.
        """
        _check_frontend(frontend)
        spectra = _checked_spectra(stft, frontend)
        transform = frontend._stft()
        envelope = transform.envelope(len(spectra), transform.shortest(len(spectra)))
        with np.errstate(over="ignore", invalid="ignore"):
            samples = transform.inverse(spectra[np.newaxis], envelope)[0].copy()
        check_samples(samples, frontend.sr, "sound of the STFT")
        clip = cls.__new__(cls)
        clip._set(samples, spectra, frontend)
        return clip

    @property
    def sr(self) -> float:
        """Samples per second."""
        return self.frontend.sr

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.samples.size / self.sr

    def __repr__(self) -> str:
        return (
            f"<Clip: {self.duration:.3f} s, {self.samples.size} samples at {self.sr:g} Hz, "
            f"stft {self.stft.shape[0]} x {self.stft.shape[1]}>"
        )


def _check_frontend(frontend: Any) -> None:
    if not isinstance(frontend, Frontend):
        raise ParameterError(f"the front end must be a Frontend, found {shown(frontend)}")
    frontend._require_stft()


def _at_rate(samples: FloatArray, sr: float, fe: Frontend) -> FloatArray:
    """`samples` at the front end's rate; only as many as its `frames` can use."""
    resampled = resample(samples[: _native_samples(fe, sr)], sr, fe.sr)
    if resampled.size < 2:
        raise AudioError(
            f"{samples.size} samples at {sr:g} Hz are {resampled.size} at {fe.sr:g} Hz; "
            "at least 2 are needed"
        )
    return resampled


def _native_samples(fe: Frontend, sr: float) -> int | None:
    """Samples at rate `sr` that decide a clip of fixed length; None for any length."""
    if fe.frames is None:
        return None
    # All that the last frame sees; at least one more than can be kept, to see there are more.
    transform = fe._stft()
    count = max(transform.seen(fe.frames), transform.longest(fe.frames) + 1)
    if sr == fe.sr:
        return count
    # The resampler's filter sees less than 1024 samples of the lower rate around each.
    ratio = sr / fe.sr
    return math.ceil(count * ratio) + math.ceil(1024 * max(1.0, ratio))


def _fit(samples: FloatArray, fe: Frontend) -> FloatArray:
    """A copy cut or padded with silence as `fe.frames` says."""
    transform = fe._stft()
    found = transform.num_frames(samples.size)
    if fe.frames is None and found == 0:
        raise AudioError(
            f"{samples.size} samples are less than one frame of {fe.n_fft} without center"
        )
    if fe.frames is None or found == fe.frames:
        return samples.copy()
    fitted = np.zeros(transform.shortest(fe.frames), np.float32)
    kept = samples[: fitted.size]
    fitted[: kept.size] = kept
    return fitted


def _network_input(spectra: ComplexArray, fe: Frontend) -> FloatArray:
    values = scaled_magnitude(spectra, fe.power, fe.scale, fe.normalize)
    if not np.isfinite(values).all():
        raise AudioError("the samples are so large that the spectrogram overflows float32")
    return np.ascontiguousarray(values if fe.layout == "CTF" else values.T)[np.newaxis]


def _checked_spectra(stft: ArrayLike, fe: Frontend) -> ComplexArray:
    """A complex64 copy of `stft` as (T, F)."""
    array = as_array(stft, "the STFT", AudioError)
    if array.dtype.kind not in "fc":
        raise AudioError(f"the STFT must be complex, found dtype {array.dtype}")
    wanted = (fe._stft().bins, "T" if fe.frames is None else fe.frames)
    if array.ndim != 2 or array.shape[0] != wanted[0] or fe.frames not in (None, array.shape[1]):
        raise AudioError(f"the STFT must be ({wanted[0]}, {wanted[1]}), found {array.shape}")
    if fe._stft().shortest(array.shape[1]) < 2:
        raise AudioError(f"{array.shape[1]} frames of STFT are too few for a sound")
    with np.errstate(over="ignore"):
        spectra = np.array(array.T, dtype=np.complex64, order="C")
    if not np.isfinite(spectra).all():
        row, column = np.argwhere(~np.isfinite(spectra.T))[0]
        raise AudioError(f"the STFT is not finite in float32 at bin {row}, frame {column}")
    return spectra


def load_clip(
    source: SourceLike | tuple[ArrayLike, float], frontend: Frontend, offset: float = 0.0
) -> Clip:
    """Read a clip, and no more of the file than the front end's `frames` needs.

    Parameters
    ----------
    source : path, binary file object, or (samples, sr)
        A file in any format soundfile reads (wav, flac, ogg, mp3, ...), or an
        array (n,) or (channels, n) with its rate, see `Clip`. A file object
        must be seekable; it is read from its start and left open.
    frontend : Frontend
        Of kind "stft".
    offset : float
        Where the clip begins, in seconds; its first sample is number
        ``int(offset * sr)`` of the source, as in ``librosa.load``.

    Returns
    -------
    Clip

    Raises
    ------
    AudioError
        If the source is not whole, finite audio of at least 2 samples, or ends
        before `offset`; names the file.
    FileNotFoundError
        If there is no such file.
    ParameterError
        If `offset`, `frontend` or the kind of source is not as described.
    """
    _check_frontend(frontend)
    start = as_number("offset", offset)
    if start < 0:
        raise ParameterError(f"offset must not be negative, found {start:g}")
    if isinstance(source, tuple):
        clip = _clip_of_array(source, frontend, start)
    else:
        clip = _clip_of_file(source, frontend, start)
    clip.start = start
    return clip


def _clip_of_file(source: Any, frontend: Frontend, offset: float) -> Clip:
    if not (isinstance(source, (str, os.PathLike)) or hasattr(source, "read")):
        raise ParameterError(
            "the source must be a path, a binary file object or (samples, sr), "
            f"found {type(source).__name__}"
        )
    samples, sr = read_file(source, offset, lambda rate: _native_samples(frontend, rate))
    try:
        return Clip(samples, sr, frontend)
    except AudioError as error:
        raise AudioError(f"{source_name(source)}: {error}") from error


def _clip_of_array(source: tuple[Any, ...], frontend: Frontend, offset: float) -> Clip:
    if len(source) != 2:
        raise ParameterError(f"a source tuple must be (samples, sr), found {len(source)} items")
    sr = as_number("sr", source[1], above=0)
    return Clip(mono_samples(source[0], sr, offset), sr, frontend)
