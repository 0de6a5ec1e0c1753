"""Advise another argument of an importer, in Python and on the command line."""

from __future__ import annotations

import shlex
from typing import NamedTuple

__all__ = ["Call"]


class Call(NamedTuple):
    """The call that imports a model, for messages."""

    beginning: str
    """Such as ``from_onnx(..., ``."""
    has_command: bool
    """Whether ``fastdeconv import`` can import the model, too."""

    def with_argument(self, key: str, value: str) -> str:
        """The call with one more argument, and the command with the option that is the same."""
        text = f"{self.beginning}{key}={value!r})"
        if not self.has_command:
            return text
        return f"{text}, or fastdeconv import ... --{key} {shlex.quote(value)}"
