"""The notebooks of docs/examples run, and say what they say in the repository.

To write their outputs anew, from the root of the repository:

    python tests/docs/test_notebooks.py
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import tempfile
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="executes notebooks: pip install .[test]")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel", reason="runs the cells of notebooks: pip install .[test]")
pytest.importorskip("matplotlib", reason="draws the figures of notebooks: pip install .[test]")

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
NOTEBOOKS = (
    "listen.ipynb", "own_network.ipynb", "believe.ipynb", "pytorch.ipynb", "onnx.ipynb",
    "keras.ipynb", "collection.ipynb",
)
NEEDED = {
    "pytorch.ipynb": ("torch", "onnx", "onnxscript"), "onnx.ipynb": ("onnx",),
    "keras.ipynb": ("keras", "torch", "h5py"), "collection.ipynb": ("pyarrow",),
}
"""What a notebook imports that the tests themselves do not need."""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(notebook, folder):
    """The notebook with new outputs, and nothing about when and where it ran."""
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    done = client.execute()
    done.metadata = nbformat.from_dict(METADATA)
    return done


def texts(cell):
    """What a cell printed and the plain texts of what it showed; not pictures and HTML."""
    found = []
    # The kernel may send what a cell prints at once in several pieces.
    for stream, outputs in itertools.groupby(cell.outputs, lambda output: output.get("name")):
        if stream:
            found.append("".join(output.text for output in outputs))
        else:
            found += [output.data.get("text/plain", "") for output in outputs]
    return found


def test_what_is_printed_is_read_whatever_pieces_it_came_in():
    def printed(*pieces):
        return nbformat.v4.new_code_cell(outputs=[
            nbformat.v4.new_output("stream", name=name, text=text) for name, text in pieces
        ])

    whole = printed(("stdout", "one two"), ("stderr", "three"), ("stdout", "four"))
    pieces = printed(("stdout", "one "), ("stdout", "two"), ("stderr", "three"), ("stdout", "four"))
    assert texts(pieces) == texts(whole) == ["one two", "three", "four"]


def assert_same_text(found, expected):
    """Equal but for the last digit of decimals, which another machine may round otherwise."""
    decimal = r"-?\d+\.\d+"
    assert re.sub(decimal, "#", found) == re.sub(decimal, "#", expected)
    found, expected = ([float(x) for x in re.findall(decimal, s)] for s in (found, expected))
    assert found == pytest.approx(expected, abs=0.11)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_says_what_it_says_in_the_repository(name, tmp_path, monkeypatch):
    for package in NEEDED.get(name, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{name} needs {package}")
    # Nobody's own settings, and the kernel of this Python.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    kept = nbformat.read(FOLDER / name, as_version=4)
    done = execute(nbformat.read(FOLDER / name, as_version=4), tmp_path)
    for cell, before in zip(done.cells, kept.cells, strict=True):
        if cell.cell_type == "code":
            for found, expected in zip(texts(cell), texts(before), strict=True):
                assert_same_text(found, expected)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_in_the_repository_is_executed_small_and_of_no_machine(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert notebook.metadata == METADATA
    assert not any(cell.metadata for cell in notebook.cells)
    assert len(text) < 1_500_000
    assert not re.search(r"(?<![\w:/.=+])/(home|root|tmp|Users|usr|work|opt)/", text)


def refresh():
    for name in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            notebook = nbformat.read(FOLDER / name, as_version=4)
            nbformat.write(execute(notebook, folder), FOLDER / name)


if __name__ == "__main__":
    refresh()
