"""A survey whose layers were computed at several times, or at once by several parts."""

from __future__ import annotations

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.survey import measuring
from fastdeconv.survey.plan import Plan


@pytest.mark.parametrize("rows", [True, False])
def test_numbers_of_a_layer_are_of_the_windows_in_which_it_was_computed(
    sounds, run, monkeypatch, rows
):
    whole = run(sounds, "whole", layers=["pool1", "conv2"], rows=rows)
    run(sounds, layers="pool1", rows=rows)
    real = measuring.load_song

    def refusing(path, frontend):
        if path.endswith("sound04.wav"):
            raise fd.AudioError("it is tired")
        return real(path, frontend)

    monkeypatch.setattr(measuring, "load_song", refusing)
    found = run(sounds, layers=["pool1", "conv2"], rows=rows)
    monkeypatch.undo()
    lost = whole.tracks.to_pylist()[4]["windows"]
    count = {row["layer"]: row["n"] for row in found.features.to_pylist()}
    assert count == {"pool1": whole.counts["windows"], "conv2": whole.counts["windows"] - lost}
    for row in found.features.to_pylist():
        assert sum(row["histogram"]) == row["n"]
    # Of the others alone, wherever they are computed.
    (sounds / "sound04.wav").unlink()
    others = run(sounds, "others", layers="conv2", rows=rows).features.to_pylist()
    same = [row for row in found.features.to_pylist() if row["layer"] == "conv2"]
    for name in ("mean", "std", "active", "max", "p50"):
        np.testing.assert_allclose([row[name] for row in same], [row[name] for row in others])
    # The track could not be used with all layers: it counts for none.
    assert found.counts["errors"] == 1
    assert found.counts["windows"] == sum(row["windows"] for row in found.tracks.to_pylist())
    assert found.counts["windows"] == whole.counts["windows"] - lost


def test_a_part_does_not_forget_layers_that_another_part_added_meanwhile(
    sounds, run, monkeypatch
):
    run(sounds, layers="pool1", part=(1, 2))
    real = Plan.run

    def interrupted(self, *args, **how):
        real(self, *args, **how)
        monkeypatch.undo()
        run(sounds, layers="conv2", part=(1, 2))  # another part, on another machine

    monkeypatch.setattr(Plan, "run", interrupted)
    found = run(sounds, layers="pool1", part=(2, 2))
    assert list(found.layers) == ["pool1", "conv2"] and not found.is_complete
    assert run(sounds, layers="conv2").is_complete


def test_tables_are_not_those_of_a_folder_elsewhere(sounds, run, tmp_path, monkeypatch):
    run(sounds)
    sounds.rename(tmp_path / "moved")
    monkeypatch.setattr(Plan, "run", lambda self, *args, **how: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "moved")
    found = fd.Survey.load(tmp_path / "out")
    assert found.root == str(tmp_path / "moved") and not found.is_complete
    monkeypatch.undo()
    assert run(tmp_path / "moved").is_complete
