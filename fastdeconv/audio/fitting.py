"""Advice for a front end whose input does not fit a network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from .frontend import Frontend

__all__ = ["advice"]


def advice(frontend: Frontend, found: Sequence[int], wanted: Sequence[int | None]) -> str | None:
    """The settings to change so that a front end's input fits a network.

    Parameters
    ----------
    frontend : Frontend
    found : (C, H, W)
        Shape of the input that the front end makes.
    wanted : (C, H, W)
        Shape that the network takes; None for sizes that may vary.

    Returns
    -------
    str or None
        The settings as arguments, such as ``n_mels=64, frames=96``. None if the shape fits
        already or no setting makes it fit.
    """
    if _fit(found, wanted):
        return None
    sizes = dict(zip(frontend.layout, found))
    for letters in itertools.permutations("CFT"):
        layout = "".join(letters)
        if _fit([sizes[letter] for letter in layout], wanted):
            return f"layout={layout!r}"
    if None not in wanted and sizes["F"] > 1:
        # The own layout first: in a square, others fit too.
        for layout in (frontend.layout, *map("".join, itertools.permutations("CFT"))):
            given = dict(zip(layout, wanted))
            if all(given[axis] == sizes[axis] for axis in "CF"):
                frames = f"frames={given['T']}"
                return frames if layout == frontend.layout else f"layout={layout!r}, {frames}"
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
    """The setting that makes the axis `letter` have `size` values; None if there is none."""
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
    # Many networks leave out the lowest bin, the highest, or both.
    if 0 < bins - size <= 2:
        return f"bins=({bins - size - (bins - size) // 2}, {bins - 1 - (bins - size) // 2})"
    return f"n_fft={2 * (size - 1)}" if size > 1 else None
