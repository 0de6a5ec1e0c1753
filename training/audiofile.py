"""Reading music files as the network hears them: mono, at its sample rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt


def read_mono(paths: Sequence[Path], sr: float) -> npt.NDArray[np.float32]:
    """Add up the stems of a track, mix them to mono and resample them.

    The result is as long as the longest stem.

    Parameters
    ----------
    paths : sequence of Path
        Files of one sample rate that sound together.
    sr : float
        Sample rate of the result, in Hz.

    Returns
    -------
    array of float32, shape (n_samples,)

    Raises
    ------
    ValueError
        If the files have different sample rates.
    """
    import soundfile
    import soxr

    stems = [soundfile.read(path, dtype="float32", always_2d=True) for path in paths]
    rates = {rate for _, rate in stems}
    if len(rates) != 1:
        raise ValueError(f"{paths[0].parent}: stems of different sample rates {sorted(rates)}")
    mix = np.zeros(max(len(samples) for samples, _ in stems), np.float32)
    for samples, _ in stems:
        mix[: len(samples)] += samples.mean(axis=1)
    return np.asarray(soxr.resample(mix, rates.pop(), sr, quality="HQ"), np.float32)
