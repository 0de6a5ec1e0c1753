"""Names from outside made safe for the file system.

Songs, layers and archives have names that nobody has checked. Only `safe_name` turns one of them
into the name of a file or folder.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

__all__ = ["safe_name", "unique_names"]

# File systems allow 255 bytes; the rest is for what is added to the names of temporary folders.
_MAX_BYTES = 200
# Slashes, and characters that Windows refuses. Control, format and surrogate characters are
# recognised by their category.
_FORBIDDEN = frozenset('/\\<>:"|?*')
_FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


def safe_name(text: str, fallback: str) -> str:
    """A name for one file or folder: never a path, never hidden, never an option.

    Unicode is kept (NFC). Slashes, control characters and characters that Windows refuses become
    ``_``. Leading dots, dashes and spaces and trailing dots and spaces are removed. Names of
    Windows devices get a leading ``_``. The result is cut to 200 bytes of UTF-8.

    Parameters
    ----------
    text : str
        Any string.
    fallback : str
        The result if nothing of `text` is left.

    Returns
    -------
    str
    """
    text = "".join(
        "_" if c in _FORBIDDEN or unicodedata.category(c) in _FORBIDDEN_CATEGORIES else c
        for c in unicodedata.normalize("NFC", text)
    )
    text = _end(text.lstrip(" .-"))
    if _WINDOWS_DEVICE.match(text):
        text = _end(f"_{text}")
    return text or fallback


def _end(text: str) -> str:
    """`text` cut between characters, without trailing dots and spaces."""
    return text.encode()[:_MAX_BYTES].decode(errors="ignore").rstrip(" .")


def unique_names(names: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """The same names, numbered (``song``, ``song-2``) where a later one would collide.

    Two names collide if they are the same to a file system that ignores case.

    Parameters
    ----------
    names : sequence of str
        Results of `safe_name`.
    taken : collection of str, optional
        Names that none of them may have.

    Returns
    -------
    list of str
        As many as `names`, in their order.
    """
    used = {_folded(name) for name in taken}
    result = []
    for name in names:
        candidate, number = name, 1
        while _folded(candidate) in used:
            number += 1
            candidate = f"{name}-{number}"
        used.add(_folded(candidate))
        result.append(candidate)
    return result


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())
