"""Find the streams of sound in a file, whatever its container."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import chunks, flac, mpeg, ogg
from .foreign import foreign_name
from .pieces import Needed, Part, read_at
from .tags import without_tags

__all__ = ["foreign_kind", "parts"]

# Bytes that are enough to recognise every kind of file.
_HEAD = 512


def parts(file: Any, size: int, needed: Needed, measure: ogg.Measure) -> Iterator[Part]:
    """The streams of sound in a file, one after another.

    Parameters
    ----------
    file : binary file object
    size : int
        Bytes of the file. What is appended while it is read is ignored.
    needed : callable
        Takes the rate and returns how many samples from the start are needed; None for all.
    measure : callable
        Takes pieces and returns how many samples they hold, and their rate.

    Raises
    ------
    AudioError
        If a stream is damaged in a way that libsndfile does not notice.
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
    """The kind of a file that fastdeconv recognises but cannot read; else None."""
    start, _ = without_tags(file, 0, size)
    return foreign_name(read_at(file, start, _HEAD))
