from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.report import overview
from fastdeconv.report.web import render

from .conftest import data_of

SR = 8000


def make_network(seed=0, name="tiny"):
    rng = np.random.default_rng(seed)
    return fd.Network(
        [
            {"type": "conv2d", "name": "conv1", "padding": "same"},
            {"type": "relu", "name": "relu1"},
            {"type": "max_pool2d", "name": "pool1", "kernel_size": 2},
        ],
        {"conv1.weight": rng.standard_normal((3, 1, 3, 3)), "conv1.bias": np.zeros(3)},
        (1, None, None),
        frontend=fd.Frontend(sr=SR, n_fft=64, hop_length=32),
        name=name,
    )


def save(out, name, seed=0, **how):
    samples = 0.2 * np.random.default_rng(seed).standard_normal(1600).astype(np.float32)
    return fd.explain((samples, SR), how.pop("net", make_network()), **how).save(out, name)


def test_pages_allow_no_script_but_their_own(tmp_path):
    song = save(tmp_path, "a")
    for page in (fd.overview(tmp_path), song / "index.html"):
        text = page.read_text(encoding="utf-8")
        (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
        rules = dict(rule.split(maxsplit=1) for rule in html.unescape(policy).split("; "))
        (script,) = re.findall(r'<script type="module">(.*?)</script>', text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert rules["script-src"] == f"'sha256-{digest}'"
        assert rules["default-src"] == "'none'"
        assert not re.search("https?:", policy)


def test_an_overview_holds_every_song_and_where_its_files_are(tmp_path):
    for i, name in enumerate(("b", "a", "c d#e")):
        save(tmp_path, name, i)
    data = data_of(fd.overview(tmp_path))
    assert [song["name"] for song in data["songs"]] == ["a", "b", "c d#e"]
    assert data["songs"][2]["page"] == "c%20d%23e/index.html"
    assert [(f["layer"], f["k"]) for f in data["features"]] == [("pool1", k) for k in range(3)]
    for feature in data["features"]:
        for song in feature["songs"]:
            for file in (song["picture"], song["sound"]):
                assert (tmp_path / file.replace("%20", " ").replace("%23", "#")).is_file()


def test_a_feature_that_one_song_lacks_is_said_to_be_missing_there(tmp_path):
    save(tmp_path, "a")
    save(tmp_path, "b", features=[1])
    data = data_of(fd.overview(tmp_path))
    assert [[song is not None for song in f["songs"]] for f in data["features"]] == [
        [True, False], [True, True], [True, False]
    ]


def test_only_songs_of_one_network_and_one_rule_are_compared(tmp_path):
    for name in ("a", "b"):
        save(tmp_path, name)
    save(tmp_path, "other", net=make_network(name="another"))
    save(tmp_path, "guided", rule="guided")
    names = [song["name"] for song in data_of(fd.overview(tmp_path))["songs"]]
    assert names == ["a", "b"]


def test_songs_that_are_left_out_are_named_with_the_reason(tmp_path, monkeypatch):
    def render_with(left_out):
        monkeypatch.setattr(overview, "render", lambda page, scripts, own: render(
            page, scripts, {**own, "left_out": left_out}))
        return fd.overview(tmp_path).read_text(encoding="utf-8")

    save(tmp_path, "a")
    text = " ".join(render_with([("<b>other", "another rule"), ("x", "damaged")]).split())
    assert "Not on this page:" in text
    assert "<li>&lt;b&gt;other: another rule</li> <li>x: damaged</li>" in text
    assert "Not on this page" not in render_with([])


def test_songs_from_other_places_of_their_files_are_compared_all_the_same(tmp_path):
    save(tmp_path, "a")
    save(tmp_path, "b", offset=0.05)
    assert len(data_of(fd.overview(tmp_path))["songs"]) == 2


def test_folders_of_others_and_damaged_results_are_left_out(tmp_path):
    save(tmp_path, "a")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "manifest.json").write_text("{")
    damaged = save(tmp_path, "damaged")
    (damaged / "features.csv").unlink()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "manifest.json").write_text('{"format": "other", "version": 1}')
    assert [song["name"] for song in data_of(fd.overview(tmp_path))["songs"]] == ["a"]


def test_a_folder_name_in_a_manifest_is_not_trusted_as_a_path(tmp_path):
    folder = save(tmp_path, "a")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["layers"][0]["folder"] = "../../elsewhere"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "elsewhere" not in fd.overview(tmp_path).read_text(encoding="utf-8")


def test_an_overview_is_replaced_but_a_page_of_others_is_not(tmp_path):
    save(tmp_path, "a")
    first = fd.overview(tmp_path).read_bytes()
    save(tmp_path, "b")
    assert fd.overview(tmp_path).read_bytes() != first
    (tmp_path / "index.html").write_text("<!doctype html><p>mine")
    with pytest.raises(fd.ParameterError, match="not a page of fastdeconv"):
        fd.overview(tmp_path)
    assert (tmp_path / "index.html").read_text() == "<!doctype html><p>mine"
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "index.html"]


def test_nothing_to_show_is_an_error(tmp_path):
    with pytest.raises(fd.ParameterError, match="no results of explain"):
        fd.overview(tmp_path)
    with pytest.raises(fd.ParameterError, match="no results of explain"):
        fd.overview(tmp_path / "nowhere")
    assert os.listdir(tmp_path) == []


def test_the_same_results_give_the_same_bytes(tmp_path):
    save(tmp_path, "a")
    assert fd.overview(tmp_path).read_bytes() == fd.overview(tmp_path).read_bytes()


# Neighbours are data from strangers


def changed(*path, to=...):
    """A change of a manifest: a value set, or taken away."""

    def change(manifest):
        for key in path[:-1]:
            manifest = manifest[key]
        if to is ...:
            del manifest[path[-1]]
        else:
            manifest[path[-1]] = to

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(changed(key) for key in ("song", "audio", "network", "layers", "frontend",
                                   "parameters", "computation")),
        changed("song", to=None), changed("frontend", to=None), changed("network", to=5),
        changed("frontend", "n_fft", to=2**40), changed("frontend", "n_fft", to=0),
        changed("frontend", "sr", to="x"), changed("audio", "samples", to=-1),
        changed("audio", "samples", to=2**60), changed("audio", "format", to="../x"),
        changed("audio", "original_rms", to="x"), changed("parameters", to=[]),
        changed("parameters", "start", to=7), changed("layers", to=None),
        changed("layers", 0, "folder", to=5), changed("version", to=99),
    ],
)
def test_a_neighbour_with_a_damaged_manifest_is_left_out_by_name(tmp_path, change):
    save(tmp_path, "a")
    broken = save(tmp_path, "b", seed=1) / "manifest.json"
    manifest = json.loads(broken.read_text(encoding="utf-8"))
    change(manifest)
    broken.write_text(json.dumps(manifest), encoding="utf-8")
    written = overview.write_overview(tmp_path, least=1)
    assert [name for name, _ in written.left_out] == ["b"]
    assert written.left_out[0][1].startswith("it is damaged: ")
    assert [song["name"] for song in data_of(written.page)["songs"]] == ["a"]


@pytest.mark.parametrize("text", ["", "[" * 200_000, "{", '{"format": NaN}', "\xff"])
def test_a_neighbour_with_a_manifest_that_is_no_json_is_left_out_by_name(tmp_path, text):
    save(tmp_path, "a")
    (save(tmp_path, "b") / "manifest.json").write_text(text, encoding="latin-1")
    assert [name for name, _ in overview.write_overview(tmp_path, least=1).left_out] == ["b"]


@pytest.mark.parametrize("text", ["5", "null", "[]", '{"name": "app", "start_url": "/"}'])
def test_a_folder_of_something_else_is_no_song(tmp_path, text):
    save(tmp_path, "a")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text(text)
    assert overview.write_overview(tmp_path, least=1).left_out == []


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace("label", "lab"), lambda t: t.replace("pool1,0,", "pool1,x,"),
        lambda t: t.replace("pool1,0,", "pool1,,"), lambda t: t.replace("0.", "nan."),
        lambda t: t.replace("\n", "\n,,,\n"), lambda t: t + '"' + "a" * 200_000,
        lambda t: t.replace("pool1,0,", "pool9,0,"), lambda t: "",
    ],
)
def test_a_neighbour_with_a_damaged_table_is_left_out_by_name(tmp_path, change):
    save(tmp_path, "a")
    table = save(tmp_path, "b", seed=1) / "features.csv"
    table.write_text(change(table.read_text()))
    assert [name for name, _ in overview.write_overview(tmp_path, least=1).left_out] == ["b"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("file", ["manifest.json", "features.csv"])
def test_pipes_and_devices_in_a_neighbour_are_not_waited_for(tmp_path, file):
    save(tmp_path, "a")
    for name in ("pipe", "device"):
        (save(tmp_path, name) / file).unlink()
    os.mkfifo(tmp_path / "pipe" / file)
    (tmp_path / "device" / file).symlink_to("/dev/zero")
    left_out = overview.write_overview(tmp_path, least=1).left_out
    assert [name for name, _ in left_out] == ["device", "pipe"]
    assert all("not a regular file" in reason for _, reason in left_out)
