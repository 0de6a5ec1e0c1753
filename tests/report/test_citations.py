"""What to cite is said in the same way everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fastdeconv as fd
from fastdeconv.report.citations import AURALISATION, DECONVNET

ROOT = Path(__file__).parents[2]


def test_bibtex_has_the_papers_and_the_installed_version():
    text = fd.cite()
    assert re.findall(r"^@\w+\{(\w+),$", text, re.MULTILINE) == [
        "choi2016explaining", "zeiler2014visualizing", "fastdeconv",
    ]
    assert f"version = {{{fd.__version__}}}" in text
    assert text.isascii()
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("text", [AURALISATION, DECONVNET])
def test_sentences_bibtex_and_citation_file_name_the_same_papers(text):
    title = re.search(r": (.*?)\. ", text)[1]
    assert f"{{{title}}}" in fd.cite()
    file = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"title: {title}\n" in file
    assert re.search(r"arXiv:[\d.]*\d", text)[0] in file


def test_the_citation_file_is_of_this_version():
    file = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {fd.__version__}\n" in file
