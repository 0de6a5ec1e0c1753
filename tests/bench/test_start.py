"""What `python -m bench` looks at before it times anything."""

from __future__ import annotations

import sys

import pytest

from bench import __main__ as command
from fastdeconv.kernels import dispatch


@pytest.fixture
def run(monkeypatch, tmp_path):
    """``run()``: the text of RESULTS.md, of no section, by a package without the extension."""
    monkeypatch.setattr(dispatch, "_native_module", lambda: None)
    monkeypatch.setattr(command, "SECTIONS", {})
    monkeypatch.setattr(command, "keep_freed_memory", lambda: None)
    output = tmp_path / "RESULTS.md"
    monkeypatch.setattr(sys, "argv", ["bench", "--output", str(output)])

    def call() -> str:
        assert command.main() == 0
        return output.read_text(encoding="utf-8")

    return call


def test_without_the_extension_nothing_is_timed_and_the_reason_is_given(run, monkeypatch):
    monkeypatch.delenv("FASTDECONV_BACKEND", raising=False)
    with pytest.raises(SystemExit, match=r"fastdeconv has no native extension.*pip install -e"):
        run()


def test_another_back_end_that_is_asked_for_is_timed_and_named(run, monkeypatch):
    monkeypatch.setenv("FASTDECONV_BACKEND", "reference")
    assert "on its default back end (reference)" in run()
