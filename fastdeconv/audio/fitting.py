"""What to change in a front end whose input a network does not take."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from .frontend import Frontend

__all__ = ["advice"]


def advice(frontend: Frontend, found: Sequence[int], wanted: Sequence[int | None]) -> str | None:
    """The nearest settings with which a front end would give an input that a network takes.

    Parameters
    ----------
    frontend : Frontend
    found : (C, H, W)
        What it gives.
    wanted : (C, H, W)
        What the network takes; None for sizes that may vary.

    Returns
    -------
    str or None
        As they are written, ``n_mels=64, frames=96``; None where there are none.
    """
    if _fit(found, wanted):
        return None
    sizes = dict(zip(frontend.layout, found))
    for letters in itertools.permutations("CFT"):
        layout = "".join(letters)
        if _fit([sizes[letter] for letter in layout], wanted):
            return f"layout={layout!r}"
    settings = []
    for letter, n, size in zip(frontend.layout, found, wanted):
        if size is not None and n != size:
            setting = _setting(frontend, letter, size)
            if setting is None:
                return None
            settings.append(setting)
    return ", ".join(settings)


def _fit(found: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return all(size in (None, n) for n, size in zip(found, wanted))


def _setting(frontend: Frontend, letter: str, size: int) -> str | None:
    """What makes an axis as long as it is wanted."""
    if letter == "T":
        return f"frames={size}"
    if letter == "C":
        listed = not isinstance(frontend.channels, int)
        return f"channels, a list with {size} dicts" if listed else f"channels={size}"
    if frontend.kind == "mel":
        return f"n_mels={size}"
    if frontend.kind == "cqt":
        return f"n_bins={size}"
    if frontend.kind == "filters":
        return f"filters with {size} bands"
    if frontend.kind == "waveform":
        return f"kind='mel', n_mels={size}"
    bins = 1 + frontend.n_fft // 2
    # One or two bins are often left out: the lowest, the highest.
    if 0 < bins - size <= 2:
        return f"bins=({bins - size - (bins - size) // 2}, {bins - 1 - (bins - size) // 2})"
    return f"n_fft={2 * (size - 1)}" if size > 1 else None
