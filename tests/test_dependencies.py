"""What is imported is declared, and what is declared for all is enough for all but the extras."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastdeconv
from fastdeconv.kernels.dispatch import available_backends

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest brings

PACKAGE = Path(fastdeconv.__file__).parent
ROOT = Path(__file__).parents[1]
# Packages whose name on PyPI is not the one that is imported.
ON_PYPI = {"fluidsynth": "pyfluidsynth"}


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


def lists_of_setup() -> dict[str, set[str]]:
    """The lists of requirements in setup.py, which is not run."""
    found = {}
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("DEPENDENCIES", "WITHOUT_NATIVE"):
                found[name] = {name_of(text) for text in ast.literal_eval(node.value)}
    return found


def extras() -> dict[str, set[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        extra: {name_of(text) for text in listed}
        for extra, listed in project["optional-dependencies"].items()
    }


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports, also by functions such as ``optional_module("onnx", ...)``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            first = node.args[0]
            if called.endswith("_module") and isinstance(first, ast.Constant):
                yield str(first.value)


def imported() -> dict[str, set[str]]:
    """Packages of others -> the files that import them."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
            top = name.partition(".")[0]
            if top and top != "fastdeconv" and top not in sys.stdlib_module_names:
                found.setdefault(ON_PYPI.get(top, top), set()).add(str(path.relative_to(PACKAGE)))
    return found


def test_everything_imported_is_declared():
    users = {key: value for key, value in extras().items() if key not in ("test", "bench")}
    declared = set.union(*lists_of_setup().values(), *users.values())
    assert {name: files for name, files in imported().items() if name not in declared} == {}


def test_everything_declared_for_all_is_imported():
    assert lists_of_setup()["DEPENDENCIES"] <= set(imported())


def test_numba_is_declared_in_the_same_way_where_there_is_no_compiler_and_as_an_extra():
    assert lists_of_setup()["WITHOUT_NATIVE"] == extras()["numba"]


def test_every_extra_that_an_error_names_exists():
    named = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for group in re.findall(r"fastdeconv\[([\w,]+)\]", text):
            named |= set(group.split(","))
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "optional_module":
                named |= {arg.value for arg in call.args[2:] if isinstance(arg, ast.Constant)}
    assert len(named) > 5
    assert named <= set(extras())


WITHOUT = """
import sys
for name in {missing}:
    sys.modules[name] = None
sys.path[:0] = {path}
import numpy as np
import fastdeconv as fd
from fastdeconv.cli import main
"""


def run_without_extras(code: str) -> None:
    """Run `code` where everything is missing that `pip install fastdeconv` does not bring."""
    for_all = lists_of_setup()["DEPENDENCIES"]
    missing = sorted({"fluidsynth", "PIL"} | (set(imported()) - for_all))
    assert {"librosa", "matplotlib", "numba"} <= set(missing)
    start = WITHOUT.format(missing=missing, path=[str(PACKAGE.parent)])
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif("native" not in available_backends(), reason="tests the native back end")
def test_sounds_are_explained_without_numba_and_librosa(tmp_path):
    run_without_extras(f"""
assert fd.available_backends()[0] == "native" and "numba" not in fd.available_backends()
out = {str(tmp_path)!r}
main(["explain", "--demo", "-o", out, "--layers", "pool2", "--features", "0-1", "-q"],
     standalone_mode=False)
net = fd.Network(
    [{{"type": "conv2d", "name": "conv"}}, {{"type": "relu", "name": "relu"}}],
    {{"conv.weight": np.ones((2, 1, 3, 3)), "conv.bias": np.zeros(2)}}, (1, None, None),
    frontend=fd.Frontend(kind="mel", sr=8000, n_fft=256, hop_length=128, n_mels=20), name="n",
)
clip = fd.Clip(np.sin(np.arange(8000.0) ** 1.3), 8000, net.frontend)
assert fd.explain(clip, net).sound("relu", 1).any()
""")
    assert list(tmp_path.rglob("feature_0.wav"))


def test_a_constant_q_front_end_says_that_it_needs_librosa():
    run_without_extras("""
try:
    fd.Clip(np.ones(8000), 8000, fd.Frontend(kind="cqt", sr=8000, n_bins=24))
except fd.ParameterError as error:
    assert "pip install 'fastdeconv[librosa]'" in str(error), error
else:
    raise AssertionError("no error")
""")
