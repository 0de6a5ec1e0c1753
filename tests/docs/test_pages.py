"""What the pages of the docs and the README say is there: names, files, the whole reference."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
import soundfile

import fastdeconv as fd

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A package and a function share this name, and the function is what users call.
SURVEY = importlib.import_module("fastdeconv.survey.surveying").survey
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


def blocks(page, language):
    """The pieces of code on a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def public(node):
    """The public function or class that a piece of Python names as ``fd.NAME``, if it does."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.value.id == "fd":
            assert node.attr in fd.__all__
            return SURVEY if node.attr == "survey" else getattr(fd, node.attr)
    return None


@EACH
def test_the_python_of_a_page_is_python_and_calls_public_names_with_arguments_they_have(page):
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            public(node)
            called = public(node.func) if isinstance(node, ast.Call) else None
            # ``fd.Frontend(...)`` leaves its arguments to the reader.
            if called and not any(ast.unparse(arg) == "..." for arg in node.args):
                keywords = [keyword.arg for keyword in node.keywords if keyword.arg]
                inspect.signature(called).bind_partial(*node.args, **dict.fromkeys(keywords))


@EACH
def test_the_commands_of_a_page_have_the_options_it_gives_them(page):
    from fastdeconv.cli import main

    for code in blocks(page, "sh"):
        for line in code.replace("\\\n", " ").splitlines():
            line = re.sub(r"^(\w+=\S+ )+", "", line)  # variables
            words = shlex.split(line, comments=True)
            if words[:1] == ["fastdeconv"]:
                command = main.commands[words[1]]
                given, _, _ = command.make_parser(click.Context(command)).parse_args(words[2:])
                needed = {param.name for param in command.params if param.required}
                assert needed <= {name for name, value in given.items() if value}, line


@pytest.mark.parametrize("name", ["explain", "decisions", "songs", "protocols"])
def test_the_python_of_a_page_runs(name, tmp_path, monkeypatch):
    """From the top of the page to its end, on the demo clip."""
    if name == "protocols":
        pytest.importorskip("matplotlib", reason="draws: pip install .[test]")
        pytest.importorskip("librosa", reason="changes pitch and tempo: pip install .[test]")
    monkeypatch.chdir(tmp_path)
    demo = ROOT / "fastdeconv" / "data" / "demo.flac"
    samples, sr = soundfile.read(demo)
    for song in ("song.mp3", "song.wav", "other.mp3"):
        soundfile.write(song, samples, sr)
    given = {"paths": [demo, "song.wav", "other.mp3"]}
    given["clip"] = fd.load_clip(demo, fd.pretrained("choi5-genre").frontend)
    for code in blocks(ROOT / "docs" / f"{name}.md", "python"):
        exec(compile(code, f"{name}.md", "exec"), given)
