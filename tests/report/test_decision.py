"""The folder of a decision, and the command that writes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import fastdeconv as fd
from fastdeconv.cli import main
from fastdeconv.errors import ParameterError
from fastdeconv.report.numbers import with_minus
from fastdeconv.textfiles import read_rows


def decide(names: list[str] | None, *asked: str, versus: str | None = None) -> fd.Decision:
    frontend = fd.Frontend(sr=8000, n_fft=64, hop_length=32, frames=24)
    rng = np.random.default_rng(0)
    net = fd.Network(
        [{"type": "conv2d", "name": "conv"}, {"type": "relu", "name": "relu"},
         {"type": "global_avg_pool2d", "name": "mean"}, {"type": "flatten", "name": "flat"},
         {"type": "linear", "name": "fc"}],
        {"conv.weight": rng.normal(size=(4, 1, 3, 3)), "conv.bias": np.zeros(4),
         "fc.weight": rng.normal(size=(3, 4)), "fc.bias": np.zeros(3)},
        (1, 33, 24), frontend=frontend, classes=names, output="softmax",
    )
    samples = rng.normal(size=760).astype(np.float32)
    return fd.decision((samples, 8000), net, asked, ["cam", "gradient"], versus)


@pytest.fixture(scope="module")
def why() -> fd.Decision:
    return decide(["<b>rock</b>", "a/b", "=1+1"], "<b>rock</b>", "a/b")


def test_everything_is_in_the_folder(why: fd.Decision, tmp_path: Path) -> None:
    folder = why.save(tmp_path, "song", audio_format="flac")
    assert folder == tmp_path / "song"
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "<b>rock</b>" not in page and "&lt;b&gt;rock&lt;/b&gt;" in page
    for name in why.classes:
        assert with_minus(why.verdict(name)).replace("'", "&#39;") in page
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["format"] == "fastdeconv-decision"
    assert manifest["classes"] == ["<b>rock</b>", "a/b"]
    assert manifest["scores"]["a/b"]["probability"] == why.scores["a/b"].probability
    with (folder / "decision.csv").open(encoding="utf-8", newline="") as lines:
        rows = read_rows(lines)
    assert len(rows) == len(why.table)
    assert float(rows[0]["srg"]) == why.table[0]["srg"]
    assert [(r["class"], r["method"]) for r in rows] == [
        (r["class"], r["method"]) for r in why.table
    ]
    for link in page.split('src="')[1:]:
        name = link.split('"')[0].replace("%20", " ")
        assert (folder / name).is_file(), name
    sounds = [path for path in folder.iterdir() if path.suffix == ".flac"]
    assert len(sounds) > 4
    for path in sounds:
        assert soundfile.info(path).frames == 760


def test_a_class_without_a_name_is_called_a_class(tmp_path: Path) -> None:
    folder = decide(None, "2", "0", versus="1").save(tmp_path, "song")
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "<h1>Why class 2, class 0?</h1>" in page and ", and not for class 1." in page
    assert ">class 2</h2>" in page and 'alt="Map of class 2 by cam"' in page


def test_a_verdict_has_minus_signs_on_the_page(why, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fd.Decision, "verdict", lambda self, name: "hip-hop (loud: -0.07, 1e-05)")
    page = (why.save(tmp_path, "song") / "index.html").read_text(encoding="utf-8")
    assert "hip-hop (loud: \N{MINUS SIGN}0.07, 1e\N{MINUS SIGN}05)" in page


def test_the_same_decision_gives_the_same_bytes(why: fd.Decision, tmp_path: Path) -> None:
    first, second = why.save(tmp_path, "one"), why.save(tmp_path, "two")
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {
        p.name: p.read_bytes() for p in second.iterdir()
    }


def test_a_result_is_replaced_only_when_asked(why: fd.Decision, tmp_path: Path) -> None:
    why.save(tmp_path, "song")
    with pytest.raises(ParameterError, match="is already there"):
        why.save(tmp_path, "song")
    why.save(tmp_path, "song", overwrite=True)
    with pytest.raises(ParameterError, match="audio_format must be one of"):
        why.save(tmp_path, "other", audio_format="mp3")
    assert [path.name for path in tmp_path.iterdir()] == ["song"]


def test_the_command(tmp_path: Path) -> None:
    song = tmp_path / "my song.wav"
    soundfile.write(song, np.sin(np.arange(11025) / 5), 11025)
    run = CliRunner().invoke(main, [
        "why", str(song), "-o", str(tmp_path / "out"), "--methods", "cam", "--class", "metal",
        "--versus", "electronic",
    ])
    assert run.exit_code == 0, run.output
    assert "metal (" in run.output
    assert (tmp_path / "out" / "my song why" / "index.html").is_file()
    for arguments, status, words in (
        (["--class", "rock"], 1, "there is no class 'rock'; classes: 'electronic', 'metal'"),
        (["--methods", "lime"], 2, "'lime' is not one of integrated_gradients, cam"),
        (["--class", "metal", "--versus", "metal"], 1, "versus is the class 'metal' itself"),
    ):
        run = CliRunner().invoke(main, ["why", str(song), "-o", str(tmp_path / "no"), *arguments])
        assert run.exit_code == status and words in run.output
    assert not (tmp_path / "no").exists()
