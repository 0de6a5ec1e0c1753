"""What ``import fastdeconv`` costs and offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fastdeconv

HEAVY = ["PIL", "click", "jinja2", "librosa", "matplotlib", "numba", "scipy", "soundfile", "tqdm"]


def modules_after(code: str) -> set[str]:
    """Top-level modules a fresh interpreter has loaded after running `code`."""
    show = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import fastdeconv",
        "import fastdeconv; fastdeconv.available_backends(); fastdeconv.available_isas()",
        "import fastdeconv as fd; fd.ops.max_pool2d([[[[1.0]]]], 1, backend='reference')",
    ],
)
def test_no_heavy_package_is_imported_before_it_is_needed(code: str) -> None:
    modules = modules_after(code)
    assert "fastdeconv" in modules
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", fastdeconv.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert name in dir(fastdeconv)
    assert getattr(fastdeconv, name) is not None


@pytest.mark.parametrize("module", [fastdeconv, fastdeconv.ops])
def test_tab_offers_public_names_alone(module) -> None:
    offered = {name for name in dir(module) if not name.startswith("_")}
    assert offered == {name for name in module.__all__ if not name.startswith("_")}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'deconvolute'"):
        fastdeconv.deconvolute  # noqa: B018


def test_opening_a_network_of_ours_loads_no_importer() -> None:
    code = """
from fastdeconv.network.choosing import open_network
open_network("choi5-genre")
import sys
start = "fastdeconv.network.importers."
found = {name[len(start):].partition(".")[0] for name in sys.modules if name.startswith(start)}
assert "opening" in found and not found & {"keras", "onnx", "torch", "passes"}, found
"""
    assert "fastdeconv" in modules_after(code)
