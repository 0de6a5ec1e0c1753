"""Mono sound files: wav and flac with 16 bits, or ogg (Vorbis).

wav is written with the standard library, which needs no import of soundfile and takes a tenth of a
millisecond for a short file. A result has hundreds of them.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError, ParameterError, shown
from .ogg import set_serial

__all__ = ["FORMATS", "PEAK", "check_format", "encode", "peak_gain", "write_sound", "write_stream"]

#: The file formats there are, by suffix.
FORMATS = ("wav", "flac", "ogg")
#: The peak of a normalised file as a share of full scale: -1 dBFS, the usual headroom.
PEAK = 10.0 ** (-1 / 20)

# Vorbis at quality 0.3: 4 s at 11 kHz take 15 KB, half of it Vorbis's own tables.
_VORBIS_COMPRESSION = 0.7
# libsndfile's Vorbis encoder overflows its stack if it is given minutes of sound at once.
_BLOCK = 1 << 16
# Above this rate the encoder crashes instead of refusing.
_VORBIS_MOST_HZ = 200_000
_SERIAL = 1
"""Serial number of the stream in every Ogg file, so that the same sound gives the same bytes."""


def check_format(audio_format: str) -> str:
    """`audio_format`, checked.

    Raises
    ------
    ParameterError
        If it is not one of `FORMATS`.
    """
    if not isinstance(audio_format, str) or audio_format not in FORMATS:
        raise ParameterError(
            f"audio_format must be one of {', '.join(FORMATS)}, found {shown(audio_format)}"
        )
    return audio_format


def peak_gain(peak: float) -> float:
    """The factor that brings a sound with this `peak` to `PEAK`; 1.0 for silence."""
    return PEAK / peak if peak > 0 else 1.0


def write_sound(path: Path, samples: NDArray[np.float32], sr: float, gain: float = 1.0) -> None:
    """Write ``samples * gain`` as a mono file in the format of the path's suffix.

    Parameters
    ----------
    path : Path
        Ends in one of `FORMATS`.
    samples : array of float32, shape (n,)
        Full scale is 1.0, which is 32768 as an integer: a 16-bit file that was read is written
        as it was.
    sr : float
        Sample rate in Hz. The formats hold whole numbers, so the nearest one is written.
    gain : float
        Factor applied first. Values outside full scale are then clipped.

    Raises
    ------
    AudioError
        If `samples` has a value that is not finite, or the format does not allow the rate.
    """
    try:
        data = encode(samples, sr, gain, path.suffix[1:])
    except AudioError as error:
        raise AudioError(f"cannot write {path.name}: {error}") from None
    path.write_bytes(data)


def write_stream(
    path: Path, blocks: Iterable[NDArray[np.float32]], sr: float, gain: float = 1.0
) -> None:
    """As `write_sound`, for a sound that comes in blocks; the file must not exist yet."""
    with path.open("x+b") as file:
        try:
            _encode_to(file, blocks, sr, gain, path.suffix[1:])
        except AudioError as error:
            raise AudioError(f"cannot write {path.name}: {error}") from None


def encode(
    samples: NDArray[np.float32], sr: float, gain: float = 1.0, audio_format: str = "wav"
) -> bytes:
    """The bytes of a sound file; see `write_sound`."""
    buffer = io.BytesIO()
    _encode_to(buffer, [samples], sr, gain, audio_format)
    return buffer.getvalue()


def _encode_to(
    file: IO[bytes], blocks: Iterable[NDArray[np.float32]], sr: float, gain: float,
    audio_format: str,
) -> None:
    rate = max(1, round(sr))
    pcm = (_as_pcm(block, gain) for block in blocks)
    if audio_format == "wav":
        _encode_wav(file, pcm, rate)
    else:
        _encode(file, _of_size(pcm, _BLOCK), rate, audio_format)


def _as_pcm(samples: NDArray[np.float32], gain: float) -> NDArray[np.int16]:
    # In float64, because the gain of a very faint sound overflows float32.
    scaled = np.multiply(samples, gain * 32768.0, dtype=np.float64)
    if not np.isfinite(scaled).all():
        raise AudioError("the sound has samples that are not finite")
    return np.clip(np.rint(scaled, out=scaled), -32768, 32767, out=scaled).astype(np.int16)


def _of_size(
    blocks: Iterable[NDArray[np.int16]], size: int
) -> Iterator[NDArray[np.int16]]:
    """The same samples in blocks of `size`. The size decides the bytes of lossy files."""
    kept = np.zeros(0, np.int16)
    for block in blocks:
        kept = np.concatenate([kept, block])
        whole = len(kept) // size * size
        for start in range(0, whole, size):
            yield kept[start : start + size]
        kept = kept[whole:]
    if len(kept):
        yield kept


def _encode_wav(file: IO[bytes], blocks: Iterable[NDArray[np.int16]], rate: int) -> None:
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(b"")  # so that a file without samples gets a header
        for block in blocks:
            out.writeframes(block.tobytes())


def _encode(
    file: IO[bytes], blocks: Iterable[NDArray[np.int16]], rate: int, audio_format: str
) -> None:
    import soundfile

    if audio_format == "ogg" and rate > _VORBIS_MOST_HZ:
        raise AudioError(f"ogg at {rate} Hz: Vorbis goes up to {_VORBIS_MOST_HZ} Hz")
    how: dict[str, dict[str, Any]] = {
        "flac": {"format": "FLAC", "subtype": "PCM_16"},
        "ogg": {
            "format": "OGG", "subtype": "VORBIS", "compression_level": _VORBIS_COMPRESSION
        },
    }
    try:
        with soundfile.SoundFile(file, "w", rate, 1, **how[audio_format]) as out:
            for block in blocks:
                out.write(block)
        if audio_format == "ogg":
            set_serial(file, _SERIAL)
    except (soundfile.SoundFileError, ValueError) as error:
        raise AudioError(f"{audio_format} at {rate} Hz: {error}") from None
