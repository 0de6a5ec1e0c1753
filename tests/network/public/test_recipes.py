"""Every recipe is complete, and only the files that it names are read."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib import resources

import pytest

import fastdeconv as fd
from fastdeconv.network.layers import layers_from_records
from fastdeconv.network.public import is_installed, list_public, open_public
from fastdeconv.network.public.finding import find_files
from fastdeconv.network.public.reading import frontend_of
from fastdeconv.network.public.recipes import Installed, recipe

RECIPES = list_public()


def test_there_are_networks_of_several_kinds():
    names = [recipe.name for recipe in RECIPES]
    assert names == sorted(names) and len(set(names)) == len(names) >= 6
    assert len({recipe.package for recipe in RECIPES}) >= 4


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipes_are_complete(recipe):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", recipe.name)
    assert recipe.install == f"pip install --no-deps {recipe.package}=={recipe.version}"
    assert recipe.license in ("MIT", "ISC", "Apache-2.0")
    for text in (recipe.about, recipe.citation):
        assert text and text[0].isupper() and text.isprintable()
    assert not recipe.about.endswith(".") and len(recipe.about) < 120
    assert recipe.files
    for file in recipe.files:
        assert file.size > 0 and re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert ".." not in file.path and not file.path.startswith("/")
    assert recipe.reader in ("tensorflow", "torch", "onnx", "onnx-arrays", "keras")
    assert len(recipe.input_shape) == 3
    frontend = frontend_of(recipe)
    assert frontend.frames is None or frontend.frames in recipe.input_shape
    if recipe.classes is not None:
        assert len(set(recipe.classes)) == len(recipe.classes)
    if recipe.reader in ("tensorflow", "torch", "onnx-arrays"):
        layers = layers_from_records(list(recipe.layers), named=True)
        wanted = {layer.name for layer in layers if layer.array_names}
        assert wanted == set(recipe.weights) and not recipe.cut
    else:
        assert not recipe.layers and not recipe.weights
        assert set(recipe.cut) <= {"inputs", "outputs"}


def test_data_files_have_no_parts_that_nothing_uses():
    for entry in resources.files("fastdeconv.network.public").joinpath("data").iterdir():
        package = json.loads(entry.read_text("utf-8"))
        used = {own["shared"] for own in package["networks"] if "shared" in own}
        assert used == set(package.get("shared", {})), entry.name


def test_unknown_names_list_the_known_ones():
    with pytest.raises(fd.ParameterError, match=r"no public network 'x'; there are .*crepe-tiny"):
        open_public("x")
    with pytest.raises(fd.ParameterError, match="no public network 3"):
        open_public(3)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with one file, which fails when it is imported, and its recipe."""
    folder = tmp_path / "nobodys_package" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise SystemExit('it ran')")
    (folder / "net.bin").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    file = Installed(
        path="nobodys_package/models/net.bin", size=7,
        sha256=hashlib.sha256(b"weights").hexdigest(),
    )
    made = replace(
        recipe("crepe-tiny"), package="nobodys-package", version="1.2", files=(file,)
    )
    return made, folder / "net.bin"


def test_files_are_found_without_importing_the_package(package):
    made, place = package
    assert is_installed(made)
    (found,) = find_files(made)
    assert found.place == place and found.content == b"weights"
    assert "nobodys_package" not in sys.modules


@pytest.mark.parametrize("content", [b"weight!", b"weight", b"weights and more", b""])
def test_another_file_is_refused(package, content):
    made, place = package
    place.write_bytes(content)
    with pytest.raises(fd.ArchiveError, match=re.escape(
        "is not the file of nobodys-package 1.2 that crepe-tiny was tested with "
        "(it is of another version): pip install --no-deps nobodys-package==1.2"
    )):
        find_files(made)


def test_a_package_that_is_not_there_says_how_to_install_it(package):
    made, place = package
    place.unlink()
    assert not is_installed(made)
    file = replace(made.files[0], path="nobodys_other_package/net.bin")
    for missing in (made, replace(made, files=(file,))):
        with pytest.raises(fd.ParameterError, match=re.escape(
            f"the weights of crepe-tiny are {missing.files[0].path} of the package "
            "nobodys-package 1.2, and it is not installed: "
            "pip install --no-deps nobodys-package==1.2"
        )):
            find_files(missing)


def test_a_folder_in_the_place_of_a_file_is_no_file(package):
    made, place = package
    place.unlink()
    place.mkdir()
    assert not is_installed(made)


def test_listing_loads_no_other_package():
    code = (
        "import sys; from fastdeconv.network.public import list_public; list_public();"
        "print([m for m in ('torch', 'onnx', 'h5py', 'librosa', 'musicnn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_networks_can_be_saved_and_loaded(recipe, opened, tmp_path):
    if sum(file.size for file in recipe.files) > 1 << 25:
        pytest.skip("its weights are large, and another network differs in nothing else")
    net = opened(recipe.name)
    assert (net.name, net.license, net.classes) == (recipe.name, recipe.license, recipe.classes)
    assert all(n in (None, wanted) for n, wanted in zip(net.input_shape, recipe.input_shape))
    net.save(tmp_path / "net.npz")
    loaded = fd.Network.load(tmp_path / "net.npz")
    assert (loaded.layers, loaded.frontend) == (net.layers, net.frontend)
