"""The kinds of front ends, one file for each kind or family; `KINDS` is the only list of them."""

from __future__ import annotations

from .base import Framing, Kind, Samples
from .cqt import Cqt
from .filters import Filters, Mel
from .stft import StftKind
from .waveform import Waveform

__all__ = ["KINDS", "Framing", "Kind", "Samples"]

#: The kinds by name.
KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (StftKind(), Mel(), Filters(), Cqt(), Waveform())
}
