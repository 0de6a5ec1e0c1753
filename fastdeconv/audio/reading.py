"""Samples from files and arrays: checks, mono mix-down, resampling.

soundfile and soxr are imported where they are used: ``import fastdeconv`` must
stay light, and a file at the right rate needs no resampler.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_array
from ..errors import AudioError
from ..files import open_regular

__all__ = [
    "MAX_SAMPLES",
    "SourceLike",
    "check_samples",
    "mono_samples",
    "read_file",
    "resample",
    "source_name",
]

FloatArray = NDArray[np.float32]
SourceLike = str | os.PathLike[str] | IO[bytes]

# 4 GiB of float32: more is a damaged header or a mistake in the rates.
MAX_SAMPLES = 1 << 30
# More is a damaged header too, and would make a small file fill the memory.
_MAX_UPSAMPLING = 256
# Values decoded at a time, so that memory follows what a file holds, not what it claims.
_BLOCK_VALUES = 1 << 20
# Writers that stream to a pipe leave a size like this where they do not know it.
_UNKNOWN_SIZE = 0x7FFFF000
# How libsndfile notes a wrong size of the audio: wav and caf, aiff, au, w64, rf64.
_SIZE_NOTE = re.compile(r"\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)")
_OGG_PAGE = 65307  # the longest there can be
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
        Seconds; the first sample is number ``int(offset * sr)``, as in ``librosa.load``.
    wanted : callable
        From the rate of the file to the number of samples to read at most; None for all.

    Returns
    -------
    samples : array, shape (n,), float32
    sr : int
        The rate of the file.

    Raises
    ------
    AudioError
        If the file is not whole, readable audio, or ends before `offset`.
    FileNotFoundError
        If there is no such file.
    """
    name = source_name(source)
    if not isinstance(source, (str, os.PathLike)):
        return _read_object(source, name, offset, wanted)
    with _open(source, name) as file:
        return _read_object(file, name, offset, wanted)


def source_name(source: SourceLike) -> str:
    """What messages call `source`: its path, or its type if it has none."""
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
    import soundfile

    _check_file_object(file, name)
    try:
        sound = soundfile.SoundFile(_QuietFile(file))
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"{name}: not an audio file, or damaged: {_reason(error)}") from error
    with sound:
        _check_whole(sound, file, name)
        try:
            return _read_sound(sound, file, name, offset, wanted), sound.samplerate
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioError(f"{name}: damaged or truncated: {_reason(error)}") from error


class _QuietFile:
    """What libsndfile reads from: `file`, but a failed seek or read is silent.

    An exception cannot pass through libsndfile; cffi would print its traceback.
    A damaged file asks for impossible seeks; libsndfile sees that the position
    or the count is not the one it asked for, and reports that.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell = file.tell

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return self._file.tell()

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (OSError, ValueError):
            return b""


def _reason(error: Exception) -> str:
    # soundfile's own text shows the address of the file object; libsndfile's does not.
    text = getattr(error, "error_string", None)
    return text if isinstance(text, str) and text else str(error)


def _check_file_object(file: Any, name: str) -> None:
    try:
        seekable = file.seekable()
        size = file.seek(0, os.SEEK_END) if seekable else 0
        if seekable:
            file.seek(0)
    except (AttributeError, OSError, ValueError) as error:
        raise AudioError(f"{name}: not a readable binary file object: {error}") from error
    if not seekable:
        raise AudioError(f"{name}: cannot seek; read it into io.BytesIO first")
    if not isinstance(file.read(0), bytes):
        raise AudioError(f"{name}: is opened as text; open it in binary mode")
    if size == 0:
        raise AudioError(f"{name}: the file is empty")


def _check_whole(sound: Any, file: Any, name: str) -> None:
    """Refuse a file shorter than its header says; libsndfile only notes it in its log."""
    if sound.format == "OGG" and not _ogg_has_its_end(file):
        raise AudioError(f"{name}: truncated: the Ogg stream has no end")
    for line in sound.extra_info.splitlines():
        match = _SIZE_NOTE.fullmatch(line)
        if match is None:
            continue
        claimed, found = int(match[1]), int(match[2])
        if found < claimed < _UNKNOWN_SIZE:
            raise AudioError(f"{name}: truncated: {found} bytes where the header says {claimed}")


def _ogg_has_its_end(file: Any) -> bool:
    """Whether the last Ogg page is whole and marked as the last of its stream."""
    # libsndfile reads on from where it left the file.
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2 * _OGG_PAGE))
    tail = file.read(2 * _OGG_PAGE)
    file.seek(position)
    start = tail.rfind(b"OggS")
    if start < 0:
        return True  # something long was appended, such as a tag; the pages are out of sight
    page = tail[start:]
    if len(page) < 27 or not page[5] & 4:
        return False
    lengths = page[27 : 27 + page[26]]
    whole: bool = len(page) >= 27 + page[26] + sum(lengths)
    return whole


def _read_sound(
    sound: Any, file: Any, name: str, offset: float, wanted: Callable[[float], int | None]
) -> FloatArray:
    start = _start(offset, sound.samplerate, sound.frames, name)
    limit = wanted(sound.samplerate)
    count = sound.frames - start if limit is None else min(limit, sound.frames - start)
    if count > MAX_SAMPLES:
        raise AudioError(f"{name}: {count} samples are more than the limit of {MAX_SAMPLES}")
    # A seek, even to the start, changes the rounding of libsndfile's mp3 decoder.
    if start:
        sound.seek(start)
    samples = _read_blocks(sound, count)
    if samples.size < count and not _length_is_a_guess(sound, file):
        raise AudioError(
            f"{name}: truncated: {start + samples.size} samples where the header says "
            f"{sound.frames}"
        )
    check_samples(samples, sound.samplerate, name, start)
    return samples


def _start(offset: float, sr: float, count: int, name: str) -> int:
    """The number of the first sample at `offset` seconds of `count` samples."""
    if count == 0:
        raise AudioError(f"{name}: holds no samples")
    # Compared before int(), which an infinite product would break.
    if offset * sr >= count:
        raise AudioError(f"{name}: offset {offset:g} s is beyond the end, at {count / sr:.3f} s")
    return int(offset * sr)


def _read_blocks(sound: Any, count: int) -> FloatArray:
    blocks: list[FloatArray] = []
    step = max(1, _BLOCK_VALUES // sound.channels)
    while count > 0:
        block = sound.read(min(count, step), dtype="float32", always_2d=True)
        if not len(block):
            break
        blocks.append(_mean_of_channels(block.T))
        count -= len(block)
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _length_is_a_guess(sound: Any, file: Any) -> bool:
    """Whether an mp3 has no header that counts its frames, so its length is estimated."""
    if sound.format != "MP3":
        return False
    file.seek(0)
    head = file.read(10)
    if head[:3] == b"ID3":
        # The size of the tag before the audio, in four groups of seven bits.
        size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
        file.seek(10 + size)
    else:
        file.seek(0)
    frame = file.read(256)
    return not any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


def mono_samples(samples: Any, sr: float, offset: float = 0.0) -> FloatArray:
    """Samples of an array, (n,) or (channels, n), as mono float32.

    Floats are kept as they are. int8, int16 and int32 are divided by 2^7, 2^15
    and 2^31; uint8 is centred at 128 first, as in wav files.

    Raises
    ------
    AudioError
        If the array is not audio: other dtype or shape, NaN, Inf, too short.
    """
    array = as_array(samples, "samples", AudioError)
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[0] > array.shape[1]):
        raise AudioError(f"samples must be (n,) or (channels, n), found shape {array.shape}")
    if 0 in array.shape:
        raise AudioError(f"samples are empty, found shape {array.shape}")
    start = _start(offset, sr, array.shape[-1], "samples")
    with np.errstate(over="ignore"):
        mono: FloatArray = _mean_of_channels(_as_float(array))[start:].astype(np.float32)
    check_samples(mono, sr, "samples", start)
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
    """(channels, n) or (n,) to (n,), as ``librosa.to_mono``."""
    if array.ndim == 1:
        return array
    if len(array) == 1:
        return array[0]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.mean(array, axis=0)


def check_samples(samples: FloatArray, sr: float, name: str, start: int = 0) -> None:
    """Refuse fewer than two samples, and NaN or Inf; `start` is the number of the first."""
    if samples.size < 2:
        raise AudioError(f"{name}: at least 2 samples are needed, found {samples.size}")
    finite = np.isfinite(samples)
    if not finite.all():
        first = int(np.argmin(finite))
        raise AudioError(
            f"{name}: sample {start + first} (at {(start + first) / sr:.3f} s) is {samples[first]}"
        )


def resample(samples: FloatArray, sr: float, target_sr: float) -> FloatArray:
    """Equal to ``librosa.resample(samples, orig_sr=sr, target_sr=target_sr)`` (soxr, HQ)."""
    if sr == target_sr:
        return samples
    ratio = float(target_sr) / sr
    if ratio > _MAX_UPSAMPLING or samples.size * ratio > MAX_SAMPLES:
        raise AudioError(
            f"{samples.size} samples at {sr:g} Hz cannot be resampled to {target_sr:g} Hz: the "
            f"limits are {_MAX_UPSAMPLING} times the rate and {MAX_SAMPLES} samples"
        )
    import soxr

    try:
        raw = soxr.resample(samples, sr, target_sr, quality="HQ")
    except (RuntimeError, ValueError) as error:
        raise AudioError(f"cannot resample from {sr:g} Hz to {target_sr:g} Hz: {error}") from error
    # soxr may give a sample more or less; librosa's length is this one.
    result = np.zeros(math.ceil(samples.size * ratio), np.float32)
    size = min(result.size, raw.size)
    result[:size] = raw[:size]
    return result
