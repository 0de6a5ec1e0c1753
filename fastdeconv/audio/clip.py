"""A piece of sound as a network sees it, and what turns its maps back into sound.

A `Clip` holds the samples, the network's input and the complex STFT. `load_clip` reads one from
a file.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import as_array
from ..errors import AudioError, ParameterError, shown
from ._checks import MODES, as_choice, as_number
from .channels import sounds_of, spread
from .frontend import Frontend
from .reading import (
    SourceLike,
    check_rates,
    check_samples,
    mono_samples,
    named,
    read_source,
    resample,
)
from .scaling import scaled

__all__ = [
    "LEAST_SAMPLES",
    "Clip",
    "as_clip",
    "at_rate",
    "check_finite",
    "check_frontend",
    "file_name",
    "load_clip",
    "masking",
    "native_samples",
    "needed_frontend",
    "open_clip",
]

FloatArray = NDArray[np.float32]
ComplexArray = NDArray[np.complex64]

#: Fewest samples that a clip may have.
LEAST_SAMPLES = 2
# Share of the clip's largest magnitude. Weights are 0 where the clip is softer, because there
# they would be quotients of two rounding errors.
_INAUDIBLE = 1e-6
# Frames of several sounds that are transformed at a time.
_FRAMES = 256
# Share of the clip's energy: errors below -200 dB are shown as -200 dB.
_LEAST_ERROR = 1e-20


class Clip:
    """A piece of sound as a network sees it. All arrays are read-only.

    Parameters
    ----------
    samples : array, shape (n,) or (channels, n)
        Floats are taken as they are; int8, int16 and int32 are divided by 2^7, 2^15 and
        2^31; uint8 becomes (x - 128) / 2^7. Channels are averaged.
    sr : float
        Rate of `samples` in Hz. If it is not that of the front end, they are resampled.
    frontend : Frontend

    Attributes
    ----------
    samples : array, shape (n,), float32
        Mono, at the front end's rate, cut or padded to the length that its `frames` asks for.
    sr : float
        The front end's rate in Hz.
    stft : array, shape (F, T), complex64
        Equal to ``librosa.stft``. If the sound was cut, these are the first `frames`
        frames of the STFT of the whole sound.
    x : array, shape (channels, rows, T) with axes in the order of the layout, float32
        The input of the network. With kind "stft" it is (1, F, T), or (1, T, F) with layout
        "CTF".
    frontend : Frontend
    start : float
        Where the clip begins in its source, in seconds: the `offset` of `load_clip`.
    is_cut : bool
        Whether the source continues after the clip.
    padding : float
        Seconds of silence at the end of the clip, where the source was too short for `frames`.

    Raises
    ------
    AudioError
        If the samples are not finite, real audio of at least 2 samples (without `center`, of
        at least one frame), or so large that `x` overflows float32.
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
    padding: float

    def __init__(self, samples: ArrayLike, sr: float, frontend: Frontend) -> None:
        check_frontend(frontend)
        rate = as_number("sr", sr, above=0)
        found = mono_samples(samples, rate)
        given = at_rate(found[: native_samples(frontend, rate)], rate, frontend)
        fitted = _fit(given, frontend)
        is_cut = fitted.size < given.size
        # If the sound was cut, its last frames still see what follows: they are the first
        # frames of the whole.
        heard = given if is_cut and frontend.meaning.on_stft else fitted
        try:
            with np.errstate(over="ignore"):
                frames = frontend.frames if frontend.meaning.on_stft else None
                spectra = frontend.transform.forward(heard, frames)
                analysed = _analysed(heard, spectra, frontend, frames)
        except MemoryError as error:
            raise AudioError(f"the STFT of {heard.size} samples: {error}") from error
        self._set(fitted, spectra, frontend, analysed, is_cut=is_cut)
        self.padding = max(0, fitted.size - given.size) / self.sr

    def _set(
        self, samples: FloatArray, spectra: ComplexArray, frontend: Frontend,
        analysed: list[ComplexArray], *, is_cut: bool = False,
    ) -> None:
        emphasised = _emphasised(samples, frontend)
        # The values of the input, (T, rows), for each part of the front end.
        self._values = [
            _scaled_values(emphasised, own, part)
            for own, part in zip(analysed, frontend.parts, strict=True)
        ]
        x = _in_layout(self._values, frontend)
        for array in (samples, spectra, x):
            array.flags.writeable = False
        self.samples, self.stft, self.x = samples, spectra.T, x
        self.frontend = frontend
        self.start, self.is_cut, self.padding = 0.0, is_cut, 0.0

    @classmethod
    def from_stft(cls, stft: ArrayLike, frontend: Frontend) -> Clip:
        """Make a clip from a complex STFT.

        The samples are its inverse, computed as in `auralise`, of the shortest length that
        gives its number of frames. `stft` and `x` are those of the given array, even if it
        is not the STFT of any sound.

        Parameters
        ----------
        stft : array, shape (F, T), complex
            F = 1 + n_fft // 2; T = `frames` where the front end fixes it.
        frontend : Frontend

        Returns
        -------
        Clip

        Raises
        ------
        AudioError
            If the shape is not the front end's, or a value is NaN or Inf.
        ParameterError
            If `frontend` is not as described.
        """
        check_frontend(frontend)
        spectra = _checked_spectra(stft, frontend)
        transform = frontend.transform
        envelope = transform.envelope(len(spectra), transform.shortest(len(spectra)))
        with np.errstate(over="ignore", invalid="ignore"):
            samples = transform.inverse(spectra[np.newaxis], envelope)[0].copy()
        check_samples(samples, frontend.sr, "sound of the STFT")
        clip = cls.__new__(cls)
        clip._set(samples, spectra, frontend, _analysed(samples, spectra, frontend, None))
        return clip

    @property
    def sr(self) -> float:
        """Samples per second."""
        return self.frontend.sr

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.samples.size / self.sr

    def part(self, begin: int, end: int) -> Clip:
        """Some frames of the STFT, with the samples below them, as a clip of their own.

        All values are copied from this clip: nothing is padded, scaled or normalised again.

        Parameters
        ----------
        begin, end : int
            The first frame, and the one after the last.

        Returns
        -------
        Clip

        Raises
        ------
        ParameterError
            If there are no such frames.
        """
        frames = self.stft.shape[1]
        if not 0 <= begin < end <= frames:
            raise ParameterError(
                f"a part must lie within frames 0 to {frames}, found {shown((begin, end))}"
            )
        hop = self.frontend.transform.hop_length
        at_samples = slice(begin * hop, end * hop)
        of_values = slice(begin, end) if len(self._values[0]) == frames else at_samples
        clip = Clip.__new__(Clip)
        clip.frontend = dataclasses.replace(self.frontend, frames=None)
        clip.samples, clip.stft = self.samples[at_samples], self.stft[:, begin:end]
        clip._values = [values[of_values] for values in self._values]
        clip.x = _in_layout(clip._values, clip.frontend)
        clip.x.flags.writeable = False
        clip.start = self.start + begin * hop / self.sr
        size, sound = clip.samples.size, self.samples.size - round(self.padding * self.sr)
        left = max(0, sound - begin * hop)
        clip.is_cut = self.is_cut or left > size
        clip.padding = (size - min(left, size)) / self.sr
        return clip

    def to_stft(
        self, maps: ArrayLike, mode: str = "mask", sounds: FloatArray | None = None
    ) -> FloatArray:
        """Turn maps at the network's input into weights on the grid of the STFT.

        The sound of a map has the magnitude ``abs(stft) * abs(weights)``, or with mode
        "phase" ``max(0, weights)``. With mode "wiener" the weights are those of
        ``abs(map) / max(abs(map))``.

        - Kind "stft": the map in the order (F, T); 0 at bins that the network is not given.
        - "mel" and "filters" with the matrix M: the weight of a bin is the mean of the map over
          the bands that contain the bin, weighted by M: ``M.T @ map / M.T @ 1``. It is 0
          where no band contains the bin.
        - "cqt" and "waveform": the magnitude of the STFT of the map's sound, with "mask" divided
          by that of the clip. These weights have no sign.

        The channels of the input are added up. The weights of a channel with an STFT of another
        size are interpolated to the bins of the front end's own STFT, from which the sound is
        made.

        Parameters
        ----------
        maps : array, shape (K, C, H, W) or, with one channel, (K, H, W), real
        mode : {"mask", "phase", "wiener"}
        sounds : array, shape (K, n), optional
            The result of `auralise` for these maps and this mode, if it is known already. The
            weights of "cqt" and "waveform" are computed from it.

        Returns
        -------
        array, shape (K, F, T), float32

        Raises
        ------
        ParameterError
            If the maps do not fit the clip or are not finite, or `mode` is unknown.
        """
        return self.weights(maps, mode, sounds).transpose(0, 2, 1)

    def weights(
        self, maps: ArrayLike, mode: str, sounds: FloatArray | None = None
    ) -> FloatArray:
        """The same as `to_stft`, with time before frequency.

        Parameters
        ----------
        maps : array, shape (K, channels, rows, T) with axes in the order of the layout
        mode : {"mask", "phase", "wiener"}
        sounds : array, shape (K, samples), optional
            As in `to_stft`.

        Returns
        -------
        array of float32, shape (K, T, F)
        """
        as_choice("mode", mode, MODES)
        frontend, on_stft = self.frontend, self.frontend.meaning.on_stft
        if on_stft or sounds is None:
            planes, mode = masking(self.planes(maps), mode)
            if on_stft:
                return spread(frontend, planes)
            sounds = sounds_of(frontend, self.samples, planes, mode)
        weights = np.empty((len(sounds), *self.stft.T.shape), np.float32)
        own = np.abs(self.stft.T)
        audible = own > _INAUDIBLE * own.max(initial=0.0)
        count = max(1, _FRAMES // len(own))
        for start in range(0, len(sounds), count):
            out = weights[start : start + count]
            np.abs(self.frontend.transform.forward(sounds[start : start + count]), out=out)
            if mode != "phase":
                np.divide(out, own, out=out, where=audible)
                out[:, ~audible] = 0
        return weights

    def planes(self, maps: ArrayLike) -> FloatArray:
        """Check maps at the network's input, and bring their axes into one order.

        Parameters
        ----------
        maps : array, shape (K, channels, rows, T) with axes in the order of the layout

        Returns
        -------
        array of float32, shape (K, parts, T, rows)
            One part for each channel, if the channels differ. Channels with equal content are
            added up to a single part.

        Raises
        ------
        ParameterError
            If the maps do not fit the clip or are not finite.
        """
        array = as_array(maps, "maps")
        if array.dtype.kind not in "fiu":
            raise ParameterError(f"maps must be real numbers, found dtype {array.dtype}")
        shape = self.x.shape
        if array.shape[1:] not in (shape, *([shape[1:]] if shape[0] == 1 else [])):
            raise ParameterError(
                f"maps must be (K, {', '.join(map(str, shape))}) for this clip, "
                f"found {array.shape}"
            )
        with np.errstate(over="ignore"):
            whole = array.reshape(-1, *shape).astype(np.float32, copy=False)
        check_finite(whole, "map")
        axes = [1 + self.frontend.layout.index(letter) for letter in "CTF"]
        whole = whole.transpose(0, *axes)
        if whole.shape[1] == len(self.frontend.parts):
            return whole
        return whole.sum(axis=1, keepdims=True)

    @property
    def map_order(self) -> Literal["C", "F"]:
        """Memory order of the arrays (T, F) that `weights` returns."""
        return self.frontend.meaning.map_order(self.frontend)

    @property
    def seen(self) -> FloatArray:
        """The network's input on the grid of the STFT, (F, T), for pictures.

        The first channel, if they differ. For a waveform it is the magnitude of the STFT.
        """
        values = self._values[0]
        if values.shape[1] == 1:
            return np.abs(self.stft)
        return self._drawn(values.T, self.frontend.parts[0])

    def stretched(self, plane: FloatArray) -> FloatArray:
        """A plane (H, W) of any layer, enlarged to the grid of the STFT, (F, T).

        Each value fills the part of the clip that it stands for.

        Parameters
        ----------
        plane : array, shape (H, W)

        Returns
        -------
        array of float32, shape (F, T)
        """
        layout = self.frontend.layout
        upright = plane.T if layout[1] == "T" or layout[2] == "F" else plane
        return self._drawn(upright, self.frontend)

    def _drawn(self, plane: FloatArray, frontend: Frontend) -> FloatArray:
        """A plane (rows, T) of the input, or a smaller one, on the grid of the STFT, (F, T)."""
        kind, n_fft = frontend.meaning, self.frontend.n_fft
        whole = (kind.rows(frontend), self.stft.shape[1])
        columns = plane if plane.shape == whole else _repeated(plane, whole)
        return kind.drawn(frontend, columns.T[np.newaxis], n_fft)[0].T

    @functools.cached_property
    def round_trip(self) -> float | None:
        """Error of the sound of a map of ones, in dB of the clip's energy; None for silence.

        It tells how much of the clip the front end loses: almost nothing with the whole STFT,
        everything outside the bands with a mel spectrogram. If channels differ, the sound is
        the mean of theirs.
        """
        energy = float(np.square(self.samples, dtype=np.float64).sum())
        if energy == 0:
            return None
        frontend, values = self.frontend, self._values
        share = np.float32(1 / len(values))
        ones = np.full((1, len(values), *values[0].shape), share)
        if frontend.meaning.on_stft:
            spectra = self.stft.T * spread(frontend, ones)
            envelope = frontend.transform.envelope(len(self.stft.T), self.samples.size)
            sound = frontend.transform.inverse(spectra, envelope)[0]
        else:
            sound = sounds_of(frontend, self.samples, ones, "mask")[0]
        error = float(np.square(sound - self.samples, dtype=np.float64).sum())
        return float(10 * np.log10(max(error / energy, _LEAST_ERROR)))

    def __repr__(self) -> str:
        return (
            f"<Clip: {self.duration:.3f} s, {self.samples.size} samples at {self.sr:g} Hz, "
            f"stft {self.stft.shape[0]} x {self.stft.shape[1]}>"
        )


def masking(planes: FloatArray, mode: str) -> tuple[FloatArray, str]:
    """Express mode "wiener" as "mask"; other modes are returned as they are.

    The maps (K, ...) become the magnitudes of their values, divided by the largest of each map.
    A map of zeros stays zero.
    """
    if mode != "wiener":
        return planes, mode
    sizes = np.abs(planes)
    largest = sizes.max(axis=tuple(range(1, sizes.ndim)), keepdims=True, initial=0.0)
    return np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0), "mask"


def check_frontend(frontend: Any) -> None:
    """Refuse what is not a `Frontend`."""
    if not isinstance(frontend, Frontend):
        raise ParameterError(f"the front end must be a Frontend, found {shown(frontend)}")


def at_rate(samples: FloatArray, sr: float, fe: Frontend) -> FloatArray:
    """Resample to the front end's rate; AudioError if too few samples are left."""
    resampled = resample(samples, sr, fe.sr)
    if resampled.size < LEAST_SAMPLES:
        raise AudioError(
            f"{samples.size} samples at {sr:g} Hz are {resampled.size} at {fe.sr:g} Hz; "
            f"at least {LEAST_SAMPLES} are needed"
        )
    return resampled


def native_samples(fe: Frontend, sr: float) -> int | None:
    """How many samples at rate `sr` a clip of fixed length depends on; None without `frames`."""
    if fe.frames is None:
        return None
    # All samples that the last frame sees, and at least one more than can be kept: it shows
    # that the sound goes on.
    seen = max(part.framing.seen(fe.frames) for part in fe.parts)
    count = max(seen, fe.framing.longest(fe.frames) + 1)
    if sr == fe.sr:
        return count
    check_rates(sr, fe.sr)
    # The resampler's filter spans less than 1024 samples at the lower rate.
    ratio = sr / fe.sr
    return math.ceil(count * ratio) + math.ceil(1024 * max(1.0, ratio))


def _fit(samples: FloatArray, fe: Frontend) -> FloatArray:
    """A copy, cut or padded with silence to the length of `fe.frames` frames."""
    found = fe.framing.num_frames(samples.size)
    if fe.frames is None and found == 0:
        raise AudioError(
            f"{samples.size} samples are less than one frame of {fe.n_fft} without center"
        )
    if fe.frames is None or found == fe.frames:
        return samples.copy()
    fitted = np.zeros(fe.framing.shortest(fe.frames), np.float32)
    kept = samples[: fitted.size]
    fitted[: kept.size] = kept
    return fitted


def _emphasised(samples: FloatArray, fe: Frontend) -> FloatArray:
    """The samples after pre-emphasis: what the input is computed from."""
    if not fe.preemphasis:
        return samples
    before = np.concatenate([samples[:1], samples[:-1]])
    return np.asarray(samples - np.float32(fe.preemphasis) * before, np.float32)


def _analysed(
    heard: FloatArray, spectra: ComplexArray, fe: Frontend, frames: int | None
) -> list[ComplexArray]:
    """The spectra (T, F) that each part of the input is computed from.

    `spectra` are those of the sound without pre-emphasis.
    """
    found = {} if fe.preemphasis else {fe.transform: spectra}
    emphasised = _emphasised(heard, fe)
    for part in fe.parts:
        if part.transform not in found:
            found[part.transform] = part.transform.forward(emphasised, frames)
    return [found[part.transform] for part in fe.parts]


def _scaled_values(samples: FloatArray, spectra: ComplexArray, fe: Frontend) -> FloatArray:
    """The values of the input, (T, rows)."""
    values = fe.meaning.values(fe, samples, spectra)
    rows = values.shape[1]
    if fe.normalize is not None:
        for key in ("scale", "shift"):
            numbers = fe.normalize.get(key)
            if isinstance(numbers, list) and len(numbers) != rows:
                raise ParameterError(
                    f"normalize {key} must have {rows} numbers, one for each band, "
                    f"found {len(numbers)}"
                )
    found = scaled(values, fe.power, fe.scale, fe.normalize, fe.delta)
    if not np.isfinite(found).all():
        raise AudioError("the samples are so large that the spectrogram overflows float32")
    return found


def _in_layout(values: list[FloatArray], fe: Frontend) -> FloatArray:
    """Arrange the values (T, rows) of each part as the input of the network."""
    stacked = np.stack([one.T for one in values])
    channels = np.broadcast_to(stacked, (fe.num_channels, *stacked.shape[1:]))
    return np.ascontiguousarray(channels.transpose(["CFT".index(axis) for axis in fe.layout]))


def _repeated(plane: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Enlarge `plane` by repeating its values."""
    rows, columns = (
        np.arange(wanted) * found // wanted for wanted, found in zip(shape, plane.shape)
    )
    return plane[rows[:, None], columns]


def as_clip(value: Any) -> Clip:
    """`value`, if it is a Clip; else ParameterError."""
    if not isinstance(value, Clip):
        raise ParameterError(f"clip must be a Clip, found {type(value).__name__}")
    return value


def check_finite(arrays: FloatArray, what: str) -> None:
    """Refuse arrays with values that are not finite; the error names the array's number."""
    # One at a time, because the test needs one byte for each value.
    for k, array in enumerate(arrays):
        if not np.isfinite(array).all():
            raise ParameterError(f"{what} {k} is not finite in float32")


def _checked_spectra(stft: ArrayLike, fe: Frontend) -> ComplexArray:
    """A complex64 copy of `stft` as (T, F)."""
    array = as_array(stft, "the STFT", AudioError)
    if array.dtype.kind not in "fc":
        raise AudioError(f"the STFT must be complex, found dtype {array.dtype}")
    wanted = (fe.transform.bins, "T" if fe.frames is None else fe.frames)
    if array.ndim != 2 or array.shape[0] != wanted[0] or fe.frames not in (None, array.shape[1]):
        raise AudioError(f"the STFT must be ({wanted[0]}, {wanted[1]}), found {array.shape}")
    if fe.transform.shortest(array.shape[1]) < 2:
        raise AudioError(f"{array.shape[1]} frames of STFT are too few for a sound")
    with np.errstate(over="ignore"):
        spectra = np.array(array.T, dtype=np.complex64, order="C")
    if not np.isfinite(spectra).all():
        row, column = np.argwhere(~np.isfinite(spectra.T))[0]
        raise AudioError(f"the STFT is not finite in float32 at bin {row}, frame {column}")
    return spectra


def load_clip(
    source: SourceLike | tuple[ArrayLike, float], frontend: Frontend | None, offset: float = 0.0
) -> Clip:
    """Read a clip. Of a long file, only as much as the front end's `frames` needs is read.

    Parameters
    ----------
    source : path, binary file object, or (samples, sr)
        A file in any format that soundfile reads (wav, flac, ogg, mp3, ...), or an
        array (n,) or (channels, n) with its rate, see `Clip`. A file object
        must be seekable; it is read from its start and left open.
    frontend : Frontend or None
        Such as ``net.frontend``; None, of a network without one, is an error that says what to do.
    offset : float
        Where the clip begins, in seconds. Its first sample is sample
        ``int(offset * sr)`` of the source, as in ``librosa.load``.

    Returns
    -------
    Clip

    Raises
    ------
    AudioError
        If the source is damaged, is not finite audio of at least 2 samples, or ends
        before `offset`. The message names the file.
    FileNotFoundError
        If there is no such file.
    ParameterError
        If `offset`, `frontend` or the kind of source is not as described.

    Examples
    --------
    >>> import numpy as np, fastdeconv as fd
    >>> frontend = fd.Frontend(kind="mel", sr=16000, n_fft=512, n_mels=40, frames=100)
    >>> samples = np.sin(np.arange(44100))
    >>> fd.load_clip((samples, 44100), frontend, offset=0.1).x.shape
    (1, 40, 100)
    """
    needed = needed_frontend(frontend)
    check_frontend(needed)
    start = as_number("offset", offset)
    if start < 0:
        raise ParameterError(f"offset must not be negative, found {start:g}")
    samples, sr, name = read_source(source, start, lambda rate: native_samples(needed, rate))
    try:
        clip = Clip(samples, sr, needed)
    except AudioError as error:
        raise named(error, name) from error
    clip.start = start
    return clip


def open_clip(source: Any, frontend: Frontend | None, offset: float = 0.0) -> Clip:
    """Return `source` if it is a clip, else load it.

    Parameters
    ----------
    source : Clip, or what `load_clip` takes
        A clip is used unchanged, with its own front end.
    frontend : Frontend or None
        The front end of the network.
    offset : float
        Where the clip begins, in seconds.

    Raises
    ------
    ParameterError
        If there is no front end to make a clip with, or a clip is given an offset.
    AudioError
        If `source` cannot be used as sound.
    """
    if isinstance(source, Clip):
        if offset:
            raise ParameterError("offset is for files: cut the samples before making the Clip")
        return source
    return load_clip(source, frontend, offset=offset)


def needed_frontend(frontend: Frontend | None) -> Frontend:
    """`frontend`, or ParameterError where the network has none."""
    if frontend is None:
        raise ParameterError(
            "the network does not say how sound becomes its input: give it a front end, "
            "Network(..., frontend=Frontend(...)), or pass a Clip made with one. On the "
            "command line, --frontend says it for a model file"
        )
    return frontend


def file_name(source: Any) -> str | None:
    """The name, without folders, of the file that a source is read from; else None."""
    if not isinstance(source, (str, os.PathLike)):
        source = getattr(source, "name", None)
    return Path(source).name if isinstance(source, (str, os.PathLike)) else None
