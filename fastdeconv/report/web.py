"""Self-contained pages, and pieces of HTML, from the templates in ``web/``.

A browser lets a page that is opened from a disk load neither script modules nor data from other
files, so style, scripts and data are written into the page. The scripts of a page are parts of one
module and share its scope; each says at its top what it takes from the others. Everything that
comes from a file name, a tag or an archive is escaped by the templates (autoescape) or stays data
(JSON).
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["fragment", "is_ours", "render", "url"]

# A page of ours is recognised by this tag near its beginning.
_GENERATOR = '<meta name="generator" content="fastdeconv">'

_FOLDER = Path(__file__).parent / "web"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["source"] = _source
    environment.globals["generator"] = Markup(_GENERATOR)
    return environment


@functools.cache
def _source(name: str) -> Markup:
    """A style sheet or script from ``web/``, unescaped."""
    return Markup((_FOLDER / name).read_text(encoding="utf-8"))


def render(template: str, scripts: Sequence[str], content: Mapping[str, Any]) -> str:
    """A page, made of a template in ``web/``, its scripts in order, and what it shows."""
    script = "\n" + "\n".join(_source(name) for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page: str = _environment().get_template(template).render(
        # Even if text from outside got through as markup, no script in it would run.
        policy=f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
               "img-src 'self' file: data:; media-src 'self' file:",
        script=Markup(script),
        **content,
    )
    return page


def fragment(template: str, content: Mapping[str, Any]) -> str:
    """A piece of HTML for a page that is not ours; it has no script."""
    piece: str = _environment().get_template(template).render(**content)
    return piece


def is_ours(path: Path) -> bool:
    """Whether a file is a page that `render` wrote."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return _GENERATOR.encode() in file.read(2048)


def url(*parts: str) -> str:
    """The relative URL of a file from the names on its path."""
    return "/".join(quote(part, safe="") for part in parts)
