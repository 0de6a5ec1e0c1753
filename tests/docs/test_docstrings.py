"""The docstrings of everything public: their examples run, and they say what they have to."""

from __future__ import annotations

import doctest
import functools
import importlib
import importlib.util
import inspect
import types

import pytest

import fastdeconv as fd

# A package and a function share this name, and the function is what users call.
SURVEY = importlib.import_module("fastdeconv.survey.surveying").survey
METHODS = (types.FunctionType, classmethod, staticmethod, property, functools.cached_property)


def public_objects():
    """(name, value) of every public function and class, and of every public method."""
    for name in sorted(fd._EXPORTS):
        value = SURVEY if name == "survey" else getattr(fd, name)
        if isinstance(value, types.ModuleType):
            yield from ((f"{name}.{member}", getattr(value, member)) for member in value.__all__)
            continue
        yield name, value
        for member in dir(value) if inspect.isclass(value) else ():
            found = inspect.getattr_static(value, member)
            own = not member.startswith("_") and not hasattr(Exception, member)
            if own and isinstance(found, METHODS):
                yield f"{name}.{member}", getattr(found, "__func__", found)


OBJECTS = dict(public_objects())
FUNCTIONS = [name for name, value in OBJECTS.items() if isinstance(value, types.FunctionType)]
EXAMPLES = [
    test
    for name, value in OBJECTS.items()
    for test in doctest.DocTestFinder(recurse=False).find(value, name, globs={})
    if test.examples
]


NEEDED = {"from_torch": ("torch", "onnx", "onnxruntime", "onnxscript")}
"""What an example imports that the tests themselves do not need."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_example_of_a_docstring_gives_what_it_says(example, tmp_path, monkeypatch):
    for package in NEEDED.get(example.name, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"it needs {package}")
    monkeypatch.chdir(tmp_path)
    said = []
    result = doctest.DocTestRunner().run(example, out=said.append)
    assert not result.failed, "".join(said)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "." not in name])
def test_a_public_function_has_an_example(name):
    assert name in {example.name for example in EXAMPLES}


CHECKS = {
    "GL06": "sections that numpydoc does not know",
    "GL07": "sections in another order",
    "GL08": "no docstring",
    "PR02": "parameters that are not there",
    "PR10": "no space before the colon of a parameter",
    "SS03": "a summary without a full stop",
    "SS06": "a summary of several lines",
}
OF_FUNCTIONS = {"PR01": "parameters that are not documented", "RT01": "no word on what it returns"}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_public_docstring_says_what_it_has_to(name):
    validate = pytest.importorskip("numpydoc.validate", reason="pip install .[docs]")
    value = OBJECTS[name]
    checks = CHECKS | (OF_FUNCTIONS if isinstance(value, types.FunctionType) else {})
    errors = validate.validate(validate.get_doc_object(value))["errors"]
    assert not [f"{code} {text}" for code, text in errors if code in checks]
