"""What the pages of the docs and the README say is there: names, files, the whole reference."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

import fastdeconv as fd

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EACH = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def make_pages():
    spec = importlib.util.spec_from_file_location("make_pages", ROOT / "docs" / "make_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_public_name(monkeypatch):
    # Reading the reference puts these two where Sphinx looks for them.
    monkeypatch.setattr(fd, "survey", fd.survey)
    monkeypatch.setitem(sys.modules, "fastdeconv.ops", fd.ops)
    listed = re.findall(r"^   (\w[\w.]*)$", make_pages().reference(), re.MULTILINE)
    names = {name for name in fd.__all__ if name not in ("__version__", "ops")}
    assert set(listed) == names | {f"ops.{name}" for name in fd.ops.__all__}
    assert len(listed) == len(set(listed))


def test_the_help_of_every_command_is_a_page():
    from fastdeconv.cli import main

    text = make_pages().commands()
    assert re.findall(r"^## fastdeconv (\w+)$", text, re.MULTILINE) == sorted(main.commands)


@EACH
def test_a_file_that_a_page_links_to_is_there(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path = link.partition("#")[0]
        made = path.startswith("reference/")  # by the build
        if path and "://" not in link and not made:
            assert (page.parent / path).exists(), link


@EACH
def test_the_python_of_a_page_is_python_and_knows_only_public_names(page):
    text = page.read_text(encoding="utf-8")
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "fd" or node.attr in fd.__all__, node.attr
