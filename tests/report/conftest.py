"""What the tests of pages share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def data_of(page: Path) -> Any:
    """The data in a page that its script reads."""
    text = page.read_text(encoding="utf-8")
    begin = text.index('id="data">') + len('id="data">')
    return json.loads(text[begin : text.index("</script>", begin)])


def atlas_of(folder: Path) -> Any:
    """The data of the atlas of a survey that `make_survey` made in `folder`."""
    return data_of(folder / "out" / "index.html")
