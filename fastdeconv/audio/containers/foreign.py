"""Kinds of files that are recognised by their first bytes, but not read."""

from __future__ import annotations

import re

__all__ = ["foreign_name", "not_read"]

_NAMES = (
    (rb".{4}ftyp", "MP4 (m4a: AAC or ALAC)"),
    (rb"\xff[\xf0\xf1\xf8\xf9]|ADIF", "AAC"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA"),
    (rb"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (rb"wvpk", "WavPack"),
    (rb"MAC |MACF", "Monkey's Audio (ape)"),
    (rb"TTA[12]", "True Audio (tta)"),
    (rb"MPCK|MP\+", "Musepack (mpc)"),
    (rb"tBaK", "TAK"),
    (rb"OFR ", "OptimFROG"),
    (rb"\x0b\x77|\x77\x0b", "AC-3"),
    (rb"\x7f\xfe\x80\x01|\xfe\x7f\x01\x80", "DTS"),
    (rb"DSD |FRM8", "DSD"),
    (rb"#!AMR", "AMR"),
    (rb"\.RMF|\.ra\xfd", "RealAudio"),
    (rb"FLV\x01", "Flash video"),
    (rb"RIFF.{4}AVI ", "AVI"),
    (rb"MThd", "MIDI"),
    (rb"\0\0\x01\xba|\0\0\x01\xb3", "MPEG video"),
    (rb"\x47.{187}\x47.{187}\x47", "an MPEG transport stream"),
)


def foreign_name(head: bytes) -> str | None:
    """The kind of a file that begins with `head`, if it is one of these; else None."""
    for pattern, name in _NAMES:
        if re.match(pattern, head, re.DOTALL):
            return name
    return None


def not_read(name: str) -> str:
    """The message about a file of such a kind."""
    return f"{name} is not read; convert it to wav, flac, ogg or mp3, for instance with ffmpeg"
