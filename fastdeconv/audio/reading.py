"""Samples from files and arrays: checks, mono mix-down, resampling.

soundfile and soxr are imported inside the functions that use them: ``import fastdeconv`` must
stay light, and a file at the right rate needs no resampler.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_array
from ..errors import AudioError, ParameterError
from ..files import open_regular
from . import containers
from ._checks import as_number
from .containers.foreign import not_read
from .containers.pieces import Part, Piece, Pieces

__all__ = [
    "MAX_SAMPLES",
    "SourceLike",
    "check_rates",
    "check_samples",
    "mono_samples",
    "named",
    "read_file",
    "read_source",
    "resample",
    "source_name",
]

FloatArray = NDArray[np.float32]
SourceLike = str | os.PathLike[str] | IO[bytes]

#: Samples of a sound, at most: 4 GiB of float32. More is a damaged header or a wrong rate.
MAX_SAMPLES = 1 << 30
# A larger factor is a wrong rate too, and would make a small file fill the memory.
_MAX_UPSAMPLING = 256
# The resampler's filter grows with this factor: at 1e5 it takes seconds, and from about 1e10 on
# soxr does not return.
_MAX_DOWNSAMPLING = 1 << 16
# Values decoded at a time, so that the memory used depends on what a file holds, not on what it
# claims to hold.
_BLOCK_VALUES = 1 << 16
# A file with more streams is damaged, or made to keep the reader busy.
_MAX_PARTS = 10_000
# More samples than any file has.
_NO_END = 1 << 62
# Formats in which libsndfile finds a sample exactly. In others, all samples before it are read.
_SEEK_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC")
_SEEK_SUBTYPES = (
    "PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW",
)
# If the mean of the channels has less than this share of their energy (-40 dB), the channels
# cancel each other, and the mean is only what codecs and rounding leave.
_CANCELLED = 1e-4
_PCM_SCALE = {"int8": 2.0**7, "uint8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}


def read_file(
    source: SourceLike, offset: float, wanted: Callable[[float], int | None]
) -> tuple[FloatArray, int]:
    """Read mono samples from `offset` seconds on.

    Parameters
    ----------
    source : path or binary file object
        A file object must be seekable; it is read from its start and left open.
    offset : float
        Seconds. The first sample is sample ``int(offset * sr)``, as in ``librosa.load``.
    wanted : callable
        Takes the rate of the file and returns how many samples to read at most; None for all.

    Returns
    -------
    samples : array, shape (n,), float32
    sr : int
        The rate of the file in Hz.

    Raises
    ------
    AudioError
        If the file is not readable audio, is damaged, or ends before `offset`.
    FileNotFoundError
        If there is no such file.
    """
    name = source_name(source)
    if not isinstance(source, (str, os.PathLike)):
        return _read_object(source, name, offset, wanted)
    with _open(source, name) as file:
        return _read_object(file, name, offset, wanted)


def read_source(
    source: Any, offset: float, wanted: Callable[[float], int | None]
) -> tuple[FloatArray, float, str | None]:
    """Read a file, or take samples from a tuple (samples, sr).

    Parameters
    ----------
    source : path, binary file object, or (samples, sr)
    offset, wanted
        As in `read_file`.

    Returns
    -------
    samples : array, shape (n,), float32
    sr : float
        The rate of the source in Hz.
    name : str or None
        The name of the source, if it has one.

    Raises
    ------
    AudioError, FileNotFoundError
        As `read_file` does.
    ParameterError
        If the source is neither a file nor a tuple.
    """
    if isinstance(source, tuple):
        if len(source) != 2:
            raise ParameterError(
                f"a source tuple must be (samples, sr), found {len(source)} items"
            )
        rate = as_number("sr", source[1], above=0)
        return mono_samples(source[0], rate, offset)[: wanted(rate)], rate, None
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        return *read_file(source, offset, wanted), source_name(source)
    raise ParameterError(
        "the source must be a path, a binary file object or (samples, sr), "
        f"found {type(source).__name__}"
    )


def named(error: AudioError, name: str | None) -> AudioError:
    """The error with the name of its source in front."""
    return error if name is None else AudioError(f"{name}: {error}")


def source_name(source: SourceLike) -> str:
    """The name of `source` in messages: its path, or its type if it has no path."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else f"<{type(source).__name__}>"


def _open(path: str | os.PathLike[str], name: str) -> IO[bytes]:
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AudioError(f"{name}: cannot be opened: {error.strerror}") from error


def _read_object(
    file: Any, name: str, offset: float, wanted: Callable[[float], int | None]
) -> tuple[FloatArray, int]:
    size = _check_file_object(file, name)
    try:
        samples, sr, first = _Reader(file, size, offset, wanted).read()
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from error.__cause__
    except OSError as error:
        raise AudioError(f"{name}: damaged, or cannot be read: {error}") from error
    check_samples(samples, sr, name, first)
    return samples, sr


def _check_file_object(file: Any, name: str) -> int:
    """Check that `file` can be read, and return its size in bytes."""
    try:
        if not file.seekable():
            raise AudioError(f"{name}: the file object cannot seek; read it into io.BytesIO first")
        size: int = file.seek(0, os.SEEK_END)
        file.seek(0)
        is_binary = isinstance(file.read(0), bytes)
    except AudioError:
        raise
    except (AttributeError, OSError, ValueError) as error:
        raise AudioError(f"{name}: not a readable binary file object: {error}") from error
    if not is_binary:
        raise AudioError(f"{name}: the file object is opened as text; open it in binary mode")
    if size == 0:
        raise AudioError(f"{name}: the file is empty")
    return size


class _Reader:
    """Reads the streams of a file, one after another, until there are enough samples.

    Every stream is read to its real end, whatever number of samples its header or libsndfile
    reports.
    """

    def __init__(
        self, file: Any, size: int, offset: float, wanted: Callable[[float], int | None]
    ) -> None:
        self._file, self._size = file, size
        self._offset, self._wanted = offset, wanted
        self._mix = _Mix()
        self._rate = 0
        # Number of samples in the streams that were read so far.
        self._passed = 0

    def read(self) -> tuple[FloatArray, int, int]:
        """The samples, their rate, and the position of the first one in the file."""
        parts = containers.parts(self._file, self._size, self._last, self._measured)
        for number, part in enumerate(parts, 1):
            if number > _MAX_PARTS:
                raise AudioError(f"damaged: has more than {_MAX_PARTS} streams")
            self._read_part(part)
            last = self._last(self._rate)
            if last is not None and self._passed >= last:
                break
        first = _start(self._offset, self._rate, self._passed)
        return self._mix.samples(), self._rate, first

    def _first(self, rate: float) -> int:
        """Position of the first sample to return."""
        # The product may be infinite, which int() does not take.
        return int(min(self._offset * rate, _NO_END))

    def _last(self, rate: float) -> int | None:
        """Position after the last sample to return; None for all."""
        count = self._wanted(rate)
        return None if count is None else self._first(rate) + count

    def _open(self, pieces: Sequence[Piece], tail: int = 0) -> _Sound:
        import soundfile

        try:
            return _Sound(Pieces(self._file, pieces, tail))
        except (soundfile.SoundFileError, RuntimeError) as error:
            kind = containers.foreign_kind(self._file, self._size)
            reason = f"not an audio file, or damaged: {_reason(error)}"
            raise AudioError(not_read(kind) if kind else reason) from error

    def _measured(self, pieces: Sequence[Piece]) -> tuple[int, int]:
        """How many samples libsndfile decodes from the pieces, and their rate."""
        with self._open(pieces) as sound:
            while len(sound.read()):
                pass
            return sound.position, sound.rate

    def _read_part(self, part: Part) -> None:
        with self._open(part.pieces, part.tail) as sound:
            rate = self._rate = self._rate or sound.rate
            if sound.rate != rate:
                raise AudioError(
                    f"its streams have different rates, {rate} and {sound.rate} Hz; convert it "
                    "to one rate first, for instance with ffmpeg"
                )
            # From here on, positions count from the first sample that libsndfile decodes of
            # this part.
            before = self._passed - part.skip
            first, last = max(part.skip, self._first(rate) - before), self._last(rate)
            wanted = _NO_END if last is None else last - before
            length = _NO_END if part.length is None else part.skip + part.length
            end = min(wanted, length)
            sound.seek(first)
            _check_count(self._mix.count + min(end, sound.known_length) - first)
            while sound.position < end:
                block = sound.read(end - sound.position)
                if not len(block):
                    _check_decoded(sound, part)
                    break
                self._mix.add(block[max(0, first - sound.position + len(block)) :])
            if part.cut is not None and sound.position < wanted:
                raise AudioError(part.cut)
            self._passed += max(0, min(sound.position, length) - part.skip)


def _check_decoded(sound: _Sound, part: Part) -> None:
    """Raise an error if a stream ended too early."""
    if sound.view.failed is not None:
        raise AudioError(f"damaged or truncated: {sound.view.failed}")
    if part.promised is not None and sound.position < part.promised:
        raise AudioError(
            f"truncated or damaged: {sound.position} samples where there should be {part.promised}"
        )
    # An error in what follows the sound does no harm.
    is_behind = part.promised is not None or sound.view.tell() >= sound.view.size
    if sound.error is not None and not is_behind:
        raise AudioError(f"damaged: {_reason(sound.error)}")


class _Sound:
    """A stream that libsndfile decodes."""

    def __init__(self, view: Pieces) -> None:
        self.view = view
        #: Position of the next sample.
        self.position = 0
        #: The error that stopped the reading before the end.
        self.error: Exception | None = None
        self._open()

    def _open(self) -> None:
        import soundfile

        self.view.seek(0)
        self._file = soundfile.SoundFile(self.view)
        # Otherwise soundfile seeks after every read, which damages the sound of an mp3.
        self._file.seekable = lambda: False
        self.rate: int = self._file.samplerate
        self._seeks_exactly = (
            self._file.format in _SEEK_FORMATS and self._file.subtype in _SEEK_SUBTYPES
        )

    def __enter__(self) -> _Sound:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    @property
    def known_length(self) -> int:
        """Number of samples; 0 if it is not certain."""
        length = int(self._file.frames) if self._seeks_exactly else 0
        return length if length < _NO_END else 0

    def seek(self, position: int) -> None:
        """Go to a sample if the format allows it exactly; otherwise do nothing."""
        import soundfile

        if position == 0 or not self._seeks_exactly:
            return
        try:
            self.position = self._file.seek(min(position, self._file.frames))
        except soundfile.SoundFileError:  # for instance because the file's seek table is wrong
            self._file.close()
            self._open()

    def read(self, count: int = _NO_END) -> FloatArray:
        """Some of the next samples, (n, channels); none at the end."""
        import soundfile

        channels = self._file.channels
        count = min(count, max(1, _BLOCK_VALUES // channels)) if self.error is None else 0
        block = np.empty((count, channels), np.float32)
        try:
            done = len(self._file.read(out=block))
        except (soundfile.SoundFileError, RuntimeError) as error:
            # What was decoded before the error is in the block.
            self.error = error
            done = self._decoded() - self.position
        self.position += done
        return block[:done]

    def _decoded(self) -> int:
        import soundfile

        try:
            return int(self._file.tell())
        except soundfile.SoundFileError:
            return self.position


class _Mix:
    """Collects blocks of channels, mixed to mono."""

    def __init__(self) -> None:
        self.count = 0
        self._blocks: list[FloatArray] = []
        self._energies = np.zeros(2)

    def add(self, block: FloatArray) -> None:
        if not len(block):
            return
        # A copy, so that the larger block can be freed.
        mono = np.array(_mean_of_channels(block.T))
        self._energies += _energies(block.T, mono)
        self._blocks.append(mono)
        self.count += len(mono)
        _check_count(self.count)

    def samples(self) -> FloatArray:
        _check_not_cancelled(self._energies, "its channels")
        return np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.float32)


def _check_count(count: int) -> None:
    if count > MAX_SAMPLES:
        raise AudioError(f"{count} samples are more than the limit of {MAX_SAMPLES}")


def _energies(channels: NDArray[Any], mono: NDArray[Any]) -> NDArray[np.float64]:
    """Energy of the mix, and mean energy of the channels."""
    if channels.ndim == 1 or len(channels) == 1:
        return np.zeros(2)
    with np.errstate(over="ignore", invalid="ignore"):
        mixed = np.einsum("i,i", mono, mono, dtype=np.float64)
        return np.array(
            [mixed, np.einsum("ij,ij", channels, channels, dtype=np.float64) / len(channels)]
        )


def _check_not_cancelled(energies: NDArray[np.float64], channels: str) -> None:
    """Refuse a mix that is almost silent only because the channels cancel each other."""
    mixed, mean = energies
    if mixed < _CANCELLED * mean:
        raise AudioError(
            f"{channels} cancel each other out: almost nothing is left in the mono mix; "
            "use a single channel"
        )


def _reason(error: Exception) -> str:
    # soundfile's text contains the address of the file object; libsndfile's text does not.
    text = getattr(error, "error_string", None)
    return text if isinstance(text, str) and text else str(error)


def _start(offset: float, sr: float, count: int) -> int:
    """Position of the sample at `offset` seconds in a sound of `count` samples."""
    if count == 0:
        raise AudioError("holds no samples")
    # The product may be infinite, which int() does not take.
    if offset * sr >= count:
        raise AudioError(f"offset {offset:g} s is beyond the end, at {count / sr:.3f} s")
    return int(offset * sr)


def mono_samples(samples: Any, sr: float, offset: float = 0.0) -> FloatArray:
    """Convert an array (n,) or (channels, n) to mono float32 samples.

    Floats keep their values. int8, int16 and int32 are divided by 2^7, 2^15
    and 2^31; 128 is subtracted from uint8 first, as in wav files.

    Raises
    ------
    AudioError
        If the array is not audio (wrong dtype or shape, NaN, Inf, too short).
    """
    array = as_array(samples, "samples", AudioError)
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[0] > array.shape[1]):
        turned = "; transpose them" if array.ndim == 2 and array.shape[1] < array.shape[0] else ""
        raise AudioError(
            f"samples must be (n,) or (channels, n), found shape {array.shape}{turned}"
        )
    if 0 in array.shape:
        raise AudioError(f"samples are empty, found shape {array.shape}")
    try:
        start = _start(offset, sr, array.shape[-1])
    except AudioError as error:
        raise AudioError(f"samples: {error}") from None
    with np.errstate(over="ignore"):
        channels = _as_float(array)[..., start:]
        mono: FloatArray = _mean_of_channels(channels).astype(np.float32)
    check_samples(mono, sr, "samples", start)
    _check_not_cancelled(_energies(channels, mono), "the channels")
    return mono


def _as_float(array: NDArray[Any]) -> NDArray[np.floating[Any]]:
    if array.dtype.kind == "f":
        return array
    scale = _PCM_SCALE.get(array.dtype.name)
    if scale is None:
        raise AudioError(
            f"samples must be floats or int8, uint8, int16, int32, found dtype {array.dtype}"
        )
    centre = 128.0 if array.dtype == np.uint8 else 0.0
    return (array.astype(np.float64) - centre) / scale


def _mean_of_channels(array: NDArray[Any]) -> Any:
    """The mean (n,) of channels (channels, n), as in ``librosa.to_mono``."""
    if array.ndim == 1:
        return array
    if len(array) == 1:
        return array[0]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.mean(array, axis=0)


def check_samples(samples: FloatArray, sr: float, name: str, start: int = 0) -> None:
    """Refuse fewer than two samples, NaN and Inf.

    `name` begins the message; `start` is the position of the first sample in its source.
    """
    if samples.size < 2:
        raise AudioError(f"{name}: at least 2 samples are needed, found {samples.size}")
    finite = np.isfinite(samples)
    if not finite.all():
        first = int(np.argmin(finite))
        raise AudioError(
            f"{name}: sample {start + first} (at {(start + first) / sr:.3f} s) is {samples[first]}"
        )


def check_rates(sr: float, target_sr: float) -> None:
    """Refuse rates that are so far apart that one of them must be wrong."""
    # Without a division: a damaged header may say 0 Hz.
    if not target_sr / _MAX_UPSAMPLING <= sr <= target_sr * _MAX_DOWNSAMPLING:
        raise AudioError(
            f"sound at {sr:g} Hz cannot be resampled to {target_sr:g} Hz: the limits are "
            f"{_MAX_UPSAMPLING} times the rate and a {_MAX_DOWNSAMPLING}th of it"
        )


def resample(samples: FloatArray, sr: float, target_sr: float) -> FloatArray:
    """Equal to ``librosa.resample(samples, orig_sr=sr, target_sr=target_sr)`` (soxr, HQ).

    Raises
    ------
    AudioError
        If the rates are too far apart, or there would be too many samples.
    """
    if sr == target_sr:
        return samples
    check_rates(sr, target_sr)
    ratio = float(target_sr) / sr
    if samples.size * ratio > MAX_SAMPLES:
        raise AudioError(
            f"{samples.size} samples at {sr:g} Hz cannot be resampled to {target_sr:g} Hz: the "
            f"limit is {MAX_SAMPLES} samples"
        )
    import soxr

    try:
        raw = soxr.resample(samples, sr, target_sr, quality="HQ")
    except (RuntimeError, ValueError) as error:
        raise AudioError(f"cannot resample from {sr:g} Hz to {target_sr:g} Hz: {error}") from error
    # soxr may return one sample more or less than librosa, whose length this is.
    result = np.zeros(math.ceil(samples.size * ratio), np.float32)
    size = min(result.size, raw.size)
    result[:size] = raw[:size]
    return result
