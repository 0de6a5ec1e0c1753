"""A file's streams of sound, by what kind of file it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import chunks, flac, mpeg, ogg
from .foreign import foreign_name
from .pieces import Needed, Part, read_at
from .tags import without_tags

__all__ = ["foreign_kind", "parts"]

# Enough to tell every kind.
_HEAD = 512


def parts(file: Any, size: int, needed: Needed, measure: ogg.Measure) -> Iterator[Part]:
    """The streams of sound in a file, one after another.

    Parameters
    ----------
    file : binary file object
    size : int
        Of the file, in bytes; what is appended meanwhile is not looked at.
    needed : callable
        From the rate to how many samples are needed from the start on, or None for all.
    measure : callable
        From pieces to how many samples there are in them, and their rate.

    Raises
    ------
    AudioError
        If a stream is damaged in a way that libsndfile would not notice.
    """
    start, stop = without_tags(file, 0, size)
    head = read_at(file, start, _HEAD)
    if chunks.is_known(head):
        yield from chunks.parts(file, start, stop, needed)
    elif head.startswith(b"fLaC"):
        yield from flac.parts(file, start, stop, needed)
    elif head.startswith(b"OggS"):
        yield from ogg.parts(file, start, stop, measure)
    elif foreign_name(head) is None and mpeg.begins(file, start, stop):
        yield from mpeg.parts(file, start, stop, needed)
    else:
        yield Part(((start, stop),))


def foreign_kind(file: Any, size: int) -> str | None:
    """What kind of file it is, if it is known and not read."""
    start, _ = without_tags(file, 0, size)
    return foreign_name(read_at(file, start, _HEAD))
