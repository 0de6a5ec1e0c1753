"""The command line with whole songs."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import fastdeconv as fd
from fastdeconv import cli

SR = 8000


def run(*args):
    return CliRunner().invoke(cli.main, [str(arg) for arg in args])


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "net.npz"
    fd.Network(
        [
            {"type": "conv2d", "name": "conv1", "padding": "same", "bias": False},
            {"type": "relu", "name": "relu1"},
            {"type": "max_pool2d", "name": "pool1", "kernel_size": 2},
        ],
        {"conv1.weight": np.random.default_rng(0).standard_normal((10, 1, 3, 3))},
        (1, 33, None),
        frontend={
            "kind": "stft", "sr": SR, "n_fft": 64, "hop_length": 32, "frames": 20, "scale": "db",
        },
    ).save(path)
    return path


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, 0.2 * np.random.default_rng(1).standard_normal(SR // 2), SR)
    return path


def test_all_of_a_song_is_explained_and_what_has_no_sound_is_said(tmp_path, network, song):
    out = tmp_path / "out"
    result = run("explain", song, "-o", out, "--network", network, "--duration", "all")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"{out / 'song'}: 8 features of 1 layer. 8 of 10 features have sounds and pictures: those "
        f"to hear first; --features all makes those of all. Open {out / 'song' / 'index.html'}\n"
    )
    assert soundfile.info(out / "song" / "original.wav").frames == SR // 2


def test_all_features_can_be_asked_for(tmp_path, network, song):
    out = tmp_path / "out"
    result = run(
        "explain", song, "-o", out, "--network", network, "--duration", "0.3", "--features", "all"
    )
    assert result.exit_code == 0, result.output
    assert "10 features of 1 layer. The first 0.30 s of the song were explained." in result.stdout
    assert len(list((out / "song" / "pool1").glob("feature_*.wav"))) == 10


def test_the_same_call_again_is_already_there_and_another_duration_is_not(
    tmp_path, network, song
):
    common = ["explain", song, "-o", tmp_path / "out", "--network", network]
    assert run(*common, "--duration", "all").exit_code == 0
    assert "already there, with the same settings" in run(*common, "--duration", "all").stdout
    for others in ([], ["--duration", "0.3"], ["--duration", "all", "--features", "all"]):
        result = run(*common, *others)
        assert result.exit_code == 1
        assert "already there and differs in" in result.stderr
    manifest = json.loads((tmp_path / "out" / "song" / "manifest.json").read_text())
    assert manifest["parameters"]["duration"] == "all"


def test_a_clip_as_long_as_the_song_is_still_another_result(tmp_path, network):
    short = tmp_path / "short.wav"
    soundfile.write(short, 0.2 * np.random.default_rng(1).standard_normal(19 * 32), SR)
    common = ["explain", short, "-o", tmp_path / "out", "--network", network, "--features", "3"]
    assert run(*common, "--duration", "all").exit_code == 0
    result = run(*common)
    assert result.exit_code == 1
    assert "differs in duration" in result.stderr


@pytest.mark.parametrize("duration", ["0", "-3", "nan", "inf", "long", ""])
def test_an_impossible_duration_is_a_usage_error(tmp_path, network, song, duration):
    result = run(
        "explain", song, "-o", tmp_path / "out", "--network", network, "--duration", duration
    )
    assert result.exit_code == 2
    assert "--duration" in result.stderr
    assert not (tmp_path / "out").exists()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_is_told_how_much_time_is_left(tmp_path, network, song, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    cli.main.main(
        ["explain", str(song), "-o", str(tmp_path / "out"), "--network", str(network),
         "--duration", "all"],
        standalone_mode=False,
    )
    assert "sounds" in terminal.getvalue() and "left" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()


def test_a_song_and_clips_share_an_output_folder_and_the_overview_says_so(
    tmp_path, network, song
):
    out = tmp_path / "out"
    names = ["a", "b", "c"]
    for name in names:
        (tmp_path / f"{name}.wav").write_bytes(song.read_bytes())
    common = ["-o", out, "--network", network]
    assert run("explain", *(tmp_path / f"{n}.wav" for n in "ab"), *common).exit_code == 0
    result = run("explain", tmp_path / "c.wav", *common, "--duration", "all")
    assert result.exit_code == 0
    assert "Not on that page: c (it was made with another duration)" in result.stdout
