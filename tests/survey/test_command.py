"""The command ``fastdeconv survey``."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import fastdeconv as fd
from fastdeconv.cli import main

from .conftest import network


@pytest.fixture
def invoke(tmp_path, sounds):
    network().save(tmp_path / "net.npz")

    def invoke(*arguments, files=sounds):
        return CliRunner().invoke(main, [
            "survey", str(files), "-o", str(tmp_path / "out"), "--network",
            str(tmp_path / "net.npz"), *arguments,
        ])

    return invoke


def test_it_says_what_there_is_and_fails_for_broken_files(invoke, sounds, tmp_path):
    (sounds / "=broken.wav").write_text("x")
    (sounds / "cover.jpg").write_text("x")
    result = invoke("--layers", "pool1,conv2", "--workers", "1")
    assert "1 file with another suffix was not read." in result.output
    assert result.exit_code == 1
    assert ": 12 of 13 tracks, " in result.output and "6 features of pool1, conv2." in result.output
    assert "1 track could not be used, see errors.csv; the first: =broken.wav: " in result.output
    # In a spreadsheet a name is no formula.
    assert "\n'=broken.wav," in (tmp_path / "out/errors.csv").read_text()
    found = fd.Survey.load(tmp_path / "out")
    assert found.counts["errors"] == 1
    assert repr(found).endswith(": 12 of 13 tracks, layers pool1, conv2>")


def test_parts_make_the_tables_when_all_are_done(invoke, tmp_path):
    first = invoke("--part", "1/2", "--workers", "1")
    assert first.exit_code == 0 and "others are not" in first.output
    assert not fd.Survey.load(tmp_path / "out").is_complete
    second = invoke("--part", "2/2", "--workers", "1", "--quiet")
    assert (second.exit_code, second.output) == (0, "")
    assert fd.Survey.load(tmp_path / "out").is_complete


def test_a_control_is_the_same_survey_of_an_untrained_network(invoke, tmp_path):
    result = invoke("--control", "--workers", "1", "--no-atlas")
    assert result.exit_code == 0, result.output
    own, control = (fd.Survey.load(tmp_path / name) for name in ("out", "out/control"))
    assert control.tracks.column("track").equals(own.tracks.column("track"))
    assert control.layers == own.layers
    assert not control.features.column("mean").equals(own.features.column("mean"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--part", "3/2"], "'3/2' is not i/n"),
        (["--part", "half"], "'half' is not i/n"),
        (["--scheduler", "tcp://x:1", "--workers", "2"], "--workers is for processes of this"),
    ],
)
def test_options_that_make_no_sense_are_refused(invoke, arguments, reason):
    result = invoke(*arguments)
    assert result.exit_code == 2 and reason in result.output


def test_an_empty_folder_is_an_error(invoke, tmp_path):
    (tmp_path / "none").mkdir()
    result = invoke(files=tmp_path / "none")
    assert result.exit_code == 1 and "no sound in this folder" in result.output
    assert not (tmp_path / "out").exists()
