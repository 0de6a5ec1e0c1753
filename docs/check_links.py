"""Whether every link inside a built site leads to something: ``python docs/check_links.py SITE``.

Sphinx checks the links that it makes; this also reads what pages hold as HTML of their own (sounds,
pictures, the pages of the demo). Links to other hosts are for ``sphinx -b linkcheck``.
"""

from __future__ import annotations

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The links of a page, and the places in it that a link may lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


read = cache(_Page)


def broken_links(site: Path) -> list[str]:
    """A line for every link inside the site that leads nowhere."""
    found = []
    pages = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    for path in pages:
        for link in sorted(read(path).links):
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path.resolve()
            if not target.exists():
                found.append(f"{path.relative_to(site)}: {link}: no such file")
            # Pages of the package make their places by script.
            elif url.fragment and target.suffix == ".html" and _is_of_sphinx(target):
                if unquote(url.fragment) not in read(target).anchors:
                    found.append(f"{path.relative_to(site)}: {link}: no such place")
    return found


@cache
def _is_of_sphinx(path: Path) -> bool:
    return "_static/documentation_options.js" in path.read_text(encoding="utf-8")


if __name__ == "__main__":
    lines = broken_links(Path(sys.argv[1]))
    print("\n".join(lines) if lines else "every link inside leads to something")
    sys.exit(bool(lines))
