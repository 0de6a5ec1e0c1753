"""Sound files: 16-bit PCM, mono.

Written with the standard library, so that saving hundreds of short files costs
a tenth of a millisecond each and imports nothing.
"""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError

__all__ = ["PEAK", "wav_gain", "write_wav"]

#: The peak of a normalised file as a share of full scale: -1 dBFS, the usual headroom.
PEAK = 10.0 ** (-1 / 20)


def wav_gain(peak: float) -> float:
    """The factor that brings a sound with this `peak` to `PEAK`; 1.0 for silence."""
    return PEAK / peak if peak > 0 else 1.0


def write_wav(path: Path, samples: NDArray[np.float32], sr: float, gain: float = 1.0) -> None:
    """Write ``samples * gain`` as a 16-bit mono wav file.

    Parameters
    ----------
    path : Path
    samples : array of float32, shape (n,)
        Full scale is 1.0 (integer 32768, so that 16-bit files come back as they were).
    sr : float
        Sample rate in Hz; the format holds whole numbers, the nearest is written.
    gain : float
        Factor applied first. What then lies outside full scale is clipped.

    Raises
    ------
    AudioError
        If `samples` has a value that is not finite.
    """
    # float64, because the gain of a very faint sound is beyond float32.
    scaled = np.multiply(samples, gain * 32768.0, dtype=np.float64)
    if not np.isfinite(scaled).all():
        raise AudioError(f"cannot write {path.name}: the sound has samples that are not finite")
    pcm = np.clip(np.rint(scaled, out=scaled), -32768, 32767, out=scaled).astype(np.int16)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sr)
        file.writeframes(pcm.tobytes())
    path.write_bytes(buffer.getbuffer())
