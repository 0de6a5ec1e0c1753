"""Sound files, mono: wav and flac of 16 bits, or ogg (Vorbis).

wav is written with the standard library, so that saving hundreds of short files costs
a tenth of a millisecond each and imports nothing.
"""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError, ParameterError, shown

__all__ = ["FORMATS", "PEAK", "check_format", "encode", "peak_gain", "write_sound"]

#: The file formats there are, by suffix.
FORMATS = ("wav", "flac", "ogg")
#: The peak of a normalised file as a share of full scale: -1 dBFS, the usual headroom.
PEAK = 10.0 ** (-1 / 20)

# Vorbis at quality 0.3: 4 s at 11 kHz are 15 KB, half of them its tables.
_VORBIS_COMPRESSION = 0.7
# libsndfile's encoder of Vorbis overflows its stack when given minutes at once.
_BLOCK = 1 << 16
# Asked for more it does not refuse, it crashes.
_VORBIS_MOST_HZ = 200_000


def check_format(audio_format: str) -> str:
    """`audio_format` if it is one of `FORMATS`.

    Raises
    ------
    ParameterError
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
        Full scale is 1.0 (integer 32768, so that 16-bit files come back as they were).
    sr : float
        Sample rate in Hz; the formats hold whole numbers, the nearest is written.
    gain : float
        Factor applied first. What then lies outside full scale is clipped.

    Raises
    ------
    AudioError
        If `samples` has a value that is not finite, or the format does not take the rate.
    """
    try:
        data = encode(samples, sr, gain, path.suffix[1:])
    except AudioError as error:
        raise AudioError(f"cannot write {path.name}: {error}") from None
    path.write_bytes(data)


def encode(
    samples: NDArray[np.float32], sr: float, gain: float = 1.0, audio_format: str = "wav"
) -> bytes:
    """The bytes of such a file; see `write_sound`."""
    # float64, because the gain of a very faint sound is beyond float32.
    scaled = np.multiply(samples, gain * 32768.0, dtype=np.float64)
    if not np.isfinite(scaled).all():
        raise AudioError("the sound has samples that are not finite")
    pcm = np.clip(np.rint(scaled, out=scaled), -32768, 32767, out=scaled).astype(np.int16)
    rate = max(1, round(sr))
    return _encode_wav(pcm, rate) if audio_format == "wav" else _encode(pcm, rate, audio_format)


def _encode_wav(pcm: NDArray[np.int16], rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()


def _encode(pcm: NDArray[np.int16], rate: int, audio_format: str) -> bytes:
    import soundfile

    if audio_format == "ogg" and rate > _VORBIS_MOST_HZ:
        raise AudioError(f"ogg at {rate} Hz: Vorbis goes up to {_VORBIS_MOST_HZ} Hz")
    how: dict[str, dict[str, Any]] = {
        "flac": {"format": "FLAC", "subtype": "PCM_16"},
        "ogg": {
            "format": "OGG", "subtype": "VORBIS", "compression_level": _VORBIS_COMPRESSION
        },
    }
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(buffer, "w", rate, 1, **how[audio_format]) as file:
            for start in range(0, len(pcm), _BLOCK):
                file.write(pcm[start : start + _BLOCK])
    except (soundfile.SoundFileError, ValueError) as error:
        raise AudioError(f"{audio_format} at {rate} Hz: {error}") from None
    return buffer.getvalue()
